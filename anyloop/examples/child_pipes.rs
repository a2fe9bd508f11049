//! A client that speaks WebSocket over the pipes of a child process, by a transport of its own. Pipes are not sockets,
//! so `net` does not serve them; a `Driver` runs the protocol, and `poll(2)` says when to call it.
//!
//! ```text
//! cargo run --example child_pipes -- anyloop pipe
//! ```

use std::io::{self, IoSlice, Read, Write};
use std::process::{ChildStdin, Command, Stdio};

use anyloop::{prelude::*, proto, transport};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The direction to the child. `None` once it is closed.
struct Pipe(Option<ChildStdin>);

impl transport::Transport for Pipe {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(pipe) = &mut self.0 else { return Err(io::ErrorKind::BrokenPipe.into()) };
        match pipe.write_vectored(slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    fn shutdown(&mut self, _: proto::Shutdown) -> io::Result<()> {
        self.0 = None; // the child reads the end; what it still writes is read
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let mut command = Command::new(words.next().ok_or("name the program to start")?);
    let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut pipe = Pipe(child.stdin.take());
    rustix::io::ioctl_fionbio(pipe.0.as_ref().expect("it is piped"), true)?; // `write` must not block

    let mut client = transport::Client::new(ClientConfig::new());
    client.on_open(|context| _ = context.send("hello, child"));
    client.on_message(|message, context| {
        println!("{}", String::from_utf8_lossy(message.as_bytes()));
        _ = context.close(CloseCode::NORMAL, "");
    });
    client.on_close(|ending, _| println!("closed cleanly: {}", ending.clean));
    client.on_fail(|failure, _| println!("{failure}"));

    let now = || proto::Instant::from(std::time::Instant::now());
    let mut buffers = transport::Buffers::default();
    // Only this thread uses the connection, so nobody has to be woken.
    let mut driver = client.driver("ws://child/", std::task::Waker::noop(), now())?;
    driver.start(&mut pipe, &mut buffers, now());
    while !driver.is_closed() {
        // Wait for what the driver waits for.
        let mut fds = Vec::new();
        if driver.wants_input() {
            fds.push(PollFd::new(&stdout, PollFlags::IN));
        }
        if let (Some(stdin), 1..) = (&pipe.0, driver.buffered_amount()) {
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        let timeout = driver.next_timeout().map(|due| Timespec::try_from(due - now()));
        poll(&mut fds, timeout.transpose()?.as_ref())?;

        if driver.wants_input() && !fds[0].revents().is_empty() {
            let mut bytes = [0; 4096];
            match stdout.read(&mut bytes) {
                Ok(0) => driver.handle_eof(&mut pipe, &mut buffers, now()),
                Ok(n) => driver.receive(&mut pipe, &mut buffers, &mut bytes[..n], now()),
                Err(e) => driver.handle_error(&mut pipe, &mut buffers, (&e).into(), now()),
            }
        }
        // Neither does harm if it comes too early.
        driver.handle_writable(&mut pipe, &mut buffers, now());
        driver.handle_timeout(&mut pipe, &mut buffers, now());
    }
    println!("the child: {}", child.wait()?);
    Ok(())
}
