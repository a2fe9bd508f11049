//! What an endpoint on sockets is called.

use super::endpoint::Endpoint;
use crate::event_loop::{Local, Threads};

/// The transport that does its own networking, in an [`EventLoop`](crate::EventLoop).
///
/// See [the module](super).
pub type Net<K = Threads> = Endpoint<K>;

/// The same in a [`LocalEventLoop`](crate::LocalEventLoop), whose handlers need not be [`Send`].
///
/// ```
/// use anyloop::endpoint::LocalHandlers;
/// use anyloop::net::LocalNet;
/// use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
/// use anyloop::{LocalEventLoop, Server};
/// use std::cell::Cell;
/// use std::rc::Rc;
///
/// let visitors = Rc::new(Cell::new(0));
/// let mut handlers = LocalHandlers::new();
/// handlers.on_open({
///     let visitors = visitors.clone();
///     move |_| visitors.set(visitors.get() + 1)
/// });
/// let options = ServerOptions::new(OriginPolicy::Any);
/// let server = Server::<LocalNet, _>::with_factory(options, handlers);
/// server.set_event_loop(&LocalEventLoop::new()?)?;
/// server.listen("127.0.0.1:0")?;
/// server.start_accept()?;
/// server.poll()?; // nobody is there
/// assert_eq!(visitors.get(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type LocalNet = Net<Local>;
