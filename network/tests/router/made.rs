//! Frames made by hand.

use std::net::Ipv4Addr;
use std::time::Duration;

use devices::net::{Mac, Offload};
use smoltcp::wire::{IpProtocol, Ipv4Packet, UdpPacket};

use super::bed::{Socket, TestFrame, bytes, frame};
use super::nat::hosts;
use super::{GUEST, INSIDE, World, ip};

/// An Ethernet frame with an IPv4 packet.
pub struct Made<'a> {
    pub macs: ([u8; 6], [u8; 6]),
    pub addresses: (&'a str, &'a str),
    pub protocol: IpProtocol,
    pub ttl: u8,
    /// Identifier, the flag that there is more, and the offset.
    pub fragment: Option<(u16, bool, u16)>,
    pub payload: &'a [u8],
}

impl Made<'_> {
    pub const OUT: Self = Made {
        macs: (GUEST, INSIDE),
        addresses: ("10.0.0.5", "192.0.2.2"),
        protocol: IpProtocol::Udp,
        ttl: 64,
        fragment: None,
        payload: &[],
    };

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 34 + self.payload.len()];
        bytes[..6].copy_from_slice(&self.macs.1);
        bytes[6..12].copy_from_slice(&self.macs.0);
        bytes[12] = 8;
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes[14..]);
        packet.set_version(4);
        packet.set_header_len(20);
        packet.set_total_len(20 + self.payload.len() as u16);
        packet.set_dont_frag(self.fragment.is_none());
        if let Some((ident, more, offset)) = self.fragment {
            packet.set_ident(ident);
            packet.set_more_frags(more);
            packet.set_frag_offset(offset);
        }
        packet.set_hop_limit(self.ttl);
        packet.set_next_header(self.protocol);
        packet.set_src_addr(ip(self.addresses.0));
        packet.set_dst_addr(ip(self.addresses.1));
        packet.fill_checksum();
        packet.payload_mut().copy_from_slice(self.payload);
        bytes
    }
}

pub fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8 + data.len()];
    let mut datagram = UdpPacket::new_unchecked(&mut bytes[..]);
    datagram.set_src_port(from);
    datagram.set_dst_port(to);
    datagram.set_len(8 + data.len() as u16);
    datagram.payload_mut().copy_from_slice(data);
    bytes
}

/// The next IPv4 frame for a station at a socket; ARP requests for it are answered.
pub fn next(world: &mut World, socket: &Socket, own: ([u8; 6], &str)) -> Option<TestFrame> {
    for _ in 0..10 {
        world.bed.step(&mut [], Duration::from_millis(1));
        while let Some(frame) = socket.take() {
            let bytes = bytes(&frame);
            if bytes[12..14] == [8, 0] {
                return Some(frame);
            }
            answer_arp(socket, &bytes, own.0, |asked| asked == ip(own.1));
        }
    }
    None
}

/// A world with two sockets in place of the hosts.
pub fn raw(change: impl FnOnce(&mut network::router::Config<Socket>)) -> (World, Socket, Socket) {
    let mut world = World::new(change);
    hosts(&mut world);
    let (inside, outside) = (world.inside.plug(), world.outside.plug());
    (world, inside, outside)
}

/// Answers a frame if it is an ARP request for an address that is somebody's.
pub fn answer_arp(socket: &Socket, request: &[u8], mac: Mac, is_own: impl FnOnce(Ipv4Addr) -> bool) {
    if request[12..14] != [8, 6] || request[21] != 1 {
        return;
    }
    let asked: [u8; 4] = request[38..42].try_into().unwrap();
    if is_own(asked.into()) {
        let mut answer = request.to_vec();
        answer[..6].copy_from_slice(&request[6..12]);
        answer[6..12].copy_from_slice(&mac);
        answer[21] = 2;
        answer[22..28].copy_from_slice(&mac);
        answer[28..32].copy_from_slice(&request[38..42]);
        answer[32..42].copy_from_slice(&request[22..32]);
        socket.inject(frame(&answer, Offload::default()));
    }
}
