//! poll(2): a program that polls its own descriptors and the loop's.

use std::error::Error;
use std::io::{ErrorKind, Read};
use std::time::Duration;

use anyloop::EventLoop;
use anyloop_hosts::{Workload, ticker};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let workload = Workload::begin(&event_loop)?;
    let mut ticker = ticker()?;

    while !event_loop.stopped() {
        // Read the timeout before each wait. Without one, wait for the descriptors alone.
        let timeout = event_loop.next_timeout().map(Timespec::try_from).transpose()?;
        let mut descriptors =
            [PollFd::new(&event_loop, PollFlags::IN), PollFd::new(&ticker, PollFlags::IN)];
        match poll(&mut descriptors, timeout.as_ref()).map_err(|error| error.kind()) {
            Ok(_) | Err(ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.to_string().into()),
        }
        let is_ready = descriptors.map(|descriptor| !descriptor.revents().is_empty());

        if is_ready[0] || event_loop.next_timeout() == Some(Duration::ZERO) {
            event_loop.poll();
        }
        if is_ready[1] {
            ticker.read_exact(&mut [0; 8])?;
            workload.tick();
        }
    }
    workload.report()
}
