//! The files that `anyloop serve --dir` serves.

use std::fs;
use std::os::unix::fs::symlink;

use crate::peer::{Peer, TEXT, field};
use crate::program::{Folder, Server};

/// A number of bytes that exceeds all buffers between two peers.
const LARGE: usize = 64 << 20;

/// A server of a directory in this folder.
fn serving(folder: &Folder, directory: &str) -> Server {
    let path = folder.join(directory);
    Server::start(&["--dir", path.to_str().expect("the path is UTF-8")])
}

/// The response to a request: its head, and its body.
fn ask(server: &Server, request: &str) -> (String, Vec<u8>) {
    let mut client = Peer::dial(server.address());
    client.write(format!("{request}\r\nHost: a\r\n\r\n").as_bytes());
    let head = client.head();
    (head, client.rest())
}

#[test]
fn a_large_file_comes_whole() {
    let folder = Folder::new("large-file");
    let content: Vec<u8> = (0..LARGE).map(|index| (index % 251) as u8).collect();
    fs::write(folder.join("large.bin"), &content).expect("the file can be written");
    let server = serving(&folder, "");
    let mut echo = Peer::client(server.address(), "/echo");
    let (head, _) = ask(&server, "HEAD /large.bin HTTP/1.1");
    for request in ["GET /large.bin HTTP/1.1", "GET /large.bin HTTP/1.0"] {
        let mut client = Peer::dial(server.address());
        client.write(format!("{request}\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(client.head(), head, "it is that of HEAD");
        assert_eq!(field(&head, "content-length"), Some(&*LARGE.to_string()), "{head}");
        assert_eq!(field(&head, "transfer-encoding"), None, "{head}");
        // The server waits for this client, and serves others.
        echo.send(TEXT, b"meanwhile");
        echo.expect(TEXT, b"meanwhile");
        let body = client.rest();
        assert!(body == content, "{request}: {} bytes", body.len());
    }
    let (_, body) = ask(&server, "HEAD /large.bin HTTP/1.1");
    assert_eq!(body.len(), 0);
    echo.close(1000);
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_download_that_is_given_up_costs_nothing_else() {
    let folder = Folder::new("given-up");
    fs::write(folder.join("large.bin"), vec![7; LARGE]).expect("the file can be written");
    let server = serving(&folder, "");
    for _ in 0..3 {
        let mut client = Peer::dial(server.address());
        client.write(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
        client.head();
    }
    Peer::client(server.address(), "/echo").close(1000);
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn rfc9110_15_5_6_what_exists_answers_only_get_and_head() {
    let folder = Folder::new("methods");
    fs::create_dir_all(folder.join("public/sub")).expect("the directory can be made");
    for file in ["public/page.txt", "public/sub/index.html"] {
        fs::write(folder.join(file), file).expect("the file can be written");
    }
    let server = serving(&folder, "public");
    for path in ["/", "/page.txt", "/sub", "/sub/", "/echo", "/broadcast", "/stats"] {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "SEARCH"] {
            let (head, body) = ask(&server, &format!("{method} {path} HTTP/1.1"));
            assert!(head.starts_with("HTTP/1.1 405 "), "{method} {path}: {head}");
            assert_eq!(field(&head, "allow"), Some("GET, HEAD"), "{method} {path}");
            assert_eq!(body, b"only GET and HEAD are allowed\n", "{method} {path}");
        }
    }
    let mut client = Peer::dial(server.address());
    client.write(b"POST /page.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert!(client.head().starts_with("HTTP/1.1 405 "), "it may have a body");
    for path in ["/none", "/page.txt/", "/public", "/echo/"] {
        for method in ["POST", "OPTIONS"] {
            let (head, _) = ask(&server, &format!("{method} {path} HTTP/1.1"));
            assert!(head.starts_with("HTTP/1.1 404 "), "{method} {path}: {head}");
            assert_eq!(field(&head, "allow"), None, "{method} {path}");
        }
    }
}

#[test]
fn a_redirect_keeps_the_query() {
    let folder = Folder::new("query");
    fs::create_dir(folder.join("sub")).expect("the directory can be made");
    fs::write(folder.join("sub/index.html"), "").expect("the file can be written");
    let server = serving(&folder, "");
    for (path, location) in
        [("/sub", "./sub/"), ("/sub?x=1&y", "./sub/?x=1&y"), ("/sub?", "./sub/?")]
    {
        let (head, _) = ask(&server, &format!("GET {path} HTTP/1.1"));
        assert!(head.starts_with("HTTP/1.1 302 "), "{head}");
        assert_eq!(field(&head, "location"), Some(location), "{path}");
    }
}

/// Without a validator no client has the present version (RFC 9110 §13.1.2, §13.1.3), and ranges are optional (§14.2).
#[test]
fn a_file_is_sent_whole_whatever_part_or_version_the_client_has() {
    let folder = Folder::new("conditions");
    fs::write(folder.join("page.txt"), "hello").expect("the file can be written");
    let server = serving(&folder, "");
    for fields in [
        "Range: bytes=1-2",
        "Range: bytes=0-0\r\nIf-Range: \"a\"",
        "If-None-Match: \"a\"",
        "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",
    ] {
        for method in ["GET", "HEAD"] {
            let (head, body) = ask(&server, &format!("{method} /page.txt HTTP/1.1\r\n{fields}"));
            assert!(head.starts_with("HTTP/1.1 200 "), "{fields}: {head}");
            assert_eq!(field(&head, "content-length"), Some("5"), "{fields}");
            for name in ["accept-ranges", "content-range", "etag", "last-modified"] {
                assert_eq!(field(&head, name), None, "{fields}");
            }
            assert_eq!(body, if method == "GET" { &b"hello"[..] } else { b"" }, "{fields}");
        }
    }
}

#[test]
fn what_is_outside_or_hidden_is_not_found() {
    let folder = Folder::new("refused-files");
    for directory in ["public/sub", "public/.git"] {
        fs::create_dir_all(folder.join(directory)).expect("the directory can be made");
    }
    for file in ["secret", "public/page.txt", "public/.hidden", "public/.git/config"] {
        fs::write(folder.join(file), file).expect("the file can be written");
    }
    let links = [
        ("../secret", "outside"),
        ("..", "above"),
        (".hidden", "unhidden"),
        (".git", "git"),
        ("page.txt", "inside.txt"),
        ("self", "self"),
    ];
    for (target, link) in links {
        symlink(target, folder.join(&format!("public/{link}"))).expect("the link can be made");
    }
    let server = serving(&folder, "public");
    for path in ["/page.txt", "/inside.txt", "//page.txt?query", "/p%61ge.txt"] {
        let (head, body) = ask(&server, &format!("GET {path} HTTP/1.1"));
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
        assert_eq!(body, b"public/page.txt", "{path}");
    }
    for path in [
        "/../secret",
        "/sub/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/sub/%2E%2E/page.txt",
        "/./page.txt",
        "/.hidden",
        "/%2ehidden",
        "/.git/config",
        "/sub/..\\page.txt",
        "/outside",
        "/above/secret",
        "/unhidden",
        "/git/config",
        "/self",
        "/sub",
        "/page.txt%00",
        "/%ff",
    ] {
        for method in ["GET", "HEAD", "POST"] {
            let (head, body) = ask(&server, &format!("{method} {path} HTTP/1.1"));
            assert!(head.starts_with("HTTP/1.1 404 "), "{method} {path}: {head}");
            assert_eq!(body.is_empty(), method == "HEAD", "{method} {path}");
        }
    }
}
