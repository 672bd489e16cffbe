//! What a unit of a file says, and the requests that it becomes.
//!
//! Spans of one trace go through one lane in the order of the files, so that a row is the same
//! whatever runs beside it and however often the import was broken off.

use bytes::Bytes;
use tracelake_decode::mlflow_json::{MlflowTrace, StartTrace, TraceFile, read_trace_file};
use tracelake_decode::mlflow_keys;
use tracelake_decode::{DecodeError, Reject, SpanGroup, SpanRecord, SpanSource, decode_otlp};
use tracelake_model::{ExperimentId, Limits, TraceId};

use super::frames::Unit;
use super::inputs::Input;

/// Requests in flight at once.
pub(super) const LANES: usize = 4;
/// A request is closed at this size of its spans.
const REQUEST_BYTES: usize = 4 << 20;

/// What one request carries.
#[derive(Debug)]
pub(super) enum Payload {
    /// Spans as OTLP; each resource may name its experiment.
    Otlp(Vec<SpanRecord>),
    /// Spans of one trace as MLflow stored them, without kind, resource and scope.
    Mlflow(TraceId, Vec<SpanRecord>),
    /// What is said of a whole trace.
    Info(Box<StartTrace>),
}

/// One request to be.
#[derive(Debug)]
pub(super) struct Piece {
    pub payload: Payload,
    /// Of all its spans; `None` leaves it to the service.
    pub experiment: Option<ExperimentId>,
    pub lane: usize,
}

impl Piece {
    /// Spans in it.
    pub(super) fn span_count(&self) -> usize {
        match &self.payload {
            Payload::Otlp(spans) | Payload::Mlflow(_, spans) => spans.len(),
            Payload::Info(_) => 0,
        }
    }
}

/// What the units of a frame say.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub pieces: Vec<Piece>,
    /// Traces that any of it is about; may repeat.
    pub traces: Vec<TraceId>,
    /// Spans refused, with reasons.
    pub rejects: Vec<Reject>,
    /// Units that cannot be read: (place, why).
    pub faults: Vec<(String, String)>,
    /// Units that are JSON of another kind.
    pub others: usize,
}

/// Where the traces of a file belong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// Named by the user for all.
    pub experiment: Option<&'a ExperimentId>,
    /// For MLflow's spans that nothing names one for.
    pub default_experiment: &'a ExperimentId,
    pub input: &'a Input,
    pub limits: &'a Limits,
}

impl Target<'_> {
    fn of_file(&self) -> Option<ExperimentId> {
        self.experiment
            .or_else(|| self.input.place.as_ref().map(|place| &place.experiment))
            .cloned()
    }
}

/// Decodes the units of a frame and sorts what they say into requests.
pub(super) fn decode_units(units: &[Unit], target: Target<'_>) -> Content {
    let mut sorter = Sorter { target, content: Content::default(), lanes: Default::default() };
    for unit in units {
        let decoded = if unit.json { sorter.json(&unit.body) } else { sorter.protobuf(&unit.body) };
        if let Err(error) = decoded {
            sorter.content.faults.push((unit.place.clone(), error.to_string()));
        }
    }
    sorter.finish()
}

/// The spans of one lane that are not in a piece yet.
#[derive(Debug, Default)]
struct Lane {
    spans: Vec<SpanRecord>,
    bytes: usize,
    /// They are those of this trace in MLflow's form; otherwise OTLP of any traces.
    mlflow: Option<TraceId>,
    experiment: Option<ExperimentId>,
}

struct Sorter<'a> {
    target: Target<'a>,
    content: Content,
    lanes: [Lane; LANES],
}

impl Sorter<'_> {
    fn protobuf(&mut self, body: &Bytes) -> Result<(), DecodeError> {
        match decode_otlp(body, SpanSource::Otlp, self.target.limits) {
            Err(DecodeError::Empty) if body.is_empty() => Ok(()),
            Err(error) => Err(error),
            Ok(found) => {
                self.content.rejects.extend(found.rejects);
                for span in found.spans {
                    let by_mlflow = is_mlflow_archive(&span);
                    self.span(span, by_mlflow, self.target.of_file());
                }
                Ok(())
            }
        }
    }

    fn json(&mut self, body: &Bytes) -> Result<(), DecodeError> {
        let named = self.target.input.place.as_ref().map(|place| place.trace_id);
        match read_trace_file(body, named)? {
            TraceFile::Other => self.content.others += 1,
            TraceFile::Otlp(protobuf, rejects) => {
                self.protobuf(&protobuf.into())?;
                self.content.rejects.extend(rejects);
            }
            TraceFile::Mlflow(traces) => {
                // One of many that cannot be read costs only itself, but is told.
                let mut first_fault = None;
                for trace in traces {
                    if let Err(error) = trace.and_then(|trace| self.mlflow(trace)) {
                        first_fault.get_or_insert(error);
                    }
                }
                return first_fault.map_or(Ok(()), Err);
            }
        }
        Ok(())
    }

    fn mlflow(&mut self, trace: MlflowTrace) -> Result<(), DecodeError> {
        let said = trace.info.as_ref().and_then(|start| start.experiment_id.clone());
        let experiment = self.target.of_file().or(said);
        if let Some(protobuf) = trace.protobuf {
            let found = decode_otlp(&protobuf.into(), SpanSource::Mlflow, self.target.limits)?;
            self.content.rejects.extend(found.rejects);
            for span in found.spans {
                self.span(span, true, experiment.clone());
            }
        }
        self.content.rejects.extend(trace.rejects);
        if let Some(start) = trace.info {
            let lane = lane_of(start.info.trace_id);
            self.close(lane);
            self.content.traces.push(start.info.trace_id);
            let start = StartTrace { experiment_id: experiment.clone(), ..start };
            self.content.pieces.push(Piece {
                payload: Payload::Info(Box::new(start)),
                experiment,
                lane,
            });
        }
        Ok(())
    }

    fn span(&mut self, span: SpanRecord, by_mlflow: bool, experiment: Option<ExperimentId>) {
        let index = lane_of(span.trace_id);
        let mlflow = by_mlflow.then_some(span.trace_id);
        let experiment = match (by_mlflow, experiment) {
            (true, None) => Some(self.target.default_experiment.clone()),
            (_, experiment) => experiment,
        };
        let weight = span.message.len();
        let fits = self.lanes.get(index).is_some_and(|lane| {
            lane.spans.is_empty()
                || lane.mlflow == mlflow
                    && lane.experiment == experiment
                    && lane.bytes + weight <= REQUEST_BYTES
        });
        if !fits {
            self.close(index);
        }
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let same_group = lane.spans.last().is_some_and(|last| same_group(&last.group, &span.group));
        lane.bytes += if same_group { weight } else { span.weight_bytes() };
        (lane.mlflow, lane.experiment) = (mlflow, experiment);
        if lane.spans.last().is_none_or(|last| last.trace_id != span.trace_id) {
            self.content.traces.push(span.trace_id);
        }
        lane.spans.push(span);
    }

    /// Makes a piece of what waits in a lane.
    fn close(&mut self, index: usize) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let Lane { spans, mlflow, experiment, .. } = std::mem::take(lane);
        if spans.is_empty() {
            return;
        }
        let payload = match mlflow {
            Some(trace_id) => Payload::Mlflow(trace_id, spans),
            None => Payload::Otlp(spans),
        };
        self.content.pieces.push(Piece { payload, experiment, lane: index });
    }

    fn finish(mut self) -> Content {
        for index in 0..LANES {
            self.close(index);
        }
        self.content
    }
}

fn lane_of(trace_id: TraceId) -> usize {
    let [.., last] = trace_id.0;
    let mixed = trace_id.0.iter().fold(last, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
    usize::from(mixed) % LANES
}

fn same_group(left: &SpanGroup, right: &SpanGroup) -> bool {
    left.resource == right.resource && left.scope == right.scope
}

/// MLflow archives its own spans as OTLP without the resource and scope that it never had; such a
/// copy yields to one that came by OTLP.
fn is_mlflow_archive(span: &SpanRecord) -> bool {
    span.group.resource.is_empty()
        && span.group.scope.is_empty()
        && span.view().attribute(mlflow_keys::TRACE_REQUEST_ID).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(texts: &[String], experiment: Option<&ExperimentId>) -> Content {
        let input = Input {
            path: None,
            shown: "a".into(),
            named: true,
            size_bytes: 0,
            modified_unix_nano: 0,
            place: None,
        };
        let units: Vec<Unit> = texts
            .iter()
            .map(|text| Unit { body: text.clone().into(), place: "here".into(), json: true })
            .collect();
        let target = Target {
            experiment,
            default_experiment: &ExperimentId::default_experiment(),
            input: &input,
            limits: &Limits::default(),
        };
        decode_units(&units, target)
    }

    fn otlp(trace: u8, span: u8, resource: &str, attribute: &str) -> String {
        format!(
            r#"{{"resourceSpans":[{{{resource}"scopeSpans":[{{"spans":[{{
            "traceId":"{trace:032x}","spanId":"{span:016x}","attributes":[{{"key":"{attribute}",
            "value":{{"stringValue":"x"}}}}]}}]}}]}}]}}"#
        )
    }

    const RESOURCE: &str =
        r#""resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]},"#;

    /// Scenario: spans of several traces in turns, of OTLP and of MLflow's archive.
    /// Guarantees: a trace stays in one lane and its spans in the order read; MLflow's copies are
    /// told from OTLP by what they lack.
    #[test]
    fn spans_of_a_trace_keep_lane_and_order() {
        let texts: Vec<String> = (1..40_u8)
            .map(|span| otlp(span % 5 + 1, span, RESOURCE, "mlflow.traceRequestId"))
            .chain([otlp(9, 99, "", "mlflow.traceRequestId"), otlp(9, 98, "", "other")])
            .collect();
        let content = decode(&texts, None);
        let mut seen: std::collections::HashMap<TraceId, (usize, Vec<u8>)> = Default::default();
        let mut by_mlflow = 0;
        for piece in &content.pieces {
            let spans = match &piece.payload {
                Payload::Otlp(spans) => spans,
                Payload::Mlflow(_, spans) => {
                    by_mlflow += spans.len();
                    assert_eq!(piece.experiment, Some(ExperimentId::default_experiment()));
                    continue;
                }
                Payload::Info(_) => panic!("no info was sent"),
            };
            for span in spans {
                let (lane, order) = seen.entry(span.trace_id).or_default();
                assert!(order.is_empty() || *lane == piece.lane);
                *lane = piece.lane;
                order.push(span.span_id.0[7]);
            }
        }
        assert_eq!(by_mlflow, 1);
        assert_eq!(seen.len(), 6);
        for (trace_id, (_, order)) in seen {
            assert!(order.is_sorted(), "{trace_id}: {order:?}");
        }
    }

    /// Scenario: a trace in MLflow's JSON with its info, into an experiment that the user names.
    /// Guarantees: the info goes after the spans, both into that experiment.
    #[test]
    fn the_info_of_a_trace_follows_its_spans() {
        let id = "0123456789abcdef0123456789abcdef";
        let text = format!(
            r#"{{"info":{{"trace_id":"tr-{id}","state":"OK","trace_location":{{"type":
            "MLFLOW_EXPERIMENT","mlflow_experiment":{{"experiment_id":"7"}}}}}},"data":{{"spans":[
            {{"name":"s","span_id":"ASNFZ4mrze8=","start_time_unix_nano":1,"attributes":{{}}}}]}}}}"#
        );
        let named: ExperimentId = "3".parse().unwrap();
        for (experiment, expected) in [(None, "7"), (Some(&named), "3")] {
            let content = decode(std::slice::from_ref(&text), experiment);
            assert_eq!(content.faults, []);
            let [spans, info] = &content.pieces[..] else { panic!("{content:?}") };
            assert!(matches!(&spans.payload, Payload::Mlflow(..)));
            let Payload::Info(start) = &info.payload else { panic!("{info:?}") };
            for found in [&spans.experiment, &info.experiment, &start.experiment_id] {
                assert_eq!(found.as_ref().map(ExperimentId::as_str), Some(expected));
            }
            assert_eq!(spans.lane, info.lane);
        }
    }

    /// Scenario: a line that is no JSON among good ones, JSON of another kind, and nothing.
    /// Guarantees: each costs only itself.
    #[test]
    fn bad_units_cost_only_themselves() {
        let texts = ["{".to_owned(), otlp(1, 1, "", "a"), "{\"x\":1}".into(), "{}".into()];
        let content = decode(&texts, None);
        assert_eq!((content.faults.len(), content.others, content.pieces.len()), (1, 1, 1));
    }
}
