//! The guest's programs, with the libraries that they need, out of a tree of Debian's.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use goblin::elf::Elf;

use super::contents::{LIBRARIES, PROGRAMS};
use super::fio;
use crate::archive::Cpio;

/// Writes an archive of the programs in `tree` and the libraries that they need.
pub fn archive(tree: &Path, file: &Path) -> Result<()> {
    let mut files = BTreeSet::new();
    for program in PROGRAMS {
        let places = ["usr/bin", "usr/sbin"].map(|folder| Path::new(folder).join(program));
        // What a release does not have as a program, such as a shell's built-in, is left out.
        if let Some(place) = places
            .into_iter()
            .find(|place| tree.join(place).symlink_metadata().is_ok())
        {
            add_with_libraries(tree, &place, &mut files)?;
        }
    }
    for library in LIBRARIES {
        add_with_libraries(
            tree,
            &Path::new("usr/lib/x86_64-linux-gnu").join(library),
            &mut files,
        )?;
    }
    files.insert("etc/mke2fs.conf".into());
    for entry in fs::read_dir(tree.join(fio::FOLDER))? {
        add_with_libraries(tree, &Path::new(fio::FOLDER).join(entry?.file_name()), &mut files)?;
    }
    let files: BTreeSet<PathBuf> = files.into_iter().map(below_usr).collect();
    let mut archive = Cpio::new(File::create(file)?);
    let mut folders = BTreeSet::new();
    for name in [
        "dev",
        "etc",
        "mnt",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr",
        "usr/lib",
        "usr/lib64",
    ] {
        folders.insert(PathBuf::from(name));
    }
    for path in &files {
        folders.extend(
            path.ancestors()
                .skip(1)
                .filter(|path| !path.as_os_str().is_empty())
                .map(PathBuf::from),
        );
    }
    for path in &folders {
        archive.folder(&path.to_string_lossy())?;
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        archive.link(name, &format!("usr/{name}"))?;
    }
    for path in &files {
        let from = tree.join(path);
        let name = path.to_string_lossy();
        if from.is_symlink() {
            archive.link(&name, &fs::read_link(&from)?.to_string_lossy())?;
        } else {
            let permissions = from.metadata()?.permissions().mode() & 0o777;
            archive.file(
                &name,
                permissions,
                &fs::read(&from).with_context(|| from.display().to_string())?,
            )?;
        }
    }
    archive.finish()
}

/// Where a file lies once `bin`, `lib`, `lib64` and `sbin` are links into `usr`. Debian 12 names some by way
/// of these.
fn below_usr(path: PathBuf) -> PathBuf {
    if ["bin", "lib", "lib64", "sbin"]
        .iter()
        .any(|link| path.starts_with(link))
    {
        Path::new("usr").join(path)
    } else {
        path
    }
}

/// Adds a file of `tree`, what it links to, and all libraries that it needs to `files`, as paths below the
/// root.
fn add_with_libraries(tree: &Path, path: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !files.insert(path.to_owned()) {
        return Ok(());
    }
    let full = tree.join(path);
    if full.is_symlink() {
        let target = fs::read_link(&full)?;
        let target = match target.strip_prefix("/") {
            Ok(absolute) => absolute.to_owned(),
            Err(_) => normalized(&path.parent().unwrap_or(path).join(target)),
        };
        return add_with_libraries(tree, &target, files);
    }
    let content = fs::read(&full).with_context(|| full.display().to_string())?;
    let Ok(elf) = Elf::parse(&content) else {
        return Ok(());
    };
    let interpreter = elf
        .interpreter
        .map(|path| PathBuf::from("usr").join(path.trim_start_matches('/')));
    if let Some(interpreter) = interpreter {
        add_with_libraries(tree, &interpreter, files)?;
    }
    for library in &elf.libraries {
        let folders = elf
            .runpaths
            .iter()
            .chain(&elf.rpaths)
            .flat_map(|list| list.split(':'));
        let own = path.parent().unwrap_or(path).to_string_lossy();
        let place = folders
            .chain([own.as_ref(), "usr/lib/x86_64-linux-gnu"])
            .map(|folder| Path::new(folder.trim_start_matches('/')).join(library))
            .find(|place| tree.join(place).exists() || tree.join(place).is_symlink())
            .with_context(|| format!("{} needs {library}, which is nowhere", path.display()))?;
        add_with_libraries(tree, &place, files)?;
    }
    Ok(())
}

/// `path` without `.` and `..`.
fn normalized(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(result.pop()),
            Component::CurDir => {}
            part => result.push(part),
        }
    }
    result
}
