//! Traffic in bad faith: as much as the device takes, of what is most trouble to others.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::time::Duration;

use kernel::time;
use smoltcp::wire::{EthernetAddress, EthernetProtocol};

use super::headers::Header;
use super::host::Host;
use super::packet::Place;
use super::raw::{OFFLOADS, RawNic, SLOTS};
use crate::device::Device;
use crate::frontend::Frontend;
use crate::hostile::leave;
use crate::number;
use crate::random::Random;
use crate::report::{Outcome, Report};

/// Floods for `seconds=`, each kind in turn; afterwards the gateway answers.
pub async fn run(report: &mut Report, frontend: &Frontend) -> Outcome {
    let seconds = number("seconds", 30)?;
    let device = Rc::new(frontend.connect().await?);
    let mut host = Host::new(&device, false)?;
    let place = host.lease().await?;
    host.finish()?;
    let flooding = flood(&device, &place, Duration::from_secs(seconds));
    report.check(&format!("net-flood.{seconds}s"), flooding).await;
    report
        .check("net-flood.afterwards", async {
            let mut host = Host::at(&device, false, place).await?;
            host.ping(1, 1000).await?;
            host.finish()
        })
        .await;
    report.add("net-flood.disconnect", leave(frontend, device).await);
    Ok(())
}

async fn flood(device: &Rc<Device>, place: &Place, limit: Duration) -> Outcome {
    let mut random = Random::new(number("seed", 1)?);
    let mut nic = RawNic::new(device, OFFLOADS)?;
    let deadline = time::now() + limit;
    let mut frames = 0_u64;
    for round in 0.. {
        if (deadline - time::now()).is_zero() {
            break;
        }
        if round % 6 == 5 {
            let segment = place.tcp_segment(&[0x55; 60_000]);
            nic.send(
                &Header::segmented(1 + random.below(1448) as u16).bytes(),
                &segment,
            );
            frames += 1;
        } else {
            for slot in 0..SLOTS {
                let part = nic.store(slot, &[], &frame(place, round % 6, &mut random));
                nic.offer(slot, &[part]);
            }
            frames += u64::from(SLOTS);
        }
        nic.sent().await?;
    }
    log::info!("{frames} frames in {limit:?}");
    nic.finish()
}

/// One frame of a kind.
fn frame(place: &Place, kind: u64, random: &mut Random) -> Vec<u8> {
    let mut anybody = || {
        let [a, b, c, d, ..] = random.next().to_le_bytes();
        EthernetAddress([2, 0, a, b, c, d])
    };
    match kind {
        0 => place.arp_request(),
        1 => place.frame(EthernetAddress::BROADCAST, EthernetProtocol::Unknown(0x88b5), 0),
        2 => place.frame(anybody(), EthernetProtocol::Unknown(0x88b5), 46),
        3 => {
            let mac = anybody();
            Place { mac, ..*place }.arp_request()
        }
        _ => place.echo_request(1, &[0; 1400]),
    }
}
