//! Bytes as decisions: what a fuzzer mutates, and a property asks for.

use std::time::Duration;

/// The bytes that are left. Where there are none, everything is the first choice, zero or empty.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    pub(super) fn u64(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// Between nothing and far more than any clock shows.
    pub(super) fn duration(&mut self) -> Duration {
        let seconds = self.u64() >> self.below(64);
        Duration::new(seconds, u32::from(self.byte()) * 3_906_250)
    }

    /// The bytes before the next zero, or all of them.
    pub(super) fn word(&mut self) -> &'a [u8] {
        let mut parts = self.0.splitn(2, |byte| *byte == 0);
        let word = parts.next().unwrap_or_default();
        self.0 = parts.next().unwrap_or_default();
        word
    }

    pub(super) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.word()).into_owned()
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// An HTTP status, mostly one that means something.
    pub(super) fn status(&mut self) -> u16 {
        const USUAL: [u16; 18] = [
            200, 400, 401, 403, 404, 408, 409, 425, 429, 500, 502, 503, 504, 201, 204, 302, 422,
            599,
        ];
        match usize::from(self.byte()) {
            usual @ 0..128 => USUAL[usual % USUAL.len()],
            _ => u16::from_be_bytes([self.byte(), self.byte()]),
        }
    }
}
