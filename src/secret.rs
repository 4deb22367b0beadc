//! What is wiped from memory when it is let go. `SECURITY.md` says what is not.

use std::io;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use secrecy::SecretString;
use secrecy::zeroize::{Zeroize, Zeroizing};
use serde_json::{Map, Value};

/// A copy of `text`; what `text` was kept in is wiped.
pub(crate) fn secret(text: impl Into<String>) -> SecretString {
    let text = Zeroizing::new(text.into());
    // Not the text itself: shrunk to its length it may be moved, and nobody wipes where it was.
    SecretString::from(text.as_str())
}

/// A field value that is this text itself, marked sensitive. Its copies share it, and the last of
/// them drops it.
pub(crate) fn field_value(
    text: impl AsRef<[u8]> + Send + 'static,
) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Bytes that come piece by piece. What they outgrow is wiped, too.
#[derive(Default)]
pub(crate) struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    pub(crate) fn push(&mut self, piece: &[u8]) {
        let (length, capacity) = (self.0.len() + piece.len(), self.0.capacity());
        if length > capacity {
            let mut larger = Vec::with_capacity(length.max(2 * capacity));
            larger.extend_from_slice(&self.0);
            self.0 = Zeroizing::new(larger);
        }
        self.0.extend_from_slice(piece);
    }
}

impl Deref for SecretBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl io::Write for SecretBytes {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.push(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The members of a JSON object. Any text in them may be a secret, but their names are none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Members(Map<String, Value>);

impl From<Map<String, Value>> for Members {
    fn from(members: Map<String, Value>) -> Self {
        Self(members)
    }
}

impl Deref for Members {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Members {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.0.values_mut().for_each(wipe);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// K-63: a vector that grows by itself does not wipe what it leaves behind.
    #[test]
    fn k_63_secret_bytes_grow_by_our_hand() {
        let mut bytes = SecretBytes::default();
        bytes.push(b"abc");
        assert_eq!(bytes.0.capacity(), 3, "a vector makes room for eight at least");
        bytes.push(b"d");
        bytes.push(b"ef");
        assert_eq!((bytes.0.capacity(), &bytes[..]), (6, &b"abcdef"[..]));
    }
}
