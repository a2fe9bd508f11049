//! A connection in the loop.

use std::hint::cold_path;
use std::io::{self, ErrorKind, IoSliceMut};
use std::marker::PhantomData;

use anyloop_proto::{Instant, State};

use super::stream::Stream;
use super::transport::Socket;
use crate::endpoint::{Handler, Scratch, Session};
use crate::event_loop::{Buffers, Events, Kind, Next, Source, Turn};
use crate::transport::Transport;

/// A turn reads no more than about this, however much there is: the others wait.
const READ_PER_TURN: usize = 1 << 20;

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
        let Turn { engine, token, events, kept, deadline, now, buffers } = turn;
        #[cfg_attr(not(feature = "tracing"), expect(clippy::let_unit_value))]
        let _span = crate::log::in_connection(token.index);
        *kept = *events; // those that it makes use of are taken off as it does
        let mut socket = Socket {
            stream: &mut self.stream,
            ready: kept,
            deadline,
            token: *token,
            remote: engine.remote(),
            peer: None,
            kind: PhantomData,
        };
        let next = serve(&mut self.session, &mut socket, *events, buffers, *now);
        *kept = kept.only(Events::READABLE | Events::CLOSED);
        next
    }
}

/// Does everything that there is to do for a connection.
#[inline(always)]
fn serve<K: Kind, H: Handler>(
    session: &mut Session<H>,
    socket: &mut Socket<'_, K>,
    events: Events,
    buffers: &mut Buffers,
    now: Instant,
) -> Next<K> {
    let before = session.state();
    let of_socket = Events::READABLE | Events::WRITABLE | Events::CLOSED;
    let mut plain = session.is_plain();
    if !plain || events.without(of_socket) != Events::NONE {
        cold_path();
        answer_the_rest(session, socket, events, buffers, now);
        plain = session.is_plain();
    }
    let mut more = false;
    if socket.ready.contains(Events::READABLE) {
        (more, plain) = read(session, socket, buffers, now, plain);
    }
    if plain && before == State::Open {
        return if more { Next::Later } else { Next::Wait };
    }
    cold_path();
    let stands_still = !takes_input(session) && !session.wants_to_proceed();
    if stands_still && !session.is_over() && socket.ready.contains(Events::CLOSED) {
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
    events: Events,
    buffers: &mut Buffers,
    now: Instant,
) {
    // Each is taken off before it is served, so that a panic loses none of the others.
    if !session.has_started() {
        session.start(socket, &mut buffers.scratch, now);
    }
    if events.contains(Events::WOKEN) {
        *socket.ready = socket.ready.without(Events::WOKEN);
        take_mail(session, socket, &mut buffers.scratch, now);
    }
    if session.wants_to_proceed() {
        session.proceed(socket, &mut buffers.scratch, now);
    }
    if events.contains(Events::DEADLINE) {
        // Behind what has arrived: what came in time counts.
        if socket.ready.contains(Events::READABLE) {
            read_first(session, socket, buffers, now);
        }
        *socket.ready = socket.ready.without(Events::DEADLINE);
        session.handle_timeout(socket, &mut buffers.scratch, now);
    }
    if session.buffered_amount() > 0 && socket.ready.contains(Events::WRITABLE) {
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

/// Reads what there is. Returns whether there may be more, for another turn, and whether the session
/// [is plain](Session::is_plain), as which it was `plain` before.
#[inline(always)] // for the sake of its system calls
fn read<K: Kind, H: Handler>(
    session: &mut Session<H>,
    socket: &mut Socket<'_, K>,
    buffers: &mut Buffers,
    now: Instant,
    mut plain: bool,
) -> (bool, bool) {
    let mut total = 0;
    while plain || takes_input(session) {
        if total >= READ_PER_TURN {
            return (true, plain);
        }
        let Buffers { read, scratch, .. } = buffers;
        let (found, lent) = match session.want() {
            None => {
                let len = read.len();
                (find(socket, len, |stream| stream.read(read)), 0)
            }
            // The rest of a large message goes to where it will lie, and only what follows it does not.
            Some(room) => {
                cold_path();
                let (lent, len) = (room.len(), room.len() + read.len());
                let mut slices = [IoSliceMut::new(room), IoSliceMut::new(read)];
                (find(socket, len, |stream| stream.read_vectored(&mut slices)), lent)
            }
        };
        match found {
            Ok(Found::Some(n) | Found::All(n)) => {
                total += n;
                if lent > 0 {
                    cold_path();
                    session.filled(n.min(lent));
                }
                let bytes = &mut read[..n.saturating_sub(lent)];
                plain = match plain {
                    true => session.feed_plain(socket, scratch, bytes, now),
                    false => {
                        session.feed_all(socket, scratch, bytes, now);
                        session.is_plain()
                    }
                };
                if matches!(found, Ok(Found::All(_))) {
                    return (false, plain);
                }
            }
            Ok(Found::Nothing) => return (false, plain),
            Ok(Found::End) => {
                cold_path();
                session.handle_eof(socket, scratch, now);
                return (false, session.is_plain());
            }
            Err(error) => {
                cold_path();
                let kind = Socket::<K>::classify(&error);
                session.handle_error_with(socket, scratch, kind, Box::new(error), now);
                return (false, session.is_plain());
            }
        }
    }
    (false, plain)
}

/// Reads before something else is done.
fn read_first<K: Kind, H: Handler>(
    session: &mut Session<H>,
    socket: &mut Socket<'_, K>,
    buffers: &mut Buffers,
    now: Instant,
) {
    read(session, socket, buffers, now, session.is_plain());
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
        *socket.ready = socket.ready.without(Events::READABLE | Events::CLOSED);
        let kind = Socket::<K>::classify(&error);
        session.handle_error_with(socket, &mut buffers.scratch, kind, Box::new(error), now);
    }
}

/// Whether anything becomes of input, if only that it is thrown away.
fn takes_input<H: Handler>(session: &Session<H>) -> bool {
    let wanted = session.wants_input() || session.discards_input();
    wanted && !session.has_unread() && !session.is_over()
}

/// One read, and what it says of the stream.
#[inline(always)]
fn find<K: Kind>(
    socket: &mut Socket<'_, K>,
    len: usize,
    read: impl FnOnce(&mut Stream) -> io::Result<usize>,
) -> io::Result<Found> {
    let Socket { stream, ready, .. } = socket;
    let input = Events::READABLE | Events::CLOSED;
    match read(stream) {
        Ok(0) => {
            cold_path();
            **ready = ready.without(input);
            Ok(Found::End)
        }
        // Where the stream has ended as well, that will not be told again.
        Ok(n) if n < len && stream.short_read_is_all() && !ready.contains(Events::CLOSED) => {
            **ready = ready.without(Events::READABLE);
            Ok(Found::All(n))
        }
        Ok(n) => Ok(Found::Some(n)),
        // Then it has not ended, whatever was told of it.
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            cold_path();
            **ready = ready.without(input);
            Ok(Found::Nothing)
        }
        Err(error) => {
            **ready = ready.without(input);
            Err(error)
        }
    }
}
