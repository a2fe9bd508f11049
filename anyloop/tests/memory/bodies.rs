//! Bodies of HTTP responses are never in memory as a whole.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread;

use anyloop::http::Response;
use anyloop::prelude::*;
use anyloop_testkit::wait::{PATIENCE, eventually};
use anyloop_testkit::watchdog::watchdog;

use super::heap::in_use;
use super::setup::{Running, server_with};
use super::{TOLERANCE, one_at_a_time, without_timeouts};

const GIBIBYTE: u64 = 1 << 30;

/// A server that answers each request with the next of these bodies.
fn serving(bodies: impl IntoIterator<Item = Body>) -> Running {
    let bodies = Mutex::new(bodies.into_iter().collect::<Vec<_>>());
    let mut server = server_with(without_timeouts());
    server.on_http(move |_, _| Response::new(bodies.lock().unwrap().pop().unwrap()));
    Running::start(server)
}

fn get(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    stream
}

/// Reads to the end. Returns the number of bytes, and the most that was in use meanwhile.
fn drain(mut stream: TcpStream, buffer: &mut [u8]) -> (u64, usize) {
    let (mut total, mut most) = (0, 0);
    loop {
        match stream.read(buffer).unwrap() {
            0 => return (total, most),
            n => total += n as u64,
        }
        most = most.max(in_use());
    }
}

#[test]
fn a_gibibyte_from_a_reader_needs_no_memory() {
    let (_alone, _watchdog) = (one_at_a_time(), watchdog());
    let running = serving([Body::from_reader(io::repeat(7).take(GIBIBYTE), GIBIBYTE)]);
    let mut buffer = vec![0; 1 << 18];
    let base = in_use();
    let (received, most) = drain(get(running.address), &mut buffer);
    assert!(received > GIBIBYTE && received < GIBIBYTE + 1000, "{received} bytes came");
    assert!(most < base + TOLERANCE, "{most} bytes, and before {base}");
    eventually("it is counted", || running.server.counters().http == 1);
}

/// It writes faster than the peer reads, and waits.
#[test]
fn a_writer_that_blocks_needs_the_high_water_mark() {
    const LEN: usize = 256 << 20;
    let (_alone, _watchdog) = (one_at_a_time(), watchdog());
    let (mut writer, body) = Body::channel(None);
    let running = serving([body]);
    let mut buffer = vec![0; 1 << 18];
    let base = in_use();
    let stream = get(running.address);
    let writes = thread::spawn(move || {
        io::copy(&mut io::repeat(7).take(LEN as u64), &mut writer).unwrap();
        writer.finish().unwrap();
    });
    let (received, most) = drain(stream, &mut buffer);
    writes.join().unwrap();
    assert!(received > LEN as u64, "{received} bytes came");
    let mark = ServerConfig::new(OriginPolicy::Any).get_high_water_mark();
    assert!(most < base + mark + TOLERANCE, "{most} bytes, and before {base}");
}

#[test]
fn a_connection_whose_peer_does_not_read_keeps_little_of_a_body() {
    const COUNT: usize = 100;
    const MOST: usize = 100 << 10;
    let (_alone, _watchdog) = (one_at_a_time(), watchdog());
    let endless = |_| Body::from_reader(io::repeat(7), None);
    let running = serving((0..COUNT).map(endless));
    let base = in_use();
    let streams: Vec<_> = (0..COUNT).map(|_| get(running.address)).collect();
    let waits =
        || running.server.connections().iter().filter(|it| it.buffered_amount() > 0).count();
    eventually("all are blocked", || waits() == COUNT);
    let now = in_use();
    assert!(now < base + COUNT * MOST, "{now} bytes, and before {base}");
    streams.iter().for_each(|stream| stream.shutdown(Shutdown::Both).unwrap());
    drop(streams);
    eventually("they are gone", || running.server.connections().is_empty());
    assert_eq!(running.server.counters().failed, COUNT as u64);
}
