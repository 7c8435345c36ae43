//! What is known of a disk beyond its uplink's name.

use alloc::{borrow::ToOwned, string::String};

use super::{Config, is_name, network::queues};

/// A `disk.<name>=<vdev>[,ro][,shared][,queues=<1 to 8>]` key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// The uplink: the `vdev` of one of the driver domain's own disks.
    pub vdev: String,
    /// `ro`: clients may only read.
    pub read_only: bool,
    /// `shared`: a writer need not be alone.
    pub shared: bool,
    /// `queues=`: how many queues each client gets.
    pub queues: u16,
}

impl Config {
    /// What is configured for a `target` that a guest's disk line names: a configured name, or else a `vdev`.
    /// A `vdev` that has configured names gives no more than each of them does. `None` if the target can be
    /// neither.
    pub fn disk(&self, target: &str) -> Option<DiskConfig> {
        if let Some(disk) = self.disks.get(target) {
            return Some(disk.clone());
        }
        let mut named = self.disks.values().filter(|disk| disk.vdev == target).peekable();
        let shared = named.peek().is_some() && named.clone().all(|disk| disk.shared);
        let read_only = named.any(|disk| disk.read_only);
        is_name(target).then(|| DiskConfig {
            vdev: target.to_owned(),
            read_only,
            shared,
            queues: 1,
        })
    }
}

impl DiskConfig {
    pub(super) fn parse(value: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "<vdev>[,ro][,shared][,queues=<1 to 8>], such as xvdb,ro";
        let mut parts = value.split(',');
        let vdev = parts.next().filter(|vdev| is_name(vdev)).ok_or(EXPECTED)?;
        let mut disk = Self {
            vdev: vdev.to_owned(),
            read_only: false,
            shared: false,
            queues: 1,
        };
        for flag in parts {
            match flag.split_once('=').unwrap_or((flag, "")) {
                ("ro", "") => disk.read_only = true,
                ("shared", "") => disk.shared = true,
                ("queues", number) => disk.queues = queues(number).ok_or(EXPECTED)?,
                _ => return Err(EXPECTED),
            }
        }
        Ok(disk)
    }
}
