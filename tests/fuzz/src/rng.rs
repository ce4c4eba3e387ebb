// SPDX-License-Identifier: GPL-2.0

//! Random numbers that depend on the seed only.

/// A generator for one call: its numbers do not depend on earlier calls.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64, lane: usize, call: u32) -> Self {
        let mut rng = Self(seed);
        for part in [lane as u64, u64::from(call)] {
            rng.0 = rng.next() ^ part;
        }
        rng
    }

    /// splitmix64
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True with a probability of `n` percent.
    pub fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// A number at or near a limit.
    pub fn edge(&mut self) -> u64 {
        let base = match self.below(4) {
            0 => 0,
            1 => 1 << self.below(64),
            2 => self.pick(&[u64::MAX, i64::MAX as u64, u32::MAX.into(), i32::MAX as u64]),
            _ => self.next() >> self.below(64),
        };
        base.wrapping_add(self.pick(&[0, 0, 1, u64::MAX, 511, 512]))
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn numbers_depend_on_arguments_only() {
        let numbers = |seed, lane, call| Rng::new(seed, lane, call).next();
        assert_eq!(numbers(1, 2, 3), numbers(1, 2, 3));
        assert_ne!(numbers(1, 2, 3), numbers(2, 2, 3));
        assert_ne!(numbers(1, 2, 3), numbers(1, 3, 3));
        assert_ne!(numbers(1, 2, 3), numbers(1, 2, 4));
    }
}
