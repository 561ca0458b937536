//! The wire format of protocol buffers, as far as reading needs it: a message is a row of numbered fields. Every length is
//! checked against the bytes that are there. From: protobuf.dev, "Encoding".

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// An integer, a boolean or an enumeration.
    Integer(u64),
    /// Four bytes: a float.
    Four([u8; 4]),
    /// Eight bytes.
    Eight([u8; 8]),
    /// A text, bytes, or a message within.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn integer(self) -> Option<u64> {
        if let Self::Integer(number) = self { Some(number) } else { None }
    }

    pub(super) fn float(self) -> Option<f32> {
        if let Self::Four(bytes) = self { Some(f32::from_le_bytes(bytes)) } else { None }
    }

    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}

/// The fields of a message in their order: number and value.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// Up to ten bytes of seven bits, the lowest first.
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for place in 0..10 {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Integer(self.varint()?),
            1 => Value::Eight(self.array()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Four(self.array()?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    /// None within: the bytes are no message from here on.
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_every_kind() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1D, 0, 0, 0x80, 0x3F, 0x21, 1, 0, 0, 0, 0, 0, 0, 0];
        let fields: Vec<_> = Fields(&bytes).collect::<Option<_>>().expect("a message");
        let expected = [
            (1, Value::Integer(150)),
            (2, Value::Bytes(b"hi")),
            (3, Value::Four(1_f32.to_le_bytes())),
            (4, Value::Eight(1_u64.to_le_bytes())),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn every_shorter_message_ends_or_is_refused() {
        let bytes = [0x12, 0x03, b'a', b'b', b'c', 0x1D, 0, 0, 0, 0];
        for length in 0..bytes.len() {
            let whole = Fields(&bytes[..length]).all(|field| field.is_some());
            assert_eq!(whole, length == 0 || length == 5, "{length}");
        }
        assert_eq!(Fields(&[0xFF; 11]).next(), Some(None));
        assert_eq!(Fields(&[0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]).next(), Some(None));
    }
}
