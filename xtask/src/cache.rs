//! What is slow to make and depends only on its recipe, kept between runs under a hash of that recipe.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fd_lock::RwLock;
use sha2::{Digest, Sha256};

/// The cache's folder: `$XDG_CACHE_HOME/virtio-stubdom`, by default under `~/.cache`.
pub fn folder() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    let folder = base.join("virtio-stubdom");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// A hash over everything that an entry's content depends on.
#[derive(Default)]
pub struct Key(Sha256);

impl Key {
    /// Adds a piece of the recipe. Pieces are delimited, so that moving a byte from one to the next changes
    /// the key.
    pub fn add(mut self, piece: impl AsRef<[u8]>) -> Key {
        let piece = piece.as_ref();
        self.0.update((piece.len() as u64).to_le_bytes());
        self.0.update(piece);
        self
    }

    /// Adds the names and contents of the sources directly in `folder`: hidden files and build products do
    /// not count.
    pub fn add_folder(mut self, folder: &Path) -> Result<Key> {
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .with_context(|| folder.display().to_string())?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        files.sort();
        for file in files.iter().filter(|file| file.is_file()) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let is_product = name.starts_with('.')
                || [".o", ".ko", ".mod", ".mod.c", "Module.symvers", "modules.order"]
                    .iter()
                    .any(|end| name.ends_with(end));
            if !is_product {
                self = self.add(name.as_bytes()).add(fs::read(file)?);
            }
        }
        Ok(self)
    }

    fn hex(self) -> String {
        self.0
            .finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// The folder of the entry `name` for `key`. If it is not there, `make` fills it; other processes that want
/// an entry of that name wait meanwhile. Entries of the same name for other keys are removed once the new one
/// stands.
pub fn entry(name: &str, key: Key, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = folder()?;
    let entry = folder.join(format!("{name}-{}", key.hex()));
    if entry.exists() {
        return Ok(entry);
    }
    let lock_path = folder.join(format!("{name}.lock"));
    let mut lock = RwLock::new(File::create(&lock_path).with_context(|| lock_path.display().to_string())?);
    let _guard = lock.write()?;
    if entry.exists() {
        return Ok(entry);
    }
    // A leftover of an interrupted run may be here: whoever made it no longer holds the lock.
    let partial = folder.join(format!("{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir(&partial)?;
    make(&partial)?;
    fs::rename(&partial, &entry)?;
    for other in fs::read_dir(&folder)? {
        let other = other?.path();
        let is_older = other.is_dir()
            && other != entry
            && other
                .file_name()
                .and_then(|file| file.to_str())
                .and_then(|file| file.rsplit_once('-'))
                .is_some_and(|(stem, _)| stem == name);
        if is_older {
            fs::remove_dir_all(other)?;
        }
    }
    Ok(entry)
}
