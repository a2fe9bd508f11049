//! Reacts to SIGINT, SIGTERM and SIGHUP.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyloop::EventLoop;
use anyloop::event_loop::{Watch, WatchMode};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::{flag, low_level};

/// Calls `f` in the loop at the first SIGINT or SIGTERM, unless the watch is cancelled first. The second
/// signal has its default effect: it ends the process.
pub(crate) fn on_signal(
    event_loop: &EventLoop,
    f: impl FnOnce() + Send + 'static,
) -> io::Result<Watch> {
    let (receiver, sender) = UnixStream::pair()?;
    receiver.set_nonblocking(true)?;
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the first signal does not see the flag that it sets itself.
        flag::register_conditional_default(signal, again.clone())?;
        flag::register(signal, again.clone())?;
        low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    let mut f = Some(f);
    event_loop.watch(receiver, WatchMode::Read, move |receiver, _| {
        match receiver.read(&mut [0; 16]) {
            Ok(1..) => {
                if let Some(f) = f.take() {
                    f();
                }
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    })
}

/// Makes a write beyond the limit of the size of files an error. By default the signal ends the process.
pub(crate) fn ignore_size_limit() {
    let _ = flag::register(SIGXFSZ, Arc::default()); // the default is then left as it is
}

/// Ends the process as SIGINT does by default.
pub(crate) fn die() {
    let _ = low_level::emulate_default_handler(SIGINT); // it does not return
}

/// Calls `f` in the loop after each SIGHUP, or once after several that arrive together, until the watch is cancelled.
pub(crate) fn on_hang_up(
    event_loop: &EventLoop,
    f: impl Fn() + Send + 'static,
) -> io::Result<Watch> {
    let (receiver, sender) = UnixStream::pair()?;
    receiver.set_nonblocking(true)?;
    low_level::pipe::register(SIGHUP, sender)?;
    event_loop.watch(receiver, WatchMode::Read, move |receiver, _| {
        if let Ok(1..) = receiver.read(&mut [0; 16]) {
            f();
        }
        ControlFlow::Continue(())
    })
}
