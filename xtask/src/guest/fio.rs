//! fio, without the network stores that Debian links it with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;
use goblin::elf::Elf;

use super::stand_in;

/// Where fio lies, with the stand-ins that its start script puts first.
pub const FOLDER: &str = "usr/lib/fio";

/// The libraries for network and memory stores that fio is linked with.
const STORES: &[&str] = &[
    "libcurl",
    "libgfapi",
    "libibverbs",
    "libnbd",
    "libnfs",
    "libpmem",
    "libpmemblk",
    "librados",
    "librbd",
    "librdmacm",
];

/// Puts fio into a folder with stand-ins for what it does not need here, and a script that starts it in its
/// place.
pub fn lighten(tree: &Path) -> Result<()> {
    let folder = tree.join(FOLDER);
    fs::create_dir_all(&folder)?;
    let start = tree.join("usr/bin/fio");
    fs::rename(&start, folder.join("fio"))?;
    fs::write(
        &start,
        format!("#!/bin/bash\nLD_LIBRARY_PATH=/{FOLDER} exec /{FOLDER}/fio \"$@\"\n"),
    )?;
    fs::set_permissions(&start, fs::Permissions::from_mode(0o755))?;
    let content = fs::read(folder.join("fio"))?;
    stand_in::make(
        &Elf::parse(&content)?,
        STORES,
        &tree.join("usr/lib/x86_64-linux-gnu"),
        &folder,
    )?;
    Ok(())
}
