//! The errors as people see them: the input, carets under the place, what was expected, and the nearest valid form.

#![allow(clippy::unwrap_used)] // A test may unwrap: its panic is its report.

use std::fmt::{Debug, Display, Write};
use std::str::FromStr;

use hyperactor_refs::{
    ActorId, AddrError, BindSpec, ChannelAddr, Incarnation, NameError, ParseError, PortId, ProcId,
    Reference,
};
use insta::assert_snapshot;

/// The errors of several texts, one below the other.
fn errors<T: FromStr<Err = ParseError> + Debug>(texts: &[&str]) -> String {
    texts.iter().fold(String::new(), |mut out, text| {
        let error = text.parse::<T>().unwrap_err();
        // Lines are shown between bars, since spaces at their ends would be lost on the way here.
        writeln!(out, "{}", error.code()).unwrap();
        error
            .to_string()
            .lines()
            .for_each(|line| writeln!(out, "| {line}").unwrap());
        out
    })
}

fn messages<E: Display>(errors: impl IntoIterator<Item = E>) -> String {
    errors
        .into_iter()
        .map(|error| format!("{error}\n"))
        .collect()
}

#[test]
fn schemes() {
    assert_snapshot!(errors::<ChannelAddr>(&[
        "",
        "tpc:localhost:80",
        "unx:/run/a.sock",
        "lcoal:7",
        "ipc:/run/a.sock",
        "ssl:example.com:443",
        "quic:localhost:80",
        "localhost:80",
        "[::1]:80",
        "/run/a.sock",
        "@abc123",
        ":80",
        " tcp:localhost:80\n",
    ]), @r##"
    missing-scheme
    | not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   
    |   ^
    unknown-scheme
    | not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   tpc:localhost:80
    |   ^^^
    |   did you mean `tcp:localhost:80`?
    unknown-scheme
    | not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   unx:/run/a.sock
    |   ^^^
    |   did you mean `unix:/run/a.sock`?
    unknown-scheme
    | not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   lcoal:7
    |   ^^^^^
    |   did you mean `local:7`?
    unknown-scheme
    | not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   ipc:/run/a.sock
    |   ^^^
    |   did you mean `unix:/run/a.sock`?
    unknown-scheme
    | not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   ssl:example.com:443
    |   ^^^
    |   did you mean `tls:example.com:443`?
    unknown-scheme
    | not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   quic:localhost:80
    |   ^^^^
    missing-scheme
    | not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   localhost:80
    |   ^
    |   did you mean `tcp:localhost:80`?
    missing-scheme
    | not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   [::1]:80
    |   ^
    |   did you mean `tcp:[::1]:80`?
    missing-scheme
    | not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   /run/a.sock
    |   ^
    |   did you mean `unix:/run/a.sock`?
    missing-scheme
    | not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   @abc123
    |   ^
    |   did you mean `unix:@abc123`?
    missing-scheme
    | not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   :80
    |   ^
    reserved-character
    | not a channel address: expected no white space around it
    |    tcp:localhost:80\n
    |   ^
    |   did you mean `tcp:localhost:80`?
    "##);
}

#[test]
fn hosts_and_ports() {
    assert_snapshot!(errors::<ChannelAddr>(&[
        "tcp:",
        "tcp:localhost",
        "tcp:localhost:",
        "tcp:localhost:http",
        "tcp:localhost:99999",
        "tcp:localhost:80/",
        "tcp::80",
        "tcp:::1:80",
        "tcp:[::1:80",
        "tcp:[127.0.0.1]:80",
        "tcp:[1::2::3]:80",
        "tcp:[fe80::1%]:80",
        "tcp:256.1.1.1:80",
        "tcp:127.0.0.010:80",
        "tcp:my host:80",
        "tcp:bücher.example:80",
        "tcp:0.0.0.0:80",
        "tcp:localhost:0",
    ]), @r##"
    missing-host
    | not a channel address: expected a host and a port
    |   tcp:
    |       ^
    missing-port
    | not a channel address: expected `:` and a port
    |   tcp:localhost
    |                ^
    missing-port
    | not a channel address: expected a port
    |   tcp:localhost:
    |                 ^
    bad-port
    | not a channel address: expected a port from 0 to 65535
    |   tcp:localhost:http
    |                 ^^^^
    bad-port
    | not a channel address: expected a port from 0 to 65535
    |   tcp:localhost:99999
    |                 ^^^^^
    trailing-text
    | not a channel address: expected nothing behind the port
    |   tcp:localhost:80/
    |                   ^
    |   did you mean `tcp:localhost:80`?
    missing-host
    | not a channel address: expected a host
    |   tcp::80
    |       ^
    bad-ipv6
    | not a channel address: expected brackets around an IPv6 address, and a port
    |   tcp:::1:80
    |       ^^^^^^
    |   did you mean `tcp:[::1]:80`?
    bad-ipv6
    | not a channel address: expected `]` behind the IPv6 address
    |   tcp:[::1:80
    |              ^
    bad-ipv6
    | not a channel address: expected an IPv6 address
    |   tcp:[127.0.0.1]:80
    |        ^^^^^^^^^
    |   did you mean `tcp:127.0.0.1:80`?
    bad-ipv6
    | not a channel address: expected an IPv6 address
    |   tcp:[1::2::3]:80
    |        ^^^^^^^
    bad-zone
    | not a channel address: expected a zone: a number from 1, or an interface's name of at most 15 letters, digits and `-._`
    |   tcp:[fe80::1%]:80
    |                ^
    bad-ipv4
    | not a channel address: expected numbers up to 255 in an IPv4 address
    |   tcp:256.1.1.1:80
    |       ^^^^^^^^^
    bad-ipv4
    | not a channel address: expected no leading zero: it is octal to some programs and decimal to others
    |   tcp:127.0.0.010:80
    |       ^^^^^^^^^^^
    bad-host
    | not a channel address: expected a host name of letters, digits and `-_.`
    |   tcp:my host:80
    |       ^^^^^^^
    bad-host
    | not a channel address: expected a host name in ASCII (an international one as `xn--…`)
    |   tcp:bücher.example:80
    |       ^^^^^^^^^^^^^^
    wildcard-host
    | not a channel address: expected a host that can be dialled: the unspecified address is for binding alone
    |   tcp:0.0.0.0:80
    |       ^^^^^^^
    port-zero
    | not a channel address: expected a port from 1 to 65535: 0 is for binding alone
    |   tcp:localhost:0
    |                 ^
    "##);
}

#[test]
fn unix_and_local_addresses() {
    let long = format!("unix:/{}", "a".repeat(107));
    assert_snapshot!(errors::<ChannelAddr>(&[
        "unix:",
        "unix:@",
        "unix:/run/",
        "unix://run/a.sock",
        "unix:/run/a,b",
        "unix:/run/my app",
        "unix:/run/%0",
        "unix:/run/%00",
        &long,
        "local:",
        "local:0",
        "local:-1",
        "local:99999999999999999999",
    ]), @r##"
    missing-path
    | not a channel address: expected a path or `@` and an abstract name
    |   unix:
    |        ^
    missing-path
    | not a channel address: expected a path or `@` and an abstract name
    |   unix:@
    |         ^
    bad-path
    | not a channel address: expected the path of a socket, not of a directory
    |   unix:/run/
    |        ^^^^^
    bad-path
    | not a channel address: expected `///` before an absolute path, or no slashes before a relative one
    |   unix://run/a.sock
    |        ^^
    |   did you mean `unix:/run/a.sock`?
    reserved-character
    | not a channel address: expected `%2C` in place of ","
    |   unix:/run/a,b
    |              ^
    |   did you mean `unix:/run/a%2Cb`?
    reserved-character
    | not a channel address: expected `%20` in place of " "
    |   unix:/run/my app
    |               ^
    |   did you mean `unix:/run/my%20app`?
    bad-escape
    | not a channel address: expected `%` and two hexadecimal digits
    |   unix:/run/%0
    |             ^
    |   did you mean `unix:/run/%250`?
    bad-path
    | not a channel address: expected a path without NUL bytes
    |   unix:/run/%00
    |        ^^^^^^^^
    path-too-long
    | not a channel address: expected a path of at most 107 bytes, not 108
    |   unix:/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    bad-number
    | not a channel address: expected a decimal number
    |   local:
    |         ^
    local-zero
    | not a channel address: expected a number from 1: 0 is for binding alone
    |   local:0
    |         ^
    bad-number
    | not a channel address: expected a decimal number
    |   local:-1
    |         ^^
    bad-number
    | not a channel address: expected a number below 2^64
    |   local:99999999999999999999
    |         ^^^^^^^^^^^^^^^^^^^^
    "##);
}

#[test]
fn bind_specifications() {
    assert_snapshot!(errors::<BindSpec>(&["tcp:*:80", "udp:0.0.0.0:80", "unix:@"]), @r##"
    bad-host
    | not a bind specification: expected a host name of letters, digits and `-_.`
    |   tcp:*:80
    |       ^
    |   did you mean `tcp:0.0.0.0:80`?
    unknown-scheme
    | not a bind specification: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   udp:0.0.0.0:80
    |   ^^^
    missing-path
    | not a bind specification: expected a path or `@` and an abstract name
    |   unix:@
    |         ^
    "##);
}

#[test]
fn ids() {
    assert_snapshot!(errors::<ProcId>(&[
        "unix:@abc123",
        "unix:@abc123,",
        "unix:@abc123,my service",
        "unix:@abc123,a@b",
        "unix:@abc123,100%",
        "unix:@abc123,%FF",
        "unix:@abc123,service,counter[0]",
        "tcp:0.0.0.0:80,service",
    ]), @r##"
    missing-name
    | not a proc id: expected `,` and the proc's name behind the address
    |   unix:@abc123
    |               ^
    missing-name
    | not a proc id: expected the proc's name
    |   unix:@abc123,
    |                ^
    reserved-character
    | not a proc id: expected `%20` in place of " "
    |   unix:@abc123,my service
    |                  ^
    |   did you mean `unix:@abc123,my%20service`?
    reserved-character
    | not a proc id: expected `%40` in place of "@"
    |   unix:@abc123,a@b
    |                 ^
    |   did you mean `unix:@abc123,a%40b`?
    bad-escape
    | not a proc id: expected `%` and two hexadecimal digits
    |   unix:@abc123,100%
    |                   ^
    |   did you mean `unix:@abc123,100%25`?
    bad-utf8
    | not a proc id: expected escapes that spell UTF-8
    |   unix:@abc123,%FF
    |                ^^^
    trailing-text
    | not a proc id: expected the end of a proc id; the id of an actor or a port goes on with a comma, and a comma in a name is `%2C`
    |   unix:@abc123,service,counter[0]
    |                        ^^^^^^^^^^
    wildcard-host
    | not a proc id: expected a host that can be dialled: the unspecified address is for binding alone
    |   tcp:0.0.0.0:80,service
    |       ^^^^^^^
    "##);
    assert_snapshot!(errors::<ActorId>(&[
        "unix:@abc123,service",
        "unix:@abc123,service,counter",
        "unix:@abc123,service,counter[0",
        "unix:@abc123,service,counter[x]",
        "unix:@abc123,service,counter[0][1]",
    ]), @r##"
    missing-name
    | not an actor id: expected `,` and the actor's name behind the proc id
    |   unix:@abc123,service
    |                       ^
    missing-index
    | not an actor id: expected `[` and the actor's index
    |   unix:@abc123,service,counter
    |                               ^
    |   did you mean `unix:@abc123,service,counter[0]`?
    bad-index
    | not an actor id: expected `]` behind the index
    |   unix:@abc123,service,counter[0
    |                                 ^
    |   did you mean `unix:@abc123,service,counter[0]`?
    bad-index
    | not an actor id: expected an index of decimal digits
    |   unix:@abc123,service,counter[x]
    |                                ^
    trailing-text
    | not an actor id: expected the end of an actor id; one more index makes it a port id
    |   unix:@abc123,service,counter[0][1]
    |                                  ^^^
    |   did you mean `unix:@abc123,service,counter[0]`?
    "##);
    assert_snapshot!(errors::<PortId>(&[
        "unix:@abc123,service,counter[0]",
        "unix:@abc123,service,counter[0][18446744073709551616]",
    ]), @r##"
    missing-index
    | not a port id: expected `[` and the port's index
    |   unix:@abc123,service,counter[0]
    |                                  ^
    bad-index
    | not a port id: expected an index below 2^64
    |   unix:@abc123,service,counter[0][18446744073709551616]
    |                                   ^^^^^^^^^^^^^^^^^^^^
    "##);
    assert_snapshot!(errors::<Reference>(&["unix:@abc123", "a,b,c[0][1][2]"]), @r##"
    missing-name
    | not a reference: expected `,` and the proc's name behind the address
    |   unix:@abc123
    |               ^
    missing-scheme
    | not a reference: expected one of `local:`, `tcp:`, `tls:` and `unix:`
    |   a,b,c[0][1][2]
    |   ^
    "##);
    assert_snapshot!(errors::<Incarnation>(&["", "0xff"]), @r##"
    bad-number
    | not an incarnation: expected 1 to 16 hexadecimal digits
    |   
    |   ^
    bad-number
    | not an incarnation: expected 1 to 16 hexadecimal digits
    |   0xff
    |    ^
    "##);
}

#[test]
fn strange_input_is_shown_harmlessly() {
    // A terminal must not obey the input, a log must not get lines from it, and carets stand right behind wide characters.
    assert_snapshot!(errors::<ProcId>(&["unix:@a,\u{1b}[31m\nINFO all is well", "unix:@a,名前 前", "unix:@a,\u{202e}x y"]), @r##"
    reserved-character
    | not a proc id: expected `%1B` in place of "\u{1b}"
    |   unix:@a,\u{1b}[31m\nINFO all is well
    |           ^^^^^^
    |   did you mean `unix:@a,%1B%5B31m%0AINFO%20all%20is%20well`?
    reserved-character
    | not a proc id: expected `%20` in place of " "
    |   unix:@a,名前 前
    |               ^
    |   did you mean `unix:@a,%E5%90%8D%E5%89%8D%20%E5%89%8D`?
    reserved-character
    | not a proc id: expected `%20` in place of " "
    |   unix:@a,\u{202e}x y
    |                    ^
    |   did you mean `unix:@a,%E2%80%AEx%20y`?
    "##);
}

#[test]
fn a_long_input_is_cut_around_the_fault() {
    let long = format!("unix:@abc123,{} {}", "a".repeat(5000), "b".repeat(5000));
    assert_snapshot!(errors::<ProcId>(&[&long]), @r##"
    reserved-character
    | not a proc id: expected `%20` in place of " "
    |   …aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb…
    |                                                                                    ^
    "##);
}

#[test]
fn one_line() {
    let error = "tpc:localhost:80".parse::<ChannelAddr>().unwrap_err();
    assert_snapshot!(format!("{error:#}"), @"`tpc:localhost:80` is not a channel address: expected one of `local:`, `tcp:`, `tls:` and `unix:` at byte 0; did you mean `tcp:localhost:80`?");
}

#[test]
fn constructors() {
    let long = format!("/run/{}", "a".repeat(103));
    let errors = [
        ChannelAddr::local(0),
        ChannelAddr::tcp("0.0.0.0:80".parse().unwrap()),
        ChannelAddr::tcp("127.0.0.1:0".parse().unwrap()),
        ChannelAddr::tcp_host("my host", 80),
        ChannelAddr::tcp_host("fe80::1%not a zone", 80),
        ChannelAddr::unix_path(""),
        ChannelAddr::unix_path("/run/a\0b"),
        ChannelAddr::unix_path("/run/"),
        ChannelAddr::unix_path(&long),
        ChannelAddr::unix_abstract(""),
        ChannelAddr::unix_abstract([0; 108]),
    ];
    let errors: Vec<AddrError> = errors.into_iter().map(Result::unwrap_err).collect();
    assert_snapshot!(messages(&errors), @r##"
    local address 0: expected a number from 1: 0 is for binding alone
    unspecified host: expected a host that can be dialled: the unspecified address is for binding alone
    port 0: expected a port from 1 to 65535: 0 is for binding alone
    host name "my host": expected a host name of letters, digits and `-_.`
    zone "not a zone": expected a zone: a number from 1, or an interface's name of at most 15 letters, digits and `-._`
    empty unix address: expected a path or `@` and an abstract name
    unix path /run/a%00b: expected a path without NUL bytes
    unix path /run/: expected the path of a socket, not of a directory
    unix path /run/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: expected a path of at most 107 bytes, not 108
    empty unix address: expected a path or `@` and an abstract name
    abstract unix name: expected an abstract name of at most 107 bytes, not 108
    "##);
    let codes: Vec<_> = errors.iter().map(AddrError::code).collect();
    assert_snapshot!(codes.join(" "), @"local-zero wildcard-host port-zero bad-host bad-zone missing-path bad-path bad-path path-too-long missing-path path-too-long");
}

#[test]
fn names() {
    let addr = ChannelAddr::local(1).unwrap();
    let errors =
        ["", "a\0b", &"a".repeat(1025)].map(|name| ProcId::direct(addr.clone(), name).unwrap_err());
    assert_snapshot!(messages(errors), @r##"
    empty name: give the proc or actor at least one character
    name with the control character '\0' at byte 1: leave it out
    name of 1025 bytes: the longest name has 1024
    "##);
    assert_snapshot!(errors.map(|error: NameError| error.code()).join(" "), @"name-empty name-control-character name-too-long");
}
