//! Texts that somebody else wrote.

use alloc::{
    format,
    string::{String, ToString},
};

/// Makes a text that somebody else wrote fit for a log line or an error node: at most 64 characters, controls
/// replaced.
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

/// Reads the Ethernet address of a station: six bytes in hexadecimal, with colons between. Neither a group's
/// nor nobody's counts.
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

/// The words of a command line, separated by white space, as key and value. A word without `=` is a key with
/// an empty value.
pub fn words(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split_ascii_whitespace()
        .map(|word| word.split_once('=').unwrap_or((word, "")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_keys_with_values() {
        assert!(words("  a=1 b=c=d quiet\ta=\n").eq([("a", "1"), ("b", "c=d"), ("quiet", ""), ("a", "")]));
        assert_eq!(words(" ").count(), 0);
    }

    #[test]
    fn decimal_has_one_form() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("4294967295"), Some(u32::MAX));
        for text in ["", "+1", "-1", "01", " 1", "1 ", "0x1", "4294967296"] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }

    #[test]
    fn macs() {
        assert_eq!(mac("00:16:3e:0A:b:ff"), Some([0, 0x16, 0x3e, 10, 11, 255]));
        for text in [
            "",
            "00:16:3e:0a:0b",
            "00:16:3e:0a:0b:0c:0d",
            "00:16:3e:0a:0b:+c",
            "00:16:3e:0a::0c",
            "01:16:3e:0a:0b:0c",
            "00:00:00:00:00:00",
            "000:16:3e:0a:0b:0c",
            "+0:16:3e:0a:0b:0c",
            " 00:16:3e:0a:0b:0c",
        ] {
            assert_eq!(mac(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_mac_is_read(text in "[0-9a-f:+]{0,20}") {
            let _ = mac(&text);
        }

        #[test]
        fn printable_is_bounded(text in any::<String>()) {
            let shown = printable(&text);
            prop_assert!(shown.chars().count() <= 67);
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}
