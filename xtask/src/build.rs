//! `cargo xtask build`: the images, as ELF files that `xl create` boots.
//!
//! They are ordinary crates for the host's own target, compiled and linked freestanding: no C library, fixed
//! addresses in the upper 2 GiB by `linker.ld`, no unwinding, frame pointers for backtraces, no red zone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The most that the driver domain's image may weigh, in bytes.
const IMAGE_LIMIT: u64 = 1 << 20;

/// Where the built images are.
pub struct Paths {
    /// The driver domain's image, without symbols.
    pub image: PathBuf,
    /// The same with symbols, to look up the addresses of a backtrace in.
    pub image_symbols: PathBuf,
    /// The test client's image, without symbols.
    pub client: PathBuf,
    /// The same with symbols.
    pub client_symbols: PathBuf,
}

/// Builds the images of the workspace at `root` into `target/image`.
pub fn build(root: &Path) -> Result<Paths> {
    let target_dir = root.join("target/image");
    let flags = [
        "-Crelocation-model=static",
        "-Ccode-model=kernel",
        "-Cno-redzone=yes",
        "-Cforce-frame-pointers=yes",
        "-Cforce-unwind-tables=no",
        // What runs once in a while is most of the code: without this, it is inlined into itself until the
        // image is too large.
        "-Cllvm-args=-inline-threshold=100",
        "-Clink-arg=-nostdlib",
        "-Clink-arg=-static",
        "-Clink-arg=-no-pie",
        "-Clink-arg=-Wl,--build-id=none",
        "-Clink-arg=-Wl,-zmax-page-size=4096",
        "-Clink-arg=-Wl,-zcommon-page-size=4096",
        "-Clink-arg=-Wl,-znorelro",
        "-Clink-arg=-Wl,--no-eh-frame-hdr",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([
        format!("-Clink-arg=-Wl,-T,{}", root.join("linker.ld").display()),
        // The image names its sources by their paths in the workspace or the registry, wherever those lie.
        format!("--remap-path-prefix={}/=", root.display()),
        format!("--remap-path-prefix={}/registry/src/=", cargo_home()?.display()),
    ])
    .collect::<Vec<_>>()
    .join("\x1f");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root)
        .args([
            "build",
            "--quiet",
            "--package",
            "boot",
            "--package",
            "client",
            "--bins",
        ])
        .args(["--profile", "image", "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), "the images do not build");

    let built = target_dir.join(TARGET).join("image");
    let (image, image_symbols) = strip(&built.join("boot"), &target_dir, "virtio-stubdom")?;
    let (client, client_symbols) = strip(&built.join("client"), &target_dir, "client")?;
    let size = fs::metadata(&image)?.len();
    ensure!(
        size < IMAGE_LIMIT,
        "{} has {size} bytes, which is over the limit of {IMAGE_LIMIT}",
        image.display()
    );
    Ok(Paths {
        image,
        image_symbols,
        client,
        client_symbols,
    })
}

/// Where cargo keeps what it has downloaded.
fn cargo_home() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CARGO_HOME") {
        return Ok(path.into());
    }
    let home = std::env::home_dir().context("there is no home directory")?;
    Ok(home.join(".cargo"))
}

/// Copies what the linker made beside a version without symbols; the paths of the latter and of the copy.
fn strip(linked: &Path, folder: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
    let (image, symbols) = (folder.join(name), folder.join(format!("{name}.symbols")));
    fs::copy(linked, &symbols).with_context(|| format!("cannot copy {}", linked.display()))?;
    let status = Command::new("strip")
        .args(["--strip-all", "-o"])
        .args([&image, &symbols])
        .status()
        .context("strip (binutils) cannot be started")?;
    ensure!(status.success(), "strip failed on {}", symbols.display());
    Ok((image, symbols))
}
