//! What AWS says when it says no: JSON from Secrets Manager, XML from STS.

use quick_xml::{Reader, events::Event};
use serde::Deserialize;

use super::http::Answer;

/// Longest words of AWS that are passed on.
const MAX_WORDS: usize = 500;

/// A refusal.
pub(super) struct Fault {
    /// Its name, without the namespace.
    pub code: String,
    /// Name and explanation, for people.
    pub why: String,
    /// Whether it may work a moment later.
    pub transient: bool,
}

#[derive(Deserialize)]
struct Json {
    #[serde(rename = "__type", alias = "code", alias = "Code")]
    kind: String,
    #[serde(alias = "Message", default)]
    message: String,
}

impl Fault {
    /// Reads an answer whose status is no success.
    pub fn of(answer: &Answer) -> Self {
        let (code, message) = match serde_json::from_str::<Json>(&answer.body) {
            Ok(json) => (json.kind, json.message),
            Err(_) => (
                element(&answer.body, "Code").unwrap_or_default(),
                element(&answer.body, "Message").unwrap_or_default(),
            ),
        };
        let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned();
        let transient = answer.status >= 500
            || answer.status == 429
            || code.starts_with("Throttling")
            || matches!(code.as_str(), "TooManyRequestsException" | "InternalServiceError" | "IDPCommunicationError");
        let words = match (code.is_empty(), message.is_empty()) {
            (true, _) => format!("status {}", answer.status),
            (_, true) => code.clone(),
            _ => format!("{code}: {message}"),
        };
        let why: String = words.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect();
        Self { code, why, transient }
    }
}

/// The text of the first element of this name.
pub(super) fn element(xml: &str, name: &str) -> Option<String> {
    let mut reader = Reader::from_str(xml);
    let mut text: Option<String> = None;
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) if start.local_name().as_ref() == name.as_bytes() => text = Some(String::new()),
            Event::End(end) if end.local_name().as_ref() == name.as_bytes() => return text,
            Event::Text(more) => {
                if let Some(text) = &mut text {
                    text.push_str(&more.decode().ok()?);
                }
            }
            Event::GeneralRef(reference) => {
                if let Some(text) = &mut text {
                    let entity = format!("&{};", reference.decode().ok()?);
                    text.push_str(&quick_xml::escape::unescape(&entity).ok()?);
                }
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, body: &str) -> Fault {
        Fault::of(&Answer { status, body: zeroize::Zeroizing::new(body.to_owned()) })
    }

    #[test]
    fn json_xml_and_neither() {
        let json = fault(400, r#"{"__type":"com.amazonaws.x#AccessDeniedException","Message":"no"}"#);
        assert_eq!(
            (json.code.as_str(), json.why.as_str(), json.transient),
            ("AccessDeniedException", "AccessDeniedException: no", false)
        );
        let xml = "<ErrorResponse><Error><Code>ExpiredTokenException</Code><Message>a &lt; b</Message></Error></ErrorResponse>";
        assert_eq!(fault(400, xml).why, "ExpiredTokenException: a < b");
        let neither = fault(502, "<html><p>bad gateway");
        assert_eq!((neither.why.as_str(), neither.transient), ("status 502", true));
        assert!(fault(400, r#"{"__type":"ThrottlingException"}"#).transient);
    }
}
