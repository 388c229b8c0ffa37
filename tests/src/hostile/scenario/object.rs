//! Lies about objects: chunks dropped, out of order, twice, of another object, missing at the end; answers to uploads
//! that are lost.

use super::{Scenario, index};
use crate::hostile::http::{Answer, Request};
use crate::hostile::rule::{Reply, Route, Rule};
use lockstep_proto::blob::{HEADER_BYTES, ObjectHeader};

const OBJECT: &str = "GET /v1/vaults/{}/objects/{}";

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "chunk-dropped",
        row: 8,
        does: "leaves chunk `at` out of every object that has at least two",
        must: "release nothing past the chunks before it; the file does not appear",
        rules: |at| {
            vec![chunks("chunk-dropped", at.at, |chunks, at| {
                chunks.remove(index(at, chunks.len()));
            })]
        },
    },
    Scenario {
        name: "chunks-reordered",
        row: 8,
        does: "swaps chunk `at` and the one after it",
        must: "as for chunk-dropped",
        rules: |at| {
            vec![chunks("chunks-reordered", at.at, |chunks, at| {
                let place = index(at, chunks.len() - 1);
                chunks.swap(place, place + 1);
            })]
        },
    },
    Scenario {
        name: "chunk-twice",
        row: 8,
        does: "sends chunk `at` twice, and as many chunks as there are",
        must: "as for chunk-dropped",
        rules: |at| {
            vec![chunks("chunk-twice", at.at, |chunks, at| {
                let place = index(at, chunks.len() - 1);
                chunks[place + 1] = chunks[place].clone();
            })]
        },
    },
    Scenario {
        name: "object-truncated",
        row: 8,
        does: "ends every object at a chunk's end, `at` chunks early, at least one",
        must: "as for chunk-dropped",
        rules: |at| {
            vec![chunks("object-truncated", at.at, |chunks, at| {
                let left = chunks.len() - 1 - index(at, chunks.len() - 1);
                chunks.truncate(left);
            })]
        },
    },
    Scenario {
        name: "objects-spliced",
        row: 8,
        does: "takes the chunks after the first one from the object that was asked for before",
        must: "as for chunk-dropped",
        rules: |_| {
            let mut before: Option<Vec<u8>> = None;
            vec![whole("objects-spliced", move |body| {
                let Some(old) = before.replace(body.clone()) else { return false };
                if old.len() != body.len() || old == *body {
                    return false;
                }
                let first = HEADER_BYTES + chunk_bytes(body);
                if first >= body.len() {
                    return false;
                }
                body.truncate(first);
                body.extend_from_slice(&old[first..]);
                true
            })]
        },
    },
    Scenario {
        name: "object-of-another",
        row: 8,
        does: "answers with the object that was asked for before, whole",
        must: "as for chunk-dropped",
        rules: |_| {
            let mut before: Option<Vec<u8>> = None;
            vec![whole("object-of-another", move |body| {
                let Some(old) = before.replace(body.clone()) else { return false };
                let is_other = old != *body;
                *body = old;
                is_other
            })]
        },
    },
    Scenario {
        name: "object-flipped",
        row: 8,
        does: "flips the lowest bit of byte `at` of every object",
        must: "as for chunk-dropped",
        rules: |at| {
            let at = at.at;
            vec![whole("object-flipped", move |body| {
                let place = index(at, body.len());
                body[place] ^= 1;
                true
            })]
        },
    },
    Scenario {
        name: "complete-lost",
        row: 19,
        does: "stores uploads, and loses the answer to their end (at = 0) or to framed uploads (1), every time",
        must: "end with an error, and never send another ciphertext under the same prefix and commitment",
        rules: |at| {
            let route = if at.at == 0 {
                "POST /v1/vaults/{}/uploads/{}/complete"
            } else {
                "POST /v1/vaults/{}/objects"
            };
            vec![Rule::cut("complete-lost", route, true)]
        },
    },
    Scenario {
        name: "complete-refused",
        row: 19,
        does: "says of every upload that it fails, and tells the real server nothing",
        must: "as for complete-lost",
        rules: |_| {
            let route = Route::new("POST /v1/vaults/{}/uploads/{}/complete");
            vec![Rule::before("complete-refused", move |request: &Request| {
                let answer = Answer::problem(422, "mismatch", "the object is not what was announced");
                route.fits(request).then_some(Reply::Answer(answer))
            })]
        },
    },
];

fn whole(name: &str, mut change: impl FnMut(&mut Vec<u8>) -> bool + Send + 'static) -> Rule {
    let route = Route::new(OBJECT);
    Rule::answer(name, move |request, answer| {
        answer.status == 200 && route.fits(request) && change(&mut answer.body)
    })
}

/// Bytes of one chunk, its tag included.
fn chunk_bytes(object: &[u8]) -> usize {
    let header = ObjectHeader::parse(object[..HEADER_BYTES].try_into().unwrap()).unwrap();
    (1 << header.chunk_log2) + 16
}

/// A change of the chunks of every object that has more than one.
fn chunks(name: &str, at: u64, change: fn(&mut Vec<Vec<u8>>, u64)) -> Rule {
    let route = Route::new(OBJECT);
    Rule::answer(name, move |request, answer| {
        if !route.fits(request) {
            return false;
        }
        if answer.status == 206 {
            // Who goes on after what it has gets nothing more: the object is what was served.
            *answer = Answer::problem(416, "range", "the object ends before that");
            return true;
        }
        answer.status == 200 && change_chunks(&mut answer.body, at, change)
    })
}

fn change_chunks(body: &mut Vec<u8>, at: u64, change: fn(&mut Vec<Vec<u8>>, u64)) -> bool {
    if body.len() <= HEADER_BYTES {
        return false;
    }
    let size = chunk_bytes(body);
    let mut chunks: Vec<Vec<u8>> = body[HEADER_BYTES..].chunks(size).map(<[u8]>::to_vec).collect();
    if chunks.len() < 2 {
        return false;
    }
    let before = chunks.clone();
    change(&mut chunks, at);
    body.truncate(HEADER_BYTES);
    body.extend(chunks.concat());
    chunks != before
}
