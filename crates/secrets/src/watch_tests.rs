//! A watch over a source that the test moves.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::*;

type Next = Arc<Mutex<Result<Secret, SecretError>>>;

fn secret(key: &str) -> Result<Secret, SecretError> {
    Secret::parse("n", &format!(r#"{{"apiKey": "{key}"}}"#))
}

fn away() -> SecretError {
    SecretError::Unreachable { name: "n".into(), endpoint: "e".into(), why: "w".into() }
}

fn watch(next: &Next, every: u64, at_least: u64) -> Result<Watch, SecretError> {
    let next = Arc::clone(next);
    let options = WatchOptions {
        every: Duration::from_millis(every),
        at_least: Duration::from_millis(at_least),
        start_within: Duration::from_secs(5),
    };
    Watch::start(move || next.lock().unwrap().clone(), options)
}

fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn key(watch: &Watch) -> String {
    watch.current().authorization.header().reveal().to_owned()
}

#[test]
fn a_new_value_comes_by_itself_and_the_old_one_stays_while_the_source_is_away() {
    let next: Next = Arc::new(Mutex::new(secret("one")));
    let watch = watch(&next, 20, 5).unwrap();
    assert_eq!(key(&watch), "ApiKey one");
    *next.lock().unwrap() = Err(away());
    until("a failure", || watch.counts().failed > 2);
    assert_eq!(key(&watch), "ApiKey one");
    *next.lock().unwrap() = secret("two");
    until("the new value", || key(&watch) == "ApiKey two");
    assert_eq!(watch.counts().changed, 1);
    assert!(!format!("{watch:?}").contains("two"));
}

#[test]
fn a_refusal_fetches_at_once_but_not_without_end() {
    let next: Next = Arc::new(Mutex::new(secret("one")));
    let watch = watch(&next, 3_600_000, 50).unwrap();
    *next.lock().unwrap() = secret("two");
    watch.refused();
    until("the new value", || key(&watch) == "ApiKey two");
    // A destination that never accepts it: 1,000 refusals lead to few fetches.
    let before = watch.counts().fetched;
    let began = Instant::now();
    for _ in 0..1000 {
        watch.refused();
        std::thread::sleep(Duration::from_micros(500));
    }
    let fetched = watch.counts().fetched - before;
    // Pauses of 50, 100, 200, … ms: as many as fit, whatever the machine's speed.
    let allowed = (began.elapsed().as_millis() as u64 / 50 + 1).ilog2() as u64 + 1;
    assert!(fetched <= allowed, "{fetched} fetches, {allowed} are allowed");
    assert!(watch.counts().held_back > 0);
}

#[test]
fn at_the_start_a_refusal_is_an_error_and_an_outage_is_waited_for() {
    let denied = SecretError::Denied { name: "n".into(), place: "p".into(), why: "w".into() };
    let next: Next = Arc::new(Mutex::new(Err(denied.clone())));
    assert_eq!(watch(&next, 20, 5).unwrap_err(), denied);
    let mut tries = 0;
    let source = move || {
        tries += 1;
        if tries == 1 { Err(away()) } else { secret("late") }
    };
    let watch = Watch::start(source, WatchOptions { start_within: Duration::from_secs(30), ..WatchOptions::default() });
    assert_eq!(key(&watch.unwrap()), "ApiKey late");
}
