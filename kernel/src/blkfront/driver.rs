//! What an uplink does in the course of its life: see [`frontend::live`].
//!
//! Only when the back end has let go of ring and pages, the requests are anyone's again: they wait for the
//! next connection.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::future::pending;

use protocols::blkif::frontend::RingConnection;
use protocols::blkif::nodes::{FlushSupport, Properties, Transport};
use protocols::blkif::vdev::Vdev;
use protocols::blkif::wire;
use protocols::front_end::Class;
use protocols::ring::{FrontRing, entries};
use protocols::xenbus::State as Xenbus;

use super::queue::Broken;
use super::uplink::Shared;
use crate::event::EventChannel;
use crate::executor::{self, Task};
use crate::frontend::{
    self, BackEnd, Connection, Device, End, FrontEnd, RingPages, State, get, publish, read_nodes,
};
use crate::grant::{Access, Granted};
use crate::mm::PAGE_SIZE;
use crate::ratelimit::LogLimit;
use crate::sync::select;
use crate::time;
use crate::xenbus;

/// Keeps an uplink connected until its device is removed.
pub(super) async fn run(shared: Rc<Shared>) {
    let name = format!("uplink {}", Vdev(shared.device));
    let driver = Driver {
        device: Device::new(Class::Block, shared.device, &name),
        last_domid: Cell::new(None),
        shared: shared.clone(),
    };
    let log = driver.device.log.clone();
    select(frontend::live(driver), limit_waiting(&shared, &log)).await;
}

/// Lets requests fail that wait for a connection for too long, whatever it is that the front end waits for.
async fn limit_waiting(shared: &Shared, log: &LogLimit) {
    let Some(patience) = shared.options.patience else {
        return pending().await;
    };
    let watchers = shared.watchers();
    while shared.state() != State::Removed {
        let connected = shared.changed(&watchers, State::Connecting);
        if time::timeout(patience, connected).await.is_err() {
            log.error(format_args!("no back end for {patience:?}; requests fail"));
            shared.queue.fail();
            shared.changed(&watchers, State::Connecting).await;
        }
        shared.changed(&watchers, State::Connected).await;
    }
}

/// What looks after one uplink.
struct Driver {
    shared: Rc<Shared>,
    device: Device,
    /// The domain of the last back end.
    last_domid: Cell<Option<u16>>,
}

/// What belongs to a ring that a back end knows of. The ring itself is the queue's.
struct Ring {
    transport: Transport,
    /// How many requests it holds.
    requests: u32,
    /// It stays until the back end has closed: that may be just about to bind it.
    event: Rc<EventChannel>,
    task: Option<Task<()>>,
}

impl FrontEnd for Driver {
    type Rings = Ring;

    fn device(&self) -> &Device {
        &self.device
    }

    fn set_state(&self, state: State) {
        if state == State::Removed {
            self.shared.queue.fail();
        }
        self.shared.set_state(state);
    }

    fn in_use(&self) -> bool {
        !self.shared.queue.is_idle()
    }

    async fn attention(&self) -> Result<(), End> {
        self.shared.queue.attention.wait().await;
        match self.shared.broken.take() {
            Some(broken) => Err(End::Broken(format!("{broken}"))),
            None => Ok(()),
        }
    }

    async fn offer(&self, back_end: &BackEnd) -> Result<Ring, End> {
        let transport = {
            let nodes = read_nodes(&back_end.path, Transport::KEYS).await?;
            Transport::parse(|key| get(&nodes, key)).map_err(End::Node)?
        };
        // A request for every fourth page of the pool: smaller requests than 16 KiB may wait for their turn.
        let wanted = (self.shared.options.pool / PAGE_SIZE / 4 / 32).max(1).ilog2();
        let order = wanted.min(transport.ring_page_order);
        let pages = 1 << order;
        self.shared
            .queue
            .reserve_ring(entries(pages * PAGE_SIZE, wire::ENTRY_BYTES))?;
        self.shared.pool.grant(back_end.domid).map_err(End::Grant)?;
        let ring = Granted::zeroed(back_end.domid, pages, Access::ReadWrite).map_err(End::Grant)?;
        let event = Rc::new(EventChannel::alloc_unbound(back_end.domid).map_err(End::Event)?);
        let mut nodes = Vec::new();
        let mut node = |key: &str, value: String| nodes.push((key.into(), value));
        if pages == 1 {
            node("ring-ref", format!("{}", ring.reference(0)));
        } else {
            node("ring-page-order", format!("{order}"));
            for index in 0..pages {
                node(&format!("ring-ref{index}"), format!("{}", ring.reference(index)));
            }
        }
        node("event-channel", format!("{}", event.port()));
        node("protocol", wire::PROTOCOL.into());
        node("feature-persistent", "1".into());
        publish(&self.device.path, &nodes, |name| name.starts_with("ring-")).await?;
        let ring = FrontRing::new(RingPages(ring), pages * PAGE_SIZE, wire::ENTRY_BYTES);
        let requests = ring.capacity();
        self.shared.queue.offer(ring, event.clone());
        Ok(Ring {
            transport,
            requests,
            event,
            task: None,
        })
    }

    async fn start(&self, connection: &mut Connection<Ring>) -> Result<(), End> {
        let (back_end, ring) = (&connection.back_end, &mut connection.rings);
        let properties = self.properties(back_end).await?;
        let last = self.last_domid.replace(Some(back_end.domid));
        if last.is_some_and(|last| last != back_end.domid) && self.shared.queue.cache_lost() {
            self.device.log.warn(format_args!(
                "domain {} has replaced the back end; flushes of clients with unflushed writes fail once",
                back_end.domid
            ));
        }
        xenbus::switch_state(&self.device.path, Xenbus::Connected).await?;
        self.greet(back_end, ring, &properties);
        self.shared.connections.set(self.shared.connections.get() + 1);
        self.shared.set_properties(properties);
        self.shared.queue.connect(RingConnection {
            handle: self.shared.device as u16,
            indirect_segments: ring.transport.indirect_segments,
            properties,
        });
        let (shared, event) = (self.shared.clone(), ring.event.clone());
        ring.task = Some(executor::spawn(async move {
            let broken = pump(&shared, &event).await;
            shared.broken.set(Some(broken));
            shared.queue.attention.set();
        }));
        Ok(())
    }

    /// The disk may have grown.
    async fn follow(&self, connection: &Connection<Ring>) -> Result<(), End> {
        let properties = self.properties(&connection.back_end).await?;
        self.shared.queue.set_properties(properties);
        self.shared.set_properties(properties);
        Ok(())
    }

    async fn hang_up(&self, ring: Option<Ring>) -> impl FnMut() -> bool {
        let (task, mut event) = ring.map_or((None, None), |it| (it.task, Some(it.event)));
        if let Some(task) = task {
            task.cancel().await;
        }
        self.shared.broken.take();
        let mut pages = self.shared.queue.hang_up();
        move || {
            pages = pages.take().and_then(|pages| pages.try_end().err());
            let all = self.shared.pool.revoke() && pages.is_none();
            if all {
                self.shared.queue.disconnect();
                drop(event.take());
            }
            all
        }
    }
}

/// The data path.
async fn pump(shared: &Shared, event: &EventChannel) -> Broken {
    let queue = &shared.queue;
    loop {
        event.wait().await;
        shared.events.set(shared.events.get() + 1);
        if let Err(broken) = queue.receive() {
            return broken;
        }
        // What the back end withdrew, nobody is to be offered.
        if let Some(properties) = queue.properties() {
            shared.set_properties(properties);
        }
    }
}

impl Driver {
    /// What the disk is like.
    async fn properties(&self, back_end: &BackEnd) -> Result<Properties, End> {
        let nodes = read_nodes(&back_end.path, Properties::KEYS).await?;
        Properties::parse(|key| get(&nodes, key)).map_err(End::Node)
    }

    fn greet(&self, back_end: &BackEnd, ring: &Ring, disk: &Properties) {
        let flush = match disk.flush {
            FlushSupport::None => "no flush",
            FlushSupport::Barrier => "flush by barrier",
            FlushSupport::Flush => "flush",
        };
        self.device.greetings.info(format_args!(
            "{} sectors in blocks of {}, {}, {flush}{}; domain {}: ring of {}, {} segments{}",
            disk.sectors,
            disk.block_size,
            if disk.read_only { "read-only" } else { "writable" },
            if disk.discard.is_some() { ", discard" } else { "" },
            back_end.domid,
            ring.requests,
            ring.transport.indirect_segments.max(wire::DIRECT_SEGMENTS as u16),
            if disk.persistent {
                ", persistent grants"
            } else {
                ""
            },
        ));
    }
}
