//! Which devices of a class this domain has.

use alloc::collections::{BTreeSet, VecDeque};

use protocols::front_end::Class;

use crate::xenstore::{self, Error, Watch};

/// The device numbers of all devices of a class there are now. A directory without a back end is none: it is
/// what may be left of a device.
pub async fn discover(class: Class) -> Result<BTreeSet<u32>, Error> {
    let mut devices = BTreeSet::new();
    let directory = class.directory();
    let names = match xenstore::list(directory).await {
        Err(Error::NoEntry) => return Ok(devices),
        names => names?,
    };
    for device in names.iter().filter_map(|name| name.parse().ok()) {
        if xenstore::exists(&alloc::format!("{directory}/{device}/backend")).await? {
            devices.insert(device);
        }
    }
    Ok(devices)
}

/// A device that came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is a device with this number.
    Added(u32),
    /// There is none any more.
    Removed(u32),
}

/// Follows which devices of a class there are.
pub struct DeviceWatch {
    class: Class,
    watch: Option<Watch>,
    known: BTreeSet<u32>,
    changes: VecDeque<Change>,
}

impl DeviceWatch {
    /// Starts with no device known: those there are come as added.
    pub async fn new(class: Class) -> Self {
        let directory = class.directory();
        let watch = xenstore::watch(directory).await;
        let watch = watch
            .inspect_err(|error| log::error!("{directory} cannot be watched: {error}"))
            .ok();
        Self {
            class,
            watch,
            known: BTreeSet::new(),
            changes: VecDeque::new(),
        }
    }

    /// The next device that comes or goes.
    pub async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return change;
            }
            match &mut self.watch {
                Some(watch) => _ = watch.next().await,
                None => core::future::pending().await,
            }
            let Ok(now) = discover(self.class).await else {
                continue;
            };
            self.changes
                .extend(self.known.difference(&now).map(|&it| Change::Removed(it)));
            self.changes
                .extend(now.difference(&self.known).map(|&it| Change::Added(it)));
            self.known = now;
        }
    }
}
