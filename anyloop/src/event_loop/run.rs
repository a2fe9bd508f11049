//! The run calls of a loop.

use std::panic::resume_unwind;
use std::time::Duration;

use super::engine::Engine;
use super::kind::LoopKind;
use super::runner::{Bounds, Runner, Wait};

impl<K: LoopKind> Engine<K> {
    pub(crate) fn run(&self) -> usize {
        self.drive(Bounds { max_calls: u64::MAX, until: None, wait: Wait::Forever })
    }

    pub(crate) fn run_one(&self) -> usize {
        self.drive(Bounds { max_calls: 1, until: None, wait: Wait::Forever })
    }

    pub(crate) fn run_until(&self, end: std::time::Instant) -> usize {
        self.drive(Bounds { max_calls: u64::MAX, until: None, wait: Wait::Until(end) })
    }

    pub(crate) fn run_for(&self, time: Duration) -> usize {
        match std::time::Instant::now().checked_add(time) {
            Some(end) => self.run_until(end),
            None => self.run(), // an instant cannot represent the end
        }
    }

    pub(crate) fn poll(&self) -> usize {
        self.poll_budget(u64::MAX, None)
    }

    pub(crate) fn poll_one(&self) -> usize {
        self.poll_budget(1, None)
    }

    pub(crate) fn poll_budget(&self, handlers: u64, until: Option<std::time::Instant>) -> usize {
        self.drive(Bounds { max_calls: handlers, until, wait: Wait::No })
    }

    /// Runs what is ready, within these bounds. Returns how many handlers ran.
    fn drive(&self, bounds: Bounds) -> usize {
        self.control.stop_if_out_of_work();
        if self.control.is_stopped() {
            self.run_stopped();
            return 0;
        }
        let mut runner = Runner::enter(self);
        let panic = runner.run(bounds).err();
        let called = runner.buffers.as_ref().map_or(0, |buffers| buffers.for_driver.budget.spent());
        drop(runner);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        usize::try_from(called).unwrap_or(usize::MAX)
    }
}
