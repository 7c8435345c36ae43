//! Root file systems from Debian's packages, laid out but not configured: nothing in them has run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::host;
use crate::suite::Suite;

/// Extracts `packages` and all that they depend on into the empty folder `tree`.
pub fn extract(suite: Suite, packages: &[String], tree: &Path) -> Result<()> {
    // Without /lib and the like as links, packages of a release before the merge would split up the tree.
    let merge = r#"mkdir -p "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib" "$1/usr/lib64"
        for folder in bin sbin lib lib64; do ln -sfn "usr/$folder" "$1/$folder"; done"#;
    host::run(
        Command::new("mmdebstrap")
            .args(["--quiet", "--mode=root", "--variant=extract"])
            .arg(format!("--include={}", packages.join(",")))
            .args(
                ["doc/*", "man/*", "locale/*", "info/*"]
                    .map(|path| format!("--dpkgopt=path-exclude=/usr/share/{path}")),
            )
            .arg(format!("--setup-hook={merge}"))
            .arg(suite.codename())
            .arg(tree),
    )?;
    // The links that the packages' scripts would have made.
    for (link, target) in [("sh", "bash"), ("awk", "gawk")] {
        let link = tree.join("usr/bin").join(link);
        let _ = fs::remove_file(&link);
        symlink(target, &link).with_context(|| link.display().to_string())?;
    }
    for unneeded in [
        "var/lib/apt",
        "var/cache",
        "usr/lib/udev/hwdb.d",
        "usr/share/i18n",
        "usr/share/zoneinfo",
    ] {
        let _ = fs::remove_dir_all(tree.join(unneeded));
    }
    let cache = tree.join("var/cache");
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    Ok(())
}

/// The kernel in `tree`: its release, such as `6.12.0-1-amd64`.
pub fn kernel_release(tree: &Path) -> Result<String> {
    let modules = tree.join("usr/lib/modules");
    let mut releases = fs::read_dir(&modules)
        .with_context(|| modules.display().to_string())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        releases.len() == 1,
        "expected one kernel in {}, found {releases:?}",
        modules.display()
    );
    Ok(releases.remove(0))
}

/// Keeps, of the kernel's modules in `tree`, those that `keep` names with all that they need, unpacks them,
/// and indexes them again. Names are as modprobe takes them, with `_` for `-`; one ending in `/` keeps a
/// whole folder below `kernel/`.
pub fn prune_modules(tree: &Path, release: &str, keep: &[&str]) -> Result<()> {
    let folder = tree.join("usr/lib/modules").join(release);
    let depmod = || host::run(Command::new("/sbin/depmod").arg("-b").arg(tree).arg(release));
    depmod()?;
    let needs = module_needs(&folder)?;
    let mut wanted: BTreeSet<&Path> = BTreeSet::new();
    for name in keep {
        for (path, needed) in &needs {
            let matches = match name.strip_suffix('/') {
                Some(below) => path.starts_with(Path::new("kernel").join(below)),
                None => module_name(path) == *name,
            };
            if matches {
                wanted.insert(path);
                wanted.extend(needed.iter().map(PathBuf::as_path));
            }
        }
    }
    for path in needs.keys() {
        let file = folder.join(path);
        if !wanted.contains(path.as_path()) {
            fs::remove_file(&file)?;
        } else if path.extension().is_some_and(|extension| extension == "xz") {
            host::run(Command::new("xz").arg("-d").arg(&file))?;
        }
    }
    depmod()
}

/// The files of modules `names` and of all that they need, in loading order.
pub fn load_order(tree: &Path, release: &str, names: &[&str]) -> Result<Vec<PathBuf>> {
    let folder = tree.join("usr/lib/modules").join(release);
    let needs = module_needs(&folder)?;
    let mut order: Vec<PathBuf> = Vec::new();
    for name in names {
        // A module that is not there is built into the kernel; if it is not, loading its users says so.
        let Some((path, needed)) = needs.iter().find(|(path, _)| module_name(path) == *name) else {
            continue;
        };
        // modules.dep lists what is needed with the nearest first.
        for file in needed.iter().rev().chain([path]) {
            let file = folder.join(file);
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    Ok(order)
}

/// modules.dep: each module's path, and the paths of those that it needs.
fn module_needs(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<PathBuf>>> {
    let file = folder.join("modules.dep");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    Ok(lines
        .map(|(path, needs)| (path.into(), needs.split_whitespace().map(PathBuf::from).collect()))
        .collect())
}

/// A module's name as the kernel has it: the file's, without extensions, with `_` for `-`.
fn module_name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}
