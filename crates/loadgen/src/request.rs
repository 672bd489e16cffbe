//! Requests that are kept in memory and filled in anew in place: nothing is copied but what differs.

use crate::random::{Random, id};
use crate::spans::Load;
use crate::text::Vocabulary;
use crate::wire::{Filling, Hole, Message};

/// How traces are put into requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// What the spans are.
    pub(crate) load: Load,
    /// Spans of one trace.
    pub(crate) trace_spans: usize,
    /// Spans of one request, as asked for.
    pub(crate) request_spans: usize,
    /// Requests that each trace is spread over.
    pub(crate) parts: usize,
}

impl Shape {
    /// Traces that are sent together: in one request, or spread over `parts` of them.
    pub(crate) const fn traces(&self) -> usize {
        let traces = self.request_spans * self.parts / self.trace_spans;
        if traces == 0 { 1 } else { traces }
    }

    /// Places of a trace whose spans go into a part. The root has the last place.
    fn places(&self, part: usize) -> std::ops::Range<usize> {
        self.trace_spans * part / self.parts..self.trace_spans * (part + 1) / self.parts
    }
}

/// One request: bytes of head and body, and where to fill in what.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    holes: Vec<Hole>,
    /// Bytes of its body.
    pub(crate) body_bytes: usize,
    /// Spans of each of its traces.
    pub(crate) spans_per_trace: usize,
}

/// A span of a request.
#[derive(Debug)]
struct Span {
    trace: usize,
    place: usize,
    holes: usize,
}

/// A trace that is under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace {
    /// First half of its id.
    pub(crate) high: u64,
    /// Second half, which no other trace has.
    pub(crate) low: u64,
    counter: u64,
    start_unix_nano: u64,
    duration_nanos: u64,
}

/// Makes the requests of one connection, and what is filled into them.
#[derive(Debug)]
pub(crate) struct Maker {
    shape: Shape,
    seed: u64,
    random: Random,
    next_trace: u64,
    place_spans: u64,
}

impl Maker {
    /// Of the connection with a number below 4,096. Connections share the seed and no id.
    pub(crate) fn new(shape: Shape, seed: u64, connection: u64) -> Self {
        let random = Random::new(id(seed, connection ^ 0x5eed));
        Self {
            shape,
            seed,
            random,
            next_trace: connection << 40,
            place_spans: shape.trace_spans as u64,
        }
    }

    /// Requests of a group of traces, one for each part, with nothing filled in.
    pub(crate) fn requests(&self, head: impl Fn(usize) -> String) -> Vec<Request> {
        (0..self.shape.parts).map(|part| self.request(part, &head)).collect()
    }

    fn request(&self, part: usize, head: impl Fn(usize) -> String) -> Request {
        let load = self.shape.load;
        let scope = Message::new().bytes(1, b"tracelake.loadgen").bytes(2, b"1.0.0");
        let mut scope_spans = Message::new().message(1, scope);
        let mut spans = Vec::new();
        for trace in 0..self.shape.traces() {
            for place in self.shape.places(part) {
                let span = load.span(place, place + 1 == self.shape.trace_spans);
                let (_, holes) = span.clone().into_parts();
                spans.push(Span { trace, place, holes: holes.len() });
                scope_spans = scope_spans.message(2, span);
            }
        }
        let resource_spans = Message::new().message(1, load.resource()).message(2, scope_spans);
        let body = Message::new().message(1, resource_spans);
        let body_bytes = body.len();
        let head = Message::new().literal(head(body_bytes).as_bytes());
        let (bytes, holes) = head.append(body).into_parts();
        let spans_per_trace = self.shape.places(part).len();
        Request { bytes, spans, holes, body_bytes, spans_per_trace }
    }

    /// Traces that begin now, with ids of their own.
    pub(crate) fn begin(&mut self, now_unix_nano: u64) -> Vec<Trace> {
        let mut begin = || {
            let counter = self.next_trace;
            self.next_trace += 1;
            let duration_nanos = 300_000_000 + self.random.bits() % 3_000_000_000;
            Trace {
                high: id(self.seed ^ 0x6869_6768, counter),
                low: id(self.seed, counter),
                counter,
                start_unix_nano: now_unix_nano.saturating_sub(duration_nanos),
                duration_nanos,
            }
        };
        (0..self.shape.traces()).map(|_| begin()).collect()
    }

    /// Fills a request in for these traces.
    pub(crate) fn fill(&mut self, request: &mut Request, traces: &[Trace], words: &Vocabulary) {
        let Request { bytes, spans, holes, .. } = request;
        let mut holes = holes.as_slice();
        for span in spans {
            let (own, rest) = holes.split_at_checked(span.holes).unwrap_or_default();
            holes = rest;
            let trace = traces.get(span.trace).copied().unwrap_or_default();
            self.fill_span(bytes, own, span.place, trace, words);
        }
    }

    fn fill_span(
        &mut self,
        bytes: &mut [u8],
        holes: &[Hole],
        place: usize,
        trace: Trace,
        words: &Vocabulary,
    ) {
        let place = place as u64;
        let span_id = self.span_id(trace, place);
        let (start, end) = self.times(place, trace);
        for hole in holes {
            let Some(space) = bytes.get_mut(hole.at..hole.at + hole.what.length()) else {
                continue;
            };
            match hole.what {
                Filling::TraceId => {
                    let both = u128::from(trace.high) << 64 | u128::from(trace.low);
                    space.copy_from_slice(&both.to_be_bytes());
                }
                Filling::SpanId => space.copy_from_slice(&span_id.to_be_bytes()),
                Filling::ParentId => {
                    let parent = self.span_id(trace, parent_place(place, self.place_spans));
                    space.copy_from_slice(&parent.to_be_bytes());
                }
                Filling::Start => space.copy_from_slice(&start.to_le_bytes()),
                Filling::End => space.copy_from_slice(&end.to_le_bytes()),
                Filling::Text { .. } => words.fill(&mut self.random, space),
                Filling::TraceHex { .. } => fill_hex(space, trace.high),
                Filling::SpanHex { .. } => fill_hex(space, self.random.bits()),
                Filling::Number => {
                    let drawn = 0x80 + self.random.below(0x3f80);
                    let low = (drawn & 0x7f) as u8 | 0x80;
                    space.copy_from_slice(&[low, (drawn >> 7 & 0x7f) as u8]);
                }
            }
        }
    }

    /// Unique, and the same in whichever part the span is named.
    const fn span_id(&self, trace: Trace, place: u64) -> u64 {
        id(
            self.seed ^ 0x7370_616e,
            trace.counter.wrapping_mul(self.place_spans).wrapping_add(place),
        )
    }

    /// The root takes all of its trace's time, each other span a part of its place's share.
    fn times(&mut self, place: u64, trace: Trace) -> (u64, u64) {
        if place + 1 == self.place_spans {
            return (trace.start_unix_nano, trace.start_unix_nano + trace.duration_nanos);
        }
        let share = trace.duration_nanos / self.place_spans;
        let before = self.random.bits() % (share / 4);
        let took = share / 8 + self.random.bits() % (share / 2);
        let start = trace.start_unix_nano + share * place + before;
        (start, start + took)
    }
}

/// Every third span is called by the root, the two after it by that one.
const fn parent_place(place: u64, spans: u64) -> u64 {
    if place.is_multiple_of(3) { spans - 1 } else { place - place % 3 }
}

fn fill_hex(space: &mut [u8], mut bits: u64) {
    for digit in space {
        let nibble = (bits & 0xf) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        bits >>= 4;
    }
}

impl Request {
    /// Head and body, ready to be sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its number of spans.
    pub(crate) fn spans(&self) -> usize {
        self.spans.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn shape(parts: usize) -> Shape {
        Shape { load: Load::Light, trace_spans: 10, request_spans: 40, parts }
    }

    fn span_ids(request: &Request) -> Vec<Vec<u8>> {
        let ids = request.holes.iter().filter(|hole| hole.what == Filling::SpanId);
        ids.map(|hole| request.bytes.get(hole.at..hole.at + 8).unwrap().to_vec()).collect()
    }

    #[test]
    fn no_two_spans_share_an_id_over_requests_and_connections() {
        let words = Vocabulary::new();
        let mut seen = HashSet::new();
        let mut count = 0;
        for connection in 0..3 {
            let mut maker = Maker::new(shape(1), 5, connection);
            let mut requests = maker.requests(|_| String::new());
            for _ in 0..20 {
                let traces = maker.begin(1_795_305_600_000_000_000);
                let request = requests.first_mut().unwrap();
                maker.fill(request, &traces, &words);
                let ids = span_ids(request);
                count += ids.len();
                seen.extend(ids);
            }
        }
        assert_eq!((seen.len(), count), (3 * 20 * 40, 3 * 20 * 40));
    }

    /// Scenario: each trace goes over four requests.
    /// Guarantees: together they hold every span of every trace once.
    #[test]
    fn the_parts_of_a_trace_make_it_whole() {
        let words = Vocabulary::new();
        let mut maker = Maker::new(shape(4), 5, 0);
        let traces = maker.begin(1_795_305_600_000_000_000);
        let mut requests = maker.requests(|_| String::new());
        let mut ids = HashSet::new();
        for request in &mut requests {
            maker.fill(request, &traces, &words);
            ids.extend(span_ids(request));
        }
        assert_eq!(traces.len(), 16);
        assert_eq!(ids.len(), 160);
        let all: usize = requests.iter().map(|request| request.spans_per_trace).sum();
        assert_eq!(all, 10);
    }

    #[test]
    fn the_head_names_the_length_of_the_body() {
        let maker = Maker::new(shape(1), 5, 0);
        let requests = maker.requests(|length| format!("head {length}\r\n"));
        let request = requests.first().unwrap();
        assert_eq!(
            request.bytes.len(),
            request.body_bytes + format!("head {}\r\n", request.body_bytes).len()
        );
    }
}
