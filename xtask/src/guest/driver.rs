//! The guest's bus driver.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::host;

/// Builds the bus driver with the compiler and headers in the root file system `root`, and puts its module
/// into `into`.
pub fn build(root: &Path, release: &str, driver: &Path, into: &Path) -> Result<()> {
    let work = tempfile::Builder::new()
        .prefix("driver-")
        .tempdir_in(root.join("tmp"))?;
    for entry in fs::read_dir(driver)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_source = [".c", ".h", "Makefile", "Kbuild"]
            .iter()
            .any(|end| name.to_string_lossy().ends_with(end));
        if is_source && !name.to_string_lossy().ends_with(".mod.c") {
            fs::copy(entry.path(), work.path().join(&name))?;
        }
    }
    let inside = Path::new("/").join(work.path().strip_prefix(root)?);
    host::run(
        host::chroot(root)
            .args(["make", "-C"])
            .arg(&inside)
            .arg(format!("KDIR=/lib/modules/{release}/build"))
            .env("PATH", "/usr/sbin:/usr/bin")
            .env_remove("MAKEFLAGS"),
    )
    .context("the bus driver does not build")?;
    let module = work.path().join("virtio_msg_xen.ko");
    fs::copy(&module, into.join("virtio_msg_xen.ko")).with_context(|| format!("no {}", module.display()))?;
    Ok(())
}
