//! Requests that wait to be sent, in turns between those whose they are.

use alloc::collections::VecDeque;

/// A queue that is first come, first served for each party, and gives parties turns of one request: who has
/// many does not keep one who has few waiting for all of them.
#[derive(Default)]
pub(super) struct Turns {
    /// Parties that have requests, the one whose turn it is first.
    parties: VecDeque<(usize, VecDeque<usize>)>,
}

impl Turns {
    pub const fn new() -> Self {
        Self {
            parties: VecDeque::new(),
        }
    }

    /// Adds a request of a party's.
    pub fn push(&mut self, party: usize, key: usize) {
        match self.parties.iter_mut().find(|it| it.0 == party) {
            Some((_, keys)) => keys.push_back(key),
            None => self.parties.push_back((party, VecDeque::from([key]))),
        }
    }

    /// The request whose turn it is: the same one until it is [taken](Self::pop).
    pub fn front(&self) -> Option<usize> {
        self.parties.front()?.1.front().copied()
    }

    /// Takes out the request whose turn it is.
    pub fn pop(&mut self) -> Option<usize> {
        let (party, mut keys) = self.parties.pop_front()?;
        let key = keys.pop_front();
        if !keys.is_empty() {
            self.parties.push_back((party, keys));
        }
        key
    }

    /// Keeps only what `keep` selects.
    pub fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        for (_, keys) in &mut self.parties {
            keys.retain(|key| keep(*key));
        }
        self.parties.retain(|(_, keys)| !keys.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_take_turns_and_keep_their_order() {
        let mut turns = Turns::new();
        for key in 0..4 {
            turns.push(0, key);
        }
        turns.push(1, 10);
        turns.push(1, 11);
        turns.push(2, 20);
        assert_eq!(turns.front(), Some(0));
        turns.retain(|key| key != 2);
        let order: Vec<_> = core::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [0, 10, 20, 1, 11, 3]);
        assert!(turns.parties.is_empty());
    }
}
