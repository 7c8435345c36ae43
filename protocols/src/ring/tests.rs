use std::collections::VecDeque;

use proptest::prelude::*;

use super::back::{BackRing, Shared};
use super::*;

const ENTRY: usize = 112;

fn pair(pages: usize) -> (FrontRing<Shared>, BackRing) {
    let bytes = pages * 4096;
    let memory = Shared::new(bytes);
    (
        FrontRing::new(memory.clone(), bytes, ENTRY),
        BackRing::attach(memory, bytes, ENTRY),
    )
}

#[test]
fn sizes_are_those_of_the_header() {
    // __RING_SIZE with blkif's 112-byte entries, for 1, 2, 4, 8 and 16 pages.
    assert_eq!(
        [1, 2, 4, 8, 16].map(|pages| entries(pages * 4096, ENTRY)),
        [32, 64, 128, 256, 512]
    );
}

#[test]
fn notifies_only_past_the_event_index() {
    let (mut front, mut back) = pair(1);
    front.put(&[1]);
    assert!(front.push(), "req_event is 1 at first");
    front.put(&[2]);
    assert!(!front.push(), "the back end has not asked again");
    assert!(!front.push(), "nothing new");
    back.take().unwrap();
    assert!(back.final_check(), "the second request is there already");
    back.take().unwrap();
    assert!(!back.final_check());
    front.put(&[3]);
    front.put(&[4]);
    assert!(front.push());
}

#[test]
fn rejects_impossible_producers() {
    for claim in [2, 3, u32::MAX, 0x8000_0000] {
        let (mut front, mut back) = pair(1);
        front.put(&[1]);
        let _ = front.push();
        back.claim(claim);
        assert_eq!(
            front.take(&mut [0; 16]),
            Err(BadIndex {
                produced: claim,
                consumed: 0
            })
        );
    }
}

#[test]
fn rejects_a_producer_that_goes_back() {
    let (mut front, mut back) = pair(1);
    for _ in 0..4 {
        front.put(&[1]);
    }
    let _ = front.push();
    back.claim(2);
    assert_eq!(front.take(&mut [0; 16]), Ok(true));
    assert_eq!(front.take(&mut [0; 16]), Ok(true));
    back.claim(1);
    assert!(front.take(&mut [0; 16]).is_err());
    assert!(front.final_check().is_err());
}

proptest! {
    /// Whatever the interleaving: nothing is lost, order is kept, and a side that sleeps after its final
    /// check is notified when there is work.
    #[test]
    fn no_lost_wakeup(steps in prop::collection::vec(0u8..6, 0..400), start in any::<u32>()) {
        let (mut front, mut back) = pair(1);
        // Start anywhere, so that the wrap is crossed.
        let start = if start.is_multiple_of(2) { start } else { u32::MAX - (start % 64) };
        front.memory.store(REQ_PROD, start);
        front.memory.store(RSP_PROD, start);
        front.memory.store(REQ_EVENT, start.wrapping_add(1));
        front.memory.store(RSP_EVENT, start.wrapping_add(1));
        (front.written, front.pushed, front.consumed, front.produced) = (start, start, start, start);
        (back.consumed, back.produced) = (start, start);

        let (mut next, mut expect) = (0u8, 0u8);
        let mut held = VecDeque::new();
        let (mut back_asleep, mut front_asleep) = (true, true);
        for step in steps {
            match step {
                0 | 1 if front.free() > 0 => {
                    front.put(&[next]);
                    next = next.wrapping_add(1);
                }
                2 => back_asleep &= !front.push(),
                3 if !back_asleep => match back.take() {
                    Some(request) => held.push_back(request),
                    None => back_asleep = !back.final_check(),
                },
                4 => if let Some(request) = held.pop_front() {
                    front_asleep &= !back.respond(&request[..16]);
                },
                5 if !front_asleep => {
                    let mut response = [0; 16];
                    if front.take(&mut response).unwrap() {
                        prop_assert_eq!(response[0], expect);
                        expect = expect.wrapping_add(1);
                    } else {
                        front_asleep = !front.final_check().unwrap();
                    }
                }
                _ => {}
            }
            prop_assert!(!(back_asleep && back.waiting() > 0), "the back end sleeps on requests");
            prop_assert!(!(front_asleep && back.produced != front.consumed), "the front end sleeps on responses");
        }
    }
}
