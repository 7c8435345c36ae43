//! Serving network devices: from the nodes that the toolstack writes for a client to a virtio-net device in a
//! segment.

use alloc::{
    collections::BTreeMap,
    format,
    rc::Rc,
    string::{String, ToString},
};
use core::{cell::RefCell, net::Ipv4Addr};

use boot::{config::Client, statistics::Subject};
use devices::net::{Counters, Mac, Nic, Options};
use kernel::{ratelimit::LogLimit, virtio_bus::BackEnd};
use network::switch::{PortOptions, Prefix, RateLimit};
use protocols::text::printable;

use super::{
    Network,
    segment::{Number, Reservation, Segment, Socket},
};

/// The type that libxl writes for `virtio=[ '…type=virtio,device1…' ]`: a network device.
const TYPE: &str = "virtio,device1";

/// A client with a rate may be ahead of it by what the rate allows in this part of a second.
const BURSTS_PER_SECOND: u64 = 50;

/// What a device has until its last connection has ended.
#[derive(Default)]
struct Kept {
    /// The address that it has because none was given.
    numbered: Option<(String, Number, Mac)>,
    /// What DHCP gives to it.
    reservation: Option<Reservation>,
}

impl Network {
    /// Serves the device that `path` (`backend/virtio/<client>/<device>`) describes, until the toolstack
    /// removes it.
    pub async fn serve(self, path: &str, client: u16, log: LogLimit) {
        let back_end = match BackEnd::new(path, client, log.clone()).await {
            Ok(back_end) => back_end,
            Err((back_end, reason)) => return back_end.refuse(reason).await,
        };
        if let Err(reason) = self.admit(&back_end).await {
            return back_end.refuse(reason).await;
        }
        let device = path.rsplit('/').next().unwrap_or_default();
        let label = format!("{client}/{device}");
        let counters: Rc<RefCell<Counters>> = Rc::default();
        let _counted = {
            let (counters, network, label) = (counters.clone(), self.clone(), label.clone());
            let subject = Subject::new("net", &[("client", &client.to_string()), ("device", device)]);
            self.0.statistics.register(subject, move |tell| {
                counters.borrow().each(&mut *tell);
                for segment in &network.0.segments {
                    segment.tell(&label, &mut *tell);
                }
            })
        };
        let kept = RefCell::default();
        let (network, back_end, log) = (&self, &back_end, &log);
        back_end
            .serve(async move || {
                let (socket, options) = network.connect(back_end, (&label, log), &kept).await?;
                Ok(Nic::with_counters(socket, options, counters.clone()))
            })
            .await;
        log.info(format_args!("ended"));
    }

    /// Whether the device is one that can be served.
    async fn admit(&self, back_end: &BackEnd) -> Result<(), String> {
        let kind = back_end.read("type").await?;
        if kind != TYPE {
            return Err(format!("type={}: expected {TYPE}", printable(&kind)));
        }
        if self.0.segments.is_empty() {
            return Err("no segment is configured: expected segment.<name>= on the command line".into());
        }
        Ok(())
    }

    /// Plugs the device in where the keys beside its nodes say.
    async fn connect(
        &self,
        back_end: &BackEnd,
        (label, log): (&str, &LogLimit),
        kept: &RefCell<Kept>,
    ) -> Result<(Socket, Options), String> {
        let mut keys = BTreeMap::new();
        for key in Client::KEYS {
            if let Some(value) = back_end.read_optional(key).await? {
                keys.insert(key, value);
            }
        }
        let client = Client::new(&self.0.config, |key| keys.get(key).cloned())?;
        let segment = self
            .segment(&client.segment.name)
            .ok_or("the segment is not set up")?;
        let mut kept = kept.borrow_mut();
        let mac = client.mac.unwrap_or_else(|| kept.number(segment));
        let limit = self.0.memory.share();
        let rate = client.rate.map(|mbit| RateLimit {
            per_second: u64::from(mbit) * 125_000,
            burst: (u64::from(mbit) * 125_000 / BURSTS_PER_SECOND).max(limit as u64),
        });
        let options = PortOptions {
            guard_mac: !client.spoof,
            addresses: client.allowed(mac).into_iter().map(Prefix::from).collect(),
            isolate: client.isolate,
            send_rate: rate,
            receive_rate: rate,
            send_limit: limit,
            receive_limit: limit,
            ..PortOptions::client(label, mac)
        };
        let socket = segment
            .plug(options)
            .map_err(|error| format!("segment {}: {error}: {}", segment.name, show(mac)))?;
        // The client decides how often it connects.
        if let Err(problem) = kept.reserve(segment, mac, client.reserved(mac)) {
            log.warn(format_args!("ip: {problem}: DHCP gives it none that it may use"));
        }
        log.info(format_args!("{} in segment {}", show(mac), segment.name));
        let options = Options {
            mac,
            mac_fixed: !client.spoof,
            pairs: client.queues,
        };
        Ok((socket, options))
    }
}

impl Kept {
    /// The address of a device without one of its own.
    fn number(&mut self, segment: &Segment) -> Mac {
        match &self.numbered {
            Some((name, _, mac)) if *name == segment.name => *mac,
            _ => {
                let (number, mac) = segment.number();
                self.numbered = Some((segment.name.clone(), number, mac));
                mac
            }
        }
    }

    /// Has DHCP give the device what it may use, and no longer what it might before.
    fn reserve(
        &mut self,
        segment: &Segment,
        mac: Mac,
        address: Result<Option<Ipv4Addr>, &'static str>,
    ) -> Result<(), &'static str> {
        self.reservation = None;
        if let Some(address) = address? {
            let reservation = segment.reserve(mac, address);
            self.reservation = Some(reservation.ok_or("the address is reserved for another client")?);
        }
        Ok(())
    }
}

/// An Ethernet address as people write it.
pub fn show(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
