//! Transactions: changes that happen at once or not at all.

use alloc::string::String;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use super::client::Client;
use super::message::Kind;
use super::requests::Requests;
use super::{Error, text};

/// Transactions that are open at a time; further ones wait. Daemons allow a domain 10 by default, and some
/// may just be ending.
pub(super) const TRANSACTIONS: usize = 8;
/// How often a transaction is tried before its conflicts are reported.
const TRANSACTION_TRIES: u32 = 64;

impl Client {
    /// Runs `body` in a transaction and commits it: all its changes happen at once or not at all. When others
    /// interfere, it is run again from the start.
    ///
    /// # Errors
    /// That of the body, whose changes are discarded then; [`Error::Again`] if others interfere every time;
    /// what the daemon says to begin or end it.
    pub async fn transaction<T>(
        &self,
        mut body: impl AsyncFnMut(&Transaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _turn = self.turn().await;
        for _ in 0..TRANSACTION_TRIES {
            let payload = self.request(Kind::TransactionStart, 0, &[b"\0"]).await?;
            let mut transaction = Transaction {
                client: self.clone(),
                id: transaction_id(&payload)?,
                open: true,
            };
            let result = match body(&transaction).await {
                Ok(value) => transaction.commit().await.map(|()| value),
                Err(error) => Err(error),
            };
            if result.as_ref().err() != Some(&Error::Again) {
                return result;
            }
        }
        Err(Error::Again)
    }

    /// Waits until one more transaction may be open.
    async fn turn(&self) -> Turn<'_> {
        poll_fn(|context| {
            let mut state = self.0.state.borrow_mut();
            if state.transactions < TRANSACTIONS {
                state.transactions += 1;
                return Poll::Ready(Turn(self));
            }
            let waiting = &mut state.waiting_for_turn;
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// The right to have a transaction open, until dropped.
struct Turn<'a>(&'a Client);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.0.state.borrow_mut();
        state.transactions -= 1;
        // All are woken, since the first may have stopped waiting.
        let waiting = core::mem::take(&mut state.waiting_for_turn);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Changes that happen at once or not at all; see [`Client::transaction`].
pub struct Transaction {
    client: Client,
    id: u32,
    open: bool,
}

impl Transaction {
    fn requests(&self) -> Requests<'_> {
        Requests {
            client: &self.client,
            transaction: self.id,
        }
    }

    /// As [`Client::read`].
    pub async fn read(&self, path: &str) -> Result<String, Error> {
        self.requests().read(path).await
    }

    /// As [`Client::write`].
    pub async fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.requests().write(path, value).await
    }

    /// As [`Client::remove`].
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        self.requests().remove(path).await
    }

    /// As [`Client::list`].
    pub async fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        self.requests().list(path).await
    }

    async fn commit(&mut self) -> Result<(), Error> {
        let reply = self
            .client
            .request(Kind::TransactionEnd, self.id, &[b"T\0"])
            .await;
        // Whatever the daemon answered, the transaction is over.
        self.open = false;
        reply.map(drop)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.open {
            self.client.send(Kind::TransactionEnd, self.id, &[b"F\0"]);
        }
    }
}

/// The number that the daemon gives to a transaction.
pub(super) fn transaction_id(payload: &[u8]) -> Result<u32, Error> {
    let digits = payload.strip_suffix(b"\0").unwrap_or(payload);
    match text(digits)?.parse() {
        Ok(0) | Err(_) => Err(Error::Malformed),
        Ok(id) => Ok(id),
    }
}
