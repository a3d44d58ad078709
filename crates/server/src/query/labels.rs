//! `GET /api/v1/labels` and `/api/v1/labels/NAME/values`.

use axum::http::Uri;
use everflame_store::{Selection, Store};
use serde_json::{Value, json};

use super::{
    covered,
    params::{Params, label},
};
use crate::web::error::ApiError;

/// Values in an answer unless said.
pub const DEFAULT_VALUES: usize = 1_000;

/// What is asked of the names of labels.
#[derive(Debug)]
pub struct Names {
    selection: Selection,
}

impl Names {
    /// Reads the parameters.
    pub fn new(uri: &Uri) -> Result<Self, ApiError> {
        Ok(Self { selection: Params::new(uri)?.selection()? })
    }

    /// Answers from the store. Blocks.
    pub fn answer(&self, store: &dyn Store) -> Result<Vec<u8>, ApiError> {
        let (range, labels) = store.labels(&self.selection)?;
        let mut answer = covered(&range);
        answer.insert("labels".into(), labels.into());
        Ok(Value::Object(answer).to_string().into_bytes())
    }
}

/// What is asked of the values of one label.
#[derive(Debug)]
pub struct Values {
    selection: Selection,
    name: String,
    limit: usize,
}

impl Values {
    /// Reads the parameters.
    pub fn new(name: &str, uri: &Uri) -> Result<Self, ApiError> {
        let params = Params::new(uri)?;
        let limit = params.number("limit", DEFAULT_VALUES)?;
        Ok(Self { selection: params.selection()?, name: label(name), limit })
    }

    /// Answers from the store. Blocks.
    pub fn answer(&self, store: &dyn Store) -> Result<Vec<u8>, ApiError> {
        let (range, values) = store.label_values(&self.selection, &self.name)?;
        let shown = if self.limit == 0 { values.len() } else { self.limit };
        let rows: Vec<Value> =
            (values.iter().take(shown)).map(|v| json!({"value": v.value.as_ref(), "samples": v.samples})).collect();
        let mut answer = covered(&range);
        answer.insert("count".into(), values.len().into());
        answer.insert("values".into(), rows.into());
        Ok(Value::Object(answer).to_string().into_bytes())
    }
}
