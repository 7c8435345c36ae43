//! One connection, and how far it is.

use core::net::Ipv4Addr;

use super::flow::{Endpoint, Flow, Protocol, Signal};
use super::table::{Holder, Host, Seconds, Way};

/// How long a connection may be idle, and what it loses its place to; the first is the first to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// UDP that nobody has answered.
    UdpUnanswered,
    /// TCP that is not yet, or no longer, established.
    TcpTransitory,
    /// ICMP echo.
    Icmp,
    /// UDP.
    Udp,
    /// TCP that is established.
    TcpEstablished,
}

impl Class {
    /// All of them, in the order in which they lose their places.
    pub const ALL: [Self; 5] = [
        Self::UdpUnanswered,
        Self::TcpTransitory,
        Self::Icmp,
        Self::Udp,
        Self::TcpEstablished,
    ];
}

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From inside.
    Out,
    /// From outside.
    In,
}

/// What the ends of a connection are called.
#[derive(Clone, Copy)]
pub struct Ends {
    /// The protocol.
    pub protocol: Protocol,
    /// The end inside.
    pub inside: Host,
    /// The other end, as the inside sees it.
    pub seen: Endpoint,
    /// What the inside's port is known by.
    pub port: u16,
    /// The other end as it is.
    pub remote: Endpoint,
}

impl Ends {
    /// What a packet from outside becomes, and one that the inside sent was.
    pub fn inbound(&self) -> Way {
        Way {
            flow: Flow {
                protocol: self.protocol,
                source: self.seen,
                destination: self.inside.endpoint,
            },
            segment: self.inside.segment,
        }
    }

    /// What a packet from inside becomes, with the outside address.
    pub fn outbound(&self, address: Ipv4Addr) -> Way {
        Way {
            flow: Flow {
                protocol: self.protocol,
                source: Endpoint::new(address, self.port),
                destination: self.remote,
            },
            segment: self.inside.segment,
        }
    }
}

/// A connection.
pub struct Session {
    /// Its ends.
    pub ends: Ends,
    /// Whose share it takes from.
    pub holder: Holder,
    /// How it is treated now.
    pub class: Class,
    /// When it was last used.
    pub touched: Seconds,
    /// Which way the first packet went.
    opened: Direction,
    /// The other end has answered.
    answered: bool,
    /// Who has said FIN: outbound, inbound.
    finished: [bool; 2],
}

impl Session {
    /// A connection that begins now.
    pub fn new(ends: Ends, holder: Holder, opened: Direction, now: Seconds) -> Self {
        Self {
            ends,
            holder,
            class: match ends.protocol {
                Protocol::Tcp => Class::TcpTransitory,
                Protocol::Udp => Class::UdpUnanswered,
                Protocol::Icmp => Class::Icmp,
            },
            touched: now,
            opened,
            answered: false,
            finished: [false; 2],
        }
    }

    /// Notes a packet; gives the class that the connection is in from then on.
    pub fn next_class(&mut self, direction: Direction, signal: Signal) -> Class {
        let answer = direction != self.opened;
        match self.ends.protocol {
            Protocol::Icmp => Class::Icmp,
            Protocol::Udp => {
                self.answered |= answer;
                if self.answered {
                    Class::Udp
                } else {
                    Class::UdpUnanswered
                }
            }
            Protocol::Tcp => self.next_tcp(direction, answer, signal),
        }
    }

    /// A connection is established once the side that opened it acknowledges what the other answered, until
    /// both have said FIN or one RST. It is established again if that side goes on after an RST, which the
    /// other may have found wrong, or which somebody made up (RFC 6146, 3.5.2.2).
    fn next_tcp(&mut self, direction: Direction, answer: bool, signal: Signal) -> Class {
        if signal.rst {
            return Class::TcpTransitory;
        }
        if signal.syn && !signal.ack && self.class == Class::TcpTransitory {
            // The ports are used anew.
            (self.opened, self.answered) = (direction, false);
            self.finished = [false; 2];
            return Class::TcpTransitory;
        }
        self.finished[usize::from(direction == Direction::In)] |= signal.fin;
        self.answered |= answer && signal.ack;
        let over = self.finished == [true; 2];
        let established =
            self.class == Class::TcpEstablished || (self.answered && !answer && signal.ack && !signal.syn);
        if established && !over {
            Class::TcpEstablished
        } else {
            Class::TcpTransitory
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_on_if_its_opener_does_after_an_rst() {
        let end = |last| Endpoint::new(Ipv4Addr::new(10, 0, 0, last), 1);
        let ends = Ends {
            protocol: Protocol::Tcp,
            inside: Host {
                segment: 0,
                endpoint: end(1),
            },
            seen: end(2),
            port: 1,
            remote: end(2),
        };
        let mut session = Session::new(ends, Holder::Station(0, [2; 6]), Direction::Out, 0);
        let mut pass = |direction, flags: &str| {
            let has = |flag| flags.contains(flag);
            let signal = Signal {
                opens: false,
                syn: has('S'),
                ack: has('A'),
                fin: has('F'),
                rst: has('R'),
            };
            session.class = session.next_class(direction, signal);
            session.class
        };
        use Class::{TcpEstablished, TcpTransitory};
        use Direction::{In, Out};
        for (direction, flags, class) in [
            (Out, "S", TcpTransitory),
            (In, "SA", TcpTransitory),
            (Out, "A", TcpEstablished),
            (In, "R", TcpTransitory),
            (In, "A", TcpTransitory),
            (Out, "A", TcpEstablished),
            (Out, "RA", TcpTransitory),
            // Its end is its end.
            (Out, "FA", TcpEstablished),
            (In, "FA", TcpTransitory),
            (Out, "A", TcpTransitory),
        ] {
            assert!(pass(direction, flags) == class, "{flags}");
        }
    }
}
