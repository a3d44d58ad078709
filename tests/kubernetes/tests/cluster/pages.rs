//! The guides' commands for a cluster, as they stand on their pages.

use everflame_tests::Outcome;
use everflame_tests::guide::{self, Block, PAGES};
use everflame_tests::machine::need_program;

use crate::deployment::{cleared, volume};
use crate::install::left;
use crate::reader::Reader;

/// The page that goes from nothing to a flame graph and back.
const QUICK_START: &str = "docs/quick-start.md";

/// The quick start by itself, and then all other pages, on the cluster that the first of them makes and
/// the last of them removes.
pub fn are_followed() -> Outcome {
    ["jq", "curl"].into_iter().try_for_each(need_program)?;
    let stage = cleared()?;
    let reader = Reader::new(&stage);
    let quick = guide::of_tier(QUICK_START, "cluster");
    let text = reader.follow(&quick);
    assert!(part(&text, &quick, "get pods").contains("1/1     Running"), "{text}");
    assert!(part(&text, &quick, "cat admin.token").trim_end().len() >= 32, "{text}");
    let left = left(&stage);
    assert!(left.is_empty(), "{left:?}");

    volume(&stage);
    let others = PAGES.into_iter().filter(|page| *page != QUICK_START);
    let mut others: Vec<Block> = others.flat_map(|page| guide::of_tier(page, "cluster")).collect();
    // Who removes it comes last.
    others.sort_by_key(|block| block.page == "docs/integration.md");
    let text = reader.follow(&others);
    assert!(part(&text, &others, "rollout status").contains("successfully rolled out"), "{text}");
    assert!(part(&text, &others, "/everflame doctor").contains("ok    sampler"), "{text}");
    let rows = part(&text, &others, "{namespace=\"everflame\"}' --from");
    assert!(rows.lines().count() >= 4 && rows.contains('%'), "no rows:\n{text}");
    assert!(part(&text, &others, "api/v1/diff").contains("\"unit\""), "{text}");
    assert!(part(&text, &others, "api/v1/mesh").contains("\"proxy_seconds\""), "{text}");
    println!("{} blocks for a cluster were run as they stand", quick.len() + others.len());
    Ok(())
}

/// What the block with a text has printed.
fn part<'a>(printed: &'a str, blocks: &[Block], text: &str) -> &'a str {
    let block = blocks.iter().find(|block| block.text.contains(text)).unwrap_or_else(|| panic!("no block has {text}"));
    guide::printed(printed, block)
}
