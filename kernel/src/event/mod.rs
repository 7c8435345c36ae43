//! Event channels: notifications from Xen and between domains.
//!
//! Events are polled, never delivered as interrupts (upcalls stay masked). The FIFO ABI is used where Xen has
//! it, else the 2-level ABI; `evtchn=2l` on the command line asks for the latter.

mod fifo;
mod two_level;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering};
use core::task::{Context, Poll};
use core::time::Duration;

use xen_sys as xen;

use self::fifo::Fifo;
use self::two_level::TwoLevel;
use crate::cell::CpuCell;
use crate::errno::Errno;
use crate::hypercall::{self, DOMID_SELF};
use crate::stats::{Counter, count};
use crate::sync::Signal;
use crate::{boot, cmdline, time};

/// The number of an event channel of this domain.
pub type Port = u32;

/// The most events that are taken before tasks run, so that a domain that sends without end stops nobody.
const BATCH: usize = 256;

enum Abi {
    Fifo(Fifo),
    TwoLevel(TwoLevel),
}

struct Events {
    abi: Abi,
    /// By port, what to signal.
    ports: Vec<Option<Rc<Signal>>>,
}

static EVENTS: CpuCell<Option<Events>> = CpuCell::new(None);

/// Chooses the ABI. Events that are pending already may get lost: who uses a channel that the domain was made
/// with looks once unasked.
pub(crate) fn init() {
    let abi = if cmdline::value("evtchn") == Some("2l") {
        log::info!("2-level event channels, as asked for");
        Abi::TwoLevel(TwoLevel::new())
    } else {
        match Fifo::new() {
            Ok(fifo) => Abi::Fifo(fifo),
            Err(error) => {
                log::info!("2-level event channels (FIFO: {error})");
                Abi::TwoLevel(TwoLevel::new())
            }
        }
    };
    *EVENTS.borrow() = Some(Events {
        abi,
        ports: Vec::new(),
    });
}

impl Events {
    /// Makes a port deliver to a signal.
    fn register(&mut self, port: Port, signal: &Rc<Signal>) -> Result<(), Errno> {
        match &mut self.abi {
            Abi::Fifo(fifo) => fifo.prepare(port)?,
            Abi::TwoLevel(_) => two_level::prepare(port)?,
        }
        let index = port as usize;
        if index >= self.ports.len() {
            let missing = index + 1 - self.ports.len();
            self.ports.try_reserve(missing).map_err(|_| Errno::NOMEM)?;
            self.ports.resize(index + 1, None);
        }
        self.ports[index] = Some(signal.clone());
        Ok(())
    }

    /// The next pending port; what is pending there is consumed.
    fn next(&mut self) -> Option<Port> {
        match &mut self.abi {
            Abi::Fifo(fifo) => fifo.next(),
            Abi::TwoLevel(two_level) => two_level.next(),
        }
    }
}

/// The byte that Xen sets when there are new events.
fn upcall_pending() -> &'static AtomicU8 {
    // SAFETY: the byte is in the shared page, which stays mapped, and Xen changes it atomically too.
    unsafe { AtomicU8::from_ptr(&raw mut (*boot::vcpu_info()).evtchn_upcall_pending) }
}

/// Whether there are new events.
pub(crate) fn is_pending() -> bool {
    upcall_pending().load(Ordering::Relaxed) != 0
}

/// Signals what is pending; whether there may be more.
pub(crate) fn poll() -> bool {
    // Xen sets the flag after the event, so it is cleared before looking.
    if is_pending() {
        upcall_pending().swap(0, Ordering::SeqCst);
    }
    for _ in 0..BATCH {
        // The borrow ends before a task is woken.
        let next = EVENTS.borrow().as_mut().and_then(|events| {
            events
                .next()
                .map(|port| events.ports.get(port as usize).cloned().flatten())
        });
        match next {
            Some(Some(signal)) => {
                count(Counter::EventsReceived, 1);
                signal.set();
            }
            // An event for a channel that was closed meanwhile.
            Some(None) => {}
            None => return false,
        }
    }
    true
}

/// Notifies the other end of a channel. Nothing is lost but the notification if there is no other end.
pub(crate) fn send(port: Port) {
    let mut argument = xen::evtchn_send { port };
    // SAFETY: the structure is the command's.
    let _ = unsafe { hypercall::event_channel_op(xen::EVTCHNOP_send, &mut argument) };
}

/// How many channels this domain has open, with those that it was made with.
pub fn open_channels() -> usize {
    EVENTS
        .borrow()
        .as_ref()
        .map_or(0, |events| events.ports.iter().flatten().count())
}

fn close(port: Port) {
    let mut argument = xen::evtchn_close { port };
    // SAFETY: the structure is the command's.
    if let Err(error) = unsafe { hypercall::event_channel_op(xen::EVTCHNOP_close, &mut argument) } {
        log::error!("closing event channel {port}: {error}");
    }
}

/// One end of an event channel, closed when dropped.
///
/// What the other end sends sets a flag that [`wait`](Self::wait) consumes; nothing says when the other end
/// closes.
pub struct EventChannel {
    port: Port,
    signal: Rc<Signal>,
}

impl EventChannel {
    /// Allocates a port that the domain `remote` may bind to.
    pub fn alloc_unbound(remote: u16) -> Result<Self, Errno> {
        let mut argument = xen::evtchn_alloc_unbound {
            dom: DOMID_SELF,
            remote_dom: remote,
            port: 0,
        };
        // SAFETY: the structure is the command's.
        unsafe { hypercall::event_channel_op(xen::EVTCHNOP_alloc_unbound, &mut argument)? };
        Self::open(argument.port)
    }

    /// Binds to a port that the domain `remote` has allocated for this one. The new channel is pending at
    /// once, for what was sent before.
    pub fn bind_interdomain(remote: u16, remote_port: Port) -> Result<Self, Errno> {
        let mut argument = xen::evtchn_bind_interdomain {
            remote_dom: remote,
            remote_port,
            local_port: 0,
        };
        // SAFETY: the structure is the command's.
        unsafe { hypercall::event_channel_op(xen::EVTCHNOP_bind_interdomain, &mut argument)? };
        Self::open(argument.local_port)
    }

    /// Binds to a virtual interrupt (`VIRQ_*`).
    pub(crate) fn bind_virq(virq: u32) -> Result<Self, Errno> {
        let mut argument = xen::evtchn_bind_virq {
            virq,
            vcpu: 0,
            port: 0,
        };
        // SAFETY: the structure is the command's.
        unsafe { hypercall::event_channel_op(xen::EVTCHNOP_bind_virq, &mut argument)? };
        Self::open(argument.port)
    }

    /// Takes over a port that the domain was made with.
    pub(crate) fn adopt(port: Port) -> Result<Self, Errno> {
        Self::open(port)
    }

    /// Takes over an open port; it is closed if that fails.
    fn open(port: Port) -> Result<Self, Errno> {
        let channel = Self {
            port,
            signal: Rc::new(Signal::new()),
        };
        EVENTS
            .borrow()
            .as_mut()
            .ok_or(Errno::NOSYS)?
            .register(port, &channel.signal)?;
        Ok(channel)
    }

    /// This domain's number for the channel.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Notifies the other end, if there is one: one hypercall.
    pub fn notify(&self) {
        send(self.port);
    }

    /// Waits for a notification and consumes it; several since the last wait count as one. One task may wait
    /// at a time.
    pub async fn wait(&self) {
        self.signal.wait().await
    }

    /// Consumes a notification, or registers the task to be woken by the next.
    pub fn poll_wait(&self, context: &mut Context<'_>) -> Poll<()> {
        self.signal.poll_wait(context)
    }

    /// Waits for a notification and consumes it, without letting tasks run meanwhile; false if none came in
    /// time. For callers that cannot await, such as implementations of synchronous traits.
    pub fn wait_blocking(&self, limit: Duration) -> bool {
        let deadline = time::now() + limit;
        loop {
            while poll() {}
            if self.signal.take() {
                return true;
            }
            if time::now() >= deadline {
                return false;
            }
            let mut port = self.port;
            let mut argument = xen::sched_poll {
                ports: &mut port,
                nr_ports: 1,
                timeout: time::to_system_time(deadline),
            };
            // SAFETY: the array of one port outlives the call.
            if let Err(error) = unsafe { hypercall::sched_poll(&mut argument) } {
                log::error!("polling event channel {port}: {error}");
                return false;
            }
        }
    }

    /// Consumes a notification without waiting; whether there was one. Only what the executor has seen
    /// counts.
    pub fn take_pending(&self) -> bool {
        self.signal.take()
    }
}

impl Drop for EventChannel {
    fn drop(&mut self) {
        if let Some(slot) = EVENTS
            .borrow()
            .as_mut()
            .and_then(|events| events.ports.get_mut(self.port as usize))
        {
            *slot = None;
        }
        close(self.port);
    }
}
