//! The guest's half of the bed: a Debian kernel and an initrd with what the scenarios use, for PV and PVH
//! guests.

mod contents;
mod driver;
mod fio;
mod programs;
mod stand_in;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use walkdir::WalkDir;

use self::contents::{BUILD_PACKAGES, MODULES, PACKAGES, PROGRAMS};
use crate::archive::{self, Cpio};
use crate::cache::Key;
use crate::suite::Suite;
use crate::ui::Step;
use crate::{bzimage, cache, debian, host};

/// Counts up when this module lays out the files differently.
const RECIPE: &str = "guest 4";

/// The guest's kernel and initrd as a squashfs image, for dom0 to mount at `/srv/stubdom/guest`; with the bus
/// driver if `driver` says so.
pub fn guest(suite: Suite, driver: bool) -> Result<PathBuf> {
    let base_key = || {
        let lists = [PACKAGES, BUILD_PACKAGES, PROGRAMS, MODULES].map(|list| list.join(" "));
        lists
            .iter()
            .fold(Key::default().add(RECIPE), |key, list| key.add(list))
    };
    let base = cache::entry(&format!("guest-{}", suite.codename()), base_key(), |folder| {
        let step = Step::new(format!(
            "fetching the guest: Debian {}'s kernel and programs",
            suite.codename()
        ));
        make_base(suite, folder)?;
        step.done();
        Ok(())
    })?;
    let own = host::root().join("tests/bed/guest");
    let mut key = base_key().add_folder(&own)?;
    let driver =
        Some(host::root().join("guest/linux")).filter(|folder| driver && folder.join("Makefile").exists());
    let mut name = format!("initrd-{}", suite.codename());
    match &driver {
        Some(folder) => key = key.add_folder(folder)?,
        None => name.push_str("-bare"),
    }
    let image = cache::entry(&name, key, |folder| {
        let step = Step::new("making the guest's initrd");
        make_image(&base, &own, driver.as_deref(), folder)?;
        step.done();
        Ok(())
    })?;
    Ok(image.join("guest.squashfs"))
}

/// Fills `folder` with what changes only with Debian: `vmlinuz`, `release`, `programs` (a cpio archive),
/// `modules` (a tree) and `build` (a root file system that builds modules).
fn make_base(suite: Suite, folder: &Path) -> Result<()> {
    let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let tree = folder.join("tree");
    fs::create_dir(&tree)?;
    debian::extract(suite, &names(PACKAGES), &tree)?;
    let release = debian::kernel_release(&tree)?;
    fs::write(folder.join("release"), &release)?;
    bzimage::unpack(
        &tree.join(format!("boot/vmlinuz-{release}")),
        &folder.join("vmlinuz"),
    )?;
    fio::lighten(&tree)?;

    debian::prune_modules(&tree, &release, MODULES)?;
    let modules = folder.join("modules/usr/lib/modules");
    fs::create_dir_all(&modules)?;
    fs::rename(
        tree.join("usr/lib/modules").join(&release),
        modules.join(&release),
    )?;
    programs::archive(&tree, &folder.join("programs"))?;
    fs::remove_dir_all(&tree)?;

    let build = folder.join("build");
    fs::create_dir(&build)?;
    debian::extract(suite, &names(BUILD_PACKAGES), &build)?;
    ensure!(
        build
            .join("usr/lib/modules")
            .join(&release)
            .join("build")
            .is_symlink(),
        "Debian's mirror has kernel {release} without its headers; try again later"
    );
    Ok(())
}

/// Fills `folder` with the image for dom0: the kernel, and programs, modules and the guest's init as one
/// initrd.
fn make_image(base: &Path, own: &Path, driver: Option<&Path>, folder: &Path) -> Result<()> {
    let release = fs::read_to_string(base.join("release"))?;
    let out = folder.join("guest");
    fs::create_dir(&out)?;
    fs::copy(base.join("vmlinuz"), out.join("vmlinuz"))?;

    let modules = folder.join("modules");
    host::run(
        Command::new("cp")
            .arg("-a")
            .arg(base.join("modules"))
            .arg(&modules),
    )?;
    if let Some(driver) = driver {
        let extra = modules.join("usr/lib/modules").join(&release).join("extra");
        fs::create_dir(&extra)?;
        driver::build(&base.join("build"), &release, driver, &extra)?;
        // Where an older depmod looks.
        std::os::unix::fs::symlink("usr/lib", modules.join("lib"))?;
        host::run(Command::new("/sbin/depmod").arg("-b").arg(&modules).arg(&release))?;
    }

    let initrd = out.join("initrd");
    fs::copy(base.join("programs"), &initrd)?;
    let mut archive = Cpio::new(File::options().append(true).open(&initrd)?);
    archive.file("init", 0o755, &fs::read(own.join("init"))?)?;
    for (name, permissions) in [("guest-lib", 0o644), ("lease", 0o755), ("usual-warnings", 0o644)] {
        archive.file(&format!("etc/{name}"), permissions, &fs::read(own.join(name))?)?;
    }
    for entry in WalkDir::new(modules.join("usr/lib/modules")).sort_by_file_name() {
        let entry = entry?;
        let name = entry
            .path()
            .strip_prefix(&modules)?
            .to_string_lossy()
            .into_owned();
        if entry.file_type().is_dir() {
            archive.folder(&name)?;
        } else if entry.file_type().is_file() {
            archive.file(&name, 0o644, &fs::read(entry.path())?)?;
        }
    }
    archive.finish()?;
    fs::remove_dir_all(&modules)?;

    archive::squashfs(&out, &folder.join("guest.squashfs"))?;
    fs::remove_dir_all(&out)?;
    Ok(())
}
