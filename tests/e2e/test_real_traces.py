"""Real third-party traces, by every way in: the table against the recorded truth and MLflow's own store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import generate, otlp, table
from support.otlp import ExportTraceServiceRequest
from support.server import DEFAULT_TABLE, SHARED_DATA, Server
from support.truth import Record, TraceTruth, differences, load_real, read_delimited, truth_of

WAYS = ("http-protobuf", "grpc", "http-json")
TOKENS = ("input_tokens", "output_tokens", "total_tokens")
CACHE_TOKENS = ("cache_read_input_tokens", "cache_creation_input_tokens")


@dataclass(frozen=True)
class Archive:
    """What was sent one way, and the rows that came of it."""

    way: str
    server: Server
    truth: dict[str, TraceTruth]
    rows: dict[str, dict]
    real: bool


@pytest.fixture(scope="module", params=WAYS)
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A fresh service that took in every real body one way; made-up traces where there are none."""
    real = SHARED_DATA.is_dir()
    bodies = [body for _, body in (load_real(SHARED_DATA) if real else generate.tricky())]
    server = Server(tmp_path_factory.mktemp(request.param) / "data")
    try:
        server.start()
        send(server, request.param, bodies)
        server.flush()
        yield Archive(
            request.param, server, truth_of(bodies), table.rows(server.table_path()), real
        )
        server.stop()
    finally:
        server.close()


def send(server: Server, way: str, bodies: list[ExportTraceServiceRequest]) -> None:
    """Sends the bodies one way, as one client does, each of them wholly accepted."""
    if way == "grpc":
        with otlp.GrpcClient(server.grpc) as client:
            answers = [client.export(body) for body in bodies]
    else:
        content_type = otlp.JSON if way == "http-json" else otlp.PROTOBUF
        answers = [
            otlp.post(server.url, body, content_type, session=server.session) for body in bodies
        ]
    rejected = [
        answer.partial_success for answer in answers if answer.partial_success.rejected_spans
    ]
    assert not rejected, rejected


@pytest.fixture(scope="module")
def manifest(archive: Archive) -> dict[str, dict]:
    """The recorded truth per trace id."""
    if not archive.real:
        pytest.skip("the recorded real traces are not on this machine (../shared/data)")
    items = json.loads((SHARED_DATA / "otlp_real" / "manifest.json").read_text())["items"]
    return {item["trace_id"]: item for item in items}


@pytest.fixture(scope="module")
def oracle(archive: Archive) -> dict[str, dict]:
    """What MLflow itself stored, per trace id."""
    if not archive.real:
        pytest.skip("the recorded answers of MLflow are not on this machine (../shared/data)")
    lines = (SHARED_DATA / "otlp_real" / "mlflow_oracle.jsonl").read_text().splitlines()
    return {row["trace_id"]: row for row in map(json.loads, lines)}


def test_every_trace_is_one_row(archive: Archive) -> None:
    """`table.rows` fails on a second row; here none may be missing or made up."""
    assert archive.rows.keys() == archive.truth.keys()


def test_counts_sums_and_bounds_are_those_sent(archive: Archive) -> None:
    """From the spans themselves and from the summaries beside them."""
    wrong = []
    for trace_id, truth in archive.truth.items():
        expected, row = truth.facts(), archive.rows[trace_id]
        spans = row["spans"]
        found = {
            "span_count": len(spans),
            "unique_span_ids": len({span["span_id"] for span in spans}),
            "error_span_count": sum(span["status"] == "ERROR" for span in spans),
            "sum_duration_ns": sum(
                s["end_time_unix_nano"] - s["start_time_unix_nano"] for s in spans
            ),
            "min_start_ns": min(span["start_time_unix_nano"] for span in spans),
            "max_end_ns": max(span["end_time_unix_nano"] for span in spans),
            "event_count": sum(len(span["events"] or ()) for span in spans),
            "link_count": sum(len(span["links"] or ()) for span in spans),
        }
        summary = {"span_count": row["span_count"], "error_span_count": row["error_span_count"]}
        whole = [s["end_time_unix_nano"] - s["start_time_unix_nano"] for s in spans if has_times(s)]
        durations = {
            "total_span_duration_ns": sum(whole),
            "max_span_duration_ns": max(whole, default=None),
        }
        wrong += mismatches(f"{trace_id} summary", durations, {key: row[key] for key in durations})
        wrong += mismatches(trace_id, {k: expected[k] for k in found}, found)
        wrong += mismatches(f"{trace_id} summary", {k: expected[k] for k in summary}, summary)
    assert not wrong, "\n".join(wrong)


def has_times(span: dict) -> bool:
    """Whether both times are known; zero means unknown, and has no place in a sum."""
    return span["start_time_unix_nano"] != 0 and span["end_time_unix_nano"] != 0


def mismatches(subject: str, expected: dict, found: dict) -> list[str]:
    """One line per differing key."""
    return [
        f"{subject}: {key} is {found[key]!r}, expected {expected[key]!r}"
        for key in expected
        if found[key] != expected[key]
    ]


def test_what_was_sent_is_what_the_manifest_records(
    archive: Archive, manifest: dict[str, dict]
) -> None:
    """The manifest counts records sent; ties this module's own arithmetic to an independent one."""
    wrong = []
    assert archive.truth.keys() == manifest.keys()
    for trace_id, truth in archive.truth.items():
        sent = truth.facts(truth.sent)
        wrong += mismatches(trace_id, {key: manifest[trace_id][key] for key in sent}, sent)
    assert not wrong, "\n".join(wrong)


def test_spans_are_rebuilt_as_sent(archive: Archive, tmp_path: Path) -> None:
    """Attributes, kinds, resources and all: the rebuilt spans are the sent ones, each copy once."""
    output = tmp_path / "rebuilt.bin"
    archive.server.cli.ok("rebuild", DEFAULT_TABLE, "--output", str(output), timeout=240)
    rebuilt = truth_of(read_delimited(output.read_bytes()))
    wrong = differences(archive.truth, rebuilt)
    assert not wrong, f"{len(wrong)} traces differ\n" + "\n".join(wrong[:10])
    for trace_id, truth in archive.truth.items():
        assert rebuilt[trace_id].facts()["attribute_count"] == truth.facts()["attribute_count"]


def test_attributes_are_in_columns_a_reader_can_use(archive: Archive) -> None:
    """Every attribute is in `metadata` or, at most two of a span, lifted into `inputs` and `outputs`."""
    wrong = []
    for trace_id, truth in archive.truth.items():
        sent = by_span_id(truth)
        for span in archive.rows[trace_id]["spans"]:
            if span["span_id"] not in sent:
                continue
            keys = {attribute.key for attribute in sent[span["span_id"]].span.attributes}
            found = {key for key, _ in span["metadata"] or ()}
            lifted = keys - found
            if found - keys or len(lifted) > (span["inputs"] is not None) + (
                span["outputs"] is not None
            ):
                wrong.append(
                    f"{trace_id} {span['span_id']}: absent {sorted(lifted)}, new {sorted(found - keys)}"
                )
            for key, value in span["metadata"] or ():
                json.loads(value)
    assert not wrong, f"{len(wrong)} spans\n" + "\n".join(wrong[:20])


def by_span_id(truth: TraceTruth) -> dict[str, Record]:
    """The spans of a trace whose id no other span of it has."""
    counts = Counter(record.span.span_id for record in truth.kept)
    return {r.span.span_id.hex(): r for r in truth.kept if counts[r.span.span_id] == 1}


# --- against MLflow's own store ---


@dataclass(frozen=True)
class Deviation:
    """One value that differs from MLflow's."""

    trace_id: str
    field: str
    mlflow: object
    ours: object
    truth: TraceTruth
    record: Record | None = None

    def attribute(self, key: str) -> bool:
        """Whether the span, or any span of the trace, has the attribute."""
        among = [self.record] if self.record else self.truth.kept
        return any(a.key == key for record in among for a in record.span.attributes)

    def __str__(self) -> str:
        place = f" span {self.record.span.span_id.hex()}" if self.record else ""
        return (
            f"{self.trace_id}{place}: {self.field} is {self.ours!r}, MLflow stored {self.mlflow!r}"
        )


def shares_ids(deviation: Deviation) -> bool:
    """Whether MLflow lost spans of this trace because ids are shared."""
    facts = deviation.truth.facts()
    return deviation.record is None and facts["unique_span_ids"] < facts["span_count"]


# Where tracelake differs from MLflow on purpose: the reason, and when it applies.
IMPROVEMENTS: dict[str, tuple[str, Callable[[Deviation], bool]]] = {
    "lower-case OpenInference kinds": (
        "MLflow's table of kinds is upper-case only, so a span of kind `retriever` has no type there",
        lambda d: d.field == "type" and d.mlflow is None and d.attribute("openinference.span.kind"),
    ),
    "usage_details": (
        "MLflow ignores Langfuse's usage_details, so such generations have no token counts there",
        lambda d: (
            d.field in (*TOKENS, *CACHE_TOKENS)
            and (d.mlflow is None or d.record is None)
            and d.attribute("langfuse.observation.usage_details")
        ),
    ),
    "Langfuse model name": (
        "MLflow does not read langfuse.observation.model.name",
        lambda d: d.field == "model" and d.attribute("langfuse.observation.model.name"),
    ),
    "unknown start": (
        "a start of zero means unknown; MLflow takes it for 1970 and the duration for half a century",
        lambda d: (
            d.field in ("request_time_ms", "duration_ms") and d.truth.facts()["min_start_ns"] == 0
        ),
    ),
    "shared ids": (
        "of spans with one id MLflow keeps the last, so what it derives from the trace lacks the others",
        lambda d: (
            shares_ids(d) and d.field in ("duration_ms", "trace_name", *TOKENS, *CACHE_TOKENS)
        ),
    ),
}


def test_derived_fields_are_those_of_mlflow(archive: Archive, oracle: dict[str, dict]) -> None:
    """State, session, user, times, tokens per trace; type, model, provider, tokens per span."""
    used: Counter[str] = Counter()
    wrong = []
    for trace_id, truth in archive.truth.items():
        for deviation in deviations(truth, archive.rows[trace_id], oracle[trace_id]):
            rule = next(
                (name for name, (_, applies) in IMPROVEMENTS.items() if applies(deviation)), None
            )
            if rule:
                used[rule] += 1
            else:
                wrong.append(str(deviation))
    print("listed improvements over MLflow:", dict(used))
    assert not wrong, f"{len(wrong)} values differ from MLflow's\n" + "\n".join(wrong[:40])


def deviations(truth: TraceTruth, row: dict, stored: dict) -> list[Deviation]:
    """All the values of a trace and its spans that differ."""
    usage = stored["token_usage"] or {}
    pairs: list[tuple[str, object, object, Record | None]] = [
        ("state", stored["state"], row["trace_info"]["status"], None),
        ("session", stored["session"], row["session_id"], None),
        ("user", stored["user"], row["user_id"], None),
        (
            "request_time_ms",
            stored["request_time_ms"],
            milliseconds(row["trace_info"]["timestamp"]),
            None,
        ),
        ("duration_ms", stored["execution_duration_ms"], row["execution_duration_ms"], None),
    ]
    pairs += [(key, usage.get(key), row[key], None) for key in TOKENS]
    sent = by_span_id(truth)
    spans = {span["span_id"]: span for span in row["spans"]}
    for theirs in stored["spans"]:
        if record := sent.get(theirs["span_id"]):
            ours, usage = spans[theirs["span_id"]], theirs["usage"] or {}
            pairs += [
                ("type", theirs["type"], ours["span_type"], record),
                ("model", theirs["model"], ours["model"], record),
                ("provider", theirs["provider"], ours["model_provider"], record),
            ]
            pairs += [(key, usage.get(key), ours[key], record) for key in (*TOKENS, *CACHE_TOKENS)]
    return [
        Deviation(truth.trace_id, name, theirs, ours, truth, record)
        for name, theirs, ours, record in pairs
        if theirs != ours
    ]


def milliseconds(timestamp) -> int:
    """Whole milliseconds since the epoch, rounded down, without a detour over floats."""
    from datetime import UTC, datetime, timedelta

    return (timestamp.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        milliseconds=1
    )


def test_traces_that_mlflow_refuses_to_archive_are_there(
    archive: Archive, oracle: dict[str, dict]
) -> None:
    """Traces over several resources: MLflow's own archive takes none of the nine."""
    refused = [trace_id for trace_id, row in oracle.items() if row.get("mlflow_archive_error")]
    assert len(refused) == 9
    for trace_id in refused:
        assert len(archive.rows[trace_id]["spans"]) == archive.truth[trace_id].facts()["span_count"]
        resources = {
            r.resource_spans.resource.SerializeToString() for r in archive.truth[trace_id].kept
        }
        stored = {
            json.dumps([span["resource"], span["tags"]], default=str)
            for span in archive.rows[trace_id]["spans"]
        }
        assert 1 < len(resources) == len(stored), trace_id
