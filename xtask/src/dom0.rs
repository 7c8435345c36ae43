//! dom0's half of the bed: Xen, a kernel, an initramfs that mounts the root file system, and an image of
//! that.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::archive;
use crate::suite::Suite;
use crate::ui::Step;
use crate::{cache, debian, host};

/// Counts up when this module lays out the files differently.
const RECIPE: &str = "dom0 3";

/// What the toolstack, the hotplug scripts and the scenarios use in dom0.
const PACKAGES: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "bridge-utils",
    "busybox-static",
    "coreutils",
    "cpio",
    "curl",
    "dnsmasq-base",
    "e2fsprogs",
    "ethtool",
    "fdisk",
    "findutils",
    "fio",
    "gawk",
    "grep",
    "gzip",
    "hostname",
    "iperf3",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "libgcc-s1",
    "linux-image-amd64",
    "mount",
    "procps",
    "sed",
    "tar",
    "tcpdump",
    "util-linux",
    "xenstore-utils",
];

/// The modules that may be loaded in dom0.
const MODULES: &[&str] = &[
    "8021q",
    "9p",
    "9pnet_virtio",
    "brd",
    "crc32c_generic",
    "crc32c_intel",
    "bridge",
    "dummy",
    "ext4",
    "loop",
    "null_blk",
    "overlay",
    "scsi_debug",
    "squashfs",
    "tap",
    "tun",
    "veth",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "virtio_pci",
    "xfs",
    "drivers/block/xen-blkback/",
    "drivers/md/",
    "drivers/net/xen-netback/",
    "drivers/xen/",
    "net/ipv4/netfilter/",
    "net/netfilter/",
    "net/sched/",
];

/// What the initramfs loads to mount the root file system.
const BOOT_MODULES: &[&str] = &["loop", "squashfs", "overlay"];

/// The files that QEMU boots, in the cache.
pub struct Dom0 {
    /// The hypervisor, an ELF with a multiboot header.
    pub xen: PathBuf,
    /// dom0's kernel.
    pub kernel: PathBuf,
    /// dom0's initramfs, to which a run adds images.
    pub initramfs: PathBuf,
    /// The root file system, a squashfs image; it is never written.
    pub root: PathBuf,
}

/// dom0's files for `suite`, made if they are not in the cache.
pub fn dom0(suite: Suite) -> Result<Dom0> {
    let init = fs::read(host::root().join("tests/bed/dom0/initramfs-init"))?;
    let packages = packages(suite);
    let key = cache::Key::default()
        .add(RECIPE)
        .add(packages.join(" "))
        .add(MODULES.join(" "))
        .add(BOOT_MODULES.join(" "))
        .add(&init);
    let folder = cache::entry(&format!("dom0-{}", suite.codename()), key, |folder| {
        let step = Step::new(format!(
            "fetching dom0: Xen {} and its tools on Debian {}",
            suite.xen(),
            suite.codename()
        ));
        make(suite, &packages, &init, folder)?;
        step.done();
        Ok(())
    })?;
    Ok(Dom0 {
        xen: folder.join("xen"),
        kernel: folder.join("vmlinuz"),
        initramfs: folder.join("initramfs"),
        root: folder.join("root.squashfs"),
    })
}

fn packages(suite: Suite) -> Vec<String> {
    let versioned = [
        format!("xen-hypervisor-{}-amd64", suite.xen()),
        format!("xen-utils-{}", suite.xen()),
    ];
    PACKAGES
        .iter()
        .map(|name| name.to_string())
        .chain(versioned)
        .collect()
}

fn make(suite: Suite, packages: &[String], init: &[u8], folder: &Path) -> Result<()> {
    let tree = folder.join("tree");
    fs::create_dir(&tree)?;
    debian::extract(suite, packages, &tree)?;
    let release = debian::kernel_release(&tree)?;

    let boot = tree.join("boot");
    fs::copy(boot.join(format!("vmlinuz-{release}")), folder.join("vmlinuz"))?;
    let packed = boot.join(format!("xen-{}-amd64.gz", suite.xen()));
    let status = Command::new("gzip")
        .arg("-dc")
        .arg(&packed)
        .stdout(File::create(folder.join("xen"))?)
        .status()?;
    ensure!(status.success(), "cannot unpack {}", packed.display());
    fs::remove_dir_all(&boot)?;

    debian::prune_modules(&tree, &release, MODULES)?;
    make_initramfs(&tree, &release, init, &folder.join("initramfs"))?;
    finish_tree(suite, &tree)?;

    archive::squashfs(&tree, &folder.join("root.squashfs"))?;
    fs::remove_dir_all(&tree).context("cannot remove the unpacked tree")
}

fn make_initramfs(tree: &Path, release: &str, init: &[u8], file: &Path) -> Result<()> {
    let mut initramfs = archive::Cpio::new(File::create(file)?);
    for folder in ["bin", "dev", "guest", "lower", "modules", "root", "upper"] {
        initramfs.folder(folder)?;
    }
    initramfs.file("init", 0o755, init)?;
    initramfs.file("bin/busybox", 0o755, &fs::read(tree.join("usr/bin/busybox"))?)?;
    for (place, module) in debian::load_order(tree, release, BOOT_MODULES)?
        .iter()
        .enumerate()
    {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        initramfs.file(&format!("modules/{place:02}-{name}"), 0o644, &fs::read(module)?)?;
    }
    initramfs.finish()
}

/// Adds what the packages' scripts or an installer would have set up.
fn finish_tree(suite: Suite, tree: &Path) -> Result<()> {
    fs::create_dir_all(tree.join("srv/stubdom"))?;
    fs::write(tree.join("etc/hostname"), "dom0\n")?;
    fs::write(tree.join("etc/hosts"), "127.0.0.1 localhost dom0\n")?;
    for name in ["passwd", "group"] {
        fs::copy(
            tree.join("usr/share/base-passwd").join(format!("{name}.master")),
            tree.join("etc").join(name),
        )?;
    }
    // Debian's wrappers choose among installed versions of Xen in a dozen processes; there is one here.
    let bin = tree.join(format!("usr/lib/xen-{}/bin", suite.xen()));
    let xl = tree.join("usr/sbin/xl");
    fs::remove_file(&xl)?;
    ensure!(bin.join("xl").exists(), "no xl in {}", bin.display());
    symlink(format!("../lib/xen-{}/bin/xl", suite.xen()), &xl)?;
    let run = tree.join("var/run");
    if !run.exists() {
        symlink("/run", &run)?;
    }
    let lock = tree.join("var/lock");
    if !lock.exists() {
        symlink("/run/lock", &lock)?;
    }
    Ok(())
}
