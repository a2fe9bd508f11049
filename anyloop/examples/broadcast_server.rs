//! A server whose connections and messages are served by a thread of the program's own, in the order in which they
//! came: WebSocket++'s `broadcast_server`. The loop's thread only queues actions, so work on them delays no socket.
//!
//! Where that thread has nothing else to do, `context.endpoint().broadcast(..)` does the same without it.
//!
//! ```text
//! cargo run --example broadcast_server -- 127.0.0.1:9002
//! ```

use std::{collections::HashMap, error::Error, sync::mpsc, thread};

use anyloop::net::Server;
use anyloop::prelude::*;

/// What the loop's thread tells the actions thread.
enum Action {
    Subscribe(Handle<Handlers>),
    Unsubscribe(Handle<Handlers>),
    Message(Prepared),
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let (actions, queue) = mpsc::channel();

    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    // Sending fails only when the actions thread has panicked; `main` reports that.
    let sender = actions.clone();
    server.on_open(move |context| _ = sender.send(Action::Subscribe(context.handle())));
    let sender = actions.clone();
    server.on_close(move |_, context| _ = sender.send(Action::Unsubscribe(context.handle())));
    // A message is lent to the handler. `Prepared` is a copy, encoded once for all receivers.
    server.on_message(move |message, _| _ = actions.send(Action::Message(Prepared::new(message))));

    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    let actions_thread = thread::spawn(move || act(queue));
    server.run(); // until the process is killed
    drop(server); // with its closures, which hold the senders: the queue ends
    actions_thread.join().map_err(|_| "the actions thread has panicked")?;
    Ok(())
}

/// Serves the queue. The map belongs to this thread alone and needs no lock.
fn act(queue: mpsc::Receiver<Action>) {
    let mut connections = HashMap::new();
    for action in queue {
        match action {
            Action::Subscribe(handle) => _ = connections.insert(handle.id(), handle),
            Action::Unsubscribe(handle) => _ = connections.remove(&handle.id()),
            Action::Message(message) => {
                for connection in connections.values() {
                    // It may have closed meanwhile; then its Unsubscribe is in the queue.
                    _ = connection.send_prepared(&message);
                }
                continue;
            }
        }
        println!("{} connected", connections.len());
    }
}
