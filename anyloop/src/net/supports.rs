//! Which kinds of loops can serve which handlers.

use super::acceptor::Acceptor;
use super::connecting::Connecting;
use super::serves_connections::ServesConnections;
use crate::endpoint::HandlerFactory;
use crate::event_loop::{Kind, Local, Threads};

/// Loops of this kind can serve connections whose handlers come from `F`.
///
/// [`Local`] loops can serve any handlers. [`Threads`] loops can serve handlers that are [`Send`], from factories that
/// are [`Send`] and [`Sync`].
#[diagnostic::on_unimplemented(
    message = "a loop that threads share cannot serve handlers that are not `Send`",
    note = "`net::LocalServer`, `net::LocalClient` and `LocalEventLoop` can"
)]
pub trait Supports<F: HandlerFactory>: Kind + MakeSources<F> {}

impl<F: HandlerFactory, K: Kind + MakeSources<F>> Supports<F> for K {}

/// A kind of loop that can run `Acceptor`s and `Connecting`s with handlers from `F`: makes their sources.
#[expect(unnameable_types, reason = "there are no other kinds")]
pub trait MakeSources<F: HandlerFactory>: ServesConnections<F::Handler> {
    fn acceptor(acceptor: Acceptor<F>) -> Box<Self::DynSource>;
    fn connecting(connecting: Connecting<F>) -> Box<Self::DynSource>;
}

impl<F: HandlerFactory<Handler: Send> + Send + Sync + 'static> MakeSources<F> for Threads {
    fn acceptor(acceptor: Acceptor<F>) -> Box<Self::DynSource> {
        Box::new(acceptor)
    }

    fn connecting(connecting: Connecting<F>) -> Box<Self::DynSource> {
        Box::new(connecting)
    }
}

impl<F: HandlerFactory + 'static> MakeSources<F> for Local {
    fn acceptor(acceptor: Acceptor<F>) -> Box<Self::DynSource> {
        Box::new(acceptor)
    }

    fn connecting(connecting: Connecting<F>) -> Box<Self::DynSource> {
        Box::new(connecting)
    }
}
