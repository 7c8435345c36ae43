//! Any bytes as a frame: its headers are found or not, and offloading it in software works or not.
#![no_main]

#[path = "../../../devices/tests/support/mod.rs"]
mod support;

use devices::net::headers::Headers;
use devices::net::offload::{Abilities, Parts, needed};
use devices::net::{Checksum, ETHERNET_HEADER, Offload, Segmentation, SegmentationKind};
use libfuzzer_sys::fuzz_target;
use support::port::frame;

fuzz_target!(|bytes: &[u8]| {
    let Some(([flags, size, start, offset], bytes)) = bytes.split_first_chunk() else {
        return;
    };
    let headers = Headers::parse(bytes);
    if bytes.len() < ETHERNET_HEADER {
        return assert!(headers.is_none());
    }
    let kind = if flags & 1 == 0 {
        SegmentationKind::Tcp4
    } else {
        SegmentationKind::Tcp6
    };
    let found = headers.and_then(|headers| headers.partial());
    let given = Checksum::Partial {
        start: (*start).into(),
        offset: (*offset).into(),
    };
    let checksum = if flags & 2 == 0 {
        found.unwrap_or(given)
    } else {
        given
    };
    let Checksum::Partial { start, offset } = checksum else {
        unreachable!()
    };
    // What whoever makes a frame has checked.
    if usize::from(start) + usize::from(offset) + 2 > bytes.len() {
        return;
    }
    let offload = Offload {
        checksum,
        segmentation: (flags & 4 != 0).then_some(Segmentation {
            kind,
            size: (*size).into(),
        }),
    };
    let can = Abilities {
        checksum: flags & 8 != 0,
        tcp4: flags & 16 != 0,
        tcp6: flags & 32 != 0,
    };
    let source = frame(bytes, offload);
    let good = needed(source.buffer(), offload).is_some();
    let Some(mut parts) = Parts::new(&source, can) else {
        return assert!(!good || offload.segmentation.is_none());
    };
    let (mut own, mut count) = (Vec::new(), 0);
    while let Some(len) = parts.next_len() {
        own.clear();
        let part = parts.next(source.buffer(), &mut own).expect("a packet");
        assert_eq!(own.len() + part.payload.len(), len);
        assert!(part.payload.end <= bytes.len());
        count += 1;
    }
    assert!((1..=bytes.len()).contains(&count));
});
