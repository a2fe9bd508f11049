//! How TLS ends.

use anyloop::iostream::{Connection, Server};
use anyloop::prelude::*;
use anyloop::proto::Instant;

use crate::tls::SERVER;

/// A connection to a server, whose clock stands still and whose stream can be half-closed.
fn connection() -> Connection<Handlers> {
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
    server.set_clock(|| Instant::from_nanos(1));
    let connection = server.over_tls(&SERVER).connection().unwrap();
    connection.collect_output();
    connection.set_shutdown_handler(|_| {});
    connection.start().unwrap();
    connection
}

/// A message of the handshake that no client sends.
const UNEXPECTED: &[u8] = &[22, 3, 1, 0, 4, 2, 0, 0, 0];

/// The time in which a peer can read why it was refused is not for connections that the program gives up.
#[test]
fn a_refused_connection_can_be_terminated_at_once() {
    let connection = connection();
    connection.read_all(UNEXPECTED).unwrap();
    assert!(connection.wants_output() && !connection.has_ended());
    connection.handle().terminate().unwrap();
    connection.drive().unwrap();
    assert!(connection.has_ended());
}

#[test]
fn a_terminated_connection_does_not_wait_for_the_reader_of_an_alert() {
    let connection = connection();
    connection.handle().terminate().unwrap();
    connection.read_all(UNEXPECTED).unwrap();
    connection.drive().unwrap();
    assert!(connection.has_ended());
}
