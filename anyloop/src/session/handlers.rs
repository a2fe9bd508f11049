//! Handlers made of closures.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::handshake::{Accept, Request};
use anyloop_proto::{Chunk, Ending, Failure, Message};

use super::handler::{Answer, Context, Handler, HandlerFactory};

/// A handler made of closures, one for each event of interest. For the others, the defaults of [`Handler`] apply.
///
/// It is cheap to clone, and a factory of itself. A connection uses the closures that were set when it was made. For
/// state of a connection, write a [`Handler`] instead.
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

/// As [`Handlers`], for connections that stay on one thread: the closures need not be [`Send`].
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use anyloop::iostream::Server;
/// use anyloop::prelude::*;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
///
/// let config = ServerConfig::new(OriginPolicy::Any);
/// let mut server = Server::with_factory(config, LocalHandlers::new());
/// let received = Rc::new(Cell::new(0));
/// let counter = received.clone();
/// server.on_message(move |_, _| counter.set(counter.get() + 1));
/// let connection = server.connection();
/// # connection.register_output(std::io::sink());
/// # connection.read_all(REQUEST)?;
/// connection.read_all(b"\x81\x82\0\0\0\0hi")?;
/// assert_eq!(received.get(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct LocalHandlers(Rc<LocalTable>);

/// The type of a closure: `[bounds] (arguments) (-> result)`.
macro_rules! closure {
    ([$($bound:tt)*] ($($argument:ty),*) (=> $answer:ty)) => {
        dyn Fn($($argument),*) -> $answer + $($bound)*
    };
    ([$($bound:tt)*] ($($argument:ty),*) ($(-> $result:ty)?)) => {
        dyn Fn($($argument),*) $(-> $result)? + $($bound)*
    };
}

/// The setter of one closure, as a method of `Handlers` or `LocalHandlers`. Endpoints have others, from
/// `closure_setters`. With `=> T` the closure may return anything that converts into `T`.
macro_rules! setter {
    (
        [$($bound:tt)*] $shared:ident $field:ident $setter:ident
        ($request:ty, $context:ty) (=> $answer:ty)
    ) => {
        #[doc = concat!("Sets the closure for [`Handler::", stringify!($field), "`].")]
        /// Existing connections keep theirs.
        pub fn $setter<R: Into<$answer>>(
            &mut self,
            f: impl Fn($request, $context) -> R + $($bound)*,
        ) -> &mut Self {
            let f = move |request: $request, context: $context| f(request, context).into();
            $shared::make_mut(&mut self.0).$field = Some($shared::new(f));
            self
        }
    };
    ([$($bound:tt)*] $shared:ident $field:ident $setter:ident ($($argument:ty),*) ($(-> $result:ty)?)) => {
        #[doc = concat!("Sets the closure for [`Handler::", stringify!($field), "`].")]
        /// Existing connections keep theirs.
        pub fn $setter(
            &mut self,
            f: impl Fn($($argument),*) $(-> $result)? + $($bound)*,
        ) -> &mut Self {
            $shared::make_mut(&mut self.0).$field = Some($shared::new(f));
            self
        }
    };
}

macro_rules! handlers {
    (
        $handlers:ident, $table:ident, $shared:ident, $bounds:tt;
        $($field:ident $setter:ident: fn $arguments:tt $(-> $result:ty)? $(=> $answer:ty)?;)*
    ) => {
        /// The closures. `None`: the default of [`Handler`].
        #[derive(Clone, Default)]
        struct $table {
            $($field: Option<$shared<closure!($bounds $arguments ($(-> $result)? $(=> $answer)?))>>,)*
        }

        impl $handlers {
            /// Creates a set without closures.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            $(setter! { $bounds $shared $field $setter $arguments ($(-> $result)? $(=> $answer)?) })*
        }

        impl HandlerFactory for $handlers {
            type Handler = Self;

            fn make(&self) -> Self {
                self.clone()
            }
        }

        impl Handler for $handlers {
            fn validate(&mut self, request: &Request, context: &mut Context<'_, Self>) -> Answer {
                match &self.0.validate {
                    Some(f) => f(request, context),
                    None => Answer::Accept(Accept::new()),
                }
            }

            fn http(&mut self, request: &Request, context: &mut Context<'_, Self>) -> Answer {
                match &self.0.http {
                    Some(f) => f(request, context),
                    None => Answer::upgrade_required(),
                }
            }

            fn open(&mut self, context: &mut Context<'_, Self>) {
                if let Some(f) = &self.0.open {
                    f(context);
                }
            }

            fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
                if let Some(f) = &self.0.message {
                    f(message, context);
                }
            }

            fn chunk(&mut self, chunk: Chunk<'_>, context: &mut Context<'_, Self>) {
                match &self.0.chunk {
                    Some(f) => f(chunk, context),
                    None => context.drop_chunk(&chunk),
                }
            }

            fn ping(&mut self, payload: &[u8], context: &mut Context<'_, Self>) -> bool {
                self.0.ping.as_ref().is_none_or(|f| f(payload, context))
            }

            fn pong(&mut self, payload: &[u8], round_trip: Option<Duration>, context: &mut Context<'_, Self>) {
                if let Some(f) = &self.0.pong {
                    f(payload, round_trip, context);
                }
            }

            fn pong_timeout(&mut self, context: &mut Context<'_, Self>) {
                if let Some(f) = &self.0.pong_timeout {
                    f(context);
                }
            }

            fn interrupt(&mut self, context: &mut Context<'_, Self>) {
                if let Some(f) = &self.0.interrupt {
                    f(context);
                }
            }

            fn backpressure(&mut self, context: &mut Context<'_, Self>) {
                if let Some(f) = &self.0.backpressure {
                    f(context);
                }
            }

            fn drained(&mut self, context: &mut Context<'_, Self>) {
                if let Some(f) = &self.0.drained {
                    f(context);
                }
            }

            fn close(&mut self, ending: &Ending<'_>, context: &mut Context<'_, Self>) {
                if let Some(f) = &self.0.close {
                    f(ending, context);
                }
            }

            fn fail(&mut self, failure: &Failure, context: &mut Context<'_, Self>) {
                if let Some(f) = &self.0.fail {
                    f(failure, context);
                }
            }
        }

        impl fmt::Debug for $handlers {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($handlers)).finish_non_exhaustive()
            }
        }
    };
}

/// Calls a macro with the arguments after the `;` and then the list of closures. `for servers` adds `validate` and
/// `http`. `=> T` is a result that converts into `T`.
///
/// `$handlers` is the type of handlers that the closures' contexts have. Paths begin with the crate, since the list is
/// also expanded in `endpoint`.
macro_rules! with_closure_list {
    ($($macro:ident)::+!($handlers:ident; $($before:tt)*)) => {
        $($macro)::+! {
            $($before)*
            open on_open: fn(&mut crate::Context<'_, crate::session::$handlers>);
            message on_message: fn(anyloop_proto::Message<'_>, &mut crate::Context<'_, crate::session::$handlers>);
            chunk on_chunk: fn(anyloop_proto::Chunk<'_>, &mut crate::Context<'_, crate::session::$handlers>);
            ping on_ping: fn(&[u8], &mut crate::Context<'_, crate::session::$handlers>) -> bool;
            pong on_pong: fn(
                &[u8],
                Option<std::time::Duration>,
                &mut crate::Context<'_, crate::session::$handlers>
            );
            pong_timeout on_pong_timeout: fn(&mut crate::Context<'_, crate::session::$handlers>);
            interrupt on_interrupt: fn(&mut crate::Context<'_, crate::session::$handlers>);
            backpressure on_backpressure: fn(&mut crate::Context<'_, crate::session::$handlers>);
            drained on_drained: fn(&mut crate::Context<'_, crate::session::$handlers>);
            close on_close: fn(&anyloop_proto::Ending<'_>, &mut crate::Context<'_, crate::session::$handlers>);
            fail on_fail: fn(&anyloop_proto::Failure, &mut crate::Context<'_, crate::session::$handlers>);
        }
    };
    ($($macro:ident)::+! for servers ($handlers:ident; $($before:tt)*)) => {
        crate::session::with_closure_list!($($macro)::+!(
            $handlers;
            $($before)*
            validate on_validate: fn(
                &anyloop_proto::handshake::Request,
                &mut crate::Context<'_, crate::session::$handlers>
            ) => crate::endpoint::Answer;
            http on_http: fn(
                &anyloop_proto::handshake::Request,
                &mut crate::Context<'_, crate::session::$handlers>
            ) => crate::endpoint::Answer;
        ));
    };
}

pub(crate) use with_closure_list;

with_closure_list!(handlers! for servers (
    Handlers; Handlers, Table, Arc, [Send + Sync + 'static];
));
with_closure_list!(handlers! for servers (LocalHandlers; LocalHandlers, LocalTable, Rc, ['static];));
