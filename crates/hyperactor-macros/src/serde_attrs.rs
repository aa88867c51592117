//! The `#[serde(…)]` attributes that change what is encoded, and those that the encoding cannot carry; and what
//! `#[message(…)]` says of a field. All others are serde's own matter.

use quote::ToTokens;
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Expr, ExprLit, Lit, Meta, Result, Token, Type};

/// What is said of a struct or an enum.
#[derive(Default)]
pub(crate) struct Container {
    /// The types that are encoded in its place: `from`, `try_from`, `into`.
    pub(crate) stand_ins: Vec<Type>,
}

/// What is said of a variant.
#[derive(Default)]
pub(crate) struct Variant {
    pub(crate) rename: Option<String>,
    /// The attribute by which the user's own code encodes it.
    pub(crate) as_written: Option<String>,
}

/// What is said of a field.
#[derive(Default)]
pub(crate) struct Field {
    pub(crate) is_skipped: bool,
    /// `#[message(by_name)]`: the name of its type stands for the shape.
    pub(crate) is_by_name: bool,
    /// `#[message(byte_by_byte)]`: it holds bytes, and so few that how they are encoded is no matter.
    pub(crate) is_byte_by_byte: bool,
    pub(crate) rename: Option<String>,
    /// The attribute by which the user's own code encodes it.
    pub(crate) as_written: Option<String>,
}

impl Container {
    pub(crate) fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut container = Self::default();
        let metas = metas(attributes);
        for meta in &metas {
            if meta.path().is_ident("untagged") {
                return Err(Error::new_spanned(
                    meta,
                    "a message cannot be `untagged`: the encoding does not describe itself, so the receiver could not \
                     tell the variants apart; leave the attribute out",
                ));
            }
            let has_content = || metas.iter().any(|meta| meta.path().is_ident("content"));
            if meta.path().is_ident("tag") && !has_content() {
                return Err(Error::new_spanned(
                    meta,
                    "a message cannot keep its variant in a field: the encoding does not describe itself; leave `tag` \
                     out, variants are told apart without it",
                ));
            }
            let stands_in = ["from", "try_from", "into"];
            if stands_in.iter().any(|name| meta.path().is_ident(name))
                && let Some(text) = text_of(meta)
                && let Ok(stand_in) = syn::parse_str(&text)
            {
                container.stand_ins.push(stand_in);
            }
        }
        Ok(container)
    }
}

impl Variant {
    pub(crate) fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut variant = Self::default();
        for meta in metas(attributes) {
            if meta.path().is_ident("untagged") {
                return Err(Error::new_spanned(
                    meta,
                    "a message cannot have an `untagged` variant: the encoding does not describe itself",
                ));
            }
            if meta.path().is_ident("rename") {
                variant.rename = text_of(&meta);
            }
            let is_skipped = ["skip", "skip_serializing", "skip_deserializing"];
            if is_skipped.iter().any(|name| meta.path().is_ident(name)) || is_own_code(&meta) {
                variant.as_written = Some(meta.to_token_stream().to_string());
            }
        }
        Ok(variant)
    }
}

impl Field {
    pub(crate) fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut field = Self::default();
        for attribute in attributes {
            if !attribute.path().is_ident("message") {
                continue;
            }
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("by_name") {
                    field.is_by_name = true;
                } else if meta.path.is_ident("byte_by_byte") {
                    field.is_byte_by_byte = true;
                } else {
                    return Err(meta.error(
                        "unknown argument; on a field stands `#[message(by_name)]`, if its type's name is to stand for its \
                         shape, or `#[message(byte_by_byte)]`, if it holds bytes and that they are few",
                    ));
                }
                Ok(())
            })?;
        }
        for meta in metas(attributes) {
            let path = meta.path();
            if path.is_ident("flatten") {
                return Err(Error::new_spanned(
                    meta,
                    "a field of a message cannot be flattened: that needs an encoding with names; leave `flatten` out, \
                     the field is encoded in place anyway",
                ));
            }
            if path.is_ident("skip_serializing_if") {
                return Err(Error::new_spanned(
                    meta,
                    "a field of a message is always encoded: the receiver could not tell that one is left out; leave \
                     `skip_serializing_if` out, an absent `Option` costs one byte",
                ));
            }
            if path.is_ident("skip_serializing") || path.is_ident("skip_deserializing") {
                return Err(Error::new_spanned(
                    meta,
                    "one side would encode this field and the other not expect it; write `#[serde(skip)]`",
                ));
            }
            if path.is_ident("skip") {
                field.is_skipped = true;
            } else if path.is_ident("rename") {
                field.rename = text_of(&meta);
            } else if is_own_code(&meta) {
                field.as_written = Some(meta.to_token_stream().to_string().replace(' ', ""));
            }
        }
        Ok(field)
    }
}

/// Whether it names functions of the user's that encode or decode.
fn is_own_code(meta: &Meta) -> bool {
    let names = ["with", "serialize_with", "deserialize_with"];
    names.iter().any(|name| meta.path().is_ident(name))
}

/// Every argument of every `#[serde(…)]`. What does not parse, serde's derive complains of.
fn metas(attributes: &[Attribute]) -> Vec<Meta> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("serde"))
        .filter_map(|attribute| {
            attribute
                .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
                .ok()
        })
        .flatten()
        .collect()
}

fn text_of(meta: &Meta) -> Option<String> {
    match meta {
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}
