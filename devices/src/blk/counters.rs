//! What a queue has done, for those who operate it.

use crate::virtqueue;

/// What the queues of a device have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests to read that were well-formed.
    pub reads: u64,
    /// Requests to write that were well-formed.
    pub writes: u64,
    /// Requests to flush.
    pub flushes: u64,
    /// Requests to discard that were well-formed.
    pub discards: u64,
    /// Requests to write zeroes that were well-formed.
    pub write_zeroes: u64,
    /// Requests for the device ID that were well-formed.
    pub get_ids: u64,
    /// Bytes read by requests that succeeded.
    pub read_bytes: u64,
    /// Bytes written by requests that succeeded.
    pub written_bytes: u64,
    /// Requests that ended with VIRTIO_BLK_S_IOERR.
    pub errors: u64,
    /// Requests that ended with VIRTIO_BLK_S_UNSUPP.
    pub unsupported: u64,
    /// Requests that had to wait for a buffer.
    pub waited: u64,
    /// Notifications and copies.
    pub queues: virtqueue::Counters,
}

impl Counters {
    /// Tells each counter, by its name.
    pub fn each(&self, tell: &mut dyn FnMut(&'static str, u64)) {
        tell("reads", self.reads);
        tell("writes", self.writes);
        tell("flushes", self.flushes);
        tell("discards", self.discards);
        tell("write-zeroes", self.write_zeroes);
        tell("get-ids", self.get_ids);
        tell("read-bytes", self.read_bytes);
        tell("written-bytes", self.written_bytes);
        tell("errors", self.errors);
        tell("unsupported", self.unsupported);
        tell("waited", self.waited);
        tell("kicks", self.queues.kicks);
        tell("notifications", self.queues.notifications);
        tell("suppressed", self.queues.suppressed);
        tell("batches", self.queues.batches);
        tell("copies", self.queues.copies);
    }
}
