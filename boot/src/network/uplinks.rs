//! The driver domain's own network devices: each is plugged into its segment for as long as it exists.

use alloc::{collections::BTreeMap, format};

use boot::statistics::{Registration, Subject};
use kernel::{
    executor::{self, Task},
    frontend::{Change, DeviceWatch, State},
    netfront::{Options, Uplink},
    ratelimit::LogLimit,
};
use network::switch::PortOptions;
use protocols::front_end::Class;

use super::Network;
use crate::lookout::Lookout;

impl Network {
    /// Looks after the uplinks that there are and will be, for as long as the domain lives.
    pub async fn run_uplinks(self) {
        let mut watch = DeviceWatch::new(Class::Network).await;
        let mut tasks: BTreeMap<u32, Task<()>> = BTreeMap::new();
        loop {
            match watch.next().await {
                Change::Added(device) => {
                    tasks.insert(device, executor::spawn(self.clone().keep_uplink(device)));
                }
                Change::Removed(device) => _ = tasks.remove(&device),
            }
        }
    }

    /// Keeps a device plugged in. One that is detached and attached again at once may never be seen to be
    /// gone, so that it is looked for until this task is dropped.
    async fn keep_uplink(self, device: u32) {
        let mut lookout = Lookout::new(Class::Network, device);
        while let Some((uplink, _counted)) = self.start_uplink(device) {
            let mut state = uplink.state();
            while state != State::Removed {
                state = uplink.changed(state).await;
                if state == State::Connected {
                    lookout.reset();
                }
            }
            lookout.wait().await;
        }
    }

    fn start_uplink(&self, device: u32) -> Option<(Uplink, Registration)> {
        let name = format!("vif{device}");
        let configured = self.0.config.segments.iter();
        let Some(config) = configured.into_iter().find(|it| it.uplinks.contains(&device)) else {
            log::warn!(
                "uplink {name} is in no segment: expected segment.<name>=uplink={name} on the command line"
            );
            return None;
        };
        let segment = self.segment(&config.name)?;
        let socket = match segment.plug(PortOptions::uplink(name.as_str())) {
            Ok(socket) => socket,
            Err(error) => {
                log::error!("uplink {name}: segment {}: {error}", config.name);
                return None;
            }
        };
        let options = Options {
            queues: config.queues,
            groups: segment.groups(config),
            pool: self.0.memory.0.clone(),
        };
        // The back end decides how often it changes.
        let (line, log) = (socket.clone(), LogLimit::new(&format!("uplink {name}")));
        let uplink = Uplink::start(device, options, socket, move |link| {
            let state = if link.up { "up" } else { "down" };
            log.info(format_args!("the line is {state}, MTU {}", link.mtu));
            line.set_link(link);
        });
        segment.add_uplink(uplink.clone());
        let (network, label) = (self.clone(), name.clone());
        let segment = config.name.clone();
        let subject = Subject::new("net-uplink", &[("name", &name)]);
        let counted = uplink.clone();
        let registration = self.0.statistics.register(subject, move |tell| {
            counted.counters().each(&mut *tell);
            if let Some(segment) = network.segment(&segment) {
                segment.tell(&label, &mut *tell);
            }
        });
        Some((uplink, registration))
    }
}
