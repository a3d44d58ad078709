//! Why a secret is not to be had, and what to do. No message holds any part of a secret's value.

/// A secret cannot be fetched or used. Each message names the secret and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// No region is known.
    #[error(
        "secret `{name}`: no AWS region is known: set AWS_REGION, or add ?region=REGION to --secret (looked at \
         AWS_REGION, AWS_DEFAULT_REGION, the profile, {metadata})"
    )]
    NoRegion {
        /// The secret.
        name: String,
        /// What the machine's metadata service said.
        metadata: String,
    },
    /// No credentials are anywhere.
    #[error(
        "secret `{name}`: no AWS credentials found: bind an IAM role to the pod's service account (docs/secrets.md); \
         looked at: {looked}"
    )]
    NoCredentials {
        /// The secret.
        name: String,
        /// Each place, and what was missing there.
        looked: String,
    },
    /// A place of credentials is set up, and does not work.
    #[error("secret `{name}`: the AWS credentials of {place} cannot be had: {why}")]
    Credentials {
        /// The secret.
        name: String,
        /// The place.
        place: String,
        /// What is wrong and what to do.
        why: String,
        /// Whether it may work a moment later.
        transient: bool,
    },
    /// AWS does not accept the credentials.
    #[error(
        "secret `{name}`: AWS does not accept the credentials of {place}: {why}; renew them, and check this machine's clock"
    )]
    Rejected {
        /// The secret.
        name: String,
        /// Where they came from.
        place: String,
        /// AWS's words.
        why: String,
    },
    /// There is no such secret.
    #[error(
        "secret `{name}` is not in AWS Secrets Manager of region {region}: create it, or correct --secret (name and ?region=)"
    )]
    NotFound {
        /// The secret.
        name: String,
        /// Where it was looked for.
        region: String,
    },
    /// The role may not read it.
    #[error(
        "secret `{name}`: access denied: allow the action `secretsmanager:GetSecretValue` on it (and `kms:Decrypt` on \
         its key, where it has one of its own) to the role of {place}; AWS says: {why}"
    )]
    Denied {
        /// The secret.
        name: String,
        /// Where the credentials came from.
        place: String,
        /// AWS's words.
        why: String,
    },
    /// AWS answers with another error.
    #[error("secret `{name}`: AWS Secrets Manager of region {region} refuses: {why}")]
    Refused {
        /// The secret.
        name: String,
        /// Where it was asked for.
        region: String,
        /// AWS's words.
        why: String,
        /// Whether it may work a moment later.
        transient: bool,
    },
    /// Nobody answers.
    #[error(
        "secret `{name}`: no answer from {endpoint}: {why}; allow this connection (network policy, VPC endpoint), or \
         give ?endpoint=URL"
    )]
    Unreachable {
        /// The secret.
        name: String,
        /// Who was asked.
        endpoint: String,
        /// What happened.
        why: String,
    },
    /// The value is not what it should be.
    #[error(
        "secret `{name}`: {why}: its value must be JSON such as {{\"endpoint\": \"https://…\", \"apiKey\": \"…\"}}"
    )]
    Shape {
        /// The secret.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// No thread.
    #[error("cannot start a thread that watches the secret: {0}")]
    Thread(String),
}

impl SecretError {
    /// Whether the same question may have a better answer a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { transient, .. } | Self::Credentials { transient, .. } => *transient,
            _ => false,
        }
    }
}
