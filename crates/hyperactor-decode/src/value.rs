//! Postcard's encoding read for serde, with a look at the stack where a value contains others. Where the stack ends is `stack`'s matter.
//!
//! It reads what `postcard` reads and refuses what that refuses, with the same errors: the tests set both against each other.

use serde::de::value::U32Deserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use postcard::{Error, Result};

use crate::stack::Depth;

/// Reads values from the front of some bytes.
///
/// Serde lets whatever contains others read them only from within a call for a sequence, a map, an enum, an option or a newtype: with a
/// look at the stack in each of those no two levels go by unseen, however large their frames are.
pub(crate) struct Values<'de> {
    /// What was not read.
    rest: &'de [u8],
    depth: Depth,
}

impl<'de> Values<'de> {
    #[inline]
    pub(crate) fn new(bytes: &'de [u8]) -> Self {
        Self {
            rest: bytes,
            depth: Depth::here(),
        }
    }

    /// What was not read.
    #[inline]
    pub(crate) fn rest(&self) -> &'de [u8] {
        self.rest
    }

    #[inline]
    fn byte(&mut self) -> Result<u8> {
        let (byte, rest) = self
            .rest
            .split_first()
            .ok_or(Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        Ok(*byte)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// A length, and as many bytes.
    #[inline]
    fn bytes(&mut self) -> Result<&'de [u8]> {
        let length = self.length()?;
        let (bytes, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    fn text(&mut self) -> Result<&'de str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error::DeserializeBadUtf8)
    }

    #[inline]
    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.varint::<{ u64::BITS }>()?).map_err(|_| Error::DeserializeBadVarint)
    }

    /// A number of so many bits at most: seven to a byte, the lowest first, the highest bit of each says whether another follows.
    #[inline]
    fn varint<const BITS: u32>(&mut self) -> Result<u64> {
        match self.rest {
            // Most are small.
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(BITS),
        }
    }

    #[inline]
    fn long_varint(&mut self, bits: u32) -> Result<u64> {
        let mut value = 0;
        let mut at = 0;
        for (index, byte) in self.rest.iter().enumerate() {
            let part = u64::from(byte & 0x7f);
            // The last byte that there may be has room for what is left of the bits, and for no more.
            if at + 7 > bits && (part >> (bits - at) != 0 || *byte >= 0x80) {
                return Err(Error::DeserializeBadVarint);
            }
            value |= part << at;
            if *byte < 0x80 {
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
            at += 7;
        }
        Err(Error::DeserializeUnexpectedEnd)
    }

    /// As [`varint`](Self::varint), of 128 bits.
    fn wide_varint(&mut self) -> Result<u128> {
        let (mut value, mut at) = (0, 0);
        loop {
            let byte = self.byte()?;
            let part = u128::from(byte & 0x7f);
            if at + 7 > u128::BITS && (part >> (u128::BITS - at) != 0 || byte >= 0x80) {
                return Err(Error::DeserializeBadVarint);
            }
            value |= part << at;
            if byte < 0x80 {
                return Ok(value);
            }
            at += 7;
        }
    }

    /// Looks at the stack, and gives so many values to a visitor, one by one.
    #[inline]
    fn each<V: Visitor<'de>>(&mut self, left: usize, visitor: V) -> Result<V::Value> {
        self.depth.look()?;
        visitor.visit_seq(Each { values: self, left })
    }
}

/// Values side by side.
struct Each<'a, 'de> {
    values: &'a mut Values<'de>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Each<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        seed.deserialize(&mut *self.values).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        // More than there are bytes is no lawful claim, but for values that take none.
        (self.left <= self.values.rest.len()).then_some(self.left)
    }
}

impl<'de> de::MapAccess<'de> for Each<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        de::SeqAccess::next_element_seed(self, seed)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        seed.deserialize(&mut *self.values)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        de::SeqAccess::size_hint(self)
    }
}

/// An unsigned number as the signed one that it stands for: 0, −1, 1, −2 and so on.
macro_rules! signed {
    ($value:expr, $signed:ty) => {{
        let value = $value;
        (value >> 1) as $signed ^ -((value & 1) as $signed)
    }};
}

/// Numbers of one kind: the method, how they are read, the visitor's method.
macro_rules! numbers {
    ($($method:ident => $visit:ident($this:ident, $read:expr);)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            let $this = self;
            visitor.$visit($read)
        }
    )*};
}

/// What the encoding cannot say: of what type something is, or that it is to be skipped.
macro_rules! refused {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value> {
            Err(Error::WontImplement)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for &mut Values<'de> {
    type Error = Error;

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    // A varint has no more bits than it was asked for, so the narrowings lose nothing.
    numbers! {
        deserialize_u8 => visit_u8(this, this.byte()?);
        deserialize_u16 => visit_u16(this, this.varint::<16>()? as u16);
        deserialize_u32 => visit_u32(this, this.varint::<32>()? as u32);
        deserialize_u64 => visit_u64(this, this.varint::<64>()?);
        deserialize_u128 => visit_u128(this, this.wide_varint()?);
        deserialize_i8 => visit_i8(this, this.byte()? as i8);
        deserialize_i16 => visit_i16(this, signed!(this.varint::<16>()?, i16));
        deserialize_i32 => visit_i32(this, signed!(this.varint::<32>()?, i32));
        deserialize_i64 => visit_i64(this, signed!(this.varint::<64>()?, i64));
        deserialize_i128 => visit_i128(this, signed!(this.wide_varint()?, i128));
        deserialize_f32 => visit_f32(this, f32::from_le_bytes(this.array()?));
        deserialize_f64 => visit_f64(this, f64::from_le_bytes(this.array()?));
        deserialize_str => visit_borrowed_str(this, this.text()?);
        deserialize_string => visit_borrowed_str(this, this.text()?);
        deserialize_bytes => visit_borrowed_bytes(this, this.bytes()?);
        deserialize_byte_buf => visit_borrowed_bytes(this, this.bytes()?);
    }

    refused! { deserialize_any deserialize_identifier deserialize_ignored_any }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            _ => Err(Error::DeserializeBadBool),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let length = self.length()?;
        if length > 4 {
            return Err(Error::DeserializeBadChar);
        }
        let (bytes, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        let text = std::str::from_utf8(bytes).map_err(|_| Error::DeserializeBadChar)?;
        visitor.visit_char(text.chars().next().ok_or(Error::DeserializeBadChar)?)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => {
                self.depth.look()?;
                visitor.visit_some(self)
            }
            _ => Err(Error::DeserializeBadOption),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        self.depth.look()?;
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let length = self.length()?;
        self.each(length, visitor)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value> {
        self.each(length, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.each(length, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let left = self.length()?;
        self.depth.look()?;
        visitor.visit_map(Each { values: self, left })
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.each(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.depth.look()?;
        visitor.visit_enum(self)
    }
}

impl<'de> de::EnumAccess<'de> for &mut Values<'de> {
    type Error = Error;
    type Variant = Self;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self)> {
        // As above.
        let number = self.varint::<32>()? as u32;
        let number: U32Deserializer<Error> = number.into_deserializer();
        Ok((seed.deserialize(number)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Values<'de> {
    type Error = Error;

    #[inline]
    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value> {
        self.each(length, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.each(fields.len(), visitor)
    }
}
