//! One QEMU that runs Xen: its command line, and its channels to this process.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use command_fds::{CommandFdExt, FdMapping};

use crate::dom0::Dom0;

/// What one run's machine is made of.
pub struct Machine<'a> {
    /// Xen and dom0.
    pub dom0: &'a Dom0,
    /// dom0's initramfs, with all that it mounts and unpacks.
    pub initramfs: PathBuf,
    /// The folder that takes what dom0 has in `/var/log/xen`, and in `xen.log` Xen's and dom0's console.
    pub logs: PathBuf,
    /// Whether virtual time counts instructions, so that a run repeats exactly.
    pub icount: bool,
    /// Whether dom0 gets a shell on this process's terminal.
    pub shell: bool,
    /// The machine's memory, in MiB.
    pub memory: u32,
}

/// A machine that runs.
pub struct Running {
    /// The emulator. It dies with this process.
    pub qemu: Child,
    /// Lines about the run's progress, from dom0's init and from scenarios.
    pub control: UnixStream,
    /// What the work order writes to its standard output.
    pub output: UnixStream,
    /// What the work order writes to its standard error.
    pub errors: UnixStream,
}

/// dom0's memory, in MiB: its file systems, daemons, the toolstack, a 1 GiB folder for disks in RAM, and
/// logs.
const DOM0_MEMORY: u32 = 2560;

/// The processor, without what QEMU 7.2 emulates wrongly. With SMAP a PV dom0 dies; with RDTSCP a PVH guest
/// hangs in Xen's emulator; with XSAVE a PVH guest's kernel warns of its sizes.
///
/// CX16 (cmpxchg16b) has to be there for PV domains: without it, Linux's allocator does the same between CLI
/// and POPF, which mask nothing in a PV domain, so that an interrupt corrupts the allocator's lists. A busy PVH
/// guest with it can find garbage in its flags, and dies of a double fault; `tests/lib.sh` has those do without.
const CPU: &str = "max,-smap,-smep,-rdtscp,-xsave";

impl Machine<'_> {
    /// Starts the machine.
    pub fn start(&self) -> Result<Running> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-machine",
            "pc,accel=tcg",
        ]);
        command.args(["-m", &self.memory.to_string()]);
        if self.icount {
            // A string instruction counts once per byte here, which makes copies look eightfold too dear.
            command.args([
                "-cpu",
                &format!("{CPU},-erms,-fsrm"),
                "-icount",
                "shift=1,sleep=off",
            ]);
        } else {
            command.args(["-cpu", CPU]);
        }
        self.add_boot(&mut command);
        command
            .arg("-serial")
            .arg(joined("file:", &self.logs.join("xen.log")));
        command
            .arg("-fsdev")
            .arg(joined("local,id=logs,security_model=none,path=", &self.logs));
        command.args([
            "-device",
            "virtio-9p-pci,fsdev=logs,mount_tag=logs",
            "-device",
            "virtio-serial-pci",
        ]);

        let mut mappings = Vec::new();
        let mut channel = |name: &str| -> Result<UnixStream> {
            let (ours, theirs) = UnixStream::pair()?;
            let child_fd = 3 + i32::try_from(mappings.len())?;
            mappings.push(FdMapping {
                parent_fd: OwnedFd::from(theirs),
                child_fd,
            });
            command.args(["-chardev", &format!("socket,id={name},fd={child_fd}")]);
            command.args([
                "-device",
                &format!("virtserialport,chardev={name},name=bed.{name}"),
            ]);
            Ok(ours)
        };
        let (control, output, errors) = (channel("ctl")?, channel("out")?, channel("err")?);
        if self.shell {
            command.args([
                "-chardev",
                "stdio,id=shell,signal=off",
                "-device",
                "virtconsole,chardev=shell",
            ]);
        } else {
            command.stdin(Stdio::null());
        }
        command.fd_mappings(mappings).context("channels collide")?;
        let qemu = command.spawn().context("cannot start QEMU")?;
        Ok(Running {
            qemu,
            control,
            output,
            errors,
        })
    }

    fn add_boot(&self, command: &mut Command) {
        command.arg("-kernel").arg(&self.dom0.xen);
        // The emulator's memory is zero already.
        command.args([
            "-append",
            &format!("console=com1 com1=115200,8n1 bootscrub=off dom0_mem={DOM0_MEMORY}M,max:{DOM0_MEMORY}M"),
        ]);
        // A comma ends a module, and two stand for one.
        let quoted = |path: &std::path::Path| path.display().to_string().replace(',', ",,");
        command.arg("-initrd").arg(format!(
            "{} console=hvc0 loglevel=5 rdinit=/init,{}",
            quoted(&self.dom0.kernel),
            quoted(&self.initramfs)
        ));
    }
}

/// `prefix` and a path as one option of QEMU's, where a comma in a value is doubled.
fn joined(prefix: &str, path: &std::path::Path) -> OsString {
    format!("{prefix}{}", path.display().to_string().replace(',', ",,")).into()
}
