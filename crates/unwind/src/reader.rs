//! A cursor over bytes that nobody has checked: every read can fail, none can panic.

/// A position in a byte slice. Reads are little endian and answer `None` at the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

macro_rules! fixed {
    ($name:ident, $type:ty) => {
        #[inline]
        pub fn $name(&mut self) -> Option<$type> {
            let (bytes, _) = self.data.get(self.at..)?.split_first_chunk()?;
            self.at += bytes.len();
            Some(<$type>::from_le_bytes(*bytes))
        }
    };
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// A cursor at `offset`, `None` if that is past the end.
    pub fn at(data: &'a [u8], offset: u64) -> Option<Self> {
        let at = usize::try_from(offset).ok()?;
        (at <= data.len()).then_some(Self { data, at })
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn is_empty(&self) -> bool {
        self.at >= self.data.len()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.data.get(self.at..).unwrap_or_default()
    }

    fixed!(u16, u16);
    fixed!(u32, u32);
    fixed!(u64, u64);

    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        let byte = *self.data.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let end = self.at.checked_add(usize::try_from(length).ok()?)?;
        let bytes = self.data.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    /// A cursor over the next `length` bytes that keeps counting positions from the same beginning.
    pub fn split(&mut self, length: u64) -> Option<Self> {
        let at = self.at;
        self.take(length)?;
        Some(Self { data: self.data.get(..self.at)?, at })
    }

    pub fn skip(&mut self, length: u64) -> Option<()> {
        self.take(length).map(|_| ())
    }

    /// Bytes up to the next zero, which is passed over; `None` if there is none within 4 KiB,
    /// so that many names in one long run of bytes cost no more than real ones.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        let length = rest.iter().take(4096).position(|&b| b == 0)?;
        self.at += length + 1;
        rest.get(..length)
    }

    /// Unsigned LEB128; `None` if it does not fit 64 bits.
    #[inline]
    pub fn uleb(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift >= 64 || (shift == 63 && bits > 1) {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    }

    /// Signed LEB128; `None` if it does not fit 64 bits.
    #[inline]
    pub fn sleb(&mut self) -> Option<i64> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.u8()?;
            if shift >= 64 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                if byte & 0x40 != 0 && shift < 64 {
                    value |= u64::MAX << shift;
                }
                return Some(value.cast_signed());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leb128_round_trips_at_the_edges() {
        assert_eq!(Reader::new(&[0xe5, 0x8e, 0x26]).uleb(), Some(624_485));
        assert_eq!(Reader::new(&[0x7f]).sleb(), Some(-1));
        assert_eq!(Reader::new(&[0x80, 0x7f]).sleb(), Some(-128));
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Reader::new(&max).uleb(), Some(u64::MAX));
        assert_eq!(Reader::new(&[0xff; 12]).uleb(), None);
        assert_eq!(Reader::new(&[0x80]).uleb(), None);
    }

    #[test]
    fn reads_past_the_end_answer_none() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32(), None);
        assert_eq!(reader.u16(), Some(0x0201));
        assert_eq!(reader.take(u64::MAX), None);
        assert_eq!(reader.text(), None);
    }
}
