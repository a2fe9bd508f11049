//! libuv by its C interface: a poll handle for the descriptor, and a timer.

use std::error::Error;
use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::AsRawFd;

use anyloop::EventLoop;
use anyloop_hosts::{Workload, TICK, in_millis};

/// Memory for a `uv_poll_t` or a `uv_timer_t`, at least as large as either.
#[repr(C, align(16))]
struct Handle([u8; 256]);

const UV_POLL: c_uint = 8;
const UV_TIMER: c_uint = 13;
const UV_READABLE: c_int = 1;
const UV_RUN_DEFAULT: c_uint = 0;

#[link(name = "uv")]
unsafe extern "C" {
    fn uv_default_loop() -> *mut c_void;
    fn uv_run(host: *mut c_void, mode: c_uint) -> c_int;
    fn uv_update_time(host: *mut c_void);
    fn uv_handle_size(kind: c_uint) -> usize;
    fn uv_handle_set_data(handle: *mut Handle, data: *mut c_void);
    fn uv_handle_get_data(handle: *const Handle) -> *mut c_void;
    fn uv_close(handle: *mut Handle, on_close: Option<extern "C" fn(*mut Handle)>);
    fn uv_poll_init(host: *mut c_void, handle: *mut Handle, descriptor: c_int) -> c_int;
    fn uv_poll_start(handle: *mut Handle, events: c_int, call: OnEvents) -> c_int;
    fn uv_timer_init(host: *mut c_void, handle: *mut Handle) -> c_int;
    fn uv_timer_start(handle: *mut Handle, call: OnTimer, after: u64, repeat: u64) -> c_int;
    fn uv_timer_stop(handle: *mut Handle) -> c_int;
}

type OnEvents = extern "C" fn(*mut Handle, status: c_int, events: c_int);
type OnTimer = extern "C" fn(*mut Handle);

struct Program {
    event_loop: EventLoop,
    workload: Workload,
    host: *mut c_void,
    descriptor: *mut Handle,
    timer: *mut Handle,
    ticker: *mut Handle,
}

extern "C" fn on_readable(handle: *mut Handle, _status: c_int, _events: c_int) {
    on_timer(handle);
}

extern "C" fn on_timer(handle: *mut Handle) {
    let it = program(handle);
    it.event_loop.poll();
    let timeout = it.event_loop.next_timeout();
    // SAFETY: the handles were initialized and are closed once. Closed handles are not called.
    unsafe {
        if it.event_loop.stopped() {
            // Without handles libuv's loop ends.
            for handle in [it.descriptor, it.timer, it.ticker] {
                uv_close(handle, None);
            }
        } else if let Some(timeout) = timeout {
            uv_update_time(it.host); // the timer counts from this time
            // A timer that is always due at once could starve other handles.
            uv_timer_start(it.timer, on_timer, in_millis(timeout).max(1), 0);
        } else {
            uv_timer_stop(it.timer);
        }
    }
}

extern "C" fn on_tick(handle: *mut Handle) {
    program(handle).workload.tick();
}

/// The data of the handle that libuv passes to a callback.
fn program<'p>(handle: *mut Handle) -> &'p Program {
    // SAFETY: `main` sets the data, and keeps it until libuv's loop has ended.
    unsafe { &*uv_handle_get_data(handle).cast() }
}

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let workload = Workload::begin(&event_loop)?;

    let mut handles = [const { Handle([0; 256]) }; 3];
    let [descriptor, timer, ticker] = handles.each_mut().map(|handle| &raw mut *handle);
    // SAFETY: these functions may be called at any time.
    let (host, size) =
        unsafe { (uv_default_loop(), uv_handle_size(UV_POLL).max(uv_handle_size(UV_TIMER))) };
    assert!(size <= size_of::<Handle>());
    let it = Program { event_loop, workload, host, descriptor, timer, ticker };
    // SAFETY: the handles and `it` do not move until `uv_run` returns, which is after all handles are
    // closed. The descriptor is open as long as the loop exists.
    unsafe {
        let fd = it.event_loop.as_raw_fd();
        let failed = uv_poll_init(host, descriptor, fd)
            | uv_timer_init(host, timer)
            | uv_timer_init(host, ticker);
        assert_eq!(failed, 0);
        for handle in [descriptor, timer, ticker] {
            uv_handle_set_data(handle, (&raw const it).cast_mut().cast());
        }
        uv_poll_start(descriptor, UV_READABLE, on_readable);
        uv_timer_start(timer, on_timer, 0, 0);
        uv_timer_start(ticker, on_tick, in_millis(TICK), in_millis(TICK));
        assert_eq!(uv_run(host, UV_RUN_DEFAULT), 0); // no handle is left
    }
    it.workload.report()
}
