//! smoltcp for what is for the router itself: ARP, neighbour discovery, ping, and sockets.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use devices::net::{ETHERNET_HEADER, Mac};
use smoltcp::iface::{Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

/// How many frames wait in either direction.
const QUEUE: usize = 64;

/// smoltcp's time.
pub fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// One station's own stack.
pub struct Stack {
    interface: Interface,
    /// Its sockets.
    pub sockets: SocketSet<'static>,
    queues: Queues,
}

/// Frames from and to smoltcp.
struct Queues {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
    /// The most bytes of a frame.
    max_frame: usize,
}

fn interface(mac: Mac, queues: &mut Queues, seed: u64, now: Duration) -> Interface {
    let address = HardwareAddress::Ethernet(EthernetAddress(mac));
    let mut config = smoltcp::iface::Config::new(address);
    config.random_seed = seed;
    Interface::new(config, queues, instant(now))
}

impl Stack {
    /// A stack without addresses, on a line that carries `mtu` bytes after the Ethernet header.
    pub fn new(mac: Mac, mtu: u16, seed: u64, now: Duration) -> Self {
        let mut queues = Queues {
            received: VecDeque::new(),
            sent: VecDeque::new(),
            max_frame: ETHERNET_HEADER + usize::from(mtu),
        };
        Self {
            interface: interface(mac, &mut queues, seed, now),
            sockets: SocketSet::new(Vec::new()),
            queues,
        }
    }

    /// The line carries another size from now on. Addresses and the way out are to be set anew.
    pub fn set_mtu(&mut self, mac: Mac, mtu: u16, seed: u64, now: Duration) {
        self.queues.max_frame = ETHERNET_HEADER + usize::from(mtu);
        self.interface = interface(mac, &mut self.queues, seed, now);
    }

    /// Gives it these addresses, and no others.
    pub fn set_addresses(&mut self, addresses: impl Iterator<Item = IpCidr>) {
        self.interface.update_ip_addrs(|own| {
            own.clear();
            for address in addresses {
                // Configuration gives no more than there is room for.
                let _ = own.push(address);
            }
        });
    }

    /// Its way out of the segment.
    pub fn set_gateway(&mut self, gateway: Option<Ipv4Addr>) {
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(gateway) = gateway {
            let _ = routes.add_default_ipv4_route(gateway);
        }
    }

    /// Hands it a frame. Whether there was room.
    pub fn receive(&mut self, frame: Vec<u8>) -> bool {
        let room = self.queues.received.len() < QUEUE;
        if room {
            self.queues.received.push_back(frame);
        }
        room
    }

    /// Lets it work on what came in and on its timers.
    pub fn poll(&mut self, now: Duration) {
        self.interface
            .poll(instant(now), &mut self.queues, &mut self.sockets);
    }

    /// The next frame that it sends.
    pub fn next_sent(&mut self) -> Option<Vec<u8>> {
        self.queues.sent.pop_front()
    }

    /// In how much time it wants to be polled again.
    pub fn delay(&mut self, now: Duration) -> Option<Duration> {
        let delay = self.interface.poll_delay(instant(now), &self.sockets)?;
        Some(Duration::from_micros(delay.total_micros()))
    }
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sent<'_>)> {
        // What is received may be answered, for which there has to be room.
        if self.sent.len() >= QUEUE {
            return None;
        }
        Some((Received(self.received.pop_front()?), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        (self.sent.len() < QUEUE).then_some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.max_frame;
        capabilities
    }
}

/// A frame for smoltcp.
struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a frame of smoltcp's.
struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = alloc::vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}
