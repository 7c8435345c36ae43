//! `cargo xtask bench`: what a disk request or a packet costs, measured under icount, as the tables of
//! `docs/results.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::lab::{self, Lab};
use crate::suite::Suite;
use crate::{host, ui};

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Subject {
    /// Disk requests, beside plain blkfront.
    Disk,
    /// Packets and TCP segments, beside plain netfront.
    Net,
}

impl Subject {
    /// The script, in `tests/bench`.
    fn script(self) -> &'static str {
        match self {
            Subject::Disk => "bench/blk.sh",
            Subject::Net => "bench/net.sh",
        }
    }

    /// The file in the logs' folder that the script writes its results to.
    fn results(self) -> &'static str {
        match self {
            Subject::Disk => "bench.results",
            Subject::Net => "bench-net.results",
        }
    }

    /// Xen's own front end, by the name that the script gives its path.
    fn plain(self) -> &'static str {
        match self {
            Subject::Disk => "blkfront",
            Subject::Net => "netfront",
        }
    }

    /// The lines that the tables stand between.
    fn marks(self) -> [&'static str; 2] {
        match self {
            Subject::Disk => [
                "<!-- Made by cargo xtask bench: begin -->",
                "<!-- Made by cargo xtask bench: end -->",
            ],
            Subject::Net => [
                "<!-- Made by cargo xtask bench net: begin -->",
                "<!-- Made by cargo xtask bench net: end -->",
            ],
        }
    }

    /// How a job's speed is told: the value, what it is multiplied with, and the unit.
    fn speed(self, job: &str) -> (&'static str, f64, &'static str) {
        match self {
            // Large requests are told in MB/s, small ones in requests per second.
            Subject::Disk if job.contains("128k") => ("kib_s", 1024.0 / 1e6, "MB/s"),
            Subject::Disk => ("iops", 1.0, "IOPS"),
            Subject::Net if job.starts_with("udp") => ("packets_s", 1.0, "packets/s"),
            Subject::Net if job == "ping" => ("rtt_us", 1.0, "µs"),
            Subject::Net => ("mbit_s", 1.0, "Mbit/s"),
        }
    }
}

/// What to measure, and where.
pub struct Options {
    /// What to measure.
    pub subject: Subject,
    /// The release that the bed runs on.
    pub suite: Suite,
    /// The images that the bed is given.
    pub images: Vec<(PathBuf, PathBuf)>,
    /// Whether to put the tables into `docs/results.md`.
    pub write: bool,
    /// Where logs are kept; without it, in a temporary folder that stays if the run fails.
    pub logs: Option<PathBuf>,
}

/// One line of results: what was measured, and the values by name.
struct Row {
    guest: String,
    path: String,
    job: String,
    values: BTreeMap<String, f64>,
}

/// Runs the measurement, shows the tables, and puts them into the page if that is wanted.
pub fn run(options: Options) -> Result<()> {
    let tests = host::root().join("tests");
    let mut add = options.images;
    add.push((tests.join("lib.sh"), "/srv/bed/lib.sh".into()));
    let lab = Lab {
        suite: options.suite,
        driver: true,
        icount: true,
        shell: false,
        script: Some(lab::read_script(&tests.join(options.subject.script()))?),
        add,
        files: Vec::new(),
        logs: options.logs,
        timeout: None,
    };
    let outcome = lab.run(|_| None)?;
    if !matches!(outcome.status, Ok(0)) {
        let (status, logs) = outcome.keep_logs();
        lab::show_consoles(&logs);
        bail!("the measurement ended with status {}", status?);
    }
    let file = outcome.logs.join(options.subject.results());
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let rows = text.lines().map(parse).collect::<Result<Vec<_>>>()?;
    ensure!(!rows.is_empty(), "nothing was measured");
    let tables = tables(options.subject, options.suite, &rows);
    ui::line(&tables);
    if options.write {
        let page = host::root().join("docs/results.md");
        let old = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
        fs::write(&page, replace(&old, &tables, options.subject.marks())?)?;
    }
    Ok(())
}

/// Reads `result GUEST PATH JOB KEY=VALUE...`.
fn parse(line: &str) -> Result<Row> {
    let mut words = line.split_whitespace();
    ensure!(words.next() == Some("result"), "not a result: {line}");
    let mut word = || {
        words
            .next()
            .map(str::to_owned)
            .with_context(|| format!("too short: {line}"))
    };
    let (guest, path, job) = (word()?, word()?, word()?);
    let values = words
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .with_context(|| format!("no value: {pair}"))?;
            Ok((key.to_owned(), value.parse().with_context(|| pair.to_owned())?))
        })
        .collect::<Result<_>>()?;
    Ok(Row {
        guest,
        path,
        job,
        values,
    })
}

fn tables(subject: Subject, suite: Suite, rows: &[Row]) -> String {
    let value = |row: &Row, key: &str| row.values.get(key).copied().unwrap_or(0.0);
    let peer = subject.plain();
    let mut text = format!("Xen {}.\n\n", suite.xen());
    let _ = writeln!(
        text,
        "| guest | job | {peer} | virtio | virtio / {peer} |\n|---|---|---|---|---|"
    );
    for row in rows.iter().filter(|row| row.path == "virtio") {
        let plain = rows
            .iter()
            .find(|it| it.path == peer && it.guest == row.guest && it.job == row.job);
        let (key, scale, unit) = subject.speed(&row.job);
        let ours = value(row, key) * scale;
        let theirs = plain.map_or(0.0, |plain| value(plain, key) * scale);
        let _ = writeln!(
            text,
            "| {} | {} | {theirs:.0} {unit} | {ours:.0} {unit} | {:.2} |",
            row.guest,
            row.job,
            ours / theirs
        );
    }
    text += match subject {
        Subject::Disk => "\nWhat a request costs in the driver domain, by its own counters:\n\n",
        Subject::Net => {
            "\nWhat 64 KiB of TCP, a UDP packet, or an echo costs in the driver domain, by its own counters:\n\n"
        }
    };
    text += "\
        | guest | job | hypercalls | notifications | waits | grant copies | copied by Xen | copied by us | CPU time |\n\
        |---|---|---|---|---|---|---|---|---|\n";
    for row in rows.iter().filter(|row| row.path == "virtio") {
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} B | {:.0} B | {:.0} µs |",
            row.guest,
            row.job,
            value(row, "hypercalls"),
            value(row, "event-send"),
            value(row, "block"),
            value(row, "grant-copy"),
            value(row, "bytes-grant-copied"),
            value(row, "bytes-copied"),
            value(row, "cpu_dd_ms") * 1e3 / value(row, "requests"),
        );
    }
    let _ = writeln!(
        text,
        "\nCPU time of dom0 and of the guest for each of these, side by side:\n\n\
        | guest | job | dom0, {peer} | dom0, virtio | guest, {peer} | guest, virtio |\n|---|---|---|---|---|---|"
    );
    for row in rows.iter().filter(|row| row.path == "virtio") {
        let plain = rows
            .iter()
            .find(|it| it.path == peer && it.guest == row.guest && it.job == row.job);
        let each = |row: &Row, key: &str| value(row, key) * 1e3 / value(row, "requests");
        let theirs = |key: &str| plain.map_or(0.0, |plain| each(plain, key));
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} µs | {:.0} µs | {:.0} µs | {:.0} µs |",
            row.guest,
            row.job,
            theirs("cpu_dom0_ms"),
            each(row, "cpu_dom0_ms"),
            theirs("cpu_guest_ms"),
            each(row, "cpu_guest_ms"),
        );
    }
    text
}

/// The page with other tables between its marks.
fn replace(page: &str, tables: &str, [begin, end]: [&str; 2]) -> Result<String> {
    let (head, rest) = page
        .split_once(begin)
        .with_context(|| format!("docs/results.md has no line {begin}"))?;
    let (_, tail) = rest
        .split_once(end)
        .with_context(|| format!("docs/results.md has no line {end}"))?;
    Ok(format!("{head}{begin}\n\n{tables}\n{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_and_compared() {
        let rows = [
            "result pv blkfront randread-4k-1 requests=100 iops=1000 kib_s=4000 errors=0 cpu_dom0_ms=100",
            "result pv virtio randread-4k-1 requests=100 iops=500 kib_s=2000 errors=0 cpu_dd_ms=10 hypercalls=4.5",
        ]
        .map(|line| parse(line).unwrap());
        let text = tables(Subject::Disk, Suite::Trixie, &rows);
        assert!(
            text.contains("| pv | randread-4k-1 | 1000 IOPS | 500 IOPS | 0.50 |"),
            "{text}"
        );
        assert!(text.contains("| 4.50 |") && text.contains("| 100 µs |"), "{text}");
        assert!(parse("result pv virtio").is_err() && parse("result a b c d=e").is_err());
    }

    #[test]
    fn each_kind_of_traffic_has_its_unit() {
        let rows = [
            "result pvh netfront ping requests=10 rtt_us=200",
            "result pvh virtio ping requests=10 rtt_us=300",
        ]
        .map(|line| parse(line).unwrap());
        let text = tables(Subject::Net, Suite::Trixie, &rows);
        assert!(text.contains("| pvh | ping | 200 µs | 300 µs | 1.50 |"), "{text}");
        assert_eq!(Subject::Net.speed("udp-in-64").2, "packets/s");
        assert_eq!(Subject::Net.speed("tcp-in").2, "Mbit/s");
    }

    #[test]
    fn tables_replace_tables() {
        let [begin, end] = Subject::Net.marks();
        let page = format!("before\n{begin}\nold\n{end}\nafter\n");
        let once = replace(&page, "new", [begin, end]).unwrap();
        assert_eq!(once, format!("before\n{begin}\n\nnew\n{end}\nafter\n"));
        assert_eq!(replace(&once, "new", [begin, end]).unwrap(), once);
        assert!(replace("no marks", "new", [begin, end]).is_err());
    }
}
