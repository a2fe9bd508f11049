//! The routes of a router.

use std::sync::Arc;

use anyloop_proto::handshake::Request;
use anyloop_proto::handshake::http::{HeaderValue, Method, StatusCode, header};
use matchit::{Match, Router as Tree};
use percent_encoding::percent_decode_str;

use super::error::{RouteError, check, upper_case_digits};
use crate::session::{Answer, MatchedRoute};

/// The routes and the pages. A path can have one of each. `M`: handler factory. `A`: HTTP function.
#[derive(Clone)]
pub(super) struct Table<M, A> {
    routes: Vec<Route<M>>,
    /// Pattern -> index in `routes`.
    route_tree: Tree<usize>,
    pages: Vec<Page<A>>,
    /// Pattern -> index in `pages`.
    page_tree: Tree<usize>,
}

/// A route: its pattern, and the factory of its handlers.
#[derive(Clone)]
struct Route<M> {
    pattern: Arc<str>,
    make: M,
}

/// A page: its pattern, and its HTTP functions by method.
#[derive(Clone)]
struct Page<A> {
    pattern: Arc<str>,
    methods: Vec<(Method, A)>,
}

impl<M, A> Default for Table<M, A> {
    fn default() -> Self {
        let (route_tree, page_tree) = (Tree::new(), Tree::new());
        Self { routes: Vec::new(), route_tree, pages: Vec::new(), page_tree }
    }
}

impl<M, A> Table<M, A> {
    pub(super) fn add_route(&mut self, pattern: &str, make: M) -> Result<(), RouteError> {
        check(pattern)?;
        let pattern: Arc<str> = pattern.into();
        let inserted = self.route_tree.insert(&*pattern, self.routes.len());
        inserted.map_err(|error| RouteError::new(&pattern, error))?;
        self.routes.push(Route { pattern, make });
        Ok(())
    }

    pub(super) fn add_page(
        &mut self,
        method: Method,
        pattern: &str,
        function: A,
    ) -> Result<(), RouteError> {
        check(pattern)?;
        if let Some(page) = self.pages.iter_mut().find(|page| *page.pattern == *pattern) {
            if page.methods.iter().any(|(other, _)| *other == method) {
                return Err(RouteError::Duplicate { pattern: pattern.to_string(), method });
            }
            page.methods.push((method, function));
            return Ok(());
        }
        let pattern: Arc<str> = pattern.into();
        let inserted = self.page_tree.insert(&*pattern, self.pages.len());
        inserted.map_err(|error| RouteError::new(&pattern, error))?;
        self.pages.push(Page { pattern, methods: vec![(method, function)] });
        Ok(())
    }

    /// The patterns of the routes, and then of the pages.
    pub(super) fn patterns(&self) -> Vec<&str> {
        let routes = self.routes.iter().map(|route| &*route.pattern);
        routes.chain(self.pages.iter().map(|page| &*page.pattern)).collect()
    }

    /// The factory of the route that the path matches.
    pub(super) fn route(&self, request: &Request) -> Result<(&M, MatchedRoute), Rejection> {
        let path = upper_case_digits(request.uri().path());
        let found = self.route_tree.at(&path).map_err(|_| Rejection::NotFound)?;
        let route = self.routes.get(*found.value).ok_or(Rejection::NotFound)?;
        Ok((&route.make, matched(&route.pattern, &found)?))
    }

    /// The function that answers a plain request; `None` if its path has no page.
    pub(super) fn page(&self, request: &Request) -> Result<Option<(&A, MatchedRoute)>, Rejection> {
        let path = upper_case_digits(request.uri().path());
        let Ok(found) = self.page_tree.at(&path) else { return Ok(None) };
        let Some(page) = self.pages.get(*found.value) else { return Ok(None) };
        let function = page.function_for(request.method());
        let function = function.ok_or_else(|| Rejection::Method(page.allowed()))?;
        Ok(Some((function, matched(&page.pattern, &found)?)))
    }
}

impl<A> Page<A> {
    /// The function for a method; for HEAD, that for GET if there is no other.
    fn function_for(&self, method: &Method) -> Option<&A> {
        let of = |wanted: &Method| self.methods.iter().find(|(method, _)| method == wanted);
        let found = of(method).or_else(|| of(&Method::GET).filter(|_| *method == Method::HEAD));
        found.map(|(_, function)| function)
    }

    /// The methods, as in the field `Allow`.
    fn allowed(&self) -> String {
        let mut allowed: Vec<&str> =
            self.methods.iter().map(|(method, _)| method.as_str()).collect();
        if allowed.contains(&"GET") && !allowed.contains(&"HEAD") {
            allowed.push("HEAD");
        }
        allowed.join(", ")
    }
}

/// Why the router answers a request itself.
pub(super) enum Rejection {
    /// The path matches nothing.
    NotFound,
    /// The page has only these methods.
    Method(String),
    /// The value of this parameter is not UTF-8.
    NotUtf8(String),
}

impl From<Rejection> for Answer {
    fn from(rejection: Rejection) -> Self {
        let allowed = match rejection {
            Rejection::NotFound => {
                return Self::status(StatusCode::NOT_FOUND, "there is nothing at this path");
            }
            Rejection::NotUtf8(name) => {
                let text = format!("the path parameter {name} is not UTF-8");
                return Self::status(StatusCode::BAD_REQUEST, &text);
            }
            Rejection::Method(allowed) => allowed,
        };
        let text = format!("method not allowed; allowed: {allowed}");
        let mut answer = Self::status(StatusCode::METHOD_NOT_ALLOWED, &text);
        // RFC 9110 §15.5.6 requires the field. The names of methods are valid in it.
        if let (Self::Respond(response), Ok(allowed)) =
            (&mut answer, HeaderValue::from_str(&allowed))
        {
            response.headers_mut().insert(header::ALLOW, allowed);
        }
        answer
    }
}

/// The route that was found, with decoded parameters.
fn matched(pattern: &Arc<str>, found: &Match<'_, '_, &usize>) -> Result<MatchedRoute, Rejection> {
    let mut params = Vec::with_capacity(found.params.len());
    for (name, value) in found.params.iter() {
        let value = percent_decode_str(value).decode_utf8();
        let value = value.map_err(|_| Rejection::NotUtf8(name.to_string()))?;
        params.push((name.to_string(), value.into_owned()));
    }
    Ok(MatchedRoute { pattern: pattern.clone(), params })
}
