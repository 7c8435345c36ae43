//! Ways for a domain to die, to be seen dying: `test=crash.<name>`.

use crate::report::Outcome;

/// Dies as `name` says.
///
/// # Errors
/// If there is no such way to die.
pub fn run(name: &str) -> Outcome {
    match name {
        "panic" => panic!("asked to panic"),
        // With more before it than the console's ring holds.
        "panic-unread" => {
            for line in 0..100 {
                log::info!("line {line} before the panic: long enough that a hundred of them fill the ring");
            }
            panic!("asked to panic")
        }
        "stack-overflow" => {
            deeper(0);
        }
        // SAFETY: nothing is mapped there; the domain ends with the access.
        "page-fault" => unsafe {
            core::ptr::without_provenance::<u8>(0x1000_0000_0000).read_volatile();
        },
        // SAFETY: the address is not canonical; the domain ends with the access.
        "general-protection" => unsafe {
            core::arch::asm!("mov al, [{}]", in(reg) 0x8000_0000_0000_0000_u64, out("al") _, options(nostack, readonly));
        },
        // SAFETY: the domain ends with the instruction.
        "invalid-opcode" => unsafe { core::arch::asm!("ud2", options(nostack)) },
        _ => {}
    }
    Err(alloc::format!(
        "test=crash.{name}: expected panic, panic-unread, stack-overflow, page-fault, general-protection or invalid-opcode"
    ))
}

/// Calls itself until the stack has no room.
fn deeper(depth: u64) -> u64 {
    match core::hint::black_box(depth) {
        u64::MAX => 0,
        depth => depth + deeper(depth + 1),
    }
}
