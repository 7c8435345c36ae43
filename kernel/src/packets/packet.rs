//! Runs of bytes in pages of a pool.

use devices::memory::Buffer;
use smallvec::SmallVec;

use super::Page;
use crate::shared::SharedMemory;
use crate::virtio_bus::PagedBuffer;

/// A part of a packet, in one page.
struct Fragment {
    page: Page,
    offset: u16,
    len: u16,
}

/// A frame's bytes, in one or several pages of a [`PacketPool`](super::PacketPool), which get them back when
/// it is dropped.
///
/// Whoever fills it by way of [`PagedBuffer`] does so before it goes anywhere.
pub struct Packet {
    /// Frames of up to 8 KiB need no allocation for this.
    fragments: SmallVec<[Fragment; 2]>,
    len: usize,
}

impl Packet {
    /// Without any bytes.
    pub(crate) fn empty() -> Self {
        Self {
            fragments: SmallVec::new(),
            len: 0,
        }
    }

    /// Adds bytes of a page at the end.
    ///
    /// # Panics
    /// If they do not lie inside the page.
    pub(crate) fn push(&mut self, page: Page, offset: usize, len: usize) {
        assert!(offset + len <= page.memory().len());
        self.fragments.push(Fragment {
            page,
            offset: offset as u16,
            len: len as u16,
        });
        self.len += len;
    }

    /// Of how many fragments it consists.
    pub(crate) fn fragments(&self) -> usize {
        self.fragments.len()
    }

    /// A fragment: its page, and offset and length in that.
    ///
    /// # Panics
    /// If there is no such fragment.
    pub(crate) fn fragment(&self, index: usize) -> (&Page, u16, u16) {
        let Fragment { page, offset, len } = &self.fragments[index];
        (page, *offset, *len)
    }

    /// Calls `each` for the parts of the range, with the page, offset and length of each.
    fn for_each_part<'a>(&'a self, offset: usize, len: usize, mut each: impl FnMut(&'a Page, usize, usize)) {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "range {offset:#x}+{len:#x}"
        );
        let (mut skip, mut left) = (offset, len);
        for fragment in &self.fragments {
            if left == 0 {
                break;
            }
            let fragment_len = usize::from(fragment.len);
            if skip >= fragment_len {
                skip -= fragment_len;
                continue;
            }
            let now = left.min(fragment_len - skip);
            each(&fragment.page, usize::from(fragment.offset) + skip, now);
            skip = 0;
            left -= now;
        }
    }
}

impl Buffer for Packet {
    fn len(&self) -> usize {
        self.len
    }

    fn read(&self, offset: usize, to: &mut [u8]) {
        let mut done = 0;
        self.for_each_part(offset, to.len(), |page, at, len| {
            page.memory().copy_out(at, &mut to[done..done + len]);
            done += len;
        });
    }

    fn write(&self, offset: usize, from: &[u8]) {
        let mut done = 0;
        self.for_each_part(offset, from.len(), |page, at, len| {
            page.memory().copy_in(at, &from[done..done + len]);
            page.written();
            done += len;
        });
    }
}

impl PagedBuffer for Packet {
    fn for_each_piece<'a>(
        &'a self,
        offset: usize,
        len: usize,
        mut each: impl FnMut(SharedMemory<'a>, usize, usize),
    ) {
        self.for_each_part(offset, len, |page, at, len| each(page.memory(), at, len));
    }
}
