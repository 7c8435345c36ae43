//! What is plugged in.

use alloc::rc::Rc;
use core::task::{Context, Poll};

use devices::net::{Filter, Frame, Link, Offload, Port};

use super::fair::MAX_QUEUES;
use super::memory::{Memory, weight};
use super::port::{Limited, PortState};
use super::{Counters, Inner, Reason};
use crate::time::Time;

/// A port of a switch, plugged in until the last handle of it is dropped. It may outlive the handles of the
/// switch.
pub struct Plug<M: Memory, T: Time>(Rc<Plugged<M, T>>);

struct Plugged<M: Memory, T: Time> {
    switch: Rc<Inner<M, T>>,
    port: Rc<PortState<M::Buffer>>,
}

impl<M: Memory, T: Time> Clone for Plug<M, T> {
    fn clone(&self) -> Self {
        Plug(self.0.clone())
    }
}

impl<M: Memory, T: Time> Drop for Plugged<M, T> {
    fn drop(&mut self) {
        self.switch.unplug(self.port.index());
    }
}

impl<M: Memory, T: Time> Plug<M, T> {
    pub(super) fn new(switch: Rc<Inner<M, T>>, port: Rc<PortState<M::Buffer>>) -> Self {
        Plug(Rc::new(Plugged { switch, port }))
    }

    /// Says what the line behind this port is like: an uplink's, or a router's, which counts on a segment
    /// without uplinks.
    ///
    /// Its announcements are those since the port exists; they add up over all lines of a segment. While an
    /// uplink is down, what goes to it is dropped, and so is what waits for it.
    pub fn set_link(&self, link: Link) {
        self.0.switch.set_line(&self.0.port, link);
    }

    /// What has gone through this port.
    pub fn counters(&self) -> Counters {
        *self.0.port.counters.borrow()
    }
}

impl<M: Memory, T: Time> Port for Plug<M, T> {
    type Buffer = M::Buffer;

    fn allocate(&self, len: usize) -> Option<Frame<M::Buffer>> {
        let Plugged { switch, port } = &*self.0;
        if !switch.may(port, Limited::Send) {
            port.counters.borrow_mut().wait_rate += 1;
            return None;
        }
        let Some(charge) = port.send.charge(weight(len)) else {
            port.counters.borrow_mut().wait_account += 1;
            return None;
        };
        let Some(buffer) = switch.memory.allocate(len) else {
            port.counters.borrow_mut().no_memory += 1;
            return None;
        };
        Some(Frame::new(buffer, Offload::default(), Some(charge)))
    }

    fn poll_ready(&self, len: usize, context: &mut Context<'_>) -> Poll<()> {
        let Plugged { switch, port } = &*self.0;
        if !switch.may(port, Limited::Send) {
            let mut waiting = port.send_waiting.borrow_mut();
            if !waiting.iter().any(|it| it.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            return Poll::Pending;
        }
        if port.send.poll_room(weight(len), context.waker()).is_pending() {
            return Poll::Pending;
        }
        switch.memory.poll_free(len, context)
    }

    fn send(&self, frame: Frame<M::Buffer>) {
        self.0.switch.send(&self.0.port, frame);
    }

    fn poll_receive(&self, queue: u16, context: &mut Context<'_>) -> Poll<Frame<M::Buffer>> {
        if queue >= MAX_QUEUES {
            return Poll::Pending;
        }
        let Plugged { switch, port } = &*self.0;
        let mut queues = port.queues.borrow_mut();
        // The limit holds here and not where frames come in, so that the queues decide who gets how much of
        // it.
        if !queues.is_empty(queue) && !switch.may(port, Limited::Receive) {
            port.hold_up(context.waker());
            return Poll::Pending;
        }
        let Some(frame) = queues.pop(queue) else {
            queues.wait(queue, context.waker());
            return Poll::Pending;
        };
        port.received(frame.len());
        let mut counters = port.counters.borrow_mut();
        counters.frames_out += 1;
        counters.bytes_out += frame.len() as u64;
        Poll::Ready(frame)
    }

    fn forget(&self) {
        self.0.port.forget(Reason::Filtered);
    }

    fn set_queues(&self, queues: u16) {
        // Only what is in one queue takes turns, so that a limit is shared fairly only there.
        let queues = match self.0.port.is_limited(Limited::Receive) {
            true => 1,
            false => queues.clamp(1, MAX_QUEUES),
        };
        self.0.port.set_queues(queues);
    }

    fn set_filter(&self, filter: Filter) {
        *self.0.port.filter.borrow_mut() = filter;
    }

    fn link(&self) -> Link {
        let link = self.0.switch.link.get();
        Link {
            speed: self.0.port.speed.unwrap_or(link.speed),
            ..link
        }
    }

    fn poll_link(&self, seen: &Link, context: &mut Context<'_>) -> Poll<Link> {
        let link = self.link();
        if link != *seen {
            return Poll::Ready(link);
        }
        *self.0.port.link_waiting.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}
