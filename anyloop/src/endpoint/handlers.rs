//! A handler made of closures.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::handshake::Request;
use anyloop_proto::{Chunk, Ending, Failure, Message};

use super::context::Context;
use super::handler::{Factory, Handler, Verdict};

/// The connection, as a closure sees it.
type Here<'c> = Context<'c, Handlers>;

/// A handler made of closures, one for each event that matters; the others are answered as
/// [`Handler`] does.
///
/// It is cheap to clone, and a factory of itself: all connections of an endpoint share the closures
/// that were set when they were made. For state of a connection, write a [`Handler`] instead.
///
/// ```
/// use anyloop::Handlers;
///
/// let mut handlers = Handlers::new();
/// handlers
///     .on_open(|context| _ = context.send("welcome"))
///     .on_message(|message, context| _ = context.send(message));
/// ```
#[derive(Clone, Default)]
pub struct Handlers(Arc<Table>);

/// One setter for each closure, on the handlers themselves and on the endpoints where it is called.
macro_rules! setters {
    ($type:ty, $handlers:ident, $($field:ident $setter:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        impl<T: crate::transport::Transport> $type {
            $(
                #[doc = concat!("As [`Handlers::", stringify!($setter), "`].")]
                pub fn $setter(
                    &mut self,
                    f: impl Fn($($argument),*) $(-> $result)? + Send + Sync + 'static,
                ) -> &mut Self {
                    self.$handlers().$setter(f);
                    self
                }
            )*
        }
    };
}

macro_rules! handlers {
    ($($field:ident $setter:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The closures. One that is not set is not there.
        #[derive(Clone, Default)]
        struct Table {
            $($field: Option<Arc<dyn Fn($($argument),*) $(-> $result)? + Send + Sync>>,)*
        }

        impl Handlers {
            $(
                #[doc = concat!("Sets what is called as [`Handler::", stringify!($field), "`],")]
                /// on connections that are made afterwards.
                pub fn $setter(
                    &mut self,
                    f: impl Fn($($argument),*) $(-> $result)? + Send + Sync + 'static,
                ) -> &mut Self {
                    Arc::make_mut(&mut self.0).$field = Some(Arc::new(f));
                    self
                }
            )*
        }
    };
}

/// Hands the list of closures to a macro.
macro_rules! with_closures {
    ($macro:ident!($($before:tt)*)) => {
        $macro! {
            $($before)*
            open on_open: fn(&mut Here<'_>);
            message on_message: fn(Message<'_>, &mut Here<'_>);
            chunk on_chunk: fn(Chunk<'_>, &mut Here<'_>);
            ping on_ping: fn(&[u8], &mut Here<'_>) -> bool;
            pong on_pong: fn(&[u8], Option<Duration>, &mut Here<'_>);
            pong_timeout on_pong_timeout: fn(&mut Here<'_>);
            interrupt on_interrupt: fn(&mut Here<'_>);
            drained on_drained: fn(&mut Here<'_>);
            close on_close: fn(&Ending<'_>, &mut Here<'_>);
            fail on_fail: fn(&Failure, &mut Here<'_>);
        }
    };
    ($macro:ident! for servers ($($before:tt)*)) => {
        with_closures!($macro!(
            $($before)*
            validate on_validate: fn(&Request, &mut Here<'_>) -> Verdict;
            http on_http: fn(&Request, &mut Here<'_>) -> Verdict;
        ));
    };
}

with_closures!(handlers! for servers ());
with_closures!(setters! for servers (super::Server<T>, factory_mut,));
with_closures!(setters!(super::Client<T>, factory_mut,));

impl Handlers {
    /// No closures yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Factory for Handlers {
    type Handler = Self;

    fn make(&self) -> Self {
        self.clone()
    }
}

impl Handler for Handlers {
    fn validate(&mut self, request: &Request, context: &mut Here<'_>) -> Verdict {
        match &self.0.validate {
            Some(f) => f(request, context),
            None => Verdict::Accept(anyloop_proto::handshake::Accept::new()),
        }
    }

    fn http(&mut self, request: &Request, context: &mut Here<'_>) -> Verdict {
        match &self.0.http {
            Some(f) => f(request, context),
            None => Verdict::upgrade_required(),
        }
    }

    fn open(&mut self, context: &mut Here<'_>) {
        if let Some(f) = &self.0.open {
            f(context);
        }
    }

    fn message(&mut self, message: Message<'_>, context: &mut Here<'_>) {
        if let Some(f) = &self.0.message {
            f(message, context);
        }
    }

    fn chunk(&mut self, chunk: Chunk<'_>, context: &mut Here<'_>) {
        if let Some(f) = &self.0.chunk {
            f(chunk, context);
        }
    }

    fn ping(&mut self, payload: &[u8], context: &mut Here<'_>) -> bool {
        self.0.ping.as_ref().is_none_or(|f| f(payload, context))
    }

    fn pong(&mut self, payload: &[u8], round_trip: Option<Duration>, context: &mut Here<'_>) {
        if let Some(f) = &self.0.pong {
            f(payload, round_trip, context);
        }
    }

    fn pong_timeout(&mut self, context: &mut Here<'_>) {
        if let Some(f) = &self.0.pong_timeout {
            f(context);
        }
    }

    fn interrupt(&mut self, context: &mut Here<'_>) {
        if let Some(f) = &self.0.interrupt {
            f(context);
        }
    }

    fn drained(&mut self, context: &mut Here<'_>) {
        if let Some(f) = &self.0.drained {
            f(context);
        }
    }

    fn close(&mut self, ending: &Ending<'_>, context: &mut Here<'_>) {
        if let Some(f) = &self.0.close {
            f(ending, context);
        }
    }

    fn fail(&mut self, failure: &Failure, context: &mut Here<'_>) {
        if let Some(f) = &self.0.fail {
            f(failure, context);
        }
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").finish_non_exhaustive()
    }
}
