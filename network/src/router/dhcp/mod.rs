//! A DHCP server for IPv4 (RFC 2131), the only one of its segment; and what is checked of others that the
//! router's own client hears.

pub mod client;
mod leases;

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use devices::net::Mac;
use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress, Ipv4Cidr};

use super::DhcpOptions;
use super::build::{self, BROADCAST, Ends};
use super::nat::Seconds;
use leases::Leases;

/// Where servers listen.
pub const SERVER_PORT: u16 = 67;
/// Where clients listen.
pub const CLIENT_PORT: u16 = 68;

/// Options that smoltcp has no field for, or does not take as they are sent (RFC 2132).
mod option {
    pub const PAD: u8 = 0;
    pub const ROUTER: u8 = 3;
    pub const DOMAIN_NAME_SERVER: u8 = 6;
    pub const INTERFACE_MTU: u8 = 26;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const CLIENT_IDENTIFIER: u8 = 61;
    pub const END: u8 = 255;
    /// Where they begin in a message.
    pub const START: usize = 240;
}

/// Leaves so many bytes of each option of a kind, at most, and makes the others padding.
fn shorten(message: &mut [u8], kind: u8, max: u8) {
    let mut rest = message.get_mut(option::START..).unwrap_or_default();
    loop {
        rest = match rest {
            [option::PAD, rest @ ..] => rest,
            [option::END, ..] => return,
            [found, len, rest @ ..] if usize::from(*len) <= rest.len() => {
                let (data, rest) = rest.split_at_mut(usize::from(*len));
                if *found == kind
                    && let Some(over) = data.get_mut(usize::from(max)..)
                {
                    over.fill(option::PAD);
                    *len = max;
                }
                rest
            }
            _ => return,
        };
    }
}

/// The server of one segment.
pub struct Server {
    mac: Mac,
    own: Ipv4Cidr,
    mtu: u16,
    router: Option<Ipv4Addr>,
    /// The value of the option; empty if there is none.
    dns: Vec<u8>,
    leases: Leases,
}

impl Server {
    /// A server with an address of its own, on a line with an MTU. Clients are told of a router and of name
    /// servers.
    pub fn new(
        (mac, own): (Mac, Ipv4Cidr),
        mtu: u16,
        router: Option<Ipv4Addr>,
        dns: &[Ipv4Addr],
        options: DhcpOptions,
    ) -> Self {
        Self {
            mac,
            own,
            mtu,
            router,
            // The most that fit into one option.
            dns: dns.iter().take(63).flat_map(Ipv4Addr::octets).collect(),
            leases: Leases::new(
                (options.first, options.last),
                own.address(),
                options.lease,
                options.reservations,
            ),
        }
    }

    /// The line's MTU, from now on.
    pub fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
    }

    /// How many leases there are.
    pub fn leases(&self, now: Seconds) -> usize {
        self.leases.len(now)
    }

    /// Whether an address is reserved for, or let to, somebody else than this station.
    pub fn is_of_another(&self, now: Seconds, address: Ipv4Addr, station: Mac) -> bool {
        self.leases.is_of_another(now, address, station)
    }

    /// Answers a message (the payload of a UDP datagram) from a station, with a frame.
    pub fn answer(&mut self, now: Seconds, station: Mac, message: &[u8]) -> Option<Vec<u8>> {
        let packet = DhcpPacket::new_checked(message).ok()?;
        // smoltcp takes an identifier of seven bytes for an Ethernet address, or else refuses the message.
        let mut plain = message.to_vec();
        shorten(&mut plain, option::CLIENT_IDENTIFIER, 0);
        let plain = DhcpPacket::new_checked(&plain[..]).ok()?;
        let request = DhcpRepr::parse(&plain).ok()?;
        // There are no relays here, and nobody asks for somebody else.
        if request.client_hardware_address != EthernetAddress(station)
            || !request.relay_agent_ip.is_unspecified()
        {
            return None;
        }
        let ours = request
            .server_identifier
            .is_none_or(|server| server == self.own.address());
        match request.message_type {
            DhcpMessageType::Discover => {
                let address = self.leases.offer(now, station, request.requested_ip)?;
                self.reply(DhcpMessageType::Offer, &packet, &request, address)
            }
            DhcpMessageType::Request if ours => {
                // Either what was offered, or what it has.
                let address = request.requested_ip.unwrap_or(request.client_ip);
                if self.own.contains_addr(&address) && self.leases.bind(now, station, address) {
                    self.reply(DhcpMessageType::Ack, &packet, &request, address)
                } else {
                    self.reply(DhcpMessageType::Nak, &packet, &request, Ipv4Addr::UNSPECIFIED)
                }
            }
            DhcpMessageType::Inform => {
                self.reply(DhcpMessageType::Ack, &packet, &request, Ipv4Addr::UNSPECIFIED)
            }
            DhcpMessageType::Decline if ours => {
                self.leases.decline(station, request.requested_ip?);
                None
            }
            DhcpMessageType::Release if ours => {
                self.leases.release(now, station, request.client_ip);
                None
            }
            _ => None,
        }
    }

    fn reply(
        &self,
        message_type: DhcpMessageType,
        packet: &DhcpPacket<&[u8]>,
        request: &DhcpRepr<'_>,
        address: Ipv4Addr,
    ) -> Option<Vec<u8>> {
        let nak = message_type == DhcpMessageType::Nak;
        let lease = (!address.is_unspecified()).then_some(self.leases.duration());
        let (t1, t2) = (lease.map(|lease| lease / 2), lease.map(|lease| lease / 8 * 7));
        let (t1, t2) = (t1.unwrap_or(0).to_be_bytes(), t2.unwrap_or(0).to_be_bytes());
        let mtu = self.mtu.to_be_bytes();
        let mut options = Vec::new();
        let mut add = |kind, data| options.push(DhcpOption { kind, data });
        // RFC 6842: the client's identifier comes back.
        if let Some(id) = packet
            .options()
            .find(|option| option.kind == option::CLIENT_IDENTIFIER)
        {
            add(option::CLIENT_IDENTIFIER, id.data);
        }
        if lease.is_some() {
            add(option::RENEWAL_TIME, &t1);
            add(option::REBINDING_TIME, &t2);
        }
        if !nak {
            add(option::INTERFACE_MTU, &mtu);
            if !self.dns.is_empty() {
                add(option::DOMAIN_NAME_SERVER, &self.dns);
            }
        }
        let client = if nak {
            Ipv4Addr::UNSPECIFIED
        } else {
            request.client_ip
        };
        let reply = DhcpRepr {
            message_type,
            transaction_id: request.transaction_id,
            secs: 0,
            client_hardware_address: request.client_hardware_address,
            client_ip: client,
            your_ip: address,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: self.router.filter(|_| !nak),
            subnet_mask: (!nak).then(|| self.own.netmask()),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: request.broadcast,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(self.own.address()),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: lease,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &options,
        };
        let mut bytes = alloc::vec![0; reply.buffer_len()];
        reply.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).ok()?;
        // RFC 2131, 4.1: to the client's address if it has one; and while it has none, to the new one or to
        // all, as it wishes.
        let all = nak || (client.is_unspecified() && (request.broadcast || address.is_unspecified()));
        let (mac, ip) = match (all, client.is_unspecified()) {
            (true, _) => (BROADCAST, Ipv4Addr::BROADCAST),
            (false, true) => (request.client_hardware_address.0, address),
            (false, false) => (request.client_hardware_address.0, client),
        };
        let ends = Ends {
            from: self.mac,
            to: mac,
        };
        Some(build::udp4(
            ends,
            (self.own.address(), SERVER_PORT),
            (ip, CLIENT_PORT),
            &bytes,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_shortened() {
        let shortened = |options: &[u8]| {
            let mut message = [&[3; option::START], options].concat();
            shorten(&mut message, 3, 4);
            assert!(message[..option::START].iter().all(|byte| *byte == 3));
            message[option::START..].to_vec()
        };
        assert_eq!(
            shortened(&[
                0, 3, 6, 1, 2, 3, 4, 5, 6, 6, 5, 3, 8, 3, 8, 3, 3, 4, 1, 2, 3, 4, 3, 0, 255, 3, 5
            ]),
            [
                0, 3, 4, 1, 2, 3, 4, 0, 0, 6, 5, 3, 8, 3, 8, 3, 3, 4, 1, 2, 3, 4, 3, 0, 255, 3, 5
            ]
        );
        // Those that are cut off are left alone.
        for cut in [&[3][..], &[3, 6], &[3, 6, 1, 2, 3, 4, 5]] {
            assert_eq!(shortened(cut), cut);
        }
        shorten(&mut [], 3, 4);
    }
}
