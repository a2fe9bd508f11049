//! Scenarios in which a connection ends by a reset, a half-close or a protocol violation.

use anyloop_proto::Role;
use anyloop_testkit::frames::{BINARY, TEXT, declare, text};
use anyloop_testkit::requests::request;

use crate::Failure;
use crate::clean::{Checker, payload, read_to_close, send_some};
use crate::load::Actor;
use crate::wire::{End, Incoming, Wire};

/// The first part of a message of 1,000 bytes.
fn half_a_message() -> Vec<u8> {
    [declare(0x82, 1000, Role::Client), vec![7; 300]].concat()
}

/// A random prefix of `bytes`: at least one byte, and not all.
fn beginning<'b>(actor: &mut Actor<'_>, bytes: &'b [u8]) -> &'b [u8] {
    &bytes[..1 + actor.random.below(bytes.len() - 1)]
}

/// The client resets the connection.
pub(crate) fn abort(actor: &mut Actor<'_>) -> Result<(), Failure> {
    let address = actor.world.patient;
    let wire = match actor.random.below(7) {
        // In the opening handshake: before, within and after the request.
        0 => actor.connect(address)?,
        1 => {
            let mut wire = actor.connect(address)?;
            wire.send_raw(beginning(actor, request("/echo/0").as_bytes()))?;
            wire
        }
        2 => {
            let mut wire = actor.connect(address)?;
            wire.send_raw(request("/echo/0").as_bytes())?;
            wire
        }
        // Within a frame.
        3 => {
            let mut wire = actor.open_unrecorded("/echo/0")?;
            wire.send_raw(beginning(actor, &half_a_message()))?;
            wire
        }
        // After messages, whose echoes are not read.
        4 => {
            let mut wire = actor.open_unrecorded("/echo/0")?;
            let messages = actor.random.below(20);
            send_some(&mut wire, &mut actor.random, messages, |_, _| ())?;
            wire
        }
        // While the server sends.
        5 => {
            let mut wire = actor.open_unrecorded("/flow/0")?;
            for _ in 0..actor.random.below(50) {
                wire.next()?;
            }
            wire
        }
        // After a Close, without waiting for the server's.
        _ => {
            let mut wire = actor.open_unrecorded("/flow/0")?;
            wire.send_close(1000)?;
            wire
        }
    };
    wire.reset();
    Ok(())
}

/// The client ends its sending direction early.
pub(crate) fn half_close(actor: &mut Actor<'_>) -> Result<(), Failure> {
    let address = actor.world.patient;
    let variant = actor.random.below(6);
    if variant < 2 {
        // In the opening handshake.
        let mut wire = actor.connect(address)?;
        let request = request("/echo/0");
        let whole = request.as_bytes();
        wire.send_raw(if variant == 0 { beginning(actor, whole) } else { whole })?;
        wire.finish();
        return wire.exhaust();
    }
    if variant == 2 {
        // After a Close, while the server sends.
        let (mut wire, number) = actor.open(address, |number| format!("/flow/{number}"))?;
        let mut checker = Checker::new(actor.world, number);
        wire.send_close(1000)?;
        wire.finish();
        read_to_close(&mut wire, &mut checker, 1000)?;
        return checker.compare(&actor.record(number)?);
    }
    let (mut wire, number) = actor.open(address, |number| format!("/echo/{number}"))?;
    let messages = actor.random.below(10);
    let sent = send_some(&mut wire, &mut actor.random, messages, |wire, bytes| match variant {
        3 => wire.put(bytes, 8, &1000_u16.to_be_bytes()),
        4 => bytes.extend(half_a_message()),
        _ => {}
    })?;
    wire.finish();
    // Messages that arrive before the end of the stream are echoed.
    sent.iter().try_for_each(|payload| wire.expect_message(payload))?;
    if variant == 3 {
        wire.expect_close(1000)?;
    }
    wire.expect_eof()?;
    let record = actor.record(number)?;
    if record.received != messages as u64 || record.is_clean != (variant == 3) {
        let (received, is_clean) = (record.received, record.is_clean);
        return Err(format!("{received} of {messages} messages, clean: {is_clean}").into());
    }
    actor.world.count(messages as u64);
    Ok(())
}

/// The client violates HTTP or the WebSocket protocol.
pub(crate) fn garbage(actor: &mut Actor<'_>) -> Result<(), Failure> {
    let address = actor.world.patient;
    match actor.random.below(8) {
        // Not an HTTP request.
        0 => {
            let mut wire = actor.connect(address)?;
            wire.send_raw(&payload(&mut actor.random, 2000).1)?;
            wire.finish();
            wire.exhaust()
        }
        // Requests that are refused.
        1 => {
            let mut wire = actor.connect(address)?;
            wire.send_raw(request("/nowhere").as_bytes())?;
            wire.exhaust()
        }
        2 => {
            let mut wire = actor.connect(address)?;
            wire.send_raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            wire.exhaust()
        }
        // Invalid frames: not masked, with a reserved bit, with text that is not UTF-8, and too long.
        3 => refused(actor, &text("hi").bytes(Role::Server), 1002),
        4 => refused(actor, &text("").rsv(0x40).bytes(Role::Client), 1002),
        5 => refused(actor, &text(b"\xc3\x28").bytes(Role::Client), 1007),
        6 => refused(actor, &declare(0x82, 1 << 40, Role::Client), 1009),
        // Random bytes.
        _ => {
            let mut wire = actor.open_unrecorded("/echo/0")?;
            let bytes = payload(&mut actor.random, 3000).1;
            // The server may close before all bytes are sent.
            let _ = wire.send_raw(&bytes);
            wire.finish();
            wire.exhaust()
        }
    }
}

/// Sends messages, and then bytes for which the server must close with this code. It must echo the messages before.
fn refused(actor: &mut Actor<'_>, bytes: &[u8], code: u16) -> Result<(), Failure> {
    let mut wire: Wire = actor.open_unrecorded("/echo/0")?;
    let messages = actor.random.below(4);
    let sent = send_some(&mut wire, &mut actor.random, messages, |wire, out| {
        wire.put(out, TEXT, b"one more");
        out.extend(bytes);
    })?;
    sent.iter().try_for_each(|payload| wire.expect_message(payload))?;
    wire.expect_message(b"one more")?;
    wire.expect_close(code)?;
    // The Close is not answered: the server must not wait for that.
    let _ = wire.send(BINARY, b"whatever");
    match wire.next()? {
        Incoming::End(End::Eof | End::Reset) => Ok(()),
        other => Err(format!("{other:?} came for the end").into()),
    }
}
