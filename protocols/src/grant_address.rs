//! DMA addresses that name grants: the encoding of Linux's grant DMA layer, as `docs/virtio-msg-xen.md` section 3
//! fixes it.

/// Bytes in a page and in a grant.
pub const PAGE_SIZE: usize = 4096;

const GRANT_FLAG: u64 = 1 << 63;
const REFERENCE_SHIFT: u32 = 12;
const OFFSET_MASK: u64 = (1 << REFERENCE_SHIFT) - 1;

/// A place in memory that a peer granted: bytes from `offset` on in the page of `reference`, going on in the
/// pages of the references that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantAddress {
    /// Grant reference of the first page.
    pub reference: u32,
    /// Byte offset in the first page, below [`PAGE_SIZE`].
    pub offset: u16,
}

/// The part of a buffer that lies in one granted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantChunk {
    /// The page's grant reference.
    pub reference: u32,
    /// Byte offset in the page.
    pub offset: u16,
    /// Bytes in this page; `offset + len` is at most [`PAGE_SIZE`].
    pub len: u16,
}

impl GrantAddress {
    /// Reads a DMA address. `None` unless bit 63 is set and bits 62 to 44 are clear.
    pub fn decode(address: u64) -> Option<Self> {
        if address & GRANT_FLAG == 0 {
            return None;
        }
        let reference = u32::try_from((address & !GRANT_FLAG) >> REFERENCE_SHIFT).ok()?;
        Some(Self {
            reference,
            offset: (address & OFFSET_MASK) as u16,
        })
    }

    /// The DMA address of this place.
    ///
    /// # Panics
    /// If `offset` is not below [`PAGE_SIZE`].
    pub fn encode(self) -> u64 {
        assert!(usize::from(self.offset) < PAGE_SIZE);
        GRANT_FLAG | u64::from(self.reference) << REFERENCE_SHIFT | u64::from(self.offset)
    }

    /// How many pages, and so references, `len` bytes from here on touch. Zero bytes touch none.
    pub fn pages(self, len: usize) -> usize {
        if len == 0 {
            0
        } else {
            (usize::from(self.offset) + len).div_ceil(PAGE_SIZE)
        }
    }

    /// Cuts `len` bytes from here on at the page ends. `None` if the references would wrap.
    pub fn chunks(self, len: usize) -> Option<impl Iterator<Item = GrantChunk>> {
        let pages = u32::try_from(self.pages(len)).ok()?;
        if pages > 0 {
            self.reference.checked_add(pages - 1)?;
        }
        let mut left = len;
        let mut offset = self.offset;
        Some((0..pages).map(move |page| {
            let len = left.min(PAGE_SIZE - usize::from(offset));
            let chunk = GrantChunk {
                reference: self.reference + page,
                offset,
                len: len as u16,
            };
            left -= len;
            offset = 0;
            chunk
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn refuses_what_is_no_grant() {
        assert_eq!(GrantAddress::decode(0x1000), None);
        assert_eq!(GrantAddress::decode(GRANT_FLAG | 1 << 44), None);
        assert_eq!(GrantAddress::decode(GRANT_FLAG | 1 << 62), None);
        assert_eq!(
            GrantAddress::decode(0x8000_0000_0012_3456),
            Some(GrantAddress {
                reference: 0x123,
                offset: 0x456
            })
        );
    }

    #[test]
    fn wrapping_references_are_refused() {
        let last = GrantAddress {
            reference: u32::MAX,
            offset: 4095,
        };
        assert_eq!(last.chunks(1).unwrap().count(), 1);
        assert!(last.chunks(2).is_none());
        assert!(last.chunks(usize::MAX - 4095).is_none());
    }

    proptest! {
        #[test]
        fn round_trip(reference: u32, offset in 0u16..4096) {
            let address = GrantAddress { reference, offset };
            prop_assert_eq!(GrantAddress::decode(address.encode()), Some(address));
        }

        #[test]
        fn chunks_cover_the_range(reference in 0u32..1 << 30, offset in 0u16..4096, len in 0usize..1 << 20) {
            let address = GrantAddress { reference, offset };
            let chunks: Vec<_> = address.chunks(len).unwrap().collect();
            prop_assert_eq!(chunks.len(), address.pages(len));
            prop_assert_eq!(chunks.iter().map(|c| usize::from(c.len)).sum::<usize>(), len);
            for (i, chunk) in chunks.iter().enumerate() {
                prop_assert_eq!(chunk.reference, reference + i as u32);
                prop_assert_eq!(chunk.offset, if i == 0 { offset } else { 0 });
                prop_assert!(chunk.len > 0 && usize::from(chunk.offset) + usize::from(chunk.len) <= PAGE_SIZE);
                prop_assert!(i + 1 == chunks.len() || usize::from(chunk.offset) + usize::from(chunk.len) == PAGE_SIZE);
            }
        }
    }
}
