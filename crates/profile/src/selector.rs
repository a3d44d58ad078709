//! The query language: a Prometheus selector over OpenTelemetry attributes.

use std::{iter::Peekable, str::CharIndices};

use crate::label::resolve_label;

/// Longest regular expression of a query, in bytes.
pub const MAX_REGEX: usize = 1024;
/// Most conditions of a query.
pub const MAX_MATCHERS: usize = 64;
/// Memory that a compiled regular expression may take, in bytes.
const REGEX_SIZE: usize = 1 << 20;

/// Comparison of a label with a value.
#[derive(Debug, Clone)]
pub enum MatcherOp {
    /// `=`
    Equal(String),
    /// `!=`
    NotEqual(String),
    /// `=~`, anchored
    Matches(regex::Regex),
    /// `!~`, anchored
    MatchesNot(regex::Regex),
}

impl MatcherOp {
    /// Whether a value fulfils the condition; a missing label has the value `""`.
    pub fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Equal(wanted) => value == wanted,
            Self::NotEqual(unwanted) => value != unwanted,
            Self::Matches(regex) => regex.is_match(value),
            Self::MatchesNot(regex) => !regex.is_match(value),
        }
    }
}

/// One condition. `name` is the OpenTelemetry attribute name, or a form of it as
/// [`resolve_label`] leaves it.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// Attribute name, short names already resolved.
    pub name: String,
    /// The comparison.
    pub op: MatcherOp,
}

/// All conditions of a query; the empty selector selects everything.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// The conditions.
    pub matchers: Vec<Matcher>,
}

impl Selector {
    /// Reads `{namespace="shop", service=~"cart.*", "k8s.pod.name"!=""}`; the braces
    /// may be left out, and an empty text selects everything. The error says where
    /// (in characters, from 1) and what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser::of(text);
        let selector = parser.selector()?;
        if parser.peek().is_some() {
            return Err(parser.expected("the end of the query"));
        }
        Ok(selector)
    }

    /// Reads several with commas between them; an empty text has none. Only one that stands alone
    /// may do without braces.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let mut parser = Parser::of(text);
        let mut selectors = Vec::new();
        while let Some(next) = parser.peek() {
            if next != '{' && !selectors.is_empty() {
                return Err(parser.expected("`{`"));
            }
            selectors.push(parser.selector()?);
            if !parser.skip(',') && parser.peek().is_some() {
                return Err(parser.expected("`,` or the end"));
            }
        }
        Ok(selectors)
    }
}

struct Parser<'a> {
    chars: Peekable<CharIndices<'a>>,
    text: &'a str,
}

impl<'a> Parser<'a> {
    fn of(text: &'a str) -> Self {
        Self { chars: text.char_indices().peekable(), text }
    }

    fn selector(&mut self) -> Result<Selector, String> {
        let braces = self.skip('{');
        let mut matchers = Vec::new();
        loop {
            match self.peek() {
                None if !braces => break,
                Some('}') if braces => {
                    self.chars.next();
                    break;
                }
                _ => {}
            }
            if matchers.len() == MAX_MATCHERS {
                return Err(self.expected(&format!("no more than {MAX_MATCHERS} conditions")));
            }
            matchers.push(self.matcher()?);
            if !self.skip(',') {
                match (self.peek(), braces) {
                    (None, false) | (Some('}'), true) => {}
                    (_, true) => return Err(self.expected("`,` or `}`")),
                    (_, false) => return Err(self.expected("`,` or the end of the query")),
                }
            }
        }
        Ok(Selector { matchers })
    }

    fn matcher(&mut self) -> Result<Matcher, String> {
        let name = match self.peek() {
            // A quoted name is an attribute as it is; only an unquoted one may be short.
            Some('"' | '\'' | '`') => self.string()?,
            Some(c) if c.is_ascii_alphabetic() || c == '_' => resolve_label(&self.identifier()),
            _ => return Err(self.expected("a label name")),
        };
        if name.is_empty() {
            return Err(self.expected("a label name that is not empty, before here"));
        }
        self.peek();
        let rest = &self.text[self.offset()..];
        let op = ["=~", "!~", "!=", "="].into_iter().find(|op| rest.starts_with(op));
        let op = op.ok_or_else(|| self.expected("`=`, `!=`, `=~` or `!~`"))?;
        self.chars.nth(op.len() - 1);
        if !matches!(self.peek(), Some('"' | '\'' | '`')) {
            return Err(self.expected("a quoted value"));
        }
        let at = self.position();
        let value = self.string()?;
        let op = match op {
            "=" => MatcherOp::Equal(value),
            "!=" => MatcherOp::NotEqual(value),
            "=~" => MatcherOp::Matches(regex(&value, at)?),
            _ => MatcherOp::MatchesNot(regex(&value, at)?),
        };
        Ok(Matcher { name, op })
    }

    fn identifier(&mut self) -> String {
        let mut name = String::new();
        while let Some((_, c)) = self.chars.next_if(|(_, c)| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }

    /// A string as in Prometheus: double or single quotes with Go's escapes, or
    /// backquotes without any.
    fn string(&mut self) -> Result<String, String> {
        let Some((_, quote)) = self.chars.next() else { return Err(self.expected("a quoted string")) };
        let mut value = String::new();
        loop {
            match self.chars.next() {
                None => return Err(self.expected(&format!("a closing {quote}"))),
                Some((_, c)) if c == quote => return Ok(value),
                Some((_, '\\')) if quote != '`' => value.push(self.escape()?),
                Some((_, '\n')) if quote != '`' => return Err(self.expected(&format!("a closing {quote}"))),
                Some((_, c)) => value.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let Some((_, c)) = self.chars.next() else { return Err(self.expected("an escape")) };
        Ok(match c {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '"' | '\'' => c,
            'x' => self.code(2, 16, 0)?,
            'u' => self.code(4, 16, 0)?,
            'U' => self.code(8, 16, 0)?,
            '0'..='7' => self.code(2, 8, c as u32 - '0' as u32)?,
            _ => return Err(self.expected("an escape (\\n, \\t, \\\\, \\\", \\x41, \\u00e9, …) before here")),
        })
    }

    fn code(&mut self, digits: usize, radix: u32, start: u32) -> Result<char, String> {
        let mut code = start;
        for _ in 0..digits {
            let digit = self.chars.next_if(|(_, c)| c.is_digit(radix)).and_then(|(_, c)| c.to_digit(radix));
            let digit = digit.ok_or_else(|| self.expected("another digit of an escape"))?;
            code = code.wrapping_mul(radix).wrapping_add(digit);
        }
        char::from_u32(code).ok_or_else(|| self.expected("an escape of a Unicode character before here"))
    }

    fn skip(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.chars.next();
        }
        found
    }

    /// The next character that is not white space.
    fn peek(&mut self) -> Option<char> {
        while self.chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        self.chars.peek().map(|(_, c)| *c)
    }

    fn offset(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    fn position(&mut self) -> usize {
        let offset = self.offset();
        self.text[..offset].chars().count() + 1
    }

    fn expected(&mut self, what: &str) -> String {
        let found = self.chars.peek().map_or("the end".to_owned(), |(_, c)| format!("`{c}`"));
        format!("query, character {}: expected {what}, found {found}", self.position())
    }
}

fn regex(pattern: &str, at: usize) -> Result<regex::Regex, String> {
    if pattern.len() > MAX_REGEX {
        return Err(format!("query, character {at}: a regular expression takes at most {MAX_REGEX} bytes"));
    }
    // Compiled alone first, so that the pattern cannot leave the group around it.
    let build = |pattern: &str| {
        regex::RegexBuilder::new(pattern).size_limit(REGEX_SIZE).dfa_size_limit(REGEX_SIZE).nest_limit(64).build()
    };
    build(pattern).and_then(|_| build(&format!("^(?s:{pattern})$"))).map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
        format!("query, character {at}: expected a regular expression (Rust dialect): {reason}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<(String, String)> {
        let show = |op: &MatcherOp| match op {
            MatcherOp::Equal(value) => format!("={value}"),
            MatcherOp::NotEqual(value) => format!("!={value}"),
            MatcherOp::Matches(regex) => format!("=~{regex}"),
            MatcherOp::MatchesNot(regex) => format!("!~{regex}"),
        };
        let selector = Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        selector.matchers.iter().map(|matcher| (matcher.name.clone(), show(&matcher.op))).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, op)| ((*name).to_owned(), (*op).to_owned())).collect()
    }

    #[test]
    fn the_forms_of_a_selector() {
        for all in ["", "  ", "{}", " { } "] {
            assert_eq!(parse(all), []);
        }
        assert_eq!(
            parse(r#"{namespace="shop", service=~"cart.*", "k8s.pod.name"!="", host_name !~ 'a|b' ,}"#),
            pairs(&[
                ("k8s.namespace.name", "=shop"),
                ("service.name", "=~^(?s:cart.*)$"),
                ("k8s.pod.name", "!="),
                ("host_name", "!~^(?s:a|b)$"),
            ])
        );
        assert_eq!(parse(r#"pod="a",pid="7""#), pairs(&[("k8s.pod.name", "=a"), ("process.pid", "=7")]));
        assert_eq!(parse(r#""pod"="a""#), pairs(&[("pod", "=a")]));
        assert_eq!(parse(r#"a="\"\\\n\x41\u00e9\101\U0001F525""#), pairs(&[("a", "=\"\\\nAéA🔥")]));
        assert_eq!(parse(r"a=`\n`"), pairs(&[("a", r"=\n")]));
    }

    #[test]
    fn several_selectors() {
        let count = |text: &str| Selector::parse_list(text).map(|all| all.iter().map(|s| s.matchers.len()).collect());
        for (text, matchers) in [
            ("", vec![]),
            (" ", vec![]),
            ("a=\"b\"", vec![1]),
            ("a=\"b\", c=\"d\"", vec![2]),
            ("{a=\"b,}{\", c=\"d\"}, {e=~\"f\"},", vec![2, 1]),
            ("{}", vec![0]),
        ] {
            assert_eq!(count(text), Ok(matchers), "{text}");
        }
        for (text, expected) in [
            ("{a=\"b\"} {c=\"d\"}", "character 9: expected `,` or the end, found `{`"),
            ("{a=\"b\"}, c=\"d\"", "character 10: expected `{`, found `c`"),
            ("{a=\"b\"}, {c}", "character 12: expected `=`"),
        ] {
            let error = Selector::parse_list(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn regular_expressions_are_anchored() {
        let selector = Selector::parse(r#"a=~"b|c""#).unwrap();
        let op = &selector.matchers[0].op;
        assert!(op.accepts("b") && op.accepts("c"));
        assert!(!op.accepts("bc") && !op.accepts("xb") && !op.accepts(""));
    }

    #[test]
    fn errors_say_where_and_what() {
        let long = format!("a=~\"{}\"", "x".repeat(MAX_REGEX + 1));
        for (text, expected) in [
            ("{", "character 2: expected a label name, found the end"),
            ("{a", "character 3: expected `=`, `!=`, `=~` or `!~`, found the end"),
            ("{a=b}", "character 4: expected a quoted value, found `b`"),
            ("{a=\"b}", "character 7: expected a closing \", found the end"),
            ("{a=\"b\"", "character 7: expected `,` or `}`, found the end"),
            ("{a=\"b\"} x", "character 9: expected the end of the query, found `x`"),
            ("a=\"b\" b=\"c\"", "character 7: expected `,` or the end of the query, found `b`"),
            ("é=\"b\"", "character 1: expected a label name, found `é`"),
            ("a=~\"(\"", "character 4: expected a regular expression"),
            ("a=~\")(\"", "character 4: expected a regular expression"),
            ("a=~\"(?:(?:x{500}){500}){500}\"", "character 4: expected a regular expression"),
            (long.as_str(), "at most 1024 bytes"),
        ] {
            let error = Selector::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
