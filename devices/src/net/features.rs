//! Feature bits of virtio-net ("Feature bits"), as masks.

/// VIRTIO_NET_F_CSUM.
pub const CSUM: u64 = 1 << 0;
/// VIRTIO_NET_F_GUEST_CSUM.
pub const GUEST_CSUM: u64 = 1 << 1;
/// VIRTIO_NET_F_CTRL_GUEST_OFFLOADS.
pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
/// VIRTIO_NET_F_MTU.
pub const MTU: u64 = 1 << 3;
/// VIRTIO_NET_F_MAC.
pub const MAC: u64 = 1 << 5;
/// VIRTIO_NET_F_GUEST_TSO4.
pub const GUEST_TSO4: u64 = 1 << 7;
/// VIRTIO_NET_F_GUEST_TSO6.
pub const GUEST_TSO6: u64 = 1 << 8;
/// VIRTIO_NET_F_HOST_TSO4.
pub const HOST_TSO4: u64 = 1 << 11;
/// VIRTIO_NET_F_HOST_TSO6.
pub const HOST_TSO6: u64 = 1 << 12;
/// VIRTIO_NET_F_MRG_RXBUF.
pub const MRG_RXBUF: u64 = 1 << 15;
/// VIRTIO_NET_F_STATUS.
pub const STATUS: u64 = 1 << 16;
/// VIRTIO_NET_F_CTRL_VQ.
pub const CTRL_VQ: u64 = 1 << 17;
/// VIRTIO_NET_F_CTRL_RX.
pub const CTRL_RX: u64 = 1 << 18;
/// VIRTIO_NET_F_CTRL_VLAN.
pub const CTRL_VLAN: u64 = 1 << 19;
/// VIRTIO_NET_F_CTRL_RX_EXTRA.
pub const CTRL_RX_EXTRA: u64 = 1 << 20;
/// VIRTIO_NET_F_GUEST_ANNOUNCE.
pub const GUEST_ANNOUNCE: u64 = 1 << 21;
/// VIRTIO_NET_F_MQ.
pub const MQ: u64 = 1 << 22;
/// VIRTIO_NET_F_CTRL_MAC_ADDR.
pub const CTRL_MAC_ADDR: u64 = 1 << 23;
/// VIRTIO_NET_F_SPEED_DUPLEX.
pub const SPEED_DUPLEX: u64 = 1 << 63;

/// What a driver may switch on and off with VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET: there, too, these bits are
/// used.
pub const GUEST_OFFLOADS: u64 = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6;

/// What every device offers; one with several pairs of queues offers [`MQ`] as well.
pub(super) const OFFERED: u64 = CSUM
    | GUEST_CSUM
    | CTRL_GUEST_OFFLOADS
    | MTU
    | MAC
    | GUEST_TSO4
    | GUEST_TSO6
    | HOST_TSO4
    | HOST_TSO6
    | MRG_RXBUF
    | STATUS
    | CTRL_VQ
    | CTRL_RX
    | CTRL_VLAN
    | CTRL_RX_EXTRA
    | GUEST_ANNOUNCE
    | CTRL_MAC_ADDR
    | SPEED_DUPLEX;

/// Features and what each of them requires ("Feature bit requirements"); those that others require come
/// first.
const REQUIREMENTS: [(u64, u64); 8] = [
    (GUEST_TSO4 | GUEST_TSO6, GUEST_CSUM),
    (HOST_TSO4 | HOST_TSO6, CSUM),
    (CTRL_RX | CTRL_VLAN | CTRL_MAC_ADDR, CTRL_VQ),
    (CTRL_RX_EXTRA, CTRL_RX),
    (CTRL_GUEST_OFFLOADS, CTRL_VQ),
    (CTRL_GUEST_OFFLOADS, GUEST_CSUM),
    (GUEST_ANNOUNCE, CTRL_VQ | STATUS),
    (MQ, CTRL_VQ),
];

/// What is in effect of the features that a driver accepted: one without what it requires is not.
pub(super) fn effective(accepted: u64) -> u64 {
    REQUIREMENTS
        .iter()
        .fold(accepted, |features, (feature, required)| {
            if features & required == *required {
                features
            } else {
                features & !feature
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements() {
        assert_eq!(effective(OFFERED | MQ), OFFERED | MQ);
        assert_eq!(effective(GUEST_TSO4 | MAC), MAC);
        assert_eq!(effective(CTRL_VQ | CTRL_RX_EXTRA), CTRL_VQ);
        assert_eq!(effective(MQ | CTRL_RX | CTRL_RX_EXTRA | GUEST_ANNOUNCE), 0);
        assert_eq!(effective(CSUM | HOST_TSO6), CSUM | HOST_TSO6);
    }
}
