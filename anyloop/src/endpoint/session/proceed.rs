//! What had to be left: by a closed gate, by a pause, or for a verdict.
//!
//! The end of the stream waits behind it, and the end of the connection is told last of all.

use std::hint::cold_path;
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyloop_proto::{Input, Instant};

use super::super::gate::Gate;
use super::super::handler::Handler;
use super::super::io::{Deadline, End, Scratch};
use super::super::line::{Line, TransportRear};
use super::Session;
use crate::transport::Transport;

/// Those who can be stopped, and take turns to go on.
const TURNS: [Turn; 3] = [Turn::Commands, Turn::Input, Turn::Timers];

#[derive(Clone, Copy)]
enum Turn {
    Commands,
    Input,
    Timers,
}

impl<H: Handler> Session<H> {
    /// As [`feed`](Self::feed), but takes everything: what cannot be taken in now is kept for
    /// [`proceed`](Self::proceed).
    #[inline(never)]
    pub(crate) fn feed_all<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        bytes: &mut [u8],
        now: Instant,
    ) {
        if !self.io.has_unread() && self.wants_input() {
            let left = self.take_in(transport, scratch, bytes, now);
            self.keep(&bytes[bytes.len() - left..]);
        } else if self.io.has_unread() {
            self.io.extras().unread.push(bytes);
            self.take_in_unread(transport, scratch, now);
        } else {
            self.keep(bytes);
        }
        self.settle(transport, scratch, now);
    }

    /// The same for a session that [is plain](Self::is_plain). Returns whether it still is; and then what
    /// it has sent is left in the cork, for the transport to write, and to [say so](Self::end_flush) if
    /// it could not write all of it.
    #[inline(always)]
    pub(crate) fn feed_plain<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        bytes: &mut [u8],
        now: Instant,
    ) -> bool {
        let Scratch { cork, pool, gate, .. } = scratch;
        let mut input = Input::with_pool(bytes, pool);
        let mut rear = TransportRear::new(transport, None);
        let mut waiting = 0;
        let panic = catch_unwind(AssertUnwindSafe(|| {
            let mut line = Line::new(cork, &mut rear, &mut waiting);
            self.process(&mut input, gate, &mut line, now);
        }));
        let left = input.len();
        if left == 0 && panic.is_ok() && rear.is_untouched() && self.is_plain() {
            forget(rear); // there is nothing in it to be dropped, as the compiler does not see
            self.settle_plain(transport);
            return true;
        }
        cold_path();
        // Completions are program code as well.
        let flushed = catch_unwind(AssertUnwindSafe(|| rear.flush_all(cork)));
        for panic in [panic, flushed].into_iter().filter_map(Result::err) {
            self.io.put_panic(panic);
        }
        let (backlog, error) = rear.into_parts();
        self.end_work(transport, backlog, error);
        self.keep(&bytes[bytes.len() - left..]);
        self.settle(transport, scratch, now);
        self.is_plain()
    }

    /// The transport has written so much of it, or has failed.
    #[cold]
    pub(crate) fn end_flush<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        written: Result<usize, T::Error>,
        now: Instant,
    ) {
        let mut rear = TransportRear::new(transport, None);
        rear.end_flush(&mut scratch.cork, written);
        let (backlog, error) = rear.into_parts();
        self.end_work(transport, backlog, error);
        self.settle(transport, scratch, now);
    }

    /// Goes on with everything that was left, as far as the gate lets it.
    pub(crate) fn proceed<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        now: Instant,
    ) {
        self.io.interrupted = false;
        if self.owes_open(transport, scratch, now) {
            return self.settle(transport, scratch, now);
        }
        let first = self.io.extras.as_deref().map_or(0, |extras| extras.turn);
        for turn in (first..first + 3).map(|turn| turn % 3) {
            let before = scratch.gate.called();
            match TURNS[usize::from(turn)] {
                Turn::Commands if !self.has_seat() => {}
                Turn::Commands => {
                    let Scratch { cork, gate, .. } = scratch;
                    self.work(transport, cork, |session, line| session.obey_all(gate, line, now));
                }
                Turn::Input => self.take_in_unread(transport, scratch, now),
                // What the transport was told to wait for is its own affair.
                Turn::Timers if self.next_deadline() > Deadline::new(Some(now)) => {}
                Turn::Timers => {
                    let Scratch { cork, gate, .. } = scratch;
                    self.work(transport, cork, |session, line| session.run_timers(gate, line, now));
                }
            }
            if self.io.interrupted {
                // Who has had his turn comes last the next time, so that none of them starves.
                let moved = scratch.gate.called() > before;
                if let Some(extras) = self.io.extras.as_deref_mut() {
                    extras.turn = if moved { (turn + 1) % 3 } else { turn };
                }
                break;
            }
        }
        self.settle(transport, scratch, now);
    }

    /// Whether the gate has stopped something that could go on now.
    #[cfg(test)]
    pub(super) const fn is_interrupted(&self) -> bool {
        self.io.interrupted
    }

    /// Whether input was received that could not be taken in yet.
    pub(crate) fn has_unread(&self) -> bool {
        self.io.has_unread()
    }

    /// Whether [`proceed`](Self::proceed) would find anything to do.
    pub(crate) fn wants_to_proceed(&self) -> bool {
        self.io.interrupted || (self.io.has_unread() && self.wants_input())
    }

    /// Takes in what was received. Returns how many bytes of it are left.
    pub(super) fn take_in<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        bytes: &mut [u8],
        now: Instant,
    ) -> usize {
        let Scratch { cork, pool, gate, .. } = scratch;
        let mut input = Input::with_pool(bytes, pool);
        self.work(transport, cork, |session, line| session.process(&mut input, gate, line, now));
        input.len()
    }

    /// The same with what was kept, and with what the receiver itself may still hold.
    fn take_in_unread<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        now: Instant,
    ) {
        if !self.wants_input() {
            return;
        }
        let mut unread = match self.io.extras.as_deref_mut() {
            Some(extras) => std::mem::take(&mut extras.unread),
            None => Default::default(),
        };
        let left = {
            let at = unread.at;
            self.take_in(transport, scratch, &mut unread.bytes[at..], now)
        };
        unread.keep(left);
        if left > 0 {
            self.io.extras().unread = unread;
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() && !self.discards_input() {
            self.io.extras().unread.push(bytes);
        }
    }

    /// Calls [`Handler::open`] if that is still to be done. Returns whether it still is.
    fn owes_open<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        now: Instant,
    ) -> bool {
        if self.io.owes_open {
            let Scratch { cork, gate, .. } = scratch;
            self.work(transport, cork, |session, line| _ = session.begin(gate, line, now));
        }
        self.io.owes_open
    }

    /// Does what handles have asked for, in order.
    pub(super) fn obey_all(&mut self, gate: &mut Gate, line: &mut Line<'_>, now: Instant) {
        if !self.begin(gate, line, now) {
            return;
        }
        let Some(seat) = self.io.present_seat().map(Arc::clone) else { return };
        let (mut commands, pressed) = seat.take();
        self.io.high |= pressed;
        self.io.restless |= pressed || !commands.is_empty(); // the handles are to know what waits then
        loop {
            if commands.next_calls() && !gate.pass() {
                commands.put_back();
                return self.io.interrupt();
            }
            let Some(command) = commands.next() else { return };
            self.obey(command, line, now);
            if !self.begin(gate, line, now) {
                commands.put_back();
                return;
            }
        }
    }

    /// Drops input of which nothing will be made, and passes on the end of the stream that waited
    /// behind it.
    pub(super) fn end_input(&mut self) {
        let discards = self.discards_input();
        let Some(extras) = self.io.extras.as_deref_mut() else { return };
        if discards {
            extras.unread = Default::default();
        }
        let waits = match extras.end {
            None => return,
            Some(End::Eof) => self.io.interrupted || self.io.has_unread(),
            Some(End::Error(_)) => self.wants_to_proceed(),
        };
        if waits {
            return;
        }
        match self.io.extras().end.take() {
            Some(End::Eof) => self.end_of_stream(),
            Some(End::Error(error)) => self.transport_failed(error),
            None => {}
        }
    }
}
