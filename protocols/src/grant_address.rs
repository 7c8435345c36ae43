//! DMA addresses that name grants: the encoding of Linux's grant DMA layer, as `docs/virtio-msg-xen.md`
//! section 3 fixes it.

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
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn round_trip(reference: u32, offset in 0u16..4096) {
            let address = GrantAddress { reference, offset };
            prop_assert_eq!(GrantAddress::decode(address.encode()), Some(address));
        }

        #[test]
        fn pages_are_those_touched(offset in 0u16..4096, len in 1usize..1 << 20) {
            let address = GrantAddress { reference: 1, offset };
            let last = (usize::from(offset) + len - 1) / PAGE_SIZE;
            prop_assert_eq!((address.pages(0), address.pages(len)), (0, last + 1));
        }
    }
}
