//! The end of a domain: panics and how they are reported.
//!
//! A panic prints where, why and a backtrace of addresses, then crashes the domain, so that xl's `on_crash`
//! applies. The addresses can be looked up in the image that was linked with symbols (`addr2line -e`).

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use core::time::Duration;

use crate::console::{self, Patience};
use crate::hypercall;

/// The most frames that a backtrace shows.
const FRAMES: usize = 32;
/// How long a domain that dies waits for its console to be read, in all.
const PATIENCE: Duration = Duration::from_secs(2);

static DYING: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    static boot_stack: u8;
    static boot_stack_end: u8;
}

/// Text that goes straight to the console.
pub(crate) struct LastWords {
    patience: Patience,
}

impl Write for LastWords {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            match part.strip_suffix('\n') {
                Some(line) => {
                    console::write_last_words(line.as_bytes(), &mut self.patience);
                    console::write_last_words(b"\r\n", &mut self.patience);
                }
                None => console::write_last_words(part.as_bytes(), &mut self.patience),
            }
        }
        Ok(())
    }
}

/// Reports by `report`, with the backtrace from this frame pointer, and crashes the domain. Trouble while
/// reporting crashes at once.
pub(crate) fn die(frame: usize, report: impl FnOnce(&mut LastWords) -> fmt::Result) -> ! {
    if !DYING.swap(true, Relaxed) {
        let mut words = LastWords {
            patience: Patience::new(PATIENCE),
        };
        let _ = report(&mut words);
        let _ = words.write_str("backtrace:");
        backtrace(frame, |address| {
            let _ = write!(words, " {address:#x}");
        });
        let _ = words.write_str("\n");
        console::drain(&mut words.patience);
    }
    hypercall::shutdown(xen_sys::SHUTDOWN_crash)
}

/// Follows the frame pointers on the stack, which every frame keeps, from the given one outwards.
fn backtrace(mut frame: usize, mut found: impl FnMut(usize)) {
    let stack = &raw const boot_stack as usize..&raw const boot_stack_end as usize - 16;
    for _ in 0..FRAMES {
        if !stack.contains(&frame) || !frame.is_multiple_of(8) {
            break;
        }
        // SAFETY: both words lie on the stack.
        let (next, address) = unsafe {
            (
                (frame as *const usize).read_volatile(),
                (frame as *const usize).add(1).read_volatile(),
            )
        };
        if address == 0 {
            break;
        }
        found(address);
        if next <= frame {
            break;
        }
        frame = next;
    }
}

/// What an image does when it panics. [`entry!`](crate::entry) makes it the panic handler, in the image
/// rather than here, so that host programs can be built in one workspace with this crate.
pub fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let frame: usize;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    die(frame, |words| match info.location() {
        Some(location) => writeln!(words, "\npanic at {location}: {}", info.message()),
        None => writeln!(words, "\npanic: {}", info.message()),
    })
}

/// The unwinder's entry points: precompiled code names them, but with `panic=abort` nothing gets there.
#[cfg(not(test))]
mod unwinder {
    #[unsafe(no_mangle)]
    extern "C" fn rust_eh_personality() -> ! {
        unreachable!("no unwinding")
    }

    #[unsafe(no_mangle)]
    extern "C" fn _Unwind_Resume() -> ! {
        unreachable!("no unwinding")
    }
}
