//! What a profile's values count, and how one becomes a point.

use super::{cause::Cause, dictionary::Dictionary};
use crate::{
    batch::{Point, SampleType},
    labels::Str,
};
use opentelemetry_proto::tonic::profiles::v1development::{Profile, ValueType};

/// The meaning of a profile's values.
pub(super) struct Measure {
    pub sample_type: SampleType,
    pub period: i64,
    kind: Kind,
    /// What a value is multiplied by to be in the sample type's unit.
    scale: i64,
}

enum Kind {
    /// Values are numbers of samples, each worth one period of CPU time.
    CpuSamples,
    /// Values are CPU time.
    CpuTime,
    /// Values are numbers of samples.
    Samples,
    /// Values are amounts; a point is one sample.
    Amount,
}

impl Measure {
    pub fn of(profile: &Profile, dictionary: &Dictionary<'_>) -> Result<Self, Cause> {
        if profile.period < 0 {
            return Err(Cause::Value);
        }
        let (name, unit, scale) = names(profile.sample_type, dictionary)?;
        if name.is_empty() {
            return Err(Cause::NoSampleType);
        }
        let period_type = match profile.period_type {
            Some(_) => names(profile.period_type, dictionary)?,
            None => ("", "", 1),
        };
        let cpu_period = matches!(period_type, ("cpu", "nanoseconds", _));
        let period = match period_type.1 {
            "nanoseconds" => profile.period.checked_mul(period_type.2).ok_or(Cause::Value)?,
            _ => profile.period,
        };
        let (kind, sample_type) = match (name, unit) {
            ("samples", "count") if cpu_period => (Kind::CpuSamples, SampleType::cpu()),
            ("cpu", "nanoseconds") => (Kind::CpuTime, SampleType::cpu()),
            ("samples", "count") => (Kind::Samples, named(name, unit)),
            _ => (Kind::Amount, named(name, unit)),
        };
        let period = if matches!(kind, Kind::CpuTime) && !cpu_period { 0 } else { period };
        Ok(Self { sample_type, period, kind, scale })
    }

    /// The point of one observation; without a value it counts 1, as the protocol has
    /// it. `None` where the value is 0: nothing was observed.
    pub fn point(&self, time: i64, value: Option<i64>) -> Result<Option<Point>, Cause> {
        let value = value.unwrap_or(1);
        let count = u64::try_from(value).map_err(|_| Cause::Value)?;
        if count == 0 {
            return Ok(None);
        }
        let value = value.checked_mul(self.scale).ok_or(Cause::Value)?;
        let (samples, value) = match self.kind {
            Kind::CpuSamples => (count, value.checked_mul(self.period).ok_or(Cause::Value)?),
            Kind::Samples => (count, value),
            Kind::CpuTime if self.period > 0 && value % self.period == 0 => ((value / self.period) as u64, value),
            Kind::CpuTime | Kind::Amount => (1, value),
        };
        Ok(Some(Point { time, samples, value }))
    }

    /// How many samples a rejected one stood for.
    pub fn samples(&self, values: &[i64], times: usize) -> u64 {
        match self.kind {
            Kind::CpuSamples | Kind::Samples if !values.is_empty() => {
                values.iter().fold(0u64, |sum, v| sum.saturating_add(u64::try_from(*v).unwrap_or(1))).max(1)
            }
            _ => values.len().max(times).max(1) as u64,
        }
    }
}

fn named(name: &str, unit: &str) -> SampleType {
    SampleType { name: Str::from(name), unit: Str::from(unit) }
}

/// Type, unit and scale, with units of time and size under their usual names.
fn names<'a>(value_type: Option<ValueType>, dictionary: &Dictionary<'a>) -> Result<(&'a str, &'a str, i64), Cause> {
    let value_type = value_type.ok_or(Cause::NoSampleType)?;
    let name = dictionary.text(value_type.type_strindex)?;
    let unit = dictionary.text(value_type.unit_strindex)?;
    let (unit, scale) = match unit {
        "ns" => ("nanoseconds", 1),
        "us" | "microseconds" => ("nanoseconds", 1_000),
        "ms" | "milliseconds" => ("nanoseconds", 1_000_000),
        "s" | "seconds" => ("nanoseconds", 1_000_000_000),
        "By" => ("bytes", 1),
        "1" => ("count", 1),
        other => (other, 1),
    };
    Ok((name, unit, scale))
}
