//! The hypercalls that the runtime makes, counted.
//!
//! These are thin: they pick the number, count the call and turn the result into a [`Result`]. What a call
//! means and why its argument is sound is the business of the module that makes it.

use xen_sys as xen;

use crate::errno::Errno;
use crate::stats::{Counter, count};

/// This domain, where a call wants a domain id (`DOMID_SELF`).
pub(crate) const DOMID_SELF: u16 = 0x7ff0;

/// `HYPERVISOR_event_channel_op`.
///
/// # Safety
/// `T` must be the argument structure of `command`.
pub(crate) unsafe fn event_channel_op<T>(command: u32, argument: &mut T) -> Result<(), Errno> {
    count(
        if command == xen::EVTCHNOP_send {
            Counter::EventSend
        } else {
            Counter::OtherHypercall
        },
        1,
    );
    // SAFETY: the caller pairs command and structure; the structure outlives the call.
    Errno::check(unsafe {
        xen::hypercall_2(
            xen::__HYPERVISOR_event_channel_op,
            command.into(),
            core::ptr::from_mut(argument) as u64,
        )
    })
    .map(drop)
}

/// `HYPERVISOR_grant_table_op` on a batch.
///
/// # Safety
/// `T` must be the argument structure of `command`, and what the batch asks for must keep Rust's rules about
/// memory.
pub(crate) unsafe fn grant_table_op<T>(command: u32, counter: Counter, batch: &mut [T]) -> Result<(), Errno> {
    count(counter, 1);
    // SAFETY: the caller pairs command and structure; the batch outlives the call.
    Errno::check(unsafe {
        xen::hypercall_3(
            xen::__HYPERVISOR_grant_table_op,
            command.into(),
            batch.as_mut_ptr() as u64,
            batch.len() as u64,
        )
    })
    .map(drop)
}

/// `HYPERVISOR_mmu_update` on this domain's own tables.
///
/// # Safety
/// The changed mappings must not back live references in a way that breaks their guarantees.
pub(crate) unsafe fn mmu_update(updates: &[xen::mmu_update]) -> Result<(), Errno> {
    count(Counter::PageTable, 1);
    // SAFETY: the array is only read; the caller vouches for what it does to memory.
    Errno::check(unsafe {
        xen::hypercall_4(
            xen::__HYPERVISOR_mmu_update,
            updates.as_ptr() as u64,
            updates.len() as u64,
            0,
            DOMID_SELF.into(),
        )
    })
    .map(drop)
}

/// `HYPERVISOR_update_va_mapping`, flushing the one translation.
///
/// # Safety
/// As for [`mmu_update`].
pub(crate) unsafe fn update_va_mapping(address: usize, entry: u64) -> Result<(), Errno> {
    const INVALIDATE_LOCAL: u64 = 2;
    count(Counter::PageTable, 1);
    // SAFETY: the caller vouches for what it does to memory.
    Errno::check(unsafe {
        xen::hypercall_3(
            xen::__HYPERVISOR_update_va_mapping,
            address as u64,
            entry,
            INVALIDATE_LOCAL,
        )
    })
    .map(drop)
}

/// `HYPERVISOR_set_trap_table`. Xen copies the table, up to its first entry of address zero.
///
/// # Safety
/// All addresses before that must be those of stubs that keep to the hypervisor's frame layout.
///
/// # Panics
/// If the last entry is not one of address zero.
pub(crate) unsafe fn set_trap_table(table: &[xen::trap_info]) -> Result<(), Errno> {
    assert!(
        table.last().is_some_and(|entry| entry.address == 0),
        "the trap table has no end"
    );
    count(Counter::OtherHypercall, 1);
    // SAFETY: the table is terminated and outlives the call; the caller vouches for the stubs.
    Errno::check(unsafe { xen::hypercall_1(xen::__HYPERVISOR_set_trap_table, table.as_ptr() as u64) })
        .map(drop)
}

/// `HYPERVISOR_set_callbacks`: where event upcalls and failed selector loads arrive.
///
/// # Safety
/// Both must be addresses of stubs that keep to the hypervisor's frame layout.
pub(crate) unsafe fn set_callbacks(event: usize, failsafe: usize) -> Result<(), Errno> {
    count(Counter::OtherHypercall, 1);
    // SAFETY: the caller vouches for the stubs; there is no user mode that could make a system call.
    Errno::check(unsafe {
        xen::hypercall_3(xen::__HYPERVISOR_set_callbacks, event as u64, failsafe as u64, 0)
    })
    .map(drop)
}

/// `HYPERVISOR_vcpu_op` on virtual CPU 0.
///
/// # Safety
/// `argument` must be what `command` takes.
pub(crate) unsafe fn vcpu_op<T>(command: u32, counter: Counter, argument: *mut T) -> Result<u64, Errno> {
    count(counter, 1);
    // SAFETY: the caller pairs command and argument.
    Errno::check(unsafe { xen::hypercall_3(xen::__HYPERVISOR_vcpu_op, command.into(), 0, argument as u64) })
}

/// The commands of `HYPERVISOR_sched_op` that take no argument.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum SchedOp {
    /// Lets other virtual CPUs run.
    Yield = xen::SCHEDOP_yield,
    /// Unmasks event upcalls and waits for an event; returns at once if one is pending.
    Block = xen::SCHEDOP_block,
}

/// `HYPERVISOR_sched_op` without an argument.
pub(crate) fn sched_op(command: SchedOp) {
    let counter = match command {
        SchedOp::Yield => Counter::OtherHypercall,
        SchedOp::Block => Counter::Block,
    };
    count(counter, 1);
    // SAFETY: the command takes no argument.
    unsafe { xen::hypercall_2(xen::__HYPERVISOR_sched_op, command as u64, 0) };
}

/// `SCHEDOP_poll`: waits for one of some ports, even while upcalls are masked.
///
/// # Safety
/// The argument must point to as many ports as it says.
pub(crate) unsafe fn sched_poll(argument: &mut xen::sched_poll) -> Result<(), Errno> {
    count(Counter::Block, 1);
    // SAFETY: the argument structure is the command's; the caller vouches for its ports.
    Errno::check(unsafe {
        xen::hypercall_2(
            xen::__HYPERVISOR_sched_op,
            xen::SCHEDOP_poll.into(),
            core::ptr::from_mut(argument) as u64,
        )
    })
    .map(drop)
}

/// `SCHEDOP_shutdown` with a `SHUTDOWN_*` reason.
pub(crate) fn shutdown(reason: u32) -> ! {
    let argument = xen::sched_shutdown { reason };
    loop {
        // SAFETY: the argument structure is the command's and outlives the call.
        unsafe {
            xen::hypercall_2(
                xen::__HYPERVISOR_sched_op,
                xen::SCHEDOP_shutdown.into(),
                core::ptr::from_ref(&argument) as u64,
            )
        };
    }
}

/// The version of the hypervisor: major, minor (`XENVER_version`).
pub(crate) fn xen_version() -> (u32, u32) {
    const XENVER_VERSION: u64 = 0;
    count(Counter::OtherHypercall, 1);
    // SAFETY: the command takes no argument.
    let version = unsafe { xen::hypercall_2(xen::__HYPERVISOR_xen_version, XENVER_VERSION, 0) } as u32;
    (version >> 16, version & 0xffff)
}
