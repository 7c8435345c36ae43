//! Traps: every exception is a bug, and is reported before the domain crashes.
//!
//! Xen enters a stub with `rcx`, `r11`, for some vectors an error code, and the processor's own frame on the
//! current stack. It does not skip the red zone of interrupted code, which does not matter here, as nothing
//! returns from a trap.

use core::arch::global_asm;
use core::fmt::Write;

use xen_sys::trap_info;

use crate::{boot, dying, hypercall};

const VECTORS: usize = 20;
const FAILSAFE: u64 = 255;
const PAGE_FAULT: u64 = 14;
const KERNEL_CODE_SEGMENT: u16 = 0xe033;
/// Traps arrive with event upcalls masked.
const MASK_EVENTS: u8 = 4;

const NAMES: [&str; VECTORS] = [
    "divide error",
    "debug",
    "NMI",
    "breakpoint",
    "overflow",
    "bound range",
    "invalid opcode",
    "no FPU",
    "double fault",
    "coprocessor overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection",
    "page fault",
    "spurious interrupt",
    "FPU error",
    "alignment check",
    "machine check",
    "SIMD error",
];

global_asm!(
    ".macro trap_stub vector",
    "  push r15",
    "  mov r15d, \\vector",
    "  jmp trap_common",
    "  .balign 16",
    ".endm",
    ".section .text.trap_stubs, \"ax\", @progbits",
    ".balign 16",
    "trap_stubs:",
    ".irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19",
    "  trap_stub \\vector",
    ".endr",
    "failsafe_stub:",
    "  trap_stub {failsafe}",
    "trap_common:",
    "  push r14",
    "  push r13",
    "  push r12",
    "  push r11",
    "  push r10",
    "  push r9",
    "  push r8",
    "  push rbp",
    "  push rdi",
    "  push rsi",
    "  push rdx",
    "  push rcx",
    "  push rbx",
    "  push rax",
    "  mov rdi, rsp",
    "  mov esi, r15d",
    "  cld",
    "  and rsp, -16",
    "  call {handler}",
    "  ud2",
    failsafe = const FAILSAFE,
    handler = sym trap_handler,
);

unsafe extern "C" {
    static trap_stubs: u8;
    static failsafe_stub: u8;
}

/// What the stubs leave at the stack's top.
#[repr(C)]
struct Registers {
    rax: u64,
    rbx: u64,
    clobbered_rcx: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    rbp: u64,
    r8: u64,
    r9: u64,
    r10: u64,
    clobbered_r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rcx: u64,
    r11: u64,
    /// The error code if the vector has one, then rip, cs, rflags, rsp, ss.
    rest: [u64; 6],
}

/// The address of the stub for failed loads of segment selectors.
pub(crate) fn failsafe_address() -> usize {
    &raw const failsafe_stub as usize
}

/// Tells Xen where traps go.
pub(crate) fn init() {
    const STUB_SIZE: usize = 16;
    // The last entry stays empty, which ends the table.
    let mut table = [trap_info {
        vector: 0,
        flags: 0,
        cs: 0,
        address: 0,
    }; VECTORS + 1];
    for (vector, entry) in table.iter_mut().take(VECTORS).enumerate() {
        *entry = trap_info {
            vector: vector as u8,
            flags: MASK_EVENTS,
            cs: KERNEL_CODE_SEGMENT,
            address: (&raw const trap_stubs as usize + vector * STUB_SIZE) as u64,
        };
    }
    // SAFETY: these are the stubs above, which take Xen's frames.
    unsafe { hypercall::set_trap_table(&table) }.expect("the trap table");
}

extern "C" fn trap_handler(registers: &Registers, vector: u64) -> ! {
    let has_error = matches!(vector, 8 | 10..=14 | 17);
    let error = if has_error { registers.rest[0] } else { 0 };
    let [rip, _cs, flags, rsp] = *registers.rest[usize::from(has_error)..]
        .first_chunk()
        .expect("six words");
    let name = if vector == FAILSAFE {
        "bad segment selector"
    } else {
        NAMES.get(vector as usize).unwrap_or(&"unknown trap")
    };
    dying::die(registers.rbp as usize, |words| {
        write!(
            words,
            "\ntrap {vector} ({name}) at {rip:#x}, error code {error:#x}"
        )?;
        if vector == PAGE_FAULT {
            write!(words, ", address {:#x}", boot::fault_address())?;
        }
        writeln!(
            words,
            "\n  rsp {rsp:#x} rbp {:#x} rflags {flags:#x}",
            registers.rbp
        )?;
        let r = registers;
        writeln!(
            words,
            "  rax {:#x} rbx {:#x} rcx {:#x} rdx {:#x}",
            r.rax, r.rbx, r.rcx, r.rdx
        )?;
        writeln!(
            words,
            "  rsi {:#x} rdi {:#x} r8 {:#x} r9 {:#x} r10 {:#x}",
            r.rsi, r.rdi, r.r8, r.r9, r.r10
        )?;
        writeln!(
            words,
            "  r11 {:#x} r12 {:#x} r13 {:#x} r14 {:#x} r15 {:#x}",
            r.r11, r.r12, r.r13, r.r14, r.r15
        )
    })
}
