//! SDL 2 cannot watch descriptors, so the loop sends it an event when there is work.

use std::error::Error;

use anyloop::EventLoop;
use anyloop_hosts::{Workload, TICK, in_millis};

/// The loop has work.
struct Wake;

/// The program's own timer.
struct Tick;

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let workload = Workload::begin(&event_loop)?;

    let sdl = sdl2::init()?;
    let (_video, timers, events) = (sdl.video()?, sdl.timer()?, sdl.event()?);
    events.register_custom_event::<Wake>()?;
    events.register_custom_event::<Tick>()?;

    // A thread of Anyloop's calls this. Events may be pushed from any thread.
    let sender = events.event_sender();
    event_loop.set_wakeup(move || _ = sender.push_custom_event(Wake))?;

    let sender = events.event_sender();
    let tick = u32::try_from(in_millis(TICK))?;
    let _ticker = timers.add_timer(
        tick,
        Box::new(move || {
            _ = sender.push_custom_event(Tick);
            tick
        }),
    );

    for event in sdl.event_pump()?.wait_iter() {
        if event.as_user_event_type::<Wake>().is_some() {
            event_loop.poll();
            if event_loop.stopped() {
                break;
            }
        } else if event.as_user_event_type::<Tick>().is_some() {
            workload.tick();
        }
    }
    event_loop.clear_wakeup();
    workload.report()
}
