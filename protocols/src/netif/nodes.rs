//! What the two ends say about themselves in xenstore.
//!
//! Every node is checked: whoever can write them can at most make an uplink that does not connect.

use crate::nodes::{BadNode, flag, number};

/// The most queues that are asked for.
pub const MAX_QUEUES: u16 = 16;
/// The MTU where nobody has said anything.
pub const DEFAULT_MTU: u16 = 1500;
/// MTUs that are believed: IPv4's smallest, and the largest that fits a frame.
const MTUS: core::ops::RangeInclusive<u64> = 68..=65535 - 18;

/// What a back end can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// It copies into the front end's pages. There is no other way any more.
    pub rx_copy: bool,
    /// It takes frames of several fragments.
    pub scatter_gather: bool,
    /// It takes frames that are to be cut into segments of TCP over IPv4.
    pub gso_tcp4: bool,
    /// It takes frames that are to be cut into segments of TCP over IPv6.
    pub gso_tcp6: bool,
    /// It takes IPv4 frames whose checksum is still to be computed.
    pub checksum4: bool,
    /// It takes IPv6 frames whose checksum is still to be computed.
    pub checksum6: bool,
    /// It takes an event channel for each direction.
    pub split_event_channels: bool,
    /// It keeps back frames to groups that were not named to it, for as long as that is asked for.
    pub multicast_control: bool,
    /// How many queues it takes, 1 to [`MAX_QUEUES`].
    pub max_queues: u16,
}

impl Features {
    /// The nodes that [`parse`](Self::parse) asks for, in the back end's directory.
    pub const KEYS: &[&str] = &[
        "feature-rx-copy",
        "feature-sg",
        "feature-gso-tcpv4",
        "feature-gso-tcpv6",
        "feature-no-csum-offload",
        "feature-ipv6-csum-offload",
        "feature-split-event-channels",
        "feature-dynamic-multicast-control",
        "multi-queue-max-queues",
    ];

    /// Reads the nodes through `get`, which returns what a node of the back end holds.
    pub fn parse<S: AsRef<str>>(get: impl Fn(&str) -> Option<S>) -> Result<Self, BadNode> {
        let scatter_gather = flag(&get, "feature-sg")?;
        let max_queues = match number(&get, "multi-queue-max-queues")? {
            None => 1,
            Some(0) => return Err(BadNode("multi-queue-max-queues")),
            Some(queues) => queues.min(MAX_QUEUES.into()) as u16,
        };
        Ok(Self {
            rx_copy: flag(&get, "feature-rx-copy")?,
            scatter_gather,
            // Larger than a page, so of no use without scatter-gather.
            gso_tcp4: flag(&get, "feature-gso-tcpv4")? && scatter_gather,
            gso_tcp6: flag(&get, "feature-gso-tcpv6")? && scatter_gather,
            checksum4: !flag(&get, "feature-no-csum-offload")?,
            checksum6: flag(&get, "feature-ipv6-csum-offload")?,
            split_event_channels: flag(&get, "feature-split-event-channels")?,
            multicast_control: flag(&get, "feature-dynamic-multicast-control")?,
            max_queues,
        })
    }
}

/// The node that asks for [`multicast_control`](Features::multicast_control), with the value 1; 0 ends it. It
/// is not for who bridges: the groups of the stations behind a bridge are known to nobody here.
pub const REQUEST_MULTICAST_CONTROL: &str = "request-multicast-control";
/// How many groups the filter of Linux's back end has room for.
pub const MAX_GROUPS: usize = 64;

/// What this front end says it can do: nodes of its own directory.
pub const OWN_FEATURES: &[(&str, &str)] = &[
    ("request-rx-copy", "1"),
    ("feature-rx-notify", "1"),
    ("feature-sg", "1"),
    ("feature-gso-tcpv4", "1"),
    ("feature-gso-tcpv6", "1"),
    ("feature-ipv6-csum-offload", "1"),
];

/// What the line is like: nodes that may change while connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The back end has a carrier.
    pub carrier: bool,
    /// The most bytes of a frame after its Ethernet header, VLAN tags not counted.
    pub mtu: u16,
}

impl Line {
    /// Reads `carrier` of the back end's directory, and `mtu`, which the toolstack writes to the front end's,
    /// and older ones to the back end's. What makes no sense counts as absent.
    pub fn parse(carrier: Option<&str>, own_mtu: Option<&str>, back_end_mtu: Option<&str>) -> Self {
        let mtu = [own_mtu, back_end_mtu]
            .into_iter()
            .find_map(|text| text?.trim().parse::<u64>().ok().filter(|mtu| MTUS.contains(mtu)));
        Self {
            carrier: carrier.is_none_or(|text| text.trim() != "0"),
            mtu: mtu.map_or(DEFAULT_MTU, |mtu| mtu as u16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(nodes: &[(&str, &str)]) -> Result<Features, BadNode> {
        Features::parse(|key| nodes.iter().rev().find(|node| node.0 == key).map(|node| node.1))
    }

    /// As Linux 6.12 publishes them.
    const LINUX: &[(&str, &str)] = &[
        ("feature-sg", "1"),
        ("feature-gso-tcpv4", "1"),
        ("feature-gso-tcpv6", "1"),
        ("feature-ipv6-csum-offload", "1"),
        ("feature-rx-copy", "1"),
        ("feature-xdp-headroom", "1"),
        ("feature-rx-flip", "0"),
        ("feature-multicast-control", "1"),
        ("feature-dynamic-multicast-control", "1"),
        ("feature-split-event-channels", "1"),
        ("multi-queue-max-queues", "2"),
        ("feature-ctrl-ring", "1"),
    ];

    #[test]
    fn linux() {
        let expected = Features {
            rx_copy: true,
            scatter_gather: true,
            gso_tcp4: true,
            gso_tcp6: true,
            checksum4: true,
            checksum6: true,
            split_event_channels: true,
            multicast_control: true,
            max_queues: 2,
        };
        assert_eq!(parse(LINUX), Ok(expected));
    }

    #[test]
    fn least_and_most() {
        let least = parse(&[]).unwrap();
        assert!(!least.rx_copy && !least.scatter_gather && !least.checksum6 && least.checksum4);
        assert_eq!(least.max_queues, 1);
        let no_sg = parse(&[LINUX, &[("feature-sg", "0")]].concat()).unwrap();
        assert!(!no_sg.gso_tcp4 && !no_sg.gso_tcp6);
        assert!(!parse(&[("feature-no-csum-offload", "1")]).unwrap().checksum4);
        let most = parse(&[("multi-queue-max-queues", "18446744073709551615")]).unwrap();
        assert_eq!(most.max_queues, MAX_QUEUES);
        for (key, value) in [
            ("multi-queue-max-queues", "0"),
            ("multi-queue-max-queues", "-1"),
            ("feature-sg", "yes"),
        ] {
            assert_eq!(parse(&[(key, value)]), Err(BadNode(key)));
        }
    }

    #[test]
    fn lines() {
        let line = |carrier, own, back| {
            let line = Line::parse(carrier, own, back);
            (line.carrier, line.mtu)
        };
        assert_eq!(line(None, None, None), (true, 1500));
        assert_eq!(line(Some("0"), Some("9000"), Some("1400")), (false, 9000));
        assert_eq!(line(Some("1"), None, Some("1400")), (true, 1400));
        assert_eq!(line(Some("x"), Some("67"), Some("65518")), (true, 1500));
    }

    proptest! {
        #[test]
        fn never_panics(values in prop::collection::vec("[0-9]{0,12}|[a-z: ]{0,3}", Features::KEYS.len())) {
            let nodes: Vec<_> = Features::KEYS.iter().copied().zip(values.iter().map(String::as_str)).collect();
            if let Ok(features) = parse(&nodes) {
                prop_assert!((1..=MAX_QUEUES).contains(&features.max_queues));
            }
            let line = Line::parse(Some(&values[0]), Some(&values[1]), Some(&values[2]));
            prop_assert!(MTUS.contains(&line.mtu.into()));
        }
    }
}
