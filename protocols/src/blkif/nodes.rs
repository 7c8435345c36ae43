//! What a back end says about itself in xenstore (xen/include/public/io/blkif.h, "Backend XenBus Nodes").
//!
//! Every node is checked: whoever can write them can at most make a disk that does not connect.

pub use crate::nodes::BadNode;
use crate::nodes::number;

/// Bytes of a sector, the unit of `sectors` and of every position on the ring, whatever `sector-size` says.
const SECTOR: u32 = 512;

/// `info`: the disk takes no writes.
const INFO_READ_ONLY: u32 = 4;

/// A disk larger than this many sectors (8 EiB) is not believed: positions in bytes stay within 63 bits.
const MAX_SECTORS: u64 = 1 << 54;

/// What the back end can do to make the disk's writes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushSupport {
    /// There is nothing to flush: a completed write is as durable as it gets.
    None,
    /// Empty write barriers, by back ends that know no flush.
    Barrier,
    /// Flush requests.
    Flush,
}

/// What may be discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardSupport {
    /// The granularity in sectors, at least a block.
    pub granularity: u32,
    /// Where the first granule begins, in sectors, less than the granularity.
    pub alignment: u32,
}

/// What the ring may be like, published before the front end connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The largest ring, as a power of two of pages: 0 to 4.
    pub ring_page_order: u32,
    /// Segments of one indirect request, or 0 without indirect requests.
    pub indirect_segments: u16,
}

/// The disk behind a connected back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Capacity, in sectors.
    pub sectors: u64,
    /// Logical block size in bytes: a power of two, 512 to 4096.
    pub block_size: u32,
    /// Physical block size in bytes: a power of two, at least `block_size`.
    pub physical_block_size: u32,
    /// No writes.
    pub read_only: bool,
    /// How to flush.
    pub flush: FlushSupport,
    /// Whether and what to discard.
    pub discard: Option<DiscardSupport>,
    /// The back end keeps granted pages mapped.
    pub persistent: bool,
}

impl Transport {
    /// The nodes that [`parse`](Self::parse) asks for.
    pub const KEYS: &[&str] = &["max-ring-page-order", "feature-max-indirect-segments"];

    /// Reads the nodes through `get`, which returns what a node of the back end holds.
    pub fn parse<S: AsRef<str>>(get: impl Fn(&str) -> Option<S>) -> Result<Self, BadNode> {
        let order = number(&get, "max-ring-page-order")?.unwrap_or(0);
        let indirect = number(&get, "feature-max-indirect-segments")?.unwrap_or(0);
        Ok(Self {
            ring_page_order: order.min(4) as u32,
            indirect_segments: indirect.min(super::wire::SEGMENTS_PER_PAGE as u64) as u16,
        })
    }
}

impl Properties {
    /// The nodes that [`parse`](Self::parse) asks for.
    pub const KEYS: &[&str] = &[
        "sectors",
        "sector-size",
        "physical-sector-size",
        "info",
        "mode",
        "feature-flush-cache",
        "feature-barrier",
        "feature-discard",
        "discard-granularity",
        "discard-alignment",
        "feature-persistent",
    ];

    /// Reads the nodes through `get`, which returns what a node of the back end holds.
    pub fn parse<S: AsRef<str>>(get: impl Fn(&str) -> Option<S>) -> Result<Self, BadNode> {
        let block_size = number(&get, "sector-size")?.unwrap_or(SECTOR.into());
        if !block_size.is_power_of_two() || !(512..=4096).contains(&block_size) {
            return Err(BadNode("sector-size"));
        }
        let block_size = block_size as u32;
        let sectors = number(&get, "sectors")?
            .filter(|&it| it <= MAX_SECTORS)
            .ok_or(BadNode("sectors"))?;
        let block_sectors = u64::from(block_size / SECTOR);
        let info = number(&get, "info")?.unwrap_or(0) as u32;
        let mode = get("mode");
        let flag = |key| Ok(number(&get, key)?.unwrap_or(0) == 1);
        Ok(Self {
            // A trailing part of a block cannot be reached.
            sectors: sectors - sectors % block_sectors,
            block_size,
            physical_block_size: physical_block_size(&get, block_size),
            read_only: info & INFO_READ_ONLY != 0 || mode.is_some_and(|it| !it.as_ref().contains('w')),
            flush: match (flag("feature-flush-cache")?, flag("feature-barrier")?) {
                (true, _) => FlushSupport::Flush,
                (false, true) => FlushSupport::Barrier,
                (false, false) => FlushSupport::None,
            },
            discard: if flag("feature-discard")? {
                discard(&get, block_size)
            } else {
                None
            },
            persistent: flag("feature-persistent")?,
        })
    }
}

/// A hint, so nonsense counts as absent.
fn physical_block_size<S: AsRef<str>>(get: impl Fn(&str) -> Option<S>, block_size: u32) -> u32 {
    match number(get, "physical-sector-size") {
        Ok(Some(size)) if size.is_power_of_two() && (block_size.into()..=1 << 30).contains(&size) => {
            size as u32
        }
        _ => block_size,
    }
}

/// The nodes are in bytes. Discarding is a hint, so with nonsense in them there is none.
fn discard<S: AsRef<str>>(get: impl Fn(&str) -> Option<S>, block_size: u32) -> Option<DiscardSupport> {
    let in_blocks = |key| {
        let bytes = u32::try_from(number(&get, key).ok()?.unwrap_or(0)).ok()?;
        (bytes % block_size == 0).then_some(bytes)
    };
    // Linux publishes a granularity of 0 for devices that do not say.
    let granularity = in_blocks("discard-granularity")?.max(block_size);
    let alignment = in_blocks("discard-alignment")? % granularity;
    Some(DiscardSupport {
        granularity: granularity / SECTOR,
        alignment: alignment / SECTOR,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(nodes: &[(&str, &str)]) -> Result<Properties, BadNode> {
        Properties::parse(|key| nodes.iter().rev().find(|node| node.0 == key).map(|node| node.1))
    }

    /// As Linux 6.12 publishes a loop device.
    const LINUX: &[(&str, &str)] = &[
        ("feature-flush-cache", "1"),
        ("feature-barrier", "1"),
        ("discard-granularity", "4096"),
        ("discard-alignment", "0"),
        ("discard-secure", "0"),
        ("feature-discard", "1"),
        ("feature-persistent", "1"),
        ("sectors", "131072"),
        ("info", "0"),
        ("mode", "w"),
        ("sector-size", "512"),
        ("physical-sector-size", "512"),
    ];

    fn with(more: &[(&'static str, &'static str)]) -> Result<Properties, BadNode> {
        parse(&[LINUX, more].concat())
    }

    #[test]
    fn linux() {
        let expected = Properties {
            sectors: 131072,
            block_size: 512,
            physical_block_size: 512,
            read_only: false,
            flush: FlushSupport::Flush,
            discard: Some(DiscardSupport {
                granularity: 8,
                alignment: 0,
            }),
            persistent: true,
        };
        assert_eq!(parse(LINUX), Ok(expected));
    }

    #[test]
    fn least() {
        let disk = parse(&[("sectors", "8")]).unwrap();
        assert_eq!(
            (disk.block_size, disk.physical_block_size, disk.flush),
            (512, 512, FlushSupport::None)
        );
        assert!(!disk.read_only && disk.discard.is_none() && !disk.persistent);
    }

    #[test]
    fn read_only_either_way() {
        assert!(with(&[("info", "4")]).unwrap().read_only);
        assert!(with(&[("mode", "r")]).unwrap().read_only);
    }

    #[test]
    fn large_blocks() {
        let disk = with(&[("sector-size", "4096"), ("sectors", "17")]).unwrap();
        assert_eq!((disk.sectors, disk.physical_block_size), (16, 4096));
    }

    #[test]
    fn barrier_only() {
        assert_eq!(
            with(&[("feature-flush-cache", "0")]).unwrap().flush,
            FlushSupport::Barrier
        );
    }

    #[test]
    fn discard_granules() {
        let discard = |granularity, alignment| {
            with(&[
                ("discard-granularity", granularity),
                ("discard-alignment", alignment),
            ])
            .unwrap()
            .discard
        };
        assert_eq!(
            discard("0", "0"),
            Some(DiscardSupport {
                granularity: 1,
                alignment: 0
            })
        );
        assert_eq!(
            discard("8192", "12288"),
            Some(DiscardSupport {
                granularity: 16,
                alignment: 8
            })
        );
        assert_eq!(discard("1000", "0"), None);
        assert_eq!(discard("4096", "7"), None);
        assert_eq!(discard("many", "0"), None);
    }

    #[test]
    fn bad_nodes() {
        for (key, value) in [
            ("sectors", ""),
            ("sectors", "-1"),
            ("sectors", "18446744073709551616"),
            ("sectors", "18446744073709551615"),
            ("sector-size", "0"),
            ("sector-size", "513"),
            ("sector-size", "8192"),
            ("info", "x"),
        ] {
            assert_eq!(with(&[(key, value)]), Err(BadNode(key)), "{key}={value}");
        }
        assert_eq!(parse(&[]), Err(BadNode("sectors")));
    }

    #[test]
    fn transport() {
        let parse = |order, segments| {
            Transport::parse(|key| {
                Some(if key == "max-ring-page-order" {
                    order
                } else {
                    segments
                })
            })
            .unwrap()
        };
        assert_eq!(
            parse("4", "256"),
            Transport {
                ring_page_order: 4,
                indirect_segments: 256
            }
        );
        assert_eq!(
            parse("9", "99999999"),
            Transport {
                ring_page_order: 4,
                indirect_segments: 512
            }
        );
        let none = Transport::parse(|_| None::<&str>).unwrap();
        assert_eq!(
            none,
            Transport {
                ring_page_order: 0,
                indirect_segments: 0
            }
        );
    }

    proptest! {
        #[test]
        fn never_panics(values in prop::collection::vec("[0-9]{0,12}|[a-z ]{0,3}", Properties::KEYS.len())) {
            let nodes: Vec<_> = Properties::KEYS.iter().copied().zip(values.iter().map(String::as_str)).collect();
            if let Ok(disk) = parse(&nodes) {
                prop_assert!(disk.physical_block_size >= disk.block_size);
                if let Some(discard) = disk.discard {
                    prop_assert!(discard.granularity > 0 && discard.alignment < discard.granularity);
                }
            }
        }
    }
}
