//! Query parameters: read once, checked at once, refused with what would be right.

use axum::{extract::Query, http::Uri};
use everflame_profile::{Selector, resolve_label};
use everflame_store::Selection;

use super::time;
use crate::web::error::ApiError;

/// Longest query string, in bytes.
pub const MAX_QUERY_BYTES: usize = 16 << 10;
/// Most labels in `group`.
pub const MAX_GROUP_LABELS: usize = 8;

/// The parameters of one request and the one `now` it sees.
#[derive(Debug)]
pub struct Params {
    pairs: Vec<(String, String)>,
    now: i64,
}

impl Params {
    /// Reads the query string. A parameter given twice is refused, since one of the
    /// two would be ignored.
    pub fn new(uri: &Uri) -> Result<Self, ApiError> {
        if uri.query().is_some_and(|q| q.len() > MAX_QUERY_BYTES) {
            return Err(ApiError::bad_request(format!("the query string is longer than {MAX_QUERY_BYTES} bytes")));
        }
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|e| ApiError::bad_request(format!("the query string cannot be read: {e}")))?;
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs.iter().take(at).any(|(other, _)| other == name) {
                return Err(ApiError::bad_request(format!("parameter {name} is given twice: give it once")));
            }
        }
        Ok(Self { pairs, now: time::now() })
    }

    /// The value of a parameter as it was given.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter, an empty one counting as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.raw(name).filter(|value| !value.is_empty())
    }

    /// A whole number.
    pub fn number(&self, name: &str, default: usize) -> Result<usize, ApiError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        value
            .parse::<u32>()
            .ok()
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| ApiError::bad_request(format!("{name}={value} is not a number: use 0 to {}", u32::MAX)))
    }

    /// `true` or `false`.
    pub fn boolean(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.choice(name, &["false", "true", "0", "1"])? % 2 == 1)
    }

    /// The index of the value among those that are allowed; the first is the default.
    pub fn choice(&self, name: &str, allowed: &[&str]) -> Result<usize, ApiError> {
        let Some(value) = self.get(name) else { return Ok(0) };
        allowed.iter().position(|a| *a == value).ok_or_else(|| {
            ApiError::bad_request(format!("{name}={value} is not known: use one of {}", allowed.join(", ")))
        })
    }

    /// `query`, `from`, `until` and `type`.
    pub fn selection(&self) -> Result<Selection, ApiError> {
        let start = time::parse("now-15m", self.now).map_err(ApiError::internal)?;
        let all = Selection { selector: Selector::default(), from: start, until: self.now, sample_type: "cpu".into() };
        let sample_type = self.get("type").unwrap_or("cpu").to_owned();
        self.selection_of(["query", "from", "until"], Selection { sample_type, ..all })
    }

    /// `base_query`, `base_from` and `base_until`: unless said, the same query over the
    /// range of the same length just before.
    pub fn base(&self, selection: &Selection) -> Result<Selection, ApiError> {
        let from = selection.from.saturating_sub(selection.until.saturating_sub(selection.from));
        let default = Selection { from, until: selection.from, ..selection.clone() };
        self.selection_of(["base_query", "base_from", "base_until"], default)
    }

    fn selection_of(&self, names: [&str; 3], default: Selection) -> Result<Selection, ApiError> {
        let [query, from, until] = names;
        let wrong = |name: &str, message: String| ApiError::bad_request(format!("{name}: {message}"));
        let selector = match self.get(query) {
            Some(text) => Selector::parse(text).map_err(|e| wrong(query, e))?,
            None => default.selector,
        };
        let moment = |name: &str, default: i64| match self.get(name) {
            Some(text) => time::parse(text, self.now).map_err(|e| wrong(name, e)),
            None => Ok(default),
        };
        let (start, end) = (moment(from, default.from)?, moment(until, default.until)?);
        if start >= end {
            return Err(ApiError::bad_request(format!("{from} is not before {until}: the range would be empty")));
        }
        Ok(Selection { selector, from: start, until: end, sample_type: default.sample_type })
    }

    /// The labels of `group`: comma-separated, `process` unless said, none if empty.
    pub fn group(&self) -> Result<Vec<String>, ApiError> {
        let labels: Vec<String> = (self.raw("group").unwrap_or("process").split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(label)
            .collect();
        if labels.len() > MAX_GROUP_LABELS {
            return Err(ApiError::bad_request(format!("group names more than {MAX_GROUP_LABELS} labels: name fewer")));
        }
        Ok(labels)
    }

    /// The label of `by`.
    pub fn by(&self) -> Option<String> {
        self.get("by").map(label)
    }
}

/// The attribute that a written label stands for; quoted as in a query or not.
pub fn label(text: &str) -> String {
    let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    resolve_label(quoted.unwrap_or(text))
}

#[cfg(test)]
mod tests {
    #[test]
    fn labels_may_be_quoted() {
        assert_eq!(label("pod"), "k8s.pod.name");
        assert_eq!(label("\"team.name\""), "team.name");
        assert_eq!(label("\"pod\""), "k8s.pod.name");
        assert_eq!(label("\""), "\"");
    }

    use super::*;

    fn params(query: &str) -> Params {
        Params::new(&format!("/x?{query}").parse().expect("a URI")).expect("parameters")
    }

    #[test]
    fn defaults_are_the_last_fifteen_minutes_of_cpu() {
        let params = params("");
        let selection = params.selection().expect("a selection");
        assert_eq!(selection.until - selection.from, 900 * time::SECOND);
        assert_eq!(selection.sample_type, "cpu");
        assert_eq!(params.group().expect("labels"), ["process.executable.name"]);
    }

    #[test]
    fn now_is_taken_once() {
        let selection = params("from=now-10s&until=now-5s").selection().expect("a selection");
        assert_eq!(selection.until - selection.from, 5 * time::SECOND);
    }

    #[test]
    fn empty_ranges_and_unknown_values_are_refused() {
        assert!(params("from=10&until=10").selection().is_err());
        assert!(params("from=11&until=10").selection().is_err());
        assert!(params("invert=perhaps").boolean("invert").is_err());
        assert!(params("limit=-1").number("limit", 1).is_err());
        assert!(Params::new(&"/x?a=1&a=2".parse().expect("a URI")).is_err());
        assert!(params("group=").group().expect("labels").is_empty());
    }
}
