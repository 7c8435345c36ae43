//! A host on the network: smoltcp on a device, and what a test asks of the gateway.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use kernel::time;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{dhcpv4, tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};

use super::nic::Nic;
use super::packet::{Answer, Place};
use crate::device::Device;
use crate::ensure;
use crate::report::Outcome;

/// The longest that anything but a ping may take.
const LIMIT: Duration = Duration::from_secs(40);
/// How long an answer may take before it is asked for again, and how often that is done. Frames may get lost
/// when there is a flood.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: usize = 10;

/// The port of name servers.
const DNS: u16 = 53;
/// The first port of our own.
const OWN_PORTS: u16 = 50000;

/// A device with an IP stack.
pub struct Host {
    nic: Nic,
    interface: Interface,
    sockets: SocketSet<'static>,
    place: Place,
    /// How many ports were used.
    ports: u16,
}

fn now() -> Instant {
    Instant::from_micros(time::now().as_micros() as i64)
}

impl Host {
    /// Resets the device and sets it up. See [`Nic::new`].
    pub fn new(device: &Rc<Device>, ring_reset: bool) -> Outcome<Self> {
        let mut nic = Nic::new(device, ring_reset)?;
        let place = Place {
            mac: nic.mac(),
            address: Ipv4Address::UNSPECIFIED,
            prefix_len: 0,
            gateway: Ipv4Address::UNSPECIFIED,
            gateway_mac: EthernetAddress([0; 6]),
        };
        let interface = Interface::new(Config::new(place.mac.into()), &mut nic, now());
        Ok(Self {
            nic,
            interface,
            sockets: SocketSet::new(Vec::new()),
            place,
            ports: 0,
        })
    }

    /// Like [`new`](Self::new), as the host that it was earlier, and lets the gateway know where it is.
    pub async fn at(device: &Rc<Device>, ring_reset: bool, place: Place) -> Outcome<Self> {
        let mut host = Self::new(device, ring_reset)?;
        ensure!(
            host.place.mac == place.mac,
            "the device was {}, and is {}",
            place.mac,
            host.place.mac
        );
        host.settle(place);
        // The gateway may have been told something else since, and right after a flood broadcasts still get
        // lost.
        host.find_gateway().await?;
        Ok(host)
    }

    /// Who this host is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Ends the device's use. See [`Nic::finish`].
    pub fn finish(self) -> Outcome {
        self.nic.finish()
    }

    fn settle(&mut self, place: Place) {
        self.place = place;
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // There is room for four.
            let _ = addresses.push(IpCidr::new(place.address.into(), place.prefix_len));
        });
    }

    /// Lets the stack work until `step` has a result, or for so long.
    async fn until<T>(
        &mut self,
        limit: Duration,
        mut step: impl FnMut(&mut Self) -> Option<T>,
    ) -> Outcome<Option<T>> {
        let deadline = time::now() + limit;
        loop {
            self.interface.poll(now(), &mut self.nic, &mut self.sockets);
            self.nic.check()?;
            if let Some(result) = step(self) {
                return Ok(Some(result));
            }
            let left = deadline - time::now();
            if left.is_zero() {
                return Ok(None);
            }
            let delay = self.interface.poll_delay(now(), &self.sockets);
            // A full transmit queue is asked again after a while.
            let delay = delay.map_or(left, |delay| {
                Duration::from_micros(delay.total_micros().max(1000))
            });
            self.nic.wait(delay.min(left)).await?;
        }
    }

    /// Sends a frame until its answer comes.
    async fn ask<T>(
        &mut self,
        what: &str,
        frame: &[u8],
        wanted: impl Fn(&Answer) -> Option<T>,
    ) -> Outcome<T> {
        self.nic.answers.clear();
        for _ in 0..TRIES {
            self.nic.send(frame)?;
            let answer = self
                .until(PATIENCE, |host| host.nic.answers.iter().find_map(&wanted))
                .await?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
        Err(format!("no answer to {what}, asked {TRIES} times"))
    }

    /// Gets an address by DHCP, and looks for the gateway.
    pub async fn lease(&mut self) -> Outcome<Place> {
        let handle = self.sockets.add(dhcpv4::Socket::new());
        let lease = self
            .until(LIMIT, |host| {
                match host.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
                    Some(dhcpv4::Event::Configured(lease)) => Some((lease.address, lease.server.identifier)),
                    _ => None,
                }
            })
            .await?;
        self.sockets.remove(handle);
        let (address, gateway): (Ipv4Cidr, _) = lease.ok_or("no lease")?;
        self.settle(Place {
            address: address.address(),
            prefix_len: address.prefix_len(),
            gateway,
            ..self.place
        });
        self.place.gateway_mac = self.find_gateway().await?;
        Ok(self.place)
    }

    /// Asks for the gateway's Ethernet address, which tells the gateway this host's.
    async fn find_gateway(&mut self) -> Outcome<EthernetAddress> {
        let (request, gateway) = (self.place.arp_request(), self.place.gateway);
        self.ask("ARP for the gateway", &request, |answer| match answer {
            Answer::Address(address, mac) if *address == gateway => Some(*mac),
            _ => None,
        })
        .await
    }

    /// Has the gateway echo so many bytes.
    pub async fn ping(&mut self, sequence: u16, len: usize) -> Outcome {
        let sent: Vec<u8> = (0..len).map(|at| (at ^ usize::from(sequence)) as u8).collect();
        let request = self.place.echo_request(sequence, &sent);
        let echo = self
            .ask(
                &format!("a ping of {len} bytes"),
                &request,
                |answer| match answer {
                    Answer::Echo {
                        sequence: seen,
                        payload,
                    } if *seen == sequence => Some(payload.clone()),
                    _ => None,
                },
            )
            .await?;
        ensure!(
            echo == sent,
            "of {} bytes, {} come back, and not the same",
            len,
            echo.len()
        );
        Ok(())
    }

    fn own_port(&mut self) -> u16 {
        self.ports += 1;
        OWN_PORTS + self.ports
    }

    /// Sends the gateway a message as to a name server. The result is its answer.
    pub async fn ask_name_server(&mut self, message: &[u8]) -> Outcome<Vec<u8>> {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 2048]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        let bound = socket.bind(self.own_port());
        bound.map_err(|error| format!("{error}"))?;
        let handle = self.sockets.add(socket);
        let mut answer = None;
        for _ in 0..TRIES {
            let socket = self.sockets.get_mut::<udp::Socket<'_>>(handle);
            let sent = socket.send_slice(message, (self.place.gateway, DNS));
            sent.map_err(|error| format!("{error}"))?;
            answer = self
                .until(PATIENCE, |host| {
                    let socket = host.sockets.get_mut::<udp::Socket<'_>>(handle);
                    socket.recv().ok().map(|(message, _)| message.to_vec())
                })
                .await?;
            if answer.is_some() {
                break;
            }
        }
        self.sockets.remove(handle);
        answer.ok_or_else(|| format!("the name server does not answer {TRIES} times"))
    }

    /// Gets a document from the gateway by HTTP: the whole response.
    pub async fn get(&mut self, port: u16, path: &str) -> Outcome<String> {
        let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
        let socket = tcp::Socket::new(buffer(8192), buffer(1024));
        let own_port = self.own_port();
        let handle = self.sockets.add(socket);
        let result = self.exchange(handle, own_port, port, path).await;
        self.sockets.remove(handle);
        result
    }

    async fn exchange(
        &mut self,
        handle: SocketHandle,
        own_port: u16,
        port: u16,
        path: &str,
    ) -> Outcome<String> {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        let connecting = socket.connect(self.interface.context(), (self.place.gateway, port), own_port);
        connecting.map_err(|error| format!("{error}"))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n");
        let mut sent = false;
        let mut response = Vec::new();
        let done = self
            .until(LIMIT, |host| {
                let socket = host.sockets.get_mut::<tcp::Socket<'_>>(handle);
                if socket.can_send() && !sent {
                    sent = socket.send_slice(request.as_bytes()).is_ok();
                }
                while socket.can_recv() {
                    let received = socket.recv(|bytes| {
                        response.extend_from_slice(bytes);
                        (bytes.len(), ())
                    });
                    received.ok()?;
                }
                let over = if sent {
                    !socket.may_recv()
                } else {
                    !socket.is_open()
                };
                over.then_some(())
            })
            .await?;
        ensure!(
            done.is_some() && sent,
            "GET {path}: after {} bytes there comes no more",
            response.len()
        );
        // Says goodbye, too.
        self.sockets.get_mut::<tcp::Socket<'_>>(handle).close();
        self.until(Duration::from_secs(5), |host| {
            let socket = host.sockets.get::<tcp::Socket<'_>>(handle);
            matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait).then_some(())
        })
        .await?;
        String::from_utf8(response).map_err(|_| format!("GET {path}: not UTF-8"))
    }
}
