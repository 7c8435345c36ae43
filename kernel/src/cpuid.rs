//! What the processor says of itself.

use core::arch::x86_64::{__cpuid_count, CpuidResult};

/// A leaf of CPUID.
pub(crate) fn leaf(leaf: u32, subleaf: u32) -> CpuidResult {
    #[allow(unused_unsafe)] // Calling it is safe from Rust 1.94 on.
    // SAFETY: every 64-bit processor has the instruction, which only reads.
    unsafe {
        __cpuid_count(leaf, subleaf)
    }
}
