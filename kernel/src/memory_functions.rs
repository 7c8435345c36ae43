//! `memcpy` and its relatives, which compiled code expects of a C library.
//!
//! The bulk loops are assembly: in Rust, the compiler may recognise a copying loop and turn it into a call of
//! the function that it implements. Large blocks use `rep movsb`/`rep stosb` where the processor announces
//! that they are fast (ERMS), and 64-byte SSE loops elsewhere.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::cpuid;

/// Below this many bytes, the start-up cost of a `rep` instruction is not worth it.
const REP_MINIMUM: usize = 512;

static FAST_REP: AtomicBool = AtomicBool::new(false);

/// Looks up what the processor is good at.
pub(crate) fn detect() {
    const ERMS: u32 = 1 << 9;
    if cpuid::leaf(0, 0).eax >= 7 && cpuid::leaf(7, 0).ebx & ERMS != 0 {
        FAST_REP.store(true, Relaxed);
    }
}

/// Copies `count` bytes in assembly: opaque to the compiler, so also right for memory that others write
/// meanwhile.
///
/// # Safety
/// Both ranges must be mapped, `to` writable. They may overlap only if `to` is below `from`: every step reads
/// all that it copies before it writes.
#[inline]
pub(crate) unsafe fn copy(to: *mut u8, from: *const u8, count: usize) {
    if cfg!(miri) {
        // SAFETY: the caller vouches for the ranges. Miri knows no assembly, and what it checks is the
        // ranges.
        return unsafe { core::ptr::copy(from, to, count) };
    }
    if count >= REP_MINIMUM && FAST_REP.load(Relaxed) {
        // SAFETY: the caller vouches for the ranges; the direction flag is clear by the ABI.
        unsafe {
            asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags));
        }
        return;
    }
    // SAFETY: the caller vouches for the ranges: each step copies only what is left of `count`.
    unsafe {
        asm!(
            "sub {n}, 64",
            "jb 3f",
            "2:",
            "movups {a}, [{s}]",
            "movups {b}, [{s} + 16]",
            "movups {c}, [{s} + 32]",
            "movups {d}, [{s} + 48]",
            "movups [{t}], {a}",
            "movups [{t} + 16], {b}",
            "movups [{t} + 32], {c}",
            "movups [{t} + 48], {d}",
            "add {s}, 64",
            "add {t}, 64",
            "sub {n}, 64",
            "jae 2b",
            "3:",
            "add {n}, 64",
            "4:",
            "sub {n}, 8",
            "jb 5f",
            "mov {w}, [{s}]",
            "mov [{t}], {w}",
            "add {s}, 8",
            "add {t}, 8",
            "jmp 4b",
            "5:",
            "add {n}, 8",
            "jz 7f",
            "6:",
            "mov {w:l}, [{s}]",
            "mov [{t}], {w:l}",
            "inc {s}",
            "inc {t}",
            "dec {n}",
            "jnz 6b",
            "7:",
            n = inout(reg) count => _,
            s = inout(reg) from => _,
            t = inout(reg) to => _,
            w = out(reg) _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack),
        );
    }
}

/// Copies `count` bytes from the end to the start, for overlapping ranges with `to` above `from`.
///
/// # Safety
/// Both ranges must be mapped, `to` writable.
#[cfg_attr(test, allow(dead_code))]
unsafe fn copy_backward(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: the caller vouches for the ranges: each step copies only what is left of `count`.
    unsafe {
        asm!(
            "sub {n}, 8",
            "jb 3f",
            "2:",
            "mov {w}, [{s} + {n}]",
            "mov [{t} + {n}], {w}",
            "sub {n}, 8",
            "jae 2b",
            "3:",
            "add {n}, 8",
            "jz 5f",
            "4:",
            "mov {w:l}, [{s} + {n} - 1]",
            "mov [{t} + {n} - 1], {w:l}",
            "dec {n}",
            "jnz 4b",
            "5:",
            n = inout(reg) count => _,
            s = in(reg) from,
            t = in(reg) to,
            w = out(reg) _,
            options(nostack),
        );
    }
}

/// Fills `count` bytes in assembly, as [`copy`] copies them.
///
/// # Safety
/// The range must be mapped and writable.
pub(crate) unsafe fn fill(to: *mut u8, byte: u8, count: usize) {
    if cfg!(miri) {
        // SAFETY: the caller vouches for the range.
        return unsafe { core::ptr::write_bytes(to, byte, count) };
    }
    if count >= REP_MINIMUM && FAST_REP.load(Relaxed) {
        // SAFETY: the caller vouches for the range; the direction flag is clear by the ABI.
        unsafe {
            asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte,
                options(nostack, preserves_flags));
        }
        return;
    }
    let word = u64::from(byte) * 0x0101_0101_0101_0101;
    // SAFETY: the caller vouches for the range: each step fills only what is left of `count`.
    unsafe {
        asm!(
            "movq {a}, {w}",
            "punpcklqdq {a}, {a}",
            "sub {n}, 64",
            "jb 3f",
            "2:",
            "movups [{t}], {a}",
            "movups [{t} + 16], {a}",
            "movups [{t} + 32], {a}",
            "movups [{t} + 48], {a}",
            "add {t}, 64",
            "sub {n}, 64",
            "jae 2b",
            "3:",
            "add {n}, 64",
            "4:",
            "sub {n}, 8",
            "jb 5f",
            "mov [{t}], {w}",
            "add {t}, 8",
            "jmp 4b",
            "5:",
            "add {n}, 8",
            "jz 7f",
            "6:",
            "mov [{t}], {w:l}",
            "inc {t}",
            "dec {n}",
            "jnz 6b",
            "7:",
            n = inout(reg) count => _,
            t = inout(reg) to => _,
            w = in(reg) word,
            a = out(xmm_reg) _,
            options(nostack),
        );
    }
}

/// The difference of the first differing bytes, or 0.
///
/// # Safety
/// Both ranges must be readable.
#[cfg_attr(test, allow(dead_code))]
unsafe fn compare(a: *const u8, b: *const u8, count: usize) -> i32 {
    let (left, right): (u32, u32);
    // SAFETY: the caller vouches for the ranges; nothing is written.
    unsafe {
        asm!(
            "xor {l:e}, {l:e}",
            "xor {r:e}, {r:e}",
            "xor {i:e}, {i:e}",
            "2:",
            "lea {w}, [{i} + 8]",
            "cmp {w}, {n}",
            "ja 3f",
            "mov {v}, [{a} + {i}]",
            "cmp {v}, [{b} + {i}]",
            "jne 3f",
            "mov {i}, {w}",
            "jmp 2b",
            "3:",
            "cmp {i}, {n}",
            "jae 4f",
            "movzx {l:e}, byte ptr [{a} + {i}]",
            "movzx {r:e}, byte ptr [{b} + {i}]",
            "inc {i}",
            "cmp {l:e}, {r:e}",
            "je 3b",
            "4:",
            a = in(reg) a,
            b = in(reg) b,
            n = in(reg) count,
            i = out(reg) _,
            w = out(reg) _,
            v = out(reg) _,
            l = out(reg) left,
            r = out(reg) right,
            options(nostack, readonly),
        );
    }
    left as i32 - right as i32
}

/// The symbols themselves; a host build has its C library's.
#[cfg(not(test))]
mod symbols {
    /// C's `memcpy`.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        // SAFETY: the contract of memcpy.
        unsafe { super::copy(to, from, count) };
        to
    }

    /// C's `memmove`.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        // SAFETY: the contract of memmove; the wrapped difference is below `count` only if `to` is inside the
        // source.
        unsafe {
            if (to as usize).wrapping_sub(from as usize) < count {
                super::copy_backward(to, from, count)
            } else {
                super::copy(to, from, count)
            }
        };
        to
    }

    /// C's `memset`.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
        // SAFETY: the contract of memset, which takes the low byte.
        unsafe { super::fill(to, byte as u8, count) };
        to
    }

    /// C's `memcmp`.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
        // SAFETY: the contract of memcmp.
        unsafe { super::compare(a, b, count) }
    }

    /// C's `bcmp`.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
        // SAFETY: the contract of bcmp.
        unsafe { super::compare(a, b, count) }
    }

    /// C's `strlen`, which `core::ffi::CStr` calls.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn strlen(string: *const u8) -> usize {
        let mut length = 0;
        // SAFETY: the contract of strlen: a nul byte ends the string.
        while unsafe { string.add(length).read_volatile() } != 0 {
            length += 1;
        }
        length
    }
}

// Miri knows no assembly.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn copies_fills_and_compares_every_small_size() {
        for fast in [false, true] {
            FAST_REP.store(fast, Relaxed);
            for count in (0..200).chain([511, 512, 513, 4096]) {
                let from: Vec<u8> = (0..count + 16).map(|i| (i * 7 + i / 251) as u8).collect();
                let mut to = vec![0xaa_u8; count + 16];
                // SAFETY: both vectors are longer than what is touched.
                unsafe { copy(to.as_mut_ptr().add(3), from.as_ptr().add(5), count) };
                assert_eq!(to[3..3 + count], from[5..5 + count]);
                assert!(
                    to[..3].iter().chain(&to[3 + count..]).all(|&b| b == 0xaa),
                    "{count}"
                );
                // SAFETY: as above.
                let difference = unsafe { compare(to.as_ptr().add(3), from.as_ptr().add(5), count) };
                assert_eq!(difference, 0);
                // SAFETY: as above.
                unsafe { fill(to.as_mut_ptr().add(3), 0x5b, count) };
                assert!(to[3..3 + count].iter().all(|&b| b == 0x5b));
                assert!(
                    to[..3].iter().chain(&to[3 + count..]).all(|&b| b == 0xaa),
                    "{count}"
                );
            }
        }
        FAST_REP.store(false, Relaxed);
    }

    #[test]
    fn moves_overlapping_ranges_both_ways() {
        for distance in [1, 3, 8, 17, 64, 100] {
            for count in [0, 1, 7, 8, 9, 63, 64, 65, 200] {
                let original: Vec<u8> = (0..400).map(|i| i as u8).collect();
                let mut buffer = original.clone();
                let base = buffer.as_mut_ptr();
                // SAFETY: both ranges lie inside the buffer, `to` below `from`.
                unsafe { copy(base, base.add(distance), count) };
                assert_eq!(buffer[..count], original[distance..distance + count]);
                let mut buffer = original.clone();
                let base = buffer.as_mut_ptr();
                // SAFETY: both ranges lie inside the buffer.
                unsafe { copy_backward(base.add(distance), base, count) };
                assert_eq!(buffer[distance..distance + count], original[..count]);
            }
        }
    }

    #[test]
    fn compare_orders_by_the_first_difference() {
        let a = b"0123456789abcdef";
        for at in 0..a.len() {
            let mut b = *a;
            b[at] += 1;
            // SAFETY: both arrays have 16 bytes.
            unsafe {
                assert!(compare(a.as_ptr(), b.as_ptr(), 16) < 0);
                assert!(compare(b.as_ptr(), a.as_ptr(), 16) > 0);
                assert_eq!(compare(a.as_ptr(), b.as_ptr(), at), 0);
            }
        }
    }
}
