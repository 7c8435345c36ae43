//! What a driver in bad faith does, and whether the back end reacts as section 8 of the specification says.
//!
//! Each scenario is one check: a fresh connection works, the reaction comes, nothing stays granted, and where
//! the connection goes on the device works again after a reset. That a fresh connection works after the last
//! scenario is a check of its own.

mod messages;
mod nodes;
mod queue;
mod setup;

use alloc::format;
use alloc::rc::Rc;
use core::time::Duration;

use kernel::{grant, time};
use protocols::grant_address::GrantAddress;

use crate::device::Device;
use crate::ensure;
use crate::frontend::Frontend;
use crate::raw::RawQueue;
use crate::report::{Outcome, Report};

/// A reference that this domain never grants: the table is filled from its start.
const UNGRANTED: u32 = 32000;

/// The DMA address of a page that is not granted.
pub fn ungranted() -> u64 {
    GrantAddress {
        reference: UNGRANTED,
        offset: 0,
    }
    .encode()
}

/// Runs the scenario of that name, or all.
pub async fn run(report: &mut Report, frontend: &Frontend, wanted: Option<&str>) -> Outcome {
    // The first use of the grant table takes references for good: what is in use is counted after it.
    fresh(frontend).await?;
    let grants = grant::usage().used;
    let groups = [queue::NAMES, messages::NAMES, setup::NAMES, nodes::NAMES];
    let names = groups.into_iter().flatten().copied();
    let mut found = false;
    for name in names.filter(|name| wanted.is_none_or(|wanted| *name == wanted)) {
        found = true;
        let passed = report
            .check(&format!("hostile.{name}"), scenario(frontend, name, grants))
            .await;
        if !passed {
            frontend.start_over().await?;
            // Pages that the back end had let go of late leave quarantine; later scenarios count grants.
            time::sleep(Duration::from_secs(2)).await;
        }
    }
    report.check("hostile.afterwards", fresh(frontend)).await;
    ensure!(
        found,
        "test=hostile.{}: there is no such scenario",
        wanted.unwrap_or_default()
    );
    Ok(())
}

/// Runs a scenario, after which this domain is to have as many grants as `grants`.
async fn scenario(frontend: &Frontend, name: &'static str, grants: usize) -> Outcome {
    let on_queue = queue::NAMES.contains(&name);
    if on_queue || setup::NAMES.contains(&name) {
        let device = Rc::new(frontend.connect().await?);
        if on_queue {
            queue::run(&device, name).await?;
        } else {
            setup::run(&device, name)?;
        }
        serves(&device)
            .await
            .map_err(|error| format!("on the same connection, afterwards: {error}"))?;
        leave(frontend, device).await?;
    } else if messages::NAMES.contains(&name) {
        messages::run(frontend, name).await?;
    } else {
        nodes::run(frontend, name).await?;
    }
    let after = grant::usage().used;
    ensure!(after == grants, "{grants} grants before, {after} after");
    Ok(())
}

/// Connects, has a request served, and disconnects.
async fn fresh(frontend: &Frontend) -> Outcome {
    let device = Rc::new(frontend.connect().await?);
    serves(&device).await?;
    leave(frontend, device).await
}

/// Fails unless the device, after a reset, serves a request.
async fn serves(device: &Rc<Device>) -> Outcome {
    let mut queue = RawQueue::new(device, 8, 0)?;
    queue.expect_service().await?;
    queue.finish()
}

/// Disconnects in good order.
pub async fn leave(frontend: &Frontend, device: Rc<Device>) -> Outcome {
    let device = Rc::into_inner(device).ok_or("the device is still in use")?;
    frontend.disconnect(device).await
}
