//! A server that only IPv6 clients reach; IPv4 connections to its port are refused.

mod net_demo;

use std::error::Error;
use std::net::{Ipv6Addr, SocketAddrV6};

use anyloop::EventLoop;

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let server = net_demo::echo_server(&event_loop);
    let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0);
    let port = server.listen_only_v6(any)?.port();
    server.start_accept()?;

    let v6 = net_demo::hello_client(&event_loop, "IPv6");
    v6.connect(format!("ws://[::1]:{port}/").as_str())?;
    while server.counters().closed == 0 {
        event_loop.run_one();
    }

    let mut v4 = net_demo::hello_client(&event_loop, "IPv4");
    v4.on_fail(|failure, _| println!("IPv4: {}", failure.cause()));
    v4.connect(format!("ws://127.0.0.1:{port}/").as_str())?;
    while v4.counters().failed == 0 {
        event_loop.run_one();
    }
    Ok(())
}
