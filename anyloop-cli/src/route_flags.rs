//! The options of the commands that connect for the way to the server: proxies, and addresses of hosts.

use std::env;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyloop::endpoint::HandlerFactory;
use anyloop::net::{Client, Proxy, ProxyError, ProxyRules};
use anyloop::tls::ClientTls;

use crate::error::{CliError, chain};

#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// Connect through this proxy: [SCHEME://][USER:PASSWORD@]HOST[:PORT], where SCHEME is http, https,
    /// socks5, or socks5h if the proxy looks names up. "" is no proxy.
    ///
    /// By default that of the environment, as curl reads it: http_proxy for ws://, https_proxy for
    /// wss://, or all_proxy. The port is 1080 by default, and 443 for https.
    #[arg(long, short = 'x', value_name = "URL")]
    proxy: Option<String>,
    /// Connect to these hosts without a proxy: domains, addresses and networks, with commas between
    /// them, or "*". Replaces the environment's no_proxy.
    #[arg(long, value_name = "LIST")]
    noproxy: Option<String>,
    /// For an https:// proxy, of --proxy or of the environment: trust the authorities in this file, too (PEM;
    /// repeatable).
    #[arg(long, value_name = "FILE")]
    proxy_ca: Vec<PathBuf>,
    /// Use these addresses for HOST, or any host if it is "*", with PORT, in place of looking it up
    /// (repeatable; IPv6 may be in brackets).
    #[arg(long, value_name = "HOST:PORT:ADDR[,ADDR]")]
    resolve: Vec<Resolve>,
}

/// The largest number of redirects.
const REDIRECTS: u32 = 10;

#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Redirects {
    /// Follow redirects, up to 10, and never from wss:// to ws://. Another scheme, host or port does not get
    /// the fields Authorization and Cookie.
    #[arg(long, short = 'L')]
    location: bool,
}

impl Redirects {
    /// The largest number of redirects that are followed.
    pub(crate) const fn most(&self) -> u32 {
        if self.location { REDIRECTS } else { 0 }
    }
}

impl Options {
    /// Which connections use which proxy.
    pub(crate) fn proxies(&self) -> Result<ProxyRules, CliError> {
        let (ws, wss) = match self.proxy.as_deref() {
            None => proxies_of_environment()?,
            Some("") => (None, None),
            Some(url) => {
                let proxy = parse(url)?;
                (Some(proxy.clone()), Some(proxy))
            }
        };
        let tls = self.tls()?;
        let trusting = |proxy: Proxy| match &tls {
            Some(tls) => proxy.with_tls(tls.clone()),
            None => proxy,
        };
        let rules = exceptions_of_environment()?;
        let rules = rules.ws(ws.map(trusting)).wss(wss.map(trusting));
        Ok(match &self.noproxy {
            Some(list) => rules.no_proxy(list),
            None => rules,
        })
    }

    /// The addresses that replace look-ups.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides(self.resolve.as_slice().into())
    }

    /// What verifies an `https` proxy, if `--proxy-ca` is given.
    fn tls(&self) -> Result<Option<ClientTls>, CliError> {
        if self.proxy_ca.is_empty() {
            return Ok(None);
        }
        let mut builder = ClientTls::builder();
        for path in &self.proxy_ca {
            builder = builder.ca_file(path);
        }
        builder.build().map(Some).map_err(|error| CliError::tls(&error))
    }
}

/// Not a value parser of clap, whose error would repeat the URL: a URL may have a password.
fn parse(url: &str) -> Result<Proxy, CliError> {
    Proxy::parse(url).map_err(|error| CliError::usage(format!("--proxy: {}", chain(&error))))
}

/// The proxies of the environment for `ws` and for `wss`.
fn proxies_of_environment() -> Result<(Option<Proxy>, Option<Proxy>), CliError> {
    let rules = ProxyRules::from_variables(|name| match name {
        "no_proxy" | "NO_PROXY" => None,
        _ => env::var_os(name),
    });
    let rules = rules.map_err(|error| CliError::usage(chain(&error)))?;
    let proxy = |uri: &str| uri.parse().ok().and_then(|target| rules.proxy_for(&target).cloned());
    Ok((proxy("ws://any.example/"), proxy("wss://any.example/")))
}

/// Rules without proxies. The environment's exceptions hold for `--proxy`, too.
fn exceptions_of_environment() -> Result<ProxyRules, ProxyError> {
    ProxyRules::from_variables(|name| match name {
        "no_proxy" | "NO_PROXY" => env::var_os(name),
        _ => None,
    })
}

/// Addresses that replace look-ups.
#[derive(Clone)]
pub(crate) struct Overrides(Arc<[Resolve]>);

impl Overrides {
    /// Lets the client use them.
    pub(crate) fn apply<F: HandlerFactory>(&self, client: &mut Client<F>) {
        if !self.0.is_empty() {
            let overrides = self.clone();
            client.set_look_up(move |host, port| overrides.look_up(host, port));
        }
    }

    fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self.0.iter().find(|resolve| resolve.is_for(host, port)) {
            Some(resolve) => {
                Ok(resolve.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
            }
            None => Ok((host, port).to_socket_addrs()?.collect()),
        }
    }
}

/// The addresses of a host, for one port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Resolve {
    /// The host; `None` for any.
    host: Option<String>,
    port: u16,
    addresses: Vec<IpAddr>,
}

impl Resolve {
    fn is_for(&self, host: &str, port: u16) -> bool {
        let is_host = self.host.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(host));
        is_host && self.port == port
    }
}

impl FromStr for Resolve {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "not of the form HOST:PORT:ADDR[,ADDR]";

        let text = text.strip_prefix('+').unwrap_or(text); // curl's entries that time out
        let (host, rest) = text.split_once(':').ok_or(FORM)?;
        let (port, addresses) = rest.split_once(':').ok_or(FORM)?;
        if host.is_empty() || host.starts_with('[') {
            return Err("HOST is a name or \"*\": an address is not looked up");
        }
        let address = |text: &str| {
            let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
            inner.unwrap_or(text).parse().map_err(|_| "ADDR is not an IP address")
        };
        Ok(Self {
            host: (host != "*").then(|| host.to_string()),
            port: port.parse().map_err(|_| "PORT is not a number from 0 to 65535")?,
            addresses: addresses.split(',').map(address).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_hosts() {
        let parsed = |text: &str| text.parse::<Resolve>();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let resolve = parsed("Chat.example:443:192.0.2.1,[2001:db8::1]").unwrap();
        assert_eq!(resolve.addresses, [address("192.0.2.1"), address("2001:db8::1")]);
        assert!(resolve.is_for("chat.EXAMPLE", 443));
        assert!(!resolve.is_for("chat.example", 80) && !resolve.is_for("example", 443));
        let any = parsed("+*:80:::1").unwrap();
        assert!(any.is_for("whoever", 80) && !any.is_for("whoever", 443));
        assert_eq!(any.addresses, [address("::1")]);
        for text in [
            "",
            "a",
            "a:80",
            "a:80:",
            "a:x:::1",
            "a:80:b",
            "[::1]:80:::1",
            ":80:::1",
            "a:80:1.2.3.4,",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
