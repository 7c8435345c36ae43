//! The switch against a model of one: what goes where, whatever happens.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use devices::net::{Filter, Link, Mac, Port};
use network::switch::{Kind, PAGE, PortOptions, Switch, SwitchOptions};
use proptest::prelude::*;
use proptest::sample::Index;

use support::*;

/// Stations: 0 to 9 are given to ports by their number, others are learned.
const STATIONS: u8 = 20;

#[derive(Clone, Debug)]
enum Step {
    Plug {
        number: u8,
        kind: u8,
        guarded: bool,
        isolate: bool,
    },
    Unplug(Index),
    Filter {
        port: Index,
        promiscuous: bool,
        multicast: bool,
        broadcast: bool,
        mac: Option<u8>,
    },
    SetLink(Index, bool),
    /// So many halves of a generation.
    Wait(u8),
    Send {
        port: Index,
        own: bool,
        from: u8,
        to: u8,
        to_all: Option<bool>,
        vlan: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..10u8, 0..6u8, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(number, kind, guarded, isolate)| Step::Plug { number, kind, guarded, isolate }),
        1 => any::<Index>().prop_map(Step::Unplug),
        1 => (any::<Index>(), any::<[bool; 3]>(), prop::option::of(0..STATIONS)).prop_map(|(port, flags, mac)| {
            let [promiscuous, multicast, broadcast] = flags;
            Step::Filter { port, promiscuous, multicast, broadcast, mac }
        }),
        1 => (any::<Index>(), any::<bool>()).prop_map(|(port, up)| Step::SetLink(port, up)),
        1 => (1..25u8).prop_map(Step::Wait),
        20 => (
            any::<Index>(),
            any::<bool>(),
            0..STATIONS,
            0..STATIONS,
            prop::option::weighted(0.3, any::<bool>()),
            any::<bool>(),
        )
            .prop_map(|(port, own, from, to, to_all, vlan)| Step::Send { port, own, from, to, to_all, vlan }),
    ]
}

struct ModelPort {
    number: u8,
    kind: Kind,
    guarded: bool,
    isolate: bool,
    up: bool,
    filter: Filter,
    plug: TestPlug,
}

/// How many stations are learned at an uplink, and at a client.
const AT_UPLINK: usize = 4;
const AT_CLIENT: usize = 3;

/// A learned station: its port, when it was heard in half generations, and as the how manieth of all frames.
type Learned = BTreeMap<Mac, (u8, u32, usize)>;

#[derive(Default)]
struct Model {
    ports: Vec<ModelPort>,
    learned: Learned,
    /// Frames that were heard.
    heard: usize,
    /// Half generations.
    now: u32,
    /// When the next generation starts.
    turn: Option<u32>,
}

impl Model {
    fn at(&self, number: u8) -> &ModelPort {
        self.ports.iter().find(|port| port.number == number).unwrap()
    }

    fn is_free(&self, number: u8) -> bool {
        self.ports.iter().all(|port| port.number != number)
    }

    fn owner(&self, mac: Mac) -> Option<u8> {
        self.ports
            .iter()
            .find(|port| port.kind != Kind::Uplink && mac == support::mac(port.number))
            .map(|port| port.number)
    }

    /// Which ports a frame reaches.
    fn send(&mut self, number: u8, from: Mac, to: Mac) -> Vec<u8> {
        let (kind, guarded) = (self.at(number).kind, self.at(number).guarded);
        if guarded && from != mac(number) {
            return vec![];
        }
        match self.owner(from) {
            Some(owner) if owner != number => return vec![],
            Some(_) => {}
            None if kind == Kind::Router => {}
            None => {
                let client_owned = self
                    .learned
                    .get(&from)
                    .is_some_and(|(port, ..)| *port != number && self.at(*port).kind == Kind::Client);
                if !(client_owned && kind == Kind::Client) && self.make_room(number, from) {
                    let heard = self.turn.map_or(self.now, |turn| turn - 2);
                    self.heard += 1;
                    self.learned.insert(from, (number, heard, self.heard));
                    self.turn.get_or_insert(self.now + 2);
                }
            }
        }
        let known = self.owner(to).or(self.learned.get(&to).map(|(port, ..)| *port));
        let sender = self.at(number);
        self.ports
            .iter()
            .filter(|port| port.number != number)
            .filter(|port| known.is_none_or(|known| known == port.number))
            .filter(|port| port.filter.accepts(to, None) && port.up)
            .filter(|port| match (sender.kind, port.kind) {
                (Kind::Uplink, Kind::Uplink) => false,
                (Kind::Client, Kind::Client) => !sender.isolate && !port.isolate,
                _ => true,
            })
            .map(|port| port.number)
            .collect()
    }

    /// Whether a port's station can be learned, after one was forgotten if need be.
    fn make_room(&mut self, number: u8, new: Mac) -> bool {
        let mut there: Vec<_> = self
            .learned
            .iter()
            .filter(|(_, (at, ..))| *at == number)
            .collect();
        there.sort_by_key(|(_, (.., heard))| *heard);
        let oldest = there.first().map(|(mac, _)| **mac);
        match self.at(number).kind {
            _ if there.iter().any(|(mac, _)| **mac == new) => true,
            Kind::Client => there.len() < AT_CLIENT,
            _ if there.len() < AT_UPLINK => true,
            _ => oldest.and_then(|oldest| self.learned.remove(&oldest)).is_some(),
        }
    }

    fn wait(&mut self) {
        self.now += 1;
        if self.turn == Some(self.now) {
            let now = self.now;
            // Ten generations of two halves each, since the one in which it was heard.
            self.learned.retain(|_, (_, heard, _)| now - *heard <= 20);
            self.turn = (!self.learned.is_empty()).then_some(now + 2);
        }
    }

    fn unplug(&mut self, index: usize) {
        let port = self.ports.swap_remove(index);
        self.learned.retain(|_, (at, ..)| *at != port.number);
    }
}

fn plug(
    switch: &Switch<Pool, Clock>,
    number: u8,
    kind: u8,
    guarded: bool,
    isolate: bool,
) -> Option<ModelPort> {
    let label = number.to_string();
    let options = match kind {
        0 => PortOptions {
            stations: AT_UPLINK,
            ..PortOptions::uplink(label)
        },
        1 => PortOptions::router(label, mac(number)),
        _ => PortOptions {
            guard_mac: guarded,
            isolate,
            flood_rate: None,
            stations: AT_CLIENT,
            ..PortOptions::client(label, mac(number))
        },
    };
    let kind = options.kind;
    let plug = switch.plug(options).ok()?;
    Some(ModelPort {
        number,
        kind,
        guarded: guarded && kind == Kind::Client,
        isolate: isolate && kind == Kind::Client,
        up: kind != Kind::Uplink,
        filter: Filter {
            promiscuous: kind == Kind::Uplink,
            ..Filter::new(mac(number))
        },
        plug,
    })
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut net = Net::with(SwitchOptions::default(), 1000);
    let mut model = Model::default();
    for (count, step) in steps.into_iter().enumerate() {
        let some = !model.ports.is_empty();
        match step {
            Step::Plug {
                number,
                kind,
                guarded,
                isolate,
            } if model.is_free(number) => {
                let port = plug(&net.switch, number, kind, guarded, isolate).unwrap();
                if port.kind != Kind::Uplink {
                    model.learned.remove(&mac(number));
                }
                model.ports.push(port);
            }
            Step::Unplug(index) if some => {
                let index = index.index(model.ports.len());
                model.unplug(index);
            }
            Step::Filter {
                port,
                promiscuous,
                multicast,
                broadcast,
                mac,
            } if some => {
                let port = port.get_mut(&mut model.ports);
                port.filter = Filter {
                    promiscuous,
                    all_multicast: multicast,
                    no_broadcast: !broadcast,
                    ..Filter::new(support::mac(mac.unwrap_or(port.number)))
                };
                port.plug.set_filter(port.filter.clone());
            }
            Step::SetLink(port, up) if some => {
                let port = port.get_mut(&mut model.ports);
                port.plug.set_link(Link { up, ..LINK });
                port.up = up || port.kind != Kind::Uplink;
            }
            Step::Wait(halves) => {
                for _ in 0..halves {
                    net.pass(Duration::from_secs(15));
                    model.wait();
                }
            }
            Step::Send {
                port,
                own,
                from,
                to,
                to_all,
                vlan,
            } if some => {
                let number = port.get(&model.ports).number;
                let from = mac(if own { number } else { from });
                let to = match to_all {
                    Some(true) => BROADCAST,
                    Some(false) => GROUP,
                    None => mac(to),
                };
                let mut frame = numbered(to, from, count as u32);
                if vlan {
                    frame.splice(12..12, [0x81, 0, 0, count as u8]);
                }
                send(&model.at(number).plug, &frame);
                let reached = model.send(number, from, to);
                for port in &model.ports {
                    let expected = Vec::from_iter(reached.contains(&port.number).then(|| frame.clone()));
                    prop_assert_eq!(
                        receive_all(&port.plug),
                        expected,
                        "step {}: port {} of {:?}",
                        count,
                        port.number,
                        reached
                    );
                }
            }
            _ => {}
        }
        net.keep();
        let given = model
            .ports
            .iter()
            .filter(|port| port.kind != Kind::Uplink)
            .count();
        prop_assert_eq!(net.switch.stations(), given + model.learned.len());
        prop_assert_eq!(net.pool.free(), 1000);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn frames_go_where_the_model_says(steps in prop::collection::vec(step(), 1..200)) {
        run(steps)?;
    }
}

#[derive(Clone, Debug)]
enum Load {
    Send {
        from: Index,
        to: Index,
        len: usize,
        count: usize,
    },
    Receive {
        port: Index,
        count: usize,
    },
    Queues {
        port: Index,
        count: u16,
    },
}

fn load() -> impl Strategy<Value = Load> {
    let len = prop_oneof![Just(60usize), 60..2000usize, 2000..65553usize];
    prop_oneof![
        5 => (any::<Index>(), any::<Index>(), len, 1..20usize)
            .prop_map(|(from, to, len, count)| Load::Send { from, to, len, count }),
        4 => (any::<Index>(), 1..20usize).prop_map(|(port, count)| Load::Receive { port, count }),
        1 => (any::<Index>(), 0..6u16).prop_map(|(port, count)| Load::Queues { port, count }),
    ]
}

proptest! {
    #![proptest_config(cases(64))]

    /// Nobody holds more than its limit, every frame is received or counted as dropped, and in the end all
    /// memory is back.
    #[test]
    fn accounts_hold_and_frames_are_accounted_for(
        loads in prop::collection::vec(load(), 1..100),
        limits in prop::collection::vec(17..60usize, 6),
    ) {
        let net = Net::new();
        let all = net.pool.free();
        let plugs: Vec<_> = (0..6)
            .map(|n| {
                let limited = PortOptions {
                    send_limit: limits[n] * PAGE,
                    receive_limit: limits[n] * PAGE,
                    ..match n {
                        0 => PortOptions::uplink("0"),
                        1 => PortOptions::router("1", mac(1)),
                        n => PortOptions::client(n.to_string(), mac(n as u8))
                    }
                };
                net.plug(limited)
            })
            .collect();
        plugs[0].set_link(LINK);
        send(&plugs[0], &numbered(mac(1), mac(0), 0));
        let mut sent = 1;
        for load in loads {
            match load {
                Load::Send { from, to, len, count } => {
                    let (from, to) = (from.index(6), to.index(6));
                    let bytes = ethernet(mac(to as u8), mac(from as u8), &vec![0x88; len - 12]);
                    for _ in 0..count {
                        if let Some(frame) = try_frame(&plugs[from], &bytes) {
                            plugs[from].send(frame);
                            sent += 1;
                        }
                    }
                }
                Load::Receive { port, count } => {
                    for n in 0..count {
                        receive_frame(port.get(&plugs), (n % 6) as u16);
                    }
                }
                Load::Queues { port, count } => port.get(&plugs).set_queues(count),
            }
            let mut held = 0;
            for (port, limit) in net.switch.ports().zip(&limits) {
                prop_assert!(port.sending <= limit * PAGE && port.receiving <= limit * PAGE);
                held += port.sending + port.receiving;
            }
            prop_assert!((all - net.pool.free()) * PAGE <= held);
        }
        for plug in &plugs {
            plug.set_queues(1);
            receive_all(plug);
        }
        prop_assert_eq!(net.pool.free(), all);
        let ports = || net.switch.ports();
        prop_assert!(ports().all(|port| port.sending + port.receiving == 0));
        prop_assert_eq!(ports().map(|port| port.counters.frames_in).sum::<u64>(), sent);
        let ended = |port: network::switch::PortStatus| port.counters.frames_out + port.counters.dropped();
        prop_assert_eq!(ports().map(ended).sum::<u64>(), sent);
    }
}
