//! Messages on the wire: a header of four 32-bit words, then the payload.

use alloc::vec::Vec;

use super::Error;

/// The most bytes of payload in a message, either way (`XENSTORE_PAYLOAD_MAX`).
pub const PAYLOAD_MAX: usize = 4096;
/// The longest absolute path, in bytes.
pub const ABSOLUTE_PATH_MAX: usize = 3072;
/// The longest path relative to the domain's own directory, in bytes.
pub const RELATIVE_PATH_MAX: usize = 2048;
/// Bytes of a header.
pub const HEADER: usize = 16;

/// What a message is (`enum xsd_sockmsg_type`), as far as a client needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Kind {
    Directory = 1,
    Read = 2,
    GetPermissions = 3,
    Watch = 4,
    Unwatch = 5,
    TransactionStart = 6,
    TransactionEnd = 7,
    Write = 11,
    MakeDirectory = 12,
    Remove = 13,
    SetPermissions = 14,
    WatchEvent = 15,
    Error = 16,
    DirectoryPart = 22,
}

/// The kind of a reply to a request of a kind that the daemon does not know (`XS_INVALID`).
pub const INVALID: u32 = 0xffff;

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is: a [`Kind`], or something that this client does not know.
    pub kind: u32,
    /// The number of the request, repeated in its reply; 0 in events.
    pub request: u32,
    /// The transaction, or 0.
    pub transaction: u32,
    /// Bytes of payload.
    pub len: u32,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let words = [self.kind, self.request, self.transaction, self.len];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER]) -> Self {
        let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        Self {
            kind: word(0),
            request: word(4),
            transaction: word(8),
            len: word(12),
        }
    }
}

/// A request as bytes for the ring; its payload is the parts, one after the other.
pub fn encode(kind: Kind, request: u32, transaction: u32, parts: &[&[u8]]) -> Result<Vec<u8>, Error> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    if len > PAYLOAD_MAX {
        return Err(Error::TooBig);
    }
    let header = Header {
        kind: kind as u32,
        request,
        transaction,
        len: len as u32,
    };
    let mut message = Vec::with_capacity(HEADER + len);
    message.extend_from_slice(&header.to_bytes());
    for part in parts {
        message.extend_from_slice(part);
    }
    Ok(message)
}

/// A whole message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// Its payload, as long as the header says.
    pub payload: Vec<u8>,
}

/// Puts messages together from bytes as they come. It holds one message at most, and has room for that from
/// its begin on.
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        let bytes = Vec::with_capacity(HEADER + PAYLOAD_MAX);
        Self { bytes }
    }
}

impl Decoder {
    /// Takes bytes off the front of `input` until a message is complete or the input is used up. A message
    /// longer than allowed means that the stream cannot be followed any more: the connection is broken for
    /// good.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Error> {
        self.take(input, HEADER);
        let Some(header) = self.bytes.first_chunk().map(Header::from_bytes) else {
            return Ok(None);
        };
        let len = header.len as usize;
        if len > PAYLOAD_MAX {
            return Err(Error::Broken);
        }
        self.take(input, HEADER + len);
        if self.bytes.len() < HEADER + len {
            return Ok(None);
        }
        let payload = self.bytes.split_off(HEADER);
        self.bytes.clear();
        Ok(Some(Message { header, payload }))
    }

    /// Fills up to `len` bytes.
    fn take(&mut self, input: &mut &[u8], len: usize) {
        let missing = len.saturating_sub(self.bytes.len()).min(input.len());
        let (now, later) = input.split_at(missing);
        self.bytes.extend_from_slice(now);
        *input = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout() {
        let message = encode(Kind::Read, 0x01020304, 7, &[b"a/b", b"\0"]).unwrap();
        assert_eq!(message, b"\x02\0\0\0\x04\x03\x02\x01\x07\0\0\0\x04\0\0\0a/b\0");
        assert_eq!(encode(Kind::Write, 1, 0, &[&[0; 4096], b"x"]), Err(Error::TooBig));
    }

    #[test]
    fn too_long_a_payload_breaks_the_connection() {
        let mut header = encode(Kind::Read, 1, 0, &[]).unwrap();
        header[12..].copy_from_slice(&4097_u32.to_le_bytes());
        assert_eq!(
            Decoder::default().decode(&mut header.as_slice()),
            Err(Error::Broken)
        );
    }

    proptest! {
        #[test]
        fn messages_survive_any_fragmentation(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8),
            cuts in proptest::collection::vec(1..40_usize, 1..50),
        ) {
            let mut stream = Vec::new();
            for (i, payload) in payloads.iter().enumerate() {
                stream.extend(encode(Kind::Write, i as u32, !0, &[payload]).unwrap());
            }
            let mut decoder = Decoder::default();
            let mut decoded = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                let (mut now, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                while let Some(message) = decoder.decode(&mut now).unwrap() {
                    decoded.push(message);
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(decoded.len(), payloads.len());
            for (i, (message, payload)) in decoded.iter().zip(&payloads).enumerate() {
                prop_assert_eq!(message.header.request, i as u32);
                prop_assert_eq!(&message.payload, payload);
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let mut decoder = Decoder::default();
            let mut input = bytes.as_slice();
            while let Ok(Some(message)) = decoder.decode(&mut input) {
                prop_assert!(message.payload.len() <= PAYLOAD_MAX);
            }
        }
    }
}
