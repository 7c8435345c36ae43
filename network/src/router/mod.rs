//! Routers: addresses of the driver domain's own in segments, what is served there, and the way from some
//! segments out through another.
//!
//! A router has a station in each of its segments. What is for the router itself goes to smoltcp (ARP,
//! neighbour discovery, ping, sockets), to its DHCP server, or to its DNS forwarder; what only passes through
//! is translated in place (`nat`) and never copied, and does not meet smoltcp.
//!
//! | | inside | outside |
//! |---|---|---|
//! | ARP, ping of its own address | yes | yes |
//! | address by DHCP | no | if so configured |
//! | DHCP server, HTTP counters | if so configured | if so configured |
//! | DNS forwarder; over TCP by translation to the first server | yes | no |
//! | IPv6: address, neighbour discovery, ping, advertisements | if it has an IPv6 address | address, neighbour discovery, ping |
//!
//! IPv6 is not forwarded: who needs it outside is bridged. Untagged frames only.
//!
//! # Bounds
//! A poll takes at most 64 frames of each segment. All tables have a fixed greatest size; what is over it is
//! dropped and counted. No segment reaches another but the outside, and nothing outside gets in unless
//! somebody inside talks to it, or a forward says so. By the outside address, a station inside reaches the
//! forwards of its own segment and nothing else; not even those if the segment isolates its stations.

mod advertise;
mod build;
mod checksum;
mod config;
mod counters;
mod dhcp;
mod dns;
mod forwarding;
mod http;
mod icmp;
mod nat;
mod neighbours;
mod random;
mod stack;
mod station;

pub use config::{
    Address, Config, DhcpOptions, Forward, Inside, Invalid, Limits, Reservations, Station as StationConfig,
    Timeouts, groups, is_host, is_unicast6,
};
pub use counters::{Counter, Counters};
pub use http::Text;
pub use nat::{Endpoint, Protocol, Rule, Seconds, is_own_udp};
pub use random::Seed;
pub use smoltcp::wire::{Ipv4Cidr, Ipv6Cidr};

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::future::{Future, poll_fn};
use core::net::Ipv4Addr;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use devices::net::{Frame, Port};

use crate::time::Time;
use dns::{Answer, Client, Forwarder};
use nat::Nat;
use random::Random;
use station::Station;

/// How many frames of each segment one poll takes.
const BATCH: usize = 64;
/// Time between two looks at what is only timed in seconds.
const TICK: Duration = Duration::from_secs(1);
/// Time between two lines in the log, at least.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// The clock, read once per poll.
#[derive(Clone, Copy)]
struct Now {
    time: Duration,
    second: Seconds,
}

impl Now {
    fn new(time: Duration) -> Self {
        let second = Seconds::try_from(time.as_secs()).unwrap_or(Seconds::MAX);
        Self { time, second }
    }
}

/// What a router shows of itself while it runs.
#[derive(Default)]
pub struct Status {
    /// What it has done.
    pub counters: Counters,
    outside: Cell<Option<Ipv4Addr>>,
    up: Cell<bool>,
}

impl Status {
    /// Whether what is inside gets out: the line is up, and there is an outside address.
    pub fn is_up(&self) -> bool {
        self.up.get()
    }

    /// Its outside address, as far as there is one now.
    pub fn outside_address(&self) -> Option<Ipv4Addr> {
        self.outside.get()
    }

    /// Shows each counter with its name.
    pub fn each(&self, show: impl FnMut(&'static str, u64)) {
        self.counters.each(show);
    }
}

/// A router. It works while its [`run`](Self::run) is polled.
pub struct Router<P: Port, T: Time> {
    time: T,
    insides: Vec<Station<P>>,
    outside: Option<Station<P>>,
    /// TCP port of the outside address that is the router's own.
    outside_tcp: Option<u16>,
    nat: Nat,
    dns: Forwarder,
    status: Rc<Status>,
    next_tick: Duration,
    next_log: Duration,
    timer: Option<(Duration, Pin<Box<T::Sleep>>)>,
}

impl<P: Port, T: Time> Router<P, T> {
    /// A router, plugged into its segments.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or there is not enough memory.
    pub fn new(time: T, config: Config<P>) -> Result<Self, Invalid> {
        config.check()?;
        let now = Now::new(time.now());
        let (seed, mut streams) = (config.seed, 0..);
        let mut random = || Random::new(seed, streams.next().unwrap_or_default());
        let outside_tcp = config
            .outside
            .as_ref()
            .and_then(|outside| outside.metrics.as_ref())
            .map(|metrics| metrics.0);
        let leads_out = config.outside.is_some();
        let (mut insides, mut policies) = (Vec::new(), Vec::new());
        for inside in config.insides {
            let serves = (true, inside.advertise);
            insides.push(Station::new(inside.station, now, random(), serves, leads_out));
            policies.push(nat::Inside {
                forwards: inside.forwards,
                rules: inside.rules,
                isolate: inside.isolate,
            });
        }
        let outside = config
            .outside
            .map(|outside| Station::new(outside, now, random(), (false, false), false));
        let none = Limits {
            connections: 0,
            per_client: 0,
        };
        let limits = if leads_out { config.limits } else { none };
        if !nat::is_room_for(limits.connections) {
            return Err(Invalid("memory for the table of connections"));
        }
        let nat = Nat::new(policies, outside_tcp, limits, config.timeouts, random());
        let mut router = Self {
            time,
            insides,
            outside,
            outside_tcp,
            nat,
            dns: Forwarder::new(random()),
            status: Rc::default(),
            next_tick: now.time,
            next_log: now.time,
            timer: None,
        };
        router.note_outside(now);
        Ok(router)
    }

    /// What it shows of itself, also while it runs.
    pub fn status(&self) -> Rc<Status> {
        self.status.clone()
    }

    /// Works until it is dropped, which unplugs it.
    pub async fn run(mut self) {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = Now::new(self.time.now());
        for station in self.insides.iter_mut().chain(&mut self.outside) {
            station.poll_link(now, context, &self.status.counters);
        }
        let mut more = false;
        for segment in 0..self.insides.len() {
            let receive = |router: &mut Self, frame| router.take_from_inside(now, segment, frame);
            more |= self.receive(context, |router| router.insides.get(segment), receive);
        }
        let receive = |router: &mut Self, frame| router.take_from_outside(now, frame);
        more |= self.receive(context, |router| router.outside.as_ref(), receive);
        let ticks = now.time >= self.next_tick;
        if ticks {
            self.next_tick = now.time + TICK;
            self.tick(now);
        }
        if ticks || self.stations().any(|station| station.is_due(now)) {
            self.serve(now);
        }
        if more {
            context.waker().wake_by_ref();
        }
        self.set_timer(now, context);
        Poll::Pending
    }

    /// Takes a batch of frames from a station. Whether there may be more.
    fn receive(
        &mut self,
        context: &mut Context<'_>,
        station: impl Fn(&Self) -> Option<&Station<P>>,
        mut each: impl FnMut(&mut Self, Frame<P::Buffer>),
    ) -> bool {
        for _ in 0..BATCH {
            match station(self).map(|station| station.poll_receive(context)) {
                Some(Poll::Ready(frame)) => each(self, frame),
                _ => return false,
            }
        }
        true
    }

    fn stations(&self) -> impl Iterator<Item = &Station<P>> {
        self.insides.iter().chain(&self.outside)
    }

    /// Lets the router's own services go on.
    fn serve(&mut self, now: Now) {
        for station in self.insides.iter_mut().chain(&mut self.outside) {
            station.poll(now, &self.status.counters);
        }
        self.forward_names(now);
        for station in self.insides.iter_mut().chain(&mut self.outside) {
            station.flush(now, &self.status.counters);
        }
        self.note_outside(now);
    }

    /// Who is asked for names that an inside segment wants to know: servers of its own, or else the
    /// outside's.
    fn name_servers(&self, segment: usize) -> &[Ipv4Addr] {
        let own = self
            .insides
            .get(segment)
            .filter(|inside| !inside.name_servers.is_empty());
        own.or(self.outside.as_ref())
            .map_or(&[], |station| &station.name_servers)
    }

    /// Takes questions about names to servers, and answers back.
    fn forward_names(&mut self, now: Now) {
        let mut answers: Vec<Answer> = Vec::new();
        for segment in 0..self.insides.len() {
            while let Some((message, asker)) = self.insides[segment].next_question() {
                let servers = self.name_servers(segment).to_vec();
                let sockets = self.outside.as_mut().map(|outside| &mut outside.stack.sockets);
                let client = Client { segment, asker };
                let counters = &self.status.counters;
                answers.extend(
                    self.dns
                        .ask(now.second, client, &message, &servers, sockets, counters),
                );
            }
        }
        if !self.dns.is_idle() {
            let servers: Vec<_> = (0..self.insides.len())
                .map(|segment| self.name_servers(segment).to_vec())
                .collect();
            let room: Vec<_> = self.insides.iter().map(Station::answer_room).collect();
            if let Some(outside) = &mut self.outside {
                let (sockets, counters) = (&mut outside.stack.sockets, &self.status.counters);
                answers.extend(self.dns.poll(now.second, &servers, sockets, &room, counters));
            }
        }
        for answer in answers {
            if let Some(station) = self.insides.get(answer.client.segment) {
                station.answer(&answer.message, &answer.client.asker, &self.status.counters);
            }
        }
    }

    /// What only needs a look once a second.
    fn tick(&mut self, now: Now) {
        let counters = &self.status.counters;
        for station in self.insides.iter_mut().chain(&mut self.outside) {
            station.tick(now, counters);
        }
        self.nat.expire(now.second);
        let table = self.nat.table();
        counters.connections_now.set(table.len() as u64);
        counters.connections.set(table.created);
        counters.connections_evicted.set(table.evicted);
        let leases = self
            .insides
            .iter()
            .chain(&self.outside)
            .map(|station| station.leases(now));
        counters.dhcp_leases_now.set(leases.sum::<usize>() as u64);
    }

    /// Follows the outside's address and line.
    fn note_outside(&mut self, now: Now) {
        let address = self.outside.as_ref().and_then(|outside| outside.address);
        let address = address.map(|own| own.address());
        let up = address.is_some() && self.outside.as_ref().is_some_and(|outside| outside.link.up);
        self.status.up.set(up);
        let changed = self.status.outside.replace(address) != address;
        // A server outside could change its mind all the time.
        if changed && now.time >= self.next_log {
            self.next_log = now.time + LOG_INTERVAL;
            match address {
                Some(address) => log::info!("router: the outside address is {address}"),
                None => log::info!("router: there is no outside address"),
            }
        }
        // Connections outlive a time without address, in case it is the same again.
        if let Some(address) = address.filter(|address| *address != self.nat.table().address()) {
            self.nat.set_address(address);
        }
    }

    /// Makes sure that this task is polled when there is something to be done.
    fn set_timer(&mut self, now: Now, context: &mut Context<'_>) {
        let due = self.stations().filter_map(Station::due).min();
        let at = due.map_or(self.next_tick, |due| due.clamp(now.time, self.next_tick));
        // A timer that ends sooner serves as well.
        let sooner = self.timer.as_ref().is_some_and(|(end, _)| *end <= at);
        if !sooner {
            self.timer = Some((at, Box::pin(self.time.sleep(at - now.time))));
        }
        if let Some((_, timer)) = &mut self.timer
            && timer.as_mut().poll(context).is_ready()
        {
            // The next poll sets another.
            self.timer = None;
            context.waker().wake_by_ref();
        }
    }
}
