//! The data model of profiles and its codecs: OTLP profiles, pprof, folded stacks.
//!
//! Everything that travels between the parts of Everflame is a [`Batch`]: the agent
//! encodes one, the server decodes one, the store appends one, `record` writes one
//! to a file. The query language stands here too, since agent and store speak it. No IO here and no `unsafe`.
#![forbid(unsafe_code)]

pub mod batch;
pub mod completeness;
pub mod folded;
pub mod frame;
pub mod label;
pub mod labels;
pub mod named;
pub mod opinion;
pub mod otlp;
pub mod pprof;
pub mod report;
pub mod selector;

pub use batch::{Batch, Point, Profile, ProfileId, Sample, SampleType, Stack};
pub use completeness::Completeness;
pub use frame::{ContentId, Frame, FrameKind, Line, Mapping};
pub use label::resolve_label;
pub use labels::{Labels, Str};
pub use named::{NamedFrame, NamedProfile, NamedSample};
pub use opinion::{ExecutableOpinion, SecondOpinion};
pub use report::Report;
pub use selector::{Matcher, MatcherOp, Selector};
