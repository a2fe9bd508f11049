//! A client that speaks the subprotocol `sip` (RFC 7118): it asks a server for its options, and prints the answer.
//! WebSocket++'s `sip_client`.
//!
//! ```text
//! cargo run --example sip_client -- ws://127.0.0.1:9001/
//! ```

use anyloop::net::Client;
use anyloop::prelude::*;

/// One SIP message is one WebSocket message (RFC 7118 §5).
const OPTIONS: &str = "\
OPTIONS sip:carol@example.com SIP/2.0\r
Via: SIP/2.0/WS pc33.example.com;branch=z9hG4bKhjhs8ass877\r
Max-Forwards: 70\r
To: <sip:carol@example.com>\r
From: Alice <sip:alice@example.com>;tag=1928301774\r
Call-ID: a84b4c76e66710\r
CSeq: 63104 OPTIONS\r
Accept: application/sdp\r
Content-Length: 0\r
\r
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let uri = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:9001/".to_string());
    let mut client = Client::new(ClientConfig::new().subprotocol("sip"))?;
    client.on_open(|context| match context.subprotocol() {
        Some(_) => _ = context.send(OPTIONS),
        // The server may choose none; one that was not requested is a failure.
        None => _ = context.close(CloseCode::POLICY_VIOLATION, "this is not SIP"),
    });
    client.on_message(|message, context| {
        print!("{}", String::from_utf8_lossy(message.as_bytes()));
        _ = context.close(CloseCode::NORMAL, "");
    });
    client.on_close(|ending, _| println!("closed cleanly: {}", ending.clean));
    client.on_fail(|failure, _| println!("{failure}"));
    client.connect(uri.as_str())?;
    client.run();
    Ok(())
}
