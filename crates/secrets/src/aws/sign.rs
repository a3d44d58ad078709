//! Signature Version 4: how AWS knows who asks. Only what this crate sends: a path of `/` without a
//! query. Written from AWS's description of the algorithm and judged by its published test suite; the
//! libraries for it bring thirteen crates or more for these few lines.

use jiff::Timestamp;
use ring::{digest, hmac};

use super::credentials::Credentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// A request as it is signed.
pub(super) struct Unsigned<'a> {
    pub method: &'a str,
    /// Host, with the port where it is not the scheme's own.
    pub host: &'a str,
    /// Names in lower case, without `host`.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// For whom a signature is good.
pub(super) struct Scope<'a> {
    pub region: &'a str,
    pub service: &'a str,
    pub now: Timestamp,
}

/// The headers that a request needs beside its own: the date, the session's token, the signature.
pub(super) fn sign(request: &Unsigned<'_>, scope: &Scope<'_>, who: &Credentials) -> Vec<(&'static str, String)> {
    let date = scope.now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let day = scope.now.strftime("%Y%m%d").to_string();
    let token = who.session_token.as_ref().map(|token| token.reveal());
    let mut headers = request.headers.to_vec();
    headers.extend([("host", request.host), ("x-amz-date", &date)]);
    headers.extend(token.map(|token| ("x-amz-security-token", token)));
    headers.sort_unstable();
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", folded(value))).collect();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let canonical = format!("{}\n/\n\n{lines}\n{names}\n{}", request.method, sha256(request.body));
    let credential = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign = format!("{ALGORITHM}\n{date}\n{credential}\n{}", sha256(canonical.as_bytes()));
    let key = zeroize::Zeroizing::new(format!("AWS4{}", who.secret_key.reveal()));
    let key = [day.as_str(), scope.region, scope.service, "aws4_request"]
        .iter()
        .fold(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), |key, part| {
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref())
        });
    let signature = hexadecimal(hmac::sign(&key, to_sign.as_bytes()).as_ref());
    let authorization =
        format!("{ALGORITHM} Credential={}/{credential}, SignedHeaders={names}, Signature={signature}", who.access_key);
    let mut added = vec![("authorization", authorization)];
    added.extend(token.map(|token| ("x-amz-security-token", token.to_owned())));
    added.push(("x-amz-date", date));
    added
}

/// Spaces around are left out, several in a row count as one.
fn folded(value: &str) -> String {
    value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hidden;

    /// The token of the suite's `post-sts-header-before`.
    const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

    /// AWS's published test suite for Signature Version 4, the cases without path and query.
    #[test]
    fn the_published_vectors() {
        let form = "application/x-www-form-urlencoded";
        let body_hash = sha256(b"Param1=value1");
        type Case<'a> = (&'a str, Option<&'a str>, Vec<(&'a str, &'a str)>, &'a str, &'a str);
        let cases: Vec<Case<'_>> = vec![
            ("GET", None, vec![], "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", None, vec![], "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "GET",
                None,
                vec![("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
                "",
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
            (
                "POST",
                None,
                vec![("my-header1", "VALUE1")],
                "",
                "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
            ),
            ("POST", Some(TOKEN), vec![], "", "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"),
            (
                "POST",
                None,
                vec![("content-length", "13"), ("content-type", form), ("x-amz-content-sha256", &body_hash)],
                "Param1=value1",
                "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
            ),
        ];
        for (method, token, headers, body, expected) in cases {
            let who = Credentials {
                access_key: "AKIDEXAMPLE".into(),
                secret_key: Hidden::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
                session_token: token.map(Hidden::new),
                expires: None,
                place: "the suite".into(),
            };
            let scope = Scope { region: "us-east-1", service: "service", now: "2015-08-30T12:36:00Z".parse().unwrap() };
            let request = Unsigned { method, host: "example.amazonaws.com", headers: &headers, body: body.as_bytes() };
            let added = sign(&request, &scope, &who);
            let authorization = &added.iter().find(|(name, _)| *name == "authorization").unwrap().1;
            assert!(authorization.ends_with(&format!("Signature={expected}")), "{method} {headers:?}: {authorization}");
            assert!(authorization.contains("Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"));
            assert!(added.contains(&("x-amz-date", "20150830T123600Z".to_owned())));
        }
    }
}
