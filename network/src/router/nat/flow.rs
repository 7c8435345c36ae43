//! What tells connections apart.

use core::net::Ipv4Addr;

/// The protocols that are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo, whose identifier is the asking side's port; the other side's is 0.
    Icmp,
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// This port at this address.
    pub fn new(address: Ipv4Addr, port: u16) -> Self {
        Self { address, port }
    }
}

/// Where a packet comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Of this protocol.
    pub protocol: Protocol,
    /// From here.
    pub source: Endpoint,
    /// To there.
    pub destination: Endpoint,
}

impl Flow {
    /// The way back.
    pub fn reversed(self) -> Self {
        Self {
            protocol: self.protocol,
            source: self.destination,
            destination: self.source,
        }
    }
}

/// What a packet means for the state of its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signal {
    /// A connection that is not known may begin with it.
    pub opens: bool,
    /// TCP's SYN.
    pub syn: bool,
    /// TCP's ACK.
    pub ack: bool,
    /// TCP's FIN.
    pub fin: bool,
    /// TCP's RST.
    pub rst: bool,
}
