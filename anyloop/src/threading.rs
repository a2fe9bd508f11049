//! The two kinds of loops and endpoints: for several threads, or for one.

/// The kind of loops and endpoints that any thread may use. Their handlers and functions must be [`Send`].
///
#[cfg_attr(feature = "net", doc = "For example [`EventLoop`](crate::EventLoop),")]
#[cfg_attr(not(feature = "net"), doc = "For example")]
/// [`iostream::Server`](crate::iostream::Server) and [`iostream::Client`](crate::iostream::Client).
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a marker type, of which no value is created")]
pub struct Threads;

/// The kind of loops and endpoints that are bound to one thread. Their handlers and functions need not be [`Send`].
///
#[cfg_attr(feature = "net", doc = "For example [`LocalEventLoop`](crate::LocalEventLoop),")]
#[cfg_attr(not(feature = "net"), doc = "For example")]
/// [`iostream::LocalServer`](crate::iostream::LocalServer) and [`iostream::LocalClient`](crate::iostream::LocalClient).
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a marker type, of which no value is created")]
pub struct Local;
