//! Responses to plain HTTP requests whose bodies are sent while the peer reads: from memory, from readers and from
//! writers on other threads (RFC 9112 §6, §7.1).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread;

use anyloop::endpoint::{BodyWriter, Session};
use anyloop::http::{HeaderValue, Response, StatusCode, header};
use anyloop::prelude::*;
use anyloop::proto::handshake::AnswerError;
use anyloop::proto::{Instant, SendQueue, Shutdown, TransportError};
use anyloop::transport::{Buffers, Driver, Server, Transport};

use crate::record::{Log, recording};
use crate::subject::{Subject, seconds, server_config};
use crate::transports::{End, TestTransport, over_each_transport};
use crate::wire;

over_each_transport! {
    a_body_in_memory_is_sent_whole,
    a_reader_of_known_length_is_sent_with_content_length,
    a_reader_of_unknown_length_is_chunked,
    a_body_for_http_1_0_ends_with_the_stream,
    the_response_to_head_is_not_read,
    a_status_without_a_body_does_not_read_it,
    a_response_without_its_body_may_have_the_length_of_it,
    a_body_can_be_the_deferred_answer,
    an_upgrade_can_be_refused_with_a_body,
    a_wrong_content_length_is_an_error_of_the_call,
    a_wrong_content_length_of_an_immediate_answer_is_reported,
    a_reader_that_fails_costs_its_connection,
    a_reader_that_ends_early_costs_its_connection,
    a_reader_that_goes_on_costs_its_connection,
    a_reader_that_panics_costs_its_connection,
    a_writer_on_another_thread_sends_a_body,
    a_writer_may_be_done_before_the_response,
    a_large_piece_of_a_writer_is_split,
    a_writer_that_is_dropped_cuts_the_body,
    a_writer_of_a_body_that_is_not_sent_knows,
    bytes_behind_the_request_are_ignored,
    a_peer_that_ends_its_direction_reads_on,
    a_response_goes_on_when_the_connection_is_to_close,
    a_response_can_be_terminated,
    what_is_sent_to_an_answered_request_is_refused;
    not over sockets:
    thirty_megabytes_at_a_trickle_are_sent,
    a_writer_is_held_back,
    a_peer_that_stops_reading_fails,
    a_writer_has_all_the_time,
    the_close_timeout_counts_from_the_last_byte,
    a_peer_that_leaves_is_reported,
}

#[cfg(feature = "router")]
mod routed {
    use super::*;

    over_each_transport! { a_page_of_a_router_has_a_body }

    fn a_page_of_a_router_has_a_body<C: TestTransport>() {
        let reader = || Body::from_reader(&b"hello"[..], 5);
        let router = Router::new().http("/page", move |_, _| Response::new(reader())).unwrap();
        let mut subject = Subject::<C, _>::server(server_config(), router);
        subject.receive_bytes(GET);
        assert!(subject.end.take_output().ends_with(b"\r\nContent-Length: 5\r\n\r\nhello"));
    }
}

const GET: &str = "GET /page HTTP/1.1\r\nHost: a\r\n\r\n";
const GET_1_0: &str = "GET /page HTTP/1.0\r\n\r\n";
const HEAD: &str = "HEAD /page HTTP/1.1\r\nHost: a\r\n\r\n";

/// Larger than everything that is sent in one turn.
const LARGE: usize = 3 << 20;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

/// A server that gives this answer once, and what its handler has seen.
fn answering<C: TestTransport>(answer: impl Into<Answer>) -> (Subject<C>, Log) {
    answering_with(server_config(), answer)
}

fn answering_with<C: TestTransport>(
    config: ServerConfig,
    answer: impl Into<Answer>,
) -> (Subject<C>, Log) {
    let (log, seen) = (Log::default(), Log::default());
    let answer = Mutex::new(Some(answer.into()));
    let answer = Arc::new(move || answer.lock().unwrap().take().expect("one request"));
    let (mut handlers, http, fail) = (recording(&log), answer.clone(), seen.clone());
    handlers.on_validate(move |_, _| answer()).on_http(move |_, _| http()).on_fail(
        move |failure, context| {
            let error = context.error().map(|error| format!(" ({error})")).unwrap_or_default();
            fail.push(format!("{}: {}{error}", failure.party(), failure.cause()));
        },
    );
    (Subject::server(config, handlers), seen)
}

/// The head and the body of a response.
fn split(answer: &[u8]) -> (String, &[u8]) {
    let (head, body) = wire::split_head(answer);
    (head.to_lowercase(), body)
}

fn body_of<C: TestTransport>(mut subject: Subject<C>, request: &str) -> (String, Vec<u8>) {
    subject.receive_bytes(request);
    let answer = subject.end.take_output();
    let (head, body) = split(&answer);
    subject.end.eof();
    assert!(subject.end.is_over());
    (head, body.to_vec())
}

/// What its `read` returns, in order.
struct Steps(VecDeque<io::Result<&'static str>>);

impl Steps {
    fn new(steps: impl IntoIterator<Item = &'static str>) -> Self {
        Self(steps.into_iter().map(Ok).collect())
    }
}

impl Read for Steps {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let step = self.0.pop_front().unwrap_or(Ok(""))?;
        (&mut buffer[..]).write(step.as_bytes())
    }
}

/// A reader that must not be read.
struct Unread;

impl Read for Unread {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("read on purpose")
    }
}

fn a_body_in_memory_is_sent_whole<C: TestTransport>() {
    let (subject, seen) = answering::<C>(Response::new(pattern(LARGE)));
    let (head, body) = body_of(subject, GET);
    assert!(head.contains(&format!("\r\ncontent-length: {LARGE}\r\n")), "{head}");
    assert!(body == pattern(LARGE), "{} bytes", body.len());
    assert!(seen.take().is_empty());
}

fn a_reader_of_known_length_is_sent_with_content_length<C: TestTransport>() {
    let reader = io::Cursor::new(pattern(LARGE));
    let (subject, seen) = answering::<C>(Response::new(Body::from_reader(reader, LARGE as u64)));
    let (head, body) = body_of(subject, GET);
    assert!(head.contains(&format!("\r\ncontent-length: {LARGE}\r\n")), "{head}");
    assert!(body == pattern(LARGE), "{} bytes", body.len());
    assert!(seen.take().is_empty());
}

fn a_reader_of_unknown_length_is_chunked<C: TestTransport>() {
    let mut reader = Steps::new(["hello", ", ", "world, and more"]);
    reader.0.insert(1, Err(io::ErrorKind::Interrupted.into()));
    let (subject, seen) = answering::<C>(Response::new(Body::from_reader(reader, None)));
    let (head, body) = body_of(subject, GET);
    assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    let body = String::from_utf8(body).unwrap();
    assert_eq!(body, "5\r\nhello\r\n2\r\n, \r\nf\r\nworld, and more\r\n0\r\n\r\n");
    assert!(seen.take().is_empty());
}

fn a_body_for_http_1_0_ends_with_the_stream<C: TestTransport>() {
    let reader = Steps::new(["hello", ", ", "world"]);
    let (mut subject, seen) = answering::<C>(Response::new(Body::from_reader(reader, None)));
    subject.receive_bytes(GET_1_0);
    let answer = subject.end.take_output();
    let (head, body) = split(&answer);
    assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
    assert_eq!(body, b"hello, world");
    subject.end.assert_shut_down(&[Shutdown::HalfClose]);
    assert!(seen.take().is_empty());
}

fn the_response_to_head_is_not_read<C: TestTransport>() {
    for (length, field) in [(Some(7), "\r\ncontent-length: 7\r\n"), (None, "")] {
        let (subject, seen) = answering::<C>(Response::new(Body::from_reader(Unread, length)));
        let (head, body) = body_of(subject, HEAD);
        assert!(head.contains(field) && !head.contains("chunked"), "{head}");
        assert!(body.is_empty() && seen.take().is_empty());
    }
}

fn a_status_without_a_body_does_not_read_it<C: TestTransport>() {
    for status in [204, 205, 304] {
        let response = Response::builder().status(status).body(Body::from_reader(Unread, 7));
        let (subject, seen) = answering::<C>(response.unwrap());
        let (head, body) = body_of(subject, GET);
        assert_eq!(head.contains("content-length: 0\r\n"), status == 205, "{head}");
        assert!(body.is_empty() && seen.take().is_empty());
    }
}

/// RFC 9110 §8.6: the length of what GET would get.
fn a_response_without_its_body_may_have_the_length_of_it<C: TestTransport>() {
    for (request, status) in [(HEAD, 200), (HEAD, 304), (GET, 304)] {
        for deferred in [false, true] {
            let mut response = announcing("7", ().into());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let (mut subject, seen) = match deferred {
                true => answering::<C>(Answer::Defer),
                false => answering::<C>(std::mem::take(&mut response)),
            };
            subject.receive_bytes(request);
            if deferred {
                subject.with_handle(|handle| handle.respond(response)).unwrap();
            }
            let answer = subject.end.take_output();
            let (head, body) = split(&answer);
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
            assert_eq!(head.matches("content-length: 7\r\n").count(), 1, "{head}");
            if deferred {
                let late = subject.with_handle(|handle| handle.respond(announcing("7", ().into())));
                assert!(matches!(late, Err(SendError::NotAwaiting | SendError::Gone)), "{late:?}");
            }
            subject.end.eof();
            assert!(subject.end.is_over() && body.is_empty() && seen.take().is_empty());
        }
    }
}

fn a_body_can_be_the_deferred_answer<C: TestTransport>() {
    let (mut subject, seen) = answering::<C>(Answer::Defer);
    subject.receive_bytes(GET);
    let reader = io::Cursor::new(pattern(LARGE));
    let response = Response::new(Body::from_reader(reader, LARGE as u64));
    subject.with_handle(|handle| handle.respond(response)).unwrap();
    let answer = subject.end.take_output();
    assert!(split(&answer).1 == pattern(LARGE));
    assert!(seen.take().is_empty());
}

fn an_upgrade_can_be_refused_with_a_body<C: TestTransport>() {
    let body = Body::from_reader(Steps::new(["not ", "you"]), 7);
    let response = Response::builder().status(403).body(body).unwrap();
    let (subject, seen) = answering::<C>(response);
    let (head, body) = body_of(subject, wire::REQUEST);
    assert!(head.starts_with("http/1.1 403 "), "{head}");
    assert_eq!(body, b"not you");
    assert_eq!(seen.take(), ["local: request refused with status 403"]);
}

fn announcing(length: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static(length));
    response
}

fn a_wrong_content_length_is_an_error_of_the_call<C: TestTransport>() {
    let (mut subject, seen) = answering::<C>(Answer::Defer);
    subject.receive_bytes(GET);
    subject.with_handle(|handle| {
        let error = AnswerError::WrongContentLength { body: 5 };
        let wrong = handle.respond(announcing("6", "hello".into()));
        assert_eq!(wrong, Err(SendError::InvalidResponse(error)));
        let error = AnswerError::WrongContentLength { body: 0 };
        let wrong = handle.respond(announcing("5", ().into()));
        assert_eq!(wrong, Err(SendError::InvalidResponse(error)), "the request is not HEAD");
        let error = AnswerError::InvalidContentLength;
        let wrong = handle.respond(announcing("five", Body::from_reader(Unread, None)));
        assert_eq!(wrong, Err(SendError::InvalidResponse(error)));
        handle.respond(announcing("5", Body::from_reader(&b"hello"[..], None))).unwrap();
    });
    let answer = subject.end.take_output();
    let (head, body) = split(&answer);
    assert_eq!(head.matches("content-length: 5\r\n").count(), 1, "{head}");
    assert_eq!(body, b"hello");
    assert!(seen.take().is_empty());
}

fn a_wrong_content_length_of_an_immediate_answer_is_reported<C: TestTransport>() {
    let (subject, seen) = answering::<C>(announcing("6", "hello".into()));
    let (head, body) = body_of(subject, GET);
    assert!(head.starts_with("http/1.1 500 "), "{head}");
    assert_eq!(body, b"internal error\n");
    let why = "the Content-Length is not that of the body, which has 5 bytes";
    assert_eq!(seen.take(), [format!("local: answer cannot be sent ({why})")]);
}

/// The body is cut at this place, and the handler is told why.
fn assert_cut<C: TestTransport>(mut subject: Subject<C>, seen: &Log, body: &str, why: &str) {
    subject.receive_bytes(GET);
    assert!(subject.end.is_over());
    let answer = subject.end.take_output();
    assert_eq!(String::from_utf8_lossy(split(&answer).1), body);
    assert_eq!(seen.take(), [why]);
}

fn a_reader_that_fails_costs_its_connection<C: TestTransport>() {
    let mut reader = Steps::new(["hello"]);
    reader.0.push_back(Err(io::Error::other("the disk is gone")));
    let (subject, seen) = answering::<C>(Response::new(Body::from_reader(reader, None)));
    let why = "local: body cannot be read (the disk is gone)";
    assert_cut(subject, &seen, "5\r\nhello\r\n", why);
}

fn a_reader_that_ends_early_costs_its_connection<C: TestTransport>() {
    let body = Body::from_reader(Steps::new(["hello"]), 7);
    let (subject, seen) = answering::<C>(Response::new(body));
    let why = "local: body is shorter than its Content-Length: 2 bytes are missing";
    assert_cut(subject, &seen, "hello", why);
}

fn a_reader_that_goes_on_costs_its_connection<C: TestTransport>() {
    let body = Body::from_reader(Steps::new(["hell", "o!"]), 5);
    let (subject, seen) = answering::<C>(Response::new(body));
    let why = "local: body is longer than its Content-Length of 5 bytes";
    assert_cut(subject, &seen, "hell", why);
}

fn a_reader_that_panics_costs_its_connection<C: TestTransport>() {
    let (mut subject, seen) = answering::<C>(Response::new(Body::from_reader(Unread, 5)));
    let panicked = catch_unwind(AssertUnwindSafe(|| subject.receive_bytes(GET)));
    assert!(panicked.is_err());
    assert!(subject.end.is_over());
    assert_eq!(seen.take(), ["local: the application failed"]);
}

/// Writes on a thread of its own.
fn on_a_thread<R: Send + 'static>(
    writer: BodyWriter,
    f: impl FnOnce(BodyWriter) -> R + Send + 'static,
) -> thread::Result<R> {
    thread::spawn(move || f(writer)).join()
}

fn a_writer_on_another_thread_sends_a_body<C: TestTransport>() {
    let (writer, body) = Body::channel(None);
    let (mut subject, seen) = answering::<C>(Response::new(body));
    subject.receive_bytes(GET);
    let answer = subject.end.take_output();
    let (head, first) = split(&answer);
    assert!(head.contains("\r\ntransfer-encoding: chunked\r\n") && first.is_empty(), "{head}");
    let mut writer = on_a_thread(writer, |mut writer| {
        assert_eq!(writer.send("hello"), Ok(Sent::Sent));
        writer
    })
    .unwrap();
    subject.drain();
    assert_eq!(subject.end.take_output(), b"5\r\nhello\r\n");
    let done = Log::default();
    let written = done.clone();
    writer.send_then("", |_| ()).unwrap();
    writer.send_then("!", move |result| written.push(format!("{result:?}"))).unwrap();
    on_a_thread(writer, BodyWriter::finish).unwrap().unwrap();
    subject.drain();
    assert_eq!(subject.end.take_output(), b"1\r\n!\r\n0\r\n\r\n");
    assert_eq!(done.take(), ["Ok(())"]);
    subject.end.eof();
    assert!(subject.end.is_over() && seen.take().is_empty());
}

fn a_writer_may_be_done_before_the_response<C: TestTransport>() {
    let (mut writer, body) = Body::channel(10);
    assert_eq!(writer.send("hello"), Ok(Sent::Buffered));
    writer.write_all(b"world").unwrap();
    assert_eq!(writer.buffered_amount(), 10);
    writer.finish().unwrap();
    let (subject, seen) = answering::<C>(Response::new(body));
    let (head, body) = body_of(subject, GET);
    assert!(head.contains("\r\ncontent-length: 10\r\n"), "{head}");
    assert_eq!(body, b"helloworld");
    assert!(seen.take().is_empty());
}

fn a_large_piece_of_a_writer_is_split<C: TestTransport>() {
    let (mut writer, body) = Body::channel(LARGE as u64);
    let done = Log::default();
    let written = done.clone();
    let sent = writer.send_then(pattern(LARGE), move |result| written.push(format!("{result:?}")));
    assert_eq!(sent, Ok(Sent::Backpressure));
    let (mut subject, _) = answering::<C>(Response::new(body));
    subject.receive_bytes(GET);
    let answer = subject.end.take_output();
    assert!(split(&answer).1 == pattern(LARGE));
    assert_eq!(done.take(), ["Ok(())"]);
    writer.finish().unwrap();
}

fn a_writer_that_is_dropped_cuts_the_body<C: TestTransport>() {
    for panics in [false, true] {
        let (mut writer, body) = Body::channel(None);
        writer.send("hello").unwrap();
        let (mut subject, seen) = answering::<C>(Response::new(body));
        subject.receive_bytes(GET);
        assert_eq!(split(&subject.end.take_output()).1, b"5\r\nhello\r\n");
        let joined = on_a_thread(writer, move |mut writer| {
            writer.send("more").unwrap();
            assert!(!panics, "on purpose");
        });
        assert_eq!(joined.is_err(), panics);
        subject.drain();
        assert_eq!(subject.end.take_output(), b"4\r\nmore\r\n", "without the last chunk");
        assert!(subject.end.is_over());
        assert_eq!(seen.take(), ["local: body was not finished"]);
    }
}

fn a_writer_of_a_body_that_is_not_sent_knows<C: TestTransport>() {
    let (mut writer, body) = Body::channel(None);
    let done = Log::default();
    let unsent = done.clone();
    writer.send_then("hello", move |result| unsent.push(format!("{result:?}"))).unwrap();
    let (subject, seen) = answering::<C>(Response::new(body));
    body_of(subject, HEAD);
    assert_eq!(done.take(), ["Err(Unsent)"]);
    assert_eq!(writer.send("more"), Err(SendError::Gone));
    assert_eq!(writer.write(b"more").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(writer.finish(), Err(SendError::Gone));
    assert!(seen.take().is_empty());
}

fn bytes_behind_the_request_are_ignored<C: TestTransport>() {
    let (writer, body) = Body::channel(None);
    let (mut subject, seen) = answering::<C>(Response::new(body));
    subject.receive_bytes(format!("{GET}{GET}\0\0"));
    subject.receive_bytes(vec![b'x'; 100_000]);
    assert!(subject.unread.len() <= 100_000 + GET.len() + 2);
    writer.finish().unwrap();
    subject.drain();
    let answer = subject.end.take_output();
    assert_eq!(split(&answer).1, b"0\r\n\r\n");
    subject.end.eof();
    assert!(subject.end.is_over() && seen.take().is_empty());
}

fn a_peer_that_ends_its_direction_reads_on<C: TestTransport>() {
    let (mut writer, body) = Body::channel(5);
    let (mut subject, seen) = answering::<C>(Response::new(body));
    subject.receive_bytes(GET);
    subject.end.eof();
    writer.send("hello").unwrap();
    writer.finish().unwrap();
    subject.drain();
    assert!(subject.end.take_output().ends_with(b"\r\n\r\nhello"));
    assert!(subject.end.is_over() && seen.take().is_empty());
}

fn a_response_goes_on_when_the_connection_is_to_close<C: TestTransport>() {
    let (mut writer, body) = Body::channel(5);
    let (mut subject, seen) = answering::<C>(Response::new(body));
    subject.receive_bytes(GET);
    subject.with_handle(|handle| handle.close(CloseCode::GOING_AWAY, "")).unwrap();
    writer.send("hello").unwrap();
    writer.finish().unwrap();
    subject.drain();
    assert!(subject.end.take_output().ends_with(b"\r\n\r\nhello"));
    assert!(seen.take().is_empty());
}

fn a_response_can_be_terminated<C: TestTransport>() {
    let (mut writer, body) = Body::channel(None);
    let (mut subject, seen) = answering::<C>(Response::new(body));
    subject.receive_bytes(GET);
    subject.with_handle(Handle::terminate).unwrap();
    assert!(subject.end.is_over());
    assert_eq!(seen.take(), ["local: connection terminated by the application"]);
    assert_eq!(writer.send("hello"), Err(SendError::Gone));
}

/// No connection will open, so no message waits for that.
fn what_is_sent_to_an_answered_request_is_refused<C: TestTransport>() {
    for deferred in [false, true] {
        let (writer, body) = Body::channel(None);
        let response = Response::new(body);
        let (mut subject, seen) = match deferred {
            false => answering::<C>(response),
            true => {
                let (mut subject, seen) = answering::<C>(Answer::Defer);
                subject.receive_bytes(GET);
                subject.with_handle(|handle| {
                    // It may be accepted. It is empty, or tests with sockets would wait for it to arrive.
                    assert_eq!(handle.send(""), Ok(Sent::Buffered));
                    handle.respond(response).unwrap();
                    assert_eq!(handle.send("at once"), Err(SendError::Closing));
                });
                (subject, seen)
            }
        };
        if !deferred {
            subject.receive_bytes(GET);
        }
        subject.with_handle(|handle| {
            assert_eq!(handle.send("hello"), Err(SendError::Closing));
            assert_eq!(handle.respond(Response::new("again")), Err(SendError::NotAwaiting));
        });
        writer.finish().unwrap();
        subject.drain();
        assert!(subject.end.take_output().ends_with(b"\r\n\r\n0\r\n\r\n"));
        subject.end.eof();
        assert!(subject.end.is_over() && seen.take().is_empty());
    }
}

/// The timeout for what comes after the last byte is short, and so is what the peer reads at a time.
fn thirty_megabytes_at_a_trickle_are_sent<C: TestTransport>() {
    const LEN: u64 = 30_000_000;
    const STEP: usize = 100_000;
    let body = Body::from_reader(io::repeat(b'x').take(LEN), LEN);
    let config = server_config().close_timeout(seconds(1));
    let (mut subject, seen) = answering_with::<C>(config, Response::new(body));
    subject.end.block();
    subject.receive_bytes(GET);
    let (mut received, mut rounds) = (0, 0);
    while received < LEN {
        subject.end.give_room(STEP);
        received += subject.end.take_output().iter().filter(|&&byte| byte == b'x').count() as u64;
        let waiting = subject.end.handle().buffered_amount();
        assert!(waiting < 70_000, "{waiting} bytes wait");
        if received < LEN {
            subject.advance(seconds(29));
        }
        rounds += 1;
        assert!(rounds < 1000 && !subject.end.is_over(), "{received} bytes came");
    }
    subject.end.eof();
    assert!(subject.end.is_over() && seen.take().is_empty());
}

fn a_writer_is_held_back<C: TestTransport>() {
    let (mut writer, body) = Body::channel(None);
    let config = server_config().high_water_mark(1000).max_send_buffer(2000);
    let (mut subject, seen) = answering_with::<C>(config, Response::new(body));
    subject.receive_bytes(GET);
    subject.end.take_output();
    subject.end.block();
    assert_eq!(writer.send(vec![b'x'; 800]), Ok(Sent::Sent));
    subject.drain(); // and sees that it is blocked
    assert_eq!(writer.send(vec![b'x'; 10]), Ok(Sent::Buffered));
    assert_eq!(writer.send(vec![b'x'; 990]), Ok(Sent::Backpressure));
    let done = Log::default();
    let refused = done.clone();
    let too_much = writer.send_then(vec![b'x'; 300], move |result| {
        refused.push(format!("{result:?}"));
    });
    let waiting = writer.buffered_amount();
    assert_eq!(
        too_much,
        Err(SendError::SendBufferFull { waiting, message: 300, limit: 2000, closes: false })
    );
    assert_eq!(done.take(), ["Err(Unsent)"]);

    // It blocks until the peer has read enough.
    let blocked = thread::spawn(move || {
        writer.write_all(&[b'x'; 10_000]).unwrap();
        writer.finish()
    });
    let mut received = 0;
    let watchdog = anyloop_testkit::watchdog::watchdog();
    while !subject.end.is_over() && subject.end.shutdowns().is_empty() {
        subject.end.give_room(500);
        subject.drain();
        received += subject.end.take_output().iter().filter(|&&byte| byte == b'x').count();
        thread::yield_now();
    }
    drop(watchdog);
    blocked.join().unwrap().unwrap();
    assert_eq!(received, 11_800);
    assert!(seen.take().is_empty());
}

fn a_peer_that_stops_reading_fails<C: TestTransport>() {
    let body = Body::from_reader(io::repeat(b'x'), None);
    let config = server_config().response_timeout(seconds(7));
    let (mut subject, seen) = answering_with::<C>(config, Response::new(body));
    subject.end.block();
    subject.receive_bytes(GET);
    for _ in 0..3 {
        subject.advance(seconds(6));
        subject.end.give_room(1000);
    }
    subject.advance(seconds(6));
    assert!(!subject.end.is_over());
    subject.advance(seconds(1));
    assert!(subject.end.is_over());
    subject.end.assert_shut_down(&[Shutdown::Abort]);
    assert_eq!(seen.take(), ["timer: response not read in time"]);
}

fn a_writer_has_all_the_time<C: TestTransport>() {
    let (mut writer, body) = Body::channel(None);
    let (mut subject, seen) = answering::<C>(Response::new(body));
    subject.receive_bytes(GET);
    subject.end.take_output();
    subject.advance(seconds(3600));
    writer.send("hello").unwrap();
    subject.drain();
    assert_eq!(subject.end.take_output(), b"5\r\nhello\r\n");
    assert!(!subject.end.is_over() && seen.take().is_empty());
}

fn the_close_timeout_counts_from_the_last_byte<C: TestTransport>() {
    let (mut subject, seen) = answering::<C>(Response::new("hello"));
    subject.end.block();
    subject.receive_bytes(GET);
    subject.advance(seconds(20));
    subject.end.give_room(usize::MAX);
    assert!(subject.end.take_output().ends_with(b"hello"));
    subject.advance(seconds(4));
    assert!(!subject.end.is_over());
    subject.advance(seconds(1));
    subject.end.assert_shut_down(&[Shutdown::HalfClose, Shutdown::Abort]);
    assert!(seen.take().is_empty(), "it may have read all of it");
}

fn a_peer_that_leaves_is_reported<C: TestTransport>() {
    // Within the body, and while the end of it waits.
    for body in [Body::from_reader(io::repeat(b'x'), None), Body::from("hello")] {
        let (mut subject, seen) = answering::<C>(Response::new(body));
        subject.end.block();
        subject.receive_bytes(GET);
        subject.end.reset();
        assert!(subject.end.is_over());
        let seen = seen.take();
        assert!(seen.len() == 1 && seen[0].starts_with("transport: "), "{seen:?}");
    }
}

#[test]
fn a_body_that_is_dropped_ends_its_writer() {
    let (mut writer, body) = Body::channel(None);
    drop(body);
    assert_eq!(writer.send("hello"), Err(SendError::Gone));
}

/// A stream whose system takes a part, and knows what the peer's machine has acknowledged of it.
struct System {
    room: usize,
    acknowledged: u64,
}

impl Transport for System {
    fn write(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let taken = slices.iter().map(|slice| slice.len()).sum::<usize>().min(self.room);
        self.room -= taken;
        Ok(taken)
    }

    fn shutdown(&mut self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }

    fn send_queue(&self) -> Option<SendQueue> {
        Some(SendQueue { acknowledged: self.acknowledged, waiting: 1000 })
    }
}

/// The driver of a server that answers with this body, which was asked for over a system with this room.
fn asked(
    config: ServerConfig,
    body: impl Into<Body>,
    room: usize,
) -> (Driver<Session<Handlers>>, System, Buffers, Log) {
    let (log, body) = (Log::default(), Mutex::new(Some(body.into())));
    let mut handlers = recording(&log);
    handlers.on_http(move |_, _| Response::new(body.lock().unwrap().take().unwrap()));
    let now = Instant::from_nanos(0);
    let (mut system, mut buffers) = (System { room, acknowledged: 0 }, Buffers::default());
    let mut driver = Server::with_factory(config, handlers).driver(Waker::noop(), now);
    driver.start(&mut system, &mut buffers, now);
    driver.receive(&mut system, &mut buffers, &mut GET.as_bytes().to_vec(), now);
    (driver, system, buffers, log)
}

/// A system with a large buffer reports only rarely that it takes more.
#[test]
fn what_the_peers_machine_acknowledges_is_read() {
    for room in [0, 100, usize::MAX] {
        let config = server_config().response_timeout(seconds(7)).close_timeout(seconds(1));
        let (mut driver, mut system, mut buffers, log) = asked(config, vec![7; 1000], room);
        for _ in 0..20 {
            system.acknowledged += 1;
            let due = driver.next_timeout().unwrap();
            driver.handle_timeout(&mut system, &mut buffers, due);
            assert!(!driver.is_closed());
        }
        let due = driver.next_timeout().unwrap();
        driver.handle_timeout(&mut system, &mut buffers, due);
        assert!(driver.is_closed());
        assert_eq!(log.take(), ["fail by timer: response not read in time"]);
    }
}

/// A peer that reads faster than the body is made does not keep others waiting.
#[test]
fn an_endless_body_is_sent_in_turns() {
    let _watchdog = anyloop_testkit::watchdog::watchdog();
    let body = Body::from_reader(io::repeat(b'x'), None);
    let (mut driver, mut system, mut buffers, _) = asked(server_config(), body, usize::MAX);
    for turn in 1..5 {
        assert!(driver.wants_resume());
        let sent = usize::MAX - system.room;
        assert!(sent > turn << 20 && sent < (turn << 20) + (turn << 10), "{sent} in turn {turn}");
        driver.resume(&mut system, &mut buffers, Instant::from_nanos(0));
    }
    buffers.budget.set(0, None);
    let before = system.room;
    driver.resume(&mut system, &mut buffers, Instant::from_nanos(0));
    assert_eq!(system.room, before, "the loop is to return");
    assert!(driver.wants_resume());
}

/// A stream that has failed may take output without an error.
#[test]
fn an_error_of_the_stream_ends_an_endless_body() {
    let body = Body::from_reader(io::repeat(b'x'), None);
    let (mut driver, mut system, mut buffers, log) = asked(server_config(), body, usize::MAX);
    assert!(driver.wants_resume());
    let now = Instant::from_nanos(0);
    driver.handle_error(&mut system, &mut buffers, TransportError::Reset, now);
    let before = system.room;
    while driver.wants_resume() {
        driver.resume(&mut system, &mut buffers, now);
        assert_eq!(system.room, before, "nobody reads it");
    }
    assert!(driver.is_closed());
    assert_eq!(log.take(), ["fail by transport: connection reset"]);
}
