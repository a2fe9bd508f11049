//! An echo server on its own sockets, with one thread for each connection.
//!
//! ```text
//! own_sockets_server [ADDRESS:PORT]     127.0.0.1:9002 by default; port 0 picks a free one
//! ```
//!
//! It drives the state machine by hand. `own_sockets/carrier.rs` carries the bytes; this file accepts
//! connections and answers requests and messages.

#[path = "own_sockets/carrier.rs"]
mod carrier;

use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyloop_proto::handshake::http::{Response, StatusCode, header};
use anyloop_proto::handshake::{Accept, Incoming, OriginPolicy, ServerHandshake, ServerOptions};
use anyloop_proto::{Config, Event, Failure};
use carrier::{Arrival, Carrier, drive, now};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let address = match &words[..] {
        [] => "127.0.0.1:9002",
        [address] if !address.starts_with('-') => address,
        _ => {
            eprintln!("usage: own_sockets_server [ADDRESS:PORT]");
            return ExitCode::from(2);
        }
    };
    let listener = match TcpListener::bind(address).and_then(|l| Ok((l.local_addr()?, l))) {
        Ok((address, listener)) => {
            println!("listening on ws://{address}");
            listener
        }
        Err(error) => {
            eprintln!("cannot listen on {address}: {error}");
            return ExitCode::FAILURE;
        }
    };

    // An echo server has no secrets, so pages of every site may use it.
    let mut options = ServerOptions::new(OriginPolicy::Any);
    let mut config = Config::default();
    config.max_message_size = 32 << 20;
    options.connection = Arc::new(config);
    let options = Arc::new(options);
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let options = options.clone();
                let serve = move || match serve(stream, options) {
                    Ok(Ok(())) => {}
                    Ok(Err(failure)) => eprintln!("{peer}: {failure}"),
                    Err(error) => eprintln!("{peer}: {error}"),
                };
                if let Err(error) = thread::Builder::new().spawn(serve) {
                    back_off(&error);
                }
            }
            Err(error) => back_off(&error),
        }
    }
}

/// Reports an error, and pauses. Descriptors or threads have probably run out until connections end.
fn back_off(error: &std::io::Error) {
    eprintln!("cannot accept: {error}");
    thread::sleep(Duration::from_millis(100));
}

/// Serves one connection to its end.
fn serve(stream: TcpStream, options: Arc<ServerOptions>) -> std::io::Result<Result<(), Failure>> {
    let mut carrier = Carrier::new(stream)?;
    let mut handshake = ServerHandshake::new(options, now());
    let mut opened = None;
    let mut outcome = Ok(());
    while opened.is_none() {
        // Pass the received bytes, and answer the request when it is complete.
        let taken = carrier.input(|input, out| {
            let incoming = handshake.next(input, now(), out)?;
            let plain = match incoming {
                None => return Ok(None),
                Some(Incoming::Http(_)) => true,
                Some(Incoming::Upgrade(_)) => false,
            };
            // Neither answer can be refused: the request is waiting, and both are well-formed.
            Ok(if plain {
                _ = handshake.respond(&page(), now(), out);
                None
            } else {
                handshake.accept(Accept::new(), now(), out).ok()
            })
        });
        match taken {
            Ok(accepted) => opened = accepted,
            Err(failure) => outcome = outcome.and(Err(failure)),
        }

        if let Err(error) = carrier.flush() {
            let failed = handshake.handle_error(error);
            outcome = outcome.and(failed);
        }
        if carrier.shut_down(handshake.shutdown()) {
            return Ok(outcome);
        }
        if opened.is_some() {
            break;
        }
        let happened = match carrier.wait(handshake.poll_timeout(), None) {
            Arrival::Bytes(_) => Ok(()),
            Arrival::End => handshake.handle_eof(),
            Arrival::Error(error) => handshake.handle_error(error),
            Arrival::Time => handshake.handle_timeout(now(), &mut carrier.out).map(|_| ()),
        };
        outcome = outcome.and(happened);
    }
    let Some(mut opened) = opened else { return Ok(outcome) };

    Ok(drive(&mut carrier, &mut opened.connection, |event, sender, out| {
        if let Event::Message(message) = event {
            _ = sender.send(message, out); // refused if the connection is closing
        }
    }))
}

/// The page for browsers.
fn page() -> Response<Vec<u8>> {
    let mut response = Response::new(b"This is a WebSocket echo server.\n".to_vec());
    *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}
