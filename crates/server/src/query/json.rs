//! JSON written straight into bytes: an answer of a million nodes has eleven million
//! numbers, and a tree of values in between would cost more than the numbers.

use everflame_store::Covered;

use super::time::SECOND;

/// Units in which values are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// From nanoseconds.
    Seconds,
    /// As they are.
    Bytes,
    /// As they are.
    Count,
}

impl Unit {
    /// The unit for a base unit of the store.
    pub fn of(base: &str) -> Self {
        match base {
            "nanoseconds" | "" => Self::Seconds,
            "bytes" => Self::Bytes,
            _ => Self::Count,
        }
    }

    /// Its name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Count => "count",
        }
    }

    /// A value as a number.
    pub fn number(self, value: i64) -> serde_json::Number {
        match self {
            Self::Seconds => seconds(value),
            Self::Bytes | Self::Count => value.into(),
        }
    }
}

/// Nanoseconds as a number of seconds; whole seconds stay whole numbers.
pub fn seconds(nanos: i64) -> serde_json::Number {
    if nanos % SECOND == 0 {
        return (nanos / SECOND).into();
    }
    // By its digits: nanoseconds since 1970 have more of them than a double, so that a division
    // would round twice.
    let mut text = Json::default();
    text.seconds(nanos);
    let seconds = String::from_utf8_lossy(&text.bytes).parse().unwrap_or(nanos as f64 / SECOND as f64);
    serde_json::Number::from_f64(seconds).unwrap_or_else(|| 0.into())
}

/// Bytes of JSON under way.
#[derive(Debug, Default)]
pub struct Json {
    /// What is written so far.
    pub bytes: Vec<u8>,
}

impl Json {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    /// Text that is JSON already.
    pub fn raw(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// A whole number.
    pub fn integer<I: itoa::Integer>(&mut self, number: I) {
        self.bytes.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// Nanoseconds as decimal seconds, exactly.
    pub fn seconds(&mut self, nanos: i64) {
        if nanos < 0 {
            self.bytes.push(b'-');
        }
        let nanos = nanos.unsigned_abs();
        self.integer(nanos / SECOND as u64);
        let mut fraction = (nanos % SECOND as u64) as u32;
        if fraction == 0 {
            return;
        }
        let mut digits = [b'0'; 9];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (fraction % 10) as u8;
            fraction /= 10;
        }
        let length = digits.iter().rposition(|d| *d != b'0').map_or(0, |last| last + 1);
        self.bytes.push(b'.');
        self.bytes.extend_from_slice(digits.get(..length).unwrap_or_default());
    }

    /// A value in its unit.
    pub fn value(&mut self, value: i64, unit: Unit) {
        match unit {
            Unit::Seconds => self.seconds(value),
            Unit::Bytes | Unit::Count => self.integer(value),
        }
    }

    /// A string, escaped.
    pub fn string(&mut self, text: &str) {
        let plain = text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\');
        if plain {
            self.bytes.push(b'"');
            self.bytes.extend_from_slice(text.as_bytes());
            self.bytes.push(b'"');
        } else {
            self.raw(&serde_json::Value::from(text).to_string());
        }
    }

    /// `,"KEY":[a,b,…]` without the comma in front.
    pub fn column<T>(&mut self, key: &str, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        self.string(key);
        self.raw(":[");
        let mut first = true;
        for item in items {
            if !first {
                self.bytes.push(b',');
            }
            first = false;
            write(self, item);
        }
        self.bytes.push(b']');
    }

    /// `"from":…,"until":…,"resolution_s":…`.
    pub fn covered(&mut self, covered: &Covered) {
        self.raw("\"from\":");
        self.seconds(covered.from);
        self.raw(",\"until\":");
        self.seconds(covered.until);
        self.raw(",\"resolution_s\":");
        self.seconds(covered.resolution);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(nanos: i64) -> String {
        let mut json = Json::default();
        json.seconds(nanos);
        String::from_utf8(json.bytes).expect("ASCII")
    }

    #[test]
    fn seconds_keep_every_digit() {
        assert_eq!(written(0), "0");
        assert_eq!(written(52_631_578), "0.052631578");
        assert_eq!(written(1_500_000_000), "1.5");
        assert_eq!(written(-1), "-0.000000001");
        assert_eq!(written(i64::MIN), "-9223372036.854775808");
    }

    #[test]
    fn seconds_as_numbers_are_the_nearest_ones() {
        assert_eq!(seconds(1_795_559_324_438_000_000).to_string(), "1795559324.438");
        assert_eq!(seconds(1_795_473_923_601_000_000).to_string(), "1795473923.601");
        assert_eq!(seconds(-1_500_000_000).to_string(), "-1.5");
        assert_eq!(seconds(2_000_000_000).to_string(), "2");
    }

    #[test]
    fn strings_are_escaped() {
        let mut json = Json::default();
        json.string("a\"b\\c\n\u{1}é");
        let text = String::from_utf8(json.bytes).expect("UTF-8");
        assert_eq!(serde_json::from_str::<String>(&text).expect("JSON"), "a\"b\\c\n\u{1}é");
    }
}
