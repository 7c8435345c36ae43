//! Lists of free small blocks, by size: what makes most allocations cheap.
//!
//! Sizes are rounded up to a power of two. A block that is freed waits in the list of its size for the next
//! allocation of that size. Of the smallest ones, the lists hold what was once needed at the same time, at
//! most. Lists of larger ones are bounded, so that what a client's requests took is of use for others when the
//! client has gone; what they have no room for goes back to where it came from.

use core::alloc::Layout;
use core::ptr::NonNull;

/// The smallest block: room for a link, and the alignment of every block.
const SMALLEST: usize = 16;
/// The largest block that is kept in a list.
const LARGEST: usize = 1024;
const LISTS: usize = (LARGEST / SMALLEST).ilog2() as usize + 1;
/// From this size on, lists are bounded: to so many bytes each.
const BOUNDED: usize = 256;
const BOUND: usize = 16 << 10;

/// A free block holds the link to the next one.
struct Free {
    next: Option<NonNull<Free>>,
}

/// The lists.
pub(super) struct SmallBlocks {
    lists: [Option<NonNull<Free>>; LISTS],
    /// How many more blocks each may take.
    room: [usize; LISTS],
}

impl SmallBlocks {
    pub(super) const fn new() -> Self {
        let mut room = [usize::MAX; LISTS];
        let mut size = BOUNDED;
        while size <= LARGEST {
            room[Self::list(size)] = BOUND / size;
            size *= 2;
        }
        Self {
            lists: [None; LISTS],
            room,
        }
    }

    /// The list of blocks of this size.
    const fn list(size: usize) -> usize {
        (size / SMALLEST).ilog2() as usize
    }

    /// The list for a layout, and the layout that all its blocks have; `None` if blocks like this are not
    /// kept.
    pub(super) fn class(layout: Layout) -> Option<(usize, Layout)> {
        if layout.size() > LARGEST || layout.align() > SMALLEST {
            return None;
        }
        let size = layout.size().next_power_of_two().max(SMALLEST);
        let layout = Layout::from_size_align(size, SMALLEST).ok()?;
        Some((Self::list(size), layout))
    }

    /// Takes a block off a list.
    pub(super) fn take(&mut self, list: usize) -> Option<NonNull<u8>> {
        let block = self.lists[list]?;
        // SAFETY: a block in a list is free, and begins with its link.
        self.lists[list] = unsafe { block.read().next };
        self.room[list] += 1;
        Some(block.cast())
    }

    /// Puts a block into a list; whether there was room.
    ///
    /// # Safety
    /// The block must have the layout of that list, and nobody may use it any more.
    #[must_use]
    pub(super) unsafe fn put(&mut self, list: usize, block: NonNull<u8>) -> bool {
        let Some(room) = self.room[list].checked_sub(1) else {
            return false;
        };
        self.room[list] = room;
        let block = block.cast::<Free>();
        // SAFETY: the block is large enough, aligned, and nobody else's.
        unsafe {
            block.write(Free {
                next: self.lists[list],
            })
        };
        self.lists[list] = Some(block);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_cover_what_they_should() {
        for size in 0..=LARGEST {
            let (list, layout) = SmallBlocks::class(Layout::from_size_align(size, 8).unwrap()).unwrap();
            assert!(layout.size() >= size && layout.size() >= SMALLEST && list < LISTS);
            assert!(layout.size() < 2 * size.max(SMALLEST));
            assert_eq!(layout.size(), SMALLEST << list);
        }
        assert!(SmallBlocks::class(Layout::from_size_align(LARGEST + 1, 1).unwrap()).is_none());
        assert!(SmallBlocks::class(Layout::from_size_align(8, 32).unwrap()).is_none());
    }

    #[test]
    fn blocks_come_back_last_in_first_out() {
        let mut memory = [0_u128; 8];
        let base = NonNull::from(&mut memory).cast::<u8>();
        let mut blocks = SmallBlocks::new();
        assert_eq!(blocks.take(1), None);
        // SAFETY: four disjoint blocks of 32 bytes, aligned to 16.
        let addresses: Vec<_> = (0..4).map(|i| unsafe { base.add(32 * i) }).collect();
        for &block in &addresses {
            // SAFETY: as above; list 1 has blocks of 32 bytes.
            assert!(unsafe { blocks.put(1, block) });
        }
        assert_eq!(blocks.take(0), None);
        for &block in addresses.iter().rev() {
            assert_eq!(blocks.take(1), Some(block));
        }
        assert_eq!(blocks.take(1), None);
    }

    #[test]
    fn lists_of_large_blocks_are_bounded() {
        let mut memory = [[0_u128; 16]; 2 * BOUND / BOUNDED];
        let mut blocks = SmallBlocks::new();
        let list = SmallBlocks::list(BOUNDED);
        for _ in 0..2 {
            let all = memory.iter_mut().map(|block| NonNull::from(block).cast::<u8>());
            // SAFETY: disjoint blocks of 256 bytes, aligned to 16, none of which is in the list.
            let taken = all.filter(|block| unsafe { blocks.put(list, *block) }).count();
            assert_eq!(taken, BOUND / BOUNDED);
            assert_eq!(core::iter::from_fn(|| blocks.take(list)).count(), taken);
        }
        assert_eq!(blocks.room[SmallBlocks::list(LARGEST)], BOUND / LARGEST);
        assert_eq!(blocks.room[SmallBlocks::list(BOUNDED / 2)], usize::MAX);
    }
}
