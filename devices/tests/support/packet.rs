//! Packets, and what a receiver makes of them: checksums and reassembly written down a second time.

use devices::net::{Checksum, Offload, Segmentation, SegmentationKind};
use proptest::prelude::*;

/// The size of virtio's header.
pub const HEADER: usize = 12;

/// Which headers a frame has.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub vlan: bool,
    pub ipv6: bool,
    /// Of IPv4: words of options; of IPv6: extension headers of 8 bytes.
    pub ip_options: usize,
    /// Words of TCP options.
    pub tcp_options: usize,
    pub flags: u8,
    pub sequence: u32,
    pub id: u16,
}

/// Any shape, with so many words of IP options.
pub fn shape(ip_options: core::ops::Range<usize>) -> impl Strategy<Value = Shape> {
    (
        any::<bool>(),
        any::<bool>(),
        ip_options,
        0usize..11,
        any::<u8>(),
        any::<u32>(),
        any::<u16>(),
    )
        .prop_map(
            |(vlan, ipv6, ip_options, tcp_options, flags, sequence, id)| Shape {
                vlan,
                ipv6,
                ip_options,
                tcp_options,
                flags,
                sequence,
                id,
            },
        )
}

impl Shape {
    fn ethernet(&self) -> usize {
        14 + if self.vlan { 4 } else { 0 }
    }

    /// Where TCP starts.
    pub fn transport(&self) -> usize {
        self.ethernet()
            + if self.ipv6 {
                40 + 8 * self.ip_options
            } else {
                20 + 4 * self.ip_options
            }
    }

    /// Where payload starts.
    pub fn headers(&self) -> usize {
        self.transport() + 20 + 4 * self.tcp_options
    }

    /// A TCP frame whose checksum field holds what a sender that offloads leaves there.
    pub fn tcp(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 0x10, 2, 0, 0, 0, 0, 0x20];
        if self.vlan {
            frame.extend([0x81, 0, 0, 7]);
        }
        let tcp_len = 20 + 4 * self.tcp_options + payload.len();
        if self.ipv6 {
            let len = (8 * self.ip_options + tcp_len) as u16;
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([if self.ip_options > 0 { 60 } else { 6 }, 64]);
            frame.extend([0xfd; 16]);
            frame.extend([0xfe; 16]);
            for left in (0..self.ip_options).rev() {
                frame.extend([if left > 0 { 60 } else { 6 }, 0, 1, 4, 0, 0, 0, 0]);
            }
        } else {
            let len = (20 + 4 * self.ip_options + tcp_len) as u16;
            frame.extend([8, 0, 0x45 + self.ip_options as u8, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend(self.id.to_be_bytes());
            frame.extend([0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            frame.extend(vec![1; 4 * self.ip_options]);
            let at = self.ethernet();
            let sum = !sum(&frame[at..]);
            frame[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
        }
        frame.extend([0x12, 0x34, 0, 80]);
        frame.extend(self.sequence.to_be_bytes());
        frame.extend([
            1,
            2,
            3,
            4,
            (5 + self.tcp_options as u8) << 4,
            self.flags,
            9,
            9,
            0,
            0,
            0,
            0,
        ]);
        frame.extend(vec![1; 4 * self.tcp_options]);
        frame.extend(payload);
        let pseudo = sum(&self.pseudo_header(&frame));
        let at = self.transport() + 16;
        frame[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        frame
    }

    /// The same frame with UDP in place of TCP.
    pub fn udp(&self, payload: &[u8]) -> Vec<u8> {
        let at = self.transport();
        let mut frame = Shape {
            tcp_options: 0,
            ..*self
        }
        .tcp(payload);
        // The header is that much shorter, and so is all that says how long the packet is.
        let less = 12u16;
        frame.drain(at + 8..at + 20);
        let ip = self.ethernet();
        let len = ip + if self.ipv6 { 4 } else { 2 };
        let shorter = u16::from_be_bytes([frame[len], frame[len + 1]]) - less;
        frame[len..len + 2].copy_from_slice(&shorter.to_be_bytes());
        let next = match (self.ipv6, self.ip_options) {
            (false, _) => ip + 9,
            (true, 0) => ip + 6,
            (true, _) => at - 8,
        };
        frame[next] = 17;
        if !self.ipv6 {
            frame[ip + 10..ip + 12].fill(0);
            let sum = !sum(&frame[ip..at]);
            frame[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
        }
        let udp = (frame.len() - at) as u16;
        frame[at + 4..at + 6].copy_from_slice(&udp.to_be_bytes());
        frame
    }

    fn pseudo_header(&self, frame: &[u8]) -> Vec<u8> {
        let at = self.ethernet();
        let (from, to) = if self.ipv6 {
            (at + 8, at + 40)
        } else {
            (at + 12, at + 20)
        };
        let mut pseudo = frame[from..to].to_vec();
        pseudo.extend([0, 6]);
        pseudo.extend(((frame.len() - self.transport()) as u16).to_be_bytes());
        pseudo
    }

    /// What is still to be done about such a frame, if it is to be cut up into segments of `size` bytes.
    pub fn offload(&self, size: Option<u16>) -> Offload {
        let kind = if self.ipv6 {
            SegmentationKind::Tcp6
        } else {
            SegmentationKind::Tcp4
        };
        Offload {
            checksum: Checksum::Partial {
                start: self.transport() as u16,
                offset: 16,
            },
            segmentation: size.map(|size| Segmentation { kind, size }),
        }
    }

    /// Checks a packet as its receiver would, `partial` if the checksum is still to be computed, and gives
    /// its sequence number relative to the first, its flags, its id and its payload.
    pub fn check(&self, packet: &[u8], partial: bool) -> (u32, u8, u16, Vec<u8>) {
        let (ip, tcp) = (self.ethernet(), self.transport());
        let whole = (packet.len() - ip) as u16;
        let len = u16::from_be_bytes(
            packet[ip + if self.ipv6 { 4 } else { 2 }..][..2]
                .try_into()
                .unwrap(),
        );
        if self.ipv6 {
            assert_eq!(len + 40, whole);
        } else {
            assert_eq!(len, whole);
            assert_eq!(sum(&packet[ip..tcp]), 0xffff, "the header's checksum");
        }
        let pseudo = sum(&self.pseudo_header(packet));
        let field = &packet[tcp + 16..tcp + 18];
        if partial {
            assert_eq!(field, pseudo.to_be_bytes());
        } else {
            let total = u32::from(pseudo) + u32::from(sum(&packet[tcp..]));
            assert_eq!(total % 0xffff, 0, "TCP's checksum");
            assert_ne!(field, [0, 0]);
        }
        let sequence = u32::from_be_bytes(packet[tcp + 4..tcp + 8].try_into().unwrap());
        let id = u16::from_be_bytes(packet[ip + 4..ip + 6].try_into().unwrap());
        (
            sequence.wrapping_sub(self.sequence),
            packet[tcp + 13],
            if self.ipv6 { self.id } else { id },
            packet[self.headers()..].to_vec(),
        )
    }

    /// Puts segments together again, checking each.
    pub fn reassemble(&self, packets: &[Vec<u8>], size: usize, partial: bool) -> Vec<u8> {
        let mut payload = Vec::new();
        for (n, packet) in packets.iter().enumerate() {
            let (sequence, flags, id, bytes) = self.check(packet, partial);
            assert_eq!(sequence as usize, payload.len());
            assert_eq!(id, self.id.wrapping_add(if self.ipv6 { 0 } else { n as u16 }));
            let mut expected = self.flags;
            if n > 0 {
                expected &= !0x80;
            }
            if n + 1 < packets.len() {
                expected &= !9;
                assert_eq!(bytes.len(), size);
            }
            assert_eq!(flags, expected);
            assert!(bytes.len() <= size);
            payload.extend(bytes);
        }
        payload
    }
}

/// The ones' complement sum of big-endian words.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for (n, byte) in bytes.iter().enumerate() {
        sum += u32::from(*byte) << if n % 2 == 0 { 8 } else { 0 };
        sum = (sum & 0xffff) + (sum >> 16);
    }
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// virtio's header for a packet.
pub fn header(offload: &Offload, hdr_len: u16, buffers: u16) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    match offload.checksum {
        Checksum::Unknown => {}
        Checksum::Valid => header[0] = 2,
        Checksum::Partial { start, offset } => {
            header[0] = 1;
            header[6..8].copy_from_slice(&start.to_le_bytes());
            header[8..10].copy_from_slice(&offset.to_le_bytes());
        }
    }
    if let Some(Segmentation { kind, size }) = offload.segmentation {
        header[1] = if kind == SegmentationKind::Tcp4 { 1 } else { 4 };
        header[2..4].copy_from_slice(&hdr_len.to_le_bytes());
        header[4..6].copy_from_slice(&size.to_le_bytes());
    }
    header[10..].copy_from_slice(&buffers.to_le_bytes());
    header
}
