//! The table of connections against a simple one, and its limits.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::flow::{Endpoint, Flow, Protocol, Signal};
use super::ports::{Ports, Target};
use super::table::{Host, Refusal, Seconds, Table};
use crate::router::random::Random;
use crate::router::{Limits, Timeouts};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FORWARDED: u16 = 8080;
const ISOLATED: u16 = 8081;

/// What happens: something goes out, comes in, or time passes.
#[derive(Clone, Debug)]
struct Step {
    pause: Seconds,
    out: bool,
    protocol: Protocol,
    segment: u8,
    host: u8,
    port: u16,
    remote: u8,
    signal: Signal,
}

fn steps(pause: Seconds, max: usize) -> impl Strategy<Value = Vec<Step>> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Icmp)];
    let flags = prop_oneof![
        3 => Just((true, false, false, false)),
        2 => Just((true, true, false, false)),
        4 => Just((false, true, false, false)),
        2 => Just((false, true, true, false)),
        1 => Just((false, false, false, true)),
    ];
    let place = (
        0..2u8,
        1..4u8,
        prop_oneof![1000..1004u16, Just(80), Just(64600), Just(FORWARDED)],
        0..4u8,
    );
    let step = (0..pause, any::<bool>(), protocol, place, flags);
    let step = step.prop_map(
        |(pause, out, protocol, (segment, host, port, remote), (syn, ack, fin, rst))| {
            let tcp = protocol == Protocol::Tcp;
            let signal = Signal {
                opens: if tcp {
                    !rst
                } else {
                    protocol == Protocol::Udp || out
                },
                syn: tcp && syn,
                ack: tcp && ack,
                fin: tcp && fin,
                rst: tcp && rst,
            };
            Step {
                pause,
                out,
                protocol,
                segment,
                host,
                port,
                remote,
                signal,
            }
        },
    );
    prop::collection::vec(step, 1..max)
}

fn forwarded() -> Host {
    Host {
        segment: 0,
        endpoint: Endpoint::new(Ipv4Addr::new(10, 0, 0, 1), 80),
    }
}

fn table(limits: Limits) -> Table {
    let target = Target {
        host: forwarded(),
        hairpin: true,
    };
    // A segment that isolates its stations has one, too.
    let isolated = Target {
        host: Host {
            segment: 1,
            ..forwarded()
        },
        hairpin: false,
    };
    let forwards = [
        ((Protocol::Tcp, FORWARDED), target),
        ((Protocol::Udp, FORWARDED), target),
        ((Protocol::Udp, ISOLATED), isolated),
    ];
    Table::new(
        OUTSIDE,
        Ports::new(None, forwards.into_iter()),
        limits,
        Timeouts::default(),
    )
}

impl Step {
    fn inside(&self) -> Host {
        Host {
            segment: self.segment,
            endpoint: Endpoint::new(Ipv4Addr::new(10, 0, 0, self.host), self.port),
        }
    }

    /// Somebody outside, or a port of the outside address.
    fn remote(&self) -> Endpoint {
        let (address, port) = match (self.remote, self.host) {
            (0, 1) => (OUTSIDE, FORWARDED),
            (0, 2) => (OUTSIDE, ISOLATED),
            (0, _) => (OUTSIDE, 1000),
            (remote, _) => (Ipv4Addr::new(198, 51, 100, remote), 7),
        };
        Endpoint::new(address, if self.protocol == Protocol::Icmp { 0 } else { port })
    }

    /// Whether a connection may begin from inside: by the outside address, only to what the own segment
    /// forwards and does not isolate.
    fn may_go_out(&self) -> bool {
        let remote = self.remote();
        remote.address != OUTSIDE || (self.segment == 0 && remote.port == FORWARDED)
    }

    fn outbound(&self) -> Flow {
        Flow {
            protocol: self.protocol,
            source: self.inside().endpoint,
            destination: self.remote(),
        }
    }

    fn inbound(&self, port: u16) -> Flow {
        Flow {
            protocol: self.protocol,
            source: self.remote(),
            destination: Endpoint::new(OUTSIDE, port),
        }
    }
}

/// A connection as the RFCs see it.
#[derive(Clone)]
struct Known {
    port: u16,
    used: Seconds,
    opened_out: bool,
    answered: bool,
    established: bool,
    fins: [bool; 2],
    over: bool,
}

impl Known {
    fn timeout(&self, protocol: Protocol) -> Seconds {
        match protocol {
            Protocol::Icmp => 60,
            Protocol::Udp => {
                if self.answered {
                    300
                } else {
                    120
                }
            }
            Protocol::Tcp => {
                if self.established && !self.over {
                    7440
                } else {
                    240
                }
            }
        }
    }

    fn see(&mut self, now: Seconds, out: bool, protocol: Protocol, signal: Signal) {
        self.used = now;
        let answer = out != self.opened_out;
        if protocol != Protocol::Tcp {
            self.answered |= answer;
            return;
        }
        if signal.rst {
            self.over = true;
        } else if signal.syn && !signal.ack && (!self.established || self.over) {
            let (port, used) = (self.port, self.used);
            *self = Self {
                port,
                used,
                opened_out: out,
                answered: false,
                established: false,
                fins: [false; 2],
                over: false,
            };
        } else {
            self.fins[usize::from(out)] |= signal.fin;
            self.answered |= answer && signal.ack;
            self.established |= self.answered && !answer && signal.ack && !signal.syn;
            self.over |= self.fins == [true; 2];
        }
    }
}

type Key = (Protocol, Host, Endpoint);

#[test]
fn what_a_call_expires_is_bounded() {
    const HOLDERS: u32 = 3000;
    let mut table = table(Limits {
        connections: 5000,
        per_client: 10,
    });
    let mut random = Random::new([1, 0], 0);
    let signal = Signal {
        opens: true,
        ..Signal::default()
    };
    for n in 0..HOLDERS {
        let [_, _, high, low] = n.to_be_bytes();
        let flow = Flow {
            protocol: Protocol::Udp,
            source: Endpoint::new(Ipv4Addr::new(10, 0, high, low), 1000),
            destination: Endpoint::new(Ipv4Addr::new(198, 51, 100, 1), 7),
        };
        let station = (0, [2, 0, 0, 0, high, low]);
        let way = table.open_outbound(0, station, &flow, flow.destination, signal, &mut random);
        assert!(way.is_ok());
    }
    let mut left = vec![];
    for _ in 0..3 {
        table.expire(1000);
        left.push(table.len());
    }
    assert_eq!(left, [3000 - 1024, 3000 - 2048, 0]);
    assert_eq!(table.most_held(), 0);
}

#[test]
fn the_outside_address_leads_to_forwards_of_the_own_segment_only() {
    let mut table = table(Limits::default());
    let mut random = Random::new([1, 0], 0);
    let signal = Signal {
        opens: true,
        ..Signal::default()
    };
    let mut goes = |protocol, segment, port| {
        let flow = Flow {
            protocol,
            source: Endpoint::new(Ipv4Addr::new(10, 0, 0, 9), 1000 + port),
            destination: Endpoint::new(OUTSIDE, port),
        };
        let station = (segment, [2, 0, 0, 0, segment, 9]);
        table
            .open_outbound(0, station, &flow, flow.destination, signal, &mut random)
            .is_ok()
    };
    assert!(goes(Protocol::Udp, 0, FORWARDED));
    assert!(goes(Protocol::Tcp, 0, FORWARDED));
    // Another segment's forward, one to where nobody reaches his neighbours, and no forward.
    assert!(!goes(Protocol::Udp, 1, FORWARDED));
    assert!(!goes(Protocol::Udp, 1, ISOLATED));
    assert!(!goes(Protocol::Udp, 0, ISOLATED));
    assert!(!goes(Protocol::Udp, 0, 2000));
    assert!(!goes(Protocol::Icmp, 0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn connections_are_those_of_a_simple_table(steps in steps(130, 120)) {
        let mut table = table(Limits { connections: 1000, per_client: 1000 });
        let mut model: BTreeMap<Key, Known> = BTreeMap::new();
        let (mut random, mut now) = (Random::new([1, 0], 0), 0);
        for step in steps {
            now += step.pause;
            table.expire(now);
            model.retain(|key, known| now - known.used < known.timeout(key.0));
            let mut key = (step.protocol, step.inside(), step.remote());
            let way = if step.out {
                let flow = step.outbound();
                let known = table.outbound(now, step.segment, &flow, step.signal);
                prop_assert_eq!(known.is_ok(), model.contains_key(&key));
                let opened = known.or_else(|_| table.open_outbound(now, (step.segment, [2; 6]), &flow, flow.destination, step.signal, &mut random));
                prop_assert!(opened.is_err() || known.is_ok() || step.may_go_out());
                opened
            } else {
                let port = model.get(&key).map_or(step.port, |known| known.port);
                let flow = step.inbound(port);
                let owner = model.iter().find(|(other, known)| other.0 == key.0 && other.2 == key.2 && known.port == port);
                let known = table.inbound(now, &flow, step.signal);
                prop_assert_eq!(known.is_ok(), owner.is_some());
                if let Some((owner, _)) = owner {
                    key = *owner;
                } else if port == FORWARDED && step.protocol != Protocol::Icmp {
                    key.1 = forwarded();
                }
                known.or_else(|_| table.open_inbound(now, &flow, step.signal))
            };
            let Ok(way) = way else {
                prop_assert!(!model.contains_key(&key) || !step.out);
                continue;
            };
            let port = if step.out { way.flow.source.port } else {
                prop_assert_eq!(way.flow.destination, key.1.endpoint);
                prop_assert_eq!(way.segment, key.1.segment);
                model.get(&key).map_or(FORWARDED, |known| known.port)
            };
            let known = model.entry(key).or_insert(Known {
                port, used: now, opened_out: step.out, answered: false, established: false, fins: [false; 2], over: false,
            });
            prop_assert_eq!(known.port, port);
            known.see(now, step.out, step.protocol, step.signal);
            // One port outside stands for one inside, and one inside has one port.
            for (other, known) in &model {
                if other.0 == key.0 && known.port == port {
                    prop_assert_eq!(other.1, key.1);
                }
                if other.0 == key.0 && other.1 == key.1 {
                    prop_assert_eq!(known.port, port);
                }
            }
            prop_assert_eq!(table.len(), model.len());
        }
    }

    #[test]
    fn nobody_has_more_than_a_share(steps in steps(3, 200)) {
        let mut table = table(Limits { connections: 12, per_client: 5 });
        let (mut random, mut now) = (Random::new([1, 0], 0), 0);
        let mut held: BTreeMap<[u8; 6], u64> = BTreeMap::new();
        for step in steps {
            now += step.pause;
            table.expire(now);
            let mac = [2, 0, 0, 0, step.segment, step.host];
            let flow = step.outbound();
            let known = table.outbound(now, step.segment, &flow, step.signal);
            if known.is_err() {
                let before = (table.len(), table.evicted);
                let opened = table.open_outbound(now, (step.segment, mac), &flow, flow.destination, step.signal, &mut random);
                match opened {
                    Ok(way) => {
                        *held.entry(mac).or_default() += 1;
                        // What was opened is found by both sides.
                        let back = Flow { protocol: step.protocol, source: way.flow.destination, destination: way.flow.source };
                        let back = table.inbound(now, &back, Signal::default());
                        prop_assert_eq!(back.map(|back| back.flow.destination), Ok(flow.source));
                    }
                    Err(refusal) => {
                        prop_assert!(refusal == Refusal::Full || !step.signal.opens || !step.may_go_out());
                        prop_assert!(table.len() <= before.0);
                    }
                }
                prop_assert!(table.evicted - before.1 <= 1);
            }
            prop_assert!(table.len() <= 12);
            prop_assert!(table.most_held() <= 5);
        }
        table.expire(now + 8000);
        prop_assert_eq!((table.len(), table.most_held()), (0, 0));
    }
}
