//! Which loops can serve which handlers.

use super::acceptor::Acceptor;
use super::carries::Carries;
use super::connecting::Connecting;
use crate::endpoint::HandlerFactory;
use crate::event_loop::{Kind, Local, Threads};

/// Loops of this kind can serve connections whose handlers come from `F`.
///
/// [`Local`] ones can serve any. [`Threads`] can serve those that are [`Send`], made by factories that
/// are [`Send`] and [`Sync`].
#[diagnostic::on_unimplemented(
    message = "a loop that threads share cannot serve handlers that are not `Send`",
    note = "`net::LocalServer`, `net::LocalClient` and `LocalEventLoop` can"
)]
pub trait Serves<F: HandlerFactory>: Kind + Admits<F> {}

impl<F: HandlerFactory, K: Kind + Admits<F>> Serves<F> for K {}

/// How what makes connections is put into a loop of this kind.
#[expect(unnameable_types, reason = "there are no other kinds")]
pub trait Admits<F: HandlerFactory>: Carries<F::Handler> {
    fn acceptor(acceptor: Acceptor<F>) -> Box<Self::Source>;
    fn connecting(connecting: Connecting<F>) -> Box<Self::Source>;
}

impl<F: HandlerFactory<Handler: Send> + Send + Sync + 'static> Admits<F> for Threads {
    fn acceptor(acceptor: Acceptor<F>) -> Box<Self::Source> {
        Box::new(acceptor)
    }

    fn connecting(connecting: Connecting<F>) -> Box<Self::Source> {
        Box::new(connecting)
    }
}

impl<F: HandlerFactory + 'static> Admits<F> for Local {
    fn acceptor(acceptor: Acceptor<F>) -> Box<Self::Source> {
        Box::new(acceptor)
    }

    fn connecting(connecting: Connecting<F>) -> Box<Self::Source> {
        Box::new(connecting)
    }
}
