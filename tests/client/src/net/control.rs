//! Commands in bad faith, and commands that cannot be answered.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use devices::net::features as net;
use kernel::grant::{Access, Granted};

use super::packet::Place;
use super::raw::{RawNic, SIZE, max_pairs};
use crate::device::{Device, features};
use crate::ensure;
use crate::hal::address;
use crate::hostile::ungranted;
use crate::number;
use crate::random::Random;
use crate::raw::{Descriptor, RawQueue, flag, place};
use crate::report::Outcome;

/// The scenarios of this group.
pub const NAMES: &[&str] = &[
    "control-commands",
    "control-refused",
    "control-random",
    "control-tables",
    "control-pairs",
    "control-not-negotiated",
    "control-byte-by-byte",
    "control-huge",
    "control-no-ack",
    "control-ungranted",
    "control-ack-ungranted",
    "control-ack-read-only",
    "control-order",
    "control-avail-jump",
];

const FEATURES: u64 = net::CTRL_VQ
    | net::CTRL_RX
    | net::CTRL_RX_EXTRA
    | net::CTRL_VLAN
    | net::CTRL_MAC_ADDR
    | net::GUEST_CSUM
    | net::CTRL_GUEST_OFFLOADS
    | net::STATUS
    | net::GUEST_ANNOUNCE
    | features::INDIRECT_DESC;

/// VIRTIO_NET_OK and VIRTIO_NET_ERR.
const OK: u8 = 0;
const ERR: u8 = 1;
/// No device writes this: what the acknowledgement is before the command.
const NOT_YET: u8 = 0xaa;

/// Commands as class, command and data that a device obeys, and that leave it able to receive what a ping
/// needs.
const GOOD: &[&[u8]] = &[
    &[0, 0, 1],
    &[0, 1, 1],
    &[0, 1, 0],
    &[0, 2, 1],
    &[0, 3, 1],
    &[2, 0, 5, 0],
    &[2, 0, 0xff, 0xf],
    &[2, 1, 5, 0],
    &[3, 0],
    &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
];

/// Commands that a device refuses.
const BAD: &[&[u8]] = &[
    &[],
    &[0],
    &[1],
    &[0, 0],
    &[0, 0, 2],
    &[0, 0, 1, 1],
    &[0, 6, 1],
    &[0, 0xff, 1],
    &[1, 0],
    &[1, 0, 0, 0, 0, 0],
    &[1, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    // Tables of 65535 entries and of 2^32 - 1, of which there are none.
    &[1, 0, 0xff, 0xff, 0, 0, 2, 0, 0, 0, 0, 1],
    &[1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[1, 0, 0, 0, 0, 0, 0xab, 0xaa, 0xaa, 0xaa],
    &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    // A group address, none at all, and wrong lengths.
    &[1, 1, 1, 2, 3, 4, 5, 6],
    &[1, 1, 0, 0, 0, 0, 0, 0],
    &[1, 1, 2, 0, 0, 0, 0],
    &[1, 1, 2, 0, 0, 0, 0, 0, 0],
    &[1, 2, 2, 0, 0, 0, 0, 0],
    &[2, 0, 0, 0x10],
    &[2, 0, 0xff, 0xff],
    &[2, 1, 0],
    &[2, 2, 0, 0],
    &[3, 1],
    // Pairs of queues: none, too many, and more than was negotiated.
    &[4, 0, 0, 0],
    &[4, 0, 0xff, 0xff],
    &[4, 0, 2, 0],
    &[4, 1, 1, 0],
    &[4, 0, 1],
    &[5, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[5, 0, 0x80, 0, 0, 0, 0, 0, 0, 0],
    &[5, 0, 0],
    &[5, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    &[6, 0],
    &[0xff, 0xff, 0xff, 0xff],
];

/// Gives the device a chain of these parts, after which there is room for an acknowledgement.
fn offer(queue: &mut RawQueue, parts: &[Descriptor]) {
    queue.data().write_u8(place::STATUS, NOT_YET);
    queue.chain(0, parts);
    queue.offer(0);
    queue.kick();
}

/// Waits for the acknowledgement.
async fn acknowledged(queue: &mut RawQueue) -> Outcome<u8> {
    let used = queue.used().await?;
    ensure!(used.len == 1, "{} bytes are said to be written", used.len);
    let ack = queue.data().read_u8(place::STATUS);
    ensure!(ack == OK || ack == ERR, "the acknowledgement is {ack:#x}");
    Ok(ack)
}

/// Gives a command, and waits for its acknowledgement.
async fn command(queue: &mut RawQueue, bytes: &[u8]) -> Outcome<u8> {
    queue.data().copy_in(place::DATA, bytes);
    let parts = [
        queue.readable(place::DATA, bytes.len() as u32),
        queue.status_part(),
    ];
    offer(queue, if bytes.is_empty() { &parts[1..] } else { &parts });
    acknowledged(queue).await
}

async fn expect(queue: &mut RawQueue, bytes: &[u8], expected: u8) -> Outcome {
    let ack = command(queue, bytes).await?;
    ensure!(
        ack == expected,
        "the command {:02x?} of {} bytes is acknowledged with {ack}",
        &bytes[..bytes.len().min(16)],
        bytes.len()
    );
    Ok(())
}

/// The command that sets the tables of addresses to so many of each kind.
fn tables(unicast: u32, multicast: u32) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    for (count, first) in [(unicast, 2), (multicast, 1)] {
        bytes.extend_from_slice(&count.to_le_bytes());
        for number in 0..count {
            bytes.extend_from_slice(&[first, 0]);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
    }
    bytes
}

/// Runs a scenario on a fresh device.
pub async fn run(device: &Rc<Device>, place: &Place, name: &str) -> Outcome {
    let features = match name {
        "control-not-negotiated" => net::CTRL_VQ,
        "control-pairs" => net::CTRL_VQ | device.features()? & net::MQ,
        _ => FEATURES,
    };
    let mut nic = RawNic::new(device, features)?;
    let queue = nic.control.as_mut().ok_or("there is no control queue")?;
    let breaks = match name {
        "control-commands" => {
            for bytes in GOOD {
                expect(queue, bytes, OK).await?;
            }
            false
        }
        "control-refused" => {
            for bytes in BAD {
                expect(queue, bytes, ERR).await?;
            }
            false
        }
        "control-not-negotiated" => {
            for bytes in GOOD {
                expect(queue, bytes, ERR).await?;
            }
            false
        }
        "control-random" => {
            random(queue).await?;
            // Whoever knows what it receives now.
            return nic.finish();
        }
        "control-tables" => {
            for (unicast, multicast) in [(1, 1), (64, 64), (65, 0), (0, 65), (1000, 1000)] {
                expect(queue, &tables(unicast, multicast), OK).await?;
            }
            // More than anybody reads; and then nobody is filtered out.
            expect(queue, &tables(5000, 5000), ERR).await?;
            expect(queue, &tables(0, 0), OK).await?;
            false
        }
        "control-pairs" => {
            // Without the feature, any number is refused.
            let max = if features & net::MQ != 0 {
                max_pairs(device)?
            } else {
                0
            };
            for pairs in [0, u16::MAX, max + 1, 0x8000, max, 1] {
                let expected = if (1..=max).contains(&pairs) { OK } else { ERR };
                let [low, high] = pairs.to_le_bytes();
                expect(queue, &[4, 0, low, high], expected).await?;
            }
            false
        }
        "control-byte-by-byte" => {
            queue.data().copy_in(place::DATA, &tables(2, 2));
            let len = tables(2, 2).len();
            let mut parts: Vec<Descriptor> = (0..len).map(|at| queue.readable(place::DATA + at, 1)).collect();
            parts.push(queue.status_part());
            offer(queue, &parts);
            let ack = acknowledged(queue).await?;
            ensure!(ack == OK, "tables in single bytes are acknowledged with {ack}");
            false
        }
        "control-huge" => {
            for len in [16 << 10 | 1, 1 << 16, u32::MAX] {
                let parts = [queue.readable(place::DATA, len), queue.status_part()];
                offer(queue, &parts);
                let ack = acknowledged(queue).await?;
                ensure!(ack == ERR, "{len} bytes are acknowledged with {ack}");
            }
            false
        }
        _ => true,
    };
    if !breaks {
        nic.expect_service(place).await?;
        return nic.finish();
    }
    // What some scenarios grant has to last until they are over.
    let page = Granted::zeroed(device.connection().peer(), 1, Access::ReadOnly)
        .map_err(|error| alloc::format!("{error}"))?;
    break_queue(queue, name, address(&page, 0))?;
    queue.expect_needs_reset().await?;
    nic.finish()?;
    page.end()
        .map(drop)
        .map_err(|_| "a page is still in use after the reset".into())
}

/// Offers what cannot be acknowledged, or not be read.
fn break_queue(queue: &mut RawQueue, name: &str, read_only: u64) -> Outcome {
    queue.data().copy_in(place::DATA, GOOD[0]);
    let (bytes, ack) = (queue.readable(place::DATA, 3), queue.status_part());
    let nowhere = |part: Descriptor| Descriptor {
        address: ungranted(),
        ..part
    };
    let unwritable = Descriptor {
        address: read_only,
        ..ack
    };
    match name {
        "control-no-ack" => offer(queue, &[bytes]),
        "control-ungranted" => offer(queue, &[nowhere(bytes), ack]),
        "control-ack-ungranted" => offer(queue, &[bytes, nowhere(ack)]),
        "control-ack-read-only" => offer(queue, &[bytes, unwritable]),
        "control-order" => offer(
            queue,
            &[
                Descriptor {
                    flags: flag::WRITE,
                    ..ack
                },
                bytes,
            ],
        ),
        "control-avail-jump" => {
            queue.show(queue.available().wrapping_add(SIZE + 1));
            queue.kick();
        }
        _ => return Err("not a scenario".into()),
    }
    Ok(())
}

/// Commands of random classes and lengths, some of which are good.
async fn random(queue: &mut RawQueue) -> Outcome {
    let mut random = Random::new(number("seed", 1)?);
    for _ in 0..1000 {
        let len = 2 + random.below(20) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        bytes[0] = random.below(7) as u8;
        bytes[1] = random.below(6) as u8;
        if random.below(3) == 0 {
            // As many switches of the receive mode have it.
            bytes.resize(3, 0);
            bytes[2] &= 1;
        }
        command(queue, &bytes).await?;
    }
    Ok(())
}
