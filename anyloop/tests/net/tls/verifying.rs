//! Who is trusted: certificates of servers, and of clients.

use std::sync::mpsc::channel;

use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop::proto::{Cause, TransportError};
use anyloop::tls::{ClientTls, ServerTls};
use anyloop_testkit::tls::{Authority, Identity, Validity, self_signed};
use anyloop_testkit::watchdog::watchdog;

use super::{
    IDENTITY, Kind, Outcome, client_outcomes, client_tls, server_outcomes, start, tls_client,
    tls_of, tls_url,
};
use crate::setup::{client_with, echo, server};

const TLS_FAILED: Option<Cause> = Some(Cause::Transport(TransportError::Tls));

/// Connects to `host` with a client that trusts the authority of the tests. Returns the outcomes of the client and of
/// the server, which has this certificate.
fn refused(identity: &Identity, host: &str) -> (Outcome, Outcome) {
    refused_by(client_tls(), identity, host)
}

fn refused_by(tls: ClientTls, identity: &Identity, host: &str) -> (Outcome, Outcome) {
    let _watchdog = watchdog();
    let mut server = server();
    let at_server = server_outcomes(&mut server);
    let running = start(server, &tls_of(identity));
    let mut client = client_with(ClientConfig::new().tls(tls));
    let at_client = client_outcomes(&mut client);
    client
        .request(tls_url(&running, host).as_str())
        .unwrap()
        .to_addresses([running.address])
        .connect()
        .unwrap();
    client.run();
    (at_client.next(), at_server.next())
}

/// Asserts that the client has refused the certificate for this reason, and that the server has learnt it.
#[track_caller]
fn assert_refused((at_client, at_server): (Outcome, Outcome), reason: &str, advice: &str) {
    assert_eq!((at_client.cause, at_client.kind), (TLS_FAILED, Some(Kind::ServerCertificate)));
    let error = at_client.error.unwrap();
    assert!(error.contains(reason) && error.contains(advice), "{error}");
    assert_eq!((at_server.cause, at_server.kind), (TLS_FAILED, Some(Kind::Alert)), "{at_server:?}");
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let identity = Authority::shared().issue(&["other.example"]);
    let outcomes = refused(&identity, "chat.example");
    let why = "refused: it is valid for other.example, not for chat.example";
    assert_refused(outcomes, why, "connect by a name that it has");
}

#[test]
fn a_certificate_for_another_address_is_refused() {
    let identity = Authority::shared().issue(&["localhost", "127.0.0.2"]);
    let outcomes = refused(&identity, "127.0.0.1");
    let why = "refused: it is valid for localhost, 127.0.0.2, not for 127.0.0.1";
    assert_refused(outcomes, why, "connect by a name that it has");
}

#[test]
fn an_expired_certificate_is_refused() {
    let identity = Authority::shared().issue_with(&["localhost"], Validity::Expired);
    assert_refused(refused(&identity, "localhost"), "expired", "renew it");
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_refused() {
    let identity = Authority::shared().issue_with(&["localhost"], Validity::NotYet);
    assert_refused(refused(&identity, "localhost"), "not valid yet", "clock");
}

#[test]
fn a_self_signed_certificate_is_refused() {
    let outcomes = refused(&self_signed(&["localhost"]), "localhost");
    assert_refused(outcomes, "self-signed", "add it as an authority");
}

/// `openssl req -x509` makes such certificates.
#[test]
fn the_certificate_of_an_authority_is_refused() {
    let outcomes = refused(&Authority::shared().identity(), "localhost");
    assert_refused(outcomes, "CaUsedAsEndEntity", "basicConstraints CA:FALSE");
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    let identity = Authority::new("nobody").issue(&["localhost"]);
    let outcomes = refused(&identity, "localhost");
    assert_refused(outcomes, "UnknownIssuer", "add the certificate of that authority");
}

/// What is trusted by default is not the authority of the tests.
#[test]
fn the_default_roots_are_used() {
    let tls = ClientTls::builder().build();
    let Ok(tls) = tls else {
        println!("skipped: this machine has no roots");
        return;
    };
    let outcomes = refused_by(tls, &IDENTITY, "localhost");
    assert_refused(outcomes, "UnknownIssuer", "add the certificate of that authority");
}

/// Connects, and returns whether the connection has opened.
fn opens(tls: ClientTls, server_tls: &ServerTls, host: &str) -> bool {
    let _watchdog = watchdog();
    let running = start(echo(), server_tls);
    let mut client = client_with(ClientConfig::new().tls(tls));
    let (sender, opened) = channel();
    client.on_open(move |context| {
        sender.send(()).unwrap();
        let _ = context.close(CloseCode::NORMAL, "");
    });
    client
        .request(tls_url(&running, host).as_str())
        .unwrap()
        .to_addresses([running.address])
        .connect()
        .unwrap();
    client.run();
    opened.try_recv().is_ok()
}

#[test]
fn a_self_signed_certificate_is_trusted_if_it_was_added() {
    let identity = self_signed(&["localhost"]);
    let tls = ClientTls::builder().ca_pem(identity.certificate.as_str()).only_these_cas().build();
    assert!(opens(tls.unwrap(), &tls_of(&identity), "localhost"));
}

#[test]
fn any_certificate_is_accepted_if_that_was_asked_for() {
    let tls = ClientTls::builder().danger_accept_any_certificate().build().unwrap();
    let identity = Authority::new("nobody").issue_with(&["other.example"], Validity::Expired);
    assert!(opens(tls, &tls_of(&identity), "localhost"));
}

/// The host is verified whatever it is: a name in any case, with a final dot, or an address.
#[test]
fn names_and_addresses_are_verified() {
    let identity =
        Authority::shared().issue(&["chat.example", "*.games.example", "127.0.0.1", "::1"]);
    let tls = tls_of(&identity);
    for host in ["chat.example", "CHAT.example", "a.games.example", "127.0.0.1", "[::1]"] {
        assert!(opens(client_tls(), &tls, host), "{host}");
    }
    for host in ["games.example", "a.b.games.example", "127.0.0.3", "[::2]"] {
        assert!(!opens(client_tls(), &tls, host), "{host}");
    }
}

/// RFC 6066 §3: names are asked for, addresses are not. Certificates are chosen by them.
#[test]
fn the_certificate_is_chosen_by_the_name() {
    let _watchdog = watchdog();
    let authority = Authority::shared();
    let (first, second) =
        (authority.issue(&["a.example", "127.0.0.1"]), authority.issue(&["b.example"]));
    let wild = authority.issue(&["*.c.example"]);
    let tls = ServerTls::builder()
        .certificate_pem(first.certificate.as_str(), first.key.as_str())
        .certificate_pem_for("B.example", second.certificate.as_str(), second.key.as_str())
        .certificate_pem_for("*.c.example", wild.certificate.as_str(), wild.key.as_str())
        .build()
        .unwrap();
    let (sender, names) = channel();
    let mut server = server();
    server.on_open(move |context| {
        let name = context.tls().unwrap().server_name().map(ToString::to_string);
        sender.send(name).unwrap();
        let _ = context.close(CloseCode::NORMAL, "");
    });
    let running = start(server, &tls);
    let expected = [
        ("a.example", Some("a.example")),
        ("b.example", Some("b.example")),
        ("x.c.example", Some("x.c.example")),
        ("127.0.0.1", None),
    ];
    for (host, name) in expected {
        let client = tls_client();
        let request = client.request(tls_url(&running, host).as_str()).unwrap();
        request.to_addresses([running.address]).connect().unwrap();
        client.run();
        assert_eq!(names.try_recv().unwrap().as_deref(), name, "{host}");
    }
}

/// A server that requires certificates of clients, and its outcomes; `true` in the list: it has got one.
fn asking(optional: bool) -> (Server, ServerTls) {
    let tls = ServerTls::builder()
        .certificate_pem(IDENTITY.certificate.as_str(), IDENTITY.key.as_str())
        .client_ca_pem(Authority::shared().pem())
        .client_certificates_optional(optional)
        .build()
        .unwrap();
    (server(), tls)
}

fn presenting(identity: &Identity) -> ClientTls {
    ClientTls::builder()
        .ca_pem(Authority::shared().pem())
        .only_these_cas()
        .certificate_pem(identity.certificate.as_str(), identity.key.as_str())
        .build()
        .unwrap()
}

#[test]
fn a_certificate_of_a_client_is_verified_and_can_be_asked_for() {
    let _watchdog = watchdog();
    let (mut server, tls) = asking(false);
    let (sender, certificates) = channel();
    server.on_open(move |context| {
        let certificates = context.tls().unwrap().peer_certificates().map(<[_]>::to_vec);
        sender.send(certificates.unwrap()).unwrap();
        let _ = context.close(CloseCode::NORMAL, "");
    });
    let running = start(server, &tls);
    let identity = Authority::shared().issue(&["staff.example"]);
    let client = client_with(ClientConfig::new().tls(presenting(&identity)));
    client.connect(tls_url(&running, "localhost").as_str()).unwrap();
    client.run();
    let certificates = certificates.try_recv().unwrap();
    assert_eq!(certificates.len(), 1);
    let pem = anyloop_testkit::tls::der(&identity);
    assert_eq!(certificates[0], pem);
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let _watchdog = watchdog();
    let (mut server, tls) = asking(false);
    let at_server = server_outcomes(&mut server);
    let running = start(server, &tls);
    let mut client = tls_client();
    let at_client = client_outcomes(&mut client);
    client.connect(tls_url(&running, "localhost").as_str()).unwrap();
    client.run();
    let (at_client, at_server) = (at_client.next(), at_server.next());
    assert_eq!((at_server.cause, at_server.kind), (TLS_FAILED, Some(Kind::NoClientCertificate)));
    assert_eq!((at_client.cause, at_client.kind), (TLS_FAILED, Some(Kind::Alert)), "{at_client:?}");
    let error = at_client.error.unwrap();
    assert!(error.contains("it requires a client certificate"), "{error}");
}

#[test]
fn a_client_with_a_certificate_of_another_authority_is_refused() {
    let _watchdog = watchdog();
    let (mut server, tls) = asking(true);
    let at_server = server_outcomes(&mut server);
    let running = start(server, &tls);
    let identity = Authority::new("nobody").issue(&["staff.example"]);
    let mut client = client_with(ClientConfig::new().tls(presenting(&identity)));
    let at_client = client_outcomes(&mut client);
    client.connect(tls_url(&running, "localhost").as_str()).unwrap();
    client.run();
    assert_eq!(at_server.next().kind, Some(Kind::ClientCertificate));
    let at_client = at_client.next();
    assert_eq!(at_client.kind, Some(Kind::Alert), "{at_client:?}");
    let error = at_client.error.unwrap();
    assert!(error.contains("our certificate"), "{error}");
}

#[test]
fn certificates_of_clients_can_be_optional() {
    let _watchdog = watchdog();
    let (mut server, tls) = asking(true);
    let (sender, presented) = channel();
    server.on_open(move |context| {
        sender.send(context.tls().unwrap().peer_certificates().is_some()).unwrap();
        let _ = context.close(CloseCode::NORMAL, "");
    });
    let running = start(server, &tls);
    let identity = Authority::shared().issue(&["staff.example"]);
    for (tls, expected) in [(client_tls(), false), (presenting(&identity), true)] {
        let client = client_with(ClientConfig::new().tls(tls));
        client.connect(tls_url(&running, "localhost").as_str()).unwrap();
        client.run();
        assert_eq!(presented.try_recv(), Ok(expected));
    }
}

/// Connections that exist keep their certificate, and further ones get the new one.
#[test]
fn a_certificate_can_be_replaced() {
    let _watchdog = watchdog();
    let folder = std::env::temp_dir().join(format!("anyloop-reload-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = (folder.join("a.pem"), folder.join("a.key"));
    let write = |identity: &Identity| {
        std::fs::write(&certificate, &identity.certificate).unwrap();
        std::fs::write(&key, &identity.key).unwrap();
    };
    write(&IDENTITY);
    let tls = ServerTls::from_pem_files(&certificate, &key).unwrap();
    let running = start(echo(), &tls);
    let mut before = super::peer::TlsPeer::open(running.address);
    before.echo("before");

    let other = Authority::new("other");
    write(&other.issue(&["localhost"]));
    tls.reload().unwrap();
    before.echo("still");
    let opens = |trusts: &Authority| {
        let mut client = client_with(ClientConfig::new().tls(super::trusting(trusts)));
        let (sender, opened) = channel();
        client.on_open(move |context| {
            sender.send(()).unwrap();
            let _ = context.close(CloseCode::NORMAL, "");
        });
        client.connect(tls_url(&running, "localhost").as_str()).unwrap();
        client.run();
        opened.try_recv().is_ok()
    };
    assert!(opens(&other) && !opens(Authority::shared()));

    // A file that is broken changes nothing.
    std::fs::write(&certificate, "broken").unwrap();
    assert!(tls.reload().is_err());
    assert!(opens(&other));
    before.echo("to the end");
    std::fs::remove_dir_all(&folder).unwrap();
}
