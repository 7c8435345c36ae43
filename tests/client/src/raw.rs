//! A virtqueue written by hand: what a driver must do, and all that it must not.
//!
//! Nothing here keeps a caller from writing nonsense into rings and descriptors; that is what it is for.
//! Event suppression is not used.

use alloc::format;
use alloc::rc::Rc;
use core::time::Duration;

use kernel::event::EventChannel;
use kernel::grant::{Access, Granted};
use kernel::mm::PAGE_SIZE;
use kernel::shared::{self, SharedMemory};
use kernel::time;

use crate::device::{Areas, Device, features, status};
use crate::ensure;
use crate::hal::address;
use crate::report::Outcome;

/// The longest that any request may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Flags of descriptors.
pub mod flag {
    pub const NEXT: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const INDIRECT: u16 = 4;
}

/// Types of block requests.
pub mod kind {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

/// Statuses of block requests.
pub mod ended {
    pub const OK: u8 = 0;
    pub const IO_ERROR: u8 = 1;
    pub const UNSUPPORTED: u8 = 2;
    /// No device writes this: what a status byte is before the request.
    pub const NOT_YET: u8 = 0xaa;
}

/// Where things are in the data pages.
pub mod place {
    use super::PAGE_SIZE;
    /// The header of the request.
    pub const HEADER: usize = 0;
    /// Its status byte.
    pub const STATUS: usize = 16;
    /// An indirect table.
    pub const TABLE: usize = 1024;
    /// The data.
    pub const DATA: usize = PAGE_SIZE;
    /// The last of the pages.
    pub const LAST_PAGE: usize = (super::DATA_PAGES - 1) * PAGE_SIZE;
}

/// Bytes of a request's header.
pub const HEADER_SIZE: u32 = 16;
/// Bytes of a descriptor.
pub const DESCRIPTOR_SIZE: usize = 16;

const AVAILABLE: usize = PAGE_SIZE;
const USED: usize = 2 * PAGE_SIZE;
/// Of data, in pages.
const DATA_PAGES: usize = 17;

/// One descriptor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptor {
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Descriptor {
    /// Writes it into a table.
    pub fn store(&self, table: SharedMemory<'_>, offset: usize) {
        table.write_u64(offset, self.address);
        table.write_u32(offset + 8, self.len);
        table.write_u16(offset + 12, self.flags);
        table.write_u16(offset + 14, self.next);
    }
}

/// A buffer that the device used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub id: u32,
    pub len: u32,
}

/// A queue of a device, and pages of data.
pub struct RawQueue {
    device: Rc<Device>,
    index: u16,
    size: u16,
    /// Descriptors, available ring and used ring, each in a page of its own.
    rings: Granted,
    data: Granted,
    channel: Rc<EventChannel>,
    /// Our available index.
    available: u16,
    /// How far we have looked at the used ring.
    used: u16,
}

/// The pages of a queue that was given up.
pub struct Abandoned {
    rings: Granted,
    data: Granted,
}

impl Abandoned {
    /// Takes the pages back. Fails if the back end still uses any.
    pub fn released(self) -> Outcome {
        let free = self.rings.end().is_ok() & self.data.end().is_ok();
        ensure!(free, "the back end still uses pages of a queue that has ended");
        Ok(())
    }
}

/// Resets the device, and sets it up to FEATURES_OK with VERSION_1, ACCESS_PLATFORM and these features.
pub fn negotiate(device: &Device, extra: u64) -> Outcome {
    const START: u32 = status::ACKNOWLEDGE | status::DRIVER;
    let seen = device.set_status(0)?;
    ensure!(seen == 0, "the status after a reset is {seen:#x}");
    device.set_status(START)?;
    device.accept_features(features::VERSION_1 | features::ACCESS_PLATFORM | extra)?;
    let seen = device.set_status(START | status::FEATURES_OK)?;
    ensure!(
        seen == START | status::FEATURES_OK,
        "features are not accepted: status {seen:#x}"
    );
    Ok(())
}

/// Sets DRIVER_OK, after the queues are set up.
pub fn set_ready(device: &Device) -> Outcome {
    let ready = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
    let seen = device.set_status(ready)?;
    ensure!(seen == ready, "the status is {seen:#x}, not {ready:#x}");
    Ok(())
}

/// The areas of a queue that starts at the first of three granted pages.
pub fn areas(rings: &Granted) -> Areas {
    Areas {
        descriptors: address(rings, 0),
        driver: address(rings, AVAILABLE),
        device: address(rings, USED),
    }
}

/// Fresh pages granted to the back end of a device.
pub fn granted(device: &Device, pages: usize) -> Outcome<Granted> {
    Granted::zeroed(device.connection().peer(), pages, Access::ReadWrite)
        .map_err(|error| format!("granting: {error}"))
}

impl RawQueue {
    /// Resets the device and sets it up with one queue, the first, of this size, accepting these features
    /// besides the necessary ones.
    pub fn new(device: &Rc<Device>, size: u16, extra: u64) -> Outcome<Self> {
        negotiate(device, extra)?;
        let queue = Self::open(device, 0, size)?;
        set_ready(device)?;
        Ok(queue)
    }

    /// Sets up one more queue of a device whose features are negotiated.
    pub fn open(device: &Rc<Device>, index: u16, size: u16) -> Outcome<Self> {
        let (rings, data) = (granted(device, 3)?, granted(device, DATA_PAGES)?);
        let channel = device.start_queue(index, size.into(), areas(&rings))?;
        Ok(Self {
            device: device.clone(),
            index,
            size,
            rings,
            data,
            channel,
            available: 0,
            used: 0,
        })
    }

    /// Sets the queue up again, empty, after it alone was reset.
    pub fn restart(&mut self) -> Outcome {
        self.rings.memory().zero(0, 3 * PAGE_SIZE);
        (self.available, self.used) = (0, 0);
        let areas = areas(&self.rings);
        self.channel = self.device.start_queue(self.index, self.size.into(), areas)?;
        Ok(())
    }

    /// Resets the device. Fails if the back end then still uses a page.
    pub fn finish(self) -> Outcome {
        let seen = self.device.set_status(0)?;
        ensure!(seen == 0, "the status after a reset is {seen:#x}");
        self.abandon().released()
    }

    /// Gives up the queue without a word to the device; the pages stay granted.
    pub fn abandon(self) -> Abandoned {
        Abandoned {
            rings: self.rings,
            data: self.data,
        }
    }

    /// The data pages.
    pub fn data(&self) -> SharedMemory<'_> {
        self.data.memory()
    }

    /// The DMA address of a place in the data pages.
    pub fn address(&self, offset: usize) -> u64 {
        address(&self.data, offset)
    }

    /// Writes a descriptor of the queue's table.
    pub fn describe(&self, index: u16, descriptor: Descriptor) {
        descriptor.store(self.rings.memory(), usize::from(index) * DESCRIPTOR_SIZE);
    }

    /// Writes a descriptor chain into the queue's table, from an index on.
    pub fn chain(&self, first: u16, parts: &[Descriptor]) {
        for (index, part) in (first..).zip(parts) {
            let last = usize::from(index - first) + 1 == parts.len();
            let link = if last { 0 } else { flag::NEXT };
            self.describe(
                index,
                Descriptor {
                    flags: part.flags | link,
                    next: if last { part.next } else { index + 1 },
                    ..*part
                },
            );
        }
    }

    /// Makes the chain that starts at this descriptor available.
    pub fn offer(&mut self, head: u16) {
        let slot = usize::from(self.available % self.size);
        self.rings.memory().write_u16(AVAILABLE + 4 + 2 * slot, head);
        self.available = self.available.wrapping_add(1);
        self.show(self.available);
    }

    /// The available index that the device was shown last, but for [`show`](Self::show).
    pub fn available(&self) -> u16 {
        self.available
    }

    /// Shows the device this available index.
    pub fn show(&self, index: u16) {
        shared::barrier();
        self.rings.memory().write_u16(AVAILABLE + 2, index);
        shared::barrier();
    }

    /// Notifies the device.
    pub fn kick(&self) {
        self.channel.notify();
    }

    /// The next buffer that the device used, if there is one.
    pub fn poll_used(&mut self) -> Option<Used> {
        let rings = self.rings.memory();
        if rings.read_u16(USED + 2) == self.used {
            return None;
        }
        shared::barrier();
        let at = USED + 4 + 8 * usize::from(self.used % self.size);
        self.used = self.used.wrapping_add(1);
        Some(Used {
            id: rings.read_u32(at),
            len: rings.read_u32(at + 4),
        })
    }

    /// Waits for the next buffer that the device used.
    pub async fn used(&mut self) -> Outcome<Used> {
        loop {
            if let Some(used) = self.poll_used() {
                return Ok(used);
            }
            time::timeout(LIMIT, self.channel.wait())
                .await
                .map_err(|_| format!("no notification in {LIMIT:?}"))?;
        }
    }

    /// Writes the header of a request, and a status that is none.
    pub fn header(&self, kind: u32, sector: u64) {
        let data = self.data();
        data.write_u32(place::HEADER, kind);
        data.write_u32(place::HEADER + 4, 0);
        data.write_u64(place::HEADER + 8, sector);
        data.write_u8(place::STATUS, ended::NOT_YET);
    }

    /// The descriptor of the header.
    pub fn header_part(&self) -> Descriptor {
        self.readable(place::HEADER, HEADER_SIZE)
    }

    /// The descriptor of the status.
    pub fn status_part(&self) -> Descriptor {
        self.writable(place::STATUS, 1)
    }

    /// A descriptor of data pages that the device reads.
    pub fn readable(&self, offset: usize, len: u32) -> Descriptor {
        Descriptor {
            address: self.address(offset),
            len,
            ..Descriptor::default()
        }
    }

    /// A descriptor of data pages that the device writes.
    pub fn writable(&self, offset: usize, len: u32) -> Descriptor {
        Descriptor {
            flags: flag::WRITE,
            ..self.readable(offset, len)
        }
    }

    /// Does one request of these parts, and gives its status.
    pub async fn submit(&mut self, parts: &[Descriptor]) -> Outcome<u8> {
        self.chain(0, parts);
        self.offer(0);
        self.kick();
        let used = self.used().await?;
        ensure!(
            used.id == 0,
            "buffer {} was used, but buffer 0 available",
            used.id
        );
        Ok(self.data().read_u8(place::STATUS))
    }

    /// Does one request with so many bytes of data from [`place::DATA`] on, and gives its status. Which way
    /// the data goes is up to the type of the request.
    pub async fn request(&mut self, kind: u32, sector: u64, len: u32) -> Outcome<u8> {
        self.header(kind, sector);
        let data = match kind {
            kind::IN | kind::GET_ID => self.writable(place::DATA, len),
            _ => self.readable(place::DATA, len),
        };
        let parts = [self.header_part(), data, self.status_part()];
        if len == 0 {
            self.submit(&[parts[0], parts[2]]).await
        } else {
            self.submit(&parts).await
        }
    }

    /// Fails unless a read of the first sector succeeds: for after what should have done no harm.
    pub async fn expect_service(&mut self) -> Outcome {
        let status = self.request(kind::IN, 0, 4096).await?;
        ensure!(status == ended::OK, "a read has status {status}");
        Ok(())
    }

    /// Fails unless the device announces that it needs a reset.
    pub async fn expect_needs_reset(&self) -> Outcome {
        let event = self.device.connection().event(Duration::from_secs(10)).await?;
        let announced = event.status.get();
        ensure!(
            announced & status::NEEDS_RESET != 0,
            "EVENT_CONFIG with status {announced:#x}"
        );
        let seen = self.device.status()?;
        ensure!(seen & status::NEEDS_RESET != 0, "the status is {seen:#x}");
        Ok(())
    }
}
