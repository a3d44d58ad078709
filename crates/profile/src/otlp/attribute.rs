//! Attributes: OpenTelemetry's typed values as the text of labels.

use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};

use super::names;
use crate::{completeness::Completeness, labels::Str};

/// An attribute of the dictionary, with what it means on a sample.
#[derive(Debug, Clone)]
pub(super) struct Attribute {
    pub key: Str,
    pub value: Str,
    pub on_sample: OnSample,
}

/// Where a sample's attribute goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum OnSample {
    Thread,
    Tid(u32),
    Cpu(u32),
    Incomplete(Completeness),
    Label,
}

impl Attribute {
    pub fn new(key: Str, value: Str) -> Self {
        let on_sample = match key.as_ref() {
            names::THREAD_NAME => OnSample::Thread,
            names::THREAD_ID => value.parse().map_or(OnSample::Label, OnSample::Tid),
            names::CPU => value.parse().map_or(OnSample::Label, OnSample::Cpu),
            // A reason that we do not know (of a newer agent) is still incomplete.
            names::INCOMPLETE => OnSample::Incomplete(Completeness::parse(&value).unwrap_or(Completeness::NotSaid)),
            _ => OnSample::Label,
        };
        Self { key, value, on_sample }
    }
}

/// The text of a scalar; `None` for arrays, lists, bytes and absent values.
/// `string` looks up the dictionary's string table.
pub(super) fn text<'a>(value: Option<&'a AnyValue>, string: impl FnOnce(i32) -> Option<&'a str>) -> Option<Str> {
    Some(match value?.value.as_ref()? {
        Value::StringValue(text) => Str::from(text.as_str()),
        Value::StringValueStrindex(index) => Str::from(string(*index)?),
        Value::BoolValue(value) => Str::from(if *value { "true" } else { "false" }),
        Value::IntValue(value) => Str::from(value.to_string()),
        Value::DoubleValue(value) => Str::from(value.to_string()),
        Value::ArrayValue(_) | Value::KvlistValue(_) | Value::BytesValue(_) => return None,
    })
}
