//! The hash of a message's shape: the building blocks from which the derive of `Message` computes it at compile time,
//! and the hash that stands on the wire. What goes into it is the derive's matter.

use std::marker::PhantomData;

use crate::message::Message;

/// The upper half says which type it is, the lower half which shape the type has.
const NAME_HALF: u64 = 0xffff_ffff_0000_0000;

/// E-05: the hash that travels with an encoded message: half of it [`Message::TYPE_HASH`], half [`Message::SCHEMA_HASH`].
///
/// So a receiver tells apart a message of another type, and one of its own type from a program that was built from
/// another version of it. For a type whose two hashes are one, as with those of the standard library, it is that hash.
#[must_use]
pub const fn wire_hash<M: Message>() -> u64 {
    (M::TYPE_HASH & NAME_HALF) | (M::SCHEMA_HASH & !NAME_HALF)
}

/// Whether two wire hashes are of one type, by its name, whatever its shape.
pub(crate) const fn is_same_type(a: u64, b: u64) -> bool {
    a & NAME_HALF == b & NAME_HALF
}

/// A type with the hash of its shape, for an error: `demo::Add (schema 1c291ca3)`.
pub(crate) fn describe(type_name: &str, wire_hash: u64) -> String {
    format!("{type_name} (schema {:08x})", wire_hash & !NAME_HALF)
}

/// Mixes the upper half of a hash into the lower, the only one that a schema hash is known by on the wire.
#[must_use]
pub const fn fold(hash: u64) -> u64 {
    hash ^ (hash >> 32)
}

/// Asks at compile time whether a type is a message: [`SHAPE`](Self::SHAPE) is the inherent constant if it is one, and
/// that of [`Opaque`] if it is not.
pub struct Shape<T: ?Sized>(PhantomData<T>);

impl<T: Message> Shape<T> {
    /// The hash of the type's own shape.
    // The compiler shows this line when it reports a cycle of messages that contain each other.
    pub const SHAPE: Option<u64> = Some(T::SCHEMA_HASH); // a cycle? put `#[message(by_name)]` on a field
}

/// A type of which only the name is known.
pub trait Opaque {
    /// None.
    const SHAPE: Option<u64> = None;
}

impl<T: ?Sized> Opaque for Shape<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::type_hash;

    #[test]
    fn a_type_of_the_standard_library_travels_under_its_type_hash() {
        assert_eq!(wire_hash::<String>(), String::TYPE_HASH);
        assert_eq!(wire_hash::<Vec<(u8, bool)>>(), <Vec<(u8, bool)>>::TYPE_HASH);
    }

    #[test]
    fn only_a_message_has_a_shape() {
        struct Mute;
        assert_eq!(<Shape<u8>>::SHAPE, Some(u8::SCHEMA_HASH));
        assert_eq!(<Shape<Vec<u8>>>::SHAPE, Some(<Vec<u8>>::SCHEMA_HASH));
        assert_eq!(<Shape<Mute>>::SHAPE, None);
        assert_eq!(<Shape<Vec<Mute>>>::SHAPE, None);
    }

    /// E-05.
    #[test]
    fn folding_lets_the_upper_half_tell() {
        let hash = type_hash("x");
        assert_ne!(fold(hash) & !NAME_HALF, fold(hash ^ (1 << 40)) & !NAME_HALF);
    }
}
