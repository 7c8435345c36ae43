//! What senders leave to offloading, done in software: for receivers that cannot do it.
//!
//! [`Parts`] makes one or more packets of a frame. Each consists of bytes of its own (the headers) and a
//! range of the frame's buffer, so that payload is copied from the frame straight to whoever receives it.

mod checksum;
mod tcp;

use alloc::vec::Vec;
use core::ops::Range;

pub use checksum::Sum;
use tcp::Segments;

use super::headers::{Headers, PREFIX};
use super::{Checksum, Frame, Offload, Segmentation, SegmentationKind};
use crate::memory::Buffer;

/// What a receiver does by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It takes packets whose checksum is still to be computed.
    pub checksum: bool,
    /// It takes TCP segments over IPv4 that are still to be cut up, unless they have the flag CWR. Needs
    /// `checksum`.
    pub tcp4: bool,
    /// The same over IPv6.
    pub tcp6: bool,
}

impl Abilities {
    fn segment(&self, kind: SegmentationKind) -> bool {
        self.checksum
            && match kind {
                SegmentationKind::Tcp4 => self.tcp4,
                SegmentationKind::Tcp6 => self.tcp6,
            }
    }
}

/// One packet: some bytes of its own, and then this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The part of the frame's buffer that follows the packet's own bytes.
    pub payload: Range<usize>,
    /// What is still to be done about the packet.
    pub offload: Offload,
}

/// The packets that a frame becomes for a receiver.
#[derive(Clone, Debug)]
pub struct Parts {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The frame as it is.
    Whole { len: usize, offload: Offload },
    /// The frame with its checksum computed, which ends at byte `end`.
    Checksummed { len: usize, start: usize, end: usize },
    /// Several.
    Segments(Segments),
    /// There are no more.
    Done,
}

/// What is really to be done about a frame of which its sender asks for `offload`. `None` if that cannot be
/// done, because its headers are not what they should be.
///
/// Those who finish it later, in other hands, may rely on this: its checksum is that of the TCP or UDP
/// header, so that whoever has looked at the headers before has seen all that they will be. And a frame that
/// is to be cut up is more than one segment, and as long as its IP header says.
pub fn needed<B: Buffer>(buffer: &B, offload: Offload) -> Option<Offload> {
    let segmentation = match (offload.segmentation, offload.checksum) {
        (Some(segmentation), Checksum::Partial { start, offset }) => {
            let segments = Segments::new(buffer, segmentation, start, offset, false)?;
            (!segments.is_one()).then_some(segmentation)
        }
        (None, Checksum::Partial { .. }) if Headers::of(buffer)?.partial() != Some(offload.checksum) => {
            return None;
        }
        (None, _) => None,
        (Some(_), _) => return None,
    };
    Some(Offload {
        segmentation,
        ..offload
    })
}

/// How many bytes of headers a frame has that is to be cut up, up to its TCP payload; 0 for others.
pub fn headers_len<B: Buffer>(buffer: &B, offload: &Offload) -> u16 {
    match (offload.segmentation, offload.checksum) {
        (Some(_), Checksum::Partial { start, .. }) => tcp::headers_len(buffer, start),
        _ => 0,
    }
}

impl Parts {
    /// What becomes of a frame. `None` if what is left to do about it cannot be done, because its headers are
    /// not what they should be.
    pub fn new<B: Buffer>(frame: &Frame<B>, can: Abilities) -> Option<Self> {
        let (buffer, mut offload, len) = (frame.buffer(), frame.offload, frame.len());
        let kind = match (offload.segmentation, offload.checksum) {
            // Who does not know the flag CWR would repeat it ("the device SHOULD NOT send to the driver TCP
            // packets requiring segmentation offload which have the Explicit Congestion Notification bit
            // set").
            (Some(Segmentation { kind, .. }), Checksum::Partial { start, .. })
                if can.segment(kind) && !tcp::has_cwr(buffer, start) =>
            {
                Kind::Whole { len, offload }
            }
            (Some(segmentation), Checksum::Partial { start, offset }) => {
                Kind::Segments(Segments::new(buffer, segmentation, start, offset, can.checksum)?)
            }
            (Some(_), _) => return None,
            (None, Checksum::Partial { start, offset }) if !can.checksum => {
                let start = usize::from(start);
                let end = start + usize::from(offset) + 2;
                if end > len.min(PREFIX) {
                    return None;
                }
                Kind::Checksummed { len, start, end }
            }
            (None, checksum) => {
                if checksum == Checksum::Valid && !can.checksum {
                    offload.checksum = Checksum::Unknown;
                }
                Kind::Whole { len, offload }
            }
        };
        Some(Parts { kind })
    }

    /// Whether the frame is to be cut up here.
    pub fn segments(&self) -> bool {
        matches!(self.kind, Kind::Segments(_))
    }

    /// Whether checksums are computed here.
    pub fn checksums(&self) -> bool {
        match &self.kind {
            Kind::Checksummed { .. } => true,
            Kind::Segments(segments) => !segments.partial(),
            _ => false,
        }
    }

    /// The length in bytes of the next packet, if there is one.
    pub fn next_len(&self) -> Option<usize> {
        match &self.kind {
            Kind::Whole { len, .. } | Kind::Checksummed { len, .. } => Some(*len),
            Kind::Segments(segments) => Some(segments.next_len()),
            Kind::Done => None,
        }
    }

    /// The next packet: appends the bytes of its own to `own`. `buffer` is that of the frame.
    pub fn next<B: Buffer>(&mut self, buffer: &B, own: &mut Vec<u8>) -> Option<Part> {
        let part = match &mut self.kind {
            Kind::Done => return None,
            Kind::Whole { len, offload } => Part {
                payload: 0..*len,
                offload: *offload,
            },
            Kind::Checksummed { len, start, end } => {
                let at = own.len();
                own.resize(at + *end, 0);
                let head = &mut own[at..];
                buffer.read(0, head);
                // The field holds the sum over the pseudo-header now, so it is summed up with the rest.
                let sum = Sum::default().buffer(buffer, *start..*len);
                head[*end - 2..].copy_from_slice(&sum.transport_checksum().to_be_bytes());
                Part {
                    payload: *end..*len,
                    offload: Offload::default(),
                }
            }
            Kind::Segments(segments) => {
                let part = segments.next(buffer, own);
                if !segments.is_done() {
                    return Some(part);
                }
                part
            }
        };
        self.kind = Kind::Done;
        Some(part)
    }

    /// Makes a frame of the next packet, in the empty `frame` of [`next_len`](Self::next_len) bytes, for
    /// those who do not take packets in two pieces; `buffer` is that of the frame that it is made of. What
    /// `own` holds is lost. Tells whether there was a packet.
    pub fn fill<B: Buffer>(&mut self, buffer: &B, frame: &mut Frame<B>, own: &mut Vec<u8>) -> bool {
        own.clear();
        let Some(part) = self.next(buffer, own) else {
            return false;
        };
        frame.buffer().write(0, own);
        let mut chunk = [0; 512];
        for at in part.payload.clone().step_by(chunk.len()) {
            let bytes = &mut chunk[..(part.payload.end - at).min(512)];
            buffer.read(at, bytes);
            frame.buffer().write(own.len() + at - part.payload.start, bytes);
        }
        frame.offload = part.offload;
        true
    }
}
