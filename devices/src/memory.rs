//! What a device sees of memory that it shares with others.
//!
//! A device never holds a reference into memory that somebody else can write: it copies in, checks, and uses
//! the copy. Three kinds of memory exist: *windows* are mapped for as long as a queue lives (its rings);
//! *driver memory* is named by the addresses in descriptors and reached only by [`DriverMemory::transfer`];
//! *buffers* carry payload between driver memory and an uplink.

use alloc::rc::Rc;

/// Why driver memory could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// The address is not in the form that the transport specifies, or the range wraps.
    BadAddress,
    /// The address is well-formed, but the driver gives no access to what it names.
    NoAccess,
    /// This side has no room for another mapping.
    NoRoom,
}

/// A window of memory shared with the driver, mapped until it is dropped.
///
/// Every access is volatile, of exactly the given width, little-endian, and naturally aligned; none implies
/// ordering (use `core::sync::atomic::fence`).
///
/// # Panics
/// Accesses beyond [`len`](Self::len) or unaligned ones are a bug of the caller and may panic: offsets are
/// never taken from the driver unchecked.
pub trait Window {
    /// Size in bytes.
    fn len(&self) -> usize;
    /// Whether the window has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reads 16 bits at a byte offset.
    fn read_u16(&self, offset: usize) -> u16;
    /// Writes 16 bits at a byte offset.
    fn write_u16(&self, offset: usize, value: u16);
    /// Reads 32 bits at a byte offset.
    fn read_u32(&self, offset: usize) -> u32;
    /// Writes 32 bits at a byte offset.
    fn write_u32(&self, offset: usize, value: u32);
    /// Copies bytes out of the window. Not atomic: the driver may write meanwhile.
    fn read_bytes(&self, offset: usize, to: &mut [u8]);
}

/// Payload on its way between driver memory and an uplink: a run of bytes in pages of this side's own.
///
/// An uplink may share the pages with its own back end, so they are reached by copies, like a window.
pub trait Buffer {
    /// Size in bytes.
    fn len(&self) -> usize;
    /// Whether the buffer has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Copies bytes out, starting at a byte offset. The range must lie inside the buffer.
    fn read(&self, offset: usize, to: &mut [u8]);
    /// Copies bytes in, starting at a byte offset. The range must lie inside the buffer.
    fn write(&self, offset: usize, from: &[u8]);
}

/// This side's end of a [`Transfer`], and by that its direction.
pub enum Local<'a, B> {
    /// Driver memory into private bytes.
    Read(&'a mut [u8]),
    /// Private bytes into driver memory.
    Write(&'a [u8]),
    /// Driver memory into a buffer, from a byte offset in it, for a number of bytes.
    ReadBuffer(&'a B, usize, usize),
    /// A buffer, from a byte offset in it, for a number of bytes, into driver memory.
    WriteBuffer(&'a B, usize, usize),
}

/// One copy of a batch between driver memory and this side.
pub struct Transfer<'a, B> {
    /// Where it starts in driver memory; it may run over page ends.
    pub address: u64,
    /// The other end, and the direction.
    pub local: Local<'a, B>,
    /// The outcome, set by [`DriverMemory::transfer`]. After an error, an unknown part has been copied.
    pub result: Result<(), MemoryError>,
}

/// Memory of one driver, as far as it gives access.
pub trait DriverMemory {
    /// What this memory can be mapped as.
    type Window: Window;
    /// The payload buffers that it can copy from and to.
    type Buffer: Buffer;

    /// Maps `len` bytes at `address` until the window is dropped.
    fn map(&self, address: u64, len: usize, writable: bool) -> Result<Self::Window, MemoryError>;

    /// Does all the copies of a batch, in order of the slice, each with its own result. A batch costs about
    /// one hypercall, so callers gather what they can.
    fn transfer(&self, batch: &mut [Transfer<'_, Self::Buffer>]);

    /// Whether this side's own memory is so short that nobody is to hold more of it for a driver than it
    /// takes to go on.
    fn is_scarce(&self) -> bool {
        false
    }
}

impl<T: DriverMemory> DriverMemory for Rc<T> {
    type Window = T::Window;
    type Buffer = T::Buffer;

    fn map(&self, address: u64, len: usize, writable: bool) -> Result<Self::Window, MemoryError> {
        (**self).map(address, len, writable)
    }

    fn transfer(&self, batch: &mut [Transfer<'_, Self::Buffer>]) {
        (**self).transfer(batch);
    }

    fn is_scarce(&self) -> bool {
        (**self).is_scarce()
    }
}
