//! What the derive of `Message` says of fields whose bytes serde would encode one by one: a warning, with what to write
//! instead. A macro of stable Rust warns by having the code use something deprecated.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Data, DeriveInput, Field, Ident, Result};

use crate::serde_attrs::{self, Container};

const NOTE: &str = "serde encodes and decodes a `Vec<u8>` byte by byte, which takes ten times as long as copying it: take `Bytes`, or \
                    keep the type with `#[serde(with = \"hyperactor::as_bytes\")]`; where the bytes are few, \
                    `#[message(byte_by_byte)]` says so";

/// The code that makes the compiler warn of such fields.
pub(crate) fn warnings(input: &DeriveInput) -> Result<TokenStream> {
    if !Container::parse(&input.attrs)?.stand_ins.is_empty() {
        // Its fields are not what is encoded.
        return Ok(TokenStream::new());
    }
    let mut warnings = TokenStream::new();
    for field in fields(&input.data) {
        let attributes = serde_attrs::Field::parse(&field.attrs)?;
        if attributes.is_skipped || attributes.is_byte_by_byte || attributes.as_written.is_some() {
            continue;
        }
        if let Some(place) = bytes_in(field.ty.to_token_stream()) {
            // The compiler keeps a warning to itself whose place is in what a derive has written.
            let used = quote_spanned!(place=> SLOW_FIELD_OF_BYTES);
            warnings.extend(quote!(const _: () = #used;));
        }
    }
    if warnings.is_empty() {
        return Ok(warnings);
    }
    Ok(quote! {
        #[deprecated(note = #NOTE)]
        const SLOW_FIELD_OF_BYTES: () = ();
        #warnings
    })
}

fn fields(data: &Data) -> Vec<&Field> {
    match data {
        Data::Struct(data) => data.fields.iter().collect(),
        Data::Enum(data) => data
            .variants
            .iter()
            .flat_map(|variant| variant.fields.iter())
            .collect(),
        // Refused before.
        Data::Union(_) => Vec::new(),
    }
}

/// Where a type has a `Vec<u8>` or a slice of bytes in it, as it is written: a macro sees no types.
fn bytes_in(of: TokenStream) -> Option<Span> {
    let tokens: Vec<TokenTree> = of.into_iter().collect();
    let is = |at: usize, text: &str| {
        tokens
            .get(at)
            .is_some_and(|token| token.to_string() == text)
    };
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(ident)
                if is_vec(ident) && is(at + 1, "<") && is(at + 2, "u8") && is(at + 3, ">") =>
            {
                return Some(ident.span());
            }
            // `[u8]`; an array, `[u8; N]`, is short, as arrays that serde knows are.
            TokenTree::Group(group) => {
                let is_slice = group.to_string().replace(' ', "") == "[u8]";
                let inner = is_slice.then(|| group.span());
                if let Some(place) = inner.or_else(|| bytes_in(group.stream())) {
                    return Some(place);
                }
            }
            _ => {}
        }
    }
    None
}

fn is_vec(ident: &Ident) -> bool {
    ident == "Vec" || ident == "VecDeque"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(message: &str) -> usize {
        let input: DeriveInput = syn::parse_str(message).expect("a type");
        let code = warnings(&input).expect("warnings").to_string();
        code.matches("const _ :").count()
    }

    #[test]
    fn bytes_are_found_wherever_they_are_in_a_type() {
        for of in [
            "Vec<u8>",
            "std::vec::Vec < u8 >",
            "Option<Vec<u8>>",
            "Vec<Vec<u8>>",
            "(u64, Vec<u8>)",
            "[Vec<u8>; 4]",
            "HashMap<String, Vec<u8>>",
            "OncePortRef<Vec<u8>>",
            "Box<[u8]>",
            "VecDeque<u8>",
        ] {
            assert_eq!(warned(&format!("struct A {{ a: u8, b: {of} }}")), 1, "{of}");
            assert_eq!(warned(&format!("enum A {{ B, C({of}, {of}) }}")), 2, "{of}");
        }
    }

    #[test]
    fn what_is_no_run_of_bytes_is_left_alone() {
        for of in [
            "Bytes",
            "u8",
            "[u8; 16]",
            "Vec<u16>",
            "Vec<Option<u8>>",
            "Map<Vec, u8>",
        ] {
            assert_eq!(warned(&format!("struct A(u8, {of});")), 0, "{of}");
        }
    }

    #[test]
    fn a_field_that_says_how_it_is_encoded_is_left_alone() {
        for attribute in [
            "#[serde(with = \"hyperactor::as_bytes\")]",
            "#[serde(serialize_with = \"f\", deserialize_with = \"g\")]",
            "#[serde(skip)]",
            "#[message(byte_by_byte)]",
        ] {
            assert_eq!(warned(&format!("struct A {{ {attribute} a: Vec<u8> }}")), 0);
        }
        assert_eq!(
            warned("#[serde(from = \"B\", into = \"B\")] struct A { a: Vec<u8> }"),
            0
        );
        assert_eq!(
            warned("#[serde(rename_all = \"x\")] struct A { a: Vec<u8> }"),
            1
        );
    }
}
