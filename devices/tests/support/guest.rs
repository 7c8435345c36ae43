//! The driver's memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use devices::memory::{Buffer, DriverMemory, Local, MemoryError, Transfer, Window};

/// The address of the first byte.
pub const BASE: u64 = 1 << 63 | 16 << 12;
const PAGE: usize = 4096;

/// Memory of a driver, page by page accessible or not.
pub struct Guest {
    bytes: RefCell<Vec<u8>>,
    /// Pages that the device cannot access.
    pub holes: RefCell<BTreeSet<usize>>,
    /// The device's side is short of memory.
    pub scarce: Cell<bool>,
    /// How many windows are mapped.
    pub windows: Cell<usize>,
    /// How many batches of transfers there were.
    pub batches: Cell<usize>,
    /// Something that happens between any two accesses of the device to a window.
    pub meanwhile: RefCell<Option<Box<dyn FnMut()>>>,
}

impl Guest {
    pub fn new(len: usize) -> Rc<Self> {
        Rc::new(Guest {
            bytes: RefCell::new(vec![0; len]),
            holes: RefCell::default(),
            scarce: Cell::new(false),
            windows: Cell::new(0),
            batches: Cell::new(0),
            meanwhile: RefCell::default(),
        })
    }

    pub fn read(&self, at: usize, len: usize) -> Vec<u8> {
        self.bytes.borrow()[at..at + len].to_vec()
    }

    pub fn read_u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes.borrow()[at..at + 2].try_into().unwrap())
    }

    pub fn read_u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes.borrow()[at..at + 4].try_into().unwrap())
    }

    pub fn write(&self, at: usize, bytes: &[u8]) {
        self.bytes.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn range(&self, address: u64, len: usize) -> Result<std::ops::Range<usize>, MemoryError> {
        let start = usize::try_from(address.checked_sub(BASE).ok_or(MemoryError::BadAddress)?).unwrap();
        let end = start.checked_add(len).ok_or(MemoryError::BadAddress)?;
        if end > self.bytes.borrow().len() {
            return Err(MemoryError::NoAccess);
        }
        let holes = self.holes.borrow();
        if (start / PAGE..end.div_ceil(PAGE)).any(|page| holes.contains(&page)) {
            return Err(MemoryError::NoAccess);
        }
        Ok(start..end)
    }

    fn pause(&self) {
        // Not while it is running already.
        let meanwhile = self.meanwhile.borrow_mut().take();
        if let Some(mut meanwhile) = meanwhile {
            meanwhile();
            self.meanwhile.borrow_mut().get_or_insert(meanwhile);
        }
    }
}

impl Guest {
    fn transfer(&self, batch: &mut [Transfer<'_, Payload>]) {
        assert!(!batch.is_empty(), "an empty batch costs a hypercall for nothing");
        self.batches.set(self.batches.get() + 1);
        for Transfer {
            address,
            local,
            result,
        } in batch
        {
            let len = match local {
                Local::Read(to) => to.len(),
                Local::Write(from) => from.len(),
                Local::ReadBuffer(_, _, len) | Local::WriteBuffer(_, _, len) => *len,
            };
            assert!(len > 0);
            *result = self.range(*address, len).map(|range| {
                let mut bytes = self.bytes.borrow_mut();
                let bytes = &mut bytes[range];
                match local {
                    Local::Read(to) => to.copy_from_slice(bytes),
                    Local::Write(from) => bytes.copy_from_slice(from),
                    Local::ReadBuffer(buffer, at, _) => buffer.write(*at, bytes),
                    Local::WriteBuffer(buffer, at, _) => buffer.read(*at, bytes),
                }
            });
        }
    }
}

/// The device's hold of a guest's memory.
#[derive(Clone)]
pub struct Shared(pub Rc<Guest>);

impl DriverMemory for Shared {
    type Window = View;
    type Buffer = Payload;

    fn map(&self, address: u64, len: usize, writable: bool) -> Result<View, MemoryError> {
        let start = self.0.range(address, len)?.start;
        self.0.windows.set(self.0.windows.get() + 1);
        Ok(View {
            guest: self.0.clone(),
            start,
            len,
            writable,
        })
    }

    fn transfer(&self, batch: &mut [Transfer<'_, Payload>]) {
        self.0.transfer(batch);
    }

    fn is_scarce(&self) -> bool {
        self.0.scarce.get()
    }
}

/// A window into it.
pub struct View {
    guest: Rc<Guest>,
    start: usize,
    len: usize,
    writable: bool,
}

impl View {
    fn at(&self, offset: usize, len: usize) -> usize {
        assert!(
            offset + len <= self.len && offset.is_multiple_of(len),
            "{offset} of {}",
            self.len
        );
        self.guest.pause();
        self.start + offset
    }
}

impl Window for View {
    fn len(&self) -> usize {
        self.len
    }

    fn read_u16(&self, offset: usize) -> u16 {
        let at = self.at(offset, 2);
        self.guest.read_u16(at)
    }

    fn write_u16(&self, offset: usize, value: u16) {
        assert!(self.writable);
        let at = self.at(offset, 2);
        self.guest.write(at, &value.to_le_bytes());
    }

    fn read_u32(&self, offset: usize) -> u32 {
        let at = self.at(offset, 4);
        self.guest.read_u32(at)
    }

    fn write_u32(&self, offset: usize, value: u32) {
        assert!(self.writable);
        let at = self.at(offset, 4);
        self.guest.write(at, &value.to_le_bytes());
    }

    fn read_bytes(&self, offset: usize, to: &mut [u8]) {
        let at = self.at(offset, to.len());
        to.copy_from_slice(&self.guest.read(at, to.len()));
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.guest.windows.set(self.guest.windows.get() - 1);
    }
}

/// A payload buffer, out of a pool of limited size.
pub struct Payload {
    bytes: RefCell<Vec<u8>>,
    free: Option<Box<dyn FnOnce(usize)>>,
}

impl Payload {
    pub fn new(len: usize, free: impl FnOnce(usize) + 'static) -> Self {
        // What a buffer holds at first must never reach a driver.
        Payload {
            bytes: RefCell::new(vec![0xee; len]),
            free: Some(Box::new(free)),
        }
    }
}

impl Buffer for Payload {
    fn len(&self) -> usize {
        self.bytes.borrow().len()
    }

    fn read(&self, offset: usize, to: &mut [u8]) {
        to.copy_from_slice(&self.bytes.borrow()[offset..offset + to.len()]);
    }

    fn write(&self, offset: usize, from: &[u8]) {
        self.bytes.borrow_mut()[offset..offset + from.len()].copy_from_slice(from);
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Some(free) = self.free.take() {
            free(self.bytes.borrow().len());
        }
    }
}
