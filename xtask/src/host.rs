//! What the bed needs on the host: programs from Debian's packages, installed when run as root, else named.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// A program and the Debian package that has it.
pub type Tool = (&'static str, &'static str);

/// What booting the bed takes.
pub const BED: &[Tool] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mmdebstrap", "mmdebstrap"),
    ("mksquashfs", "squashfs-tools"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("gzip", "gzip"),
    ("cc", "gcc"),
    ("setpriv", "util-linux"),
];

/// What compiling the workspace takes besides the Rust toolchain.
pub const BUILD: &[Tool] = &[("cc", "gcc"), ("strip", "binutils")];

/// What building the fuzz targets takes: libFuzzer is written in C++.
pub const FUZZ: &[Tool] = &[("c++", "g++")];

/// Makes sure that every tool is there: installs the packages when run as root, else fails with the command
/// to copy.
pub fn require(tools: &[Tool]) -> Result<()> {
    let mut missing: Vec<&str> = tools
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!(
        "apt-get install --yes --no-install-recommends {}",
        missing.join(" ")
    );
    if !is_root() || find("apt-get").is_none() {
        bail!("missing on this machine; install with:\n  sudo {install}");
    }
    eprintln!("installing {} …", missing.join(" "));
    // The package lists may be absent or old: fetch them only if the first try fails.
    let script = format!("{install} || {{ apt-get update && {install}; }}");
    let output = Command::new("sh")
        .args(["-c", &script])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-get")?;
    ensure!(
        output.status.success(),
        "{install} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Whether this process runs as root, and not only of a namespace of its own.
fn is_root() -> bool {
    is_root_here() && std::env::var_os(IN_NAMESPACE).is_none()
}

fn is_root_here() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Set for a process that [`root_of_namespace`] has started again.
const IN_NAMESPACE: &str = "VIRTIO_STUBDOM_IN_NAMESPACE";

/// Makes this process root, for Debian's packages have files of several users: if it is not, it starts again
/// as root of a user namespace, for which the user needs ranges in `/etc/subuid` and `/etc/subgid`. What is
/// made there belongs to them.
pub fn root_of_namespace() -> Result<()> {
    if is_root_here() {
        return Ok(());
    }
    require(&[BED, BUILD, &[("newuidmap", "uidmap")]].concat())?;
    let error = Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-auto", "--mount", "--"])
        .arg(std::env::current_exe().context("xtask cannot find itself")?)
        .args(std::env::args_os().skip(1))
        .env(IN_NAMESPACE, "1")
        .exec();
    Err(error).context("cannot enter a user namespace")
}

/// A command that runs its arguments with `root` as the root folder.
pub fn chroot(root: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("chroot");
        command.arg(root);
        return command;
    }
    // Root of a namespace cannot make device nodes: the tree has empty files in their places.
    let script = r#"root=$1; shift; mount --rbind /dev "$root/dev" && exec chroot "$root" "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(root);
    command
}

/// Where `program` is on the search path; administrators' folders are looked at too.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

/// Runs `command` with its output kept back, and shown in the error if it fails.
pub fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    ensure!(
        output.status.success(),
        "{name} failed with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
