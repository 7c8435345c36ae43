//! What a network device and its workers share.

use alloc::vec::Vec;
use core::cell::RefCell;

use super::config::Config;
use super::offload::Abilities;
use super::{Filter, Link, Mac, features};

/// What the driver has commanded, and what the line is like.
pub(super) struct State {
    /// The address that the device was given.
    pub given: Mac,
    /// The address that it has now.
    pub mac: Mac,
    /// The driver may not change it.
    pub mac_fixed: bool,
    /// The line as it was last heard of.
    pub link: Link,
    /// The MTU that the driver is told, until the next reset.
    pub mtu: u16,
    /// The pairs of queues that there are.
    pub max_pairs: u16,
    /// The pairs of queues that the driver uses.
    pub pairs: u16,
    /// The driver is asked to announce itself.
    pub announce: bool,
    /// Those of [`features::GUEST_OFFLOADS`] that are switched on.
    pub offloads: u64,
    /// What the driver wants to receive.
    pub wanted: Wanted,
}

/// Which frames a driver wants, as it has said with commands.
#[derive(Clone, Default)]
pub(super) struct Wanted {
    /// The driver is there: receiveq1 is set up.
    pub open: bool,
    pub promiscuous: bool,
    /// `None` until it says something.
    pub all_multicast: Option<bool>,
    pub all_unicast: bool,
    pub no_multicast: bool,
    pub no_unicast: bool,
    pub no_broadcast: bool,
    /// The tables, once it has set them.
    pub tables: Option<Tables>,
    /// The VLANs, a bit each, if there is a filter.
    pub vlans: Option<Vec<u64>>,
}

/// Stations and groups whose frames are wanted; `None` if there are too many to look at.
#[derive(Clone)]
pub(super) struct Tables {
    pub unicast: Option<Vec<Mac>>,
    pub multicast: Option<Vec<Mac>>,
}

pub(super) struct Shared(pub RefCell<State>);

impl State {
    pub fn new(mac: Mac, mac_fixed: bool, max_pairs: u16, link: Link) -> Self {
        State {
            given: mac,
            mac,
            mac_fixed,
            link,
            mtu: link.mtu,
            max_pairs,
            pairs: 1,
            announce: false,
            offloads: 0,
            wanted: Wanted::default(),
        }
    }

    /// Forgets what a driver has done.
    pub fn reset(&mut self) {
        self.mac = self.given;
        self.mtu = self.link.mtu;
        self.pairs = 1;
        self.announce = false;
        self.offloads = 0;
        self.wanted = Wanted::default();
    }

    /// Begins with the features in effect.
    pub fn negotiated(&mut self, features: u64) {
        self.offloads = features & features::GUEST_OFFLOADS;
        // "When VIRTIO_NET_F_CTRL_VLAN is negotiated, the device starts with an empty VLAN filter table."
        self.wanted.vlans = (features & features::CTRL_VLAN != 0).then(|| alloc::vec![0; 64]);
    }

    pub fn config(&self) -> Config {
        Config::new(self.mac, &self.link, self.mtu, self.max_pairs, self.announce)
    }

    /// The filter for the port.
    pub fn filter(&self) -> Filter {
        let wanted = &self.wanted;
        if !wanted.open {
            return Filter {
                all_multicast: false,
                no_multicast: true,
                no_unicast: true,
                no_broadcast: true,
                ..Filter::new(self.mac)
            };
        }
        let (unicast, multicast) = match &wanted.tables {
            Some(tables) => (tables.unicast.as_ref(), tables.multicast.as_ref()),
            // A driver that says nothing gets all groups.
            None => (Some(const { &Vec::new() }), None),
        };
        Filter {
            mac: self.mac,
            promiscuous: wanted.promiscuous,
            // What is too much for the table is let through: the specification allows that.
            all_multicast: match wanted.all_multicast {
                Some(false) => wanted.tables.is_some() && multicast.is_none(),
                Some(true) => true,
                None => multicast.is_none(),
            },
            all_unicast: wanted.all_unicast || unicast.is_none(),
            no_multicast: wanted.no_multicast,
            no_unicast: wanted.no_unicast,
            no_broadcast: wanted.no_broadcast,
            unicast: unicast.cloned().unwrap_or_default(),
            multicast: multicast.cloned().unwrap_or_default(),
            vlans: wanted.vlans.clone(),
        }
    }
}

impl Shared {
    /// What the driver does by itself with what it receives.
    pub fn abilities(&self) -> Abilities {
        let on = |feature| self.0.borrow().offloads & feature != 0;
        Abilities {
            checksum: on(features::GUEST_CSUM),
            tcp4: on(features::GUEST_TSO4),
            tcp6: on(features::GUEST_TSO6),
        }
    }
}
