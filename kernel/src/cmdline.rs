//! The domain's command line: words of the form `key=value`, separated by white space.
//!
//! It is xl's `extra=` (or `cmdline=`). A later word overrides an earlier one with the same key; a word
//! without `=` is a key with an empty value. The runtime itself knows `loglevel=` (the log's level) and
//! `evtchn=2l` (see [`crate::event`]); all other words are the image's.

use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use protocols::text::words;

static POINTER: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static LENGTH: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn set(line: &'static str) {
    POINTER.store(line.as_ptr().cast_mut(), Relaxed);
    LENGTH.store(line.len(), Relaxed);
}

/// The whole command line; empty before boot has read it.
pub fn get() -> &'static str {
    let pointer = POINTER.load(Relaxed);
    if pointer.is_null() {
        return "";
    }
    // SAFETY: `set` stored pointer and length of one 'static string.
    unsafe { core::str::from_utf8_unchecked(core::slice::from_raw_parts(pointer, LENGTH.load(Relaxed))) }
}

/// The value of the last word with this key.
pub fn value(key: &str) -> Option<&'static str> {
    find(get(), key)
}

fn find<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    words(line)
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .last()
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn finds_the_last_value() {
        let line = "  loglevel=debug uplink=data=xvdb quiet loglevel=info\t";
        assert_eq!(find(line, "loglevel"), Some("info"));
        assert_eq!(find(line, "uplink"), Some("data=xvdb"));
        assert_eq!(find(line, "quiet"), Some(""));
        assert_eq!(find(line, "log"), None);
        assert_eq!(find("", "loglevel"), None);
    }
}
