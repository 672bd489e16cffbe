//! Requests about one trace, made by chance from a few spans and words, so that they meet.

use bytes::Bytes;
use tracelake_decode::otlp::fields::{
    any_value, export_request, key_value, resource, resource_spans, scope_spans, span, status,
};
use tracelake_decode::request::encode_request;
use tracelake_decode::writer::MessageWriter;
use tracelake_decode::{
    ContentEncoding, DecodedRecord, RecordContent, RecordHeader, RecordKind, Route, SpanSource,
    decode_otlp, decode_record,
};
use tracelake_model::{
    Assessment, ExperimentId, Limits, TableName, TraceChange, TraceChanges, TraceId,
};
use tracelake_testkit::Random;

/// A request, before it is cut.
#[derive(Clone, Debug)]
pub(super) enum Request {
    /// Spans of one source, with the experiment and run that the request names.
    Spans {
        spans: Vec<TestSpan>,
        experiment: u32,
        /// The request's experiment stands over those that resources name.
        overrules: bool,
        run: Option<u8>,
    },
    /// A `start_trace`, one of a few.
    Start(u8),
    /// A call.
    Change(TraceChange),
}

/// A span of few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TestSpan {
    /// Id, 1 to 4.
    id: u8,
    /// Parent's id, 0 for none.
    parent: u8,
    /// Start; 0 for unknown.
    start: u8,
    /// What tells contents apart, attributes of all kinds hang on it.
    content: u8,
    /// Service, and so resource; 0 for none.
    service: u8,
    /// Experiment that the resource names; 0 for none, 9 for one that is not there.
    experiment: u8,
    /// MLflow's copy, without resource.
    is_copy: bool,
}

impl TestSpan {
    fn by_chance(random: &mut Random) -> Self {
        let small = |random: &mut Random, bound| u8::try_from(random.below(bound)).unwrap();
        Self {
            id: small(random, 4) + 1,
            parent: if random.chance(40) { 0 } else { small(random, 4) + 1 },
            start: small(random, 4),
            content: small(random, 3),
            service: small(random, 4),
            experiment: if random.chance(30) { [1, 2, 9][random.below(3)] } else { 0 },
            is_copy: random.chance(20),
        }
    }

    /// Where it stands but for its content.
    pub(super) const fn place(self) -> (u8, u8) {
        (self.start, self.id)
    }

    fn body(self, trace: TraceId) -> Bytes {
        let mut request = MessageWriter::new();
        request.message(export_request::RESOURCE_SPANS, |resource_spans| {
            if !self.is_copy {
                resource_spans
                    .message(resource_spans::RESOURCE, |resource| self.write_resource(resource));
            }
            resource_spans.message(resource_spans::SCOPE_SPANS, |scope_spans| {
                scope_spans.message(scope_spans::SPANS, |span| self.write(trace, span));
            });
        });
        request.into_bytes().into()
    }

    fn write_resource(self, resource: &mut MessageWriter) {
        if self.service != 0 {
            attribute(
                resource,
                resource::ATTRIBUTES,
                "service.name",
                &format!("service {}", self.service),
            );
            attribute(resource, resource::ATTRIBUTES, &format!("of.{}", self.service), "x");
        }
        if self.experiment != 0 {
            attribute(
                resource,
                resource::ATTRIBUTES,
                "mlflow.experimentId",
                &self.experiment.to_string(),
            );
        }
    }

    fn write(self, trace: TraceId, span: &mut MessageWriter) {
        span.bytes(span::TRACE_ID, &trace.0);
        span.bytes(span::SPAN_ID, &[self.id; 8]);
        if self.parent != 0 {
            span.bytes(span::PARENT_SPAN_ID, &[self.parent; 8]);
        }
        span.bytes(span::NAME, format!("span {}", self.id).as_bytes());
        span.fixed64_nonzero(span::START_TIME_UNIX_NANO, u64::from(self.start) * 1_000_000_000);
        span.fixed64_nonzero(span::END_TIME_UNIX_NANO, u64::from(self.start) * 2_000_000_000);
        // The copy of a span may say less, of what its content is not told apart by.
        let said = format!("\"{}{}{}\"", self.id, self.content, self.service);
        attribute(span, span::ATTRIBUTES, "mlflow.spanInputs", &said);
        attribute(span, span::ATTRIBUTES, "mlflow.spanOutputs", &said);
        if self.content == 1 {
            attribute(span, span::ATTRIBUTES, "session.id", &said);
            attribute(
                span,
                span::ATTRIBUTES,
                "gen_ai.request.model",
                &format!("model {}", self.id),
            );
            attribute(span, span::ATTRIBUTES, "mlflow.traceTag.kind", &said);
        }
        if self.content == 2 {
            attribute(span, span::ATTRIBUTES, "mlflow.traceTag.mlflow.traceName", &said);
            attribute(span, span::ATTRIBUTES, "mlflow.chat.tokenUsage", "{\"input_tokens\":3}");
            span.message(span::STATUS, |status| status.number(status::CODE, 2));
        }
    }
}

fn attribute(message: &mut MessageWriter, number: u32, key: &str, value: &str) {
    message.message(number, |attribute| {
        attribute.bytes(key_value::KEY, key.as_bytes());
        attribute
            .message(key_value::VALUE, |any| any.bytes(any_value::STRING_VALUE, value.as_bytes()));
    });
}

/// Requests about one trace in the order of their first arrival.
pub(super) fn requests(random: &mut Random) -> Vec<Request> {
    let mut requests = Vec::new();
    // A call finds no trace where there is none.
    let mut is_there = false;
    for _ in 0..random.below(7) + 2 {
        let request = match random.below(20) {
            0..=9 => Request::Spans {
                spans: (0..random.below(4) + 1).map(|_| TestSpan::by_chance(random)).collect(),
                experiment: u32::try_from(random.below(3)).unwrap(),
                overrules: random.chance(30),
                run: random.chance(20).then(|| u8::try_from(random.below(3)).unwrap()),
            },
            10..=12 => Request::Start(u8::try_from(random.below(3)).unwrap()),
            _ if !is_there => continue,
            13 => {
                is_there = false;
                requests.push(Request::Change(TraceChange::Delete));
                continue;
            }
            _ => Request::Change(change(random)),
        };
        is_there |= !matches!(request, Request::Change(_));
        requests.push(request);
    }
    requests
}

fn change(random: &mut Random) -> TraceChange {
    let key = ["service.name", "said", "kind", "of.1"][random.below(4)].to_owned();
    let assessment_id = ["a-1", "a-said"][random.below(2)].to_owned();
    match random.below(5) {
        0 => TraceChange::SetTag { key, value: random.below(2).to_string() },
        1 => TraceChange::DeleteTag { key },
        2 => TraceChange::PutAssessment(Box::new(Assessment {
            assessment_id,
            rationale: Some(random.below(3).to_string()),
            ..Assessment::default()
        })),
        3 => TraceChange::DeleteAssessment { assessment_id },
        _ => TraceChange::LinkRun { run_id: format!("linked {}", random.below(2)) },
    }
}

fn start_body(trace: TraceId, start: u8) -> Bytes {
    let run = if start == 1 { "" } else { "\"mlflow.sourceRun\": \"said\"," };
    let state = if start == 2 { "" } else { "\"state\": \"ERROR\"," };
    format!(
        "{{\"trace\": {{\"trace_info\": {{\"trace_id\": \"{}\", {state}
            \"request_preview\": \"said {start}\", \"client_request_id\": \"{start}\",
            \"trace_metadata\": {{{run} \"m{start}\": \"v\", \"m\": \"{start}\"}},
            \"tags\": {{\"service.name\": \"said {start}\", \"said\": \"{start}\", \"s{start}\": \"v\"}},
            \"assessments\": [{{\"assessment_id\": \"a-said\", \"rationale\": \"said {start}\"}},
                              {{\"assessment_name\": \"n{start}\"}}]}}}}}}",
        trace.to_mlflow()
    )
    .into()
}

/// The table that all of it is for.
pub(super) fn table() -> TableName {
    "a.b.c".parse().unwrap()
}

/// The records of a request, cut: one per span of it where `cut` says so, in order.
pub(super) fn records(
    trace: TraceId,
    request: &Request,
    cut: &mut dyn FnMut() -> bool,
) -> Vec<DecodedRecord> {
    let route = |experiment: u32| Route {
        experiment_id: ExperimentId::from(i64::from(experiment)),
        table: table(),
    };
    let header = |kind, routes| RecordHeader {
        kind,
        encoding: ContentEncoding::Identity,
        received_at_unix_nano: 1,
        routes,
        run_id: None,
        trace_id: None,
        limits: Limits::accepted(),
        source: None,
    };
    match request {
        Request::Spans { spans, experiment, overrules, run } => {
            let mut pieces: Vec<Vec<TestSpan>> = Vec::new();
            for span in spans {
                match pieces.last_mut() {
                    Some(piece)
                        if !cut() && piece.last().is_some_and(|l| l.is_copy == span.is_copy) =>
                    {
                        piece.push(*span);
                    }
                    _ => pieces.push(vec![*span]),
                }
            }
            let record = |piece: &Vec<TestSpan>| {
                let is_copy = piece.first().is_some_and(|span| span.is_copy);
                let source = if is_copy { SpanSource::Mlflow } else { SpanSource::Otlp };
                let spans: Vec<_> = piece
                    .iter()
                    .flat_map(|span| {
                        decode_otlp(&span.body(trace), source, &Limits::accepted()).unwrap().spans
                    })
                    .collect();
                let experiments = [*experiment, 1, 2];
                let named = if *overrules { 1 } else { experiments.len() };
                let routes = experiments.into_iter().take(named).map(route).collect();
                let header = RecordHeader {
                    run_id: run.map(|run| format!("run {run}")),
                    source: Some(source),
                    ..header(RecordKind::OtlpProtobuf, routes)
                };
                decode_record(header, &encode_request(&spans).into()).unwrap()
            };
            pieces.iter().map(record).collect()
        }
        Request::Start(start) => {
            let routes = vec![route(u32::from(*start) + 3)];
            let header = header(RecordKind::MlflowStartTrace, routes);
            vec![decode_record(header, &start_body(trace, *start)).unwrap()]
        }
        Request::Change(change) => {
            let changes = TraceChanges { trace_id: trace, changes: vec![change.clone()] };
            vec![DecodedRecord {
                header: header(RecordKind::TraceChanges, vec![route(7)]),
                content: RecordContent::Changes(vec![changes]),
            }]
        }
    }
}
