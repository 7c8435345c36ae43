//! Each thing that a host on the network does, once.

use alloc::format;
use alloc::rc::Rc;

use devices::net::features as net;

use super::host::Host;
use super::nic::MTU;
use super::packet::{IPV4, Place};
use super::raw::RawNic;
use crate::device::{Device, features};
use crate::ensure;
use crate::frontend::Frontend;
use crate::hostile::leave;
use crate::number;
use crate::raw::Abandoned;
use crate::report::{Outcome, Report};

/// Bytes of an ICMP echo header.
const ECHO: usize = 8;

/// A question for the address of "a.test", with the identifier 0x1234, and recursion desired.
const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01";

/// Connects, runs all checks, and leaves.
pub async fn run(report: &mut Report, frontend: &Frontend) -> Outcome {
    let metrics = number("metrics", 9100)? as u16;
    let Some(device) = report.step("net.connect", frontend.connect()).await else {
        return Ok(());
    };
    let device = Rc::new(device);
    report.check("net.info", info(&device)).await;
    report.check("net.config", config(&device)).await;
    let mut host = Host::new(&device, false)?;
    if !report.check("net.lease", lease(&mut host)).await {
        return Ok(());
    }
    report.check("net.ping", pings(&mut host)).await;
    report.check("net.name", name(&mut host)).await;
    report.check("net.http", http(&mut host, metrics)).await;
    let place = host.place();
    report.add("net.finish", host.finish());
    report.check("net.reset", again(&device, place, false)).await;
    report.check("net.queue-reset", again(&device, place, true)).await;
    let left = leave(frontend, device).await;
    if !report.add("net.disconnect", left) {
        return Ok(());
    }
    report.check("net.reconnect", reconnect(frontend, place)).await;
    report
        .check("net.shut-down-without-reset", without_reset(frontend, place))
        .await;
    Ok(())
}

async fn info(device: &Device) -> Outcome {
    let info = device.info()?;
    ensure!(info.device_type.get() == 1, "not a network device: {info:?}");
    ensure!(
        info.max_queues.get() >= 3 && info.config_size.get() >= 12,
        "{info:?}"
    );
    let offered = device.features()?;
    let needed = features::VERSION_1
        | features::ACCESS_PLATFORM
        | features::INDIRECT_DESC
        | features::EVENT_IDX
        | features::RING_RESET
        | net::MAC
        | net::STATUS
        | net::MTU
        | net::CSUM
        | net::GUEST_CSUM
        | net::HOST_TSO4
        | net::GUEST_TSO4
        | net::MRG_RXBUF
        | net::CTRL_VQ;
    ensure!(
        offered & needed == needed,
        "features {offered:#x} lack {:#x}",
        needed & !offered
    );
    Ok(())
}

async fn config(device: &Device) -> Outcome {
    let size = device.info()?.config_size.get();
    let (generation, all) = device.config(0, size)?;
    ensure!(
        all.len() == size as usize && all.len() >= 12,
        "GET_CONFIG of {size} bytes gives {}",
        all.len()
    );
    ensure!(
        all[0] & 1 == 0 && all[..6] != [0; 6],
        "the address is {:02x?}",
        &all[..6]
    );
    let field = |at: usize| u16::from_le_bytes([all[at], all[at + 1]]);
    let (status, mtu) = (field(6), field(10));
    ensure!(status & 1 != 0, "the link is down: status {status:#x}");
    ensure!(usize::from(mtu) >= MTU, "the MTU is {mtu}");
    let (_, beyond) = device.config(size, 1)?;
    ensure!(beyond.is_empty(), "GET_CONFIG beyond the end gives bytes");
    let taken = device.set_config(generation, 0, &[2; 6])?;
    ensure!(!taken, "the address can be written");
    Ok(())
}

async fn lease(host: &mut Host) -> Outcome {
    let place = host.lease().await?;
    log::info!("{place:?}");
    ensure!(!place.address.is_unspecified(), "an empty lease");
    Ok(())
}

async fn pings(host: &mut Host) -> Outcome {
    let largest = MTU - IPV4 - ECHO;
    let sizes = (0..70)
        .chain((70..largest).step_by(97))
        .chain(largest - 3..=largest);
    for (sequence, len) in (1..).zip(sizes) {
        host.ping(sequence, len).await?;
    }
    Ok(())
}

/// Whether or not there is anybody to ask: the gateway answers the question.
async fn name(host: &mut Host) -> Outcome {
    let answer = host.ask_name_server(QUESTION).await?;
    ensure!(
        answer.len() >= 12 && answer[..2] == QUESTION[..2] && answer[2] & 0x80 != 0,
        "the answer is {answer:02x?}"
    );
    Ok(())
}

async fn http(host: &mut Host, port: u16) -> Outcome {
    for _ in 0..3 {
        let response = host.get(port, "/metrics").await?;
        ensure!(
            response.starts_with("HTTP/1.1 200 ") && response.contains("\nvirtio_stubdom_"),
            "/metrics: {:.200}",
            response
        );
    }
    let response = host.get(port, "/").await?;
    ensure!(response.starts_with("HTTP/1.1 404 "), "/: {:.200}", response);
    Ok(())
}

/// Sets the device up and ends its use, a few times; the queues by themselves first, if that is wanted.
async fn again(device: &Rc<Device>, place: Place, ring_reset: bool) -> Outcome {
    for sequence in 1000..1005 {
        let mut host = Host::at(device, ring_reset, place).await?;
        host.ping(sequence, 1000).await?;
        host.finish()?;
    }
    Ok(())
}

/// Connects and leaves a few times.
async fn reconnect(frontend: &Frontend, place: Place) -> Outcome {
    for round in 0..5 {
        let failed = |error| format!("round {round}: {error}");
        let device = Rc::new(frontend.connect().await.map_err(failed)?);
        let mut host = Host::at(&device, false, place).await?;
        host.ping(round, 100).await.map_err(failed)?;
        host.finish()?;
        leave(frontend, device).await.map_err(failed)?;
    }
    Ok(())
}

/// Leaves as a guest that shuts down does, with queues running and buffers in them.
async fn without_reset(frontend: &Frontend, place: Place) -> Outcome {
    let device = Rc::new(frontend.connect().await?);
    let mut nic = RawNic::new(&device, 0)?;
    nic.expect_service(&place).await?;
    nic.send(&[], &place.arp_request());
    let pages = nic.abandon();
    let device = Rc::into_inner(device).ok_or("the device is still in use")?;
    frontend.close(device.into_connection()).await?;
    pages.into_iter().try_for_each(Abandoned::released)
}
