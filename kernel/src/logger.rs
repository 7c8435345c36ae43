//! The log, on the console: one line a record, with the time since the domain started.
//!
//! `loglevel=` on the command line is one of `off`, `error`, `warn`, `info` (the default), `debug` and
//! `trace`.

use core::fmt::{self, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::{cmdline, console, time};

/// The longest line, in bytes; what is longer is cut off and ends in `...`.
const LINE: usize = 512;

struct ConsoleLog;

/// Starts logging, at the level that the command line asks for.
pub(crate) fn init() {
    let wish = cmdline::value("loglevel");
    let level = wish.map_or(Ok(LevelFilter::Info), str::parse);
    // The first and only call in the life of an image: it cannot fail.
    let _ = log::set_logger(&ConsoleLog);
    log::set_max_level(*level.as_ref().unwrap_or(&LevelFilter::Info));
    if level.is_err() {
        log::warn!("loglevel={} is not a level; using info", wish.unwrap_or_default());
    }
}

impl Log for ConsoleLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = time::now().as_micros();
        let level = match record.level() {
            Level::Error => "ERROR",
            Level::Warn => "WARN ",
            Level::Info => "INFO ",
            Level::Debug => "DEBUG",
            Level::Trace => "TRACE",
        };
        let mut line = Line::new();
        // A line never fails to take text: it truncates.
        let _ = write!(
            line,
            "[{:5}.{:06}] {level} {}: {}",
            now / 1_000_000,
            now % 1_000_000,
            record.target(),
            record.args()
        );
        console::write_line(line.finish());
    }

    fn flush(&self) {}
}

/// One line of text, of bounded length. Control characters become `?`, so that nobody's data can forge a
/// line.
pub(crate) struct Line {
    bytes: [u8; LINE],
    len: usize,
    truncated: bool,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; LINE],
            len: 0,
            truncated: false,
        }
    }

    /// Ends the line, for the console.
    pub(crate) fn finish(&mut self) -> &[u8] {
        let end: &[u8] = if self.truncated { b"...\r\n" } else { b"\r\n" };
        self.bytes[self.len..self.len + end.len()].copy_from_slice(end);
        &self.bytes[..self.len + end.len()]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        const ROOM: usize = LINE - 5;
        for byte in text.bytes() {
            if self.len == ROOM {
                self.truncated = true;
                break;
            }
            self.bytes[self.len] = if byte < b' ' || byte == 0x7f { b'?' } else { byte };
            self.len += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_printable() {
        let mut line = Line::new();
        write!(line, "a\n\x1b[1mb\u{e9}").unwrap();
        assert_eq!(line.finish(), "a??[1mb\u{e9}\r\n".as_bytes());
        let mut line = Line::new();
        write!(line, "{:600}", "x").unwrap();
        let text = line.finish();
        assert_eq!(text.len(), LINE);
        assert!(text.ends_with(b" ...\r\n"));
    }
}
