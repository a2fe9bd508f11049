//! Whatever goes wrong: one line that says what, and what to do, and the exit status.

use std::ffi::OsStr;
use std::fs::{Permissions, read_to_string, set_permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::thread;

use crate::program::{Folder, Running, Server, anyloop, unprivileged};

/// Runs the command without input, and asserts how it fails.
#[track_caller]
fn fails(arguments: &[&str], code: i32, words: &[&str]) {
    let ended = Running::start(anyloop(arguments).stdin(Stdio::null())).end();
    for words in words {
        ended.expect(code, words);
    }
    assert_eq!(ended.lines(), [""; 0], "{arguments:?}");
}

#[test]
fn an_argument_that_is_not_unicode() {
    let mut anyloop = anyloop([""; 0]);
    let ended = Running::start(anyloop.arg(OsStr::from_bytes(b"\xff")).stdin(Stdio::null())).end();
    ended.expect(2, "unrecognized subcommand");
}

#[test]
fn wrong_arguments() {
    let url = "ws://127.0.0.1:9/";
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (arguments, words) in [
        (
            &["connect", "http://a.example/"][..],
            &["neither ws nor wss", "did you mean ws://a.example/?"][..],
        ),
        (&["connect", "https://a.example"], &["did you mean wss://a.example"]),
        (&["connect", "a.example:8080"], &["did you mean ws://a.example:8080"]),
        (&["connect", "ws//a.example"], &["did you mean ws://a.example?"]),
        (&["connect", "wss:/a.example/b"], &["did you mean wss://a.example/b?"]),
        (&["connect", "HTTP//a.example"], &["did you mean ws://a.example?"]),
        (&["connect", "a.example"], &["neither ws nor wss"]),
        (&["connect", "ws;//127.0.0.1:9301"], &["did you mean ws://127.0.0.1:9301?"]),
        (&["connect", "9002"], &["did you mean ws://127.0.0.1:9002?"]),
        (&["bench", ":9002/echo"], &["did you mean ws://127.0.0.1:9002/echo?"]),
        (&["connect", "ws:127.0.0.1:9301"], &["did you mean ws://127.0.0.1:9301?"]),
        (&["connect", "ws:9002"], &["did you mean ws://ws:9002?"]),
        (&["connect", "http:a.example"], &["did you mean ws://a.example?"]),
        (&["connect", "ws://http://a.example"], &["two schemes; did you mean ws://a.example?"]),
        (&["connect", "wws://a.example"], &["did you mean ws://a.example?"]),
        (&["connect", "wsss://a.example"], &["did you mean wss://a.example?"]),
        (&["connect", "httpp://a.example"], &["did you mean ws://a.example?"]),
        (
            &["connect", "ws+unix:/tmp/x"],
            &["neither ws nor wss; for a Unix socket: --unix /tmp/x ws://localhost/"],
        ),
        (
            &["connect", "wss+unix:/tmp/x"],
            &["neither ws nor wss; for a Unix socket: --unix /tmp/x wss://localhost/"],
        ),
        (
            &["connect", "unix:///tmp/x"],
            &["neither ws nor wss; for a Unix socket: --unix /tmp/x ws://localhost/"],
        ),
        (
            &["connect", "/tmp/x.sock"],
            &["neither ws nor wss; for a Unix socket: --unix /tmp/x.sock ws://localhost/"],
        ),
        (&["bench", "unix:/tmp/x"], &["neither ws nor wss; anyloop bench --help"]),
        (&["connect", "ws://"], &["missing host"]),
        (&["connect", "ws://a.example:0/"], &["invalid port"]),
        (&["connect", "ws://a.example/#there"], &["fragment"]),
        (&["connect"], &["<URL>", "anyloop connect --help describes the options"]),
        (&["connect", url, "--insecure"], &["--insecure is for wss:// URLs"]),
        (&["connect", url, "--ca", "ca.pem"], &["--ca is for wss:// URLs"]),
        (&["connect", "wss://a.example/", "--client-cert", "a.pem"], &["--client-key"]),
        (
            &["connect", url, "--haeder", "a: b"],
            &["'--haeder'", "a similar argument exists: '--header'"],
        ),
        (&["connect", url, "--header", "nonsense"], &["NAME: VALUE"]),
        (&["connect", url, "--header", "a b: c"], &["token"]),
        (&["connect", url, "--header", "Upgrade: other"], &["header field upgrade"]),
        (&["connect", url, "--cookie", "a"], &["NAME=VALUE"]),
        (&["connect", url, "--user", "me"], &["USER:PASSWORD"]),
        (
            &["connect", url, "--user", "me:x", "-H", "Authorization: Bearer x"],
            &["--user and --header both set Authorization: leave one out"],
        ),
        (
            &["connect", url, "-H", "Authorization: a", "-H", "authorization: b"],
            &["--header sets Authorization twice: leave one out"],
        ),
        (
            &["connect", "ws://me:x@127.0.0.1:9/", "--user", "me:y"],
            &["the URL and --user both set Authorization: leave one out"],
        ),
        (
            &["connect", "ws://me:x@127.0.0.1:9/", "-H", "Authorization: Bearer x"],
            &["the URL and --header both set Authorization: leave one out"],
        ),
        (
            &["connect", url, "-H", "Origin: https://a.example"],
            &["Origin is set by --origin, not by --header"],
        ),
        (
            &["connect", url, "-H", "sec-websocket-protocol: chat"],
            &["Sec-WebSocket-Protocol is set by --subprotocol, not by --header"],
        ),
        (&["connect", url, "--subprotocol", "a b"], &["\"a b\" is not a token"]),
        (&["connect", url, "--origin", "a.example"], &["https://example.com"]),
        (&["connect", url, "--close-timeout", "soon"], &["seconds"]),
        (
            &["connect", url, "--close-timeout", "-1"],
            &["'-1' for '--close-timeout <S>'", "seconds"],
        ),
        (&["connect", url, "--wait", "-0.5"], &["'-0.5' for '--wait <S>'", "forever"]),
        (
            &["connect", url, "--exit-after", "0"],
            &["'0' for '--exit-after <N>': not a number from 1;"],
        ),
        (&["connect", url, "--exit-after", "-3"], &["'-3' for '--exit-after <N>'"]),
        (&["connect", url, "--echo", "--once"], &["'--echo' cannot be used with '--once'"]),
        (&["connect", url, "--color", "blue"], &["auto, always, never"]),
        (
            &["connect", url, "--binary", "/no/such/file"],
            &["cannot read /no/such/file: No such file"],
        ),
        (&["connect", url, "--binary", "/"], &["cannot read /: it is a directory"]),
        (
            &["connect", url, "-o", "/no/such/file"],
            &["cannot write to /no/such/file: No such file"],
        ),
        (&["connect", url, "-o", "/"], &["--output: cannot write to /: Is a directory"]),
        (
            &["connect", url, "--binary", manifest, "--output", manifest],
            &["--output would overwrite", "which --binary sends"],
        ),
        (
            &["connect", url, "--output", "-", "--json"],
            &["'--output <FILE>' cannot be used with '--json'"],
        ),
        (&["connect", url, "--echo", "-o", "-"], &["'--echo' cannot be used with '--output"]),
        (
            &["connect", "wss://a.example/", "--ca", "/no/such/file"],
            &["cannot read /no/such/file: No such file"],
        ),
        (
            &["connect", "wss://a.example/", "--client-cert", manifest, "--client-key", manifest],
            &["Cargo.toml: ", "BEGIN"],
        ),
        (
            &["connect", url, "--proxy", "https://b.example", "--proxy-ca", "/no/such/file"],
            &["cannot read /no/such/file: No such file"],
        ),
        (
            &["bench", "wss://a.example/", "--ca", "/no/such/file"],
            &["cannot read /no/such/file: No such file"],
        ),
        (
            &["serve", "--tls-cert", "/no/such/file", "--tls-key", "/no/such/file"],
            &["cannot read /no/such/file: No such file"],
        ),
        (&["serve", "--listen", "ws://127.0.0.1:9002"], &["this is a URL", "127.0.0.1:9002"]),
        (&["serve", "--listen", "-1"], &["'-1' for '--listen <ADDR:PORT>'"]),
        (
            &["serve", "--max-message", "16M"],
            &["'16M' for '--max-message <BYTES>'", "not a number of bytes"],
        ),
        (
            &["connect", url, "--max-message", "1k"],
            &["'1k' for '--max-message <BYTES>'", "not a number of bytes"],
        ),
        (
            &["serve", "--threads", "-2"],
            &["'-2' for '--threads <N>'", "not a number from 1 to 1024"],
        ),
        (&["serve", "--listen", "127.0.0.1"], &["the port is missing: 127.0.0.1:9002"]),
        (&["serve", "--listen", "[::1]"], &["the port is missing: [::1]:9002"]),
        (&["serve", "--listen", "localhost:"], &["the port is missing: localhost:9002"]),
        (
            &["bench", url, "-c", "abc"],
            &["'abc' for '--connections <N>': not a number from 1 to 100000"],
        ),
        (&["bench", url, "--depth", "x"], &["not a number from 1 to 100000"]),
        (&["bench", url, "--threads", "x"], &["not a number from 1 to 1024"]),
        (&["bench", url, "--size", "-5"], &["'-5' for '--size <BYTES>'"]),
        (&["pipe", "--client", "wss://a.example/"], &["wss:// needs TLS", "use ws://"]),
        (&["pipe", "--client", "http://a.example/"], &["did you mean ws://a.example/?"]),
        (
            &["serv"],
            &["a similar subcommand exists: 'serve'", "anyloop --help describes the commands"],
        ),
    ] {
        fails(arguments, 2, words);
    }
}

#[test]
fn no_connection() {
    let unused = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let address = unused.local_addr().expect("the socket has an address");
    drop(unused);
    let refused = format!("ws://{address}/");
    fails(
        &["connect", &refused],
        3,
        &["Connection refused", "is the server running, and the port right?"],
    );
    // The system sends nothing to this address.
    fails(&["connect", "ws://255.255.255.255/"], 3, &["unreachable", "connected to that network?"]);
    fails(&["connect", "ws://no.such.host.invalid/"], 3, &["cannot look up", "is the name right?"]);
    let missing = ["connect", "--unix", "/no/such/socket", "ws://a/"];
    fails(&missing, 3, &["/no/such/socket", "is the path of the socket right?"]);
    let folder = Folder::new("no-connection");
    let socket = folder.join("socket");
    drop(UnixListener::bind(&socket).expect("it can listen"));
    let socket = socket.to_str().expect("the path is UTF-8");
    let dead = ["connect", "--unix", socket, "ws://a/"];
    fails(&dead, 3, &["Connection refused", "; is the server running?"]);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    fails(&["connect", "--unix", file, "ws://a/"], 3, &["Cargo.toml: ", "; it is not a socket"]);
    let proxy = format!("http://{address}");
    fails(&["connect", "ws://a/", "-x", &proxy], 3, &["proxy http", "; is the proxy running?"]);
    let server = Server::start(&["--tls-self-signed"]);
    let url = server.addresses[0].replace("127.0.0.1", "localhost");
    let trust = "it is self-signed: --ca FILE trusts it, --insecure trusts anything";
    fails(&["connect", &url], 3, &["certificate was refused", trust]);
    let server = Server::start(&[]);
    let url = server.url("/").replace("ws://", "wss://");
    fails(&["connect", &url], 3, &["does not speak TLS", "Then use ws://"]);
}

/// A server that answers each request with this.
fn answering(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let url = format!("ws://{}/", listener.local_addr().expect("the socket has an address"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut head = BufReader::new(&stream).lines();
            while head.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ = stream.write_all(answer); // the program may have ended
        }
    });
    url
}

#[test]
fn no_websocket() {
    let server = Server::start(&["--origin", "https://a.example"]);
    let nowhere = server.url("/nowhere");
    fails(
        &["connect", &nowhere],
        4,
        &["404 Not Found (is the path right?): there is nothing here"],
    );
    fails(&["connect", &server.url("/"), "--origin", "https://b.example"], 4, &["403 Forbidden"]);
    let url = answering(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nwho");
    fails(&["connect", &url], 4, &["401 Unauthorized (--user or --header can authenticate): who"]);
    let url = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    fails(&["connect", &url], 4, &["answered 200 OK, not as a WebSocket server: hi"]);
    let url = answering(b"220 mail.example ESMTP\r\n\r\n");
    fails(
        &["connect", &url],
        4,
        &["does not answer as a WebSocket server: not an HTTP response", r#""220 ma""#],
    );
}

#[test]
fn no_listener() {
    let server = Server::start(&[]);
    let address = server.address().to_string();
    fails(&["serve", "--listen", &address], 1, &["already in use", "listen elsewhere by --listen"]);
    fails(
        &["serve", "--listen", "192.0.2.1:0"],
        1,
        &["cannot listen on 192.0.2.1:0", "no such address"],
    );
    fails(
        &["serve", "--listen", "no.such.host.invalid:0"],
        1,
        &["cannot look up", "is the name right?"],
    );
    fails(&["serve", "--unix", "/no/such/directory/socket"], 1, &["is there such a directory?"]);
    fails(
        &["serve", "--unix", &"x".repeat(200)],
        1,
        &["cannot listen on unix:x", "a shorter path"],
    );
    let folder = Folder::new("errors");
    let file = folder.join("certificate.pem");
    std::fs::write(&file, "nonsense").expect("the file can be written");
    let file = file.to_str().expect("the path is UTF-8");
    fails(&["serve", "--tls-cert", file, "--tls-key", file], 2, &[file]);
    let socket = folder.join("socket");
    let _other = UnixListener::bind(&socket).expect("it can listen");
    let socket = socket.to_str().expect("the path is UTF-8");
    fails(&["serve", "--unix", socket], 1, &["in use", "listen elsewhere by --unix"]);
}

#[test]
fn no_permission_to_listen() {
    let folder = Folder::new("no-permission");
    let unwritable = Permissions::from_mode(0o555);
    set_permissions(folder.join(""), unwritable).expect("the directory is the test's own");
    let mut command = unprivileged(["serve", "--unix"]);
    let ended = Running::start(command.arg(folder.join("socket"))).end();
    ended.expect(1, "/socket: Permission denied (os error 13)");
    ended.expect(1, "; may this user write to that directory?");

    let first = read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first.is_ok_and(|first| first.trim() != "0") {
        let ended = Running::start(&mut unprivileged(["serve", "--listen", "127.0.0.1:1"])).end();
        ended.expect(1, "cannot listen on 127.0.0.1:1: Permission denied (os error 13)");
        ended.expect(1, "; ports below 1024 are for root: listen elsewhere by --listen");
    } else {
        // Not by `eprintln`, whose output a test that passes does not show.
        let why = "no_permission_to_listen: this system has no port that is for root alone";
        writeln!(io::stderr(), "NOT TESTED: {why}").expect("standard error can be written");
    }
}
