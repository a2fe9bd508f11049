//! A server that sends a count to all its connections, again and again, and serves files over plain HTTP from the
//! same port: WebSocket++'s `telemetry_server`.
//!
//! ```text
//! cargo run --example telemetry_server -- 127.0.0.1:9002 DOCROOT [MILLISECONDS]
//! ```

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyloop::prelude::*;
use anyloop::{http::StatusCode, net::Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let docroot = PathBuf::from(words.next().unwrap_or_else(|| ".".to_string()));
    let period = Duration::from_millis(words.next().map_or(Ok(1000), |word| word.parse())?);

    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    // Reading blocks the loop, which is all right for small local files.
    server.on_http(move |request, _| match file(&docroot, request.uri().path()) {
        Some(body) => anyloop::http::Response::new(body).into(),
        None => Answer::status(StatusCode::NOT_FOUND, "there is no such file"),
    });
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    let (clients, mut count) = (server.handle(), 0);
    server.event_loop().every(period, move || {
        clients.broadcast(format!("count {count}"));
        count += 1;
    });
    server.run();
    Ok(())
}

/// The file that a path means, if it is inside the folder.
fn file(docroot: &Path, path: &str) -> Option<Vec<u8>> {
    let path = Path::new(path.trim_start_matches('/'));
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    if inside { std::fs::read(docroot.join(path)).ok() } else { None }
}
