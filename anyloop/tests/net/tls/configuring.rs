//! Certificates and keys that can be used, and errors for those that cannot.

use std::path::PathBuf;

use anyloop::net::Error;
use anyloop::prelude::*;
use anyloop::tls::{ClientTls, ServerTls, TlsConfigError, rustls};
use anyloop_testkit::peer::serve;
use anyloop_testkit::tls::{Authority, Far, Identity, server_config};
use anyloop_testkit::watchdog::watchdog;

use super::peer::{TlsPeer, trusting_config};
use super::{IDENTITY, client_tls, start, tls_of};
use crate::setup::{chain, client_with, echo, new_path};

/// Files that are removed afterwards.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let folder = new_path();
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The error of a server with these files, without the folder.
fn error(certificate: &str, key: &str) -> String {
    let files = Files::new();
    let (certificate, key) = (files.write("a.pem", certificate), files.write("a.key", key));
    let error = ServerTls::from_pem_files(certificate, key).unwrap_err();
    let [text] = &chain(&error)[..] else { panic!("{error:?}") };
    text.replace(&format!("{}/", files.0.display()), "")
}

#[test]
fn errors_name_the_file_and_what_is_wrong_with_it() {
    let Identity { certificate, key } = &*IDENTITY;
    let other = Authority::shared().issue(&["localhost"]);
    let (_, body) = certificate.split_once('\n').unwrap();
    let cases = [
        (error("", key), "a.pem: there is no certificate in it (BEGIN CERTIFICATE)"),
        (error("text", key), "a.pem: there is no certificate in it (BEGIN CERTIFICATE)"),
        (error(key, key), "a.pem: there is no certificate in it (BEGIN CERTIFICATE)"),
        (
            error(certificate, certificate),
            "a.key: there is a certificate in it, and no private key: were the two files swapped?",
        ),
        (error(certificate, ""), "a.key: it is not PEM: there is no line BEGIN PRIVATE KEY in it"),
        (
            error(certificate, &other.key),
            "a.key: the private key does not belong to the certificate",
        ),
        (
            error(
                certificate,
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            ),
            "a.key: the private key is encrypted: decrypt it first (openssl pkey -in FILE -out FILE)",
        ),
        (
            error(&format!("-----BEGIN CERTIFICATE-----\n!{body}"), key),
            "a.pem: not valid PEM: its base64 is broken",
        ),
        (
            error(&certificate.replace("-----END CERTIFICATE-----", ""), key),
            "a.pem: not valid PEM: the line \"-----END CERTIFICATE-----\" is missing",
        ),
    ];
    for (error, expected) in cases {
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let expected = "a.pem: it is not a valid X.509 certificate; ";
    assert!(error(broken, key).starts_with(expected), "{}", error(broken, key));
    let files = Files::new();
    let ca = files.write("ca.pem", broken);
    let error_of_client = ClientTls::builder().ca_file(&ca).build().unwrap_err().to_string();
    let expected = format!("{}: it is not a valid X.509 certificate; ", ca.display());
    assert!(error_of_client.starts_with(&expected), "{error_of_client}");
    let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(error(certificate, broken).starts_with("a.key: "), "{}", error(certificate, broken));
}

#[test]
fn files_that_are_missing() {
    let error = ServerTls::from_pem_files("/nowhere/a.pem", "/nowhere/a.key").unwrap_err();
    assert!(matches!(error, TlsConfigError::Read { .. }), "{error:?}");
    let texts = chain(&error);
    assert_eq!(texts[0], "cannot read /nowhere/a.pem");
    assert!(texts[1].starts_with("No such file or directory"), "{texts:?}");
    let error = ClientTls::builder().ca_file("/nowhere/ca.pem").build().unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nowhere/ca.pem");
    let error = ServerTls::builder().build().unwrap_err();
    assert!(matches!(error, TlsConfigError::NoServerCertificate), "{error:?}");
    let error = ClientTls::builder().only_these_cas().build().unwrap_err();
    assert!(matches!(error, TlsConfigError::NoRoots), "{error:?}");
    let error = tls_of(&IDENTITY).replace(server_config(&IDENTITY, None));
    assert!(error.is_ok());
}

/// Neither of two certificates for the same clients is ignored.
#[test]
fn certificates_for_the_same_clients() {
    let Identity { certificate, key } = &*IDENTITY;
    let (certificate, key) = (certificate.as_str(), key.as_str());
    let named = |name| ServerTls::builder().certificate_pem_for(name, certificate, key);
    let error = named("a.example").certificate_pem_for("A.example", certificate, key).build();
    assert_eq!(
        error.unwrap_err().to_string(),
        "two certificates for \"a.example\": set one, or give the other another host name"
    );
    let unnamed = named("a.example").certificate_pem(certificate, key);
    assert!(unnamed.clone().build().is_ok());
    let error = unnamed.certificate_pem(certificate, key).build().unwrap_err();
    assert!(matches!(error, TlsConfigError::DuplicateCertificate { host: None }), "{error:?}");
}

/// Certificate and key in one file, with text around them, and line ends of Windows.
#[test]
fn one_file_can_have_both() {
    let _watchdog = watchdog();
    let files = Files::new();
    let Identity { certificate, key } = &*IDENTITY;
    let both = format!("a comment\n{key}\nmore\n{certificate}\n").replace('\n', "\r\n");
    let path = files.write("both.pem", &both);
    let running = start(echo(), &ServerTls::from_pem_files(&path, &path).unwrap());
    TlsPeer::open(running.address).echo("hello");
}

#[test]
fn configurations_of_the_program() {
    let _watchdog = watchdog();
    let tls = ServerTls::from_config(server_config(&IDENTITY, None)).unwrap();
    assert!(matches!(tls.reload(), Err(TlsConfigError::NotFromFiles)));
    let mut server = echo();
    server.on_open(|context| {
        assert_eq!(context.tls().unwrap().server_name(), Some("localhost"));
    });
    let running = start(server, &tls);
    TlsPeer::open(running.address).echo("hello");

    let mut client =
        client_with(ClientConfig::new().tls(ClientTls::from_config(trusting_config())));
    let (sender, opened) = std::sync::mpsc::channel();
    client.on_open(move |context| {
        sender.send(()).unwrap();
        let _ = context.close(CloseCode::NORMAL, "");
    });
    client.connect(super::tls_url(&running, "localhost").as_str()).unwrap();
    client.run();
    assert!(opened.try_recv().is_ok());

    let mut config = rustls::ServerConfig::clone(&server_config(&IDENTITY, None));
    config.max_fragment_size = Some(1); // less than rustls allows
    assert!(matches!(ServerTls::from_config(config.into()), Err(TlsConfigError::Rustls(_))));
}

/// A configuration that is shared with an HTTP server must not make a peer speak HTTP/2.
#[test]
fn http2_is_not_agreed_on() {
    let _watchdog = watchdog();
    let alpn = || vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut at_server = rustls::ServerConfig::clone(&server_config(&IDENTITY, None));
    at_server.alpn_protocols = alpn();
    let mut at_client = rustls::ClientConfig::clone(&trusting_config());
    at_client.alpn_protocols = alpn();

    // Against a peer that prefers HTTP/2, in each role.
    let tls = ServerTls::from_config(at_server.clone().into()).unwrap();
    let client_tls = ClientTls::from_config(at_client.clone().into());
    let running = start(echo(), &tls);
    let mut peer = TlsPeer::connect(running.address, at_client.into());
    peer.shake_hands();
    assert_eq!(peer.far.alpn_protocol(), Some(&b"http/1.1"[..]));
    let (address, peer) = serve(move |peer| {
        let mut peer = TlsPeer::over(peer, Far::server(at_server.into()));
        peer.shake_hands();
        peer.far.alpn_protocol().map(<[u8]>::to_vec)
    });
    let client = client_with(ClientConfig::new().tls(client_tls));
    client.connect(format!("wss://localhost:{}/", address.port()).as_str()).unwrap();
    client.run();
    assert_eq!(peer.join().unwrap().as_deref(), Some(&b"http/1.1"[..]));
}

/// What a program has set is not undone by files that were used before.
#[test]
fn only_files_are_read_again() {
    let files = Files::new();
    let Identity { certificate, key } = &*IDENTITY;
    let (certificate, key) = (files.write("a.pem", certificate), files.write("a.key", key));
    let tls = ServerTls::from_pem_files(&certificate, &key).unwrap();
    assert!(tls.reload().is_ok());
    tls.replace(server_config(&IDENTITY, None)).unwrap();
    assert!(matches!(tls.reload(), Err(TlsConfigError::NotFromFiles)));
    assert!(matches!(tls_of(&IDENTITY).reload(), Err(TlsConfigError::NotFromFiles)));

    let Identity { certificate, key } = &*IDENTITY;
    let authority = files.write("ca.pem", &Authority::shared().pem());
    let tls = ServerTls::builder().certificate_pem(certificate.as_str(), key.as_str());
    let tls = tls.client_ca_file(&authority).build().unwrap();
    assert!(tls.reload().is_ok());
    files.write("ca.pem", "");
    assert!(matches!(tls.reload(), Err(TlsConfigError::NoCertificate { .. })));
}

/// rustls may be told to send smaller records than the largest.
#[test]
fn small_records() {
    let _watchdog = watchdog();
    let mut config = rustls::ServerConfig::clone(&server_config(&IDENTITY, None));
    config.max_fragment_size = Some(100);
    let running = start(echo(), &ServerTls::from_config(config.into()).unwrap());
    let mut peer = TlsPeer::open(running.address);
    peer.echo(&"long".repeat(20_000));
}

#[test]
fn a_host_that_no_certificate_can_be_for() {
    let client = client_with(ClientConfig::new().tls(client_tls()));
    let error = client.connect("wss://no_host..example/").unwrap_err();
    assert!(
        matches!(error, Error::Tls(TlsConfigError::Host { .. }) | Error::Uri { .. }),
        "{error:?}"
    );
    assert_eq!(chain(&error).len(), 2);
}
