//! One value of the secret store, in as many entries as it needs.
//!
//! The *head* is the entry that has the user's name. It holds the value, or names the parts that do:
//! `{"format": "reqwest-refresh", "version": 1, "parts": {"id": "…", "count": 3}}`. Parts are
//! written under a new id, so what a head names is whole, and writing the head is the one step that
//! replaces a value.

use std::sync::Arc;

use keyring_core::{CredentialStore, Entry, Error};
use serde_json::{Value, json};

use crate::store::keyring::error::KeyringStoreError;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Where the value is. All of this blocks.
pub(super) struct Entries {
    store: Arc<CredentialStore>,
    service: String,
    user: String,
    head: Entry,
}

/// The parts that a head names.
struct Parts {
    id: String,
    count: u64,
    /// They are only there to be deleted.
    are_cleared: bool,
}

impl Entries {
    pub(super) fn new(store: Arc<CredentialStore>, service: String, user: String) -> Result<Self> {
        let head = store.build(&service, &user, None)?;
        Ok(Self { store, service, user, head })
    }

    pub(super) fn read(&self) -> Result<Option<Vec<u8>>, KeyringStoreError> {
        let mut head = secret(&self.head)?;
        loop {
            let parts = match head.as_deref().and_then(Parts::named_in) {
                None => return Ok(head),
                Some(parts) if parts.are_cleared => return Ok(None),
                Some(parts) => parts,
            };
            if let Some(value) = self.join(&parts)? {
                return Ok(Some(value));
            }
            let now = secret(&self.head)?;
            if now == head {
                return Err(KeyringStoreError::NotOurs { why: "a part of it is missing" });
            }
            head = now;
        }
    }

    /// Replaces the value, in one step; in several entries if one is too small.
    pub(super) fn write(&self, value: &[u8]) -> Result<()> {
        let before = self.parts();
        match self.head.set_secret(value) {
            Err(Error::TooLong(_, limit)) if fits_in_parts(value, limit) => {
                self.write_parts(value, limit as usize)?;
            }
            written => written?,
        }
        self.delete_unneeded(before);
        Ok(())
    }

    /// Removes the value. Parts are named until they are gone: who was interrupted can begin again.
    pub(super) fn clear(&self) -> Result<()> {
        if let Some(parts) = self.parts() {
            let parts = Parts { are_cleared: true, ..parts };
            self.head.set_secret(&parts.head())?;
            self.delete(&parts)?;
        }
        unless_missing(self.head.delete_credential()).map(drop)
    }

    /// The parts that are named now. What cannot be read names none, and can be replaced.
    fn parts(&self) -> Option<Parts> {
        Parts::named_in(&secret(&self.head).ok()??)
    }

    fn part(&self, parts: &Parts, index: u64) -> Result<Entry> {
        let user = format!("{}#{}-{index}", self.user, parts.id);
        self.store.build(&self.service, &user, None)
    }

    fn join(&self, parts: &Parts) -> Result<Option<Vec<u8>>> {
        let part = |index| secret(&self.part(parts, index)?);
        let value: Option<Vec<_>> = (0..parts.count).map(part).collect::<Result<_>>()?;
        Ok(value.map(|value| value.concat()))
    }

    fn write_parts(&self, value: &[u8], limit: usize) -> Result<()> {
        let parts = Parts::new(value.len().div_ceil(limit) as u64);
        let written = (0..)
            .zip(value.chunks(limit))
            .try_for_each(|(index, part)| self.part(&parts, index)?.set_secret(part))
            .and_then(|()| self.head.set_secret(&parts.head()));
        // A head that could not be written may have been written all the same.
        if written.is_err() && secret(&self.head).is_ok_and(|head| head != Some(parts.head())) {
            self.delete_unneeded(Some(parts));
        }
        written
    }

    fn delete(&self, parts: &Parts) -> Result<()> {
        (0..parts.count).try_for_each(|index| {
            unless_missing(self.part(parts, index)?.delete_credential()).map(drop)
        })
    }

    fn delete_unneeded(&self, parts: Option<Parts>) {
        if parts.is_some_and(|parts| self.delete(&parts).is_err()) {
            tracing::warn!("parts of replaced tokens could not be removed from the secret store");
        }
    }
}

impl Parts {
    fn new(count: u64) -> Self {
        Self { id: format!("{:016x}", fastrand::u64(..)), count, are_cleared: false }
    }

    fn named_in(head: &[u8]) -> Option<Self> {
        let head: Value = serde_json::from_slice(head).ok()?;
        let parts = head.get("parts").filter(|_| head["version"] == VERSION)?;
        Some(Self {
            id: parts["id"].as_str()?.to_owned(),
            count: parts["count"].as_u64().filter(|count| *count <= MOST_PARTS)?,
            are_cleared: parts["cleared"] == true,
        })
    }

    fn head(&self) -> Vec<u8> {
        let parts = json!({"id": self.id, "count": self.count, "cleared": self.are_cleared});
        let head = json!({"format": "reqwest-refresh", "version": VERSION, "parts": parts});
        head.to_string().into_bytes()
    }
}

fn fits_in_parts(value: &[u8], limit: u32) -> bool {
    value.len() as u64 <= u64::from(limit) * MOST_PARTS
}

fn secret(entry: &Entry) -> Result<Option<Vec<u8>>> {
    unless_missing(entry.get_secret())
}

fn unless_missing<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(Error::NoEntry) => Ok(None),
        result => result.map(Some),
    }
}

const VERSION: u64 = 1;
/// Far more than any token set needs; what names more is no head of ours.
const MOST_PARTS: u64 = 1000;
