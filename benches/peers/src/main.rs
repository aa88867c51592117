//! Other libraries doing what the comparison measures, each used as its own documentation says.
//!
//! `peers ARM` reads numbers from standard input, a line each, does so many messages or round trips for each, and answers each with a
//! line of JSON. It ends with its input. `peers serve-… PATH` is the other process of arms that need one. What is not special to
//! these libraries is in `orders`; `ractor_cluster`, which makes another ractor of ractor, is a program of its own in `cluster`, and
//! kameo's remote actors, which make another kameo of kameo, are one in `kameo-remote`.
//! Nothing of the runtime that they are compared with is used here.

mod grpc;
mod local;
mod zero;

use std::path::Path;

use anyhow::{Result, bail};
use hyperactor_peers_orders::{
    Found, Peer, Server, TURN, obey, obey_on, one_thread, serve_on, threads,
};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve-tonic", path] => serve_on(threads()?, grpc::serve(Path::new(path))),
        ["serve-zeromq", path] => serve_on(threads()?, zero::serve(path)),
        ["actix"] => local::actix(),
        ["ractor"] => obey_on(threads()?, local::Ractor::start),
        ["ractor, one thread"] => obey_on(one_thread()?, local::Ractor::start),
        ["kameo"] => obey_on(threads()?, local::Kameo::start),
        ["kameo, one thread"] => obey_on(one_thread()?, local::Kameo::start),
        ["xtra"] => obey_on(threads()?, local::Xtra::start),
        ["xtra, one thread"] => obey_on(one_thread()?, local::Xtra::start),
        ["tonic"] => obey_on(threads()?, grpc::Tonic::start),
        ["zeromq"] => obey_on(threads()?, zero::Zero::start),
        _ => bail!("no peer {words:?}"),
    }
}
