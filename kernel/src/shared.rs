//! Memory that is shared with another domain.
//!
//! Nothing here makes a reference to shared bytes: scalars are read and written by volatile accesses of their
//! own width, ranges are copied and zeroed by assembly. Each value is therefore read once, and what is
//! checked is what is used.

use core::marker::PhantomData;
use core::sync::atomic::{Ordering, fence};

use crate::memory_functions;
use crate::stats::{Counter, count};

/// A range of mapped memory that another domain may read or write at any time.
///
/// # Panics
/// Accessors panic on an offset outside the range and on a misaligned one. Offsets are the caller's own
/// arithmetic; one that comes from the other side must be checked first. Writing to memory that was mapped
/// read-only is a page fault.
#[derive(Clone, Copy)]
pub struct SharedMemory<'a> {
    base: *mut u8,
    len: usize,
    lifetime: PhantomData<&'a ()>,
}

macro_rules! scalar {
    ($read:ident, $write:ident, $type:ty, $doc:literal) => {
        #[doc = concat!("Reads ", $doc, " at a byte offset, once.")]
        #[inline]
        pub fn $read(&self, offset: usize) -> $type {
            // SAFETY: `at` checked range and alignment.
            unsafe { self.at::<$type>(offset).read_volatile() }
        }

        #[doc = concat!("Writes ", $doc, " at a byte offset, once.")]
        #[inline]
        pub fn $write(&self, offset: usize, value: $type) {
            // SAFETY: `at` checked range and alignment.
            unsafe { self.at::<$type>(offset).write_volatile(value) }
        }
    };
}

impl<'a> SharedMemory<'a> {
    /// # Safety
    /// `len` bytes at `base` must stay mapped for `'a`, `base` must be aligned to 8 bytes at least, and there
    /// may be no reference to any of the bytes meanwhile.
    pub(crate) unsafe fn new(base: *mut u8, len: usize) -> Self {
        debug_assert!((base as usize).is_multiple_of(8));
        Self {
            base,
            len,
            lifetime: PhantomData,
        }
    }

    /// Size in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // A mapping is never empty.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The address of the first byte.
    #[inline]
    pub fn address(&self) -> usize {
        self.base as usize
    }

    #[inline]
    fn at<T>(&self, offset: usize) -> *mut T {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.len) && offset.is_multiple_of(align_of::<T>()),
            "offset {offset:#x}"
        );
        self.base.wrapping_add(offset).cast()
    }

    #[inline]
    fn range(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "range {offset:#x}+{len:#x}"
        );
        self.base.wrapping_add(offset)
    }

    scalar!(read_u8, write_u8, u8, "a byte");
    scalar!(read_u16, write_u16, u16, "16 bits");
    scalar!(read_u32, write_u32, u32, "32 bits");
    scalar!(read_u64, write_u64, u64, "64 bits");

    /// Reads 32 bits, then keeps later accesses behind it: for a producer index, before what it announces.
    #[inline]
    pub fn read_u32_acquire(&self, offset: usize) -> u32 {
        let value = self.read_u32(offset);
        fence(Ordering::Acquire);
        value
    }

    /// Writes 32 bits after all earlier accesses: for a producer index, after what it announces.
    #[inline]
    pub fn write_u32_release(&self, offset: usize, value: u32) {
        fence(Ordering::Release);
        self.write_u32(offset, value);
    }

    /// Copies bytes out of the range.
    pub fn copy_out(&self, offset: usize, to: &mut [u8]) {
        let from = self.range(offset, to.len());
        count(Counter::BytesCopied, to.len() as u64);
        // SAFETY: `range` checked the source; the target is private memory, so the two do not overlap.
        unsafe { memory_functions::copy(to.as_mut_ptr(), from, to.len()) };
    }

    /// Copies bytes into the range.
    pub fn copy_in(&self, offset: usize, from: &[u8]) {
        let to = self.range(offset, from.len());
        count(Counter::BytesCopied, from.len() as u64);
        // SAFETY: `range` checked the target; the source is private memory, so the two do not overlap.
        unsafe { memory_functions::copy(to, from.as_ptr(), from.len()) };
    }

    /// Copies bytes from one range to another, neither of which need be private. The two must not overlap.
    pub fn copy_to(&self, offset: usize, to: &SharedMemory<'_>, to_offset: usize, len: usize) {
        let from = self.range(offset, len);
        let to = to.range(to_offset, len);
        assert!((to as usize).abs_diff(from as usize) >= len, "overlapping ranges");
        count(Counter::BytesCopied, len as u64);
        // SAFETY: both ranges were checked, and do not overlap.
        unsafe { memory_functions::copy(to, from, len) };
    }

    /// Sets a range to zero.
    pub fn zero(&self, offset: usize, len: usize) {
        let to = self.range(offset, len);
        // SAFETY: `range` checked the target.
        unsafe { memory_functions::fill(to, 0, len) };
    }
}

/// A full memory barrier: what was written before it is visible before anything after it is read. For the
/// "publish my index, then look at the peer's event index" steps of ring protocols.
#[inline]
pub fn barrier() {
    fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_what_is_in_range() {
        let mut words = [0_u64; 8];
        // SAFETY: the array outlives the accessor and is not used meanwhile.
        let memory = unsafe { SharedMemory::new(words.as_mut_ptr().cast(), 64) };
        memory.write_u32_release(4, 0x01020304);
        assert_eq!(memory.read_u16(6), 0x0102);
        assert_eq!(memory.read_u64(0), 0x01020304 << 32);
        memory.copy_in(60, b"abcd");
        let mut copy = [0; 4];
        memory.copy_out(60, &mut copy);
        assert_eq!(&copy, b"abcd");
        memory.copy_to(60, &memory, 8, 4);
        assert_eq!(memory.read_u8(11), b'd');
        memory.zero(8, 16);
        assert_eq!(memory.read_u8(11), 0);
        assert_eq!(memory.read_u8(60), b'a');
    }

    #[test]
    fn refuses_what_is_not() {
        let mut words = [0_u64; 2];
        // SAFETY: the array outlives the accessor and is not used meanwhile.
        let memory = unsafe { SharedMemory::new(words.as_mut_ptr().cast(), 16) };
        for (offset, name) in [
            (13, "beyond"),
            (16, "behind"),
            (2, "misaligned"),
            (usize::MAX - 3, "wrapping"),
        ] {
            let access = std::panic::AssertUnwindSafe(|| memory.read_u32(offset));
            assert!(std::panic::catch_unwind(access).is_err(), "{name}");
        }
    }
}
