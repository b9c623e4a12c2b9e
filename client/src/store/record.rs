//! Reading records, fast: what the program itself has written, in the order of the bytes, without copies.
//!
//! ```text
//! CBOR (RFC 8949) of definite length: integers of 64 bits, bytes, texts, arrays, maps, true, false, null
//! ```
//!
//! Invariants: what is read here reads the same with the careful reader (`lapwing_wire::codec`). Everything else (other
//! kinds of items, a text that is not one, depth, bytes after the end) is refused, and the caller asks the careful one,
//! whose answer counts.

use serde::{
    de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor},
    forward_to_deserialize_any,
};

/// How deep arrays and maps may nest: more than any record has.
const MAX_DEPTH: usize = 16;

/// Not a record of the plain kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record is not of the plain kind")]
pub(super) struct Unusual;

impl de::Error for Unusual {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

/// The value that fills `bytes`.
pub(super) fn read<'a, T: de::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Unusual> {
    let mut reader = Reader { rest: bytes, depth: 0 };
    let value = T::deserialize(&mut reader)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(Unusual) }
}

struct Reader<'a> {
    rest: &'a [u8],
    depth: usize,
}

/// What an item begins with.
enum Head {
    Unsigned(u64),
    Negative(u64),
    Bytes(usize),
    Text(usize),
    Array(usize),
    Map(usize),
    Bool(bool),
    Null,
}

impl<'a> Reader<'a> {
    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], Unusual> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Unusual)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn number<const N: usize>(&mut self) -> Result<[u8; N], Unusual> {
        let (number, rest) = self.rest.split_first_chunk().ok_or(Unusual)?;
        self.rest = rest;
        Ok(*number)
    }

    #[inline]
    fn head(&mut self) -> Result<Head, Unusual> {
        let [first] = self.number()?;
        let argument = match first & 0x1f {
            small @ 0..24 => u64::from(small),
            24 if first >> 5 != 7 => u64::from(u8::from_be_bytes(self.number()?)),
            25 if first >> 5 != 7 => u64::from(u16::from_be_bytes(self.number()?)),
            26 if first >> 5 != 7 => u64::from(u32::from_be_bytes(self.number()?)),
            27 if first >> 5 != 7 => u64::from_be_bytes(self.number()?),
            _ => return Err(Unusual),
        };
        let len = || usize::try_from(argument).map_err(|_| Unusual);
        Ok(match first >> 5 {
            0 => Head::Unsigned(argument),
            1 => Head::Negative(argument),
            2 => Head::Bytes(len()?),
            3 => Head::Text(len()?),
            4 => Head::Array(len()?),
            5 => Head::Map(len()?),
            7 => match argument {
                20 => Head::Bool(false),
                21 => Head::Bool(true),
                22 => Head::Null,
                _ => return Err(Unusual),
            },
            _ => return Err(Unusual),
        })
    }

    fn text(&mut self, len: usize) -> Result<&'a str, Unusual> {
        std::str::from_utf8(self.take(len)?).map_err(|_| Unusual)
    }

    /// Passes over an item, as far as it is one that is read here.
    fn skip(&mut self) -> Result<(), Unusual> {
        match self.head()? {
            Head::Unsigned(_) | Head::Negative(_) | Head::Bool(_) | Head::Null => Ok(()),
            Head::Bytes(len) => self.take(len).map(drop),
            Head::Text(len) => self.text(len).map(drop),
            Head::Array(count) => self.inside(|reader| (0..count).try_for_each(|_| reader.skip())),
            Head::Map(count) => {
                self.inside(|reader| (0..count).try_for_each(|_| reader.skip().and_then(|()| reader.skip())))
            }
        }
    }

    fn inside<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Unusual>) -> Result<T, Unusual> {
        if self.depth >= MAX_DEPTH {
            return Err(Unusual);
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }
}

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = Unusual;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        match self.head()? {
            Head::Unsigned(number) => visitor.visit_u64(number),
            Head::Negative(number) => {
                visitor.visit_i64(i64::try_from(number).map_err(|_| Unusual).map(|n| -1 - n)?)
            }
            Head::Bytes(len) => visitor.visit_borrowed_bytes(self.take(len)?),
            Head::Text(len) => visitor.visit_borrowed_str(self.text(len)?),
            Head::Bool(value) => visitor.visit_bool(value),
            Head::Null => visitor.visit_none(),
            Head::Array(left) => self.inside(|reader| {
                let mut items = Items { reader, left };
                let value = visitor.visit_seq(&mut items)?;
                items.ended(value)
            }),
            Head::Map(left) => self.inside(|reader| {
                let mut items = Items { reader, left };
                let value = visitor.visit_map(&mut items)?;
                items.ended(value)
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        // Null; anything else is what may be there.
        if let Some((0xf6, rest)) = self.rest.split_first() {
            self.rest = rest;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unusual> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        match self.head()? {
            Head::Null => visitor.visit_unit(),
            _ => Err(Unusual),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unusual> {
        self.deserialize_unit(visitor)
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        match self.head()? {
            Head::Text(len) => {
                let name = self.take(len)?;
                // All names are ASCII: they need not be checked to be texts, only compared.
                if name.is_ascii() { visitor.visit_borrowed_bytes(name) } else { Err(Unusual) }
            }
            _ => Err(Unusual),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        self.skip()?;
        visitor.visit_unit()
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unusual> {
        match self.rest.first().map(|first| first >> 5) {
            Some(3) => visitor.visit_enum(Variant { reader: self, has_content: false }),
            Some(5) => {
                let Head::Map(1) = self.head()? else { return Err(Unusual) };
                self.inside(|reader| visitor.visit_enum(Variant { reader, has_content: true }))
            }
            _ => Err(Unusual),
        }
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf seq tuple tuple_struct map
        struct
    }
}

/// What is left of an array, or of a map.
struct Items<'r, 'a> {
    reader: &'r mut Reader<'a>,
    left: usize,
}

impl Items<'_, '_> {
    /// A visitor that stopped before the end has read something else than what is there.
    fn ended<T>(&self, value: T) -> Result<T, Unusual> {
        if self.left == 0 { Ok(value) } else { Err(Unusual) }
    }

    fn next(&mut self) -> bool {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        more
    }

    /// Never more than the bytes that are left: a claimed length allocates nothing.
    fn hint(&self) -> usize {
        self.left.min(self.reader.rest.len())
    }
}

impl<'a> SeqAccess<'a> for &mut Items<'_, 'a> {
    type Error = Unusual;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Unusual> {
        if self.next() { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.hint())
    }
}

impl<'a> MapAccess<'a> for &mut Items<'_, 'a> {
    type Error = Unusual;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Unusual> {
        if self.next() { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Unusual> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.hint())
    }
}

/// The name of a variant, and what it has.
struct Variant<'r, 'a> {
    reader: &'r mut Reader<'a>,
    has_content: bool,
}

impl<'a> EnumAccess<'a> for Variant<'_, 'a> {
    type Error = Unusual;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Self), Unusual> {
        let name = seed.deserialize(&mut *self.reader)?;
        Ok((name, self))
    }
}

impl<'a> VariantAccess<'a> for Variant<'_, 'a> {
    type Error = Unusual;

    fn unit_variant(self) -> Result<(), Unusual> {
        if self.has_content { Err(Unusual) } else { Ok(()) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<T::Value, Unusual> {
        if self.has_content { seed.deserialize(self.reader) } else { Err(Unusual) }
    }

    fn tuple_variant<V: Visitor<'a>>(self, _: usize, visitor: V) -> Result<V::Value, Unusual> {
        if self.has_content { de::Deserializer::deserialize_any(self.reader, visitor) } else { Err(Unusual) }
    }

    fn struct_variant<V: Visitor<'a>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unusual> {
        if self.has_content { de::Deserializer::deserialize_any(self.reader, visitor) } else { Err(Unusual) }
    }
}

#[cfg(test)]
mod tests;
