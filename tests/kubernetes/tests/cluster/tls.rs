//! The overlay `tls` over a running cluster, and then what an operator does month by month: another
//! certificate by another authority, and another token, while nobody is restarted and nothing is lost.

use std::path::PathBuf;
use std::process::Command;

use everflame_kubernetes::{Plane, tools};
use everflame_tests::api::{number, residual, sum};
use everflame_tests::machine::{need_program, output};
use everflame_tests::{Api, Outcome};
use serde_json::Value;

use crate::deployment::{api, installed, patiently, pod, quiet, said, script, state, stranger};
use crate::reader::{Reader, block};

const PAGE: &str = "deploy/README.md";
/// Where people open it, by a port forward.
const URL: &str = "https://localhost:4040";

/// From plain HTTP to TLS, a new certificate, a new token, and back.
pub fn certificate_and_token_change() -> Outcome {
    tools::folder()?;
    need_program("openssl")?;
    let stage = installed()?;
    quiet(&stage);
    let reader = Reader::new(&stage);
    let admin = secret(&stage, "everflame-admin", "token");
    let files = Files { folder: reader.folder().to_owned() };
    let (one, other) = (files.authority("one"), files.authority("other"));
    files.certify("first", "one");
    files.certify("second", "other");

    // From here on as the guide says.
    let with = |text: String, certificate: &str, authority: &str| {
        text.replace("=CERT", &format!("={certificate}.crt"))
            .replace("=KEY", &format!("={certificate}.key"))
            .replace("=CA", &format!("={authority}.crt"))
    };
    let text = reader.run(&with(block(PAGE, "--overlay tls"), "first", "one"));
    assert!(text.contains("then open https://"), "{text}");
    let (agent, server) = (identity(&stage, "everflame-agent"), identity(&stage, "everflame-server"));
    let forward = reader.forward(&stage);
    let client = Api::closed(URL, &one, &admin);
    let before =
        patiently(&stage, "samples over TLS", || account(&client).filter(|account| number(&account["stored"]) > 0));
    assert_eq!(stranger(&stage).try_status("/healthz"), None, "the port speaks nothing but TLS");
    assert_eq!(files.served(), files.fingerprint("first"));

    // Another authority beside the first, and its certificate.
    std::fs::write(files.path("both.crt"), one + &other).unwrap();
    let replace = block(PAGE, "--from-file=ca.crt=CA --dry-run");
    reader.run(&with(replace, "second", "both"));
    patiently(&stage, "the new certificate", || (files.served() == files.fingerprint("second")).then_some(()));
    // A connection that was open stays; this one is new and believes the other authority alone.
    let client = Api::closed(URL, &other, &admin);
    assert_eq!(client.figure("everflame_tls_failed_reloads_total"), 0.0, "the pair is never half of each");

    // Another token for the agents.
    let (old, id) = (secret(&stage, "everflame-agent", "token"), ids(&client, "everflame-agent")[0].clone());
    let listed = reader.run(&block(PAGE, "token rotate ID").replace("rotate ID", &format!("rotate {id}")));
    assert!(listed.contains(&id), "{listed}");
    let new = secret(&stage, "everflame-agent", "token");
    assert!(new != old && new.starts_with("evf_"), "a token of another kind");
    assert!(!listed.contains(&old) && !listed.contains(&new), "a token is shown");
    let next = ids(&client, "everflame-agent").into_iter().find(|other| *other != id).expect("a successor");
    let answers = |token: &str| Api::closed(URL, &other, token).get("/api/v1/nodes", &[]).0;
    assert_eq!([&old, &new].map(|token| answers(token)), [403, 403], "agents may send and not read");
    // What was asked just now was a use of both.
    let taken_up = patiently(&stage, "the agent's first use of the new token", || {
        let used = [&id, &next].map(|id| last_used(&client, id));
        (used[1] > used[0] + 2).then_some(used)
    });
    println!("the old token was last used at {}, the new one at {}", taken_up[0], taken_up[1]);
    let then = account(&client).expect("the agent's account");
    reader.run(&block(PAGE, "token revoke ID").replace("revoke ID", &format!("revoke {id}")));
    assert_eq!([&old, &new].map(|token| answers(token)), [401, 403], "the old one is good for nothing");
    let after = patiently(&stage, "samples under the new token", || {
        account(&client).filter(|account| number(&account["stored"]) > number(&then["stored"]))
    });
    assert_eq!(identity(&stage, "everflame-agent"), agent, "the agent was restarted");
    assert_eq!(identity(&stage, "everflame-server"), server, "the server was restarted");

    // A server that is new meets agents that have to connect anew: they know its authority by now.
    drop(forward);
    stage.kubectl().run(&["delete", "pod", "--namespace", "everflame", &server.0]);
    reader.run("kubectl -n everflame rollout status statefulset/everflame-server --timeout=120s");
    let forward = reader.forward(&stage);
    let end = patiently(&stage, "samples after the server's restart", || {
        account(&client).filter(|account| number(&account["stored"]) > number(&after["stored"]))
    });
    assert_eq!(identity(&stage, "everflame-agent"), agent, "the agent was restarted");
    for (account, when) in [(&before, "at first"), (&then, "two tokens"), (&after, "revoked"), (&end, "at the end")] {
        let (stored, flying) = (number(&account["stored"]), sum(&account["in_flight"]));
        println!("{when}: {stored} stored, {flying} in flight, dropped {}", account["dropped"]);
        assert_eq!((residual(account), sum(&account["dropped"])), (0, 0), "{when}: {account}");
    }
    drop(forward);

    let output = script(&stage, &[]);
    assert!(output.status.success(), "{}\n{}", said(&output), state(&stage));
    stage.kubectl().run(&["delete", "secret", "everflame-tls", "--namespace", "everflame"]);
    let last = end["since"].as_f64();
    patiently(&stage, "samples without TLS", || {
        account(&api(&stage)).filter(|now| now["since"].as_f64() > last && number(&now["stored"]) > 0)
    });
    Ok(())
}

/// The pod of an application, and how often its container was restarted.
fn identity(plane: &Plane, app: &str) -> (String, String, u64) {
    let pod = pod(plane, app);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().expect("a count");
    (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]), restarts)
}

/// What the server knows of the newest agent's samples, once there is something.
fn account(api: &Api) -> Option<Value> {
    let mut accounts = api.try_json("/api/v1/accounting")?["instances"].as_array()?.clone();
    accounts.sort_by(|a, b| a["since"].as_f64().unwrap_or(0.0).total_cmp(&b["since"].as_f64().unwrap_or(0.0)));
    accounts.pop()
}

/// The tokens that there are, as they are listed.
fn tokens(api: &Api) -> Vec<Value> {
    api.json("/api/v1/tokens", &[])["tokens"].as_array().cloned().unwrap_or_default()
}

/// The ids of those with a name.
fn ids(api: &Api, name: &str) -> Vec<String> {
    let named = tokens(api).into_iter().filter(|token| token["name"] == name);
    named.map(|token| token["id"].as_str().expect("an id").to_owned()).collect()
}

/// When one was last used, Unix seconds.
fn last_used(api: &Api, id: &str) -> i64 {
    let token = tokens(api).into_iter().find(|token| token["id"] == *id).expect("a token");
    token["last_used"].as_i64().unwrap_or(0)
}

/// A value of a Secret.
fn secret(plane: &Plane, name: &str, key: &str) -> String {
    let template = format!("go-template={{{{.data.{key} | base64decode}}}}");
    plane.kubectl().run(&["get", "secret", name, "--namespace", "everflame", "-o", &template]).trim().to_owned()
}

/// Certificates in a folder.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn openssl(&self, arguments: &str) -> String {
        output(Command::new("openssl").args(arguments.split(' ')).current_dir(&self.folder))
    }

    /// An authority; its certificate.
    fn authority(&self, name: &str) -> String {
        self.openssl(&format!("ecparam -name prime256v1 -genkey -noout -out {name}.key"));
        self.openssl(&format!("req -x509 -new -key {name}.key -subj /CN={name} -days 2 -out {name}.crt"));
        std::fs::read_to_string(self.path(&format!("{name}.crt"))).unwrap()
    }

    /// A key and a certificate of the server by an authority.
    fn certify(&self, name: &str, authority: &str) {
        std::fs::write(self.path("names"), "subjectAltName=DNS:everflame-server,DNS:localhost,IP:127.0.0.1\n").unwrap();
        self.openssl(&format!("ecparam -name prime256v1 -genkey -out {name}.pem"));
        self.openssl(&format!("pkcs8 -topk8 -nocrypt -in {name}.pem -out {name}.key"));
        self.openssl(&format!("req -new -key {name}.key -subj /CN=everflame-server -out {name}.csr"));
        let by = format!("-CA {authority}.crt -CAkey {authority}.key -CAcreateserial -days 2 -extfile names");
        self.openssl(&format!("x509 -req -in {name}.csr {by} -out {name}.crt"));
    }

    fn fingerprint(&self, name: &str) -> String {
        self.openssl(&format!("x509 -in {name}.crt -noout -fingerprint -sha256"))
    }

    /// The fingerprint of what a new connection is shown.
    fn served(&self) -> String {
        let ask = "openssl s_client -connect localhost:4040 -servername localhost </dev/null 2>/dev/null";
        let shown = format!("{ask} | openssl x509 -noout -fingerprint -sha256");
        output(Command::new("bash").args(["-c", &shown]))
    }
}
