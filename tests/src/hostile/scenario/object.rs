//! Lies about objects: chunks dropped, out of order, twice, of another object, missing at the end; answers to uploads
//! that are lost.

use super::{Scenario, index};
use crate::hostile::http::{Answer, Request};
use crate::hostile::rule::{Reply, Route, Rule};
use lockstep_proto::api::object::{FRAME_HEADER_BYTES, frame_header, parse_frame_header};
use lockstep_proto::blob::{HEADER_BYTES, ObjectHeader};
use lockstep_proto::id::BlobId;

const OBJECT: &str = "GET /v1/vaults/{}/objects/{}";
const OBJECTS: &str = "POST /v1/vaults/{}/objects/get";

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
    Rule::answer(name, move |request, answer| each_object(request, answer, &mut change))
}

/// Changes the objects of an answer: the one that was asked for, or each of many, whose frame then says its new length.
/// Gives whether one was changed.
pub fn each_object(
    request: &Request,
    answer: &mut Answer,
    change: &mut impl FnMut(&mut Vec<u8>) -> bool,
) -> bool {
    each_named_object(request, answer, &mut |_, object| change(object))
}

/// The same, with the id of each.
pub fn each_named_object(
    request: &Request,
    answer: &mut Answer,
    change: &mut impl FnMut(BlobId, &mut Vec<u8>) -> bool,
) -> bool {
    if answer.status != 200 {
        return false;
    }
    if let Some(parts) = Route::new(OBJECT).parts(request) {
        return change(parts[1].parse().unwrap(), &mut answer.body);
    }
    if !Route::new(OBJECTS).fits(request) {
        return false;
    }
    let mut frames = frames_of(&answer.body);
    let mut is_changed = false;
    for (blob, object) in frames.iter_mut().filter(|(_, object)| !object.is_empty()) {
        is_changed |= change(*blob, object);
    }
    answer.body = framed(&frames);
    is_changed
}

/// The frames of a body.
pub fn frames_of(body: &[u8]) -> Vec<(BlobId, Vec<u8>)> {
    let (mut frames, mut rest) = (Vec::new(), body);
    while !rest.is_empty() {
        let (header, after) = rest.split_at(FRAME_HEADER_BYTES);
        let (blob, size) = parse_frame_header(header.try_into().unwrap());
        let (object, later) = after.split_at(size as usize);
        frames.push((blob, object.to_vec()));
        rest = later;
    }
    frames
}

/// A body of frames.
pub fn framed(frames: &[(BlobId, Vec<u8>)]) -> Vec<u8> {
    let frame = |(blob, object): &(BlobId, Vec<u8>)| {
        [&frame_header(*blob, u32::try_from(object.len()).unwrap())[..], object].concat()
    };
    frames.iter().flat_map(frame).collect()
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
        if answer.status == 206 && route.fits(request) {
            // Who goes on after what it has gets nothing more: the object is what was served.
            *answer = Answer::problem(416, "range", "the object ends before that");
            return true;
        }
        each_object(request, answer, &mut |object| change_chunks(object, at, change))
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
