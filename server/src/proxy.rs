//! Who a client is behind reverse proxies: `X-Forwarded-For` counts only from proxies that the settings name,
//! and is read from the right, where they wrote. What a client writes there itself decides nothing.

use axum::http::HeaderMap;
use std::net::{IpAddr, SocketAddr};

/// Networks that the settings may name.
const NETWORKS_MAX: usize = 64;
/// Proxies one behind another; who is farther away is not looked for.
const HOPS_MAX: usize = 16;
const HEADER: &str = "x-forwarded-for";

/// Proxies whose word about their clients is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

/// An address as bits from the left, and how many an address of its family has.
fn bits_of(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let address: IpAddr = address.parse().ok()?;
        let (_, most) = bits_of(address);
        let bits = match bits {
            None => most,
            Some(text) if text.chars().all(|c| c.is_ascii_digit()) => text.parse().ok()?,
            Some(_) => return None,
        };
        (bits <= most).then_some(Self { address, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let ((mine, my_length), (other, length)) = (bits_of(self.address), bits_of(address));
        let differing = (mine ^ other).checked_shr(128_u32.saturating_sub(self.bits)).unwrap_or(0);
        my_length == length && differing == 0
    }
}

impl TrustedProxies {
    /// Reads addresses and networks (`10.0.0.0/8`, `fd00::/8`), comma separated.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let networks: Vec<Network> = parts
            .map(|part| Network::parse(part).ok_or_else(|| format!("\"{part}\" is no address or network")))
            .collect::<Result<_, _>>()?;
        if networks.len() > NETWORKS_MAX {
            return Err(format!("more than {NETWORKS_MAX} networks"));
        }
        Ok(Self(networks))
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The client: the other side of the connection, or if that is a trusted proxy, the last address that one
    /// of them saw and that is none of them. What can not be read ends the search.
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        // An IPv4 client of an IPv6 socket is an IPv4 client.
        let mut nearest = peer.ip().to_canonical();
        let mut port = peer.port();
        let lines = headers.get_all(HEADER).iter().rev();
        let mut entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for _ in 0..HOPS_MAX {
            if !self.trusts(nearest) {
                break;
            }
            let Some(address) = entries.next().and_then(parse_entry) else { break };
            (nearest, port) = (address, 0);
        }
        SocketAddr::new(nearest, port)
    }
}

/// An address, with or without a port; one of IPv6 may stand in brackets.
fn parse_entry(bytes: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &str, peer: &str, lines: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HEADER, axum::http::HeaderValue::from_bytes(line).unwrap());
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 5);
        TrustedProxies::parse(trusted).unwrap().client(peer, &headers).ip().to_string()
    }

    #[test]
    fn who_is_not_trusted_can_say_what_he_likes() {
        for trusted in ["", "10.0.0.1", "10.0.0.0/30, fd00::/8"] {
            assert_eq!(client(trusted, "192.0.2.9", &[b"198.51.100.1"]), "192.0.2.9");
            assert_eq!(client(trusted, "2001:db8::1", &[b"198.51.100.1, 10.0.0.1"]), "2001:db8::1");
        }
    }

    #[test]
    fn the_rightmost_that_is_not_trusted_is_the_client() {
        let ask = |lines: &[&[u8]]| client("10.0.0.0/8,fd00::/8", "10.0.0.1", lines);
        assert_eq!(ask(&[]), "10.0.0.1", "it says nothing");
        assert_eq!(ask(&[b"198.51.100.1"]), "198.51.100.1");
        assert_eq!(ask(&[b"203.0.113.7, 198.51.100.1"]), "198.51.100.1", "the left one is the client's own");
        assert_eq!(ask(&[b"203.0.113.7,198.51.100.1,10.2.3.4 , fd00::5"]), "198.51.100.1", "a chain");
        assert_eq!(ask(&[b"203.0.113.7", b"198.51.100.1", b"10.2.3.4"]), "198.51.100.1", "several lines");
        assert_eq!(ask(&[b"10.9.9.9, 10.2.3.4"]), "10.9.9.9", "a client within the trusted network");
    }

    #[test]
    fn garbage_ends_the_search_where_it_stands() {
        let ask = |lines: &[&[u8]]| client("10.0.0.0/8", "10.0.0.1", lines);
        for garbage in
            [&b""[..], b"unknown", b"_hidden", b"1.2.3", b"1.2.3.4.5", b"1.2.3.4/8", b"\xff\xfe", b"::g"]
        {
            assert_eq!(ask(&[garbage]), "10.0.0.1");
            // A client can not hide behind garbage that it wrote itself: its proxy wrote to the right of it.
            assert_eq!(ask(&[&[garbage, b", 198.51.100.1"].concat()]), "198.51.100.1");
            assert_eq!(ask(&[&[garbage, b", 10.0.0.2"].concat()]), "10.0.0.2");
            assert_eq!(ask(&[&[b"198.51.100.1,", garbage].concat()]), "10.0.0.1");
        }
    }

    #[test]
    fn ports_and_ipv6_are_understood() {
        let ask = |entry: &str| client("10.0.0.1, ::1", "10.0.0.1", &[entry.as_bytes()]);
        assert_eq!(ask("198.51.100.1:4711"), "198.51.100.1");
        assert_eq!(ask("2001:db8::7"), "2001:db8::7");
        assert_eq!(ask("[2001:db8::7]"), "2001:db8::7");
        assert_eq!(ask("[2001:db8::7]:4711"), "2001:db8::7");
        assert_eq!(ask("198.51.100.1, [::1]:80"), "198.51.100.1");
        assert_eq!(ask("::ffff:198.51.100.1"), "198.51.100.1", "one client in two spellings is one");
        assert_eq!(client("10.0.0.1", "::ffff:10.0.0.1", &[b"198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("", "::ffff:192.0.2.9", &[]), "192.0.2.9");
    }

    #[test]
    fn only_so_many_are_looked_at() {
        let chain = |hops: usize| format!("198.51.100.1{}", ", 10.0.0.2".repeat(hops));
        let ask = |text: &str| client("10.0.0.0/8", "10.0.0.1", &[text.as_bytes()]);
        assert_eq!(ask(&chain(HOPS_MAX - 1)), "198.51.100.1");
        assert_eq!(ask(&chain(HOPS_MAX)), "10.0.0.2");
        let flood = "203.0.113.7, ".repeat(10_000) + "198.51.100.1";
        assert_eq!(ask(&flood), "198.51.100.1");
    }

    #[test]
    fn networks_have_edges() {
        let contains = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("10.1.2.0/23", "10.1.3.255") && !contains("10.1.2.0/23", "10.1.4.0"));
        assert!(contains("0.0.0.0/0", "203.0.113.7") && !contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1") && !contains("::/0", "203.0.113.7"));
        assert!(contains("192.0.2.1", "192.0.2.1") && !contains("192.0.2.1", "192.0.2.0"));
        assert!(contains("fd00::/8", "fdff::1") && !contains("fd00::/8", "fe00::1"));
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "example.org", "*"]
        {
            assert!(TrustedProxies::parse(wrong).is_err(), "{wrong}");
        }
        assert!(TrustedProxies::parse(&vec!["10.0.0.1"; NETWORKS_MAX + 1].join(",")).is_err());
        assert_eq!(TrustedProxies::parse(" , "), Ok(TrustedProxies::default()));
    }
}
