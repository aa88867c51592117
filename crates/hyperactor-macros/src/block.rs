//! The attribute `actor` on an impl block: what stands in its brackets, and the pieces put together. The methods are
//! read in `methods.rs`, the code for them is written in `client.rs`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{
    Error, GenericParam, Ident, ImplItem, Item, ItemImpl, Path, Result, Token, Type, parenthesized,
};

use crate::client::{self, Block};
use crate::methods::{Method, take_marks};
use crate::paths;
use crate::spawn::Constructor;

/// What stands in the brackets of `#[actor(…)]`.
#[derive(Default)]
pub(crate) struct Arguments {
    /// The name of the client trait.
    client: Option<Ident>,
    /// What the messages derive beside what they need.
    derives: Vec<Path>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Self::default();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            if key == "client" {
                input.parse::<Token![=]>()?;
                arguments.client = Some(input.parse()?);
            } else if key == "derive" {
                let list;
                parenthesized!(list in input);
                arguments
                    .derives
                    .extend(Punctuated::<Path, Token![,]>::parse_terminated(&list)?);
            } else if key == "messages" || key == "hooks" || key == "name" {
                return Err(Error::new_spanned(
                    &key,
                    format!(
                        "`{key}` belongs to the type: put `#[derive(Actor)]` on it, and `#[actor({key} …)]` below that"
                    ),
                ));
            } else {
                return Err(Error::new_spanned(
                    key,
                    "unknown argument; on an impl block stands `client = Name` or `derive(Debug, …)`",
                ));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(arguments)
    }
}

/// The block as it was written, whatever is wrong with it, so that one mistake is not reported as many.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut item: Item = match syn::parse2(item) {
        Ok(item) => item,
        Err(error) => return error.into_compile_error(),
    };
    let generated = match &mut item {
        Item::Impl(block) => {
            syn::parse2(arguments).and_then(|arguments| generate(&arguments, block))
        }
        other => Err(Error::new_spanned(
            other,
            "`#[actor]` goes on the impl block with the actor's methods; on the type itself stands `#[derive(Actor)]`, \
             and `#[actor(messages(…))]` below it",
        )),
    };
    let generated = generated.unwrap_or_else(Error::into_compile_error);
    quote! {
        #item
        #generated
    }
}

fn generate(arguments: &Arguments, block: &mut ItemImpl) -> Result<TokenStream> {
    if let Some((path, _)) = &block.trait_ {
        return Err(Error::new_spanned(
            path,
            "`#[actor]` goes on an impl block without a trait: each of its methods that takes a `&Context<Self>` is a \
             message",
        ));
    }
    for parameter in &block.generics.params {
        if let GenericParam::Lifetime(lifetime) = parameter {
            return Err(Error::new_spanned(
                lifetime,
                "an actor outlives its creator, so it owns its state: it cannot have a lifetime",
            ));
        }
    }
    let actor = name_of(&block.self_ty)?;
    let self_type = block.self_ty.to_token_stream();
    let mut methods = Vec::new();
    let mut constructor: Option<Constructor> = None;
    let mut errors: Option<Error> = None;
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else {
            continue;
        };
        let read = take_marks(&mut function.attrs).and_then(|marks| {
            if marks.is_constructor {
                if constructor.is_some() {
                    return Err(Error::new_spanned(
                        &function.sig.ident,
                        "an actor has one function with `#[actor(spawn)]`",
                    ));
                }
                constructor = Some(Constructor::read(&self_type, function)?);
            } else if !marks.is_skipped {
                methods.extend(Method::take(&actor, &self_type, function)?);
            }
            Ok(())
        });
        if let Err(error) = read {
            match &mut errors {
                Some(errors) => errors.combine(error),
                None => errors = Some(error),
            }
        }
    }
    if let Some(errors) = errors {
        return Err(errors);
    }
    if methods.is_empty() {
        return Err(Error::new_spanned(
            &block.self_ty,
            "no method of this block is a message; a message is `async fn name(&mut self, cx: &Context<Self>, …) -> \
             ActorResult`, or `ActorResult<R>` to reply an `R`",
        ));
    }
    let support = paths::actor_support()?;
    let made =
        constructor.map(|constructor| constructor.write(&support, &block.generics, &self_type));
    let block = Block {
        support,
        actor: &actor,
        self_type: &self_type,
        generics: &block.generics,
        client: arguments.client.as_ref(),
        derives: &arguments.derives,
    };
    let written = client::write(&block, &methods);
    Ok(quote!(#made #written))
}

fn name_of(self_type: &Type) -> Result<Ident> {
    match self_type {
        Type::Path(path) => path
            .path
            .segments
            .last()
            .map(|segment| segment.ident.clone()),
        Type::Group(group) => return name_of(&group.elem),
        _ => None,
    }
    .ok_or_else(|| Error::new_spanned(self_type, "an actor is a struct or an enum"))
}
