//! Memory for frames: [`Packet`]s in pages of a [`PacketPool`].
//!
//! A page is private while it is in the pool or in a packet. An uplink grants it when it posts it to be
//! filled or sends it, and takes the grant back when the back end has answered. A grant is for a whole page,
//! so what a page holds besides the frame is zeroed first, unless the back end's domain has seen it before
//! (`exposure`): one client's bytes do not reach another client's uplink.

mod exposure;
mod packet;
mod pool;

pub use packet::Packet;
pub use pool::{PacketPool, Usage, kept_pages};

pub(crate) use pool::Page;
