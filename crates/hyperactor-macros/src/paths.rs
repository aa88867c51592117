//! Finds the crate through which the generated code reaches the runtime, whatever the user depends on and
//! under whichever name. Reads nothing but the user's manifest.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Generics, Ident};

/// The packages that re-export what an actor's derive needs, in the order of preference.
const ACTOR_CRATES: &[&str] = &["hyperactor", "hyperactor-proc"];
/// The same for a message, which needs no actors.
const MESSAGE_CRATES: &[&str] = &["hyperactor", "hyperactor-proc", "hyperactor-mailbox"];

/// The path of the private module that the code of `#[derive(Actor)]` uses.
pub(crate) fn actor_support() -> syn::Result<TokenStream> {
    support(ACTOR_CRATES)
}

/// The path of the private module that the code of `#[derive(Message)]` uses.
pub(crate) fn message_support() -> syn::Result<TokenStream> {
    support(MESSAGE_CRATES)
}

/// Keeps an implementation out of the compiler's lists of "other types that implement" the trait, which are long and
/// help nobody. Not that of a generic type, whose missing bounds the compiler would then not show either.
pub(crate) fn quiet(generics: &Generics) -> Option<TokenStream> {
    let is_plain = generics.params.is_empty() && generics.where_clause.is_none();
    is_plain.then(|| quote!(#[diagnostic::do_not_recommend]))
}

/// The path of the facade itself, which alone can start processes.
pub(crate) fn facade() -> syn::Result<TokenStream> {
    find("hyperactor").ok_or_else(|| missing(&["hyperactor"]))
}

fn support(packages: &[&str]) -> syn::Result<TokenStream> {
    packages
        .iter()
        .find_map(|package| find(package))
        .map(|path| quote!(#path::__private))
        .ok_or_else(|| missing(packages))
}

fn find(package: &str) -> Option<TokenStream> {
    let name = match crate_name(package).ok()? {
        // Tests, examples and doctests of a package reach it by its name, and its own sources through
        // `extern crate self as …`, so one path serves all of them.
        FoundCrate::Itself => package.replace('-', "_"),
        FoundCrate::Name(name) => name,
    };
    let ident = Ident::new(&name, Span::call_site());
    Some(quote!(::#ident))
}

fn missing(packages: &[&str]) -> syn::Error {
    syn::Error::new(
        Span::call_site(),
        format!(
            "the generated code needs one of these packages among the dependencies: {}",
            packages.join(", ")
        ),
    )
}
