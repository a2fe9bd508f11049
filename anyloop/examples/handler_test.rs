//! A handler with a timer, and its unit tests, which need neither sockets nor time.
//!
//! ```text
//! cargo test --example handler_test
//! cargo run --example handler_test -- 127.0.0.1:9002
//! ```

use std::{error::Error, time::Duration};

use anyloop::prelude::*;

/// How long a client may think about its answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks a question. A wrong answer may be corrected, and none at all in time ends the connection.
#[derive(Default)]
struct Quiz {
    wrong: u32,
}

impl Handler for Quiz {
    fn open(&mut self, context: &mut Context<'_, Self>) {
        _ = context.send("what is 6 x 7?");
        context.set_timer(PATIENCE, |_, context| _ = context.close(CloseCode::NORMAL, "too late"));
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        if message.as_text() == Some("42") {
            _ = context.close(CloseCode::NORMAL, "right");
        } else {
            self.wrong += 1;
            _ = context.send("wrong");
        }
    }
}

/// The same handler, over sockets.
fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let config = ServerConfig::new(OriginPolicy::Any);
    let server = anyloop::net::Server::with_factory(config, Quiz::default)?;
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyloop::transport::stepping::{Client, Connection, Server, exchange, exchange_for};

    /// The client keeps what it receives, and why the connection was closed.
    #[derive(Default)]
    struct Log(Vec<String>);

    impl Handler for Log {
        fn message(&mut self, message: Message<'_>, _: &mut Context<'_, Self>) {
            self.0.push(message.as_text().unwrap().to_string());
        }

        fn close(&mut self, ending: &Ending<'_>, _: &mut Context<'_, Self>) {
            self.0.push(ending.received.unwrap().reason.clone());
        }
    }

    /// Both ends of an open connection.
    fn ends() -> (Connection<Log>, Connection<Quiz>) {
        let config = ServerConfig::new(OriginPolicy::Any);
        let mut server = Server::with_factory(config, Quiz::default).connection();
        let client = Client::with_factory(ClientConfig::new(), Log::default);
        let mut client = client.connection("ws://localhost/").unwrap();
        client.start();
        exchange(&mut client, &mut server);
        (client, server)
    }

    #[test]
    fn a_wrong_answer_can_be_corrected() {
        let (mut client, mut server) = ends();
        client.handle().send("41").unwrap();
        exchange(&mut client, &mut server);
        assert_eq!(server.handler().wrong, 1);
        client.handle().send("42").unwrap();
        exchange(&mut client, &mut server);
        assert_eq!(client.handler().0, ["what is 6 x 7?", "wrong", "right"]);
    }

    #[test]
    fn no_answer_is_too_late_after_a_minute() {
        let (mut client, mut server) = ends();
        exchange_for(&mut client, &mut server, PATIENCE - Duration::from_nanos(1));
        assert_eq!(client.handler().0, ["what is 6 x 7?"]);
        exchange_for(&mut client, &mut server, Duration::from_nanos(1)); // takes no time
        assert_eq!(client.handler().0, ["what is 6 x 7?", "too late"]);
    }
}
