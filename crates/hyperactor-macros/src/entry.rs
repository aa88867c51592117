//! The attribute `main`: bootstrap first, then the runtime. It starts no process itself.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, Ident, ItemFn, LitInt, LitStr, Result, Token, Type, parenthesized};

use crate::paths;

/// What stands in the brackets of `#[hyperactor::main(…)]`.
#[derive(Default)]
pub(crate) struct Arguments {
    actors: Vec<Type>,
    registry: Option<Expr>,
    linked: bool,
    worker_threads: Option<LitInt>,
    current_thread: bool,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Self::default();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            match key.to_string().as_str() {
                "actors" => {
                    let list;
                    parenthesized!(list in input);
                    let actors = Punctuated::<Type, Token![,]>::parse_terminated(&list)?;
                    arguments.actors.extend(actors);
                }
                "linked" => arguments.linked = true,
                "registry" => {
                    input.parse::<Token![=]>()?;
                    arguments.registry = Some(input.parse()?);
                }
                "worker_threads" => {
                    input.parse::<Token![=]>()?;
                    let count: LitInt = input.parse()?;
                    if count.base10_parse::<usize>()? == 0 {
                        return Err(Error::new_spanned(count, "a runtime needs a worker thread"));
                    }
                    arguments.worker_threads = Some(count);
                }
                "flavor" => {
                    input.parse::<Token![=]>()?;
                    let flavor: LitStr = input.parse()?;
                    arguments.current_thread = match flavor.value().as_str() {
                        "current_thread" => true,
                        "multi_thread" => false,
                        _ => {
                            return Err(Error::new_spanned(
                                flavor,
                                "expected \"current_thread\" or \"multi_thread\"",
                            ));
                        }
                    };
                }
                _ => {
                    return Err(Error::new_spanned(
                        key,
                        "expected `actors(A, B)`, `linked`, `registry = …`, `worker_threads = N` or `flavor = \"…\"`",
                    ));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        if let (true, Some(count)) = (arguments.current_thread, &arguments.worker_threads) {
            return Err(Error::new_spanned(
                count,
                "a current_thread runtime has no worker threads to count",
            ));
        }
        Ok(arguments)
    }
}

pub(crate) fn expand(arguments: &Arguments, function: ItemFn) -> Result<TokenStream> {
    let ItemFn {
        attrs,
        vis,
        mut sig,
        block,
        ..
    } = function;
    if sig.asyncness.take().is_none() {
        return Err(Error::new_spanned(
            sig.fn_token,
            "the function must be an `async fn`: its body runs on the runtime that is built for it",
        ));
    }
    if !sig.inputs.is_empty() {
        return Err(Error::new_spanned(
            &sig.inputs,
            "the entry of a program takes no arguments; read `std::env::args()` inside",
        ));
    }
    let facade = paths::facade()?;
    let actors = &arguments.actors;
    let registry = match &arguments.registry {
        Some(registry) => quote!(#registry),
        None => quote!(#facade::proc::Registry::new()),
    };
    let linked = arguments.linked.then(|| quote!(.with_linked()));
    let workers = arguments
        .worker_threads
        .iter()
        .map(|count| quote!(.worker_threads(#count)));
    let constructor = if arguments.current_thread {
        quote!(new_current_thread)
    } else {
        quote!(new_multi_thread)
    };
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            #facade::bootstrap::boot((#registry)#(.with::<#actors>())* #linked);
            match #facade::__private::tokio::runtime::Builder::#constructor()
                #(#workers)*
                .enable_all()
                .on_thread_park(#facade::channel::spin::before_park)
                .build()
            {
                ::core::result::Result::Ok(runtime) => runtime.block_on(async #block),
                ::core::result::Result::Err(error) => {
                    ::std::eprintln!("cannot start the runtime: {error}; are threads or descriptors exhausted?");
                    // No part of the program has run yet, so there is nothing that an exit could cut short.
                    ::std::process::exit(70)
                }
            }
        }
    })
}
