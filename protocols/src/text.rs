//! Texts that somebody else wrote.

use alloc::{
    format,
    string::{String, ToString},
};

/// Makes a text that somebody else wrote fit for a log line or an error node: at most 64 characters, controls replaced.
pub fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(64)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(64).is_some() {
        shown = format!("{shown}...");
    }
    shown
}

/// Reads a number as xenstore nodes of ours hold it: decimal digits without sign, spaces or leading zeros.
pub fn decimal(text: &str) -> Option<u32> {
    text.parse()
        .ok()
        .filter(|number: &u32| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimal_has_one_form() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("4294967295"), Some(u32::MAX));
        for text in ["", "+1", "-1", "01", " 1", "1 ", "0x1", "4294967296"] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn printable_is_bounded(text in any::<String>()) {
            let shown = printable(&text);
            prop_assert!(shown.chars().count() <= 67);
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}
