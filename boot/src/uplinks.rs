//! The driver domain's own disks: connected as they appear, found by name.

use alloc::{
    collections::BTreeMap,
    rc::Rc,
    string::{String, ToString},
    vec::Vec,
};
use core::{cell::RefCell, time::Duration};

use boot::statistics::{Registration, Statistics, Subject};
use kernel::{
    blkfront::{self, Uplink},
    executor::{self, Task},
    frontend::{self, Change, DeviceWatch, State},
    sync::Signal,
    time,
};
use protocols::{blkif::vdev::Vdev, front_end::Class};

use crate::lookout::Lookout;

/// How long a client's disk may wait for an uplink that is not connected yet. libxl waits ten seconds for us.
const PATIENCE: Duration = Duration::from_secs(5);

/// All uplinks that there are.
#[derive(Clone)]
pub struct Uplinks(Rc<Inner>);

struct Inner {
    statistics: Statistics,
    connected: RefCell<BTreeMap<String, Connected>>,
    changed: RefCell<Vec<Rc<Signal>>>,
}

/// An uplink that has been connected.
struct Connected {
    uplink: Rc<Uplink>,
    _counted: Registration,
}

impl Uplinks {
    /// None yet. What they do is counted in `statistics`.
    pub fn new(statistics: Statistics) -> Self {
        Self(Rc::new(Inner {
            statistics,
            connected: RefCell::default(),
            changed: RefCell::default(),
        }))
    }

    /// Connects what there is and what will be, for as long as the domain lives.
    pub async fn run(self, options: blkfront::Options) {
        let mut watch = DeviceWatch::new(Class::Block).await;
        let mut tasks: BTreeMap<u32, Task<()>> = BTreeMap::new();
        loop {
            match watch.next().await {
                Change::Added(device) => {
                    tasks.insert(
                        device,
                        executor::spawn(self.clone().keep(device, options.clone())),
                    );
                }
                Change::Removed(device) => {
                    tasks.remove(&device);
                    self.forget(device);
                }
            }
        }
    }

    fn forget(&self, device: u32) {
        self.0
            .connected
            .borrow_mut()
            .retain(|_, connected| connected.uplink.devid() != device);
    }

    /// Keeps a device connected. One that is detached and attached again at once may never be seen to be
    /// gone, so that it is looked for until this task is dropped.
    async fn keep(self, device: u32, options: blkfront::Options) {
        let mut lookout = Lookout::new(Class::Block, device);
        loop {
            // An uplink that is removed before it was connected is nobody's loss.
            if let Ok(uplink) = Uplink::connect(device, options.clone()).await {
                self.enter(uplink.clone());
                lookout.reset();
                let mut state = uplink.state();
                while state != State::Removed {
                    state = uplink.changed(state).await;
                }
                self.forget(device);
            }
            lookout.wait().await;
        }
    }

    /// An uplink is connected.
    fn enter(&self, uplink: Rc<Uplink>) {
        log::info!("uplink {} is connected", uplink.name());
        let counted = uplink.clone();
        let subject = Subject::new("disk-uplink", &[("name", &uplink.name())]);
        let connected = Connected {
            uplink: uplink.clone(),
            _counted: self
                .0
                .statistics
                .register(subject, move |tell| counted.counters().each(tell)),
        };
        self.0.connected.borrow_mut().insert(uplink.name(), connected);
        self.0
            .changed
            .borrow_mut()
            .drain(..)
            .for_each(|waiting| waiting.set());
    }

    /// The uplink with this name, for a client, if there is one and it is connected within a few seconds.
    pub async fn find(&self, name: &str) -> Option<Uplink> {
        let devices = frontend::discover(Class::Block).await.ok()?;
        devices.iter().find(|&&device| Vdev(device).to_string() == name)?;
        let search = async {
            loop {
                if let Some(connected) = self.0.connected.borrow().get(name) {
                    return connected.uplink.for_client();
                }
                self.next_change().wait().await;
            }
        };
        time::timeout(PATIENCE, search).await.ok()
    }

    /// A signal that is set when the next uplink is connected.
    fn next_change(&self) -> Rc<Signal> {
        let changed = Rc::new(Signal::new());
        let mut waiting = self.0.changed.borrow_mut();
        // Those who have given up.
        waiting.retain(|it| Rc::strong_count(it) > 1);
        waiting.push(changed.clone());
        changed
    }
}
