//! Whether a value may be used by several threads.

/// Any thread may use it, so the handlers and functions in it must be [`Send`].
///
#[cfg_attr(feature = "net", doc = "An [`EventLoop`](crate::EventLoop) is of this kind, and so are")]
#[cfg_attr(not(feature = "net"), doc = "Of this kind are")]
/// [`iostream::Server`](crate::iostream::Server) and [`iostream::Client`](crate::iostream::Client).
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a marker type, of which no value is created")]
pub struct Threads;

/// One thread uses it, and the handlers and functions in it need not be [`Send`].
///
#[cfg_attr(
    feature = "net",
    doc = "A [`LocalEventLoop`](crate::LocalEventLoop) is of this kind, and so are"
)]
#[cfg_attr(not(feature = "net"), doc = "Of this kind are")]
/// [`iostream::LocalServer`](crate::iostream::LocalServer) and [`iostream::LocalClient`](crate::iostream::LocalClient).
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a marker type, of which no value is created")]
pub struct Local;
