//! Watches and their events.

use alloc::{collections::VecDeque, string::String};
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

use super::client::Client;

/// The most events that a watch holds back for its task.
const QUEUE: usize = 32;

/// Whether a path is another one, or below it.
pub(super) fn is_within(path: &str, other: &str) -> bool {
    path.strip_prefix(other)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || other.ends_with('/'))
}

/// The events of one watch that its task has not taken yet.
pub(super) struct Events {
    path: String,
    /// The token of the registration that they come from.
    registration: u32,
    queue: VecDeque<String>,
    waker: Option<Waker>,
}

impl Events {
    pub(super) fn new(path: String, registration: u32) -> Self {
        Self {
            path,
            registration,
            queue: VecDeque::new(),
            waker: None,
        }
    }

    pub(super) fn registration(&self) -> u32 {
        self.registration
    }

    /// Takes an event of a registration, if it is one of this watch's: a change there or below, or of
    /// something above, with which the path may have gone.
    pub(super) fn see(&mut self, path: &str) -> Option<Waker> {
        if is_within(path, &self.path) {
            self.push(path.into())
        } else if is_within(&self.path, path) {
            self.push(self.path.clone())
        } else {
            None
        }
    }

    /// Adds an event, unless one for the same path waits. Too many become one for the watched path itself.
    fn push(&mut self, path: String) -> Option<Waker> {
        if !self.queue.contains(&path) {
            if self.queue.len() == QUEUE {
                self.queue.clear();
                self.queue.push_back(self.path.clone());
            } else {
                self.queue.push_back(path);
            }
        }
        self.waker.take()
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<String> {
        match self.queue.pop_front() {
            Some(path) => Poll::Ready(path),
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A watch: a stream of changes at and below a path, until it is dropped.
pub struct Watch {
    client: Client,
    id: u32,
}

impl Watch {
    pub(super) fn new(client: Client, id: u32) -> Self {
        Self { client, id }
    }

    /// Waits for the next change and returns the path that changed, in the form (absolute or relative) that
    /// was watched.
    ///
    /// Several changes of one path count as one. If many paths change before they are taken, the watched path
    /// itself stands for all: anything below it may have changed. The first event comes when the watch is set
    /// up. Events may come without a change.
    pub async fn next(&mut self) -> String {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The next change, or registers the task to be woken by it.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<String> {
        self.client.poll_watch(self.id, context)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.client.unwatch(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(events: &mut Events) -> Vec<String> {
        let mut context = Context::from_waker(Waker::noop());
        let mut taken = Vec::new();
        while let Poll::Ready(path) = events.poll(&mut context) {
            taken.push(path);
        }
        taken
    }

    #[test]
    fn events_are_merged_by_path() {
        let mut events = Events::new("a".into(), 1);
        for path in ["a/b", "a/c", "a/b"] {
            events.push(path.into());
        }
        assert_eq!(take(&mut events), ["a/b", "a/c"]);
        events.push("a/b".into());
        assert_eq!(take(&mut events), ["a/b"]);
    }

    #[test]
    fn too_many_events_become_one() {
        let mut events = Events::new("a".into(), 1);
        for i in 0..1000 {
            events.push(format!("a/{i}"));
        }
        let taken = take(&mut events);
        assert!(
            taken.len() <= QUEUE && taken.contains(&"a".to_owned()),
            "{taken:?}"
        );
    }
}
