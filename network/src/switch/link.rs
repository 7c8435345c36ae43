//! The line as those on a segment see it.

use devices::net::Link;

use super::Inner;
use super::Reason;
use super::memory::Memory;
use super::options::Kind;
use super::port::PortState;
use crate::time::Time;

impl<M: Memory, T: Time> Inner<M, T> {
    /// Takes note of what a port's owner says of the line behind it.
    pub(super) fn set_line(&self, port: &PortState<M::Buffer>, line: Link) {
        let before = port.line.replace(Some(line));
        let announced = before.map_or(0, |before| before.announcements);
        let new = line.announcements.saturating_sub(announced);
        self.announcements
            .set(self.announcements.get().saturating_add(new));
        if port.is_down() {
            // Nobody gets the memory back that waits for a line that may never come up again.
            port.forget(Reason::LinkDown);
        }
        self.update_link();
    }

    /// Works out the segment's link, and tells those who wait for a change.
    pub(super) fn update_link(&self) {
        let link = Link {
            announcements: self.announcements.get(),
            ..self.combined()
        };
        if self.link.replace(link) == link {
            return;
        }
        for port in self.ports.borrow().iter().flatten() {
            if let Some(waker) = port.link_waiting.take() {
                waker.wake();
            }
        }
    }

    /// The uplinks taken together, or the routers if there are none, or else what the options say.
    fn combined(&self) -> Link {
        let ports = self.ports.borrow();
        let of_kind = |kind| ports.iter().flatten().filter(move |port| port.kind == kind);
        let default = Link {
            announcements: 0,
            ..self.options.link
        };
        let lines = |kind| of_kind(kind).filter_map(|port| port.line.get());
        if let Some(link) = lines(Kind::Uplink).reduce(both) {
            return link;
        }
        if of_kind(Kind::Uplink).next().is_some() {
            return Link { up: false, ..default };
        }
        lines(Kind::Router).reduce(both).unwrap_or(default)
    }
}

/// Two lines as one. Everybody's frames have to fit through both, even while one is down.
fn both(one: Link, other: Link) -> Link {
    Link {
        up: one.up || other.up,
        mtu: one.mtu.min(other.mtu),
        speed: match (one.up, other.up) {
            (true, false) => one.speed,
            (false, true) => other.speed,
            _ => one.speed.max(other.speed),
        },
        announcements: 0,
    }
}
