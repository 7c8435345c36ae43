//! What the back end of a virtio-msg bus does next, from what it sees in xenstore: `docs/virtio-msg-xen.md` sections 1.2
//! and 7, as one function without side effects.

use crate::xenbus::State;

/// What xenstore and the back end's own memory say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// The state in the back end's own directory, which the toolstack writes too. `None` when the directory is gone.
    pub own: Option<State>,
    /// The toolstack wants the device: `online` is not 0.
    pub online: bool,
    /// The state in the front end's directory. `None` when the directory, or the node, is gone.
    pub front: Option<State>,
    /// There is a connection: a mapped message page and what hangs on it.
    pub connected: bool,
}

/// The next step. After each, the situation is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait until something changes.
    Wait,
    /// Write the nodes that a front end needs and enter InitWait.
    Offer,
    /// Read the front end's nodes, connect, enter Connected.
    Connect,
    /// Enter Closing; an existing connection goes on answering messages.
    Close,
    /// End the connection, if there is one, and enter Closed.
    End,
    /// End the connection without a word: the directory is gone, or it has to go. The device is done with.
    Finish,
}

impl Situation {
    /// The next step.
    pub fn step(self) -> Step {
        use State::{Closed, Closing, Connected, InitWait, Initialised, Initialising};
        let Some(own) = self.own else { return Step::Finish };
        let Some(front) = self.front else {
            // The guest is dead or the toolstack removes the device by force: there is nobody to wait for.
            return match own {
                Closed if !self.connected => {
                    if self.online {
                        Step::Wait
                    } else {
                        Step::Finish
                    }
                }
                _ => Step::End,
            };
        };
        match own {
            Closed if self.connected => Step::End,
            Closed if !self.online => Step::Finish,
            Closed if front == Initialising => Step::Offer,
            Closed => Step::Wait,

            // Whoever is not connected has nothing to let go of.
            Closing if !self.connected || front == Closed || front == Initialising => Step::End,
            Closing => Step::Wait,

            _ if !self.online => Step::Close,

            InitWait if self.connected || front == Closed => Step::End,
            InitWait if front == Initialised || front == Connected => Step::Connect,
            InitWait if front == Closing => Step::Close,
            InitWait => Step::Wait,

            // A connection that was lost, by a broken rule, or by somebody writing the state.
            Connected if !self.connected => Step::Close,
            Connected if front == Closing => Step::Close,
            // Closed without Closing before, or a new driver that knows nothing of the old one's connection.
            Connected if front == Closed || front == Initialising => Step::End,
            Connected => Step::Wait,

            _ if self.connected => Step::End,
            _ => Step::Offer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Situation> {
        let nodes = || State::ALL.into_iter().map(Some).chain([None]);
        nodes().flat_map(move |own| {
            nodes().flat_map(move |front| {
                [(false, false), (false, true), (true, false), (true, true)].map(|(online, connected)| {
                    Situation {
                        own,
                        online,
                        front,
                        connected,
                    }
                })
            })
        })
    }

    /// The situation after a step, if nobody else does anything. `None` after the last one.
    fn after(situation: Situation, step: Step) -> Option<Situation> {
        Some(match step {
            Step::Wait => situation,
            Step::Offer => Situation {
                own: Some(State::InitWait),
                ..situation
            },
            Step::Connect => Situation {
                own: Some(State::Connected),
                connected: true,
                ..situation
            },
            Step::Close => Situation {
                own: Some(State::Closing),
                ..situation
            },
            Step::End => Situation {
                own: Some(State::Closed),
                connected: false,
                ..situation
            },
            Step::Finish => return None,
        })
    }

    /// From every situation, a few steps lead to waiting or to the end: no event makes it spin.
    #[test]
    fn it_settles() {
        for start in all() {
            let mut situation = start;
            let settled = (0..6).any(|_| {
                let step = situation.step();
                match after(situation, step) {
                    Some(next) => situation = next,
                    None => return true,
                }
                step == Step::Wait
            });
            assert!(settled, "{start:?}");
        }
    }

    #[test]
    fn a_dead_guest_holds_nothing() {
        for start in all().filter(|s| s.front.is_none() || s.own.is_none()) {
            let mut situation = start;
            loop {
                let step = situation.step();
                assert!(
                    matches!(step, Step::End | Step::Wait | Step::Finish),
                    "{start:?}: {step:?}"
                );
                match after(situation, step) {
                    None => break,
                    Some(next) if step == Step::Wait => {
                        assert!(!next.connected, "{start:?}");
                        break;
                    }
                    Some(next) => situation = next,
                }
            }
        }
    }

    #[test]
    fn what_goes_offline_ends() {
        for start in all().filter(|s| !s.online && !s.connected) {
            let mut situation = start;
            while let Some(next) = after(situation, situation.step()) {
                assert_ne!(situation.step(), Step::Wait, "{start:?}");
                situation = next;
            }
        }
    }

    #[test]
    fn connections_are_made_only_from_init_wait_and_never_twice() {
        for situation in all().filter(|s| s.step() == Step::Connect) {
            assert_eq!(situation.own, Some(State::InitWait));
            assert!(!situation.connected && situation.online);
        }
    }

    /// Linux waits, when it shuts down, to see the back end in Closing.
    #[test]
    fn an_orderly_goodbye_passes_through_closing() {
        let mut situation = Situation {
            own: Some(State::Connected),
            online: true,
            front: Some(State::Closing),
            connected: true,
        };
        assert_eq!(situation.step(), Step::Close);
        situation = after(situation, Step::Close).unwrap();
        assert_eq!(situation.step(), Step::Wait);
        situation.front = Some(State::Closed);
        assert_eq!(situation.step(), Step::End);
        situation = after(situation, Step::End).unwrap();
        assert_eq!(situation.step(), Step::Wait);
        situation.front = Some(State::Initialising);
        assert_eq!(situation.step(), Step::Offer);
    }

    /// The toolstack asks for removal: the front end's driver still gets its answers.
    #[test]
    fn hot_unplug_waits_for_the_driver() {
        let situation = Situation {
            own: Some(State::Closing),
            online: false,
            front: Some(State::Connected),
            connected: true,
        };
        assert_eq!(situation.step(), Step::Wait);
        let closed = Situation {
            front: Some(State::Closed),
            ..situation
        };
        assert_eq!(closed.step(), Step::End);
        assert_eq!(after(closed, Step::End).unwrap().step(), Step::Finish);
    }
}
