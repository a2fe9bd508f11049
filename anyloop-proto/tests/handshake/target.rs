//! WebSocket URIs (RFC 6455 §3).

use anyloop_proto::handshake::{Target, UriError};

fn parsed(uri: &str) -> (bool, String, u16, String, String) {
    let target: Target = uri.parse().unwrap_or_else(|error| panic!("{uri}: {error}"));
    let text = |text: &str| text.to_owned();
    let (host, header) = (text(target.host()), text(target.host_header()));
    (target.secure(), host, target.port(), header, text(target.path_and_query()))
}

#[test]
fn rfc6455_3_parts_of_a_uri() {
    for (uri, secure, host, port, header, path) in [
        ("ws://a", false, "a", 80, "a", "/"),
        ("wss://a", true, "a", 443, "a", "/"),
        ("WS://A.Example/", false, "A.Example", 80, "A.Example", "/"),
        ("ws://a:80/x", false, "a", 80, "a", "/x"),
        ("wss://a:80/x", true, "a", 80, "a:80", "/x"),
        ("ws://a:443", false, "a", 443, "a:443", "/"),
        ("ws://a:/x", false, "a", 80, "a", "/x"),
        ("ws://a?q=/@:", false, "a", 80, "a", "/?q=/@:"),
        ("ws://a/b/c?d=e&f=%20", false, "a", 80, "a", "/b/c?d=e&f=%20"),
        ("ws://[::1]:9002/", false, "::1", 9002, "[::1]:9002", "/"),
        ("wss://[2001:db8::a]", true, "2001:db8::a", 443, "[2001:db8::a]", "/"),
        ("ws://127.0.0.1:9002", false, "127.0.0.1", 9002, "127.0.0.1:9002", "/"),
        ("ws://user:pw@a:1/", false, "a", 1, "a:1", "/"),
        ("ws://a//b", false, "a", 80, "a", "//b"),
    ] {
        let expected = (secure, host.to_owned(), port, header.to_owned(), path.to_owned());
        assert_eq!(parsed(uri), expected, "{uri}");
    }
}

#[test]
fn rfc6455_3_invalid_websocket_uris() {
    for (uri, error) in [
        ("", UriError::Scheme),
        ("a", UriError::Scheme),
        ("/chat", UriError::Scheme),
        ("http://a", UriError::Scheme),
        ("wsss://a", UriError::Scheme),
        ("ws:/a", UriError::Scheme),
        ("ws:a", UriError::Scheme),
        ("ws://a/#part", UriError::Fragment),
        ("ws://a#", UriError::Fragment),
        ("ws://", UriError::MissingHost),
        ("ws:///x", UriError::MissingHost),
        ("ws://:80", UriError::MissingHost),
        ("ws://user@", UriError::MissingHost),
        ("ws://a:0", UriError::Port),
        ("ws://a:65536", UriError::Port),
        ("ws://a:+1", UriError::Port),
        ("ws://a:x", UriError::Port),
        ("ws://::1/", UriError::MissingHost),
        ("ws://fe80::1/", UriError::Port),
        ("ws://[::1", UriError::Host),
        ("ws://[a]", UriError::Host),
        ("ws://[::1]x", UriError::Host),
        ("ws://[127.0.0.1]", UriError::Host),
        ("ws://a%62", UriError::Host),
        ("ws://[fe80::1%eth0]", UriError::Host),
        ("ws://[fe80::1%25]", UriError::Host),
        ("ws://[fe80::1%25a%]", UriError::Host),
        ("ws://[fe80::1%25a%4]", UriError::Host),
        ("ws://[fe80::1%25a%zz]", UriError::Host),
        ("ws://[fe80::1%25a:b]", UriError::Host),
        ("ws://[fe80::1%25a%00]", UriError::Host),
        ("ws://[fe80::1%25a%0d%0a]", UriError::Host),
        ("ws://[fe80::1%25%ff]", UriError::Host),
        ("ws://[127.0.0.1%25eth0]", UriError::Host),
        ("ws://[%25eth0]", UriError::Host),
        ("ws://fe80::1%25eth0/", UriError::Port),
        ("ws://127.0.0.1%25eth0/", UriError::Host),
        ("ws://a\\b", UriError::Host),
        ("ws://a/b c", UriError::Character(' ')),
        ("ws://a/\r\nX: y", UriError::Character('\r')),
        ("ws://a\n", UriError::Character('\n')),
        ("ws://a\t", UriError::Character('\t')),
        ("ws://a/\0", UriError::Character('\0')),
        ("ws://a/\x7f", UriError::Character('\x7f')),
        ("ws://b\u{fc}cher.example", UriError::Character('\u{fc}')),
        ("ws://u%zz@a", UriError::UserInfo),
        ("ws://u%4@a", UriError::UserInfo),
        ("ws://u@v@a", UriError::UserInfo),
        ("ws://u%3av:w@a", UriError::UserInfo),
        ("ws://u%0d%0a@a", UriError::UserInfo),
    ] {
        assert_eq!(uri.parse::<Target>().unwrap_err(), error, "{uri:?}");
    }
}

#[test]
fn rfc6874_an_address_can_have_a_zone_identifier() {
    for (uri, zone, header, shown) in [
        ("ws://[fe80::1%25eth0]/", "eth0", "[fe80::1]", "ws://[fe80::1%25eth0]/"),
        ("ws://[fe80::1%252]", "2", "[fe80::1]", "ws://[fe80::1%252]/"),
        (
            "wss://u@[fe80::1%25a-b.c_d~]:1/x?y",
            "a-b.c_d~",
            "[fe80::1]:1",
            "wss://[fe80::1%25a-b.c_d~]:1/x?y",
        ),
        (
            "ws://[fe80::1%25%61%2f%C3%a9%25]",
            "a/\u{e9}%",
            "[fe80::1]",
            "ws://[fe80::1%25a%2F%C3%A9%25]/",
        ),
    ] {
        let target: Target = uri.parse().unwrap();
        assert_eq!((target.host(), target.zone()), ("fe80::1", Some(zone)), "{uri}");
        assert_eq!(
            target.host_header(),
            header,
            "a zone identifier is local to the client, so Host has none"
        );
        assert_eq!(target.to_string(), shown);
        assert_eq!(shown.parse::<Target>().unwrap().zone(), Some(zone));
    }
    let target: Target = "ws://[fe80::1]/%25".parse().unwrap();
    assert_eq!((target.host(), target.zone()), ("fe80::1", None));
    let other: Target = "ws://[fe80::1%25eth0]/%25".parse().unwrap();
    assert_ne!(target, other);
}

#[test]
fn rfc7617_2_user_and_password_are_decoded() {
    let authorization = |uri: &str| {
        let target: Target = uri.parse().unwrap();
        target.authorization().map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(authorization("ws://a"), None);
    assert_eq!(authorization("ws://@a"), None);
    let sample = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
    assert_eq!(authorization("ws://Aladdin:open%20sesame@a").as_deref(), Some(sample));
    assert_eq!(authorization("ws://a@b").as_deref(), Some("Basic YTo="));
    assert_eq!(authorization("ws://a:b:c@d").as_deref(), Some("Basic YTpiOmM="));
}

#[test]
fn debug_output_has_no_secrets() {
    let target: Target = "ws://user:secret@a:1/x".parse().unwrap();
    assert_eq!(target.to_string(), "ws://a:1/x");
    assert!(!format!("{target:?}").contains("secret"));
    assert!(!format!("{:?}", target.authorization()).contains("Basic"));
}

/// If two parsers disagree where the userinfo ends, they connect to different hosts.
#[test]
fn rfc3986_3_2_1_userinfo_with_other_characters_is_refused() {
    for uri in ["ws://good.com\\@evil.com/", "ws://a\"b@c/", "ws://<a>@c/", "ws://a^b@c/"] {
        assert_eq!(uri.parse::<Target>(), Err(UriError::UserInfo), "{uri}");
    }
    let target: Target = "ws://us-er:p%40ss!@host/".parse().unwrap();
    assert_eq!(target.host(), "host");
}

#[test]
fn rfc3986_5_4_references_lead_from_one_target_to_another() {
    let base: Target = "ws://a/b/c/d;p?q".parse().unwrap();
    for (reference, expected) in [
        ("g", "ws://a/b/c/g"),
        ("./g", "ws://a/b/c/g"),
        ("g/", "ws://a/b/c/g/"),
        ("/g", "ws://a/g"),
        ("//g", "ws://g/"),
        ("?y", "ws://a/b/c/d;p?y"),
        ("g?y", "ws://a/b/c/g?y"),
        ("#s", "ws://a/b/c/d;p?q"),
        ("g#s", "ws://a/b/c/g"),
        (";x", "ws://a/b/c/;x"),
        ("", "ws://a/b/c/d;p?q"),
        (".", "ws://a/b/c/"),
        ("./", "ws://a/b/c/"),
        ("..", "ws://a/b/"),
        ("../g", "ws://a/b/g"),
        ("../..", "ws://a/"),
        ("../../../g", "ws://a/g"),
        ("/./g", "ws://a/g"),
        ("/../g", "ws://a/g"),
        ("g.", "ws://a/b/c/g."),
        ("./g/.", "ws://a/b/c/g/"),
        ("g;x=1/../y", "ws://a/b/c/y"),
        ("g?y/../x", "ws://a/b/c/g?y/../x"),
        ("/g?http://x/", "ws://a/g?http://x/"),
        ("HTTP://b:80/x#s", "ws://b/x"),
        ("https://b", "wss://b/"),
        ("wss://b:9/x", "wss://b:9/x"),
    ] {
        let led = base.join(reference).unwrap_or_else(|error| panic!("{reference}: {error}"));
        assert_eq!(led.to_string(), expected, "{reference}");
    }
    for (reference, error) in [
        ("ftp://b/", UriError::Scheme),
        ("javascript:x", UriError::Scheme),
        ("http:b", UriError::Scheme),
        ("http://", UriError::MissingHost),
        ("//b:0/", UriError::Port),
        ("/a b", UriError::Character(' ')),
        ("/a\r\nb", UriError::Character('\r')),
    ] {
        assert_eq!(base.join(reference), Err(error), "{reference}");
    }
}

#[test]
fn user_and_password_stay_on_their_origin() {
    let base: Target = "wss://user:secret@a/".parse().unwrap();
    let has = |reference: &str| base.join(reference).unwrap().authorization().is_some();
    assert!(has("/x") && has("https://A:443/x") && has("//a") && has("?y"));
    assert!(!has("https://b/") && !has("http://a/") && !has("wss://a:444/") && !has("//a.b"));
    let other = base.join("wss://other:one@a/").unwrap();
    assert_ne!(other.authorization(), base.authorization());
    let zoned: Target = "ws://[fe80::1%25eth0]/a".parse().unwrap();
    assert_eq!(zoned.join("b").unwrap().to_string(), "ws://[fe80::1%25eth0]/b");
}
