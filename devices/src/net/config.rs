//! Configuration space of virtio-net ("Device configuration layout").

use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use super::{Link, Mac};

/// VIRTIO_NET_S_LINK_UP.
const LINK_UP: u16 = 1;
/// VIRTIO_NET_S_ANNOUNCE.
const ANNOUNCE: u16 = 2;

/// The least that may be said of the MTU.
const MIN_MTU: u16 = 68;
/// Full duplex.
const FULL: u8 = 1;
/// The largest known speed.
const MAX_SPEED: u32 = 0x7fff_ffff;

/// struct virtio_net_config, up to the fields of features that are never offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Config {
    mac: Mac,
    status: U16,
    max_virtqueue_pairs: U16,
    mtu: U16,
    speed: U32,
    duplex: u8,
}

impl Config {
    /// `mtu` is not the link's: "the device MUST NOT modify mtu once it has been set".
    pub(super) fn new(mac: Mac, link: &Link, mtu: u16, pairs: u16, announce: bool) -> Self {
        let status = if link.up { LINK_UP } else { 0 } | if announce { ANNOUNCE } else { 0 };
        let speed = if link.speed > MAX_SPEED {
            u32::MAX
        } else {
            link.speed
        };
        Config {
            mac,
            status: status.into(),
            max_virtqueue_pairs: pairs.into(),
            mtu: mtu.max(MIN_MTU).into(),
            speed: speed.into(),
            duplex: FULL,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

const _: () = assert!(size_of::<Config>() == 17);
