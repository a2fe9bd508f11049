//! A server on an inherited socket (socket activation). systemd passes descriptors from 3 on, and their
//! number in `LISTEN_FDS`.
//!
//! Without an inherited socket it opens one itself, and passes it to the server.

mod net_demo;

use std::error::Error;
use std::net::TcpListener;

use anyloop::EventLoop;
use listenfd::ListenFd;

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let server = net_demo::echo_server(&event_loop);
    let (kind, socket) = match ListenFd::from_env().take_tcp_listener(0)? {
        Some(socket) => ("inherited", socket),
        None => ("opened here", TcpListener::bind("127.0.0.1:0")?),
    };
    let address = server.listen_on(socket)?;
    server.start_accept()?;

    let client = net_demo::hello_client(&event_loop, kind);
    client.connect(format!("ws://{address}/").as_str())?;
    while event_loop.run_one() > 0 {
        if server.counters().closed == 1 {
            server.stop_listening();
        }
    }
    Ok(())
}
