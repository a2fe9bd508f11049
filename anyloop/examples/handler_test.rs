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
        let _ = context.send("what is 6 x 7?");
        context.set_timer(PATIENCE, |_, context| {
            let _ = context.close(CloseCode::POLICY_VIOLATION, "too late");
        });
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        if message.as_text() == Some("42") {
            let _ = context.send(format!("right, after {} wrong answers", self.wrong));
            let _ = context.close(CloseCode::NORMAL, "");
        } else {
            self.wrong += 1;
            let _ = context.send("wrong");
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

    type Ends = (Connection<Handlers>, Connection<Quiz>, std::sync::mpsc::Receiver<String>);

    /// An open connection: the client's end, the quiz, and what the client has received.
    fn ends() -> Ends {
        let config = ServerConfig::new(OriginPolicy::Any);
        let mut server = Server::with_factory(config, Quiz::default).connection();
        let (sender, received) = std::sync::mpsc::channel();
        let mut client = Client::new(ClientConfig::new());
        let closed = sender.clone();
        client
            .on_message(move |message, _| sender.send(message.as_text().unwrap().into()).unwrap());
        client.on_close(move |end, _| closed.send(end.received.unwrap().reason.clone()).unwrap());
        let mut client = client.connection(&"ws://localhost/".parse().unwrap()).unwrap();
        client.start();
        exchange(&mut client, &mut server);
        (client, server, received)
    }

    #[test]
    fn a_wrong_answer_can_be_corrected() {
        let (mut client, mut server, received) = ends();
        client.handle().send("41").unwrap();
        exchange(&mut client, &mut server);
        assert_eq!(server.handler().wrong, 1);
        client.handle().send("42").unwrap();
        exchange(&mut client, &mut server);
        let expected = ["what is 6 x 7?", "wrong", "right, after 1 wrong answers", ""];
        assert_eq!(received.try_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn no_answer_is_too_late_after_a_minute() {
        let (mut client, mut server, received) = ends();
        exchange_for(&mut client, &mut server, PATIENCE - Duration::from_nanos(1));
        assert_eq!(received.try_iter().count(), 1); // the question
        exchange_for(&mut client, &mut server, Duration::from_nanos(1)); // takes no time
        assert_eq!(received.try_recv().unwrap(), "too late");
    }
}
