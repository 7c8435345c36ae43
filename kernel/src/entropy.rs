//! Numbers that nobody else is to guess.

use core::arch::asm;
use core::arch::x86_64::_rdtsc;

use crate::{cpuid, time};

/// CPUID leaf 1, ECX: RDRAND.
const RDRAND: u32 = 1 << 30;

/// A key for generators: from the processor's own generator where it has one, and from what the clocks show
/// in any case. Without the former it is as hard to guess as the time of the start to the nanosecond, not as
/// its length says.
pub fn seed() -> [u64; 2] {
    [word(), word()]
}

fn word() -> u64 {
    // SAFETY: the instruction only reads; every 64-bit processor has it.
    let tsc = unsafe { _rdtsc() };
    let mut seed = mix(tsc) ^ mix(time::wall().as_nanos() as u64) ^ mix(!time::now().as_nanos());
    if cpuid::leaf(1, 0).ecx & RDRAND != 0 {
        // SAFETY: the processor has the instruction.
        seed ^= unsafe { hardware() };
    }
    mix(seed)
}

/// # Safety
/// The processor has RDRAND.
unsafe fn hardware() -> u64 {
    // It may have none left for a moment; ten tries are what the processor's maker recommends.
    for _ in 0..10 {
        let (value, is_random): (u64, u8);
        // SAFETY: the processor has the instruction, which changes nothing but these and the flags.
        unsafe {
            asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) is_random, options(nomem, nostack));
        }
        if is_random != 0 {
            return value;
        }
    }
    0
}

/// Spreads what differs over all bits (the finalizer of MurmurHash3).
fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    value = (value ^ value >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ value >> 33
}
