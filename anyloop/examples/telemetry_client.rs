//! A client whose loop runs on a thread of its own, and which connects again when its connection is lost, after a
//! time that doubles until a connection is stable. The main thread sends a count: WebSocket++'s `telemetry_client`.
//!
//! ```text
//! cargo run --example telemetry_client -- ws://127.0.0.1:9002/ COUNTS [MILLISECONDS]
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::{sync::Arc, thread, time::Duration};

use anyloop::net::Client;
use anyloop::prelude::*;

/// The time before the first new attempt, and the longest.
const DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// A connection that lasts so long is stable. Other servers accept connections, and close them at once.
const STABLE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let uri = words.next().unwrap_or_else(|| "ws://127.0.0.1:9002/".to_string());
    let counts: u64 = words.next().map_or(Ok(10), |word| word.parse())?;
    let period = Duration::from_millis(words.next().map_or(Ok(1000), |word| word.parse())?);

    let mut client = Client::new(ClientConfig::new())?;
    let attempts = Arc::new(AtomicU32::new(0));
    let again = reconnect(&client, uri.clone(), attempts.clone());
    client.on_open(move |context| {
        println!("connected to {}", context.remote_endpoint());
        let attempts = attempts.clone();
        // This timer ends with the connection.
        context.set_timer(STABLE, move |_, _| {
            println!("stable");
            attempts.store(0, Ordering::Relaxed);
        });
    });
    // Exactly one of the two is called for each attempt.
    let when_closed = again.clone();
    client.on_close(move |ending, _| {
        println!("closed, by {}", ending.by);
        when_closed();
    });
    client.on_fail(move |failure, _| {
        println!("not connected: {failure}");
        again();
    });

    client.start_perpetual(); // `run` waits for work while there is no connection
    client.connect(uri.as_str())?;
    thread::scope(|scope| {
        scope.spawn(|| client.run());
        let mut count = 0;
        while count < counts {
            thread::sleep(period);
            // It goes to the connection that is open now, and is not counted if there is none.
            count += client.broadcast(format!("count {count}")) as u64;
        }
        client.shut_down(); // it connects no more
        client.stop_perpetual();
    });
    Ok(())
}

/// A function that connects again, after a time that depends on the attempts before.
fn reconnect(
    client: &Client,
    uri: String,
    attempts: Arc<AtomicU32>,
) -> impl Fn() + Clone + Send + Sync + 'static {
    let (client, event_loop) = (client.handle(), client.event_loop().handle());
    move || {
        if client.is_shutting_down() {
            return;
        }
        let doublings = attempts.fetch_add(1, Ordering::Relaxed).min(16);
        let delay = (DELAYS.0 * 2_u32.pow(doublings)).min(DELAYS.1);
        println!("the next attempt is in {delay:?}");
        let (client, uri) = (client.clone(), uri.clone());
        // A timer of the loop: those of the connection end with it.
        _ = event_loop.set_timer(delay, move || _ = client.connect(uri.as_str()));
    }
}
