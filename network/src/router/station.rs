//! The router's place in one segment: its own addresses and services there, and its neighbours.

mod receive;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::task::{Context, Poll};
use core::time::Duration;

use devices::memory::Buffer;
use devices::net::{Frame, Link, Mac, Offload, Port};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::dhcpv4;
use smoltcp::wire::{EthernetFrame, Ipv4Cidr, Ipv6Cidr};

use super::advertise::Advertiser;
use super::build::Ends;
use super::config::{self, Address, is_host, is_unicast};
use super::counters::Counters;
use super::dhcp::client::is_other;
use super::dns::Asker;
use super::icmp::Limit;
use super::nat::Seconds;
use super::neighbours::{Neighbours, Resolved};
use super::random::Random;
use super::stack::Stack;
use super::{Now, build, dhcp, dns, http, icmp};
use crate::link_local;
use crate::switch::weight;

/// The prefix length of link-local addresses.
const LINK_LOCAL: u8 = 64;

/// A station of the router's.
pub struct Station<P: Port> {
    /// Where it is plugged in.
    pub port: P,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The line as it was last seen.
    pub link: Link,
    /// Its IPv4 address, as far as there is one now.
    pub address: Option<Ipv4Cidr>,
    /// Where what is not in its network goes.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers that it knows of.
    pub name_servers: Vec<Ipv4Addr>,
    /// Its sockets and what answers ARP and ping.
    pub stack: Stack,
    address6: Option<Ipv6Cidr>,
    neighbours: Neighbours<Frame<P::Buffer>>,
    dhcp_server: Option<dhcp::Server>,
    dhcp_client: Option<SocketHandle>,
    /// Name servers that come before those that DHCP tells.
    preferred_servers: Vec<Ipv4Addr>,
    advertiser: Option<Advertiser>,
    /// It answers questions about names.
    serves: bool,
    /// Those that came in this poll.
    questions: VecDeque<(Vec<u8>, Asker)>,
    http: Option<http::Server>,
    random: Random,
    /// Errors and resets that may be sent here.
    refusals: Limit,
    /// The second from which on a lease that is not believed is logged again.
    next_warning: Seconds,
    /// Something has come for its own services.
    stirred: bool,
    /// When its own services want to go on.
    due: Option<Duration>,
}

impl<P: Port> Station<P> {
    /// A station. `serves` says whether it answers questions about names, `advertises` whether it advertises
    /// its network; `leads_out` whether it is a way out for others.
    pub fn new(
        config: config::Station<P>,
        now: Now,
        mut random: Random,
        (serves, advertises): (bool, bool),
        leads_out: bool,
    ) -> Self {
        let config::Station {
            port,
            mac,
            address,
            address6,
            dhcp,
            metrics,
        } = config;
        port.set_filter(devices::net::Filter::new(mac));
        let link = port.link();
        let mut stack = Stack::new(mac, link.mtu, random.next(), now.time);
        let (mut own, mut gateway, mut name_servers) = (None, None, Vec::new());
        let (mut dhcp_client, mut preferred_servers) = (None, Vec::new());
        match address {
            Some(Address::Static {
                cidr,
                gateway: way,
                dns,
            }) => {
                (own, gateway, name_servers) = (Some(cidr), way, dns);
            }
            Some(Address::Dhcp { dns }) => {
                dhcp_client = Some(stack.sockets.add(dhcpv4::Socket::new()));
                preferred_servers = dns;
            }
            None => {}
        }
        let dhcp_server = dhcp.zip(own).map(|(options, own)| {
            let way = leads_out.then_some(own.address()).or(gateway);
            let resolver = [own.address()];
            let servers = if leads_out { &resolver } else { &name_servers[..] };
            dhcp::Server::new((mac, own), link.mtu, way, servers, options)
        });
        let advertiser = address6
            .filter(|_| advertises)
            .map(|own| Advertiser::new(mac, own, link.mtu, leads_out));
        let http = metrics.map(|(port, text)| http::Server::new(port, text, &mut stack.sockets));
        let mut station = Self {
            port,
            mac,
            link,
            address: None,
            gateway: None,
            name_servers: Vec::new(),
            stack,
            address6,
            neighbours: Neighbours::new(),
            dhcp_server,
            dhcp_client,
            preferred_servers,
            advertiser,
            serves,
            questions: VecDeque::new(),
            http,
            random,
            refusals: Limit::new(),
            next_warning: 0,
            stirred: true,
            due: None,
        };
        station.set_address(own, gateway, name_servers);
        station
    }

    /// Gives it an IPv4 address, or none.
    fn set_address(&mut self, own: Option<Ipv4Cidr>, gateway: Option<Ipv4Addr>, dns: Vec<Ipv4Addr>) {
        (self.address, self.gateway, self.name_servers) = (own, gateway, dns);
        let v6 = self.addresses6().map(Into::into);
        self.stack
            .set_addresses(own.map(Into::into).into_iter().chain(v6));
        self.stack.set_gateway(gateway);
        self.neighbours.clear();
    }

    /// Whether this is its IPv4 address.
    pub fn is_own(&self, address: Ipv4Addr) -> bool {
        self.address.is_some_and(|own| own.address() == address)
    }

    /// Whether this can be the address of another station in its network.
    pub fn is_neighbour(&self, address: Ipv4Addr) -> bool {
        self.address.is_some_and(|own| is_host(own, address)) && !self.is_own(address)
    }

    /// Its IPv6 addresses: one that is configured, and one for the line.
    fn addresses6(&self) -> impl Iterator<Item = Ipv6Cidr> + use<P> {
        let link_local = Ipv6Cidr::new(link_local(self.mac), LINK_LOCAL);
        self.address6.into_iter().flat_map(move |own| [link_local, own])
    }

    /// Whether this is an IPv6 address of its own.
    fn is_own6(&self, address: Ipv6Addr) -> bool {
        self.addresses6().any(|own| own.address() == address)
    }

    /// Whether this can be the IPv6 address of another station on the line.
    fn is_neighbour6(&self, address: Ipv6Addr) -> bool {
        let on_line = self.addresses6().any(|own| own.contains_addr(&address));
        on_line && !self.is_own6(address) && !address.is_multicast() && !address.is_unspecified()
    }

    /// The next frame for this station.
    pub fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Frame<P::Buffer>> {
        self.port.poll_receive(0, context)
    }

    /// Looks at the line. A line that comes up, or leads somewhere else, makes everything anew that was
    /// learned over it.
    pub fn poll_link(&mut self, now: Now, context: &mut Context<'_>, counters: &Counters) {
        while let Poll::Ready(link) = self.port.poll_link(&self.link, context) {
            let anew = (link.up && !self.link.up) || link.announcements != self.link.announcements;
            if link.mtu != self.link.mtu {
                self.set_mtu(now, link.mtu);
            }
            self.link = link;
            if anew {
                self.stirred = true;
                self.neighbours.clear();
                self.announce(counters);
                if let Some(client) = self.dhcp_client {
                    self.stack.sockets.get_mut::<dhcpv4::Socket<'_>>(client).reset();
                }
            }
        }
    }

    /// Makes itself known by its own address (a gratuitous ARP request, RFC 5227).
    fn announce(&self, counters: &Counters) {
        if let Some(own) = self.address {
            let own = own.address();
            self.send(&build::arp_request(self.mac, own, own), counters);
        }
    }

    /// The line carries another size: the router's own packets have it, and clients are told of it.
    fn set_mtu(&mut self, now: Now, mtu: u16) {
        self.stack.set_mtu(self.mac, mtu, self.random.next(), now.time);
        let dns = core::mem::take(&mut self.name_servers);
        self.set_address(self.address, self.gateway, dns);
        if let Some(server) = &mut self.dhcp_server {
            server.set_mtu(mtu);
        }
        if let (Some(advertiser), Some(own)) = (&mut self.advertiser, self.address6) {
            *advertiser = Advertiser::new(self.mac, own, mtu, advertiser.name_server());
        }
    }

    fn advertise(&mut self, now: Now, counters: &Counters) {
        let frame = self.advertiser.as_mut().and_then(|it| it.tick(now.second));
        if let Some(frame) = frame.map(<[u8]>::to_vec) {
            self.send(&frame, counters);
        }
    }

    /// Sends bytes as a frame.
    pub fn send(&self, bytes: &[u8], counters: &Counters) {
        let Some(frame) = self.port.allocate(bytes.len()) else {
            counters.dropped_memory.add(1);
            return;
        };
        frame.buffer().write(0, bytes);
        self.port.send(frame);
    }

    /// Sends a frame with an IPv4 packet to a station in its network, or out of it by the gateway.
    pub fn send_ipv4(&mut self, now: Now, to: Ipv4Addr, frame: Frame<P::Buffer>, counters: &Counters) {
        let next = if self.is_neighbour(to) {
            Some(to)
        } else {
            self.gateway
        };
        let (Some(next), Some(own)) = (next, self.address) else {
            counters.dropped_no_route.add(1);
            return;
        };
        let weight = weight(frame.len());
        let ask = match self.neighbours.resolve(now.second, next, frame, weight) {
            Resolved::Known { mac, frame, ask } => {
                self.send_to(mac, frame);
                ask
            }
            Resolved::Ask => true,
            Resolved::Waits => false,
            Resolved::Full => {
                counters.dropped_neighbour.add(1);
                false
            }
        };
        if ask {
            self.send(&build::arp_request(self.mac, own.address(), next), counters);
        }
    }

    fn send_to(&self, mac: Mac, frame: Frame<P::Buffer>) {
        frame.buffer().write(0, &mac);
        frame.buffer().write(mac.len(), &self.mac);
        self.port.send(frame);
    }

    /// A frame that nobody shares: the same, or a copy on the router's account.
    pub fn unique(&self, frame: Frame<P::Buffer>) -> Option<Frame<P::Buffer>> {
        const PIECE: usize = 1024;
        if frame.is_unique() {
            return Some(frame);
        }
        let mut copy = self.port.allocate(frame.len())?;
        let mut piece = [0; PIECE];
        for at in (0..frame.len()).step_by(PIECE) {
            let piece = &mut piece[..PIECE.min(frame.len() - at)];
            frame.buffer().read(at, piece);
            copy.buffer().write(at, piece);
        }
        copy.offload = Offload { ..frame.offload };
        Some(copy)
    }

    /// To be called once a second.
    pub fn tick(&mut self, now: Now, counters: &Counters) {
        let (ask, lost) = self.neighbours.tick(now.second);
        counters.dropped_neighbour.add(lost as u64);
        if let Some(own) = self.address {
            for address in ask {
                self.send(&build::arp_request(self.mac, own.address(), address), counters);
            }
        }
        self.advertise(now, counters);
    }

    /// How many DHCP leases there are.
    pub fn leases(&self, now: Now) -> usize {
        self.dhcp_server
            .as_ref()
            .map_or(0, |server| server.leases(now.second))
    }

    /// Whether its own services have something to do.
    pub fn is_due(&self, now: Now) -> bool {
        self.stirred || self.due.is_some_and(|due| due <= now.time)
    }

    /// When its own services want to go on.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Lets its own services go on.
    pub fn poll(&mut self, now: Now, counters: &Counters) {
        self.stirred = false;
        self.stack.poll(now.time);
        self.poll_dhcp_client(counters);
        if let Some(http) = &mut self.http {
            http.poll(now.second, &mut self.stack.sockets);
        }
    }

    /// Sends what its own services have to say.
    pub fn flush(&mut self, now: Now, counters: &Counters) {
        // Answers first, so that they do not leave sockets without a place for what those have to say.
        self.send_out(now, counters);
        self.stack.poll(now.time);
        self.send_out(now, counters);
        self.due = self.stack.delay(now.time).map(|delay| now.time + delay);
    }

    fn send_out(&mut self, now: Now, counters: &Counters) {
        while let Some(bytes) = self.stack.next_sent() {
            if icmp::is_refusal(&bytes) {
                let to = EthernetFrame::new_unchecked(&bytes).dst_addr();
                if !self.may_refuse(now, to.0, counters) {
                    continue;
                }
            }
            self.send(&bytes, counters);
        }
    }

    /// Whether another error or reset may be sent to a station; counts it then.
    pub fn may_refuse(&mut self, now: Now, to: Mac, counters: &Counters) -> bool {
        let may = self.refusals.take(now.second, to);
        counters.refusals.add(u64::from(may));
        may
    }

    fn poll_dhcp_client(&mut self, counters: &Counters) {
        let Some(client) = self.dhcp_client else {
            return;
        };
        match self.stack.sockets.get_mut::<dhcpv4::Socket<'_>>(client).poll() {
            None => {}
            Some(dhcpv4::Event::Deconfigured) => self.set_address(None, None, Vec::new()),
            Some(dhcpv4::Event::Configured(lease)) => {
                let own = lease.address;
                let gateway = lease.router.filter(|gateway| is_other(own, *gateway));
                let told = lease
                    .dns_servers
                    .iter()
                    .filter(|_| self.preferred_servers.is_empty());
                let servers = self.preferred_servers.iter().chain(told).copied();
                let servers = servers.filter(|server| is_other(own, *server)).collect();
                // What comes in was checked; this is so that no other way in leads to a panic of smoltcp's.
                if is_host(own, own.address()) && is_unicast(lease.server.address) {
                    self.set_address(Some(own), gateway, servers);
                    self.announce(counters);
                } else {
                    self.stack.sockets.get_mut::<dhcpv4::Socket<'_>>(client).reset();
                }
            }
        }
    }

    /// The next question about a name, and who asks it.
    pub fn next_question(&mut self) -> Option<(Vec<u8>, Asker)> {
        self.questions.pop_front()
    }

    /// How many bytes an answer may have.
    pub fn answer_room(&self) -> usize {
        const HEADERS: u16 = 40 + 8;
        usize::from(self.link.mtu.saturating_sub(HEADERS))
    }

    /// Answers a question, to the station that it came from: nobody else is asked where that is.
    pub fn answer(&self, message: &[u8], asker: &Asker, counters: &Counters) {
        let ends = Ends {
            from: self.mac,
            to: asker.station,
        };
        let port = asker.from.1;
        let frame = match (asker.to, asker.from.0) {
            (IpAddr::V4(own), IpAddr::V4(to)) => build::udp4(ends, (own, dns::PORT), (to, port), message),
            (IpAddr::V6(own), IpAddr::V6(to)) => build::udp6(ends, (own, dns::PORT), (to, port), message),
            _ => return,
        };
        self.send(&frame, counters);
    }
}
