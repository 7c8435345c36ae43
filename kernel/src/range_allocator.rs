//! Allocation of runs of consecutive numbers: page frames, grant references, window pages.

/// A bitmap of a fixed set of numbers `0..len`, each free or taken.
///
/// Finds the lowest run that fits. A hint skips what is known to be taken, so that single numbers, the common
/// case, cost about one word's inspection.
pub(crate) struct RangeAllocator<'a> {
    /// A set bit is a free number.
    words: &'a mut [u64],
    free: usize,
    /// No number below this one is free.
    hint: usize,
}

const BITS: usize = u64::BITS as usize;

impl<'a> RangeAllocator<'a> {
    /// How many words are needed for `len` numbers.
    pub(crate) const fn words_for(len: usize) -> usize {
        len.div_ceil(BITS)
    }

    /// An allocator on these words, with every number taken.
    pub(crate) fn new(words: &'a mut [u64]) -> Self {
        words.fill(0);
        let hint = words.len() * BITS;
        Self { words, free: 0, hint }
    }

    /// How many numbers are free.
    pub(crate) fn free_count(&self) -> usize {
        self.free
    }

    /// Takes the lowest run of `count` consecutive free numbers and returns the first of them.
    pub(crate) fn allocate(&mut self, count: usize) -> Option<usize> {
        if count == 0 || count > self.free {
            return None;
        }
        let start = self.find(count)?;
        self.set(start, count, false);
        if start == self.hint {
            self.hint = start + count;
        }
        Some(start)
    }

    /// Takes exactly this run, if all of it is free.
    pub(crate) fn allocate_at(&mut self, start: usize, count: usize) -> bool {
        let in_range = start
            .checked_add(count)
            .is_some_and(|end| end <= self.words.len() * BITS);
        if !in_range || (start..start + count).any(|number| !self.is_free(number)) {
            return false;
        }
        self.set(start, count, false);
        true
    }

    /// Gives a run back.
    ///
    /// # Panics
    /// If a number of it is free already: that is a bug of the caller.
    pub(crate) fn release(&mut self, start: usize, count: usize) {
        assert!(
            (start..start + count).all(|number| !self.is_free(number)),
            "released twice: {start}+{count}"
        );
        self.set(start, count, true);
        self.hint = self.hint.min(start);
    }

    fn is_free(&self, number: usize) -> bool {
        self.words[number / BITS] >> (number % BITS) & 1 != 0
    }

    fn set(&mut self, start: usize, count: usize, free: bool) {
        for number in start..start + count {
            let bit = 1 << (number % BITS);
            if free {
                self.words[number / BITS] |= bit;
            } else {
                self.words[number / BITS] &= !bit;
            }
        }
        if free {
            self.free += count;
        } else {
            self.free -= count;
        }
    }

    fn find(&mut self, count: usize) -> Option<usize> {
        let mut start = self.next(self.hint, true)?;
        self.hint = start;
        loop {
            let end = self.next(start, false).unwrap_or(self.words.len() * BITS);
            if end - start >= count {
                return Some(start);
            }
            start = self.next(end, true)?;
        }
    }

    /// The lowest number from `from` on that is free, or taken.
    fn next(&self, from: usize, free: bool) -> Option<usize> {
        let mut index = from / BITS;
        let mut skip = u64::MAX << (from % BITS);
        while let Some(&word) = self.words.get(index) {
            let candidates = if free { word } else { !word } & skip;
            if candidates != 0 {
                return Some(index * BITS + candidates.trailing_zeros() as usize);
            }
            skip = u64::MAX;
            index += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator(words: &mut [u64], len: usize) -> RangeAllocator<'_> {
        let mut allocator = RangeAllocator::new(&mut words[..RangeAllocator::words_for(len)]);
        allocator.release(0, len);
        allocator
    }

    #[test]
    fn takes_the_lowest_fitting_run() {
        let mut words = [0; 5];
        let mut a = allocator(&mut words, 200);
        assert_eq!(a.allocate(1), Some(0));
        assert_eq!(a.allocate(100), Some(1));
        a.release(10, 3);
        assert_eq!(a.allocate(4), Some(101));
        assert_eq!(a.allocate(2), Some(10));
        assert_eq!(a.allocate(1), Some(12));
        assert_eq!(a.allocate(1), Some(105));
        assert_eq!(a.allocate(95), None);
        assert_eq!(a.allocate(94), Some(106));
        assert_eq!(a.free_count(), 0);
        assert_eq!(a.allocate(1), None);
        assert_eq!(a.allocate(0), None);
    }

    #[test]
    fn takes_a_given_run() {
        let mut words = [0; 5];
        let mut a = allocator(&mut words, 128);
        assert!(a.allocate_at(60, 10));
        assert!(!a.allocate_at(69, 2));
        assert!(!a.allocate_at(127, 2));
        assert_eq!(a.allocate(61), None);
        assert_eq!(a.allocate(60), Some(0));
        assert_eq!(a.allocate(58), Some(70));
        assert_eq!(a.free_count(), 0);
    }

    #[test]
    fn agrees_with_a_model() {
        let mut words = [0; 5];
        let mut a = allocator(&mut words, 300);
        let mut model = [true; 300];
        let mut held: Vec<(usize, usize)> = Vec::new();
        let mut random = 12345_u64;
        for _ in 0..if cfg!(miri) { 200 } else { 20_000 } {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let pick = (random >> 33) as usize;
            if pick.is_multiple_of(2) && !held.is_empty() {
                let (start, count) = held.swap_remove(pick / 2 % held.len());
                a.release(start, count);
                model[start..start + count].fill(true);
            } else {
                let count = 1 + pick / 2 % 20;
                let expected = (0..=300 - count).find(|&s| model[s..s + count].iter().all(|&free| free));
                assert_eq!(a.allocate(count), expected);
                if let Some(start) = expected {
                    model[start..start + count].fill(false);
                    held.push((start, count));
                }
            }
            assert_eq!(a.free_count(), model.iter().filter(|&&free| free).count());
        }
    }

    #[test]
    #[should_panic(expected = "released twice")]
    fn refuses_a_double_release() {
        allocator(&mut [0], 10).release(3, 1);
    }
}
