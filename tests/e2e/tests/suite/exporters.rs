//! One agent, two servers: one is killed and comes back, one refuses until its token is put right, and
//! the agent is killed while both are away. Each server's account adds up, and both have the same.

use std::fs;
use std::time::Duration;

use everflame_tests::api::{number, residual, sum};
use everflame_tests::everflame::command;
use everflame_tests::machine::{finish, free_port, need_root, wait_for};
use everflame_tests::target::built;
use everflame_tests::{Api, Everflame, Outcome, Target};
use serde_json::Value;

const SAMPLES: &str = "{process=\"truth_cpp\"}";
const PATIENCE: Duration = Duration::from_secs(90);

pub fn one_killed_one_refusing_and_the_agent_killed() -> Outcome {
    need_root()?;
    let truth = built("truth_cpp")?;
    let scene = Scene::new();
    let (one, other) = (scene.server(), scene.closed_server());
    let agent = scene.agent();
    let load = Target::start(&truth, &["120"]);

    // One refuses: it costs the other nothing.
    one.api().wait_for_samples(SAMPLES, 200);
    wait_for("the agent's words about the token", PATIENCE, || {
        let log = agent.log();
        (log.contains("401") && log.contains("exporter=\"guarded\"")).then_some(())
    });
    let figure = |agent: &Everflame, name: &str| agent.api().figure(&format!("everflame_agent_{name}"));
    let spooled = |agent: &Everflame, exporter: &str| figure(agent, &format!("spool_batches{{exporter={exporter:?}}}"));
    let main = format!("127.0.0.1:{}", scene.ports[0]);
    wait_for("batches in the spool", PATIENCE, || (spooled(&agent, "guarded") >= 2.0).then_some(()));
    assert_eq!(figure(&agent, "server_failing{exporter=\"guarded\"}"), 1.0);
    assert_eq!(figure(&agent, &format!("server_failing{{exporter={main:?}}}")), 0.0);

    // Now the other is killed, and then the agent, with batches in both spools.
    one.kill_9();
    wait_for("batches in both spools", PATIENCE, || (spooled(&agent, &main) >= 2.0).then_some(()));
    agent.kill_9();
    let agent = scene.agent();
    wait_for("batches of its successor", PATIENCE, || (spooled(&agent, &main) >= 3.0).then_some(()));

    // One comes back, the other lets us in.
    let one = scene.server();
    wait_for("two instances", PATIENCE, || (one.api().accounting().len() == 2).then_some(()));
    fs::write(scene.path("token"), &scene.token).unwrap();
    wait_for("two instances", PATIENCE, || (other.api().accounting().len() == 2).then_some(()));
    drop(load);
    agent.stop();

    let [one_has, other_has] = [&one, &other].map(|server| accounts(server.api()));
    println!("after a kill of a server and of the agent: {one_has:?}");
    println!("and where it was refused at first: {other_has:?}");
    for (a, b) in one_has.iter().zip(&other_has) {
        for account in [a, b] {
            assert_eq!(residual(account), 0, "{account}");
            assert_eq!(sum(&account["in_flight"]), 0, "{account}");
        }
        for same in ["instance", "taken", "idle"] {
            assert_eq!(a[same], b[same], "{same}");
        }
        // What died with the agent may have been in one spool already.
        let apart = (number(&a["stored"]) - number(&b["stored"])).abs();
        assert!(apart == 0 || sum(&a["dropped"]) + sum(&b["dropped"]) > 0, "{a} {b}");
    }
    for server in [&one, &other] {
        let stored: i64 = accounts(server.api()).iter().map(|account| number(&account["stored"])).sum();
        assert_eq!(server.api().samples("") as i64, stored, "what is stored can be queried");
        // Names come beside the profiles, to each server.
        let graph = server.api().graph(SAMPLES);
        let named = graph.count(|path| path.has_chain(&["main"]));
        assert!(named * 100 >= graph.samples * 90, "{named} of {} samples have names", graph.samples);
    }
    Ok(())
}

/// Of all instances, in the order of their names.
fn accounts(api: &Api) -> Vec<Value> {
    let mut accounts = api.accounting();
    accounts.sort_by_key(|account| account["instance"].to_string());
    accounts
}

/// Two servers, one of them with tokens, and an agent that has a wrong one.
struct Scene {
    folder: tempfile::TempDir,
    ports: [u16; 2],
    admin: String,
    token: String,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "evf_of-nobody").unwrap();
        let token = |role: &str| {
            let mut command = command(&["token", "create", "--role", role, "--data"]);
            let ended = finish(command.arg(folder.path().join("guarded")));
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            String::from_utf8(ended.stdout).unwrap().trim().to_owned()
        };
        let (admin, token) = (token("admin"), token("agent"));
        Self { ports: [free_port(), free_port()], admin, token, folder }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self) -> Everflame {
        Everflame::server(self.ports[0], &self.path("data"))
    }

    fn closed_server(&self) -> Everflame {
        let api = |url: &str| Api::new(url).with_token(&self.admin);
        Everflame::server_behind(self.ports[1], &self.path("guarded"), &[], api)
    }

    fn agent(&self) -> Everflame {
        let token = self.path("token");
        let also = format!("http://127.0.0.1:{}?name=guarded&token-file={}", self.ports[1], token.display());
        Everflame::agent_in(None, self.ports[0], 97, &self.path("spool"), &["--also", &also])
    }
}
