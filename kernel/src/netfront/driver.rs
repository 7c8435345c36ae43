//! What an uplink does in the course of its life: see [`frontend::live`].

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;

use devices::net::Port;
use protocols::front_end::Class;
use protocols::netif::nodes::{DEFAULT_MTU, Line, REQUEST_MULTICAST_CONTROL};

use super::rings::{Remains, Rings};
use super::uplink::Shared;
use crate::frontend::{self, BackEnd, Connection, Device, End, FrontEnd, State};
use crate::packets::Packet;
use crate::xenstore;

/// Keeps an uplink connected until its device is removed.
pub(super) async fn run<P: Port<Buffer = Packet>>(shared: Rc<Shared>, port: P) {
    frontend::live(Driver {
        device: Device::new(
            Class::Network,
            shared.device,
            &format!("uplink vif{}", shared.device),
        ),
        shared,
        port,
    })
    .await;
}

/// What looks after one uplink.
pub(super) struct Driver<P> {
    pub shared: Rc<Shared>,
    pub port: P,
    pub device: Device,
}

impl<P: Port<Buffer = Packet>> FrontEnd for Driver<P> {
    type Rings = Rings<P>;

    fn device(&self) -> &Device {
        &self.device
    }

    fn set_state(&self, state: State) {
        self.shared.set_state(state);
    }

    /// Clients need no uplink: they see the line go down.
    fn in_use(&self) -> bool {
        false
    }

    async fn attention(&self) -> Result<(), End> {
        self.shared.attention.wait().await;
        let Some(broken) = self.shared.broken.take() else {
            return Ok(());
        };
        self.shared.counters.borrow_mut().broken += 1;
        Err(End::Broken(format!("{broken}")))
    }

    async fn offer(&self, back_end: &BackEnd) -> Result<Rings<P>, End> {
        self.make_and_publish(back_end).await
    }

    async fn start(&self, connection: &mut Connection<Rings<P>>) -> Result<(), End> {
        self.greet(connection);
        self.shared.counters.borrow_mut().connections += 1;
        self.port.set_queues(connection.rings.queues());
        connection.rings.run(&self.shared);
        self.follow(connection).await
    }

    /// Reads what the line is like, and has the back end stop filtering when groups are not known any more.
    async fn follow(&self, connection: &Connection<Rings<P>>) -> Result<(), End> {
        let (own, back) = (&self.device.path, &connection.back_end.path);
        let carrier: Option<String> = xenstore::read_optional(&format!("{back}/carrier")).await?;
        let own_mtu: Option<String> = xenstore::read_optional(&format!("{own}/mtu")).await?;
        let back_mtu: Option<String> = xenstore::read_optional(&format!("{back}/mtu")).await?;
        let mut line = Line::parse(carrier.as_deref(), own_mtu.as_deref(), back_mtu.as_deref());
        if !connection.rings.features.scatter_gather {
            // A frame has to fit a page.
            line.mtu = line.mtu.min(DEFAULT_MTU);
        }
        self.shared.set_line(line);
        if self.shared.groups.borrow().is_none() && connection.rings.filtered.take() {
            xenstore::write(&format!("{own}/{REQUEST_MULTICAST_CONTROL}"), "0").await?;
        }
        Ok(())
    }

    async fn hang_up(&self, rings: Option<Rings<P>>) -> impl FnMut() -> bool {
        let mut remains = match rings {
            Some(rings) => rings.hang_up().await,
            None => Remains::default(),
        };
        self.shared.broken.take();
        move || remains.take_back()
    }
}

impl<P: Port<Buffer = Packet>> Driver<P> {
    fn greet(&self, connection: &Connection<Rings<P>>) {
        let features = &connection.rings.features;
        let mut can = String::new();
        for (has, what) in [
            (features.scatter_gather, ", scatter-gather"),
            (features.gso_tcp4 && features.gso_tcp6, ", segmentation"),
            (features.checksum4 && features.checksum6, ", checksums"),
            (features.split_event_channels, ", split event channels"),
        ] {
            can.push_str(if has { what } else { "" });
        }
        self.device.greetings.info(format_args!(
            "connected to domain {}: {} queues{can}",
            connection.back_end.domid,
            connection.rings.queues(),
        ));
    }
}
