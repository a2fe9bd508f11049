//! calloop: the loop is an event source, composed of calloop's sources for a descriptor and a timer.

use std::error::Error;
use std::io;
use std::time::Duration;

use anyloop::EventLoop;
use anyloop_hosts::{Workload, TICK};
use calloop::generic::Generic;
use calloop::timer::{TimeoutAction, Timer};
use calloop::{EventSource, Interest, Mode, Poll, PostAction, Readiness, Token, TokenFactory};

/// Anyloop's loop as an event source. Its only event reports that the loop has stopped.
struct Anyloop {
    event_loop: EventLoop,
    descriptor: Generic<EventLoop>,
    timer: Timer,
}

impl Anyloop {
    fn new(event_loop: &EventLoop) -> Self {
        let descriptor = Generic::new(event_loop.clone(), Interest::READ, Mode::Level);
        Self { event_loop: event_loop.clone(), descriptor, timer: Timer::immediate() }
    }
}

impl EventSource for Anyloop {
    type Event = ();
    type Metadata = ();
    type Ret = ();
    type Error = io::Error;

    /// Called when the descriptor is ready or the timer is due.
    fn process_events<F: FnMut((), &mut ())>(
        &mut self,
        _: Readiness,
        _: Token,
        mut callback: F,
    ) -> io::Result<PostAction> {
        self.event_loop.poll();
        if self.event_loop.stopped() {
            callback((), &mut ());
            return Ok(PostAction::Remove);
        }
        // An instant out of range never comes.
        self.timer.set_duration(self.event_loop.next_timeout().unwrap_or(Duration::MAX));
        Ok(PostAction::Reregister)
    }

    fn register(&mut self, poll: &mut Poll, tokens: &mut TokenFactory) -> calloop::Result<()> {
        self.descriptor.register(poll, tokens)?;
        self.timer.register(poll, tokens)
    }

    /// Only the deadline has changed. The tokens of the two sources are not used.
    fn reregister(&mut self, poll: &mut Poll, tokens: &mut TokenFactory) -> calloop::Result<()> {
        self.timer.reregister(poll, tokens)
    }

    fn unregister(&mut self, poll: &mut Poll) -> calloop::Result<()> {
        self.descriptor.unregister(poll)?;
        self.timer.unregister(poll)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let mut workload = Workload::begin(&event_loop)?;

    let mut host = calloop::EventLoop::<Workload>::try_new()?;
    let signal = host.get_signal();
    let sources = host.handle();
    sources.insert_source(Anyloop::new(&event_loop), move |(), (), _| signal.stop())?;
    sources.insert_source(Timer::from_duration(TICK), |_, (), workload| {
        workload.tick();
        TimeoutAction::ToDuration(TICK)
    })?;

    host.run(None, &mut workload, |_| ())?;
    workload.report()
}
