//! winit watches its own descriptors only, so the loop sends it an event when there is work. This example
//! has no window; a program makes one in `resumed`.

use std::error::Error;
use std::time::Instant;

use anyloop::EventLoop;
use anyloop_hosts::{Workload, TICK};
use winit::application::ApplicationHandler;
use winit::event::WindowEvent;
use winit::event_loop::{ActiveEventLoop, ControlFlow};
use winit::window::WindowId;

/// The loop has work.
#[derive(Debug)]
struct Wake;

struct App {
    event_loop: EventLoop,
    workload: Workload,
    next_tick: Instant,
}

impl ApplicationHandler<Wake> for App {
    fn user_event(&mut self, host: &ActiveEventLoop, Wake: Wake) {
        self.event_loop.poll();
        if self.event_loop.stopped() {
            host.exit();
        }
    }

    /// The program's timer.
    fn about_to_wait(&mut self, host: &ActiveEventLoop) {
        if Instant::now() >= self.next_tick {
            self.next_tick += TICK;
            self.workload.tick();
        }
        host.set_control_flow(ControlFlow::WaitUntil(self.next_tick));
    }

    fn resumed(&mut self, _: &ActiveEventLoop) {}

    fn window_event(&mut self, _: &ActiveEventLoop, _: WindowId, _: WindowEvent) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;
    let workload = Workload::begin(&event_loop)?;

    let host = winit::event_loop::EventLoop::<Wake>::with_user_event().build()?;
    let proxy = host.create_proxy();
    // A thread of Anyloop's calls this. An error means that the host has ended.
    event_loop.set_wakeup(move || _ = proxy.send_event(Wake))?;

    let mut app = App { event_loop, workload, next_tick: Instant::now() + TICK };
    host.run_app(&mut app)?;
    app.event_loop.clear_wakeup();
    app.workload.report()
}
