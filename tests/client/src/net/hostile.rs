//! What a driver of a network device does in bad faith.
//!
//! Each scenario is one check: what is bad harms nobody but the driver, nothing stays granted, and the device
//! works again after a reset.

use alloc::format;
use alloc::rc::Rc;
use core::time::Duration;

use kernel::{grant, time};

use super::host::Host;
use super::packet::Place;
use super::{chains, control, headers};
use crate::device::Device;
use crate::ensure;
use crate::frontend::Frontend;
use crate::hostile::leave;
use crate::report::{Outcome, Report};

/// Runs the scenario of that name, or all.
pub async fn run(report: &mut Report, frontend: &Frontend, wanted: Option<&str>) -> Outcome {
    let device = Rc::new(frontend.connect().await?);
    let mut host = Host::new(&device, false)?;
    let place = host.lease().await?;
    host.finish()?;
    leave(frontend, device).await?;
    let grants = grant::usage().used;
    let names = [headers::NAMES, chains::NAMES, control::NAMES];
    let names = names.into_iter().flatten().copied();
    let mut found = false;
    for name in names.filter(|name| wanted.is_none_or(|wanted| *name == wanted)) {
        found = true;
        let test = scenario(frontend, &place, name, grants);
        if !report.check(&format!("net-hostile.{name}"), test).await {
            frontend.start_over().await?;
            // Pages that the back end had let go of late leave quarantine; later scenarios count grants.
            time::sleep(Duration::from_secs(2)).await;
        }
    }
    ensure!(
        found,
        "test=net-hostile.{}: there is no such scenario",
        wanted.unwrap_or_default()
    );
    Ok(())
}

/// Runs a scenario, after which this domain is to have as many grants as `grants`.
async fn scenario(frontend: &Frontend, place: &Place, name: &'static str, grants: usize) -> Outcome {
    let device = Rc::new(frontend.connect().await?);
    if headers::NAMES.contains(&name) {
        headers::run(&device, place, name).await?;
    } else if chains::NAMES.contains(&name) {
        chains::run(&device, place, name).await?;
    } else {
        control::run(&device, place, name).await?;
    }
    works(&device, place)
        .await
        .map_err(|error| format!("on the same connection, afterwards: {error}"))?;
    leave(frontend, device).await?;
    let after = grant::usage().used;
    ensure!(after == grants, "{grants} grants before, {after} after");
    Ok(())
}

/// Fails unless the device, after a reset, reaches the gateway.
async fn works(device: &Rc<Device>, place: &Place) -> Outcome {
    let mut host = Host::at(device, false, *place).await?;
    host.ping(1, 1000).await?;
    host.finish()
}
