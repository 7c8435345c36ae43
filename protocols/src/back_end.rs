//! What the back end of a virtio-msg bus does next, from what it sees in xenstore: `docs/virtio-msg-xen.md`
//! sections 1.2 and 7, as one function without side effects.

use crate::xenbus::State;

/// What xenstore and the back end's own memory say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Situation {
    /// The state in the back end's own directory, which the toolstack writes too. `None` when the directory
    /// is gone.
    pub own: Option<State>,
    /// The toolstack wants the device: `online` is not 0.
    pub online: bool,
    /// The state in the front end's directory. `None` when the directory, or the node, is gone.
    pub front: Option<State>,
    /// There is a connection: a mapped message page and what hangs on it.
    pub connected: bool,
}

/// The next step. After each, the situation is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    use std::collections::HashSet;

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

    /// Both ends of a device, and the toolstack.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct World {
        situation: Situation,
        /// What the back end is about to do, and the state that it saw when it decided on that: meanwhile,
        /// all may change.
        plan: Option<(Step, State)>,
        /// The back end was connected when the front end entered Closing.
        owed_closing: bool,
    }

    const NEW: World = World {
        situation: Situation {
            own: Some(State::Initialising),
            online: true,
            front: Some(State::Initialising),
            connected: false,
        },
        plan: None,
        owed_closing: false,
    };

    impl World {
        /// After the back end has looked, or has done what it planned, with success or without. `None` after
        /// the last step.
        fn back_end(mut self, success: bool) -> Option<Self> {
            let Some((step, from)) = self.plan.take() else {
                let step = self.situation.step();
                self.plan = (step != Step::Wait).then(|| (step, self.situation.own.unwrap_or_default()));
                return Some(self);
            };
            let to = match step {
                Step::Wait => unreachable!("that is not planned"),
                Step::Offer => State::InitWait,
                Step::Connect if success => {
                    assert!(!self.situation.connected, "connected twice: {self:?}");
                    self.situation.connected = true;
                    State::Connected
                }
                Step::Connect | Step::Close => State::Closing,
                Step::End => {
                    self.situation.connected = false;
                    State::Closed
                }
                Step::Finish => return None,
            };
            // As `advance` does: not if somebody else has written the state.
            if self.situation.own == Some(from) {
                self.situation.own = Some(to);
            }
            Some(self)
        }

        fn front(mut self, state: Option<State>) -> Self {
            let now = self.situation;
            self.owed_closing = state == Some(State::Closing)
                && (self.owed_closing || now.connected && now.own == Some(State::Connected));
            self.situation.front = state;
            self
        }

        /// After what Linux's xenbus and the bus driver do at the back end's state. A guest that shuts down
        /// closes when it sees Closing; all else is a matter of a timeout.
        fn front_end(self) -> Self {
            use State::{Closed, Closing, Connected, InitWait, Initialised, Initialising};
            let Situation {
                own: Some(own),
                front: Some(front),
                ..
            } = self.situation
            else {
                return self;
            };
            match (front, own) {
                (Initialising, InitWait) => self.front(Some(Initialised)),
                (Initialised, Connected) => self.front(Some(Connected)),
                (Initialising | Initialised | Connected, Closing) => self.front(Some(Closing)),
                (Closing, Closing) => self.front(Some(Closed)),
                (Initialised | Connected | Closing, Closed) => {
                    assert!(!self.owed_closing, "Closing was not to be seen: {self:?}");
                    self.front(Some(Closed))
                }
                _ => self,
            }
        }

        fn with(mut self, change: impl FnOnce(&mut Situation)) -> Self {
            change(&mut self.situation);
            self
        }

        /// After each of the things that a toolstack does, and that befall a guest or its connection.
        fn others(self) -> Vec<Self> {
            let broken = Self {
                // Who breaks the rules is owed nothing.
                owed_closing: false,
                ..self.with(|now| now.connected = false)
            };
            // What has closed already, libxl leaves in that state.
            let detach = |now: &mut Situation| {
                now.online = false;
                now.own = now
                    .own
                    .map(|own| if own == State::Closed { own } else { State::Closing });
            };
            let dead = self.front(None);
            let removed = |now: &mut Situation| now.own = None;
            vec![
                broken,
                dead,
                self.with(detach),
                dead.with(detach),
                self.with(removed),
                dead.with(removed),
            ]
        }

        /// When the back end, and the front end if it is one by the book, have done what there is to do.
        /// `None` if the device is done with.
        fn at_rest(mut self, by_the_book: bool) -> Option<Self> {
            for _ in 0..40 {
                let mut next = self.back_end(true)?;
                if by_the_book && next.plan.is_none() {
                    next = next.front_end();
                }
                if next == self {
                    return Some(self);
                }
                self = next;
            }
            panic!("it does not come to rest: {self:?}");
        }
    }

    /// Calls `check` for everything that can come of a new device, in whatever order the ends and the
    /// toolstack act.
    fn explore(front_end: impl Fn(World) -> Vec<World>, check: impl Fn(World)) {
        let (mut seen, mut next) = (HashSet::new(), vec![NEW]);
        while let Some(world) = next.pop() {
            if seen.insert(world) {
                check(world);
                next.extend([true, false].into_iter().filter_map(|it| world.back_end(it)));
                next.extend(front_end(world));
                next.extend(world.others());
            }
        }
        assert!(seen.len() > 250, "only {} situations", seen.len());
    }

    /// Whatever a front end writes, and whenever.
    #[test]
    fn no_front_end_keeps_a_device_from_ending() {
        let anything = |world: World| -> Vec<_> {
            let alive = State::ALL.into_iter().filter(|_| world.situation.front.is_some());
            alive.map(|state| world.front(Some(state))).collect()
        };
        explore(anything, |world| {
            let now = world.situation;
            assert!(
                !(now.connected && now.own == Some(State::Closed)),
                "connected after Closed: {world:?}"
            );
            if let Some((Step::Finish, from)) = world.plan {
                assert!(now.own.is_none() || from == State::Closed, "{world:?}");
            }
            match world.at_rest(false).map(|it| it.situation) {
                None => assert!(now.own.is_none() || !now.online, "{world:?}"),
                Some(rest) => {
                    assert!(rest.own.is_some(), "{world:?}");
                    // Nothing is held for a guest that is dead, and nothing that the toolstack removes stays.
                    assert!(
                        rest.front.is_some() || !rest.connected && rest.online,
                        "{world:?}"
                    );
                    // Only a driver that is still there is waited for.
                    assert!(rest.online || rest.connected, "{world:?}");
                }
            }
        });
    }

    /// A front end by the book that connects, leaves, comes back, or is another one suddenly.
    #[test]
    fn every_order_of_events_ends_well() {
        let by_the_book = |world: World| -> Vec<_> {
            let mut moves = vec![world.front_end()];
            match (world.situation.front, world.situation.own) {
                (Some(State::Initialised | State::Connected), _) => {
                    moves.push(world.front(Some(State::Closing)));
                    moves.push(world.front(Some(State::Initialising)));
                }
                (Some(State::Closed), Some(State::Closed)) => {
                    moves.push(world.front(Some(State::Initialising)));
                }
                _ => {}
            }
            moves
        };
        explore(by_the_book, |world| {
            let now = world.situation;
            let Some(World { situation: rest, .. }) = world.at_rest(true) else {
                return assert!(now.own.is_none() || !now.online, "{world:?}");
            };
            assert!(rest.online, "{world:?}");
            let expected = match rest.front {
                Some(State::Connected) => (Some(State::Connected), true),
                Some(State::Closed) | None => (Some(State::Closed), false),
                _ => panic!("{world:?} leads to {rest:?}"),
            };
            assert_eq!((rest.own, rest.connected), expected, "{world:?}");
        });
    }
}
