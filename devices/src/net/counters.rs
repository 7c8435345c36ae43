//! What a network device has done, for those who operate it.

use crate::virtqueue;

/// Counts of one device since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// What the driver received.
    pub receive: Receive,
    /// What the driver sent.
    pub transmit: Transmit,
    /// What the driver commanded.
    pub control: Control,
}

/// Counts of all receive queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receive {
    /// Packets that the driver was given.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames dropped because they do not fit in the driver's buffers, however long it takes, or for want of
    /// memory.
    pub no_room: u64,
    /// Frames dropped because they are longer than the MTU that the driver was told.
    pub over_mtu: u64,
    /// Frames dropped because what is left to do about them cannot be done.
    pub malformed: u64,
    /// Frames dropped because the driver has stopped using this queue.
    pub unused_queue: u64,
    /// Packets lost because a buffer of the driver cannot be written.
    pub unwritable: u64,
    /// Buffers of the driver with no room for a header, given back unused.
    pub bad_buffers: u64,
    /// How often frames had to wait because the driver had no buffers available.
    pub no_buffer: u64,
    /// Frames that were cut up here because the driver does not take such.
    pub segmented: u64,
    /// Packets whose checksum was computed here.
    pub checksummed: u64,
    /// Notifications and copies.
    pub queues: virtqueue::Counters,
}

/// Counts of all transmit queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transmit {
    /// Frames that went into the network.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames dropped because they are shorter than an Ethernet header.
    pub too_short: u64,
    /// Frames dropped because they are longer than the MTU or than anything may be.
    pub too_long: u64,
    /// Frames dropped because their header asks for something wrong, or for what was not negotiated.
    pub malformed: u64,
    /// Frames dropped because a buffer of the driver cannot be read.
    pub unreadable: u64,
    /// How often frames had to wait for memory, or for what was sent before to be taken.
    pub waited: u64,
    /// Notifications and copies.
    pub queues: virtqueue::Counters,
}

/// Counts of the control queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Commands that were obeyed.
    pub obeyed: u64,
    /// Commands that were refused.
    pub refused: u64,
    /// Notifications and copies.
    pub queues: virtqueue::Counters,
}

impl Counters {
    /// Tells each counter, by its name.
    pub fn each(&self, tell: &mut dyn FnMut(&'static str, u64)) {
        let Counters {
            receive,
            transmit,
            control,
        } = self;
        tell("receive-packets", receive.packets);
        tell("receive-bytes", receive.bytes);
        tell("receive-no-room", receive.no_room);
        tell("receive-over-mtu", receive.over_mtu);
        tell("receive-malformed", receive.malformed);
        tell("receive-unused-queue", receive.unused_queue);
        tell("receive-unwritable", receive.unwritable);
        tell("receive-bad-buffers", receive.bad_buffers);
        tell("receive-no-buffer", receive.no_buffer);
        tell("receive-segmented", receive.segmented);
        tell("receive-checksummed", receive.checksummed);
        tell("receive-kicks", receive.queues.kicks);
        tell("receive-notifications", receive.queues.notifications);
        tell("receive-suppressed", receive.queues.suppressed);
        tell("receive-batches", receive.queues.batches);
        tell("receive-copies", receive.queues.copies);
        tell("transmit-packets", transmit.packets);
        tell("transmit-bytes", transmit.bytes);
        tell("transmit-too-short", transmit.too_short);
        tell("transmit-too-long", transmit.too_long);
        tell("transmit-malformed", transmit.malformed);
        tell("transmit-unreadable", transmit.unreadable);
        tell("transmit-waited", transmit.waited);
        tell("transmit-kicks", transmit.queues.kicks);
        tell("transmit-notifications", transmit.queues.notifications);
        tell("transmit-suppressed", transmit.queues.suppressed);
        tell("transmit-batches", transmit.queues.batches);
        tell("transmit-copies", transmit.queues.copies);
        tell("control-obeyed", control.obeyed);
        tell("control-refused", control.refused);
        tell("control-kicks", control.queues.kicks);
        tell("control-notifications", control.queues.notifications);
        tell("control-suppressed", control.queues.suppressed);
        tell("control-batches", control.queues.batches);
        tell("control-copies", control.queues.copies);
    }
}
