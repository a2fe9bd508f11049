//! The shared state of a connection is freed with its last handle, whatever other threads do meanwhile: nothing that
//! they send is lost, and the connection is woken to free it.

use anyloop_proto::Prepared;

use super::*;
use crate::session::registry::{Key, Registry, WakeConnections};
use crate::session::state::{EndpointState, SessionState};

const KEY: Key = Key { index: 0, generation: 0 };

/// Wakes the only connection.
struct Wakes(Waker);

impl WakeConnections for Wakes {
    fn wake(&self, _: Vec<Key>) {
        self.0.wake_by_ref();
    }

    fn waker(&self, _: Key) -> Waker {
        self.0.clone()
    }
}

/// An open connection, as the registry knows it.
struct Connection {
    registry: Arc<Registry>,
    driver: Arc<Driver>,
    shared: Option<Arc<Shared>>,
    taken: Vec<String>,
}

impl Connection {
    fn new() -> Self {
        let (registry, driver) =
            (Registry::new(SendBufferLimits::default()), Arc::<Driver>::default());
        let waker = Waker::from(driver.clone());
        registry.use_loop(|| Arc::new(Wakes(waker)));
        registry.register(KEY);
        registry.publish(KEY.index, Phase::Open);
        Self { registry: Arc::new(registry), driver, shared: None, taken: Vec::new() }
    }

    /// Takes what was sent, as a session does, until this many messages were taken and no shared state is left.
    fn run_until(&mut self, messages: usize) {
        while self.taken.len() < messages || self.shared.is_some() {
            self.driver.await_woken();
            while let Some(due) = self.registry.next_broadcast(KEY.index) {
                self.taken.push(due.message.message().as_text().unwrap().to_string());
            }
            if self.shared.is_none() {
                self.shared = self.registry.shared(KEY.index);
            }
            let Some(shared) = &self.shared else { continue };
            drain(shared, &mut self.taken);
            shared.publish(0, Phase::Open);
            if shared.is_unused() && self.registry.free_shared(KEY.index) {
                self.shared = None;
            }
        }
    }

    /// Takes the messages "a" and "b", waits for the threads that send them, and has nothing left.
    fn run_to_the_end<const N: usize>(&mut self, threads: [JoinHandle<()>; N]) {
        self.run_until(2);
        for thread in threads {
            thread.join().unwrap();
        }
        self.taken.sort();
        assert_eq!(self.taken, ["a", "b"]);
        assert!(self.registry.shared(KEY.index).is_none());
    }
}

/// A thread that sends a message to all connections.
fn broadcaster(connection: &Connection, message: &'static str) -> JoinHandle<()> {
    let registry = connection.registry.clone();
    thread::spawn(move || assert_eq!(registry.broadcast(&Prepared::new(message), None), 1))
}

/// A thread that looks at all connections, and does this with the handle of each.
fn visits(
    connection: &Connection,
    visit: impl Fn(&Handle<Quiet>) + Send + 'static,
) -> JoinHandle<()> {
    let registry = connection.registry.clone();
    thread::spawn(move || registry.handles().iter().for_each(visit))
}

/// A thread that looks at all connections, and sends a message to each.
fn visitor(connection: &Connection, message: &'static str) -> JoinHandle<()> {
    visits(connection, move |handle| assert!(handle.send(message).unwrap().is_on_its_way()))
}

/// Large; the smaller model is [`a_visitor_that_comes_after_another_leaves_nothing_behind`].
#[test]
fn visitors_leave_nothing_behind() {
    check_large(|| {
        let mut connection = Connection::new();
        let visitors = [visitor(&connection, "a"), visitor(&connection, "b")];
        connection.run_to_the_end(visitors);
    });
}

/// The connection frees the shared state of the first, or keeps it for the second.
#[test]
fn a_visitor_that_comes_after_another_leaves_nothing_behind() {
    check(|| {
        let mut connection = Connection::new();
        visitor(&connection, "a").join().unwrap();
        let visitor = visitor(&connection, "b");
        connection.run_to_the_end([visitor]);
    });
}

/// What is asked for without a message is not counted as waiting.
#[test]
fn what_visitors_ask_for_is_done() {
    check(|| {
        let mut connection = Connection::new();
        let ask = |handle: &Handle<Quiet>| handle.interrupt().unwrap();
        let visitors = [visits(&connection, ask), visits(&connection, ask)];
        connection.run_until(2);
        for visitor in visitors {
            visitor.join().unwrap();
        }
        assert_eq!(connection.taken, ["interrupt"; 2]);
        assert!(connection.registry.shared(KEY.index).is_none());
    });
}

/// Large; the smaller models are the two below.
#[test]
fn a_broadcast_reaches_a_connection_whose_visitor_leaves() {
    check_large(|| {
        let mut connection = Connection::new();
        let threads = [visitor(&connection, "a"), broadcaster(&connection, "b")];
        connection.run_to_the_end(threads);
    });
}

#[test]
fn a_broadcast_reaches_a_connection_whose_visitor_has_left() {
    check(|| {
        let mut connection = Connection::new();
        visitor(&connection, "a").join().unwrap();
        let broadcaster = broadcaster(&connection, "b");
        connection.run_to_the_end([broadcaster]);
    });
}

#[test]
fn a_broadcast_reaches_a_connection_whose_visitor_comes() {
    check(|| {
        let mut connection = Connection::new();
        broadcaster(&connection, "a").join().unwrap();
        let visitor = visitor(&connection, "b");
        connection.run_to_the_end([visitor]);
    });
}

/// Also what it sends to one that has just freed its shared state, or that is over when the handle is made.
#[test]
fn a_connection_that_ends_reports_what_its_visitor_has_sent() {
    check(|| {
        let endpoint = EndpointState::new(SendBufferLimits::default(), false);
        let driver = Arc::<Driver>::default();
        let waker = Waker::from(driver);
        endpoint.registry.use_loop(|| Arc::new(Wakes(waker)));
        endpoint.registry.register(KEY);
        let mut state = SessionState::new(endpoint.clone());
        state.index = KEY.index;
        state.publish(0, Phase::Open);

        let (visited, reported) = (endpoint.clone(), Arc::new(Plain::new(0)));
        let report = reported.clone();
        let visitor = thread::spawn(move || {
            let visit = || {
                let handles = visited.registry.handles::<Quiet>();
                for handle in &handles {
                    let report = report.clone();
                    let completion = move |_| _ = report.fetch_add(1, Relaxed);
                    let sent = handle.send_then("a", completion);
                    assert!(sent.is_ok() || sent == Err(SendError::Gone));
                }
                handles.len()
            };
            visit() + visit()
        });
        for _ in 0..2 {
            if state.adopt_shared(0, Phase::Open) {
                let shared = state.shared().unwrap().clone();
                for command in shared.take().0 {
                    assert_eq!(text(&command), "a");
                    drop(command);
                    reported.fetch_add(1, Relaxed);
                }
                state.publish(0, Phase::Open);
            }
            state.free_unused();
        }
        drop(state);
        let visits = visitor.join().unwrap();
        assert_eq!(reported.load(Relaxed), visits);
        assert!(endpoint.registry.handles::<Quiet>().is_empty());
        assert!(endpoint.registry.shared(KEY.index).is_none());
    });
}

/// A broadcast beside the close of a handler is taken, or the connection is not counted.
#[test]
fn a_broadcast_beside_a_close_is_taken_or_not_counted() {
    check(|| {
        let connection = Connection::new();
        let registry = connection.registry.clone();
        let broadcaster = thread::spawn(move || registry.broadcast(&Prepared::new("a"), None));
        let shared = connection.registry.begin_close(KEY.index);
        let taken = shared.map_or(0, |shared| shared.take_before_close(None).count());
        assert_eq!(broadcaster.join().unwrap(), taken);
        assert!(connection.registry.next_broadcast(KEY.index).is_none());
    });
}
