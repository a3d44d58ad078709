//! Sessions of people and the tokens behind them.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{error::ApiError, pages::json};
use crate::{
    access::{COOKIE, Caller, OVERLAP_SECONDS, SESSION_SECONDS, Secret, Token, TokenError, Wanted, now},
    app::App,
    listen::PeerAddr,
};

type Answer = Result<Response<Body>, ApiError>;
type Shared = State<Arc<App>>;

/// Bytes of a request about sessions and tokens.
const MAX_BODY: usize = 16 << 10;

/// Who calls.
pub async fn session(State(app): Shared, caller: Caller) -> Answer {
    Ok(answer(&about(&caller, app.access.is_closed())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogIn {
    token: String,
}

/// A token for a cookie. JSON is wanted, which no form of another page can send.
pub async fn log_in(State(app): Shared, request: Request) -> Answer {
    let address = request.extensions().get::<PeerAddr>().map(|peer| peer.0.ip().to_canonical());
    let LogIn { token } = read(&app, request).await?;
    let (caller, cookie) = app.access.log_in(address, &token)?;
    let mut response = answer(&about(&caller, true));
    set_cookie(&app, &mut response, cookie.reveal(), SESSION_SECONDS)?;
    Ok(response)
}

/// Ends a session.
pub async fn log_out(State(app): Shared, headers: HeaderMap) -> Answer {
    app.access.log_out(&headers);
    let mut response = answer(&json!({}));
    set_cookie(&app, &mut response, "", 0)?;
    Ok(response)
}

/// All tokens, without their secrets, which nobody has.
pub async fn tokens(State(app): Shared, caller: Caller) -> Answer {
    let tokens = app.query(&caller, |app, _| Ok(app.access.tokens.list())).await?;
    let tokens: Vec<Value> = tokens.iter().map(Token::shown).collect();
    Ok(answer(&json!({ "tokens": tokens })))
}

/// A new token.
pub async fn create(State(app): Shared, caller: Caller, request: Request) -> Answer {
    let wanted: Wanted = read(&app, request).await?;
    let made = app.query(&caller, move |app, _| Ok(app.access.tokens.create(wanted, now())?)).await?;
    tracing::info!(id = made.0.id, role = made.0.role.as_str(), by = caller.id, "a token was made");
    created(made)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    #[serde(default = "overlap")]
    overlap_s: i64,
}

fn overlap() -> i64 {
    OVERLAP_SECONDS
}

/// A token's successor.
pub async fn rotate(State(app): Shared, caller: Caller, Path(id): Path<String>, request: Request) -> Answer {
    let Rotate { overlap_s } = read(&app, request).await?;
    let old = id.clone();
    let made = app.query(&caller, move |app, _| Ok(app.access.tokens.rotate(&id, overlap_s, now())?)).await?;
    tracing::info!(id = made.0.id, old, by = caller.id, "a token was rotated");
    created(made)
}

/// Takes a token away.
pub async fn revoke(State(app): Shared, caller: Caller, Path(id): Path<String>) -> Answer {
    let gone = id.clone();
    app.query(&caller, move |app, _| Ok(app.access.tokens.revoke(&id)?)).await?;
    tracing::info!(id = gone, by = caller.id, "a token was revoked");
    Ok(answer(&json!({})))
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let message = error.to_string();
        match error {
            TokenError::Wrong(_) => Self::bad_request(message),
            TokenError::Unknown(_) => Self::not_found(message),
            TokenError::Full => Self::conflict(message),
            TokenError::File { .. } | TokenError::Random(_) => Self::unavailable(message),
        }
    }
}

fn about(caller: &Caller, closed: bool) -> Value {
    json!({
        "tokens_wanted": closed,
        "id": caller.id,
        "name": caller.name,
        "role": caller.role.as_str(),
        "project": caller.project.as_str(),
        "expires": caller.expires,
        "session": caller.session.is_some(),
    })
}

fn created((token, secret): (Token, Secret)) -> Answer {
    let mut response = answer(&token.with_secret(&secret));
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

fn answer(value: &Value) -> Response<Body> {
    json(value.to_string().into_bytes())
}

/// Only to this server, not to scripts, and over TLS only where there is TLS.
fn set_cookie(app: &App, response: &mut Response<Body>, value: &str, seconds: i64) -> Result<(), ApiError> {
    let secure = if app.tls.is_some() { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut cookie = HeaderValue::try_from(cookie).map_err(|_| ApiError::internal("the cookie is no header"))?;
    cookie.set_sensitive(true);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(())
}

/// The JSON of a request. What is wrong with it is told by place: it may hold a secret.
async fn read<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if !kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json") {
        return Err(ApiError::unsupported_media_type("send content type application/json"));
    }
    let held = app.budget.read(body, &parts.headers, MAX_BODY).await?;
    serde_json::from_slice(held.bytes()).map_err(|e| {
        ApiError::bad_request(format!(
            "the body is not the JSON that docs/api.md says: look at line {}, column {}",
            e.line(),
            e.column()
        ))
    })
}
