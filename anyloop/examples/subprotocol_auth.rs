//! A server that agrees on a subprotocol, and asks a database who the client is before it accepts the connection.
//! The database answers on a thread of its own, so the loop goes on meanwhile.
//!
//! ```text
//! cargo run --example subprotocol_auth -- 127.0.0.1:9002
//! ```

use std::{error::Error, sync::mpsc, thread};

use anyloop::http::{HeaderMap, HeaderName, Response, StatusCode, header::AUTHORIZATION};
use anyloop::net::Server;
use anyloop::prelude::*;

/// The subprotocols that are served here, the best first.
const SUBPROTOCOLS: [&str; 2] = ["chat.v2", "chat.v1"];

/// A question to the database: whose token it is, and the connection that waits for the answer.
struct Question {
    token: String,
    subprotocol: &'static str,
    connection: Handle<User>,
}

/// The handler of one connection.
struct User {
    name: String, // empty until the database has answered
    questions: mpsc::Sender<Question>,
}

impl Handler for User {
    fn validate(&mut self, request: &Request, context: &mut Context<'_, Self>) -> Answer {
        let requested = |name: &&str| request.subprotocols().iter().any(|other| other == name);
        let Some(subprotocol) = SUBPROTOCOLS.into_iter().find(requested) else {
            return Answer::status(StatusCode::BAD_REQUEST, "this is a chat: chat.v2 or chat.v1");
        };
        let field = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = field.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Answer::status(StatusCode::UNAUTHORIZED, "a token is missing");
        };
        let connection = context.handle();
        let question = Question { token: token.to_string(), subprotocol, connection };
        match self.questions.send(question) {
            Ok(()) => Answer::Defer, // answered with 503 after `answer_timeout`
            Err(_) => Answer::status(StatusCode::SERVICE_UNAVAILABLE, "there is no database"),
        }
    }

    fn open(&mut self, context: &mut Context<'_, Self>) {
        _ = context.send(format!("welcome, {}", self.name));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let (questions, asked) = mpsc::channel();
    thread::spawn(move || asked.into_iter().for_each(look_up));

    let config = ServerConfig::new(OriginPolicy::only(["https://chat.example"]));
    let factory = move || User { name: String::new(), questions: questions.clone() };
    let server = Server::with_factory(config, factory)?;
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}

/// The database: the token is the name, spelt backwards. Its answers do nothing if the client has left.
fn look_up(Question { token, subprotocol, connection }: Question) {
    let name: String = token.chars().rev().collect();
    if name == "nobody" {
        let mut response = Response::new("unknown token\n");
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        _ = connection.respond(response);
        return;
    }
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-session"), 7.into())]);
    // In this order, so that the name is there when the connection opens.
    _ = connection.post(move |user, _| user.name = name);
    _ = connection.accept(Accept::new().with_subprotocol(subprotocol).with_headers(headers));
}
