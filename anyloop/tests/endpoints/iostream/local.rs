//! Connections on one thread: what the program sets need not be `Send`.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Write};
use std::rc::Rc;

use anyloop::Body;
use anyloop::http::Response;
use anyloop::iostream::{LocalClient, LocalConnection, LocalServer};
use anyloop::proto::{Instant, Role, Shutdown};

use super::frames;
use crate::subject::{client_config, server_config, target};
use crate::wire::{self, text};

/// An output that several own, on one thread.
#[derive(Clone, Default)]
struct Written(Rc<RefCell<Vec<u8>>>);

impl Written {
    fn take(&self) -> Vec<u8> {
        self.0.take()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A server's end of a connection that returns what it receives.
fn echo() -> LocalConnection {
    let mut server = LocalServer::new(server_config());
    server.on_message(|message, context| _ = context.send(message));
    server.connection()
}

#[test]
fn each_kind_of_output_may_belong_to_one_thread() {
    type Set = fn(&LocalConnection, Written);
    let outputs: [Set; 3] = [
        |connection, written| connection.register_output(written),
        |connection, mut written| {
            connection.set_write_handler(move |bytes| written.write_all(bytes))
        },
        |connection, mut written| {
            let write = move |slices: &[IoSlice<'_>]| {
                slices.iter().try_for_each(|slice| written.write_all(slice))
            };
            connection.set_vectored_write_handler(write);
        },
    ];
    for set in outputs {
        let (connection, written) = (echo(), Written::default());
        set(&connection, written.clone());
        connection.read_all(wire::REQUEST.as_bytes()).unwrap();
        assert!(written.take().starts_with(b"HTTP/1.1 101 "));
        connection.read_all(&frames(&[text("a")])).unwrap();
        assert_eq!(wire::read(&written.take(), Role::Server), [text("a")]);
    }
}

#[test]
fn a_program_can_fetch_the_output() {
    let connection = echo();
    connection.collect_output();
    connection.read_all(wire::REQUEST.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    assert!(connection.wants_output());
    connection.take_output(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 101 ") && !connection.wants_output());
}

/// One call takes bounded memory, and returns, whatever handlers send meanwhile.
#[test]
fn a_program_fetches_what_waited_when_it_asked() {
    const SIZE: usize = 100_000;
    let left = Rc::new(Cell::new(100));
    let mut server = LocalServer::new(server_config().high_water_mark(1).low_water_mark(0));
    server.on_message(|_, context| _ = context.send(&[7; SIZE][..]));
    let sends = left.clone();
    server.on_drained(move |context| {
        if sends.get() > 0 {
            sends.set(sends.get() - 1);
            _ = context.send(&[7; SIZE][..]);
        }
    });
    let connection = server.connection();
    connection.collect_output();
    connection.read_all(wire::REQUEST.as_bytes()).unwrap();
    connection.take_output(&mut Vec::new()).unwrap();
    connection.read_all(&frames(&[text("a")])).unwrap();
    let mut taken = 0;
    while connection.wants_output() {
        let mut bytes = Vec::new();
        taken += connection.take_output(&mut bytes).unwrap();
        assert!(!bytes.is_empty() && bytes.len() < 3 * SIZE, "{} bytes", bytes.len());
    }
    assert_eq!((left.get(), taken), (0, 101 * (SIZE + 10)));
}

#[test]
fn a_program_fetches_a_large_body_in_parts() {
    const LENGTH: usize = 8 << 20;
    let mut server = LocalServer::new(server_config());
    server.on_http(|_, _| Response::new(Body::from_reader(io::repeat(b'x'), LENGTH as u64)));
    let connection = server.connection();
    connection.collect_output();
    connection.read_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut taken = 0;
    while connection.wants_output() {
        let mut bytes = Vec::new();
        taken += connection.take_output(&mut bytes).unwrap();
        assert!(!bytes.is_empty() && bytes.len() < 1 << 20, "{} bytes", bytes.len());
    }
    assert!(taken > LENGTH && connection.has_ended());
}

#[test]
fn the_clock_and_the_shutdown_handler_may_belong_to_one_thread() {
    let (now, ended) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
    let failures = Rc::new(Cell::new(0));
    let (clock, failed, record) = (now.clone(), failures.clone(), ended.clone());
    let mut client = LocalClient::new(client_config());
    client.set_clock(move || Instant::from_nanos(clock.get()));
    client.on_fail(move |_, _| failed.set(failed.get() + 1));
    let connection = client.connection(target()).unwrap();
    connection.set_shutdown_handler(move |how| record.borrow_mut().push(how));
    connection.collect_output();
    connection.start().unwrap();
    now.set(connection.next_timeout().unwrap().as_nanos());
    connection.handle_timeout().unwrap();
    assert_eq!(failures.get(), 1);
    assert_eq!(*ended.borrow(), [Shutdown::Abort]);
}

/// Its connections are on one thread, but their handles are not.
#[test]
fn other_threads_send_by_handles() {
    let (connection, written) = (echo(), Written::default());
    connection.register_output(written.clone());
    connection.read_all(wire::REQUEST.as_bytes()).unwrap();
    written.take();
    let handle = connection.handle();
    let sent = std::thread::spawn(move || handle.send("from elsewhere")).join().unwrap();
    assert!(sent.is_ok());
    assert!(connection.wants_drive());
    connection.drive().unwrap();
    assert_eq!(wire::read(&written.take(), Role::Server), [text("from elsewhere")]);
}
