//! Tokio: a task waits for the descriptor or the timeout, and polls.

use std::error::Error;
use std::future;
use std::io;
use std::time::Duration;

use anyloop::EventLoop;
use anyloop_hosts::{Workload, TICK};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::{interval, sleep};

/// Runs the loop until it is stopped or out of work.
async fn drive(event_loop: EventLoop) -> io::Result<()> {
    // SAFETY: a loop keeps its descriptor open until its last handle is dropped, and the owner of the watch
    // owns this handle.
    let descriptor =
        unsafe { AsyncFd::register_with_interest(event_loop.clone(), Interest::READABLE)? };
    while !event_loop.stopped() {
        let timeout = event_loop.next_timeout();
        let due = async {
            match timeout {
                Some(timeout) => sleep(timeout).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            ready = descriptor.readable() => {
                let mut ready = ready?;
                event_loop.poll();
                // Tokio is edge-triggered, so the readiness is cleared only when no work is left. Later
                // work makes another edge.
                if event_loop.next_timeout() != Some(Duration::ZERO) {
                    ready.clear_ready();
                }
            }
            () = due => { event_loop.poll(); }
        }
        if event_loop.next_timeout() == Some(Duration::ZERO) {
            yield_now().await; // a zero timeout would not wait, and other tasks would starve
        }
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let workload = Workload::begin(&event_loop)?;

    let mut driver = tokio::spawn(drive(event_loop));
    let mut ticks = interval(TICK);
    loop {
        tokio::select! {
            _ = ticks.tick() => workload.tick(),
            ended = &mut driver => break ended??,
        }
    }
    workload.report()
}
