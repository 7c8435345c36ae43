//! Requests, responses and extra infos on the rings.

use zerocopy::little_endian::{I16, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Gso, GsoKind};

/// Bytes of an entry of the transmit ring.
pub const TX_ENTRY_BYTES: usize = 12;
/// Bytes of an entry of the receive ring.
pub const RX_ENTRY_BYTES: usize = 8;
/// The most bytes of a frame that can be transmitted (`XEN_NETIF_MAX_TX_SIZE`).
pub const MAX_TX_BYTES: usize = 0xffff;
/// Data fragments that every back end takes in a frame (`XEN_NETIF_NR_SLOTS_MIN`).
pub const MAX_FRAGMENTS: usize = 18;
/// Bytes of the pages that are named on the rings.
pub const PAGE_BYTES: usize = 4096;

/// Flags of transmit requests (`NETTXF_*`).
pub mod tx_flag {
    /// The transport checksum is still to be computed.
    pub const CHECKSUM_BLANK: u16 = 1;
    /// The transport checksum need not be looked at.
    pub const DATA_VALIDATED: u16 = 2;
    /// The frame goes on in the next request.
    pub const MORE_DATA: u16 = 4;
    /// Extra infos follow.
    pub const EXTRA_INFO: u16 = 8;
}

/// Flags of receive responses (`NETRXF_*`).
pub mod rx_flag {
    /// The transport checksum need not be looked at.
    pub const DATA_VALIDATED: u16 = 1;
    /// The transport checksum is still to be computed.
    pub const CHECKSUM_BLANK: u16 = 2;
    /// The frame goes on in the next response.
    pub const MORE_DATA: u16 = 4;
    /// Extra infos follow.
    pub const EXTRA_INFO: u16 = 8;
}

/// Status of responses (`NETIF_RSP_*`).
pub mod status {
    /// The frame was dropped.
    pub const DROPPED: i16 = -2;
    /// It failed.
    pub const ERROR: i16 = -1;
    /// Done.
    pub const OKAY: i16 = 0;
    /// No response: there was an extra info in this place.
    pub const NULL: i16 = 1;
}

/// Types of extra infos (`XEN_NETIF_EXTRA_TYPE_*`).
pub mod extra_type {
    /// Segmentation offload.
    pub const GSO: u8 = 1;
    /// Adds a group to the back end's multicast filter.
    pub const MULTICAST_ADD: u8 = 2;
    /// Takes a group out of the back end's multicast filter.
    pub const MULTICAST_DELETE: u8 = 3;
    /// A hash over the frame's addresses.
    pub const HASH: u8 = 4;
}

/// Flag of an extra info: another one follows.
pub const EXTRA_MORE: u8 = 1;

/// `struct netif_tx_request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TxRequest {
    /// The page's grant reference.
    pub grant: U32,
    /// Where in the page the bytes start.
    pub offset: U16,
    /// Of [`tx_flag`].
    pub flags: U16,
    /// Comes back in the response.
    pub id: U16,
    /// How many bytes; in a frame's first request, of the whole frame.
    pub size: U16,
}

/// `struct netif_tx_response`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TxResponse {
    /// The request's, unless the status is [`status::NULL`].
    pub id: U16,
    /// Which of [`status`].
    pub status: I16,
}

/// `struct netif_rx_request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RxRequest {
    /// Comes back in the response.
    pub id: U16,
    padding: U16,
    /// The page's grant reference.
    pub grant: U32,
}

impl RxRequest {
    /// A page that may be filled.
    pub fn new(id: u16, grant: u32) -> Self {
        Self {
            id: id.into(),
            padding: U16::ZERO,
            grant: grant.into(),
        }
    }
}

/// `struct netif_rx_response`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RxResponse {
    /// The request's.
    pub id: U16,
    /// Where in the page the bytes start.
    pub offset: U16,
    /// Of [`rx_flag`].
    pub flags: U16,
    /// How many bytes, or what went wrong.
    pub status: I16,
}

/// `struct netif_extra_info`, in place of a request or response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Extra {
    /// Which of [`extra_type`].
    pub kind: u8,
    /// [`EXTRA_MORE`] or nothing.
    pub flags: u8,
    /// What the type says.
    pub data: [u8; 6],
}

impl Extra {
    /// Segmentation offload, with nothing behind it.
    pub fn gso(gso: Gso) -> Self {
        let [low, high] = gso.size.to_le_bytes();
        let kind = match gso.kind {
            GsoKind::Tcp4 => 1,
            GsoKind::Tcp6 => 2,
        };
        Self {
            kind: extra_type::GSO,
            flags: 0,
            data: [low, high, kind, 0, 0, 0],
        }
    }

    /// A change of the back end's multicast filter, with nothing behind it. Such an info stands behind a
    /// request without bytes.
    pub fn multicast(group: [u8; 6], add: bool) -> Self {
        let kind = if add {
            extra_type::MULTICAST_ADD
        } else {
            extra_type::MULTICAST_DELETE
        };
        Self {
            kind,
            flags: 0,
            data: group,
        }
    }

    /// What it says of segmentation, if that is its type and makes sense.
    pub fn as_gso(&self) -> Option<Gso> {
        let [low, high, kind, ..] = self.data;
        let size = u16::from_le_bytes([low, high]);
        let kind = match kind {
            1 => GsoKind::Tcp4,
            2 => GsoKind::Tcp6,
            _ => return None,
        };
        (self.kind == extra_type::GSO && size != 0).then_some(Gso { kind, size })
    }
}

const _: () = {
    assert!(size_of::<TxRequest>() == TX_ENTRY_BYTES);
    assert!(size_of::<TxResponse>() <= TX_ENTRY_BYTES);
    assert!(size_of::<RxRequest>() == RX_ENTRY_BYTES);
    assert!(size_of::<RxResponse>() == RX_ENTRY_BYTES);
    assert!(size_of::<Extra>() <= RX_ENTRY_BYTES);
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Laid out by hand from the header's drawings.
    #[test]
    fn layouts() {
        let request = TxRequest {
            grant: 0x0a0b_0c0d.into(),
            offset: 0x102.into(),
            flags: (tx_flag::CHECKSUM_BLANK | tx_flag::EXTRA_INFO).into(),
            id: 0x304.into(),
            size: 0xffff.into(),
        };
        assert_eq!(
            request.as_bytes(),
            [0x0d, 0x0c, 0x0b, 0x0a, 2, 1, 9, 0, 4, 3, 0xff, 0xff]
        );
        let response = TxResponse::read_from_bytes(&[4, 3, 0xfe, 0xff]).unwrap();
        assert_eq!(
            (response.id.get(), response.status.get()),
            (0x304, status::DROPPED)
        );
        let request = RxRequest::new(0x102, 0x0a0b_0c0d);
        assert_eq!(request.as_bytes(), [2, 1, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a]);
        let response = RxResponse::read_from_bytes(&[2, 1, 0, 0x10, 5, 0, 0xff, 0xff]).unwrap();
        assert_eq!((response.id.get(), response.offset.get()), (0x102, 0x1000));
        assert_eq!((response.flags.get(), response.status.get()), (5, status::ERROR));
    }

    #[test]
    fn extras() {
        let gso = Gso {
            kind: GsoKind::Tcp6,
            size: 1440,
        };
        let extra = Extra::gso(gso);
        assert_eq!(extra.as_bytes(), [1, 0, 0xa0, 5, 2, 0, 0, 0]);
        assert_eq!(extra.as_gso(), Some(gso));
        for bytes in [
            [1, 0, 0, 0, 1, 0, 0, 0],
            [1, 0, 1, 0, 0, 0, 0, 0],
            [1, 0, 1, 0, 3, 0, 0, 0],
            [2, 0, 1, 0, 1, 0, 0, 0],
        ] {
            assert_eq!(Extra::read_from_bytes(&bytes).unwrap().as_gso(), None);
        }
        let group = [1, 0, 0x5e, 0, 0, 1];
        assert_eq!(
            Extra::multicast(group, true).as_bytes(),
            [2, 0, 1, 0, 0x5e, 0, 0, 1]
        );
        assert_eq!(Extra::multicast(group, false).kind, extra_type::MULTICAST_DELETE);
    }
}
