//! What the front ends of this domain have in common: which devices there are, where their back ends are,
//! what those say, and how a connection comes about and ends.

mod device;
mod end;
mod life;
mod nodes;
mod ring;
mod watch;

pub use life::State;
pub use watch::{Change, DeviceWatch, discover};

pub(crate) use device::{BackEnd, Device};
pub(crate) use end::End;
pub(crate) use life::{Connection, FrontEnd, live};
pub(crate) use nodes::{get, publish, read_nodes};
pub(crate) use ring::RingPages;
