//! How long to wait before a lock is tried again.

use std::time::Duration;

/// Pauses that double up to the longest. Up to half of each is cut off, so that those who wait for
/// one lock do not ask for it as one.
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// The next pause, less this share of its half: from 0 to 1, at random.
    pub(crate) fn next(&mut self, share: f64) -> Duration {
        let pause = self.next;
        self.next = (2 * pause).min(self.longest);
        pause.mul_f64(1.0 - share / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_61_pauses_double_up_to_the_longest_and_lose_up_to_a_half() {
        const MS: Duration = Duration::from_millis(1);
        for (share, expected) in
            [(0.0, [16, 32, 64, 100, 100]), (0.5, [12, 24, 48, 75, 75]), (1.0, [8, 16, 32, 50, 50])]
        {
            let mut pauses = Pauses::new(16 * MS, 100 * MS);
            assert_eq!(expected.map(|_| pauses.next(share)), expected.map(|n| n * MS), "{share}");
        }
    }
}
