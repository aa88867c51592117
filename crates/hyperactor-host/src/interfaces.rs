//! The addresses under which a server is reached that listens on all of a machine's: what the kernel lists at the
//! moment. An address that the machine gets later is not among them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyperactor_refs::{BindSpec, ChannelAddr};

/// The spellings of a server's address that come from its having been bound to a wildcard; none of another.
pub(crate) fn spellings(bind: &BindSpec, served: &ChannelAddr) -> Vec<ChannelAddr> {
    let wildcard = match bind {
        BindSpec::TcpWildcard(wildcard) | BindSpec::TlsWildcard(wildcard) => wildcard,
        _ => return Vec::new(),
    };
    let (Some(host), Some(port)) = (wildcard.host().ip(), served.host_port().map(|at| at.port()))
    else {
        return Vec::new();
    };
    if !host.is_unspecified() {
        return Vec::new();
    }
    let takes_v4 = host.is_ipv4() || read("/proc/sys/net/ipv6/bindv6only").trim() == "0";
    let mut hosts = Vec::new();
    if takes_v4 {
        hosts.push(Ipv4Addr::LOCALHOST.to_string());
        hosts.extend(v4(&read("/proc/thread-self/net/fib_trie")));
    }
    if host.is_ipv6() {
        hosts.extend(v6(&read("/proc/thread-self/net/if_inet6")));
    }
    let scheme = served.transport().scheme();
    let spelt = hosts
        .iter()
        .filter_map(|host| format!("{scheme}:{host}:{port}").parse().ok());
    spelt.collect()
}

/// A file of the kernel's; empty where it has none.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The machine's own addresses in the kernel's routing table: an address in one line, and below it that it is local.
fn v4(fib_trie: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut last = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(addr) = line.strip_prefix("|-- ") {
            last = addr.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(addr) = last
            && !found.contains(&addr.to_string())
        {
            found.push(addr.to_string());
        }
    }
    found
}

/// The machine's own addresses, a line each: 32 digits, numbers that do not matter here, and the interface.
fn v6(if_inet6: &str) -> Vec<String> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let bits = u128::from_str_radix(words.next()?, 16).ok()?;
        let addr = Ipv6Addr::from_bits(bits);
        // A link-local address means something together with its interface only.
        let zone = words.nth(4).filter(|_| addr.is_unicast_link_local());
        match (IpAddr::V6(addr).is_unspecified(), zone) {
            (true, _) => None,
            (false, Some(zone)) => Some(format!("[{addr}%{zone}]")),
            (false, None) => Some(format!("[{addr}]")),
        }
    };
    if_inet6.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIB_TRIE: &str = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     |-- 192.0.2.2
        /32 host LOCAL
Local:
     |-- 192.0.2.2
        /32 host LOCAL
";

    const IF_INET6: &str = "\
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
nonsense 01
";

    #[test]
    fn the_kernels_lists_are_read() {
        assert_eq!(v4(FIB_TRIE), ["127.0.0.1", "192.0.2.2"]);
        assert_eq!(v6(IF_INET6), ["[fe80::fc:ff:fe00:1%eth0]", "[::1]"]);
        assert!(v4("").is_empty() && v6("").is_empty());
    }

    #[test]
    fn a_wildcard_is_known_by_the_addresses_of_the_machine() {
        let served: ChannelAddr = "tcp:127.0.0.1:7000".parse().unwrap();
        let spelt = |bind: &str| spellings(&bind.parse().unwrap(), &served);
        assert!(spelt("tcp:0.0.0.0:0").contains(&served));
        let dual = spelt("tcp:[::]:7000");
        assert!(
            dual.iter()
                .all(|addr| addr.host_port().unwrap().port() == 7000)
        );
        assert!(spelt("tcp:127.0.0.1:0").is_empty());
        assert!(spelt("tcp:127.0.0.1:7000").is_empty());
        assert!(spelt("unix:").is_empty());
    }
}
