//! Frames that the router itself makes, beside what smoltcp sends.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use devices::net::{ETHERNET_HEADER, Mac};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr,
};

/// All stations.
pub const BROADCAST: Mac = [0xff; 6];
/// What most systems start with.
const HOP_LIMIT: u8 = 64;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;

/// From where to where a frame goes.
#[derive(Clone, Copy)]
pub struct Ends {
    /// The router's own address.
    pub from: Mac,
    /// A station, or a group.
    pub to: Mac,
}

fn frame(ends: Ends, ethertype: EthernetProtocol, payload: usize) -> EthernetFrame<Vec<u8>> {
    let mut frame = EthernetFrame::new_unchecked(vec![0; ETHERNET_HEADER + payload]);
    let header = EthernetRepr {
        src_addr: EthernetAddress(ends.from),
        dst_addr: EthernetAddress(ends.to),
        ethertype,
    };
    header.emit(&mut frame);
    frame
}

/// A frame with an IPv4 packet; `emit` fills its payload of `len` bytes, at most what an IPv4 packet carries.
pub fn ipv4(
    ends: Ends,
    (from, to): (Ipv4Addr, Ipv4Addr),
    protocol: IpProtocol,
    len: usize,
    emit: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut frame = frame(ends, EthernetProtocol::Ipv4, IPV4_HEADER + len);
    let header = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: len,
        hop_limit: HOP_LIMIT,
    };
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    header.emit(&mut packet, &ChecksumCapabilities::default());
    emit(packet.payload_mut());
    frame.into_inner()
}

/// A frame with a UDP datagram over IPv4, with addresses and ports.
pub fn udp4(ends: Ends, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let len = UDP_HEADER + payload.len();
    ipv4(ends, (from.0, to.0), IpProtocol::Udp, len, |bytes| {
        let header = UdpRepr {
            src_port: from.1,
            dst_port: to.1,
        };
        header.emit(
            &mut UdpPacket::new_unchecked(bytes),
            &from.0.into(),
            &to.0.into(),
            payload.len(),
            |to| to.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    })
}

/// The same over IPv6.
pub fn udp6(ends: Ends, from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; UDP_HEADER + payload.len()];
    let header = UdpRepr {
        src_port: from.1,
        dst_port: to.1,
    };
    header.emit(
        &mut UdpPacket::new_unchecked(&mut bytes[..]),
        &from.0.into(),
        &to.0.into(),
        payload.len(),
        |to| to.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    ipv6_local(ends, (from.0, to.0), IpProtocol::Udp, &bytes)
}

/// A frame with an IPv6 packet that stays on the line.
pub fn ipv6_local(
    ends: Ends,
    (from, to): (Ipv6Addr, Ipv6Addr),
    protocol: IpProtocol,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = frame(ends, EthernetProtocol::Ipv6, IPV6_HEADER + payload.len());
    let header = Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: payload.len(),
        // Receivers take neighbour discovery for such only (RFC 4861).
        hop_limit: 255,
    };
    let mut packet = Ipv6Packet::new_unchecked(frame.payload_mut());
    header.emit(&mut packet);
    packet.payload_mut().copy_from_slice(payload);
    frame.into_inner()
}

/// A request for a neighbour's Ethernet address.
pub fn arp_request(from: Mac, own: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(from),
        source_protocol_addr: own,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let to = BROADCAST;
    let mut frame = frame(Ends { from, to }, EthernetProtocol::Arp, request.buffer_len());
    request.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    frame.into_inner()
}
