//! What is known of types by their tokens alone.

use std::collections::HashSet;

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{GenericParam, Generics, WherePredicate};

/// The tokens with `Self` replaced by the type that it stands for.
pub(crate) fn replace_self(tokens: TokenStream, self_type: &TokenStream) -> TokenStream {
    let mut tokens = tokens.into_iter().peekable();
    let mut replaced = TokenStream::new();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(ident) if ident == "Self" => {
                let leads_a_path = matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
                if leads_a_path {
                    replaced.extend(quote!(<#self_type>));
                } else {
                    replaced.extend(self_type.clone());
                }
            }
            TokenTree::Group(group) => {
                let inner = replace_self(group.stream(), self_type);
                let mut copy = Group::new(group.delimiter(), inner);
                copy.set_span(group.span());
                replaced.extend([TokenTree::Group(copy)]);
            }
            other => replaced.extend([other]),
        }
    }
    replaced
}

/// Whether a type borrows: a reference or a lifetime other than `'static` stands in it.
pub(crate) fn has_borrow(tokens: TokenStream) -> bool {
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '&' => return true,
            TokenTree::Punct(punct) if punct.as_char() == '\'' => match tokens.next() {
                Some(TokenTree::Ident(name)) if name == "static" => {}
                _ => return true,
            },
            TokenTree::Group(group) if has_borrow(group.stream()) => return true,
            _ => {}
        }
    }
    false
}

/// Every name in the tokens.
fn names(tokens: TokenStream, into: &mut HashSet<Ident>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                into.insert(ident);
            }
            TokenTree::Group(group) => names(group.stream(), into),
            _ => {}
        }
    }
}

/// Those of an impl block's parameters, with their bounds, that occur in the tokens, or in the bounds of one that does.
pub(crate) fn used_generics(generics: &Generics, tokens: TokenStream) -> Generics {
    let mut used = HashSet::new();
    names(tokens, &mut used);
    let all: HashSet<Ident> = generics.params.iter().filter_map(name).collect();
    loop {
        let before = used.len();
        for parameter in &generics.params {
            if name(parameter).is_some_and(|name| used.contains(&name)) {
                names(parameter.to_token_stream(), &mut used);
            }
        }
        if used.len() == before {
            break;
        }
    }
    let is_used = |predicate: &WherePredicate| {
        let mut named = HashSet::new();
        names(predicate.to_token_stream(), &mut named);
        let mut parameters = named.intersection(&all).peekable();
        parameters.peek().is_some() && parameters.all(|parameter| used.contains(parameter))
    };
    let mut kept = Generics::default();
    for parameter in &generics.params {
        if name(parameter).is_some_and(|name| used.contains(&name)) {
            kept.params.push(parameter.clone());
        }
    }
    if let Some(clause) = &generics.where_clause {
        for predicate in clause
            .predicates
            .iter()
            .filter(|predicate| is_used(predicate))
        {
            kept.make_where_clause().predicates.push(predicate.clone());
        }
    }
    kept
}

fn name(parameter: &GenericParam) -> Option<Ident> {
    match parameter {
        GenericParam::Type(parameter) => Some(parameter.ident.clone()),
        GenericParam::Const(parameter) => Some(parameter.ident.clone()),
        GenericParam::Lifetime(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[test]
    fn self_is_replaced_wherever_it_stands() {
        let replaced = replace_self(quote!((Self, Vec<Self>, Self::Item)), &quote!(Counter));
        let expected = quote!((Counter, Vec<Counter>, <Counter>::Item));
        assert_eq!(replaced.to_string(), expected.to_string());
    }

    #[test]
    fn a_borrow_is_seen_at_any_depth() {
        for (of, borrows) in [
            (quote!(&str), true),
            (quote!(Option<(u8, &'static str)>), true),
            (quote!(Cow<'a, str>), true),
            (quote!(Cow<'static, str>), false),
            (quote!(Vec<String>), false),
        ] {
            assert_eq!(has_borrow(of.clone()), borrows, "{of}");
        }
    }

    #[test]
    fn only_the_parameters_that_occur_are_kept_with_their_bounds() {
        let generics: Generics = parse_quote!(<T: Into<U>, U, V, const N: usize>);
        let kept = used_generics(&generics, quote!(Vec<T>));
        let names: Vec<_> = kept.params.iter().filter_map(name).collect();
        assert_eq!(names, ["T", "U"]);
        let kept = used_generics(&generics, quote!([u8; N]));
        assert_eq!(kept.params.len(), 1);
    }
}
