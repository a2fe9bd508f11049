//! epoll: the loop's descriptor is one of several, level-triggered.

use std::error::Error;
use std::io::Read;
use std::time::Duration;

use anyloop::EventLoop;
use anyloop_hosts::{Workload, ticker};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

const ANYLOOP: u64 = 0;
const TICKER: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let workload = Workload::begin(&event_loop)?;
    let mut ticker = ticker()?;

    let host = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let (anyloop, tick) = (epoll::EventData::new_u64(ANYLOOP), epoll::EventData::new_u64(TICKER));
    epoll::add(&host, &event_loop, anyloop, epoll::EventFlags::IN)?;
    epoll::add(&host, &ticker, tick, epoll::EventFlags::IN)?;

    let mut events = Vec::with_capacity(8);
    while !event_loop.stopped() {
        let timeout = event_loop.next_timeout().map(Timespec::try_from).transpose()?;
        events.clear();
        match epoll::wait(&host, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            match event.data.u64() {
                ANYLOOP => _ = event_loop.poll(),
                _ => {
                    ticker.read_exact(&mut [0; 8])?;
                    workload.tick();
                }
            }
        }
        // Runs what is due, and what this thread has posted since.
        if event_loop.next_timeout() == Some(Duration::ZERO) {
            event_loop.poll();
        }
    }
    epoll::delete(&host, &event_loop)?;
    workload.report()
}
