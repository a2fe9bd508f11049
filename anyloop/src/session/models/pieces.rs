//! Messages that threads send in pieces to a whole session: they arrive whole, and what waits for them makes no peer
//! slow.

use std::io::{self, IoSlice};

use anyloop_proto::handshake::OriginPolicy;
use anyloop_proto::{Instant, Kind, Shutdown};

use super::*;
use crate::endpoint::{Overflow, ServerConfig, Session};
use crate::stream::{Buffers, Driver as StreamDriver, Transport};
use crate::transport::Server;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A peer that reads at once.
#[derive(Default)]
struct Peer(Vec<u8>);

impl Transport for Peer {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let before = self.0.len();
        slices.iter().for_each(|slice| self.0.extend_from_slice(slice));
        Ok(self.0.len() - before)
    }

    fn shutdown(&mut self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }
}

/// An open connection of a server.
struct Connection {
    session: StreamDriver<Session<Quiet>>,
    driver: Arc<Driver>,
    peer: Peer,
    buffers: Buffers,
}

const NOW: Instant = Instant::from_nanos(1_000_000_000);

impl Connection {
    fn new(max_send_buffer: usize) -> Self {
        let config = ServerConfig::new(OriginPolicy::Any).overflow(Overflow::Close);
        let server = Server::with_factory(config.max_send_buffer(max_send_buffer), || Quiet);
        let driver = Arc::<Driver>::default();
        let mut session = server.driver(&Waker::from(driver.clone()), NOW);
        let (mut peer, mut buffers) = (Peer::default(), Buffers::default());
        session.start(&mut peer, &mut buffers, NOW);
        session.receive(&mut peer, &mut buffers, &mut REQUEST.as_bytes().to_vec(), NOW);
        peer.0.clear();
        Self { session, driver, peer, buffers }
    }

    fn run(&mut self) {
        self.session.handle_wake(&mut self.peer, &mut self.buffers, NOW);
    }

    /// Runs whenever it is woken, until the peer has so many bytes.
    fn run_until(&mut self, bytes: usize) {
        while self.peer.0.len() < bytes {
            self.driver.await_woken();
            self.run();
        }
    }

    /// A thread that sends a message of one byte.
    fn sender(&mut self) -> JoinHandle<()> {
        let handle = self.session.handle();
        thread::spawn(move || _ = handle.send("c").unwrap())
    }

    /// The message in pieces and the other one have arrived, each whole.
    fn assert_whole(&mut self) {
        let written = &self.peer.0[..];
        let (pieces, message) = (b"\x01\x01a\x80\x01b", b"\x81\x01c");
        let orders = [[&pieces[..], message].concat(), [&message[..], pieces].concat()];
        assert!(orders.iter().any(|order| order == written), "{written:?}");
        assert_eq!(self.session.handle().buffered_amount(), 0);
    }
}

#[test]
fn a_message_in_pieces_that_is_begun_beside_another_arrives_whole() {
    check(|| {
        let mut connection = Connection::new(1000);
        let mut writer = connection.session.handle().begin(Kind::Text);
        let writer = thread::spawn(move || {
            writer.piece("a", false).unwrap();
            writer
        });
        let sender = connection.sender();
        connection.run_until(3);
        sender.join().unwrap();
        writer.join().unwrap().piece("b", true).unwrap();
        connection.run_until(9);
        connection.assert_whole();
    });
}

/// Large; the smaller model is [`a_message_in_pieces_with_another_within_arrives_whole`].
#[test]
fn a_message_in_pieces_that_ends_beside_another_arrives_whole() {
    check_large(|| {
        let mut connection = Connection::new(1000);
        let mut writer = connection.session.handle().begin(Kind::Text);
        writer.piece("a", false).unwrap();
        connection.run(); // the message is under way
        let sender = connection.sender();
        let writer = thread::spawn(move || _ = writer.piece("b", true).unwrap());
        connection.run_until(9);
        writer.join().unwrap();
        sender.join().unwrap();
        connection.assert_whole();
    });
}

#[test]
fn a_message_in_pieces_with_another_within_arrives_whole() {
    check(|| {
        let mut connection = Connection::new(1000);
        let handle = connection.session.handle();
        let writer = thread::spawn(move || {
            let mut writer = handle.begin(Kind::Text);
            writer.piece("a", false).unwrap();
            handle.send("c").unwrap();
            writer.piece("b", true).unwrap();
        });
        connection.run_until(9);
        writer.join().unwrap();
        connection.assert_whole();
    });
}

/// Very large; the smaller models are the three above.
#[test]
fn a_message_in_pieces_arrives_whole() {
    check_within(1, || {
        let mut connection = Connection::new(1000);
        let handle = connection.session.handle();
        let writer = thread::spawn(move || {
            let mut writer = handle.begin(Kind::Text);
            writer.piece("a", false).unwrap();
            writer.piece("b", true).unwrap();
        });
        let sender = connection.sender();
        connection.run_until(9);
        writer.join().unwrap();
        sender.join().unwrap();
        connection.assert_whole();
    });
}

/// The order of the loads and stores of `unfinished`, `held_up` and `waiting` says so.
#[test]
fn what_has_waited_for_a_message_in_pieces_makes_no_peer_slow() {
    check(|| {
        let mut connection = Connection::new(4);
        let (sender, handle) = (connection.session.handle(), connection.session.handle());
        let mut writer = handle.begin(Kind::Text);
        writer.piece("a", false).unwrap();
        handle.send("cc").unwrap();
        connection.run(); // the message waits
        let writer = thread::spawn(move || writer.piece("b", true).unwrap());
        let sender = thread::spawn(move || match sender.send("ddd") {
            Ok(sent) => sent.is_on_its_way(),
            Err(SendError::SendBufferFull { closes: false, .. }) => false,
            Err(error) => panic!("{error}"),
        });
        connection.run_until(10);
        writer.join().unwrap();
        let is_sent = sender.join().unwrap();
        connection.run();
        let written = &connection.peer.0[..];
        let expected: &[u8] = match is_sent {
            true => b"\x01\x01a\x80\x01b\x81\x02cc\x81\x03ddd",
            false => b"\x01\x01a\x80\x01b\x81\x02cc",
        };
        assert_eq!(written, expected);
    });
}

#[test]
fn a_writer_that_is_dropped_leaves_no_trace_or_closes() {
    check(|| {
        let mut connection = Connection::new(1000);
        let (sender, handle) = (connection.session.handle(), connection.session.handle());
        let writer = thread::spawn(move || {
            let mut writer = handle.begin(Kind::Text);
            writer.piece("a", false).unwrap();
        });
        let sender = thread::spawn(move || sender.send("c").is_ok());
        writer.join().unwrap();
        let is_accepted = sender.join().unwrap();
        connection.run();
        let written = &connection.peer.0[..];
        assert!(is_accepted);
        let close = b"\x88\x1c\x03\xf3a message was not finished";
        let begun = [&b"\x01\x01a"[..], close].concat();
        let after = [&b"\x81\x01c\x01\x01a"[..], close].concat();
        assert!([begun, after].iter().any(|order| order == written), "{written:?}");
    });
}

/// A message that is accepted while the handler closes is sent before the Close.
#[test]
fn a_message_sent_beside_the_close_of_a_handler_is_sent_or_refused() {
    check(|| {
        let mut connection = Connection::new(1000);
        let handle = connection.session.handle();
        handle.post(|_, context| context.close(None, "").unwrap()).unwrap();
        let sender = thread::spawn(move || match handle.send("c") {
            Ok(sent) => sent.is_on_its_way(),
            Err(SendError::Closing) => false,
            Err(error) => panic!("{error}"),
        });
        connection.run();
        let is_sent = sender.join().unwrap();
        connection.run();
        let expected: &[u8] = if is_sent { b"\x81\x01c\x88\0" } else { b"\x88\0" };
        assert_eq!(&connection.peer.0[..], expected);
    });
}

/// The last piece is accepted, and the whole message is sent; or it is refused, and nothing is.
#[test]
fn a_last_piece_sent_beside_the_close_of_a_handler_is_sent_or_refused() {
    check(|| {
        let mut connection = Connection::new(1000);
        let handle = connection.session.handle();
        let mut writer = handle.begin(Kind::Text);
        handle.post(|_, context| context.close(None, "").unwrap()).unwrap();
        writer.piece("a", false).unwrap();
        let writer = thread::spawn(move || match writer.piece("b", true) {
            Ok(_) => true,
            Err(SendError::Closing) => false,
            Err(error) => panic!("{error}"),
        });
        connection.run();
        let is_sent = writer.join().unwrap();
        connection.run();
        let whole: &[u8] = b"\x01\x01a\x80\x01b\x88\0";
        assert_eq!(&connection.peer.0[..], if is_sent { whole } else { b"\x88\0" });
    });
}

/// As above, beside the close of a handle.
#[test]
fn a_last_piece_sent_beside_the_close_of_a_handle_is_sent_or_refused() {
    check(|| {
        let mut connection = Connection::new(1000);
        let handle = connection.session.handle();
        let mut writer = handle.begin(Kind::Text);
        writer.piece("a", false).unwrap();
        let writer = thread::spawn(move || match writer.piece("b", true) {
            Ok(_) => true,
            Err(SendError::Closing) => false,
            Err(error) => panic!("{error}"),
        });
        handle.close(None, "").unwrap();
        connection.run();
        let is_sent = writer.join().unwrap();
        connection.run();
        let whole: &[u8] = b"\x01\x01a\x80\x01b\x88\0";
        assert_eq!(&connection.peer.0[..], if is_sent { whole } else { b"\x88\0" });
    });
}
