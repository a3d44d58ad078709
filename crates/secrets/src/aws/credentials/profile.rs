//! The files of AWS's command line: `~/.aws/credentials` and `~/.aws/config`.

use std::collections::BTreeMap;

use super::{super::http, Credentials, Found, web_identity};
use crate::{Environment, Hidden};

/// Settings of a profile.
type Settings = BTreeMap<String, Hidden>;

/// The keys of the profile that `AWS_PROFILE` names (`default` without it), or its role by web identity.
pub(super) fn find(environment: &Environment, region: &str) -> Found {
    let (name, asked) = name(environment);
    let place = format!("the profile `{name}`");
    let files = format!("{} and {}", credentials_file(environment), config_file(environment));
    let Some(settings) = settings(environment, &name) else {
        return match asked {
            true => Found::broken(place, format!("it is in neither of {files}: correct AWS_PROFILE")),
            false => Found::NotSetUp(format!("the profile (no `default` in {files})")),
        };
    };
    let text = |key: &str| settings.get(key).map(|value| value.reveal().to_owned());
    if let (Some(access_key), Some(secret_key)) = (text("aws_access_key_id"), settings.get("aws_secret_access_key")) {
        return Found::Here(Credentials {
            access_key,
            secret_key: secret_key.clone(),
            session_token: settings.get("aws_session_token").cloned(),
            expires: None,
            place,
        });
    }
    if let (Some(role), Some(file)) = (text("role_arn"), text("web_identity_token_file")) {
        return web_identity::assume(environment, region, &role, &file);
    }
    // A profile of another kind would be somebody else than its user means.
    let other = ["role_arn", "credential_process", "sso_session", "sso_start_url", "aws_access_key_id"];
    match other.iter().find(|key| settings.contains_key(**key)) {
        Some(key) => Found::broken(
            place,
            format!(
                "it goes by `{key}`, which is not understood: use aws_access_key_id with aws_secret_access_key, or \
                 role_arn with web_identity_token_file"
            ),
        ),
        None => Found::NotSetUp(format!("the profile (`{name}` in {files} holds no keys)")),
    }
}

/// The region of the profile.
pub(in super::super) fn region(environment: &Environment) -> Option<String> {
    let settings = settings(environment, &name(environment).0)?;
    settings.get("region").map(|region| region.reveal().to_owned())
}

fn name(environment: &Environment) -> (String, bool) {
    let given = environment.get("AWS_PROFILE");
    let asked = given.is_some();
    (given.unwrap_or_else(|| "default".to_owned()), asked)
}

fn credentials_file(environment: &Environment) -> String {
    environment.get("AWS_SHARED_CREDENTIALS_FILE").unwrap_or_else(|| in_home(environment, "credentials"))
}

fn config_file(environment: &Environment) -> String {
    environment.get("AWS_CONFIG_FILE").unwrap_or_else(|| in_home(environment, "config"))
}

fn in_home(environment: &Environment, file: &str) -> String {
    format!("{}/.aws/{file}", environment.get("HOME").unwrap_or_default())
}

/// Both files' settings of a profile, those of the credentials file before those of the other.
fn settings(environment: &Environment, name: &str) -> Option<Settings> {
    let config = http::read_file(&config_file(environment)).ok();
    let credentials = http::read_file(&credentials_file(environment)).ok();
    let of_config = config.and_then(|text| section(&text, &[name, &format!("profile {name}")]));
    let of_credentials = credentials.and_then(|text| section(&text, &[name]));
    match (of_config, of_credentials) {
        (None, None) => None,
        (config, credentials) => {
            let mut settings = config.unwrap_or_default();
            settings.extend(credentials.unwrap_or_default());
            Some(settings)
        }
    }
}

/// The settings of the sections of these names; an indented line belongs to the setting before it.
fn section(text: &str, names: &[&str]) -> Option<Settings> {
    let mut found: Option<Settings> = None;
    let mut inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name) {
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            inside = names.contains(&name.as_str());
            if inside {
                found.get_or_insert_default();
            }
        } else if let (true, false, Some((key, value))) =
            (inside, line.starts_with([' ', '\t']), trimmed.split_once('='))
        {
            let value = value.split(" #").next().unwrap_or_default().trim();
            found.get_or_insert_default().insert(key.trim().to_lowercase(), Hidden::new(value));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "# ours\n[default]\nregion = eu-west-1\n\n[profile dev]\nregion=us-east-2 # near\ns3 =\n  max = 3\n[profile  boss]\nrole_arn = arn:x\nsource_profile = default\n";
    const CREDENTIALS: &str = "[default]\naws_access_key_id = A\naws_secret_access_key = S=+/\n[dev]\nAWS_ACCESS_KEY_ID=B\naws_secret_access_key=T\naws_session_token=U\n";

    fn environment(folder: &tempfile::TempDir, profile: &str) -> Environment {
        std::fs::create_dir_all(folder.path().join(".aws")).unwrap();
        std::fs::write(folder.path().join(".aws/config"), CONFIG).unwrap();
        std::fs::write(folder.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        Environment::of([("HOME", folder.path().to_str().unwrap()), ("AWS_PROFILE", profile)])
    }

    #[test]
    fn profiles_of_both_files() {
        let folder = tempfile::tempdir().unwrap();
        for (profile, key, secret, token, its_region) in
            [("", "A", "S=+/", None, "eu-west-1"), ("dev", "B", "T", Some("U"), "us-east-2")]
        {
            let environment = environment(&folder, profile);
            assert_eq!(region(&environment).as_deref(), Some(its_region));
            let Found::Here(found) = find(&environment, "x") else { panic!("{profile} is there") };
            assert_eq!((found.access_key.as_str(), found.secret_key.reveal()), (key, secret));
            assert_eq!(found.session_token.as_ref().map(Hidden::reveal), token);
        }
    }

    #[test]
    fn what_is_not_understood_or_not_there_is_said() {
        let folder = tempfile::tempdir().unwrap();
        for (profile, said) in [("boss", "role_arn"), ("other", "correct AWS_PROFILE")] {
            let Found::Broken { why, transient: false, .. } = find(&environment(&folder, profile), "x") else {
                panic!("{profile} is broken")
            };
            assert!(why.contains(said), "{why}");
        }
        let nowhere = Environment::of([("HOME", "/nowhere")]);
        assert!(matches!(find(&nowhere, "x"), Found::NotSetUp(why) if why.contains("/nowhere/.aws/credentials")));
    }
}
