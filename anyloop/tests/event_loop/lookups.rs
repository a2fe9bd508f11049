//! Looking up hosts: on threads of their own, and each for itself.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use anyloop::net::{Client, ConnectError, Stage};
use anyloop::prelude::*;
use anyloop_testkit::wait::{PATIENCE, ThreadProbe};
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{Fixture, client, client_config, client_of};
use crate::harness::{FAR, Log, drive};

/// Logs which stage has failed.
fn report_failures(client: &mut Client, log: &Log) {
    let it = log.clone();
    client.on_fail(move |_, context| {
        let error = context.error().and_then(|error| error.downcast_ref::<ConnectError>());
        it.add(match error {
            Some(ConnectError::Resolve { source, .. }) => format!("resolve: {:?}", source.kind()),
            Some(ConnectError::Connect { .. }) => "connect".to_string(),
            Some(ConnectError::TimedOut { stage: Stage::Resolve, .. }) => "late".to_string(),
            other => format!("{other:?}"),
        });
    });
}

/// A look-up that waits for its answer from the test.
type Answer = mpsc::Sender<Vec<SocketAddr>>;

fn slow(client: &mut Client) -> (Answer, mpsc::Receiver<String>) {
    let ((answer, answers), (ask, asked)) = (mpsc::channel(), mpsc::channel());
    let (answers, ask) = (Mutex::new(answers), Mutex::new(ask));
    client.set_look_up(move |host, _| {
        if host == "fast" {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        ask.lock().unwrap().send(host.to_string()).unwrap();
        let answer = answers.lock().unwrap().recv_timeout(PATIENCE);
        answer.map_err(|_| ErrorKind::TimedOut.into())
    });
    (answer, asked)
}

#[test]
fn a_look_up_that_fails_is_reported_and_ends_the_work() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let mut client = client(&event_loop, &log);
        client.set_look_up(|host, port| {
            assert_eq!((host, port), ("nowhere", 80));
            Err(ErrorKind::AddrNotAvailable.into())
        });
        report_failures(&mut client, &log);
        let handle = client.connect("ws://nowhere/").unwrap();
        assert_eq!(event_loop.run(), 1);
        assert_eq!(log.all(), ["resolve: AddrNotAvailable"]);
        assert!(handle.send("hello").is_err());
        assert_eq!(client.connections(), []);
    });
}

#[test]
fn a_look_up_that_panics_fails() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let mut client = client(&event_loop, &log);
        client.set_look_up(|_, _| panic!("in a look-up"));
        report_failures(&mut client, &log);
        client.connect("ws://nowhere/").unwrap();
        assert_eq!(event_loop.run(), 1);
        assert_eq!(log.count_of("resolve"), 1);
    });
}

#[test]
fn a_look_up_keeps_run_alive_and_wakes_it() {
    within_time(|| {
        let fixture = Fixture::new();
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let mut client = client(&event_loop, &log);
        let (answer, asked) = slow(&mut client);
        client.connect("ws://host/").unwrap();
        drive(&event_loop, "the question", || asked.try_recv().is_ok());
        assert_eq!(event_loop.run_for(Duration::from_millis(10)), 0);
        assert!(!event_loop.stopped());
        let address = fixture.address;
        let runs = fixture.event_loop.clone();
        let server = std::thread::spawn(move || runs.run());
        let runner = ThreadProbe::current();
        let helper = std::thread::spawn(move || {
            runner.until_asleep();
            answer.send(vec![address]).unwrap();
            answer
        });
        assert_eq!(event_loop.run_one(), 1);
        assert_eq!(log.all(), ["open"]);
        helper.join().unwrap();
        fixture.event_loop.stop();
        server.join().unwrap();
    });
}

#[test]
fn pitfall_a_look_up_that_blocks_holds_up_neither_the_loop_nor_other_look_ups() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let mut client = client(&event_loop, &log);
        let (answer, asked) = slow(&mut client);
        report_failures(&mut client, &log);
        client.connect("ws://slow/").unwrap();
        drive(&event_loop, "the question", || asked.try_recv().is_ok());
        let it = log.clone();
        event_loop.set_timer(Duration::ZERO, move || it.add("timer"));
        drive(&event_loop, "the timer", || log.has("timer"));
        client.connect("ws://fast/").unwrap();
        drive(&event_loop, "the other", || log.has("resolve: AddrNotAvailable"));
        answer.send(Vec::new()).unwrap();
        event_loop.run();
        assert_eq!(log.count_of("resolve"), 2);
    });
}

#[test]
fn pitfall_a_look_up_that_is_late_ends_no_other() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let config = client_config().resolve_timeout(FAR);
        let mut client = client_of(&event_loop, config, &log);
        let (answer, asked) = slow(&mut client);
        report_failures(&mut client, &log);
        client.connect("ws://patient/").unwrap();
        drive(&event_loop, "the question", || asked.try_recv().is_ok());
        let request = client.request("ws://late/").unwrap();
        let request = request.configure(|it| it.resolve_timeout(Duration::from_millis(30)));
        request.connect().unwrap();
        drive(&event_loop, "the timeout", || log.has("late"));
        assert_eq!(event_loop.run_for(Duration::from_millis(5)), 0);
        assert_eq!(log.len(), 1);
        answer.send(Vec::new()).unwrap();
        event_loop.run();
        assert_eq!((log.count("late"), log.count_of("resolve")), (1, 1));
    });
}

#[test]
fn a_connection_that_is_closed_while_its_host_is_looked_up_fails_at_once() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let mut client = client(&event_loop, &log);
        let (answer, asked) = slow(&mut client);
        let handle = client.connect("ws://host/").unwrap();
        drive(&event_loop, "the question", || asked.try_recv().is_ok());
        handle.close(CloseCode::NORMAL, "").unwrap();
        assert_eq!(event_loop.run(), 1); // it does not wait for the answer
        assert_eq!(log.all(), ["fail"]);
        drop(answer);
    });
}

/// What the client has begun goes on without it, as what a server has accepted does.
#[test]
fn pitfall_a_look_up_goes_on_when_its_client_is_dropped() {
    for is_asked in [false, true] {
        within_time(move || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
            let config = client_config().resolve_timeout(None);
            let mut client = client_of(&event_loop, config, &log);
            let (answer, asked) = slow(&mut client);
            report_failures(&mut client, &log);
            client.connect("ws://host/").unwrap();
            if is_asked {
                drive(&event_loop, "the question", || asked.try_recv().is_ok());
            }
            drop(client);
            answer.send(vec![listener.local_addr().unwrap()]).ok();
            listener.set_nonblocking(true).unwrap();
            let mut stream = None;
            drive(&event_loop, "the connection", || {
                stream = listener.accept().ok();
                stream.is_some()
            });
            drop(stream); // it ends its handshake
            assert_eq!(event_loop.run(), 1);
            assert_eq!(log.len(), 1);
        });
    }
}

#[test]
fn a_connect_that_is_refused_is_reported_and_ends_the_work() {
    within_time(|| {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let mut client = client(&event_loop, &log);
        report_failures(&mut client, &log);
        client.connect(format!("ws://{unused}/").as_str()).unwrap();
        let path = crate::fixture::socket_path();
        client.request("ws://localhost/").unwrap().to_unix(path).connect().unwrap();
        assert_eq!(event_loop.run(), 2);
        assert_eq!(log.all(), ["connect", "connect"]);
    });
}
