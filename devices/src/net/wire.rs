//! The header before each packet ("Device Operation").

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::features;
use super::{Checksum, Offload, Segmentation, SegmentationKind};

/// VIRTIO_NET_HDR_F_NEEDS_CSUM.
const NEEDS_CSUM: u8 = 1;
/// VIRTIO_NET_HDR_F_DATA_VALID.
const DATA_VALID: u8 = 2;

/// VIRTIO_NET_HDR_GSO_NONE.
const GSO_NONE: u8 = 0;
/// VIRTIO_NET_HDR_GSO_TCPV4.
const GSO_TCPV4: u8 = 1;
/// VIRTIO_NET_HDR_GSO_TCPV6.
const GSO_TCPV6: u8 = 4;

/// struct virtio_net_hdr. Without features that are never offered it ends with `num_buffers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    flags: u8,
    gso_type: u8,
    hdr_len: U16,
    gso_size: U16,
    csum_start: U16,
    csum_offset: U16,
    num_buffers: U16,
}

/// Size of the header in bytes.
pub(super) const HEADER_SIZE: usize = size_of::<Header>();

impl Header {
    /// The header of a packet for the driver, whose headers (up to the transport payload) are `headers` bytes
    /// long, if that is known, and which is spread over `buffers` of the driver's buffers.
    pub(super) fn new(offload: &Offload, headers: u16, buffers: u16) -> Self {
        let mut header = Header {
            num_buffers: buffers.into(),
            ..Header::default()
        };
        match offload.checksum {
            Checksum::Unknown => {}
            Checksum::Valid => header.flags = DATA_VALID,
            Checksum::Partial { start, offset } => {
                header.flags = NEEDS_CSUM;
                header.csum_start = start.into();
                header.csum_offset = offset.into();
            }
        }
        if let Some(Segmentation { kind, size }) = offload.segmentation {
            header.gso_type = match kind {
                SegmentationKind::Tcp4 => GSO_TCPV4,
                SegmentationKind::Tcp6 => GSO_TCPV6,
            };
            header.gso_size = size.into();
            header.hdr_len = headers.into();
        }
        header
    }

    /// What a driver wants done about a frame of `len` bytes. `None` if it asks for something wrong, or for
    /// what is not among `negotiated`. Flags that are not known are ignored, as the specification wants, and
    /// so is `hdr_len`.
    pub(super) fn offload(&self, len: usize, negotiated: u64) -> Option<Offload> {
        let mut offload = Offload::default();
        if self.flags & NEEDS_CSUM != 0 {
            let (start, offset) = (self.csum_start.get(), self.csum_offset.get());
            let end = usize::from(start) + usize::from(offset) + 2;
            if negotiated & features::CSUM == 0 || end > len {
                return None;
            }
            offload.checksum = Checksum::Partial { start, offset };
        }
        let (kind, feature) = match self.gso_type {
            GSO_NONE => return Some(offload),
            GSO_TCPV4 => (SegmentationKind::Tcp4, features::HOST_TSO4),
            GSO_TCPV6 => (SegmentationKind::Tcp6, features::HOST_TSO6),
            _ => return None,
        };
        let size = self.gso_size.get();
        if negotiated & feature == 0 || size == 0 || self.flags & NEEDS_CSUM == 0 {
            return None;
        }
        offload.segmentation = Some(Segmentation { kind, size });
        Some(offload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        let all = features::OFFERED;
        let offload = Offload {
            checksum: Checksum::Partial {
                start: 34,
                offset: 16,
            },
            segmentation: Some(Segmentation {
                kind: SegmentationKind::Tcp6,
                size: 1400,
            }),
        };
        let header = Header::new(&offload, 54, 3);
        assert_eq!(header.as_bytes(), [1, 4, 54, 0, 0x78, 5, 34, 0, 16, 0, 3, 0]);
        assert_eq!(header.offload(52, all), Some(offload));
        assert_eq!(header.offload(51, all), None);
        assert_eq!(header.offload(52, all & !features::HOST_TSO6), None);
        assert_eq!(header.offload(52, all & !features::CSUM), None);
        let bad = |change: &dyn Fn(&mut Header)| {
            let mut header = header;
            change(&mut header);
            assert_eq!(header.offload(9000, all), None);
        };
        bad(&|header| header.gso_size = 0.into());
        bad(&|header| header.flags = 0);
        bad(&|header| header.gso_type = 0x84);
        bad(&|header| header.gso_type = 3);
        bad(&|header| header.csum_start = u16::MAX.into());
        // Unknown flags, and fields without the flag that they belong to, say nothing.
        let header = Header {
            flags: 0xfe,
            gso_type: 0,
            ..header
        };
        assert_eq!(header.offload(14, 0), Some(Offload::default()));
    }
}
