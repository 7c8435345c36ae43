//! The tests that need no Xen: `cargo test`, package by package, and again under tools that watch each access
//! to memory; then the fuzz targets, with a number of inputs each.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::tally::{Tally, Verdict};
use crate::{host, ui};

/// The packages with tests that run on any host.
const PACKAGES: &[&str] = &["devices", "protocols", "network", "kernel", "boot", "xtask"];

/// The packages whose code, or whose tests, share memory with somebody else.
const SHARING: &[&str] = &["kernel", "devices"];

/// The fuzz targets; `tests/fuzz/run` knows how to build them.
const FUZZ_TARGETS: &[&str] = &["frames", "messages", "netif", "network", "rings", "router"];

/// What libFuzzer is told: so many inputs, the same ones each time, of any length from the start.
const FUZZ_OPTIONS: &[&str] = &[
    "-runs=20000",
    "-seed=1",
    "-len_control=0",
    "-max_len=2048",
    "-verbosity=0",
];

/// One call of `cargo test`.
struct Run {
    /// What the line about it says.
    name: String,
    command: Command,
}

/// Runs the tests whose names contain one of `filters`, or all, and counts each.
pub fn run(filters: &[String], tally: &Tally) -> Result<()> {
    for package in PACKAGES {
        let mut command = cargo();
        command.args(["test", "--package", package]);
        let name = (*package).to_owned();
        Run { name, command }.run(filters, tally)?;
    }
    for package in SHARING {
        let mut command = cargo();
        // The flag is unstable only in name: stable toolchains bring the sanitizer's run-time library. With a
        // target given, build scripts and macros go without.
        command
            .args([
                "test",
                "--package",
                package,
                "--target",
                "x86_64-unknown-linux-gnu",
            ])
            .args(["--target-dir", "target/address-sanitizer"])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", "-Zsanitizer=address");
        let name = format!("{package}, with AddressSanitizer");
        Run { name, command }.run(filters, tally)?;
    }
    let name = "kernel, with Miri";
    match miri() {
        Some(mut command) => {
            command.args([
                "miri",
                "test",
                "--package",
                "kernel",
                "--target-dir",
                "target/miri",
            ]);
            let name = name.to_owned();
            Run { name, command }.run(filters, tally)?;
        }
        None => {
            tally.count(0, 0, 1);
            ui::line(format!(
                "skipped {name}: no toolchain here has it (rustup component add miri rust-src --toolchain nightly)"
            ));
        }
    }
    let wanted =
        |target: &&str| filters.is_empty() || filters.iter().any(|part| fuzz_name(target).contains(part));
    for target in FUZZ_TARGETS.iter().copied().filter(wanted) {
        let start = Instant::now();
        let step = ui::Step::quiet(format!("fuzzing {target} on this host"));
        let verdict = fuzz(target)?;
        drop(step);
        tally.add(&fuzz_name(target), start.elapsed(), &verdict);
    }
    Ok(())
}

fn fuzz_name(target: &str) -> String {
    format!("fuzz {target}")
}

/// Builds a fuzz target and runs it from an empty corpus.
fn fuzz(target: &str) -> Result<Verdict> {
    const CANNOT: i32 = 77;
    if let Err(error) = host::require(host::FUZZ) {
        return Ok(Verdict::Skipped(format!("{error:#}").replace('\n', "")));
    }
    let corpus = tempfile::Builder::new()
        .prefix("virtio-stubdom-fuzz-")
        .tempdir()?;
    let output = Command::new(host::root().join("tests/fuzz/run"))
        .arg(target)
        .args(FUZZ_OPTIONS)
        .env("CORPUS", corpus.path())
        .stdin(Stdio::null())
        .output()
        .context("cannot run tests/fuzz/run")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().last().unwrap_or_default().to_owned();
    Ok(match output.status.code() {
        Some(0) => Verdict::Passed,
        Some(CANNOT) => Verdict::Skipped(last),
        _ => {
            ui::line(errors);
            Verdict::Failed(last)
        }
    })
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// `cargo` of a toolchain that has Miri.
fn miri() -> Option<Command> {
    let nightly = || {
        let mut command = Command::new("cargo");
        // What `rustup` has set for the toolchain of this process is not for that one.
        command
            .arg("+nightly")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("RUSTC");
        command
    };
    let choices: [&dyn Fn() -> Command; 2] = [&cargo, &nightly];
    choices.into_iter().find_map(|choice| {
        let asked = choice().args(["miri", "--version"]).stdin(Stdio::null()).output();
        asked.is_ok_and(|output| output.status.success()).then(choice)
    })
}

impl Run {
    fn run(mut self, filters: &[String], tally: &Tally) -> Result<()> {
        let step = ui::Step::quiet(format!("testing {} on this host", self.name));
        let start = Instant::now();
        let output = self
            .command
            .args(["--quiet", "--no-fail-fast", "--"])
            .args(filters)
            .current_dir(host::root())
            .stdin(Stdio::null())
            .output()
            .context("cannot run cargo")?;
        drop(step);
        let text = String::from_utf8_lossy(&output.stdout);
        let (passed, failed, ignored) = totals(&text);
        if !filters.is_empty() && output.status.success() && passed + failed == 0 {
            return Ok(());
        }
        tally.count(passed, failed, ignored);
        // Tests that do not compile, or do not get to their end, count as one that failed.
        let broken = !output.status.success() && failed == 0;
        tally.count(0, usize::from(broken), 0);
        let word = if output.status.success() { "ok" } else { "FAILED" };
        let counts = format!("{passed} passed, {failed} failed, {ignored} ignored");
        ui::line(format!(
            "{word:<8}{:<44}{:>7.1} s  {counts}",
            self.name,
            start.elapsed().as_secs_f32()
        ));
        if !output.status.success() {
            ui::line(text);
            ui::line(String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

/// The numbers of passed, failed and ignored tests in what `cargo test` printed.
fn totals(text: &str) -> (usize, usize, usize) {
    let mut totals = (0, 0, 0);
    for line in text.lines().filter(|line| line.starts_with("test result:")) {
        let number = |word: &str| -> usize {
            let before = line.split(word).next().unwrap_or("").trim_end();
            before
                .rsplit([' ', ';'])
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or(0)
        };
        totals.0 += number(" passed");
        totals.1 += number(" failed");
        totals.2 += number(" ignored");
    }
    totals
}

#[cfg(test)]
mod tests {
    #[test]
    fn totals_of_several_test_programs_add_up() {
        let text = "running 2 tests\n..\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 11 passed; 3 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.00s\n";
        assert_eq!(super::totals(text), (13, 3, 1));
    }
}
