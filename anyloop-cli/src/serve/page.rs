//! The demo page at `/`: one document that loads nothing else.

use std::sync::LazyLock;

use anyloop::http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use anyloop::prelude::{Body, Request};
use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");
const PAGE: &str = concat!(
    include_str!("page/head.html"),
    "<style>",
    include_str!("page/style.css"),
    "</style>\n\n",
    include_str!("page/body.html"),
    "\n<script>",
    include_str!("page/script.js"),
    "</script>\n",
);

/// The beginning of the Content Security Policy: it allows the page's own style and script. What the page may connect
/// to follows.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; img-src data:; \
         style-src '{}'; script-src '{}'; connect-src 'self'",
        source(STYLE),
        source(SCRIPT)
    )
});

const FIELDS: [(HeaderName, &str); 7] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::CACHE_CONTROL, "no-cache"), // another version of the command may serve the same address
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // An isolated page has a clock with steps of 5 µs instead of 100 µs, for the latency.
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The page, as the response to GET or HEAD.
pub(super) fn respond(request: &Request) -> Response<Body> {
    let mut response = Response::new(Body::from(PAGE));
    let headers = response.headers_mut();
    headers.extend(FIELDS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    if let Ok(policy) = HeaderValue::try_from(policy(request.headers())) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The Content Security Policy for a page of this host. For some browsers `'self'` does not include
/// WebSockets, so they are named too.
fn policy(headers: &HeaderMap) -> String {
    let is_safe = |host: &&str| {
        host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte))
    };
    match headers.get(header::HOST).and_then(|host| host.to_str().ok()).filter(is_safe) {
        Some(host) if !host.is_empty() => format!("{} ws://{host} wss://{host}", *POLICY),
        _ => POLICY.clone(), // an IPv6 address, which a policy cannot name
    }
}

/// The hash of an inline element, as a policy names it.
fn source(element: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(element)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_has_no_foreign_parts() {
        assert!(PAGE.len() < 40_000, "{} bytes", PAGE.len());
        for foreign in ["src=", "@import", "url(", "https://", "//cdn", " style=", " onclick="] {
            assert!(!PAGE.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_policy_names_the_host_only_if_that_adds_nothing_else() {
        let of = |host: &str| {
            let host = HeaderValue::from_str(host).expect("the value is valid");
            policy(&HeaderMap::from_iter([(header::HOST, host)]))
        };
        assert!(of("a.example:9002").ends_with("'self' ws://a.example:9002 wss://a.example:9002"));
        for host in ["", "[::1]:9002", "a; script-src *", "a *", "a,b", "*", "a'b"] {
            assert!(of(host).ends_with("connect-src 'self'"), "{host}");
        }
    }
}
