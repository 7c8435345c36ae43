//! The block interface's front end, as far as it needs no hypercall (xen/include/public/io/blkif.h).

pub mod frontend;
pub mod nodes;
pub mod vdev;
pub mod wire;
