//! A flame graph answer, checked and turned into stacks.

use std::collections::BTreeMap;

use serde_json::Value;

/// A frame as the answer names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shown {
    pub kind: String,
    pub name: String,
    pub mapping: String,
}

/// A path from the outermost frame to a leaf with its own samples.
#[derive(Debug, Clone)]
pub struct Path {
    pub frames: Vec<Shown>,
    pub samples: u64,
}

/// The whole answer.
#[derive(Debug)]
pub struct Graph {
    pub samples: u64,
    pub value: f64,
    pub complete: u64,
    pub incomplete: BTreeMap<String, u64>,
    pub nodes: usize,
    pub paths: Vec<Path>,
}

impl Graph {
    /// Reads an answer and checks what must hold for every one: parents stand before
    /// their children, totals add up at every node, and the root is the whole.
    pub fn new(answer: &Value) -> Self {
        let list = |name: &str| -> Vec<String> {
            let values = answer[name].as_array().unwrap_or_else(|| panic!("`{name}` is missing"));
            values.iter().map(|v| v.as_str().unwrap().to_owned()).collect()
        };
        let column = |name: &str| -> Vec<i64> {
            let values = answer["nodes"][name].as_array().unwrap_or_else(|| panic!("`nodes.{name}` is missing"));
            values.iter().map(|v| v.as_i64().unwrap()).collect()
        };
        let (names, mappings, kinds) = (list("names"), list("mappings"), list("kinds"));
        let (parent, own, total, elided) = (column("parent"), column("self"), column("total"), column("elided"));
        let (name, mapping, kind) = (column("name"), column("mapping"), column("kind"));
        let mut children = vec![0i64; parent.len()];
        for (node, &up) in parent.iter().enumerate() {
            assert!(up < node as i64, "node {node} stands before its parent {up}");
            if up >= 0 {
                children[up as usize] += total[node];
            }
        }
        for node in 0..parent.len() {
            assert_eq!(total[node], own[node] + children[node] + elided[node], "total of node {node}");
        }
        let samples = answer["samples"].as_u64().unwrap();
        let shown = |node: usize| Shown {
            kind: kinds[kind[node] as usize].clone(),
            name: names[name[node] as usize].clone(),
            mapping: mappings[mapping[node] as usize].clone(),
        };
        if let Some(&root) = total.first() {
            assert_eq!(root as u64, samples, "the root's total is the number of samples");
            assert_eq!((parent[0], shown(0).kind.as_str(), shown(0).name.as_str()), (-1, "root", "total"));
        }
        let paths = (0..parent.len()).filter(|&node| own[node] > 0).map(|leaf| {
            let (mut frames, mut node) = (Vec::new(), leaf as i64);
            while node > 0 {
                frames.push(shown(node as usize));
                node = parent[node as usize];
            }
            frames.reverse();
            Path { frames, samples: own[leaf] as u64 }
        });
        let incomplete = answer["complete"]["incomplete"].as_object().unwrap();
        Self {
            samples,
            value: answer["value"].as_f64().unwrap(),
            complete: answer["complete"]["samples"].as_u64().unwrap(),
            incomplete: incomplete.iter().map(|(k, v)| (k.clone(), v.as_u64().unwrap())).collect(),
            nodes: parent.len(),
            paths: paths.collect(),
        }
    }

    /// Samples of the paths for which `wanted` holds.
    pub fn count(&self, wanted: impl Fn(&Path) -> bool) -> u64 {
        self.paths.iter().filter(|path| wanted(path)).map(|path| path.samples).sum()
    }

    /// The heaviest paths for which `wanted` holds, to show where a test fails.
    pub fn heaviest(&self, wanted: impl Fn(&Path) -> bool) -> String {
        let mut paths: Vec<&Path> = self.paths.iter().filter(|path| wanted(path)).collect();
        paths.sort_by_key(|path| std::cmp::Reverse(path.samples));
        paths.iter().take(8).map(|path| format!("{:6} {}\n", path.samples, shortened(&path.folded()))).collect()
    }
}

/// The two ends of a long text.
fn shortened(text: &str) -> String {
    const KEPT: usize = 300;
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= 2 * KEPT {
        return text.to_owned();
    }
    letters[..KEPT]
        .iter()
        .chain(" … ".chars().collect::<Vec<_>>().iter())
        .chain(&letters[letters.len() - KEPT..])
        .collect()
}

impl Path {
    /// Whether a function is on it. Names may be qualified (`truth::work_a`, `main.work_a`).
    pub fn has(&self, function: &str) -> bool {
        self.frames.iter().any(|frame| frame.is(function))
    }

    /// How many frames are of a function.
    pub fn times(&self, function: &str) -> usize {
        self.frames.iter().filter(|frame| frame.is(function)).count()
    }

    /// Whether the functions stand on it in this order, outermost first, perhaps with
    /// others between.
    pub fn has_chain(&self, functions: &[&str]) -> bool {
        let mut wanted = functions.iter().peekable();
        for frame in &self.frames {
            if wanted.peek().is_some_and(|function| frame.is(function)) {
                wanted.next();
            }
        }
        wanted.peek().is_none()
    }

    /// The leaf.
    pub fn leaf(&self) -> Option<&Shown> {
        self.frames.last()
    }

    /// The outermost frame, markers and labels aside.
    pub fn outermost(&self) -> Option<&Shown> {
        self.frames.iter().find(|frame| frame.kind != "label" && frame.kind != "marker")
    }

    /// Whether it hangs below `[incomplete: …]`.
    pub fn marked(&self) -> bool {
        self.frames.iter().any(|frame| frame.kind == "marker")
    }

    /// `frame;frame;frame`.
    pub fn folded(&self) -> String {
        self.frames.iter().map(|frame| frame.name.as_str()).collect::<Vec<_>>().join(";")
    }
}

impl Shown {
    /// Whether it is a function of this name, perhaps qualified.
    pub fn is(&self, function: &str) -> bool {
        self.name == function
            || self.name.strip_suffix(function).is_some_and(|rest| rest.ends_with("::") || rest.ends_with('.'))
    }
}
