//! A client that sets header fields, keeps a cookie, reads the response, and can connect to a Unix socket. It
//! connects twice: the second time with the cookie that the first response has set.
//!
//! ```text
//! cargo run --example http_client_details -- ws://127.0.0.1:9002/ [UNIX_SOCKET]
//! ```

use std::sync::{Arc, Mutex};

use anyloop::http::{HeaderValue, header};
use anyloop::net::Client;
use anyloop::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let uri = words.next().unwrap_or_else(|| "ws://127.0.0.1:9002/".to_string());
    let socket = words.next();

    let config = ClientConfig::new()
        .header("User-Agent", "anyloop-example")
        .header("Accept-Language", "en")
        .origin("https://chat.example");
    let mut client = Client::new(config)?;
    let cookie = Arc::new(Mutex::new(None));
    let received = cookie.clone();
    client.on_open(move |context| {
        // It is there because `keep_handshake` is on by default.
        if let Some(response) = context.response() {
            println!("{}", response.status());
            for (name, value) in response.headers() {
                println!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
            }
            *received.lock().unwrap() = response.headers().get(header::SET_COOKIE).and_then(pair);
        }
        _ = context.close(CloseCode::NORMAL, "");
    });
    client.on_fail(|failure, context| {
        println!("{failure}");
        // What another HTTP server would say: an error page, a redirection, a request to log in.
        if let Some(response) = context.response() {
            println!("{}: {}", response.status(), String::from_utf8_lossy(response.body()));
        }
    });

    for _ in 0..2 {
        let mut request = client.request(uri.as_str())?;
        if let Some(path) = &socket {
            request = request.to_unix(path); // the URI still gives the Host and the path
        }
        if let Some(cookie) = cookie.lock().unwrap().take() {
            request = request.configure(|config| config.header(header::COOKIE, cookie));
        }
        request.connect()?;
        client.run(); // until this connection has ended
        client.reset()?; // for the next call of `run`
    }
    Ok(())
}

/// The name and value of a cookie, without its attributes.
fn pair(cookie: &HeaderValue) -> Option<HeaderValue> {
    let pair = cookie.to_str().ok()?.split(';').next()?;
    HeaderValue::from_str(pair).ok()
}
