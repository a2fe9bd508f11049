//! A log of the events that a handler gets, one line each: as a type that is a handler, and as closures.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyloop::prelude::*;
use anyloop::proto::CloseFrame;

/// What happened, a line each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn push(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    /// What happened since this was called last.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub(crate) fn message(&self, message: Message<'_>) {
        self.push(match message {
            Message::Text(text) => format!("text {}", text.as_str()),
            Message::Binary(bytes) if bytes.len() > 32 => format!("binary of {}", bytes.len()),
            Message::Binary(bytes) => format!("binary {bytes:?}"),
        });
    }

    fn request(&self, what: &str, request: &Request) {
        let body = String::from_utf8_lossy(request.body());
        self.push(format!("{what} {} {} {body}", request.method(), request.uri()).trim());
    }

    fn chunk(&self, chunk: Chunk<'_>) {
        let (first, last) = (chunk.first, chunk.last);
        self.push(format!("chunk {} {first} {last}", String::from_utf8_lossy(chunk.payload)));
    }

    fn ping(&self, payload: &[u8]) {
        self.push(format!("ping {}", String::from_utf8_lossy(payload)));
    }

    fn pong(&self, payload: &[u8], round_trip: Option<Duration>) {
        match round_trip {
            Some(time) => self.push(format!("pong after {time:?}")),
            None => self.push(format!("pong {}", String::from_utf8_lossy(payload))),
        }
    }

    fn close(&self, ending: &Ending<'_>) {
        let code = |frame: Option<&CloseFrame>| match frame {
            Some(CloseFrame { code: Some(code), .. }) => code.to_string(),
            Some(_) => "nothing".to_string(),
            None => "none".to_string(),
        };
        let (sent, received) = (code(ending.sent), code(ending.received));
        let clean = if ending.clean { "clean" } else { "unclean" };
        let mut line = format!("close {clean} by {}: {sent}/{received}", ending.by);
        if let Some(failure) = ending.failure {
            line += &format!(", {}", failure.cause());
        }
        self.push(line);
    }

    fn fail(&self, failure: &Failure) {
        self.push(format!("fail by {}: {}", failure.party(), failure.cause()));
    }
}

/// A handler that records its events, and otherwise does what is the default.
pub(crate) struct Recorder(pub(crate) Log);

impl Handler for Recorder {
    fn validate(&mut self, request: &Request, _: &mut Context<'_, Self>) -> Answer {
        self.0.request("validate", request);
        Answer::Accept(Accept::new())
    }

    fn http(&mut self, request: &Request, _: &mut Context<'_, Self>) -> Answer {
        self.0.request("http", request);
        Answer::upgrade_required()
    }

    fn open(&mut self, _: &mut Context<'_, Self>) {
        self.0.push("open");
    }

    fn message(&mut self, message: Message<'_>, _: &mut Context<'_, Self>) {
        self.0.message(message);
    }

    fn chunk(&mut self, chunk: Chunk<'_>, _: &mut Context<'_, Self>) {
        self.0.chunk(chunk);
    }

    fn ping(&mut self, payload: &[u8], _: &mut Context<'_, Self>) -> bool {
        self.0.ping(payload);
        true
    }

    fn pong(&mut self, payload: &[u8], time: Option<Duration>, _: &mut Context<'_, Self>) {
        self.0.pong(payload, time);
    }

    fn pong_timeout(&mut self, _: &mut Context<'_, Self>) {
        self.0.push("pong_timeout");
    }

    fn interrupt(&mut self, _: &mut Context<'_, Self>) {
        self.0.push("interrupt");
    }

    fn drained(&mut self, _: &mut Context<'_, Self>) {
        self.0.push("drained");
    }

    fn close(&mut self, ending: &Ending<'_>, _: &mut Context<'_, Self>) {
        self.0.close(ending);
    }

    fn fail(&mut self, failure: &Failure, _: &mut Context<'_, Self>) {
        self.0.fail(failure);
    }
}

/// The same as closures.
pub(crate) fn recording(log: &Log) -> Handlers {
    let mut handlers = Handlers::new();
    let log = || log.clone();
    handlers
        .on_validate({
            let log = log();
            move |request, _| {
                log.request("validate", request);
                Answer::Accept(Accept::new())
            }
        })
        .on_http({
            let log = log();
            move |request, _| {
                log.request("http", request);
                Answer::upgrade_required()
            }
        })
        .on_open({
            let log = log();
            move |_| log.push("open")
        })
        .on_message({
            let log = log();
            move |message, _| log.message(message)
        })
        .on_chunk({
            let log = log();
            move |chunk, _| log.chunk(chunk)
        })
        .on_ping({
            let log = log();
            move |payload, _| {
                log.ping(payload);
                true
            }
        })
        .on_pong({
            let log = log();
            move |payload, time, _| log.pong(payload, time)
        })
        .on_pong_timeout({
            let log = log();
            move |_| log.push("pong_timeout")
        })
        .on_interrupt({
            let log = log();
            move |_| log.push("interrupt")
        })
        .on_drained({
            let log = log();
            move |_| log.push("drained")
        })
        .on_close({
            let log = log();
            move |ending, _| log.close(ending)
        })
        .on_fail({
            let log = log();
            move |failure, _| log.fail(failure)
        });
    handlers
}
