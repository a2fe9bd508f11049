//! Shared by the examples of servers: an echo server, and a client that tests it.

use anyloop::net::{Client, Server};
use anyloop::prelude::*;

/// Makes an echo server in this loop.
pub(crate) fn echo_server(event_loop: &EventLoop) -> Server {
    let mut server = Server::on(event_loop, ServerConfig::new(OriginPolicy::Any));
    server.on_message(|message, context| _ = context.send(message));
    server
}

/// Makes a client in this loop that says hello, prints the answer under `name`, and closes.
pub(crate) fn hello_client(event_loop: &EventLoop, name: &'static str) -> Client {
    let mut client = Client::on(event_loop, ClientConfig::new());
    client.on_open(|context| _ = context.send("hello"));
    client.on_message(move |message, context| {
        println!("{name}: {}", String::from_utf8_lossy(message.as_bytes()));
        _ = context.close(CloseCode::NORMAL, "");
    });
    client.on_fail(move |failure, context| match context.error() {
        Some(error) => println!("{name}: {error}"),
        None => println!("{name}: {failure}"),
    });
    client
}
