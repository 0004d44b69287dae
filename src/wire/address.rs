//! What an IP address tells of where it can be reached from.

use std::net::IpAddr;

/// An address of a home or company network (RFC 1918, RFC 4193, RFC 6598), of this machine or of one link.
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let is_shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_provider_can_reach_are_private() {
        for private in
            ["10.1.2.3", "192.168.0.9", "100.64.0.1", "127.0.0.1", "169.254.7.7", "fd00::1", "::1", "fe80::1"]
        {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["192.0.2.1", "100.128.0.1", "2001:db8::1"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }
}
