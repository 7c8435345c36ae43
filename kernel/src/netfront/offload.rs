//! Between what netif says of a frame and what the network does.

use devices::memory::Buffer;
use devices::net::headers::Headers;
use devices::net::offload::{Abilities, Sum, headers_len, needed};
use devices::net::{Checksum, Frame, Offload, Segmentation, SegmentationKind};
use protocols::netif::nodes::Features;
use protocols::netif::wire::MAX_TX_BYTES;
use protocols::netif::{Gso, GsoKind, Info};

/// Size of IPv6's own header in bytes (RFC 8200).
const IPV6_HEADER: usize = 40;

/// What is still to be done about a frame that a back end sent. It says that there is a checksum or
/// segmentation to be done, but not where the headers are. `None` if they are nowhere.
pub(super) fn of_received<B: Buffer>(buffer: &B, info: &Info) -> Option<Offload> {
    if !info.checksum_blank && info.gso.is_none() {
        let checksum = if info.validated {
            Checksum::Valid
        } else {
            Checksum::Unknown
        };
        return Some(Offload {
            checksum,
            segmentation: None,
        });
    }
    let headers = Headers::of(buffer)?;
    let checksum = headers.partial()?;
    let (Checksum::Partial { start, offset }, Some(ip)) = (checksum, headers.ip) else {
        return None;
    };
    let field = usize::from(start) + usize::from(offset);
    if ip.end > buffer.len() || field + 2 > ip.end {
        return None;
    }
    if !info.checksum_blank {
        // Some back ends compute the checksum of the large segment, which is of no use to the small ones.
        let len = ip.end - usize::from(start);
        let sum = Sum::default().pseudo_header(ip.source, ip.destination, ip.protocol, len);
        buffer.write(field, &sum.fold().to_be_bytes());
    }
    let offload = Offload {
        checksum,
        segmentation: info.gso.map(|gso| Segmentation {
            kind: match gso.kind {
                GsoKind::Tcp4 => SegmentationKind::Tcp4,
                GsoKind::Tcp6 => SegmentationKind::Tcp6,
            },
            size: gso.size,
        }),
    };
    needed(buffer, offload)
}

/// How a frame's ring entries say what is still to be done about it.
pub(super) fn to_info(offload: &Offload) -> Info {
    let blank = matches!(offload.checksum, Checksum::Partial { .. });
    Info {
        checksum_blank: blank,
        validated: blank || offload.checksum == Checksum::Valid,
        gso: offload.segmentation.map(|segmentation| Gso {
            kind: match segmentation.kind {
                SegmentationKind::Tcp4 => GsoKind::Tcp4,
                SegmentationKind::Tcp6 => GsoKind::Tcp6,
            },
            size: segmentation.size,
        }),
    }
}

/// How many bytes of a frame's start Linux's netback copies into the first part of what it passes on
/// (`XEN_NETBACK_TX_COPY_LEN`). There are network cards that want all headers of a segment there (XSA-423).
pub(super) const AT_HAND: u16 = 128;

/// What may be left to a back end about a frame. It looks for the headers itself: Linux finds TCP and UDP
/// over IP without VLAN tags, and drops frames where it does not find what it is told to complete. It also
/// passes on what is behind IPv6 extension headers, which few network cards know.
pub(super) fn abilities<B: Buffer>(frame: &Frame<B>, features: &Features) -> Abilities {
    if frame.offload.checksum == Checksum::Valid || frame.offload == Offload::default() {
        return Abilities {
            checksum: true,
            ..Abilities::default()
        };
    }
    let Some((headers, ip)) = Headers::of(frame.buffer()).and_then(|headers| Some((headers, headers.ip?)))
    else {
        return Abilities::default();
    };
    let is_v4 = ip.source.is_ipv4();
    let plain = is_v4 || ip.transport == Some(headers.network + IPV6_HEADER);
    let found = plain && headers.vlan.is_none() && headers.partial() == Some(frame.offload.checksum);
    let checksum = if is_v4 {
        features.checksum4
    } else {
        features.checksum6
    };
    let fits = frame.len() <= MAX_TX_BYTES && headers_len(frame.buffer(), &frame.offload) <= AT_HAND;
    Abilities {
        checksum: found && checksum,
        tcp4: features.gso_tcp4 && fits,
        tcp6: features.gso_tcp6 && fits,
    }
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;

    use super::*;

    struct Bytes(RefCell<Vec<u8>>);

    impl Buffer for Bytes {
        fn len(&self) -> usize {
            self.0.borrow().len()
        }
        fn read(&self, offset: usize, to: &mut [u8]) {
            to.copy_from_slice(&self.0.borrow()[offset..offset + to.len()]);
        }
        fn write(&self, offset: usize, from: &[u8]) {
            self.0.borrow_mut()[offset..offset + from.len()].copy_from_slice(from);
        }
    }

    const PARTIAL: Checksum = Checksum::Partial {
        start: 34,
        offset: 16,
    };
    const GSO: Gso = Gso {
        kind: GsoKind::Tcp4,
        size: 1000,
    };
    const BLANK: Info = Info {
        checksum_blank: true,
        validated: true,
        gso: None,
    };
    const ALL: Features = Features {
        rx_copy: true,
        scatter_gather: true,
        gso_tcp4: true,
        gso_tcp6: true,
        checksum4: true,
        checksum6: true,
        split_event_channels: true,
        multicast_control: true,
        max_queues: 1,
    };

    /// TCP over IPv4 with so much payload.
    fn tcp(payload: usize) -> Bytes {
        let mut frame = vec![0; 54 + payload];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&((40 + payload) as u16).to_be_bytes());
        frame[23] = 6;
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        frame[46] = 0x50;
        Bytes(RefCell::new(frame))
    }

    fn tagged(payload: usize) -> Bytes {
        let mut frame = tcp(payload).0.into_inner();
        frame.splice(12..12, [0x81, 0, 0, 5]);
        Bytes(RefCell::new(frame))
    }

    fn segmented(size: u16) -> Option<Segmentation> {
        Some(Segmentation {
            kind: SegmentationKind::Tcp4,
            size,
        })
    }

    #[test]
    fn plain_frames_are_not_looked_into() {
        let nonsense = || Bytes(RefCell::new(vec![0xff; 60]));
        let plain = of_received(&nonsense(), &Info::default()).unwrap();
        assert_eq!(plain, Offload::default());
        let validated = Info {
            validated: true,
            ..Info::default()
        };
        let valid = of_received(&nonsense(), &validated).unwrap();
        assert_eq!((valid.checksum, valid.segmentation), (Checksum::Valid, None));
        assert_eq!(to_info(&valid), validated);
        assert_eq!(of_received(&nonsense(), &BLANK), None);
    }

    #[test]
    fn checksums_and_segments_to_be_done() {
        let partial = of_received(&tcp(10), &BLANK).unwrap();
        assert_eq!((partial.checksum, partial.segmentation), (PARTIAL, None));
        assert_eq!(to_info(&partial), BLANK);
        let info = Info {
            gso: Some(GSO),
            ..BLANK
        };
        let large = of_received(&tcp(5000), &info).unwrap();
        assert_eq!((large.checksum, large.segmentation), (PARTIAL, segmented(1000)));
        assert_eq!(to_info(&large), info);
        // What it says of itself has to be so.
        let wrong = Info {
            gso: Some(Gso {
                kind: GsoKind::Tcp6,
                ..GSO
            }),
            ..BLANK
        };
        assert_eq!(of_received(&tcp(5000), &wrong), None);
        let short = tcp(5000);
        short.0.borrow_mut().truncate(60);
        assert_eq!(of_received(&short, &info), None);
    }

    #[test]
    fn a_large_segment_with_a_checksum_gets_that_of_its_pseudo_header() {
        let frame = tcp(5000);
        frame.write(50, &[0xab, 0xcd]);
        let info = Info {
            gso: Some(GSO),
            ..Info::default()
        };
        let offload = of_received(&frame, &info).unwrap();
        assert_eq!(offload.checksum, PARTIAL);
        // 10.0.0.1, 10.0.0.2, 6, and 5020 bytes.
        let sum: u32 = 0x0a00 + 1 + 0x0a00 + 2 + 6 + 5020;
        assert_eq!(frame.0.borrow()[50..52], (sum as u16).to_be_bytes());
    }

    #[test]
    fn what_is_left_to_the_back_end() {
        let abilities = |buffer: Bytes, checksum, segmentation, features: &Features| {
            let offload = Offload {
                checksum,
                segmentation,
            };
            let can = abilities(&Frame::new(buffer, offload, None), features);
            (can.checksum, can.tcp4)
        };
        let large = segmented(1000);
        assert_eq!(abilities(tcp(5000), PARTIAL, large, &ALL), (true, true));
        let none = Features {
            gso_tcp4: false,
            ..ALL
        };
        assert_eq!(abilities(tcp(5000), PARTIAL, large, &none), (true, false));
        let none = Features {
            checksum4: false,
            ..ALL
        };
        assert!(!abilities(tcp(10), PARTIAL, None, &none).0);
        // Linux's back end drops what it does not recognise.
        let in_vlan = Checksum::Partial {
            start: 38,
            offset: 16,
        };
        assert!(!abilities(tagged(10), in_vlan, None, &ALL).0);
        let elsewhere = Checksum::Partial { start: 40, offset: 6 };
        assert!(!abilities(tcp(10), elsewhere, None, &ALL).0);
        // Longer headers than it has at hand, and what is behind extension headers.
        let mut long = vec![0; 134 + 5000];
        long[12..23].copy_from_slice(&[8, 0, 0x4f, 0, 0x14, 0, 0, 0, 0, 0, 0]);
        long[16..18].copy_from_slice(&5120u16.to_be_bytes());
        (long[23], long[86]) = (6, 0xf0);
        let behind = Checksum::Partial {
            start: 74,
            offset: 16,
        };
        let long = || Bytes(RefCell::new(long.clone()));
        assert_eq!(abilities(long(), behind, large, &ALL), (true, false));
        let mut extended = vec![0; 54 + 8 + 20];
        extended[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 28, 60, 64]);
        (extended[54], extended[74]) = (6, 0x50);
        let behind = Checksum::Partial {
            start: 62,
            offset: 16,
        };
        let extended = Bytes(RefCell::new(extended));
        assert!(Headers::of(&extended).and_then(|headers| headers.partial()) == Some(behind));
        assert!(!abilities(extended, behind, None, &ALL).0);
        // Nothing to be done.
        assert!(abilities(tagged(10), Checksum::Valid, None, &none).0);
        assert!(abilities(tagged(10), Checksum::Unknown, None, &none).0);
    }

    #[test]
    fn what_is_longer_than_a_request_can_say_is_cut_up() {
        let mut features = ALL;
        features.checksum6 = false;
        let offload = Offload {
            checksum: PARTIAL,
            segmentation: segmented(1000),
        };
        let frame = Frame::new(tcp(65535 - 40), offload, None);
        assert!(frame.len() > MAX_TX_BYTES);
        let can = super::abilities(&frame, &features);
        assert!(can.checksum && !can.tcp4);
    }
}
