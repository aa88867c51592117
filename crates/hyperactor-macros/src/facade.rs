//! The derive of `Facade`: a list of messages with a name.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{DeriveInput, Error, Result, Token, Type, parenthesized};

use crate::actor::reject_duplicates;
use crate::paths;

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    if let Some(parameter) = input.generics.params.first() {
        return Err(Error::new_spanned(
            parameter,
            "a facade is a list of messages with a name: it has no parameters; name the types in the list",
        ));
    }
    let messages = messages(input)?;
    if messages.is_empty() {
        return Err(Error::new_spanned(
            &input.ident,
            "this facade accepts nothing; list its messages: `#[facade(messages(A, B))]`",
        ));
    }
    let support = paths::actor_support()?;
    let ident = &input.ident;
    let includes = messages.iter().map(|message| {
        let place = Span::call_site().located_at(message.span());
        quote_spanned! {place=>
            #[automatically_derived]
            impl #support::Includes<#message> for #ident {}
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl #support::Facade for #ident {}
        #(#includes)*
        #[automatically_derived]
        impl<T> #support::FacadeOf<T> for #ident
        where
            #(T: #support::Accepts<#messages>,)*
        {}
    })
}

fn messages(input: &DeriveInput) -> Result<Vec<Type>> {
    let mut messages = Vec::new();
    for attribute in &input.attrs {
        if !attribute.path().is_ident("facade") {
            continue;
        }
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("messages") {
                return Err(meta.error("unknown argument; expected `messages(A, B)`"));
            }
            let list;
            parenthesized!(list in meta.input);
            messages.extend(Punctuated::<Type, Token![,]>::parse_terminated(&list)?);
            Ok(())
        })?;
    }
    reject_duplicates(&messages)?;
    Ok(messages)
}
