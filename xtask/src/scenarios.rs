//! `cargo xtask test`: host tests, then the scenarios of `tests/scenarios` in dom0, as many as there are in
//! one boot.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::lab::{self, Lab};
use crate::suite::Suite;
use crate::tally::{Tally, Verdict};
use crate::ui::{self, Step};
use crate::{host, host_tests};

/// What to test, and where.
pub struct Options {
    /// The releases that the scenarios run on.
    pub suites: Vec<Suite>,
    /// Parts of the names of the tests that are run; without one, all.
    pub filters: Vec<String>,
    /// Whether the bed's time is this host's, rather than a count of instructions.
    pub wall_clock: bool,
    /// Where logs are kept, a folder for each release; without it, in temporary ones that stay if something
    /// fails.
    pub logs: Option<PathBuf>,
    /// Whether to leave the host tests out.
    pub scenarios_only: bool,
    /// Whether to run each variant of each scenario on each release, rather than the long ones on one, and to
    /// transfer more.
    pub full: bool,
    /// The images that the bed is given.
    pub images: Vec<(PathBuf, PathBuf)>,
}

/// Runs everything, shows the totals, and returns whether all is well.
pub fn run(options: &Options) -> Result<bool> {
    let tally = Tally::default();
    if !options.scenarios_only {
        host_tests::run(&options.filters, &tally)?;
    }
    let scenarios = scenarios(&options.filters)?;
    if !scenarios.is_empty() {
        // What has to be fetched is, before anything is timed; then each release has a core of its own.
        for suite in &options.suites {
            lab::prepare(*suite, true)?;
        }
        thread::scope(|scope| {
            for suite in &options.suites {
                let run = Run {
                    suite: *suite,
                    options,
                    tally: &tally,
                };
                let scenarios = scenarios.clone();
                scope.spawn(move || run.all(scenarios));
            }
        });
    }
    ui::line(tally.summary());
    Ok(tally.is_good())
}

/// A scenario, as its head describes it.
#[derive(Clone)]
struct Scenario {
    name: String,
    /// The releases that it is for, if not for all.
    only: Option<String>,
    /// The release that it runs on unless everything runs on each.
    mostly: Option<String>,
    /// Why it is not run.
    skip: Option<String>,
}

/// The scenarios whose names contain one of `filters`, or all.
fn scenarios(filters: &[String]) -> Result<Vec<Scenario>> {
    let folder = host::root().join("tests/scenarios");
    let is_wanted = |name: &str| filters.is_empty() || filters.iter().any(|part| name.contains(part));
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "sh") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let names: Vec<_> = match head(&text, "variants") {
            Some(variants) => variants
                .split(' ')
                .map(|variant| match variant.split_once('@') {
                    Some((variant, release)) => (format!("{stem}.{variant}"), Some(release.to_owned())),
                    None => (format!("{stem}.{variant}"), None),
                })
                .collect(),
            None => vec![(stem, head(&text, "mostly"))],
        };
        for (name, mostly) in names.into_iter().filter(|(name, _)| is_wanted(name)) {
            found.push(Scenario {
                name,
                mostly,
                only: head(&text, "xen"),
                skip: head(&text, "skip"),
            });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// A value from a scenario's head: its first lines, which are comments.
fn head(text: &str, key: &str) -> Option<String> {
    let lines = text.lines().take_while(|line| line.starts_with('#'));
    let value = |line: &str| {
        Some(
            line.strip_prefix("# ")?
                .strip_prefix(key)?
                .strip_prefix(':')?
                .trim()
                .to_owned(),
        )
    };
    lines.filter_map(value).next()
}

/// The scenarios' run on one release.
struct Run<'a> {
    suite: Suite,
    options: &'a Options,
    tally: &'a Tally,
}

/// What is under way.
struct Current {
    name: String,
    start: Instant,
    _step: Step,
}

impl Run<'_> {
    /// Runs all scenarios, booting again where the machine did not survive one.
    fn all(&self, scenarios: Vec<Scenario>) {
        let mut left = VecDeque::new();
        // Whoever names a scenario means it.
        let everywhere = self.options.full || !self.options.filters.is_empty();
        let here = |release: &String| everywhere || release == self.suite.xen();
        for scenario in scenarios.into_iter().filter(|it| it.mostly.iter().all(here)) {
            let reason = match (&scenario.skip, &scenario.only) {
                (Some(reason), _) => Some(reason.clone()),
                (None, Some(only)) if only != self.suite.xen() => Some(format!("it is for Xen {only}")),
                _ => None,
            };
            match reason {
                Some(reason) => self.add(&scenario.name, Duration::ZERO, Verdict::Skipped(reason)),
                None => left.push_back(scenario.name),
            }
        }
        for number in 1.. {
            if left.is_empty() {
                break;
            }
            let before = left.len();
            if let Err(error) = self.boot(&mut left, number)
                && left.len() == before
            {
                // Not even the first scenario began.
                for name in left.drain(..) {
                    self.add(
                        &name,
                        Duration::ZERO,
                        Verdict::Failed(format!("the bed does not work: {error:#}")),
                    );
                }
            }
        }
    }

    /// Boots once and runs what is left until the machine stops. A scenario leaves the list when it begins.
    fn boot(&self, left: &mut VecDeque<String>, number: usize) -> Result<()> {
        let logs = self.logs(number)?;
        let mut current: Option<Current> = None;
        let mut failed = false;
        let outcome = self.lab(left, &logs).run(|line| {
            let mut words = line.split(' ');
            match (words.next(), words.next()) {
                (Some("begin"), Some(name)) => {
                    left.retain(|other| other != name);
                    let step = Step::quiet(format!("{} {name}", self.suite.xen()));
                    current = Some(Current {
                        name: name.to_owned(),
                        start: Instant::now(),
                        _step: step,
                    });
                    let limit: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(120);
                    // The scenario's own limit is by the machine's clock, which may be slower than ours.
                    let slower = if self.options.wall_clock { 1 } else { 5 };
                    Some(Duration::from_secs(limit * slower + 60))
                }
                (Some("end"), Some(name)) => {
                    let status = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
                    let time = current
                        .take()
                        .map_or(Duration::ZERO, |current| current.start.elapsed());
                    failed |= self.finish(name, status, time, &logs);
                    Some(Duration::from_secs(300))
                }
                _ => None,
            }
        });
        let result = outcome.and_then(|outcome| outcome.status);
        if let (Err(error), Some(current)) = (&result, &current) {
            failed = true;
            self.add(
                &current.name,
                current.start.elapsed(),
                Verdict::Failed(format!("{error:#}")),
            );
            show_logs(&logs.join("scenarios").join(&current.name));
            ui::line(lab::crash(&logs.join("xen.log")));
        }
        if failed {
            ui::line(format!(
                "── logs of Xen {} are kept in {}",
                self.suite.xen(),
                logs.display()
            ));
        } else if self.options.logs.is_none() && result.is_ok() {
            let _ = fs::remove_dir_all(&logs);
        }
        result.map(drop)
    }

    /// Counts and shows a scenario's end; whether it failed.
    fn finish(&self, name: &str, status: i32, time: Duration, logs: &Path) -> bool {
        let folder = logs.join("scenarios").join(name);
        let output = fs::read(folder.join("output.log")).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let reason = |word: &str| {
            output
                .lines()
                .find_map(|line| line.strip_prefix(word))
                .map(str::to_owned)
        };
        let verdict = match status {
            0 => Verdict::Passed,
            77 => Verdict::Skipped(reason("SKIP: ").unwrap_or_else(|| "it does not say why".into())),
            _ => Verdict::Failed(reason("FAIL: ").unwrap_or_else(|| format!("exit status {status}"))),
        };
        let failed = matches!(verdict, Verdict::Failed(_));
        self.add(name, time, verdict);
        if failed {
            show_logs(&folder);
        }
        failed
    }

    fn add(&self, name: &str, time: Duration, verdict: Verdict) {
        self.tally
            .add(&format!("{} {name}", self.suite.xen()), time, &verdict);
    }

    /// The folder for a boot's logs.
    fn logs(&self, number: usize) -> Result<PathBuf> {
        match &self.options.logs {
            Some(folder) if number > 1 => Ok(folder.join(format!("{}-{number}", self.suite.xen()))),
            Some(folder) => Ok(folder.join(self.suite.xen())),
            None => {
                let prefix = format!("virtio-stubdom-test-{}-", self.suite.xen());
                Ok(tempfile::Builder::new().prefix(&prefix).tempdir()?.keep())
            }
        }
    }

    fn lab(&self, left: &VecDeque<String>, logs: &Path) -> Lab {
        let names: Vec<&str> = left.iter().map(String::as_str).collect();
        let full = if self.options.full { "export full=1\n" } else { "" };
        let script = format!("#!/bin/bash\n{full}exec /srv/bed/run-scenarios\n");
        let tests = host::root().join("tests");
        let mut add = self.options.images.clone();
        add.push((tests.join("scenarios"), "/srv/bed/scenarios".into()));
        add.push((tests.join("lib.sh"), "/srv/bed/lib.sh".into()));
        Lab {
            suite: self.suite,
            driver: true,
            icount: !self.options.wall_clock,
            script: Some(script.into_bytes()),
            shell: false,
            add,
            files: vec![("/srv/bed/plan".into(), names.join("\n").into_bytes())],
            logs: Some(logs.to_owned()),
            timeout: Some(Duration::from_secs(60)),
        }
    }
}

/// Shows the end of what a scenario and its domains printed.
fn show_logs(folder: &Path) {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    // What the scenario itself printed says most, so it comes last.
    files.sort_by_key(|file| file.ends_with("output.log"));
    for file in files.iter().filter(|file| !file.ends_with("xenstore.log")) {
        ui::line(lab::tail(file, 25));
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[test]
    fn heads_are_read() {
        let text = "# What it shows.\n# timeout: 90\n# xen: 4.20\ncheck\n# skip: not in the head\n";
        assert_eq!(head(text, "xen").as_deref(), Some("4.20"));
        assert_eq!(head(text, "skip"), None);
    }

    /// A scenario that is for a release that does not exist would never run.
    #[test]
    fn every_scenario_runs_somewhere() -> Result<()> {
        for scenario in scenarios(&[])? {
            for release in scenario.mostly.iter().chain(&scenario.only) {
                let is_known = release == "full" || Suite::ALL.iter().any(|suite| suite.xen() == release);
                ensure!(is_known, "{}: there is no release {release}", scenario.name);
            }
        }
        Ok(())
    }

    #[test]
    fn every_scenario_says_what_it_shows() -> Result<()> {
        for entry in fs::read_dir(host::root().join("tests/scenarios"))? {
            let path = entry?.path();
            ensure!(
                fs::read_to_string(&path)?.starts_with("# "),
                "{} does not begin with a comment",
                path.display()
            );
        }
        Ok(())
    }
}
