//! Requests that wait to be sent, in turns between those whose they are.

use alloc::collections::{TryReserveError, VecDeque};
use alloc::vec::Vec;

/// A queue that is first come, first served for each party, and gives parties turns of one request: who has
/// many does not keep one who has few waiting for all of them.
#[derive(Default)]
pub(super) struct Turns {
    /// Parties that have requests, the one whose turn it is first.
    parties: VecDeque<Party>,
    /// By a request's key: the key of the same party's next one, if there is one.
    next: Vec<u32>,
}

/// One who has requests.
struct Party {
    number: usize,
    first: u32,
    last: u32,
}

impl Turns {
    pub const fn new() -> Self {
        Self {
            parties: VecDeque::new(),
            next: Vec::new(),
        }
    }

    /// Makes room for requests with keys below this.
    pub fn reserve(&mut self, keys: usize) -> Result<(), TryReserveError> {
        self.next.try_reserve(keys.saturating_sub(self.next.len()))
    }

    /// Adds a request of a party's, which is not in the queue.
    pub fn push(&mut self, party: usize, key: usize) {
        if self.next.len() <= key {
            self.next.resize(key + 1, 0);
        }
        let (number, key) = (party, key as u32);
        match self.parties.iter_mut().find(|it| it.number == number) {
            Some(party) => {
                self.next[party.last as usize] = key;
                party.last = key;
            }
            None => self.parties.push_back(Party {
                number,
                first: key,
                last: key,
            }),
        }
    }

    /// The request whose turn it is: the same one until it is [taken](Self::pop).
    pub fn front(&self) -> Option<usize> {
        Some(self.parties.front()?.first as usize)
    }

    /// Takes out the request whose turn it is.
    pub fn pop(&mut self) -> Option<usize> {
        let mut party = self.parties.pop_front()?;
        let key = party.first;
        if key != party.last {
            party.first = self.next[key as usize];
            self.parties.push_back(party);
        }
        Some(key as usize)
    }

    /// Keeps only what `keep` selects.
    pub fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let next = &mut self.next;
        self.parties.retain_mut(|party| {
            let (mut key, end, mut kept) = (party.first, party.last, None);
            loop {
                if keep(key as usize) {
                    match kept {
                        Some(before) => next[before as usize] = key,
                        None => party.first = key,
                    }
                    (kept, party.last) = (Some(key), key);
                }
                if key == end {
                    return kept.is_some();
                }
                key = next[key as usize];
            }
        });
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.parties.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parties_take_turns_and_keep_their_order() {
        let mut turns = Turns::new();
        for key in 0..4 {
            turns.push(0, key);
        }
        turns.push(1, 10);
        turns.push(1, 11);
        turns.push(2, 20);
        turns.push(3, 30);
        assert_eq!(turns.front(), Some(0));
        turns.retain(|key| key != 2 && key != 30);
        let order: Vec<_> = core::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [0, 10, 20, 1, 11, 3]);
        assert!(turns.parties.is_empty());
    }

    proptest! {
        /// Each party's requests stay in their order, whatever is taken out in between.
        #[test]
        fn like_a_queue_for_each_party(steps in prop::collection::vec((0..8, 0..3usize, 0..40usize), 0..200)) {
            let mut turns = Turns::new();
            let mut queues: VecDeque<(usize, VecDeque<usize>)> = VecDeque::new();
            for (what, party, key) in steps {
                let queued = queues.iter().any(|(_, keys)| keys.contains(&key));
                match what {
                    0 => {
                        let taken = queues.pop_front().map(|(party, mut keys)| {
                            let key = keys.pop_front();
                            if !keys.is_empty() {
                                queues.push_back((party, keys));
                            }
                            key.unwrap()
                        });
                        prop_assert_eq!(turns.front(), taken);
                        prop_assert_eq!(turns.pop(), taken);
                    }
                    1 => {
                        turns.retain(|it| it % 7 != key % 7);
                        queues.iter_mut().for_each(|(_, keys)| keys.retain(|it| it % 7 != key % 7));
                        queues.retain(|(_, keys)| !keys.is_empty());
                    }
                    _ if queued => {}
                    _ => {
                        turns.push(party, key);
                        match queues.iter_mut().find(|it| it.0 == party) {
                            Some((_, keys)) => keys.push_back(key),
                            None => queues.push_back((party, VecDeque::from([key]))),
                        }
                    }
                }
            }
            let rest: usize = queues.iter().map(|(_, keys)| keys.len()).sum();
            prop_assert_eq!(core::iter::from_fn(|| turns.pop()).count(), rest);
        }
    }
}
