//! The network: a switch for each configured segment, with its uplinks and routers, and the clients' devices
//! that are plugged into them.

mod nics;
mod routers;
mod runtime;
mod segment;
mod uplinks;

use alloc::{rc::Rc, vec::Vec};

use boot::{config::Config, statistics::Statistics};
use kernel::executor;

use runtime::Memory;
use segment::Segment;

/// All segments.
#[derive(Clone)]
pub struct Network(Rc<Inner>);

struct Inner {
    config: Rc<Config>,
    statistics: Statistics,
    memory: Memory,
    segments: Vec<Rc<Segment>>,
}

impl Network {
    /// Sets up the configured segments, with their routers and uplinks.
    pub async fn new(config: Rc<Config>, statistics: Statistics) -> Self {
        let memory = Memory::new();
        let mut segments = Vec::new();
        for segment in &config.segments {
            segments.push(Rc::new(Segment::new(segment, &memory, &statistics).await));
        }
        let network = Self(Rc::new(Inner {
            config,
            statistics,
            memory,
            segments,
        }));
        if !network.0.segments.is_empty() {
            network.start_routers();
            executor::spawn(network.clone().run_uplinks()).detach();
        }
        network
    }

    fn segment(&self, name: &str) -> Option<&Rc<Segment>> {
        self.0.segments.iter().find(|segment| segment.name == name)
    }
}
