//! Names to addresses, on threads of their own: a look-up blocks, and the loop must not.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::sync::unmodelled::{Condvar, Mutex, MutexGuard};

/// A name that takes a minute to fail holds up its own thread only, up to this many.
const MOST_THREADS: usize = 16;

/// How long a thread waits for another look-up before it ends.
const IDLE: Duration = Duration::from_secs(5);

/// Looks up a host and a port, and blocks meanwhile.
pub(crate) type LookUpFn = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// What to do with the result of a look-up, which has an address at least.
pub(crate) type Done = Box<dyn FnOnce(io::Result<Vec<SocketAddr>>) + Send>;

/// The address that `host` is, unless it is a name. IPv6 may stand in brackets, as in a URI.
///
/// An address with a zone (`fe80::1%eth0`) needs the resolver.
pub(crate) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let ip = match bracketed(host) {
        Some(inner) => inner.parse().map(IpAddr::V6),
        None => host.parse(),
    };
    ip.ok().map(|ip| SocketAddr::new(ip, port))
}

fn bracketed(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

/// What the look-up function gets: it knows no brackets, not even around an address with a zone.
fn without_brackets(host: &str) -> &str {
    let zoned = bracketed(host).and_then(|inner| Some((inner, inner.split_once('%')?.0)));
    match zoned {
        Some((inner, ip)) if ip.parse::<Ipv6Addr>().is_ok() => inner,
        _ => host,
    }
}

/// Looks up names on a few threads, which it starts when there is need and which end when idle.
///
/// Dropping it cancels every look-up. It does not wait: a thread that is stuck in a look-up ends
/// when that returns.
pub(crate) struct Resolver(Arc<Shared>);

struct Shared {
    look_up: Arc<LookUpFn>,
    spawn: fn(Arc<Self>) -> io::Result<()>,
    idle: Duration,
    state: Mutex<State>,
    /// There is a job, or the resolver is gone.
    wake: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    running: Vec<Arc<Ticket>>,
    threads: usize,
    /// The threads that wait for a job, and those of them that are only just waking to take one:
    /// each answers for one of the jobs that wait.
    idle: usize,
    is_closed: bool,
}

struct Job {
    host: String,
    port: u16,
    ticket: Arc<Ticket>,
}

/// Whoever takes what is in it has the last word on a look-up.
struct Ticket(Mutex<Option<Done>>);

impl Ticket {
    fn take(&self) -> Option<Done> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A look-up. Dropping it cancels it: what was to be done is dropped uncalled, unless the call has
/// begun.
#[must_use = "dropping it cancels the look-up"]
pub(crate) struct Lookup {
    ticket: Arc<Ticket>,
    shared: Weak<Shared>,
}

impl Resolver {
    /// Asks the operating system (`getaddrinfo`).
    pub(crate) fn system() -> Self {
        Self::new(Arc::new(|host, port| Ok((host, port).to_socket_addrs()?.collect())))
    }

    /// Asks `look_up`, from several threads at once. If it panics, that look-up fails.
    pub(crate) fn new(look_up: Arc<LookUpFn>) -> Self {
        Self::with(look_up, spawn, IDLE)
    }

    fn with(
        look_up: Arc<LookUpFn>,
        spawn: fn(Arc<Shared>) -> io::Result<()>,
        idle: Duration,
    ) -> Self {
        let (state, wake) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { look_up, spawn, idle, state, wake }))
    }

    /// Looks up `host`, which is not a [`literal`]: those need no look-up.
    ///
    /// `done` is called on another thread, once. Only if there is none and none can be started is
    /// it called on this one, with the error, before this returns.
    pub(crate) fn resolve(&self, host: &str, port: u16, done: Done) -> Lookup {
        debug_assert!(literal(host, port).is_none(), "{host} needs no look-up");
        let ticket = Arc::new(Ticket(Mutex::new(Some(done))));
        let host = without_brackets(host).to_owned();
        let job = Job { host, port, ticket: Arc::clone(&ticket) };
        if let Err(error) = self.0.submit(job)
            && let Some(done) = ticket.take()
        {
            done(Err(error));
        }
        Lookup { ticket, shared: Arc::downgrade(&self.0) }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        let running = std::mem::take(&mut state.running);
        drop(state);
        self.0.wake.notify_all();
        // Without the lock: what is dropped may be anything, a `Lookup` too.
        for ticket in waiting.into_iter().map(|job| job.ticket).chain(running) {
            drop(ticket.take());
        }
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        if self.ticket.take().is_none() {
            return;
        }
        // If it still waits, it need not wait for a thread only to be skipped.
        if let Some(shared) = self.shared.upgrade() {
            let waiting = &mut shared.lock().waiting;
            let place = waiting.iter().position(|job| Arc::ptr_eq(&job.ticket, &self.ticket));
            if let Some(place) = place {
                waiting.remove(place);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if there is no thread, and none can be started.
    fn submit(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let mut state = self.lock();
        if state.waiting.len() >= state.idle && state.threads < MOST_THREADS {
            match (self.spawn)(Arc::clone(self)) {
                Ok(()) => state.threads += 1,
                Err(error) if state.threads == 0 => return Err(error),
                Err(_) => {} // one of those that are there will come to it
            }
        }
        state.waiting.push_back(job);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// What a thread does until it is idle for too long, or the resolver is gone.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.waiting.pop_front() {
                state.running.push(Arc::clone(&job.ticket));
                drop(state);
                self.run(&job);
                state = self.lock();
                state.running.retain(|ticket| !Arc::ptr_eq(ticket, &job.ticket));
                continue;
            }
            if state.is_closed {
                break;
            }
            state.idle += 1;
            let until = |state: &mut State| state.waiting.is_empty() && !state.is_closed;
            let waited = self.wake.wait_timeout_while(state, self.idle, until);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() {
                break;
            }
        }
        state.threads -= 1;
    }

    /// Panics stop here, or the thread would be counted for ever.
    fn run(&self, job: &Job) {
        let look_up = || (self.look_up)(&job.host, job.port);
        let result = catch_unwind(AssertUnwindSafe(look_up))
            .unwrap_or_else(|_| Err(io::Error::other("the look-up panicked")))
            .and_then(|addresses| {
                let none = || io::Error::new(ErrorKind::NotFound, "the host has no address");
                if addresses.is_empty() { Err(none()) } else { Ok(addresses) }
            });
        if let Some(done) = job.ticket.take() {
            _ = catch_unwind(AssertUnwindSafe(|| done(result)));
        }
    }
}

fn spawn(shared: Arc<Shared>) -> io::Result<()> {
    // Linux keeps 15 bytes of a name.
    let builder = thread::Builder::new().name("anyloop-resolve".to_owned());
    builder.spawn(move || shared.work()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    /// For what must come: it is waited for only if the test fails.
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

    /// Says so when its thread ends.
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

        fn with(spawn: fn(Arc<Shared>) -> io::Result<()>, idle: Duration) -> Self {
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

        /// A look-up, and what lives as long as what is to be done then.
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
            self.resolver.0.lock().threads
        }

        fn waiting(&self) -> usize {
            self.resolver.0.lock().waiting.len()
        }

        /// Waits until so many threads have nothing to do.
        fn until_idle(&self, count: usize) {
            let start = Instant::now();
            while self.resolver.0.lock().idle != count {
                assert!(start.elapsed() < LONG);
                thread::yield_now();
            }
        }
    }

    fn address(n: u8) -> SocketAddr {
        ([192, 0, 2, n], 80).into()
    }

    #[test]
    fn literals() {
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 80));
        assert_eq!(literal("192.0.2.1", 80), Some(address(1)));
        assert_eq!(literal("::1", 80), Some(v6));
        assert_eq!(literal("[::1]", 80), Some(v6));
        let names =
            ["", "a", "localhost", "[192.0.2.1]", "[::1", "::1]", "[[::1]]", "[]", "192.0.2"];
        let others = ["192.0.2.256", "192.0.2.01", "192.0.2.1:80", "[::1]:80", " ::1"];
        let zones = ["fe80::1%lo", "[fe80::1%lo]", "fe80::1%1"];
        for host in names.into_iter().chain(others).chain(zones) {
            assert_eq!(literal(host, 80), None, "{host}");
        }
    }

    #[test]
    fn brackets_around_a_zone_are_taken_off() {
        assert_eq!(without_brackets("[fe80::1%lo]"), "fe80::1%lo");
        for host in ["fe80::1%lo", "[a]", "[a%b]", "a", "[", "[]", ""] {
            assert_eq!(without_brackets(host), host);
        }
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
        let _busy: Vec<_> = (0..MOST_THREADS).map(|n| fake.resolve(&n.to_string())).collect();
        let mut asked: Vec<_> = (0..MOST_THREADS).map(|_| fake.asked()).collect();
        let _more = [fake.resolve("first"), fake.resolve("second")];
        assert_eq!((fake.threads(), fake.waiting()), (MOST_THREADS, 2));
        assert!(fake.asked.try_recv().is_err());
        for name in ["first", "second"] {
            asked.remove(0).answer.send(Ok(vec![address(1)])).unwrap();
            fake.done().1.unwrap();
            asked.push(fake.asked());
            assert_eq!(asked.last().unwrap().host, name);
        }
        assert_eq!(fake.threads(), MOST_THREADS);
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
        let _busy: Vec<_> = (0..MOST_THREADS).map(|n| fake.resolve(&n.to_string())).collect();
        let asked: Vec<_> = (0..MOST_THREADS).map(|_| fake.asked()).collect();
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
        assert!(fake.resolver.0.lock().running.is_empty());
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
        fn spawn_once(shared: Arc<Shared>) -> io::Result<()> {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            match COUNT.fetch_add(1, Ordering::Relaxed) {
                0 => spawn(shared),
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
        let _busy: Vec<_> = (0..MOST_THREADS).map(|n| fake.resolve(&n.to_string())).collect();
        let mut asked: Vec<_> = (0..MOST_THREADS).map(|_| fake.asked()).collect();
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
        for _ in 0..MOST_THREADS {
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
}
