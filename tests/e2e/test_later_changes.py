"""Changes that clients make to traces later: the table ends with what MLflow's own server holds.

A real `mlflow server` and tracelake get the same calls by the real MLflow client. Between the calls
tracelake is killed, restarted, flushed or left alone, so that a change meets its trace before it is
committed, while it is, and after. LATER_CHANGES_SEED repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import mlflow
import pyarrow as pa
import pytest
import requests
from deltalake import DeltaTable
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Expectation, Feedback

from support import generate, otlp, table
from support.mlflow_server import MlflowServer
from support.otlp import ExportTraceServiceRequest
from support.server import SHARED_DATA, Server
from support.truth import records

SEED = int(os.environ.get("LATER_CHANGES_SEED", "0")) or time.time_ns() % 10**9

# What the two servers keep for themselves, and nothing else, is left out of the comparison:
# where artifacts lie (the experiment's own location) and where spans are kept.
SERVER_TAGS = {"mlflow.artifactLocation", "mlflow.trace.spansLocation"}
# Of assessments: ids and times, since each server and each of the two calls has its own. Ids are
# replaced by the label that the test gave, so that `overrides` is compared.

HUMAN = AssessmentSource(source_type="HUMAN", source_id="alice@example.com")
JUDGE = AssessmentSource(source_type="LLM_JUDGE", source_id="judge-1")
RUN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """MLflow's own server, one for the module."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    try:
        server.wait()
        yield server
    finally:
        server.close()


@pytest.fixture(autouse=True)
def quick_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client of this process must not wait for minutes when a call fails."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)


@dataclass
class Side:
    """One of the two servers, as the client sees it."""

    url: Callable[[], str]
    experiment_id: str = ""
    assessments: dict[str, str] = field(default_factory=dict)
    """Label to the id that this server gave."""

    def use(self) -> MlflowClient:
        """The client, and the module `mlflow`, speak to this server from here on."""
        mlflow.set_tracking_uri(self.url())
        return MlflowClient(tracking_uri=self.url())


class Twin:
    """MLflow's server and tracelake: every call goes to both."""

    def __init__(self, reference: MlflowServer, server: Server, name: str):
        self.server = server
        self.sides = [Side(lambda: reference.url), Side(lambda: server.url)]
        for side in self.sides:
            side.experiment_id = side.use().create_experiment(name)

    def both(self, call: Callable[[Side, MlflowClient], object]) -> list[object]:
        """Makes the call on both; gives the two answers."""
        return [call(side, side.use()) for side in self.sides]

    def spans(self, request: ExportTraceServiceRequest) -> None:
        """Spans by OTLP."""
        self.both(
            lambda side, _: otlp.post(
                side.url(), request, headers={"x-mlflow-experiment-id": side.experiment_id}
            )
        )

    def start_trace(self, trace_id: str, spans: int, **info: object) -> None:
        """What the client sends of a whole trace when it ended."""

        metadata = {
            "mlflow.trace_schema.version": "3",
            "mlflow.trace.sizeStats": json.dumps({"num_spans": spans}),
        }

        def call(side: Side, _: MlflowClient) -> None:
            location = {
                "type": "MLFLOW_EXPERIMENT",
                "mlflow_experiment": {"experiment_id": side.experiment_id},
            }
            facts = {
                "trace_id": trace_id,
                "trace_location": location,
                "request_time": "2026-11-18T11:06:40.123Z",
                "execution_duration": "0.250s",
                "state": "OK",
                "trace_metadata": metadata,
                **info,
            }
            answer = requests.post(
                f"{side.url()}/api/3.0/mlflow/traces",
                json={"trace": {"trace_info": facts}},
                timeout=60,
            )
            assert answer.status_code == 200, answer.text

        self.both(call)

    def tag(self, trace_id: str, key: str, value: str) -> None:
        self.both(lambda _, client: client.set_trace_tag(trace_id, key, value))

    def untag(self, trace_id: str, key: str) -> None:
        self.both(lambda _, client: client.delete_trace_tag(trace_id, key))

    def feedback(self, trace_id: str, label: str, **given: object) -> None:
        def call(side: Side, _: MlflowClient) -> None:
            made = mlflow.log_feedback(trace_id=trace_id, name=label, source=JUDGE, **given)
            side.assessments[label] = made.assessment_id

        self.both(call)

    def expectation(self, trace_id: str, label: str, value: object) -> None:
        def call(side: Side, _: MlflowClient) -> None:
            made = mlflow.log_expectation(
                trace_id=trace_id, name=label, value=value, source=HUMAN, metadata={"set": "gold"}
            )
            side.assessments[label] = made.assessment_id

        self.both(call)

    def override(self, trace_id: str, old: str, label: str, value: object) -> None:
        def call(side: Side, _: MlflowClient) -> None:
            made = mlflow.override_feedback(
                trace_id=trace_id, assessment_id=side.assessments[old], value=value,
                rationale="better", source=HUMAN, metadata={"why": "checked"},
            )  # fmt: skip
            side.assessments[label] = made.assessment_id

        self.both(call)

    def update(self, trace_id: str, label: str, assessment: Feedback | Expectation) -> None:
        self.both(
            lambda side, _: mlflow.update_assessment(
                trace_id=trace_id, assessment_id=side.assessments[label], assessment=assessment
            )
        )

    def unassess(self, trace_id: str, label: str) -> None:
        self.both(
            lambda side, _: mlflow.delete_assessment(
                trace_id=trace_id, assessment_id=side.assessments[label]
            )
        )

    def link(self, trace_id: str) -> None:
        self.both(lambda _, client: client.link_traces_to_run([trace_id], RUN))

    def delete(self, trace_id: str) -> None:
        counts = self.both(
            lambda side, client: client.delete_traces(side.experiment_id, trace_ids=[trace_id])
        )
        assert counts == [1, 1]


@dataclass
class Scenario:
    """One trace and the calls about it, in order."""

    name: str
    trace_id: str
    steps: list[Callable[[], None]]
    deleted: bool = False
    linked: bool = False
    stands: dict[str, str | None] = field(default_factory=dict)
    """Tags by calls that stand over later spans here, and not in MLflow; without a value where deleted."""


def scenarios(twin: Twin, make: generate.Maker) -> list[Scenario]:
    """Traces whose changes come before, between and after their spans and `start_trace`."""
    return [
        spans_before_start(twin, make),
        start_before_spans(twin, make),
        only_spans(twin, make),
        many_assessments(twin, make),
        deleted_for_good(twin, make),
        deleted_and_sent_anew(twin, make),
    ]


class Pieces:
    """The spans of one trace, to be sent in requests of their own."""

    def __init__(self, make: generate.Maker):
        self.make = make
        self.otel_id, self.root_id = make.trace_id(), make.span_id()
        self.trace_id = f"tr-{self.otel_id.hex()}"

    def root(self, more: dict | None = None, **resource: object) -> ExportTraceServiceRequest:
        span = self.make.span(
            self.otel_id, "agent", span_id=self.root_id, length=300 * generate.MS,
            attributes=(more or {}) | {
                "mlflow.spanType": "AGENT",
                "mlflow.spanInputs": json.dumps({"question": "why?"}),
                "mlflow.spanOutputs": json.dumps("because"),
            },
        )  # fmt: skip
        return generate.request(span, **resource)

    def child(self, name: str, start: int = 10, **resource: object) -> ExportTraceServiceRequest:
        span = self.make.span(
            self.otel_id, name, parent_span_id=self.root_id, start=start * generate.MS,
            attributes={"mlflow.spanType": "TOOL"},
        )  # fmt: skip
        return generate.request(span, **resource)


def spans_before_start(twin: Twin, make: generate.Maker) -> Scenario:
    """The order of most clients, with changes before `start_trace` came."""
    of = Pieces(make)
    trace_id = of.trace_id
    return Scenario("spans, then start_trace", trace_id, [
        lambda: twin.spans(of.child("lookup")),
        lambda: twin.tag(trace_id, "early", "1"),
        lambda: twin.tag(trace_id, "team", "before"),
        lambda: twin.feedback(trace_id, "early-feedback", value=0.25),
        lambda: twin.untag(trace_id, "service.name"),
        lambda: twin.spans(of.root(service="renamed")),
        lambda: twin.tag(trace_id, "both", "set"),
        lambda: twin.start_trace(
            trace_id, 2, client_request_id="req-1", tags={"team": "search", "extra": "x"}
        ),
        lambda: twin.tag(trace_id, "team", "after"),
        lambda: twin.untag(trace_id, "early"),
        lambda: twin.update(trace_id, "early-feedback", Feedback(name="renamed", value=True)),
        lambda: twin.untag(trace_id, "extra"),
        lambda: twin.tag(trace_id, "mlflow.traceName", "a better name"),
        lambda: twin.link(trace_id),
        lambda: twin.tag(trace_id, "early", "again"),
    ], linked=True, stands={"service.name": None})  # fmt: skip


def start_before_spans(twin: Twin, make: generate.Maker) -> Scenario:
    """`start_trace` overtook the spans; in MLflow the spans overwrite tags by those of their resource."""
    of = Pieces(make)
    trace_id = of.trace_id
    return Scenario("start_trace, then spans", trace_id, [
        lambda: twin.start_trace(
            # The duration of the spans: MLflow lets spans that come after `start_trace` stretch
            # what that said, but only where the trace has neither tokens, cost nor session.
            trace_id, 3, state="ERROR", request_preview="why?", execution_duration="0.300s",
            tags={"service.name": "client"},
        ),
        lambda: twin.tag(trace_id, "region", "north"),
        lambda: twin.expectation(trace_id, "answer", {"facts": ["a", "b"], "n": 3}),
        lambda: twin.spans(of.child("lookup", region="south")),
        lambda: twin.untag(trace_id, "region"),
        lambda: twin.spans(of.root()),
        lambda: twin.tag(trace_id, "service.name", "by hand"),
        lambda: twin.update(trace_id, "answer", Expectation(name="answer", value="because")),
        lambda: twin.spans(of.child("late", 50, region="east", zone="b")),
        lambda: twin.untag(trace_id, "zone"),
        lambda: twin.unassess(trace_id, "answer"),
    ], stands={"region": None, "service.name": "by hand"})  # fmt: skip


def only_spans(twin: Twin, make: generate.Maker) -> Scenario:
    """An OpenTelemetry sender that knows no `start_trace`: times grow with the spans."""
    of = Pieces(make)
    trace_id = of.trace_id
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    facts = {
        "session.id": "s-1", "user.id": "u-1", "mlflow.chat.tokenUsage": json.dumps(usage)
    }  # fmt: skip
    return Scenario("spans only", trace_id, [
        lambda: twin.spans(of.root(facts, version="1")),
        lambda: twin.untag(trace_id, "version"),
        lambda: twin.tag(trace_id, "owner", "bob"),
        lambda: twin.spans(of.child("before", -20, version="2")),
        lambda: twin.spans(of.child("long after", 900, version="3")),
        lambda: twin.untag(trace_id, "owner"),
        lambda: twin.tag(trace_id, "note", "\u00e9\U0001f4a1 \"quoted\", [1]"),
    ], stands={"version": None})  # fmt: skip


def many_assessments(twin: Twin, make: generate.Maker) -> Scenario:
    """Assessments over one another: overridden twice, the last one taken back."""
    of = Pieces(make)
    trace_id = of.trace_id
    error = Exception("the judge failed")
    return Scenario("assessments", trace_id, [
        lambda: twin.spans(of.root()),
        lambda: twin.feedback(trace_id, "first", value=1, rationale="r", metadata={"k": "1"}),
        lambda: twin.feedback(
            trace_id, "on a span", value={"score": 2, "parts": "x"}, span_id=of.root_id.hex()
        ),
        lambda: twin.feedback(trace_id, "broken", error=error),
        lambda: twin.override(trace_id, "first", "second", 0.5),
        lambda: twin.override(trace_id, "second", "third", ["a", "b"]),
        lambda: twin.update(
            trace_id, "first",
            Feedback(name="first", value="one", rationale="why", metadata={"k": "2", "m": "3"}),
        ),
        lambda: twin.unassess(trace_id, "third"),
        lambda: twin.unassess(trace_id, "third"),
        lambda: twin.unassess(trace_id, "broken"),
    ])  # fmt: skip


def deleted_for_good(twin: Twin, make: generate.Maker) -> Scenario:
    """A trace with changes, deleted."""
    of = Pieces(make)
    trace_id = of.trace_id
    return Scenario("deleted", trace_id, [
        lambda: twin.spans(of.root()),
        lambda: twin.tag(trace_id, "a", "1"),
        lambda: twin.start_trace(trace_id, 1),
        lambda: twin.feedback(trace_id, "gone", value=1),
        lambda: twin.delete(trace_id),
    ], deleted=True)  # fmt: skip


def deleted_and_sent_anew(twin: Twin, make: generate.Maker) -> Scenario:
    """What comes after the deletion is a trace anew: nothing of the old one shows."""
    of = Pieces(make)
    trace_id = of.trace_id
    return Scenario("deleted, then sent anew", trace_id, [
        lambda: twin.spans(of.root(old="yes")),
        lambda: twin.start_trace(trace_id, 1, client_request_id="old", tags={"old": "yes"}),
        lambda: twin.feedback(trace_id, "old", value=1),
        lambda: twin.untag(trace_id, "old"),
        lambda: twin.delete(trace_id),
        lambda: twin.spans(of.child("anew", 5)),
        lambda: twin.tag(trace_id, "fresh", "1"),
        lambda: twin.spans(of.root()),
    ])  # fmt: skip


@pytest.mark.timeout(400)
def test_the_table_ends_with_what_mlflow_holds(
    reference: MlflowServer, make_server: Callable[..., Server]
) -> None:
    """Calls about six traces, mixed, with kills and commits between them; then all is compared."""
    print(f"\nLATER_CHANGES_SEED={SEED}")
    chance = random.Random(SEED)
    server = make_server()
    server.start()
    twin = Twin(reference, server, f"later changes {SEED}")
    traces = scenarios(twin, generate.Maker(SEED))
    happened: Counter[str] = Counter()
    waiting = [list(trace.steps) for trace in traces]
    while any(waiting):
        steps = chance.choice([steps for steps in waiting if steps])
        happened[disturb(server, chance)] += 1
        steps.pop(0)()
    print(f"{sum(len(t.steps) for t in traces)} calls; between them: {dict(happened)}")
    server.flush()

    rows = table.rows(server.table_path())
    kept = [trace for trace in traces if not trace.deleted]
    assert rows.keys() == {trace.trace_id.removeprefix("tr-") for trace in kept}
    faults: list[str] = []
    for trace in kept:
        row = rows[trace.trace_id.removeprefix("tr-")]
        theirs, ours = twin.both(lambda side, client: mlflow_view(client, side, trace.trace_id))
        assert all(theirs["tags"].get(key) != value for key, value in trace.stands.items())
        tags = theirs["tags"] | trace.stands
        theirs["tags"] = {key: value for key, value in tags.items() if value is not None}
        faults += differences(f"row of `{trace.name}`", row_view(row, twin.sides[1]), theirs)
        faults += differences(f"answer about `{trace.name}`", ours, theirs)
        assert (row["linked_run_ids"] or []) == ([RUN] if trace.linked else [])
    assert not faults, "\n".join([f"LATER_CHANGES_SEED={SEED}", *faults])
    check_change_feed(server, traces)
    server.stop()


def differences(subject: str, ours: dict, theirs: dict) -> list[str]:
    """The fields that differ, one line each."""
    assert ours.keys() == theirs.keys()
    return [
        f"{subject}: {name}: ours {ours[name]!r}, MLflow's {theirs[name]!r}"
        for name in theirs
        if ours[name] != theirs[name]
    ]


def disturb(server: Server, chance: random.Random) -> str:
    """Something that happens to tracelake between two calls."""
    kind = chance.choices(
        ["nothing", "kill", "flush", "wait", "kill while it commits"], [50, 15, 10, 10, 15]
    )[0]
    match kind:
        case "kill":
            server.kill()
            server.start()
        case "flush":
            server.flush()
        case "wait":
            # As long as a commit round takes, so that the next call may meet any part of one.
            time.sleep(chance.uniform(0.05, 0.8))
        case "kill while it commits":
            flushing = threading.Thread(target=flush_quietly, args=(server.url,))
            flushing.start()
            time.sleep(chance.uniform(0, 0.15))
            server.kill()
            flushing.join(timeout=60)
            server.start()
    return kind


def flush_quietly(url: str) -> None:
    """A flush that the kill may cut off."""
    try:
        requests.post(f"{url}/api/v1/flush", timeout=60)
    except requests.RequestException:
        pass


def mlflow_view(client: MlflowClient, side: Side, trace_id: str) -> dict:
    """What a server of MLflow's API says of a trace."""
    trace = client.get_trace(trace_id, display=False)
    info = trace.info
    tags = {key: value for key, value in info.tags.items() if key not in SERVER_TAGS}
    assert info.experiment_id == side.experiment_id
    return {
        "client_request_id": info.client_request_id,
        "request_time_ms": info.request_time,
        "execution_duration_ms": info.execution_duration,
        "state": str(info.state.value),
        "request_preview": info.request_preview,
        "response_preview": info.response_preview,
        "trace_metadata": dict(info.trace_metadata),
        "tags": tags,
        "assessments": sorted_by_label(
            assessment_view(assessment.to_dictionary(), side) for assessment in info.assessments
        ),
        "spans": sorted(span.name for span in trace.data.spans),
    }


def row_view(row: dict, side: Side) -> dict:
    """The same of a row."""
    assert row["experiment_id"] == side.experiment_id
    assert row["span_count"] == len(row["spans"])
    request_id = row["client_request_id"]
    assert row["trace_info"]["request_id"] == (request_id or row["trace_id"])
    return {
        "client_request_id": request_id,
        "request_time_ms": int(row["trace_info"]["timestamp"].timestamp() * 1e6 + 0.5) // 1000,
        "execution_duration_ms": row["execution_duration_ms"],
        "state": row["trace_info"]["status"],
        "request_preview": row["request_preview"],
        "response_preview": row["response_preview"],
        "trace_metadata": metadata_of(row),
        "tags": {k: v for k, v in (row["tags"] or []) if k not in SERVER_TAGS},
        "assessments": sorted_by_label(
            assessment_view(from_row(assessment), side) for assessment in row["assessments"] or []
        ),
        "spans": sorted(span["name"] for span in row["spans"]),
    }


def metadata_of(row: dict) -> dict[str, str]:
    """Metadata, with the facts that MLflow shows as such and the table has columns for."""
    counts = ("input_tokens", "output_tokens", "total_tokens")
    usage = {name: row[name] for name in counts if row[name] is not None}
    facts = {
        "mlflow.trace.session": row["session_id"],
        "mlflow.trace.user": row["user_id"],
        "mlflow.trace.tokenUsage": json.dumps(usage) if usage else None,
    }
    known = {name: value for name, value in facts.items() if value is not None}
    return known | dict(row["trace_metadata"] or [])


def from_row(assessment: dict) -> dict:
    """An assessment of a row in the form of MLflow's dictionaries."""
    values = {
        name: json.loads(assessment[name])
        for name in ("feedback", "expectation", "issue")
        if assessment[name] is not None
    }
    return assessment | values | {"metadata": dict(assessment["metadata"] or [])}


def assessment_view(assessment: dict, side: Side) -> dict:
    """An assessment without what differs between two servers."""
    labels = {made: label for label, made in side.assessments.items()}
    source = assessment["source"]
    expectation = assessment.get("expectation")
    return {
        "label": labels[assessment["assessment_id"]],
        "name": assessment["assessment_name"],
        "source": (source["source_type"], source["source_id"]),
        "span_id": assessment.get("span_id"),
        "feedback": assessment.get("feedback"),
        "expectation": expectation and expected_value(expectation),
        "rationale": assessment.get("rationale"),
        "metadata": assessment.get("metadata") or {},
        "overrides": labels.get(assessment.get("overrides")),
        "valid": assessment["valid"],
    }


def expected_value(expectation: dict) -> object:
    """The value of an expectation, plain or serialized."""
    if "serialized_value" in expectation:
        return json.loads(expectation["serialized_value"]["value"])
    return expectation["value"]


def sorted_by_label(views: Iterator[dict]) -> list[dict]:
    return sorted(views, key=lambda view: view["label"])


def check_change_feed(server: Server, traces: list[Scenario]) -> None:
    """Replaying the feed gives the table: inserts, updates in pairs, deletes."""
    feed = DeltaTable(str(server.table_path())).load_cdf(starting_version=0)
    changes = pa.table(feed.read_all())
    columns = ["trace_id", "_change_type", "_commit_version"]
    events: dict[str, list[tuple[int, str]]] = {}
    for change in changes.select(columns).to_pylist():
        event = (change["_commit_version"], change["_change_type"])
        events.setdefault(change["trace_id"], []).append(event)
    kinds = Counter(kind for seen in events.values() for _, kind in seen)
    print(f"change feed: {dict(kinds)}")
    assert kinds["update_preimage"] == kinds["update_postimage"] > 0
    for trace in traces:
        alive = False
        for version, kind in sorted(events.get(trace.trace_id, [])):
            match kind:
                case "insert":
                    assert not alive, f"`{trace.name}` inserted twice, at {version}"
                    alive = True
                case "delete":
                    assert alive, f"`{trace.name}` deleted at {version}, was not there"
                    alive = False
                case _:
                    assert alive, f"`{trace.name}`: {kind} at {version}, was not there"
        assert alive != trace.deleted, f"`{trace.name}`: {events.get(trace.trace_id)}"


def test_a_deleted_row_is_a_delete_in_the_change_feed(server: Server) -> None:
    """Deleted after its commit, a trace leaves the table by an amendment with a change file."""
    mlflow.set_tracking_uri(server.url)
    client = MlflowClient(tracking_uri=server.url)
    of = Pieces(generate.Maker(1))
    otlp.post(server.url, of.root(), headers={"x-mlflow-experiment-id": "0"})
    server.flush()
    assert len(table.rows(server.table_path())) == 1
    since = DeltaTable(str(server.table_path())).version()
    assert client.delete_traces("0", trace_ids=[of.trace_id]) == 1
    assert client.delete_traces("0", trace_ids=[of.trace_id]) == 0
    server.kill()
    server.start()
    server.flush()
    assert table.rows(server.table_path()) == {}
    feed = DeltaTable(str(server.table_path())).load_cdf(starting_version=since + 1)
    changes = pa.table(feed.read_all()).to_pylist()
    assert [change["_change_type"] for change in changes] == ["delete"]
    assert changes[0]["trace_id"] == of.trace_id


def test_old_traces_are_deleted_by_time(server: Server) -> None:
    """`max_timestamp_millis` and `max_traces`: the oldest go first, open and archived ones alike."""
    make = generate.Maker(2)
    client = MlflowClient(tracking_uri=server.url)
    traces = [Pieces(make) for _ in range(6)]
    for number, of in enumerate(traces):
        span = make.span(of.otel_id, "root", start=number * 1000 * generate.MS)
        otlp.post(server.url, generate.request(span), headers={"x-mlflow-experiment-id": "0"})
        if number == 2:
            server.flush()
    first_ms = generate.BASE_NS // generate.MS
    until = {"max_timestamp_millis": first_ms + 3500}
    assert client.delete_traces("0", **until, max_traces=1) == 1
    assert client.delete_traces("0", **until) == 3
    assert client.delete_traces("0", **until) == 0
    server.flush()
    kept = {of.otel_id.hex() for of in traces[4:]}
    assert table.rows(server.table_path()).keys() == kept


@pytest.mark.timeout(200)
def test_many_clients_change_one_trace_at_once(server: Server) -> None:
    """20 threads with tags and assessments of their own on one trace: nothing is lost."""
    mlflow.set_tracking_uri(server.url)
    of = Pieces(generate.Maker(3))
    otlp.post(server.url, of.root(), headers={"x-mlflow-experiment-id": "0"})
    shared = mlflow.log_feedback(trace_id=of.trace_id, name="shared", value=0, source=JUDGE)

    def work(number: int) -> None:
        client = MlflowClient(tracking_uri=server.url)
        client.set_trace_tag(of.trace_id, f"tag{number}", str(number))
        made = mlflow.log_feedback(
            trace_id=of.trace_id, name=f"f{number}", value=number, source=JUDGE
        )
        mlflow.update_assessment(
            trace_id=of.trace_id,
            assessment_id=shared.assessment_id,
            assessment=Feedback(name="shared", value=0, metadata={f"m{number}": "1"}),
        )
        if number % 2:
            mlflow.delete_assessment(trace_id=of.trace_id, assessment_id=made.assessment_id)
            client.delete_trace_tag(of.trace_id, f"tag{number}")
        if number == 10:
            server.flush()

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(work, range(20)))
    server.flush()
    (row,) = table.rows(server.table_path()).values()
    even = {str(number) for number in range(0, 20, 2)}
    assert {key[3:] for key, _ in row["tags"] if key.startswith("tag")} == even
    assessments = {a["assessment_name"]: a for a in row["assessments"]}
    assert assessments.keys() == {"shared", *(f"f{number}" for number in even)}
    metadata = dict(assessments["shared"]["metadata"])
    assert metadata == {f"m{number}": "1" for number in range(20)}


@pytest.mark.timeout(200)
def test_traces_are_read_as_mlflow_gives_them(
    reference: MlflowServer, make_server: Callable[..., Server]
) -> None:
    """The client's `get_trace` of the same spans: equal to the last attribute, open and archived."""
    server = make_server()
    server.start()
    twin = Twin(reference, server, f"reads {SEED}")
    requests_sent = [rich_request(generate.Maker(4))]
    recorded = SHARED_DATA / "mlflow_wire" / "otlp_export_sdk_small.pb"
    if recorded.is_file():
        requests_sent.append(ExportTraceServiceRequest.FromString(recorded.read_bytes()))
    else:
        print(f"not there, so not compared: {recorded.name}")
    ids = set()
    for request in requests_sent:
        twin.spans(request)
        ids |= {f"tr-{record.span.trace_id.hex()}" for record in records(request)}
    compare_reads(twin, ids)
    server.flush()
    compare_reads(twin, ids)


def rich_request(make: generate.Maker) -> ExportTraceServiceRequest:
    """Every kind of attribute, event, status and link."""
    trace_id, root = make.trace_id(), make.span_id()
    spans = [
        make.span(
            trace_id, "root", span_id=root, status=generate.status_error(),
            attributes={
                "mlflow.spanType": json.dumps("AGENT"),
                "mlflow.spanInputs": json.dumps({"z": [1, 2.5, None, True], "a": {"b": "\u00e9"}}),
                "mlflow.spanOutputs": json.dumps("text"),
                "mlflow.traceRequestId": json.dumps("tr-forged"),
                "plain": "5", "quoted": '"5"', "broken": '{"a":', "list": "[1, 2]",
                "int": 2**53 + 1, "double": 0.1, "whole": 2.0, "bool": True, "none": None,
                "map": {"k": [1, "x"]}, "array": ["a", 1, 2.5],
            },
        ),
        make.span(
            trace_id, "model", parent_span_id=root, start=2,
            attributes={
                "openinference.span.kind": "LLM", "input.value": '{"q": 1}',
                "output.value": "plain answer", "llm.token_count.prompt": 3,
                "llm.token_count.completion": 4,
            },
        ),
    ]  # fmt: skip
    event = spans[1].events.add(name="exception", time_unix_nano=generate.BASE_NS + 3)
    event.attributes.extend(generate.attributes({"exception.type": "E", "n": 1, "l": ["a"]}))
    link = spans[1].links.add(trace_id=make.trace_id(), span_id=make.span_id())
    link.attributes.extend(generate.attributes({"why": "follows"}))
    return generate.request(*spans, env="prod", number=5)


# Attributes that MLflow's server derives for its page or from price lists, and tracelake does not.
DERIVED_BY_MLFLOW = {"mlflow.message.format", "mlflow.chat.tools", "mlflow.llm.cost"}


def compare_reads(twin: Twin, trace_ids: set[str]) -> None:
    """Both servers give the same trace, one by one and in a batch."""
    for trace_id in sorted(trace_ids):
        theirs, ours = twin.both(lambda _, client: read_view(client.get_trace(trace_id, False)))
        faults = differences(trace_id, ours.pop("info"), theirs.pop("info"))
        assert ours == theirs and not faults, "\n".join(faults)
    infos = twin.both(
        lambda side, _: requests.post(
            f"{side.url()}/api/3.0/mlflow/traces/batchGetInfos",
            json={"trace_ids": sorted(trace_ids)}, timeout=60,
        ).json()["trace_infos"]
    )  # fmt: skip
    shapes = [[sorted(set(info) - {"assessments"}) for info in side] for side in infos]
    assert shapes[0] == shapes[1]


def read_view(trace: object) -> dict:
    """A trace as the client holds it, without what each server keeps for itself."""
    info = trace.info.to_dict()
    info.pop("trace_location")
    info["tags"] = {k: v for k, v in info["tags"].items() if k not in SERVER_TAGS}
    spans = [span.to_dict() for span in trace.data.spans]
    for span in spans:
        span["attributes"] = {
            key: json.loads(value)
            for key, value in span["attributes"].items()
            if key not in DERIVED_BY_MLFLOW
        }
    return {"info": info, "spans": spans}
