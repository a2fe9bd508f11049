//! `anyloop serve` and `anyloop connect` over TLS.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Stdio;

use anyloop_testkit::peer::serve;
use anyloop_testkit::tls::{Authority, Identity};
use rustix::process::Signal;

use crate::program::{
    Ended, Folder, Running, Server, anyloop, connect, output, stop_ignoring_hang_up,
};

/// Files with certificates, and the authority that has issued them.
struct Files {
    folder: Folder,
    authority: Authority,
}

impl Files {
    fn new(name: &str) -> Self {
        let files = Self { folder: Folder::new(name), authority: Authority::new(name) };
        fs::write(files.folder.join("ca.pem"), files.authority.pem()).unwrap();
        files.issue("server", &["localhost", "127.0.0.1"]);
        files
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn issue(&self, name: &str, hosts: &[&str]) {
        self.write(name, &self.authority.issue(hosts));
    }

    fn write(&self, name: &str, identity: &Identity) {
        fs::write(self.folder.join(&format!("{name}.pem")), &identity.certificate).unwrap();
        fs::write(self.folder.join(&format!("{name}.key")), &identity.key).unwrap();
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.folder.join(name);
        path.to_str().expect("the path is UTF-8").to_string()
    }

    /// A server with the certificate `server`.
    fn serve(&self, options: &[&str]) -> (Server, String) {
        let (certificate, key) = (self.path("server.pem"), self.path("server.key"));
        let tls = ["--tls-cert", &certificate, "--tls-key", &key];
        let server = Server::start(&[&tls[..], options].concat());
        let address = server.addresses[0].strip_prefix("wss://127.0.0.1:").expect("a wss URL");
        let url = format!("wss://localhost:{address}/");
        (server, url)
    }

    fn connect(&self, url: &str, options: &[&str]) -> Ended {
        let ca = self.path("ca.pem");
        connect(&[&[url, "--ca", &ca][..], options].concat(), b"hello\n")
    }
}

#[test]
fn messages_over_tls() {
    let files = Files::new("messages-over-tls");
    let (server, url) = files.serve(&[]);
    let ended = files.connect(&url, &[]);
    assert_eq!((ended.code(), ended.lines(), &*ended.stderr), (Some(0), vec!["hello"], ""));
    let ended = files.connect(&url.replace("localhost", "127.0.0.1"), &[]);
    assert_eq!((ended.code(), ended.lines()), (Some(0), vec!["hello"]), "{}", ended.stderr);
    let ended = server.stop();
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
}

#[test]
fn a_redirect_leads_to_tls() {
    let files = Files::new("a-redirect-leads-to-tls");
    let (_server, url) = files.serve(&[]);
    let location = url.replace("wss:", "https:");
    let (address, thread) = serve(move |mut peer| {
        peer.read_head();
        peer.write(format!("HTTP/1.1 301 Moved\r\nLocation: {location}\r\n"));
        peer.write("Content-Length: 0\r\n\r\n");
        peer.read_to_end();
    });
    let ended = files.connect(&format!("ws://{address}/"), &["--location"]);
    assert_eq!((ended.code(), ended.lines()), (Some(0), vec!["hello"]), "{}", ended.stderr);
    thread.join().unwrap();
}

#[test]
fn an_echo_over_tls_is_measured() {
    let files = Files::new("an-echo-is-measured");
    let (_server, url) = files.serve(&[]);
    let bench = |options: &[&str]| {
        Running::start(anyloop(["bench", &url, "--duration", "0.2"]).args(options)).end()
    };
    let ended = bench(&["--ca", &files.path("ca.pem")]);
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
    bench(&[]).expect(3, "the server's certificate was refused");
}

#[test]
fn the_server_is_verified() {
    let files = Files::new("the-server-is-verified");
    let (_server, url) = files.serve(&[]);
    let other = Files::new("another-authority");
    let ended = other.connect(&url, &[]);
    ended.expect(3, "the server's certificate was refused");
    ended.expect(3, "add the certificate of that authority");

    // By a name that the certificate does not have.
    files.issue("server", &["other.example"]);
    let (_server, url) = files.serve(&[]);
    files.connect(&url, &[]).expect(3, "connect by a name that it has");
}

/// The server answers as a proxy that refuses a tunnel.
#[test]
fn the_proxy_of_the_environment_is_verified() {
    let files = Files::new("the-proxy-is-verified");
    let (_server, url) = files.serve(&[]);
    let proxy = url.replace("wss:", "https:");
    let through = |options: &[&str]| {
        let mut command = anyloop(["connect", "ws://chat.example/"]);
        Running::start(command.args(options).env("http_proxy", &proxy)).end()
    };
    through(&[]).expect(3, "; --proxy-ca FILE adds an authority");
    through(&["--proxy-ca", &files.path("ca.pem")])
        .expect(3, "refused a tunnel to chat.example:80");
}

/// In a container without CA certificates, for example.
#[cfg(target_os = "linux")]
#[test]
fn a_system_without_ca_certificates() {
    let files = Files::new("no-ca-certificates");
    let mut command = anyloop(["connect", "wss://127.0.0.1:1/"]);
    command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", files.path(""));
    fs::remove_file(files.path("ca.pem")).unwrap();
    fs::remove_file(files.path("server.pem")).unwrap();
    let ended = Running::start(&mut command).end();
    assert!(ended.stderr.contains("no roots to verify servers with: "), "{}", ended.stderr);
    assert!(ended.stderr.contains("--ca"), "{}", ended.stderr);
}

#[test]
fn a_certificate_that_was_made_at_the_start() {
    let mut command = anyloop(["serve", "--listen", "127.0.0.1:0", "--tls-self-signed"]);
    let server = Server::listening(&mut command, 1);
    let url = format!("{}/", server.addresses[0]);
    assert!(url.starts_with("wss://127.0.0.1:"), "{url}");
    connect(&[&url], b"").expect(3, "it is self-signed");

    let ended = connect(&[&url, "--insecure"], b"hello\n");
    assert_eq!((ended.code(), ended.lines()), (Some(0), vec!["hello"]));
    assert!(ended.stderr.starts_with("anyloop: WARNING: --insecure"), "{}", ended.stderr);

    let stderr = server.stop().stderr;
    let (names, fingerprint) = stderr.trim_end().split_once("; its SHA-256 is ").expect(&stderr);
    assert_eq!(names, "anyloop: self-signed certificate for localhost, 127.0.0.1, ::1");
    let bytes: Vec<_> = fingerprint.split(':').collect();
    assert_eq!(bytes.len(), 32, "{fingerprint}");
    assert!(bytes.iter().all(|byte| u8::from_str_radix(byte, 16).is_ok()), "{fingerprint}");
}

#[test]
fn a_certificate_that_was_made_at_the_start_is_written_for_clients() {
    let folder = Folder::new("self-signed");
    let certificate = folder.join("certificate.pem");
    let path = certificate.to_str().expect("the path is UTF-8");
    fs::write(&certificate, "of an earlier server, which is longer".repeat(100)).unwrap();
    let option = format!("--tls-self-signed={path}");
    let serve = |listen: &str| anyloop(["serve", "--listen", listen, &option]);
    let server = Server::listening(&mut serve("127.0.0.1:0"), 1);
    let url = server.addresses[0].clone();
    let hello = || {
        let ended = connect(&[&url, "--ca", path], b"hello\n");
        assert_eq!((ended.code(), ended.lines()), (Some(0), vec!["hello"]), "{}", ended.stderr);
    };
    hello();
    let written = fs::read_to_string(&certificate).unwrap();
    assert!(written.starts_with("-----BEGIN CERTIFICATE-----"), "{written}");
    assert_eq!(written.matches("-----BEGIN").count(), 1, "the key stays in the server: {written}");

    // A server that cannot listen leaves the file as it is.
    let other = Running::start(&mut serve(&url["wss://".len()..])).end();
    assert_eq!(other.code(), Some(1), "{}", other.stderr);
    hello();
    let ended = server.stop();
    assert!(ended.stderr.trim_end().ends_with(&format!("; it is in {path}")), "{}", ended.stderr);

    let option = "--tls-self-signed=/no/such/directory/certificate.pem";
    let ended = Running::start(&mut anyloop(["serve", "--listen", "127.0.0.1:0", option])).end();
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
    let words =
        "--tls-self-signed: cannot write to /no/such/directory/certificate.pem: No such file";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
}

#[test]
fn clients_need_a_certificate_if_the_server_asks_for_one() {
    let files = Files::new("client-certificates");
    files.issue("client", &["staff.example"]);
    let ca = files.path("ca.pem");
    let (_server, url) = files.serve(&["--tls-client-ca", &ca]);
    files.connect(&url, &[]).expect(3, "it requires a client certificate, and none was given");
    let (certificate, key) = (files.path("client.pem"), files.path("client.key"));
    let ended = files.connect(&url, &["--client-cert", &certificate, "--client-key", &key]);
    assert_eq!((ended.code(), ended.lines()), (Some(0), vec!["hello"]), "{}", ended.stderr);

    let other = Files::new("other-client-certificates");
    let (certificate, key) = (other.path("server.pem"), other.path("server.key"));
    let ended = files.connect(&url, &["--client-cert", &certificate, "--client-key", &key]);
    ended.expect(3, "the peer has refused TLS");
}

#[test]
fn sighup_reads_the_certificate_again() {
    let files = Files::new("sighup");
    let (certificate, key) = (files.path("server.pem"), files.path("server.key"));
    let mut command = anyloop(["serve", "--listen", "127.0.0.1:0"]);
    command.args(["--tls-cert", &certificate, "--tls-key", &key]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let port = line.rsplit(':').next().unwrap();
    let url = format!("wss://localhost:{port}/");
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let hang_up = || {
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, Signal::HUP).unwrap();
    };

    // A connection that stays open meanwhile.
    let mut arguments = vec!["connect", &url, "--wait", "forever", "--ca"];
    let ca = files.path("ca.pem");
    arguments.push(&ca);
    let mut open = Running::start(anyloop(&arguments).stdin(Stdio::piped()));
    let (mut stdin, mut stdout) = (open.stdin(), BufReader::new(open.stdout()).lines());
    stdin.write_all(b"before\n").unwrap();
    assert_eq!(stdout.next().unwrap().unwrap(), "before");

    let other = Files::new("sighup-other");
    files.write("server", &other.authority.issue(&["localhost"]));
    hang_up();
    assert_eq!(errors.next().unwrap().unwrap(), "anyloop: the certificate was read again");
    assert_eq!(other.connect(&url, &[]).code(), Some(0));
    assert_eq!(files.connect(&url, &[]).code(), Some(3));
    fs::write(&certificate, "broken").unwrap();
    hang_up();
    let error = errors.next().unwrap().unwrap();
    assert!(error.starts_with("anyloop: the certificate stays as it was: "), "{error}");
    assert!(error.contains("there is no certificate in it"), "{error}");
    assert_eq!(other.connect(&url, &[]).code(), Some(0));

    stdin.write_all(b"after\n").unwrap();
    assert_eq!(stdout.next().unwrap().unwrap(), "after");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// There are no files to read again.
#[cfg(target_os = "linux")]
#[test]
fn sighup_ends_a_server_with_a_self_signed_certificate() {
    stop_ignoring_hang_up();
    let server = Server::start(&["--tls-self-signed"]);
    server.program.signal(Signal::HUP);
    assert_eq!(server.program.end().code(), Some(0));
}

#[test]
fn plain_and_secure_ends_say_what_is_wrong() {
    let files = Files::new("plain-and-secure");
    let (server, url) = files.serve(&[]);
    let ended = connect(&[&url.replacen("wss", "ws", 1)], b"");
    ended.expect(4, "400 Bad Request: this port speaks TLS: use wss://");
    let mut http = TcpStream::connect(&server.addresses[0]["wss://".len()..]).unwrap();
    http.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");

    let plain = Server::start(&[]);
    let url = plain.url("/").replacen("ws", "wss", 1);
    files.connect(&url, &[]).expect(3, "the peer does not speak TLS");
}

#[test]
fn a_unix_socket_can_speak_tls() {
    let files = Files::new("unix-tls");
    let socket = files.path("socket");
    let (certificate, key) = (files.path("server.pem"), files.path("server.key"));
    let mut command = anyloop(["serve", "--unix", &socket]);
    let server =
        Server::listening(command.args(["--tls-cert", &certificate, "--tls-key", &key]), 1);
    assert_eq!(server.addresses, [format!("wss+unix:{socket}")]);
    let ended = files.connect("wss://localhost/", &["--unix", &socket]);
    assert_eq!((ended.code(), ended.lines()), (Some(0), vec!["hello"]), "{}", ended.stderr);
}

#[test]
fn files_that_cannot_be_used() {
    let files = Files::new("unusable");
    let (certificate, key) = (files.path("server.pem"), files.path("server.key"));
    let other = Files::new("unusable-other").authority.issue(&["localhost"]);
    files.write("other", &other);
    let other = files.path("other.key");
    for (certificate, key, words) in [
        (&*files.path("missing.pem"), &*key, "missing.pem: No such file"),
        (&certificate, &certificate, "were the two files swapped?"),
        (&certificate, &other, "the private key does not belong to the certificate"),
    ] {
        let arguments = ["serve", "--tls-cert", certificate, "--tls-key", key];
        Running::start(&mut anyloop(arguments)).end().expect(2, words);
    }
    let ended = connect(&["wss://localhost/", "--ca", &files.path("missing.pem")], b"");
    ended.expect(2, "missing.pem: No such file");
    for arguments in [
        &["serve", "--tls-cert", "a.pem"][..],
        &["serve", "--tls-key", "a.key"],
        &["serve", "--tls-cert", "a.pem", "--tls-key", "a.key", "--tls-self-signed"],
        &["serve", "--tls-client-ca", "ca.pem"],
    ] {
        let output = output(&mut anyloop(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
