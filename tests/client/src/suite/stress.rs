//! Rounds of random reads and writes, verified against a model.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use super::limits::Limits;
use crate::device::Device;
use crate::disk::{DEPTH, Disk, Request, SECTOR};
use crate::ensure;
use crate::frontend::Frontend;
use crate::hal;
use crate::number;
use crate::random::{Random, first_difference, pattern};
use crate::report::{Outcome, Report};

/// Sectors of the disk that the model covers.
const MODEL: u64 = 1 << 15;
/// Requests of a round.
const ROUND: usize = 2 * DEPTH;

/// Runs `rounds=` rounds with the seed `seed=`.
pub async fn run(report: &mut Report, frontend: &Frontend) -> Outcome {
    let (rounds, seed) = (number("rounds", 50)?, number("seed", 1)?);
    let device = Rc::new(frontend.connect().await?);
    let test = rounds_of(&device, rounds, seed);
    report
        .check(&format!("stress.rounds.{rounds}.seed.{seed}"), test)
        .await;
    let device = Rc::into_inner(device).ok_or("the device is still in use")?;
    let left = frontend.disconnect(device).await;
    report.add("stress.disconnect", left);
    Ok(())
}

/// For each sector, which write it was last written by; 0 for none.
struct Model {
    seed: u64,
    writes: Vec<u32>,
}

impl Model {
    fn pattern_seed(&self, write: u32) -> u64 {
        self.seed << 32 ^ u64::from(write)
    }

    /// Fills a write that is number `write`, and takes note of it.
    fn fill(&mut self, request: &mut Request, write: u32) {
        let (sector, sectors, seed) = (request.sector, request.sectors(), self.pattern_seed(write));
        pattern(request.data(), sector, seed);
        self.writes[sector as usize..(sector + sectors) as usize].fill(write);
    }

    fn verify(&self, request: &mut Request) -> Outcome {
        let first = request.sector;
        for (sector, data) in (first..).zip(request.data().chunks(SECTOR)) {
            let write = self.writes[sector as usize];
            let seed = self.pattern_seed(write);
            ensure!(
                write == 0 || first_difference(data, sector, seed).is_none(),
                "sector {sector} does not hold what write {write} wrote"
            );
        }
        Ok(())
    }
}

async fn rounds_of(device: &Rc<Device>, rounds: u64, seed: u64) -> Outcome {
    let limits = Limits::read(device)?;
    let mut disk = Disk::new(device, false)?;
    ensure!(!disk.read_only(), "the disk is read-only");
    let span = disk.sectors().min(MODEL) / limits.unit;
    let mut random = Random::new(seed);
    let mut model = Model {
        seed,
        writes: vec![0; (span * limits.unit) as usize],
    };
    let mut write = 0;
    let mut bytes = 0;
    for round in 0..rounds {
        let mut requests: Vec<Request> = Vec::new();
        for _ in 0..ROUND {
            let mut request = random_request(&mut random, &limits, span);
            // The order of what is under way together is anybody's guess: nothing of that overlaps.
            let end = request.sector + request.sectors();
            let overlaps =
                |other: &Request| request.sector < other.sector + other.sectors() && other.sector < end;
            if requests.iter().any(overlaps) {
                continue;
            }
            if request.write {
                write += 1;
                model.fill(&mut request, write);
            }
            bytes += request.sectors() * SECTOR as u64;
            requests.push(request);
        }
        let depth = 1 + random.below(DEPTH as u64) as usize;
        disk.run(&mut requests, depth).await?;
        for request in &mut requests {
            request
                .check()
                .map_err(|error| format!("round {round}: {error}"))?;
            if !request.write {
                model
                    .verify(request)
                    .map_err(|error| format!("round {round}: {error}"))?;
            }
        }
        if random.below(8) == 0 {
            disk.flush()?;
        }
    }
    let mut sector = 0;
    while sector < span * limits.unit {
        let sectors = limits.max_sectors.min(span * limits.unit - sector);
        let mut request = disk
            .good(Request::read(sector, sectors as usize * SECTOR, 0))
            .await?;
        model
            .verify(&mut request)
            .map_err(|error| format!("at the end: {error}"))?;
        sector += sectors;
    }
    log::info!(
        "{rounds} rounds, {write} writes, {} KiB read and written",
        bytes / 1024
    );
    let in_use = hal::take_in_use();
    ensure!(
        in_use == 0,
        "{in_use} grants were still in use when their buffers were used"
    );
    Ok(())
}

fn random_request(random: &mut Random, limits: &Limits, span: u64) -> Request {
    // Small ones are the most frequent, as in life.
    let most = (limits.max_sectors / limits.unit).min(span);
    let units = 1 + match random.below(4) {
        0 => random.below(most),
        1 => random.below(most.min(16)),
        _ => random.below(most.min(4)),
    };
    let sector = random.below(span - units + 1) * limits.unit;
    let bytes = (units * limits.unit) as usize * SECTOR;
    let skip = if random.below(2) == 0 {
        0
    } else {
        random.below(4096) as usize
    };
    if random.below(2) == 0 {
        Request::write(sector, bytes, skip)
    } else {
        Request::read(sector, bytes, skip)
    }
}
