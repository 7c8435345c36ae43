//! A model of a back end with a disk, and payload that it reaches through grants. Data is a stamp per sector.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use zerocopy::FromBytes;

use super::super::wire::{
    Direct, Discard, ENTRY_BYTES, Indirect, Response, SEGMENTS_PER_PAGE, Segment, operation, status,
};
use super::*;
use crate::blkif::nodes::DiscardSupport;
use crate::ring::back::{BackRing, Shared};

pub const DISK_SECTORS: u64 = 1 << 20;

/// All pages, by number. A grant reference is a page number and the epoch, which each new connection begins:
/// with the old epoch's references, the old back end would be found at work.
#[derive(Default)]
pub struct Memory {
    epoch: u32,
    stamps: Vec<[u32; 8]>,
    segments: HashMap<u32, Vec<u8>>,
}

pub type World = Rc<RefCell<Memory>>;

const EPOCH: u32 = 1 << 20;

pub struct Pages {
    world: World,
    pages: Vec<u32>,
    bytes: usize,
}

impl Pages {
    pub fn new(world: &World, sectors: u64) -> Self {
        let mut memory = world.borrow_mut();
        let first = memory.stamps.len() as u32;
        let pages: Vec<_> = (first..first + sectors.div_ceil(8) as u32).collect();
        memory.stamps.resize(first as usize + pages.len(), [0; 8]);
        Self {
            world: world.clone(),
            pages,
            bytes: sectors as usize * 512,
        }
    }

    pub fn stamp(&self, value: u32) {
        for &page in &self.pages {
            self.world.borrow_mut().stamps[page as usize] = [value; 8];
        }
    }

    pub fn stamps(&self) -> Vec<u32> {
        let memory = self.world.borrow();
        let all = self.pages.iter().flat_map(|&page| memory.stamps[page as usize]);
        all.take(self.bytes / 512).collect()
    }
}

impl Payload for Pages {
    fn bytes(&self) -> usize {
        self.bytes
    }
    fn grant(&self, page: usize) -> u32 {
        self.world.borrow().epoch * EPOCH + self.pages[page]
    }
    fn fill(&self, offset: usize, from: &[u8]) {
        let mut memory = self.world.borrow_mut();
        let bytes = memory
            .segments
            .entry(self.pages[0])
            .or_insert_with(|| vec![0; 4096]);
        bytes[offset..offset + from.len()].copy_from_slice(from);
    }
}

/// A request as the back end understood it.
struct Taken {
    id: u64,
    operation: u8,
    sector: u64,
    sectors: u64,
    segments: Vec<Segment>,
}

/// Back ends come and go; the disk stays.
pub struct Backend {
    pub world: World,
    pub disk: HashMap<u64, u32>,
    ring: Option<BackRing>,
    taken: Vec<Taken>,
    answered: Vec<u64>,
    max_segments: usize,
    pub notified: bool,
}

impl Backend {
    pub fn new() -> Self {
        Self {
            world: World::default(),
            disk: HashMap::new(),
            ring: None,
            taken: Vec::new(),
            answered: Vec::new(),
            max_segments: 0,
            notified: false,
        }
    }

    /// A new connection.
    pub fn connect(&mut self, pages: usize, indirect: u16) -> (FrontRing<Shared>, RingConnection) {
        let memory = Shared::new(pages * 4096);
        let front = FrontRing::new(memory.clone(), pages * 4096, ENTRY_BYTES);
        self.ring = Some(BackRing::attach(memory, pages * 4096, ENTRY_BYTES));
        self.world.borrow_mut().epoch += 1;
        self.max_segments = indirect.into();
        let properties = Properties {
            sectors: DISK_SECTORS,
            block_size: 512,
            physical_block_size: 512,
            read_only: false,
            flush: FlushSupport::Flush,
            discard: Some(DiscardSupport {
                granularity: 8,
                alignment: 0,
            }),
            persistent: true,
        };
        (
            front,
            RingConnection {
                handle: 0xca10,
                indirect_segments: indirect,
                properties,
            },
        )
    }

    /// Dies, with a part of what it took done but not answered.
    pub fn die(&mut self, done: usize) {
        for _ in 0..done.min(self.taken.len()) {
            let request = self.taken.remove(0);
            self.execute(&request);
        }
        self.taken.clear();
        self.answered.clear();
        self.ring = None;
    }

    /// Takes one request off the ring, and checks it.
    pub fn take(&mut self) -> bool {
        let Some(ring) = &mut self.ring else { return false };
        let Some(bytes) = ring.take() else {
            assert!(!ring.final_check());
            return false;
        };
        let request = self.decode(&bytes);
        assert!(request.sector + request.sectors <= DISK_SECTORS);
        let in_use = self
            .taken
            .iter()
            .flat_map(|it| &it.segments)
            .chain(&request.segments);
        let mut seen = HashSet::new();
        for segment in in_use {
            assert!(segment.first == 0 && segment.last < 8);
            assert!(
                seen.insert(segment.grant.get()),
                "a grant in two places at a time"
            );
        }
        assert!(
            self.taken.iter().all(|it| it.id != request.id),
            "an id in two places at a time"
        );
        self.taken.push(request);
        true
    }

    fn decode(&self, bytes: &[u8]) -> Taken {
        let direct = Direct::read_from_bytes(bytes).unwrap();
        match direct.operation {
            operation::DISCARD => {
                let it = Discard::read_from_prefix(bytes).unwrap().0;
                let (sector, sectors) = (it.sector.get(), it.sectors.get());
                assert!(sector % 8 == 0 && sectors % 8 == 0 && sectors > 0);
                Taken {
                    id: it.id.get(),
                    operation: it.operation,
                    sector,
                    sectors,
                    segments: vec![],
                }
            }
            operation::INDIRECT => {
                let it = Indirect::read_from_prefix(bytes).unwrap().0;
                let count = usize::from(it.segment_count.get());
                assert!(count > 11 && count <= self.max_segments && count <= SEGMENTS_PER_PAGE);
                let memory = self.world.borrow();
                let page = &memory.segments[&self.page(it.pages[0].get(), memory.epoch)];
                let segments =
                    (0..count).map(|at| Segment::read_from_bytes(&page[at * 8..at * 8 + 8]).unwrap());
                Taken::data(
                    it.id.get(),
                    it.indirect_operation,
                    it.sector.get(),
                    segments.collect(),
                )
            }
            _ => {
                let segments = direct.segments[..direct.segment_count.into()].to_vec();
                assert_eq!(
                    segments.is_empty(),
                    direct.operation == operation::FLUSH_DISKCACHE
                );
                Taken::data(direct.id.get(), direct.operation, direct.sector.get(), segments)
            }
        }
    }

    fn page(&self, grant: u32, epoch: u32) -> u32 {
        assert_eq!(grant / EPOCH, epoch, "a grant of the past");
        grant % EPOCH
    }

    fn execute(&mut self, request: &Taken) {
        let mut sector = request.sector;
        let epoch = self.world.borrow().epoch;
        for segment in &request.segments {
            let page = self.page(segment.grant.get(), epoch);
            for at in 0..=usize::from(segment.last) {
                if request.operation == operation::READ {
                    let stamp = self.disk.get(&sector).copied().unwrap_or(0);
                    self.world.borrow_mut().stamps[page as usize][at] = stamp;
                } else {
                    let stamp = self.world.borrow().stamps[page as usize][at];
                    self.disk.insert(sector, stamp);
                }
                sector += 1;
            }
        }
    }

    /// Answers one of the requests it has, with a failure or after doing it. Returns whether there was one.
    pub fn answer(&mut self, which: usize, code: i16) -> bool {
        if self.taken.is_empty() || !self.has_room() {
            return false;
        }
        let request = self.taken.remove(which % self.taken.len());
        if code == status::OKAY {
            self.execute(&request);
        }
        self.answered.push(request.id);
        self.respond(request.id, request.operation, code);
        true
    }

    /// Answers something that it was not asked. Returns whether it could.
    pub fn lie(&mut self, id: u64) -> bool {
        if !self.has_room() {
            return false;
        }
        let past = (!self.answered.is_empty()).then(|| self.answered[id as usize % self.answered.len()]);
        let id = past.filter(|_| id.is_multiple_of(2)).unwrap_or(id);
        if self.taken.iter().any(|it| it.id == id) {
            return false;
        }
        self.respond(id, operation::WRITE, status::OKAY);
        true
    }

    /// Whether a response overwrites no request that was not taken yet, even after lies.
    fn has_room(&self) -> bool {
        self.ring
            .as_ref()
            .is_some_and(|ring| ring.produced != ring.consumed)
    }

    fn respond(&mut self, id: u64, operation: u8, code: i16) {
        let ring = self.ring.as_mut().unwrap();
        self.notified |= ring.respond(zerocopy::IntoBytes::as_bytes(&Response::new(id, operation, code)));
    }
}

impl Taken {
    fn data(id: u64, operation: u8, sector: u64, segments: Vec<Segment>) -> Self {
        let sectors = segments.iter().map(|it| u64::from(it.last) + 1).sum();
        Self {
            id,
            operation,
            sector,
            sectors,
            segments,
        }
    }
}
