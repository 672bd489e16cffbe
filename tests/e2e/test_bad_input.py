"""Whatever comes in: a clear answer, a service that stays up, and the good spans kept."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psutil
import pyarrow as pa
import pytest
import requests
from deltalake import DeltaTable, write_deltalake

from support import generate, otlp, table
from support.otlp import ExportTraceServiceRequest
from support.server import SHARED_DATA, Server
from support.truth import records

VECTORS = (
    json.loads((SHARED_DATA / "otlp_vectors" / "index.json").read_text())
    if SHARED_DATA.is_dir()
    else []
)
CLEAR = range(400, 430)
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One service for all requests that must not harm it."""
    server = Server(tmp_path_factory.mktemp("hostile") / "data")
    server.start()
    yield server
    server.flush()
    server.stop()
    server.close()


@pytest.fixture(autouse=True)
def still_alive(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test with the shared service: it lives."""
    yield
    if "shared" in request.fixturenames:
        request.getfixturevalue("shared").assert_alive()


def assert_clear(answer: requests.Response, *statuses: int) -> None:
    """A refusal of the client's kind, with words."""
    assert answer.status_code in (statuses or CLEAR), f"{answer.status_code} {answer.text[:300]}"
    assert len(answer.content) > 5, "a refusal without a word"
    assert "panicked" not in answer.text


def good_span(seed: int | None = None):
    """A plain span that must always be kept."""
    make = generate.Maker(seed if seed is not None else random.randrange(2**60))
    return make.span(make.trace_id(), "good")


def spans_in_table(server: Server) -> set[str]:
    """Ids of all spans that deltalake reads, after a flush."""
    server.flush()
    if not table.exists(server.table_path()):
        return set()
    return {
        s["span_id"]
        for row in table.query(server.table_path(), "select spans from t")
        for s in row["spans"]
    }


# --- the recorded vectors ---


def vector_document(name: str) -> object:
    return json.loads((SHARED_DATA / "otlp_vectors" / name).read_bytes())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["file"])
def test_vector_gets_a_clear_answer(shared: Server, vector: dict) -> None:
    """Valid upstream: wholly accepted. Otherwise: taken leniently, refused in part, or refused in words."""
    body = (SHARED_DATA / "otlp_vectors" / vector["file"]).read_bytes()
    answer = otlp.post_bytes(shared.url, body, otlp.JSON, session=shared.session)
    if vector["valid_upstream"]:
        assert answer.status_code == 200, f"{answer.status_code} {answer.text[:300]}"
        assert not otlp.read_answer(answer).partial_success.rejected_spans, answer.text
    elif answer.status_code == 200:
        partial = otlp.read_answer(answer).partial_success
        assert bool(partial.rejected_spans) <= bool(partial.error_message), answer.text
    else:
        assert_clear(answer)


def test_good_span_beside_a_bad_one_of_each_vector_is_kept(shared: Server) -> None:
    """Each bad span of the vectors again, with a good one in the same request."""
    if not VECTORS:
        pytest.skip("the recorded vectors are not on this machine (../shared/data)")
    wanted, wrong = {}, []
    for vector in VECTORS:
        document = vector_document(vector["file"])
        try:
            spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
            spans.append(
                json.loads(otlp.to_json(generate.request(good := good_span())))["resourceSpans"][0][
                    "scopeSpans"
                ][0]["spans"][0]
            )
        except (KeyError, TypeError, IndexError, AttributeError):
            continue
        answer = otlp.post_bytes(
            shared.url, json.dumps(document).encode(), otlp.JSON, session=shared.session
        )
        if answer.status_code != 200:
            wrong.append(f"{vector['file']}: {answer.status_code} {answer.text[:120]}")
            continue
        partial = otlp.read_answer(answer).partial_success
        if partial.rejected_spans >= len(spans):
            wrong.append(f"{vector['file']}: {partial}")
        wanted[good.span_id.hex()] = vector["file"]
    found = spans_in_table(shared)
    wrong += [
        f"{name}: the good span is not in the table"
        for span, name in wanted.items()
        if span not in found
    ]
    assert not wrong, "\n".join(wrong)
    assert len(wanted) > 30


# --- protobuf ---


def mutations(count: int, seed: int) -> Iterator[bytes]:
    """Real-looking bodies with flipped, cut, doubled and inserted bytes."""
    chance = random.Random(seed)
    bodies = [body.SerializeToString() for name, body in generate.tricky() if name != "large"]
    for number in range(count):
        body = bytearray(chance.choice(bodies))
        match number % 5:
            case 0:
                del body[chance.randrange(len(body)) :]
            case 1:
                for _ in range(chance.randrange(1, 20)):
                    body[chance.randrange(len(body))] = chance.randrange(256)
            case 2:
                at = chance.randrange(len(body))
                body[at:at] = chance.randbytes(chance.randrange(1, 30))
            case 3:
                at = chance.randrange(len(body))
                body += body[at:]
            case 4:
                body = bytearray(chance.randbytes(chance.randrange(1, 200)))
        yield bytes(body)


def test_mutated_protobuf_never_harms(shared: Server) -> None:
    """Four hundred broken bodies over HTTP; none is answered by a server error."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    statuses: dict[int, int] = {}
    for number, body in enumerate(mutations(400, seed)):
        answer = otlp.post_bytes(shared.url, body, session=shared.session)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code == 200 or answer.status_code in CLEAR, (
            f"body {number} of seed {seed}: {answer.status_code} {answer.text[:200]}"
        )
    print(statuses)
    shared.flush()


def test_mutated_grpc_messages_never_harm(shared: Server) -> None:
    """The same over gRPC: refused as the client's fault, never by a broken connection."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    blamed = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL}
    with otlp.GrpcClient(shared.grpc) as client:
        export = client.channel.unary_unary(EXPORT, bytes, bytes)
        for number, body in enumerate(mutations(100, seed)):
            try:
                export(body, timeout=20)
            except grpc.RpcError as error:
                assert error.code() in blamed, f"body {number} of seed {seed}: {error.code()}"
                assert "panicked" not in (error.details() or "")
        span = good_span()
        client.export(generate.request(span))
    assert span.span_id.hex() in spans_in_table(shared)


def test_truncated_json_and_wrong_roots_are_refused(shared: Server) -> None:
    """Cut at many places; and documents that are not a request at all."""
    whole = otlp.to_json(generate.tricky()[0][1])
    for size in range(0, len(whole) - 1, max(1, len(whole) // 60)):
        answer = otlp.post_bytes(shared.url, whole[:size], otlp.JSON, session=shared.session)
        assert_clear(answer)
    for body in (
        b"",
        b"null",
        b"[]",
        b"7",
        b'"x"',
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000,
    ):
        assert_clear(otlp.post_bytes(shared.url, body, otlp.JSON, session=shared.session))


def deep_value(depth: int):
    value = generate.any_value("bottom")
    for _ in range(depth):
        outer = generate.any_value([])
        outer.array_value.values.append(value)
        value = outer
    return value


def test_deep_nesting_is_bounded(shared: Server) -> None:
    """A value nested far too deep costs its own span at most, in both encodings."""
    good, bad = good_span(), good_span()
    bad.attributes.add(key="deep").value.CopyFrom(deep_value(45))
    body = otlp.to_json(generate.request(bad, good))
    deep = b'{"arrayValue":{"values":[' * 20_000 + b'{"intValue":"1"}' + b"]}}" * 20_000
    marker = b'{"stringValue": "bottom"}'
    assert marker in body
    answer = otlp.post_bytes(
        shared.url, body.replace(marker, deep), otlp.JSON, session=shared.session
    )
    assert answer.status_code == 200 or answer.status_code in CLEAR
    nested = b"\x0a\x00"
    for _ in range(5_000):
        nested = (
            b"\x2a"
            + varint(len(nested) + 1 + len(varint(len(nested))))
            + b"\x0a"
            + varint(len(nested))
            + nested
        )
    answer = otlp.post_bytes(shared.url, with_raw_value(nested), session=shared.session)
    assert answer.status_code == 200 or answer.status_code in CLEAR


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def with_raw_value(value: bytes) -> bytes:
    """A request whose one span has an attribute with the given bytes as AnyValue."""

    def field(number: int, payload: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(payload)) + payload

    attribute = field(9, field(1, b"deep") + field(2, value))
    span = good_span().SerializeToString() + attribute
    return field(1, field(2, field(2, span)))


def bad_spans() -> dict[str, object]:
    """Spans that cannot be archived, each for one reason."""
    make = generate.Maker(5)
    good = lambda **fields: make.span(make.trace_id(), "bad", **fields)  # noqa: E731
    spans = {
        name: good()
        for name in ("no trace id", "short trace id", "zero trace id", "no span id", "long span id")
    }
    spans["no trace id"].trace_id = b""
    spans["short trace id"].trace_id = b"\x01" * 3
    spans["zero trace id"].trace_id = bytes(16)
    spans["no span id"].span_id = b""
    spans["long span id"].span_id = b"\x01" * 11
    return spans


@pytest.mark.parametrize("way", ["http-protobuf", "http-json", "grpc"])
@pytest.mark.parametrize("name", sorted(bad_spans()))
def test_mixed_request_keeps_the_good_and_counts_the_bad(
    shared: Server, name: str, way: str
) -> None:
    """One bad span between two good ones: partial success with the count and the reason."""
    first, last = good_span(), good_span()
    body = generate.request(first, bad_spans()[name], last)
    if way == "grpc":
        with otlp.GrpcClient(shared.grpc) as client:
            partial = client.export(body).partial_success
    else:
        content_type = otlp.JSON if way == "http-json" else otlp.PROTOBUF
        partial = otlp.post(shared.url, body, content_type, session=shared.session).partial_success
    assert partial.rejected_spans == 1
    assert "id" in partial.error_message, partial.error_message
    assert {first.span_id.hex(), last.span_id.hex()} <= spans_in_table(shared)


def test_times_beyond_a_bigint_do_not_harm(shared: Server) -> None:
    """Nanoseconds above 2^63 have no place in the table; the span beside them has."""
    good, bad = good_span(), good_span()
    bad.start_time_unix_nano = bad.end_time_unix_nano = 2**64 - 1
    answer = otlp.post(shared.url, generate.request(bad, good), session=shared.session)
    assert answer.partial_success.rejected_spans in (0, 1)
    assert good.span_id.hex() in spans_in_table(shared)


def test_unknown_enum_numbers_do_not_harm(shared: Server) -> None:
    """A kind and a status code that no version of OTLP has."""
    odd = good_span()
    odd.kind, odd.status.code = 99, 77
    otlp.post(shared.url, generate.request(odd), session=shared.session)
    shared.flush()


def test_lone_surrogate_costs_nothing_but_itself(shared: Server) -> None:
    """Half a surrogate pair in JSON: the span and its neighbours stay."""
    good, odd = good_span(), good_span()
    odd.attributes.extend(generate.attributes({"text": "MARK"}))
    body = otlp.to_json(generate.request(odd, good)).replace(b"MARK", b"\\ud83d")
    answer = otlp.post_bytes(shared.url, body, otlp.JSON, session=shared.session)
    assert answer.status_code == 200, answer.text
    assert {odd.span_id.hex(), good.span_id.hex()} <= spans_in_table(shared)


# --- envelope: types, encodings, sizes ---


GOOD_BODY = generate.request(good_span(3)).SerializeToString()


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/xml",
        "multipart/form-data",
        "\u00fc".encode("latin-1").decode("latin-1"),
    ],
)
def test_wrong_content_type_is_refused(shared: Server, content_type: str | None) -> None:
    assert_clear(
        otlp.post_bytes(shared.url, GOOD_BODY, content_type, session=shared.session), 400, 415
    )


@pytest.mark.parametrize(
    "content_type",
    ["application/x-protobuf; charset=utf-8", "APPLICATION/X-PROTOBUF", "application/protobuf"],
)
def test_content_types_that_real_senders_use_are_taken(shared: Server, content_type: str) -> None:
    answer = otlp.post_bytes(shared.url, GOOD_BODY, content_type, session=shared.session)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("encoding", ["br", "compress", "gzip, br", "x"])
def test_unknown_content_encoding_is_refused(shared: Server, encoding: str) -> None:
    answer = shared.session.post(
        f"{shared.url}/v1/traces", data=GOOD_BODY, timeout=10,
        headers={"content-type": otlp.PROTOBUF, "content-encoding": encoding},
    )  # fmt: skip
    assert_clear(answer, 400, 415)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_body_that_is_not_in_its_encoding_is_refused(shared: Server, encoding: str) -> None:
    headers = {"content-type": otlp.PROTOBUF, "content-encoding": encoding}
    whole = otlp.COMPRESS[encoding](GOOD_BODY)
    for body in (b"not compressed at all", whole[: len(whole) // 2], whole[:3]):
        assert_clear(
            shared.session.post(f"{shared.url}/v1/traces", data=body, headers=headers, timeout=10),
            400,
        )


@pytest.mark.parametrize("content_type", [otlp.PROTOBUF, otlp.JSON])
@pytest.mark.parametrize("encoding", sorted(otlp.COMPRESS))
def test_every_documented_encoding_is_taken(
    shared: Server, encoding: str, content_type: str
) -> None:
    span = good_span()
    otlp.post(shared.url, generate.request(span), content_type, encoding, session=shared.session)
    assert span.span_id.hex() in spans_in_table(shared)


def test_grpc_takes_gzip(shared: Server) -> None:
    span = good_span()
    with otlp.GrpcClient(shared.grpc) as client:
        client.export(generate.request(span), compression=grpc.Compression.Gzip)
    assert span.span_id.hex() in spans_in_table(shared)


def test_body_over_the_limit_is_refused(make_server: Callable[..., Server]) -> None:
    """Over HTTP and gRPC, with and without a length in front; what fits is taken."""
    server = make_server("--max-body", "1MiB", "--max-decompressed", "1MiB")
    server.start()
    make = generate.Maker(1)
    span = make.span(make.trace_id(), "big", attributes={"text": make.text(2 * 1024 * 1024)})
    body = generate.request(span)
    raw = body.SerializeToString()
    assert_clear(otlp.post_bytes(server.url, raw), 413)
    assert_clear(otlp.post_bytes(server.url, raw, encoding="gzip"), 413)
    chunked = (raw[at : at + 65536] for at in range(0, len(raw), 65536))
    try:
        answer = requests.post(
            f"{server.url}/v1/traces",
            data=chunked,
            headers={"content-type": otlp.PROTOBUF},
            timeout=30,
        )
    except requests.ConnectionError:
        pass  # The service may hang up in the middle of a body that it has refused already.
    else:
        assert_clear(answer, 413)
    with otlp.GrpcClient(server.grpc) as client, pytest.raises(grpc.RpcError) as refused:
        client.export(body)
    assert refused.value.code() in (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.INVALID_ARGUMENT,
    )
    server.assert_alive()
    small = good_span()
    otlp.post(server.url, generate.request(small))
    assert spans_in_table(server) == {small.span_id.hex()}


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_decompression_bomb_is_refused_in_little_memory(
    make_server: Callable[..., Server], encoding: str
) -> None:
    """A gigabyte of zeros in a small body: 413, and the memory stays where it was."""
    server = make_server()
    server.start()
    process = psutil.Process(server.process.pid)
    otlp.post_bytes(server.url, GOOD_BODY)
    before = process.memory_info().rss
    answer = requests.post(
        f"{server.url}/v1/traces", data=bomb(encoding), timeout=60,
        headers={"content-type": otlp.PROTOBUF, "content-encoding": encoding},
    )  # fmt: skip
    assert_clear(answer, 413)
    grown = process.memory_info().rss - before
    assert grown < 300 * 1024 * 1024, f"{grown} bytes more"
    server.assert_alive()


def bomb(encoding: str) -> bytes:
    """A gigabyte of zeros, compressed piece by piece."""
    piece = bytes(16 * 1024 * 1024)
    if encoding == "zstd":
        import zstandard

        compressor = zstandard.ZstdCompressor().compressobj()
    else:
        compressor = zlib.compressobj(1, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    return b"".join(compressor.compress(piece) for _ in range(64)) + compressor.flush()


# --- MLflow's REST ---


@pytest.mark.parametrize(
    "experiment", ["424242", "not-a-number", "-1", "99999999999999999999999", "1; drop table t", ""]
)
def test_wrong_experiment_is_a_clear_answer(shared: Server, experiment: str) -> None:
    """An experiment that does not exist is named in the answer; MLflow's clients read `error_code`."""
    answer = otlp.post_bytes(shared.url, GOOD_BODY, headers={"x-mlflow-experiment-id": experiment})
    if experiment == "":
        assert answer.status_code == 200 or answer.status_code in CLEAR
        return
    assert_clear(answer, 400, 404, 422)


def test_missing_experiment_goes_to_the_default(shared: Server) -> None:
    span = good_span()
    otlp.post(shared.url, generate.request(span), session=shared.session)
    shared.flush()
    row = table.rows(shared.table_path())[span.trace_id.hex()]
    assert row["experiment_id"] == "0"


API = "/api/2.0/mlflow/experiments"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", f"{API}/get?experiment_id=424242", None, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("GET", f"{API}/get-by-name?experiment_name=nobody", None, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("GET", f"{API}/get", None, 400, "INVALID_PARAMETER_VALUE"),
        ("POST", f"{API}/create", {"name": "Default"}, 400, "RESOURCE_ALREADY_EXISTS"),
        ("POST", f"{API}/create", {}, 400, "INVALID_PARAMETER_VALUE"),
        ("POST", f"{API}/create", {"name": ""}, 400, "INVALID_PARAMETER_VALUE"),
        ("POST", f"{API}/create", {"name": 7}, 400, None),
        ("POST", f"{API}/create", "{", 400, None),
        ("POST", f"{API}/delete", {"experiment_id": "424242"}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("POST", f"{API}/search", {"max_results": -1}, 400, "INVALID_PARAMETER_VALUE"),
        ("POST", f"{API}/search", {"max_results": 10, "filter": "name ="}, 400, "INVALID_PARAMETER_VALUE"),
        ("POST", "/api/3.0/mlflow/traces", {}, 400, None),
        ("POST", "/api/3.0/mlflow/traces", {"trace": {"trace_info": {"trace_id": "../../x"}}}, 400, None),
        ("GET", "/api/2.0/mlflow/nothing", None, 404, None),
    ],
)  # fmt: skip
def test_rest_errors_are_those_of_mlflow(
    shared: Server, method: str, path: str, body: object, status: int, code: str | None
) -> None:
    data = body if isinstance(body, str) else None if body is None else json.dumps(body)
    answer = shared.session.request(
        method,
        shared.url + path,
        data=data,
        timeout=10,
        headers={"content-type": "application/json"},
    )
    assert_clear(answer, status)
    document = answer.json()
    assert document["message"], document
    assert document["error_code"] == code or (code is None and document["error_code"]), document


def test_artifact_path_does_not_leave_the_folder(shared: Server) -> None:
    """The `traces.json` fallback takes a path from the client."""
    before = set(shared.data_dir.parent.rglob("evil*"))
    for path in (
        "../../evil.json",
        "%2e%2e/%2e%2e/evil.json",
        "1/traces/../../../../evil.json",
        "/etc/evil.json",
    ):
        request = requests.Request("PUT", "http://x").prepare()
        request.url = f"{shared.url}/api/2.0/mlflow-artifacts/artifacts/{path}"
        request.prepare_body(b"{}", None)
        answer = requests.Session().send(request, timeout=10)
        assert answer.status_code in CLEAR, f"{path}: {answer.status_code}"
    assert set(shared.data_dir.parent.rglob("evil*")) == before


# --- the folder and its tables ---


def test_second_service_on_one_folder_is_refused(server: Server) -> None:
    """It names the folder, and the first goes on."""
    second = Server(server.data_dir, quick=False)
    second.log_path = server.log_path.with_name("second.log")
    process = second.spawn()
    assert process.wait(timeout=20) not in (0, None)
    said = second.log_path.read_text()
    assert str(server.data_dir) in said and "hint:" in said, said
    assert "panicked" not in said
    server.assert_alive()
    span = good_span()
    otlp.post(server.url, generate.request(span))
    assert spans_in_table(server) == {span.span_id.hex()}


def test_setup_on_a_table_with_another_type_is_refused_and_nothing_is_written(
    make_server: Callable[..., Server],
) -> None:
    """`trace_id` as a number: the message names the column, the table stays as it was."""
    server = make_server()
    path = server.table_path("a.b.c")
    path.mkdir(parents=True)
    write_deltalake(str(path), pa.table({"trace_id": pa.array([1], pa.int64()), "mine": ["x"]}))
    done = server.cli.run("setup", "a.b.c", "--experiment", "e")
    assert done.returncode != 0
    assert "trace_id" in done.stderr, done.stderr
    assert DeltaTable(str(path)).version() == 0


def test_table_names_never_become_paths(make_server: Callable[..., Server]) -> None:
    """Names with separators are refused, odd ones encoded; nothing appears outside the folder."""
    server = make_server()
    around = set(server.data_dir.parent.iterdir())
    for name in (
        "../x.y.z",
        "a.b",
        "a.b.c.d",
        "a..c",
        "a.b./etc",
        "a.b.c\x00d"[:5] + "/..",
        "",
        "a.b.c d",
    ):
        done = server.cli.run("setup", name, "--experiment", "e")
        assert done.returncode != 0, f"{name!r} was taken"
        assert "panicked" not in done.stderr
    for name, folder in {"a.b.`c`": "=60c=60", "a.b.c;drop": "c=3Bdrop"}.items():
        server.cli.ok("setup", name, "--experiment", "e")
        assert (server.data_dir / "tables" / "a" / "b" / folder).is_dir()
    assert set(server.data_dir.parent.iterdir()) - around <= {server.data_dir}


def test_journal_budget_answers_429_and_recovers(make_server: Callable[..., Server]) -> None:
    """Nothing can be committed for an hour, so the journal fills: refused with Retry-After, none lost."""
    server = make_server(
        "--journal-budget",
        "4MiB",
        "--settle-after",
        "1h",
        "--idle-after",
        "1h",
        "--commit-every",
        "1h",
        quick=False,
    )
    server.start()
    acked, refused = fill_until_refused(server, attempts=200)
    assert refused.status_code == 429, f"{refused.status_code} {refused.text}"
    assert int(refused.headers["retry-after"]) > 0
    with otlp.GrpcClient(server.grpc) as client, pytest.raises(grpc.RpcError) as error:
        client.export(big_request(generate.Maker(77)))
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    server.assert_alive()
    assert acked <= spans_in_table(server)
    span = good_span()
    otlp.post(server.url, generate.request(span))
    assert spans_in_table(server) == acked | {span.span_id.hex()}


def big_request(make: generate.Maker) -> ExportTraceServiceRequest:
    """About 200 KB that do not compress."""
    return generate.request(
        make.span(make.trace_id(), "fill", attributes={"noise": make.random.randbytes(200_000)})
    )


def fill_until_refused(server: Server, attempts: int) -> tuple[set[str], requests.Response]:
    """Sends until the first refusal; gives what was acknowledged, and the refusal."""
    make, acked = generate.Maker(31), set()
    for _ in range(attempts):
        body = big_request(make)
        answer = otlp.post_bytes(server.url, body.SerializeToString(), session=server.session)
        if answer.status_code != 200:
            return acked, answer
        acked |= {record.span.span_id.hex() for record in records(body)}
    raise AssertionError(f"{attempts} requests of 200 KB and never refused")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB, where this user may make one."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(mounted)], capture_output=True
        ).returncode
    ):
        pytest.skip("a small file system can be mounted by root only")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_full_disk_loses_nothing_that_was_acknowledged(small_disk: Path) -> None:
    """Refused while it is full, up all the time; with room again, all that was acknowledged is there."""
    server = Server(small_disk / "data")
    server.log_path = small_disk.parent / "full.log"
    try:
        server.start()
        acked, refused = fill_until_refused(server, attempts=400)
        assert refused.status_code in (429, 500, 503, 507), refused.status_code
        assert len(refused.content) > 5
        server.assert_alive()
        again = otlp.post_bytes(server.url, big_request(generate.Maker(8)).SerializeToString())
        assert again.status_code != 200 or again.content is not None
        subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
        if server.session.post(f"{server.url}/api/v1/flush", timeout=60).status_code != 200:
            # A journal whose fsync failed may ask for a restart; it may not lose anything by it.
            server.kill()
            server.start()
        span = good_span()
        otlp.post(server.url, generate.request(span))
        found = spans_in_table(server)
        assert acked | {span.span_id.hex()} <= found
        ids = [
            s["span_id"]
            for row in table.query(server.table_path(), "select spans from t")
            for s in row["spans"]
        ]
        assert len(ids) == len(set(ids)), "a span came twice"
        server.stop()
    finally:
        print(server.log_tail(20))
        server.close()


def test_garbage_in_the_folder_is_a_clear_error_or_is_left_alone(
    make_server: Callable[..., Server],
) -> None:
    """A journal segment whose tail is torn and zero-filled still starts, with all before the tear."""
    server = make_server(
        "--settle-after", "1h", "--idle-after", "1h", "--commit-every", "1h", quick=False
    )
    server.start()
    span = good_span()
    otlp.post(server.url, generate.request(span))
    server.kill()
    segments = [
        path
        for path in server.data_dir.rglob("*")
        if path.is_file()
        and "journal" in str(path.relative_to(server.data_dir))
        and path.stat().st_size
    ]
    assert segments, sorted(str(p) for p in server.data_dir.rglob("*"))
    newest = max(
        (p for p in segments if span.span_id in p.read_bytes()),
        key=lambda path: path.stat().st_mtime,
    )
    with newest.open("ab") as file:
        file.write(b"\x17torn" + bytes(512))
    server.start()
    assert spans_in_table(server) == {span.span_id.hex()}


def test_gzip_of_two_members_is_read_whole(shared: Server) -> None:
    """RFC 1952 lets a body be several members; senders that concatenate exist."""
    first, second = good_span(), good_span()
    parts = [generate.request(span).SerializeToString() for span in (first, second)]
    answer = shared.session.post(
        f"{shared.url}/v1/traces", data=b"".join(map(gzip.compress, parts)), timeout=10,
        headers={"content-type": otlp.PROTOBUF, "content-encoding": "gzip"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert {first.span_id.hex(), second.span_id.hex()} <= spans_in_table(shared)
