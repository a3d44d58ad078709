//! Reads an OTLP request of any sender into a batch whose every index is valid.

use std::hash::RandomState;

use opentelemetry_proto::tonic::profiles::v1development::{
    Profile as WireProfile, ProfilesDictionary, Sample as WireSample,
};
use prost::Message;

use super::{
    ExportProfilesServiceRequest, Limits, attribute::OnSample, cause::Cause, dictionary::Dictionary,
    interner::Interner, measure::Measure, names, weight::weight,
};
use crate::{
    batch::{Batch, Point, Profile, ProfileId, Sample},
    completeness::Completeness,
    labels::{Labels, Str},
};

/// What came of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decoded {
    /// All that is good.
    pub batch: Batch,
    /// Profiles of which nothing is in the batch because it was bad.
    pub rejected_profiles: u64,
    /// Samples that are not in the batch because they, or their profile, were bad.
    pub rejected_samples: u64,
    /// The first cause of a rejection, in words for the sender.
    pub first_cause: Option<String>,
    /// Attributes left out: arrays, lists, bytes, and those beyond the length limit.
    pub skipped_attributes: u64,
}

/// The bytes are no request at all.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the protobuf message.
    #[error("not an ExportProfilesServiceRequest: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Few bytes that would become very many.
    #[error("the request decodes to more than {0} bytes; send smaller requests")]
    TooLarge(usize),
}

/// Reads the protobuf bytes of a request (already decompressed).
pub fn decode_bytes(bytes: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    if weight(bytes, limits.memory_bytes) > limits.memory_bytes {
        return Err(DecodeError::TooLarge(limits.memory_bytes));
    }
    Ok(decode(ExportProfilesServiceRequest::decode(bytes)?, limits))
}

/// Reads a request. What is bad in it is left out and counted.
pub fn decode(request: ExportProfilesServiceRequest, limits: &Limits) -> Decoded {
    let none = ProfilesDictionary::default();
    let mut decoder = Decoder {
        dictionary: Dictionary::new(request.dictionary.as_ref().unwrap_or(&none), limits),
        resources: Interner::new(),
        thread_unknown: Str::from(""),
        decoded: Decoded::default(),
    };
    for resource in &request.resource_profiles {
        for scope in &resource.scope_profiles {
            let mut labels = Vec::new();
            let scope_attributes = scope.scope.as_ref().map_or(&[][..], |s| &s.attributes);
            let resource_attributes = resource.resource.as_ref().map_or(&[][..], |r| &r.attributes);
            let outcome = decoder
                .dictionary
                .labels(scope_attributes, &mut labels)
                .and_then(|()| decoder.dictionary.labels(resource_attributes, &mut labels));
            for profile in &scope.profiles {
                match outcome {
                    Ok(()) => decoder.profile(profile, &labels),
                    Err(cause) => decoder.reject_profile(profile, cause),
                }
            }
        }
    }
    decoder.finish()
}

struct Decoder<'a> {
    dictionary: Dictionary<'a>,
    resources: Interner<Labels, RandomState>,
    thread_unknown: Str,
    decoded: Decoded,
}

impl Decoder<'_> {
    fn finish(mut self) -> Decoded {
        self.decoded.skipped_attributes = self.dictionary.skipped_attributes;
        (self.decoded.batch.frames, self.decoded.batch.stacks) = self.dictionary.finish();
        self.decoded.batch.resources = self.resources.into_vec();
        self.decoded
    }

    fn reject(&mut self, samples: u64, cause: Cause) {
        self.decoded.rejected_samples = self.decoded.rejected_samples.saturating_add(samples);
        self.decoded.first_cause.get_or_insert_with(|| cause.to_string());
    }

    fn reject_profile(&mut self, profile: &WireProfile, cause: Cause) {
        let samples =
            profile.samples.iter().map(|s| s.values.len().max(s.timestamps_unix_nano.len()).max(1) as u64).sum();
        self.decoded.rejected_profiles += 1;
        self.reject(samples, cause);
    }

    fn profile(&mut self, wire: &WireProfile, resource: &[(Str, Str)]) {
        let (measure, time, labels, unsaid) = match self.head(wire, resource) {
            Ok(head) => head,
            Err(cause) => return self.reject_profile(wire, cause),
        };
        let mut samples = Vec::with_capacity(wire.samples.len());
        let mut rejected = false;
        for sample in &wire.samples {
            match self.sample(sample, &measure, time, unsaid) {
                Ok(Some(sample)) => samples.push(sample),
                Ok(None) => {}
                Err(cause) => {
                    rejected = true;
                    self.reject(measure.samples(&sample.values, sample.timestamps_unix_nano.len()), cause);
                }
            }
        }
        if samples.is_empty() {
            self.decoded.rejected_profiles += u64::from(rejected);
            return;
        }
        let id = ProfileId::try_from(wire.profile_id.as_slice()).ok().filter(|id| *id != [0; 16]);
        let resource = self.resources.number(labels);
        let Measure { sample_type, period, .. } = measure;
        self.decoded.batch.profiles.push(Profile { id, resource, sample_type, period, samples });
    }

    /// What is said once for the whole profile: its measure, its time, its labels, and
    /// what the absence of a reason says about a stack.
    fn head(
        &mut self,
        wire: &WireProfile,
        resource: &[(Str, Str)],
    ) -> Result<(Measure, i64, Labels, Completeness), Cause> {
        let limit = self.dictionary.limits.attributes;
        if wire.attribute_indices.len() > limit {
            return Err(Cause::Attributes(limit));
        }
        let measure = Measure::of(wire, &self.dictionary)?;
        let time = i64::try_from(wire.time_unix_nano).map_err(|_| Cause::Time)?;
        let mut unsaid = Completeness::NotSaid;
        let mut labels = Vec::with_capacity(wire.attribute_indices.len() + resource.len());
        for &index in &wire.attribute_indices {
            let Some(attribute) = self.dictionary.attribute(index)? else { continue };
            if attribute.key.as_ref() == names::STACKS {
                if attribute.value.as_ref() == names::STATED {
                    unsaid = Completeness::Complete;
                }
            } else {
                labels.push((attribute.key.clone(), attribute.value.clone()));
            }
        }
        // The resource's own come last: they win.
        labels.extend_from_slice(resource);
        // Each profile's labels are compared with others', so their length is work, too.
        let label_bytes = |(name, value): &(Str, Str)| name.len() + value.len() + size_of::<(Str, Str)>();
        self.dictionary.charge(size_of::<Profile>() + labels.iter().map(label_bytes).sum::<usize>())?;
        Ok((measure, time, Labels::new(labels), unsaid))
    }

    /// One sample; `None` where all its values are 0.
    fn sample(
        &mut self,
        wire: &WireSample,
        measure: &Measure,
        profile_time: i64,
        unsaid: Completeness,
    ) -> Result<Option<Sample>, Cause> {
        let (values, times) = (&wire.values, &wire.timestamps_unix_nano);
        let count = match (values.len(), times.len()) {
            (0, 0) => return Err(Cause::NoPoints),
            (0, count) | (count, 0) => count,
            (values, times) if values == times => times,
            (values, times) => return Err(Cause::Shape { values, times }),
        };
        let limit = self.dictionary.limits.attributes;
        if wire.attribute_indices.len() > limit {
            return Err(Cause::Attributes(limit));
        }
        self.dictionary.check_link(wire.link_index)?;
        self.dictionary.charge(
            size_of::<Sample>() + count * size_of::<Point>() + wire.attribute_indices.len() * size_of::<(Str, Str)>(),
        )?;
        let mut points = Vec::with_capacity(count);
        for at in 0..count {
            let time = match times.get(at) {
                Some(&time) => i64::try_from(time).map_err(|_| Cause::Time)?,
                None => profile_time,
            };
            points.extend(measure.point(time, values.get(at).copied())?);
        }
        let mut sample = Sample {
            stack: self.dictionary.stack(wire.stack_index)?,
            completeness: unsaid,
            thread: self.thread_unknown.clone(),
            tid: 0,
            cpu: u32::MAX,
            labels: Labels::default(),
            points,
        };
        let mut labels = Vec::new();
        for &index in &wire.attribute_indices {
            let Some(attribute) = self.dictionary.attribute(index)? else { continue };
            match attribute.on_sample {
                OnSample::Thread => sample.thread = attribute.value.clone(),
                OnSample::Tid(tid) => sample.tid = tid,
                OnSample::Cpu(cpu) => sample.cpu = cpu,
                OnSample::Incomplete(why) => sample.completeness = why,
                OnSample::Label => labels.push((attribute.key.clone(), attribute.value.clone())),
            }
        }
        sample.labels = Labels::new(labels);
        Ok(if sample.points.is_empty() { None } else { Some(sample) })
    }
}
