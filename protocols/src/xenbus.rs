//! The states of the two ends of a device on xenbus.
//!
//! What an end does in which state is the business of its device class; for the back end of the virtio-msg
//! bus see [`back_end`](crate::back_end).

use core::fmt;
use core::str::FromStr;

/// The state of one end of a device: the value of the node `state` in its directory
/// (`xen/include/public/io/xenbus.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Not known: the node is missing, or holds something else.
    #[default]
    Unknown = 0,
    /// The end exists and prepares itself.
    Initialising = 1,
    /// It waits for information from its peer, or from a hotplug script.
    InitWait = 2,
    /// It has published what its peer needs and waits for it to connect.
    Initialised = 3,
    /// It is connected.
    Connected = 4,
    /// It is going away, for an error or because the device is removed.
    Closing = 5,
    /// It holds nothing of its peer's any more.
    Closed = 6,
    /// It is being reconfigured.
    Reconfiguring = 7,
    /// It has been reconfigured.
    Reconfigured = 8,
}

impl State {
    /// All states, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];
}

/// Text that is not the number of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAState;

impl fmt::Display for NotAState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a xenbus state")
    }
}

impl core::error::Error for NotAState {}

/// A node's value: the number in decimal, without sign, spaces or leading zeros.
impl FromStr for State {
    type Err = NotAState;

    fn from_str(text: &str) -> Result<Self, NotAState> {
        match *text.as_bytes() {
            [digit @ b'0'..=b'8'] => Ok(Self::ALL[usize::from(digit - b'0')]),
            _ => Err(NotAState),
        }
    }
}

/// A node's value: the number in decimal.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", *self as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn states_round_trip() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert_eq!(state.to_string().parse(), Ok(state));
        }
    }

    #[test]
    fn other_forms_of_a_number_are_refused() {
        for text in ["", "9", "+1", "01", " 1", "1 ", "1\n", "-1", "1x", "\u{661}"] {
            assert_eq!(text.parse::<State>(), Err(NotAState), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn only_what_a_state_prints_is_a_state(text in "[0-9+ x]{0,3}") {
            if let Ok(state) = text.parse::<State>() {
                prop_assert_eq!(state.to_string(), text);
            }
        }
    }
}
