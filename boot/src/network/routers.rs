//! Routers: one for each way out, with the segments that use it, and one for each segment that has an address
//! and leads nowhere.

use alloc::{format, rc::Rc, string::String};

use boot::{
    config::{self, Address},
    statistics::{Statistics, Subject},
};
use kernel::{entropy, executor};
use network::{
    router::{self, Config, DhcpOptions, Inside, Limits, Router, StationConfig},
    switch::PortOptions,
};

use super::{
    Network,
    runtime::Clock,
    segment::{Segment, Socket},
};

/// How long clients may keep an address without asking again, in seconds.
const LEASE: u32 = 12 * 60 * 60;

impl Network {
    /// Starts all routers.
    pub fn start_routers(&self) {
        let segments = &self.0.config.segments;
        for config in segments {
            let result = if self.leads_out(config) || config.address == Some(Address::Dhcp) {
                let users = segments.iter().filter(|it| it.nat.as_ref() == Some(&config.name));
                self.start_router(&config.name, users, Some(config))
            } else if config.nat.is_none() && (config.address.is_some() || config.address6.is_some()) {
                self.start_router(&config.name, [config], None)
            } else {
                Ok(())
            };
            if let Err(error) = result {
                log::error!("segment {}: no router: {error}", config.name);
            }
        }
    }

    /// Whether other segments go out by this one.
    fn leads_out(&self, outside: &config::Segment) -> bool {
        let mut segments = self.0.config.segments.iter();
        segments.any(|it| it.nat.as_ref() == Some(&outside.name))
    }

    fn start_router<'a>(
        &self,
        name: &str,
        insides: impl IntoIterator<Item = &'a config::Segment>,
        outside: Option<&config::Segment>,
    ) -> Result<(), String> {
        let insides = insides.into_iter().map(|config| self.inside(config));
        let outside = outside.map(|config| self.station(config)).transpose()?;
        // Each connection takes 400 bytes: an eighth of the memory goes there, in equal parts to all ways
        // out.
        let segments = self.0.config.segments.iter();
        let ways_out = segments.filter(|it| self.leads_out(it)).count().max(1);
        let memory = kernel::mm::usage().total;
        let connections = (memory / 8 / 400 / ways_out).clamp(512, 32768);
        let config = Config {
            insides: insides.collect::<Result<_, _>>()?,
            outside,
            limits: Limits {
                connections,
                per_client: connections / 8,
            },
            timeouts: Default::default(),
            seed: entropy::seed(),
        };
        let router = Router::new(Clock, config).map_err(|error| format!("expected {error}"))?;
        let status = router.status();
        let registration = self
            .0
            .statistics
            .register(Subject::new("router", &[("name", name)]), move |tell| {
                status.each(&mut *tell)
            });
        executor::spawn(async move {
            let _counted = registration;
            router.run().await;
        })
        .detach();
        Ok(())
    }

    fn inside(&self, config: &config::Segment) -> Result<Inside<Socket>, String> {
        Ok(Inside {
            station: self.station(config)?,
            // The network beyond an uplink has its own router.
            advertise: config.uplinks.is_empty(),
            forwards: config.forwards.clone(),
            rules: config.rules.clone(),
            isolate: config.isolate,
        })
    }

    /// The driver domain's own place in a segment.
    fn station(&self, config: &config::Segment) -> Result<StationConfig<Socket>, String> {
        let segment: &Rc<Segment> = self.segment(&config.name).ok_or("the segment is not set up")?;
        let mac = segment.own_address();
        let port = segment
            .plug(PortOptions::router(format!("router {}", config.name), mac))
            .map_err(|error| format!("{error}"))?;
        let address = config.address.map(|address| match address {
            Address::Dhcp => router::Address::Dhcp {
                dns: config.dns.clone(),
            },
            Address::Static(cidr) => router::Address::Static {
                cidr,
                gateway: config.gateway,
                dns: config.dns.clone(),
            },
        });
        let dhcp = config.dhcp.map(|(first, last)| DhcpOptions {
            first,
            last,
            lease: LEASE,
            reservations: segment.reservations(),
        });
        let statistics = self.0.statistics.clone();
        Ok(StationConfig {
            port,
            mac,
            address,
            address6: config.address6,
            dhcp,
            metrics: config.metrics.map(|port| (port, text(statistics))),
        })
    }
}

fn text(statistics: Statistics) -> router::Text {
    Rc::new(move |to| statistics.write_prometheus(to))
}
