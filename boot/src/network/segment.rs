//! One segment: its switch, and the addresses of the clients in it.

use alloc::{collections::BTreeSet, format, rc::Rc, string::String, vec::Vec};
use core::{cell::RefCell, net::Ipv4Addr};

use boot::{
    config,
    mac::Seed,
    statistics::{Registration, Statistics, Subject},
};
use devices::net::Mac;
use kernel::{executor, frontend::State, netfront::Uplink, xenstore};
use network::router::{Reservations, groups};
use network::switch::{Kind, Plug, PlugError, PortOptions, Switch, SwitchOptions};
use protocols::text;

use super::runtime::{Clock, Memory};

/// A segment of the network.
pub struct Segment {
    /// Its configured name.
    pub name: String,
    /// What its addresses are made of.
    seed: Seed,
    /// The driver domain's own address in it.
    own: Mac,
    switch: Switch<Memory, Clock>,
    /// The numbers of the clients that have an address made of theirs.
    numbers: Rc<RefCell<BTreeSet<u32>>>,
    /// The addresses that DHCP gives to certain clients.
    reservations: Reservations,
    /// The uplinks that are to receive frames for no groups but the driver domain's own; `None` once a client
    /// has been plugged in, whose groups nobody knows.
    selective: RefCell<Option<Vec<Uplink>>>,
    _counted: Registration,
}

/// A client's number in its segment, free again when this is dropped.
pub struct Number {
    number: u32,
    numbers: Rc<RefCell<BTreeSet<u32>>>,
}

/// A client's address by DHCP, no longer its own when this is dropped.
pub struct Reservation {
    mac: Mac,
    reservations: Reservations,
}

/// Something's place in a segment.
pub type Socket = Plug<Memory, Clock>;

impl Segment {
    /// Sets up the switch.
    pub async fn new(config: &config::Segment, memory: &Memory, statistics: &Statistics) -> Self {
        // Whether clients are isolated is said for each of them: the key beside a device takes precedence
        // over the segment's option.
        let (switch, keeper) = Switch::new(memory.clone(), Clock, SwitchOptions::default());
        executor::spawn(keeper).detach();
        let counted = switch.clone();
        let subject = Subject::new("segment", &[("name", &config.name)]);
        let counted = statistics.register(subject, move |tell| {
            tell("ports", counted.ports().count() as u64);
            tell("stations", counted.stations() as u64);
        });
        let (seed, own) = addresses(config).await;
        Self {
            name: config.name.clone(),
            seed,
            own,
            switch,
            numbers: Rc::default(),
            reservations: Rc::new(RefCell::new(config.leases.clone())),
            selective: RefCell::new(Some(Vec::new())),
            _counted: counted,
        }
    }

    /// Plugs something in.
    pub fn plug(&self, options: PortOptions) -> Result<Socket, PlugError> {
        if options.kind == Kind::Client {
            let uplinks = self.selective.take().into_iter().flatten();
            uplinks.for_each(|uplink| uplink.receive_all_groups());
        }
        self.switch.plug(options)
    }

    /// The only groups that an uplink is to receive frames for; `None` for all.
    pub fn groups(&self, config: &config::Segment) -> Option<Vec<Mac>> {
        let selective = self.selective.borrow();
        selective.as_ref().map(|_| groups(self.own, config.address6))
    }

    /// Has an uplink receive frames for all groups when that is needed.
    pub fn add_uplink(&self, uplink: Uplink) {
        if let Some(uplinks) = &mut *self.selective.borrow_mut() {
            uplinks.retain(|other| other.state() != State::Removed);
            uplinks.push(uplink);
        }
    }

    /// The driver domain's own address in it.
    pub fn own_address(&self) -> Mac {
        self.own
    }

    /// The addresses that DHCP gives to certain clients.
    pub fn reservations(&self) -> Reservations {
        self.reservations.clone()
    }

    /// Has DHCP give an address to a client, unless it is for another one, or the client's is given already.
    pub fn reserve(&self, mac: Mac, address: Ipv4Addr) -> Option<Reservation> {
        let mut reservations = self.reservations.borrow_mut();
        let taken = |reserved: &(Mac, Ipv4Addr)| reserved.0 == mac || reserved.1 == address;
        if reservations.iter().any(taken) {
            return None;
        }
        reservations.push((mac, address));
        let reservations = self.reservations.clone();
        Some(Reservation { mac, reservations })
    }

    /// Tells the counters of the port with this label, if it is in this segment.
    pub fn tell(&self, label: &str, mut tell: impl FnMut(&'static str, u64)) {
        if let Some(port) = self.switch.ports().find(|port| port.label == label) {
            port.counters.each(&mut tell);
        }
    }

    /// The lowest number that no client has, and the address made of it.
    pub fn number(&self) -> (Number, Mac) {
        let mut numbers = self.numbers.borrow_mut();
        let number = (0..).find(|number| !numbers.contains(number)).unwrap_or(u32::MAX);
        numbers.insert(number);
        let address = self.seed.address(&format!("client {number}"));
        let numbers = self.numbers.clone();
        (Number { number, numbers }, address)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        self.numbers.borrow_mut().remove(&self.number);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.reservations
            .borrow_mut()
            .retain(|reserved| reserved.0 != self.mac);
    }
}

/// What the addresses of a segment are made of, and the driver domain's own. With an uplink, that is the
/// uplink's address, which nobody else on that network has; without, both come from the segment's name.
async fn addresses(config: &config::Segment) -> (Seed, Mac) {
    if let Some(vif) = config.uplinks.first()
        && let Ok(address) = xenstore::read(&format!("device/vif/{vif}/mac")).await
        && let Some(address) = text::mac(&address)
    {
        return (Seed::uplink(address), address);
    }
    let seed = Seed::name(&config.name);
    (seed, seed.address("router"))
}
