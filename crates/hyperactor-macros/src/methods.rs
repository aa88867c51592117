//! Reads the methods of an `#[actor]` block: which of them are messages, what they take and what they reply. The code
//! for them is written in `client.rs`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident};
use syn::{
    Attribute, Error, FnArg, GenericArgument, Ident, ImplItemFn, Pat, PathArguments, ReceiverKind,
    Result, ReturnType, Signature, Type, Visibility,
};

use crate::tokens::{has_borrow, replace_self};

/// The methods that the references have themselves: one of these names would be found before the client's. A test of
/// `hyperactor-proc` compares the list with the sources.
const RESERVED: &[&str] = &[
    "abort",
    "actor_id",
    "ask",
    "ask_within",
    "attest",
    "bind",
    "clone",
    "cmp",
    "drain",
    "drain_within",
    "eq",
    "feed",
    "fmt",
    "hash",
    "join",
    "port",
    "post",
    "queued",
    "restrict",
    "send",
    "status",
    "stop",
    "stop_within",
    "to_string",
];

/// One method that is a message.
pub(crate) struct Method {
    pub(crate) docs: Vec<Attribute>,
    /// `#[cfg]`: what is written for the method exists where it does.
    pub(crate) cfgs: Vec<Attribute>,
    /// `#[deprecated]`: for the client's method.
    pub(crate) notices: Vec<Attribute>,
    /// `#[message(…)]`: for the message.
    pub(crate) message_attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) ident: Ident,
    pub(crate) message: Ident,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) reply: Option<Type>,
    pub(crate) ends: Ends,
}

/// One argument beside the context, which is a field of the message.
pub(crate) struct Argument {
    /// `#[serde(…)]` and `#[cfg]`.
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) field: Ident,
    pub(crate) of: Type,
}

/// What a method returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// A reply or nothing; it cannot fail.
    Plainly,
    /// An `ActorResult`, whose error fails the actor.
    Fallibly,
    /// The same, and the reply is sent by the method itself, through its last argument.
    ByPort { is_fallible: bool },
}

impl Method {
    /// The method as a message; none if it is an ordinary method. What is for the macro alone is taken from it.
    pub(crate) fn take(
        actor: &Ident,
        self_type: &TokenStream,
        function: &mut ImplItemFn,
    ) -> Result<Option<Self>> {
        if function.sig.asyncness.is_none() || !has_context(&function.sig) {
            return Ok(None);
        }
        let signature = &mut function.sig;
        check_shape(signature)?;
        let mut arguments = Vec::new();
        for input in signature.inputs.iter_mut().skip(2) {
            arguments.push(Argument::take(self_type, input)?);
        }
        let (mut reply, mut ends) = returns(&signature.output)?;
        if let Some(by_port) = reply_port(arguments.last()) {
            if reply.is_some() {
                return Err(Error::new_spanned(
                    &signature.output,
                    "this method replies through its argument `reply`, so it returns `ActorResult`",
                ));
            }
            reply = Some(by_port);
            ends = Ends::ByPort {
                is_fallible: ends == Ends::Fallibly,
            };
            arguments.pop();
        }
        let reply = reply.map(|of| owned(self_type, &of)).transpose()?;
        if reply.is_some()
            && let Some(argument) = arguments.iter().find(|argument| argument.field == "reply")
        {
            return Err(Error::new_spanned(
                &argument.field,
                "this method replies, so its message has a field `reply` for the port of the reply; give the argument \
                 another name, or take the port yourself with `reply: Option<OncePortRef<R>>` as the last argument",
            ));
        }
        let ident = signature.ident.clone();
        let message = format_ident!("{actor}{}", pascal(&ident), span = ident.span());
        let attributes = |name: &str| -> Vec<Attribute> {
            let named = |attribute: &&Attribute| attribute.path().is_ident(name);
            function.attrs.iter().filter(named).cloned().collect()
        };
        let method = Self {
            docs: attributes("doc"),
            cfgs: attributes("cfg"),
            notices: attributes("deprecated"),
            message_attributes: attributes("message"),
            visibility: function.vis.clone(),
            ident,
            message,
            arguments,
            reply,
            ends,
        };
        function
            .attrs
            .retain(|attribute| !attribute.path().is_ident("message"));
        Ok(Some(method))
    }
}

impl Argument {
    fn take(self_type: &TokenStream, input: &mut FnArg) -> Result<Self> {
        let FnArg::Typed(input) = input else {
            return Err(Error::new_spanned(
                input,
                "an argument with a name and a type",
            ));
        };
        let field = match &*input.pat {
            Pat::Ident(pattern) if pattern.subpat.is_none() => {
                let text = pattern.ident.to_string();
                let bare = text.trim_start_matches('_');
                if bare.is_empty() || bare == text {
                    pattern.ident.clone()
                } else {
                    Ident::new(bare, pattern.ident.span())
                }
            }
            other => {
                return Err(Error::new_spanned(
                    other,
                    "an argument is a field of the message, so it needs a name; take it apart inside the method",
                ));
            }
        };
        let of = owned(self_type, &input.ty)?;
        let attributes = std::mem::take(&mut input.attrs);
        Ok(Self {
            attributes,
            field,
            of,
        })
    }
}

/// What `#[actor(…)]` says of a function in the block.
#[derive(Default)]
pub(crate) struct Marks {
    /// It is no message.
    pub(crate) is_skipped: bool,
    /// It makes the actor.
    pub(crate) is_constructor: bool,
}

/// Takes `#[actor(…)]` away from a function, and says what it was.
pub(crate) fn take_marks(attributes: &mut Vec<Attribute>) -> Result<Marks> {
    let mut marks = Marks::default();
    for attribute in attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("actor"))
    {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("skip") {
                marks.is_skipped = true;
            } else if meta.path.is_ident("spawn") {
                marks.is_constructor = true;
            } else {
                return Err(meta.error(
                    "unknown argument; on a method stands `#[actor(skip)]`, if it is no message, or `#[actor(spawn)]`, if \
                     it makes the actor",
                ));
            }
            Ok(())
        })?;
    }
    attributes.retain(|attribute| !attribute.path().is_ident("actor"));
    Ok(marks)
}

/// Whether it is a method whose first argument is a context: the mark of a message.
fn has_context(signature: &Signature) -> bool {
    let mut inputs = signature.inputs.iter();
    let Some(FnArg::Receiver(_)) = inputs.next() else {
        return false;
    };
    let Some(FnArg::Typed(second)) = inputs.next() else {
        return false;
    };
    let of = match &*second.ty {
        Type::Reference(reference) => &*reference.elem,
        other => other,
    };
    last_segment(of).is_some_and(|segment| segment.ident == "Context")
}

/// What is wrong with a method that is meant to be a message.
fn check_shape(signature: &Signature) -> Result<()> {
    let mut inputs = signature.inputs.iter();
    if let Some(FnArg::Receiver(receiver)) = inputs.next()
        && matches!(receiver.kind, ReceiverKind::Value)
    {
        return Err(Error::new_spanned(
            receiver,
            "the actor goes on after a message, so a method borrows it: write `&mut self`",
        ));
    }
    if let Some(FnArg::Typed(context)) = inputs.next()
        && !matches!(&*context.ty, Type::Reference(reference) if reference.mutability.is_none())
    {
        return Err(Error::new_spanned(
            &context.ty,
            "the context is lent: write `cx: &Context<Self>`",
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &signature.generics,
            "a message is of one type, so its method has no parameters of its own: put them on the actor, or mark a \
             method that is no message with `#[actor(skip)]`",
        ));
    }
    if let Some(clause) = &signature.generics.where_clause {
        return Err(Error::new_spanned(
            clause,
            "the handler of a message has the bounds of the impl block: put these there",
        ));
    }
    let name = signature.ident.to_string();
    if RESERVED.contains(&name.as_str()) {
        return Err(Error::new_spanned(
            &signature.ident,
            format!(
                "references to actors have a method `{name}` of their own, which would be called instead; choose \
                     another name, or mark a method that is no message with `#[actor(skip)]`"
            ),
        ));
    }
    Ok(())
}

/// A type that can be a field, with the actor's name for `Self`.
pub(crate) fn owned(self_type: &TokenStream, of: &Type) -> Result<Type> {
    if let Type::ImplTrait(_) = of {
        return Err(Error::new_spanned(
            of,
            "a message has fields of known types: name the type instead of `impl …`",
        ));
    }
    if has_borrow(of.to_token_stream()) {
        return Err(Error::new_spanned(
            of,
            "a message owns its data, since it may leave the process: take `String` for `&str`, `Vec<T>` for `&[T]`, \
             `T` for `&T`",
        ));
    }
    syn::parse2(replace_self(of.to_token_stream(), self_type))
}

/// The reply, if there is one, and whether the method can fail. By what is written, since a macro sees no types:
/// `ActorResult` and `Result<_, ActorError>` are failures of the actor, all else is the reply.
fn returns(output: &ReturnType) -> Result<(Option<Type>, Ends)> {
    let ReturnType::Type(_, of) = output else {
        return Ok((None, Ends::Plainly));
    };
    if is_unit(of) {
        return Ok((None, Ends::Plainly));
    }
    let Some(segment) = last_segment(of) else {
        return Ok((Some((**of).clone()), Ends::Plainly));
    };
    let types = type_arguments(&segment.arguments);
    match (segment.ident.to_string().as_str(), types.as_slice()) {
        ("ActorResult", []) => Ok((None, Ends::Fallibly)),
        // Written out, `ActorResult<()>` is a reply: an acknowledgement that the message was handled.
        ("ActorResult", [reply]) => Ok((Some(reply.clone()), Ends::Fallibly)),
        ("Result", [reply, error])
            if last_segment(error).is_some_and(|segment| segment.ident == "ActorError") =>
        {
            Ok(((!is_unit(reply)).then(|| reply.clone()), Ends::Fallibly))
        }
        _ => Ok((Some((**of).clone()), Ends::Plainly)),
    }
}

/// The type of the reply, if the argument is `reply: Option<OncePortRef<R>>`.
fn reply_port(last: Option<&Argument>) -> Option<Type> {
    let last = last.filter(|argument| argument.field == "reply")?;
    let option = last_segment(&last.of).filter(|segment| segment.ident == "Option")?;
    let [port] = &type_arguments(&option.arguments)[..] else {
        return None;
    };
    let port = last_segment(port).filter(|segment| segment.ident == "OncePortRef")?;
    match &type_arguments(&port.arguments)[..] {
        [reply] => Some(reply.clone()),
        _ => None,
    }
}

fn is_unit(of: &Type) -> bool {
    matches!(of, Type::Tuple(tuple) if tuple.elems.is_empty())
}

pub(crate) fn last_segment(of: &Type) -> Option<&syn::PathSegment> {
    match of {
        Type::Path(path) => path.path.segments.last(),
        Type::Group(group) => last_segment(&group.elem),
        _ => None,
    }
}

fn type_arguments(arguments: &PathArguments) -> Vec<Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else {
        return Vec::new();
    };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(of) => Some(of.clone()),
        _ => None,
    });
    types.collect()
}

/// `add_twice` as `AddTwice`.
fn pascal(ident: &Ident) -> String {
    let text = ident.to_string();
    let bare = text.strip_prefix("r#").unwrap_or(&text);
    let mut pascal = String::new();
    for word in bare.split('_') {
        let mut letters = word.chars();
        pascal.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        pascal.push_str(letters.as_str());
    }
    pascal
}

/// The place of a method's name, for the code that is written for it: errors are shown there.
pub(crate) fn place(method: &Method) -> Span {
    Span::call_site().located_at(method.ident.span())
}
