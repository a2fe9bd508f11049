//! What is logged, with the feature `tracing`.

use std::fmt;
use std::sync::{Arc, Mutex};

use anyloop::Server;
use anyloop::endpoint::Verdict;
use anyloop::proto::handshake::{Accept, OriginPolicy, ServerOptions};
use anyloop::transport::iostream::IoStream;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Keeps the lines of this crate.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("anyloop")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 += &format!(" {value:?}");
        }
    }
}

#[test]
fn connections_that_open_end_and_fail_are_told() {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let mut server = Server::<IoStream>::new(ServerOptions::new(OriginPolicy::Any));
        server.transport_mut().remote_endpoint = "somebody".to_string();
        let connect = |server: &Server<IoStream>| {
            let connection = server.connection();
            connection.set_write_handler(|_| Ok(()));
            connection
        };
        let closed = connect(&server);
        closed.read_all(REQUEST).unwrap();
        closed.read_all(b"\x88\x80\x00\x00\x00\x00").unwrap();
        let broken = connect(&server);
        broken.read_all(REQUEST).unwrap();
        broken.eof().unwrap();
        connect(&server).eof().unwrap();
        server.on_validate(|_, _| Accept::new().with_subprotocol("not asked for").into());
        server.on_http(|_, _| Verdict::upgrade_required());
        connect(&server).read_all(REQUEST).unwrap();
    });
    let lines = lines.0.lock().unwrap();
    let expected = [
        "DEBUG somebody: open, subprotocol None, extension None",
        "DEBUG somebody: closed, first by peer",
        "DEBUG somebody: open, subprotocol None, extension None",
        "DEBUG somebody: peer: stream ended without a closing handshake (connection open, after 0 messages)",
        "DEBUG somebody: peer: stream ended without a closing handshake (connection connecting)",
        "ERROR the answer to a request was refused: the client did not offer this subprotocol",
    ];
    assert_eq!(lines[..], expected);
}
