//! A server that IPv4 and IPv6 clients reach, on one port.

mod net_demo;

use std::error::Error;

use anyloop::EventLoop;

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let server = net_demo::echo_server(&event_loop);
    let port = server.listen_port(0)?; // 0 picks a free port
    server.start_accept()?;

    let v4 = net_demo::hello_client(&event_loop, "IPv4");
    v4.connect(format!("ws://127.0.0.1:{port}/").as_str())?;
    let v6 = net_demo::hello_client(&event_loop, "IPv6");
    v6.connect(format!("ws://[::1]:{port}/").as_str())?;

    while event_loop.run_one() > 0 {
        if server.counters().closed == 2 {
            server.stop_listening(); // the loop is out of work and ends
        }
    }
    Ok(())
}
