//! The upload of symbol indexes against a small HTTP server over real connections.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use everflame_agent::export::{Authorization, Credentials, Destination, Ours, Secret, SymbolUploader};
use everflame_profile::ContentId;

/// Indexes by path, and what to answer to a PUT.
#[derive(Default)]
struct Shelf {
    indexes: HashMap<String, Vec<u8>>,
    answers: HashMap<String, u16>,
    busy: u32,
    authorization: Vec<String>,
}

fn serve(listener: TcpListener, shelf: Arc<Mutex<Shelf>>) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shelf = shelf.clone();
            std::thread::spawn(move || while request(&stream, &shelf).is_some() {});
        }
    });
}

fn request(stream: &TcpStream, shelf: &Mutex<Shelf>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let (method, path) = line.split_once(' ')?;
    let (method, path) = (method.to_string(), path.split(' ').next()?.to_string());
    let (mut length, mut authorization) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = value.to_string(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut shelf = shelf.lock().unwrap();
    shelf.authorization.push(authorization);
    let status = if shelf.busy > 0 {
        shelf.busy -= 1;
        503
    } else if method == "HEAD" {
        if shelf.indexes.contains_key(&path) { 200 } else { 404 }
    } else {
        let answer = shelf.answers.get(&path).copied().unwrap_or(201);
        if answer == 201 {
            shelf.indexes.insert(path, body);
        }
        answer
    };
    drop(shelf);
    write!(&mut { stream }, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").ok()
}

fn path(id: ContentId) -> String {
    format!("/api/v1/symbols/{id}")
}

fn listen(address: SocketAddr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn destination(address: SocketAddr) -> Destination {
    Destination { endpoint: format!("http://{address}"), ..Destination::default() }
}

#[test]
fn each_index_goes_once_and_survives_a_server_that_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Mutex::new(Shelf::default()));
    let ids: Vec<ContentId> = (1..=5).map(ContentId).collect();
    {
        let mut shelf = shelf.lock().unwrap();
        shelf.indexes.insert(path(ids[1]), b"of another agent".to_vec());
        shelf.answers.insert(path(ids[2]), 409);
        shelf.answers.insert(path(ids[3]), 422);
        shelf.busy = 3;
    }
    // Nobody listens yet.
    let (listener, address) = listen("127.0.0.1:0".parse().unwrap());
    drop(listener);
    let authorization = Some(Authorization::ApiKey(Secret::Value("k".into())));
    let credentials = Credentials { authorization, headers: Vec::new() };
    let to = Destination { credentials, ..destination(address) };
    let uploader = SymbolUploader::start(&to, Ours::default(), directory.path().join("symbols"), 1).unwrap();
    for id in &ids[..4] {
        assert!(uploader.offer(*id, format!("index {id}").as_bytes()));
    }
    assert!(uploader.offer(ids[0], b"again"), "queued already");
    assert_eq!(uploader.uploads().queued, 4);
    let end = Instant::now() + Duration::from_secs(20);
    while uploader.uploads().retries == 0 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(uploader);
    // The next agent finds them.
    serve(listen(address).0, shelf.clone());
    let uploader = SymbolUploader::start(&to, Ours::default(), directory.path().join("symbols"), 1).unwrap();
    assert!(uploader.offer(ids[4], b"index five"));
    assert!(uploader.flush(Duration::from_secs(20)));
    let uploads = uploader.uploads();
    assert_eq!((uploads.uploaded, uploads.known, uploads.refused, uploads.queued), (2, 2, 1, 0));
    assert!(uploads.retries >= 1, "it was busy at first");
    assert!(ids.iter().all(|id| uploader.has(*id)));
    let shelf = shelf.lock().unwrap();
    assert_eq!(shelf.indexes[&path(ids[0])], format!("index {}", ids[0]).as_bytes());
    assert_eq!(shelf.indexes[&path(ids[4])], b"index five");
    assert!(shelf.authorization.iter().all(|a| a == "ApiKey k"));
    assert_eq!(std::fs::read_dir(directory.path().join("symbols")).unwrap().count(), 0);
}

#[test]
fn the_queue_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let (listener, address) = listen("127.0.0.1:0".parse().unwrap());
    drop(listener);
    let uploader = SymbolUploader::start(&destination(address), Ours::default(), directory.path().into(), 1).unwrap();
    let mut taken = 0;
    for id in 0..everflame_agent::export::MAX_QUEUED_INDEXES as u128 + 10 {
        taken += usize::from(uploader.offer(ContentId(id), b"x"));
    }
    assert_eq!(taken, everflame_agent::export::MAX_QUEUED_INDEXES);
    assert_eq!((uploader.uploads().queued, uploader.uploads().dropped), (taken, 10));
}

#[test]
fn without_a_disk_few_wait_in_memory() {
    let shelf = Arc::new(Mutex::new(Shelf::default()));
    let (listener, address) = listen("127.0.0.1:0".parse().unwrap());
    drop(listener);
    // Nothing can be made below a file.
    let uploader =
        SymbolUploader::start(&destination(address), Ours::default(), "/proc/version/symbols".into(), 1).unwrap();
    let index = vec![7; everflame_agent::export::MAX_MEMORY_BYTES as usize / 4];
    let taken: Vec<bool> = (1..=6).map(|id| uploader.offer(ContentId(id), &index)).collect();
    assert_eq!(taken, [true, true, true, true, false, false]);
    assert_eq!((uploader.uploads().queued, uploader.uploads().dropped), (4, 2));
    serve(listen(address).0, shelf.clone());
    assert!(uploader.flush(Duration::from_secs(30)));
    assert_eq!(uploader.uploads().uploaded, 4);
    assert_eq!(shelf.lock().unwrap().indexes[&path(ContentId(4))], index);
    assert!(uploader.offer(ContentId(5), &index), "there is room again");
}

#[test]
fn who_is_no_server_of_ours_gets_none() {
    let directory = tempfile::tempdir().unwrap();
    let (listener, address) = listen("127.0.0.1:0".parse().unwrap());
    drop(listener);
    let ours = Ours::default();
    let uploader = SymbolUploader::start(&destination(address), ours.clone(), directory.path().into(), 1).unwrap();
    assert!(uploader.offer(ContentId(1), b"x"), "it may be one of ours");
    assert_eq!((uploader.uploads().queued, std::fs::read_dir(directory.path()).unwrap().count()), (1, 1));
    // Its first answer.
    ours.say(false);
    assert!(uploader.flush(Duration::from_secs(30)), "nothing waits for it");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    assert!(uploader.offer(ContentId(2), b"x") && uploader.has(ContentId(3)), "no index is wanted");
    assert_eq!((uploader.uploads().queued, uploader.uploads().uploaded), (0, 0));
    // Another server may take its place.
    ours.say(true);
    assert!(!uploader.has(ContentId(3)));
}
