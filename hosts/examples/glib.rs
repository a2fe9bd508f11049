//! GLib and GTK: a source for the descriptor, and a new source for each timeout.

use std::cell::Cell;
use std::error::Error;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use anyloop::EventLoop;
use anyloop_hosts::{Workload, TICK, in_millis};
use glib::{ControlFlow, IOCondition, MainLoop, SourceId};

/// Anyloop's loop in the default main context.
struct Anyloop {
    event_loop: EventLoop,
    descriptor: Cell<Option<SourceId>>,
    timer: Cell<Option<SourceId>>,
    /// The main loop, which ends with Anyloop's. Other programs keep it running.
    host: MainLoop,
}

impl Anyloop {
    fn attach(event_loop: EventLoop, host: MainLoop) {
        let (descriptor, timer) = Default::default();
        let it = Rc::new(Self { event_loop, descriptor, timer, host });
        let inside = it.clone();
        let call = move |_, _| {
            inside.turn();
            ControlFlow::Continue
        };
        let fd = it.event_loop.as_raw_fd();
        it.descriptor.set(Some(glib_unix::unix_fd_add_local(fd, IOCondition::IN, call)));
        it.call_after(Duration::ZERO);
    }

    fn turn(self: &Rc<Self>) {
        self.event_loop.poll();
        if let Some(timer) = self.timer.take() {
            timer.remove();
        }
        if self.event_loop.stopped() {
            if let Some(descriptor) = self.descriptor.take() {
                descriptor.remove();
            }
            self.host.quit();
        } else if let Some(timeout) = self.event_loop.next_timeout() {
            self.call_after(timeout);
        }
    }

    fn call_after(self: &Rc<Self>, timeout: Duration) {
        let it = self.clone();
        let call = move || {
            it.timer.set(None); // GLib removes the source when this returns
            it.turn();
        };
        let timeout = Duration::from_millis(in_millis(timeout));
        self.timer.set(Some(glib::timeout_add_local_once(timeout, call)));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let workload = Rc::new(Workload::begin(&event_loop)?);

    let host = MainLoop::new(None, false);
    Anyloop::attach(event_loop, host.clone());
    let ticking = workload.clone();
    glib::timeout_add_local(TICK, move || {
        ticking.tick();
        ControlFlow::Continue
    });

    host.run();
    workload.report()
}
