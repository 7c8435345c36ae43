//! Stand-ins for shared libraries that a program is linked with but does not use here.
//!
//! Debian's fio is linked with the clients of every network store it knows, 40 MB with all that those need.
//! Loading them takes an emulated guest longer than most jobs do, and its initrd would have to carry them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use goblin::elf::Elf;

use crate::host;

/// The global functions that a program wants from one library, by the version that it wants them in; "" is
/// none.
type Wanted = BTreeMap<String, BTreeSet<String>>;

/// Makes a stand-in in `folder` for each library of `program` that `replaced` names (without `.so` and what
/// follows), and returns their file names. Their functions end the program. `libraries` has the program's
/// other libraries.
pub fn make(program: &Elf, replaced: &[&str], libraries: &Path, folder: &Path) -> Result<Vec<String>> {
    let is_replaced = |library: &&str| {
        library
            .split_once(".so")
            .is_some_and(|(stem, _)| replaced.contains(&stem))
    };
    let names: Vec<&str> = program.libraries.iter().copied().filter(is_replaced).collect();
    let mut wanted: BTreeMap<&str, Wanted> = names.iter().map(|name| (*name, Wanted::new())).collect();

    // Symbols without a version do not say whose they are: whatever no other library has goes to the first
    // stand-in.
    let mut kept = BTreeSet::new();
    for library in program.libraries.iter().filter(|library| !is_replaced(library)) {
        let path = libraries.join(library);
        let content = fs::read(&path).with_context(|| path.display().to_string())?;
        let elf = Elf::parse(&content)?;
        let defined = elf.dynsyms.iter().filter(|symbol| !symbol.is_import());
        kept.extend(defined.filter_map(|symbol| elf.dynstrtab.get_at(symbol.st_name).map(str::to_owned)));
    }
    let versions = versions(program);
    for (index, symbol) in program
        .dynsyms
        .iter()
        .enumerate()
        .filter(|(_, symbol)| symbol.is_import())
    {
        let Some(name) = program
            .dynstrtab
            .get_at(symbol.st_name)
            .filter(|name| !name.is_empty())
        else {
            continue;
        };
        let version = program
            .versym
            .as_ref()
            .and_then(|table| table.get_at(index))
            .map_or(1, |entry| entry.version());
        let (library, version) = match versions.get(&version) {
            Some((library, version)) => (*library, *version),
            None if symbol.st_bind() == goblin::elf::sym::STB_WEAK || kept.contains(name) => continue,
            None => match names.first() {
                Some(first) => (*first, ""),
                None => continue,
            },
        };
        if let Some(wanted) = wanted.get_mut(library) {
            wanted
                .entry(version.to_owned())
                .or_default()
                .insert(name.to_owned());
        }
    }
    for (library, wanted) in &wanted {
        build(library, wanted, folder)?;
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// The library and the version that each version number in the program's symbol table stands for.
fn versions<'a>(program: &'a Elf) -> BTreeMap<u16, (&'a str, &'a str)> {
    let mut versions = BTreeMap::new();
    for need in program.verneed.iter().flat_map(|section| section.iter()) {
        for version in need.iter() {
            let names = (
                program.dynstrtab.get_at(need.vn_file),
                program.dynstrtab.get_at(version.vna_name),
            );
            if let (Some(library), Some(name)) = names {
                versions.insert(version.vna_other, (library, name));
            }
        }
    }
    versions
}

/// Assembles and links one stand-in.
fn build(library: &str, wanted: &Wanted, folder: &Path) -> Result<()> {
    let mut code = String::from(".text\n");
    let mut script = String::new();
    for (version, functions) in wanted {
        if !version.is_empty() {
            writeln!(
                script,
                "{version} {{ global: {}; }};",
                functions
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join("; ")
            )?;
        }
        for function in functions {
            writeln!(
                code,
                ".globl {function}\n.type {function}, @function\n{function}: ud2"
            )?;
        }
    }
    code.push_str(".section .note.GNU-stack,\"\",@progbits\n");
    let work = tempfile::tempdir()?;
    let (source, map) = (work.path().join("stand-in.s"), work.path().join("stand-in.map"));
    fs::write(&source, code)?;
    let mut command = Command::new("cc");
    command
        .args(["-shared", "-nostdlib"])
        .arg(format!("-Wl,-soname,{library}"));
    if !script.is_empty() {
        fs::write(&map, script)?;
        command.arg(format!("-Wl,--version-script={}", map.display()));
    }
    host::run(command.arg("-o").arg(folder.join(library)).arg(&source))
}
