//! Closures that are set on an endpoint.

use std::time::Duration;

use anyloop_proto::handshake::Request;
use anyloop_proto::{Chunk, Ending, Failure, Message};

use super::{Client, Server};
use crate::session::{Answer, Context, Handlers, LocalHandlers, with_closures};

/// The setter of one closure, on an endpoint.
macro_rules! endpoint_setter {
    ([$($bound:tt)*] $handlers:ident $setter:ident ($($argument:ty),*) ($($result:ty)?)) => {
        #[doc = concat!("As [`", stringify!($handlers), "::", stringify!($setter), "`].")]
        pub fn $setter(
            &mut self,
            f: impl Fn($($argument),*) $(-> $result)? + $($bound)*,
        ) -> &mut Self {
            self.core().change_factory(|handlers| _ = handlers.$setter(f));
            self
        }
    };
}

/// One setter for each closure on an endpoint.
macro_rules! endpoint_setters {
    (
        $endpoint:ident, $handlers:ident, $bounds:tt;
        $($field:ident $setter:ident: fn $arguments:tt $(-> $result:ty)?;)*
    ) => {
        impl<B> $endpoint<B, $handlers> {
            $(endpoint_setter! { $bounds $handlers $setter $arguments ($($result)?) })*
        }
    };
}

with_closures!(endpoint_setters! for servers (
    Handlers; Server, Handlers, [Send + Sync + 'static];
));
with_closures!(endpoint_setters! for servers (LocalHandlers; Server, LocalHandlers, ['static];));
with_closures!(endpoint_setters!(Handlers; Client, Handlers, [Send + Sync + 'static];));
with_closures!(endpoint_setters!(LocalHandlers; Client, LocalHandlers, ['static];));
