//! What an uplink did so far.

/// Counts since the uplink exists. Received is what came from the back end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames received, large segments as one.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames received that are still to be cut up.
    pub rx_segmented: u64,
    /// Frames that the back end could not put into our pages.
    pub rx_failed: u64,
    /// Frames that are too short or too long, or whose headers are not what the back end says they are.
    pub rx_malformed: u64,
    /// Times that there was no page to post.
    pub rx_no_memory: u64,
    /// Times that a page to post could not be granted.
    pub rx_no_grant: u64,
    /// Frames given to the back end, large segments as one.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames given to the back end to be cut up there.
    pub tx_segmented: u64,
    /// Fragments of frames that the back end did not take.
    pub tx_failed: u64,
    /// Frames that the back end could never take.
    pub tx_unfit: u64,
    /// Frames lost for lack of memory or grants.
    pub tx_no_memory: u64,
    /// Frames that were finished in software: checksum, segmentation or copying.
    pub tx_software: u64,
    /// Times that frames had to wait because the ring was full.
    pub tx_ring_full: u64,
    /// Notifications to the back end, a hypercall each.
    pub notifications: u64,
    /// Notifications from the back end.
    pub events: u64,
    /// Connections, the first included.
    pub connections: u64,
    /// Connections that ended because the back end broke a rule.
    pub broken: u64,
}

impl Counters {
    /// Tells each counter, by its name.
    pub fn each(&self, tell: &mut dyn FnMut(&'static str, u64)) {
        tell("rx-packets", self.rx_packets);
        tell("rx-bytes", self.rx_bytes);
        tell("rx-segmented", self.rx_segmented);
        tell("rx-failed", self.rx_failed);
        tell("rx-malformed", self.rx_malformed);
        tell("rx-no-memory", self.rx_no_memory);
        tell("rx-no-grant", self.rx_no_grant);
        tell("tx-packets", self.tx_packets);
        tell("tx-bytes", self.tx_bytes);
        tell("tx-segmented", self.tx_segmented);
        tell("tx-failed", self.tx_failed);
        tell("tx-unfit", self.tx_unfit);
        tell("tx-no-memory", self.tx_no_memory);
        tell("tx-software", self.tx_software);
        tell("tx-ring-full", self.tx_ring_full);
        tell("notifications", self.notifications);
        tell("events", self.events);
        tell("connections", self.connections);
        tell("broken", self.broken);
    }
}
