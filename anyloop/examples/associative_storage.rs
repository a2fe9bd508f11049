//! Data of all connections in one map, by the number of the connection: WebSocket++'s `associative_storage`. That is
//! right for data which others look up, as a page over plain HTTP does here. For data of one connection alone, see
//! `enriched_storage`.
//!
//! ```text
//! cargo run --example associative_storage -- 127.0.0.1:9002
//! ```

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyloop::prelude::*;
use anyloop::{endpoint::ConnectionId, http::Response, net::Server};

/// The names of the connections that are open.
type Names = BTreeMap<ConnectionId, String>;

fn names() -> MutexGuard<'static, Names> {
    static NAMES: Mutex<Names> = Mutex::new(BTreeMap::new());
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    server.on_open(|context| {
        names().insert(context.handle().id(), "nobody".to_string());
    });
    server.on_message(|message, context| {
        let Some(name) = message.as_text() else { return };
        let before = names().insert(context.handle().id(), name.to_string());
        _ = context.send(format!("{} is now {name}", before.unwrap_or_default()));
    });
    server.on_close(|_, context| {
        let name = names().remove(&context.handle().id());
        println!("{} has left", name.unwrap_or_default());
    });
    server.on_http(|_, _| {
        let page: String = names().iter().map(|(id, name)| format!("{id} {name}\n")).collect();
        Response::new(page.into_bytes())
    });
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}
