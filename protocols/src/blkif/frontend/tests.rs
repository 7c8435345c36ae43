use std::collections::HashMap;

use proptest::prelude::*;
use zerocopy::FromZeros;

use super::model::{Backend, DISK_SECTORS, Pages};
use super::*;
use crate::blkif::nodes::DiscardSupport;
use crate::ring::back::Shared;

/// Sectors that the ranges of two requests are apart.
const STRIDE: u64 = 512;

/// A front end, its back end, and what is known about each request.
struct Bed {
    front: Frontend<usize, Pages>,
    parties: [Party; 3],
    ring: Option<FrontRing<Shared>>,
    back: Backend,
    submitted: Vec<(Kind, u64)>,
    results: HashMap<usize, Result<(), Failure>>,
    abandoned: Vec<usize>,
    failing: bool,
}

impl Bed {
    fn new(indirect_pages: usize) -> Self {
        let back = Backend::new();
        let mut front = Frontend::new();
        for _ in 0..indirect_pages {
            front.add_indirect_page(Pages::new(&back.world, 8));
        }
        front.set_zeros(Pages::new(&back.world, 160));
        let parties = core::array::from_fn(|_| front.join());
        let (submitted, results, abandoned) = Default::default();
        Self {
            front,
            parties,
            ring: None,
            back,
            submitted,
            results,
            abandoned,
            failing: false,
        }
    }

    fn connect(&mut self, pages: usize, indirect: u16) {
        if self.ring.is_none() {
            self.disconnect(0);
            let (ring, connection) = self.back.connect(pages, indirect);
            self.front.connect(connection, ring.capacity());
            self.ring = Some(ring);
            self.pump();
        }
    }

    fn disconnect(&mut self, done: usize) {
        self.ring = None;
        if self.front.connection().is_some() {
            self.back.die(done);
            self.front.disconnect();
        }
    }

    /// Hears and says nothing more, which the back end may not notice, and fails what there is.
    fn fail_all(&mut self) {
        self.ring = None;
        self.front.fail_all();
        self.reap();
    }

    fn pump(&mut self) {
        if let Some(ring) = &mut self.ring {
            self.front.pump(ring);
            let _ = ring.push();
        }
        self.reap();
    }

    /// Takes responses. A back end that lies is disconnected.
    fn respond(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        let mut response = wire::Response::new_zeroed();
        loop {
            match ring.take(response.as_mut_bytes()) {
                Ok(true) if self.front.response(&response).is_ok() => {}
                Ok(false) => return self.pump(),
                Ok(true) | Err(_) => return self.disconnect(0),
            }
        }
    }

    fn reap(&mut self) {
        while let Some(finished) = self.front.finished() {
            let token = finished.token;
            assert!(
                !self.abandoned.contains(&token),
                "an abandoned request was reported"
            );
            assert!(
                self.results.insert(token, finished.result).is_none(),
                "finished twice"
            );
            let (kind, sectors) = self.submitted[token];
            if kind == Kind::Read && finished.result.is_ok() {
                // Nothing else touches the range: what the disk holds there is what was read.
                let held = (0..sectors).map(|at| self.stamp(token, at));
                assert!(
                    held.eq(finished.payload.unwrap().stamps()),
                    "a read returned something else"
                );
            }
        }
    }

    fn stamp(&self, token: usize, at: u64) -> u32 {
        self.back
            .disk
            .get(&(token as u64 * STRIDE + at))
            .copied()
            .unwrap_or(0)
    }

    fn submit(&mut self, kind: Kind, sectors: u64) -> usize {
        self.submit_as(self.parties[self.submitted.len() % 3], kind, sectors)
    }

    /// Each request has a range of its own, filled with a stamp of its own before.
    fn submit_as(&mut self, party: Party, kind: Kind, sectors: u64) -> usize {
        let token = self.submitted.len();
        let sector = token as u64 * STRIDE;
        assert!(sector + STRIDE <= DISK_SECTORS);
        if kind != Kind::Write {
            for at in 0..sectors {
                self.back.disk.insert(sector + at, 0x8000_0000 | token as u32);
            }
        }
        self.submitted.push((kind, sectors));
        let payload = || Pages::new(&self.back.world, sectors);
        let command = match kind {
            Kind::Read => Command::Read {
                sector,
                payload: payload(),
            },
            Kind::Write => {
                let payload = payload();
                payload.stamp(token as u32 + 1);
                Command::Write { sector, payload }
            }
            Kind::Flush => Command::Flush,
            Kind::Discard => Command::Discard { sector, sectors },
            Kind::WriteZeroes => Command::WriteZeroes { sector, sectors },
        };
        self.front.submit(party, token, command);
        token
    }

    /// How a request ends, with an honest back end.
    fn result_of(&mut self, party: Party, kind: Kind) -> Result<(), Failure> {
        let token = self.submit_as(party, kind, if kind == Kind::Flush { 0 } else { 8 });
        self.finish();
        self.results[&token]
    }

    /// Runs with an honest back end until nothing is left.
    fn finish(&mut self) {
        self.connect(2, 32);
        for _ in 0..100_000 {
            if self.front.pending() == 0 {
                break;
            }
            self.pump();
            while self.back.take() {}
            self.back.answer(0, status::OKAY);
            self.respond();
            self.connect(2, 32);
        }
        self.reap();
        assert_eq!(self.front.pending(), 0, "requests are left");
    }

    /// What was acknowledged is on the disk; everything that was not abandoned is acknowledged or failed.
    fn check(&self) {
        for (token, &(kind, sectors)) in self.submitted.iter().enumerate() {
            let Some(result) = self.results.get(&token) else {
                assert!(self.abandoned.contains(&token), "request {token} was lost");
                continue;
            };
            assert!(
                result.is_ok() || self.failing,
                "request {token} failed: {result:?}"
            );
            let expected = match kind {
                Kind::Write => token as u32 + 1,
                Kind::WriteZeroes => 0,
                _ => continue,
            };
            if result.is_ok() {
                assert!(
                    (0..sectors).all(|at| self.stamp(token, at) == expected),
                    "write {token} was lost"
                );
            }
        }
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::Read),
        4 => Just(Kind::Write),
        1 => Just(Kind::Flush),
        1 => Just(Kind::Discard),
        1 => Just(Kind::WriteZeroes),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Submit(Kind, u64),
    Pump,
    Take(u8),
    Answer(usize, i16),
    Respond,
    Connect(usize, u16),
    Disconnect(usize),
    Lie(u64),
    Abandon(usize),
    FailAll,
}

fn steps(faults: bool) -> impl Strategy<Value = Vec<Step>> {
    let codes = if faults {
        vec![0, 0, 0, 0, -1, -1, 7]
    } else {
        vec![0]
    };
    let faults = u32::from(faults);
    let step = prop_oneof![
        8 => (kinds(), 1..STRIDE).prop_map(|(kind, sectors)| Step::Submit(kind, sectors)),
        6 => Just(Step::Pump),
        6 => (1..40u8).prop_map(Step::Take),
        12 => (any::<usize>(), prop::sample::select(codes)).prop_map(|(which, code)| Step::Answer(which, code)),
        6 => Just(Step::Respond),
        2 => (1..3usize, prop::sample::select(vec![0, 11, 12, 16, 64, 512])).prop_map(|(p, i)| Step::Connect(p, i)),
        1 => (0..20usize).prop_map(Step::Disconnect),
        faults => any::<u64>().prop_map(Step::Lie),
        faults => (0..5usize).prop_map(Step::Abandon),
        faults => Just(Step::FailAll),
    ];
    prop::collection::vec(step, 0..250)
}

fn run(steps: Vec<Step>, faults: bool, indirect_pages: usize) {
    let mut bed = Bed::new(indirect_pages);
    bed.failing = faults;
    for step in steps {
        match step {
            Step::Submit(kind, sectors) => _ = bed.submit(kind, sectors),
            Step::Pump => bed.pump(),
            Step::Take(count) => (0..count).for_each(|_| _ = bed.back.take()),
            Step::Answer(which, code) => _ = bed.back.answer(which, code),
            Step::Respond => bed.respond(),
            Step::Connect(pages, indirect) => bed.connect(pages, indirect),
            Step::Disconnect(done) => bed.disconnect(done),
            Step::Lie(id) => _ = bed.back.lie(id),
            Step::Abandon(class) => {
                bed.reap();
                bed.front.abandon(|token| token % 5 == class);
                let given_up = (0..bed.submitted.len()).filter(|it| it % 5 == class);
                bed.abandoned
                    .extend(given_up.filter(|it| !bed.results.contains_key(it)));
            }
            Step::FailAll => bed.fail_all(),
        }
    }
    bed.finish();
    bed.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..Default::default() })]

    /// Out-of-order answers and disconnects at any step: every request succeeds exactly once.
    #[test]
    fn nothing_is_lost(steps in steps(false), indirect_pages in 0..4usize) {
        run(steps, false, indirect_pages);
    }

    /// And with failures, lies, given-up clients and given-up requests: each ends exactly once, truthfully.
    #[test]
    fn faults_stay_contained(steps in steps(true), indirect_pages in 0..4usize) {
        run(steps, true, indirect_pages);
    }
}

/// A bed with one connection.
fn connected(indirect: u16) -> Bed {
    let mut bed = Bed::new(1);
    bed.connect(1, indirect);
    bed
}

#[test]
fn one_request_without_a_copy_more() {
    let mut bed = connected(32);
    bed.submit(Kind::Write, 8);
    bed.submit(Kind::Read, 88);
    bed.submit(Kind::Read, 89);
    bed.finish();
    bed.check();
    let counters = bed.front.counters();
    assert_eq!(
        (counters.requests, counters.ring_requests, counters.segments),
        (3, 3, 1 + 11 + 12)
    );
    assert_eq!((counters.bytes_written, counters.bytes_read), (4096, 177 * 512));
}

#[test]
fn large_requests_are_split() {
    // With indirection: 64 pages in two; the one indirect page goes to the first, and the second needs pieces
    // of 11.
    let mut bed = connected(32);
    bed.submit(Kind::Write, 512 - 8);
    bed.finish();
    bed.check();
    assert_eq!(bed.front.counters().ring_requests, 1 + 3);
    // Without: 63 pages in pieces of 11.
    let mut bed = Bed::new(0);
    bed.connect(1, 32);
    bed.submit(Kind::Write, 512 - 8);
    bed.finish();
    bed.check();
    assert_eq!(bed.front.counters().ring_requests, 6);
}

#[test]
fn first_failure_ends_a_split_request() {
    let mut bed = connected(0);
    bed.failing = true;
    let token = bed.submit(Kind::Write, 511);
    bed.pump();
    while bed.back.take() {}
    bed.back.answer(1, status::ERROR);
    bed.respond();
    assert!(bed.results.is_empty(), "the back end still has parts of it");
    bed.finish();
    assert_eq!(bed.results[&token], Err(Failure::Io));
}

#[test]
fn a_withdrawn_operation_is_unsupported_once() {
    let mut bed = connected(32);
    let flush = bed.submit(Kind::Flush, 0);
    let discard = bed.submit(Kind::Discard, 64);
    bed.pump();
    while bed.back.take() {}
    bed.back.answer(0, status::NOT_SUPPORTED);
    bed.back.answer(0, status::NOT_SUPPORTED);
    bed.respond();
    assert_eq!(bed.results[&flush], Err(Failure::Unsupported));
    assert_eq!(bed.results[&discard], Err(Failure::Unsupported));
    let properties = bed.front.connection().unwrap().properties;
    assert_eq!((properties.flush, properties.discard), (FlushSupport::None, None));
    let flush = bed.submit(Kind::Flush, 0);
    let discard = bed.submit(Kind::Discard, 64);
    bed.pump();
    assert_eq!(bed.results[&flush], Ok(()), "there is nothing to flush");
    assert_eq!(bed.results[&discard], Err(Failure::Unsupported));
}

#[test]
fn a_lost_cache_fails_the_next_flush() {
    let mut bed = connected(32);
    bed.failing = true;
    let party = bed.parties[0];
    let flush_of = |bed: &mut Bed| bed.result_of(party, Kind::Flush);
    bed.submit_as(party, Kind::Write, 8);
    bed.finish();
    bed.disconnect(0);
    assert!(bed.front.cache_lost());
    assert_eq!(flush_of(&mut bed), Err(Failure::Io));
    assert_eq!(flush_of(&mut bed), Ok(()));
    bed.disconnect(0);
    assert!(!bed.front.cache_lost(), "all was flushed before");
    assert_eq!(flush_of(&mut bed), Ok(()));
    // A flush covers what was acknowledged when it was submitted, and no more.
    let flush = bed.submit_as(party, Kind::Flush, 0);
    bed.pump();
    while bed.back.take() {}
    bed.submit_as(party, Kind::Write, 8);
    bed.pump();
    while bed.back.take() {}
    bed.back.answer(1, status::OKAY);
    bed.respond();
    bed.back.answer(0, status::OKAY);
    bed.respond();
    assert_eq!(bed.results[&flush], Ok(()));
    bed.disconnect(0);
    assert!(bed.front.cache_lost());
}

#[test]
fn each_party_is_told_of_its_own_lost_writes() {
    let mut bed = connected(32);
    bed.failing = true;
    let [one, two, idle] = bed.parties;
    let lose = |bed: &mut Bed| {
        bed.disconnect(0);
        assert!(bed.front.cache_lost());
    };
    for party in [one, two, two] {
        assert_eq!(bed.result_of(party, Kind::Write), Ok(()));
    }
    lose(&mut bed);
    for (party, result) in [
        (idle, Ok(())),
        (one, Err(Failure::Io)),
        (one, Ok(())),
        (two, Err(Failure::Io)),
        (two, Ok(())),
    ] {
        assert_eq!(bed.result_of(party, Kind::Flush), result);
    }
    // A flush is for everybody's writes.
    bed.result_of(one, Kind::Write).unwrap();
    bed.result_of(idle, Kind::Flush).unwrap();
    bed.result_of(two, Kind::WriteZeroes).unwrap();
    lose(&mut bed);
    assert_eq!(bed.result_of(one, Kind::Flush), Ok(()));
    assert_eq!(bed.result_of(two, Kind::Flush), Err(Failure::Io));
    // Nobody is told in the place of one that is gone.
    bed.result_of(one, Kind::Write).unwrap();
    lose(&mut bed);
    bed.front.leave(one);
    let next = bed.front.join();
    assert!(!bed.front.cache_lost());
    assert_eq!(bed.result_of(next, Kind::Flush), Ok(()));
}

#[test]
fn new_requests_wait_for_abandoned_ones() {
    let mut bed = connected(32);
    bed.submit(Kind::Write, 8);
    bed.pump();
    assert!(bed.back.take());
    bed.front.abandon(|_| true);
    bed.abandoned = vec![0];
    let next = bed.submit(Kind::Write, 8);
    bed.pump();
    assert!(!bed.back.take(), "it overtook");
    bed.back.answer(0, status::OKAY);
    bed.respond();
    assert!(bed.back.take());
    bed.finish();
    assert_eq!(bed.results[&next], Ok(()));
    // And an abandoned request is not sent again.
    bed.submit(Kind::Write, 8);
    bed.pump();
    bed.front.abandon(|_| true);
    bed.disconnect(0);
    assert_eq!(bed.front.pending(), 0);
}

#[test]
fn nothing_waits_for_abandoned_reads() {
    let mut bed = connected(32);
    let [reader, flusher, other] = bed.parties;
    for (party, kind) in [(reader, Kind::Read), (flusher, Kind::Flush)] {
        let token = bed.submit_as(party, kind, 8);
        bed.pump();
        assert!(bed.back.take());
        bed.front.abandon(|it| *it == token);
        bed.front.leave(party);
        bed.abandoned.push(token);
        let next = bed.submit_as(other, Kind::Read, 8);
        bed.pump();
        assert!(bed.back.take(), "the abandoned {kind:?} holds others up");
        bed.back.answer(1, status::OKAY);
        bed.respond();
        assert_eq!(bed.results[&next], Ok(()));
        // The answer to nobody is in order.
        bed.back.answer(0, status::OKAY);
        bed.respond();
        assert_eq!(bed.front.pending(), 0);
    }
}

#[test]
fn what_the_back_end_has_fails_but_keeps_its_payload() {
    let mut bed = connected(0);
    bed.failing = true;
    let payloads = |bed: &Bed| std::rc::Rc::strong_count(&bed.back.world);
    let before = payloads(&bed);
    // The ring has room for a part of the last but one, and nothing of the last.
    let tokens = [8, 500, 500, 500, 500, 500, 500, 8].map(|sectors| bed.submit(Kind::Write, sectors));
    bed.pump();
    while bed.back.take() {}
    bed.back.answer(1, status::OKAY);
    bed.fail_all();
    assert_eq!(tokens.map(|it| bed.results[&it]), [Err(Failure::Io); 8]);
    assert_eq!((bed.front.pending(), payloads(&bed) - before), (7, 7));
    // So does what comes later.
    let token = bed.submit(Kind::Read, 8);
    bed.fail_all();
    assert_eq!(bed.results[&token], Err(Failure::Io));
    bed.disconnect(9);
    assert_eq!((bed.front.pending(), payloads(&bed)), (0, before));
    bed.connect(1, 0);
    assert!(!bed.back.take(), "a request that has failed is sent again");
}

#[test]
fn ranges_are_checked() {
    let mut bed = connected(32);
    bed.failing = true;
    let world = bed.back.world.clone();
    let mut expect = |command, expected| {
        bed.submitted.push((Kind::Flush, 0));
        bed.front.submit(bed.parties[0], bed.submitted.len() - 1, command);
        bed.pump();
        assert_eq!(bed.results.remove(&(bed.submitted.len() - 1)), Some(expected));
        assert!(!bed.back.take());
    };
    let payload = || Pages::new(&world, 2);
    expect(
        Command::Read {
            sector: DISK_SECTORS - 1,
            payload: payload(),
        },
        Err(Failure::Io),
    );
    expect(
        Command::Read {
            sector: u64::MAX,
            payload: payload(),
        },
        Err(Failure::Io),
    );
    expect(
        Command::WriteZeroes {
            sector: u64::MAX - 1,
            sectors: 8,
        },
        Err(Failure::Io),
    );
    expect(
        Command::Discard {
            sector: 0,
            sectors: u64::MAX,
        },
        Err(Failure::Io),
    );
    // Less than a granule: nothing to do.
    expect(
        Command::Discard {
            sector: 1,
            sectors: 14,
        },
        Ok(()),
    );
    expect(
        Command::Read {
            sector: 0,
            payload: Pages::new(&world, 0),
        },
        Ok(()),
    );
}

#[test]
fn writes_to_a_read_only_disk_fail() {
    let mut bed = connected(32);
    bed.failing = true;
    let properties = Properties {
        read_only: true,
        ..bed.front.connection().unwrap().properties
    };
    bed.front.set_properties(properties);
    let write = bed.submit(Kind::Write, 8);
    let read = bed.submit(Kind::Read, 8);
    bed.finish();
    assert_eq!(bed.results[&write], Err(Failure::Io));
    assert_eq!(bed.results[&read], Ok(()));
}

#[test]
fn granules() {
    let support = DiscardSupport {
        granularity: 16,
        alignment: 4,
    };
    assert_eq!(whole_granules(support, 0, 100), Some((4, 96)));
    assert_eq!(whole_granules(support, 4, 16), Some((4, 16)));
    assert_eq!(whole_granules(support, 5, 30), None);
    assert_eq!(whole_granules(support, 5, 31), Some((20, 16)));
    assert_eq!(whole_granules(support, 0, 3), None);
    assert_eq!(whole_granules(support, 21, 15), None);
}
