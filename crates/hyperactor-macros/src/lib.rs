#![doc = include_str!("../README.md")]

mod actor;
mod entry;
mod message;
mod paths;
mod schema;
mod serde_attrs;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemFn, parse_macro_input};

/// Implements `Message` for a struct or an enum: a value that may be sent to another process.
///
/// The type derives serde's `Serialize` and `Deserialize` itself. Its wire name is `package::Type`; the name
/// decides the type's hash and its port, so a type that moves to another package keeps its identity with
/// `#[message(name = "stable.name")]`. A generic type hashes its parameters in, and asks that each of them is
/// a `Message` too.
#[proc_macro_derive(Message, attributes(message))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    message::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Implements `Actor` with its default hooks, and exports the messages named in
/// `#[actor(messages(A, B))]`.
///
/// An exported message may be sent through an `ActorRef`, also from another process; the actor must implement
/// `Handler` for it. A message that is handled but not exported can still be sent through an `ActorHandle`.
///
/// * `#[actor(messages(A, B))]`: the exported messages.
/// * `#[actor(hooks)]`: the user writes `impl Actor` with hooks of their own; only the exports are derived.
/// * `#[actor(name = "stable.name")]`: the name under which a registry knows the type.
#[proc_macro_derive(Actor, attributes(actor))]
pub fn derive_actor(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    actor::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes an `async fn main` the entry of a program of many processes.
///
/// First the bootstrap runs: in a process that a host started, it never returns. Then a tokio runtime is
/// built and the body runs on it.
///
/// * `#[hyperactor::main]`
/// * `#[hyperactor::main(actors(Counter, Reader))]`: the actors that may be spawned in child processes.
/// * `#[hyperactor::main(registry = expr)]`: the same, with a registry made by hand.
/// * `flavor = "current_thread"` or `"multi_thread"` (the default), `worker_threads = N`.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments as entry::Arguments);
    let function = parse_macro_input!(item as ItemFn);
    entry::expand(&arguments, function)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
