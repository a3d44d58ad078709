//! The command line. Every long option is also `EVERFLAME_<OPTION>` in the environment and
//! a key of the file given by `--config`: option > environment > file > default.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use everflame_agent::Memory;

use crate::{also::AlsoOptions, diff::DiffOptions, filter::FilterOptions, secret::SecretOptions, token::TokenCommand};

/// Sees what every process spends its time on, with nothing changed in any process.
#[derive(Debug, Parser)]
#[command(name = "everflame", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// TOML file whose keys are the long options of the command
    #[arg(long, global = true, value_name = "FILE", env = "EVERFLAME_CONFIG")]
    pub config: Option<PathBuf>,
    /// What to log to standard error: error, warn, info, debug, trace, or a filter
    #[arg(long, global = true, value_name = "LEVEL", env = "EVERFLAME_LOG", default_value = "info")]
    pub log: String,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Profile this machine and show it in the browser: agent and server in one
    Up(UpOptions),
    /// Profile this machine and send the profiles to a server
    Agent(AgentOptions),
    /// Take profiles, keep them, answer queries and show them
    Server(ServerOptions),
    /// Profile for a while, or while a command runs, and write a file
    Record(RecordOptions),
    /// Functions that use most, from a server
    Top(TopOptions),
    /// Functions that use more or less than before, or than elsewhere
    Diff(DiffOptions),
    /// Symbol indexes of a server
    Symbols {
        /// What to do with them.
        #[command(subcommand)]
        command: SymbolsCommand,
    },
    /// Tokens of a server: who may send profiles, and who may see them
    Token {
        /// What to do with them.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Check what this machine, or a server, needs for profiling
    Doctor(DoctorOptions),
    /// Parses other programs' files for the agent, without its privileges
    #[command(hide = true, name = "internal-worker")]
    InternalWorker,
}

/// How often to sample.
#[derive(Debug, Args, Clone)]
pub struct SamplingOptions {
    /// Bytes of the ring between kernel and agent, a power of two
    #[arg(long, value_name = "BYTES", env = "EVERFLAME_RING_BYTES", default_value_t = 1 << 20, value_parser = ring_bytes)]
    pub ring_bytes: u32,
    /// Memory of the agent and its kernel maps at most, such as 64MiB; the processes that read
    /// executables may take half as much again while they run
    #[arg(long, value_name = "SIZE", env = "EVERFLAME_MEMORY", default_value = "128MiB", value_parser = memory)]
    pub memory: u64,
    /// Bytes of unwind tables at most (default: a quarter of the memory); the least used ones go first
    #[arg(long, value_name = "BYTES", env = "EVERFLAME_TABLE_BYTES")]
    pub table_bytes: Option<u64>,
    /// Longest time of one sample in the interrupt, in microseconds
    #[arg(long, value_name = "MICROSECONDS", env = "EVERFLAME_TIME_LIMIT_US", default_value_t = 10_000)]
    pub time_limit_us: u64,
    /// Do not read OTEL_SERVICE_NAME from the environment of processes
    #[arg(long, env = "EVERFLAME_NO_SERVICE_ENV", value_parser = clap::builder::BoolishValueParser::new())]
    pub no_service_env: bool,
}

/// How the agent checks itself.
#[derive(Debug, Args)]
pub struct OpinionOptions {
    /// Have one stack in N walked again by an independent unwinder, and publish how far both agree; 0 for none
    /// (on x86-64; elsewhere there are none)
    #[arg(long, value_name = "N", env = "EVERFLAME_SECOND_OPINION", default_value_t = 1000)]
    second_opinion: u32,
}

impl OpinionOptions {
    /// Every so manieth stack is walked again; 0 for none.
    pub fn every(&self) -> u32 {
        if cfg!(target_arch = "x86_64") { self.second_opinion } else { 0 }
    }
}

/// Whether pods are known, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kubernetes {
    /// In a pod that has a service account, and with --kubeconfig.
    Auto,
    /// Not to be started without.
    On,
    /// Never.
    Off,
}

/// Which node this is, and who tells of its pods.
#[derive(Debug, Args, Clone)]
pub struct NodeOptions {
    /// Name of this node, as Kubernetes has it (default: NODE_NAME of the environment, else the host's name)
    #[arg(long, value_name = "NAME", env = "EVERFLAME_NODE")]
    pub node: Option<String>,
    /// Whether the Kubernetes API server is asked for the pods of this node
    #[arg(long, value_enum, value_name = "WHEN", env = "EVERFLAME_KUBERNETES", default_value_t = Kubernetes::Auto)]
    pub kubernetes: Kubernetes,
    /// File that says how to reach the API server, where we are not in a pod
    #[arg(long, value_name = "FILE", env = "EVERFLAME_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

/// Which labels of pods become attributes.
#[derive(Debug, Args, Clone)]
pub struct PodLabelOptions {
    /// Labels of pods to keep, e.g. version,app.kubernetes.io/part-of
    #[arg(long, value_name = "NAME", env = "EVERFLAME_POD_LABELS", value_delimiter = ',')]
    pub pod_labels: Vec<String>,
}

/// Options of `up`.
#[derive(Debug, Args)]
pub struct UpOptions {
    /// Which node this is.
    #[command(flatten)]
    pub node: NodeOptions,
    /// What is kept of pods.
    #[command(flatten)]
    pub labels: PodLabelOptions,
    /// Which processes are profiled.
    #[command(flatten)]
    pub filter: FilterOptions,
    /// Address of the web page, the API and OTLP; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", env = "EVERFLAME_LISTEN", default_value = "127.0.0.1:4040")]
    pub listen: SocketAddr,
    /// Directory for everything that is kept
    #[arg(long, value_name = "DIR", env = "EVERFLAME_DATA", default_value = "everflame-data")]
    pub data: PathBuf,
    /// Samples per second and CPU
    #[arg(long, value_name = "HZ", env = "EVERFLAME_RATE", default_value_t = 19, value_parser = clap::value_parser!(u32).range(1..=999))]
    pub rate: u32,
    /// End after so many seconds, with everything written
    #[arg(long, value_name = "SECONDS", env = "EVERFLAME_DURATION", value_parser = seconds)]
    pub duration: Option<f64>,
    /// How the kernel side is set up.
    #[command(flatten)]
    pub sampling: SamplingOptions,
    /// How the agent checks itself.
    #[command(flatten)]
    pub opinion: OpinionOptions,
    /// How long and how much to keep.
    #[command(flatten)]
    pub retention: RetentionOptions,
    /// Where profiles go beside the own store.
    #[command(flatten)]
    pub secret: SecretOptions,
    /// The same without a secret.
    #[command(flatten)]
    pub also: AlsoOptions,
    /// Further host names under which the server may be reached
    #[arg(long, value_name = "NAME", env = "EVERFLAME_ALLOWED_HOSTS", value_delimiter = ',')]
    pub allowed_hosts: Vec<String>,
    /// Listen where others reach it although there are no tokens
    #[arg(long, env = "EVERFLAME_INSECURE_NO_AUTH", value_parser = clap::builder::BoolishValueParser::new())]
    pub insecure_no_auth: bool,
}

/// Options of `agent`.
#[derive(Debug, Args)]
pub struct AgentOptions {
    /// Where to send profiles, e.g. https://profiles.example:4040
    #[arg(long, value_name = "URL", env = "EVERFLAME_ENDPOINT")]
    pub endpoint: Option<String>,
    /// Samples per second and CPU
    #[arg(long, value_name = "HZ", env = "EVERFLAME_RATE", default_value_t = 19, value_parser = clap::value_parser!(u32).range(1..=999))]
    pub rate: u32,
    /// Address of the agent's own /metrics, /healthz and /readyz
    #[arg(long, value_name = "ADDRESS", env = "EVERFLAME_LISTEN", default_value = "127.0.0.1:4041")]
    pub listen: SocketAddr,
    /// Directory for batches that are not acknowledged yet
    #[arg(long, value_name = "DIR", env = "EVERFLAME_SPOOL", default_value = "/var/lib/everflame/spool")]
    pub spool: PathBuf,
    /// Bytes of batches there at most, divided alike among all destinations; the oldest batches go first, counted
    #[arg(long, value_name = "BYTES", env = "EVERFLAME_SPOOL_BYTES", default_value_t = 256 << 20)]
    pub spool_bytes: u64,
    /// File with the token to send (re-read when it changes)
    #[arg(long, value_name = "FILE", env = "EVERFLAME_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// File with certificates (PEM) of authorities that may speak for the server (default: the system's)
    #[arg(long, value_name = "FILE", env = "EVERFLAME_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Where it sends, and what it shows there.
    #[command(flatten)]
    pub secret: SecretOptions,
    /// Where it sends beside that.
    #[command(flatten)]
    pub also: AlsoOptions,
    /// Which node this is.
    #[command(flatten)]
    pub node: NodeOptions,
    /// What is kept of pods.
    #[command(flatten)]
    pub labels: PodLabelOptions,
    /// Which processes are profiled.
    #[command(flatten)]
    pub filter: FilterOptions,
    /// End after so many seconds, with everything sent
    #[arg(long, value_name = "SECONDS", env = "EVERFLAME_DURATION", value_parser = seconds)]
    pub duration: Option<f64>,
    /// How the kernel side is set up.
    #[command(flatten)]
    pub sampling: SamplingOptions,
    /// How the agent checks itself.
    #[command(flatten)]
    pub opinion: OpinionOptions,
}

/// How long and how much to keep.
#[derive(Debug, Args, Clone)]
pub struct RetentionOptions {
    /// Keep profiles at most so many hours
    #[arg(long, value_name = "HOURS", env = "EVERFLAME_RETENTION_HOURS", default_value_t = 720)]
    pub retention_hours: u64,
    /// Keep at most so many bytes; the oldest profiles go first
    #[arg(long, value_name = "BYTES", env = "EVERFLAME_RETENTION_BYTES", default_value_t = 10 << 30)]
    pub retention_bytes: u64,
}

/// Options of `server`.
#[derive(Debug, Args)]
pub struct ServerOptions {
    /// Address of the web page, the API and OTLP; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", env = "EVERFLAME_LISTEN", default_value = "127.0.0.1:4040")]
    pub listen: SocketAddr,
    /// Directory for everything that is kept
    #[arg(long, value_name = "DIR", env = "EVERFLAME_DATA", default_value = "everflame-data")]
    pub data: PathBuf,
    /// Keep profiles in a ClickHouse cluster (not in this version)
    #[arg(long, value_name = "URL", env = "EVERFLAME_CLICKHOUSE")]
    pub clickhouse: Option<String>,
    /// How long and how much to keep.
    #[command(flatten)]
    pub retention: RetentionOptions,
    /// Largest request taken, in bytes after decompression
    #[arg(long, value_name = "BYTES", env = "EVERFLAME_MAX_REQUEST_BYTES", default_value_t = 64 << 20)]
    pub max_request_bytes: usize,
    /// Further host names under which the server may be reached
    #[arg(long, value_name = "NAME", env = "EVERFLAME_ALLOWED_HOSTS", value_delimiter = ',')]
    pub allowed_hosts: Vec<String>,
    /// Certificate (PEM, with those that lead to its root): the port speaks TLS; re-read when it changes
    #[arg(long, value_name = "FILE", env = "EVERFLAME_TLS_CERT_FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of the certificate (PEM); re-read when it changes
    #[arg(long, value_name = "FILE", env = "EVERFLAME_TLS_KEY_FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// File with a token of role admin that was made elsewhere, 32 characters or more; re-read when it changes
    #[arg(long, value_name = "FILE", env = "EVERFLAME_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Listen where others reach it although there are no tokens
    #[arg(long, env = "EVERFLAME_INSECURE_NO_AUTH", value_parser = clap::builder::BoolishValueParser::new())]
    pub insecure_no_auth: bool,
    /// Requests a second of one address in the long run, five times as many at once; 0 for no limit
    #[arg(long, value_name = "N", env = "EVERFLAME_REQUESTS_PER_ADDRESS", default_value_t = 2000)]
    pub requests_per_address: u32,
    /// Requests a second of one token, likewise; the agents of a fleet may share one
    #[arg(long, value_name = "N", env = "EVERFLAME_REQUESTS_PER_TOKEN", default_value_t = 10_000)]
    pub requests_per_token: u32,
    /// End after so many seconds, with everything written
    #[arg(long, value_name = "SECONDS", env = "EVERFLAME_DURATION", value_parser = seconds)]
    pub duration: Option<f64>,
}

/// Options of `record`.
#[derive(Debug, Args)]
pub struct RecordOptions {
    /// How long to record (default: until Ctrl-C, or as long as the command runs)
    #[arg(long, value_name = "SECONDS", env = "EVERFLAME_DURATION", value_parser = seconds)]
    pub duration: Option<f64>,
    /// Samples per second and CPU
    #[arg(long, value_name = "HZ", env = "EVERFLAME_RATE", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=999))]
    pub rate: u32,
    /// Only this process and its children; may be given several times
    #[arg(long, value_name = "PID", env = "EVERFLAME_PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// File to write; its ending says what: .pb.gz (pprof), .folded, .svg, .json
    #[arg(long, value_name = "FILE", env = "EVERFLAME_OUTPUT", default_value = "profile.pb.gz")]
    pub output: PathBuf,
    /// How the kernel side is set up.
    #[command(flatten)]
    pub sampling: SamplingOptions,
    /// Command to run and profile, with its children
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// How to reach a server.
#[derive(Debug, Args, Clone)]
pub struct ServerAccess {
    /// The server, http:// or https://
    #[arg(long, value_name = "URL", env = "EVERFLAME_SERVER", default_value = "http://127.0.0.1:4040")]
    pub server: String,
    /// How to get in.
    #[command(flatten)]
    pub credentials: CredentialOptions,
}

/// How to get in where a server wants to know who calls.
#[derive(Debug, Args, Clone, Default)]
pub struct CredentialOptions {
    /// File with the token to send
    #[arg(long, value_name = "FILE", env = "EVERFLAME_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// File with certificates (PEM) of authorities that may speak for the server (default: the system's)
    #[arg(long, value_name = "FILE", env = "EVERFLAME_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// The API's answer.
    Json,
}

/// Options of `top`.
#[derive(Debug, Args)]
pub struct TopOptions {
    /// The server.
    #[command(flatten)]
    pub access: ServerAccess,
    /// Which samples, e.g. '{service="cart", namespace=~"shop.*"}'
    #[arg(long, value_name = "SELECTOR", env = "EVERFLAME_QUERY", default_value = "")]
    pub query: String,
    /// From when: RFC 3339, Unix seconds, or now-15m
    #[arg(long, value_name = "TIME", env = "EVERFLAME_FROM", default_value = "now-15m")]
    pub from: String,
    /// Until when
    #[arg(long, value_name = "TIME", env = "EVERFLAME_UNTIL", default_value = "now")]
    pub until: String,
    /// Type of samples
    #[arg(long = "type", value_name = "TYPE", env = "EVERFLAME_TYPE", default_value = "cpu")]
    pub sample_type: String,
    /// Sum by function, file or mapping
    #[arg(long, value_name = "WHAT", env = "EVERFLAME_BY", default_value = "function")]
    pub by: String,
    /// Sort by self or total
    #[arg(long, value_name = "MEASURE", env = "EVERFLAME_SORT", default_value = "self")]
    pub sort: String,
    /// Number of rows
    #[arg(long, value_name = "N", env = "EVERFLAME_LIMIT", default_value_t = 20)]
    pub limit: u64,
    /// Rows to skip
    #[arg(long, value_name = "N", env = "EVERFLAME_OFFSET", default_value_t = 0)]
    pub offset: u64,
    /// How to print
    #[arg(long, value_enum, value_name = "FORM", env = "EVERFLAME_OUTPUT", default_value_t = Output::Table)]
    pub output: Output,
}

/// Commands of `symbols`.
#[derive(Debug, Subcommand)]
pub enum SymbolsCommand {
    /// Make indexes of ELF files and send them to a server
    Push(SymbolsPushOptions),
    /// List what a server has
    List(SymbolsListOptions),
}

/// Options of `symbols push`.
#[derive(Debug, Args)]
pub struct SymbolsPushOptions {
    /// The server.
    #[command(flatten)]
    pub access: ServerAccess,
    /// ELF files: programs, libraries, or their debug files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Options of `symbols list`.
#[derive(Debug, Args)]
pub struct SymbolsListOptions {
    /// The server.
    #[command(flatten)]
    pub access: ServerAccess,
    /// How to print
    #[arg(long, value_enum, value_name = "FORM", env = "EVERFLAME_OUTPUT", default_value_t = Output::Table)]
    pub output: Output,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorOptions {
    /// Also check this server
    #[arg(long, value_name = "URL", env = "EVERFLAME_SERVER")]
    pub server: Option<String>,
    /// How to get in.
    #[command(flatten)]
    pub credentials: CredentialOptions,
    /// Which node this is.
    #[command(flatten)]
    pub node: NodeOptions,
    /// How to print
    #[arg(long, value_enum, value_name = "FORM", env = "EVERFLAME_OUTPUT", default_value_t = Output::Table)]
    pub output: Output,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if s > 0.0 && s <= 366.0 * 86_400.0 => Ok(s),
        _ => Err("give a number of seconds above 0".into()),
    }
}

/// A number of bytes, KiB, MiB or GiB.
fn memory(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].trim() {
        "" | "B" => Some(0),
        "KiB" | "K" | "k" => Some(10),
        "MiB" | "M" => Some(20),
        "GiB" | "G" => Some(30),
        _ => None,
    };
    let bytes = shift.and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes >= Memory::LEAST => Ok(bytes),
        _ => Err(format!("give a size of at least {} MiB, such as 64MiB", Memory::LEAST >> 20)),
    }
}

fn ring_bytes(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n.is_power_of_two() && (4096..=1 << 28).contains(&n) => Ok(n),
        _ => Err("give a power of two from 4096 to 268435456".into()),
    }
}
