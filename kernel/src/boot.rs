//! The way from Xen's entry to the executor, and the ELF notes that bring Xen there.
//!
//! # Event upcalls
//! Xen delivers an event upcall on the current stack, over the red zone of the interrupted function; and
//! precompiled library code has red zones. So upcalls are masked, always, except inside the hypercall that
//! blocks, which unmasks and waits in one step. The stub that an upcall then enters has nothing to do: Xen
//! has set the mask again, and the loop that blocked polls the events. It returns by itself, without a
//! hypercall.

use core::arch::global_asm;
use core::ffi::CStr;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use xen_sys as xen;

use crate::{
    cmdline, console, control, event, executor, hypercall, logger, memory_functions, mm, time, trap, xenstore,
};

/// Bytes of the one stack.
pub(crate) const STACK: usize = 128 * 1024;

// A note: its name is "Xen", its type one of XEN_ELFNOTE_* (xen/include/public/elfnote.h). Host tests have
// none, so that nothing keeps the code from which they lead.
#[cfg(not(test))]
global_asm!(
    ".macro xen_note type, value:vararg",
    "  .balign 4",
    "  .long 4, 2f - 1f, \\type",
    "  .asciz \"Xen\"",
    "  1: \\value",
    "  2: .balign 4",
    ".endm",
    ".section .note.Xen, \"a\", @note",
    "xen_note 1, .quad xen_start",
    "xen_note 2, .quad HYPERCALL_PAGE",
    "xen_note 3, .quad {base}",
    "xen_note 4, .quad {base}",
    "xen_note 5, .asciz \"xen-3.0\"",
    "xen_note 6, .asciz \"virtio-stubdom\"",
    "xen_note 8, .asciz \"generic\"",
    "xen_note 9, .asciz \"yes\"",
    base = const mm::LINEAR_BASE,
);

global_asm!(
    // Xen fills this page with the hypercall stubs when it builds the domain.
    ".section .text.hypercall_page, \"ax\", @progbits",
    ".balign 4096",
    ".globl HYPERCALL_PAGE",
    "HYPERCALL_PAGE: .skip 4096, 0xcc",
    // The stack lies above a page that is not mapped.
    ".section .bss.guard, \"aw\", @nobits",
    ".balign 4096",
    ".globl boot_stack_guard",
    "boot_stack_guard: .skip 4096",
    ".section .bss.stack, \"aw\", @nobits",
    ".globl boot_stack, boot_stack_end",
    "boot_stack: .skip {stack}",
    "boot_stack_end:",
    // rsi is the start_info page, rsp the domain builder's one-page stack.
    ".section .text.xen_start, \"ax\", @progbits",
    ".globl xen_start",
    "xen_start:",
    "  cld",
    "  mov rdi, rsi",
    "  mov rsi, rsp",
    "  lea rsp, [rip + boot_stack_end]",
    "  xor ebp, ebp",
    "  push rbp",
    "  push rbp",
    "  call {start}",
    "  ud2",
    // rcx, r11, rip, cs, rflags, rsp, ss: Xen wants privilege level 3 put into cs before iretq.
    ".section .text.event_upcall, \"ax\", @progbits",
    "event_upcall:",
    "  pop rcx",
    "  pop r11",
    "  or byte ptr [rsp + 8], 3",
    "  iretq",
    stack = const STACK,
    start = sym start,
);

unsafe extern "C" {
    static __image_end: u8;
    static event_upcall: u8;
    static boot_stack: u8;
}

/// The most bytes of the stack that were ever in use: it starts as zeros.
pub(crate) fn stack_used() -> usize {
    let bottom = (&raw const boot_stack).cast::<u64>();
    let words = STACK / size_of::<u64>();
    // SAFETY: the stack has so many words, and is mapped.
    let is_unused = |index: &usize| unsafe { bottom.add(*index).read_volatile() } == 0;
    let unused = (0..words).take_while(is_unused).count();
    (words - unused) * size_of::<u64>()
}

unsafe extern "Rust" {
    /// The image's own start; see [`crate::entry`].
    fn kernel_main();
}

static SHARED_INFO: AtomicPtr<xen::shared_info> = AtomicPtr::new(core::ptr::null_mut());

/// The page that Xen shares with the domain; null before boot has mapped it.
pub(crate) fn shared_info() -> *mut xen::shared_info {
    SHARED_INFO.load(Relaxed)
}

/// Virtual CPU 0's part of the shared page.
pub(crate) fn vcpu_info() -> *mut xen::vcpu_info {
    // SAFETY: computes an address inside the page.
    unsafe { (&raw mut (*shared_info()).vcpu_info).cast() }
}

/// The address of the last page fault, or 0 before that can be known.
pub(crate) fn fault_address() -> u64 {
    if shared_info().is_null() {
        return 0;
    }
    // SAFETY: the page is mapped.
    unsafe { (&raw const (*vcpu_info()).arch.cr2).read_volatile() }
}

extern "C" fn start(start_info: &'static xen::start_info, builder_stack: usize) -> ! {
    // SAFETY: both stubs keep to the layout of Xen's frames.
    unsafe { hypercall::set_callbacks(&raw const event_upcall as usize, trap::failsafe_address()) }
        .expect("the callbacks");
    trap::init();
    memory_functions::detect();

    // SAFETY: in a domain other than 0, the union holds this variant.
    let console = unsafe { start_info.console.domU };
    let (store_page, console_page) = (mm::mfn_to_pfn(start_info.store_mfn), mm::mfn_to_pfn(console.mfn));
    console::init(mm::pfn_to_address(console_page), console.evtchn);
    cmdline::set(command_line(start_info));
    logger::init();

    mm::init(&boot_memory(
        start_info,
        builder_stack,
        &[store_page, console_page],
    ));
    map_shared_info(start_info);
    time::init();
    let (memory, (major, minor)) = (mm::usage(), hypercall::xen_version());
    log::info!(
        "Xen {major}.{minor}, {} MiB of memory, {} KiB free",
        memory.total >> 20,
        memory.free >> 10
    );
    if (memory.total / mm::PAGE_SIZE) < start_info.nr_pages as usize {
        log::warn!("only the first {} MiB of memory are used", memory.total >> 20);
    }
    event::init();
    time::start();
    console::start();
    xenstore::start(mm::pfn_to_address(store_page), start_info.store_evtchn);
    control::start();
    // SAFETY: `entry!` defines it with this signature.
    unsafe { kernel_main() };
    executor::run()
}

fn command_line(start_info: &'static xen::start_info) -> &'static str {
    // SAFETY: an i8 is a byte.
    let bytes = unsafe {
        core::slice::from_raw_parts(start_info.cmd_line.as_ptr().cast(), start_info.cmd_line.len())
    };
    CStr::from_bytes_until_nul(bytes)
        .ok()
        .and_then(|line| line.to_str().ok())
        .unwrap_or_default()
}

/// Works out what the domain builder has placed where: whatever it placed lies below the first free page.
fn boot_memory(start_info: &xen::start_info, builder_stack: usize, pages: &[usize]) -> mm::BootMemory {
    let page_count = start_info.nr_pages as usize;
    let p2m = start_info.mfn_list as usize;
    let last_used = [
        &raw const __image_end as usize - 1,
        p2m + page_count * size_of::<u64>() - 1,
        core::ptr::from_ref(start_info) as usize,
        start_info.pt_base as usize + start_info.nr_pt_frames as usize * mm::PAGE_SIZE - 1,
        builder_stack - 1,
    ]
    .into_iter()
    .map(mm::address_to_pfn)
    .chain(pages.iter().copied())
    .fold(0, usize::max);
    mm::BootMemory {
        p2m,
        page_count,
        top_table: start_info.pt_base as usize,
        first_free: last_used + 1,
    }
}

fn map_shared_info(start_info: &xen::start_info) {
    let page = mm::window::map_frame_forever(start_info.shared_info >> 12).expect("the shared page");
    let shared: *mut xen::shared_info = page.as_ptr().cast();
    SHARED_INFO.store(shared, Relaxed);
    // SAFETY: the page is mapped. Xen and its tools read these fields; the tools need the last ones to dump
    // the domain's memory.
    unsafe {
        (&raw mut (*vcpu_info()).evtchn_upcall_mask).write_volatile(1);
        let arch = &raw mut (*shared).arch;
        (&raw mut (*arch).max_pfn).write_volatile(start_info.nr_pages);
        (&raw mut (*arch).p2m_vaddr).write_volatile(start_info.mfn_list);
        (&raw mut (*arch).p2m_cr3).write_volatile(mm::paging::top_table_mfn() << 12);
    }
}
