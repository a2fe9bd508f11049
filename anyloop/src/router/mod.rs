//! Handlers that are selected by the path of the request.

mod error;
mod routed;
mod table;

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use anyloop_proto::handshake::Request;
use anyloop_proto::handshake::http::Method;

pub use error::RouteError;
pub use routed::{LocalRouted, Routed};
use routed::{LocalRoutes, RouteHandler, Routes, Selected};

use crate::session::{Answer, Context, HandlerFactory};

/// A handler factory for servers: the path of the request selects the handler of the connection.
///
/// [`route`](Self::route) adds a route for WebSocket upgrade requests. Each has a handler factory of its own, and the
/// type of its handlers can be any [`Handler`](crate::Handler). [`http`](Self::http) and
/// [`http_method`](Self::http_method) add a *page*: the functions that answer plain HTTP requests of a path, by method.
///
/// ```
/// use anyloop::iostream::Server; // or `anyloop::net`
/// use anyloop::prelude::*;
/// # use anyloop::http::Response;
/// # use std::sync::mpsc;
///
/// /// A connection to one of the rooms.
/// #[derive(Default)]
/// struct Room(String);
///
/// impl Handler for Room {
///     fn validate(&mut self, _: &Request, context: &mut Context<'_, Self>) -> Answer {
///         self.0 = context.param("room").unwrap_or_default().to_string();
///         Answer::accept()
///     }
///
///     fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
///         let room = self.0.clone();
///         context.endpoint().broadcast_where(message, move |other: &Self| other.0 == room);
///     }
/// }
///
/// let mut echo = Handlers::new();
/// echo.on_message(|message, context| _ = context.send(message));
///
/// let router = Router::new()
///     .route("/echo", echo)?
///     .route("/rooms/{room}", Room::default)?
///     .http("/", |_, _| Response::new(b"Rooms are at /rooms/NAME.\n".to_vec()))?;
/// let server = Server::with_factory(ServerConfig::new(OriginPolicy::Any), router);
/// # let connection = server.connection();
/// # let (to_client, at_client) = mpsc::channel();
/// # connection.set_write_handler(move |bytes| Ok(to_client.send(bytes.to_vec()).unwrap()));
/// # connection.read_all(b"GET /rooms/caf%C3%A9 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")?;
/// # assert!(at_client.try_recv()?.starts_with(b"HTTP/1.1 101 "));
/// # connection.read_all(b"\x81\x82\0\0\0\0hi")?;
/// # connection.drive()?;
/// # assert_eq!(at_client.try_recv()?, b"\x81\x02hi");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Patterns
///
/// A pattern is a path: `/rooms`, or with parameters, `/rooms/{room}/users/{user}`. A parameter matches one segment or
/// a part of it (`/logs/{day}.txt`), never an empty one. A last segment `{*rest}` matches all that follows, which is
/// not empty and can have slashes. `{{` and `}}` are literal braces. Literal text takes precedence over a parameter,
/// whatever the order in which they were added. Ambiguous patterns are an error when the second is added: `/{a}` beside
/// `/{b}` or `/{*rest}`. Some other pairs are an error, too, because the matcher cannot hold both: `/{a}.txt` beside
/// `/{*rest}`, and in the same segment, a parameter with text before it beside one with text behind it (`/a-{b}` beside
/// `/{b}.txt`).
///
/// The path of the request is compared as it was sent, and without its query: `/rooms/` is not `/rooms`, `%2F` does not
/// separate segments, and `/%65cho` is not `/echo`. The values of parameters are then percent-decoded; a request whose
/// value is not UTF-8 gets 400. A pattern must not give two parameters the same name. Percent-encoded literal text has
/// upper-case digits (`/caf%C3%A9`); it also matches a request with lower-case ones (RFC 3986 §6.2.2.1). A handler
/// reads the parameters with [`Context::param`], and the query from the [`Request`].
///
/// # Files
///
/// The value of `{*rest}` is decoded, and nothing in it is removed: it can have `..` (from `..%2F` as well), be an
/// absolute path (`/etc`, from `%2Fetc`), and contain NUL. Before it names a file, allow only
/// [`Component::Normal`](std::path::Component::Normal). A symbolic link inside the folder is followed all the same.
///
/// ```
/// use std::path::{Component, Path, PathBuf};
/// use anyloop::http::{Response, StatusCode};
/// use anyloop::prelude::*;
///
/// /// The path of a file inside the folder; `None` if it could be outside.
/// fn inside(folder: &Path, rest: &str) -> Option<PathBuf> {
///     let is_normal = |part| matches!(part, Component::Normal(_));
///     let is_safe = Path::new(rest).components().all(is_normal) && !rest.contains('\0');
///     is_safe.then(|| folder.join(rest))
/// }
///
/// let folder = Path::new("public");
/// assert_eq!(inside(folder, "css/main.css"), Some(folder.join("css/main.css")));
/// for outside in ["../secret", "css/../../secret", "/etc/passwd", "main.css\0"] {
///     assert_eq!(inside(folder, outside), None);
/// }
///
/// let router = Router::new().http("/files/{*rest}", |_, context| {
///     let path = context.param("rest").and_then(|rest| inside(Path::new("public"), rest));
///     match path.and_then(|path| std::fs::read(path).ok()) {
///         Some(bytes) => Response::new(bytes).into(),
///         None => Answer::status(StatusCode::NOT_FOUND, "there is no such file"),
///     }
/// })?;
/// # Ok::<(), anyloop::router::RouteError>(())
/// ```
///
/// # Answers
///
/// | request | its path has | answer |
/// |---|---|---|
/// | WebSocket | a route | that of [`validate`](crate::Handler::validate) of its handler |
/// | WebSocket | none, or a page only | 404 |
/// | plain HTTP | a page with this method | that of its function |
/// | plain HTTP | a page without this method | 405, with the methods in the field `Allow` |
/// | plain HTTP | a route and no page | that of [`http`](crate::Handler::http) of its handler: 426 by default |
/// | plain HTTP | nothing | 404 |
/// | either | a route, or a page with this method, and a parameter that is not UTF-8 | 400 |
///
/// HEAD is answered like GET, without the body. OPTIONS is a method like any other.
///
/// # Handlers
///
/// The route's handler is made when its request arrives. A request that is invalid, or that the router answers with
/// 400, 404 or 405, gets none: the endpoint's [`counters`](crate::endpoint::EndpointHandle::counters) count it. The
/// handler gets all events, as without a router, at the cost of one dynamic call each.
///
/// [`Context::endpoint`] is the whole server. Its `broadcast` reaches the connections of all routes, and
/// `broadcast_where` those whose handler has the type of the filter's parameter. `connections` returns handles of all.
/// A [posted](crate::Handle::post) function is called only if the handler of its connection has the type that the
/// function expects; otherwise it is dropped.
///
/// A router can be the factory of a route: it selects by the whole path again. A timer, posted function or filter whose
/// parameter is the type of a route's handler gets that handler, however deeply routers are nested. One whose parameter
/// is [`Routed`] gets the [`Routed`] of the innermost router.
#[derive(Clone, Default)]
pub struct Router(Routes);

/// As [`Router`], for connections that stay on one thread: handlers, factories and functions need not be [`Send`].
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use anyloop::iostream::Server; // or `anyloop::net::LocalServer`
/// use anyloop::prelude::*;
/// use anyloop::router::LocalRouter;
/// # const REQUEST: &[u8] = b"GET /count HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
///
/// let received = Rc::new(Cell::new(0));
/// let counter = received.clone();
/// let mut count = LocalHandlers::new();
/// count.on_message(move |_, _| counter.set(counter.get() + 1));
/// let router = LocalRouter::new().route("/count", count)?;
/// let server = Server::with_factory(ServerConfig::new(OriginPolicy::Any), router);
/// let connection = server.connection();
/// # connection.register_output(std::io::sink());
/// # connection.read_all(REQUEST)?;
/// connection.read_all(b"\x81\x82\0\0\0\0hi")?;
/// assert_eq!(received.get(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct LocalRouter(LocalRoutes);

/// The methods of a router, with the bounds of factories and of functions. `$pointer` is `Arc` or `Rc`.
macro_rules! router {
    (
        $router:ident, $routed:ident, $pointer:ident, $route_handler:ty,
        [$($factory_bound:tt)*], [$($page_bound:tt)*]
    ) => {
        impl $router {
            /// A router without routes: it answers 404.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            /// Adds a route for WebSocket upgrade requests, with the factory of its handlers.
            ///
            /// # Errors
            ///
            /// [`RouteError::Invalid`], [`RouteError::Conflict`].
            pub fn route<F>(mut self, pattern: &str, factory: F) -> Result<Self, RouteError>
            where
                F: $($factory_bound)* + 'static,
            {
                let make = $pointer::new(move |pattern: &Arc<str>| -> Box<$route_handler> {
                    Box::new(Selected { pattern: pattern.clone(), handler: factory.make() })
                });
                $pointer::make_mut(&mut self.0).add_route(pattern, make)?;
                Ok(self)
            }

            /// Adds a page: a function that answers GET and HEAD. It can [defer](Answer::Defer) its answer.
            ///
            /// # Errors
            ///
            /// [`RouteError::Invalid`], [`RouteError::Conflict`], [`RouteError::Duplicate`].
            pub fn http<V: Into<Answer>>(
                self,
                pattern: &str,
                page: impl Fn(&Request, &mut Context<'_, $routed>) -> V + $($page_bound)*,
            ) -> Result<Self, RouteError> {
                self.http_method(Method::GET, pattern, page)
            }

            /// Adds a function for one HTTP method. A path can have one for each method; that for HEAD takes precedence
            /// over that for GET.
            ///
            /// # Errors
            ///
            /// [`RouteError::Invalid`], [`RouteError::Conflict`], [`RouteError::Duplicate`].
            pub fn http_method<V: Into<Answer>>(
                mut self,
                method: Method,
                pattern: &str,
                page: impl Fn(&Request, &mut Context<'_, $routed>) -> V + $($page_bound)*,
            ) -> Result<Self, RouteError> {
                let page = $pointer::new(
                    move |request: &Request, context: &mut Context<'_, $routed>| {
                        page(request, context).into()
                    },
                );
                $pointer::make_mut(&mut self.0).add_page(method, pattern, page)?;
                Ok(self)
            }
        }

        impl HandlerFactory for $router {
            type Handler = $routed;

            fn make(&self) -> $routed {
                $routed::new(self.0.clone())
            }
        }

        impl fmt::Debug for $router {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let patterns = self.0.patterns();
                f.debug_struct(stringify!($router)).field("patterns", &patterns).finish_non_exhaustive()
            }
        }
    };
}

router!(
    Router,
    Routed,
    Arc,
    dyn RouteHandler<Routed> + Send,
    [HandlerFactory<Handler: Send> + Send + Sync],
    [Send + Sync + 'static]
);
router!(LocalRouter, LocalRouted, Rc, dyn RouteHandler<LocalRouted>, [HandlerFactory], ['static]);
