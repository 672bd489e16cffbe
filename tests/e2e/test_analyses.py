"""`errors`, `performance` and their groupings against numbers computed apart, to the nanosecond."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from support import analyses, generate, otlp, table
from support.analyses import TOKENS, Labels, Trace
from support.generate import MS, Maker
from support.otlp import ExportTraceServiceRequest
from support.server import DEFAULT_TABLE, SHARED_DATA, Server
from support.truth import Record, TraceTruth, truth_of

BY = ("span-name", "span-type", "model", "experiment", "hour")
TIMES = ("timestamp", "hour", "first_seen", "last_seen")


@dataclass(frozen=True)
class Archive:
    """A service that took traces in, and what they are."""

    server: Server
    traces: list[Trace]
    manifest: dict[str, dict]
    truth: dict[str, TraceTruth]


@pytest.fixture(scope="module", params=["made up", "recorded"])
def archive(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Archive]:
    """Traces made up here, which is always run, and the recorded ones where they are."""
    if request.param == "recorded" and not SHARED_DATA.is_dir():
        pytest.skip("the recorded real traces are not on this machine (../shared/data)")
    server = Server(tmp_path_factory.mktemp(request.param.replace(" ", "-")) / "data")
    try:
        server.start()
        make = made_up if request.param == "made up" else recorded
        yield make(server)
        server.stop()
    finally:
        server.close()


only_recorded = pytest.mark.parametrize("archive", ["recorded"], indirect=True, scope="module")
only_made_up = pytest.mark.parametrize("archive", ["made up"], indirect=True, scope="module")


# --- what is sent -------------------------------------------------------------------------------


def made_up(server: Server) -> Archive:
    """Two experiments, several hours, every oddity of times, ids and statuses."""
    make, other = Maker(11), new_experiment(server, "other")
    traces = [(body, "0") for body in oddities(make)]
    traces += [(body, other) for body in plain_traces(make)]
    for body, experiment in traces:
        send(server, body, experiment)
    experiments = {
        span.trace_id.hex(): experiment for body, experiment in traces for span in spans_of(body)
    }
    truth = truth_of(body for body, _ in traces)
    said_failed = next(iter(truth))
    start_trace(server, said_failed, "ERROR")
    server.flush()
    expected = []
    for trace_id, one in truth.items():
        state = "ERROR" if trace_id == said_failed else None
        trace = analyses.trace_of(one, experiments[trace_id], made_up_labels, state)
        # No span of these repeats another's tokens, so the trace's are their sum.
        sums = analyses.token_sums(span.labels.tokens for span in trace.spans)
        trace.tokens = tuple(sums[name] for name in TOKENS)
        expected.append(trace)
    return Archive(server, expected, {}, truth)


def spans_of(body: ExportTraceServiceRequest) -> Iterator[trace_pb2.Span]:
    for resource_spans in body.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            yield from scope_spans.spans


def oddities(make: Maker) -> list[ExportTraceServiceRequest]:
    """One trace each; the first is declared failed by its client although no span failed."""
    failed = generate.status_error

    def trace(*spans: dict) -> ExportTraceServiceRequest:
        trace_id, root = make.trace_id(), make.span_id()
        made = [make.span(trace_id, "root", span_id=root, length=77 * MS + 1)]
        made += [make.span(trace_id, **{"parent_span_id": root, **span}) for span in spans]
        return generate.request(*made)

    def at(start: int, end: int) -> dict:
        return {"start_time_unix_nano": start, "end_time_unix_nano": end}

    base, call = generate.BASE_NS, make.span_id()
    two_exceptions = make.span(make.trace_id(), "tool", status=failed("no such \"city\"\n"))
    for kind in ("FirstError", "app.LastError"):
        event = two_exceptions.events.add(time_unix_nano=base, name="exception")
        event.attributes.extend(generate.attributes({"exception.type": kind, "n": 1}))
    two_exceptions.events.add(time_unix_nano=base, name="after")
    caught = make.span(make.trace_id(), "tool", status=trace_pb2.Status(code=1))
    caught.events.add(name="exception").attributes.extend(
        generate.attributes({"exception.type": "Caught"})
    )
    nameless = make.trace_id()
    copy = trace({"name": "sent twice", "length": 3})
    return [
        trace({"name": "fine"}),
        trace({"name": "tool", "status": failed("late")}),
        trace({"name": "tool", "status": failed()}, {"name": "agent", "status": failed()}),
        trace({"name": "agent", "status": failed()}, {"name": "agent", "status": failed()}),
        trace({"name": "tool", "status": failed("")}),
        trace({"name": "call", "span_id": call}, {"name": "call", "span_id": call, "length": 9}),
        copy,
        copy,
        trace(
            {"name": "odd", **at(0, base)},
            {"name": "odd", **at(base, 0)},
            {"name": "odd", **at(0, 0)},
            {"name": "odd", **at(base + 9 * MS, base + 8 * MS - 1)},
            {"name": "odd", **at(base + 11, base + 11)},
            {"name": "late", **at(base + 1, base + 3_600_000 * MS + 999_999)},
        ),
        generate.request(two_exceptions),
        generate.request(caught),
        generate.request(make.span(nameless, "", start_time_unix_nano=0)),
        *generate.rootless(make),
        *generate.shared_ids(make),
        *generate.in_three_parts(make),
    ]


def plain_traces(make: Maker) -> list[ExportTraceServiceRequest]:
    """Enough of them that percentiles differ, over six hours, with models and tokens."""
    bodies = []
    for number in range(240):
        trace_id, root = make.trace_id(), make.span_id()
        start = number * 90_000 * MS
        length = make.random.randrange(1, 9_000 * MS)
        values = {
            "mlflow.spanType": '"LLM"',
            "gen_ai.request.model": f"model-{number % 3}",
            "gen_ai.usage.input_tokens": make.random.randrange(10**6),
            "gen_ai.usage.output_tokens": make.random.randrange(10**6),
        }
        status = generate.status_error("overloaded") if number % 7 == 0 else None
        bodies.append(
            generate.request(
                make.span(
                    trace_id, "agent", start, length + 5, span_id=root,
                    attributes={"mlflow.spanType": '"AGENT"'},
                ),
                make.span(
                    trace_id, "chat", start + 1, length, parent_span_id=root,
                    attributes=values, status=status,
                ),
            )
        )  # fmt: skip
    return bodies


def made_up_labels(record: Record) -> Labels:
    """The two conventions that the made-up spans use."""
    values = {attribute.key: attribute.value for attribute in record.span.attributes}
    span_type = values.get("mlflow.spanType")
    model = values.get("gen_ai.request.model")
    tokens = [values.get(f"gen_ai.usage.{side}_tokens") for side in ("input", "output")]
    counts = [value.int_value if value else None for value in tokens]
    return Labels(
        json.loads(span_type.string_value) if span_type else None,
        model.string_value if model else None,
        (*counts, sum(counts) if None not in counts else None),
    )


def recorded(server: Server) -> Archive:
    """All recorded traces, every second one in an experiment of its own."""
    other = new_experiment(server, "other")
    manifest, bodies, experiments = {}, [], {}
    for folder in ("otlp_real", "otlp_derived"):
        items = json.loads((SHARED_DATA / folder / "manifest.json").read_text())["items"]
        for item in items:
            manifest[item["trace_id"]] = item
            experiments[item["trace_id"]] = ("0", other)[len(manifest) % 2]
            for file in item["files"]:
                body = (SHARED_DATA / folder / file["file"]).read_bytes()
                bodies.append(ExportTraceServiceRequest.FromString(body))
                send(server, bodies[-1], experiments[item["trace_id"]])
    server.flush()
    truth = truth_of(bodies)
    rows = table.rows(server.table_path())
    expected = []
    for trace_id, one in truth.items():
        tokens = tuple(rows[trace_id][name] for name in TOKENS)
        labels = stored_labels(rows[trace_id])
        expected.append(analyses.trace_of(one, experiments[trace_id], labels, tokens=tokens))
    return Archive(server, expected, manifest, truth)


def stored_labels(row: dict) -> Callable[[Record], Labels]:
    """Types, models and tokens as another reader finds them in the table.

    That they are MLflow's own is the business of `test_real_traces.py`.
    """

    def key(span_id: str, name: str, start_ns: int, end_ns: int) -> tuple:
        return (span_id, name, start_ns, end_ns)

    found = defaultdict(list)
    for span in row["spans"]:
        times = (span["start_time_unix_nano"], span["end_time_unix_nano"])
        labels = Labels(span["span_type"], span["model"], tuple(span[name] for name in TOKENS))
        found[key(span["span_id"], span["name"], *times)].append(labels)

    def labels_of(record: Record) -> Labels:
        span = record.span
        times = (span.start_time_unix_nano, span.end_time_unix_nano)
        return found[key(span.span_id.hex(), span.name, *times)].pop(0)

    return labels_of


def send(server: Server, body: ExportTraceServiceRequest, experiment: str) -> None:
    headers = {"x-mlflow-experiment-id": experiment}
    answer = otlp.post(server.url, body, headers=headers, session=server.session)
    assert not answer.partial_success.rejected_spans, answer


def new_experiment(server: Server, name: str) -> str:
    answer = server.session.post(
        f"{server.url}/api/2.0/mlflow/experiments/create", json={"name": name}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["experiment_id"]


def start_trace(server: Server, trace_id: str, state: str) -> None:
    """What MLflow's client says of a trace as a whole."""
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    info = {"trace_id": f"tr-{trace_id}", "trace_location": location, "state": state}
    answer = server.session.post(
        f"{server.url}/api/3.0/mlflow/traces", json={"trace": {"trace_info": info}}, timeout=30
    )
    assert answer.status_code == 200, answer.text


# --- what is answered ---------------------------------------------------------------------------


def answer(archive: Archive, *arguments: str) -> list[dict]:
    """The rows of a command, times as times."""
    rows = archive.server.cli.json(*arguments)
    for row in rows:
        for name in TIMES:
            if row.get(name):
                row[name] = datetime.fromisoformat(row[name]).astimezone(UTC)
    return rows


def assert_rows(found: list[dict], expected: list[dict]) -> None:
    """Equal in every value and in order; says which rows are not."""
    wrong = [
        f"row {n}: got {a}\n  expected {b}"
        for n, (a, b) in enumerate(zip(found, expected))
        if a != b
    ]
    assert not wrong, f"{len(wrong)} rows differ\n" + "\n".join(wrong[:5])
    assert len(found) == len(expected)


def assert_by_id(found: list[dict], expected: dict[str, dict]) -> None:
    """One row per trace, equal in the columns expected, newest request first."""
    rows = {row["trace_id"]: row for row in found}
    assert len(rows) == len(found)
    assert rows.keys() == expected.keys()
    wrong = [
        f"{trace_id}: got {rows[trace_id]}\n  expected {row}"
        for trace_id, row in expected.items()
        if any(rows[trace_id][name] != value for name, value in row.items())
    ]
    assert not wrong, f"{len(wrong)} rows differ\n" + "\n".join(wrong[:5])
    times = [row["timestamp"] for row in found if row["timestamp"]]
    assert times == sorted(times, reverse=True)


@only_recorded
def test_the_traces_are_those_of_the_manifest(archive: Archive) -> None:
    """Ties the decoded bodies, from which all else is computed, to what was recorded of them."""
    assert archive.manifest
    assert archive.truth.keys() == archive.manifest.keys()
    for trace_id, item in archive.manifest.items():
        sent = archive.truth[trace_id].facts(archive.truth[trace_id].sent)
        assert {name: item[name] for name in sent} == sent, trace_id


@only_recorded
def test_performance_of_recorded_traces_is_the_sum_of_the_manifest(archive: Archive) -> None:
    """Where nothing is odd the manifest's own nanoseconds are the answer, whoever decodes."""
    assert archive.manifest
    found = {
        row["trace_id"].removeprefix("tr-"): row for row in archive.server.cli.json("performance")
    }
    assert found.keys() == archive.manifest.keys()
    compared = 0
    for trace_id, item in archive.manifest.items():
        if item["duplicate_span_ids"] or item["zero_start_spans"] or item["zero_end_spans"]:
            continue
        row = found[trace_id]
        assert row["span_count"] == item["span_count"], trace_id
        assert round(row["total_duration_ms"] * 1e6) == item["sum_duration_ns"], trace_id
        compared += 1
    assert 200 < compared


def test_failed_traces(archive: Archive) -> None:
    """`errors`: exactly the traces that failed or have a failed span, with the first one's name."""
    found = answer(archive, "errors", DEFAULT_TABLE)
    assert_by_id(found, analyses.errors(archive.traces))
    failed = {
        trace.trace_id: {(span.name, span.message) for span in trace.failed_spans}
        for trace in archive.traces
    }
    for row in found:
        named = (row["error_span_name"], row["error_message"])
        assert named in (failed[row["trace_id"]] or {(None, None)}), row


def test_durations_per_trace(archive: Archive) -> None:
    """`performance`: counts, sums and means of every trace."""
    assert_by_id(answer(archive, "performance"), analyses.performance(archive.traces))


@pytest.mark.parametrize("by", BY)
def test_durations_by_group(archive: Archive, by: str) -> None:
    """`performance --by`: every column of every group, in order."""
    traces = archive.traces
    match by:
        case "span-name":
            expected = analyses.spans_by("span_name", lambda span: span.name, traces)
        case "span-type":
            expected = analyses.spans_by("span_type", lambda span: span.labels.span_type, traces)
        case "model":
            expected = analyses.spans_by("model", lambda span: span.labels.model, traces)
            expected = [row for row in expected if row["model"] is not None]
        case "experiment":
            expected = analyses.by_experiment(traces)
        case _:
            expected = analyses.by_hour(traces)
    assert 1 < len(expected)
    assert_rows(answer(archive, "performance", "--by", by), expected)
    assert_rows(answer(archive, "performance", "--by", by, "--limit", "1"), expected[:1])
    everything = answer(archive, "performance", "--by", by, "--until", "1h")
    assert everything == [], "all of it was archived within the last hour"


def test_error_groups(archive: Archive) -> None:
    """`errors --group`: counts, first and last time, the latest trace, the commonest name."""
    expected = analyses.error_groups(archive.traces)
    assert 1 < len(expected)
    assert_rows(answer(archive, "errors", "--group"), expected)
    assert_rows(answer(archive, "errors", "--group", "--limit", "2"), expected[:2])
    assert answer(archive, "errors", "--group", "--until", "1h") == []


@only_made_up
def test_made_up_traces_hold_every_oddity(archive: Archive) -> None:
    """What the other tests rest on: the groups that are easy to get wrong are there."""
    groups = {
        (row["error_message"], row["exception_type"]): row
        for row in reversed(analyses.error_groups(archive.traces))
    }
    assert groups['no such "city"\n', "app.LastError"]["span_count"] == 1
    assert groups["overloaded", None]["trace_count"] == 35
    assert groups["it broke", None]["span_name"] == "agent"
    assert any(row["span_count"] == 0 for row in analyses.error_groups(archive.traces))
    assert any(t.state == "OK" and t.failed for t in archive.traces)
    assert any(t.timestamp is None for t in archive.traces)
    durations = [span.duration_ns for trace in archive.traces for span in trace.spans]
    assert None in durations and any(d is not None and d < 0 for d in durations)


def test_a_wrong_grouping_is_explained(archive: Archive) -> None:
    """The error lists what there is; nothing is guessed."""
    done = archive.server.cli.run("performance", "--by", "name; drop table x")
    assert done.returncode == 2
    assert "span-name" in done.stderr and "hour" in done.stderr
