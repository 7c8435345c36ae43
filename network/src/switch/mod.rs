//! A switch: one segment, and what is plugged into it.
//!
//! # Where frames go
//! A frame to a known station goes to that station's port. What is for a group, for all, or for an unknown
//! station floods: it goes to every other port whose filter lets it in, which is every uplink and, for
//! unknown stations, those clients that want to hear what is not for them. Nothing goes from uplink to
//! uplink, so that several uplinks into the same network make no loop; and no frame comes in by one that is
//! from a station of this switch's own.
//!
//! The addresses of clients and routers are known and stay. Others are learned: at uplinks, and at clients
//! that may send from any address; a bounded number at each, forgotten after 300 to 330 s of silence, and at
//! a full uplink when others are heard there and it is the one heard longest ago. A learned station may move,
//! but not from client to client. VLAN tags pass through; a station counts as being at the same port in all
//! VLANs.
//!
//! # Who holds memory, and who waits
//! What a port sends is on its account until it has been received. To uplinks and routers it waits, and with
//! the account used up, [`allocate`](devices::net::Port::allocate) fails: the sender's own queue fills
//! instead. To clients nothing waits: it goes onto the receiver's account, and if that is full, who has most
//! in it loses his last frame. Each queue takes turns between senders, so that each gets the same share,
//! counted in pages of 4096 bytes begun.
//!
//! A client may send and receive at a limited rate: what it may not receive yet waits in its queue, so that
//! the rate is shared like the memory; and may cause a limited number of copies by flooding.

mod bucket;
mod counters;
mod fair;
mod flow;
mod forward;
mod guard;
mod keeper;
mod link;
mod memory;
mod options;
mod order;
mod plug;
mod port;
mod table;

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::Future;
use core::task::Waker;
use core::time::Duration;

use devices::net::Link;

pub use bucket::RateLimit;
pub use counters::{Counters, Reason};
pub use fair::MAX_QUEUES;
pub use guard::Prefix;
pub(crate) use memory::weight;
pub use memory::{Memory, PAGE};
pub use options::{Kind, PortOptions, SwitchOptions};
pub use plug::Plug;

use crate::time::Time;
use port::{Limited, PortState};
use table::Table;

/// The most ports of a segment.
pub const MAX_PORTS: usize = 64;

/// A segment. Handles are cheap to clone.
pub struct Switch<M: Memory, T: Time>(Rc<Inner<M, T>>);

/// A segment's ports, each at its index.
type Ports<B> = Vec<Option<Rc<PortState<B>>>>;

struct Inner<M: Memory, T: Time> {
    memory: M,
    time: T,
    options: SwitchOptions,
    ports: RefCell<Ports<M::Buffer>>,
    table: RefCell<Table>,
    link: Cell<Link>,
    announcements: Cell<u32>,
    /// When the table's next generation starts, if it has anything to forget.
    next_turn: Cell<Option<Duration>>,
    /// The task that looks after the switch.
    keeper: Cell<Option<Waker>>,
}

/// Why nothing could be plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlugError {
    /// The segment has [`MAX_PORTS`] ports already.
    NoPort,
    /// The address is that of a group, of nobody, or missing where there has to be one.
    BadAddress,
    /// Another client or router has the address.
    AddressInUse,
}

/// A port, for those who watch it.
#[derive(Clone, Debug)]
pub struct PortStatus {
    /// What it is called.
    pub label: String,
    /// What kind it is.
    pub kind: Kind,
    /// What has gone through it.
    pub counters: Counters,
    /// Memory in what it sent and nobody has received, in bytes.
    pub sending: usize,
    /// Memory in what is on its own account to be received, in bytes.
    pub receiving: usize,
}

impl<M: Memory, T: Time> Clone for Switch<M, T> {
    fn clone(&self) -> Self {
        Switch(self.0.clone())
    }
}

impl<M: Memory, T: Time> Switch<M, T> {
    /// A segment without ports, and the task that looks after it: to be run until it ends, which it does when
    /// the last handle of switch and ports is gone. While it does not run, limits that were reached stay, and
    /// stations are not forgotten.
    pub fn new(memory: M, time: T, options: SwitchOptions) -> (Self, impl Future<Output = ()> + 'static) {
        let inner = Rc::new(Inner {
            memory,
            time: time.clone(),
            link: Cell::new(options.link),
            announcements: Cell::new(options.link.announcements),
            options,
            ports: RefCell::default(),
            table: RefCell::new(Table::new()),
            next_turn: Cell::default(),
            keeper: Cell::default(),
        });
        let keep = keeper::keep(Rc::downgrade(&inner), time);
        (Switch(inner), keep)
    }

    /// Plugs something in.
    pub fn plug(&self, options: PortOptions) -> Result<Plug<M, T>, PlugError> {
        let port = self.0.add(options)?;
        self.0.update_link();
        Ok(Plug::new(self.0.clone(), port))
    }

    /// Every port, in no particular order.
    pub fn ports(&self) -> impl Iterator<Item = PortStatus> {
        let ports = self.0.ports.borrow().clone();
        ports.into_iter().flatten().map(|port| PortStatus {
            label: port.label.clone(),
            kind: port.kind,
            counters: *port.counters.borrow(),
            sending: port.send.used(),
            receiving: port.receive.used(),
        })
    }

    /// How many stations are known.
    pub fn stations(&self) -> usize {
        self.0.table.borrow().len()
    }

    /// The line as clients see it.
    pub fn link(&self) -> Link {
        self.0.link.get()
    }
}

impl<M: Memory, T: Time> Inner<M, T> {
    fn add(&self, options: PortOptions) -> Result<Rc<PortState<M::Buffer>>, PlugError> {
        let mut ports = self.ports.borrow_mut();
        let index = match ports.iter().position(Option::is_none) {
            Some(index) => index,
            None if ports.len() < MAX_PORTS => {
                ports.push(None);
                ports.len() - 1
            }
            None => return Err(PlugError::NoPort),
        };
        match options.mac {
            Some(mac) if mac[0] & 1 != 0 || mac == [0; 6] => return Err(PlugError::BadAddress),
            Some(mac) if !self.table.borrow_mut().fix(mac, index) => {
                return Err(PlugError::AddressInUse);
            }
            None if options.kind != Kind::Uplink => return Err(PlugError::BadAddress),
            _ => {}
        }
        let port = PortState::new(index, options, self.options.isolate, self.time.now());
        let port = Rc::new(port);
        ports[index] = Some(port.clone());
        Ok(port)
    }

    fn unplug(&self, index: usize) {
        let port = self.ports.borrow_mut()[index].take();
        self.table.borrow_mut().remove_port(index);
        if let Some(port) = port {
            port.queues.borrow_mut().clear();
        }
        self.update_link();
    }

    /// Whether a port has not reached one of its limits.
    fn may(&self, port: &PortState<M::Buffer>, what: Limited) -> bool {
        port.may(what, || self.time.now(), || self.wake_keeper())
    }
}

impl<M: Memory, T: Time> Drop for Inner<M, T> {
    fn drop(&mut self) {
        self.wake_keeper();
    }
}

impl fmt::Display for PlugError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PlugError::NoPort => "the segment has no free port",
            PlugError::BadAddress => "not the address of a station",
            PlugError::AddressInUse => "another one on the segment has the address",
        })
    }
}

impl core::error::Error for PlugError {}
