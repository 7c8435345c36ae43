//! What a front end does next, from what it sees in xenstore, as one function without side effects.
//!
//! Each attempt at a connection begins with Initialising, which makes the back end go back to InitWait. Then
//! the front end publishes its rings; how both become Connected after that depends on the [`Class`]. To end a
//! connection, for whatever reason, the front end enters Closed, which makes the back end let go of rings and
//! pages and follow.

use core::fmt;

use crate::xenbus::State;

/// A class of devices, by how its two ends connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// With a ring published, the front end is Initialised. It enters Connected after the back end, which
    /// says with that what the disk is like (xen/include/public/io/blkif.h).
    Block,
    /// With rings published, the front end is Connected, and the back end follows
    /// (xen/include/public/io/netif.h).
    Network,
}

impl Class {
    /// Where the toolstack puts a domain's devices of the class, each in a directory named by its number.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Block => "device/vbd",
            Self::Network => "device/vif",
        }
    }

    /// The own state once rings are published.
    pub fn offered(self) -> State {
        match self {
            Self::Block => State::Initialised,
            Self::Network => State::Connected,
        }
    }

    /// Whether a back end in this state takes rings.
    fn takes_rings(self, back: State) -> bool {
        match back {
            State::InitWait => true,
            // A block back end that negotiates nothing may have gone on without waiting. Of others, these
            // states say that it has not yet heard of Initialising.
            State::Initialised | State::Connected => self == Self::Block,
            _ => false,
        }
    }

    /// Whether a back end in this state has let go of a connection that came so far, after the own state has
    /// become Closed.
    pub fn has_let_go(self, phase: Phase, back: State) -> bool {
        match back {
            State::Closed | State::Unknown => true,
            // This is not the one that was connected. netback knows of nothing then that it could close;
            // blkback may be just about to map the ring, and closes like an old one.
            State::Initialising | State::InitWait => self == Self::Network && phase == Phase::Running,
            _ => false,
        }
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// There is none.
    Idle,
    /// Rings are published.
    Offered,
    /// Requests or frames move.
    Running,
}

/// What xenstore and the front end's own memory say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Situation {
    /// The class of the device.
    pub class: Class,
    /// The state in the front end's own directory. `None` when the directory is gone.
    pub own: Option<State>,
    /// The state of the back end that the directory names. `None` when it names none, or one whose directory
    /// is gone.
    pub back: Option<State>,
    /// The directory names the back end that the connection is with; of no meaning without one.
    pub same_back_end: bool,
    /// The toolstack wants the device: the back end's `online` is not 0.
    pub online: bool,
    /// The device has clients, which are to let go of it before it goes.
    pub in_use: bool,
    /// How far the connection has come.
    pub phase: Phase,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The device is gone.
    Removed,
    /// The toolstack wants it to go.
    Detached,
    /// The back end closed, or its driver was exchanged.
    Closed,
    /// The back end's directory is another one now, or gone.
    Moved,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Removed => "the device was removed",
            Self::Detached => "the device is being detached",
            Self::Closed => "the back end closed or restarted",
            Self::Moved => "the back end went away",
        })
    }
}

/// The next step. After each, the situation is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait until something changes.
    Wait,
    /// Enter Initialising.
    Begin,
    /// Publish rings and event channels, and enter [`Class::offered`].
    Offer,
    /// The back end has accepted: enter Connected, and let requests or frames move.
    Run,
    /// Both ends are connected: read what the back end may have changed, and wait until something changes.
    Follow,
    /// The toolstack wants the device to go, but it is in use: go on, and wait until something changes.
    WaitForClients,
    /// End the connection, if there is one: enter Closed and take everything back. After [`Reason::Removed`]
    /// and [`Reason::Detached`], the device is done with.
    End(Reason),
}

impl Situation {
    /// The next step.
    pub fn step(self) -> Step {
        use State::{Closed, Closing, Connected, InitWait, Initialised, Initialising};
        let Some(own) = self.own else {
            return Step::End(Reason::Removed);
        };
        let idle = self.phase == Phase::Idle;
        let Some(back) = self.back.filter(|_| idle || self.same_back_end) else {
            // A directory without a back end is about to get one, or to go.
            return if idle {
                Step::Wait
            } else {
                Step::End(Reason::Moved)
            };
        };
        let leaving = matches!(back, Closing | Closed) && !self.online;
        match self.phase {
            Phase::Running if leaving && self.in_use => Step::WaitForClients,
            _ if leaving => Step::End(Reason::Detached),

            Phase::Idle if own != Initialising => Step::Begin,
            Phase::Idle if self.class.takes_rings(back) => Step::Offer,
            Phase::Idle => Step::Wait,

            // Somebody else wrote the own state: nobody knows what the back end has seen.
            Phase::Offered if own != self.class.offered() => Step::End(Reason::Closed),
            Phase::Offered => match back {
                Connected => Step::Run,
                // It may still be working on it.
                Initialising | InitWait | Initialised => Step::Wait,
                _ => Step::End(Reason::Closed),
            },
            Phase::Running if own == Connected && back == Connected => Step::Follow,
            // That includes the states before Connected: the driver in the back end's domain was exchanged. A
            // new one of Linux would go on with the rings as they are, but the old one may not be through
            // with them.
            Phase::Running => Step::End(Reason::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const CLASSES: [Class; 2] = [Class::Block, Class::Network];
    const PHASES: [Phase; 3] = [Phase::Idle, Phase::Offered, Phase::Running];

    fn start(class: Class) -> Situation {
        Situation {
            class,
            own: Some(State::Initialising),
            back: Some(State::Initialising),
            same_back_end: true,
            online: true,
            in_use: false,
            phase: Phase::Idle,
        }
    }

    fn all() -> impl Iterator<Item = Situation> {
        let states: Vec<_> = State::ALL.into_iter().map(Some).chain([None]).collect();
        (0..2 * 3 * 10 * 10 * 8).map(move |n| Situation {
            class: CLASSES[n % 2],
            phase: PHASES[n / 2 % 3],
            own: states[n / 6 % 10],
            back: states[n / 60 % 10],
            same_back_end: n / 600 % 2 == 0,
            online: n / 1200 % 2 == 0,
            in_use: n / 2400 == 0,
        })
    }

    /// The situation after a step, if nobody else does anything. `None` after the last one.
    fn after(situation: Situation, step: Step) -> Option<Situation> {
        let (own, phase) = match step {
            Step::Wait | Step::Follow | Step::WaitForClients => return Some(situation),
            Step::Begin => (State::Initialising, Phase::Idle),
            Step::Offer => (situation.class.offered(), Phase::Offered),
            Step::Run => (State::Connected, Phase::Running),
            Step::End(Reason::Removed | Reason::Detached) => return None,
            Step::End(_) => (State::Closed, Phase::Idle),
        };
        Some(Situation {
            own: Some(own),
            phase,
            same_back_end: true,
            ..situation
        })
    }

    /// From every situation, a few steps lead to waiting or to the end: nothing makes it spin.
    #[test]
    fn it_settles() {
        for start in all() {
            let steps = core::iter::successors(Some(start), |it| after(*it, it.step()));
            let busy =
                |it: &Situation| !matches!(it.step(), Step::Wait | Step::Follow | Step::WaitForClients);
            let busy = steps.take(6).take_while(busy).count();
            assert!(busy < 6, "{start:?}");
        }
    }

    #[test]
    fn it_runs_only_while_both_are_connected_to_each_other() {
        for situation in all().filter(|s| matches!(s.step(), Step::Run | Step::Follow)) {
            let (own, phase) = match situation.step() {
                Step::Run => (situation.class.offered(), Phase::Offered),
                _ => (State::Connected, Phase::Running),
            };
            assert_eq!((situation.own, situation.phase), (Some(own), phase));
            assert_eq!(situation.back, Some(State::Connected));
            assert!(situation.same_back_end);
        }
    }

    /// Linux's netback forgets a connection only on its way back to InitWait.
    #[test]
    fn rings_are_offered_only_to_a_back_end_that_takes_them() {
        for situation in all() {
            let (takes, offered): (&[_], _) = match situation.class {
                Class::Block => (
                    &[State::InitWait, State::Initialised, State::Connected],
                    State::Initialised,
                ),
                Class::Network => (&[State::InitWait], State::Connected),
            };
            let begun = situation.phase == Phase::Idle && situation.own == Some(State::Initialising);
            let taken = situation.back.is_some_and(|back| takes.contains(&back));
            assert_eq!(situation.step() == Step::Offer, begun && taken);
            assert_eq!(situation.class.offered(), offered);
        }
    }

    #[test]
    fn what_is_taken_away_ends() {
        for situation in all().filter(|s| s.own.is_none()) {
            assert_eq!(situation.step(), Step::End(Reason::Removed));
        }
        for situation in all().filter(|s| s.own.is_some() && s.back.is_none()) {
            let expected = match situation.phase {
                Phase::Idle => Step::Wait,
                _ => Step::End(Reason::Moved),
            };
            assert_eq!(situation.step(), expected);
        }
    }

    #[test]
    fn what_is_detached_goes_at_once_unless_its_clients_are_served() {
        for situation in all().filter(|s| s.own.is_some()) {
            let idle = situation.phase == Phase::Idle;
            let closing = matches!(situation.back, Some(State::Closing | State::Closed));
            let leaves = closing && !situation.online && (idle || situation.same_back_end);
            let step = match situation.in_use && situation.phase == Phase::Running {
                true => Step::WaitForClients,
                false => Step::End(Reason::Detached),
            };
            assert_eq!(situation.step() == step, leaves, "{situation:?}");
        }
    }

    /// Both sides by the book, with a back end that restarts in between.
    #[test]
    fn a_life() {
        for mut situation in CLASSES.map(start) {
            let script = [
                (State::Initialising, Step::Wait),
                (State::InitWait, Step::Offer),
                (State::InitWait, Step::Wait),
                (State::Connected, Step::Run),
                (State::Connected, Step::Follow),
                (State::Closing, Step::End(Reason::Closed)),
                (State::Closed, Step::Begin),
                (State::Closed, Step::Wait),
                (State::InitWait, Step::Offer),
                (State::Connected, Step::Run),
            ];
            for (back, expected) in script {
                situation.back = Some(back);
                let step = situation.step();
                assert_eq!(step, expected, "{situation:?}");
                situation = after(situation, step).unwrap();
            }
        }
    }

    /// Both ends of a device.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct World {
        situation: Situation,
        /// How far the connection had come that the front end waits to be let go of.
        closing: Option<Phase>,
        /// The front end's state when the back end looked last.
        heard: State,
        /// The back end has the rings that were published last.
        linked: bool,
    }

    impl World {
        /// After the front end's next step. `None` after the last one.
        fn front_end(mut self) -> Option<Self> {
            let now = self.situation;
            match (self.closing, now.step()) {
                (Some(phase), _) if now.class.has_let_go(phase, now.back?) => self.closing = None,
                (Some(_), _) => {}
                (None, Step::End(Reason::Closed)) => self = self.ended(),
                (None, step) => self.situation = after(now, step)?,
            }
            Some(self)
        }

        /// After the front end has ended the connection, for what xenstore says or for itself.
        fn ended(mut self) -> Self {
            (self.closing, self.linked) = (Some(self.situation.phase), false);
            self.situation = after(self.situation, Step::End(Reason::Closed)).unwrap();
            self
        }

        /// After what Linux's back ends do at the front end's state, and another look at that.
        fn back_end(mut self) -> Self {
            use State::{Closed, Connected, InitWait, Initialised, Initialising};
            let now = self.situation;
            let next = match (now.class, self.heard, now.back.unwrap()) {
                (_, Closed, _) => Closed,
                (_, Initialising, Initialising | Closed) if now.online => InitWait,
                (Class::Network, Initialising, Connected) => InitWait,
                (_, Connected, InitWait | Initialising) | (Class::Block, Initialised, InitWait) => {
                    self.linked = now.phase != Phase::Idle;
                    let has_rings = self.linked || self.closing.is_some();
                    assert!(has_rings || now.class == Class::Network, "{self:?}");
                    Connected
                }
                (_, _, back) => back,
            };
            self.situation.back = Some(next);
            self.heard = now.own.unwrap();
            self
        }

        /// After each of the things that can happen beside.
        fn others(self) -> Vec<Self> {
            let now = self.situation;
            let mut others = vec![self];
            others[0].situation.in_use = !now.in_use;
            if now.phase != Phase::Idle {
                others.push(self.ended());
            }
            if now.online {
                let mut restart = self;
                (restart.situation.back, restart.linked) = (Some(State::InitWait), false);
                restart.heard = now.own.unwrap();
                others.push(restart);
            }
            // libxl says nothing to a back end that has closed.
            if now.online && now.back != Some(State::Closed) {
                let mut detach = self;
                (detach.situation.back, detach.situation.online) = (Some(State::Closing), false);
                others.push(detach);
            }
            others
        }

        /// When both ends have done what there is to do. `None` if the device is done with.
        fn at_rest(mut self) -> Option<Self> {
            loop {
                let next = self.front_end()?.back_end();
                if next == self {
                    return Some(self);
                }
                self = next;
            }
        }
    }

    /// In whatever order the ends act, back ends restart, clients come and go and the toolstack detaches:
    /// both get connected as long as they are wanted, and the device goes otherwise, once it is not in use.
    #[test]
    fn every_order_of_events_ends_well() {
        let (mut seen, mut next) = (HashSet::new(), Vec::new());
        next.extend(CLASSES.map(|class| World {
            situation: start(class),
            closing: None,
            heard: State::Initialising,
            linked: false,
        }));
        while let Some(world) = next.pop() {
            if !seen.insert(world) {
                continue;
            }
            let Situation { online, in_use, .. } = world.situation;
            match world.at_rest().map(|it| (it.situation.step(), it.linked)) {
                Some((Step::Follow, true)) => assert!(online, "{world:?}"),
                Some((Step::WaitForClients, _)) => assert!(!online && in_use, "{world:?}"),
                None => assert!(!online, "{world:?}"),
                rest => panic!("{world:?}: {rest:?}"),
            }
            next.extend(world.front_end());
            next.push(world.back_end());
            next.extend(world.others());
        }
    }
}
