//! Looking for a device that was removed, in case it is there again: one that is detached and attached again
//! at once may never be seen to be gone.

use core::time::Duration;

use kernel::{frontend, time};
use protocols::front_end::Class;

/// How long after a removal the first look is, and how often there is one at least.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(30);

/// The looks for one device, at growing intervals.
pub struct Lookout {
    class: Class,
    device: u32,
    pause: Duration,
}

impl Lookout {
    /// For the device of a class with this number.
    pub fn new(class: Class, device: u32) -> Self {
        Self {
            class,
            device,
            pause: FIRST,
        }
    }

    /// The device works: the next look comes soon after its removal.
    pub fn reset(&mut self) {
        self.pause = FIRST;
    }

    /// Waits until the device is there.
    pub async fn wait(&mut self) {
        loop {
            time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LAST);
            if frontend::discover(self.class)
                .await
                .is_ok_and(|devices| devices.contains(&self.device))
            {
                return;
            }
        }
    }
}
