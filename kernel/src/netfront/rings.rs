//! The queues of a connection, and what remains of them when it ends.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;

use devices::net::Port;
use protocols::netif::nodes::Features;
use protocols::netif::rx::Receiver;
use protocols::netif::tx::Transmitter;

use super::queue::{Channels, Queue};
use super::transmit::Sent;
use super::uplink::Shared;
use crate::executor::{self, Task};
use crate::grant::{Granted, Loan};
use crate::packets::{Packet, Page};

/// Queues whose rings a back end knows of.
pub(super) struct Rings<P> {
    pub features: Features,
    /// The back end keeps back frames to groups that were not named to it.
    pub filtered: Cell<bool>,
    queues: Vec<Rc<RefCell<Queue<P>>>>,
    tasks: Vec<Task<()>>,
}

impl<P: Port<Buffer = Packet>> Rings<P> {
    /// Queues whose rings have been published.
    pub fn new(features: Features, queues: Vec<Queue<P>>, filtered: bool) -> Self {
        Self {
            features,
            filtered: Cell::new(filtered),
            queues: queues
                .into_iter()
                .map(|queue| Rc::new(RefCell::new(queue)))
                .collect(),
            tasks: Vec::new(),
        }
    }

    /// How many queues there are.
    pub fn queues(&self) -> u16 {
        self.queues.len() as u16
    }

    /// Lets frames move.
    pub fn run(&mut self, shared: &Rc<Shared>) {
        for queue in &self.queues {
            // It looks at the rings when it is notified.
            queue.borrow().channels.notify(true, true);
            let (queue, shared) = (queue.clone(), shared.clone());
            self.tasks.push(executor::spawn(async move {
                let broken = poll_fn(|context| queue.borrow_mut().poll(context)).await;
                shared.broken.set(Some(broken));
                shared.attention.set();
            }));
        }
    }

    /// Stops the queues. The back end may still be at work with what remains.
    pub async fn hang_up(self) -> Remains {
        for task in self.tasks {
            task.cancel().await;
        }
        let mut remains = Remains::default();
        for queue in self.queues {
            match Rc::into_inner(queue) {
                Some(queue) => remains.take(queue.into_inner()),
                None => log::error!("a queue is still in use"),
            }
        }
        remains
    }
}

/// What a back end may still have of a connection that is over.
#[derive(Default)]
pub(super) struct Remains {
    rings: Vec<Granted>,
    /// Of each queue, the tables of its rings: they are large, and what is in them stays in its place.
    posted: Vec<Receiver<Loan<Page>>>,
    sent: Vec<Transmitter<Loan<Sent>>>,
    /// What the back end has answered for.
    pages: Vec<Loan<Page>>,
    frames: Vec<Loan<Sent>>,
    /// They stay until the back end has closed: it may be just about to bind them.
    _channels: Vec<Channels>,
}

impl Remains {
    fn take<P>(&mut self, queue: Queue<P>) {
        let (ring, posted, page) = queue.receive.into_parts();
        self.rings.push(ring);
        self.posted.push(posted);
        self.pages.extend(page);
        let (ring, sent, frame) = queue.transmit.into_parts();
        self.rings.push(ring);
        self.sent.push(sent);
        self.frames.extend(frame);
        self._channels.push(queue.channels);
    }

    /// Takes back what the back end has let go of; whether that is all.
    pub fn take_back(&mut self) -> bool {
        self.posted
            .retain_mut(|it| !it.take_back(|page| page.try_end().err()));
        self.sent
            .retain_mut(|it| !it.take_back(|frame| frame.try_end().err()));
        let rings = core::mem::take(&mut self.rings);
        self.rings
            .extend(rings.into_iter().filter_map(|it| it.try_end().err()));
        let pages = core::mem::take(&mut self.pages);
        self.pages
            .extend(pages.into_iter().filter_map(|it| it.try_end().err()));
        let frames = core::mem::take(&mut self.frames);
        self.frames
            .extend(frames.into_iter().filter_map(|it| it.try_end().err()));
        self.posted.is_empty()
            && self.sent.is_empty()
            && self.rings.is_empty()
            && self.pages.is_empty()
            && self.frames.is_empty()
    }
}
