//! The console ring: what `xl console` shows.
//!
//! Output never waits: what the ring has no room for is staged, and lines that do not fit there either are
//! counted and reported later. Only a dying domain waits, for a bounded time, for its last words to be read.
//! Input is discarded.
//!
//! Layout: `struct xencons_interface` of `xen/include/public/io/console.h`.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use crate::cell::CpuCell;
use crate::event::{self, EventChannel};
use crate::hypercall::{self, SchedOp};
use crate::shared::{SharedMemory, barrier};
use crate::{executor, mm, time};

const OUT: usize = 1024;
const OUT_SIZE: u32 = 2048;
const IN_CONS: usize = 3072;
const IN_PROD: usize = 3076;
const OUT_CONS: usize = 3080;
const OUT_PROD: usize = 3084;

const STAGING: usize = 8192;

static PAGE: AtomicUsize = AtomicUsize::new(0);
static PORT: AtomicU32 = AtomicU32::new(0);
static STAGED: CpuCell<Staged> = CpuCell::new(Staged {
    bytes: [0; STAGING],
    start: 0,
    len: 0,
    lost: 0,
});

/// Lines that wait for room in the ring.
struct Staged {
    bytes: [u8; STAGING],
    start: usize,
    len: usize,
    /// Lines that were dropped since the last report.
    lost: u32,
}

/// Starts using the ring at this page of the linear map, with its event channel.
pub(crate) fn init(page: usize, port: u32) {
    PORT.store(port, Relaxed);
    PAGE.store(page, Relaxed);
}

/// Keeps the ring moving; runs for as long as the domain does.
pub(crate) fn start() {
    // The console's daemon notifies when it has made room.
    let Ok(channel) = EventChannel::adopt(PORT.load(Relaxed)) else {
        return;
    };
    executor::spawn(async move {
        loop {
            flush();
            channel.wait().await;
        }
    })
    .detach();
}

fn ring() -> Option<SharedMemory<'static>> {
    let page = PAGE.load(Relaxed);
    // SAFETY: the page of the ring stays mapped, and nothing makes references into it.
    (page != 0).then(|| unsafe { SharedMemory::new(page as *mut u8, mm::PAGE_SIZE) })
}

/// Moves bytes into the ring, as many as fit, and returns how many.
fn put(ring: &SharedMemory<'_>, bytes: &[u8]) -> usize {
    let produced = ring.read_u32(OUT_PROD);
    let consumed = ring.read_u32_acquire(OUT_CONS);
    // A consumer index that makes no sense counts as a full ring.
    let room = OUT_SIZE.saturating_sub(produced.wrapping_sub(consumed)) as usize;
    let count = bytes.len().min(room);
    let at = (produced % OUT_SIZE) as usize;
    let first = count.min(OUT_SIZE as usize - at);
    ring.copy_in(OUT + at, &bytes[..first]);
    ring.copy_in(OUT, &bytes[first..count]);
    ring.write_u32_release(OUT_PROD, produced.wrapping_add(count as u32));
    count
}

/// Writes one line, which ends with a line feed.
pub(crate) fn write_line(line: &[u8]) {
    if let Some(mut staged) = STAGED.try_borrow() {
        if !staged.push(line) {
            staged.flush();
            if !staged.push(line) {
                staged.lost = staged.lost.saturating_add(1);
            }
        }
        staged.flush();
    }
}

/// Moves what waits into the ring.
fn flush() {
    if let Some(ring) = ring() {
        ring.write_u32(IN_CONS, ring.read_u32(IN_PROD));
    }
    if let Some(mut staged) = STAGED.try_borrow() {
        staged.flush();
    }
}

impl Staged {
    fn push(&mut self, line: &[u8]) -> bool {
        if line.len() > STAGING - self.len {
            return false;
        }
        for &byte in line {
            self.bytes[(self.start + self.len) % STAGING] = byte;
            self.len += 1;
        }
        true
    }

    fn flush(&mut self) {
        let Some(ring) = ring() else { return };
        let mut moved = 0;
        loop {
            let end = (self.start + self.len).min(STAGING);
            let count = put(&ring, &self.bytes[self.start..end]);
            self.start = (self.start + count) % STAGING;
            self.len -= count;
            moved += count;
            if count == 0 && self.len == 0 && self.lost > 0 {
                let mut line = crate::logger::Line::new();
                let _ = core::fmt::write(
                    &mut line,
                    format_args!("({} lines of log were lost here)", self.lost),
                );
                self.lost = 0;
                self.push(line.finish());
            } else if count == 0 {
                break;
            }
        }
        if moved > 0 {
            barrier();
            event::send(PORT.load(Relaxed));
        }
    }
}

/// Writes some of the last words of a domain, waiting for room while there is patience.
pub(crate) fn write_last_words(mut text: &[u8], patience: &mut Patience) {
    let Some(ring) = ring() else { return };
    if let Some(mut staged) = STAGED.try_borrow() {
        staged.flush();
        while staged.len > 0 && patience.wait() {
            staged.flush();
        }
    }
    loop {
        text = &text[put(&ring, text)..];
        if text.is_empty() {
            break;
        }
        event::send(PORT.load(Relaxed));
        if !patience.wait() {
            break;
        }
    }
}

/// Waits until everything written has been read, while there is patience.
pub(crate) fn drain(patience: &mut Patience) {
    let Some(ring) = ring() else { return };
    flush();
    barrier();
    event::send(PORT.load(Relaxed));
    while ring.read_u32(OUT_PROD) != ring.read_u32(OUT_CONS) && patience.wait() {}
}

/// A bounded wait without events, by time and, in case time stands still, by turns.
pub(crate) struct Patience {
    deadline: time::Instant,
    turns: u32,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            deadline: time::now() + limit,
            turns: 10_000_000,
        }
    }

    /// Lets others run; false when it is time to give up.
    fn wait(&mut self) -> bool {
        hypercall::sched_op(SchedOp::Yield);
        self.turns = self.turns.saturating_sub(1);
        self.turns > 0 && time::now() < self.deadline
    }
}
