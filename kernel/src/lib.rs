//! A runtime for images that Xen boots as 64-bit PV domains: from the hypervisor's entry to async tasks that
//! serve other domains.
//!
//! # The shape of an image
//! An image is a `no_std` binary that names its first task with [`entry!`]. Everything it does runs as tasks
//! of one executor ([`executor`]) on one virtual CPU; tasks wait for event channels ([`event`]), timers
//! ([`time`]), xenstore ([`xenstore`]) and each other ([`sync`]). Nothing interrupts a task: event upcalls
//! stay masked, and events are polled between tasks. So there are no locks, and no code here need be
//! re-entrant; but a task that does not await keeps all others waiting.
//!
//! # Memory and other domains
//! Pages come from [`mm`]. A page is either this domain's alone, and then ordinary Rust memory
//! ([`mm::Pages`]), or shared with another domain: granted to it ([`grant::Granted`]), or granted by it and
//! mapped here ([`grant::Mapping`]). Shared memory is only reached through [`shared::SharedMemory`], which
//! makes no references. Payload is better copied by the hypervisor, many pieces in one hypercall
//! ([`grant::CopyBatch`]).
//!
//! All resources are owned: dropping a value closes the channel, unmaps the page, ends the grant, removes the
//! watch.
//!
//! # What others may do to it
//! Other domains are hostile, as far as they can reach: no function here panics or loops without end because
//! of what another domain wrote. Functions whose arguments are the caller's own arithmetic (offsets, indices)
//! panic when those are wrong, and say so. Sizes that come from others lead to errors where memory runs out;
//! small allocations of this domain's own doing may crash it.
//!
//! # On the console
//! The log goes to the Xen console ([`cmdline`]: `loglevel=`). Panics and traps print where they happened and
//! a backtrace of addresses, and crash the domain. [`stats`] counts hypercalls, notifications and copied
//! bytes; `xl sysrq` shows them ([`control`]).
#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]

extern crate alloc;

pub mod blkfront;
mod boot;
mod cell;
pub mod cmdline;
mod console;
pub mod control;
mod cpuid;
#[doc(hidden)]
pub mod dying;
pub mod entropy;
mod errno;
pub mod event;
pub mod executor;
pub mod frontend;
pub mod grant;
mod hypercall;
mod logger;
mod memory_functions;
pub mod mm;
pub mod netfront;
pub mod packets;
mod range_allocator;
pub mod ratelimit;
pub mod shared;
pub mod stats;
pub mod sync;
pub mod time;
mod trap;
pub mod virtio_bus;
pub mod xenbus;
pub mod xenstore;

pub use errno::Errno;

/// Defines where the image starts: an `async fn()` that runs as the first task. When it returns, the domain
/// powers off.
///
/// ```text
/// #![no_std]
/// #![no_main]
///
/// kernel::entry!(main);
///
/// async fn main() {
///     log::info!("hello");
/// }
/// ```
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn kernel_main() {
            $crate::executor::spawn(async {
                $main().await;
                $crate::control::shutdown($crate::control::Reason::Poweroff)
            })
            .detach();
        }

        #[panic_handler]
        fn panic(info: &::core::panic::PanicInfo<'_>) -> ! {
            $crate::dying::panic(info)
        }
    };
}
