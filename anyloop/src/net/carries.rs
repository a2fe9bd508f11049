//! Which loops can carry connections of which handlers.

use crate::endpoint::{Handler, Session};
use crate::event_loop::{Kind, Local, StreamSource, Threads};

/// How a connection is put into a loop of this kind.
#[expect(unnameable_types, reason = "there are no other kinds")]
pub trait Carries<H: Handler>: Kind {
    fn connection(connection: StreamSource<Session<H>>) -> Box<Self::Source>;
}

impl<H: Handler + Send + 'static> Carries<H> for Threads {
    fn connection(connection: StreamSource<Session<H>>) -> Box<Self::Source> {
        Box::new(connection)
    }
}

impl<H: Handler + 'static> Carries<H> for Local {
    fn connection(connection: StreamSource<Session<H>>) -> Box<Self::Source> {
        Box::new(connection)
    }
}
