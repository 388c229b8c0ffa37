//! Concurrent edits of one text: by lines, and inside lines by words.
//!
//! Changes of different places are all made. Where changes overlap, first the words of the place are tried; if those
//! overlap, too, every version of its lines stays, the earliest first. So an edit is never lost to another, and the
//! result depends on the versions and the text that they were made from only.

use crate::limits::TEXT_CELLS_MAX;
use std::ops::Range;

/// Merged text.
pub(crate) struct Merged {
    pub(crate) text: String,
    /// Whether versions of one place had to be put one after another.
    pub(crate) overlap: bool,
}

/// Merges versions of `ancestor`, the earliest first.
pub(crate) fn merge(ancestor: &str, versions: &[&str]) -> Merged {
    let lines = |text| split_lines(text);
    let base = lines(ancestor);
    let tokens: Vec<Vec<&str>> = versions.iter().map(|text| lines(text)).collect();
    let mut text = String::new();
    let mut overlap = false;
    for piece in pieces(&base, &tokens) {
        match piece {
            Piece::Agreed(agreed) => text.push_str(&agreed),
            Piece::Added(variants) => push_all(&mut text, &variants),
            Piece::Clash { base, variants } => {
                if let Some(merged) = merge_words(&base, &variants) {
                    text.push_str(&merged);
                } else {
                    overlap = true;
                    push_all(&mut text, &variants);
                }
            }
        }
    }
    Merged { text, overlap }
}

/// Words of one place; none if they overlap.
fn merge_words(base: &str, variants: &[String]) -> Option<String> {
    let tokens: Vec<Vec<&str>> = variants.iter().map(|text| split_words(text)).collect();
    let mut merged = String::new();
    for piece in pieces(&split_words(base), &tokens) {
        match piece {
            Piece::Agreed(agreed) => merged.push_str(&agreed),
            Piece::Added(variants) => variants.iter().for_each(|words| push_words(&mut merged, words)),
            Piece::Clash { .. } => return None,
        }
    }
    Some(merged)
}

/// Words after others, apart.
fn push_words(text: &mut String, words: &str) {
    let is_glued = text.ends_with(char::is_alphanumeric) && words.starts_with(char::is_alphanumeric);
    if is_glued {
        text.push(' ');
    }
    text.push_str(words);
}

/// Every version on lines of its own; one that deletes the place gives way to those that do not.
fn push_all(text: &mut String, variants: &[String]) {
    let mut variants = variants.iter().filter(|variant| !variant.is_empty()).peekable();
    while let Some(variant) = variants.next() {
        text.push_str(variant);
        if variants.peek().is_some() && !variant.ends_with('\n') {
            text.push('\n');
        }
    }
}

fn split_lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// Words, each run of white space, and every other sign by itself.
fn split_words(text: &str) -> Vec<&str> {
    #[derive(PartialEq, Clone, Copy)]
    enum Kind {
        Word,
        Space,
        Other,
    }
    let kind = |letter: char| match letter {
        '\n' => Kind::Other,
        _ if letter.is_whitespace() => Kind::Space,
        _ if letter.is_alphanumeric() => Kind::Word,
        _ => Kind::Other,
    };
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let first_kind = kind(first);
        let end = rest
            .char_indices()
            .skip(1)
            .find(|(_, letter)| first_kind == Kind::Other || kind(*letter) != first_kind)
            .map_or(rest.len(), |(at, _)| at);
        let (word, after) = rest.split_at(end);
        words.push(word);
        rest = after;
    }
    words
}

enum Piece {
    /// Untouched, or changed in one way.
    Agreed(String),
    /// Nothing was there, and several added something.
    Added(Vec<String>),
    /// Changed in several ways: what was there, and every version of it.
    Clash { base: String, variants: Vec<String> },
}

/// A replaced range of the base.
struct Hunk<'a> {
    range: Range<usize>,
    version: usize,
    new: Vec<&'a str>,
}

/// The base cut at the changes of all versions.
fn pieces<'a>(base: &[&'a str], versions: &[Vec<&'a str>]) -> Vec<Piece> {
    let mut hunks: Vec<Hunk<'a>> = Vec::new();
    for (version, tokens) in versions.iter().enumerate() {
        let found = diff(base, tokens).into_iter();
        hunks.extend(found.map(|(range, new)| Hunk { range, version, new }));
    }
    hunks.sort_by_key(|hunk| (hunk.range.start, hunk.range.end, hunk.version));
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut hunks = hunks.into_iter().peekable();
    while let Some(first) = hunks.next() {
        let mut region = first.range.clone();
        let mut group = vec![first];
        // Changes that touch belong together: which of them comes first is for the rule to say.
        while let Some(next) = hunks.next_if(|next| next.range.start <= region.end) {
            region.end = region.end.max(next.range.end);
            group.push(next);
        }
        pieces.push(Piece::Agreed(joined(base, at..region.start)));
        at = region.end;
        pieces.push(settle(base, &region, &group, versions.len()));
    }
    pieces.push(Piece::Agreed(joined(base, at..base.len())));
    pieces
}

fn joined(tokens: &[&str], range: Range<usize>) -> String {
    tokens.get(range).unwrap_or_default().concat()
}

/// One region, as each version that changed it has it.
fn settle(base: &[&str], region: &Range<usize>, group: &[Hunk<'_>], versions: usize) -> Piece {
    let mut variants: Vec<String> = Vec::new();
    for version in 0..versions {
        let mut text = String::new();
        let mut at = region.start;
        let mut is_changed = false;
        for hunk in group.iter().filter(|hunk| hunk.version == version) {
            is_changed = true;
            text.push_str(&joined(base, at..hunk.range.start));
            text.push_str(&hunk.new.concat());
            at = hunk.range.end;
        }
        text.push_str(&joined(base, at..region.end));
        if is_changed && !variants.contains(&text) {
            variants.push(text);
        }
    }
    match variants.as_slice() {
        [one] => Piece::Agreed(one.clone()),
        _ if region.is_empty() => Piece::Added(variants),
        _ => Piece::Clash { base: joined(base, region.clone()), variants },
    }
}

/// The changes that lead from one list of tokens to another.
fn diff<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(Range<usize>, Vec<&'a str>)> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let old_rest = old.get(head..).unwrap_or_default();
    let new_rest = new.get(head..).unwrap_or_default();
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let old_middle = old_rest.get(..old_rest.len().saturating_sub(tail)).unwrap_or_default();
    let new_middle = new_rest.get(..new_rest.len().saturating_sub(tail)).unwrap_or_default();
    let mut hunks: Vec<(Range<usize>, Vec<&'a str>)> = Vec::new();
    let (mut at_old, mut at_new) = (0, 0);
    let ends = std::iter::once((old_middle.len(), new_middle.len()));
    for (next_old, next_new) in common(old_middle, new_middle).into_iter().chain(ends) {
        if next_old > at_old || next_new > at_new {
            let from = head.saturating_add(at_old);
            let added = new_middle.get(at_new..next_new).unwrap_or_default().to_vec();
            hunks.push((from..head.saturating_add(next_old), added));
        }
        (at_old, at_new) = (next_old.saturating_add(1), next_new.saturating_add(1));
    }
    hunks
}

/// Places of a longest common subsequence; none are found if the lists are too long to compare.
fn common(old: &[&str], new: &[&str]) -> Vec<(usize, usize)> {
    let width = new.len().saturating_add(1);
    let cells = old.len().saturating_add(1).saturating_mul(width);
    if cells > TEXT_CELLS_MAX {
        return Vec::new();
    }
    // lengths[i][j]: longest common subsequence of old[i..] and new[j..].
    let mut lengths = vec![0_u32; cells];
    let at = |i: usize, j: usize| i.saturating_mul(width).saturating_add(j);
    let read = |lengths: &[u32], i: usize, j: usize| lengths.get(at(i, j)).copied().unwrap_or(0);
    for (i, old_token) in old.iter().enumerate().rev() {
        for (j, new_token) in new.iter().enumerate().rev() {
            let length = if old_token == new_token {
                read(&lengths, i.saturating_add(1), j.saturating_add(1)).saturating_add(1)
            } else {
                read(&lengths, i.saturating_add(1), j).max(read(&lengths, i, j.saturating_add(1)))
            };
            if let Some(cell) = lengths.get_mut(at(i, j)) {
                *cell = length;
            }
        }
    }
    let mut pairs = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(old_token), Some(new_token)) = (old.get(i), new.get(j)) {
        if old_token == new_token {
            pairs.push((i, j));
            (i, j) = (i.saturating_add(1), j.saturating_add(1));
        } else if read(&lengths, i.saturating_add(1), j) >= read(&lengths, i, j.saturating_add(1)) {
            i = i.saturating_add(1);
        } else {
            j = j.saturating_add(1);
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(ancestor: &str, versions: &[&str]) -> (String, bool) {
        let merged = merge(ancestor, versions);
        (merged.text, merged.overlap)
    }

    #[track_caller]
    fn check(ancestor: &str, versions: &[&str], want: &str, overlap: bool) {
        assert_eq!(merged(ancestor, versions), (want.to_owned(), overlap));
    }

    #[test]
    fn edits_of_different_lines_are_both_made() {
        check("one\ntwo\nthree\n", &["ONE\ntwo\nthree\n", "one\ntwo\nTHREE\n"], "ONE\ntwo\nTHREE\n", false);
    }

    #[test]
    fn edits_of_different_words_of_a_line_are_both_made() {
        check("a good day", &["a very good day", "a good long day"], "a very good long day", false);
        check("a good day", &["no good day", "a good night"], "no good night", false);
    }

    #[test]
    fn what_both_append_stands_in_the_order_of_time() {
        check("day\n", &["day\nslept badly\n", "day\nwalked\n"], "day\nslept badly\nwalked\n", false);
        check("day", &["day\nslept badly", "day\nwalked"], "day\nslept badly\nwalked", false);
        check("", &["morning", "evening"], "morning\nevening", false);
        check("a, ", &["a, b", "a, c"], "a, b c", false);
    }

    #[test]
    fn versions_of_one_place_all_stay() {
        check(
            "mood: fair\nend\n",
            &["mood: good\nend\n", "mood: bad\nend\n"],
            "mood: good\nmood: bad\nend\n",
            true,
        );
        check("fair", &["good", "bad"], "good\nbad", true);
    }

    #[test]
    fn an_edit_stays_against_a_deletion_of_its_line() {
        check("a\nkeep this\nz\n", &["a\nz\n", "a\nkeep this one\nz\n"], "a\nkeep this one\nz\n", true);
    }

    #[test]
    fn the_same_edit_twice_is_made_once() {
        check("a\nb\n", &["a\nc\n", "a\nc\n"], "a\nc\n", false);
    }

    #[test]
    fn deletions_of_different_lines_are_both_made() {
        check("a\nb\nc\nd\ne\n", &["b\nc\nd\ne\n", "a\nb\nc\nd\n"], "b\nc\nd\n", false);
    }

    #[test]
    fn words_are_cut_between_letters_of_any_script() {
        assert_eq!(split_words("süß, ja\n犬"), ["süß", ",", " ", "ja", "\n", "犬"]);
        assert_eq!(split_words("a  b"), ["a", "  ", "b"]);
        assert!(split_words("").is_empty());
    }

    #[test]
    fn texts_too_long_to_compare_stay_whole() {
        let many = |first: &str| (0..1100).map(|i| format!("{first}{i}\n")).collect::<Vec<_>>().concat();
        let (a, b) = (many("a"), many("b"));
        let (text, overlap) = merged(&many("x"), &[&a, &b]);
        assert!(overlap && text == format!("{a}{b}"));
    }
}
