//! Nodes that the other end of a device wrote.

/// A node that is missing or has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadNode(pub &'static str);

/// A decimal number, as far as the node exists.
pub(crate) fn number<S: AsRef<str>>(
    get: impl Fn(&str) -> Option<S>,
    key: &'static str,
) -> Result<Option<u64>, BadNode> {
    get(key)
        .map(|text| text.as_ref().trim().parse().map_err(|_| BadNode(key)))
        .transpose()
}

/// Whether the node exists and is 1.
pub(crate) fn flag<S: AsRef<str>>(
    get: impl Fn(&str) -> Option<S>,
    key: &'static str,
) -> Result<bool, BadNode> {
    Ok(number(get, key)? == Some(1))
}
