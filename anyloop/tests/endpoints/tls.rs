//! TLS over another transport: the test is the other end of TLS as well.

use std::sync::LazyLock;

use anyloop::endpoint::HandlerFactory;
use anyloop::prelude::*;
use anyloop::proto::handshake::{RequestError, Target};
use anyloop::proto::{Instant, Shutdown};
use anyloop::tls::{ClientTls, ServerTls, rustls};
use anyloop_testkit::tls::{Authority, Far, Identity, client_config, server_config};

use crate::transports::{ByHand, ByHandEnd, Clock, End, TestTransport};

/// The certificate of both servers: that under test, and that of the test.
pub(crate) static IDENTITY: LazyLock<Identity> =
    LazyLock::new(|| Authority::shared().issue(&["localhost", "127.0.0.1"]));

pub(crate) static SERVER: LazyLock<ServerTls> = LazyLock::new(|| {
    ServerTls::from_pem(IDENTITY.certificate.as_str(), IDENTITY.key.as_str()).unwrap()
});

pub(crate) static CLIENT: LazyLock<ClientTls> = LazyLock::new(|| {
    ClientTls::builder().ca_pem(Authority::shared().pem()).only_these_cas().build().unwrap()
});

/// The other end of a server.
pub(crate) fn far_client() -> Far {
    Far::client(client_config(Authority::shared(), None, rustls::ALL_VERSIONS))
}

/// The other end of a client.
pub(crate) fn far_server() -> Far {
    Far::server(server_config(&IDENTITY, None))
}

/// TLS over another transport.
pub(crate) struct OverTls<C>(C);

/// A transport under TLS.
pub(crate) trait TlsTransport: TestTransport {
    type TlsEnd<H: Handler>: End<H>;

    fn tls_client_config(config: ClientConfig) -> ClientConfig {
        config
    }

    fn tls_server<F: HandlerFactory + 'static>(
        server: &Self::Server<F>,
        clock: &Clock,
    ) -> Self::TlsEnd<F::Handler>;

    fn tls_client<F: HandlerFactory + 'static>(
        client: &Self::Client<F>,
        target: &Target,
        clock: &Clock,
    ) -> Result<Self::TlsEnd<F::Handler>, RequestError>;
}

impl TlsTransport for ByHand {
    type TlsEnd<H: Handler> = ByHandEnd<H>;

    fn tls_server<F: HandlerFactory + 'static>(
        server: &Self::Server<F>,
        _: &Clock,
    ) -> ByHandEnd<F::Handler> {
        ByHandEnd::new(server.over_tls(&SERVER).connection().unwrap())
    }

    fn tls_client<F: HandlerFactory + 'static>(
        client: &Self::Client<F>,
        target: &Target,
        _: &Clock,
    ) -> Result<ByHandEnd<F::Handler>, RequestError> {
        use anyloop::endpoint::OverTlsError;

        match client.over_tls(&CLIENT).connection(target) {
            Ok(connection) => Ok(ByHandEnd::new(connection)),
            Err(OverTlsError::Request(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }
}

#[cfg(feature = "net")]
impl TlsTransport for crate::net::Tcp {
    type TlsEnd<H: Handler> = Self::End<H>;

    fn tls_client_config(config: ClientConfig) -> ClientConfig {
        config.tls(CLIENT.clone())
    }

    fn tls_server<F: HandlerFactory + 'static>(
        server: &Self::Server<F>,
        _: &Clock,
    ) -> Self::End<F::Handler> {
        if !server.is_listening() {
            server.over_tls(&SERVER).listen("127.0.0.1:0").unwrap();
            server.start_accept().unwrap();
        }
        Self::accept(server)
    }

    fn tls_client<F: HandlerFactory + 'static>(
        client: &Self::Client<F>,
        target: &Target,
        clock: &Clock,
    ) -> Result<Self::End<F::Handler>, RequestError> {
        let secure = target.to_string().replacen("ws:", "wss:", 1);
        Self::client(client, &secure.parse().unwrap(), clock)
    }
}

pub(crate) struct TlsEnd<E> {
    end: E,
    far: Far,
    /// Records that were not taken yet.
    pending: Vec<u8>,
    /// Our close_notify was sent, so nothing can be sealed.
    closed: bool,
    /// What has left, opened.
    output: Vec<u8>,
}

impl<E> TlsEnd<E> {
    fn new(end: E, far: Far) -> Self {
        Self { end, far, pending: Vec::new(), closed: false, output: Vec::new() }
    }

    fn feed_records<H: Handler>(&mut self, records: &[u8])
    where
        E: End<H>,
    {
        self.pending.extend_from_slice(records);
        let pending = std::mem::take(&mut self.pending); // not again after a panic
        let taken = self.end.feed(&pending);
        self.pending = pending[taken..].to_vec();
    }

    fn shake_hands<H: Handler>(&mut self)
    where
        E: End<H>,
    {
        loop {
            let output = self.end.take_output();
            let (plain, _) = self.far.receive(&output).unwrap();
            self.output.extend(plain);
            let records = self.far.send(&[]);
            if records.is_empty() && output.is_empty() {
                return;
            }
            self.feed_records(&records);
        }
    }
}

impl<C: TlsTransport> TestTransport for OverTls<C> {
    type Server<F: HandlerFactory + 'static> = C::Server<F>;
    type Client<F: HandlerFactory + 'static> = C::Client<F>;
    type End<H: Handler> = TlsEnd<C::TlsEnd<H>>;

    const REAL_TIME: bool = C::REAL_TIME;
    const BATCHES: bool = C::BATCHES;

    /// Records are taken, whatever becomes of their content.
    fn assert_taken(_: usize, _: usize) {}

    fn new_server<F: HandlerFactory + 'static>(
        config: ServerConfig,
        factory: F,
        clock: &Clock,
    ) -> Self::Server<F> {
        C::new_server(config, factory, clock)
    }

    fn new_client<F: HandlerFactory + 'static>(
        config: ClientConfig,
        factory: F,
        clock: &Clock,
    ) -> Self::Client<F> {
        C::new_client(C::tls_client_config(config), factory, clock)
    }

    fn server<F: HandlerFactory + 'static>(
        server: &Self::Server<F>,
        clock: &Clock,
    ) -> TlsEnd<C::TlsEnd<F::Handler>> {
        let mut end = TlsEnd::new(C::tls_server(server, clock), far_client());
        end.shake_hands();
        end
    }

    fn client<F: HandlerFactory + 'static>(
        client: &Self::Client<F>,
        target: &Target,
        clock: &Clock,
    ) -> Result<TlsEnd<C::TlsEnd<F::Handler>>, RequestError> {
        Ok(TlsEnd::new(C::tls_client(client, target, clock)?, far_server()))
    }
}

impl<H: Handler, E: End<H>> End<H> for TlsEnd<E> {
    fn start(&mut self) {
        self.end.start();
        self.shake_hands();
    }

    fn feed(&mut self, bytes: &[u8]) -> usize {
        let records = if self.closed { Vec::new() } else { self.far.send(bytes) };
        self.feed_records(&records);
        bytes.len()
    }

    fn eof(&mut self) {
        self.closed = true;
        let records = self.far.close();
        self.feed_records(&records);
        self.end.eof();
    }

    fn reset(&mut self) {
        self.end.reset();
    }

    fn take_output(&mut self) -> Vec<u8> {
        let records = self.end.take_output();
        let (plain, _) = self.far.receive(&records).unwrap();
        self.output.extend(plain);
        std::mem::take(&mut self.output)
    }

    fn writes(&self) -> usize {
        self.end.writes()
    }

    fn block(&mut self) {
        self.end.block();
    }

    fn give_room(&mut self, bytes: usize) {
        self.end.give_room(bytes);
    }

    fn fail_write(&mut self) {
        self.end.fail_write();
    }

    fn shutdowns(&self) -> Vec<Shutdown> {
        self.end.shutdowns()
    }

    fn assert_shut_down(&self, expected: &[Shutdown]) {
        self.end.assert_shut_down(expected);
    }

    fn deadline(&self) -> Option<Instant> {
        self.end.deadline()
    }

    fn handle_timeout(&mut self) {
        self.end.handle_timeout();
    }

    fn is_woken(&self) -> bool {
        self.end.is_woken()
    }

    fn drain(&mut self) {
        self.end.drain();
    }

    fn handle(&mut self) -> Handle<H> {
        self.end.handle()
    }

    fn is_over(&self) -> bool {
        self.end.is_over()
    }
}
