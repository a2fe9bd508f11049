//! A server on a Unix socket.

mod net_demo;

use std::error::Error;

use anyloop::EventLoop;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("anyloop-example-{}.sock", std::process::id()));
    let event_loop = EventLoop::new()?;
    let server = net_demo::echo_server(&event_loop);
    server.listen_unix(&path)?;
    server.start_accept()?;

    let client = net_demo::hello_client(&event_loop, "Unix");
    client.request("ws://localhost/")?.to_unix(&path).connect()?;

    while event_loop.run_one() > 0 {
        if server.counters().closed == 1 {
            server.stop_listening();
        }
    }
    assert!(!path.exists(), "the socket is removed with the listener");
    Ok(())
}
