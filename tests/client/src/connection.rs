//! The driver's end of the message page (section 2 of the specification).
//!
//! Exchanges are synchronous, because the transport trait of `virtio-drivers` is: the domain waits, for a
//! bounded time, while the back end works.

use alloc::rc::Rc;
use alloc::vec::Vec;
use alloc::{format, string::ToString};
use core::cell::{Cell, RefCell};
use core::time::Duration;

use devices::msg::wire::{EventConfig, Header, id, kind};
use kernel::event::EventChannel;
use kernel::grant::{Access, Granted};
use kernel::shared::SharedMemory;
use kernel::time;
use protocols::message_page::{Endpoint, HEADER_SIZE, Message, Page, Side};
use zerocopy::{FromBytes, IntoBytes};

use crate::ensure;
use crate::report::Outcome;

/// "No response for 30 s".
const RESPONSE_LIMIT: Duration = Duration::from_secs(30);

struct MessagePage(Rc<Granted>);

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

/// A message page and its event channel.
pub struct Connection {
    peer: u16,
    page: Rc<Granted>,
    endpoint: RefCell<Endpoint<MessagePage>>,
    channel: EventChannel,
    next_token: Cell<u16>,
    /// The last EVENT_CONFIG that nobody has asked for yet.
    event: Cell<Option<EventConfig>>,
}

/// The message with this header and payload, with its size filled in.
pub fn message(header: Header, payload: &[u8]) -> Vec<u8> {
    let size = ((HEADER_SIZE + payload.len()) as u16).into();
    let mut bytes = Header { size, ..header }.as_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

impl Connection {
    /// Grants a fresh page and allocates a port for the domain `peer`.
    pub fn new(peer: u16) -> Outcome<Self> {
        let page =
            Granted::zeroed(peer, 1, Access::ReadWrite).map_err(|error| format!("message page: {error}"))?;
        let page = Rc::new(page);
        let channel = EventChannel::alloc_unbound(peer).map_err(|error| format!("event channel: {error}"))?;
        Ok(Self {
            peer,
            endpoint: RefCell::new(Endpoint::new(MessagePage(page.clone()), Side::Driver)),
            page,
            channel,
            next_token: Cell::new(1),
            event: Cell::new(None),
        })
    }

    /// The domain at the other end.
    pub fn peer(&self) -> u16 {
        self.peer
    }

    /// The page's grant reference.
    pub fn reference(&self) -> u32 {
        self.page.reference(0)
    }

    /// The event channel's port.
    pub fn port(&self) -> u32 {
        self.channel.port()
    }

    /// The page itself, to write into what nobody should.
    pub fn page(&self) -> SharedMemory<'_> {
        self.page.memory()
    }

    /// Notifies the back end of messages.
    pub fn notify(&self) {
        self.channel.notify();
    }

    /// Sends bytes as a message. Fails if the ring is full.
    pub fn send_bytes(&self, message: &[u8]) -> Outcome {
        let mut endpoint = self.endpoint.borrow_mut();
        let room = endpoint.room().map_err(|violation| violation.to_string())?;
        ensure!(room > 0, "the driver ring is full");
        endpoint.send(message);
        drop(endpoint);
        self.notify();
        Ok(())
    }

    /// Sends a request, and gives the header that its response will have, but for the size.
    pub fn send(&self, kind: u8, id: u8, payload: &[u8]) -> Outcome<Header> {
        let token = self.next_token.get();
        self.next_token.set(token.wrapping_add(1));
        let header = Header {
            kind,
            id,
            token: token.into(),
            ..Header::default()
        };
        self.send_bytes(&message(header, payload))?;
        Ok(Header {
            kind: kind | self::kind::RESPONSE,
            ..header
        })
    }

    /// Takes the next message, if there is one. Events are taken note of on the way.
    pub fn receive(&self) -> Outcome<Option<Message>> {
        loop {
            let mut endpoint = self.endpoint.borrow_mut();
            let received = endpoint.receive().map_err(|violation| violation.to_string())?;
            drop(endpoint);
            let Some(received) = received else {
                return Ok(None);
            };
            if received.was_full {
                self.notify();
            }
            let message = received.message;
            let (header, payload) = parse(message.bytes())?;
            if header.id & id::EVENT == 0 || header.kind & kind::RESPONSE != 0 {
                return Ok(Some(message));
            }
            ensure!(
                header.kind == 0 && header.id == id::EVENT_CONFIG,
                "an event that is none of this bus: {header:?}"
            );
            let (event, _) = EventConfig::read_from_prefix(payload)
                .map_err(|_| "EVENT_CONFIG is too short".to_string())?;
            self.event.set(Some(event));
        }
    }

    /// Waits for the next message, which must have this header.
    pub fn response(&self, expected: Header) -> Outcome<Vec<u8>> {
        let deadline = time::now() + RESPONSE_LIMIT;
        loop {
            if let Some(message) = self.receive()? {
                let (header, payload) = parse(message.bytes())?;
                let seen = Header {
                    size: expected.size,
                    ..header
                };
                ensure!(
                    seen == expected,
                    "expected a response {expected:?}, got {header:?}"
                );
                return Ok(payload.to_vec());
            }
            ensure!(
                self.channel.wait_blocking(deadline - time::now()),
                "no response to message {:#04x} in {RESPONSE_LIMIT:?}",
                expected.id
            );
        }
    }

    /// Sends a request and waits for its response; the result is the payload.
    pub fn exchange(&self, kind: u8, id: u8, payload: &[u8]) -> Outcome<Vec<u8>> {
        let expected = self.send(kind, id, payload)?;
        self.response(expected)
    }

    /// The last EVENT_CONFIG that has come, if nobody has taken it yet.
    pub fn take_event(&self) -> Outcome<Option<EventConfig>> {
        if let Some(message) = self.receive()? {
            return Err(format!("a response nobody asked for: {:02x?}", message.bytes()));
        }
        Ok(self.event.take())
    }

    /// Waits for the next EVENT_CONFIG.
    pub async fn event(&self, limit: Duration) -> Outcome<EventConfig> {
        let deadline = time::now() + limit;
        loop {
            if let Some(event) = self.take_event()? {
                return Ok(event);
            }
            time::timeout(deadline - time::now(), self.channel.wait())
                .await
                .map_err(|_| format!("no EVENT_CONFIG in {limit:?}"))?;
        }
    }

    /// Takes the page back, after the back end has closed. Fails if it still has the page.
    pub fn close(self) -> Outcome {
        drop(self.endpoint);
        let page = Rc::into_inner(self.page).ok_or("the message page is used twice")?;
        page.end()
            .map(drop)
            .map_err(|_| "the message page is still mapped by the back end".into())
    }
}

fn parse(message: &[u8]) -> Outcome<(Header, &[u8])> {
    let (header, payload) =
        Header::read_from_prefix(message).map_err(|_| "a message without header".to_string())?;
    Ok((header, payload))
}
