//! Varints, strings once, lists: the primitives under the log's codec. The reader
//! takes any bytes: it never panics and allocates no more than the input warrants.

use everflame_profile::Str;
use rustc_hash::FxHashMap;

/// Bytes that are not what was written, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged record ({0})")]
pub(crate) struct Corrupt(pub &'static str);

/// Collects bytes; strings go into a table in front of them.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    strings: FxHashMap<Str, u64>,
    /// The same by address, so that a shared string is hashed once. `order` keeps
    /// each of them alive, so that no address comes again.
    addresses: FxHashMap<(usize, usize), u64>,
    order: Vec<Str>,
    /// Strings that equal one in `order` but stand elsewhere.
    others: Vec<Str>,
}

impl Writer {
    pub fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn u64(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub fn i64(&mut self, value: i64) {
        self.u64(((value << 1) ^ (value >> 63)) as u64);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.raw(bytes);
    }

    pub fn text(&mut self, text: &Str) {
        let address = (text.as_ptr().addr(), text.len());
        let id = match self.addresses.get(&address) {
            Some(&id) => id,
            None => {
                let id = match self.strings.get(text) {
                    Some(&id) => {
                        self.others.push(text.clone());
                        id
                    }
                    None => {
                        let id = self.order.len() as u64;
                        self.strings.insert(text.clone(), id);
                        self.order.push(text.clone());
                        id
                    }
                };
                self.addresses.insert(address, id);
                id
            }
        };
        self.u64(id);
    }

    /// An index, or `u32::MAX` for none.
    pub fn index(&mut self, index: u32) {
        self.u64(u64::from(index.wrapping_add(1)));
    }

    pub fn list<T>(&mut self, items: &[T], each: impl FnMut(&mut Self, &T)) {
        self.items(items.iter(), each);
    }

    pub fn items<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut each: impl FnMut(&mut Self, T)) {
        self.u64(items.len() as u64);
        for item in items {
            each(self, item);
        }
    }

    /// The string table, then the bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Self::default();
        out.list(&self.order, |out, text| out.bytes(text.as_bytes()));
        out.bytes.extend_from_slice(&self.bytes);
        out.bytes
    }

    /// The bytes alone, where no string was written.
    pub fn into_raw(self) -> Vec<u8> {
        debug_assert!(self.order.is_empty(), "strings need their table");
        self.bytes
    }
}

/// Reads what a [`Writer`] wrote.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    strings: Vec<Str>,
}

impl<'a> Reader<'a> {
    /// Over bytes without a string table.
    pub fn raw(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, strings: Vec::new() }
    }

    /// Over bytes with a string table in front.
    pub fn open(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        let mut reader = Self::raw(bytes);
        let text = |reader: &mut Self| {
            std::str::from_utf8(reader.bytes()?).map(Str::from).map_err(|_| Corrupt("string is not UTF-8"))
        };
        reader.strings = reader.list(text)?;
        Ok(reader)
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Corrupt> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Corrupt("ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8, Corrupt> {
        Ok(self.array::<1>()?[0])
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        self.take(N)?.try_into().map_err(|_| Corrupt("ends early"))
    }

    pub fn u64(&mut self) -> Result<u64, Corrupt> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Corrupt("number too long"))
    }

    pub fn i64(&mut self) -> Result<i64, Corrupt> {
        let value = self.u64()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub fn u32(&mut self) -> Result<u32, Corrupt> {
        u32::try_from(self.u64()?).map_err(|_| Corrupt("number too large"))
    }

    /// An index below `end`.
    pub fn below(&mut self, end: u32) -> Result<u32, Corrupt> {
        let index = self.u32()?;
        if index < end { Ok(index) } else { Err(Corrupt("index out of range")) }
    }

    /// An index below `end`, or `u32::MAX` for none.
    pub fn index(&mut self, end: u32) -> Result<u32, Corrupt> {
        let next = self.u32()?;
        if next <= end { Ok(next.wrapping_sub(1)) } else { Err(Corrupt("index out of range")) }
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Corrupt> {
        let length = usize::try_from(self.u64()?).map_err(|_| Corrupt("length"))?;
        self.take(length)
    }

    pub fn text(&mut self) -> Result<Str, Corrupt> {
        let id = usize::try_from(self.u64()?).map_err(|_| Corrupt("string"))?;
        self.strings.get(id).cloned().ok_or(Corrupt("string"))
    }

    pub fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Result<T, Corrupt>) -> Result<Vec<T>, Corrupt> {
        let count = usize::try_from(self.u64()?).map_err(|_| Corrupt("length"))?;
        // An item takes at least a byte, so that a false length fails here.
        if count > self.rest.len() {
            return Err(Corrupt("length"));
        }
        let mut items = Vec::with_capacity(count.min(1 << 12));
        for _ in 0..count {
            items.push(each(self)?);
        }
        Ok(items)
    }
}
