//! A client in a `poll(2)` loop of the program's own, beside standard input and a timer. Each line of the input is
//! sent as a message, and each message is printed.
//!
//! ```text
//! cargo run --example poll_loop -- ws://127.0.0.1:9002/
//! ```

use std::time::{Duration, Instant};
use std::{fs::File, io::Read, os::fd::AsFd};

use anyloop::{net::Client, prelude::*};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const HEARTBEAT: Duration = Duration::from_millis(500);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let uri = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:9002/".to_string());
    let mut client = Client::new(ClientConfig::new())?;
    client.on_message(|message, _| println!("{}", String::from_utf8_lossy(message.as_bytes())));
    client.on_close(|ending, _| println!("closed cleanly: {}", ending.clean));
    client.on_fail(|failure, _| eprintln!("{failure}"));
    // What is sent before the connection is open waits for it.
    let connection = client.connect(uri.as_str())?;

    // Without the buffer of `Stdin`, which would hide lines from poll.
    let mut stdin = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let (mut line, mut stdin_ended) = (Vec::new(), false);
    let mut next_beat = Instant::now() + HEARTBEAT;
    while !client.stopped() {
        // Wait for the input, for the loop's descriptor, for the loop's next timeout, or for our own.
        let mut timeout = next_beat.saturating_duration_since(Instant::now());
        if let Some(of_the_loop) = client.event_loop().next_timeout() {
            timeout = timeout.min(of_the_loop);
        }
        let mut fds = vec![PollFd::new(client.event_loop(), PollFlags::IN)];
        if !stdin_ended {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        poll(&mut fds, Some(&Timespec::try_from(timeout)?))?;
        let stdin_is_ready = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());

        client.poll(); // calls handlers; without work it stops the loop
        if stdin_is_ready {
            let mut bytes = [0; 4096];
            let n = stdin.read(&mut bytes)?;
            line.extend_from_slice(&bytes[..n]);
            while let Some(end) = line.iter().position(|&byte| byte == b'\n') {
                let text: Vec<u8> = line.drain(..=end).collect();
                // An error means that the connection is over, which `on_close` reports.
                _ = connection.send(String::from_utf8_lossy(&text[..end]).as_ref());
            }
            stdin_ended = n == 0;
        }
        // Not before it is open: that would abandon the handshake, and the messages that wait for it.
        if stdin_ended && connection.state() == State::Open {
            _ = connection.close(CloseCode::NORMAL, "");
        }
        if Instant::now() >= next_beat {
            next_beat += HEARTBEAT;
            println!("{} bytes wait to be sent", connection.buffered_amount());
        }
    }
    Ok(())
}
