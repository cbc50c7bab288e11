//! Which addresses messages may go to: those of the public internet, and those that the operator allows.
//!
//! An endpoint is whatever a tenant names, so without this it could have the service talk to its own machine and network (server
//! side request forgery).
//!
//! Source: IANA, "IPv4 Special-Purpose Address Registry" and "IPv6 Special-Purpose Address Registry".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::EndpointError;

/// IPv4 addresses that are not public: the first one, and how many leading bits they share.
const PRIVATE_V4: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),       // this network, unspecified
    (Ipv4Addr::new(10, 0, 0, 0), 8),      // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),   // carriers' translation
    (Ipv4Addr::new(127, 0, 0, 0), 8),     // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),  // link-local, metadata of clouds
    (Ipv4Addr::new(172, 16, 0, 0), 12),   // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),    // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),  // relays of 6to4
    (Ipv4Addr::new(192, 168, 0, 0), 16),  // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),     // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),     // reserved, broadcast
];

/// The IPv6 addresses that are given to hosts at all.
const GLOBAL_V6: Range = Range { first: IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0)), bits: 3 };

/// Those among them that are not public.
const PRIVATE_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments: Teredo, benchmarking, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// The addresses that share their first `bits` with `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: IpAddr,
    bits: u8,
}

impl Range {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let differing = first.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let differing = first.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

/// The address that packets to `address` end at: what IPv4-mapped and NAT64 forms carry.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into(),
        _ => address.to_canonical(),
    }
}

/// Whether `address`, in the form that [`meant`] gives it, is one of the public internet.
fn is_public(address: IpAddr) -> bool {
    let is_in = |first: IpAddr, bits: u8| Range { first, bits }.contains(address);
    match address {
        IpAddr::V4(_) => !PRIVATE_V4.iter().any(|&(first, bits)| is_in(first.into(), bits)),
        IpAddr::V6(_) => {
            GLOBAL_V6.contains(address) && !PRIVATE_V6.iter().any(|&(first, bits)| is_in(first.into(), bits))
        }
    }
}

/// A private endpoint that messages may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// A host by its name, in lower case, whatever address it has.
    Host(String),
    /// Addresses.
    Range(Range),
}

impl FromStr for Allowed {
    type Err = String;

    /// Reads a host, an address, or a range such as `10.0.0.0/8`.
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is not a host, an address or a range such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| fault())?)),
            None => (text, None),
        };
        match address.parse::<IpAddr>() {
            Ok(first) => {
                let all = if first.is_ipv4() { 32 } else { 128 };
                let bits = bits.unwrap_or(all);
                if bits > all { Err(fault()) } else { Ok(Self::Range(Range { first, bits })) }
            }
            Err(_) => {
                let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                let is_name = !text.is_empty() && text.chars().all(is_of_name);
                if is_name { Ok(Self::Host(plain(text))) } else { Err(fault()) }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The private endpoints that messages may go to; by default none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Vec<Allowed>);

impl From<Vec<Allowed>> for AllowList {
    fn from(allowed: Vec<Allowed>) -> Self {
        Self(allowed)
    }
}

impl AllowList {
    /// Says whether messages may go to `address`, which is one of `host`.
    ///
    /// # Errors
    /// [`EndpointError::Private`].
    pub fn check(&self, host: &str, address: IpAddr) -> Result<(), EndpointError> {
        let address = meant(address);
        let host = plain(host);
        let is_allowed = self.0.iter().any(|allowed| match allowed {
            Allowed::Host(name) => *name == host,
            Allowed::Range(range) => range.contains(address),
        });
        if is_allowed || is_public(address) { Ok(()) } else { Err(EndpointError::Private { address }) }
    }
}

/// A host's name as it is compared.
fn plain(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(allowed: &[&str], host: &str, address: &str) -> bool {
        let allowed: Vec<Allowed> = allowed.iter().map(|text| text.parse().unwrap()).collect();
        AllowList::from(allowed).check(host, address.parse().unwrap()).is_ok()
    }

    #[test]
    fn the_first_and_the_last_address_of_every_private_range_are_refused_and_their_neighbours_are_not() {
        // First and last of the range; the public neighbours on both sides, where there are any.
        let ranges = [
            ("0.0.0.0", "0.255.255.255", None, Some("1.0.0.0")),
            ("10.0.0.0", "10.255.255.255", Some("9.255.255.255"), Some("11.0.0.0")),
            ("100.64.0.0", "100.127.255.255", Some("100.63.255.255"), Some("100.128.0.0")),
            ("127.0.0.0", "127.255.255.255", Some("126.255.255.255"), Some("128.0.0.0")),
            ("169.254.0.0", "169.254.255.255", Some("169.253.255.255"), Some("169.255.0.0")),
            ("172.16.0.0", "172.31.255.255", Some("172.15.255.255"), Some("172.32.0.0")),
            ("192.0.0.0", "192.0.0.255", Some("191.255.255.255"), Some("192.0.1.0")),
            ("192.0.2.0", "192.0.2.255", Some("192.0.1.255"), Some("192.0.3.0")),
            ("192.88.99.0", "192.88.99.255", Some("192.88.98.255"), Some("192.88.100.0")),
            ("192.168.0.0", "192.168.255.255", Some("192.167.255.255"), Some("192.169.0.0")),
            ("198.18.0.0", "198.19.255.255", Some("198.17.255.255"), Some("198.20.0.0")),
            ("198.51.100.0", "198.51.100.255", Some("198.51.99.255"), Some("198.51.101.0")),
            ("203.0.113.0", "203.0.113.255", Some("203.0.112.255"), Some("203.0.114.0")),
            ("224.0.0.0", "239.255.255.255", Some("223.255.255.255"), None),
            ("240.0.0.0", "255.255.255.255", None, None),
            ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, Some("2000::")),
            ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Some("2000:ffff::"), Some("2001:200::")),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:db7:ffff::"), Some("2001:db9::")),
            ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:ffff::"), Some("2003::")),
            ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", Some("3ffe:ffff::"), Some("3fff:1000::")),
            ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("3fff:ffff::"), None),
        ];
        for (first, last, before, after) in ranges {
            for private in [first, last] {
                assert!(!checked(&[], "example.com", private), "{private}");
            }
            for public in [before, after].into_iter().flatten() {
                assert!(checked(&[], "example.com", public), "{public}");
            }
        }
    }

    #[test]
    fn every_kind_of_private_address_is_refused() {
        for address in [
            "::",               // unspecified
            "::1",              // loopback
            "::7f00:1",         // IPv4-compatible
            "::ffff:127.0.0.1", // IPv4-mapped
            "::ffff:10.1.2.3",
            "::ffff:0:a00:1",     // IPv4-translated
            "64:ff9b::127.0.0.1", // NAT64
            "64:ff9b::10.1.2.3",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::8.8.8.8", // NAT64 of a network of one's own
            "100::1",             // discard
            "2001::1",            // Teredo
            "2001:2::1",          // benchmarking
            "2001:10::1",         // ORCHID
            "2001:20::1",
            "2002:7f00:1::", // 6to4
            "5f00::1",       // segment routing
            "fc00::1",       // unique-local
            "fd12:3456::1",
            "fe80::1", // link-local
            "fec0::1", // site-local
            "ff02::1", // multicast
            "169.254.169.254",
            "255.255.255.255",
        ] {
            assert!(!checked(&[], "example.com", address), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_taken_in_every_form() {
        for address in
            ["8.8.8.8", "1.1.1.1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2606:4700:4700::1111", "2a00:1450:4001::1"]
        {
            assert!(checked(&[], "example.com", address), "{address}");
        }
    }

    #[test]
    fn what_is_allowed_is_allowed_alone() {
        let cases: [(&[&str], &str, &str, bool); 12] = [
            (&["127.0.0.1"], "x", "127.0.0.1", true),
            (&["127.0.0.1"], "x", "127.0.0.2", false),
            (&["127.0.0.1"], "x", "::ffff:127.0.0.1", true),
            (&["10.0.0.0/8"], "x", "10.255.0.1", true),
            (&["10.0.0.0/8"], "x", "11.0.0.1", true), // public
            (&["10.0.0.0/8"], "x", "192.168.0.1", false),
            (&["fd00::/8"], "x", "fd12::1", true),
            (&["fd00::/8"], "x", "10.0.0.1", false),
            (&["Hooks.Internal"], "hooks.internal.", "10.0.0.1", true),
            (&["hooks.internal"], "other.internal", "10.0.0.1", false),
            (&["hooks.internal"], "a.hooks.internal", "10.0.0.1", false),
            (&["0.0.0.0/0"], "x", "10.0.0.1", true),
        ];
        for (allowed, host, address, expected) in cases {
            assert_eq!(checked(allowed, host, address), expected, "{allowed:?} {host} {address}");
        }
    }

    #[test]
    fn what_cannot_be_allowed_is_named() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "::/129", "a b", "http://host", "host/8", "*"] {
            let fault = text.parse::<Allowed>().expect_err(text);
            assert!(fault.contains(&format!("{text:?}")), "{fault}");
        }
    }
}
