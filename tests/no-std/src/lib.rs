//! An echo server's core for a machine without an operating system.
//!
//! Building this library is the test: it has a panic handler of its own, so anything below it that
//! links the standard library fails to build (duplicate lang item `panic_impl`).
#![no_std]

extern crate alloc;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};

use anyloop_proto::{Config, Connection, Event, Input, Instant, Random, Role};

/// An allocator in name only: what is proved here is that the library links.
struct Bump;

// SAFETY: null is always an allowed answer, and means that there is no memory.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: Bump = Bump;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// A device's own generator would stand here.
struct Device;

impl Random for Device {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(4);
    }
}

/// Everything that an application touches, so that all of it is linked.
#[unsafe(no_mangle)]
pub extern "C" fn echo(nanos: u64) -> usize {
    let now = Instant::from_nanos(nanos);
    let config = Arc::new(Config::new(Arc::new(Device)));
    let mut connection = Box::new(Connection::new(Role::Server, config, now));
    let mut bytes = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    let mut out = Vec::new();
    let Connection { receiver, sender } = &mut *connection;
    let mut input = Input::new(&mut bytes);
    while let Ok(Some(event)) = receiver.next(sender, &mut input, now, &mut out) {
        if let Event::Message(message) = event {
            let _ = sender.send(message, &mut out);
        }
    }
    let _ = connection.handle_timeout(now, &mut out);
    out.len()
}
