//! Which connections use which proxy.

use std::env;
use std::ffi::OsString;
use std::sync::Arc;

use anyloop_proto::handshake::Target;

use super::exceptions::Exceptions;
use super::{Proxy, ProxyError};

/// Which proxy a connection uses, if any: one for `ws`, one for `wss`, and the hosts that need none.
///
/// ```
/// use anyloop::net::{Proxy, ProxyRules};
/// use anyloop::prelude::*;
///
/// let rules = ProxyRules::from(Proxy::http("proxy.example", 3128)).no_proxy("localhost,10.0.0.0/8,.internal");
/// let proxy_for = |uri: &str| rules.proxy_for(&uri.parse().unwrap()).map(ToString::to_string);
/// assert_eq!(proxy_for("wss://chat.example/").as_deref(), Some("http://proxy.example:3128"));
/// assert_eq!(proxy_for("ws://10.1.2.3/"), None);
/// assert_eq!(proxy_for("wss://chat.internal/"), None);
///
/// let config = ClientConfig::new().proxy(rules);
/// # _ = config;
/// ```
#[derive(Clone, Debug, Default)]
pub struct ProxyRules {
    ws: Option<Arc<Proxy>>,
    wss: Option<Arc<Proxy>>,
    exceptions: Exceptions,
}

impl ProxyRules {
    /// Rules that use no proxy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The rules of the environment, as curl reads it. A variable that is not set, or empty, is skipped.
    ///
    /// | for | variables, the first that is set |
    /// |---|---|
    /// | `ws` | `ws_proxy`, `WS_PROXY`, `http_proxy`, `all_proxy`, `ALL_PROXY` |
    /// | `wss` | `wss_proxy`, `WSS_PROXY`, `https_proxy`, `HTTPS_PROXY`, `all_proxy`, `ALL_PROXY` |
    /// | [`no_proxy`](Self::no_proxy) | `no_proxy`, `NO_PROXY` |
    ///
    /// `HTTP_PROXY` is not read: in a CGI program, whoever sends a request can set it.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Variable`].
    pub fn from_env() -> Result<Self, ProxyError> {
        Self::from_variables(|name| env::var_os(name))
    }

    /// As [`from_env`](Self::from_env), with `variable(name)` in place of the environment of the process.
    ///
    /// ```
    /// use anyloop::net::ProxyRules;
    ///
    /// let rules = ProxyRules::from_variables(|name| match name {
    ///     "https_proxy" => Some("http://proxy.example:3128".into()),
    ///     _ => None,
    /// })?;
    /// assert!(rules.proxy_for(&"wss://chat.example/".parse()?).is_some());
    /// assert!(rules.proxy_for(&"ws://chat.example/".parse()?).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ProxyError::Variable`].
    pub fn from_variables(
        mut variable: impl FnMut(&str) -> Option<OsString>,
    ) -> Result<Self, ProxyError> {
        let mut first = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                let value = variable(name).filter(|value| !value.is_empty())?;
                Some((*name, value.to_string_lossy().into_owned()))
            })
        };
        let parse = |(name, value): (&str, String)| {
            let proxy = Proxy::parse(&value).map_err(|source| ProxyError::Variable {
                name: name.to_string(),
                source: Box::new(source),
            });
            proxy.map(Arc::new)
        };
        let ws = ["ws_proxy", "WS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"];
        let wss =
            ["wss_proxy", "WSS_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
        Ok(Self {
            ws: first(&ws).map(parse).transpose()?,
            wss: first(&wss).map(parse).transpose()?,
            exceptions: first(&["no_proxy", "NO_PROXY"])
                .map(|(_, list)| Exceptions::parse(&list))
                .unwrap_or_default(),
        })
    }

    /// Sets the proxy for `ws` URIs; `None` for none.
    #[must_use]
    pub fn ws(mut self, proxy: impl Into<Option<Proxy>>) -> Self {
        self.ws = proxy.into().map(Arc::new);
        self
    }

    /// Sets the proxy for `wss` URIs; `None` for none.
    #[must_use]
    pub fn wss(mut self, proxy: impl Into<Option<Proxy>>) -> Self {
        self.wss = proxy.into().map(Arc::new);
        self
    }

    /// Sets the hosts that are connected to without a proxy, as curl reads them: entries with commas or spaces between
    /// them. An entry is a domain, which includes all below it, with or without a leading dot; an IP address; a
    /// network, such as `10.0.0.0/8`; or `*` for all hosts, which curl reads only if it is the whole list. IPv6 may be
    /// in brackets. Names are not looked up for this.
    #[must_use]
    pub fn no_proxy(mut self, list: &str) -> Self {
        self.exceptions = Exceptions::parse(list);
        self
    }

    /// The proxy for connections to `target`; `None` if they use none.
    #[must_use]
    pub fn proxy_for(&self, target: &Target) -> Option<&Proxy> {
        self.shared_proxy_for(target).map(|proxy| &**proxy)
    }

    pub(crate) fn shared_proxy_for(&self, target: &Target) -> Option<&Arc<Proxy>> {
        let proxy = if target.secure() { &self.wss } else { &self.ws };
        proxy.as_ref().filter(|_| !self.exceptions.contains(target.host()))
    }
}

/// One proxy for everything.
impl From<Proxy> for ProxyRules {
    fn from(proxy: Proxy) -> Self {
        let proxy = Arc::new(proxy);
        Self { ws: Some(proxy.clone()), wss: Some(proxy), exceptions: Exceptions::default() }
    }
}

/// One proxy for everything, or none.
impl From<Option<Proxy>> for ProxyRules {
    fn from(proxy: Option<Proxy>) -> Self {
        proxy.map(Self::from).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(variables: &[(&str, &str)]) -> Result<ProxyRules, ProxyError> {
        ProxyRules::from_variables(|name| {
            variables.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into())
        })
    }

    /// The proxies for `ws` and `wss`.
    #[track_caller]
    fn proxies(variables: &[(&str, &str)]) -> [Option<String>; 2] {
        let rules = rules(variables).unwrap();
        ["ws://chat.example/", "wss://chat.example/"]
            .map(|uri| rules.proxy_for(&uri.parse().unwrap()).map(|proxy| proxy.host().to_string()))
    }

    #[test]
    fn the_environment_is_read_as_curl_reads_it() {
        let (a, b) = (Some("a".to_string()), Some("b".to_string()));
        assert_eq!(proxies(&[]), [None, None]);
        assert_eq!(proxies(&[("http_proxy", "a")]), [a.clone(), None]);
        assert_eq!(proxies(&[("HTTP_PROXY", "a")]), [None, None]);
        assert_eq!(proxies(&[("https_proxy", "a")]), [None, a.clone()]);
        assert_eq!(proxies(&[("HTTPS_PROXY", "a"), ("https_proxy", "b")]), [None, b.clone()]);
        assert_eq!(proxies(&[("HTTPS_PROXY", "a"), ("https_proxy", "")]), [None, a.clone()]);
        assert_eq!(proxies(&[("all_proxy", "a"), ("http_proxy", "b")]), [b.clone(), a.clone()]);
        assert_eq!(proxies(&[("ALL_PROXY", "socks5h://a:1")]), [a.clone(), a.clone()]);
        assert_eq!(proxies(&[("WS_PROXY", "a"), ("http_proxy", "b")]), [a.clone(), None]);
        assert_eq!(proxies(&[("wss_proxy", "a"), ("https_proxy", "b")]), [None, a.clone()]);
        let but = |list| proxies(&[("all_proxy", "a"), ("NO_PROXY", list)]);
        assert_eq!(but("example"), [None, None]);
        assert_eq!(but("ample"), [a.clone(), a.clone()]);
        let both = [("all_proxy", "a"), ("no_proxy", "other"), ("NO_PROXY", "*")];
        assert_eq!(proxies(&both), [a.clone(), a]);
    }

    #[test]
    fn an_invalid_variable_is_named() {
        let error = rules(&[("https_proxy", "http://user:secret@:1")]).unwrap_err();
        assert!(matches!(&error, ProxyError::Variable { name, .. } if name == "https_proxy"));
        assert!(!format!("{error:?}{error}").contains("secret"));
    }
}
