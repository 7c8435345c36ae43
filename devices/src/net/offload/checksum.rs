//! The internet checksum (RFC 1071).

use core::net::IpAddr;
use core::ops::Range;

use crate::memory::Buffer;

/// How many bytes of a buffer are looked at at a time; even.
const CHUNK: usize = 512;

/// A sum of 16-bit words, in network byte order, that is still to be folded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds one word.
    pub fn word(self, word: u16) -> Self {
        Sum(self.0 + u64::from(word))
    }

    /// Adds bytes. Only the last ones that are added may be of an odd number.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let words = bytes.chunks_exact(2);
        let last = words.remainder().first().map_or(0, |byte| u64::from(*byte) << 8);
        let sum: u64 = words
            .map(|word| u64::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        Sum(self.0 + sum + last)
    }

    /// Adds a part of a buffer, which has to lie inside.
    pub fn buffer<B: Buffer>(self, buffer: &B, range: Range<usize>) -> Self {
        let mut chunk = [0; CHUNK];
        range.clone().step_by(CHUNK).fold(self, |sum, at| {
            let bytes = &mut chunk[..CHUNK.min(range.end - at)];
            buffer.read(at, bytes);
            sum.bytes(bytes)
        })
    }

    /// Adds the pseudo-header of TCP (RFC 9293, RFC 8200) or UDP: `len` is that of header and payload.
    pub fn pseudo_header(self, source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Self {
        let add = |sum: Self, address| match address {
            IpAddr::V4(address) => sum.bytes(&address.octets()),
            IpAddr::V6(address) => sum.bytes(&address.octets()),
        };
        let sum = add(add(self, source), destination);
        Sum(sum.0 + u64::from(protocol) + len as u64)
    }

    /// The sum in 16 bits.
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// The checksum for an IP header.
    pub fn header_checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum for TCP or UDP. It is never 0: in UDP that means that there is none (RFC 768), and 0xffff
    /// is the same number.
    pub fn transport_checksum(self) -> u16 {
        match !self.fold() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}
