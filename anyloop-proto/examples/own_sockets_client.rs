//! A client on its own socket.
//!
//! ```text
//! own_sockets_client URL [MESSAGE...]   sends each message, prints each answer as a line, and closes
//! own_sockets_client --echo URL         sends every message back until the peer closes
//! ```
//!
//! The exit status is 0 if every message was answered and the connection closed without a failure.
//! `own_sockets/carrier.rs` carries the bytes.

#[path = "own_sockets/carrier.rs"]
mod carrier;

use std::error::Error;
use std::io::Write;
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;

use anyloop_proto::handshake::{ClientHandshake, ClientOptions, Opened, Target};
use anyloop_proto::{CloseCode, Config, Connection, Event, Party, Sender};
use carrier::{Arrival, Carrier, drive, now};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (echo, url, messages) = match &words[..] {
        [option, url] if option == "--echo" => (true, url, &[][..]),
        [url, messages @ ..] if !url.starts_with('-') => (false, url, messages),
        _ => {
            eprintln!("usage: own_sockets_client URL [MESSAGE...]");
            eprintln!("       own_sockets_client --echo URL");
            return ExitCode::from(2);
        }
    };
    let result = connect(url).and_then(|(mut carrier, mut connection)| {
        let ended = if echo {
            drive(&mut carrier, &mut connection, |event, sender, out| {
                if let Event::Message(message) = event {
                    _ = sender.send(message, out); // refused if the connection is closing
                }
            })
            .map_err(Into::into)
        } else {
            converse(&mut carrier, &mut connection, messages)
        };
        tell_ending(&connection);
        ended
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{url}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Connects, and completes the opening handshake.
fn connect(url: &str) -> Result<(Carrier, Connection), Box<dyn Error>> {
    let target: Target = url.parse()?;
    if target.secure() {
        return Err("wss:// needs TLS, which this example does not have".into());
    }
    let mut options = ClientOptions::default();
    let mut config = Config::default();
    config.max_message_size = 32 << 20;
    options.connection = Arc::new(config);

    let mut carrier = Carrier::new(TcpStream::connect((target.host(), target.port()))?)?;
    let mut handshake = ClientHandshake::new(&target, Arc::new(options), now(), &mut carrier.out)?;
    loop {
        carrier.flush()?;
        match carrier.wait(handshake.poll_timeout(), None) {
            Arrival::Bytes(_) => {
                let opened = carrier.input(|input, out| handshake.next(input, now(), out))?;
                if let Some(Opened { connection, .. }) = opened {
                    return Ok((carrier, connection));
                }
            }
            Arrival::End => handshake.handle_eof()?,
            Arrival::Error(error) => handshake.handle_error(error)?,
            Arrival::Time => _ = handshake.handle_timeout(now(), &mut carrier.out)?,
        }
    }
}

/// Sends each message, prints as many answers, and closes.
fn converse(
    carrier: &mut Carrier,
    connection: &mut Connection,
    messages: &[String],
) -> Result<(), Box<dyn Error>> {
    let close = |sender: &mut Sender, out: &mut Vec<u8>| {
        // A connection that is closing refuses, and then nothing is left to do.
        _ = sender.close(CloseCode::NORMAL, "", now(), out);
    };
    for message in messages {
        _ = connection.sender.send(message.as_str(), &mut carrier.out);
    }
    let mut awaited = messages.len();
    if awaited == 0 {
        close(&mut connection.sender, &mut carrier.out);
    }
    drive(carrier, connection, |event, sender, out| {
        let Event::Message(message) = event else { return };
        let mut stdout = std::io::stdout().lock();
        // Ignore errors: the reader of the output may have closed it.
        _ = stdout.write_all(message.as_bytes()).and_then(|()| stdout.write_all(b"\n"));
        awaited = awaited.saturating_sub(1);
        if awaited == 0 {
            close(sender, out);
        }
    })?;
    match awaited {
        0 => Ok(()),
        _ => Err(format!("{awaited} of {} messages were not answered", messages.len()).into()),
    }
}

/// Reports a close by the peer.
fn tell_ending(connection: &Connection) {
    let Some(ending) = connection.ending() else { return };
    if let (Party::Peer, Some(frame)) = (ending.by, ending.received) {
        let code = frame.code.map_or_else(|| "no code".to_string(), |code| code.to_string());
        eprintln!("closed by the peer: {code} {:?}", frame.reason); // quoted, since it is input from the peer
    }
}
