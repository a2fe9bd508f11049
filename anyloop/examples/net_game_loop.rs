//! A game loop that gives the network two milliseconds of each frame.

mod net_demo;

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use anyloop::EventLoop;

const FRAME: Duration = Duration::from_millis(16);

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let _guard = event_loop.keep_alive(); // so that a frame without work does not stop the loop
    let server = net_demo::echo_server(&event_loop);
    let address = server.listen("127.0.0.1:0")?;
    server.start_accept()?;
    let client = net_demo::hello_client(&event_loop, "between two frames");
    client.connect(format!("ws://{address}/").as_str())?;

    while server.counters().closed == 0 {
        let begun = Instant::now();
        // At most a thousand handlers; none starts after two milliseconds.
        event_loop.poll_budget(1_000, Some(begun + Duration::from_millis(2)));
        // ... update and draw the world
        thread::sleep(FRAME.saturating_sub(begun.elapsed()));
    }
    Ok(())
}
