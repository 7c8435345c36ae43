//! Archives of files: cpio, as the kernel unpacks it into an initramfs, and squashfs, as it mounts it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use cpio::newc::{self, ModeFileType};

use crate::host;

/// Packs a folder into a squashfs image. Uncompressed: under emulation a guest's CPU is dearer than the
/// host's page cache.
pub fn squashfs(folder: &Path, image: &Path) -> Result<()> {
    const OPTIONS: &[&str] = &["-quiet", "-no-progress", "-noI", "-noD", "-noF", "-noX"];
    host::run(Command::new("mksquashfs").arg(folder).arg(image).args(OPTIONS))
}

/// Writes a cpio archive in the "newc" format. All entries belong to root.
pub struct Cpio {
    out: File,
    inode: u32,
}

impl Cpio {
    /// An archive at the end of `out`: the kernel takes several one after another.
    pub fn new(out: File) -> Cpio {
        Cpio { out, inode: 1 }
    }

    /// Adds an empty folder. Its parent must have been added.
    pub fn folder(&mut self, name: &str) -> Result<()> {
        self.entry(name, ModeFileType::Directory, 0o755, 0, io::empty())
    }

    /// Adds a file. Its folder must have been added.
    pub fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> Result<()> {
        self.entry(
            name,
            ModeFileType::Regular,
            permissions,
            content.len() as u64,
            content,
        )
    }

    /// Adds a file with the content of another one, which may be large. Its folder must have been added.
    pub fn copy(&mut self, name: &str, from: &Path) -> Result<()> {
        let file = File::open(from).with_context(|| from.display().to_string())?;
        let len = file.metadata()?.len();
        self.entry(name, ModeFileType::Regular, 0o644, len, file.take(len))
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, target: &str) -> Result<()> {
        let target = target.as_bytes();
        self.entry(name, ModeFileType::Symlink, 0o777, target.len() as u64, target)
    }

    /// Ends the archive.
    pub fn finish(self) -> Result<()> {
        let mut out = newc::trailer(self.out)?;
        // What follows must start at a multiple of four bytes.
        let length = out.seek(SeekFrom::End(0))?;
        out.write_all(&[0; 4][..(length.next_multiple_of(4) - length) as usize])?;
        Ok(())
    }

    fn entry(
        &mut self,
        name: &str,
        kind: ModeFileType,
        permissions: u32,
        len: u64,
        mut content: impl Read,
    ) -> Result<()> {
        let builder = newc::Builder::new(name)
            .ino(self.inode)
            .mode(permissions)
            .set_mode_file_type(kind);
        self.inode += 1;
        let mut writer = builder.write(&mut self.out, u32::try_from(len)?);
        io::copy(&mut content, &mut writer)?;
        writer.finish()?;
        Ok(())
    }
}
