//! What is for the router itself in a segment.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use devices::memory::Buffer;
use devices::net::offload::Sum;
use devices::net::{Checksum, ETHERNET_HEADER, Frame, Mac, Port};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol,
    Ipv4Packet, Ipv6Packet, UdpPacket,
};

use super::Station;
use crate::router::config::is_unicast;
use crate::router::counters::Counters;
use crate::router::dhcp::client::Verdict;
use crate::router::dns::{self, Asker};
use crate::router::nat::Seconds;
use crate::router::{Now, advertise, dhcp};

/// Time between two lines in the log about leases that are of no use, in seconds.
const LOG_INTERVAL: Seconds = 60;

impl<P: Port> Station<P> {
    /// Takes a frame that is for the router itself, or for all.
    pub fn receive(&mut self, now: Now, frame: &Frame<P::Buffer>, counters: &Counters) {
        let Some(mut bytes) = self.copy(frame) else {
            counters.dropped_invalid.add(1);
            return;
        };
        let Ok(header) = EthernetFrame::new_checked(&bytes[..]) else {
            return;
        };
        let (ethertype, from) = (header.ethertype(), header.src_addr());
        let packet = &mut bytes[ETHERNET_HEADER..];
        match ethertype {
            EthernetProtocol::Arp if !self.learn(now, packet, counters) => return,
            EthernetProtocol::Ipv4 if !self.take_ipv4(now, from, packet, counters) => return,
            EthernetProtocol::Ipv6 => {
                if let Some(advertiser) = &mut self.advertiser
                    && advertise::is_solicitation(&bytes)
                {
                    advertiser.solicit(now.second);
                    self.advertise(now, counters);
                    return;
                }
                if !self.take_ipv6(from, &bytes[ETHERNET_HEADER..], counters) {
                    return;
                }
            }
            _ => {}
        }
        self.stirred = true;
        if !self.stack.receive(bytes) {
            counters.dropped_own.add(1);
        }
    }

    /// Takes an IPv4 packet. Whether smoltcp is to have it: it must not get a source that nobody can be
    /// answered at.
    fn take_ipv4(&mut self, now: Now, from: EthernetAddress, packet: &mut [u8], counters: &Counters) -> bool {
        let ip = Ipv4Packet::new_checked(&*packet).ok();
        // smoltcp would take a fragment for a whole packet.
        let Some(ip) = ip.filter(|ip| !ip.more_frags() && ip.frag_offset() == 0 && ip.verify_checksum())
        else {
            counters.dropped_invalid.add(1);
            return false;
        };
        let source = ip.src_addr();
        if ip.next_header() == IpProtocol::Udp {
            let datagram = UdpPacket::new_checked(ip.payload()).ok();
            let sound = |udp: &UdpPacket<_>| udp.verify_checksum(&source.into(), &ip.dst_addr().into());
            let Some(udp) = datagram.filter(sound) else {
                counters.dropped_invalid.add(1);
                return false;
            };
            match udp.dst_port() {
                dns::PORT if self.serves && self.is_own(ip.dst_addr()) => {
                    let asker = Asker {
                        station: from.0,
                        from: (source.into(), udp.src_port()),
                        to: ip.dst_addr().into(),
                    };
                    self.take_question(self.is_neighbour(source), asker, udp.payload(), counters);
                    return false;
                }
                dhcp::SERVER_PORT if self.dhcp_server.is_some() => {
                    self.serve_dhcp(now, from, udp.payload(), counters);
                    return false;
                }
                dhcp::CLIENT_PORT if self.dhcp_client.is_some() => {
                    let start = usize::from(ip.header_len());
                    let mut udp = UdpPacket::new_unchecked(&mut packet[start..]);
                    // It was right, and is not if the message is changed.
                    udp.set_checksum(0);
                    if !self.is_lease_sound(now, source, udp.payload_mut()) {
                        return false;
                    }
                }
                _ => {}
            }
        }
        let sound = is_unicast(source) && !self.is_own(source) && !self.is_of_another(now, source, from.0);
        counters.dropped_invalid.add(u64::from(!sound));
        sound
    }

    /// Takes an IPv6 packet. Whether smoltcp is to have it.
    fn take_ipv6(&mut self, from: EthernetAddress, packet: &[u8], counters: &Counters) -> bool {
        let Ok(ip) = Ipv6Packet::new_checked(packet) else {
            return false;
        };
        if !self.serves || ip.next_header() != IpProtocol::Udp || !self.is_own6(ip.dst_addr()) {
            return true;
        }
        let source = ip.src_addr();
        let datagram = UdpPacket::new_checked(ip.payload()).ok();
        let sound = |udp: &UdpPacket<_>| udp.verify_checksum(&source.into(), &ip.dst_addr().into());
        match datagram.filter(sound) {
            Some(udp) if udp.dst_port() == dns::PORT => {
                let asker = Asker {
                    station: from.0,
                    from: (source.into(), udp.src_port()),
                    to: ip.dst_addr().into(),
                };
                self.take_question(self.is_neighbour6(source), asker, udp.payload(), counters);
                false
            }
            _ => true,
        }
    }

    /// Notes a question about a name, if it is from a neighbour: nobody else can be answered at the station
    /// that it came from.
    fn take_question(&mut self, neighbour: bool, asker: Asker, message: &[u8], counters: &Counters) {
        if !neighbour || asker.from.1 == 0 || asker.station[0] & 1 != 0 || message.len() > dns::MAX_QUESTION {
            counters.dropped_invalid.add(1);
        } else if self.questions.len() == dns::QUEUE {
            counters.dropped_own.add(1);
        } else {
            self.questions.push_back((message.to_vec(), asker));
            self.stirred = true;
        }
    }

    /// Whether a message from a DHCP server makes sense, and is one for this station's client. The client is
    /// to get it as it is then.
    fn is_lease_sound(&mut self, now: Now, server: Ipv4Addr, message: &mut [u8]) -> bool {
        let verdict = dhcp::client::judge(self.mac, server, message);
        let warns = match verdict {
            None | Some(Verdict::Sound) => false,
            // Once, and not each time that it is renewed.
            Some(Verdict::NoRouter) => self.address.is_none() || self.gateway.is_some(),
            Some(Verdict::Unsound) => true,
        };
        let sound = matches!(verdict, Some(Verdict::Sound | Verdict::NoRouter));
        if warns && self.next_warning <= now.second {
            self.next_warning = now.second.saturating_add(LOG_INTERVAL);
            if sound {
                log::warn!(
                    "router: the lease from {server} has no router, so nothing gets beyond its network"
                );
            } else {
                log::warn!(
                    "router: a lease from {server} is ignored, because its addresses or times make no sense, \
                     or its router is outside its network"
                );
            }
        }
        sound
    }

    /// The frame's bytes, with its checksum computed. `None` if it is larger than the line, or there is no
    /// memory for it.
    fn copy(&self, frame: &Frame<P::Buffer>) -> Option<Vec<u8>> {
        let len = frame.len();
        if frame.offload.segmentation.is_some() || len > ETHERNET_HEADER + usize::from(self.link.mtu) {
            return None;
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).ok()?;
        bytes.resize(len, 0);
        frame.buffer().read(0, &mut bytes);
        if let Checksum::Partial { start, offset } = frame.offload.checksum {
            let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
            let checksum = Sum::default().bytes(bytes.get(start..)?).transport_checksum();
            bytes
                .get_mut(at..at + 2)?
                .copy_from_slice(&checksum.to_be_bytes());
        }
        Some(bytes)
    }

    /// Learns from an ARP packet. Whether smoltcp is to have it as well.
    fn learn(&mut self, now: Now, packet: &[u8], counters: &Counters) -> bool {
        let packet = ArpPacket::new_checked(packet).and_then(|packet| ArpRepr::parse(&packet));
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(mac),
            source_protocol_addr: from,
            target_protocol_addr: to,
            ..
        }) = packet
        else {
            return false;
        };
        if self.is_of_another(now, from, mac) {
            counters.dropped_invalid.add(1);
            return false;
        }
        let own = self.is_own(to);
        if self.is_neighbour(from) {
            for frame in self.neighbours.learn(now.second, from, mac, own) {
                self.send_to(mac, frame);
            }
        }
        own || operation == ArpOperation::Reply
    }

    /// Whether an address is another station's to have, by DHCP.
    fn is_of_another(&self, now: Now, address: Ipv4Addr, station: Mac) -> bool {
        let server = self.dhcp_server.as_ref();
        server.is_some_and(|server| server.is_of_another(now.second, address, station))
    }

    fn serve_dhcp(&mut self, now: Now, from: EthernetAddress, message: &[u8], counters: &Counters) {
        counters.dhcp_messages.add(1);
        let server = self.dhcp_server.as_mut();
        if let Some(reply) = server.and_then(|server| server.answer(now.second, from.0, message)) {
            counters.dhcp_replies.add(1);
            self.send(&reply, counters);
        }
    }
}
