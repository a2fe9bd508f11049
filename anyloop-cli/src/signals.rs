//! Reacts to SIGINT, SIGTERM and SIGHUP.

use std::fs;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyloop::EventLoop;
use anyloop::event_loop::{Watch, WatchMode};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::{flag, low_level};

/// A signal that ends the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndSignal {
    /// SIGINT or SIGTERM.
    Terminate,
    /// SIGHUP: the terminal was closed.
    HangUp,
}

/// Calls `f` in the loop at the first SIGINT or SIGTERM, unless the watch is cancelled first. The second
/// signal has its default effect: it ends the process.
pub(crate) fn on_signal(
    event_loop: &EventLoop,
    f: impl FnOnce(EndSignal) + Send + 'static,
) -> io::Result<Watch> {
    Signals::new()?.watch(event_loop, f)
}

/// As [`on_signal`], and on Linux also at the first SIGHUP, unless SIGHUP is ignored, as after nohup. Further SIGHUPs
/// have no effect: a terminal that is closed sends it more than once.
pub(crate) fn on_signal_or_hang_up(
    event_loop: &EventLoop,
    f: impl FnOnce(EndSignal) + Send + 'static,
) -> io::Result<Watch> {
    let signals = Signals::new()?;
    if !ignores_hang_up() {
        signals.add_hang_up()?;
    }
    signals.watch(event_loop, f)
}

/// Signals that are reported through a pair of sockets.
struct Signals {
    receiver: UnixStream,
    sender: UnixStream,
    /// A signal has arrived: the next SIGINT or SIGTERM ends the process.
    arrived: Arc<AtomicBool>,
    /// SIGHUP has arrived.
    hung_up: Arc<AtomicBool>,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let (receiver, sender) = UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        let (arrived, hung_up) = (Arc::new(AtomicBool::new(false)), Arc::default());
        for signal in [SIGINT, SIGTERM] {
            // In this order, so that the first signal does not see the flag that it sets itself.
            flag::register_conditional_default(signal, arrived.clone())?;
            flag::register(signal, arrived.clone())?;
            low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { receiver, sender, arrived, hung_up })
    }

    fn add_hang_up(&self) -> io::Result<()> {
        flag::register(SIGHUP, self.arrived.clone())?;
        flag::register(SIGHUP, self.hung_up.clone())?;
        low_level::pipe::register(SIGHUP, self.sender.try_clone()?).map(|_| ())
    }

    fn watch(
        self,
        event_loop: &EventLoop,
        f: impl FnOnce(EndSignal) + Send + 'static,
    ) -> io::Result<Watch> {
        let (hung_up, mut f) = (self.hung_up, Some(f));
        event_loop.watch(self.receiver, WatchMode::Read, move |receiver, _| {
            let Ok(1..) = receiver.read(&mut [0; 16]) else { return ControlFlow::Continue(()) };
            let signal = match hung_up.load(Ordering::Relaxed) {
                true => EndSignal::HangUp,
                false => EndSignal::Terminate,
            };
            if let Some(f) = f.take() {
                f(signal);
            }
            ControlFlow::Break(())
        })
    }
}

/// Whether SIGHUP is ignored. Only Linux shows it. Elsewhere this is true: SIGHUP keeps its effect, and nohup works.
fn ignores_hang_up() -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| (mask >> (SIGHUP - 1)) & 1 == 1)
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
