//! Counters in the domain's own part of xenstore.

use alloc::{collections::BTreeMap, format, string::String};
use core::time::Duration;

use boot::statistics::Statistics;
use kernel::{
    time::sleep,
    xenstore::{self, Error},
};

/// Where the toolstack lets a domain write what it likes.
const ROOT: &str = "data/statistics";

/// How often they are looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// Keeps the nodes as the counters are, for as long as the domain lives.
pub async fn run(statistics: Statistics) {
    let mut written = BTreeMap::new();
    loop {
        let nodes = statistics.nodes();
        if let Err(error) = write(&written, &nodes).await {
            log::warn!("{ROOT}: {error}; no counters are published from now on");
            return;
        }
        written = nodes;
        sleep(PERIOD).await;
    }
}

/// Writes what has changed, and removes what is gone.
async fn write(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Result<(), Error> {
    for path in old.keys().filter(|path| !new.contains_key(*path)) {
        match xenstore::remove(&format!("{ROOT}/{path}")).await {
            Ok(()) | Err(Error::NoEntry) => {}
            error => error?,
        }
    }
    for (path, text) in new.iter().filter(|(path, text)| old.get(*path) != Some(text)) {
        xenstore::write(&format!("{ROOT}/{path}"), text).await?;
    }
    Ok(())
}
