//! OTLP profiles (`v1development`): how a batch travels between agents and servers.
//!
//! [`encode`] writes what our agent sends; [`decode`] reads that, what the
//! OpenTelemetry eBPF profiler sends, and any other OTLP profile.
//!
//! What we add to the conventions of OpenTelemetry, all of it as attributes that other
//! receivers may ignore:
//! * sample: `everflame.incomplete` is the reason why a stack did not reach its root;
//! * profile: `everflame.stacks` = `stated` says that a sample without that attribute
//!   has a complete stack (without it, nothing is said about completeness);
//! * mapping: `everflame.content_id`.

mod attribute;
mod cause;
mod decode;
mod dictionary;
mod encode;
mod interner;
mod measure;
mod sections;
mod weight;

pub use cause::Cause;
pub use decode::{DecodeError, Decoded, decode, decode_bytes};
pub use encode::{encode, encode_to_bytes};
pub use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
pub use sections::sections;

/// Names of attributes that have a place of their own in the data model.
pub(crate) mod names {
    pub const THREAD_NAME: &str = "thread.name";
    pub const THREAD_ID: &str = "thread.id";
    pub const CPU: &str = "cpu.logical_number";
    pub const PID: &str = "process.pid";
    pub const FRAME_TYPE: &str = "profile.frame.type";
    pub const BUILD_ID: &str = "process.executable.build_id.gnu";
    pub const CONTENT_ID: &str = "everflame.content_id";
    pub const INCOMPLETE: &str = "everflame.incomplete";
    pub const STACKS: &str = "everflame.stacks";
    pub const STATED: &str = "stated";
    pub const SCOPE: &str = "everflame";
}

/// What a request may hold. Beyond a limit, the sample (or profile) is rejected and
/// counted, never the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Frames of one stack.
    pub frames: usize,
    /// Functions inlined at one frame.
    pub lines: usize,
    /// Bytes of one name of a function, file or mapping.
    pub name_bytes: usize,
    /// Attributes of one resource, scope, profile, sample, mapping or location.
    pub attributes: usize,
    /// Bytes of the name or the value of one attribute; a longer attribute is left out
    /// and counted.
    pub attribute_bytes: usize,
    /// Bytes of memory that one decoded request may take, roughly.
    pub memory_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frames: 4096,
            lines: 256,
            name_bytes: 64 << 10,
            attributes: 128,
            attribute_bytes: 4 << 10,
            memory_bytes: 1 << 30,
        }
    }
}
