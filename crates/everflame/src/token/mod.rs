//! `token`: who may send profiles to a server, and who may see them. Works on the files of a
//! server on this machine, which sees each change at once, or through a server's API.

mod options;
mod place;

use std::io::{self, Write};

use serde_json::Value;

pub use options::TokenCommand;

use crate::options::Output;
use options::{ListOptions, TokenRole};
use place::Tokens;

/// Runs one of the sub-commands.
pub fn run(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create(options) => {
            let role = match options.role {
                TokenRole::Agent => "agent",
                TokenRole::Reader => "reader",
                TokenRole::Admin => "admin",
            };
            let wanted = serde_json::json!({
                "role": role,
                "project": options.project,
                "name": options.name,
                "expires_s": options.expires,
            });
            shown(&Tokens::at(&options.place)?.create(wanted)?)
        }
        TokenCommand::Rotate(options) => shown(&Tokens::at(&options.place)?.rotate(&options.id, options.overlap)?),
        TokenCommand::Revoke(options) => {
            Tokens::at(&options.place)?.revoke(&options.id)?;
            eprintln!("token {} is refused from now on", options.id);
            Ok(())
        }
        TokenCommand::List(options) => list(&options),
    }
}

/// The token alone on standard output, so that it can go straight into a file; what people
/// want to know of it on standard error.
fn shown(token: &Value) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{}", text(&token["token"]))?;
    let project = match text(&token["project"]) {
        "" => "profiles without a project".to_owned(),
        "*" => "all projects".to_owned(),
        name => format!("project {name}"),
    };
    let (id, role, ends) = (text(&token["id"]), text(&token["role"]), time(&token["expires"], "never"));
    eprintln!("id {id}, role {role}, for {project}, expires: {ends}; the token is not shown again");
    Ok(())
}

fn list(options: &ListOptions) -> anyhow::Result<()> {
    let answer = Tokens::at(&options.place)?.list()?;
    let mut out = io::stdout().lock();
    if options.output == Output::Json {
        serde_json::to_writer(&mut out, &answer)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(
        out,
        "{:<12} {:<6} {:<16} {:<20} {:<20} {:<20} name",
        "id", "role", "project", "made", "expires", "last used"
    )?;
    for token in answer["tokens"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "{:<12} {:<6} {:<16} {:<20} {:<20} {:<20} {}",
            text(&token["id"]),
            text(&token["role"]),
            text(&token["project"]),
            time(&token["created"], "-"),
            time(&token["expires"], "never"),
            time(&token["last_used"], "not yet"),
            text(&token["name"]),
        )?;
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn time(value: &Value, none: &str) -> String {
    value.as_i64().map_or_else(|| none.to_owned(), everflame_server::query::time::written)
}
