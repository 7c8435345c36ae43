//! A connected client: its message page, and the device behind it.

use core::future::poll_fn;
use core::task::Poll;

use devices::device::{Device, Model};
use devices::msg;
use protocols::message_page::{Endpoint, Page, Side, Violation};

use super::bus::XenBus;
use super::memory::PagedBuffer;
use crate::Errno;
use crate::event::EventChannel;
use crate::executor::yield_now;
use crate::grant::{Access, GrantError, Mapping};
use crate::ratelimit::LogLimit;

/// After so many messages in a row, all other tasks get their turn.
const BURST: u32 = 8;

/// The message page, mapped.
struct MessagePage(Mapping);

impl Page for MessagePage {
    fn read_u32(&self, offset: usize) -> u32 {
        self.0.memory().read_u32(offset)
    }

    fn write_u32(&self, offset: usize, value: u32) {
        self.0.memory().write_u32(offset, value);
    }

    fn read_bytes(&self, offset: usize, to: &mut [u8]) {
        self.0.memory().copy_out(offset, to);
    }

    fn write_bytes(&self, offset: usize, from: &[u8]) {
        self.0.memory().copy_in(offset, from);
    }
}

/// Why a client could not be connected.
#[derive(Clone, Copy, Debug)]
pub enum ConnectError {
    /// Its message page cannot be mapped.
    Page(GrantError),
    /// Its event channel cannot be bound.
    Event(Errno),
}

impl core::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Page(error) => write!(f, "ring-ref: the page cannot be mapped: {error}"),
            Self::Event(error) => write!(f, "event-channel: the port cannot be bound: {error}"),
        }
    }
}

/// A client's connection, from the front end's Initialised to its end. Dropping it ends everything at once:
/// queues, mappings, event channels.
pub struct Connection<M: Model<XenBus<B>>, B: PagedBuffer + 'static> {
    // The device is dropped before the page and the channel that its driver knows it by.
    device: Device<M, XenBus<B>>,
    endpoint: Endpoint<MessagePage>,
    event: EventChannel,
}

impl<M: Model<XenBus<B>>, B: PagedBuffer + 'static> Connection<M, B> {
    /// Maps the message page that the domain `client` grants under `ring_ref` and binds its port
    /// `event_channel`; puts the model's device on the bus.
    pub fn open(
        client: u16,
        ring_ref: u32,
        event_channel: u32,
        bus: XenBus<B>,
        model: M,
    ) -> Result<Self, ConnectError> {
        let page = Mapping::new(client, &[ring_ref], Access::ReadWrite).map_err(ConnectError::Page)?;
        let event = EventChannel::bind_interdomain(client, event_channel).map_err(ConnectError::Event)?;
        let device = Device::new(model, bus);
        Ok(Self {
            device,
            endpoint: Endpoint::new(MessagePage(page), Side::Device),
            event,
        })
    }

    /// Answers messages until the client breaks the rules of the page. What the client does wrong otherwise
    /// goes to the log, through `limit`.
    pub async fn run(&mut self, limit: &LogLimit) -> Violation {
        loop {
            match self.work(limit).await {
                Ok(()) => self.wait().await,
                Err(violation) => return violation,
            }
        }
    }

    /// Answers what is there, as far as there is room for responses.
    async fn work(&mut self, limit: &LogLimit) -> Result<(), Violation> {
        let mut burst = 0;
        let mut message = [0; msg::MAX_SIZE];
        while self.endpoint.room()? > 0 {
            let mut notify = false;
            if let Some(received) = self.endpoint.receive()? {
                let bytes = received.message.bytes();
                // The endpoint checked the size that the message gives for itself.
                if let Ok(Some(len)) = msg::handle(&mut self.device, bytes, &mut message).await {
                    self.endpoint.send(&message[..len]);
                    notify = true;
                }
                notify |= received.was_full;
            } else if self.event_is_due().await {
                let len = msg::event_config(&mut self.device, &mut message);
                self.endpoint.send(&message[..len]);
                notify = true;
            } else {
                return Ok(());
            }
            if notify {
                self.event.notify();
            }
            if let Some(fault) = self.device.take_fault() {
                limit.warn(format_args!("{fault}"));
            }
            burst += 1;
            // Counted anew each time: nothing bounds how many messages a client keeps coming.
            if burst == BURST {
                burst = 0;
                yield_now().await;
            }
        }
        Ok(())
    }

    async fn event_is_due(&mut self) -> bool {
        poll_fn(|context| Poll::Ready(self.device.poll_event(context).is_ready())).await
    }

    /// Waits for a notification of the client's, or for something to tell it.
    async fn wait(&mut self) {
        poll_fn(|context| {
            if self.event.poll_wait(context).is_ready() {
                return Poll::Ready(());
            }
            // While the client leaves no room, only its notification helps; an index out of range is found by
            // `work`.
            match self.endpoint.room() {
                Ok(0) => Poll::Pending,
                Ok(_) => self.device.poll_event(context).map(|_| ()),
                Err(_) => Poll::Ready(()),
            }
        })
        .await
    }
}
