//! Fetching indirect tables, those of many chains at once.

use alloc::vec::Vec;

use crate::batch::Batch;
use crate::memory::{DriverMemory, Local, Transfer};
use crate::virtqueue::QueueError;
use crate::virtqueue::chain::Table;

/// Larger buffers are not kept between batches: a driver that makes its device need one could have it hold
/// the memory.
const KEPT: usize = 8192;

/// Makes a buffer for bytes of a driver's this long, all of them 0.
pub(crate) fn resize(bytes: &mut Vec<u8>, len: usize) -> Result<(), QueueError> {
    bytes.clear();
    bytes.try_reserve(len).map_err(|_| QueueError::NoMemory)?;
    bytes.resize(len, 0);
    Ok(())
}

/// The buffer is done with for now.
pub(crate) fn release(bytes: &mut Vec<u8>) {
    if bytes.capacity() > KEPT {
        *bytes = Vec::new();
    }
}

/// Reads indirect tables in one batch: `bytes` holds them then, one after the other, for
/// [`Chain::extend`](crate::virtqueue::Chain::extend). The result is how many copies there were.
pub(crate) fn fetch<M: DriverMemory>(
    memory: &M,
    batch: &mut Batch<M::Buffer>,
    bytes: &mut Vec<u8>,
    tables: impl Iterator<Item = Table> + Clone,
) -> Result<usize, QueueError> {
    let total = tables.clone().map(|table| table.len).sum();
    resize(bytes, total)?;
    if total == 0 {
        return Ok(0);
    }
    let mut transfers = batch.take(tables.clone().count())?;
    let mut rest = &mut bytes[..];
    for table in tables {
        let (part, tail) = rest.split_at_mut(table.len);
        rest = tail;
        transfers.push(Transfer {
            address: table.address,
            local: Local::Read(part),
            result: Ok(()),
        });
    }
    memory.transfer(&mut transfers);
    let copies = transfers.len();
    let failed = transfers.iter().find_map(|transfer| transfer.result.err());
    batch.put(transfers);
    failed.map_or(Ok(copies), |error| Err(QueueError::Table(error)))
}
