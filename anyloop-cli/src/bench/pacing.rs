//! Waits with the precision that a rate needs: the loop's own wait has steps of a millisecond, this one of nanoseconds.

use std::num::NonZeroU64;
use std::os::fd::AsFd;

use anyloop::EventLoop;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::set_current_timer_slack;

/// Runs a loop until it is out of work.
pub(super) fn drive(event_loop: &EventLoop) {
    let _ = set_current_timer_slack(NonZeroU64::new(1)); // else the system may wake it 50 µs later
    loop {
        event_loop.poll();
        if event_loop.stopped() {
            return;
        }
        let timeout = event_loop.next_timeout().and_then(|time| Timespec::try_from(time).ok());
        // Whatever ends the wait, the loop finds out what there is to do.
        let _ = poll(&mut [PollFd::new(&event_loop.as_fd(), PollFlags::IN)], timeout.as_ref());
    }
}
