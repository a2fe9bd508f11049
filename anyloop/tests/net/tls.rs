//! TLS. The certificates are issued by an authority of the test kit, and the other end is rustls in the test's hands
//! ([`peer`]), or this crate.

mod configuring;
mod peer;
mod traffic;
mod verifying;
mod wire;

use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};

use anyloop::endpoint::HandlerFactory;
use anyloop::net::{Client, Server};
use anyloop::prelude::*;
use anyloop::proto::Cause;
use anyloop::tls::{ClientTls, ServerTls, TlsError};
use anyloop_testkit::tls::{Authority, Identity};
use anyloop_testkit::wait::PATIENCE;

use crate::setup::{Running, chain, client_with};

/// The certificate of the servers.
static IDENTITY: LazyLock<Identity> =
    LazyLock::new(|| Authority::shared().issue(&["localhost", "127.0.0.1"]));

fn server_tls() -> ServerTls {
    tls_of(&IDENTITY)
}

fn tls_of(identity: &Identity) -> ServerTls {
    ServerTls::from_pem(identity.certificate.as_str(), identity.key.as_str()).unwrap()
}

/// What trusts the authority of the tests, and nobody else.
fn client_tls() -> ClientTls {
    trusting(Authority::shared())
}

fn trusting(authority: &Authority) -> ClientTls {
    ClientTls::builder().ca_pem(authority.pem()).only_these_cas().build().unwrap()
}

/// A client that trusts the authority of the tests.
fn tls_client() -> Client {
    client_with(ClientConfig::new().tls(client_tls()))
}

/// Runs a server that listens with TLS.
fn start<F>(server: Server<F>, tls: &ServerTls) -> Running<F>
where
    F: HandlerFactory<Handler: Send> + Send + Sync + 'static,
{
    server.over_tls(tls).listen("127.0.0.1:0").unwrap();
    Running::start(server)
}

fn tls_url(running: &Running, host: &str) -> String {
    format!("wss://{host}:{}/chat", running.address.port())
}

/// How a connection has failed or closed: its cause, the error of TLS, and its text.
#[derive(Debug)]
struct Outcome {
    cause: Option<Cause>,
    error: Option<String>,
    kind: Option<Kind>,
}

/// The error of TLS, without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Alert,
    ClientCertificate,
    ClientNotTls,
    Cut,
    NoClientCertificate,
    NotTls,
    PlainHttp,
    Protocol,
    ServerCertificate,
    Truncated,
    Other,
}

impl Kind {
    const fn of(error: &TlsError) -> Self {
        match error {
            TlsError::Alert(_) => Self::Alert,
            TlsError::ClientCertificate(_) => Self::ClientCertificate,
            TlsError::ClientNotTls => Self::ClientNotTls,
            TlsError::Cut => Self::Cut,
            TlsError::NoClientCertificate => Self::NoClientCertificate,
            TlsError::NotTls => Self::NotTls,
            TlsError::PlainHttp => Self::PlainHttp,
            TlsError::Protocol(_) => Self::Protocol,
            TlsError::ServerCertificate(_) => Self::ServerCertificate,
            TlsError::Truncated => Self::Truncated,
            _ => Self::Other,
        }
    }
}

/// The outcomes of an endpoint's connections, in order.
struct Outcomes(Receiver<Outcome>);

impl Outcomes {
    fn next(&self) -> Outcome {
        self.0.recv_timeout(PATIENCE).expect("a connection ends")
    }
}

/// Reports how the connections of an endpoint end.
macro_rules! outcomes {
    ($endpoint:expr) => {{
        let (sender, receiver) = channel();
        let outcome = |cause, context: &mut Context<'_, Handlers>| {
            let error = context.error();
            let kind = error.and_then(|error| error.downcast_ref()).map(Kind::of);
            Outcome { cause, error: error.map(|error| chain(error)[0].clone()), kind }
        };
        let failed = sender.clone();
        $endpoint.on_fail(move |failure, context| {
            failed.send(outcome(Some(failure.cause()), context)).unwrap();
        });
        $endpoint.on_close(move |ending, context| {
            let cause = ending.failure.map(|failure| failure.cause());
            sender.send(outcome(cause, context)).unwrap();
        });
        Outcomes(receiver)
    }};
}

fn server_outcomes(server: &mut Server) -> Outcomes {
    outcomes!(server)
}

fn client_outcomes(client: &mut Client) -> Outcomes {
    outcomes!(client)
}
