//! Checks of a server: whether it is there, and whether it lets us in.

use everflame_server::access::now;

use super::Check;
use crate::{client::Client, options::CredentialOptions};

/// A token that ends within so many seconds is worth a word.
const SOON: i64 = 7 * 86_400;

/// Whether it is ready; and where it is, what our token is good for.
pub fn checks(server: &str, credentials: &CredentialOptions) -> Vec<Check> {
    let client = match Client::new(server, credentials) {
        Ok(client) => client,
        Err(e) => return vec![Check::fail("server", format!("{e:#}"), "correct --server, --token-file or --ca-file")],
    };
    let Err(e) = client.get("/readyz", &[]) else {
        return vec![Check::ok("server", format!("{server} is ready")), token(&client)];
    };
    vec![Check::fail("server", format!("{e:#}"), "start `everflame server`, or correct --server or --ca-file")]
}

fn token(client: &Client) -> Check {
    let remedy = "make one with `everflame token create` and name its file with --token-file";
    let me = match client.get("/api/v1/session", &[]) {
        Ok(me) => me,
        Err(e) => return Check::fail("token", format!("{e:#}"), remedy),
    };
    if me["tokens_wanted"] == false {
        return Check::ok("token", "none is wanted: everybody who reaches the server may read and write");
    }
    let (role, project) = (me["role"].as_str().unwrap_or(""), me["project"].as_str().unwrap_or(""));
    let found = format!("accepted: role {role}, project \"{project}\"");
    match me["expires"].as_i64().map(|expires| expires.saturating_sub(now())) {
        Some(left) if left < SOON => {
            let remedy = "make its successor with `everflame token rotate`";
            Check::warn("token", format!("{found}, expires in {} hours", left.max(0) / 3_600), remedy)
        }
        _ => Check::ok("token", found),
    }
}
