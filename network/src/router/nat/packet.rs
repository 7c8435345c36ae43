//! The headers of an IPv4 packet in a frame: taking them apart, and giving them other addresses in place.

use devices::memory::Buffer;
use devices::net::offload::Sum;
use devices::net::{Checksum, ETHERNET_HEADER};
use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};

use super::flow::{Endpoint, Flow, Protocol, Signal};
use crate::router::checksum::Delta;

/// As much of a frame's start as is looked at: Ethernet, IP and ICMP headers, and the IP header and ports
/// that an ICMP error quotes, each with all options.
const HEAD: usize = ETHERNET_HEADER + 60 + 8 + 60 + 20;
/// Bytes of an IPv4 header without options.
const IP_HEADER: usize = 20;
/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;
/// Of the transport header that an ICMP error quotes, this much is there (RFC 792).
const QUOTED: usize = 8;

/// The start of a frame whose IPv4 header is sound: it is whole, its checksum is right, and the packet ends
/// inside the frame.
#[derive(Clone)]
pub struct Packet {
    head: [u8; HEAD],
    /// How many bytes of the packet are in `head`, Ethernet header included.
    len: usize,
    /// Where the transport header starts.
    transport: usize,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Something of a connection, with its ports in sight.
    Connection(Flow, Signal),
    /// An ICMP error about a packet that went from here to there.
    Error(Flow),
    /// A later fragment of something.
    Fragment,
    /// Nothing that is translated.
    Other,
}

impl Packet {
    /// Takes the start of a frame that is known to carry IPv4, without a VLAN tag.
    pub fn read<B: Buffer>(buffer: &B) -> Option<Self> {
        let mut head = [0; HEAD];
        let len = buffer.len().min(HEAD);
        buffer.read(0, &mut head[..len]);
        if len < ETHERNET_HEADER + IP_HEADER {
            return None;
        }
        let ip = Ipv4Packet::new_unchecked(&head[ETHERNET_HEADER..]);
        let (header, total) = (usize::from(ip.header_len()), usize::from(ip.total_len()));
        let sound = ip.version() == 4
            && header >= IP_HEADER
            && header <= total
            && ETHERNET_HEADER + total <= buffer.len()
            && Sum::default()
                .bytes(&head[ETHERNET_HEADER..ETHERNET_HEADER + header])
                .fold()
                == 0xffff;
        sound.then_some(Self {
            head,
            len: len.min(ETHERNET_HEADER + total),
            transport: ETHERNET_HEADER + header,
        })
    }

    /// Puts the headers back into the frame that they came from, without the Ethernet addresses.
    pub fn write<B: Buffer>(&self, buffer: &B) {
        const ADDRESSES: usize = 12;
        buffer.write(ADDRESSES, &self.head[ADDRESSES..self.len]);
    }

    /// The IP header.
    pub fn ip(&self) -> Ipv4Packet<&[u8]> {
        Ipv4Packet::new_unchecked(&self.head[ETHERNET_HEADER..])
    }

    /// The IP header and the start of what follows.
    pub fn start(&self) -> &[u8] {
        &self.head[ETHERNET_HEADER..self.len]
    }

    /// How many bytes the IP header has.
    pub fn header_len(&self) -> usize {
        self.transport - ETHERNET_HEADER
    }

    /// How many bytes each TCP segment that it is cut into has at most, its IP header included, if each
    /// carries this much payload.
    pub fn segment_len(&self, size: u16) -> usize {
        let tcp = TcpPacket::new_unchecked(&self.head[self.transport..]);
        self.header_len() + usize::from(tcp.header_len()) + usize::from(size)
    }

    /// Whether it is a part of a packet.
    pub fn is_fragment(&self) -> bool {
        self.ip().more_frags() || self.ip().frag_offset() != 0
    }

    /// What it carries.
    pub fn content(&self) -> Content {
        if self.ip().frag_offset() != 0 {
            return Content::Fragment;
        }
        let transport = &self.head[self.transport..self.len];
        if let Some((flow, signal)) = connection(&self.ip(), transport) {
            return Content::Connection(flow, signal);
        }
        match self.quoted() {
            Some((_, flow)) => Content::Error(flow),
            None => Content::Other,
        }
    }

    /// Where the quoted transport header starts, and the quoted packet's flow, if this is an ICMP error about
    /// something that is translated.
    fn quoted(&self) -> Option<(usize, Flow)> {
        let transport = &self.head[self.transport..self.len];
        if self.ip().next_header() != IpProtocol::Icmp || transport.len() < ICMP_HEADER + IP_HEADER {
            return None;
        }
        if !matches!(
            Icmpv4Packet::new_unchecked(transport).msg_type(),
            Icmpv4Message::DstUnreachable | Icmpv4Message::TimeExceeded | Icmpv4Message::ParamProblem
        ) {
            return None;
        }
        let ip = Ipv4Packet::new_unchecked(&transport[ICMP_HEADER..]);
        let header = usize::from(ip.header_len());
        let at = ICMP_HEADER + header;
        if ip.version() != 4 || header < IP_HEADER || ip.frag_offset() != 0 || transport.len() < at + QUOTED {
            return None;
        }
        let flow = ports(&ip, &transport[at..])?;
        Some((self.transport + at, flow))
    }

    /// One hop less.
    pub fn decrement_ttl(&mut self) {
        let mut ip = Ipv4Packet::new_unchecked(&mut self.head[ETHERNET_HEADER..]);
        let ttl = ip.hop_limit().saturating_sub(1);
        let delta = Delta::new(&[ip.hop_limit(), 0], &[ttl, 0]);
        ip.set_hop_limit(ttl);
        ip.set_checksum(delta.apply(ip.checksum()));
    }

    /// Gives the packet, whose content is a connection's, other ends. A checksum that is still to be computed
    /// stands for the pseudo-header only.
    pub fn rewrite(&mut self, to: &Flow, checksum: Checksum) {
        let partial = matches!(checksum, Checksum::Partial { .. });
        self.rewrite_at(ETHERNET_HEADER, self.transport, to, partial);
    }

    /// Gives a later fragment other addresses; its first fragment has the checksum.
    pub fn rewrite_fragment(&mut self, to: &Flow) {
        self.rewrite_addresses(ETHERNET_HEADER, to);
    }

    /// Gives an ICMP error other addresses, and other ends to what it quotes.
    pub fn rewrite_error(&mut self, to: &Flow, quoted: &Flow) {
        let Some((at, _)) = self.quoted() else {
            return;
        };
        let before = self.head;
        self.rewrite_at(self.transport + ICMP_HEADER, at, quoted, false);
        let range = self.transport..self.len;
        self.update(
            self.transport + 2,
            Delta::new(&before[range.clone()], &self.head[range]),
            false,
        );
        self.rewrite_addresses(ETHERNET_HEADER, to);
    }

    fn rewrite_at(&mut self, ip: usize, transport: usize, to: &Flow, partial: bool) {
        let addresses = self.rewrite_addresses(ip, to);
        let (at, new, checksum) = match to.protocol {
            Protocol::Tcp => (transport, &ports_of(to)[..], transport + 16),
            Protocol::Udp => (transport, &ports_of(to)[..], transport + 6),
            // One of the two is the identifier, the other is 0.
            Protocol::Icmp => (
                transport + 4,
                &(to.source.port | to.destination.port).to_be_bytes()[..],
                transport + 2,
            ),
        };
        let Some(field) = self.head.get_mut(at..at + new.len()) else {
            return;
        };
        let ports = Delta::new(field, new);
        field.copy_from_slice(new);
        match (to.protocol, partial) {
            (Protocol::Icmp, _) => self.update(checksum, ports, false),
            (_, true) => self.update(checksum, addresses, true),
            (Protocol::Tcp, false) => self.update(checksum, addresses.and(ports), false),
            (Protocol::Udp, false) => self.update_udp(checksum, addresses.and(ports)),
        }
    }

    /// Updates a UDP checksum: 0 says that there is none, and the other zero takes the place of one that
    /// comes out as 0.
    fn update_udp(&mut self, at: usize, delta: Delta) {
        if matches!(self.head[..self.len].get(at..at + 2), Some([0, 0])) {
            return;
        }
        self.update(at, delta, false);
        if let Some(field @ [0, 0]) = self.head[..self.len].get_mut(at..at + 2) {
            field.fill(0xff);
        }
    }

    fn rewrite_addresses(&mut self, at: usize, to: &Flow) -> Delta {
        let mut ip = Ipv4Packet::new_unchecked(&mut self.head[at..]);
        let mut new = [0; 8];
        new[..4].copy_from_slice(&to.source.address.octets());
        new[4..].copy_from_slice(&to.destination.address.octets());
        let mut old = [0; 8];
        old[..4].copy_from_slice(&ip.src_addr().octets());
        old[4..].copy_from_slice(&ip.dst_addr().octets());
        let delta = Delta::new(&old, &new);
        ip.set_src_addr(to.source.address);
        ip.set_dst_addr(to.destination.address);
        ip.set_checksum(delta.apply(ip.checksum()));
        delta
    }

    /// Updates the checksum (or sum, if the checksum is partial) that starts at a byte, if it is in sight.
    fn update(&mut self, at: usize, delta: Delta, partial: bool) {
        if let Some(field) = self.head[..self.len].get_mut(at..at + 2) {
            let old = u16::from_be_bytes([field[0], field[1]]);
            let new = if partial {
                delta.apply_to_sum(old)
            } else {
                delta.apply(old)
            };
            field.copy_from_slice(&new.to_be_bytes());
        }
    }
}

fn ports_of(flow: &Flow) -> [u8; 4] {
    let (source, destination) = (
        flow.source.port.to_be_bytes(),
        flow.destination.port.to_be_bytes(),
    );
    [source[0], source[1], destination[0], destination[1]]
}

/// A packet's flow and what it means, from its transport header.
fn connection(ip: &Ipv4Packet<&[u8]>, transport: &[u8]) -> Option<(Flow, Signal)> {
    const TCP_HEADER: usize = 20;
    let protocol = ip.next_header();
    if transport.len()
        < if protocol == IpProtocol::Tcp {
            TCP_HEADER
        } else {
            QUOTED
        }
    {
        return None;
    }
    let flow = ports(ip, transport)?;
    let mut signal = Signal {
        opens: true,
        ..Signal::default()
    };
    match flow.protocol {
        Protocol::Tcp => {
            let tcp = TcpPacket::new_unchecked(transport);
            signal = Signal {
                opens: !tcp.rst(),
                syn: tcp.syn(),
                ack: tcp.ack(),
                fin: tcp.fin(),
                rst: tcp.rst(),
            };
        }
        Protocol::Udp => {}
        Protocol::Icmp => {
            signal.opens = Icmpv4Packet::new_unchecked(transport).msg_type() == Icmpv4Message::EchoRequest;
        }
    }
    Some((flow, signal))
}

/// A packet's flow, from at least [`QUOTED`] bytes of its transport header.
fn ports(ip: &Ipv4Packet<&[u8]>, transport: &[u8]) -> Option<Flow> {
    let (protocol, source, destination) = match ip.next_header() {
        IpProtocol::Tcp | IpProtocol::Udp => {
            // Both start with the ports.
            let udp = UdpPacket::new_unchecked(transport);
            let protocol = match ip.next_header() {
                IpProtocol::Tcp => Protocol::Tcp,
                _ => Protocol::Udp,
            };
            (protocol, udp.src_port(), udp.dst_port())
        }
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_unchecked(transport);
            match icmp.msg_type() {
                Icmpv4Message::EchoRequest => (Protocol::Icmp, icmp.echo_ident(), 0),
                Icmpv4Message::EchoReply => (Protocol::Icmp, 0, icmp.echo_ident()),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(Flow {
        protocol,
        source: Endpoint::new(ip.src_addr(), source),
        destination: Endpoint::new(ip.dst_addr(), destination),
    })
}
