//! The hash of a message's shape, as an expression that the compiler evaluates: what goes into it, and what the
//! encoding cannot carry. The hash functions are in `hyperactor-mailbox`.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Fields, Result, Type};

use crate::serde_attrs::{Container, Field, Variant};

/// The expression that is the shape's hash.
pub(crate) fn hash(input: &DeriveInput, support: &TokenStream) -> Result<TokenStream> {
    let container = Container::parse(&input.attrs)?;
    let mut schema = Schema {
        support,
        own_name: &input.ident,
        steps: TokenStream::new(),
    };
    if container.stand_ins.is_empty() {
        match &input.data {
            Data::Struct(data) => schema.fields(&data.fields)?,
            Data::Enum(data) => {
                schema.text("enum");
                for variant in &data.variants {
                    let attributes = Variant::parse(&variant.attrs)?;
                    schema.text(&attributes.rename.unwrap_or_else(|| bare(&variant.ident)));
                    match attributes.as_written {
                        Some(text) => schema.text(&text),
                        None => schema.fields(&variant.fields)?,
                    }
                }
            }
            // Refused before.
            Data::Union(_) => {}
        }
    } else {
        // Another type stands on the wire in this one's place.
        schema.text("as");
        for stand_in in &container.stand_ins {
            schema.of_type(stand_in);
        }
    }
    let steps = schema.steps;
    Ok(quote! {{
        #[allow(unused_imports, reason = "every field may be of a type that is a message")]
        use #support::Opaque as _;
        let hash = #support::type_hash("");
        #steps
        #support::fold(hash)
    }})
}

struct Schema<'a> {
    support: &'a TokenStream,
    own_name: &'a Ident,
    steps: TokenStream,
}

impl Schema<'_> {
    fn text(&mut self, text: &str) {
        let support = self.support;
        self.steps.extend(quote! {
            let hash = #support::combine(hash, #support::type_hash(#text));
        });
    }

    fn fields(&mut self, fields: &Fields) -> Result<()> {
        self.text(match fields {
            Fields::Named(_) => "struct",
            Fields::Unnamed(_) => "tuple",
            Fields::Unit => "unit",
        });
        for field in fields {
            let attributes = Field::parse(&field.attrs)?;
            if attributes.is_skipped {
                continue;
            }
            if let Some(ident) = &field.ident {
                self.text(&attributes.rename.unwrap_or_else(|| bare(ident)));
            }
            match attributes.as_written {
                Some(text) => self.text(&format!("{text} {}", without_paths(&field.ty))),
                None if attributes.is_by_name => self.text(&without_paths(&field.ty)),
                None => self.of_type(&field.ty),
            }
        }
        self.text("end");
        Ok(())
    }

    /// The shape of a type that is a message, and the name of any other.
    fn of_type(&mut self, of: &Type) {
        let support = self.support;
        let name = without_paths(of);
        if mentions(of.to_token_stream(), self.own_name) {
            // The shape of a type that contains itself would need itself to be computed.
            return self.text(&name);
        }
        // Only the place is the type's: its hygiene may be that of a macro of the user's, where `hash` is unknown.
        let place = Span::call_site().located_at(of.span());
        self.steps.extend(quote_spanned! {place=>
            let hash = #support::combine(hash, match <#support::Shape<#of>>::SHAPE {
                ::core::option::Option::Some(shape) => shape,
                ::core::option::Option::None => #support::type_hash(#name),
            });
        });
    }
}

fn bare(ident: &Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map_or(text.clone(), str::to_owned)
}

/// A type as text, without the paths before its names and without spaces: two ways to write one type shall be one,
/// and how tokens are spaced is the compiler's affair.
fn without_paths(of: &Type) -> String {
    fn write(tokens: TokenStream, text: &mut String) {
        // Where the last name began, to take it back when `::` follows.
        let mut name_at = None;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if name_at.is_some() {
                        text.push(' ');
                    }
                    name_at = Some(text.len());
                    text.push_str(&bare(&ident));
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    if colons == 2 {
                        colons = 0;
                        if let Some(at) = name_at.take() {
                            text.truncate(at);
                        }
                    }
                }
                TokenTree::Group(group) => {
                    name_at = None;
                    text.push('(');
                    write(group.stream(), text);
                    text.push(')');
                }
                other => {
                    name_at = None;
                    text.push_str(&other.to_string());
                }
            }
        }
    }
    let mut text = String::new();
    write(of.to_token_stream(), &mut text);
    text
}

pub(crate) fn mentions(tokens: TokenStream, name: &Ident) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == *name || ident == "Self",
        TokenTree::Group(group) => mentions(group.stream(), name),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ways_to_write_a_type_have_one_text() {
        for (written, text) in [
            ("std::vec::Vec<demo::Point>", "Vec<Point>"),
            ("Vec < Point >", "Vec<Point>"),
            ("[::demo::Point; 3]", "(Point;3)"),
            ("(a::B, c::D<e::F>)", "(B,D<F>)"),
        ] {
            let parsed: Type = syn::parse_str(written).expect("a type");
            assert_eq!(without_paths(&parsed), text);
        }
    }
}
