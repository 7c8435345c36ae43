//! The requests that can be made in a transaction or outside any.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::client::Client;
use super::message::Kind;
use super::{Error, Permission, is_path, strings, text};

/// The longest list that is read, in bytes.
const LIST_LIMIT: usize = 65536;
/// How often a long list is read again from its start because it changed.
const LIST_TRIES: u32 = 16;

impl Client {
    /// The requests outside any transaction.
    fn plain(&self) -> Requests<'_> {
        Requests {
            client: self,
            transaction: 0,
        }
    }

    /// The value of a node, as text.
    ///
    /// # Errors
    /// What the daemon says; [`Error::Invalid`] if the path is not one, [`Error::Malformed`] if the value is
    /// not UTF-8, [`Error::Broken`] if the connection is.
    pub async fn read(&self, path: &str) -> Result<String, Error> {
        self.plain().read(path).await
    }

    /// Sets the value of a node, and makes it and its parents if need be.
    ///
    /// # Errors
    /// What the daemon says; [`Error::Invalid`] if the path is not one, [`Error::TooBig`] if path and value
    /// do not fit a message, [`Error::Broken`] if the connection is.
    pub async fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.plain().write(path, value).await
    }

    /// Removes a node and everything below it. It need not exist, but its parent must.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        self.plain().remove(path).await
    }

    /// The names of a node's children.
    ///
    /// # Errors
    /// As for [`read`](Self::read); [`Error::TooBig`] if the list is longer than what is read,
    /// [`Error::Again`] if it changes all the time.
    pub async fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        self.plain().list(path).await
    }

    /// The permissions of a node.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub async fn permissions(&self, path: &str) -> Result<Vec<Permission>, Error> {
        self.plain().permissions(path).await
    }

    /// Sets the permissions of a node; the first names its owner.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub async fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<(), Error> {
        self.plain().set_permissions(path, permissions).await
    }
}

/// Requests in or outside a transaction.
pub(super) struct Requests<'a> {
    pub(super) client: &'a Client,
    /// 0 outside any.
    pub(super) transaction: u32,
}

impl Requests<'_> {
    async fn path_request(&self, kind: Kind, path: &str, more: &[u8]) -> Result<Vec<u8>, Error> {
        if !is_path(path) {
            return Err(Error::Invalid);
        }
        self.client
            .request(kind, self.transaction, &[path.as_bytes(), b"\0", more])
            .await
    }

    pub(super) async fn read(&self, path: &str) -> Result<String, Error> {
        text(&self.path_request(Kind::Read, path, b"").await?)
    }

    pub(super) async fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.path_request(Kind::Write, path, value.as_ref())
            .await
            .map(drop)
    }

    pub(super) async fn remove(&self, path: &str) -> Result<(), Error> {
        self.path_request(Kind::Remove, path, b"").await.map(drop)
    }

    pub(super) async fn permissions(&self, path: &str) -> Result<Vec<Permission>, Error> {
        let payload = self.path_request(Kind::GetPermissions, path, b"").await?;
        strings(&payload)?
            .iter()
            .map(|entry| Permission::parse(entry).ok_or(Error::Malformed))
            .collect()
    }

    pub(super) async fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<(), Error> {
        let mut list = String::new();
        for permission in permissions {
            list += &permission.to_string();
            list.push('\0');
        }
        self.path_request(Kind::SetPermissions, path, list.as_bytes())
            .await
            .map(drop)
    }

    pub(super) async fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        match self.path_request(Kind::Directory, path, b"").await {
            Ok(payload) => strings(&payload),
            Err(Error::TooBig) => self.long_list(path).await,
            Err(error) => Err(error),
        }
    }

    /// A list that is longer than a message: in parts, which belong together if the node's generation is the
    /// same. Not every daemon knows the request for parts.
    async fn long_list(&self, path: &str) -> Result<Vec<String>, Error> {
        for _ in 0..LIST_TRIES {
            let mut list = Vec::new();
            let mut generation = None;
            loop {
                let offset = list.len().to_string() + "\0";
                let reply = match self
                    .path_request(Kind::DirectoryPart, path, offset.as_bytes())
                    .await
                {
                    Err(Error::Unsupported) => return Err(Error::TooBig),
                    reply => reply?,
                };
                let end = reply.iter().position(|&byte| byte == 0).ok_or(Error::Malformed)?;
                let (number, part) = (&reply[..end], &reply[end + 1..]);
                if *generation.get_or_insert_with(|| number.to_vec()) != number {
                    break;
                }
                // An empty name ends the list.
                if let Some(last) = part
                    .strip_suffix(b"\0")
                    .filter(|rest| rest.is_empty() || rest.ends_with(b"\0"))
                {
                    list.extend_from_slice(last);
                    return strings(&list);
                }
                if part.is_empty() {
                    return Err(Error::Malformed);
                }
                list.extend_from_slice(part);
                if list.len() > LIST_LIMIT {
                    return Err(Error::TooBig);
                }
            }
        }
        Err(Error::Again)
    }
}
