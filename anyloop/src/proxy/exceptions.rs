//! Hosts that are connected to without a proxy.

use std::net::IpAddr;

/// A list of hosts, as curl reads `no_proxy`. Invalid entries are ignored.
#[derive(Clone, Debug, Default)]
pub(super) struct Exceptions(Vec<Entry>);

#[derive(Clone, Debug)]
enum Entry {
    All,
    /// A domain and all below it, in lower case and without dots around it.
    Domain(String),
    /// The addresses that have the same first bits as this one; the number of these bits.
    Network(IpAddr, u32),
}

impl Exceptions {
    /// Parses entries that commas or white space separate.
    pub(super) fn parse(list: &str) -> Self {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace());
        Self(entries.filter(|entry| !entry.is_empty()).filter_map(Entry::parse).collect())
    }

    /// Whether the host, a name or an address without brackets, is in the list.
    pub(super) fn contains(&self, host: &str) -> bool {
        let address = host.parse::<IpAddr>().ok();
        self.0.iter().any(|entry| match (entry, address) {
            (Entry::All, _) => true,
            (Entry::Domain(domain), None) => is_in_domain(host, domain),
            (Entry::Network(network, bits), Some(address)) => {
                is_in_network(address, *network, *bits)
            }
            (Entry::Domain(_), Some(_)) | (Entry::Network(..), None) => false,
        })
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match (bare.unwrap_or(address).parse::<IpAddr>(), bits) {
            (Ok(address), bits) => {
                let max_bits = if address.is_ipv4() { 32 } else { 128 };
                let bits = bits.map_or(Some(max_bits), |bits| bits.parse().ok())?;
                (bits <= max_bits).then_some(Self::Network(address, bits))
            }
            (Err(_), Some(_)) => None,
            (Err(_), None) => {
                let domain = text.strip_prefix('.').unwrap_or(text);
                let domain = domain.strip_suffix('.').unwrap_or(domain);
                (!domain.is_empty()).then(|| Self::Domain(domain.to_ascii_lowercase()))
            }
        }
    }
}

/// Whether the name is the domain or below it, by whole labels.
fn is_in_domain(name: &str, domain: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    match name.strip_suffix(domain) {
        Some("") => true,
        Some(labels) => labels.ends_with('.'),
        None => false,
    }
}

/// Whether both have the same family, and the same first `bits`. An IPv4-mapped `address` counts as IPv4.
fn is_in_network(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address.to_canonical(), network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_lists() {
        // The list, hosts in it, and hosts that are not.
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("", &[], &["a", "127.0.0.1"]),
            ("*", &["a", "127.0.0.1", "::1"], &[]),
            ("a.example,*", &["b"], &[]),
            ("localhost", &["localhost", "LOCALHOST", "localhost."], &["local", "127.0.0.1"]),
            ("example.com", &["example.com", "www.example.com"], &["notexample.com", "com"]),
            (".example.com", &["example.com", "a.b.example.com"], &["anexample.com"]),
            ("Example.COM.", &["www.EXAMPLE.com"], &["example.com.evil"]),
            (
                " a.example , b.example\tc.example ",
                &["a.example", "b.example", "c.example"],
                &["d"],
            ),
            (",,", &[], &["a"]),
            (".", &[], &["a", "a."]),
            ("192.168.0.1", &["192.168.0.1"], &["192.168.0.2", "192.168.0.1.example", "168.0.1"]),
            ("192.168.0.0/16", &["192.168.3.4"], &["192.169.0.1", "::1", "a"]),
            ("10.0.0.1/0", &["192.0.2.1"], &["::1"]),
            ("10.0.0.1/32", &["10.0.0.1"], &["10.0.0.2"]),
            ("10.0.0.1/33,10.0.0.2/x,a/8", &[], &["10.0.0.1", "10.0.0.2", "a", "a/8"]),
            ("::1", &["::1", "0:0:0:0:0:0:0:1"], &["::2", "127.0.0.1"]),
            ("[::1]", &["::1"], &["::2"]),
            ("2001:db8::/32", &["2001:db8:1::1"], &["2001:db9::1"]),
            ("fe80::/10", &["febf::1"], &["fec0::1"]),
        ];
        for (list, inside, outside) in cases {
            let exceptions = Exceptions::parse(list);
            inside.iter().for_each(|host| assert!(exceptions.contains(host), "{host} in {list:?}"));
            outside
                .iter()
                .for_each(|host| assert!(!exceptions.contains(host), "{host} in {list:?}"));
        }
    }
}
