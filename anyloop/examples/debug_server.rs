//! An echo server that prints each call of its handlers: WebSocket++'s `debug_server`.
//!
//! ```text
//! cargo run --example debug_server -- 127.0.0.1:9002 [PING_MILLISECONDS]
//! ```

use std::{error::Error, fmt::Display, time::Duration};

use anyloop::prelude::*;
use anyloop::{http::Response, net::Server};

fn print(context: &Context<'_, Handlers>, what: impl Display) {
    println!("{} {}: {what}", context.remote_endpoint(), context.state());
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let ping_interval = Duration::from_millis(words.next().map_or(Ok(5000), |word| word.parse())?);

    let config = ServerConfig::new(OriginPolicy::Any).ping_interval(ping_interval);
    let mut server = Server::new(config)?;
    server.on_socket_init(|socket| {
        println!("socket_init: {:?}", socket.peer_addr()?.as_socket());
        Ok(())
    });
    server.on_validate(|request, context| {
        print(context, format_args!("validate {} from {:?}", request.uri(), request.origin()));
        Answer::accept()
    });
    server.on_http(|request, context| {
        print(context, format_args!("http {} {}", request.method(), request.uri()));
        Response::new(request.body().to_vec()) // an echo of the body
    });
    server.on_open(|context| print(context, "open"));
    server.on_message(|message, context| {
        let (kind, length) = (message.kind(), message.as_bytes().len());
        print(context, format_args!("message: {kind:?} of {length} bytes"));
        _ = context.send(message);
    });
    server.on_ping(|payload, context| {
        print(context, format_args!("ping of {} bytes", payload.len()));
        true // answer it
    });
    server.on_pong(|_, time, context| print(context, format_args!("pong after {time:?}")));
    server.on_pong_timeout(|context| print(context, "pong_timeout"));
    server.on_backpressure(|context| print(context, "backpressure"));
    server.on_drained(|context| print(context, "drained"));
    server.on_close(|ending, context| print(context, format_args!("close: {ending:?}")));
    server.on_fail(|failure, context| print(context, format_args!("fail: {failure}")));

    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}
