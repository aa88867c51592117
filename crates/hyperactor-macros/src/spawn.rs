//! The constructor of an `#[actor]` block that is marked `#[actor(spawn)]`: how the actor is made in another process.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Error, FnArg, Generics, Ident, ImplItemFn, Result, ReturnType, Type};

use crate::methods::{last_segment, owned};

/// As many parameters as the longest tuple that is a message has parts.
const PARAMETERS_MAX: usize = 4;

/// A function that makes the actor from a message.
pub(crate) struct Constructor {
    ident: Ident,
    parameters: Vec<Type>,
    is_fallible: bool,
}

impl Constructor {
    pub(crate) fn read(self_type: &TokenStream, function: &ImplItemFn) -> Result<Self> {
        let signature = &function.sig;
        if let Some(asyncness) = &signature.asyncness {
            return Err(Error::new_spanned(
                asyncness,
                "an actor is made at once and begins its life in `init`: wait for things there",
            ));
        }
        if !signature.generics.params.is_empty() {
            return Err(Error::new_spanned(
                &signature.generics,
                "an actor is made from parameters of known types: put these on the actor",
            ));
        }
        let mut parameters = Vec::new();
        for input in &signature.inputs {
            match input {
                FnArg::Typed(input) => parameters.push(owned(self_type, &input.ty)?),
                FnArg::Receiver(receiver) => {
                    return Err(Error::new_spanned(
                        receiver,
                        "`#[actor(spawn)]` marks the function that makes the actor: it has no `self` yet",
                    ));
                }
            }
        }
        if parameters.len() > PARAMETERS_MAX {
            return Err(Error::new_spanned(
                &signature.inputs,
                format!(
                    "an actor is made from at most {PARAMETERS_MAX} parameters; take a message of your own, with fields"
                ),
            ));
        }
        let ReturnType::Type(_, of) = &signature.output else {
            return Err(Error::new_spanned(
                &signature.ident,
                "`#[actor(spawn)]` marks the function that makes the actor: it returns `Self`, or `ActorResult<Self>`",
            ));
        };
        let is_fallible = last_segment(of)
            .is_some_and(|segment| segment.ident == "ActorResult" || segment.ident == "Result");
        Ok(Self {
            ident: signature.ident.clone(),
            parameters,
            is_fallible,
        })
    }

    pub(crate) fn write(
        &self,
        support: &TokenStream,
        generics: &Generics,
        self_type: &TokenStream,
    ) -> TokenStream {
        let Self {
            ident,
            parameters,
            is_fallible,
        } = self;
        let place = Span::call_site().located_at(ident.span());
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let names: Vec<_> = (0..parameters.len())
            .map(|at| format_ident!("p{at}"))
            .collect();
        let (of, pattern) = match parameters.as_slice() {
            [one] => (one.to_token_stream(), quote!(p0)),
            many => (quote!((#(#many),*)), quote!((#(#names),*))),
        };
        let fails = is_fallible.then(|| quote!(?));
        quote_spanned! {place=>
            #[automatically_derived]
            impl #impl_generics #support::RemoteSpawn for #self_type #where_clause {
                type Params = #of;
                #[allow(clippy::needless_question_mark, reason = "the error may be of another type")]
                fn create(parameters: #of) -> #support::ActorResult<Self> {
                    let #pattern = parameters;
                    ::core::result::Result::Ok(Self::#ident(#(#names),*) #fails)
                }
            }
        }
    }
}
