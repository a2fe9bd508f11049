//! The files that `anyloop serve --dir` serves.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

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

const MODIFIED: &str = "Fri, 02 Jan 2026 03:04:05 GMT";

/// A server of a file that was modified then.
fn serving_dated(folder: &Folder) -> Server {
    let file = fs::File::create(folder.join("page.txt")).expect("the file can be written");
    (&file).write_all(b"hello").expect("the file can be written");
    let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_600);
    file.set_modified(modified).expect("the file is the test's own");
    serving(folder, "")
}

/// Ranges are optional (RFC 9110 §14.2), and there are no entity tags (§13.1.2).
#[test]
fn a_file_is_sent_whole_unless_the_client_has_it() {
    let folder = Folder::new("conditions");
    let server = serving_dated(&folder);
    for fields in [
        "Range: bytes=1-2",
        "Range: bytes=0-0\r\nIf-Range: \"a\"",
        "If-None-Match: \"a\"",
        "If-None-Match: \"a\"\r\nIf-Modified-Since: Fri, 02 Jan 2026 03:04:05 GMT",
        "If-Modified-Since: Fri, 02 Jan 2026 03:04:04 GMT",
        "If-Modified-Since: yesterday",
    ] {
        for method in ["GET", "HEAD"] {
            let (head, body) = ask(&server, &format!("{method} /page.txt HTTP/1.1\r\n{fields}"));
            assert!(head.starts_with("HTTP/1.1 200 "), "{fields}: {head}");
            assert_eq!(field(&head, "content-length"), Some("5"), "{fields}");
            assert_eq!(field(&head, "last-modified"), Some(MODIFIED), "{fields}");
            for name in ["accept-ranges", "content-range", "etag"] {
                assert_eq!(field(&head, name), None, "{fields}");
            }
            assert_eq!(body, if method == "GET" { &b"hello"[..] } else { b"" }, "{fields}");
        }
    }
}

#[test]
fn rfc9110_13_1_3_a_file_that_the_client_has_is_not_sent() {
    let folder = Folder::new("not-modified");
    let server = serving_dated(&folder);
    for since in [
        MODIFIED,
        "Friday, 02-Jan-26 03:04:05 GMT",
        "Fri Jan  2 03:04:05 2026",
        "Fri, 01 Jan 2100 00:00:00 GMT",
    ] {
        for method in ["GET", "HEAD"] {
            let request = format!("{method} /page.txt HTTP/1.1\r\nIf-Modified-Since: {since}");
            let (head, body) = ask(&server, &request);
            assert!(head.starts_with("HTTP/1.1 304 "), "{since}: {head}");
            assert_eq!(field(&head, "last-modified"), Some(MODIFIED), "{since}");
            assert_eq!(field(&head, "cache-control"), Some("no-cache"), "{since}");
            assert_eq!(body, b"", "{since}");
        }
    }
    // What is dated in the future may have changed (RFC 9110 §8.8.2.1).
    let file = fs::File::options().append(true).open(folder.join("page.txt")).expect("it exists");
    let later = SystemTime::now() + Duration::from_secs(86400);
    file.set_modified(later).expect("the file is the test's own");
    let since = "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT";
    let (head, _) = ask(&server, &format!("GET /page.txt HTTP/1.1\r\n{since}"));
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(field(&head, "last-modified"), None);
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
