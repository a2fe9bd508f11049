//! A connection in the loop.

use std::hint::cold_path;
use std::io::{self, ErrorKind, IoSliceMut};

use anyloop_proto::{Instant, State};

use super::transport::Socket;
use crate::endpoint::{Handler, Scratch, Session};
use crate::event_loop::{Buffers, Events, Kind, Next, Source, Stream, Turn};
use crate::transport::Transport;

/// A turn reads no more than about this, however much there is: the others wait.
const READ_PER_TURN: usize = 1 << 20;

/// What happens to sockets.
const OF_SOCKET: Events = Events::READABLE.or(Events::WRITABLE).or(Events::CLOSED);

/// A connection in the loop. An idle one is this and its slot.
#[expect(unnameable_types, reason = "of `Admits`")]
pub struct Connection<H: Handler> {
    session: Session<H>,
    stream: Stream,
}

/// What a read has found.
enum Found {
    /// So much, and perhaps more.
    Some(usize),
    /// So much, and that was all.
    All(usize),
    Nothing,
    End,
}

impl<H: Handler> Connection<H> {
    pub(super) const fn new(session: Session<H>, stream: Stream) -> Self {
        Self { session, stream }
    }
}

impl<K: Kind, H: Handler> Source<K> for Connection<H> {
    fn run(&mut self, turn: &mut Turn<'_, K>) -> Next<K> {
        let Self { session, stream } = self;
        #[cfg_attr(not(feature = "tracing"), expect(clippy::let_unit_value))]
        let _span = crate::log::in_connection(turn.visit.token.index);
        turn.visit.kept = turn.visit.events; // those that it makes use of are taken off as it does
        let first = turn.read.take();
        let (mut socket, buffers, now) = socket(stream, turn);
        let next = serve(session, &mut socket, first, buffers, now);
        turn.visit.kept = turn.visit.kept.only(Events::READABLE | Events::CLOSED);
        next
    }

    fn input(&self, events: Events) -> Option<&Stream> {
        let reads = events.contains(Events::READABLE)
            && events.without(Events::READABLE | Events::WRITABLE) == Events::NONE;
        (reads && self.session.is_idle() && self.stream.short_read_is_all()).then_some(&self.stream)
    }

    fn answer(&mut self, turn: &mut Turn<'_, K>, read: usize) -> Option<&Stream> {
        let Self { session, stream } = self;
        #[cfg_attr(not(feature = "tracing"), expect(clippy::let_unit_value))]
        let _span = crate::log::in_connection(turn.visit.token.index);
        let (mut socket, buffers, now) = socket(stream, turn);
        let Buffers { read: bytes, scratch } = buffers;
        if session.feed_plain(&mut socket, scratch, &mut bytes[..read], now) {
            return Some(stream);
        }
        cold_path();
        let next = conclude(session, &mut socket, State::Open, false, buffers, now);
        turn.visit.kept = turn.visit.kept.only(Events::READABLE | Events::CLOSED);
        turn.next = next;
        None
    }

    fn end_output(&mut self, turn: &mut Turn<'_, K>, written: io::Result<usize>) -> Next<K> {
        let Self { session, stream } = self;
        #[cfg_attr(not(feature = "tracing"), expect(clippy::let_unit_value))]
        let _span = crate::log::in_connection(turn.visit.token.index);
        let before = session.state();
        let (mut socket, buffers, now) = socket(stream, turn);
        let written = socket.end_write(written);
        session.end_flush(&mut socket, &mut buffers.scratch, written, now);
        conclude(session, &mut socket, before, false, buffers, now)
    }
}

/// The socket of a connection, as its session has it in this turn, and what the turn lends.
fn socket<'s, K: Kind>(
    stream: &'s mut Stream,
    turn: &'s mut Turn<'_, K>,
) -> (Socket<'s, K>, &'s mut Buffers, Instant) {
    let Turn { engine, visit, buffers, .. } = turn;
    let now = visit.now;
    (Socket { stream, visit, engine, peer: None }, buffers, now)
}

/// Does everything that there is to do for a connection. The loop has made the `first` read, or none.
fn serve<K: Kind, H: Handler>(
    session: &mut Session<H>,
    socket: &mut Socket<'_, K>,
    first: Option<io::Result<usize>>,
    buffers: &mut Buffers,
    now: Instant,
) -> Next<K> {
    let before = session.state();
    let first = first.map(|read| judge(socket, buffers.read.len(), read));
    if !session.is_plain() || socket.visit.kept.without(OF_SOCKET) != Events::NONE {
        answer_the_rest(session, socket, buffers, now);
    }
    let reads = first.is_some() || socket.visit.kept.contains(Events::READABLE);
    let more = reads && read(session, socket, first, buffers, now);
    conclude(session, socket, before, more, buffers, now)
}

/// What becomes of the connection after a turn that began with this state.
#[cold]
#[inline(never)]
fn conclude<K: Kind, H: Handler>(
    session: &mut Session<H>,
    socket: &mut Socket<'_, K>,
    before: State,
    more: bool,
    buffers: &mut Buffers,
    now: Instant,
) -> Next<K> {
    if session.is_plain() && before == State::Open {
        return if more { Next::Later } else { Next::Wait };
    }
    let stands_still = !takes_input(session) && !session.wants_to_proceed();
    if stands_still && !session.is_over() && socket.visit.kept.contains(Events::CLOSED) {
        look_for_reset(session, socket, buffers, now);
    }
    // One that is over may have panicked when it was about to say so.
    let state = session.state();
    if (state != before || session.is_over())
        && let Some(roster) = session.roster()
    {
        roster.publish(socket.key(), state);
    }
    if session.buffered_amount() > 0 {
        take_seat(session, socket); // who gets a handle later must see how much waits
    }
    match () {
        () if session.is_over() => Next::Done,
        () if session.wants_to_proceed() => Next::Again,
        () if more => Next::Later,
        () => Next::Wait,
    }
}

/// Everything but what has arrived.
#[cold]
fn answer_the_rest<K: Kind, H: Handler>(
    session: &mut Session<H>,
    socket: &mut Socket<'_, K>,
    buffers: &mut Buffers,
    now: Instant,
) {
    let events = socket.visit.kept;
    // Each is taken off before it is served, so that a panic loses none of the others.
    if !session.has_started() {
        session.start(socket, &mut buffers.scratch, now);
    }
    if events.contains(Events::WOKEN) {
        socket.visit.kept = socket.visit.kept.without(Events::WOKEN);
        take_mail(session, socket, &mut buffers.scratch, now);
    }
    if session.wants_to_proceed() {
        session.proceed(socket, &mut buffers.scratch, now);
    }
    if events.contains(Events::DEADLINE) {
        // Behind what has arrived: what came in time counts.
        if socket.visit.kept.contains(Events::READABLE) {
            read_first(session, socket, buffers, now);
        }
        socket.visit.kept = socket.visit.kept.without(Events::DEADLINE);
        session.handle_timeout(socket, &mut buffers.scratch, now);
    }
    if session.buffered_amount() > 0 && socket.visit.kept.contains(Events::WRITABLE) {
        session.handle_writable(socket, &mut buffers.scratch, now);
    }
}

/// Does what handles have asked for.
pub(super) fn take_mail<K: Kind, H: Handler>(
    session: &mut Session<H>,
    socket: &mut Socket<'_, K>,
    scratch: &mut Scratch,
    now: Instant,
) {
    take_seat(session, socket);
    session.drain(socket, scratch, now);
}

/// Has the connection say how it is, to all who have a handle or will have one.
fn take_seat<K: Kind, H: Handler>(session: &mut Session<H>, socket: &Socket<'_, K>) {
    if !session.has_seat()
        && let Some(seat) = session.roster().map(|roster| roster.seat(socket.key()))
    {
        session.adopt(seat);
    }
}

/// Reads what there is, of which this is the `first`, if there was one. Returns whether there may be
/// more, for another turn.
fn read<K: Kind, H: Handler>(
    session: &mut Session<H>,
    socket: &mut Socket<'_, K>,
    mut first: Option<io::Result<Found>>,
    buffers: &mut Buffers,
    now: Instant,
) -> bool {
    let Buffers { read, scratch } = buffers;
    let mut total = 0;
    while first.is_some() || takes_input(session) {
        if total >= READ_PER_TURN {
            return true;
        }
        let mut lent = 0;
        let outstanding = session.outstanding();
        let found = first.take().unwrap_or_else(|| match session.want() {
            None => {
                let result = socket.stream.read(read);
                judge(socket, read.len(), result)
            }
            // The rest of a large message goes to where it will lie, and only what follows it does not.
            Some(room) => {
                lent = room.len();
                let behind = if lent as u64 == outstanding { &mut read[..] } else { &mut [] };
                let len = lent + behind.len();
                let mut slices = [IoSliceMut::new(room), IoSliceMut::new(behind)];
                let result = socket.stream.read_vectored(&mut slices);
                judge(socket, len, result)
            }
        });
        match found {
            Ok(Found::Some(n) | Found::All(n)) => {
                total += n;
                if lent > 0 {
                    session.filled(n.min(lent));
                }
                session.feed_all(socket, scratch, &mut read[..n.saturating_sub(lent)], now);
                if matches!(found, Ok(Found::All(_))) {
                    return false;
                }
            }
            Ok(Found::Nothing) => return false,
            Ok(Found::End) => {
                session.handle_eof(socket, scratch, now);
                return false;
            }
            Err(error) => {
                let kind = Socket::<K>::classify(&error);
                session.handle_error_with(socket, scratch, kind, Box::new(error), now);
                return false;
            }
        }
    }
    false
}

/// Reads before something else is done.
fn read_first<K: Kind, H: Handler>(
    session: &mut Session<H>,
    socket: &mut Socket<'_, K>,
    buffers: &mut Buffers,
    now: Instant,
) {
    read(session, socket, None, buffers, now);
}

/// Nobody reads, and the stream has ended in one way or another: what has arrived before waits, and so
/// does an end of input; a reset does not.
#[cold]
fn look_for_reset<K: Kind, H: Handler>(
    session: &mut Session<H>,
    socket: &mut Socket<'_, K>,
    buffers: &mut Buffers,
    now: Instant,
) {
    if let Some(error) = socket.stream.peek_error() {
        socket.visit.kept = socket.visit.kept.without(Events::READABLE | Events::CLOSED);
        let kind = Socket::<K>::classify(&error);
        session.handle_error_with(socket, &mut buffers.scratch, kind, Box::new(error), now);
    }
}

/// Whether anything becomes of input, if only that it is thrown away.
fn takes_input<H: Handler>(session: &Session<H>) -> bool {
    let wanted = session.wants_input() || session.discards_input();
    wanted && !session.has_unread() && !session.is_over()
}

/// What a read of at most `len` bytes says of the stream.
fn judge<K: Kind>(
    socket: &mut Socket<'_, K>,
    len: usize,
    result: io::Result<usize>,
) -> io::Result<Found> {
    let Socket { stream, visit, .. } = socket;
    let input = Events::READABLE | Events::CLOSED;
    match result {
        Ok(0) => {
            cold_path();
            visit.kept = visit.kept.without(input);
            Ok(Found::End)
        }
        // Where the stream has ended as well, that will not be told again.
        Ok(n) if n < len && stream.short_read_is_all() && !visit.kept.contains(Events::CLOSED) => {
            visit.kept = visit.kept.without(Events::READABLE);
            Ok(Found::All(n))
        }
        Ok(n) => Ok(Found::Some(n)),
        // Then it has not ended, whatever was told of it.
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            cold_path();
            visit.kept = visit.kept.without(input);
            Ok(Found::Nothing)
        }
        Err(error) => {
            cold_path();
            visit.kept = visit.kept.without(input);
            Err(error)
        }
    }
}
