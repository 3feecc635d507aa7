//! Which address is bound, which one clients are told, and whether the second leads to the first.
//!
//! | bound | `brokerIP1` | |
//! |---|---|---|
//! | one address | none, or the same | clients are told the bound address |
//! | a loopback address | another one | refused: nothing but this host reaches a loopback address |
//! | one address | another one of this host | refused: nothing listens there |
//! | one address | one that is not of this host | accepted: a translation of addresses may lead here |
//! | 0.0.0.0 or :: | none | clients are told the first address of this host that is not loopback |
//! | 0.0.0.0 or :: | any of the same family | accepted: it is this host's, or a translation leads here |

use std::net::IpAddr;

/// What the host and the settings say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses<'a> {
    pub bind: IpAddr,
    pub broker_ip: Option<IpAddr>,
    /// All of this host, in the order of its interfaces.
    pub of_host: &'a [IpAddr],
}

impl Addresses<'_> {
    /// What clients are told, or why that would not lead here.
    pub fn advertised(self) -> Result<IpAddr, String> {
        match self.broker_ip {
            None => Ok(self.unasked()),
            Some(told) => self.check(told).map(|()| told),
        }
    }

    /// Without `brokerIP1`: what is bound, or the host's own idea of its address.
    fn unasked(self) -> IpAddr {
        if !self.bind.is_unspecified() {
            return self.bind;
        }
        let fits = |address: &&IpAddr| self.bind.is_ipv6() || address.is_ipv4();
        let is_seen = |address: &&IpAddr| !address.is_loopback() && !is_link_local(**address);
        let mut seen = self.of_host.iter().filter(fits).filter(is_seen);
        // With both families IPv4 first: most clients know nothing else.
        let first = seen
            .clone()
            .find(|address| address.is_ipv4())
            .or_else(|| seen.next());
        first.copied().unwrap_or(match self.bind {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        })
    }

    fn check(self, told: IpAddr) -> Result<(), String> {
        let bind = self.bind;
        if told.is_unspecified() || told.is_multicast() {
            return Err(format!("{told} is no address that a client can connect to"));
        }
        if told == bind {
            return Ok(());
        }
        if bind.is_unspecified() {
            // The IPv6 socket takes IPv4 too.
            return if told.is_ipv4() || bind.is_ipv6() {
                Ok(())
            } else {
                Err(format!(
                    "only IPv4 is bound ({bind}), and {told} is an IPv6 address"
                ))
            };
        }
        if bind.is_loopback() {
            return Err(format!(
                "only {bind} is bound, which nothing outside this host reaches"
            ));
        }
        if told.is_loopback() || self.of_host.contains(&told) {
            return Err(format!(
                "only {bind} is bound, and {told} is another address of this host"
            ));
        }
        Ok(())
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(bind: &str, told: &str, of_host: &[&str]) -> Result<String, String> {
        let of_host: Vec<_> = of_host
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        let addresses = Addresses {
            bind: bind.parse().unwrap(),
            broker_ip: told.parse().ok(),
            of_host: &of_host,
        };
        addresses.advertised().map(|address| address.to_string())
    }

    const HOST: &[&str] = &[
        "127.0.0.1",
        "169.254.3.4",
        "fe80::1",
        "2001:db8::7",
        "10.0.0.5",
        "10.1.0.5",
        "::1",
    ];

    #[test]
    fn without_broker_ip_clients_are_told_what_is_bound() {
        assert_eq!(ask("127.0.0.1", "", HOST).unwrap(), "127.0.0.1");
        assert_eq!(ask("10.1.0.5", "", HOST).unwrap(), "10.1.0.5");
        assert_eq!(ask("0.0.0.0", "", HOST).unwrap(), "10.0.0.5");
        assert_eq!(ask("::", "", HOST).unwrap(), "10.0.0.5");
        assert_eq!(
            ask("::", "", &["::1", "fe80::1", "2001:db8::7"]).unwrap(),
            "2001:db8::7"
        );
        assert_eq!(
            ask("0.0.0.0", "", &["127.0.0.1", "2001:db8::7"]).unwrap(),
            "127.0.0.1"
        );
        assert_eq!(ask("::", "", &[]).unwrap(), "::1");
    }

    #[test]
    fn what_clients_are_told_must_lead_to_what_is_bound() {
        let loopback = "only 127.0.0.1 is bound, which nothing outside this host reaches";
        assert_eq!(ask("127.0.0.1", "10.0.0.5", HOST), Err(loopback.to_owned()));
        assert_eq!(
            ask("127.0.0.1", "203.0.113.9", HOST),
            Err(loopback.to_owned())
        );
        assert_eq!(
            ask("127.0.0.1", "127.0.0.2", HOST),
            Err(loopback.to_owned())
        );
        let other = "only 10.0.0.5 is bound, and 10.1.0.5 is another address of this host";
        assert_eq!(ask("10.0.0.5", "10.1.0.5", HOST), Err(other.to_owned()));
        let other = "only 10.0.0.5 is bound, and 127.0.0.1 is another address of this host";
        assert_eq!(ask("10.0.0.5", "127.0.0.1", HOST), Err(other.to_owned()));
        let family = "only IPv4 is bound (0.0.0.0), and 2001:db8::7 is an IPv6 address";
        assert_eq!(ask("0.0.0.0", "2001:db8::7", HOST), Err(family.to_owned()));
        let nowhere = "0.0.0.0 is no address that a client can connect to";
        assert_eq!(ask("0.0.0.0", "0.0.0.0", HOST), Err(nowhere.to_owned()));
        for (bind, told) in [
            ("127.0.0.1", "127.0.0.1"),
            ("10.0.0.5", "10.0.0.5"),
            ("10.0.0.5", "203.0.113.9"),
            ("0.0.0.0", "10.1.0.5"),
            ("0.0.0.0", "203.0.113.9"),
            ("0.0.0.0", "127.0.0.1"),
            ("::", "10.0.0.5"),
            ("::", "2001:db8::7"),
        ] {
            assert_eq!(ask(bind, told, HOST).as_deref(), Ok(told), "bound {bind}");
        }
    }
}
