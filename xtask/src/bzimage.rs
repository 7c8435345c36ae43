//! The kernel proper inside a Linux boot image.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Writes the ELF file that is packed in the bzImage `image` to `out`. Unpacking it once here saves Xen's
/// toolstack, which takes either, the work for each domain. Offsets are those of Linux's
/// `Documentation/arch/x86/boot.rst`.
pub fn unpack(image: &Path, out: &Path) -> Result<()> {
    let content = fs::read(image).with_context(|| image.display().to_string())?;
    ensure!(
        content.get(0x202..0x206) == Some(b"HdrS"),
        "{} is no bzImage",
        image.display()
    );
    let word = |at: usize| -> Result<usize> {
        let bytes = content.get(at..at + 4).context("the header is cut off")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    let sectors = match content[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + word(0x248)?;
    // The last four bytes are the unpacked length.
    let payload = content
        .get(start..start + word(0x24c)? - 4)
        .context("the payload is cut off")?;
    let program = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', ..] => "xz",
        [0x1f, 0x8b, ..] => "gzip",
        [0x7f, b'E', b'L', b'F', ..] => return fs::write(out, payload).context("cannot write the kernel"),
        _ => bail!("{} is packed in an unknown way", image.display()),
    };
    let packed = tempfile::NamedTempFile::new()?;
    fs::write(packed.path(), payload)?;
    let status = Command::new(program)
        .args(["-d", "-c"])
        .stdin(packed.reopen()?)
        .stdout(File::create(out)?)
        .status()?;
    ensure!(status.success(), "{program} cannot unpack {}", image.display());
    Ok(())
}
