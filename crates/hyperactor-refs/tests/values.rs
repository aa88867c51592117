//! Values that are made from parts, and the parts that they give back.

#![allow(clippy::unwrap_used)] // A test may unwrap: its panic is its report.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use hyperactor_refs::{
    ActorId, AddrError, BindSpec, ChannelAddr, ChannelTransport, Host, HostPort, NameError, PortId,
    ProcId, Reference, Zone,
};

fn addr(text: &str) -> ChannelAddr {
    text.parse().unwrap()
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn socket_addresses_go_in_and_come_out() {
    for text in ["127.0.0.1:80", "[2001:db8::1]:80", "[fe80::1%2]:80"] {
        let tcp = ChannelAddr::tcp(socket(text)).unwrap();
        assert_eq!(tcp.to_string(), format!("tcp:{text}"));
        assert_eq!(tcp.host_port().unwrap().socket_addr(), Some(socket(text)));
        assert_eq!(
            ChannelAddr::tls(socket(text)).unwrap().to_string(),
            format!("tls:{text}")
        );
    }
    let mapped = ChannelAddr::tcp(socket("[::ffff:127.0.0.1]:80")).unwrap();
    assert_eq!(mapped, addr("tcp:127.0.0.1:80"));
}

#[test]
fn what_is_left_to_resolve_has_no_socket_address() {
    for text in ["tcp:localhost:80", "tcp:[fe80::1%eth0]:80"] {
        assert_eq!(addr(text).host_port().unwrap().socket_addr(), None);
    }
    let named = addr("tcp:Example.COM:80");
    let host_port = named.host_port().unwrap();
    assert_eq!(
        (host_port.host().name(), host_port.port()),
        (Some("example.com"), 80)
    );
}

#[test]
fn hosts_have_one_form() {
    let mapped: Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
    assert_eq!(Host::v6(mapped, None), Host::new("192.0.2.1").unwrap());
    let zone = Zone::new("eth0").unwrap();
    let global: Ipv6Addr = "2001:db8::1".parse().unwrap();
    assert_eq!(
        Host::v6(global, Some(zone.clone())),
        Host::from(std::net::IpAddr::V6(global))
    );
    let local = Host::v6("fe80::1".parse().unwrap(), Some(zone));
    assert_eq!(local.to_string(), "fe80::1%eth0");
    assert!(
        Host::new("::1").unwrap().is_loopback()
            && Host::new("db.localhost.").unwrap().is_loopback()
    );
    assert!(!Host::new("localhost.example").unwrap().is_loopback());
    assert_eq!(
        HostPort::new(Host::new("0.0.0.0").unwrap(), 80),
        Err(AddrError::WildcardHost)
    );
    assert_eq!(
        HostPort::new(Host::new("a").unwrap(), 0),
        Err(AddrError::PortZero)
    );
}

#[test]
fn unix_addresses_keep_their_bytes() {
    let path = ChannelAddr::unix_path("/run//app/./a b.sock").unwrap();
    let ChannelAddr::Unix(unix) = &path else {
        panic!("{path} is no unix address")
    };
    assert_eq!(unix.as_path(), Some(Path::new("/run/app/a b.sock")));
    assert_eq!(
        (path.to_string().as_str(), unix.as_abstract()),
        ("unix:/run/app/a%20b.sock", None)
    );

    // The bytes from the greatest down, as many as fit; the least come in the other names.
    let high: Vec<u8> = (0..107).map(|less| u8::MAX - less).collect();
    let low: Vec<u8> = (0..107).collect();
    for name in [
        high.as_slice(),
        low.as_slice(),
        b"\0",
        b"\0\0",
        b"@",
        b"/a//b",
        "名".as_bytes(),
    ] {
        let abstracted = ChannelAddr::unix_abstract(name).unwrap();
        let ChannelAddr::Unix(unix) = &abstracted else {
            panic!("{abstracted} is no unix address")
        };
        assert_eq!((unix.as_abstract(), unix.as_path()), (Some(name), None));
        assert_eq!(addr(&abstracted.to_string()), abstracted);
    }
}

#[test]
#[cfg(unix)]
fn a_path_that_is_no_utf_8_is_kept() {
    use std::os::unix::ffi::OsStrExt;
    let bytes = std::ffi::OsStr::from_bytes(b"/run/\xff\xfe");
    let unix = ChannelAddr::unix_path(bytes).unwrap();
    assert_eq!(unix.to_string(), "unix:/run/%FF%FE");
    let ChannelAddr::Unix(place) = &unix else {
        panic!("{unix} is no unix address")
    };
    assert_eq!(place.as_path().unwrap().as_os_str(), bytes);
}

#[test]
fn the_longest_path_is_107_bytes_after_its_slashes_are_put_in_order() {
    let longest = format!("/{}", "a".repeat(106));
    assert!(ChannelAddr::unix_path(&longest).is_ok());
    assert!(ChannelAddr::unix_path(format!("//.{longest}")).is_ok());
    let error = ChannelAddr::unix_path(format!("{longest}a")).unwrap_err();
    assert!(
        matches!(&error, AddrError::PathTooLong { path, len: 108 } if path.starts_with(&longest))
    );
    // A path may be as long as a program pleases; the error is not.
    let error = ChannelAddr::unix_path("a".repeat(1_000_000)).unwrap_err();
    assert!(error.to_string().len() < 1000);
}

#[test]
fn bind_specifications_hold_what_can_be_dialled_as_an_address() {
    assert_eq!(
        BindSpec::tcp(socket("127.0.0.1:80")),
        BindSpec::Addr(addr("tcp:127.0.0.1:80"))
    );
    assert_eq!(
        BindSpec::from(addr("unix:@a")).addr(),
        Some(&addr("unix:@a"))
    );
    assert_eq!(BindSpec::from(ChannelTransport::Unix).to_string(), "unix:");
    let any_port = BindSpec::tcp(socket("127.0.0.1:0"));
    assert_eq!(
        (any_port.to_string().as_str(), any_port.addr()),
        ("tcp:127.0.0.1:0", None)
    );
    let BindSpec::TcpWildcard(wildcard) = BindSpec::tcp(socket("[::ffff:0.0.0.0]:80")) else {
        panic!("an unspecified host was taken for one")
    };
    assert_eq!(wildcard.socket_addr(), Some(socket("0.0.0.0:80")));
    for transport in ChannelTransport::ALL {
        assert_eq!(BindSpec::Any(transport).transport(), transport);
    }
}

#[test]
fn names_are_checked_where_that_is_asked_for() {
    let proc = |name: &str| ProcId::direct(addr("local:1"), name);
    for name in ["a", "名前", "a,b[0]", " ", &"a".repeat(1024)] {
        assert_eq!(proc(name).unwrap().name(), name);
    }
    assert_eq!(proc(""), Err(NameError::Empty));
    assert_eq!(
        proc("a\nb"),
        Err(NameError::Control {
            character: '\n',
            at: 1
        })
    );
    assert_eq!(
        proc(&"a".repeat(1025)),
        Err(NameError::TooLong { len: 1025 })
    );
    assert_eq!(
        ActorId::checked(proc("p").unwrap(), "", 0),
        Err(NameError::Empty)
    );
    assert_eq!(
        ActorId::checked(proc("p").unwrap(), "a", 7),
        Ok(ActorId::new(proc("p").unwrap(), "a", 7))
    );
}

#[test]
fn ids_give_their_parts_back() {
    let proc = Arc::new(ProcId::Direct(addr("unix:@abc123"), "service".to_string()));
    let actor = ActorId::root(Arc::clone(&proc), String::from("counter"));
    let port = PortId::new(actor.clone(), 1234);
    assert_eq!(
        (proc.addr(), proc.name()),
        (&addr("unix:@abc123"), "service")
    );
    assert_eq!(
        (actor.proc_id(), actor.name(), actor.index()),
        (&*proc, "counter", 0)
    );
    assert!(Arc::ptr_eq(actor.proc(), &proc));
    assert_eq!(
        (port.actor_id(), port.proc_id(), port.index()),
        (&actor, &*proc, 1234)
    );
    let sibling = actor.sibling("other", 3);
    assert_eq!(sibling, ActorId::new((*proc).clone(), "other", 3));
    assert_eq!(port.clone().into_actor_id(), actor);

    let [p, a, q] = [
        Reference::from(proc),
        Reference::from(actor),
        Reference::from(port),
    ];
    assert_eq!(
        (p.parent(), a.parent(), q.parent()),
        (None, Some(p.clone()), Some(a.clone()))
    );
    assert_eq!(q.actor_id(), a.actor_id());
    assert!(p < a && a < q && p.port_id().is_none());
}

#[test]
fn debug_shows_the_text() {
    let port: PortId = "unix:@abc123,service,counter[0][1234]".parse().unwrap();
    assert_eq!(
        format!("{port:?}"),
        "PortId(unix:@abc123,service,counter[0][1234])"
    );
    assert_eq!(
        format!("{:?}", port.actor_id()),
        "ActorId(unix:@abc123,service,counter[0])"
    );
}
