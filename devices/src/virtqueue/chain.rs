//! Descriptor chains: what a driver's buffer consists of.

use alloc::vec::Vec;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{MAX_SIZE, QueueError};
use crate::memory::DriverMemory;

/// struct virtq_desc (virtio 1.3, "The Virtqueue Descriptor Table").
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Descriptor {
    address: U64,
    len: U32,
    flags: U16,
    next: U16,
}

pub(crate) const DESCRIPTOR_SIZE: usize = size_of::<Descriptor>();

/// VIRTQ_DESC_F_NEXT.
const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE.
const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT.
const INDIRECT: u16 = 4;

/// A run of bytes in driver memory; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts.
    pub address: u64,
    /// Size in bytes.
    pub len: u32,
}

/// An indirect table that is still to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Where it starts in driver memory.
    pub address: u64,
    /// Size in bytes: a positive multiple of 16, at most 16 * [`MAX_SIZE`].
    pub len: usize,
}

/// One buffer of a driver: first the bytes that the device reads, then those that it writes, each in segments
/// that the driver chose as it liked (virtio 1.3, "Message Framing").
#[derive(Debug, Default)]
pub struct Chain {
    id: u16,
    segments: Vec<Segment>,
    descriptors: u16,
    readable: usize,
    readable_bytes: u64,
    writable_bytes: u64,
    table: Option<Table>,
}

/// While the chains that were taken from a queue and not given back have this many segments, no more are
/// taken: it bounds what a driver can make a queue hold.
const HELD: usize = 2048;
/// The same while memory is scarce.
const HELD_SCARCELY: usize = 64;

/// How many segments (see [`Chain::weight`]) make a queue take no more chains for now.
pub(crate) fn most_held(memory: &impl DriverMemory) -> usize {
    if memory.is_scarce() { HELD_SCARCELY } else { HELD }
}

/// The most segments of a short chain. Short chains keep their memory when they are cleared. Long ones give
/// it back; and they take room for as many segments as a chain can have, 4 KiB, whatever they need: a block
/// of that size is refused while there is still memory for the smaller ones, whose failure would be the end.
const SHORT: usize = 40;

impl Chain {
    /// What the queue calls this buffer.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// The segments to read, in order.
    pub fn readable(&self) -> &[Segment] {
        &self.segments[..self.readable]
    }

    /// The segments to write, in order.
    pub fn writable(&self) -> &[Segment] {
        &self.segments[self.readable..]
    }

    /// How many bytes there are to read.
    pub fn readable_bytes(&self) -> u64 {
        self.readable_bytes
    }

    /// How many bytes there are to write.
    pub fn writable_bytes(&self) -> u64 {
        self.writable_bytes
    }

    /// How many segments are held.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// How many descriptors were followed, empty ones among them.
    pub(crate) fn descriptors(&self) -> usize {
        self.descriptors.into()
    }

    /// What to reckon with for the memory that the chain holds, in segments: it may have held more before.
    /// Stays the same until the chain is cleared.
    pub(crate) fn weight(&self) -> usize {
        self.segments.len().max(self.segments.capacity() / 2)
    }

    /// The table that has to be given to [`extend`](Self::extend) before the chain is complete.
    pub fn table(&self) -> Option<Table> {
        self.table
    }

    /// Forgets everything, to describe another buffer.
    pub(crate) fn clear(&mut self, id: u16) {
        let mut segments = core::mem::take(&mut self.segments);
        segments.clear();
        // Shrinking would ask for memory.
        if segments.capacity() > SHORT {
            segments = Vec::new();
        }
        *self = Chain {
            id,
            segments,
            ..Chain::default()
        };
    }

    /// Follows the chain through the queue's own table, from its head.
    pub(crate) fn walk(
        &mut self,
        head: u16,
        size: u16,
        indirect: bool,
        read: impl Fn(u16) -> Descriptor,
    ) -> Result<(), QueueError> {
        self.follow(
            head,
            size,
            |chain, descriptor| {
                // "Indirect Descriptors": not unless negotiated, and not together with NEXT.
                if !indirect || descriptor.flags.get() & NEXT != 0 {
                    return Err(QueueError::Indirect);
                }
                // WRITE is to be ignored here.
                let len = descriptor.len.get() as usize;
                if len == 0
                    || !len.is_multiple_of(DESCRIPTOR_SIZE)
                    || len > DESCRIPTOR_SIZE * MAX_SIZE as usize
                {
                    return Err(QueueError::Indirect);
                }
                chain.table = Some(Table {
                    address: descriptor.address.get(),
                    len,
                });
                Ok(())
            },
            read,
        )
    }

    /// Completes the chain with the bytes of its indirect table, as read from [`table`](Self::table).
    pub fn extend(&mut self, table: &[u8]) -> Result<(), QueueError> {
        self.table = None;
        let Ok(table) = <[Descriptor]>::ref_from_bytes(table) else {
            return Err(QueueError::Indirect);
        };
        // Tables are no longer than MAX_SIZE descriptors; see `walk`.
        let size = u16::try_from(table.len()).map_err(|_| QueueError::Indirect)?;
        self.reserve(self.segments.len() + segments_of(table))?;
        // "Only one table per descriptor": a table in a table is an error.
        self.follow(
            0,
            size,
            |_, _| Err(QueueError::Indirect),
            |index| table[index as usize],
        )
    }

    fn follow(
        &mut self,
        first: u16,
        size: u16,
        indirect: impl Fn(&mut Self, Descriptor) -> Result<(), QueueError>,
        read: impl Fn(u16) -> Descriptor,
    ) -> Result<(), QueueError> {
        let mut index = first;
        // A chain that visits more descriptors than there are visits one twice.
        for _ in 0..size {
            if index >= size {
                return Err(QueueError::DescriptorIndex);
            }
            let descriptor = read(index);
            if descriptor.flags.get() & INDIRECT != 0 {
                return indirect(self, descriptor);
            }
            self.push(descriptor)?;
            if descriptor.flags.get() & NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next.get();
        }
        Err(QueueError::TooManyDescriptors)
    }

    fn push(&mut self, descriptor: Descriptor) -> Result<(), QueueError> {
        if self.descriptors == MAX_SIZE {
            return Err(QueueError::TooManyDescriptors);
        }
        self.descriptors += 1;
        let len = descriptor.len.get();
        // The specification gives no meaning to an empty element; it has nothing to read or write.
        if len == 0 {
            return Ok(());
        }
        // At most 256 lengths of 32 bits: the sums cannot overflow. "Drivers MUST NOT add a descriptor chain
        // longer than 2^32 bytes in total".
        if self.readable_bytes + self.writable_bytes + u64::from(len) > 1 << 32 {
            return Err(QueueError::TooManyBytes);
        }
        if descriptor.flags.get() & WRITE != 0 {
            self.writable_bytes += u64::from(len);
        } else if self.writable_bytes == 0 {
            self.readable += 1;
            self.readable_bytes += u64::from(len);
        } else {
            // "Message Framing": "The driver MUST place any device-writable descriptor elements after any
            // device-readable descriptor elements."
            return Err(QueueError::Order);
        }
        let count = self.segments.len();
        if count == self.segments.capacity() {
            self.reserve(if count < SHORT {
                (2 * count).clamp(4, SHORT)
            } else {
                count + 1
            })?;
        }
        self.segments.push(Segment {
            address: descriptor.address.get(),
            len,
        });
        Ok(())
    }

    /// Makes room for so many segments in all.
    fn reserve(&mut self, segments: usize) -> Result<(), QueueError> {
        let room = if segments > SHORT {
            usize::from(MAX_SIZE)
        } else {
            segments
        };
        let more = room.saturating_sub(self.segments.len());
        let reserved = self.segments.try_reserve_exact(more);
        reserved.map_err(|_| QueueError::NoMemory)
    }
}

/// How many segments the chain in an indirect table has. There may be more descriptors: empty ones, and such
/// as it does not visit.
fn segments_of(table: &[Descriptor]) -> usize {
    let (mut count, mut index) = (0, 0);
    for _ in 0..table.len() {
        let Some(descriptor) = table.get(usize::from(index)) else {
            break;
        };
        count += usize::from(descriptor.len.get() != 0);
        if descriptor.flags.get() & NEXT == 0 {
            break;
        }
        index = descriptor.next.get();
    }
    count
}

/// The pieces of `segments` that hold `len` bytes from byte `skip` on. Addresses wrap rather than overflow;
/// whoever uses them checks.
pub fn pieces(segments: &[Segment], skip: u64, len: u64) -> impl Iterator<Item = Segment> + '_ {
    let (mut skip, mut left) = (skip, len);
    segments.iter().filter_map(move |segment| {
        let skipped = skip.min(u64::from(segment.len));
        skip -= skipped;
        let taken = (u64::from(segment.len) - skipped).min(left);
        left -= taken;
        // `taken` is no more than a segment's length, so it fits.
        (taken > 0).then(|| Segment {
            address: segment.address.wrapping_add(skipped),
            len: taken as u32,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> Descriptor {
        Descriptor {
            address: address.into(),
            len: len.into(),
            flags: flags.into(),
            next: next.into(),
        }
    }

    fn bytes(descriptors: &[Descriptor]) -> Vec<u8> {
        let bytes = descriptors.iter().map(|it| {
            let (len, flags) = (it.len.get().to_le_bytes(), it.flags.get().to_le_bytes());
            let (address, next) = (it.address.get().to_le_bytes(), it.next.get().to_le_bytes());
            [&address[..], &len, &flags, &next].concat()
        });
        bytes.flatten().collect()
    }

    fn walk(table: &[Descriptor], indirect: bool) -> Result<Chain, QueueError> {
        let mut chain = Chain::default();
        chain.walk(0, table.len() as u16, indirect, |index| table[index as usize])?;
        Ok(chain)
    }

    #[test]
    fn readable_then_writable() {
        let chain = walk(
            &[
                descriptor(1, 16, NEXT, 2),
                descriptor(9, 1, WRITE, 0),
                descriptor(5, 4, NEXT, 1),
            ],
            false,
        )
        .unwrap();
        assert_eq!(
            chain.readable(),
            [Segment { address: 1, len: 16 }, Segment { address: 5, len: 4 }]
        );
        assert_eq!(chain.writable(), [Segment { address: 9, len: 1 }]);
        assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (20, 1));
    }

    #[test]
    fn empty_descriptors_hold_nothing() {
        let chain = walk(
            &[descriptor(1, 0, NEXT | WRITE, 1), descriptor(5, 4, 0, 0)],
            false,
        )
        .unwrap();
        assert_eq!(chain.readable(), [Segment { address: 5, len: 4 }]);
    }

    #[test]
    fn a_table_takes_no_more_memory_than_its_segments() {
        let mut empty = vec![descriptor(1, 16, NEXT | WRITE, 1)];
        empty.extend((2..256).map(|next| descriptor(1, 0, NEXT | WRITE, next)));
        empty.push(descriptor(1, 0, WRITE, 0));
        let mut unvisited = vec![descriptor(1, 16, WRITE, 0)];
        unvisited.resize(256, descriptor(1, 16, WRITE, 0));
        let mut endless = vec![descriptor(1, 0, NEXT, 0)];
        endless.resize(256, descriptor(1, 16, WRITE, 0));
        for table in [empty, unvisited, endless] {
            let mut chain = Chain::default();
            let _ = chain.extend(&bytes(&table));
            assert!(chain.weight() <= 2, "{}", chain.weight());
        }
    }

    #[test]
    fn long_chains_take_large_blocks() {
        for (count, room) in [
            (1, 4),
            (5, 8),
            (17, 32),
            (33, 40),
            (40, 40),
            (41, 256),
            (255, 256),
        ] {
            let mut table = vec![descriptor(1, 16, 0, 0); count];
            (1..count).for_each(|next| table[next - 1] = descriptor(1, 16, NEXT, next as u16));
            assert_eq!(walk(&table, false).unwrap().segments.capacity(), room);
            let mut chain = Chain::default();
            chain.extend(&bytes(&table)).unwrap();
            let room = if count > SHORT { room } else { count };
            assert_eq!((chain.segments(), chain.segments.capacity()), (count, room));
        }
    }

    #[test]
    fn bad_chains() {
        let error = |table: &[Descriptor]| walk(table, true).unwrap_err();
        assert_eq!(
            error(&[descriptor(0, 1, NEXT, 0)]),
            QueueError::TooManyDescriptors
        );
        assert_eq!(
            error(&[descriptor(0, 1, NEXT, 1)]),
            QueueError::TooManyDescriptors
        );
        assert_eq!(
            error(&[descriptor(0, 1, NEXT, 7), descriptor(0, 1, 0, 0)]),
            QueueError::DescriptorIndex
        );
        assert_eq!(
            error(&[descriptor(0, 1, NEXT | WRITE, 1), descriptor(0, 1, 0, 0)]),
            QueueError::Order
        );
        assert_eq!(
            error(&[descriptor(0, u32::MAX, NEXT, 1), descriptor(0, 2, 0, 0)]),
            QueueError::TooManyBytes
        );
        for bad in [
            descriptor(0, 16, INDIRECT | NEXT, 0),
            descriptor(0, 0, INDIRECT, 0),
            descriptor(0, 17, INDIRECT, 0),
            descriptor(0, 257 * 16, INDIRECT, 0),
        ] {
            assert_eq!(error(&[bad]), QueueError::Indirect);
        }
        assert_eq!(
            walk(&[descriptor(0, 16, INDIRECT, 0)], false).unwrap_err(),
            QueueError::Indirect
        );
    }

    #[test]
    fn a_table_after_direct_descriptors() {
        let mut chain = walk(
            &[
                descriptor(1, 16, NEXT, 1),
                descriptor(64, 32, INDIRECT | WRITE, 0),
            ],
            true,
        )
        .unwrap();
        assert_eq!(chain.table(), Some(Table { address: 64, len: 32 }));
        let mut table = [0u8; 32];
        table[0] = 7; // address
        table[8] = 3; // len
        table[12] = NEXT as u8;
        table[14] = 1; // next
        table[24] = 1; // len
        table[28] = WRITE as u8;
        chain.extend(&table).unwrap();
        assert_eq!(chain.table(), None);
        assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (19, 1));
        table[12] = INDIRECT as u8;
        assert_eq!(chain.extend(&table), Err(QueueError::Indirect));
    }

    #[test]
    fn the_limit_holds_across_the_table() {
        let mut chain = walk(
            &[descriptor(1, 16, NEXT, 1), descriptor(64, 4096, INDIRECT, 0)],
            true,
        )
        .unwrap();
        let table: Vec<u8> = (1..=256u16)
            .flat_map(|next| {
                let mut bytes = [0u8; 16];
                bytes[8] = 1;
                bytes[12] = if next < 256 { NEXT as u8 } else { 0 };
                bytes[14..].copy_from_slice(&next.to_le_bytes());
                bytes
            })
            .collect();
        assert_eq!(chain.extend(&table), Err(QueueError::TooManyDescriptors));
    }

    #[test]
    fn pieces_cover_a_range() {
        let segments = [
            Segment { address: 10, len: 4 },
            Segment { address: 100, len: 2 },
            Segment { address: 50, len: 10 },
        ];
        let all: Vec<_> = pieces(&segments, 3, 5).collect();
        assert_eq!(
            all,
            [
                Segment { address: 13, len: 1 },
                Segment { address: 100, len: 2 },
                Segment { address: 50, len: 2 }
            ]
        );
        assert_eq!(pieces(&segments, 16, 5).count(), 0);
        assert_eq!(pieces(&segments, 0, 0).count(), 0);
    }
}
