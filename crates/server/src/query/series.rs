//! `GET /api/v1/series`: sums by time and by the values of a label.

use std::collections::BTreeMap;

use axum::http::Uri;
use everflame_store::{Selection, SeriesPoint, Store};
use serde_json::{Value, json};

use super::{
    covered,
    json::Unit,
    params::Params,
    time::{self, SECOND},
};
use crate::web::error::ApiError;

/// Series in an answer unless said.
pub const DEFAULT_SERIES: usize = 20;
/// Most buckets of a range.
pub const MAX_BUCKETS: i64 = 11_000;
/// Buckets that a range is divided into at most, unless a step is given.
const FEW_BUCKETS: i64 = 200;
/// Steps that are taken unless one is given, in seconds; beyond them, whole days.
const STEPS: [i64; 17] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200];
const DAY: i64 = 86_400;

/// What is asked for.
#[derive(Debug)]
pub struct Request {
    selection: Selection,
    by: Option<String>,
    step_s: i64,
    limit: usize,
}

impl Request {
    /// Reads the parameters.
    pub fn new(uri: &Uri) -> Result<Self, ApiError> {
        let params = Params::new(uri)?;
        let selection = params.selection()?;
        let range_s = selection.until.saturating_sub(selection.from) / SECOND;
        let step_s = match params.get("step") {
            None => default_step(range_s),
            Some(step) => {
                let step = time::duration(step).map_err(|e| ApiError::bad_request(format!("step: {e}")))? / SECOND;
                if step < 1 {
                    return Err(ApiError::bad_request("step is below a second: use 1s or more"));
                }
                step
            }
        };
        if range_s / step_s > MAX_BUCKETS {
            return Err(ApiError::bad_request(format!(
                "step={step_s}s makes more than {MAX_BUCKETS} buckets: use a longer step or a shorter range"
            )));
        }
        let limit = params.number("limit", DEFAULT_SERIES)?;
        Ok(Self { selection, by: params.by(), step_s, limit })
    }

    /// Answers from the store. Blocks.
    pub fn answer(&self, store: &dyn Store) -> Result<Vec<u8>, ApiError> {
        let sums = store.series(&self.selection, self.by.as_deref(), self.step_s.saturating_mul(1_000))?;
        let unit = Unit::of(&sums.unit);
        let total = |points: &[SeriesPoint]| points.iter().map(|p| p.samples).sum::<u64>();
        let mut all: Vec<(&str, &[SeriesPoint], u64)> =
            sums.series.iter().map(|(value, points)| (value.as_ref(), points.as_slice(), total(points))).collect();
        all.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(b.0)));
        let shown = if self.limit == 0 { all.len() } else { self.limit.min(all.len()) };
        let (largest, others) = all.split_at(shown);
        let mut series: Vec<Value> = (largest.iter())
            .map(|(value, points, _)| json!({"value": value, "rest": false, "points": written(points, unit)}))
            .collect();
        if !others.is_empty() {
            let rest = merged(others.iter().flat_map(|(_, points, _)| points.iter()));
            series.push(json!({"value": "", "rest": true, "points": written(&rest, unit)}));
        }
        let mut answer = covered(&sums.covered);
        answer.insert("type".into(), self.selection.sample_type.as_str().into());
        answer.insert("unit".into(), unit.as_str().into());
        answer.insert("step_s".into(), self.step_s.into());
        answer.insert("series".into(), series.into());
        Ok(Value::Object(answer).to_string().into_bytes())
    }
}

/// The shortest step that divides a range into few buckets.
fn default_step(range_s: i64) -> i64 {
    let least = range_s / FEW_BUCKETS + i64::from(range_s % FEW_BUCKETS > 0);
    let days = least / DAY + i64::from(least % DAY > 0);
    STEPS.into_iter().find(|step| *step >= least).unwrap_or(days.max(1) * DAY)
}

fn merged<'a>(points: impl Iterator<Item = &'a SeriesPoint>) -> Vec<SeriesPoint> {
    let mut buckets: BTreeMap<i64, SeriesPoint> = BTreeMap::new();
    for point in points {
        let start_ms = point.start_ms;
        let bucket = buckets.entry(start_ms).or_insert(SeriesPoint { start_ms, samples: 0, value: 0 });
        bucket.samples += point.samples;
        bucket.value += point.value;
    }
    buckets.into_values().collect()
}

fn written(points: &[SeriesPoint], unit: Unit) -> Vec<Value> {
    points.iter().map(|p| json!([p.start_ms.div_euclid(1_000), p.samples, unit.number(p.value)])).collect()
}

#[cfg(test)]
mod tests {
    use super::default_step;

    #[test]
    fn the_default_step_suits_the_range() {
        assert_eq!(default_step(1), 1);
        assert_eq!(default_step(900), 5);
        assert_eq!(default_step(3_600), 30);
        assert_eq!(default_step(7 * 86_400), 3_600);
        assert_eq!(default_step(400 * 86_400), 2 * 86_400);
    }
}
