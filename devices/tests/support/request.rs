//! Requests of a driver, good and bad, and what is to become of them.

use devices::blk::features as blk;
use devices::disk::{Geometry, SECTOR};
use proptest::prelude::*;

use super::Random;
use super::driver::{Driver, Layout, Piece};
use super::guest::Guest;
use super::machine::ARENA;

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;

/// How many sectors each request of a round has to itself.
pub const REGION: u64 = 64;

/// What a request is like, before it is known where on the disk.
#[derive(Clone, Debug)]
pub struct Spec {
    pub kind: u32,
    pub start: u64,
    pub sectors: u64,
    pub ranges: Vec<(u64, u32, u32)>,
    pub flaw: Flaw,
    /// Where the bytes are split into segments.
    pub cuts: Vec<u16>,
    /// How many direct descriptors come before the table; none for no table.
    pub table: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Starts off the block size, if that is not one sector.
    Unaligned,
    /// Ends beyond the disk.
    Beyond,
    /// Its end is not a number of 64 bits.
    Overflow,
    /// No whole number of sectors.
    Odd,
    /// More than the disk takes at once.
    TooLarge,
    /// So many bytes of header.
    Header(u8),
    /// Data in the wrong direction.
    Backwards,
    /// Its data cannot be accessed.
    Hole,
}

pub fn spec() -> impl Strategy<Value = Spec> {
    let kind = prop_oneof![
        6 => Just(IN),
        6 => Just(OUT),
        2 => Just(FLUSH),
        1 => Just(GET_ID),
        2 => Just(DISCARD),
        2 => Just(WRITE_ZEROES),
        1 => any::<u32>(),
    ];
    let flaw = prop_oneof![
        12 => Just(Flaw::None),
        1 => Just(Flaw::Unaligned),
        1 => Just(Flaw::Beyond),
        1 => Just(Flaw::Overflow),
        1 => Just(Flaw::Odd),
        1 => Just(Flaw::TooLarge),
        1 => (0u8..16).prop_map(Flaw::Header),
        1 => Just(Flaw::Backwards),
        1 => Just(Flaw::Hole),
    ];
    let flags = prop_oneof![6 => Just(0u32), 2 => Just(1), 1 => any::<u32>()];
    let range = (0..REGION, 0u32..80, flags);
    let ranges = prop_oneof![
        4 => prop::collection::vec(range.clone(), 1..3),
        1 => prop::collection::vec(range, 0..20),
    ];
    let cuts = prop::collection::vec(any::<u16>(), 0..6);
    (
        kind,
        0..REGION,
        0u64..=REGION,
        ranges,
        flaw,
        cuts,
        prop::option::of(0u8..3),
    )
        .prop_map(|(kind, start, sectors, ranges, flaw, cuts, table)| Spec {
            kind,
            start,
            sectors,
            ranges,
            flaw,
            cuts,
            table,
        })
}

/// A request as bytes.
#[derive(Clone, Debug)]
pub struct Raw {
    pub kind: u32,
    pub sector: u64,
    /// Bytes of header; all of them are 16.
    pub header: usize,
    /// What the device reads after the header.
    pub out: Vec<u8>,
    /// How many bytes the device may write before the status.
    pub room: usize,
    /// Data cannot be accessed.
    pub hole: bool,
}

impl Spec {
    /// The request, for the region of the disk that is its own.
    pub fn raw(&self, region: u64, geometry: &Geometry, random: &mut Random) -> Raw {
        let base = region * REGION;
        let block = u64::from(geometry.block_size) / SECTOR;
        let mut start = (self.start / block * block).min(REGION - block);
        let mut sectors = self.sectors.min(REGION - start) / block * block;
        match self.flaw {
            Flaw::Unaligned if block > 1 => start += 1,
            Flaw::TooLarge => sectors = u64::from(geometry.max_bytes) / SECTOR + block,
            _ => {}
        }
        let sector = match self.flaw {
            Flaw::Beyond => geometry.sectors - sectors + block,
            Flaw::Overflow => (u64::MAX - sectors) / block * block,
            _ => base + start,
        };
        let odd = if self.flaw == Flaw::Odd {
            1 + random.below(511)
        } else {
            0
        };
        let len = (sectors * SECTOR) as usize + odd;
        let mut raw = Raw {
            kind: self.kind,
            sector,
            header: if let Flaw::Header(len) = self.flaw {
                usize::from(len)
            } else {
                16
            },
            out: Vec::new(),
            room: 0,
            hole: self.flaw == Flaw::Hole,
        };
        match self.kind {
            IN => raw.room = len,
            OUT => raw.out = (0..len).map(|_| random.next() as u8).collect(),
            GET_ID => raw.room = 20 + odd,
            DISCARD | WRITE_ZEROES => {
                for (first, sectors, flags) in &self.ranges {
                    let first = if self.flaw == Flaw::None {
                        first / block * block
                    } else {
                        start
                    };
                    let sectors = u64::from(*sectors);
                    let inside = sectors.min(REGION.saturating_sub(first));
                    let sectors = match random.below(16) {
                        0 => REGION + 1 + sectors,
                        1 => inside,
                        _ => inside / block * block,
                    };
                    let first = if self.flaw == Flaw::None {
                        base + first
                    } else {
                        sector
                    };
                    raw.out.extend(first.to_le_bytes());
                    raw.out.extend((sectors as u32).to_le_bytes());
                    raw.out.extend(flags.to_le_bytes());
                }
                raw.out.resize(raw.out.len() + odd, 0);
            }
            _ => raw.out.resize(odd, 0),
        }
        match self.flaw {
            Flaw::Backwards if raw.kind == IN => raw.out.push(1),
            Flaw::Backwards => raw.room += 1,
            Flaw::Header(_) => raw.out.clear(),
            _ => {}
        }
        raw
    }
}

/// A range that a request discards or zeroes: first sector, number of sectors, flags.
pub fn ranges(raw: &Raw) -> Vec<(u64, u64, u32)> {
    raw.out
        .chunks_exact(16)
        .map(|range| {
            (
                u64::from_le_bytes(range[..8].try_into().unwrap()),
                u64::from(u32::from_le_bytes(range[8..12].try_into().unwrap())),
                u32::from_le_bytes(range[12..].try_into().unwrap()),
            )
        })
        .collect()
}

/// What the specification, and where it says nothing the documentation, wants the status to be.
pub fn expected(raw: &Raw, geometry: &Geometry, features: u64) -> u8 {
    let valid = |sector: u64, bytes: u64| {
        let end = u128::from(sector) * 512 + u128::from(bytes);
        u128::from(sector) * 512 % u128::from(geometry.block_size) == 0
            && bytes.is_multiple_of(u64::from(geometry.block_size))
            && end <= u128::from(geometry.sectors) * 512
    };
    let error = |bad: bool| if bad { IOERR } else { OK };
    if raw.header < 16 {
        return IOERR;
    }
    let read_only = geometry.read_only;
    let max_bytes = u64::from(geometry.max_bytes);
    match raw.kind {
        IN => {
            let len = raw.room as u64;
            error(!raw.out.is_empty() || len > max_bytes || !valid(raw.sector, len) || raw.hole && len > 0)
        }
        OUT => {
            let len = raw.out.len() as u64;
            let bad = raw.room > 0 || len > max_bytes || !valid(raw.sector, len);
            error(read_only || bad || raw.hole && len > 0)
        }
        FLUSH => OK,
        GET_ID => error(raw.room != 20 || !raw.out.is_empty() || raw.hole),
        DISCARD | WRITE_ZEROES => {
            let (feature, flags, limit) = match raw.kind {
                DISCARD => (
                    blk::DISCARD,
                    0,
                    geometry.discard.map_or(0, |limits| u64::from(limits.max_sectors)),
                ),
                _ => (blk::WRITE_ZEROES, 1, max_bytes / SECTOR),
            };
            if features & feature == 0 {
                return UNSUPP;
            }
            let ranges = ranges(raw);
            if raw.out.is_empty() || !raw.out.len().is_multiple_of(16) || ranges.len() > 16 || raw.hole {
                IOERR
            } else if ranges.iter().any(|(_, _, range)| range & !flags != 0) {
                UNSUPP
            } else {
                let good = |(sector, sectors, _): &(u64, u64, u32)| {
                    *sectors <= limit && valid(*sector, sectors * SECTOR)
                };
                error(read_only || !ranges.iter().all(good))
            }
        }
        _ => UNSUPP,
    }
}

/// A request in the driver's memory.
pub struct Placed {
    pub raw: Raw,
    pub head: u16,
    /// The segments to write, without the status.
    room: Vec<(usize, usize)>,
    pub status: usize,
}

/// Gives out memory.
pub struct Arena {
    pub next: usize,
    pub end: usize,
}

impl Arena {
    fn take(&mut self, len: usize) -> usize {
        let at = self.next;
        self.next += len;
        assert!(self.next <= self.end, "the arena is large enough");
        at
    }

    fn align(&mut self, to: usize) {
        self.next = self.next.next_multiple_of(to);
    }
}

/// Splits `len` bytes at places, some of which may be the same.
fn split(len: usize, cuts: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut cuts: Vec<usize> = cuts.map(|cut| cut.min(len)).chain([len]).collect();
    cuts.sort_unstable();
    let mut before = 0;
    cuts.into_iter()
        .map(|cut| cut - std::mem::replace(&mut before, cut))
        .collect()
}

/// Puts a request in memory and in the ring; `None` if the ring is full.
pub fn place(
    spec: &Spec,
    raw: Raw,
    arena: &mut Arena,
    guest: &Guest,
    driver: &mut Driver,
    random: &mut Random,
) -> Option<Placed> {
    let mut out = raw.kind.to_le_bytes().to_vec();
    out.extend((random.next() as u32).to_le_bytes());
    out.extend(raw.sector.to_le_bytes());
    out.truncate(raw.header);
    out.extend(&raw.out);

    let mut pieces: Vec<Piece> = Vec::new();
    // Where data that cannot be accessed begins and ends must be where segments do.
    let cuts = spec.cuts.iter().map(|cut| usize::from(*cut));
    let cut = |len: usize| cuts.clone().map(move |cut| cut % (len + 1));
    let edges = |at: usize| raw.hole.then_some(at).into_iter();
    let mut at = 0;
    for len in split(out.len(), cut(out.len()).chain(edges(raw.header))) {
        let hole = raw.hole && at >= raw.header && len > 0;
        let address = lay(arena, guest, len, hole, random);
        guest.write(address, &out[at..at + len]);
        pieces.push((address, len, false));
        at += len;
    }
    let mut room = Vec::new();
    let mut at = 0;
    let status_at = raw.room;
    let mut status = 0;
    for len in split(raw.room + 1, cut(raw.room + 1).chain(edges(raw.room))) {
        let hole = raw.hole && at < raw.room && len > 0;
        let address = lay(arena, guest, len, hole, random);
        guest.write(address, &vec![0x99; len]);
        pieces.push((address, len, true));
        let data = len.min(raw.room - at.min(raw.room));
        room.push((address, data));
        if (at..at + len).contains(&status_at) {
            status = address + status_at - at;
        }
        at += len;
    }
    let table = arena.take(16 * pieces.len() + 16);
    let layout = match spec.table {
        // The table holds at least one descriptor.
        Some(direct) => Layout::Indirect(usize::from(direct).min(pieces.len() - 1), table),
        None => Layout::Direct,
    };
    let head = driver
        .add(&pieces, layout, random)
        .or_else(|| driver.add(&pieces, Layout::Indirect(0, table), random))?;
    Some(Placed {
        raw,
        head,
        room,
        status,
    })
}

fn lay(arena: &mut Arena, guest: &Guest, len: usize, hole: bool, random: &mut Random) -> usize {
    if !hole {
        arena.next += random.below(40);
        return arena.take(len);
    }
    arena.align(4096);
    let at = arena.take(len.next_multiple_of(4096));
    guest
        .holes
        .borrow_mut()
        .extend(at / 4096..(at + len).div_ceil(4096));
    at
}

impl Placed {
    /// What the device wrote before the status.
    pub fn data(&self, guest: &Guest) -> Vec<u8> {
        self.room
            .iter()
            .flat_map(|(at, len)| guest.read(*at, *len))
            .collect()
    }

    /// Puts into an image of the guest's memory, from the arena on, what the device is allowed to write.
    pub fn forgive(&self, guest: &Guest, image: &mut [u8]) {
        for (at, len) in self.room.iter().copied().chain([(self.status, 1)]) {
            image[at - ARENA..][..len].copy_from_slice(&guest.read(at, len));
        }
    }
}
