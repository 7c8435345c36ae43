//! The seam between network devices, the network, and its uplinks.

use alloc::vec::Vec;
use core::task::{Context, Poll};

use super::Frame;
use crate::memory::Buffer;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// What is plugged in sees of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Frames get through.
    pub up: bool,
    /// The most bytes of a frame after its Ethernet header, VLAN tags not counted.
    pub mtu: u16,
    /// Mbit/s, or `u32::MAX` if unknown.
    pub speed: u32,
    /// How often stations had to make themselves known anew since the port exists, because the uplink leads
    /// somewhere else.
    pub announcements: u32,
}

/// Which frames a port wants to receive, beyond those for its own address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The address of its own.
    pub mac: Mac,
    /// Everything.
    pub promiscuous: bool,
    /// All frames to groups, broadcast included.
    pub all_multicast: bool,
    /// All frames to single stations.
    pub all_unicast: bool,
    /// None to groups but broadcast.
    pub no_multicast: bool,
    /// None to single stations.
    pub no_unicast: bool,
    /// None to all stations.
    pub no_broadcast: bool,
    /// Stations beside its own address; sorted.
    pub unicast: Vec<Mac>,
    /// Groups; sorted.
    pub multicast: Vec<Mac>,
    /// Only untagged frames and these VLANs, a bit for each of 4096, if there is a filter at all.
    pub vlans: Option<Vec<u64>>,
}

impl Filter {
    /// Nothing is filtered but what is for other stations: broadcast and all groups pass.
    pub fn new(mac: Mac) -> Self {
        Self {
            mac,
            promiscuous: false,
            all_multicast: true,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Vec::new(),
            multicast: Vec::new(),
            vlans: None,
        }
    }

    /// Whether a frame to this station or group, with this VLAN tag, is wanted.
    pub fn accepts(&self, to: Mac, vlan: Option<u16>) -> bool {
        if let (Some(vlans), Some(vlan)) = (&self.vlans, vlan) {
            let vlan = usize::from(vlan & 0xfff);
            if vlans
                .get(vlan / 64)
                .is_none_or(|word| word >> (vlan % 64) & 1 == 0)
            {
                return false;
            }
        }
        if self.promiscuous {
            return true;
        }
        if to == [0xff; 6] {
            return !self.no_broadcast;
        }
        if to[0] & 1 != 0 {
            return !self.no_multicast && (self.all_multicast || self.multicast.binary_search(&to).is_ok());
        }
        !self.no_unicast && (to == self.mac || self.all_unicast || self.unicast.binary_search(&to).is_ok())
    }
}

/// Where something is plugged into the network: the device of a client, an uplink, a router.
///
/// A port has one or more pairs of queues; what belongs to one flow goes through one of them. Handles are
/// cheap to clone, and the last one that is dropped unplugs.
pub trait Port: Clone + 'static {
    /// Memory for frames.
    type Buffer: Buffer + 'static;

    /// A frame of `len` bytes ([`ETHERNET_HEADER`](super::ETHERNET_HEADER) to
    /// [`MAX_FRAME`](super::MAX_FRAME)) to be filled and sent here, on this port's account; its bytes are
    /// undefined. `None` if there is no memory, or if this port has sent its share for now:
    /// [`poll_ready`](Self::poll_ready) wakes when trying again makes sense.
    fn allocate(&self, len: usize) -> Option<Frame<Self::Buffer>>;

    /// To be called after [`allocate`](Self::allocate) failed: `Ready` if trying again with the same length
    /// makes sense; `Pending` registers the task.
    fn poll_ready(&self, len: usize, context: &mut Context<'_>) -> Poll<()>;

    /// Sends a frame into the network, which always takes it; it may get lost there.
    fn send(&self, frame: Frame<Self::Buffer>);

    /// The next frame from the network for a queue. `Pending` registers the task, one per queue.
    fn poll_receive(&self, queue: u16, context: &mut Context<'_>) -> Poll<Frame<Self::Buffer>>;

    /// Drops what waits to be received, because nobody is there to receive it.
    fn forget(&self);

    /// Spreads what is received over this many queues from now on, or fewer. What waits in others stays there
    /// or gets lost.
    fn set_queues(&self, queues: u16);

    /// Which frames are wanted from now on.
    fn set_filter(&self, filter: Filter);

    /// The line as it is now.
    fn link(&self) -> Link;

    /// Resolves when the line differs from `seen`; `Pending` registers the task, one per port.
    fn poll_link(&self, seen: &Link, context: &mut Context<'_>) -> Poll<Link>;
}
