//! Shutting the domain down, by itself or when the toolstack asks for it.
//!
//! The toolstack writes what it wants to `control/shutdown`; the domain acknowledges by emptying the node,
//! then acts. Which requests it understands, it says in `control/feature-*` (Xen's
//! `docs/misc/xenstore-paths.pandoc`). `xl sysrq <domain> <letter>`, with any letter, has the domain log how
//! it uses its resources.

use alloc::string::String;
use core::time::Duration;

use xen_sys as xen;

use crate::console::{self, Patience};
use crate::xenstore::{self, Error};
use crate::{blkfront, boot, event, executor, grant, hypercall, mm, packets, stats};

const REQUEST: &str = "control/shutdown";
const REPORT_REQUEST: &str = "control/sysrq";
/// How long a domain that ends waits for its console to be read.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the domain ends (`SHUTDOWN_*` of `xen/include/public/sched.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The domain is done; xl's `on_poweroff` applies.
    Poweroff,
    /// The domain is to start again; xl's `on_reboot` applies.
    Reboot,
    /// The domain cannot go on; xl's `on_crash` applies.
    Crash,
}

/// Ends the domain now. What is to be released in an orderly way is released before.
pub fn shutdown(reason: Reason) -> ! {
    console::drain(&mut Patience::new(PATIENCE));
    hypercall::shutdown(match reason {
        Reason::Poweroff => xen::SHUTDOWN_poweroff,
        Reason::Reboot => xen::SHUTDOWN_reboot,
        Reason::Crash => xen::SHUTDOWN_crash,
    })
}

/// Says what requests are understood, and answers those for reports.
pub(crate) fn start() {
    executor::spawn(async {
        for feature in ["control/feature-poweroff", "control/feature-reboot"] {
            if let Err(error) = xenstore::write(feature, "1").await {
                log::debug!("{feature} cannot be written: {error}");
            }
        }
        if let Err(error) = answer_report_requests().await {
            log::debug!("cannot learn of sysrq requests: {error}");
        }
    })
    .detach();
}

async fn answer_report_requests() -> Result<(), Error> {
    let mut watch = xenstore::watch(REPORT_REQUEST).await?;
    loop {
        watch.next().await;
        if !take_request(REPORT_REQUEST).await?.is_empty() {
            log_report();
        }
    }
}

/// Logs what the domain uses, and what it has done since it started: the counters of [`stats`].
pub fn log_report() {
    let (memory, grants) = (mm::usage(), grant::usage());
    log::info!(
        "memory: {} KiB, {} KiB free, heap {} KiB, {} bytes of it used, {} KiB for payload, {} KiB kept for frames, {} KiB of foreign pages",
        memory.total >> 10,
        memory.free >> 10,
        memory.heap >> 10,
        memory.heap_used,
        (blkfront::payload_pages() * mm::PAGE_SIZE) >> 10,
        (packets::kept_pages() * mm::PAGE_SIZE) >> 10,
        memory.window_used >> 10
    );
    log::info!(
        "grants: {} of {}; event channels: {}; stack: {} of {} bytes used at most",
        grants.used,
        grants.limit,
        event::open_channels(),
        boot::stack_used(),
        boot::STACK
    );
    log::info!("counters: {}", stats::snapshot());
}

/// Waits until the toolstack wants the domain to end, and acknowledges that; the caller then ends it.
/// Requests that make no sense here, such as to suspend, are acknowledged, logged and left.
///
/// If xenstore fails, nothing will ever be asked: then this waits forever.
pub async fn wait_for_shutdown() -> Reason {
    match next_request().await {
        Ok(reason) => reason,
        Err(error) => {
            log::error!("cannot learn of shutdown requests: {error}");
            core::future::pending().await
        }
    }
}

async fn next_request() -> Result<Reason, Error> {
    let mut watch = xenstore::watch(REQUEST).await?;
    loop {
        watch.next().await;
        let request = take_request(REQUEST).await?;
        match request.as_str() {
            "" => {}
            "poweroff" | "halt" => return Ok(Reason::Poweroff),
            "reboot" => return Ok(Reason::Reboot),
            other => log::warn!("asked to {}: not supported", protocols::text::printable(other)),
        }
    }
}

/// Reads the request and acknowledges it, in one step, so that none is lost.
async fn take_request(node: &str) -> Result<String, Error> {
    xenstore::transaction(async |transaction| {
        let request = match transaction.read(node).await {
            Err(Error::NoEntry) => String::new(),
            request => request?,
        };
        if !request.is_empty() {
            transaction.write(node, "").await?;
        }
        Ok(request)
    })
    .await
}
