//! Scenarios in which the client reads too slowly, or never.

use crate::Failure;
use crate::clean::{Checker, close_and_compare};
use crate::load::Actor;
use crate::wire::{End, Incoming};

/// Reads nothing until the server's send buffer is full, and then all messages.
pub(crate) fn slow(actor: &mut Actor<'_>) -> Result<(), Failure> {
    let job = if actor.world.spared.cap { "brim" } else { "flood" };
    let (mut wire, number) =
        actor.open(actor.world.patient, |number| format!("/{job}/{number}"))?;
    actor.wait_until_pressed(number)?;
    let mut checker = Checker::new(actor.world, number);
    let enough = 1000 + actor.random.below(4000) as u64;
    while checker.total() < enough {
        match wire.next()? {
            Incoming::Message(payload) => checker.check(payload)?,
            other => return Err(format!("{other:?} came for what is pushed").into()),
        }
    }
    close_and_compare(actor, wire, checker)
}

/// Reads nothing until the server has closed the connection.
pub(crate) fn never(actor: &mut Actor<'_>) -> Result<(), Failure> {
    let (mut wire, number) = actor.open(actor.world.strict, |number| format!("/flood/{number}"))?;
    let record = actor.record(number)?;
    let mut checker = Checker::new(actor.world, number);
    let end = loop {
        match wire.next()? {
            Incoming::Message(payload) => checker.check(payload)?,
            Incoming::Close(1008, _) => {}
            Incoming::End(end) => break end,
            other => return Err(format!("{other:?} came for what is pushed").into()),
        }
    };
    if record.is_clean || end == End::Eof {
        return Err("a connection that was never read from has ended cleanly".into());
    }
    let too_many = checker.next.iter().zip(record.sent).any(|(came, sent)| *came > sent);
    match too_many {
        true => Err(format!("{:?} came, {:?} were sent", checker.next, record.sent).into()),
        false => Ok(()),
    }
}
