//! Feature bits of virtio itself (virtio 1.3, "Reserved Feature Bits"), as masks.

/// VIRTIO_F_INDIRECT_DESC: a descriptor may refer to a table of descriptors.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX: both sides say which ring index they want to be notified of.
pub const EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1: this is no legacy device.
pub const VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_ACCESS_PLATFORM: addresses are what the platform says, here what [`crate::memory::DriverMemory`]
/// takes.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// VIRTIO_F_RING_RESET: a single queue can be reset.
pub const RING_RESET: u64 = 1 << 40;
