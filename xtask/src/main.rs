//! Project commands: build the image, run it under Xen in QEMU, test it and measure it.

mod archive;
mod bench;
mod build;
mod bzimage;
mod cache;
mod debian;
mod dom0;
mod guest;
mod host;
mod host_tests;
mod lab;
mod machine;
mod scenarios;
mod suite;
mod tally;
mod tour;
mod ui;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::lab::Lab;
use crate::suite::Suite;

/// Builds virtio-stubdom, and runs, tests and measures it under Xen in QEMU.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Builds the driver domain's image and the test client's.
    Build,
    /// Shows the main job as a short tour: a guest's ext4 file system on a disk, and a lease and a download
    /// by a network card, which the driver domain serves.
    Run(RunArguments),
    /// Runs the host tests and the fuzz targets, then the scenarios under Xen; with a filter, those whose
    /// names contain it.
    Test(TestArguments),
    /// Measures what disk requests or packets cost, beside Xen's own front ends, counting instructions.
    Bench(BenchArguments),
    /// Boots the bed; runs a script in dom0 as root, or gives a dom0 shell.
    Lab(LabArguments),
}

#[derive(clap::Args)]
struct RunArguments {
    /// The version of Xen: 4.20 with Debian 13, or 4.17 with Debian 12.
    #[arg(long, value_enum, default_value = "4.20")]
    xen: Suite,
    /// Leave everything up, with a shell in dom0.
    #[arg(long)]
    keep: bool,
    /// Keeps consoles and logs in this folder; otherwise they stay in a temporary one if the run fails.
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
}

#[derive(clap::Args)]
struct LabArguments {
    /// The version of Xen: 4.20 with Debian 13, or 4.17 with Debian 12.
    #[arg(long, value_enum, default_value = "4.20")]
    xen: Suite,
    /// Count instructions for virtual time: slower, and repeatable to a tenth of a percent.
    #[arg(long)]
    icount: bool,
    /// The script to run in dom0; the command exits with its status.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Puts a file or a folder of this machine into dom0.
    #[arg(long, value_name = "HOSTFILE:DOM0PATH", value_parser = parse_add)]
    add: Vec<(PathBuf, PathBuf)>,
    /// Leaves the bus driver out of the guest's initrd.
    #[arg(long)]
    no_driver: bool,
    /// Take the images as they are, or none, instead of building them.
    #[arg(long)]
    no_build: bool,
    /// Keeps consoles and logs in this folder; otherwise they stay in a temporary one if the run fails.
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
    /// Ends a run that takes longer than this once dom0 is up.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

#[derive(clap::Args)]
struct TestArguments {
    /// Parts of the names of the tests to run.
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// The version of Xen to run the scenarios on; without this, each of them.
    #[arg(long, value_enum)]
    xen: Vec<Suite>,
    /// Take the time in the bed from this host's clock. Otherwise it counts instructions, which makes it
    /// independent of how fast and how busy the host is.
    #[arg(long)]
    wall_clock: bool,
    /// Leave the host tests out.
    #[arg(long)]
    scenarios_only: bool,
    /// Run every variant of every scenario on every version of Xen, rather than long ones on one version, and
    /// transfer 256 MiB where otherwise 16 have to do.
    #[arg(long)]
    full: bool,
    /// Take the images as they are, or none, instead of building them.
    #[arg(long)]
    no_build: bool,
    /// Keeps consoles and logs below this folder; otherwise they stay in temporary ones if something fails.
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
}

#[derive(clap::Args)]
struct BenchArguments {
    /// What to measure.
    #[arg(value_enum, default_value = "disk")]
    subject: bench::Subject,
    /// The version of Xen.
    #[arg(long, value_enum, default_value = "4.20")]
    xen: Suite,
    /// Put the tables into docs/results.md.
    #[arg(long)]
    write: bool,
    /// Take the images as they are, instead of building them.
    #[arg(long)]
    no_build: bool,
    /// Keeps consoles and logs in this folder; otherwise they stay in a temporary one if the run fails.
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
}

fn parse_add(argument: &str) -> Result<(PathBuf, PathBuf), String> {
    match argument.split_once(':') {
        Some((from, to)) if !from.is_empty() && to.starts_with('/') => Ok((from.into(), to.into())),
        _ => Err("expected HOSTFILE:/ABSOLUTE/PATH/IN/DOM0".into()),
    }
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let prepared = match command {
        Subcommands::Build => Ok(()),
        _ => host::root_of_namespace(),
    };
    let result = prepared.and_then(|()| match command {
        Subcommands::Build => build(),
        Subcommands::Run(arguments) => run(arguments),
        Subcommands::Test(arguments) => test(arguments),
        Subcommands::Bench(arguments) => bench(arguments),
        Subcommands::Lab(arguments) => lab(arguments),
    });
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn build() -> Result<ExitCode> {
    host::require(host::BUILD)?;
    let paths = build::build(host::root())?;
    for (image, symbols) in [
        (paths.image, paths.image_symbols),
        (paths.client, paths.client_symbols),
    ] {
        let size = std::fs::metadata(&image)?.len() / 1024;
        println!(
            "{} ({size} KiB; with symbols: {})",
            image.display(),
            symbols.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The images, and where dom0 has them. Those that `no_build` leaves as they are may be missing.
fn images(no_build: bool) -> Result<Vec<(PathBuf, PathBuf)>> {
    let (image, client) = if no_build {
        let folder = host::root().join("target/image");
        (folder.join("virtio-stubdom"), folder.join("client"))
    } else {
        host::require(host::BUILD)?;
        let paths = build::build(host::root())?;
        (paths.image, paths.client)
    };
    let configuration = host::root().join("tests/client/client.cfg");
    let images = [
        (image, "/srv/stubdom/image".into()),
        (client, "/srv/stubdom/client".into()),
        (configuration, "/srv/stubdom/xl/client.cfg".into()),
    ];
    Ok(images
        .into_iter()
        .filter(|(file, _)| !no_build || file.exists())
        .collect())
}

fn run(arguments: RunArguments) -> Result<ExitCode> {
    let RunArguments { xen, keep, logs } = arguments;
    tour::run(tour::Options {
        suite: xen,
        keep,
        logs,
        images: images(false)?,
    })?;
    Ok(ExitCode::SUCCESS)
}

fn test(arguments: TestArguments) -> Result<ExitCode> {
    let options = scenarios::Options {
        suites: if arguments.xen.is_empty() {
            Suite::ALL.to_vec()
        } else {
            arguments.xen
        },
        filters: arguments.filters,
        wall_clock: arguments.wall_clock,
        logs: arguments.logs,
        scenarios_only: arguments.scenarios_only,
        full: arguments.full,
        images: images(arguments.no_build)?,
    };
    Ok(if scenarios::run(&options)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn bench(arguments: BenchArguments) -> Result<ExitCode> {
    bench::run(bench::Options {
        subject: arguments.subject,
        suite: arguments.xen,
        images: images(arguments.no_build)?,
        write: arguments.write,
        logs: arguments.logs,
    })?;
    Ok(ExitCode::SUCCESS)
}

fn lab(arguments: LabArguments) -> Result<ExitCode> {
    let script = arguments.script.as_deref().map(lab::read_script).transpose()?;
    let lab = Lab {
        suite: arguments.xen,
        driver: !arguments.no_driver,
        icount: arguments.icount,
        shell: script.is_none(),
        script,
        add: images(arguments.no_build)?
            .into_iter()
            .chain(arguments.add)
            .collect(),
        files: Vec::new(),
        logs: arguments.logs,
        timeout: arguments.timeout.map(Duration::from_secs),
    };
    let outcome = lab.run(|_| None)?;
    if matches!(outcome.status, Ok(0)) {
        return Ok(ExitCode::SUCCESS);
    }
    let (status, logs) = outcome.keep_logs();
    lab::show_consoles(&logs);
    Ok(ExitCode::from(u8::try_from(status?).unwrap_or(1)))
}
