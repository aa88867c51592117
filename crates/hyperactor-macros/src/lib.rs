#![doc = include_str!("../README.md")]

mod actor;
mod block;
mod byte_fields;
mod client;
mod entry;
mod facade;
mod message;
mod methods;
mod paths;
mod schema;
mod serde_attrs;
mod spawn;
mod tokens;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemFn, parse_macro_input};

/// Implements `Message` for a struct or an enum: a value that may be sent to another process.
///
/// The type derives serde's `Serialize` and `Deserialize` itself. Its wire name is `package::Type`; the name
/// decides the type's hash and its port, so a type that moves to another package keeps its identity with
/// `#[message(name = "stable.name")]`. A generic type hashes its parameters in, and asks that each of them is
/// a `Message` too.
///
/// The shape's hash goes through the fields, as deep as there are messages. Messages that contain each other would go
/// round for ever, which the compiler reports as a cycle: `#[message(by_name)]` on one of the fields ends it.
///
/// A field with a `Vec<u8>` in it is warned of, since serde encodes and decodes it byte by byte: take `Bytes`, or keep the type with
/// `#[serde(with = "hyperactor::as_bytes")]`; `#[message(byte_by_byte)]` says that its bytes are few. The warning is of the lint
/// `deprecated`.
#[proc_macro_derive(Message, attributes(message))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    message::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Implements `Actor` with its default hooks, and exports the messages named in
/// `#[actor(messages(A, B))]`, and those of the type's `#[actor]` block.
///
/// An exported message may be sent through an `ActorRef`, also from another process; the actor must implement
/// `Handler` for it. A message that is handled but not exported can still be sent through an `ActorHandle`.
///
/// * `#[actor(messages(A, B))]`: the exported messages.
/// * `#[actor(hooks)]`: the user writes `impl Actor` with hooks of their own; only the exports are derived.
/// * `#[actor(name = "stable.name")]`: the name under which a registry knows the type.
/// * `#[actor(linked)]`: the type, which implements `RemoteSpawn`, is in `Registry::with_linked` of every program that it is
///   linked into. Needs the feature `link-registration`.
#[proc_macro_derive(Actor, attributes(actor))]
pub fn derive_actor(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    actor::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes messages of the methods of an impl block, and a client by which they are called through references.
///
/// Beside `#[derive(Actor)]` on the type. Every `async fn` that takes `&mut self` (or `&self`) and `cx: &Context<Self>` is a
/// message; its other arguments are the message's fields. Everything else in the block stays as it is.
///
/// ```text
/// #[derive(Actor, Default)]
/// pub struct Counter { total: i64 }
///
/// #[actor]
/// impl Counter {
///     /// Adds, and replies the new total.
///     pub async fn add(&mut self, _cx: &Context<Self>, amount: i64) -> ActorResult<i64> { … }
/// }
///
/// counter.add(&cx, 3).await?;                // an ActorRef, an ActorHandle or a RestrictedRef
/// counter.add(&cx, 3).within(second).await?; // with a deadline of its own
/// counter.add(&cx, 3).post();                // sent, and not waited for
/// ```
///
/// What a method returns decides what its caller gets, and what fails:
///
/// | it returns | the caller awaits | an error |
/// |---|---|---|
/// | nothing | delivery | cannot be |
/// | `ActorResult` | delivery | fails the actor |
/// | `ActorResult<R>`, `R` may be `()` | the reply `R` | fails the actor; the caller learns that it ended |
/// | `R`, such as `u64` or `Result<T, E>` | the reply `R` | is the reply; the actor goes on |
/// | `ActorResult<Result<T, E>>` | the reply | the outer fails the actor, the inner is the reply |
///
/// The macro goes by what is written: an alias of `ActorResult` with another name is taken for a reply. A method whose last
/// argument is `reply: Option<OncePortRef<R>>` replies through that, now or later.
///
/// For a method `add` of `Counter` there are, all as visible as the method and with its documentation: the message
/// `CounterAdd`, its handler and its export, and the method `add` of the trait `CounterClient`. Methods of less visibility are in traits
/// of their own: `CounterClientCrate`, `CounterClientNear` (`pub(super)`, `pub(in …)`), `CounterClientPrivate`.
///
/// * `#[actor(client = Name)]`: the name of the trait. `#[actor(derive(Debug, Clone))]`: what the messages derive, too.
/// * on a method, `#[actor(skip)]`: it is no message. `#[message(name = "…")]`: the stable name of its message.
/// * on a function that returns `Self` or `ActorResult<Self>`, `#[actor(spawn)]`: the actor implements `RemoteSpawn` by it. What it
///   takes, up to four parameters, the caller passes: nothing as `()`, one as it is, more as a tuple.
/// * on an argument, `#[serde(…)]`: as on a field.
#[proc_macro_attribute]
pub fn actor(arguments: TokenStream, item: TokenStream) -> TokenStream {
    block::expand(arguments.into(), item.into()).into()
}

/// Implements `Facade`: a list of messages, `#[facade(messages(A, B))]`, by which a reference is restricted.
#[proc_macro_derive(Facade, attributes(facade))]
pub fn derive_facade(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    facade::expand(&input)
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
/// * `#[hyperactor::main(linked)]`: the same, and all actors that say `#[actor(linked)]`.
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
