//! Tables of requests while there is no memory for large blocks: the small ones may not fail, the large ones
//! have to, where that can be told.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::ptr::null_mut;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use protocols::blkif::frontend::{Command, Frontend, Payload, RingConnection};
use protocols::blkif::nodes::{FlushSupport, Properties};
use protocols::blkif::wire::{ENTRY_BYTES, Response};
use protocols::netif::{rx::Receiver, tx::Transmitter, wire};
use protocols::ring::{FrontRing, RingMemory};
use protocols::xenstore::Client;

/// The least that the driver domain's heap refuses while memory is scarce, in bytes.
const LARGE: usize = 4096;

/// The host's heap, without large blocks for a thread whose memory is scarce.
struct Scarce;

thread_local! {
    static SCARCE: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Scarce {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if SCARCE.get() && layout.size() >= LARGE {
            return null_mut();
        }
        // SAFETY: as promised to this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as promised to this function.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static HEAP: Scarce = Scarce;

/// A ring's memory.
#[derive(Clone)]
struct Bytes(Rc<RefCell<Vec<u8>>>);

impl Bytes {
    fn new(bytes: usize) -> Self {
        Self(Rc::new(RefCell::new(vec![0; bytes])))
    }
}

impl RingMemory for Bytes {
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

struct Page;

impl Payload for Page {
    fn bytes(&self) -> usize {
        4096
    }
    fn grant(&self, _: usize) -> u32 {
        8
    }
    fn fill(&self, _: usize, _: &[u8]) {}
}

const REQUESTS: usize = 1000;
const RING_BYTES: usize = 32 * 4096;

/// A connection to a back end with such a ring.
fn connect(front: &mut Frontend<usize, Page>) -> FrontRing<Bytes> {
    let ring = FrontRing::new(Bytes::new(RING_BYTES), RING_BYTES, ENTRY_BYTES);
    front.reserve_ring(ring.capacity()).expect("there is memory");
    SCARCE.set(true);
    let properties = Properties {
        sectors: 1 << 20,
        block_size: 512,
        physical_block_size: 512,
        read_only: false,
        flush: FlushSupport::Flush,
        discard: None,
        persistent: true,
    };
    let connection = RingConnection {
        handle: 0,
        indirect_segments: 0,
        properties,
    };
    front.connect(connection, ring.capacity());
    SCARCE.set(false);
    ring
}

#[test]
fn requests_take_no_large_blocks_that_were_not_reserved() {
    let mut front = Frontend::new();
    front.set_zeros(Page);
    let parties = [front.join(), front.join()];
    front.reserve(REQUESTS).expect("there is memory");
    SCARCE.set(true);
    for token in 0..REQUESTS {
        let sector = 8 * token as u64;
        // Most are one party's.
        let (party, command) = match token % 100 {
            0 => (parties[1], Command::Flush),
            1 => (parties[0], Command::WriteZeroes { sector, sectors: 8 }),
            _ => (
                parties[0],
                Command::Write {
                    sector,
                    payload: Page,
                },
            ),
        };
        front.submit(party, token, command);
    }
    // Lost with a back end, and sent again to the next.
    for _ in 0..2 {
        SCARCE.set(false);
        let mut ring = connect(&mut front);
        SCARCE.set(true);
        front.pump(&mut ring);
        assert!(front.pending() == REQUESTS && ring.push());
        front.disconnect();
    }
    front.abandon(|token| token % 2 == 0);
    front.fail_all();
    assert_eq!(core::iter::from_fn(|| front.finished()).count(), REQUESTS / 2);
    SCARCE.set(false);
}

#[test]
fn xenstore_messages_need_no_large_blocks() {
    let client = Client::new(|| {});
    let path = "x".repeat(300);
    let mut context = Context::from_waker(Waker::noop());
    SCARCE.set(true);
    // More than may be under way, and none is sent yet.
    let mut reads: Vec<_> = (0..100).map(|_| Box::pin(client.read(&path))).collect();
    for read in &mut reads {
        assert!(read.as_mut().poll(&mut context).is_pending());
    }
    // The answer to the first, as long as the daemon lets a guest write it, in pieces of its ring.
    let mut header = [0; 16];
    assert_eq!(client.output(&mut header), 16);
    header[12..].copy_from_slice(&2048_u32.to_le_bytes());
    client.input(&header);
    (0..2).for_each(|_| client.input(&[b'y'; 1024]));
    let read = reads[0].as_mut().poll(&mut context);
    SCARCE.set(false);
    assert!(matches!(read, Poll::Ready(Ok(value)) if value.len() == 2048));
}

#[test]
fn a_ring_is_refused_that_there_is_no_memory_for() {
    let mut front = Frontend::<usize, Page>::new();
    SCARCE.set(true);
    let refused = [
        front.reserve_ring(1024).is_err(),
        Receiver::<[usize; 2]>::new(256).is_err(),
        Transmitter::<[usize; 2]>::new(256).is_err(),
    ];
    SCARCE.set(false);
    assert_eq!(refused, [true; 3]);
    connect(&mut front);
    // An answer to nothing.
    assert!(front.response(&Response::new(0, 0, 0)).is_err());
}

#[test]
fn what_a_back_end_keeps_is_kept_where_it_is() {
    let mut ring = FrontRing::new(Bytes::new(4096), 4096, wire::RX_ENTRY_BYTES);
    let mut posted = Receiver::new(ring.capacity()).expect("there is memory");
    (0..256).for_each(|n| posted.post(&mut ring, n, 8));
    let mut ring = FrontRing::new(Bytes::new(4096), 4096, wire::TX_ENTRY_BYTES);
    let mut sent = Transmitter::new(ring.capacity()).expect("there is memory");
    for n in 0..256 {
        let fragment = protocols::netif::tx::Fragment { offset: 0, len: 60 };
        let info = protocols::netif::Info::default();
        let fragments = [fragment].into_iter();
        assert_eq!(
            sent.send::<_, ()>(&mut ring, &info, fragments, |_| Ok((n, 8))),
            Ok(())
        );
    }
    SCARCE.set(true);
    for kept in [256, 100, 1, 0] {
        let mut count = [0; 2];
        let all = [
            posted.take_back(|n| (n < kept).then_some(n).inspect(|_| count[0] += 1)),
            sent.take_back(|n| (n < kept).then_some(n).inspect(|_| count[1] += 1)),
        ];
        assert_eq!((all, count), ([kept == 0; 2], [kept; 2]));
    }
    SCARCE.set(false);
}
