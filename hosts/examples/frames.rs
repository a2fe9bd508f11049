//! A game loop that gives the network a part of each frame.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use anyloop::EventLoop;
use anyloop_hosts::Workload;

/// The duration of a frame.
const FRAME: Duration = Duration::from_millis(16);

/// The time in each frame for the network.
const BUDGET: Duration = Duration::from_millis(2);

/// The number of handlers in each frame.
const HANDLERS: u64 = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let workload = Workload::begin(&event_loop)?;

    let mut begin = Instant::now();
    while !event_loop.stopped() {
        let handlers = event_loop.poll_budget(HANDLERS, Some(begin + BUDGET));
        assert!(handlers as u64 <= HANDLERS, "more handlers than the frame has room for");
        // ... update and draw the world
        workload.tick();

        begin = (begin + FRAME).max(Instant::now());
        thread::sleep(begin.saturating_duration_since(Instant::now()));
    }
    workload.report()
}
