//! What a DHCP server may say to the router's own client, which is smoltcp's (RFC 2131).
//!
//! smoltcp renews with whoever the IP header names as the source, and sends by the router that a lease names;
//! it panics where it cannot send to such an address. So only messages get to it whose addresses can be what
//! they stand for. Of several routers it takes none, so that it is told of the first only.

use core::net::Ipv4Addr;

use devices::net::Mac;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, IpAddress, Ipv4Cidr};

use super::{option, shorten};
use crate::router::config::{is_host, is_unicast};

/// What is to be thought of a message for this client.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be believed.
    Sound,
    /// So may this, but it is a lease for a network that no router leads out of.
    NoRouter,
    /// It may not be believed.
    Unsound,
}

/// Judges a message from a server at an address, and leaves it as smoltcp understands it. `None` if it is not
/// for this client.
pub fn judge(client: Mac, server: Ipv4Addr, message: &mut [u8]) -> Option<Verdict> {
    shorten(message, option::ROUTER, 4);
    let packet = DhcpPacket::new_checked(&*message).ok()?;
    let reply = DhcpRepr::parse(&packet).ok()?;
    if reply.client_hardware_address != EthernetAddress(client) {
        return None;
    }
    let is_lease = reply.message_type == DhcpMessageType::Ack;
    let sound = is_unicast(server)
        && reply.server_identifier.is_some_and(is_unicast)
        && (reply.message_type != DhcpMessageType::Offer || is_unicast(reply.your_ip))
        && (!is_lease || is_sound(&reply));
    Some(if !sound {
        Verdict::Unsound
    } else if is_lease && reply.router.is_none() {
        Verdict::NoRouter
    } else {
        Verdict::Sound
    })
}

/// Whether a lease has a host's address with its network, for some time, and a router, if there is one, that
/// can be reached there: ARP is believed of neighbours only, so that one beside the network leads nowhere.
fn is_sound(reply: &DhcpRepr<'_>) -> bool {
    let prefix_len = reply
        .subnet_mask
        .and_then(|mask| IpAddress::Ipv4(mask).prefix_len());
    let Some(prefix_len @ 1..) = prefix_len else {
        return false;
    };
    let own = Ipv4Cidr::new(reply.your_ip, prefix_len);
    is_host(own, own.address())
        && reply
            .router
            .is_none_or(|router| router != own.address() && is_host(own, router))
        && reply.lease_duration != Some(0)
}

/// Whether an address can be another station's, in one's own network or beyond it.
pub fn is_other(own: Ipv4Cidr, address: Ipv4Addr) -> bool {
    address != own.address()
        && if own.contains_addr(&address) {
            is_host(own, address)
        } else {
            is_unicast(address)
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const CLIENT: Mac = [2, 0, 0, 0, 0, 1];
    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn says(change: impl FnOnce(&mut DhcpRepr<'_>)) -> vec::Vec<u8> {
        let mut reply = DhcpRepr {
            message_type: DhcpMessageType::Ack,
            transaction_id: 1,
            secs: 0,
            client_hardware_address: EthernetAddress(CLIENT),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::new(192, 0, 2, 77),
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: Some(SERVER),
            subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(SERVER),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: Some(60),
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        change(&mut reply);
        let mut bytes = vec![0; reply.buffer_len()];
        reply
            .emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]))
            .unwrap();
        bytes
    }

    fn judge(server: Ipv4Addr, message: &[u8]) -> Option<Verdict> {
        super::judge(CLIENT, server, &mut message.to_vec())
    }

    fn is_sound(server: Ipv4Addr, message: &[u8]) -> bool {
        judge(server, message) == Some(Verdict::Sound)
    }

    #[test]
    fn leases() {
        assert_eq!(super::judge([2, 0, 0, 0, 0, 2], SERVER, &mut says(|_| {})), None);
        assert!(is_sound(SERVER, &says(|_| {})));
        let alone = judge(SERVER, &says(|it| it.router = None));
        assert_eq!(alone, Some(Verdict::NoRouter));
        let offer = says(|it| (it.message_type, it.router) = (DhcpMessageType::Offer, None));
        assert!(is_sound(SERVER, &offer));
        for (mask, router, expected) in [
            ([255, 255, 255, 255], [100, 64, 0, 1], false),
            ([255, 255, 255, 0], [100, 64, 0, 1], false),
            ([255, 255, 255, 0], [192, 0, 3, 1], false),
            ([255, 255, 254, 0], [192, 0, 3, 1], true),
            ([255, 255, 255, 254], [192, 0, 2, 76], true),
        ] {
            let (mask, router) = (Some(mask.into()), Some(router.into()));
            let message = says(|it| (it.subnet_mask, it.router) = (mask, router));
            assert_eq!(is_sound(SERVER, &message), expected, "{mask:?} {router:?}");
        }
        let nobody = [
            [0, 0, 0, 0],
            [224, 0, 0, 1],
            [255; 4],
            [127, 0, 0, 1],
            [192, 0, 2, 255],
        ];
        for address in nobody.map(Ipv4Addr::from) {
            assert!(!is_sound(SERVER, &says(|it| it.your_ip = address)), "{address}");
            assert!(
                !is_sound(SERVER, &says(|it| it.router = Some(address))),
                "{address}"
            );
        }
        for address in nobody[..4].iter().copied().map(Ipv4Addr::from) {
            assert!(!is_sound(address, &says(|_| {})), "{address}");
            assert!(!is_sound(
                SERVER,
                &says(|it| it.server_identifier = Some(address))
            ));
            let offer = says(|it| (it.message_type, it.your_ip) = (DhcpMessageType::Offer, address));
            assert!(!is_sound(SERVER, &offer), "{address}");
        }
        for mask in [[0; 4], [255, 0, 255, 0], [0, 0, 0, 255]].map(Ipv4Addr::from) {
            assert!(
                !is_sound(SERVER, &says(|it| it.subnet_mask = Some(mask))),
                "{mask}"
            );
        }
        assert!(!is_sound(SERVER, &says(|it| it.subnet_mask = None)));
        assert!(!is_sound(SERVER, &says(|it| it.router = Some(it.your_ip))));
        assert!(!is_sound(SERVER, &says(|it| it.lease_duration = Some(0))));
        assert!(!is_sound(SERVER, &says(|it| it.server_identifier = None)));
        assert!(!is_sound(SERVER, b"?"));
    }
}
