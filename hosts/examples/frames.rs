//! A game: a loop over frames, which gives the network a part of each.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use anyloop::EventLoop;
use anyloop_hosts::Conversation;
use rustix::time::{ClockId, clock_gettime};

/// A frame takes so long.
const FRAME: Duration = Duration::from_millis(16);

/// Of which the network gets so much.
const BUDGET: Duration = Duration::from_millis(2);

/// And so many handlers.
const HANDLERS: u64 = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let conversation = Conversation::begin(&event_loop)?;

    let mut begin = Instant::now();
    while !event_loop.stopped() {
        let before = processor_time()?;
        event_loop.poll_budget(HANDLERS, Some(begin + BUDGET));
        // The last handler may have begun just in time. What other programs take does not count here.
        assert!(processor_time()? - before < FRAME, "the frame was overrun");
        // ... move the world, and draw it
        conversation.tick();

        begin = (begin + FRAME).max(Instant::now());
        thread::sleep(begin.saturating_duration_since(Instant::now()));
    }
    conversation.report()
}

/// What this thread has had of the processors.
fn processor_time() -> Result<Duration, Box<dyn Error>> {
    Ok(clock_gettime(ClockId::ThreadCPUTime).try_into()?)
}
