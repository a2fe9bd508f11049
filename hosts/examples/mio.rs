//! mio: edge-triggered, so the program polls until nothing is left.

use std::error::Error;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyloop::EventLoop;
use anyloop_hosts::{Workload, TICK};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

const ANYLOOP: Token = Token(0);

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let workload = Workload::begin(&event_loop)?;

    let (mut host, mut events) = (Poll::new()?, Events::with_capacity(64));
    let descriptor = event_loop.as_raw_fd();
    host.registry().register(&mut SourceFd(&descriptor), ANYLOOP, Interest::READABLE)?;

    let mut next_tick = Instant::now() + TICK;
    while !event_loop.stopped() {
        // mio has no timers: the program's own timer is a deadline as well.
        let tick = next_tick.saturating_duration_since(Instant::now());
        let timeout = event_loop.next_timeout().map_or(tick, |timeout| timeout.min(tick));
        match host.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => events.clear(),
            result => result?,
        }
        // Zero: a timer is due, or work is left, which need not make a new edge.
        let is_ready = events.iter().any(|event| event.token() == ANYLOOP)
            || event_loop.next_timeout() == Some(Duration::ZERO);
        if is_ready {
            event_loop.poll();
        }
        if Instant::now() >= next_tick {
            next_tick += TICK;
            workload.tick();
        }
    }
    host.registry().deregister(&mut SourceFd(&descriptor))?;
    workload.report()
}
