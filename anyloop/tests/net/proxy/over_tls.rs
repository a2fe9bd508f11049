//! TLS to the server, to the proxy, and to both.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::{self, JoinHandle};

use anyloop::net::{ConnectError, Proxy, ProxyAnswerError};
use anyloop::prelude::*;
use anyloop::proto::{Cause, HandshakeError, Role, TransportError};
use anyloop::tls::rustls::ContentType;
use anyloop::tls::{ClientTls, ServerTls, TlsError};
use anyloop_testkit::frames::{close, text};
use anyloop_testkit::peer::{Peer, Stream, serve};
use anyloop_testkit::requests;
use anyloop_testkit::tls::{Authority, Far, server_config};
use anyloop_testkit::watchdog::watchdog;

use super::tunnels::greet;
use super::{ESTABLISHED, http_proxy, socks_proxy};
use crate::record::Log;
use crate::setup::{Running, chain, client_with, echo, greeting_with, recording_client_with};

/// The authority of the proxies. Servers have another one.
static PROXIES: LazyLock<Authority> = LazyLock::new(|| Authority::new("authority of proxies"));

fn trusting(authority: &Authority) -> ClientTls {
    ClientTls::builder().ca_pem(authority.pem()).only_these_cas().build().unwrap()
}

/// An echo with a certificate for `chat.example`, and the configuration of a client that trusts it.
fn tls_echo() -> (Running, ClientConfig) {
    let identity = Authority::shared().issue(&["chat.example"]);
    let tls = ServerTls::from_pem(identity.certificate, identity.key).unwrap();
    let mut server = echo();
    server.on_validate(|_, context| {
        assert_eq!(context.tls().unwrap().server_name(), Some("chat.example"));
        Accept::new()
    });
    server.over_tls(&tls).listen("127.0.0.1:0").unwrap();
    (Running::start(server), ClientConfig::new().tls(trusting(Authority::shared())))
}

/// A proxy's end of TLS, on a blocking socket.
struct ProxyEnd {
    far: Mutex<Far>,
    socket: TcpStream,
}

impl ProxyEnd {
    fn accept(peer: &Peer) -> Arc<Self> {
        let far = Far::server(server_config(&PROXIES.issue(&["localhost"]), None));
        let Stream::Tcp(socket) = &peer.stream else { panic!("a Unix socket") };
        Arc::new(Self { far: Mutex::new(far), socket: socket.try_clone().unwrap() })
    }

    /// Waits for bytes, and returns what they contain; `None` at the end of the stream, or of TLS.
    fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 16 * 1024];
        let n = (&self.socket).read(&mut bytes).ok().filter(|n| *n > 0)?;
        let mut far = self.far.lock().unwrap();
        let (plain, closed) = far.receive(&bytes[..n]).ok()?;
        let _ = (&self.socket).write_all(&far.send(&[])); // the client may have gone
        (!closed || !plain.is_empty()).then_some(plain)
    }

    fn read_head(&self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read().expect("a request"));
        }
        String::from_utf8(head).unwrap()
    }

    /// Reads a request, and frames up to the client's Close, whose mask is zero.
    fn read_up_to_close(&self) {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\x88\x82\0\0\0\0\x03\xe8") {
            bytes.extend(self.read().expect("a Close"));
        }
        assert!(bytes.starts_with(b"GET / HTTP/1.1\r\n"));
    }

    fn write(&self, bytes: &[u8]) {
        let mut far = self.far.lock().unwrap();
        let _ = (&self.socket).write_all(&far.send(bytes)); // the client may have gone
    }

    fn close_notify(&self) {
        let mut far = self.far.lock().unwrap();
        let _ = (&self.socket).write_all(&far.close());
    }

    fn finish(&self) {
        self.close_notify();
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Passes bytes on in both directions, until both have ended.
    fn relay(self: Arc<Self>, server: SocketAddr) {
        let server = TcpStream::connect(server).unwrap();
        let (far, mut from_server) = (self.clone(), server.try_clone().unwrap());
        let downwards = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = from_server.read(&mut bytes) {
                far.write(&bytes[..n]);
            }
            far.finish();
        });
        while let Some(bytes) = self.read() {
            let _ = (&server).write_all(&bytes); // it may have gone
        }
        let _ = server.shutdown(Shutdown::Write);
        downwards.join().unwrap();
    }
}

/// An HTTP proxy with a certificate for `localhost`. It returns the request.
fn https_proxy(server: SocketAddr) -> (Proxy, JoinHandle<String>) {
    let (address, thread) = serve(move |peer| {
        let far = ProxyEnd::accept(&peer);
        let head = far.read_head();
        far.write(ESTABLISHED.as_bytes());
        far.relay(server);
        head
    });
    (Proxy::https("localhost", address.port()).with_tls(trusting(&PROXIES)), thread)
}

#[test]
fn the_certificate_is_the_servers() {
    let _watchdog = watchdog();
    let (running, config) = tls_echo();
    let (proxy, seen) = http_proxy(running.address, ESTABLISHED);
    greet(config.proxy(proxy), "wss://chat.example/");
    assert!(seen.join().unwrap().starts_with("CONNECT chat.example:443 HTTP/1.1\r\n"));

    let (running, config) = tls_echo();
    let (address, seen) = socks_proxy(running.address);
    let proxy = Proxy::socks5h("127.0.0.1", address.port());
    greet(config.proxy(proxy), "wss://chat.example/");
    assert_eq!(seen.join().unwrap(), b"\x05\x01\x00\x03\x0cchat.example\x01\xbb");
}

#[test]
fn an_https_proxy_hides_only_the_way_to_itself() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let (proxy, seen) = https_proxy(running.address);
    let log = Log::default();
    let mut client = greeting_with(&log, ClientConfig::new().proxy(proxy));
    let logs = log.clone();
    client.on_open(move |context| {
        logs.push(format!("{} {}", context.tls().is_some(), context.is_secure()));
        context.send("hello").unwrap();
    });
    client.connect("ws://chat.example/").unwrap();
    client.run();
    assert_eq!(log.take(), ["false false", "text hello", "close clean by local: 1000/1000"]);
    assert!(seen.join().unwrap().starts_with("CONNECT chat.example:80 HTTP/1.1\r\n"));
}

#[test]
fn tls_to_the_server_goes_through_tls_to_the_proxy() {
    let _watchdog = watchdog();
    let (running, config) = tls_echo();
    let (proxy, seen) = https_proxy(running.address);
    let log = Log::default();
    let mut client = greeting_with(&log, config.proxy(proxy));
    let logs = log.clone();
    client.on_open(move |context| {
        let certificates = context.tls().unwrap().peer_certificates().map(<[_]>::len);
        logs.push(format!("{certificates:?} {}", context.is_secure()));
        context.send("hello").unwrap();
    });
    client.connect("wss://chat.example/").unwrap();
    client.run();
    assert_eq!(log.take(), ["Some(1) true", "text hello", "close clean by local: 1000/1000"]);
    assert!(seen.join().unwrap().starts_with("CONNECT chat.example:443 HTTP/1.1\r\n"));
}

/// Messages of every size around the limits of records and buffers, in both directions.
#[test]
fn large_messages_pass_both_layers() {
    let _watchdog = watchdog();
    const SIZES: [usize; 7] = [0, 1, 16_383, 16_384, 65_536, 200_000, 3_000_000];
    for secure in [false, true] {
        let (running, config) = match secure {
            true => tls_echo(),
            false => (Running::start(echo()), ClientConfig::new()),
        };
        let (proxy, seen) = https_proxy(running.address);
        let log = Log::default();
        let mut client = recording_client_with(&log, config.proxy(proxy));
        client.on_open(|context| {
            for size in SIZES {
                let message: Vec<_> = (0..size).map(|i| (i % 251) as u8).collect();
                context.send(message).unwrap();
            }
        });
        let logs = log.clone();
        client.on_message(move |message, context| {
            let bytes = message.as_bytes();
            assert!(bytes.iter().enumerate().all(|(i, byte)| *byte == (i % 251) as u8));
            logs.push(bytes.len().to_string());
            if bytes.len() == SIZES[SIZES.len() - 1] {
                context.close(CloseCode::NORMAL, "").unwrap();
            }
        });
        client.connect(if secure { "wss://chat.example/" } else { "ws://chat.example/" }).unwrap();
        client.run();
        let mut expected: Vec<_> = SIZES.iter().map(ToString::to_string).collect();
        expected.push("close clean by local: 1000/1000".to_string());
        assert_eq!(log.take(), expected);
        seen.join().unwrap();
    }
}

#[test]
fn bytes_behind_the_answer_are_the_servers() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|peer| {
        let far = ProxyEnd::accept(&peer);
        far.read_head();
        let first = text("early").bytes(Role::Server);
        far.write(&[ESTABLISHED.as_bytes(), requests::RESPONSE.as_bytes(), &first].concat());
        far.read_up_to_close();
        far.write(&close(1000, "").bytes(Role::Server));
        far.finish();
        while far.read().is_some() {}
    });
    let log = Log::default();
    let proxy = Proxy::https("localhost", address.port()).with_tls(trusting(&PROXIES));
    let config = ClientConfig::new().proxy(proxy).random(Arc::new(requests::Zeros));
    let client = greeting_with(&log, config);
    client.connect("ws://chat.example/").unwrap();
    client.run();
    assert_eq!(log.take(), ["text early", "close clean by local: 1000/1000"]);
    thread.join().unwrap();
}

/// Connects, and checks the error.
fn failure(config: ClientConfig, check: fn(&ConnectError) -> bool) {
    let mut client = client_with(config);
    let (sender, errors) = channel();
    client.on_fail(move |_, context| {
        let error = context.error().and_then(|error| error.downcast_ref::<ConnectError>());
        let error = error.expect("a ConnectError");
        sender.send((check(error), chain(error))).unwrap();
    });
    client.connect("wss://chat.example/").unwrap();
    client.run();
    let (is_expected, texts) = errors.try_recv().unwrap();
    assert!(is_expected, "{texts:?}");
}

#[test]
fn a_proxy_that_is_not_trusted_gets_nothing() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|peer| {
        let far = ProxyEnd::accept(&peer);
        let mut received = Vec::new();
        while let Some(bytes) = far.read() {
            received.extend(bytes);
        }
        received
    });
    // What servers are trusted by does not count.
    let proxy = Proxy::https("localhost", address.port()).with_tls(trusting(Authority::shared()));
    let config = ClientConfig::new().tls(trusting(&PROXIES)).proxy(proxy);
    failure(config, |error| {
        matches!(error, ConnectError::ProxyTls { source: TlsError::ServerCertificate(_), .. })
    });
    assert!(thread.join().unwrap().is_empty());
}

#[test]
fn a_proxy_on_a_plain_port_is_told_apart() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|peer| {
        peer.write_last("HTTP/1.1 400 Bad Request\r\n\r\n");
        { peer }.read_to_end();
    });
    let proxy = Proxy::https("localhost", address.port()).with_tls(trusting(&PROXIES));
    failure(ClientConfig::new().tls(trusting(Authority::shared())).proxy(proxy), |error| {
        matches!(error, ConnectError::ProxyAnswer { source: ProxyAnswerError::NotTls, .. })
    });
    thread.join().unwrap();
}

/// Records without content are no part of an answer, so no limit of the answer ends them.
#[test]
fn a_proxy_that_sends_records_without_end_is_an_error() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| {
        let mut config = Arc::unwrap_or_clone(server_config(&PROXIES.issue(&["localhost"]), None));
        config.enable_secret_extraction = true;
        let mut far = Far::server(config.into());
        let mut bytes = [0; 4096];
        while far.is_handshaking() {
            let n = peer.stream.read(&mut bytes).unwrap();
            far.receive(&bytes[..n]).unwrap();
            peer.write(far.send(&[]));
        }
        let mut raw = far.into_raw();
        // RFC 8446 §4.6.1: a NewSessionTicket.
        let ticket = [4, 0, 0, 14, 0, 0, 28, 32, 0, 0, 0, 0, 0, 0, 1, b't', 0, 0];
        while peer.stream.write_all(&raw.seal(ContentType::Handshake, &ticket)).is_ok() {}
    });
    let proxy = Proxy::https("localhost", address.port()).with_tls(trusting(&PROXIES));
    let config = ClientConfig::new().connect_timeout(None).proxy(proxy);
    failure(config.tls(trusting(Authority::shared())), |error| {
        let too_big = ProxyAnswerError::Http(HandshakeError::HeadTooBig);
        matches!(error, ConnectError::ProxyAnswer { source, .. } if *source == too_big)
    });
    thread.join().unwrap();
}

/// It keeps the socket open.
#[test]
fn a_proxy_that_ends_its_tls_has_closed() {
    let _watchdog = watchdog();
    let close = |answer: &'static str, check: fn(&ConnectError) -> bool| {
        let (address, thread) = serve(move |peer| {
            let far = ProxyEnd::accept(&peer);
            far.read_head();
            far.write(answer.as_bytes());
            far.close_notify();
            while far.read().is_some() {}
        });
        let proxy = Proxy::https("localhost", address.port()).with_tls(trusting(&PROXIES));
        let config = ClientConfig::new().connect_timeout(None).proxy(proxy);
        failure(config.tls(trusting(Authority::shared())), check);
        thread.join().unwrap();
    };
    close("HTTP/1.1 200 OK\r\n", |error| {
        matches!(
            error,
            ConnectError::ProxyClosed { source, .. } if source.kind() == ErrorKind::UnexpectedEof
        )
    });
    close(
        "HTTP/1.1 403 Forbidden\r\n\r\nnot you",
        |error| matches!(error, ConnectError::ProxyRefused { body, .. } if body == b"not you"),
    );
}

/// Its certificate is for the address alone.
#[test]
fn the_address_of_a_proxy_may_have_a_zone() {
    let _watchdog = watchdog();
    for proxy in ["https://[fe80::1%25here]:3128", "https://[fe80::1%25here]"] {
        let proxy = Proxy::parse(proxy).unwrap().with_tls(trusting(&PROXIES));
        let mut client = client_with(ClientConfig::new().proxy(proxy));
        client.set_look_up(|host, _| {
            assert_eq!(host, "fe80::1%here");
            Err(ErrorKind::NotFound.into())
        });
        client.on_fail(|failure, _| {
            assert_eq!(failure.cause(), Cause::Transport(TransportError::NotFound));
        });
        client.connect("ws://chat.example/").unwrap();
        assert_eq!(client.run(), 1);
    }
}

/// The proxy ends its TLS cleanly, but the server has not: something may be missing.
#[test]
fn a_stream_that_is_cut_behind_the_proxy_is_an_error() {
    let _watchdog = watchdog();
    let (running, config) = tls_echo();
    let server = running.address;
    let (address, thread) = serve(move |peer| {
        let far = ProxyEnd::accept(&peer);
        far.read_head();
        far.write(ESTABLISHED.as_bytes());
        let server = TcpStream::connect(server).unwrap();
        let (up, mut down) = (far.clone(), server.try_clone().unwrap());
        let upwards = thread::spawn(move || {
            // Until the client has sent its message, whose record has more than 4000 bytes.
            while let Some(bytes) = up.read().filter(|bytes| bytes.len() < 4000) {
                (&server).write_all(&bytes).unwrap();
            }
            up.finish();
            while up.read().is_some() {}
            let _ = server.shutdown(Shutdown::Both);
        });
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = down.read(&mut bytes) {
            far.write(&bytes[..n]);
        }
        upwards.join().unwrap();
    });
    let proxy = Proxy::https("localhost", address.port()).with_tls(trusting(&PROXIES));
    let log = Log::default();
    let mut client = recording_client_with(&log, config.proxy(proxy));
    client.on_open(|context| _ = context.send("x".repeat(5000)).unwrap());
    let logs = log.clone();
    client.on_close(move |_, context| {
        let error = context.error().and_then(|error| error.downcast_ref::<TlsError>());
        logs.push(format!("{}", matches!(error, Some(TlsError::Truncated))));
    });
    client.connect("wss://chat.example/").unwrap();
    client.run();
    assert_eq!(log.take(), ["true"]);
    thread.join().unwrap();
}
