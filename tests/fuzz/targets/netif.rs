//! Any responses of a network back end: each page comes back once, ranges lie in their pages, frames are
//! bounded, or the connection ends.
#![no_main]

use std::cell::RefCell;
use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use protocols::netif::rx::Receiver;
use protocols::netif::tx::{Fragment, Transmitter};
use protocols::netif::{Gso, GsoKind, Info, wire};
use protocols::ring::{FrontRing, HEADER_BYTES, RingMemory};

const PAGE: usize = 4096;
/// Where the back end writes how many responses there are.
const RESPONSES: usize = 8;

#[derive(Clone)]
struct Page(Rc<RefCell<Vec<u8>>>);

impl Page {
    fn new() -> Self {
        Self(Rc::new(RefCell::new(vec![0; PAGE])))
    }

    /// A response of the back end's, in the entry that is next, and perhaps a wrong number of them.
    fn respond(&self, count: &mut u32, entry_bytes: usize, entry: &[u8], wrong: bool) {
        let at = HEADER_BYTES + (*count % 256) as usize * entry_bytes;
        self.write(at, entry);
        *count = count.wrapping_add(1);
        let claimed = if wrong {
            count.wrapping_mul(0x0101_0101)
        } else {
            *count
        };
        self.store(RESPONSES, claimed);
    }
}

impl RingMemory for Page {
    fn load(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.0.borrow()[offset..offset + 4].try_into().unwrap())
    }
    fn store(&self, offset: usize, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }
    fn read(&self, offset: usize, to: &mut [u8]) {
        to.copy_from_slice(&self.0.borrow()[offset..offset + to.len()]);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        self.0.borrow_mut()[offset..offset + from.len()].copy_from_slice(from);
    }
}

/// What a queue gives up when its connection is over: everything that the back end had.
fn left<T>(take_back: impl FnOnce(&mut dyn FnMut(T) -> Option<T>) -> bool) -> Vec<T> {
    let mut left = Vec::new();
    let mut end = |token| {
        left.push(token);
        None
    };
    assert!(take_back(&mut end));
    left
}

fn receive(bytes: &[u8]) {
    let memory = Page::new();
    let mut ring = FrontRing::new(memory.clone(), PAGE, wire::RX_ENTRY_BYTES);
    let mut rx = Receiver::new(ring.capacity()).unwrap();
    let (mut posted, mut taken, mut count, mut fragments) = (0u32, 0u32, 0, 0);
    for chunk in bytes.chunks_exact(9) {
        while ring.free() > 0 {
            rx.post(&mut ring, posted, 0);
            posted += 1;
        }
        let _ = ring.push();
        let mut entry: [u8; 8] = chunk[1..].try_into().unwrap();
        if chunk[0] & 1 == 0 {
            // Identifier and size as they should be.
            entry[..2].copy_from_slice(&((count % 256) as u16).to_le_bytes());
            entry[7] &= 0x0f;
        }
        memory.respond(&mut count, wire::RX_ENTRY_BYTES, &entry, chunk[0] == 0xff);
        while let Some(entry) = match rx.take(&mut ring) {
            Ok(entry) => entry,
            Err(_) => {
                assert_eq!(left(|end| rx.take_back(end)).len() as u32, posted - taken);
                return;
            }
        } {
            assert_eq!(entry.token, taken);
            taken += 1;
            if let Some((offset, len)) = entry.data {
                assert!(len > 0 && usize::from(offset) + usize::from(len) <= PAGE);
                fragments += 1;
            }
            assert!(fragments <= wire::MAX_FRAGMENTS);
            if entry.end.is_some() {
                fragments = 0;
            }
        }
    }
    assert_eq!(left(|end| rx.take_back(end)).len() as u32, posted - taken);
}

fn transmit(bytes: &[u8]) {
    let memory = Page::new();
    let mut ring = FrontRing::new(memory.clone(), PAGE, wire::TX_ENTRY_BYTES);
    let mut tx = Transmitter::new(ring.capacity()).unwrap();
    let (mut sent, mut returned, mut count) = (0, 0, 0);
    for chunk in bytes.chunks_exact(6) {
        let fragments = vec![Fragment { offset: 0, len: 9 }; usize::from(chunk[0] & 31)];
        let gso = (chunk[0] & 32 != 0).then_some(Gso {
            kind: GsoKind::Tcp4,
            size: 1000,
        });
        let info = Info {
            gso,
            ..Info::default()
        };
        let frame = tx.send(&mut ring, &info, fragments.iter().copied(), |_| {
            Ok::<_, ()>(((), 0))
        });
        if frame.is_ok() {
            sent += fragments.len();
        }
        if chunk[0] & 64 != 0 {
            tx.change_filter(&mut ring, [1; 6], true);
        }
        let _ = ring.push();
        memory.respond(&mut count, wire::TX_ENTRY_BYTES, &chunk[1..5], chunk[5] == 0xff);
        loop {
            match tx.take(&mut ring) {
                Ok(Some(answer)) => returned += usize::from(answer.token.is_some()),
                Ok(None) => break,
                Err(_) => {
                    assert_eq!(left(|end| tx.take_back(end)).len(), sent - returned);
                    return;
                }
            }
        }
    }
    assert_eq!(left(|end| tx.take_back(end)).len(), sent - returned);
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    if first & 1 == 0 {
        receive(rest);
    } else {
        transmit(rest);
    }
});
