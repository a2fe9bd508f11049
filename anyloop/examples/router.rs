//! One server with several paths: an echo, rooms, and pages. What is posted to a room over plain HTTP is sent to
//! everybody in it.
//!
//! ```text
//! cargo run --example router -- 127.0.0.1:9002
//! ```

use std::error::Error;

use anyloop::http::{Method, Response, StatusCode};
use anyloop::prelude::*;
use anyloop::{net::Server, router::Routed};

/// A connection to a room, whose name is a part of the path.
#[derive(Default)]
struct Room {
    name: String,
}

impl Handler for Room {
    fn validate(&mut self, _: &Request, context: &mut Context<'_, Self>) -> Answer {
        self.name = context.param("room").unwrap_or_default().to_string();
        match self.name.as_str() {
            "private" => Answer::status(StatusCode::FORBIDDEN, "members only"),
            _ => Answer::accept(),
        }
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        let name = self.name.clone();
        context.endpoint().broadcast_where(message, move |other: &Self| other.name == name);
    }
}

/// Sends the body of a request to a room. Its handlers are of another type than this page.
fn post_to_room(request: &Request, context: &mut Context<'_, Routed>) -> Answer {
    let Ok(text) = std::str::from_utf8(request.body()) else {
        return Answer::status(StatusCode::BAD_REQUEST, "text, please");
    };
    let name = context.param("room").unwrap_or_default().to_string();
    context.endpoint().broadcast_where(text, move |routed| {
        routed.handler::<Room>().is_some_and(|room| room.name == name)
    });
    Answer::status(StatusCode::ACCEPTED, "sent")
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let mut echo = Handlers::new();
    echo.on_message(|message, context| _ = context.send(message));

    let router = Router::new()
        .route("/echo", echo)?
        .route("/rooms/{room}", Room::default)?
        .http_method(Method::POST, "/rooms/{room}", post_to_room)?
        .http("/", |_, _| Response::new(b"/echo and /rooms/NAME are WebSockets\n".to_vec()))?;
    let server = Server::with_factory(ServerConfig::new(OriginPolicy::Any), router)?;
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}
