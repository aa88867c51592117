//! What may be sent: the [`Message`] trait, the hash that names a type on the wire, and the implementations for the
//! types of the standard library. The derive lives in `hyperactor-macros`; how a message is carried is in `payload.rs`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use hyperactor_refs::{ActorId, ChannelAddr, Incarnation, PortId, ProcId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Part;

/// A value that can be sent to an actor in any process.
///
/// Usually derived. Sent within a proc it is moved and never encoded; sent to another process it is encoded once.
///
/// The name stands for the type: two programs that exchange a message must give it the same name. They must give it
/// the same shape, too, since an encoded message does not say which fields it has; that they do is known by a hash of
/// the shape. A received payload of another type or shape than the port expects is refused as a type mismatch.
///
/// A derived shape hash covers the kind of the type, and each field's name, type and place; of an enum, each variant's
/// name and place, too. A field's own shape goes in if its type is a message, as are those of the standard library;
/// else the type's name stands for it, without its path: derive `Message` on it, too, to have its fields covered.
/// What is written by hand into an implementation of serde's traits is not seen.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    label = "not a message",
    note = "put `#[derive(Message, serde::Serialize, serde::Deserialize)]` on `{Self}`; what leaves a process owns its data, so send `String` for `&str` and `Vec<T>` for `&[T]`"
)]
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    /// The hash of the type's name: [`type_hash`] of it, for a generic type [`combine`]d with its parameters' hashes.
    const TYPE_HASH: u64;

    /// The hash of what the encoding consists of. An implementation by hand that leaves it out has the name stand for
    /// the shape.
    const SCHEMA_HASH: u64 = Self::TYPE_HASH;

    /// The stable name of the type.
    fn type_name() -> Cow<'static, str>;

    /// The index of the port at which an actor that exports this message receives it.
    ///
    /// The highest bit is set, which no port that is opened at run time has.
    fn port() -> u64 {
        Self::TYPE_HASH | 1 << 63
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The 64-bit FNV-1a hash of a type's name, computed at compile time.
///
/// Source of algorithm and constants: G. Fowler, L. C. Noll, K.-P. Vo and D. Eastlake, "The FNV Non-Cryptographic
/// Hash Algorithm". It is stable across releases and machines, which the standard library's hashers do not promise.
#[must_use]
pub const fn type_hash(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash = FNV_OFFSET;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(FNV_PRIME);
        at += 1;
    }
    hash
}

/// The hash of a generic type `a` applied to a parameter `b`: FNV-1a continued from `a` over the bytes of `b`,
/// the lowest first.
#[must_use]
pub const fn combine(a: u64, b: u64) -> u64 {
    let bytes = b.to_le_bytes();
    let mut hash = a;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(FNV_PRIME);
        at += 1;
    }
    hash
}

macro_rules! plain {
    ($($type:ty => $name:literal),* $(,)?) => {$(
        impl Message for $type {
            const TYPE_HASH: u64 = type_hash($name);
            fn type_name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
        }
    )*};
}

plain! {
    () => "()", bool => "bool", char => "char", String => "String", Bytes => "Bytes",
    Part => "Part",
    u8 => "u8", u16 => "u16", u32 => "u32", u64 => "u64", u128 => "u128", usize => "usize",
    i8 => "i8", i16 => "i16", i32 => "i32", i64 => "i64", i128 => "i128", isize => "isize",
    f32 => "f32", f64 => "f64", std::time::Duration => "Duration",
    ChannelAddr => "ChannelAddr", ProcId => "ProcId", ActorId => "ActorId", PortId => "PortId",
    Incarnation => "Incarnation",
}

macro_rules! generic {
    ($($type:ident<$($param:ident $(: $bound:path)?),+> => $name:literal),* $(,)?) => {$(
        impl<$($param: Message $(+ $bound)?),+> Message for $type<$($param),+> {
            const TYPE_HASH: u64 = {
                let hash = type_hash($name);
                $(let hash = combine(hash, $param::TYPE_HASH);)+
                hash
            };
            const SCHEMA_HASH: u64 = {
                let hash = type_hash($name);
                $(let hash = combine(hash, $param::SCHEMA_HASH);)+
                hash
            };
            fn type_name() -> Cow<'static, str> {
                let parameters: &[Cow<'static, str>] = &[$($param::type_name()),+];
                Cow::Owned(format!("{}<{}>", $name, parameters.join(", ")))
            }
        }
    )*};
}

generic! {
    Vec<T> => "Vec", Option<T> => "Option", Box<T> => "Box", Result<T, E> => "Result",
    BTreeMap<K: Ord, V> => "BTreeMap", BTreeSet<T: Ord> => "BTreeSet",
}

impl<K: Message + Eq + std::hash::Hash, V: Message> Message for HashMap<K, V> {
    const TYPE_HASH: u64 = combine(combine(type_hash("HashMap"), K::TYPE_HASH), V::TYPE_HASH);
    const SCHEMA_HASH: u64 = combine(
        combine(type_hash("HashMap"), K::SCHEMA_HASH),
        V::SCHEMA_HASH,
    );
    fn type_name() -> Cow<'static, str> {
        Cow::Owned(format!("HashMap<{}, {}>", K::type_name(), V::type_name()))
    }
}

macro_rules! tuple {
    ($($param:ident),+) => {
        impl<$($param: Message),+> Message for ($($param,)+) {
            const TYPE_HASH: u64 = {
                let hash = type_hash("tuple");
                $(let hash = combine(hash, $param::TYPE_HASH);)+
                hash
            };
            const SCHEMA_HASH: u64 = {
                let hash = type_hash("tuple");
                $(let hash = combine(hash, $param::SCHEMA_HASH);)+
                hash
            };
            fn type_name() -> Cow<'static, str> {
                let parameters: &[Cow<'static, str>] = &[$($param::type_name()),+];
                Cow::Owned(format!("({})", parameters.join(", ")))
            }
        }
    };
}

tuple!(A);
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_fnv_1a() {
        // From the authors' published table of test values.
        assert_eq!(type_hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(type_hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(type_hash("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_generic_type_differs_by_its_parameters_and_their_order() {
        let hashes = [
            <Vec<u8>>::TYPE_HASH,
            <Vec<u16>>::TYPE_HASH,
            <Option<u8>>::TYPE_HASH,
            <Result<u8, u16>>::TYPE_HASH,
            <Result<u16, u8>>::TYPE_HASH,
            <(u8, u16)>::TYPE_HASH,
            <(u16, u8)>::TYPE_HASH,
            <((u8,), u16)>::TYPE_HASH,
        ];
        let distinct: std::collections::HashSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
        assert_eq!(
            <Result<Vec<u8>, String>>::type_name(),
            "Result<Vec<u8>, String>"
        );
        assert_eq!(<(u8, bool)>::type_name(), "(u8, bool)");
    }

    #[test]
    fn the_port_of_a_message_has_the_highest_bit() {
        assert_eq!(u8::port() >> 63, 1);
        assert_eq!(u8::port() | u8::TYPE_HASH, u8::port());
    }
}
