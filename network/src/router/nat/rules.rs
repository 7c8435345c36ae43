//! What may go out.

use core::ops::RangeInclusive;

use smoltcp::wire::Ipv4Cidr;

use super::flow::{Flow, Protocol};

/// What is done with new connections from inside that it fits. Where it says nothing, it fits everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// They may go out.
    pub allow: bool,
    /// Their protocol.
    pub protocol: Option<Protocol>,
    /// The inside address.
    pub from: Option<Ipv4Cidr>,
    /// The outside address.
    pub to: Option<Ipv4Cidr>,
    /// The outside port. ICMP echo has none, so that a rule with ports never fits it.
    pub ports: Option<RangeInclusive<u16>>,
}

impl Rule {
    fn fits(&self, flow: &Flow) -> bool {
        self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && self
                .from
                .is_none_or(|from| from.contains_addr(&flow.source.address))
            && self
                .to
                .is_none_or(|to| to.contains_addr(&flow.destination.address))
            && self
                .ports
                .as_ref()
                .is_none_or(|ports| flow.protocol != Protocol::Icmp && ports.contains(&flow.destination.port))
    }
}

/// Whether a new connection may go out: the first rule that fits decides, and without one it may.
pub fn allowed(rules: &[Rule], flow: &Flow) -> bool {
    rules
        .iter()
        .find(|rule| rule.fits(flow))
        .is_none_or(|rule| rule.allow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::nat::flow::Endpoint;
    use std::net::Ipv4Addr;

    #[test]
    fn the_first_that_fits_decides() {
        let any = Rule {
            allow: true,
            protocol: None,
            from: None,
            to: None,
            ports: None,
        };
        let lan = Ipv4Cidr::new(Ipv4Addr::new(10, 0, 0, 0), 8);
        let rules = [
            Rule {
                ports: Some(53..=53),
                ..any.clone()
            },
            Rule {
                allow: false,
                to: Some(lan),
                ..any.clone()
            },
            Rule {
                allow: false,
                protocol: Some(Protocol::Tcp),
                ports: Some(25..=26),
                ..any.clone()
            },
            Rule {
                allow: false,
                from: Some(Ipv4Cidr::new(Ipv4Addr::new(192, 168, 0, 9), 32)),
                ..any
            },
        ];
        let check = |protocol, from: u8, to: [u8; 4], port| {
            let source = Endpoint::new(Ipv4Addr::new(192, 168, 0, from), 4000);
            let destination = Endpoint::new(to.into(), port);
            allowed(
                &rules,
                &Flow {
                    protocol,
                    source,
                    destination,
                },
            )
        };
        assert!(check(Protocol::Udp, 9, [10, 1, 1, 1], 53));
        assert!(!check(Protocol::Udp, 8, [10, 1, 1, 1], 54));
        assert!(!check(Protocol::Icmp, 8, [10, 1, 1, 1], 0));
        assert!(!check(Protocol::Tcp, 8, [1, 1, 1, 1], 25));
        assert!(check(Protocol::Udp, 8, [1, 1, 1, 1], 25));
        assert!(!check(Protocol::Icmp, 9, [1, 1, 1, 1], 0));
        assert!(check(Protocol::Icmp, 8, [1, 1, 1, 1], 0));
        assert!(allowed(
            &[],
            &Flow {
                protocol: Protocol::Tcp,
                source: Endpoint::new(Ipv4Addr::UNSPECIFIED, 0),
                destination: Endpoint::new(Ipv4Addr::UNSPECIFIED, 0),
            }
        ));
    }
}
