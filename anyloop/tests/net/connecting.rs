//! Clients that reach their server.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyloop::endpoint::Unsent;
use anyloop::net::{Client, LocalClient, LocalServer};
use anyloop::prelude::*;
use anyloop::proto::handshake::Target;
use anyloop::proto::handshake::http::{HeaderName, HeaderValue};
use anyloop::proto::{CloseFrame, Party, State};
use anyloop_testkit::peer::{Peer, serve};
use anyloop_testkit::wait::eventually;
use anyloop_testkit::watchdog::watchdog;
use anyloop_testkit::{frames, requests};

use crate::record::{Log, recording};
use crate::setup::{
    GREETED, Running, blackhole, client, closed_at, echo, echo_on, greeting_with, greets, has_v6,
    millis, recording_client, recording_client_on, recording_client_with, recording_server,
    run_until, server, server_config, shared, url,
};

/// A client that sends a message, and closes when the answer has come.
fn greeting(log: &Log) -> Client {
    greeting_with(log, ClientConfig::new())
}

fn greeting_after(delay: Duration, log: &Log) -> Client {
    greeting_with(log, ClientConfig::new().attempt_delay(delay))
}

#[test]
fn by_a_url() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let client = greeting(&log);
    let handle = client.connect(running.url().as_str()).unwrap();
    assert_eq!(handle.state(), State::Connecting);
    assert!(client.connections() == std::slice::from_ref(&handle));
    client.run();
    assert_eq!(log.take(), GREETED);
    assert_eq!(handle.state(), State::Ended);
    assert_eq!(handle.send("late"), Err(SendError::Gone));
    assert!(client.connections().is_empty());
    let counters = client.counters();
    assert_eq!((counters.started, counters.opened, counters.closed), (1, 1, 1));
}

#[test]
fn by_a_target() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let client = greeting(&log);
    let target: Target = running.url().parse().unwrap();
    client.connect(target.clone()).unwrap();
    client.connect(target).unwrap();
    client.run();
    assert_eq!(log.take().len(), 4);
}

#[test]
fn by_ipv6() {
    if !has_v6() {
        return;
    }
    let _watchdog = watchdog();
    let server = echo();
    let address = server.listen("[::1]:0").unwrap();
    let _running = Running::start(server);
    let log = Log::default();
    let client = greeting(&log);
    client.connect(url(address).as_str()).unwrap();
    client.run();
    assert_eq!(log.take(), GREETED);
}

#[test]
fn by_the_name_of_this_machine() {
    let _watchdog = watchdog();
    let server = echo();
    let address = server.listen("127.0.0.1:0").unwrap();
    let _running = Running::start(server);
    let log = Log::default();
    // `localhost` may be ::1 as well, where nobody listens.
    let client = greeting(&log);
    client.connect(format!("ws://localhost:{}/", address.port()).as_str()).unwrap();
    client.run();
    assert_eq!(log.take(), GREETED);
}

#[test]
fn by_a_request_of_its_own() {
    let _watchdog = watchdog();
    let mut server = echo();
    let seen = shared();
    let sees = seen.clone();
    server.on_validate(move |request, _| {
        let room = request.headers().get("x-room").map(|room| room.to_str().unwrap().to_string());
        let protocols: Vec<_> = request.subprotocols().iter().map(ToString::to_string).collect();
        sees.lock().unwrap().push((
            request.uri().to_string(),
            request.host().map(ToString::to_string),
            room,
            protocols,
        ));
        match request.subprotocols().is_empty() {
            true => Accept::new(),
            false => Accept::new().with_subprotocol("v1"),
        }
    });
    let running = Running::start(server);
    let (log, own) = (Log::default(), Log::default());
    let client = greeting(&log);

    let (room, lobby) = (HeaderName::from_static("x-room"), HeaderValue::from_static("lobby"));
    let request = client.request("ws://chat.example/room?a=b").unwrap();
    let request =
        request.configure(|config| config.subprotocol("v2").subprotocol("v1").header(room, lobby));
    let mut handlers = recording(&own);
    let logs = own.clone();
    handlers.on_open(move |context| {
        logs.push(format!("open {:?}", context.handshake_info().unwrap().subprotocol));
        context.close(CloseCode::GOING_AWAY, "enough").unwrap();
    });
    request.with_handler(handlers).to_addresses([running.address]).connect().unwrap();
    client.run();
    assert_eq!(own.take(), ["open Some(\"v1\")", "close clean by local: 1001/1001"]);
    assert!(log.take().is_empty());

    // The next request has the configuration of the client again.
    client.event_loop().reset().unwrap();
    client
        .request("ws://chat.example/")
        .unwrap()
        .to_addresses([running.address])
        .connect()
        .unwrap();
    client.run();
    assert_eq!(log.take(), GREETED);
    let seen = seen.lock().unwrap();
    let host = Some("chat.example".to_string());
    let protocols = vec!["v2".to_string(), "v1".to_string()];
    assert_eq!(seen[0], ("/room?a=b".into(), host.clone(), Some("lobby".into()), protocols));
    assert_eq!(seen[1], ("/".into(), host, None, Vec::new()));
}

#[test]
fn a_socket_can_be_set_up() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = greeting(&log);
    let logs = log.clone();
    client.on_socket_init(move |socket| {
        logs.push(format!("{:?}", socket.tcp_nodelay()?));
        Ok(())
    });
    client.connect(running.url().as_str()).unwrap();
    client.run();
    assert_eq!(log.take()[0], "true");
}

/// The first address does not answer: after the delay the second is tried as well.
#[test]
fn a_dead_address_costs_the_delay() {
    let _watchdog = watchdog();
    let blackhole = blackhole();
    let running = Running::start(echo());
    let log = Log::default();
    let client = greeting_after(millis(100), &log);
    let request = client.request("ws://chat.example/").unwrap();
    let start = Instant::now();
    request.to_addresses([blackhole.address, running.address]).connect().unwrap();
    client.run();
    let elapsed = start.elapsed();
    assert_eq!(log.take(), GREETED);
    assert!(elapsed >= millis(100), "{elapsed:?}");
    assert!(elapsed < millis(900), "the first is asked again after a second: {elapsed:?}");
}

/// Two addresses do not answer: the third is reached after twice the delay.
#[test]
fn of_several_attempts_the_one_that_answers_wins() {
    let _watchdog = watchdog();
    let blackholes = [blackhole(), blackhole()];
    let running = Running::start(echo());
    let log = Log::default();
    let client = greeting_after(millis(20), &log);
    let addresses = [blackholes[0].address, blackholes[1].address, running.address];
    client.request("ws://chat.example/").unwrap().to_addresses(addresses).connect().unwrap();
    client.run();
    assert_eq!(log.take(), GREETED);
}

/// After a refusal the next address is tried at once, whatever the delay.
#[test]
fn a_closed_address_costs_nothing() {
    if !has_v6() {
        return;
    }
    let _watchdog = watchdog();
    let six = closed_at("[::1]:0".parse().unwrap());
    let running = Running::start(echo());
    for addresses in [[six.address, running.address], [running.address, six.address]] {
        let log = Log::default();
        let mut client = greeting_after(millis(600_000), &log);
        client.set_look_up(move |host, _| {
            assert_eq!(host, "chat.example");
            Ok(addresses.to_vec())
        });
        client.connect("ws://chat.example/").unwrap();
        client.run();
        assert_eq!(log.take(), GREETED);
    }
}

/// Messages of a handle wait until `open` has returned.
#[test]
fn messages_before_the_handshake_wait_for_it() {
    let _watchdog = watchdog();
    let received = shared();
    let receives = received.clone();
    let mut server = server();
    server.on_message(move |message, context| {
        let mut received = receives.lock().unwrap();
        received.push(String::from_utf8(message.as_bytes().to_vec()).unwrap());
        if received.len() == 4 {
            context.close(CloseCode::NORMAL, "").unwrap();
        }
    });
    let running = Running::start(server);
    let log = Log::default();
    let mut client = recording_client(&log);
    client.on_open(|context| _ = context.send("by open").unwrap());
    let handle = client.connect(running.url().as_str()).unwrap();
    let completed = shared();
    for number in 0..3 {
        let completes = completed.clone();
        let completion = move |result| completes.lock().unwrap().push(result);
        let _ = handle.send_then(format!("early {number}"), completion).unwrap();
    }
    client.run();
    assert_eq!(*completed.lock().unwrap(), [Ok(()); 3]);
    assert_eq!(*received.lock().unwrap(), ["by open", "early 0", "early 1", "early 2"]);
    assert_eq!(log.take(), ["close clean by peer: 1000/1000"]);
}

/// If there will be no connection, their completions say that they were not sent.
#[test]
fn messages_before_a_failure_are_not_sent() {
    let _watchdog = watchdog();
    let closed = crate::setup::closed();
    let client = client();
    let handle = client.connect(url(closed.address).as_str()).unwrap();
    let completed = shared();
    for _ in 0..3 {
        let completes = completed.clone();
        let completion = move |result| completes.lock().unwrap().push(result);
        let _ = handle.send_then("early", completion).unwrap();
    }
    assert_eq!(client.run(), 1);
    assert_eq!(*completed.lock().unwrap(), [Err(Unsent); 3]);
}

/// A handler connects again, inside the run call that it is called from.
#[test]
fn a_handler_connects() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let own = Arc::new(OnceLock::<Arc<Client>>::new());
    let mut client = greeting(&log);
    let (again, logs, to) = (own.clone(), log.clone(), running.url());
    client.on_close(move |_, _| {
        let client = again.get().unwrap();
        logs.push(format!("closed {}", client.counters().opened));
        if client.counters().opened < 5 {
            client.connect(to.as_str()).unwrap();
        }
    });
    let client = Arc::new(client);
    own.set(client.clone()).ok().unwrap();
    client.connect(running.url().as_str()).unwrap();
    client.run();
    let lines = log.take();
    assert_eq!(lines.iter().filter(|line| line.starts_with("closed")).count(), 5);
    assert_eq!(lines.last().unwrap(), "closed 5");
}

/// A server defers its answer until another server has answered its client.
#[test]
fn a_server_asks_another_before_it_accepts() {
    let _watchdog = watchdog();
    let other = Running::start(echo());
    let event_loop = EventLoop::new().unwrap();
    let client = Arc::new(Client::on(&event_loop, ClientConfig::new()));
    let mut server = echo_on(&event_loop);
    let (asks, to) = (client.clone(), other.url());
    server.on_validate(move |_, context| {
        let waiting = context.handle();
        let mut handlers = Handlers::new();
        handlers.on_open(|context| _ = context.send("may it?").unwrap()).on_message(
            move |_, context| {
                waiting.accept(Accept::new()).unwrap();
                context.close(CloseCode::NORMAL, "").unwrap();
            },
        );
        asks.request(to.as_str()).unwrap().with_handler(handlers).connect().unwrap();
        Answer::Defer
    });
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let peer = thread::spawn(move || {
        let mut peer = Peer::open(address);
        peer.echo("a");
        peer.close();
    });
    run_until(&event_loop, "the peer is done", || peer.is_finished());
    peer.join().unwrap();
    assert_eq!(client.counters().closed, 1);
}

#[test]
fn server_and_client_in_one_loop() {
    let _watchdog = watchdog();
    let event_loop = EventLoop::new().unwrap();
    let server = Arc::new(echo_on(&event_loop));
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let log = Log::default();
    let mut client = greets(recording_client_on(&log, &event_loop), &log);
    let (logs, stops) = (log.clone(), server.clone());
    client.on_close(move |ending, _| {
        logs.push(format!("clean {}", ending.clean));
        stops.stop_listening();
    });
    client.connect(url(address).as_str()).unwrap();
    // A run call of either endpoint runs both.
    client.run();
    assert_eq!(log.take(), ["text hello", "clean true"]);
    assert!(server.stopped() && event_loop.stopped());
    assert_eq!(server.counters().closed, 1);
}

/// Handlers with `Rc`, which is not `Send`.
#[test]
fn server_and_client_on_one_thread() {
    use std::cell::Cell;
    use std::rc::Rc;

    let _watchdog = watchdog();
    let event_loop = LocalEventLoop::new().unwrap();
    let mut server = LocalServer::on(&event_loop, server_config());
    let received = Rc::new(Cell::new(0));
    let counts = received.clone();
    server.on_message(move |message, context| {
        counts.set(counts.get() + 1);
        let _ = context.send(message);
    });
    let address: SocketAddr = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let server = Rc::new(server);

    let mut client = LocalClient::on(&event_loop, ClientConfig::new());
    client.on_open(|context| _ = context.send("hello").unwrap());
    let (counts, stops) = (received.clone(), server.clone());
    client.on_message(move |_, context| {
        counts.set(counts.get() + 10);
        context.close(CloseCode::NORMAL, "").unwrap();
        stops.stop_listening();
    });
    client.connect(url(address).as_str()).unwrap();
    event_loop.run();
    assert_eq!(received.get(), 11);
}

/// Frames in the same segment as the response are not lost.
#[test]
fn frames_behind_the_response_are_received() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| {
        peer.read_head();
        let frames = frames::stream(&[frames::text("at once"), frames::close(1001, "")], peer.role);
        peer.write([requests::RESPONSE.as_bytes(), &frames].concat());
        peer.receive()
    });
    let log = Log::default();
    let config = ClientConfig::new().random(Arc::new(requests::Zeros));
    let client = recording_client_with(&log, config);
    client.connect(url(address).as_str()).unwrap();
    client.run();
    assert_eq!(log.take(), ["open", "text at once", "close clean by peer: 1001/1001"]);
    assert_eq!(thread.join().unwrap(), frames::close(1001, ""));
}

#[test]
fn ending_by_either_side() {
    let _watchdog = watchdog();
    let log = (Log::default(), Log::default());
    let mut server = recording_server(&log.1, server_config());
    server.on_message(|message, context| {
        let code = std::str::from_utf8(message.as_bytes()).unwrap().parse().unwrap();
        context.close(CloseCode::new(code).unwrap(), "because of this").unwrap();
    });
    let seen = shared();
    let by_server = |handlers: &mut Handlers| {
        let sees = seen.clone();
        handlers.on_close(move |ending, _| {
            let frame = |frame: Option<&CloseFrame>| {
                frame.map(|frame| (frame.code.map(CloseCode::get), frame.reason.to_string()))
            };
            sees.lock().unwrap().push((
                ending.by,
                ending.clean,
                frame(ending.sent),
                frame(ending.received),
            ));
        });
    };
    let running = Running::start(server);
    for code in [1000, 1001, 3000, 4999] {
        let mut client = client();
        let mut handlers = Handlers::new();
        handlers.on_open(move |context| _ = context.send(code.to_string().as_str()).unwrap());
        by_server(&mut handlers);
        client.set_factory(handlers);
        client.connect(running.url().as_str()).unwrap();
        client.run();
        let (by, clean, _, received) = seen.lock().unwrap().pop().unwrap();
        assert_eq!((by, clean), (Party::Peer, true));
        assert_eq!(received, Some((Some(code), "because of this".to_string())));
        eventually("the server has closed it", || {
            log.1.take().iter().any(|line| line.starts_with("close clean by local"))
        });

        let mut client = self::client();
        let mut handlers = Handlers::new();
        handlers.on_open(move |context| {
            context.close(CloseCode::new(code).unwrap(), "of this").unwrap();
        });
        by_server(&mut handlers);
        client.set_factory(handlers);
        client.connect(running.url().as_str()).unwrap();
        client.run();
        let (by, clean, sent, received) = seen.lock().unwrap().pop().unwrap();
        assert_eq!((by, clean), (Party::Local, true));
        assert_eq!(sent, Some((Some(code), "of this".to_string())));
        assert_eq!(received.unwrap().0, Some(code));
        let expected = format!("close clean by peer: {code}/{code}");
        eventually("the server has closed it", || log.1.take().contains(&expected));
    }
}

/// The peer's address, the target, and the statistics.
#[test]
fn a_context_describes_its_connection() {
    let _watchdog = watchdog();
    let seen = shared();
    let mut server = echo();
    let (opens, closes) = (seen.clone(), seen.clone());
    server.on_open(move |context| opens.lock().unwrap().push(context.peer_addr()));
    server.on_close(move |_, context| closes.lock().unwrap().push(context.peer_addr()));
    let running = Running::start(server);
    let peer = Peer::open(running.address);
    let address = peer.local_addr();
    peer.close();
    eventually("it is closed", || seen.lock().unwrap().len() == 2);
    assert_eq!(*seen.lock().unwrap(), [Some(address); 2]);

    let log = Log::default();
    let mut client = client();
    let target = |log: &Log, context: &Context<'_, Handlers>| {
        let target = context.handshake_info().and_then(|facts| facts.target.as_ref()).unwrap();
        log.push(format!("{}:{}", target.host(), target.port()));
    };
    let (opens, fails, passes) = (log.clone(), log.clone(), log.clone());
    let expected = running.address;
    client.on_open(move |context| {
        target(&opens, context);
        assert_eq!(context.peer_addr(), Some(expected));
        let _ = context.send("four").unwrap();
    });
    client.on_message(move |_, context| {
        let passes = passes.clone();
        context.set_timer(millis(1), move |_, context| {
            let statistics = context.statistics().unwrap();
            let (sent, received) = (statistics.messages_sent, statistics.bytes_received);
            passes.push(format!("{sent} {received}"));
            context.close(CloseCode::NORMAL, "").unwrap();
        });
    });
    client.on_fail(move |_, context| target(&fails, context));
    client.request("ws://a.example/").unwrap().to_addresses([expected]).connect().unwrap();
    client.run();
    assert_eq!(log.take(), ["a.example:80", "1 4"]);
    client.reset().unwrap();
    let closed = crate::setup::closed();
    client.request("ws://b.example:7/").unwrap().to_addresses([closed.address]).connect().unwrap();
    client.run();
    assert_eq!(log.take(), ["b.example:7"]);
}
