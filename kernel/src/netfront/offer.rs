//! Making rings and event channels, and publishing them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use devices::net::Port;
use protocols::netif::nodes::{Features, OWN_FEATURES, REQUEST_MULTICAST_CONTROL};
use protocols::netif::wire;
use protocols::nodes::BadNode;
use protocols::ring::FrontRing;

use super::driver::Driver;
use super::queue::{Channels, Queue};
use super::receive::{Receive, Short};
use super::rings::Rings;
use super::transmit::Transmit;
use crate::event::EventChannel;
use crate::frontend::{BackEnd, End, RingPages, get, publish, read_nodes};
use crate::grant::{Access, GrantRef, Granted};
use crate::mm::PAGE_SIZE;
use crate::packets::Packet;

/// A ring that was just made, and its page's reference.
fn ring(domid: u16, entry_bytes: usize) -> Result<(FrontRing<RingPages>, GrantRef), End> {
    let page = Granted::zeroed(domid, 1, Access::ReadWrite).map_err(End::Grant)?;
    let reference = page.reference(0);
    Ok((FrontRing::new(RingPages(page), PAGE_SIZE, entry_bytes), reference))
}

/// The node that says how many queues there are.
const QUEUES: &str = "multi-queue-num-queues";

/// The least pages that are posted on a receive ring: three large segments.
const MIN_POSTED: usize = 64;

/// Names and values to be published.
type Nodes = Vec<(String, String)>;

impl<P: Port<Buffer = Packet>> Driver<P> {
    /// Makes rings and event channels, and publishes them.
    pub async fn make_and_publish(&self, back_end: &BackEnd) -> Result<Rings<P>, End> {
        let features = {
            let nodes = read_nodes(&back_end.path, Features::KEYS).await?;
            Features::parse(|key| get(&nodes, key)).map_err(End::Node)?
        };
        if !features.rx_copy {
            return Err(End::Node(BadNode("feature-rx-copy")));
        }
        let count = self.shared.queues.min(features.max_queues);
        let mut nodes = Nodes::new();
        let mut queues = Vec::new();
        for index in 0..count {
            queues.push(self.queue(index, count, back_end, features, &mut nodes)?);
        }
        if features.max_queues > 1 {
            nodes.push((QUEUES.into(), format!("{count}")));
        }
        nodes.extend(
            OWN_FEATURES
                .iter()
                .map(|&(key, value)| (key.into(), value.into())),
        );
        let groups = self
            .shared
            .groups
            .borrow()
            .clone()
            .filter(|_| features.multicast_control);
        let filtered = groups.is_some();
        if let Some(groups) = groups {
            nodes.push((REQUEST_MULTICAST_CONTROL.into(), "1".into()));
            // One filter holds for all queues.
            if let Some(queue) = queues.first_mut() {
                groups.into_iter().for_each(|group| queue.transmit.join(group));
            }
        }
        let is_ours = |name: &str| {
            name.starts_with("queue-")
                || name.starts_with("event-channel")
                || name.ends_with("-ring-ref")
                || [QUEUES, REQUEST_MULTICAST_CONTROL].contains(&name)
        };
        publish(&self.device.path, &nodes, is_ours).await?;
        Ok(Rings::new(features, queues, filtered))
    }

    /// Makes one of `count` queues, with pages on its receive ring: the uplink gives no more of the pool away
    /// than an eighth.
    fn queue(
        &self,
        index: u16,
        count: u16,
        back_end: &BackEnd,
        features: Features,
        nodes: &mut Nodes,
    ) -> Result<Queue<P>, End> {
        let domid = back_end.domid;
        let prefix = if count > 1 {
            format!("queue-{index}/")
        } else {
            String::new()
        };
        let posted = (self.shared.pool.usage().limit / 8 / usize::from(count)).max(MIN_POSTED);
        let (tx, tx_reference) = ring(domid, wire::TX_ENTRY_BYTES)?;
        let (rx, rx_reference) = ring(domid, wire::RX_ENTRY_BYTES)?;
        let channel = || EventChannel::alloc_unbound(domid).map_err(End::Event);
        let channels = Channels {
            tx: channel()?,
            rx: features.split_event_channels.then(channel).transpose()?,
        };
        let mut node = |key: &str, value: u32| nodes.push((format!("{prefix}{key}"), format!("{value}")));
        node("tx-ring-ref", tx_reference);
        node("rx-ring-ref", rx_reference);
        match &channels.rx {
            Some(rx) => {
                node("event-channel-tx", channels.tx.port());
                node("event-channel-rx", rx.port());
            }
            None => node("event-channel", channels.tx.port()),
        }
        let mut receive = Receive::new(domid, rx, posted)?;
        let transmit = Transmit::new(domid, tx)?;
        let refilled = receive.refill(&self.shared.pool);
        // Nobody listens yet.
        let _ = receive.push();
        if let (0, Err(short)) = (receive.posted(), refilled) {
            let what = match short {
                Short::Memory => "memory",
                Short::Grants => "grants",
            };
            self.device
                .log
                .warn(format_args!("no {what} to receive frames in"));
        }
        Ok(Queue {
            index,
            port: self.port.clone(),
            shared: self.shared.clone(),
            features,
            receive,
            transmit,
            channels,
            finishing: None,
            retry: None,
            scratch: Vec::new(),
        })
    }
}
