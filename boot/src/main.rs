//! The driver domain: which client gets which uplink.
#![no_std]
#![no_main]

extern crate alloc;

mod clients;
mod disks;
mod lookout;
mod network;
mod publish;
mod uplinks;

use alloc::{rc::Rc, string::String};

use boot::{
    claims::Claims,
    config::Config,
    statistics::{Statistics, Subject},
};
use kernel::{
    blkfront, cmdline,
    control::{self, Reason},
    executor,
    ratelimit::LogLimit,
};

use crate::{clients::Census, disks::Disks, network::Network, uplinks::Uplinks};

kernel::entry!(main);

/// Serves all devices of a kind, for as long as the domain lives.
fn serve<F>(kind: &'static str, census: &Census, serve: impl FnMut(String, u16, LogLimit) -> F + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let census = census.clone();
    executor::spawn(async move {
        if let Err(error) = clients::run(kind, census, serve).await {
            log::error!("backend/{kind} cannot be watched: {error}");
            control::shutdown(Reason::Crash);
        }
    })
    .detach();
}

async fn main() {
    let (config, errors) = Config::parse(cmdline::get());
    for error in &errors {
        log::error!("command line: {error}");
    }
    if !errors.is_empty() {
        control::shutdown(Reason::Crash);
    }
    let config = Rc::new(config);

    let statistics = Statistics::default();
    let _domain = statistics.register(Subject::new("domain", &[]), |tell| {
        kernel::stats::snapshot().each(tell)
    });
    let uplinks = Uplinks::new(statistics.clone());
    let options = blkfront::Options {
        patience: config.patience,
        ..Default::default()
    };
    executor::spawn(uplinks.clone().run(options)).detach();
    let disks = Disks {
        config: config.clone(),
        uplinks,
        claims: Claims::default(),
        statistics: statistics.clone(),
    };
    let network = Network::new(config, statistics.clone()).await;
    let census = Census::default();
    serve("virtio_disk", &census, move |path, client, log| {
        let disks = disks.clone();
        async move { disks.serve(&path, client, log).await }
    });
    serve("virtio", &census, move |path, client, log| {
        let network = network.clone();
        async move { network.serve(&path, client, log).await }
    });

    executor::spawn(publish::run(statistics)).detach();

    log::info!(
        "ready to serve after {} µs of CPU time",
        kernel::time::cpu_time().as_micros()
    );
    let reason = control::wait_for_shutdown().await;
    log::info!("shutting down: {reason:?}");
    control::shutdown(reason);
}
