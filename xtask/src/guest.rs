//! The guest's half of the bed: a Debian kernel and an initrd with what the scenarios use, for PV and PVH guests.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use goblin::elf::Elf;
use walkdir::WalkDir;

use crate::archive::{self, Cpio};
use crate::cache::Key;
use crate::suite::Suite;
use crate::ui::Step;
use crate::{bzimage, cache, debian, host, stand_in};

/// Counts up when this module lays out the files differently.
const RECIPE: &str = "guest 4";

/// The packages that the guest's programs come from.
const PACKAGES: &[&str] = &[
    "base-files",
    "bash",
    "busybox-static",
    "coreutils",
    "curl",
    "diffutils",
    "e2fsprogs",
    "ethtool",
    "findutils",
    "fio",
    "gawk",
    "grep",
    "hostname",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libgcc-s1",
    "linux-image-amd64",
    "mount",
    "procps",
    "sed",
    "tar",
    "util-linux",
];

/// What builds modules for the guest's kernel.
const BUILD_PACKAGES: &[&str] = &[
    "bash",
    "coreutils",
    "findutils",
    "gawk",
    "grep",
    "kmod",
    "linux-headers-amd64",
    "make",
    "sed",
];

/// The guest's programs; the libraries that they need follow from them. For the rest there is busybox.
const PROGRAMS: &[&str] = &[
    "awk",
    "basename",
    "bash",
    "blkdiscard",
    "blkid",
    "blockdev",
    "busybox",
    "cat",
    "chmod",
    "cmp",
    "cp",
    "curl",
    "cut",
    "date",
    "dd",
    "df",
    "diff",
    "dirname",
    "dmesg",
    "du",
    "dumpe2fs",
    "e2fsck",
    "echo",
    "env",
    "ethtool",
    "false",
    "fdisk",
    "find",
    "fio",
    "free",
    "fsck.ext4",
    "fsfreeze",
    "fstrim",
    "gawk",
    "getconf",
    "grep",
    "head",
    "hostname",
    "id",
    "insmod",
    "ip",
    "iperf3",
    "kmod",
    "ln",
    "losetup",
    "ls",
    "lsblk",
    "lsmod",
    "md5sum",
    "mkdir",
    "mke2fs",
    "mkfs.ext4",
    "mktemp",
    "modinfo",
    "modprobe",
    "mount",
    "mountpoint",
    "mv",
    "nproc",
    "od",
    "pgrep",
    "ping",
    "pkill",
    "printf",
    "ps",
    "readlink",
    "realpath",
    "resize2fs",
    "rm",
    "rmdir",
    "rmmod",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "ss",
    "stat",
    "stty",
    "sync",
    "tail",
    "tar",
    "taskset",
    "tc",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "truncate",
    "tune2fs",
    "umount",
    "uname",
    "uniq",
    "uptime",
    "wc",
    "xargs",
];

/// The libraries that programs open by themselves: the C library this one, to end threads.
const LIBRARIES: &[&str] = &["libgcc_s.so.1"];

/// Where fio lies, with the stand-ins that its start script puts first.
const FIO: &str = "usr/lib/fio";

/// The libraries for network and memory stores that fio is linked with.
const FIO_STORES: &[&str] = &[
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

/// The guest's modules.
const MODULES: &[&str] = &[
    "8021q",
    "af_packet",
    "crc32_generic",
    "crc32c_generic",
    "crc32c_intel",
    "ext4",
    "loop",
    "nbd",
    "null_blk",
    "pktgen",
    "virtio_blk",
    "virtio_net",
    "virtio_pci",
    "xen_blkfront",
    "xen_netfront",
];

/// The guest's kernel and initrd as a squashfs image, for dom0 to mount at `/srv/stubdom/guest`; with the bus driver if
/// `driver` says so.
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

/// Fills `folder` with what changes only with Debian: `vmlinuz`, `release`, `programs` (a cpio archive), `modules` (a
/// tree) and `build` (a root file system that builds modules).
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
    lighten_fio(&tree)?;

    debian::prune_modules(&tree, &release, MODULES)?;
    let modules = folder.join("modules/usr/lib/modules");
    fs::create_dir_all(&modules)?;
    fs::rename(
        tree.join("usr/lib/modules").join(&release),
        modules.join(&release),
    )?;
    make_programs(&tree, &folder.join("programs"))?;
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

/// Puts fio into a folder with stand-ins for what it does not need here, and a script that starts it in its place.
fn lighten_fio(tree: &Path) -> Result<()> {
    let folder = tree.join(FIO);
    fs::create_dir_all(&folder)?;
    let start = tree.join("usr/bin/fio");
    fs::rename(&start, folder.join("fio"))?;
    fs::write(
        &start,
        format!("#!/bin/bash\nLD_LIBRARY_PATH=/{FIO} exec /{FIO}/fio \"$@\"\n"),
    )?;
    fs::set_permissions(&start, fs::Permissions::from_mode(0o755))?;
    let content = fs::read(folder.join("fio"))?;
    stand_in::make(
        &Elf::parse(&content)?,
        FIO_STORES,
        &tree.join("usr/lib/x86_64-linux-gnu"),
        &folder,
    )?;
    Ok(())
}

/// Writes an archive of the programs in `tree` and the libraries that they need.
fn make_programs(tree: &Path, file: &Path) -> Result<()> {
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
    for entry in fs::read_dir(tree.join(FIO))? {
        add_with_libraries(tree, &Path::new(FIO).join(entry?.file_name()), &mut files)?;
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

/// Where a file lies once `bin`, `lib`, `lib64` and `sbin` are links into `usr`. Debian 12 names some by way of these.
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

/// Adds a file of `tree`, what it links to, and all libraries that it needs to `files`, as paths below the root.
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
            std::path::Component::ParentDir => drop(result.pop()),
            std::path::Component::CurDir => {}
            part => result.push(part),
        }
    }
    result
}

/// Fills `folder` with the image for dom0: the kernel, and programs, modules and the guest's init as one initrd.
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
        build_driver(&base.join("build"), &release, driver, &extra)?;
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

/// Builds the bus driver with the compiler and headers in the root file system `root`, and puts its module into `into`.
fn build_driver(root: &Path, release: &str, driver: &Path, into: &Path) -> Result<()> {
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
