//! Counters over HTTP: `GET /metrics` is answered with what a function writes (Prometheus' text format).

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Duration;

use super::nat::Seconds;

/// Writes the counters.
pub type Text = Rc<dyn Fn(&mut dyn Write) -> fmt::Result>;

/// How many are served at a time.
const CONNECTIONS: usize = 4;
/// The most bytes of a request.
const MAX_REQUEST: usize = 2048;
/// The most bytes of a response.
const MAX_RESPONSE: usize = 512 << 10;
/// Bytes that are under way at a time.
const SEND_BUFFER: usize = 8192;
/// How long a connection may last, in seconds, and how long its other end may be silent.
const MAX_AGE: Seconds = 60;
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEADERS: usize = 32;

/// A server on one TCP port of one station.
pub struct Server {
    port: u16,
    counters: Rendered,
    connections: Vec<Connection>,
}

/// The counters as text. Writing them takes long, and anybody may ask: all who do in one second get the same.
struct Rendered {
    text: Text,
    last: Option<(Seconds, Rc<String>)>,
}

impl Rendered {
    /// As they are now, or were this second.
    fn get(&mut self, now: Seconds) -> Rc<String> {
        if let Some((_, text)) = self.last.as_ref().filter(|last| last.0 == now) {
            return text.clone();
        }
        let mut body = Bounded(String::new());
        // What does not fit is left out.
        let _ = (self.text)(&mut body);
        let text = Rc::new(body.0);
        self.last = Some((now, text.clone()));
        text
    }

    /// Frees what is older.
    fn forget(&mut self, now: Seconds) {
        self.last = self.last.take().filter(|last| last.0 == now);
    }
}

struct Connection {
    socket: SocketHandle,
    request: Vec<u8>,
    /// What is still to be sent, head and body, from this byte on; there once the request is complete.
    response: Option<(Response, usize)>,
    /// When it was accepted.
    since: Option<Seconds>,
}

/// A response: its head, and its body, which it may share with others.
struct Response {
    head: String,
    body: Rc<String>,
}

impl Response {
    fn new(status: &str, body: Rc<String>) -> Self {
        let head = alloc::format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        Self { head, body }
    }

    fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Some of the bytes from one on.
    fn rest(&self, from: usize) -> &[u8] {
        let head = self.head.as_bytes().get(from..).unwrap_or(&[]);
        match head {
            [] => self.body.as_bytes().get(from - self.head.len()..).unwrap_or(&[]),
            head => head,
        }
    }
}

/// A string that grows only so far, and only as far as there is memory; what does not fit is left out.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_RESPONSE || self.0.try_reserve(text.len()).is_err() {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

impl Server {
    /// A server among these sockets.
    pub fn new(port: u16, text: Text, sockets: &mut SocketSet<'static>) -> Self {
        let connections = (0..CONNECTIONS).map(|_| {
            let buffer = |size| tcp::SocketBuffer::new(vec![0; size]);
            let mut socket = tcp::Socket::new(buffer(MAX_REQUEST), buffer(SEND_BUFFER));
            socket.set_timeout(Some(TIMEOUT));
            Connection {
                socket: sockets.add(socket),
                request: Vec::new(),
                response: None,
                since: None,
            }
        });
        Self {
            port,
            counters: Rendered { text, last: None },
            connections: connections.collect(),
        }
    }

    /// Goes on with all connections.
    pub fn poll(&mut self, now: Seconds, sockets: &mut SocketSet<'static>) {
        self.counters.forget(now);
        for connection in &mut self.connections {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(connection.socket);
            connection.poll(now, socket, self.port, &mut self.counters);
        }
    }
}

impl Connection {
    fn poll(&mut self, now: Seconds, socket: &mut tcp::Socket<'_>, port: u16, counters: &mut Rendered) {
        if !socket.is_open() {
            self.request = Vec::new();
            self.response = None;
            self.since = None;
            // Fails for port 0 and for open sockets only.
            let _ = socket.listen(port);
            return;
        }
        if !socket.is_listening() {
            let since = *self.since.get_or_insert(now);
            if now.saturating_sub(since) >= MAX_AGE {
                socket.abort();
                return;
            }
        }
        if self.response.is_none() {
            self.receive(socket);
            self.response = respond(&self.request, || counters.get(now)).map(|response| (response, 0));
        }
        let Some((response, sent)) = &mut self.response else {
            if !socket.may_recv() && socket.may_send() {
                // There comes no more of the request.
                socket.close();
            }
            return;
        };
        // Whatever else comes is not looked at, but a window that stays open lets the other side finish.
        let _ = socket.recv(|bytes| (bytes.len(), ()));
        // Head, then body.
        for _ in 0..2 {
            if let Ok(more) = socket.send_slice(response.rest(*sent)) {
                *sent += more;
            }
        }
        if *sent == response.len() {
            socket.close();
        }
    }

    fn receive(&mut self, socket: &mut tcp::Socket<'_>) {
        let room = MAX_REQUEST - self.request.len();
        let _ = socket.recv(|bytes| {
            let len = bytes.len().min(room);
            self.request.extend_from_slice(&bytes[..len]);
            (len, ())
        });
    }
}

/// The response to a request, once that is complete, or wrong.
fn respond(request: &[u8], counters: impl FnOnce() -> Rc<String>) -> Option<Response> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let status = match parsed.parse(request) {
        Ok(httparse::Status::Partial) if request.len() < MAX_REQUEST => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            "431 Request Header Fields Too Large"
        }
        Err(_) => "400 Bad Request",
        Ok(httparse::Status::Complete(_)) => match (parsed.method, parsed.path) {
            (Some("GET"), Some("/metrics")) => {
                return Some(Response::new("200 OK", counters()));
            }
            (Some("GET"), _) => "404 Not Found",
            _ => "405 Method Not Allowed",
        },
    };
    Some(Response::new(status, Rc::new(alloc::format!("{status}\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::borrow::ToOwned;
    use std::cell::Cell;

    fn get(request: &[u8]) -> Option<String> {
        let counters = || Rc::new(String::from("a 1\n"));
        respond(request, counters).map(|response| response.head + &response.body)
    }

    #[test]
    fn requests() {
        let good = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        let response = get(good).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\na 1\n"));
        assert!(response.contains("Content-Length: 4\r\n"));
        for len in 0..good.len() {
            assert_eq!(get(&good[..len]), None);
        }
        let status = |request: &[u8]| get(request).unwrap()[9..12].parse::<u16>().unwrap();
        assert_eq!(status(b"GET / HTTP/1.0\r\n\r\n"), 404);
        assert_eq!(status(b"POST /metrics HTTP/1.0\r\n\r\n"), 405);
        assert_eq!(status(b"\x16\x03\x01\x02"), 400);
        assert_eq!(status(&[b"GET /", &[b'a'; MAX_REQUEST][..]].concat()), 431);
    }

    #[test]
    fn one_rendering_a_second() {
        let count = Rc::new(Cell::new(0));
        let counted = count.clone();
        let text: Text = Rc::new(move |to| {
            counted.set(counted.get() + 1);
            write!(to, "a {}", counted.get())
        });
        let mut rendered = Rendered { text, last: None };
        let mut get = |now| {
            rendered.forget(now);
            rendered.get(now).as_str().to_owned()
        };
        let got = [1, 1, 1, 2, 2].map(&mut get);
        assert_eq!(got, ["a 1", "a 1", "a 1", "a 2", "a 2"]);
        assert_eq!(count.get(), 2);
        rendered.forget(3);
        assert!(rendered.last.is_none());
    }

    proptest! {
        #[test]
        fn any_bytes(request in prop::collection::vec(any::<u8>(), 0..MAX_REQUEST)) {
            get(&request);
        }
    }
}
