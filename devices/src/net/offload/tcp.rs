//! Cutting up TCP segments.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::{Part, Sum};
use crate::memory::Buffer;
use crate::net::headers::{Headers, PREFIX, protocol};
use crate::net::{Checksum, Offload, Segmentation, SegmentationKind};

// Fields of TCP (RFC 9293), in bytes from the header's start.
const SEQUENCE: usize = 4;
const DATA_OFFSET: usize = 12;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;
/// Size of the header in bytes, without options.
const MIN_HEADER: usize = 20;

/// The least payload of a segment that anybody makes who means well (Linux's TCP_MIN_GSO_SIZE): smaller ones
/// only multiply work.
const MIN_SIZE: u16 = 8;

// Flags of TCP.
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

// Fields of IPv4, in bytes from the header's start.
const TOTAL_LENGTH: usize = 2;
const IDENTIFICATION: usize = 4;
const HEADER_CHECKSUM: usize = 10;
// Fields of IPv6.
const PAYLOAD_LENGTH: usize = 4;
const IPV6_HEADER: usize = 40;

/// How many bytes of headers there are, with a TCP header that starts at byte `start`; 0 if that cannot be.
pub(super) fn headers_len<B: Buffer>(buffer: &B, start: u16) -> u16 {
    let at = usize::from(start) + DATA_OFFSET;
    if at >= buffer.len() {
        return 0;
    }
    let mut byte = [0];
    buffer.read(at, &mut byte);
    start.saturating_add(u16::from(byte[0] >> 4) * 4)
}

/// Whether the sender tells that it answered a congestion notification, which must be said once, not by every
/// segment.
pub(super) fn has_cwr<B: Buffer>(buffer: &B, start: u16) -> bool {
    let at = usize::from(start) + FLAGS;
    let mut byte = [0];
    if at < buffer.len() {
        buffer.read(at, &mut byte);
    }
    byte[0] & CWR != 0
}

/// The segments that are still to be made of a frame.
#[derive(Clone, Debug)]
pub(super) struct Segments {
    source: IpAddr,
    destination: IpAddr,
    /// Where the IP header starts.
    network: usize,
    /// Where the TCP header starts.
    transport: usize,
    /// Where the TCP payload starts.
    payload: usize,
    /// Where the payload of the next segment starts.
    at: usize,
    /// Where the frame ends.
    end: usize,
    /// The most bytes of payload that a segment has.
    size: usize,
    /// The checksums are left to the receiver.
    partial: bool,
    /// No segment is left.
    done: bool,
}

impl Segments {
    /// `None` unless the frame is TCP over the right IP, with all headers where its sender says that they
    /// are, and of the length that they say. Then no segment is too long for its IP header.
    pub(super) fn new<B: Buffer>(
        buffer: &B,
        segmentation: Segmentation,
        start: u16,
        offset: u16,
        partial: bool,
    ) -> Option<Self> {
        let end = buffer.len();
        let mut prefix = [0; PREFIX];
        let prefix = &mut prefix[..end.min(PREFIX)];
        buffer.read(0, prefix);
        let headers = Headers::parse(prefix)?;
        let ip = headers.ip?;
        let transport = usize::from(start);
        let wanted = match segmentation.kind {
            SegmentationKind::Tcp4 => ip.source.is_ipv4(),
            SegmentationKind::Tcp6 => ip.source.is_ipv6(),
        };
        let sound = wanted
            && ip.protocol == protocol::TCP
            && !ip.fragment
            && ip.end == end
            && ip.transport == Some(transport)
            && usize::from(offset) == CHECKSUM
            && segmentation.size >= MIN_SIZE;
        let data_offset = usize::from(prefix.get(transport + DATA_OFFSET)? >> 4) * 4;
        let payload = transport + data_offset;
        if !sound || data_offset < MIN_HEADER || payload > prefix.len() {
            return None;
        }
        Some(Segments {
            source: ip.source,
            destination: ip.destination,
            network: headers.network,
            transport,
            payload,
            at: payload,
            end,
            size: segmentation.size.into(),
            partial,
            done: false,
        })
    }

    pub(super) fn partial(&self) -> bool {
        self.partial
    }

    /// Whether what is left fits in one segment.
    pub(super) fn is_one(&self) -> bool {
        self.end - self.at <= self.size
    }

    /// Whether no segment is left. There is at least one, even without payload.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn next_len(&self) -> usize {
        self.payload + self.size.min(self.end - self.at)
    }

    /// The next segment, of which there has to be one.
    pub(super) fn next<B: Buffer>(&mut self, buffer: &B, own: &mut Vec<u8>) -> Part {
        let range = self.at..self.at + self.size.min(self.end - self.at);
        let base = own.len();
        own.resize(base + self.payload, 0);
        let head = &mut own[base..];
        buffer.read(0, head);
        self.write_ip(&mut head[self.network..], range.len());
        let tcp = &mut head[self.transport..];
        let sent = (self.at - self.payload) as u32;
        let sequence = read_u32(tcp, SEQUENCE).wrapping_add(sent);
        tcp[SEQUENCE..SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
        // What ends a segment belongs to the last, and the answer to a congestion notification is given once.
        if range.end < self.end {
            tcp[FLAGS] &= !(FIN | PSH);
        }
        if sent > 0 {
            tcp[FLAGS] &= !CWR;
        }
        write_u16(tcp, CHECKSUM, 0);
        let len = tcp.len() + range.len();
        let pseudo = Sum::default().pseudo_header(self.source, self.destination, protocol::TCP, len);
        let (field, checksum) = if self.partial {
            let start = self.transport as u16;
            let offset = CHECKSUM as u16;
            (pseudo.fold(), Checksum::Partial { start, offset })
        } else {
            let sum = pseudo.bytes(tcp).buffer(buffer, range.clone());
            (sum.transport_checksum(), Checksum::Unknown)
        };
        write_u16(tcp, CHECKSUM, field);
        self.at = range.end;
        self.done = self.at == self.end;
        Part {
            payload: range,
            offload: Offload {
                checksum,
                segmentation: None,
            },
        }
    }

    /// Adjusts the IP header of a segment with `len` bytes of payload.
    fn write_ip(&self, ip: &mut [u8], len: usize) {
        let total = ip.len() + len;
        if self.source.is_ipv6() {
            return write_u16(ip, PAYLOAD_LENGTH, (total - IPV6_HEADER) as u16);
        }
        let header = &mut ip[..self.transport - self.network];
        let index = (self.at - self.payload) / self.size;
        let id = read_u16(header, IDENTIFICATION).wrapping_add(index as u16);
        write_u16(header, TOTAL_LENGTH, total as u16);
        write_u16(header, IDENTIFICATION, id);
        write_u16(header, HEADER_CHECKSUM, 0);
        let checksum = Sum::default().bytes(header).header_checksum();
        write_u16(header, HEADER_CHECKSUM, checksum);
    }
}

fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn write_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
