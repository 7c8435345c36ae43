//! Serving network devices: from the nodes that the toolstack writes for a client to a virtio-net device in a segment.

use alloc::{
    collections::BTreeMap,
    format,
    rc::Rc,
    string::{String, ToString},
};
use core::{cell::RefCell, net::IpAddr};

use boot::{config::Client, statistics::Subject};
use devices::net::{Counters, Mac, Nic, Options};
use kernel::{ratelimit::LogLimit, virtio_bus::BackEnd};
use network::switch::{PortOptions, Prefix, RateLimit};
use protocols::text::printable;

use super::{
    Network,
    segment::{Number, Segment, Socket},
};

/// The type that libxl writes for `virtio=[ '…type=virtio,device1…' ]`: a network device.
const TYPE: &str = "virtio,device1";

/// The most frames' memory that a client with a rate may be ahead of it, in seconds of that rate.
const BURST: u64 = 50;

/// The address that a device has because none was given, kept for as long as the device exists.
type Numbered = RefCell<Option<(String, Number, Mac)>>;

impl Network {
    /// Serves the device that `path` (`backend/virtio/<client>/<device>`) describes, until the toolstack removes it.
    pub async fn serve(self, path: &str, client: u16) {
        let back_end = match BackEnd::new(path, client).await {
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
        let numbered = Numbered::default();
        let log = LogLimit::new(&format!("client {label}"));
        back_end
            .serve(async || {
                let (socket, options) = self.connect(&back_end, (&label, &log), &numbered).await?;
                Ok(Nic::with_counters(socket, options, counters.clone()))
            })
            .await;
        log::info!("{path}: ended");
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
        numbered: &Numbered,
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
        let mac = client.mac.unwrap_or_else(|| number(segment, numbered));
        let limit = self.0.memory.share();
        let rate = client.rate.map(|mbit| RateLimit {
            per_second: u64::from(mbit) * 125_000,
            burst: (u64::from(mbit) * 125_000 / BURST).max(limit as u64),
        });
        let options = PortOptions {
            guard_mac: !client.spoof,
            addresses: client.allowed(mac).into_iter().map(prefix).collect(),
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
        log.info(format_args!("{} in segment {}", show(mac), segment.name));
        let options = Options {
            mac,
            mac_fixed: !client.spoof,
            pairs: client.queues,
        };
        Ok((socket, options))
    }
}

/// The address of a device without one of its own.
fn number(segment: &Segment, numbered: &Numbered) -> Mac {
    let mut numbered = numbered.borrow_mut();
    match &*numbered {
        Some((name, _, mac)) if *name == segment.name => *mac,
        _ => {
            let (number, mac) = segment.number();
            *numbered = Some((segment.name.clone(), number, mac));
            mac
        }
    }
}

/// One address.
fn prefix(address: IpAddr) -> Prefix {
    let len = if address.is_ipv4() { 32 } else { 128 };
    Prefix { address, len }
}

/// An Ethernet address as people write it.
pub fn show(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
