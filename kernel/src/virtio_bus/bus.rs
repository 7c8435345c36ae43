//! The bus under one device: its client's memory, its queues' event channels, and the two messages that the
//! Xen bus adds to virtio-msg (`docs/virtio-msg-xen.md` sections 4 and 6).

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::future::Future;
use core::task::{Context, Poll};

use devices::bus::{Bus, Doorbell};
use devices::features;

use super::memory::{ClientMemory, PagedBuffer, PoolError};
use crate::event::EventChannel;
use crate::executor;
use crate::ratelimit::LogLimit;

const XEN_SET_VQUEUE_EVENT: u8 = 0x80;
const XEN_SET_POOL: u8 = 0x81;

/// Statuses of XEN_SET_VQUEUE_EVENT.
mod event_status {
    pub const DONE: u32 = 0;
    pub const NO_SUCH_QUEUE: u32 = 1;
    pub const CANNOT_BIND: u32 = 2;
    pub const IN_USE: u32 = 3;
}

/// Statuses of XEN_SET_POOL.
mod pool_status {
    pub const DONE: u32 = 0;
    pub const REFUSED: u32 = 1;
    pub const CANNOT_MAP: u32 = 2;
}

/// "XNVM", the vendor that GET_DEVICE_INFO names.
const VENDOR: u32 = u32::from_le_bytes(*b"XNVM");

/// A connected client, as its device sees it.
pub struct XenBus<B> {
    client: u16,
    memory: Rc<ClientMemory<B>>,
    /// Bound event channels of queues that are not set up yet.
    events: Vec<Option<EventChannel>>,
    limit: LogLimit,
}

impl<B> XenBus<B> {
    /// For the domain `client`. At most `max_pool_pages` pages of pool are mapped for it. What goes wrong
    /// because of it is logged through `limit`.
    pub fn new(client: u16, max_pool_pages: u32, limit: LogLimit) -> Self {
        Self {
            client,
            limit,
            memory: Rc::new(ClientMemory::new(client, max_pool_pages)),
            events: Vec::new(),
        }
    }

    fn set_vqueue_event(&mut self, index: u32, port: u32, in_use: &[bool]) -> u32 {
        let queue = index as usize;
        match in_use.get(queue) {
            None => return event_status::NO_SUCH_QUEUE,
            Some(true) => return event_status::IN_USE,
            Some(false) => {}
        }
        self.events.resize_with(in_use.len(), || None);
        // The port that a queue had before is closed first, so that a driver that goes on rebinding holds
        // one.
        self.events[queue] = None;
        match EventChannel::bind_interdomain(self.client, port) {
            Ok(event) => {
                self.events[queue] = Some(event);
                event_status::DONE
            }
            Err(error) => {
                self.limit.debug(format_args!(
                    "queue {queue}: port {port} cannot be bound: {error}"
                ));
                event_status::CANNOT_BIND
            }
        }
    }

    fn set_pool(&mut self, address: u64, pages: u32, in_use: &[bool]) -> u32 {
        if in_use.contains(&true) {
            return pool_status::REFUSED;
        }
        match self.memory.set_pool(address, pages) {
            Ok(()) => pool_status::DONE,
            Err(PoolError::Refused) => pool_status::REFUSED,
            Err(PoolError::CannotMap(error)) => {
                self.limit
                    .debug(format_args!("pool of {pages} pages at {address:#x}: {error}"));
                pool_status::CANNOT_MAP
            }
        }
    }
}

impl<B: PagedBuffer + 'static> Bus for XenBus<B> {
    type Memory = Rc<ClientMemory<B>>;
    type Doorbell = QueueEvent;

    const VENDOR: u32 = VENDOR;
    const FEATURES: u64 = features::ACCESS_PLATFORM;

    fn memory(&self) -> Self::Memory {
        self.memory.clone()
    }

    fn doorbell(&mut self, queue: u16) -> Option<QueueEvent> {
        self.events.get_mut(usize::from(queue))?.take().map(QueueEvent)
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        executor::spawn(task).detach();
    }

    fn extension(&mut self, id: u8, payload: &[u8], in_use: &[bool], response: &mut [u8]) -> Option<usize> {
        match id {
            XEN_SET_VQUEUE_EVENT => {
                let index = word(payload, 0)?;
                let port = word(payload, 4)?;
                let status = self.set_vqueue_event(index, port, in_use);
                put(response, &[index, status])
            }
            XEN_SET_POOL => {
                let address = u64::from(word(payload, 0)?) | u64::from(word(payload, 4)?) << 32;
                let pages = word(payload, 8)?;
                word(payload, 12)?; // Reserved, but part of the message.
                let status = self.set_pool(address, pages, in_use);
                put(response, &[status, 0])
            }
            _ => None,
        }
    }
}

fn word(payload: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        payload.get(offset..offset + 4)?.try_into().ok()?,
    ))
}

fn put(response: &mut [u8], words: &[u32]) -> Option<usize> {
    let len = words.len() * 4;
    for (field, word) in response.get_mut(..len)?.chunks_exact_mut(4).zip(words) {
        field.copy_from_slice(&word.to_le_bytes());
    }
    Some(len)
}

/// A queue's event channel.
pub struct QueueEvent(EventChannel);

impl Doorbell for QueueEvent {
    fn poll_kick(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll_wait(context)
    }

    fn notify(&mut self) {
        self.0.notify();
    }
}
