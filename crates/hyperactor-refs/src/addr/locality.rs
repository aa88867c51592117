//! Whether two addresses name one place, which a program asks to know whether a destination is on its own host.
//! It compares values: nothing is resolved and no interface is looked at.

use super::channel::ChannelAddr;
use super::host::Host;

/// What is known of an address, given the address at which this host can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Locality {
    /// It is this host.
    Here,
    /// It is not this host.
    Elsewhere,
    /// One of the two is a host name, so only a resolver can tell.
    Unresolved,
}

impl ChannelAddr {
    /// Whether this address is that of the host whose frontend is `frontend`.
    ///
    /// An unresolved name counts as not local: its messages then go the long way, which is right for either answer.
    /// The table of spellings stands in `docs/spec/address.md`.
    pub fn is_local_to(&self, frontend: &Self) -> bool {
        self.locality(frontend) == Locality::Here
    }

    /// What is known of whether this address is that of the host whose frontend is `frontend`.
    ///
    /// * Equal addresses are one place. As every address has one form, that covers all spellings of it.
    /// * `localhost` (and names that end in `.localhost`) is loopback, by RFC 6761, so with equal ports it is the place
    ///   of a frontend at `127.0.0.1` or `::1`.
    /// * Another transport, another port, another IP address or another path is another place.
    pub fn locality(&self, frontend: &Self) -> Locality {
        if self == frontend {
            return Locality::Here;
        }
        if self.transport() != frontend.transport() {
            return Locality::Elsewhere;
        }
        match (self.host_port(), frontend.host_port()) {
            (Some(own), Some(other)) if own.port() == other.port() => {
                host_locality(own.host(), other.host())
            }
            _ => Locality::Elsewhere,
        }
    }
}

/// Two hosts that are not equal.
fn host_locality(a: &Host, b: &Host) -> Locality {
    match (a, b) {
        (Host::Name(_), _) | (_, Host::Name(_)) => {
            let (name, other) = if a.name().is_some() { (a, b) } else { (b, a) };
            match (name.is_loopback(), is_first_loopback(other)) {
                (true, true) => Locality::Here,
                // Loopback on one side and an address that is none on the other.
                (true, false) if other.ip().is_some() => Locality::Elsewhere,
                _ => Locality::Unresolved,
            }
        }
        _ => Locality::Elsewhere,
    }
}

/// What `localhost` resolves to: `127.0.0.1`, `::1` or another name of it, and not the rest of `127.0.0.0/8`.
fn is_first_loopback(host: &Host) -> bool {
    match host {
        Host::V4(addr) => *addr == std::net::Ipv4Addr::LOCALHOST,
        Host::V6(scoped) => scoped.addr() == std::net::Ipv6Addr::LOCALHOST,
        Host::Name(_) => host.is_loopback(),
    }
}

/// The body of the fuzz target for [`ChannelAddr::locality`]: two addresses, a line each.
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_locality(data: &[u8]) -> crate::fuzzing::Seen {
    use crate::fuzzing::{NOTHING, Seen};
    let text = std::str::from_utf8(data).unwrap_or_default();
    let Some((a, b)) = text.split_once('\n') else {
        return NOTHING;
    };
    let (Ok(a), Ok(b)) = (a.parse::<ChannelAddr>(), b.parse::<ChannelAddr>()) else {
        return NOTHING;
    };
    assert_eq!(
        a.locality(&b),
        b.locality(&a),
        "{a} and {b} see each other differently"
    );
    assert_eq!(a.locality(&a), Locality::Here, "{a} is not where it is");
    assert_eq!(a.is_local_to(&b), a.locality(&b) == Locality::Here);
    Seen(1 << 32 | u64::from(a == b) << 8 | a.locality(&b) as u64)
}
