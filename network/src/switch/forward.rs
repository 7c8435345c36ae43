//! The way of a frame from port to port.

use devices::memory::Buffer;
use devices::net::headers::{Headers, PREFIX};
use devices::net::{ETHERNET_HEADER, Frame, MAX_FRAME, Mac};

use super::memory::Memory;
use super::options::Kind;
use super::port::{Limited, PortState};
use super::table::Source;
use super::{Inner, Ports, Reason};
use crate::time::Time;

impl<M: Memory, T: Time> Inner<M, T> {
    /// Sends a frame on its way.
    pub(super) fn send(&self, from: &PortState<M::Buffer>, frame: Frame<M::Buffer>) {
        {
            let mut counters = from.counters.borrow_mut();
            counters.frames_in += 1;
            counters.bytes_in += frame.len() as u64;
        }
        from.spend(Limited::Send, frame.len());
        if let Err(reason) = self.admit(from, frame) {
            from.drop(reason);
        }
    }

    /// Checks a frame, and sends it where it belongs. An error is the sender's.
    fn admit(&self, from: &PortState<M::Buffer>, frame: Frame<M::Buffer>) -> Result<(), Reason> {
        if !(ETHERNET_HEADER..=MAX_FRAME).contains(&frame.len()) {
            return Err(Reason::Malformed);
        }
        let mut bytes = [0; PREFIX];
        let bytes = &mut bytes[..frame.len().min(PREFIX)];
        frame.buffer().read(0, bytes);
        let headers = Headers::parse(bytes).ok_or(Reason::Malformed)?;
        if is_group(headers.source) || headers.source == [0; 6] {
            return Err(Reason::Malformed);
        }
        if let Some(guard) = &from.guard {
            guard.check(&headers, bytes)?;
        }
        if self.hear(headers.source, from) == Source::Foreign {
            return Err(Reason::SpoofedMac);
        }
        if is_link_local(headers.destination) {
            return Err(Reason::Undeliverable);
        }
        let ports = self.ports.borrow();
        let known = match is_group(headers.destination) {
            true => None,
            false => self.table.borrow().find(&headers.destination),
        };
        let Some(index) = known else {
            return self.flood(&ports, from, &headers, frame);
        };
        let to = ports[index].as_ref().ok_or(Reason::Undeliverable)?;
        if index == from.index() || is_between_uplinks(from, to) {
            return Err(Reason::Undeliverable);
        }
        if from.isolate && to.kind == Kind::Client || to.isolate && from.kind == Kind::Client {
            return Err(Reason::Isolated);
        }
        self.deliver(from, to, &headers, frame);
        Ok(())
    }

    /// Notes where a station is.
    fn hear(&self, mac: Mac, from: &PortState<M::Buffer>) -> Source {
        let mut table = self.table.borrow_mut();
        let source = table.hear(mac, &from.learner);
        if table.ages() && self.next_turn.get().is_none() {
            self.start_ageing();
        }
        source
    }

    /// Sends a frame to every other port that it may go to and that wants it.
    fn flood(
        &self,
        ports: &Ports<M::Buffer>,
        from: &PortState<M::Buffer>,
        headers: &Headers,
        frame: Frame<M::Buffer>,
    ) -> Result<(), Reason> {
        let receivers = ports.iter().flatten().filter(|to| {
            let apart = from.isolate && to.kind == Kind::Client || to.isolate && from.kind == Kind::Client;
            to.index() != from.index()
                && !apart
                && !is_between_uplinks(from, to)
                && to.filter.borrow().accepts(headers.destination, headers.vlan)
        });
        // To one port, a frame for an unknown station is as much work as for a known one. So who makes
        // stations unknown, by filling an uplink's part of the table, does not make their frames scarce.
        let free = usize::from(!is_group(headers.destination));
        let counts = free == 0 || receivers.clone().nth(free).is_some();
        if counts && !self.may(from, Limited::Flood) {
            return Err(Reason::Storm);
        }
        let mut copies = 0usize;
        for to in receivers {
            self.deliver(from, to, headers, frame.clone());
            copies += 1;
        }
        from.spend(Limited::Flood, copies.saturating_sub(free));
        match copies {
            0 => Err(Reason::Undeliverable),
            _ => Ok(()),
        }
    }

    /// Delivers a frame to a port. What keeps it from getting there is the receiver's.
    fn deliver(
        &self,
        from: &PortState<M::Buffer>,
        to: &PortState<M::Buffer>,
        headers: &Headers,
        frame: Frame<M::Buffer>,
    ) {
        let result = if to.is_down() {
            Err(Reason::LinkDown)
        } else if !to.filter.borrow().accepts(headers.destination, headers.vlan) {
            Err(Reason::Filtered)
        } else {
            to.enqueue(headers, from, frame)
        };
        if let Err(reason) = result {
            to.drop(reason);
        }
    }
}

fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

/// Whether the address means the other end of the line, beyond which no bridge forwards (IEEE 802.1Q, table
/// 8-1).
fn is_link_local(mac: Mac) -> bool {
    mac[..5] == [0x01, 0x80, 0xc2, 0, 0] && mac[5] < 0x10
}

/// Nothing goes from uplink to uplink: they may lead to the same place, and there is no spanning tree.
fn is_between_uplinks<B>(from: &PortState<B>, to: &PortState<B>) -> bool {
    from.kind == Kind::Uplink && to.kind == Kind::Uplink
}
