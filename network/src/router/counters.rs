//! What a router has done, for those who operate it.

use core::cell::Cell;

/// A number of things that happened.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Some more.
    pub(super) fn add(&self, count: u64) {
        self.0.set(self.0.get().wrapping_add(count));
    }

    /// Not counted here, but found out.
    pub(super) fn set(&self, value: u64) {
        self.0.set(value);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Counts since the router was made; those named `...-now` are what there is at the moment.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Shows each with its name.
            pub fn each(&self, mut show: impl FnMut(&'static str, u64)) {
                $(show($text, self.$name.get());)*
            }
        }
    };
}

counters! {
    /// Frames that went through from inside to outside.
    out_frames = "out-frames",
    /// Their bytes.
    out_bytes = "out-bytes",
    /// Frames that went through from outside to inside.
    in_frames = "in-frames",
    /// Their bytes.
    in_bytes = "in-bytes",
    /// Connections that there are.
    connections_now = "connections-now",
    /// Connections that began.
    connections = "connections",
    /// Connections that lost their place to a new one.
    connections_evicted = "connections-evicted",
    /// Frames dropped because there was no room for their connection, or no port.
    dropped_full = "drop-full",
    /// Frames dropped because of a rule.
    dropped_denied = "drop-denied",
    /// Frames dropped because they belong to no connection and cannot begin one.
    dropped_unknown = "drop-unknown",
    /// Later fragments dropped because the first one was not seen.
    dropped_fragment = "drop-fragment",
    /// Frames dropped because their protocol is not translated.
    dropped_unsupported = "drop-unsupported",
    /// Frames dropped because they are malformed, or are for where nobody is: a network of the router's own,
    /// a group, a special address.
    dropped_invalid = "drop-invalid",
    /// Frames dropped because there is no way out, for want of an address or a link.
    dropped_no_route = "drop-no-route",
    /// Frames dropped because they are too large for the other side.
    dropped_too_big = "drop-too-big",
    /// Frames dropped because they went over too many hops.
    dropped_expired = "drop-expired",
    /// Frames dropped because their next hop did not answer, or too many waited for it.
    dropped_neighbour = "drop-neighbour",
    /// Frames dropped for want of memory.
    dropped_memory = "drop-memory",
    /// Frames for the router itself, dropped because too many waited.
    dropped_own = "drop-own",
    /// ICMP errors and TCP resets sent.
    refusals = "icmp-errors",
    /// DHCP leases that have not ended.
    dhcp_leases_now = "dhcp-leases-now",
    /// DHCP messages from clients.
    dhcp_messages = "dhcp-messages",
    /// DHCP messages to clients.
    dhcp_replies = "dhcp-replies",
    /// DNS questions from clients.
    dns_queries = "dns-queries",
    /// DNS answers from servers.
    dns_answers = "dns-answers",
    /// DNS questions that no server answered.
    dns_timeouts = "dns-timeouts",
    /// DNS questions refused because too many were under way.
    dns_refused = "dns-refused",
    /// Messages from outside that were no answer to a DNS question.
    dns_wrong = "dns-wrong",
}
