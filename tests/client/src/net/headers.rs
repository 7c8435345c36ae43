//! Bad headers before packets, and frames that are none. Such frames are dropped, and the device goes on.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use smoltcp::wire::{EthernetAddress, EthernetProtocol};

use super::packet::{ETHERNET, IPV4, Place, TCP};
use super::raw::{HEADER, OFFLOADS, RawNic, SLOT, SLOTS};
use crate::device::Device;
use crate::number;
use crate::random::Random;
use crate::report::Outcome;

/// The scenarios of this group.
pub const NAMES: &[&str] = &[
    "headers",
    "headers-not-negotiated",
    "frame-lengths",
    "frame-garbage",
    "tiny-segments",
];

/// Headers that a test of them sends.
const HEADERS: u32 = 1500;

/// struct virtio_net_hdr.
#[derive(Clone, Copy, Default)]
pub struct Header {
    pub flags: u8,
    pub gso_type: u8,
    pub hdr_len: u16,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
    pub num_buffers: u16,
}

impl Header {
    /// As the device reads it.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.flags, self.gso_type];
        for field in [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        ] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// For a TCP segment over IPv4, to be cut into so many bytes.
    pub fn segmented(gso_size: u16) -> Self {
        Self {
            flags: 1,
            gso_type: 1,
            hdr_len: (ETHERNET + IPV4 + TCP) as u16,
            gso_size,
            csum_start: (ETHERNET + IPV4) as u16,
            csum_offset: 16,
            num_buffers: 0,
        }
    }

    /// One whose fields are odd, or even what they should be.
    fn random(random: &mut Random) -> Self {
        let mut of = |choices: &[u16]| choices[random.below(choices.len() as u64) as usize];
        Self {
            flags: of(&[0, 1, 1, 1, 2, 3, 0xfe, 0xff]) as u8,
            gso_type: of(&[0, 1, 1, 1, 2, 3, 4, 5, 0x80, 0x81, 0x84, 0xff]) as u8,
            hdr_len: of(&[0, 1, 54, 0xffff]),
            gso_size: of(&[0, 1, 2, 100, 1448, 1500, 9000, 0xffff]),
            csum_start: of(&[0, 13, 14, 33, 34, 34, 34, 54, 100, 0xfffe, 0xffff]),
            csum_offset: of(&[0, 6, 15, 16, 16, 16, 17, 0xfffe, 0xffff]),
            num_buffers: of(&[0, 1, 0xffff]),
        }
    }
}

/// Runs a scenario on a fresh device.
pub async fn run(device: &Rc<Device>, place: &Place, name: &str) -> Outcome {
    let features = if name == "headers-not-negotiated" {
        0
    } else {
        OFFLOADS
    };
    let mut nic = RawNic::new(device, features)?;
    match name {
        "frame-lengths" => lengths(&mut nic, place).await?,
        "frame-garbage" => garbage(&mut nic, place).await?,
        "tiny-segments" => tiny_segments(&mut nic, place).await?,
        _ => headers(&mut nic, place).await?,
    }
    nic.expect_service(place).await?;
    nic.finish()
}

async fn headers(nic: &mut RawNic, place: &Place) -> Outcome {
    let mut random = Random::new(number("seed", 1)?);
    let segment = place.tcp_segment(&[0x55; 3000]);
    let frames = [
        segment.clone(),
        segment[..ETHERNET + IPV4 + TCP].to_vec(),
        segment[..ETHERNET + IPV4 + 3].to_vec(),
        place.arp_request(),
        place.echo_request(1, &[0; 1000]),
        vec![0xff; 1000],
        vec![0; ETHERNET],
    ];
    for number in 0..HEADERS {
        let frame = &frames[random.below(frames.len() as u64) as usize];
        let slot = (number % u32::from(SLOTS)) as u16;
        let part = nic.store(slot, &Header::random(&mut random).bytes(), frame);
        nic.offer(slot, &[part]);
        if slot == SLOTS - 1 {
            nic.sent().await?;
        }
    }
    nic.sent().await
}

/// Chains of every length up to an Ethernet header's, and the largest that there can be.
async fn lengths(nic: &mut RawNic, place: &Place) -> Outcome {
    let whole = usize::from(SLOTS) * SLOT;
    let frame = place.tcp_segment(&vec![0; whole - 500]);
    for len in (0..HEADER + ETHERNET + 4).chain([1526, 1527, 1531, 9000, 16384, 65000, 65535]) {
        let mut part = nic.store(0, &[], &frame[..len.saturating_sub(HEADER).min(frame.len())]);
        part.len = len as u32;
        nic.offer(0, &[part]);
        nic.sent().await?;
    }
    for len in [u32::MAX, 1 << 31, 1 << 20, 1 << 17] {
        let mut part = nic.store(0, &[], &frame);
        part.len = len;
        nic.offer(0, &[part]);
        nic.sent().await?;
    }
    Ok(())
}

/// Frames of random bytes, each to the gateway, to everybody or to anybody, as some protocol.
async fn garbage(nic: &mut RawNic, place: &Place) -> Outcome {
    let mut random = Random::new(number("seed", 1)?);
    for number in 0..HEADERS {
        let to = match random.below(4) {
            0 => EthernetAddress::BROADCAST,
            1 => EthernetAddress([1, 0, 0x5e, 0, 0, random.next() as u8]),
            _ => place.gateway_mac,
        };
        let ethertype = match random.below(5) {
            0 => EthernetProtocol::Arp,
            1 => EthernetProtocol::Ipv6,
            2 => EthernetProtocol::Unknown(0x8100),
            _ => EthernetProtocol::Ipv4,
        };
        let mut frame = place.frame(to, ethertype, random.below(1480) as usize + 20);
        let start = ETHERNET + random.below(20) as usize;
        for byte in &mut frame[start..] {
            *byte = random.next() as u8;
        }
        if ethertype == EthernetProtocol::Ipv4 && random.below(2) == 0 {
            // A good beginning.
            let good = place.echo_request(1, &[]);
            let len = (ETHERNET + 2 + random.below(26) as usize).min(good.len());
            let to = frame.len().min(len);
            frame[..to].copy_from_slice(&good[..to]);
        }
        let slot = (number % u32::from(SLOTS)) as u16;
        let part = nic.store(slot, &[], &frame);
        nic.offer(slot, &[part]);
        if slot == SLOTS - 1 {
            nic.sent().await?;
        }
    }
    nic.sent().await
}

/// As much as a frame can be, to be cut into single bytes: for the gateway, and for everybody.
async fn tiny_segments(nic: &mut RawNic, place: &Place) -> Outcome {
    let mut frame = place.tcp_segment(&[0x55; 60_000]);
    for round in 0..8 {
        if round == 4 {
            frame[..6].copy_from_slice(&[0xff; 6]);
        }
        nic.send(&Header::segmented(1 + round % 2).bytes(), &frame);
        nic.sent().await?;
    }
    Ok(())
}
