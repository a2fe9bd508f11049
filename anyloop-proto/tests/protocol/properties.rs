//! Properties of any stream of frames, however it is fragmented, divided into reads and received.

use anyloop_proto::{BufferPool, Cause, Kind, Role, State, Statistics};
use anyloop_testkit::frames::{Frame, close, continuation, frame, other, ping, pong, stream};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::subject::{Reading, Seen, Subject, config};

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Client), Just(Role::Server)]
}

/// Payloads: mostly small, some large enough to be received in place.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "\\PC{0,40}".prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 0..300),
        1 => (8000usize..20_000, any::<char>()).prop_map(|(len, c)| c.to_string().repeat(len / c.len_utf8()).into_bytes()),
    ]
}

fn control() -> impl Strategy<Value = Frame> {
    (any::<bool>(), vec(any::<u8>(), 0..=125))
        .prop_map(|(asks, payload)| if asks { ping(payload) } else { pong(payload) })
}

/// A message as frames: fragmented anywhere, with control frames between the fragments.
fn message() -> impl Strategy<Value = Vec<Frame>> {
    let cuts = vec((any::<prop::sample::Index>(), prop::option::of(control())), 0..4);
    (prop_oneof![Just(0x1), Just(0x2)], payload(), cuts).prop_map(|(opcode, payload, cuts)| {
        let mut cuts: Vec<_> =
            cuts.into_iter().map(|(at, between)| (at.index(payload.len() + 1), between)).collect();
        cuts.sort_by_key(|(at, _)| *at);
        let mut frames = Vec::new();
        let (mut opcode, mut start) = (opcode, 0);
        for (at, between) in cuts {
            frames.push(frame(opcode, &payload[start..at]).more());
            frames.extend(between);
            (opcode, start) = (0x0, at);
        }
        frames.push(frame(opcode, &payload[start..]));
        frames
    })
}

/// A stream of messages: valid except that text may not be UTF-8, and perhaps with a Close at the end.
fn conversation() -> impl Strategy<Value = Vec<Frame>> {
    let item = prop_oneof![4 => message(), 1 => control().prop_map(|frame| vec![frame])];
    let end = prop_oneof![
        Just(vec![]),
        Just(vec![close(1000, "done")]),
        any::<(u16, String)>()
            .prop_map(|(code, reason)| vec![close(code, anyloop_proto::truncate_reason(&reason))]),
        vec(any::<u8>(), 0..4).prop_map(|payload| vec![frame(0x8, payload)]),
    ];
    (vec(item, 0..8), end).prop_map(|(mut items, end)| {
        items.push(end);
        items.concat()
    })
}

/// Damage to a stream: none, one byte changed, or one byte removed.
#[derive(Clone, Debug)]
enum Damage {
    None,
    Flip(prop::sample::Index, u8),
    Lose(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        Just(Damage::None),
        (any::<prop::sample::Index>(), 1u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        any::<prop::sample::Index>().prop_map(Damage::Lose),
    ]
}

impl Damage {
    /// Damages the header of a frame. Damage to a payload would rarely have an effect.
    fn apply(&self, frames: &[Frame], from: Role) -> Vec<u8> {
        let mut bytes = stream(frames, from);
        let header = |index: &prop::sample::Index| {
            let i = index.index(frames.len() * 4);
            stream(&frames[..i / 4], from).len() + i % 4
        };
        match self {
            Self::Flip(index, bits) if !frames.is_empty() => {
                if let Some(byte) = bytes.get_mut(header(index)) {
                    *byte ^= bits;
                }
            }
            Self::Lose(index) if !frames.is_empty() => {
                let at = header(index);
                if at < bytes.len() {
                    bytes.remove(at);
                }
            }
            _ => {}
        }
        bytes
    }
}

/// The sizes of the parts in which a stream arrives, repeated.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        1 => Just(vec![1]),
        2 => vec(1usize..8, 1..5),
        3 => vec(1usize..6000, 1..5),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Plain,
    Pooled,
    InPlace,
    InPlacePooled,
}

const MODES: [Mode; 4] = [Mode::Plain, Mode::Pooled, Mode::InPlace, Mode::InPlacePooled];

impl Mode {
    fn reading(self) -> Reading {
        match self {
            Self::Plain => Reading::Plain,
            Self::Pooled => Reading::Pooled(BufferPool::new(1 << 20)),
            Self::InPlace => Reading::InPlace(BufferPool::new(0)),
            Self::InPlacePooled => Reading::InPlace(BufferPool::new(1 << 20)),
        }
    }
}

/// All observable effects of a stream of bytes.
#[derive(Debug, PartialEq)]
struct Outcome {
    events: Vec<Seen>,
    failure: Option<(Cause, State, u64)>,
    sent: Vec<u8>,
    state: State,
}

fn run(subject: &mut Subject, bytes: &[u8], cuts: &[usize]) {
    let mut rest = bytes;
    for cut in cuts.iter().cycle() {
        let (now, later) = rest.split_at((*cut).min(rest.len()));
        subject.feed(now);
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
}

fn outcome(subject: Subject) -> Outcome {
    assert!(subject.failures.len() <= 1);
    let failure = subject.failures.first();
    Outcome {
        failure: failure.map(|f| (f.cause(), f.state(), f.messages_before())),
        state: subject.state(),
        events: subject.events,
        sent: subject.out.buffer,
    }
}

/// Joins chunks to messages. The payload of an unfinished message is returned separately, since how
/// much of it is lent before a failure depends on how it arrives.
fn join(events: Vec<Seen>) -> (Vec<Seen>, Vec<u8>) {
    let mut joined = Vec::new();
    let mut unfinished = Vec::new();
    let mut inside = false;
    for event in events {
        let Seen::Chunk { kind, payload, first, last } = event else {
            joined.push(event);
            continue;
        };
        assert_eq!(first, !inside, "exactly the first chunk of a message is marked as first");
        assert!(last || !payload.is_empty(), "only the last chunk may be empty");
        inside = !last;
        unfinished.extend(payload);
        if last {
            let payload = std::mem::take(&mut unfinished);
            joined.push(match kind {
                Kind::Text => Seen::Text(String::from_utf8(payload).expect("checked")),
                Kind::Binary => Seen::Binary(payload),
            });
        }
    }
    (joined, unfinished)
}

fn received(events: &[Seen]) -> Statistics {
    let mut statistics = Statistics::default();
    for event in events {
        let len = match event {
            Seen::Text(text) => text.len(),
            Seen::Binary(bytes) => bytes.len(),
            _ => continue,
        };
        statistics.messages_received += 1;
        statistics.bytes_received += len as u64;
    }
    statistics
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// RFC 6455 §5.4: fragmentation and buffering carry no meaning.
    #[test]
    fn any_chunking_gives_the_same_events(
        role in role(),
        frames in conversation(),
        damage in damage(),
        cuts in cuts(),
    ) {
        let bytes = damage.apply(&frames, other(role));
        let mut whole = Subject::new(role, config(|_| ()));
        whole.feed(&bytes);
        let whole = outcome(whole);
        for mode in MODES {
            for cuts in [&cuts[..], &[usize::MAX]] {
                let mut subject = Subject::new(role, config(|_| ()));
                subject.reading = mode.reading();
                run(&mut subject, &bytes, cuts);
                prop_assert_eq!(&outcome(subject), &whole, "{:?}", mode);
            }
        }
    }

    #[test]
    fn streaming_gives_the_same_messages(
        role in role(),
        frames in conversation(),
        damage in damage(),
        cuts in cuts(),
    ) {
        let bytes = damage.apply(&frames, other(role));
        let mut whole = Subject::new(role, config(|_| ()));
        whole.feed(&bytes);
        let whole = outcome(whole);
        for cuts in [&cuts[..], &[usize::MAX]] {
            let mut streamed = Subject::new(role, config(|config| config.streaming = true));
            run(&mut streamed, &bytes, cuts);
            let streamed = outcome(streamed);
            let (events, rest) = join(streamed.events);
            prop_assert_eq!(&events, &whole.events);
            prop_assert_eq!(streamed.failure, whole.failure);
            prop_assert_eq!(&streamed.sent, &whole.sent);
            prop_assert!(rest.len() <= bytes.len());
        }
    }

    /// Invalid text is lent at most up to its first invalid byte. Byte by byte, all of that is lent;
    /// in larger parts, a prefix of it.
    #[test]
    fn an_unfinished_message_is_lent_up_to_the_first_invalid_byte(
        role in role(),
        text in vec(prop_oneof![9 => Just(b'x'), 1 => any::<u8>()], 0..200),
        cuts in cuts(),
    ) {
        let bytes = frame(0x1, &text).more().bytes(other(role));
        let mut slowly = Subject::new(role, config(|config| config.streaming = true));
        slowly.feed_byte_by_byte(&bytes);
        let mut cut = Subject::new(role, config(|config| config.streaming = true));
        run(&mut cut, &bytes, &cuts);
        let failures = [&slowly, &cut].map(|s| s.failures.clone());
        prop_assert_eq!(&failures[0], &failures[1]);
        let (_, slowly) = join(slowly.events);
        let (_, cut) = join(cut.events);
        prop_assert!(slowly.starts_with(&cut));
        let valid = match failures[0][..] {
            [failure] => match failure.cause() {
                Cause::InvalidUtf8 { at } => at as usize,
                cause => panic!("{cause:?}"),
            },
            _ => text.len(),
        };
        prop_assert_eq!(slowly, &text[..valid]);
    }

    #[test]
    fn messages_that_one_side_sends_are_received_by_the_other(
        role in role(),
        messages in vec((any::<bool>(), payload(), vec(any::<prop::sample::Index>(), 0..4)), 0..6),
        cuts in cuts(),
        streaming in any::<bool>(),
        by_reference in any::<bool>(),
    ) {
        let mut from = Subject::new(role, config(|_| ()));
        from.out.by_reference = by_reference;
        let mut expected = Vec::new();
        for (binary, payload, pieces) in &messages {
            let text = std::str::from_utf8(payload).ok().filter(|_| !binary);
            let kind = if text.is_some() { Kind::Text } else { Kind::Binary };
            if pieces.is_empty() {
                match text {
                    Some(text) => from.send(text).unwrap(),
                    None => from.send(&payload[..]).unwrap(),
                }
            } else {
                let mut ends: Vec<_> =
                    pieces.iter().map(|piece| piece.index(payload.len() + 1)).collect();
                ends.sort_unstable();
                *ends.last_mut().unwrap() = payload.len();
                let Subject { connection, out, .. } = &mut from;
                connection.sender.begin(kind).unwrap();
                let mut start = 0;
                for (i, end) in ends.iter().enumerate() {
                    let last = i == ends.len() - 1;
                    connection.sender.piece(&payload[start..*end], last, out).unwrap();
                    start = *end;
                }
            }
            expected.push(match text {
                Some(text) => Seen::text(text),
                None => Seen::binary(payload),
            });
        }
        let mut to = Subject::new(other(role), config(|config| config.streaming = streaming));
        run(&mut to, &from.out.buffer, &cuts);
        prop_assert_eq!(&to.failures, &[]);
        let (sent, got) = (from.connection.statistics(), to.connection.statistics());
        prop_assert_eq!(sent.messages_sent, got.messages_received);
        prop_assert_eq!(sent.bytes_sent, got.bytes_received);
        let (events, rest) = join(to.events);
        prop_assert_eq!(&rest, &[]);
        prop_assert_eq!(received(&events).bytes_received, got.bytes_received);
        prop_assert_eq!(events, expected);
    }

    #[test]
    fn no_message_is_larger_than_the_limit(
        role in role(),
        frames in conversation(),
        cuts in cuts(),
        limit in prop_oneof![0u64..100, 0u64..20_000],
        streaming in any::<bool>(),
    ) {
        let bytes = stream(&frames, other(role));
        let mut subject = Subject::new(role, config(|config| {
            (config.max_message_size, config.streaming) = (limit, streaming);
        }));
        run(&mut subject, &bytes, &cuts);
        let outcome = outcome(subject);
        let (events, rest) = join(outcome.events);
        prop_assert!(rest.len() as u64 <= limit);
        for event in &events {
            if let Seen::Binary(bytes) = event {
                prop_assert!(bytes.len() as u64 <= limit);
            } else if let Seen::Text(text) = event {
                prop_assert!(text.len() as u64 <= limit);
            }
        }
        // A message within the limit does not fail for its size.
        let mut size = 0;
        let mut largest = 0;
        for frame in frames.iter().filter(|frame| frame.opcode < 8) {
            size = if frame.opcode == 0 { size } else { 0 } + frame.payload.len() as u64;
            largest = largest.max(size);
        }
        let too_big = matches!(outcome.failure, Some((Cause::MessageTooBig { .. }, ..)));
        prop_assert!(!too_big || largest > limit);
        prop_assert!(too_big || outcome.failure.is_some() || largest <= limit);
    }

    /// Random bytes after valid frames, until the connection ends.
    #[test]
    fn random_bytes_do_not_panic(
        role in role(),
        frames in conversation(),
        noise in vec(any::<u8>(), 0..200),
        cuts in cuts(),
        streaming in any::<bool>(),
    ) {
        let bytes = [stream(&frames, other(role)), noise, continuation("x").bytes(other(role))];
        for (i, mode) in MODES.into_iter().enumerate() {
            let mut subject = Subject::new(role, config(|config| config.streaming = streaming));
            subject.reading = mode.reading();
            subject.out.blocked = i % 2 == 0;
            run(&mut subject, &bytes[usize::from(i == 3)..].concat(), &cuts);
            subject.serve_timers();
            subject.writable();
            let _ = subject.close(1000, "");
            subject.eof();
            subject.reset();
            prop_assert_eq!(subject.state(), State::Ended);
            prop_assert!(subject.failures.len() <= 1);
        }
    }
}
