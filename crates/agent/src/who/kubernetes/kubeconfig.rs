//! A kubeconfig file: cluster and user of its current context.

use std::path::Path;

use yaml_rust2::{Yaml, YamlLoader};

use super::config::{Access, Secret};

/// Reads the text of a file in `folder`, which relative paths in it are relative to.
pub fn parse(text: &str, folder: &Path) -> Result<Access, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|e| format!("is not YAML: {e}"))?;
    let file = documents.first().ok_or("is empty")?;
    let current = file["current-context"].as_str().filter(|name| !name.is_empty());
    let current = current.ok_or("has no current-context: choose one with `kubectl config use-context`")?;
    let context = named(&file["contexts"], current, "context")?;
    let cluster = context["cluster"].as_str().unwrap_or_default();
    let cluster = named(&file["clusters"], cluster, "cluster")?;
    let server = cluster["server"].as_str().ok_or("the cluster has no server")?;
    let no_user = Yaml::BadValue;
    let user = match context["user"].as_str() {
        Some(user) if !user.is_empty() => named(&file["users"], user, "user")?,
        _ => &no_user,
    };
    if !user["exec"].is_badvalue() || !user["auth-provider"].is_badvalue() {
        return Err("the user logs in by a program, which is not run here: use a token, tokenFile, or a client \
                    certificate, such as those of a service account"
            .into());
    }
    let secret = |from: &Yaml, name: &str| secret(from, name, folder);
    let token = user["token"].as_str().map(|token| Secret::Value(token.as_bytes().to_vec()));
    let certificate = secret(user, "client-certificate")?;
    Ok(Access {
        server: server.trim_end_matches('/').to_owned(),
        authority: secret(cluster, "certificate-authority")?,
        token: token.or(user["tokenFile"].as_str().map(|path| Secret::File(folder.join(path)))),
        identity: certificate.zip(secret(user, "client-key")?),
        insecure: cluster["insecure-skip-tls-verify"].as_bool().unwrap_or(false),
    })
}

/// The entry of a name in a list of `{name, KIND}`.
fn named<'a>(list: &'a Yaml, name: &str, kind: &str) -> Result<&'a Yaml, String> {
    let entries = list.as_vec().map(Vec::as_slice).unwrap_or_default();
    let entry = entries.iter().find(|entry| entry["name"].as_str() == Some(name));
    entry.map(|entry| &entry[kind]).ok_or_else(|| format!("there is no {kind} `{name}`"))
}

/// `NAME-data` in base 64, or the file called `NAME`.
fn secret(from: &Yaml, name: &str, folder: &Path) -> Result<Option<Secret>, String> {
    let data = format!("{name}-data");
    if let Some(text) = from[data.as_str()].as_str().filter(|text| !text.is_empty()) {
        let value = base64(text).ok_or_else(|| format!("{data} is not base 64"))?;
        return Ok(Some(Secret::Value(value)));
    }
    Ok(from[name].as_str().filter(|path| !path.is_empty()).map(|path| Secret::File(folder.join(path))))
}

/// Decodes the usual alphabet; line breaks are passed over.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace()).take_while(|b| *b != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
apiVersion: v1
kind: Config
current-context: two
clusters:
- {name: one, cluster: {server: 'https://one:6443'}}
- name: two
  cluster:
    server: https://10.0.0.1:6443/
    certificate-authority-data: LS0tLS1CRUdJTg==
contexts:
- {name: one, context: {cluster: one, user: nobody}}
- {name: two, context: {cluster: two, user: agent}}
- {name: three, context: {cluster: one}}
- {name: four, context: {cluster: one, user: cloud}}
users:
- name: agent
  user:
    tokenFile: secrets/token
    client-certificate: /etc/agent.crt
    client-key: agent.key
- {name: cloud, user: {exec: {command: aws}}}
";

    #[test]
    fn the_current_context_counts() {
        let access = parse(FILE, Path::new("/etc/kube")).unwrap();
        let file = |path: &str| Secret::File(path.into());
        assert_eq!(
            access,
            Access {
                server: "https://10.0.0.1:6443".into(),
                authority: Some(Secret::Value(b"-----BEGIN".to_vec())),
                token: Some(file("/etc/kube/secrets/token")),
                identity: Some((file("/etc/agent.crt"), file("/etc/kube/agent.key"))),
                insecure: false,
            }
        );
        let three = parse(&FILE.replace("current-context: two", "current-context: three"), Path::new("")).unwrap();
        assert_eq!(three, Access { server: "https://one:6443".into(), ..Access::default() });
    }

    #[test]
    fn what_is_wrong_is_said() {
        let with = |context: &str| FILE.replace("current-context: two", &format!("current-context: {context}"));
        for (text, said) in [
            (with("one"), "no user `nobody`"),
            (with("none"), "no context `none`"),
            (with("''"), "no current-context"),
            (with("four"), "by a program"),
            (FILE.replace("LS0t", "_"), "certificate-authority-data is not base 64"),
            ("a: [".into(), "not YAML"),
            (String::new(), "is empty"),
        ] {
            let error = parse(&text, Path::new("")).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn base_64() {
        for (text, bytes) in
            [("", &b""[..]), ("TQ==", b"M"), ("TWE=", b"Ma"), ("TW\nFu", b"Man"), ("+/+/", &[251, 255, 191])]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes));
        }
        assert_eq!(base64("TW_u"), None);
    }
}
