//! The client against a model of the daemon, and against a daemon that does not keep to the protocol.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::super::message::{HEADER, Header};
use super::super::transaction::TRANSACTIONS;
use super::super::{Permission, Right};
use super::*;

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

fn client() -> Client {
    Client::new(|| CALLS.set(CALLS.get() + 1))
}

fn message(kind: u32, request: u32, payload: &[u8]) -> Vec<u8> {
    let words = [kind, request, 0, payload.len() as u32];
    words
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .chain(payload.iter().copied())
        .collect()
}

/// Everything that the client has to send.
fn sent(client: &Client) -> Vec<Message> {
    let mut bytes = Vec::new();
    let mut room = [0; 100];
    loop {
        let count = client.output(&mut room);
        bytes.extend_from_slice(&room[..count]);
        if count == 0 {
            break;
        }
    }
    let mut decoder = Decoder::default();
    let mut input = bytes.as_slice();
    std::iter::from_fn(|| decoder.decode(&mut input).unwrap()).collect()
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A small model of the daemon.
#[derive(Default)]
struct Daemon {
    nodes: BTreeMap<String, Vec<u8>>,
    watches: Vec<(String, String)>,
    transactions: BTreeMap<u32, BTreeMap<String, Vec<u8>>>,
    last_transaction: u32,
    /// How many commits fail from now on.
    conflicts: u32,
    /// Lists longer than this are refused, and given in parts of this size.
    list_limit: usize,
    generation: u64,
}

impl Daemon {
    fn new() -> Self {
        Self {
            list_limit: 4096,
            ..Self::default()
        }
    }

    fn serve(&mut self, client: &Client) {
        for Message { header, payload } in sent(client) {
            let mut events = Vec::new();
            let (kind, reply) = match self.answer(header, &payload, &mut events) {
                Ok(reply) => (header.kind, reply),
                Err(name) => (Kind::Error as u32, [name.as_bytes(), b"\0"].concat()),
            };
            client.input(&message(kind, header.request, &reply));
            for (path, token) in events {
                let payload = format!("{path}\0{token}\0");
                client.input(&message(Kind::WatchEvent as u32, 0, payload.as_bytes()));
            }
        }
    }

    fn answer(
        &mut self,
        header: Header,
        payload: &[u8],
        events: &mut Vec<(String, String)>,
    ) -> Result<Vec<u8>, &'static str> {
        let ok = Ok(b"OK\0".to_vec());
        let nul = payload.iter().position(|&byte| byte == 0).ok_or("EINVAL")?;
        let path = String::from_utf8(payload[..nul].to_vec()).map_err(|_| "EINVAL")?;
        let rest = &payload[nul + 1..];
        let nodes = match header.transaction {
            0 => &mut self.nodes,
            id => self.transactions.get_mut(&id).ok_or("ENOENT")?,
        };
        let children = |nodes: &BTreeMap<String, Vec<u8>>| -> Vec<u8> {
            let prefix = format!("{path}/");
            let names = nodes
                .keys()
                .filter_map(|key| key.strip_prefix(&prefix))
                .filter(|name| !name.contains('/'));
            names.flat_map(|name| format!("{name}\0").into_bytes()).collect()
        };
        match header.kind {
            1 => {
                let list = children(nodes);
                if list.len() > self.list_limit {
                    Err("E2BIG")
                } else {
                    Ok(list)
                }
            }
            2 => nodes.get(&path).cloned().ok_or("ENOENT"),
            3 => Ok(b"n0\0r5\0".to_vec()),
            4 => {
                let token = String::from_utf8(rest[..rest.len() - 1].to_vec()).unwrap();
                events.push((path.clone(), token.clone()));
                self.watches.push((path, token));
                ok
            }
            5 => {
                let before = self.watches.len();
                self.watches.retain(|(watched, token)| {
                    (watched.as_str(), format!("{token}\0").as_bytes()) != (path.as_str(), rest)
                });
                if self.watches.len() == before {
                    Err("ENOENT")
                } else {
                    ok
                }
            }
            6 => {
                self.last_transaction += 1;
                self.transactions
                    .insert(self.last_transaction, self.nodes.clone());
                Ok(format!("{}\0", self.last_transaction).into_bytes())
            }
            7 => {
                let nodes = self.transactions.remove(&header.transaction).ok_or("ENOENT")?;
                if path == "T" {
                    if self.conflicts > 0 {
                        self.conflicts -= 1;
                        return Err("EAGAIN");
                    }
                    self.nodes = nodes;
                }
                ok
            }
            11 => {
                nodes.insert(path.clone(), rest.to_vec());
                for (watched, token) in &self.watches {
                    if path.starts_with(watched) {
                        events.push((path.clone(), token.clone()));
                    }
                }
                ok
            }
            13 => {
                nodes.retain(|key, _| key != &path && !key.starts_with(&format!("{path}/")));
                for (watched, token) in &self.watches {
                    if path.starts_with(watched) {
                        events.push((path.clone(), token.clone()));
                    } else if watched.starts_with(&path) {
                        events.push((watched.clone(), token.clone()));
                    }
                }
                ok
            }
            14 => {
                if rest == b"n3\0b4\0" {
                    ok
                } else {
                    Err("EINVAL")
                }
            }
            22 => {
                let offset: usize = std::str::from_utf8(&rest[..rest.len() - 1])
                    .unwrap()
                    .parse()
                    .unwrap();
                let list = children(nodes);
                let mut end = offset;
                while let Some(len) = list[end..].iter().position(|&byte| byte == 0) {
                    if end + len + 1 - offset > self.list_limit {
                        break;
                    }
                    end += len + 1;
                }
                let mut reply = format!("{}\0", self.generation).into_bytes();
                reply.extend_from_slice(&list[offset..end]);
                if end == list.len() {
                    reply.push(0);
                }
                Ok(reply)
            }
            _ => Err("ENOSYS"),
        }
    }

    /// Runs a future to its end.
    fn run<F: Future>(&mut self, client: &Client, future: F) -> F::Output {
        let mut future = pin!(future);
        for _ in 0..10_000 {
            if let Poll::Ready(output) = poll(future.as_mut()) {
                return output;
            }
            self.serve(client);
        }
        panic!("the future makes no progress");
    }
}

#[test]
fn reads_writes_lists_and_removes() {
    let (client, mut daemon) = (client(), Daemon::new());
    daemon.run(&client, async {
        client.write("a/b", "1").await.unwrap();
        client.write("a/c", "").await.unwrap();
        assert_eq!(client.read("a/b").await.unwrap(), "1");
        assert_eq!(client.list("a").await.unwrap(), ["b", "c"]);
        client.remove("a").await.unwrap();
        assert_eq!(client.read("a/b").await, Err(Error::NoEntry));
        assert_eq!(client.read("a/b/").await, Err(Error::Invalid));
        assert_eq!(client.write("a", &"x".repeat(4096)).await, Err(Error::TooBig));
        let expected = [
            Permission {
                domid: 0,
                right: Right::None,
            },
            Permission {
                domid: 5,
                right: Right::Read,
            },
        ];
        assert_eq!(client.permissions("a").await.unwrap(), expected);
        let wanted = [
            Permission {
                domid: 3,
                right: Right::None,
            },
            Permission {
                domid: 4,
                right: Right::Both,
            },
        ];
        client.set_permissions("a", &wanted).await.unwrap();
    });
    assert!(CALLS.get() > 0);
}

#[test]
fn replies_come_in_any_order() {
    let client = client();
    let (mut first, mut second) = (pin!(client.read("a")), pin!(client.read("b")));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    let requests = sent(&client);
    client.input(&message(2, requests[1].header.request, b"2"));
    client.input(&message(2, 12345, b"to nobody"));
    client.input(&message(2, requests[0].header.request, b"1"));
    client.input(&message(2, requests[0].header.request, b"again"));
    assert_eq!(poll(first.as_mut()), Poll::Ready(Ok("1".into())));
    assert_eq!(poll(second.as_mut()), Poll::Ready(Ok("2".into())));
    assert!(client.0.state.borrow().requests.is_empty());
}

#[test]
fn a_reply_of_another_kind_is_an_error() {
    let client = client();
    let mut read = pin!(client.read("a"));
    assert!(poll(read.as_mut()).is_pending());
    let request = sent(&client)[0].header.request;
    client.input(&message(11, request, b"OK\0"));
    assert_eq!(poll(read.as_mut()), Poll::Ready(Err(Error::Malformed)));
}

#[test]
fn a_broken_connection_fails_everything() {
    let client = client();
    let mut read = pin!(client.read("a"));
    assert!(poll(read.as_mut()).is_pending());
    client.input(&[0xff; HEADER]);
    assert_eq!(poll(read.as_mut()), Poll::Ready(Err(Error::Broken)));
    assert_eq!(poll(pin!(client.read("b"))), Poll::Ready(Err(Error::Broken)));
}

#[test]
fn abandoned_requests_are_forgotten_and_their_transactions_ended() {
    let client = client();
    let mut daemon = Daemon::new();
    for polls in 0..6 {
        let mut transaction = Box::pin(client.transaction(async |t| t.write("a", "1").await));
        // Dropped after each number of steps, both with and without the last reply having come.
        for step in 0..polls {
            if poll(transaction.as_mut()).is_ready() {
                break;
            }
            if step % 2 == 0 || step + 1 < polls {
                daemon.serve(&client);
            }
        }
        drop(transaction);
        daemon.serve(&client);
        daemon.serve(&client);
        assert!(daemon.transactions.is_empty(), "after {polls} polls");
        assert!(client.0.state.borrow().requests.is_empty());
    }
}

#[test]
fn so_many_transactions_at_a_time() {
    let client = client();
    let mut daemon = Daemon::new();
    let mut tasks: Vec<_> = (0..3 * TRANSACTIONS)
        .map(|_| {
            let client = client.clone();
            Box::pin(async move { client.transaction(async |t| t.write("a", "1").await).await })
        })
        .collect();
    // One that stops waiting for its turn takes nothing with it.
    for task in &mut tasks {
        assert!(poll(task.as_mut()).is_pending());
    }
    drop(tasks.pop());
    let mut rounds = 0;
    while !tasks.is_empty() {
        daemon.serve(&client);
        assert!(daemon.transactions.len() <= TRANSACTIONS);
        tasks.retain_mut(|task| match poll(task.as_mut()) {
            Poll::Ready(result) => {
                assert_eq!(result, Ok(()));
                false
            }
            Poll::Pending => true,
        });
        rounds += 1;
        assert!(rounds < 100, "{} transactions are stuck", tasks.len());
    }
    assert!(daemon.transactions.is_empty());
}

#[test]
fn transactions_are_repeated_on_conflict() {
    let (client, mut daemon) = (client(), Daemon::new());
    daemon.conflicts = 3;
    let runs = Cell::new(0);
    let result = daemon.run(
        &client,
        client.transaction(async |t| {
            runs.set(runs.get() + 1);
            t.write("a", "1").await?;
            t.read("a").await
        }),
    );
    assert_eq!((result, runs.get()), (Ok("1".into()), 4));
    daemon.conflicts = 1000;
    let result = daemon.run(&client, client.transaction(async |t| t.remove("a").await));
    assert_eq!(result, Err(Error::Again));
    let result = daemon.run(
        &client,
        client.transaction(async |t| {
            t.write("b", "2").await?;
            Err::<(), _>(Error::Malformed)
        }),
    );
    daemon.serve(&client);
    assert_eq!(result, Err(Error::Malformed));
    assert!(daemon.transactions.is_empty() && !daemon.nodes.contains_key("b"));
}

#[test]
fn watches_fire_until_dropped() {
    let (client, mut daemon) = (client(), Daemon::new());
    let mut watch = daemon.run(&client, client.watch("a")).unwrap();
    assert_eq!(daemon.run(&client, watch.next()), "a");
    daemon.run(&client, client.write("a/b", "1")).unwrap();
    daemon.run(&client, client.write("c", "1")).unwrap();
    assert_eq!(daemon.run(&client, watch.next()), "a/b");
    assert!(poll(pin!(watch.next())).is_pending());
    drop(watch);
    daemon.serve(&client);
    assert!(daemon.watches.is_empty());
    client.input(&message(15, 0, b"a/b\x001\0"));
    for malformed in [
        &b""[..],
        b"\0",
        b"a",
        b"a\0x\0",
        b"a\099999999999\0",
        b"\xff\x001\0",
    ] {
        client.input(&message(15, 0, malformed));
    }
}

#[test]
fn a_watch_within_another_one_costs_the_daemon_nothing() {
    let (client, mut daemon) = (client(), Daemon::new());
    let wide = daemon.run(&client, client.watch("a")).unwrap();
    let [mut one, mut other] = ["a/1", "a/12/x"].map(|path| daemon.run(&client, client.watch(path)).unwrap());
    let same = daemon.run(&client, client.watch("a/1")).unwrap();
    assert_eq!(daemon.watches, [("a".to_owned(), "1".to_owned())]);
    assert_eq!(daemon.run(&client, one.next()), "a/1");
    assert_eq!(daemon.run(&client, other.next()), "a/12/x");
    let quiet = |watch: &mut Watch| poll(pin!(watch.next())).is_pending();

    daemon.run(&client, client.write("a/1/y", "1")).unwrap();
    assert_eq!(daemon.run(&client, one.next()), "a/1/y");
    assert!(quiet(&mut one) && quiet(&mut other));
    // What is above goes with all that is below.
    daemon.run(&client, client.remove("a/12")).unwrap();
    assert_eq!(daemon.run(&client, other.next()), "a/12/x");
    assert!(quiet(&mut one) && quiet(&mut other));
    // It does not depend on the other one's staying.
    drop((wide, same));
    daemon.run(&client, client.write("a/12/x", "1")).unwrap();
    assert_eq!(daemon.run(&client, other.next()), "a/12/x");
    drop((one, other));
    daemon.serve(&client);
    assert!(daemon.watches.is_empty());

    // A path that only begins the same is another one, and so is one that nobody knows to be watched yet.
    let _narrow = daemon.run(&client, client.watch("b/1")).unwrap();
    let _longer = daemon.run(&client, client.watch("b/12")).unwrap();
    let _wider = daemon.run(&client, client.watch("b")).unwrap();
    assert_eq!(daemon.watches.len(), 3);
    let mut early = pin!(client.watch("c"));
    assert!(poll(early.as_mut()).is_pending());
    let _within = daemon.run(&client, client.watch("c/1")).unwrap();
    assert_eq!(daemon.watches.len(), 5);
}

#[test]
fn long_lists_come_in_parts() {
    let (client, mut daemon) = (client(), Daemon::new());
    let names: Vec<String> = (100..200).map(|i| format!("child{i}")).collect();
    for name in &names {
        daemon.nodes.insert(format!("a/{name}"), Vec::new());
    }
    daemon.list_limit = 64;
    assert_eq!(daemon.run(&client, client.list("a")).unwrap(), names);

    // While the list changes between its parts, it is read again.
    let mut list = pin!(client.list("a"));
    for _ in 0..20 {
        assert!(poll(list.as_mut()).is_pending());
        daemon.generation += 1;
        daemon.serve(&client);
    }
    assert_eq!(daemon.run(&client, list).unwrap(), names);
}

#[test]
fn a_daemon_need_not_know_parts_of_lists() {
    let client = client();
    let mut list = pin!(client.list("a"));
    assert!(poll(list.as_mut()).is_pending());
    client.input(&message(
        Kind::Error as u32,
        sent(&client)[0].header.request,
        b"E2BIG\0",
    ));
    assert!(poll(list.as_mut()).is_pending());
    client.input(&message(INVALID, sent(&client)[0].header.request, b""));
    assert_eq!(poll(list.as_mut()), Poll::Ready(Err(Error::TooBig)));
}

#[test]
fn output_is_bounded() {
    let (client, mut daemon) = (client(), Daemon::new());
    let value = "x".repeat(3000);
    let mut writes: Vec<_> = (0..20).map(|_| Box::pin(client.write("a", &value))).collect();
    for write in &mut writes {
        assert!(poll(write.as_mut()).is_pending());
    }
    assert!(client.0.state.borrow().output.len() < OUTPUT_LIMIT + 4096);
    for write in writes {
        daemon.run(&client, write).unwrap();
    }
}

proptest! {
    #[test]
    fn no_daemon_makes_it_panic(chunks in proptest::collection::vec(
        prop_oneof![
            any::<Vec<u8>>(),
            (0..24_u32, 0..6_u32, any::<Vec<u8>>()).prop_map(|(kind, request, payload)| {
                message(kind, request, &payload)
            }),
        ],
        0..20,
    )) {
        let client = client();
        let mut watch = Box::pin(client.watch("w"));
        let mut list = Box::pin(client.list("a"));
        let mut transaction = Box::pin(client.transaction(async |t| t.read("a").await));
        let mut done = [false; 3];
        for chunk in chunks {
            client.input(&chunk);
            if !done[0] { done[0] = poll(watch.as_mut()).is_ready(); }
            if !done[1] { done[1] = poll(list.as_mut()).is_ready(); }
            if !done[2] { done[2] = poll(transaction.as_mut()).is_ready(); }
            sent(&client);
        }
    }
}
