//! Nodes that the two ends tell each other by.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::xenstore::{self, Error};

/// Names and values.
pub(crate) type Nodes = Vec<(&'static str, String)>;

/// Reads those of the nodes below `path` that exist.
pub(crate) async fn read_nodes(path: &str, keys: &[&'static str]) -> Result<Nodes, Error> {
    let mut nodes = Nodes::new();
    for &key in keys {
        let value = xenstore::read_optional(&format!("{path}/{key}")).await?;
        nodes.extend(value.map(|value| (key, value)));
    }
    Ok(nodes)
}

/// Writes names and values below `path`, in place of what an earlier connection has left there, as far as
/// `is_ours` knows the name.
pub(crate) async fn publish(
    path: &str,
    nodes: &[(String, String)],
    is_ours: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let mut left = xenstore::list(path).await?;
    left.retain(|name| is_ours(name));
    xenstore::transaction(async |t| {
        for name in &left {
            let _ = t.remove(&format!("{path}/{name}")).await;
        }
        for (name, value) in nodes {
            t.write(&format!("{path}/{name}"), value).await?;
        }
        Ok(())
    })
    .await
}

/// The value of a node that was read.
pub(crate) fn get<'a>(nodes: &'a Nodes, key: &str) -> Option<&'a str> {
    nodes
        .iter()
        .find(|node| node.0 == key)
        .map(|node| node.1.as_str())
}
