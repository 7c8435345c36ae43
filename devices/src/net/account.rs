//! Who holds how much of the memory for frames.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::task::{Poll, Waker};

/// A party's share of the memory for frames.
///
/// What a client sends is charged to its account until whoever receives it has taken it, which keeps a client
/// that sends faster than others take from holding everything.
pub struct Account {
    used: Cell<usize>,
    limit: usize,
    /// Tasks that wait for room.
    waiting: RefCell<Vec<Waker>>,
}

/// Memory on an account, given back when it is dropped.
pub struct Charge {
    account: Rc<Account>,
    bytes: usize,
}

impl Account {
    /// An account with room for `limit` bytes.
    pub fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self {
            used: Cell::new(0),
            limit,
            waiting: RefCell::default(),
        })
    }

    /// Takes room for `bytes`, if there is enough left.
    pub fn charge(self: &Rc<Self>, bytes: usize) -> Option<Charge> {
        let used = self.used.get().checked_add(bytes)?;
        if used > self.limit {
            return None;
        }
        self.used.set(used);
        Some(Charge {
            account: self.clone(),
            bytes,
        })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// Bytes that may be in use.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// `Ready` if there is room for `bytes`; `Pending` wakes the task when something was given back.
    pub fn poll_room(&self, bytes: usize, waker: &Waker) -> Poll<()> {
        if self.used.get() + bytes <= self.limit {
            return Poll::Ready(());
        }
        let wakers = &mut self.waiting.borrow_mut();
        if !wakers.iter().any(|it| it.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        Poll::Pending
    }
}

impl Charge {
    /// Whose account it is on.
    pub fn account(&self) -> &Rc<Account> {
        &self.account
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.used.set(self.account.used.get() - self.bytes);
        let wakers = self.account.waiting.take();
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_are_given_back() {
        let account = Account::new(100);
        let first = account.charge(60).unwrap();
        assert!(account.charge(41).is_none());
        assert!(account.charge(usize::MAX).is_none());
        assert!(account.poll_room(41, Waker::noop()).is_pending());
        let second = account.charge(40).unwrap();
        assert_eq!(account.used(), 100);
        drop((first, second));
        assert_eq!(account.used(), 0);
        assert!(account.poll_room(100, Waker::noop()).is_ready());
    }
}
