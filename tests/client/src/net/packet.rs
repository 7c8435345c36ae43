//! Frames written by hand, and the answers that are waited for.

use alloc::vec;
use alloc::vec::Vec;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber,
};

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4: usize = 20;
/// Bytes of a TCP header without options.
pub const TCP: usize = 20;

/// The identifier of our echo requests.
const IDENT: u16 = 0x7869;

/// Who we are, and who the gateway is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub mac: EthernetAddress,
    pub address: Ipv4Address,
    pub prefix_len: u8,
    pub gateway: Ipv4Address,
    pub gateway_mac: EthernetAddress,
}

/// What frames say that somebody may be waiting for.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Where an IPv4 address is, by ARP.
    Address(Ipv4Address, EthernetAddress),
    /// The reply to an echo request of ours.
    Echo { sequence: u16, payload: Vec<u8> },
}

impl Place {
    /// A frame with room for so many bytes.
    pub fn frame(&self, to: EthernetAddress, ethertype: EthernetProtocol, len: usize) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET + len];
        let header = EthernetRepr {
            src_addr: self.mac,
            dst_addr: to,
            ethertype,
        };
        header.emit(&mut EthernetFrame::new_unchecked(&mut frame));
        frame
    }

    /// An IPv4 packet for the gateway with room for so many bytes.
    fn packet(&self, next_header: IpProtocol, payload_len: usize) -> Vec<u8> {
        let mut frame = self.frame(self.gateway_mac, EthernetProtocol::Ipv4, IPV4 + payload_len);
        let header = Ipv4Repr {
            src_addr: self.address,
            dst_addr: self.gateway,
            next_header,
            payload_len,
            hop_limit: 64,
        };
        header.emit(
            &mut Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]),
            &ChecksumCapabilities::default(),
        );
        frame
    }

    /// Asks everybody where the gateway is.
    pub fn arp_request(&self) -> Vec<u8> {
        let request = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: self.mac,
            source_protocol_addr: self.address,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: self.gateway,
        };
        let mut frame = self.frame(
            EthernetAddress::BROADCAST,
            EthernetProtocol::Arp,
            request.buffer_len(),
        );
        request.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET..]));
        frame
    }

    /// Asks the gateway for an echo.
    pub fn echo_request(&self, sequence: u16, data: &[u8]) -> Vec<u8> {
        let request = Icmpv4Repr::EchoRequest {
            ident: IDENT,
            seq_no: sequence,
            data,
        };
        let mut frame = self.packet(IpProtocol::Icmp, request.buffer_len());
        request.emit(
            &mut Icmpv4Packet::new_unchecked(&mut frame[ETHERNET + IPV4..]),
            &ChecksumCapabilities::default(),
        );
        frame
    }

    /// A TCP segment for the gateway, which knows nothing of the connection. Its length may be more than any
    /// link takes.
    pub fn tcp_segment(&self, payload: &[u8]) -> Vec<u8> {
        let segment = TcpRepr {
            src_port: 40000,
            dst_port: 9,
            control: TcpControl::None,
            seq_number: TcpSeqNumber(1),
            ack_number: Some(TcpSeqNumber(1)),
            window_len: 1000,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let mut frame = self.packet(IpProtocol::Tcp, segment.buffer_len());
        segment.emit(
            &mut TcpPacket::new_unchecked(&mut frame[ETHERNET + IPV4..]),
            &self.address.into(),
            &self.gateway.into(),
            &ChecksumCapabilities::default(),
        );
        frame
    }
}

/// The answer in a frame, if there is one. Bad checksums make it none.
pub fn answer(frame: &[u8]) -> Option<Answer> {
    let checksums = ChecksumCapabilities::default();
    let frame = EthernetFrame::new_checked(frame).ok()?;
    match frame.ethertype() {
        EthernetProtocol::Arp => {
            let packet = ArpPacket::new_checked(frame.payload()).ok()?;
            match ArpRepr::parse(&packet).ok()? {
                ArpRepr::EthernetIpv4 {
                    operation: ArpOperation::Reply,
                    source_hardware_addr,
                    source_protocol_addr,
                    ..
                } => Some(Answer::Address(source_protocol_addr, source_hardware_addr)),
                _ => None,
            }
        }
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
            let header = Ipv4Repr::parse(&packet, &checksums).ok()?;
            if header.next_header != IpProtocol::Icmp {
                return None;
            }
            let message = Icmpv4Packet::new_checked(packet.payload()).ok()?;
            match Icmpv4Repr::parse(&message, &checksums).ok()? {
                Icmpv4Repr::EchoReply {
                    ident: IDENT,
                    seq_no,
                    data,
                } => Some(Answer::Echo {
                    sequence: seq_no,
                    payload: data.to_vec(),
                }),
                _ => None,
            }
        }
        _ => None,
    }
}
