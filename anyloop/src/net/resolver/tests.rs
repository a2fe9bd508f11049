//! The pool of look-up threads, with look-ups that are answered by hand.

use super::*;
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// The deadline of waits that succeed unless the test fails.
const LONG: Duration = Duration::from_secs(60);

type Reply = io::Result<Vec<SocketAddr>>;
type Named = (String, Reply);

/// A look-up that waits for its answer. It fails if there never is one.
struct Asked {
    host: String,
    port: u16,
    answer: Sender<Reply>,
    thread: Option<String>,
}

/// Sends when its thread ends.
struct AtEnd(Sender<()>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        _ = self.0.send(());
    }
}

thread_local! {
    static AT_END: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
}

/// A resolver whose look-ups are answered by hand.
struct Fake {
    resolver: Resolver,
    asked: Receiver<Asked>,
    ended: Receiver<()>,
    done: (Sender<Named>, Receiver<Named>),
}

impl Fake {
    fn new() -> Self {
        Self::with(spawn, LONG)
    }

    fn with(spawn: fn(Arc<Pool>) -> io::Result<()>, idle: Duration) -> Self {
        let ((asking, asked), (ending, ended)) = (channel(), channel());
        let look_up = move |host: &str, port: u16| {
            AT_END.with_borrow_mut(|at_end| {
                at_end.get_or_insert_with(|| AtEnd(ending.clone()));
            });
            let (answer, answered) = channel();
            let thread = thread::current().name().map(str::to_owned);
            _ = asking.send(Asked { host: host.to_owned(), port, answer, thread });
            assert_ne!(host, "panic");
            answered.recv().unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))
        };
        let resolver = Resolver::with(Arc::new(look_up), spawn, idle);
        Self { resolver, asked, ended, done: channel() }
    }

    fn resolve(&self, host: &str) -> Lookup {
        let (sender, name) = (self.done.0.clone(), host.to_owned());
        let done = move |result| _ = sender.send((name, result));
        self.resolver.resolve(host, 80, Box::new(done))
    }

    /// A look-up, and a reference to a value that its callback owns.
    fn resolve_watched(&self, host: &str) -> (Lookup, Weak<()>) {
        let held = Arc::new(());
        let (sender, watched) = (self.done.0.clone(), Arc::downgrade(&held));
        let done = move |result| {
            drop(held);
            _ = sender.send(("cancelled".to_owned(), result));
        };
        (self.resolver.resolve(host, 80, Box::new(done)), watched)
    }

    fn asked(&self) -> Asked {
        self.asked.recv_timeout(LONG).expect("a look-up")
    }

    fn done(&self) -> Named {
        self.done.1.recv_timeout(LONG).expect("a result")
    }

    fn ended(&self) {
        self.ended.recv_timeout(LONG).expect("the end of a thread");
    }

    fn threads(&self) -> usize {
        self.resolver.pool().lock().threads
    }

    fn waiting(&self) -> usize {
        self.resolver.pool().lock().queue.len()
    }

    /// Waits until this many threads are idle.
    fn until_idle(&self, count: usize) {
        let start = Instant::now();
        while self.resolver.pool().lock().idle != count {
            assert!(start.elapsed() < LONG);
            thread::yield_now();
        }
    }
}

fn address(n: u8) -> SocketAddr {
    ([192, 0, 2, n], 80).into()
}

#[test]
fn a_name_is_looked_up_on_a_thread_of_the_pool() {
    let fake = Fake::new();
    assert_eq!(fake.threads(), 0, "none before there is need");
    let _lookup = fake.resolve("a.example");
    let asked = fake.asked();
    assert_eq!((asked.host.as_str(), asked.port), ("a.example", 80));
    assert_eq!(asked.thread.as_deref(), Some("anyloop-resolve"));
    asked.answer.send(Ok(vec![address(1), address(2)])).unwrap();
    let (host, result) = fake.done();
    assert_eq!((host.as_str(), result.unwrap()), ("a.example", vec![address(1), address(2)]));
}

#[test]
fn errors_come_as_they_are_and_no_address_is_one() {
    let fake = Fake::new();
    let _lookup = fake.resolve("a");
    fake.asked().answer.send(Err(ErrorKind::TimedOut.into())).unwrap();
    assert_eq!(fake.done().1.unwrap_err().kind(), ErrorKind::TimedOut);
    let _lookup = fake.resolve("b");
    fake.asked().answer.send(Ok(Vec::new())).unwrap();
    assert_eq!(fake.done().1.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_slow_lookup_does_not_hold_up_another() {
    let fake = Fake::new();
    let _slow = fake.resolve("slow");
    let slow = fake.asked();
    let _fast = fake.resolve("fast");
    let fast = fake.asked();
    assert_eq!(fast.host, "fast");
    fast.answer.send(Ok(vec![address(1)])).unwrap();
    assert_eq!(fake.done().0, "fast");
    slow.answer.send(Err(ErrorKind::TimedOut.into())).unwrap();
    assert_eq!(fake.done().0, "slow");
}

#[test]
fn an_idle_thread_is_used_again() {
    let fake = Fake::new();
    for n in 1..5 {
        let _lookup = fake.resolve("a");
        fake.asked().answer.send(Ok(vec![address(n)])).unwrap();
        assert_eq!(fake.done().1.unwrap(), [address(n)]);
        fake.until_idle(1);
    }
    assert_eq!(fake.threads(), 1);
}

#[test]
fn a_burst_gets_a_thread_for_each_although_one_is_idle() {
    let fake = Fake::new();
    let _lookup = fake.resolve("a");
    fake.asked().answer.send(Ok(vec![address(1)])).unwrap();
    fake.until_idle(1);
    let _lookups = [fake.resolve("b"), fake.resolve("c"), fake.resolve("d")];
    let _asked = [fake.asked(), fake.asked(), fake.asked()];
    assert_eq!(fake.threads(), 3);
}

#[test]
fn when_all_threads_are_busy_the_rest_waits() {
    let fake = Fake::new();
    let _busy: Vec<_> = (0..MAX_THREADS).map(|n| fake.resolve(&n.to_string())).collect();
    let mut asked: Vec<_> = (0..MAX_THREADS).map(|_| fake.asked()).collect();
    let _more = [fake.resolve("first"), fake.resolve("second")];
    assert_eq!((fake.threads(), fake.waiting()), (MAX_THREADS, 2));
    assert!(fake.asked.try_recv().is_err());
    for name in ["first", "second"] {
        asked.remove(0).answer.send(Ok(vec![address(1)])).unwrap();
        fake.done().1.unwrap();
        asked.push(fake.asked());
        assert_eq!(asked.last().unwrap().host, name);
    }
    assert_eq!(fake.threads(), MAX_THREADS);
}

#[test]
fn idle_threads_end_and_start_anew() {
    let fake = Fake::with(spawn, Duration::ZERO);
    for _ in 0..3 {
        let _lookup = fake.resolve("a");
        fake.asked().answer.send(Ok(vec![address(1)])).unwrap();
        fake.done().1.unwrap();
        fake.ended();
        assert_eq!(fake.threads(), 0);
    }
}

#[test]
fn a_waiting_lookup_can_be_cancelled() {
    let fake = Fake::new();
    let _busy: Vec<_> = (0..MAX_THREADS).map(|n| fake.resolve(&n.to_string())).collect();
    let asked: Vec<_> = (0..MAX_THREADS).map(|_| fake.asked()).collect();
    let (lookup, held) = fake.resolve_watched("cancelled");
    let _last = fake.resolve("last");
    assert!(held.upgrade().is_some());
    drop(lookup);
    assert!(held.upgrade().is_none());
    assert_eq!(fake.waiting(), 1);
    asked[0].answer.send(Ok(vec![address(1)])).unwrap();
    assert_eq!(fake.asked().host, "last");
}

#[test]
fn a_lookup_under_way_can_be_cancelled() {
    let fake = Fake::new();
    let (lookup, held) = fake.resolve_watched("a");
    let asked = fake.asked();
    drop(lookup);
    assert!(held.upgrade().is_none(), "at once, though the thread is stuck");
    asked.answer.send(Ok(vec![address(1)])).unwrap();
    fake.until_idle(1);
    assert!(fake.done.1.try_recv().is_err());
}

#[test]
fn a_lookup_that_is_over_can_be_dropped() {
    let fake = Fake::new();
    let lookup = fake.resolve("a");
    fake.asked().answer.send(Ok(vec![address(1)])).unwrap();
    fake.done().1.unwrap();
    drop(lookup);
    let lookup = fake.resolve("b");
    drop(fake);
    drop(lookup);
}

#[test]
fn a_panic_is_an_error() {
    let fake = Fake::new();
    let _lookup = fake.resolve("panic");
    _ = fake.asked();
    assert_eq!(fake.done().1.unwrap_err().kind(), ErrorKind::Other);
    fake.until_idle(1);
    let _lookup = fake.resolve("b");
    fake.asked().answer.send(Ok(vec![address(1)])).unwrap();
    fake.done().1.unwrap();
    assert_eq!(fake.threads(), 1, "the thread outlived it");
}

#[test]
fn a_panic_in_what_is_done_does_not_end_the_thread() {
    let fake = Fake::new();
    let _lookup = fake.resolver.resolve("a", 80, Box::new(|_| panic!("as it should")));
    fake.asked().answer.send(Ok(vec![address(1)])).unwrap();
    fake.until_idle(1);
    assert_eq!(fake.threads(), 1);
    assert!(fake.resolver.pool().lock().running.is_empty());
}

#[test]
fn without_any_thread_the_error_comes_at_once() {
    let fake = Fake::with(|_| Err(ErrorKind::WouldBlock.into()), LONG);
    let _lookup = fake.resolve("a");
    let (_, result) = fake.done.1.try_recv().expect("it is there already");
    assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!((fake.threads(), fake.waiting()), (0, 0));
}

#[test]
fn without_another_thread_it_waits_for_the_one_there_is() {
    fn spawn_once(pool: Arc<Pool>) -> io::Result<()> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        match COUNT.fetch_add(1, Ordering::Relaxed) {
            0 => spawn(pool),
            _ => Err(ErrorKind::WouldBlock.into()),
        }
    }

    let fake = Fake::with(spawn_once, LONG);
    let _first = fake.resolve("first");
    let asked = fake.asked();
    let _second = fake.resolve("second");
    assert_eq!((fake.threads(), fake.waiting()), (1, 1));
    asked.answer.send(Ok(vec![address(1)])).unwrap();
    assert_eq!(fake.asked().host, "second");
}

#[test]
fn with_the_resolver_everything_ends() {
    let fake = Fake::new();
    let _busy: Vec<_> = (0..MAX_THREADS).map(|n| fake.resolve(&n.to_string())).collect();
    let mut asked: Vec<_> = (0..MAX_THREADS).map(|_| fake.asked()).collect();
    asked.pop().unwrap().answer.send(Ok(vec![address(1)])).unwrap();
    fake.done().1.unwrap();
    fake.until_idle(1);
    let (_stuck, stuck_held) = fake.resolve_watched("stuck");
    asked.push(fake.asked());
    let (_waiting, waiting_held) = fake.resolve_watched("waiting");

    let Fake { resolver, ended, done, .. } = fake;
    drop(resolver); // it does not wait for the look-ups
    assert!(stuck_held.upgrade().is_none() && waiting_held.upgrade().is_none());
    for asked in asked {
        asked.answer.send(Ok(vec![address(1)])).unwrap();
    }
    for _ in 0..MAX_THREADS {
        ended.recv_timeout(LONG).expect("the end of a thread");
    }
    assert!(done.1.try_recv().is_err());
}

#[test]
fn idle_threads_end_with_the_resolver() {
    let fake = Fake::new();
    let _lookup = fake.resolve("a");
    fake.asked().answer.send(Ok(vec![address(1)])).unwrap();
    fake.until_idle(1);
    let start = Instant::now();
    drop(fake.resolver);
    fake.ended.recv_timeout(LONG).expect("the end of a thread");
    assert!(start.elapsed() < LONG / 2, "it did not wait until it was idle for long enough");
}

#[test]
fn what_is_done_may_hold_lookups() {
    let fake = Fake::new();
    let asked = {
        let other = fake.resolve("other");
        let asked = fake.asked();
        let done = Box::new(move |_| drop(other));
        std::mem::forget(fake.resolver.resolve("holder", 80, done));
        asked
    };
    let _holder = fake.asked();
    drop(fake.resolver); // it drops `done`, and so a `Lookup`
    drop(asked);
}

#[test]
fn the_operating_system_is_asked() {
    let (resolver, (sender, receiver)) = (Resolver::system(), channel());
    let done = move |result: Reply| _ = sender.send(result);
    let _lookup = resolver.resolve("localhost", 80, Box::new(done));
    if let Ok(addresses) = receiver.recv_timeout(LONG).expect("a result") {
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
        assert!(addresses.iter().all(|address| address.port() == 80));
    }
}
