//! The derive of `Actor`: the default hooks and the list of exported messages. Handlers are the user's.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, GenericParam, LitStr, Result, Token, Type, parenthesized};

use crate::paths;

/// What the `#[actor(…)]` attributes say.
#[derive(Default)]
struct Options {
    messages: Vec<Type>,
    hooks: bool,
    linked: Option<Span>,
    name: Option<LitStr>,
}

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    if let Data::Union(union) = &input.data {
        return Err(Error::new_spanned(
            union.union_token,
            "an actor is a struct or an enum",
        ));
    }
    for parameter in &input.generics.params {
        if let GenericParam::Lifetime(lifetime) = parameter {
            return Err(Error::new_spanned(
                lifetime,
                "an actor outlives its creator, so it owns its state: it cannot have a lifetime",
            ));
        }
    }
    let options = Options::parse(input)?;
    let support = paths::actor_support()?;
    let ident = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();

    let quiet = paths::quiet(&input.generics);
    let actor = (!options.hooks).then(|| {
        quote! {
            #[automatically_derived]
            #quiet
            impl #impl_generics #support::Actor for #ident #type_generics #where_clause {}
        }
    });
    let type_name = options.name.map(|name| {
        quote! {
            fn type_name() -> &'static ::core::primitive::str {
                #name
            }
        }
    });
    // The span of each export is the message's, so that a missing handler is reported at its name.
    let exports = options.messages.iter().map(|message| {
        quote_spanned! {place(message)=>
            #support::Ports::export::<#message>(ports);
        }
    });
    let receives = options.messages.iter().map(|message| {
        quote_spanned! {place(message)=>
            #[automatically_derived]
            impl #impl_generics #support::Receives<#message> for #ident #type_generics #where_clause {}
        }
    });
    let link = match (options.linked, input.generics.params.first()) {
        (Some(_), Some(parameter)) => {
            return Err(Error::new_spanned(
                parameter,
                "a linked type is registered once, so it has no parameters; list each type that is needed with \
                 `Registry::with`",
            ));
        }
        (Some(place), None) => {
            let place = Span::call_site().located_at(place);
            Some(quote_spanned!(place=> #support::link! { #ident }))
        }
        (None, _) => None,
    };
    Ok(quote! {
        #actor
        #link
        #[automatically_derived]
        #quiet
        impl #impl_generics #support::Exports for #ident #type_generics #where_clause {
            fn bind(ports: &mut #support::Ports<Self>) {
                let _: &mut #support::Ports<Self> = ports;
                #(#exports)*
                #[allow(unused_imports, reason = "an `#[actor]` block goes before it")]
                use #support::NoMethods as _;
                Self::__export_methods(ports);
            }
            #type_name
        }
        #(#receives)*
    })
}

/// The place of a message in the list. Its hygiene may be that of a macro of the user's, where `ports` is unknown.
fn place(message: &Type) -> Span {
    Span::call_site().located_at(message.span())
}

impl Options {
    fn parse(input: &DeriveInput) -> Result<Self> {
        let mut options = Self::default();
        for attribute in &input.attrs {
            if !attribute.path().is_ident("actor") {
                continue;
            }
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("messages") {
                    let list;
                    parenthesized!(list in meta.input);
                    let messages = Punctuated::<Type, Token![,]>::parse_terminated(&list)?;
                    options.messages.extend(messages);
                    Ok(())
                } else if meta.path.is_ident("hooks") {
                    options.hooks = true;
                    Ok(())
                } else if meta.path.is_ident("linked") {
                    options.linked = Some(meta.path.span());
                    Ok(())
                } else if meta.path.is_ident("name") {
                    options.name = Some(meta.value()?.parse()?);
                    Ok(())
                } else {
                    Err(meta.error(
                        "unknown argument; expected `messages(A, B)`, `hooks`, `linked` or `name = \"…\"`",
                    ))
                }
            })?;
        }
        reject_duplicates(&options.messages)?;
        Ok(options)
    }
}

pub(crate) fn reject_duplicates(messages: &[Type]) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for message in messages {
        if !seen.insert(message.to_token_stream().to_string()) {
            return Err(Error::new_spanned(message, "this message is listed twice"));
        }
    }
    Ok(())
}
