//! The loop of one thread, whose handlers need not be `Send`.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use anyloop::event_loop::{Aborted, LoopGone, LoopHandle, Timer, Watch, WatchMode, WorkGuard};
use anyloop::net::{LocalClient, LocalServer};
use anyloop::prelude::*;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::{PATIENCE, ThreadProbe, eventually};
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{described, server_config};
use crate::harness::{FAR, is_readable, panics};
use crate::wire::{close, numbered, request};

type Shared<T> = Rc<RefCell<Vec<T>>>;

#[test]
fn what_is_shared_can_be_sent_to_threads() {
    fn any_thread<T: Send + Sync>() {}
    any_thread::<EventLoop>();
    any_thread::<LoopHandle>();
    any_thread::<WorkGuard>();
    any_thread::<Timer>();
    any_thread::<Watch>();
}

/// A panic leaves a run call, and the loop goes on: who catches it need assert nothing.
#[test]
fn loops_are_unwind_safe() {
    fn unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
    unwind_safe::<EventLoop>();
    unwind_safe::<LocalEventLoop>();
    unwind_safe::<LoopHandle>();
}

/// One of the two holds for a type that is not `Send`, and both for one that is: then it is ambiguous,
/// and does not compile.
trait IsSendIsAmbiguous<A> {
    fn is_not_send() {}
}

impl<T: ?Sized> IsSendIsAmbiguous<()> for T {}
impl<T: ?Sized + Send> IsSendIsAmbiguous<u8> for T {}

#[test]
fn a_local_loop_stays_on_its_thread() {
    let _: fn() = <LocalEventLoop as IsSendIsAmbiguous<_>>::is_not_send;
}

#[test]
fn a_local_server_and_a_local_client_share_what_is_not_send() {
    within_time(|| {
        let event_loop = LocalEventLoop::new().unwrap();
        let reported: Shared<String> = Rc::default();
        let mut server = LocalServer::on(&event_loop, server_config());
        let it = reported.clone();
        server.on_message(move |message, context| {
            it.borrow_mut().push(format!("server: {}", described(&message)));
            context.send(message).unwrap();
        });
        let address = server.listen("127.0.0.1:0").unwrap();
        server.start_accept().unwrap();

        let mut client = LocalClient::on(&event_loop, ClientConfig::new());
        client.on_open(|context| _ = context.send("hello").unwrap());
        let it = reported.clone();
        client.on_message(move |message, context| {
            it.borrow_mut().push(format!("client: {}", described(&message)));
            context.close(CloseCode::NORMAL, "").unwrap();
        });
        let (it, server) = (reported.clone(), Rc::new(server));
        let of_handler = server.clone();
        client.on_close(move |ending, _| {
            it.borrow_mut().push(format!("closed: {}", ending.clean));
            of_handler.stop_listening();
        });
        client.connect(format!("ws://{address}/").as_str()).unwrap();
        // validate, open, message, close; open, message, close
        assert_eq!(event_loop.run_for(PATIENCE), 7);
        assert!(event_loop.stopped());
        assert_eq!(*reported.borrow(), ["server: hello", "client: hello", "closed: true"]);
        drop((server, client));
    });
}

#[test]
fn local_functions_timers_and_watches_hold_what_is_not_send() {
    within_time(|| {
        let event_loop = LocalEventLoop::new().unwrap();
        let reported: Shared<&str> = Rc::default();
        let it = reported.clone();
        event_loop.post(move || it.borrow_mut().push("posted"));
        let it = reported.clone();
        let timer = event_loop.set_timer_then(FAR, move |result| {
            assert_eq!(result, Err(Aborted));
            it.borrow_mut().push("timer");
        });
        timer.cancel();
        assert_eq!(event_loop.run(), 2);
        assert_eq!(reported.take(), ["posted", "timer"]);

        event_loop.reset().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"abc").unwrap();
        let it = reported.clone();
        let watch = event_loop.watch(near, WatchMode::Read, move |near, _| {
            let mut byte = [0];
            near.read_exact(&mut byte).unwrap();
            it.borrow_mut().push("watch");
            if byte == *b"c" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        watch.unwrap();
        assert_eq!(event_loop.run(), 3);
        assert_eq!(reported.take(), ["watch"; 3]);
        assert_eq!(Rc::strong_count(&reported), 1); // all was let go
    });
}

#[test]
fn dispatch_on_a_local_loop_is_inline_inside_and_posts_outside() {
    within_time(|| {
        let event_loop = LocalEventLoop::new().unwrap();
        let count = Rc::new(Cell::new(0));
        let it = count.clone();
        event_loop.dispatch(move || it.set(it.get() + 1));
        assert_eq!(count.get(), 0);
        let (inside, it) = (event_loop.clone(), count.clone());
        event_loop.post(move || {
            let before = it.get();
            let inner = it.clone();
            inside.dispatch(move || inner.set(inner.get() + 1));
            assert_eq!(it.get(), before + 1);
        });
        assert_eq!(event_loop.run(), 2);
        assert_eq!(count.get(), 2);
    });
}

#[test]
fn the_handle_of_a_local_loop_reaches_it_from_another_thread() {
    within_time(|| {
        let event_loop = LocalEventLoop::new().unwrap();
        let (handle, guard) = (event_loop.handle(), event_loop.keep_alive());
        let here = thread::current().id();
        let runner = ThreadProbe::current();
        let thread = thread::spawn(move || {
            handle.post(move || assert_eq!(thread::current().id(), here)).unwrap();
            let timer =
                handle.set_timer_then(FAR, |result| assert_eq!(result, Err(Aborted))).unwrap();
            timer.cancel();
            runner.until_asleep();
            handle.post(move || drop(guard)).unwrap();
            handle
        });
        assert_eq!(event_loop.run(), 3);
        let handle = thread.join().unwrap();
        drop(event_loop);
        assert_eq!(handle.post(|| ()), Err(LoopGone));
    });
}

#[test]
fn a_local_loop_steps_stops_and_goes_on_as_a_shared_one() {
    within_time(|| {
        let event_loop = LocalEventLoop::new().unwrap();
        let reported: Shared<String> = Rc::default();
        let mut server = LocalServer::on(&event_loop, server_config());
        let (it, stops) = (reported.clone(), event_loop.handle());
        server.on_message(move |message, _| {
            it.borrow_mut().push(described(&message));
            match it.borrow().len() {
                50 => stops.stop().unwrap(),
                60 => panic!("in a handler"),
                _ => {}
            }
        });
        let closed = Rc::new(Cell::new(0));
        let it = closed.clone();
        server.on_close(move |_, _| it.set(it.get() + 1));
        let address = server.listen("127.0.0.1:0").unwrap();
        server.start_accept().unwrap();
        assert!(event_loop.reset().is_ok());
        let mut peer = Peer::connect(address);
        peer.write([request("/"), numbered(100)].concat());
        assert_eq!((event_loop.run_one(), event_loop.run_one()), (1, 1)); // validate, open
        for _ in 0..10 {
            assert_eq!(event_loop.run_one(), 1);
        }
        assert_eq!(reported.borrow().len(), 10);
        assert_eq!(event_loop.run(), 40);
        assert!(event_loop.stopped());
        event_loop.reset().unwrap();
        assert!(is_readable(&event_loop, Duration::ZERO));
        panics("in a handler", || event_loop.run());
        assert_eq!(*reported.borrow(), (0..60).map(|i| i.to_string()).collect::<Vec<_>>());
        peer.write_last(close(1000));
        eventually("the head", || peer.poll_head().is_some());
        server.stop_listening();
        let mut code = None;
        while !event_loop.stopped() {
            event_loop.run_for(Duration::from_millis(1));
            code = code.or_else(|| peer.poll_frame().and_then(|frame| frame.close_code()));
            if peer.poll_end().is_some() {
                peer.finish();
            }
        }
        assert_eq!((code, closed.get()), (Some(1011), 1));
    });
}

#[test]
fn with_its_last_owner_a_local_loop_drops_what_is_queued_un_run() {
    within_time(|| {
        let event_loop = LocalEventLoop::new().unwrap();
        let held = Rc::new(());
        let one = held.clone();
        event_loop.post(move || panic!("{one:?} was run"));
        let one = held.clone();
        event_loop.set_timer(Duration::ZERO, move || panic!("{one:?} was run"));
        let (near, _far) = UnixStream::pair().unwrap();
        let one = held.clone();
        let f = move |_: &mut UnixStream, _| panic!("{one:?} was run");
        event_loop.watch(near, WatchMode::Read, f).unwrap();
        assert_eq!(Rc::strong_count(&held), 4);
        drop(event_loop);
        assert_eq!(Rc::strong_count(&held), 1);
    });
}
