//! A client of the driver domain, as a domain of its own: it drives virtio disks and network devices over the
//! Xen bus and tests both ends.
//!
//! Its command line says what to do: `test=` is one of these, or several with commas:
//!
//! - for disks `basic`, `stress`, `hostile` and `hostile.<name>`
//! - for network devices `net`, `net-hostile`, `net-hostile.<name>` and `net-flood`
//! - `crash.<name>` by itself
//!
//! `seed=`, `rounds=` and `seconds=` steer what is random and how long it takes, `metrics=` is the port of
//! the gateway's counters. There is one line per check, `ok <name>` or `not ok <name>: <reason>`, and a last
//! one, `passed <n> failed <n>`. Then the domain powers off.
//!
//! "The specification" is `docs/virtio-msg-xen.md`.
#![no_std]
#![no_main]

extern crate alloc;

mod connection;
mod crash;
mod device;
mod disk;
mod frontend;
mod hal;
mod hostile;
mod net;
mod random;
mod raw;
mod report;
mod suite;
mod transport;

use alloc::format;

use kernel::cmdline;

use crate::frontend::{Frontend, Kind};
use crate::report::{Outcome, Report};

kernel::entry!(main);

async fn main() {
    let mut report = Report::default();
    if let Err(reason) = run(&mut report).await {
        report.add("run", Err(reason));
    }
    report.finish();
}

async fn run(report: &mut Report) -> Outcome {
    if let Some(name) = cmdline::value("test").and_then(|test| test.strip_prefix("crash.")) {
        return crash::run(name);
    }
    let frontends = frontend::find().await?;
    for test in cmdline::value("test").unwrap_or("basic").split(',') {
        let kind = match test.starts_with("net") {
            true => Kind::Network,
            false => Kind::Disk,
        };
        let mut devices = frontends.iter().filter(|it| it.kind == kind).peekable();
        ensure!(
            devices.peek().is_some(),
            "test={test}: there is no such device in xenstore"
        );
        for frontend in devices {
            one(report, frontend, test).await?;
        }
    }
    Ok(())
}

/// Runs the test of that name on one device.
async fn one(report: &mut Report, frontend: &Frontend, test: &str) -> Outcome {
    log::info!("{}: {test}", frontend.path);
    match test.split_once('.').unwrap_or((test, "")) {
        ("basic", "") => suite::basic::run(report, frontend).await,
        ("stress", "") => suite::stress::run(report, frontend).await,
        ("hostile", name) => hostile::run(report, frontend, wanted(name)).await,
        ("net", "") => net::basic::run(report, frontend).await,
        ("net-hostile", name) => net::hostile::run(report, frontend, wanted(name)).await,
        ("net-flood", "") => net::flood::run(report, frontend).await,
        _ => Err(format!(
            "test={test}: expected basic, stress, hostile, hostile.<name>, net, net-hostile, net-hostile.<name> or net-flood"
        )),
    }
}

/// The one scenario to be run; all if none is named.
fn wanted(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}

/// A number from the command line.
fn number(key: &str, default: u64) -> Outcome<u64> {
    match cmdline::value(key) {
        None => Ok(default),
        Some(value) => value
            .parse()
            .map_err(|_| format!("{key}={value}: expected a number")),
    }
}
