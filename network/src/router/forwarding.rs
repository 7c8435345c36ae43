//! Frames that pass through a router.

use core::net::Ipv4Addr;

use devices::memory::Buffer;
use devices::net::{ETHERNET_HEADER, Frame, Mac, Port};
use smoltcp::wire::{EthernetFrame, EthernetProtocol};

use super::build::Ends;
use super::config::is_unicast;
use super::counters::{Counter, Counters};
use super::icmp::{self, Error};
use super::nat::{Content, Endpoint, Packet, Protocol, Refused, is_own_udp};
use super::station::Station;
use super::{Now, Router, dns};
use crate::time::Time;

/// What a frame is to the router.
enum Kind {
    /// For nobody here.
    Foreign,
    /// For the router itself, or for all.
    Own,
    /// IPv4 from that station, to the router's Ethernet address.
    Ipv4(Mac),
}

impl Kind {
    fn of<B: Buffer>(own: Mac, frame: &Frame<B>) -> Self {
        let mut header = [0; ETHERNET_HEADER];
        if frame.len() < header.len() {
            return Self::Foreign;
        }
        frame.buffer().read(0, &mut header);
        let header = EthernetFrame::new_unchecked(&header[..]);
        let (to, from) = (header.dst_addr(), header.src_addr());
        match header.ethertype() {
            EthernetProtocol::Ipv4 if to.0 == own => Self::Ipv4(from.0),
            EthernetProtocol::Ipv4 | EthernetProtocol::Ipv6 | EthernetProtocol::Arp
                if to.0 == own || to.is_multicast() || to.is_broadcast() =>
            {
                Self::Own
            }
            _ => Self::Foreign,
        }
    }
}

/// Addresses that nobody has outside (RFC 6890): nothing goes there by a router.
fn is_special(address: Ipv4Addr) -> bool {
    !is_unicast(address) || address.is_link_local()
}

/// Sends a translated packet to its next hop. `sent` counts its frame and the bytes.
fn pass_on<P: Port>(
    now: Now,
    station: &mut Station<P>,
    frame: Frame<P::Buffer>,
    mut packet: Packet,
    counters: &Counters,
    sent: (&Counter, &Counter),
) {
    packet.decrement_ttl();
    let Some(frame) = station.unique(frame) else {
        counters.dropped_memory.add(1);
        return;
    };
    packet.write(frame.buffer());
    sent.0.add(1);
    sent.1.add(frame.len() as u64);
    station.send_ipv4(now, packet.ip().dst_addr(), frame, counters);
}

impl<P: Port, T: Time> Router<P, T> {
    /// Takes a frame from an inside segment.
    pub(super) fn take_from_inside(&mut self, now: Now, segment: usize, frame: Frame<P::Buffer>) {
        let station = &mut self.insides[segment];
        let from = match Kind::of(station.mac, &frame) {
            Kind::Foreign => return,
            Kind::Own => return station.receive(now, &frame, &self.status.counters),
            Kind::Ipv4(from) => from,
        };
        let Some(packet) = Packet::read(frame.buffer()) else {
            self.status.counters.dropped_invalid.add(1);
            return;
        };
        let instead = self.stand_in(segment, &packet);
        let (from_ip, to) = (packet.ip().src_addr(), packet.ip().dst_addr());
        let station = &mut self.insides[segment];
        if instead.is_none() && (station.is_own(to) || to.is_broadcast()) {
            return station.receive(now, &frame, &self.status.counters);
        }
        if !station.is_neighbour(from_ip) {
            self.status.counters.dropped_invalid.add(1);
            return;
        }
        if let Err(error) = self.go_out(now, (segment, from), frame, packet.clone(), instead) {
            self.complain(now, Some(segment), from, &packet, error);
        }
    }

    /// Who is reached in place of the router: names are asked for over TCP where answers are large, which is
    /// passed on to a server.
    fn stand_in(&self, segment: usize, packet: &Packet) -> Option<Endpoint> {
        let Content::Connection(flow, _) = packet.content() else {
            return None;
        };
        let to = flow.destination;
        let asks = flow.protocol == Protocol::Tcp
            && to.port == dns::PORT
            && self.insides[segment].is_own(to.address);
        let server = self.name_servers(segment).first().filter(|_| asks)?;
        Some(Endpoint::new(*server, dns::PORT))
    }

    /// Takes a frame from outside.
    pub(super) fn take_from_outside(&mut self, now: Now, frame: Frame<P::Buffer>) {
        let Some(station) = &mut self.outside else {
            return;
        };
        let from = match Kind::of(station.mac, &frame) {
            Kind::Foreign => return,
            Kind::Own => return station.receive(now, &frame, &self.status.counters),
            Kind::Ipv4(from) => from,
        };
        let Some(packet) = Packet::read(frame.buffer()) else {
            self.status.counters.dropped_invalid.add(1);
            return;
        };
        let own = match packet.content() {
            Content::Connection(flow, signal) => match flow.protocol {
                Protocol::Icmp => signal.opens,
                Protocol::Tcp => self.outside_tcp == Some(flow.destination.port),
                Protocol::Udp => is_own_udp(flow.destination.port),
            },
            _ => false,
        };
        if own || self.insides.is_empty() {
            return station.receive(now, &frame, &self.status.counters);
        }
        // Nobody outside has the address that it is for, or one of inside, or one that nobody has.
        let (from_ip, to_ip) = (packet.ip().src_addr(), packet.ip().dst_addr());
        let own = station.is_own(to_ip);
        if !own || to_ip == from_ip || is_special(from_ip) || self.is_inside(from_ip) {
            self.status.counters.dropped_invalid.add(1);
            return;
        }
        if let Err(error) = self.go_in(now, frame, packet.clone()) {
            self.complain(now, None, from, &packet, error);
        }
    }

    /// Whether an address is of a network inside.
    fn is_inside(&self, address: Ipv4Addr) -> bool {
        let network = |station: &Station<P>| station.address.is_some_and(|own| own.contains_addr(&address));
        self.insides.iter().any(network)
    }

    /// Forwards a packet from inside. An error is what its sender may be told.
    fn go_out(
        &mut self,
        now: Now,
        (segment, from): (usize, Mac),
        frame: Frame<P::Buffer>,
        mut packet: Packet,
        instead: Option<Endpoint>,
    ) -> Result<(), Error> {
        let counters = &self.status.counters;
        let to = instead.map_or(packet.ip().dst_addr(), |instead| instead.address);
        if is_special(to) || self.is_inside(to) {
            counters.dropped_invalid.add(1);
            return Ok(());
        }
        let Some(outside) = self.outside.as_ref().filter(|_| self.status.is_up()) else {
            counters.dropped_no_route.add(1);
            return Err(Error::NoRoute);
        };
        let hairpin = outside.is_own(to);
        if packet.ip().hop_limit() <= 1 {
            counters.dropped_expired.add(1);
            return Err(Error::TimeExceeded);
        }
        if !hairpin {
            self.check_size(&frame, &packet, outside.link.mtu)?;
        }
        let checksum = frame.offload.checksum;
        let sender = (segment as u8, from);
        let translated = self
            .nat
            .outbound(now.second, sender, &mut packet, checksum, instead);
        if let Err(refused) = translated {
            return self.refuse(refused);
        }
        if hairpin {
            // From one station of a segment to another, by a forward: only such connections begin.
            return self.go_in(now, frame, packet);
        }
        let counters = &self.status.counters;
        if let Some(outside) = &mut self.outside {
            let sent = (&counters.out_frames, &counters.out_bytes);
            pass_on(now, outside, frame, packet, counters, sent);
        }
        Ok(())
    }

    /// Forwards a packet for the outside address. An error is what its sender may be told.
    fn go_in(&mut self, now: Now, frame: Frame<P::Buffer>, mut packet: Packet) -> Result<(), Error> {
        if packet.ip().hop_limit() <= 1 {
            self.status.counters.dropped_expired.add(1);
            return Err(Error::TimeExceeded);
        }
        let checksum = frame.offload.checksum;
        let segment = match self.nat.inbound(now.second, &mut packet, checksum) {
            Ok(segment) => usize::from(segment),
            Err(refused) => return self.refuse(refused),
        };
        let Some(station) = self.insides.get(segment) else {
            return Ok(());
        };
        self.check_size(&frame, &packet, station.link.mtu)?;
        let counters = &self.status.counters;
        let sent = (&counters.in_frames, &counters.in_bytes);
        pass_on(now, &mut self.insides[segment], frame, packet, counters, sent);
        Ok(())
    }

    /// Whether a packet, or each segment that it will be cut into, fits onto a line.
    fn check_size(&self, frame: &Frame<P::Buffer>, packet: &Packet, mtu: u16) -> Result<(), Error> {
        let size = match frame.offload.segmentation {
            Some(segmentation) => packet.segment_len(segmentation.size),
            None => usize::from(packet.ip().total_len()),
        };
        if size <= usize::from(mtu) {
            return Ok(());
        }
        self.status.counters.dropped_too_big.add(1);
        Err(Error::TooBig(mtu))
    }

    fn refuse(&self, refused: Refused) -> Result<(), Error> {
        let counters = &self.status.counters;
        match refused {
            Refused::Unknown => counters.dropped_unknown.add(1),
            Refused::Full => counters.dropped_full.add(1),
            Refused::Fragment => counters.dropped_fragment.add(1),
            Refused::Unsupported => counters.dropped_unsupported.add(1),
            Refused::Denied => {
                counters.dropped_denied.add(1);
                return Err(Error::Prohibited);
            }
        }
        Ok(())
    }

    /// Tells the sender of a packet, which came from that Ethernet address, why it was not forwarded.
    fn complain(&mut self, now: Now, segment: Option<usize>, to: Mac, packet: &Packet, error: Error) {
        let station = match segment {
            Some(segment) => self.insides.get_mut(segment),
            None => self.outside.as_mut(),
        };
        let Some(station) = station else {
            return;
        };
        let Some(own) = station.address else {
            return;
        };
        let ends = Ends {
            from: station.mac,
            to,
        };
        let Some(bytes) = icmp::error(ends, own.address(), packet, error) else {
            return;
        };
        if station.may_refuse(now, to, &self.status.counters) {
            station.send(&bytes, &self.status.counters);
        }
    }
}
