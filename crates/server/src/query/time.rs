//! The forms of `from` and `until`: RFC 3339, Unix seconds, `now` and `now-N`.

use jiff::Timestamp;

/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;

const FORMS: &str = "use RFC 3339 (2026-01-31T12:00:00Z), Unix seconds (1767225600.5), now, or now-15m (s, m, h, d, w)";

/// The time now in Unix nanoseconds.
pub fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Unix nanoseconds of a moment. `now` is the caller's, so that one request has one.
pub fn parse(text: &str, now: i64) -> Result<i64, String> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("now") {
        if rest.is_empty() {
            return Ok(now);
        }
        let back = rest.strip_prefix('-').and_then(|span| duration(span).ok());
        return back.and_then(|back| now.checked_sub(back)).ok_or_else(|| format!("\"{text}\" is not a time: {FORMS}"));
    }
    if let Some(nanos) = decimal_seconds(text) {
        return Ok(nanos);
    }
    // A plus sign that was not escaped arrives as a blank.
    let escaped = text.replace(' ', "+");
    let stamp: Timestamp = escaped.parse().map_err(|_| format!("\"{text}\" is not a time: {FORMS}"))?;
    i64::try_from(stamp.as_nanosecond())
        .map_err(|_| format!("\"{text}\" is out of range: use a time from 1677 to 2262"))
}

/// Unix seconds in RFC 3339.
pub fn written(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |stamp| stamp.to_string())
}

/// Nanoseconds of a span such as `15m` or `30s`; a bare number is seconds.
pub fn duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("\"{text}\" is not a duration: use a whole number with s, m, h, d or w, such as 30s");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds * SECOND).ok_or_else(wrong)
}

/// `1767225600.25` as nanoseconds, exactly; digits beyond the ninth are cut off.
fn decimal_seconds(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut nanos = whole.parse::<i64>().ok()?.checked_mul(SECOND)?;
    let mut worth = SECOND / 10;
    for digit in fraction.bytes().take(9) {
        nanos = nanos.checked_add(i64::from(digit - b'0') * worth)?;
        worth /= 10;
    }
    Some(if negative { -nanos } else { nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_contract() {
        let now = 1_000 * SECOND;
        assert_eq!(parse("now", now), Ok(now));
        assert_eq!(parse("now-15m", now), Ok(100 * SECOND));
        assert_eq!(parse("now-1s", now), Ok(999 * SECOND));
        assert_eq!(parse("now-1w", now), Ok((1_000 - 604_800) * SECOND));
        assert_eq!(parse("1767225600", now), Ok(1_767_225_600 * SECOND));
        assert_eq!(parse("1767225600.25", now), Ok(1_767_225_600 * SECOND + SECOND / 4));
        assert_eq!(parse("2026-01-01T00:00:00Z", now), Ok(1_767_225_600 * SECOND));
        assert_eq!(parse("2026-01-01T02:00:00 02:00", now), Ok(1_767_225_600 * SECOND));
        assert_eq!(parse("2026-01-01T00:00:00.5Z", now), Ok(1_767_225_600 * SECOND + SECOND / 2));
    }

    #[test]
    fn nonsense_is_refused_with_the_forms() {
        for text in
            ["", "tomorrow", "now+1h", "now-", "now-5y", "now-1.5h", "1e9", "nowish", "99999999999999999999", "--1"]
        {
            assert!(parse(text, 0).is_err_and(|e| e.contains("RFC 3339")), "{text}");
        }
        assert!(parse(&format!("now-{}w", i64::MAX), 0).is_err());
    }
}
