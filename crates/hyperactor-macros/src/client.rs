//! Writes the code for the methods of an `#[actor]` block: a message and a handler for each, the exports, and the client
//! traits by which the methods are called through references.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Generics, Ident, Path, Visibility};

use crate::methods::{Ends, Method, place};
use crate::tokens::used_generics;

/// What all methods of a block have in common.
pub(crate) struct Block<'a> {
    pub(crate) support: TokenStream,
    pub(crate) actor: &'a Ident,
    pub(crate) self_type: &'a TokenStream,
    pub(crate) generics: &'a Generics,
    pub(crate) client: Option<&'a Ident>,
    pub(crate) derives: &'a [Path],
}

pub(crate) fn write(block: &Block<'_>, methods: &[Method]) -> TokenStream {
    let messages = methods.iter().map(|method| message(block, method));
    let handlers = methods.iter().map(|method| handler(block, method));
    let exports = exports(block, methods);
    let clients = clients(block, methods);
    quote! {
        #(#messages)*
        #(#handlers)*
        #exports
        #(#clients)*
    }
}

/// The parameters that a method's message needs.
fn generics_of(block: &Block<'_>, method: &Method) -> Generics {
    let fields = method.arguments.iter().map(|argument| &argument.of);
    let reply = &method.reply;
    used_generics(block.generics, quote!(#(#fields,)* #reply))
}

/// The message's type, as it is named where the block's parameters are known.
fn message_type(block: &Block<'_>, method: &Method) -> TokenStream {
    let generics = generics_of(block, method);
    let (_, type_generics, _) = generics.split_for_impl();
    let ident = &method.message;
    quote!(#ident #type_generics)
}

fn message(block: &Block<'_>, method: &Method) -> TokenStream {
    let Method {
        docs,
        cfgs,
        message_attributes,
        visibility,
        ident,
        message,
        reply,
        ..
    } = method;
    let (support, actor, derives) = (&block.support, block.actor, block.derives);
    let mut generics = generics_of(block, method);
    let serde = format!("{support}::serde").replace(' ', "");
    // Serde would derive bounds of its own, which collide with those that the block has.
    let bound = (!generics.params.is_empty()).then(|| quote!(#[serde(bound = "")]));
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(syn::parse_quote!(#support::Message));
    }
    let fields = method.arguments.iter().map(|argument| {
        let (attributes, field, of) = (&argument.attributes, &argument.field, &argument.of);
        let doc = format!("The argument `{field}`.");
        quote!(#[doc = #doc] #(#attributes)* #visibility #field: #of,)
    });
    let reply_field = reply.as_ref().map(|reply| {
        quote! {
            #[doc = "Takes the reply; nobody waits for one where there is none."]
            #visibility reply: ::core::option::Option<#support::OncePortRef<#reply>>,
        }
    });
    let body = if method.arguments.is_empty() && reply.is_none() {
        quote!(;)
    } else {
        let where_clause = &generics.where_clause;
        quote!(#where_clause { #(#fields)* #reply_field })
    };
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let request = reply.as_ref().map(|reply| {
        quote! {
            #(#cfgs)*
            #[automatically_derived]
            impl #impl_generics #support::Request for #message #type_generics #where_clause {
                type Reply = #reply;
                fn with_reply(mut self, reply: #support::OncePortRef<#reply>) -> Self {
                    self.reply = ::core::option::Option::Some(reply);
                    self
                }
            }
        }
    });
    let doc = format!("The message by which `{actor}::{ident}` is called.");
    // Bounds stand where the parameters are declared, and no defaults with them.
    let params = impl_generics.to_token_stream();
    quote! {
        #[doc = #doc]
        #[doc = ""]
        #(#docs)*
        #(#cfgs)*
        #[derive(#support::serde::Serialize, #support::serde::Deserialize, #support::Message, #(#derives),*)]
        #[serde(crate = #serde)]
        #bound
        #(#message_attributes)*
        #[allow(dead_code, unreachable_pub, private_interfaces, private_bounds, reason = "it is as visible as the method")]
        #visibility struct #message #params #body
        #request
    }
}

fn handler(block: &Block<'_>, method: &Method) -> TokenStream {
    let Block {
        support, self_type, ..
    } = block;
    let Method {
        cfgs,
        ident,
        arguments,
        reply,
        ends,
        ..
    } = method;
    let message = message_type(block, method);
    let (impl_generics, _, where_clause) = block.generics.split_for_impl();
    let place = place(method);
    let fields = arguments.iter().map(|argument| {
        let field = &argument.field;
        quote_spanned!(place=> message.#field)
    });
    let by_port =
        matches!(ends, Ends::ByPort { .. }).then(|| quote_spanned!(place=> message.reply));
    let fails = match ends {
        Ends::Fallibly | Ends::ByPort { is_fallible: true } => quote_spanned!(place=> .await?),
        Ends::Plainly | Ends::ByPort { is_fallible: false } => quote_spanned!(place=> .await),
    };
    let call = quote_spanned!(place=> Self::#ident(self, cx, #(#fields,)* #by_port) #fails);
    let body = if reply.is_some() && by_port.is_none() {
        quote_spanned!(place=> let reply = #call; #support::answer(cx, message.reply, reply);)
    } else {
        quote_spanned!(place=> let () = #call;)
    };
    quote_spanned! {place=>
        #(#cfgs)*
        #[automatically_derived]
        #[allow(unused_variables, deprecated, clippy::let_unit_value, reason = "written for every kind of method")]
        impl #impl_generics #support::Handler<#message> for #self_type #where_clause {
            async fn handle(&mut self, cx: &#support::Context<Self>, message: #message) -> #support::ActorResult {
                #body
                ::core::result::Result::Ok(())
            }
        }
        #(#cfgs)*
        #[automatically_derived]
        impl #impl_generics #support::Receives<#message> for #self_type #where_clause {}
    }
}

/// The inherent function that the derive of `Actor` calls.
fn exports(block: &Block<'_>, methods: &[Method]) -> TokenStream {
    let Block {
        support, self_type, ..
    } = block;
    let (impl_generics, _, where_clause) = block.generics.split_for_impl();
    let exports = methods.iter().map(|method| {
        let (cfgs, message) = (&method.cfgs, message_type(block, method));
        quote!(#(#cfgs)* #support::Ports::export::<#message>(ports);)
    });
    quote! {
        #[automatically_derived]
        impl #impl_generics #self_type #where_clause {
            #[doc(hidden)]
            #[allow(unreachable_pub, reason = "the derive calls it from wherever the type is")]
            pub fn __export_methods(ports: &mut #support::Ports<Self>) {
                #(#exports)*
            }
        }
    }
}

/// One client trait for each visibility, since the methods of a trait are as visible as it is: the widest has the plain
/// name.
fn clients(block: &Block<'_>, methods: &[Method]) -> Vec<TokenStream> {
    let mut groups: Vec<(&Visibility, Vec<&Method>)> = Vec::new();
    for method in methods {
        let same = |group: &&mut (&Visibility, Vec<&Method>)| *group.0 == method.visibility;
        match groups.iter_mut().find(same) {
            Some((_, group)) => group.push(method),
            None => groups.push((&method.visibility, vec![method])),
        }
    }
    groups.sort_by_key(|(visibility, _)| rank(visibility).0);
    let plain = match block.client {
        Some(name) => name.clone(),
        None => format_ident!("{}Client", block.actor),
    };
    let traits = groups.iter().enumerate().map(|(at, (visibility, group))| {
        let name = match at {
            0 => plain.clone(),
            _ => format_ident!("{plain}{}", rank(visibility).1),
        };
        client(block, visibility, &name, group)
    });
    traits.collect()
}

/// How far a visibility reaches, the farthest first, and a word for it.
fn rank(visibility: &Visibility) -> (u8, &'static str) {
    match visibility {
        Visibility::Public(_) => (0, "Public"),
        Visibility::Restricted(restricted) if restricted.path.is_ident("crate") => (1, "Crate"),
        Visibility::Restricted(_) => (2, "Near"),
        _ => (3, "Private"),
    }
}

fn client(
    block: &Block<'_>,
    visibility: &Visibility,
    name: &Ident,
    methods: &[&Method],
) -> TokenStream {
    let Block {
        support,
        actor,
        self_type,
        generics,
        ..
    } = block;
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let (_, trait_arguments, _) = generics.split_for_impl();
    let trait_parameters = impl_generics.to_token_stream();
    let calls = methods.iter().map(|method| call(block, method));
    let doc = format!(
        "Calls the methods of a `{actor}` through a reference to it: each is awaited, or posted."
    );
    let mut restricted = (*generics).clone();
    restricted
        .params
        .push(syn::parse_quote!(__Facade: #support::Facade));
    let (restricted_generics, _, _) = restricted.split_for_impl();
    quote! {
        #[doc = #doc]
        #[allow(dead_code, unreachable_pub, private_interfaces, private_bounds, reason = "it is as visible as the methods")]
        #visibility trait #name #trait_parameters #where_clause {
            #(#calls)*
        }
        #[automatically_derived]
        impl #impl_generics #name #trait_arguments for #support::ActorRef<#self_type> #where_clause {}
        #[automatically_derived]
        impl #impl_generics #name #trait_arguments for #support::ActorHandle<#self_type> #where_clause {}
        #[automatically_derived]
        impl #restricted_generics #name #trait_arguments for #support::RestrictedRef<__Facade> #where_clause {}
    }
}

fn call(block: &Block<'_>, method: &Method) -> TokenStream {
    let support = &block.support;
    let Method {
        docs,
        cfgs,
        notices,
        ident,
        message,
        arguments,
        reply,
        ..
    } = method;
    let message_type = message_type(block, method);
    let place = place(method);
    let parameters = arguments.iter().map(|argument| {
        let (field, of) = (&argument.field, &argument.of);
        quote!(#field: #of)
    });
    // An argument may have the name of the context, so that has one which no argument has.
    let fields = arguments.iter().map(|argument| &argument.field);
    let no_reply = reply
        .as_ref()
        .map(|_| quote!(reply: ::core::option::Option::None,));
    let (returned, made) = match reply {
        Some(reply) => (quote!(#support::Ask<Reply = #reply>), quote!(ask)),
        None => (quote!(#support::Tell), quote!(tell)),
    };
    quote_spanned! {place=>
        #(#docs)*
        #(#cfgs)*
        #(#notices)*
        fn #ident(
            &self,
            __cx: &(impl #support::Outbox + ?::core::marker::Sized),
            #(#parameters),*
        ) -> impl #returned
        where
            Self: #support::Accepts<#message_type>,
        {
            #support::#made(self, __cx, #message { #(#fields,)* #no_reply })
        }
    }
}
