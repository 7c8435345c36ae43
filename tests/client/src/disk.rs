//! A disk through `virtio-drivers`: many requests at once, each awaited by its queue's event channel.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use kernel::event::EventChannel;
use kernel::{shared, time};
use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};

use crate::device::Device;
use crate::ensure;
use crate::hal::GrantHal;
use crate::report::Outcome;
use crate::transport::XenTransport;

/// Bytes in a sector, the unit of positions and capacities.
pub const SECTOR: usize = virtio_drivers::device::blk::SECTOR_SIZE;

/// The queue size that the crate's driver uses: with indirect descriptors, so many requests at once.
pub const DEPTH: usize = 16;

/// The longest that any request may take.
const LIMIT: Duration = Duration::from_secs(60);

const QUEUE: u16 = 0;

/// One read or write, with its buffers and how it ended.
pub struct Request {
    pub write: bool,
    pub sector: u64,
    /// Starts `skip` bytes into `buffer`, so that requests are not always aligned.
    skip: usize,
    buffer: Vec<u8>,
    header: BlkReq,
    response: BlkResp,
    pub result: Option<Result<(), Error>>,
}

impl Request {
    /// Reads so many bytes from a sector on.
    pub fn read(sector: u64, bytes: usize, skip: usize) -> Self {
        Self {
            write: false,
            sector,
            skip,
            buffer: vec![0x5a; skip + bytes],
            header: BlkReq::default(),
            response: BlkResp::default(),
            result: None,
        }
    }

    /// Writes so many bytes, which are all the same until [`data`](Self::data) changes them, from a sector
    /// on.
    pub fn write(sector: u64, bytes: usize, skip: usize) -> Self {
        Self {
            write: true,
            ..Self::read(sector, bytes, skip)
        }
    }

    /// The data.
    pub fn data(&mut self) -> &mut [u8] {
        &mut self.buffer[self.skip..]
    }

    /// How many sectors these are.
    pub fn sectors(&self) -> u64 {
        ((self.buffer.len() - self.skip) / SECTOR) as u64
    }

    /// Whether it succeeded.
    pub fn check(&self) -> Outcome {
        let what = if self.write { "write" } else { "read" };
        let (sector, sectors) = (self.sector, self.sectors());
        match &self.result {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(format!("{what} of {sectors} sectors at {sector}: {error}")),
            None => Err(format!("{what} of {sectors} sectors at {sector}: never done")),
        }
    }
}

/// A disk that is set up.
pub struct Disk {
    blk: VirtIOBlk<GrantHal, XenTransport>,
    channel: Rc<EventChannel>,
}

impl Disk {
    /// Resets the device and sets it up. With `ring_reset`, dropping the disk resets the queue alone, not the
    /// device.
    pub fn new(device: &Rc<Device>, ring_reset: bool) -> Outcome<Self> {
        let transport = XenTransport::new(device.clone(), ring_reset)?;
        let blk = VirtIOBlk::new(transport.clone()).map_err(|error| format!("VirtIOBlk::new: {error}"))?;
        transport.failure()?;
        let channel = device.channel(QUEUE).ok_or("the queue has no event channel")?;
        Ok(Self { blk, channel })
    }

    /// Capacity in sectors.
    pub fn sectors(&self) -> u64 {
        self.blk.capacity()
    }

    /// The device may only be read.
    pub fn read_only(&self) -> bool {
        self.blk.readonly()
    }

    /// The device's name for itself.
    pub fn id(&mut self) -> Outcome<[u8; 20]> {
        let mut id = [0; 20];
        self.blk
            .device_id(&mut id)
            .map_err(|error| format!("GET_ID: {error}"))?;
        Ok(id)
    }

    /// Makes everything written so far durable.
    pub fn flush(&mut self) -> Outcome {
        self.blk.flush().map_err(|error| format!("flush: {error}"))
    }

    /// Does requests, up to `depth` at a time, and waits for all.
    ///
    /// After an error, some may still be under way: only a reset ends those.
    pub async fn run(&mut self, requests: &mut [Request], depth: usize) -> Outcome {
        // By token, which request it is.
        let mut in_flight = [None; DEPTH];
        let mut next = 0;
        let mut left = requests.len();
        while left > 0 {
            let busy = in_flight.iter().flatten().count();
            if next < requests.len() && busy < depth.min(DEPTH) {
                let token = self.submit(&mut requests[next])?;
                let slot = in_flight
                    .get_mut(usize::from(token))
                    .ok_or("a token out of range")?;
                *slot = Some(next);
                next += 1;
                continue;
            }
            self.wait().await?;
            while let Some(token) = self.blk.peek_used() {
                let index = in_flight
                    .get_mut(usize::from(token))
                    .and_then(Option::take)
                    .ok_or_else(|| format!("buffer {token} was used, but not available"))?;
                self.complete(token, &mut requests[index]);
                left -= 1;
            }
        }
        Ok(())
    }

    /// Starts requests without waiting for any. Only dropping the disk, and then the requests, ends them.
    pub fn start(&mut self, requests: &mut [Request]) -> Outcome {
        requests
            .iter_mut()
            .try_for_each(|request| self.submit(request).map(drop))
    }

    /// Does one request.
    pub async fn one(&mut self, mut request: Request) -> Outcome<Request> {
        self.run(core::slice::from_mut(&mut request), 1).await?;
        Ok(request)
    }

    /// Does one request, which is to succeed.
    pub async fn good(&mut self, request: Request) -> Outcome<Request> {
        let request = self.one(request).await?;
        request.check()?;
        Ok(request)
    }

    fn submit(&mut self, request: &mut Request) -> Outcome<u16> {
        let sector = usize::try_from(request.sector).map_err(|error| error.to_string())?;
        let data = &mut request.buffer[request.skip..];
        // SAFETY: the HAL copies the buffers to pages of their own, and back only in `complete`. The queue
        // keeps no more than their addresses.
        let token = unsafe {
            if request.write {
                self.blk
                    .write_blocks_nb(sector, &mut request.header, data, &mut request.response)
            } else {
                self.blk
                    .read_blocks_nb(sector, &mut request.header, data, &mut request.response)
            }
        };
        token.map_err(|error| format!("no room in the queue: {error}"))
    }

    fn complete(&mut self, token: u16, request: &mut Request) {
        let data = &mut request.buffer[request.skip..];
        // SAFETY: these are the buffers that `submit` gave with this token.
        request.result = Some(unsafe {
            if request.write {
                self.blk
                    .complete_write_blocks(token, &request.header, data, &mut request.response)
            } else {
                self.blk
                    .complete_read_blocks(token, &request.header, data, &mut request.response)
            }
        });
    }

    /// Waits until a buffer was used.
    async fn wait(&mut self) -> Outcome {
        loop {
            // The queue has just told the device which index to notify at; what the device did before it saw
            // that is seen here.
            shared::barrier();
            if self.blk.peek_used().is_some() {
                return Ok(());
            }
            let notified = time::timeout(LIMIT, self.channel.wait()).await;
            // A notification that got lost shows here, too: it is a failure even though the request is done.
            ensure!(
                notified.is_ok(),
                "no notification in {LIMIT:?}, {}",
                if self.blk.peek_used().is_some() {
                    "though a buffer was used"
                } else {
                    "and no buffer was used"
                }
            );
        }
    }
}
