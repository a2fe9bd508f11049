//! A chat with rooms: the path is the room, and a message goes to everybody in it. Who reads too slowly is put out,
//! so that nobody else waits and the server's memory is bounded.
//!
//! ```text
//! cargo run --example chat_rooms -- 127.0.0.1:9002
//! ```

use std::{error::Error, time::Duration};

use anyloop::net::Server;
use anyloop::prelude::*;

/// One connection, which is in one room.
#[derive(Default)]
struct Guest {
    room: String,
}

impl Guest {
    /// Sends a text to everybody in the room. The filter is asked on the strand of each connection.
    fn say(&self, text: &str, context: &mut Context<'_, Self>) {
        let room = self.room.clone();
        let text = Prepared::new(text);
        context.endpoint().broadcast_where(&text, move |guest: &Self| guest.room == room);
    }
}

impl Handler for Guest {
    fn validate(&mut self, request: &Request, _: &mut Context<'_, Self>) -> Answer {
        self.room = request.uri().path().to_string();
        Answer::accept()
    }

    fn open(&mut self, context: &mut Context<'_, Self>) {
        self.say("somebody has come", context);
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        match message.as_text() {
            Some(text) => self.say(text, context),
            None => _ = context.close(CloseCode::UNSUPPORTED_DATA, "text, please"),
        }
    }

    /// The first warning: more than the high-water mark waits for this guest.
    fn backpressure(&mut self, context: &mut Context<'_, Self>) {
        println!("{}: {} bytes wait for a guest", self.room, context.buffered_amount());
    }

    fn drained(&mut self, _: &mut Context<'_, Self>) {
        println!("{}: the guest has caught up", self.room);
    }

    fn close(&mut self, ending: &Ending<'_>, context: &mut Context<'_, Self>) {
        // Who is put out for being slow has been sent 1008.
        let sent = ending.sent.map_or("", |close| close.reason.as_str());
        println!("{}: left, by {} {sent:?}", self.room, ending.by);
        self.say("somebody has left", context);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let config = ServerConfig::new(OriginPolicy::Any)
        .max_message_size(64 << 10)
        .high_water_mark(128 << 10)
        .max_send_buffer(1 << 20)
        // A chat is useless with messages missing. For positions in a game, `Overflow::Drop` would be right.
        .overflow(Overflow::Close)
        // The Close waits behind the send buffer. Who does not read it is out after this time.
        .close_timeout(Duration::from_secs(1));
    let server = Server::with_factory(config, Guest::default)?;
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}
