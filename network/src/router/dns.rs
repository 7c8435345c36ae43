//! A DNS forwarder: hands questions to the servers that the outside knows, and their answers back.
//!
//! Each question goes out from a port and with an identifier of its own, chosen at random (RFC 5452), and an
//! answer counts only if it comes from the server that was asked, to that port, with that identifier and that
//! question.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use devices::net::Mac;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::udp;
use smoltcp::wire::{DnsFlags, DnsOpcode, DnsPacket, DnsQuestion, DnsRcode, IpAddress, IpEndpoint};

use super::counters::Counters;
use super::nat::{OWN_UDP, Seconds};
use super::random::Random;

/// Where servers listen, over UDP and TCP.
pub const PORT: u16 = 53;
/// The most questions that wait for an answer, in all and of one station, whatever addresses it asks from.
const MAX: usize = 64;
const MAX_OF_ONE: usize = 16;
/// The most bytes of a question and of an answer.
pub const MAX_QUESTION: usize = 1232;
const MAX_ANSWER: usize = 4096;
/// The most bytes of an answer that a server is asked for: those of one packet, whatever it passes on its
/// way, because fragments do not get through.
const MAX_WANTED: u16 = 1232;
/// How long a server has before the next one is asked.
const PATIENCE: Seconds = 2;
/// How often a question is asked.
const TRIES: u8 = 4;
/// How many questions of a segment wait to be taken; they are after each batch of frames.
pub const QUEUE: usize = 64;

/// Bytes of a DNS header.
const HEADER: usize = 12;

/// Who asks, and whom.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The station.
    pub station: Mac,
    /// Its address and port.
    pub from: (IpAddr, u16),
    /// The router's address that was asked, which answers.
    pub to: IpAddr,
}

/// Who asks, and where.
#[derive(Clone, Copy)]
pub struct Client {
    /// In which segment.
    pub segment: usize,
    /// Who.
    pub asker: Asker,
}

/// A question that waits for its answer.
struct Query {
    client: Client,
    /// The client's identifier for it.
    id: u16,
    /// The message, with the identifier that the server sees.
    message: Vec<u8>,
    /// How many bytes of it are header and question.
    question: usize,
    socket: SocketHandle,
    /// Which the answer comes to.
    port: u16,
    server: Ipv4Addr,
    /// Which of the servers was asked first; the others follow in turn.
    first: usize,
    tries: u8,
    asked: Seconds,
}

/// An answer for a client.
pub struct Answer {
    /// Whom it is for.
    pub client: Client,
    /// The message.
    pub message: Vec<u8>,
}

/// The questions of all segments that are under way.
pub struct Forwarder {
    queries: Vec<Query>,
    /// Of each segment, the server that answered last, which is asked first: one that is not there costs time
    /// once, and not for every name.
    answered: Vec<Ipv4Addr>,
    random: Random,
}

/// How many bytes header and question have, if the message has exactly one question and that is well-formed.
fn question_len(message: &[u8]) -> Option<usize> {
    let packet = DnsPacket::new_checked(message).ok()?;
    if packet.question_count() != 1 {
        return None;
    }
    let payload = &message[HEADER..];
    let (rest, _) = DnsQuestion::parse(payload).ok()?;
    Some(message.len() - rest.len())
}

/// A message's header and question, as an answer with a result and nothing else.
fn empty_answer(message: &[u8], question: usize, flags: DnsFlags, result: DnsRcode) -> Vec<u8> {
    let mut answer = message[..question].to_vec();
    let mut packet = DnsPacket::new_unchecked(&mut answer[..]);
    let asked = packet.flags() & DnsFlags::RECURSION_DESIRED;
    packet.set_flags(DnsFlags::RESPONSE | DnsFlags::RECURSION_AVAILABLE | asked | flags);
    packet.set_answer_record_count(0);
    packet.set_authority_record_count(0);
    packet.set_additional_record_count(0);
    // Bits 0 to 3 of the flags; the ones above them, which no one uses here, go as well.
    answer[3] = answer[3] & 0x80 | u8::from(result);
    answer
}

impl Forwarder {
    /// Nobody has asked yet.
    pub fn new(random: Random) -> Self {
        Self {
            queries: Vec::new(),
            answered: Vec::new(),
            random,
        }
    }

    /// Whether anybody waits.
    pub fn is_idle(&self) -> bool {
        self.queries.is_empty()
    }

    /// Takes a client's message. If it can be answered at once, gives the answer.
    pub fn ask(
        &mut self,
        now: Seconds,
        client: Client,
        message: &[u8],
        servers: &[Ipv4Addr],
        sockets: Option<&mut SocketSet<'static>>,
        counters: &Counters,
    ) -> Option<Answer> {
        let packet = DnsPacket::new_checked(message).ok()?;
        if packet.flags().contains(DnsFlags::RESPONSE) || message.len() > MAX_QUESTION {
            return None;
        }
        let question = question_len(message)?;
        counters.dns_queries.add(1);
        let answer = |result| Answer {
            client,
            message: empty_answer(message, question, DnsFlags::empty(), result),
        };
        if packet.opcode() != DnsOpcode::Query {
            return Some(answer(DnsRcode::NotImp));
        }
        let best = self.answered.get(client.segment);
        let best = servers.iter().position(|server| Some(server) == best);
        let first = best.unwrap_or(0);
        let (Some(&server), Some(sockets)) = (servers.get(first), sockets) else {
            return Some(answer(DnsRcode::Refused));
        };
        // A client that asks again while its question is under way gets one answer; no failure either if it
        // has as many under way as it may.
        let again = |query: &Query| {
            query.client.segment == client.segment
                && query.client.asker == client.asker
                && query.id == packet.transaction_id()
        };
        if self.queries.iter().any(again) {
            return None;
        }
        let whose = |client: &Client| (client.segment, client.asker.station);
        let own = |query: &&Query| whose(&query.client) == whose(&client);
        if self.queries.len() >= MAX || self.queries.iter().filter(own).count() >= MAX_OF_ONE {
            counters.dns_refused.add(1);
            return Some(answer(DnsRcode::ServFail));
        }
        let buffer = |size| udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY], vec![0; size]);
        let mut socket = udp::Socket::new(buffer(MAX_ANSWER), buffer(message.len()));
        let port = self.choose_port();
        socket.bind(port).ok()?;
        let id = self.random.next() as u16;
        let mut sent = message.to_vec();
        DnsPacket::new_unchecked(&mut sent[..]).set_transaction_id(id);
        // How much the client takes (RFC 6891, 6.1.2: the class of an OPT record, type 41), if the record is
        // where clients put it.
        if let Some([0, 0, 41, size @ ..]) = sent.get_mut(question..)
            && let Some(size) = size.first_chunk_mut()
        {
            *size = u16::from_be_bytes(*size).min(MAX_WANTED).to_be_bytes();
        }
        socket.send_slice(&sent, to(server)).ok()?;
        self.queries.push(Query {
            client,
            id: packet.transaction_id(),
            message: sent,
            question,
            socket: sockets.add(socket),
            port,
            server,
            first,
            tries: 1,
            asked: now,
        });
        None
    }

    /// A port that no other question under way has, which would get this one's answers. There are many more
    /// ports than questions.
    fn choose_port(&mut self) -> u16 {
        let first = self.random.below(OWN_UDP.len() as u16);
        let ports = (first..OWN_UDP.len() as u16).chain(0..first);
        let mut ports = ports.map(|port| OWN_UDP.start() + port);
        let taken = |port: &u16| self.queries.iter().any(|query| query.port == *port);
        ports.find(|port| !taken(port)).unwrap_or(*OWN_UDP.start())
    }

    /// Takes what servers answered, and asks again or gives up where they did not. `room` says of each
    /// segment how many bytes an answer there may have, and `servers` who is asked for it.
    pub fn poll(
        &mut self,
        now: Seconds,
        servers: &[Vec<Ipv4Addr>],
        sockets: &mut SocketSet<'static>,
        room: &[usize],
        counters: &Counters,
    ) -> Vec<Answer> {
        let mut answers = Vec::new();
        self.answered.resize(servers.len(), Ipv4Addr::UNSPECIFIED);
        self.queries.retain_mut(|query| {
            let socket: &mut udp::Socket<'_> = sockets.get_mut(query.socket);
            let servers = servers
                .get(query.client.segment)
                .map_or(&[][..], |servers| servers);
            let mut message = None;
            while let Ok((received, from)) = socket.recv() {
                if from.endpoint == to(query.server) && query.is_answer(received) {
                    message = Some(received.to_vec());
                } else {
                    counters.dns_wrong.add(1);
                }
            }
            if let Some(message) = &message {
                counters.dns_answers.add(1);
                if let Some(answered) = self.answered.get_mut(query.client.segment) {
                    *answered = query.server;
                }
                answers.push(query.answer(message, room.get(query.client.segment).copied().unwrap_or(0)));
            } else if now.saturating_sub(query.asked) < PATIENCE {
                return true;
            } else if query.tries < TRIES && !servers.is_empty() {
                query.server = servers[(query.first + usize::from(query.tries)) % servers.len()];
                query.tries += 1;
                query.asked = now;
                // The last try is still in the queue, which has room for one, if nobody answers ARP for its
                // server or the gateway. Closing takes it out. This one is known to fit.
                socket.close();
                let _ = socket.bind(query.port);
                let _ = socket.send_slice(&query.message, to(query.server));
                return true;
            } else {
                counters.dns_timeouts.add(1);
                let failed = empty_answer(
                    &query.message,
                    query.question,
                    DnsFlags::empty(),
                    DnsRcode::ServFail,
                );
                answers.push(query.answer(&failed, usize::MAX));
            }
            sockets.remove(query.socket);
            false
        });
        answers
    }
}

fn to(server: Ipv4Addr) -> IpEndpoint {
    IpEndpoint::new(IpAddress::Ipv4(server), PORT)
}

impl Query {
    /// Whether a message answers this question.
    fn is_answer(&self, message: &[u8]) -> bool {
        let Some(question) = question_len(message) else {
            return false;
        };
        let packet = DnsPacket::new_unchecked(message);
        packet.flags().contains(DnsFlags::RESPONSE)
            && packet.transaction_id() == DnsPacket::new_unchecked(&self.message[..]).transaction_id()
            && message[HEADER..question].eq_ignore_ascii_case(&self.message[HEADER..self.question])
    }

    /// The message for the client; one that is too large becomes one that says so, and the client asks by
    /// TCP.
    fn answer(&self, message: &[u8], max: usize) -> Answer {
        let mut message = if message.len() <= max {
            message.to_vec()
        } else {
            empty_answer(
                &self.message,
                self.question,
                DnsFlags::TRUNCATED,
                DnsRcode::NoError,
            )
        };
        DnsPacket::new_unchecked(&mut message[..]).set_transaction_id(self.id);
        Answer {
            client: self.client,
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_question_has_a_port_of_its_own() {
        let mut sockets = SocketSet::new(vec![]);
        let mut forwarder = Forwarder::new(Random::new([1, 2], 3));
        let server = [Ipv4Addr::new(192, 0, 2, 2)];
        for n in 0..MAX as u8 {
            let client = Client {
                segment: 0,
                asker: Asker {
                    station: [2, 0, 0, 0, 0, n],
                    from: (IpAddr::from([10, 0, 0, n]), 4000),
                    to: IpAddr::from([10, 0, 0, 254]),
                },
            };
            let message = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
            let counters = Counters::default();
            let answer = forwarder.ask(0, client, message, &server, Some(&mut sockets), &counters);
            assert!(answer.is_none());
        }
        let ports: BTreeSet<u16> = forwarder.queries.iter().map(|query| query.port).collect();
        assert_eq!(ports.len(), MAX);
        assert!(ports.iter().all(|port| OWN_UDP.contains(port)));
    }
}
