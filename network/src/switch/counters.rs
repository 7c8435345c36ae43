//! What has gone through a port, and what was dropped there and why.

/// Why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// What the port sent is no Ethernet frame: too short, too long, or from a group.
    Malformed,
    /// The port sent in the name of another station, or hid whether it did: an unusual form of ARP, or IPv6
    /// whose headers cannot all be seen.
    SpoofedMac,
    /// The port sent in the name of an IP address that is not its own, or what only a router or a server for
    /// addresses sends, or hid whether it did.
    SpoofedIp,
    /// The port sent to another client, and one of them is isolated.
    Isolated,
    /// The port sent more to groups or unknown stations than it may.
    Storm,
    /// The port sent what nobody on the segment wants, or what must not leave a line.
    Undeliverable,
    /// What came for the port is not what its filter lets in, or nobody is there any more to receive it.
    Filtered,
    /// What came for the port found its receive queue full, and that waiting for the rate limit.
    ReceiveRate,
    /// What came for the port found its receive queue full.
    ReceiveQueueFull,
    /// What came for the port cannot leave, because the uplink is down.
    LinkDown,
}

/// All reasons, with their names.
const REASONS: [(Reason, &str); 10] = [
    (Reason::Malformed, "drop-malformed"),
    (Reason::SpoofedMac, "drop-spoofed-mac"),
    (Reason::SpoofedIp, "drop-spoofed-ip"),
    (Reason::Isolated, "drop-isolated"),
    (Reason::Storm, "drop-storm"),
    (Reason::Undeliverable, "drop-undeliverable"),
    (Reason::Filtered, "drop-filtered"),
    (Reason::ReceiveRate, "drop-receive-rate"),
    (Reason::ReceiveQueueFull, "drop-receive-queue-full"),
    (Reason::LinkDown, "drop-link-down"),
];

/// Counts of one port since it was plugged in. `in` is what it sent into the network, `out` what it received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames sent into the network, those dropped included. A large frame that is still to be cut up counts
    /// once.
    pub frames_in: u64,
    /// Bytes of those.
    pub bytes_in: u64,
    /// Frames received from the network.
    pub frames_out: u64,
    /// Bytes of those.
    pub bytes_out: u64,
    /// Times that sending had to wait because what was sent before had not left yet.
    pub wait_account: u64,
    /// Times that sending had to wait for the rate limit.
    pub wait_rate: u64,
    /// Times that there was no memory for a frame to be sent.
    pub no_memory: u64,
    drops: [u64; REASONS.len()],
}

impl Counters {
    /// Frames dropped for this reason.
    pub fn drops(&self, reason: Reason) -> u64 {
        self.drops[reason as usize]
    }

    /// Frames dropped.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Every count with its name: lower-case letters and hyphens, always the same ones in the same order.
    pub fn each(&self, mut tell: impl FnMut(&'static str, u64)) {
        tell("frames-in", self.frames_in);
        tell("bytes-in", self.bytes_in);
        tell("frames-out", self.frames_out);
        tell("bytes-out", self.bytes_out);
        tell("wait-account", self.wait_account);
        tell("wait-rate", self.wait_rate);
        tell("no-memory", self.no_memory);
        for (reason, name) in REASONS {
            tell(name, self.drops(reason));
        }
    }

    pub(super) fn drop(&mut self, reason: Reason) {
        self.drops[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place_and_name() {
        let mut counters = Counters::default();
        for (index, (reason, _)) in REASONS.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            for _ in 0..=index {
                counters.drop(reason);
            }
        }
        let mut names = vec![];
        counters.each(|name, value| names.push((name, value)));
        assert_eq!(names[7], ("drop-malformed", 1));
        assert_eq!(names.last(), Some(&("drop-link-down", 10)));
        assert_eq!(counters.dropped(), 55);
    }
}
