use std::collections::VecDeque;

use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::rx::{End, Entry, Receiver};
use super::tx::{Fragment, Refused, Transmitter};
use super::wire::{Extra, RxRequest, TxRequest, rx_flag, status, tx_flag};
use super::*;
use crate::ring::FrontRing;
use crate::ring::back::{BackRing, Shared};

fn pair(entry: usize) -> (FrontRing<Shared>, BackRing) {
    let memory = Shared::new(4096);
    (
        FrontRing::new(memory.clone(), 4096, entry),
        BackRing::attach(memory, 4096, entry),
    )
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

const GSO: Gso = Gso {
    kind: GsoKind::Tcp4,
    size: 1448,
};

mod transmit {
    use super::*;

    fn fragments(lens: &[u16]) -> impl ExactSizeIterator<Item = Fragment> {
        lens.iter().map(|&len| Fragment { offset: 2, len })
    }

    fn granted(index: usize) -> Result<(usize, u32), ()> {
        Ok((index, 100 + index as u32))
    }

    fn requests(back: &mut BackRing) -> Vec<TxRequest> {
        std::iter::from_fn(|| back.take())
            .map(|entry| TxRequest::read_from_bytes(&entry).unwrap())
            .collect()
    }

    fn answer(back: &mut BackRing, id: u16, status: i16) {
        let [a, b] = id.to_le_bytes();
        let [c, d] = status.to_le_bytes();
        back.respond(&[a, b, c, d]);
    }

    #[test]
    fn a_large_segment() {
        let (mut ring, mut back) = pair(wire::TX_ENTRY_BYTES);
        let mut tx = Transmitter::new(ring.capacity()).unwrap();
        let info = Info {
            checksum_blank: true,
            validated: true,
            gso: Some(GSO),
        };
        tx.send(&mut ring, &info, fragments(&[4094, 4094, 100]), granted)
            .unwrap();
        assert!(ring.push());
        let sent = requests(&mut back);
        assert_eq!(sent.len(), 4);
        assert_eq!((sent[0].grant.get(), sent[0].size.get()), (100, 8288));
        assert_eq!(
            sent[0].flags.get(),
            tx_flag::CHECKSUM_BLANK | tx_flag::DATA_VALIDATED | tx_flag::EXTRA_INFO | tx_flag::MORE_DATA
        );
        assert_eq!(sent[1].as_bytes()[..8], *Extra::gso(GSO).as_bytes());
        assert_eq!(sent[1].as_bytes()[8..], [0; 4]);
        assert_eq!(
            (sent[2].grant.get(), sent[2].size.get(), sent[2].flags.get()),
            (101, 4094, tx_flag::MORE_DATA)
        );
        assert_eq!(
            (sent[3].grant.get(), sent[3].size.get(), sent[3].flags.get()),
            (102, 100, 0)
        );
        // The answers come in another order.
        answer(&mut back, sent[3].id.get(), status::OKAY);
        answer(&mut back, 0x7777, status::NULL);
        answer(&mut back, sent[0].id.get(), status::DROPPED);
        answer(&mut back, sent[2].id.get(), status::OKAY);
        let mut answers = Vec::new();
        while let Some(answer) = tx.take(&mut ring).unwrap() {
            answers.push((answer.token.unwrap(), answer.taken));
        }
        assert_eq!(answers, [(2, true), (0, false), (1, true)]);
        assert_eq!(tx.outstanding(), 0);
        assert_eq!(ring.free(), ring.capacity());
    }

    #[test]
    fn changes_of_the_filter() {
        let (mut ring, mut back) = pair(wire::TX_ENTRY_BYTES);
        let mut tx = Transmitter::<()>::new(ring.capacity()).unwrap();
        let group = [0x33, 0x33, 0, 0, 0, 1];
        assert!(tx.change_filter(&mut ring, group, true));
        let _ = ring.push();
        let sent = requests(&mut back);
        assert_eq!(sent[0].as_bytes()[..8], [0, 0, 0, 0, 0, 0, 8, 0]);
        assert_eq!(sent[0].size.get(), 0);
        assert_eq!(sent[1].as_bytes()[..8], *Extra::multicast(group, true).as_bytes());
        answer(&mut back, sent[0].id.get(), status::OKAY);
        answer(&mut back, 0, status::NULL);
        let answered = tx.take(&mut ring).unwrap().unwrap();
        assert_eq!((answered.token, answered.taken), (None, true));
        assert_eq!(tx.take(&mut ring), Ok(None));
        assert_eq!((tx.outstanding(), ring.free()), (0, ring.capacity()));
        for _ in 0..ring.capacity() / 2 {
            assert!(tx.change_filter(&mut ring, group, false));
        }
        assert!(!tx.change_filter(&mut ring, group, false));
        assert_eq!(left(|end| tx.take_back(end)).len(), 0);
    }

    #[test]
    fn what_does_not_fit_leaves_no_trace() {
        let (mut ring, mut back) = pair(wire::TX_ENTRY_BYTES);
        let mut tx = Transmitter::new(ring.capacity()).unwrap();
        let plain = Info::default();
        let unfit = [&[][..], &[1; 19], &[4096; 16]];
        for lens in unfit {
            let refused = tx.send(&mut ring, &plain, fragments(lens), granted);
            assert_eq!(refused, Err(Refused::Unfit));
        }
        let refused = tx.send(&mut ring, &plain, fragments(&[10, 10]), |index| {
            if index == 0 { Ok((0, 1)) } else { Err("full") }
        });
        assert_eq!(refused, Err(Refused::Grant("full")));
        assert_eq!((tx.outstanding(), ring.free()), (0, ring.capacity()));
        assert!(!ring.push());
        for _ in 0..ring.capacity() / 2 {
            tx.send(&mut ring, &plain, fragments(&[1, 1]), granted).unwrap();
        }
        let refused = tx.send(&mut ring, &plain, fragments(&[1]), granted);
        assert_eq!(refused, Err(Refused::Full));
        let _ = ring.push();
        assert_eq!(requests(&mut back).len(), ring.capacity() as usize);
        assert_eq!(left(|end| tx.take_back(end)).len(), ring.capacity() as usize);
    }

    #[test]
    fn wrong_answers() {
        let wrong = [
            (1u16, status::OKAY, Broken::UnknownRequest(1)),
            (256, status::OKAY, Broken::UnknownRequest(256)),
            (0, 2, Broken::Status(2)),
            (0, -3, Broken::Status(-3)),
            (0, status::NULL, Broken::UnexpectedNull),
        ];
        for (id, status, expected) in wrong {
            let (mut ring, mut back) = pair(wire::TX_ENTRY_BYTES);
            let mut tx = Transmitter::new(ring.capacity()).unwrap();
            tx.send(&mut ring, &Info::default(), fragments(&[60]), granted)
                .unwrap();
            let _ = ring.push();
            answer(&mut back, id, status);
            assert_eq!(tx.take(&mut ring), Err(expected));
            assert_eq!(left(|end| tx.take_back(end)).len(), 1);
        }
    }

    proptest! {
        /// Whatever is answered, each token comes back exactly once, from an answer or at the end.
        #[test]
        fn every_page_comes_back_once(steps in prop::collection::vec((0u8..4, any::<u16>(), -3i16..4), 0..200)) {
            let (mut ring, mut back) = pair(wire::TX_ENTRY_BYTES);
            let mut tx = Transmitter::new(ring.capacity()).unwrap();
            let mut next = 0u32;
            let mut held = VecDeque::new();
            let mut returned = Vec::new();
            'run: for (step, number, code) in steps {
                match step {
                    0 => {
                        let lens = vec![7; usize::from(number % 20)];
                        let gso = (number & 0x100 != 0).then_some(GSO);
                        let info = Info { gso, ..Info::default() };
                        let first = next;
                        let sent = tx.send(&mut ring, &info, fragments(&lens), |_| {
                            next += 1;
                            Ok::<_, ()>((next - 1, 0))
                        });
                        if sent.is_err() {
                            next = first;
                        }
                    }
                    1 => _ = ring.push(),
                    2 => if let Some(entry) = back.take() {
                        held.push_back(TxRequest::read_from_bytes(&entry).unwrap().id.get());
                    },
                    _ => if !held.is_empty() {
                        let id = held.remove(usize::from(number) % held.len()).unwrap();
                        // Now and then, a wrong identifier.
                        answer(&mut back, if number % 8 == 0 { number } else { id }, code);
                    },
                }
                loop {
                    match tx.take(&mut ring) {
                        Ok(Some(answer)) => returned.extend(answer.token),
                        Ok(None) => break,
                        Err(_) => break 'run,
                    }
                }
            }
            returned.extend(left(|end| tx.take_back(end)));
            returned.sort_unstable();
            prop_assert_eq!(returned, (0..next).collect::<Vec<_>>());
        }
    }
}

mod receive {
    use super::*;

    fn posted(count: u32) -> (FrontRing<Shared>, BackRing, Receiver<u32>) {
        let (mut ring, back) = pair(wire::RX_ENTRY_BYTES);
        let mut rx = Receiver::new(ring.capacity()).unwrap();
        for token in 0..count {
            rx.post(&mut ring, token, 1000 + token);
        }
        let _ = ring.push();
        (ring, back, rx)
    }

    fn respond(back: &mut BackRing, id: u16, offset: u16, flags: u16, status: i16) {
        let words = [id, offset, flags, status as u16];
        back.respond(&words.map(u16::to_le_bytes).concat());
    }

    fn entries(ring: &mut FrontRing<Shared>, rx: &mut Receiver<u32>) -> Result<Vec<Entry<u32>>, Broken> {
        let mut entries = Vec::new();
        while let Some(entry) = rx.take(ring)? {
            entries.push(entry);
        }
        Ok(entries)
    }

    #[test]
    fn plain_frames() {
        let (mut ring, mut back, mut rx) = posted(3);
        let request = RxRequest::read_from_bytes(&back.take().unwrap()).unwrap();
        assert_eq!((request.id.get(), request.grant.get()), (0, 1000));
        respond(&mut back, 0, 0, rx_flag::DATA_VALIDATED, 60);
        respond(&mut back, 1, 256, 0, 1514);
        let frames = entries(&mut ring, &mut rx).unwrap();
        let validated = Info {
            validated: true,
            ..Info::default()
        };
        assert_eq!(
            frames,
            [
                Entry {
                    token: 0,
                    id: 0,
                    data: Some((0, 60)),
                    end: Some(End::Whole(validated))
                },
                Entry {
                    token: 1,
                    id: 1,
                    data: Some((256, 1514)),
                    end: Some(End::Whole(Info::default()))
                },
            ]
        );
        assert_eq!(rx.outstanding(), 1);
    }

    #[test]
    fn a_large_segment_in_two_parts() {
        let (mut ring, mut back, mut rx) = posted(8);
        let first =
            rx_flag::CHECKSUM_BLANK | rx_flag::DATA_VALIDATED | rx_flag::EXTRA_INFO | rx_flag::MORE_DATA;
        respond(&mut back, 0, 0, first, 4096);
        let mut gso = Extra::gso(GSO);
        gso.flags = wire::EXTRA_MORE;
        back.respond(gso.as_bytes());
        let early = entries(&mut ring, &mut rx).unwrap();
        assert!(early.iter().all(|entry| entry.end.is_none()));
        back.respond(&[4, 0, 1, 1, 9, 9, 9, 9]);
        respond(&mut back, 3, 0, rx_flag::MORE_DATA, 4096);
        respond(&mut back, 4, 0, 0, 3);
        let late = entries(&mut ring, &mut rx).unwrap();
        let data: Vec<_> = early.iter().chain(&late).map(|entry| entry.data).collect();
        let page = Some((0, 4096));
        assert_eq!(data, [page, None, None, page, Some((0, 3))]);
        let info = Info {
            checksum_blank: true,
            validated: true,
            gso: Some(GSO),
        };
        assert_eq!(late.last().unwrap().end, Some(End::Whole(info)));
        // The next one starts anew.
        respond(&mut back, 5, 0, 0, 60);
        let next = entries(&mut ring, &mut rx).unwrap();
        assert_eq!(next[0].end, Some(End::Whole(Info::default())));
    }

    #[test]
    fn a_failed_fragment_spoils_its_frame_only() {
        let (mut ring, mut back, mut rx) = posted(4);
        respond(&mut back, 0, 0, rx_flag::MORE_DATA, 4096);
        respond(&mut back, 1, 0, rx_flag::MORE_DATA, status::ERROR);
        respond(&mut back, 2, 0, 0, 20);
        respond(&mut back, 3, 0, 0, 60);
        let ends: Vec<_> = entries(&mut ring, &mut rx)
            .unwrap()
            .iter()
            .map(|entry| entry.end)
            .collect();
        let whole = Some(End::Whole(Info::default()));
        assert_eq!(ends, [None, None, Some(End::Failed), whole]);
    }

    #[test]
    fn wrong_responses() {
        let wrong = [
            (1, 0, 0, 60, Broken::OutOfOrder(1)),
            (0, 1, 0, 4096, Broken::Range { offset: 1, len: 4096 }),
            (
                0,
                0xffff,
                0,
                1,
                Broken::Range {
                    offset: 0xffff,
                    len: 1,
                },
            ),
            (0, 0, 16, 60, Broken::Flags(16)),
        ];
        for (id, offset, flags, len, expected) in wrong {
            let (mut ring, mut back, mut rx) = posted(2);
            respond(&mut back, id, offset, flags, len);
            assert_eq!(rx.take(&mut ring), Err(expected));
            assert_eq!(left(|end| rx.take_back(end)).len(), 2, "the pages are not lost");
        }
        for extra in [
            [0u8; 8],
            [2, 0, 0, 0, 0, 0, 0, 0],
            [5, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 1, 0, 0, 0],
        ] {
            let (mut ring, mut back, mut rx) = posted(2);
            respond(&mut back, 0, 0, rx_flag::EXTRA_INFO, 60);
            back.respond(&extra);
            assert!(rx.take(&mut ring).is_ok());
            assert_eq!(rx.take(&mut ring), Err(Broken::Extra(extra[0])));
        }
    }

    #[test]
    fn endless_frames() {
        let (mut ring, mut back, mut rx) = posted(64);
        for id in 0..64 {
            respond(&mut back, id, 0, rx_flag::MORE_DATA, 1);
        }
        assert_eq!(entries(&mut ring, &mut rx), Err(Broken::Endless));
        let (mut ring, mut back, mut rx) = posted(64);
        respond(&mut back, 0, 0, rx_flag::EXTRA_INFO, 1);
        for _ in 1..64 {
            back.respond(&[4, 1, 0, 0, 0, 0, 0, 0]);
        }
        assert_eq!(entries(&mut ring, &mut rx), Err(Broken::Endless));
    }

    proptest! {
        /// Whatever is answered: pages come back once and in order, ranges lie in their pages, frames are
        /// bounded.
        #[test]
        fn hostile(responses in prop::collection::vec((any::<bool>(), 0u16..4, 0u16..5000, 0u16..20, -2i16..5000), 0..300)) {
            let (mut ring, mut back, mut rx) = posted(200);
            let mut posted = 200;
            let mut taken = 0;
            let mut fragments = 0;
            for (index, (extra, wrong, offset, flags, status)) in responses.into_iter().enumerate() {
                if rx.outstanding() == 0 {
                    break;
                }
                if extra && offset % 3 == 0 {
                    let mut info = Extra::gso(GSO);
                    info.kind = flags as u8 % 6;
                    info.flags = wrong as u8;
                    back.respond(info.as_bytes());
                } else {
                    let id = (index % 256) as u16 + u16::from(wrong == 3 && index % 16 == 0);
                    // Mostly what passes the checks.
                    let (offset, status) = if extra { (offset, status) } else { (0, status.min(4096)) };
                    respond(&mut back, id, offset, if extra { flags } else { flags & 13 }, status);
                }
                let Ok(entry) = rx.take(&mut ring) else { break };
                let entry = entry.unwrap();
                prop_assert_eq!(entry.token, taken);
                taken += 1;
                if let Some((offset, len)) = entry.data {
                    prop_assert!(len > 0 && offset + len <= 4096);
                    fragments += 1;
                }
                prop_assert!(fragments <= wire::MAX_FRAGMENTS);
                if entry.end.is_some() {
                    fragments = 0;
                }
                if ring.free() > 100 {
                    rx.post(&mut ring, posted, 0);
                    posted += 1;
                    let _ = ring.push();
                }
            }
            let mut left: Vec<_> = left(|end| rx.take_back(end));
            left.sort_unstable();
            prop_assert_eq!(left, (taken..posted).collect::<Vec<_>>());
        }
    }
}
