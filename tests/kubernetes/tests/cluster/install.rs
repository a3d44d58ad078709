//! The deploy script: what it refuses, what it installs, and what it leaves when it removes.

use std::collections::BTreeMap;
use std::process::Command;

use everflame_kubernetes::{Plane, monitoring, objects};
use everflame_tests::machine::{finish, repository};
use everflame_tests::{Api, Outcome};

use crate::deployment::{agent, api, installed, pod, said, script, state, stranger};
use crate::stage::Stage;

/// Wrong use, no kubectl, no cluster, no rights: each with what to do.
pub fn says_what_is_wrong() -> Outcome {
    let stage = Stage::open()?;
    let path = repository().join("deploy/deploy.sh");
    let run = |configure: &dyn for<'c> Fn(&'c mut Command) -> &'c mut Command| {
        let mut command = Command::new(&path);
        configure(command.current_dir("/").env("PATH", "/usr/bin:/bin"));
        let output = finish(&mut command);
        (output.status.code(), said(&output))
    };
    let (code, text) = run(&|c| c.arg("--overlay").arg("nonsense"));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("no overlay nonsense") && text.contains("--help"), "{text}");
    let (code, text) = run(&|c| c.arg("--namespace=Not_A_Name"));
    assert_eq!(code, Some(2), "{text}");
    let (code, text) = run(&|c| c.arg("--help"));
    assert_eq!(code, Some(0), "{text}");
    for option in ["--dry-run", "--namespace", "--overlay", "--endpoint", "--uninstall", "--help"] {
        assert!(text.contains(option), "{option}: {text}");
    }
    // Everything that it needs but kubectl.
    let tools = stage.folder().join("tools");
    std::fs::create_dir_all(&tools).unwrap();
    for tool in ["bash", "dirname", "sed", "awk", "cat", "sort", "cksum"] {
        let at = format!("/usr/bin/{tool}");
        std::os::unix::fs::symlink(at, tools.join(tool)).unwrap();
    }
    let (code, text) = run(&|c| c.env("PATH", &tools));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("kubectl is not in PATH"), "{text}");
    let programs = stage.kubectl().program.parent().unwrap().display().to_string();
    let path_of_programs = format!("{programs}:/usr/bin:/bin");
    let (code, text) = run(&|c| c.env("PATH", &path_of_programs).env("KUBECONFIG", "/nowhere").env("HOME", "/"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no cluster answers") && text.contains("KUBECONFIG"), "{text}");
    // Somebody who may nothing.
    let config = stage.folder().join("nobody");
    let text = std::fs::read_to_string(&stage.kubectl().kubeconfig).unwrap();
    std::fs::write(&config, text.replace("user: {token:", "user: {as: nobody, token:")).unwrap();
    let (code, text) = run(&|c| c.env("PATH", &path_of_programs).env("KUBECONFIG", &config));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("you may not create") && text.contains("administrator"), "{text}");
    // What needs no cluster.
    let (code, text) = run(&|c| c.arg("--dry-run"));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("kind: DaemonSet") && text.contains("nothing was changed"), "{text}");
    assert!(stage.kubectl().get(&["namespace", "everflame"]).is_none(), "a dry run made something");
    Ok(())
}

/// From nothing to pods that are ready and a page that answers.
pub fn installs() -> Outcome {
    let stage = installed()?;
    let (server, agent) = (pod(&stage, "everflame-server"), pod(&stage, "everflame-agent"));
    for pod in [&server, &agent] {
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "{}", state(&stage));
    }
    let (status, page) = stranger(&stage).get("/", &[]);
    assert!(status == 200 && page.contains("<title>"), "{status} {page:.200}");
    assert_eq!(stranger(&stage).get("/api/v1/nodes", &[]).0, 401, "who has no token sees nothing");
    assert_eq!(api(&stage).get("/api/v1/nodes", &[]).0, 200);
    let log = stage.kubectl().run(&["logs", "--namespace", "everflame", "-l", "app=everflame-agent", "--tail=-1"]);
    println!("the agent's log:\n{log}");
    let missing = log.lines().find(|line| line.contains(" WARN ") && !line.contains("samples this machine too"));
    assert_eq!(missing, None, "the manifest gives all that the agent asks for");
    Ok(())
}

/// Every metric that an alert or a panel names comes out of the running pods.
pub fn metrics_exist() -> Outcome {
    let stage = installed()?;
    let text = |api: &Api| {
        let (status, text) = api.get("/metrics", &[]);
        assert_eq!(status, 200, "{text}");
        text
    };
    let told = monitoring::told(&(text(&agent(&stage)) + &text(&api(&stage))));
    let missing: Vec<String> = monitoring::named().difference(&told).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
    Ok(())
}

/// A second run changes nothing.
pub fn repeats() -> Outcome {
    let stage = installed()?;
    let (before, agent) = (versions(&stage), pod(&stage, "everflame-agent")["metadata"]["uid"].clone());
    assert!(before.len() >= 12, "{before:?}");
    let output = script(&stage, &[]);
    let text = said(&output);
    assert!(output.status.success(), "{text}\n{}", state(&stage));
    assert_eq!(versions(&stage), before, "{text}");
    assert_eq!(pod(&stage, "everflame-agent")["metadata"]["uid"], agent, "the agent was replaced:\n{text}");
    Ok(())
}

/// Our objects, and which version of each this is.
fn versions(plane: &Plane) -> BTreeMap<String, String> {
    let kinds = "namespace,serviceaccount,clusterrole,clusterrolebinding,networkpolicy,configmap,service,priorityclass,statefulset,daemonset";
    let all = plane.kubectl().get(&[kinds, "-A", "-l", "app.kubernetes.io/part-of=everflame"]).unwrap();
    let versions = all["items"].as_array().unwrap().iter().map(|object| {
        // What is told of the state of an object is a version of it too, but for its generation.
        let meta = &object["metadata"];
        let version = if meta["generation"].is_null() { &meta["resourceVersion"] } else { &meta["generation"] };
        (objects::id(object), version.to_string())
    });
    versions.collect()
}

/// Nothing of ours is left: no object, no process, no file on the node.
pub fn uninstalls() -> Outcome {
    let stage = installed()?;
    let instances: Vec<String> =
        api(&stage).accounting().iter().map(|i| i["instance"].as_str().unwrap().to_owned()).collect();
    assert!(!instances.is_empty());
    let output = script(&stage, &["--uninstall"]);
    assert!(output.status.success(), "{}\n{}", said(&output), state(&stage));
    println!("{}", said(&output));
    let left = left(&stage);
    assert!(left.is_empty(), "{left:#?}");
    for instance in instances {
        let pin = std::path::Path::new("/sys/fs/bpf/everflame").join(&instance);
        assert!(std::fs::symlink_metadata(&pin).is_err(), "{} is left", pin.display());
    }
    // Again: nothing to do is no fault.
    let output = script(&stage, &["--uninstall"]);
    assert!(output.status.success(), "{}", said(&output));
    Ok(())
}

/// Objects of the cluster that are ours, by their names.
pub fn left(plane: &Plane) -> Vec<String> {
    all_objects(plane).lines().filter(|line| line.contains("everflame")).map(str::to_owned).collect()
}

/// Every object of the cluster, but for events and what is of the cluster itself.
fn all_objects(plane: &Plane) -> String {
    let kinds = plane.kubectl().run(&["api-resources", "--verbs=list", "-o", "name"]);
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    plane.kubectl().run(&["get", &kinds.join(","), "-A", "--ignore-not-found", "-o", "name"])
}
