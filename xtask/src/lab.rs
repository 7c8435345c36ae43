//! `cargo xtask lab`: boots the bed and runs a script, or a shell, in dom0.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::archive::Cpio;
use crate::dom0::Dom0;
use crate::machine::{Machine, Running};
use crate::suite::Suite;
use crate::ui::Step;
use crate::{dom0, guest, host, ui};

/// What to boot, and what to do in it.
pub struct Lab {
    /// The release that the bed runs on.
    pub suite: Suite,
    /// Whether the guest's initrd has the bus driver.
    pub driver: bool,
    /// Whether virtual time counts instructions.
    pub icount: bool,
    /// The script that dom0 runs as root; its status is the run's.
    pub script: Option<Vec<u8>>,
    /// Whether the user gets a shell in dom0, after the script if there is one.
    pub shell: bool,
    /// Files and folders of the host, and where dom0 has them.
    pub add: Vec<(PathBuf, PathBuf)>,
    /// Files that dom0 gets, by path and content.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Where logs are kept; without it, a temporary folder that stays if the run fails.
    pub logs: Option<PathBuf>,
    /// The longest that a run may take once dom0 is up.
    pub timeout: Option<Duration>,
}

/// How a run ended.
pub struct Outcome {
    /// The script's exit status, or why there is none.
    pub status: Result<i32>,
    /// The folder with the consoles and the toolstack's logs.
    pub logs: PathBuf,
    keep: Option<tempfile::TempDir>,
}

impl Outcome {
    /// Keeps the logs, and returns their folder beside the status.
    pub fn keep_logs(mut self) -> (Result<i32>, PathBuf) {
        if let Some(folder) = self.keep.take() {
            let _ = folder.keep();
        }
        (self.status, self.logs)
    }
}

/// What dom0 reports on the control channel; the words are its init's and the scenario runner's.
#[derive(Debug)]
pub enum Report {
    /// xl works.
    Ready,
    /// The work order is done, with this status.
    Exit(i32),
    /// dom0's init gave up.
    Failed(String),
    /// Any other line.
    Line(String),
}

impl Lab {
    /// Boots, runs, and waits for the end. `on_line` gets the control channel's other lines, and may set a
    /// new limit on the time from then on.
    pub fn run(self, mut on_line: impl FnMut(&str) -> Option<Duration>) -> Result<Outcome> {
        host::require(host::BED)?;
        let dom0 = dom0::dom0(self.suite)?;
        let guest = guest::guest(self.suite, self.driver)?;
        let scratch = tempfile::Builder::new().prefix("virtio-stubdom-").tempdir()?;
        let archive = scratch.path().join("archive.tar");
        self.write_archive(&archive)?;
        let initramfs = scratch.path().join("initramfs");
        write_initramfs(&dom0, &guest, &archive, &initramfs)?;

        let (logs, keep) = match &self.logs {
            Some(folder) => (folder.clone(), None),
            None => {
                let folder = tempfile::Builder::new()
                    .prefix("virtio-stubdom-logs-")
                    .tempdir()?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        fs::create_dir_all(logs.join("console"))?;
        // dom0 appends; what an earlier run left would mix with this one's.
        for entry in walkdir::WalkDir::new(&logs) {
            let entry = entry?;
            if entry.file_type().is_file() && entry.path().extension().is_some_and(|end| end == "log") {
                fs::remove_file(entry.path())?;
            }
        }
        let logs = logs.canonicalize()?;
        let machine = Machine {
            dom0: &dom0,
            initramfs,
            logs: logs.clone(),
            icount: self.icount,
            shell: self.shell,
            memory: 5632,
        };
        let step = Step::new(format!("booting Xen {}", self.suite.xen()));
        let mut running = machine.start()?;
        let status = self.follow(&mut running, step, &mut on_line);
        let _ = running.qemu.kill();
        let _ = running.qemu.wait();
        Ok(Outcome { status, logs, keep })
    }

    /// Passes on what the run prints and reports until it is over.
    fn follow(
        &self,
        running: &mut Running,
        step: Step,
        on_line: &mut dyn FnMut(&str) -> Option<Duration>,
    ) -> Result<i32> {
        let reports = reports(running.control.try_clone()?);
        let copies = [
            copy(running.output.try_clone()?, || Box::new(std::io::stdout())),
            copy(running.errors.try_clone()?, || Box::new(std::io::stderr())),
        ];
        // Emulation that counts instructions takes about twice as long.
        let boot = Duration::from_secs(if self.icount { 400 } else { 200 });
        let mut step = Some(step);
        let mut deadline = Some(Instant::now() + boot);
        loop {
            let wait = deadline.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            let report = match reports.recv_timeout(wait) {
                Ok(report) => report,
                Err(RecvTimeoutError::Timeout) if step.is_some() => {
                    bail!("dom0 is not up after {} s", boot.as_secs())
                }
                Err(RecvTimeoutError::Timeout) => bail!("the run is not over in time"),
                Err(RecvTimeoutError::Disconnected) => bail!("the machine stopped before the run was over"),
            };
            match report {
                Report::Ready => {
                    if let Some(step) = step.take() {
                        step.done();
                    }
                    deadline = self.timeout.map(|timeout| Instant::now() + timeout);
                }
                Report::Exit(status) => {
                    // The machine powers itself off; the rest of what it printed comes before that.
                    wait_at_most(&mut running.qemu, Duration::from_secs(20))?;
                    for copy in copies {
                        let _ = copy.join();
                    }
                    return Ok(status);
                }
                Report::Failed(reason) => bail!("dom0: {reason}"),
                Report::Line(line) => {
                    if let Some(limit) = on_line(&line) {
                        deadline = Some(Instant::now() + limit);
                    }
                }
            }
        }
    }

    /// The archive that dom0 unpacks at its root.
    fn write_archive(&self, file: &Path) -> Result<()> {
        let mut archive = tar::Builder::new(File::create(file)?);
        archive.mode(tar::HeaderMode::Deterministic);
        let root = host::root();
        let mut add = |to: &Path, from: &Path| -> Result<()> {
            let added = if from.is_dir() {
                archive.append_dir_all(to, from)
            } else {
                archive.append_path_with_name(from, to)
            };
            added.with_context(|| format!("cannot add {} to dom0", from.display()))
        };
        add(Path::new("srv/bed"), &root.join("tests/bed/dom0"))?;
        add(Path::new("srv/stubdom/xl"), &root.join("boot/xl"))?;
        for (from, to) in &self.add {
            add(
                to.strip_prefix("/")
                    .with_context(|| format!("{} is not absolute", to.display()))?,
                from,
            )?;
        }
        for (to, content) in &self.files {
            append(&mut archive, &to.display().to_string(), content)?;
        }
        if let Some(script) = &self.script {
            append(&mut archive, "srv/bed/script", script)?;
        }
        if self.shell {
            append(&mut archive, "srv/bed/shell", terminal().as_bytes())?;
        }
        archive.into_inner()?;
        Ok(())
    }
}

/// dom0's initramfs with the file systems and the archive that it brings along. They come this way, and not
/// as disks, because where time is a count of instructions it runs on while a disk waits for the host, and
/// whoever waits for the disk meets their time limits.
fn write_initramfs(dom0: &Dom0, guest: &Path, archive: &Path, file: &Path) -> Result<()> {
    fs::copy(&dom0.initramfs, file).with_context(|| file.display().to_string())?;
    let mut initramfs = Cpio::new(File::options().append(true).open(file)?);
    initramfs.copy("root.squashfs", &dom0.root)?;
    initramfs.copy("guest.squashfs", guest)?;
    initramfs.copy("run.tar", archive)?;
    initramfs.finish()
}

fn append(archive: &mut tar::Builder<File>, path: &str, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, path.trim_start_matches('/'), content)?;
    Ok(())
}

/// The size and type of the user's terminal, as shell assignments.
fn terminal() -> String {
    let term = std::env::var("TERM").unwrap_or_default();
    let term: String = term
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-')
        .collect();
    match console::Term::stdout().size_checked() {
        Some((rows, columns)) => format!("rows={rows} cols={columns} term={term}\n"),
        None => format!("term={term}\n"),
    }
}

/// The control channel's lines as reports.
fn reports(control: impl Read + Send + 'static) -> Receiver<Report> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(control).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let report = match word {
                "ready" => Report::Ready,
                "exit" => Report::Exit(rest.parse().unwrap_or(1)),
                "failed" => Report::Failed(rest.to_owned()),
                _ => Report::Line(line),
            };
            if sender.send(report).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Waits for a process, and ends it if it takes longer than `limit`.
fn wait_at_most(process: &mut Child, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    while process.try_wait()?.is_none() {
        if Instant::now() >= end {
            process.kill()?;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Passes everything on until the other side is done.
fn copy(mut from: impl Read + Send + 'static, to: fn() -> Box<dyn Write>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 16384];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            ui::pass_on(&buffer[..length], to());
        }
    })
}

/// Fetches and makes what booting on `suite` takes, so that it is in the cache.
pub fn prepare(suite: Suite, driver: bool) -> Result<()> {
    host::require(host::BED)?;
    dom0::dom0(suite)?;
    guest::guest(suite, driver)?;
    Ok(())
}

/// Shows the end of every log in `folder`, and names the folder.
pub fn show_consoles(folder: &Path) {
    for entry in walkdir::WalkDir::new(folder)
        .sort_by_file_name()
        .into_iter()
        .flatten()
    {
        // What these have is elsewhere too, or about nothing that a run does.
        let is_dull = ["hypervisor.log", "xenstored.log"]
            .iter()
            .any(|name| entry.path().ends_with(name));
        if entry.file_type().is_file() && !is_dull {
            ui::remark(tail(entry.path(), 25));
        }
    }
    ui::remark(format!("── consoles and logs are kept in {}", folder.display()));
}

/// The last lines of a log below a line that names it.
pub fn tail(file: &Path, count: usize) -> String {
    let content = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&content);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let shown = lines[lines.len().saturating_sub(count)..].join("\n");
    format!("── the end of {}\n{shown}", file.display())
}

/// What a console says of a kernel's end: from the first line that tells of one on, or else the last lines.
pub fn crash(file: &Path) -> String {
    const SIGNS: &[&str] = &[
        "BUG: ",
        "Oops",
        "Kernel panic",
        "general protection",
        "WARNING: ",
        "FATAL",
    ];
    const LINES: usize = 80;
    let content = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&content);
    let is_sign = |line: &str| SIGNS.iter().any(|sign| line.contains(sign));
    match text.lines().position(is_sign) {
        None => tail(file, 30),
        Some(first) => {
            let lines: Vec<&str> = text.lines().skip(first).take(LINES).map(str::trim_end).collect();
            format!("── from {}\n{}", file.display(), lines.join("\n"))
        }
    }
}

/// Reads a script; one that does not name its interpreter is bash's.
pub fn read_script(file: &Path) -> Result<Vec<u8>> {
    let script = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(!script.is_empty(), "{} is empty", file.display());
    Ok(if script.starts_with(b"#!") {
        script
    } else {
        [b"#!/bin/bash\n", &script[..]].concat()
    })
}
