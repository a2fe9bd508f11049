//! The handler type of connections of a routed server.

use std::any::TypeId;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::handshake::Request;
use anyloop_proto::{Chunk, Ending, Failure, Message};

use super::table::{Rejection, Table};
use crate::session::{Answer, AnyHandler, Context, EndpointHandle, Handler};

/// The handler of a connection of a server with a [`Router`](super::Router). It passes each event on to the handler of
/// the route.
///
/// The handles of such a server have this type, and so have the filters of its broadcasts:
///
/// ```
/// use anyloop::iostream::Server;
/// use anyloop::prelude::*;
///
/// struct News;
///
/// impl Handler for News {}
///
/// let router = Router::new().route("/news/{topic}", || News)?.route("/echo", Handlers::new())?;
/// let server = Server::with_factory(ServerConfig::new(OriginPolicy::Any), router);
/// server.broadcast_where("rain", |routed| routed.route() == Some("/news/{topic}"));
/// server.broadcast_where("sun", |routed| routed.handler::<News>().is_some());
/// # Ok::<(), anyloop::router::RouteError>(())
/// ```
pub struct Routed(State<dyn RouteHandler<Self> + Send, Routes>);

/// As [`Routed`], for a [`LocalRouter`](super::LocalRouter).
///
/// ```
/// use anyloop::iostream::Server;
/// use anyloop::prelude::*;
/// use anyloop::router::LocalRouter;
///
/// let router = LocalRouter::new().route("/news", LocalHandlers::new())?;
/// let server = Server::with_factory(ServerConfig::new(OriginPolicy::Any), router);
/// server.broadcast_where("rain", |routed| routed.route() == Some("/news"));
/// # Ok::<(), anyloop::router::RouteError>(())
/// ```
pub struct LocalRouted(State<dyn RouteHandler<Self>, LocalRoutes>);

/// The routes of a [`Router`](super::Router).
pub(super) type Routes = Arc<
    Table<
        Arc<dyn Fn(&Arc<str>) -> Box<dyn RouteHandler<Routed> + Send> + Send + Sync>,
        Arc<dyn Fn(&Request, &mut Context<'_, Routed>) -> Answer + Send + Sync>,
    >,
>;

/// The routes of a [`LocalRouter`](super::LocalRouter).
pub(super) type LocalRoutes = Rc<
    Table<
        Rc<dyn Fn(&Arc<str>) -> Box<dyn RouteHandler<LocalRouted>>>,
        Rc<dyn Fn(&Request, &mut Context<'_, LocalRouted>) -> Answer>,
    >,
>;

enum State<D: ?Sized, R> {
    /// No request has been received, or none that has a route.
    Unrouted(R),
    Selected(Box<D>),
}

impl<H: Handler> EndpointHandle<H> {
    /// The same endpoint, typed by the router's handler, so that filters see the connections of all routes. For servers
    /// with a [`Router`](super::Router):
    ///
    /// ```
    /// use anyloop::prelude::*;
    ///
    /// let mut chat = Handlers::new();
    /// chat.on_message(|message, context| {
    ///     let server = context.endpoint().routed();
    ///     server.broadcast_where(message, |routed| routed.route() == Some("/chat"));
    /// });
    /// let router = Router::new().route("/chat", chat)?.route("/echo", Handlers::new())?;
    /// # Ok::<(), anyloop::router::RouteError>(())
    /// ```
    #[must_use]
    pub fn routed(&self) -> EndpointHandle<Routed> {
        self.with_type()
    }

    /// As [`routed`](Self::routed), for servers with a [`LocalRouter`](super::LocalRouter).
    #[must_use]
    pub fn local_routed(&self) -> EndpointHandle<LocalRouted> {
        self.with_type()
    }
}

/// The handler of a route.
pub(super) struct Selected<H> {
    /// The pattern of the route.
    pub(super) pattern: Arc<str>,
    pub(super) handler: H,
}

/// Declares [`RouteHandler`], and implements it. `$event` are the events that a handler gets after the request.
macro_rules! route_handler {
    ($($event:ident ($($argument:ident: $type:ty),*) $(-> $result:ty)? { $unrouted:expr })*) => {
        /// Passes the events of a connection whose handler has the type `R` on to a handler of any type.
        pub(super) trait RouteHandler<R: Handler> {
            fn route(&self) -> &str;
            fn handler(&self) -> &dyn AnyHandler;
            fn handler_mut(&mut self) -> &mut dyn AnyHandler;
            fn validate(&mut self, request: &Request, context: &mut Context<'_, R>) -> Answer;
            fn http(&mut self, request: &Request, context: &mut Context<'_, R>) -> Answer;
            $(fn $event(&mut self, $($argument: $type,)* context: &mut Context<'_, R>) $(-> $result)?;)*
        }

        impl<R: Handler, H: Handler> RouteHandler<R> for Selected<H> {
            fn route(&self) -> &str {
                &self.pattern
            }

            fn handler(&self) -> &dyn AnyHandler {
                &self.handler
            }

            fn handler_mut(&mut self) -> &mut dyn AnyHandler {
                &mut self.handler
            }

            fn validate(&mut self, request: &Request, context: &mut Context<'_, R>) -> Answer {
                context.call(&mut self.handler, |handler, context| handler.validate(request, context))
            }

            fn http(&mut self, request: &Request, context: &mut Context<'_, R>) -> Answer {
                context.call(&mut self.handler, |handler, context| handler.http(request, context))
            }

            $(fn $event(&mut self, $($argument: $type,)* context: &mut Context<'_, R>) $(-> $result)? {
                context.call(&mut self.handler, |handler, context| handler.$event($($argument,)* context))
            })*
        }
    };
}

/// Implements the routing handler. `{ .. }` is the event's result while there is no route.
macro_rules! impl_routed {
    (
        $routed:ident, $routes:ident, $route_handler:ty;
        $($event:ident ($($argument:ident: $type:ty),*) $(-> $result:ty)? { $unrouted:expr })*
    ) => {
        impl $routed {
            pub(super) const fn new(routes: $routes) -> Self {
                Self(State::Unrouted(routes))
            }

            /// The pattern of the route. `None` before the request was received, for a page, and for a request that no
            /// route matches.
            #[must_use]
            pub fn route(&self) -> Option<&str> {
                match &self.0 {
                    State::Selected(selected) => Some(selected.route()),
                    State::Unrouted(_) => None,
                }
            }

            /// The handler of the route, if there is one and it has this type. Looks through nested routers.
            #[must_use]
            pub fn handler<H: Handler>(&self) -> Option<&H> {
                self.delegate()?.find(TypeId::of::<H>())?.downcast_ref()
            }

            /// The handler of the route. It is made when the request arrives.
            fn select_or_make(
                &mut self,
                request: &Request,
                context: &mut Context<'_, Self>,
            ) -> Result<&mut $route_handler, Rejection> {
                if let State::Unrouted(routes) = &self.0 {
                    let (make, route) = routes.route(request)?;
                    let selected = make(&route.pattern);
                    context.set_route(route);
                    self.0 = State::Selected(selected);
                }
                match &mut self.0 {
                    State::Selected(selected) => Ok(&mut **selected),
                    State::Unrouted(_) => Err(Rejection::NotFound),
                }
            }
        }

        impl Handler for $routed {
            fn validate(&mut self, request: &Request, context: &mut Context<'_, Self>) -> Answer {
                match self.select_or_make(request, context) {
                    Ok(selected) => selected.validate(request, context),
                    Err(rejection) => rejection.into(),
                }
            }

            fn http(&mut self, request: &Request, context: &mut Context<'_, Self>) -> Answer {
                if let State::Unrouted(routes) = &self.0 {
                    match routes.page(request) {
                        Ok(Some((page, route))) => {
                            context.set_route(route);
                            return page(request, context);
                        }
                        Ok(None) => {}
                        Err(rejection) => return rejection.into(),
                    }
                }
                match self.select_or_make(request, context) {
                    Ok(selected) => selected.http(request, context),
                    Err(rejection) => rejection.into(),
                }
            }

            $(fn $event(&mut self, $($argument: $type,)* context: &mut Context<'_, Self>) $(-> $result)? {
                match &mut self.0 {
                    State::Selected(selected) => selected.$event($($argument,)* context),
                    State::Unrouted(_) => $unrouted,
                }
            })*

            fn delegate(&self) -> Option<&dyn AnyHandler> {
                match &self.0 {
                    State::Selected(selected) => Some(selected.handler()),
                    State::Unrouted(_) => None,
                }
            }

            fn delegate_mut(&mut self) -> Option<&mut dyn AnyHandler> {
                match &mut self.0 {
                    State::Selected(selected) => Some(selected.handler_mut()),
                    State::Unrouted(_) => None,
                }
            }
        }

        impl fmt::Debug for $routed {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let name = stringify!($routed);
                f.debug_struct(name).field("route", &self.route()).finish_non_exhaustive()
            }
        }
    };
}

/// Passes the list of events to a macro.
macro_rules! with_events {
    ($macro:ident!($($before:tt)*)) => {
        $macro! {
            $($before)*
            open() { () }
            message(message: Message<'_>) { () }
            chunk(chunk: Chunk<'_>) { () }
            ping(payload: &[u8]) -> bool { true }
            pong(payload: &[u8], round_trip: Option<Duration>) { () }
            pong_timeout() { () }
            interrupt() { () }
            backpressure() { () }
            drained() { () }
            close(ending: &Ending<'_>) { () }
            fail(failure: &Failure) { () }
        }
    };
}

with_events!(route_handler!());
with_events!(impl_routed!(Routed, Routes, (dyn RouteHandler<Self> + Send);));
with_events!(impl_routed!(LocalRouted, LocalRoutes, dyn RouteHandler<Self>;));
