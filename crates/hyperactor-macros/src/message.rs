//! The derive of `Message`. It makes a name and two hashes; what goes into that of the shape is in `schema.rs`, what is said of
//! fields of bytes in `byte_fields.rs`, and how a message is encoded is serde's matter.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, GenericParam, LitStr, Result, parse_quote};

use crate::{byte_fields, paths, schema};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    if let Data::Union(union) = &input.data {
        return Err(Error::new_spanned(
            union.union_token,
            "a union cannot be a message: serde cannot tell which field is live; use an enum",
        ));
    }
    let name = wire_name(input)?;
    let support = paths::message_support()?;
    let ident = &input.ident;
    let schema = schema::hash(input, &support)?;
    let warnings = byte_fields::warnings(input)?;

    let mut generics = input.generics.clone();
    let mut hash = quote!(#support::type_hash(NAME));
    let mut parts = Vec::new();
    for parameter in &input.generics.params {
        match parameter {
            GenericParam::Lifetime(lifetime) => {
                return Err(Error::new_spanned(
                    lifetime,
                    "a message owns its data, since it may leave the process: it cannot have a lifetime",
                ));
            }
            GenericParam::Type(parameter) => {
                let parameter = &parameter.ident;
                generics
                    .make_where_clause()
                    .predicates
                    .push(parse_quote!(#parameter: #support::Message));
                hash = quote! {
                    #support::combine(#hash, <#parameter as #support::Message>::TYPE_HASH)
                };
                parts.push(quote! {
                    ::std::string::String::from(<#parameter as #support::Message>::type_name())
                });
            }
            GenericParam::Const(parameter) => {
                let parameter = &parameter.ident;
                hash = quote!(#support::combine(#hash, #parameter as u64));
                parts.push(quote!(::std::string::ToString::to_string(&#parameter)));
            }
        }
    }
    let type_name = if parts.is_empty() {
        quote!(::std::borrow::Cow::Borrowed(NAME))
    } else {
        quote! {
            ::std::borrow::Cow::Owned(::std::format!("{NAME}<{}>", [#(#parts),*].join(", ")))
        }
    };
    let quiet = paths::quiet(&input.generics);
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    Ok(quote! {
        const _: () = {
            const NAME: &::core::primitive::str = #name;
            #warnings
            #[automatically_derived]
            #quiet
            impl #impl_generics #support::Message for #ident #type_generics #where_clause {
                const TYPE_HASH: ::core::primitive::u64 = #hash;
                const SCHEMA_HASH: ::core::primitive::u64 = #schema;
                fn type_name() -> ::std::borrow::Cow<'static, ::core::primitive::str> {
                    #type_name
                }
            }
        };
    })
}

/// The name that two processes must agree on: given by the user, or the package and the type. Modules are
/// left out, so that moving a type inside its package changes nothing on the wire.
fn wire_name(input: &DeriveInput) -> Result<TokenStream> {
    let mut name: Option<LitStr> = None;
    for attribute in &input.attrs {
        if !attribute.path().is_ident("message") {
            continue;
        }
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("unknown argument; expected `name = \"stable.name\"`"));
            }
            let value: LitStr = meta.value()?.parse()?;
            if value.value().is_empty() {
                return Err(Error::new_spanned(
                    &value,
                    "the name of a message cannot be empty",
                ));
            }
            if name.replace(value).is_some() {
                return Err(meta.error("the name is given twice"));
            }
            Ok(())
        })?;
    }
    Ok(match name {
        Some(name) => quote!(#name),
        None => {
            let ident = input.ident.to_string();
            let ident = ident.trim_start_matches("r#");
            quote!(::core::concat!(::core::env!("CARGO_PKG_NAME"), "::", #ident))
        }
    })
}
