//! smol: a future waits for the descriptor or the timeout, and polls.

use std::error::Error;
use std::future;
use std::io;
use std::time::Duration;

use anyloop::EventLoop;
use anyloop_hosts::{Workload, TICK};
use smol::future::{or, yield_now};
use smol::stream::StreamExt;
use smol::{Async, Timer};

/// Runs the loop until it is stopped or out of work.
async fn drive(event_loop: EventLoop) -> io::Result<()> {
    let descriptor = Async::new_nonblocking(event_loop.clone())?;
    while !event_loop.stopped() {
        let timeout = event_loop.next_timeout();
        let due = async {
            match timeout {
                Some(timeout) => _ = Timer::after(timeout).await,
                None => future::pending().await,
            }
            Ok(())
        };
        or(descriptor.readable(), due).await?;
        event_loop.poll();
        if event_loop.next_timeout() == Some(Duration::ZERO) {
            yield_now().await; // a zero timeout would not wait, and other tasks would starve
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let workload = Workload::begin(&event_loop)?;

    let host = smol::LocalExecutor::new();
    smol::block_on(host.run(async {
        let _ticks = host.spawn(Timer::interval(TICK).for_each(|_| workload.tick()));
        drive(event_loop).await
    }))?;
    workload.report()
}
