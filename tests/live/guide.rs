//! The code in docs/CLIENT.md is code that is built.

#[test]
fn what_the_guide_shows_is_in_the_example() {
    let guide = include_str!("../../docs/CLIENT.md");
    let example: Vec<&str> = include_str!("../../client/examples/notes.rs").lines().collect();
    let blocks: Vec<Vec<&str>> = guide
        .split("```rust\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().lines().collect())
        .collect();
    assert!(blocks.len() >= 6, "{}", blocks.len());
    for block in blocks {
        assert!(
            example.windows(block.len()).any(|lines| *lines == *block),
            "it is not there:\n{}",
            block.join("\n")
        );
    }
}
