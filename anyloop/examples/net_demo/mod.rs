//! Shared by the examples of servers: an echo server, and a client that tests it.

use std::error::Error;

use anyloop::endpoint::ClientSettings;
use anyloop::net::Net;
use anyloop::proto::CloseCode;
use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
use anyloop::{Client, EventLoop, Server};

/// Makes an echo server in this loop.
pub(crate) fn echo_server(event_loop: &EventLoop) -> Result<Server<Net>, Box<dyn Error>> {
    let mut server = Server::<Net>::new(ServerOptions::new(OriginPolicy::Any));
    server.set_event_loop(event_loop)?;
    server.on_message(|message, context| _ = context.send(message));
    Ok(server)
}

/// Makes a client in this loop that says hello, prints the answer under `name`, and closes.
pub(crate) fn polite_client(
    event_loop: &EventLoop,
    name: &'static str,
) -> Result<Client<Net>, Box<dyn Error>> {
    let mut client = Client::<Net>::new(ClientSettings::default());
    client.set_event_loop(event_loop)?;
    client.on_open(|context| _ = context.send("hello"));
    client.on_message(move |message, context| {
        println!("{name}: {}", String::from_utf8_lossy(message.as_bytes()));
        let _ = context.close(CloseCode::NORMAL, "");
    });
    client.on_fail(move |failure, context| match context.error() {
        Some(error) => println!("{name}: {error}"),
        None => println!("{name}: {failure}"),
    });
    Ok(client)
}
