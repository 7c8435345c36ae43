//! What the user sees: lines that are kept, and on a terminal a spinner for each slow step below them.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

fn spinners() -> &'static MultiProgress {
    static SPINNERS: OnceLock<MultiProgress> = OnceLock::new();
    SPINNERS.get_or_init(MultiProgress::new)
}

/// Prints a line of the command's result to standard output.
pub fn line(text: impl AsRef<str>) {
    spinners().suspend(|| println!("{}", text.as_ref()));
}

/// Passes on what another program wrote to one of its outputs.
pub fn pass_on(content: &[u8], mut to: impl Write) {
    // Whoever reads this may be gone, which is theirs to know.
    let _ = spinners().suspend(|| to.write_all(content).and_then(|()| to.flush()));
}

/// Prints a remark to standard error.
pub fn remark(text: impl AsRef<str>) {
    spinners().suspend(|| eprintln!("{}", text.as_ref()));
}

/// A slow step in progress, shown on standard error.
pub struct Step {
    bar: ProgressBar,
    what: String,
    start: Instant,
}

impl Step {
    /// Shows that `what` has begun; where there is no terminal, by a line.
    pub fn new(what: impl Into<String>) -> Step {
        let step = Step::quiet(what);
        if step.bar.is_hidden() {
            eprintln!("{} …", step.what);
        }
        step
    }

    /// Shows that `what` has begun, on a terminal only.
    pub fn quiet(what: impl Into<String>) -> Step {
        let what = what.into();
        let bar = if std::io::stderr().is_terminal() {
            let style =
                ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("a valid template");
            let bar = spinners().add(
                ProgressBar::new_spinner()
                    .with_style(style)
                    .with_message(what.clone()),
            );
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        } else {
            ProgressBar::hidden()
        };
        Step {
            bar,
            what,
            start: Instant::now(),
        }
    }

    /// Shows that the step is over, and how long it took.
    pub fn done(self) {
        self.bar.finish_and_clear();
        remark(format!(
            "{}: {:.1} s",
            self.what,
            self.start.elapsed().as_secs_f32()
        ));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
