//! The command line of `token`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::options::{CredentialOptions, Output};

/// Commands of `token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is printed once, and nobody can find it out later
    Create(CreateOptions),
    /// List the tokens, without their secrets
    List(ListOptions),
    /// Make a token's successor, which has the same rights; the old one goes on for a while
    Rotate(RotateOptions),
    /// Take a token away; it is refused from then on
    Revoke(RevokeOptions),
}

/// Where the tokens are.
#[derive(Debug, Args)]
#[group(id = "place", required = true, multiple = false, args = ["data", "server"])]
pub struct Place {
    /// Data directory of a server on this machine, whether it runs or not
    #[arg(long, value_name = "DIR", env = "EVERFLAME_DATA")]
    pub data: Option<PathBuf>,
    /// A server that runs; needs --token-file with a token of role admin
    #[arg(long, value_name = "URL", env = "EVERFLAME_SERVER")]
    pub server: Option<String>,
    /// How to get in.
    #[command(flatten)]
    pub credentials: CredentialOptions,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// Sends profiles and symbol indexes.
    Agent,
    /// Sees the profiles of its project.
    Reader,
    /// Everything, and the tokens.
    Admin,
}

/// Options of `token create`.
#[derive(Debug, Args)]
pub struct CreateOptions {
    /// Where the tokens are.
    #[command(flatten)]
    pub place: Place,
    /// What it is for
    #[arg(long, value_enum, value_name = "ROLE", default_value_t = TokenRole::Agent)]
    pub role: TokenRole,
    /// Whose profiles it writes or sees: a name, or '*' for all (default: those without a project)
    #[arg(long, value_name = "PROJECT")]
    pub project: Option<String>,
    /// What people call it
    #[arg(long, value_name = "NAME", default_value = "")]
    pub name: String,
    /// How long it is good for, such as 90d, 12h, 30m (default: for ever)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub expires: Option<i64>,
}

/// Options of `token list`.
#[derive(Debug, Args)]
pub struct ListOptions {
    /// Where the tokens are.
    #[command(flatten)]
    pub place: Place,
    /// How to print
    #[arg(long, value_enum, value_name = "FORM", env = "EVERFLAME_OUTPUT", default_value_t = Output::Table)]
    pub output: Output,
}

/// Options of `token rotate`.
#[derive(Debug, Args)]
pub struct RotateOptions {
    /// Where the tokens are.
    #[command(flatten)]
    pub place: Place,
    /// Id of the token, as `token list` shows it
    #[arg(value_name = "ID")]
    pub id: String,
    /// How long the old one goes on
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = duration)]
    pub overlap: i64,
}

/// Options of `token revoke`.
#[derive(Debug, Args)]
pub struct RevokeOptions {
    /// Where the tokens are.
    #[command(flatten)]
    pub place: Place,
    /// Id of the token, as `token list` shows it
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Seconds of `90d`.
fn duration(text: &str) -> Result<i64, String> {
    let nanoseconds = everflame_server::query::time::duration(text)?;
    Ok(nanoseconds / everflame_server::query::time::SECOND)
}
