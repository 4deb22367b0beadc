//! A part of the accounts, behind one lock, and who of them is let go.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use tokio::sync::watch;

use crate::accounts::opening::Opened;
use crate::session::Session;

/// How many are looked at to find the one that was not used for the longest time.
const SAMPLE: usize = 16;

/// A part of the accounts.
pub(super) struct Shard<K> {
    pub(super) entries: HashMap<K, Entry>,
    /// The open ones, each in its turn to be looked at.
    turns: VecDeque<K>,
}

/// What there is for an account.
pub(super) enum Entry {
    Open { session: Session, used: u32 },
    Opening(watch::Sender<Opened>),
}

impl<K: Clone + Eq + Hash> Shard<K> {
    pub(super) fn open(&mut self, account: K, session: Session, now: u32) {
        self.turns.push_back(account.clone());
        self.entries.insert(account, Entry::Open { session, used: now });
    }

    /// Looks at the next few, and takes out who was idle for too long, or else, `if_full`, the one
    /// that was not used for the longest time.
    ///
    /// To be dropped when the shard is free again: a store of the user's goes with each.
    pub(super) fn make_room(&mut self, if_full: bool, idle_since: Option<u32>) -> Vec<Entry> {
        // Two for each one that is opened: nobody escapes by the growth of the others.
        let few = if if_full { SAMPLE } else { 2 };
        let (mut evicted, oldest) = self.take_turns(few, idle_since);
        match oldest {
            Some(account) if if_full && evicted.is_empty() => {
                evicted.extend(self.entries.remove(&account));
            }
            oldest => self.turns.extend(oldest),
        }
        evicted
    }

    /// Takes out everybody who was idle for too long.
    pub(super) fn evict_idle(&mut self, idle_since: Option<u32>) -> Vec<Entry> {
        let (evicted, oldest) = self.take_turns(self.turns.len(), idle_since);
        self.turns.extend(oldest);
        evicted
    }

    /// Those of the next few that were idle for too long; and, out of turn, who of the others may
    /// go and was not used for the longest time.
    fn take_turns(&mut self, few: usize, idle_since: Option<u32>) -> (Vec<Entry>, Option<K>) {
        let mut evicted = Vec::new();
        let mut oldest: Option<(u32, K)> = None;
        for _ in 0..few.min(self.turns.len()) {
            let Some(account) = self.turns.pop_front() else { break };
            let Some(Entry::Open { session, used }) = self.entries.get(&account) else { continue };
            let was_idle = idle_since.is_some_and(|since| *used <= since);
            // Nobody can begin to use it meanwhile: the shard is locked.
            if !session.is_expendable(was_idle) {
                self.turns.push_back(account);
            } else if was_idle {
                evicted.extend(self.entries.remove(&account));
            } else if oldest.as_ref().is_none_or(|(least, _)| used < least) {
                let newer = oldest.replace((*used, account));
                self.turns.extend(newer.map(|(_, account)| account));
            } else {
                self.turns.push_back(account);
            }
        }
        (evicted, oldest.map(|(_, account)| account))
    }
}

impl<K> Default for Shard<K> {
    fn default() -> Self {
        Self { entries: HashMap::new(), turns: VecDeque::new() }
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use super::*;

    /// Bytes, at most; there may be a million, in a map that is half empty.
    const ENTRY: usize = 16;

    #[test]
    fn an_entry_stays_small() {
        assert!(size_of::<Entry>() <= ENTRY, "{} bytes", size_of::<Entry>());
    }
}
