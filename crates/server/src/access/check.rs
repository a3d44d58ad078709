//! What stands before every route: who calls, whether the route is for such a caller, and
//! whether it calls too often.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::Response,
    middleware::Next,
};

use super::{Needs, now};
use crate::{app::App, web::error::ApiError};

/// Lets those through whom a route is for, and tells it who it is.
pub async fn check(State((app, needs)): State<(Arc<App>, Needs)>, mut request: Request, next: Next) -> Response<Body> {
    if needs == Needs::Nothing {
        return next.run(request).await;
    }
    let access = &app.access;
    let caller = access.identify(request.method(), request.headers()).and_then(|caller| {
        needs.check(&caller)?;
        let slow = |wait: Duration| ApiError::busy("this token is used too often").retry_after(wait);
        if !caller.id.is_empty() {
            access.callers.take(caller.id.clone()).map_err(slow)?;
        }
        Ok(caller)
    });
    let caller = match caller {
        Ok(caller) => caller,
        Err(error) => {
            app.metrics.refused_callers.fetch_add(1, Ordering::Relaxed);
            return error.answer(request.headers());
        }
    };
    if access.tokens.should_note_use(now()) {
        let app = app.clone();
        tokio::task::spawn_blocking(move || app.access.tokens.note_use());
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}
