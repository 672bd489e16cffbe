"""MLflow's own functions for trace archival, carried out by tracelake: an unchanged MLflow client.

What they patch belongs to a process, so each scenario is a program of its own. It ends by printing one
JSON document; what is archived where is read by deltalake.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import table
from support.mlflow_server import MlflowServer
from support.server import DEFAULT_TABLE, Server, clean_environment
from support.unity import free_port

TABLE = "cat.sch.tab"

# What the programs share: `log` sends a trace and gives its id, `commit` has all of them archived.
PRELUDE = """
import json, sys, warnings

import mlflow
import tracelake.mlflow
from tracelake import errors


@mlflow.trace
def agent() -> str:
    return "done"


def log() -> str:
    agent()
    return mlflow.get_last_active_trace_id().removeprefix("tr-")


def commit() -> None:
    tracelake.flush(uri=mlflow.get_tracking_uri())


def table_of(experiment_id: str) -> str | None:
    return mlflow.get_experiment(experiment_id).tags.get("tracelake.archive.table")


def error_of(call, *arguments, **options) -> Exception:
    try:
        call(*arguments, **options)
    except Exception as error:
        return error
    raise AssertionError(f"{call.__name__}{arguments} did not fail")
"""


def run(folder: Path, program: str, *arguments: str, **environment: str) -> tuple[dict, str]:
    """Runs a program to its end; gives its last line as JSON, and what it printed before."""
    file = folder / "program.py"
    file.write_text(program)
    done = subprocess.run(
        [sys.executable, str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        cwd=folder,
        env=clean_environment(
            HOME=str(folder),
            MLFLOW_HTTP_REQUEST_MAX_RETRIES="1",
            MLFLOW_ENABLE_ASYNC_TRACE_LOGGING="false",
            **environment,
        ),
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    *printed, last = done.stdout.splitlines()
    return json.loads(last), "\n".join(printed)


def archived(server: Server, name: str) -> set[str]:
    """Ids of the traces in a table."""
    path = server.table_path(name)
    return set(table.rows(path)) if table.exists(path) else set()


# --- the stock functions ---


def test_stock_enable_archives_an_experiment_and_disable_stops_it(
    server: Server, tmp_path: Path
) -> None:
    """By position, as the documentation of the issue has it; rows prove both."""
    found, _ = run(
        tmp_path,
        PRELUDE
        + """
from mlflow.tracing.archival import disable_databricks_trace_archival as disable_before
from mlflow.tracing.archival import enable_databricks_trace_archival as enable_before

missing = error_of(enable_before, delta_table_fullname="cat.sch.tab")
assert isinstance(missing, ImportError) and "databricks-agents" in str(missing), missing
tracelake.mlflow.install()
mlflow.set_tracking_uri(sys.argv[1])
from mlflow.tracing.archival import enable_databricks_trace_archival

other_id = mlflow.set_experiment("other").experiment_id
traces = {"other": [log()]}
experiment_id = mlflow.set_experiment("agent").experiment_id
traces["before"] = [log()]
commit()
enable_databricks_trace_archival("cat.sch.tab", experiment_id)
traces["while"] = [log()]
commit()
mlflow.tracing.archival.disable_databricks_trace_archival(experiment_id=experiment_id)
traces["after"] = [log()]
commit()

# Imported before `install`, with keywords, for the active experiment.
assert enable_before(delta_table_fullname="cat.sch.second") is None
assert (table_of(experiment_id), table_of(other_id)) == ("cat.sch.second", None)
traces["second"] = [log()]
commit()
assert disable_before() is None
assert table_of(experiment_id) is None
traces["last"] = [log()]
commit()
print(json.dumps(traces))
""",
        server.url,
    )
    first = {*found["before"], *found["while"]}
    assert archived(server, TABLE) == first, "earlier traces come over, later ones do not"
    assert archived(server, "cat.sch.second") == {*found["after"], *found["second"]}
    assert archived(server, DEFAULT_TABLE) == {*found["other"], *found["last"]}


def test_stock_functions_without_an_experiment_take_the_active_one(
    server: Server, tmp_path: Path
) -> None:
    """Chosen by the environment, or `Default`; one's name that is another's id is not mixed up."""
    found, _ = run(
        tmp_path,
        PRELUDE
        + """
import os

from mlflow.tracing.archival import disable_databricks_trace_archival
from mlflow.tracing.archival import enable_databricks_trace_archival


def bindings() -> dict[str, str | None]:
    return {e.name: table_of(e.experiment_id) for e in mlflow.search_experiments()}


tracelake.mlflow.install()
found = []
os.environ["MLFLOW_EXPERIMENT_NAME"] = "by name"
enable_databricks_trace_archival("cat.sch.tab")
found.append(bindings())
disable_databricks_trace_archival()
found.append(bindings())
del os.environ["MLFLOW_EXPERIMENT_NAME"]
# The experiment `by name` has the id 1.
mlflow.create_experiment("1")
os.environ["MLFLOW_EXPERIMENT_ID"] = "1"
enable_databricks_trace_archival("cat.sch.tab")
found.append(bindings())
del os.environ["MLFLOW_EXPERIMENT_ID"]
enable_databricks_trace_archival("cat.sch.tab")
found.append(bindings())
print(json.dumps(found))
""",
        MLFLOW_TRACKING_URI=server.url,
    )
    assert found == [
        {"Default": None, "by name": TABLE},
        {"Default": None, "by name": None},
        {"Default": None, "by name": TABLE, "1": None},
        {"Default": TABLE, "by name": TABLE, "1": None},
    ]


# --- the seed's functions ---


def test_seed_enable_archives_what_is_chosen_afterwards(server: Server, tmp_path: Path) -> None:
    """Enabled first, experiments chosen later, until it is disabled; `Default` stays where it is."""
    found, printed = run(
        tmp_path,
        PRELUDE
        + """
import inspect

signature = inspect.signature(mlflow.set_experiment)
tracelake.mlflow.install()
assert inspect.signature(mlflow.set_experiment) == signature
assert mlflow.set_experiment.__name__ == "set_experiment"
mlflow.set_tracking_uri(sys.argv[1])
traces = {"default": [log()]}
mlflow.enable_databricks_trace_archival(catalog="cat", schema="sch", table="tab")
traces["default"].append(log())
assert table_of("0") is None
first = mlflow.set_experiment("first")
assert isinstance(first, mlflow.entities.Experiment) and first.name == "first"
traces["first"] = [log()]
second = mlflow.tracking.fluent.set_experiment(experiment_name="second")
traces["second"] = [log()]
assert [table_of(e.experiment_id) for e in (first, second)] == ["cat.sch.tab"] * 2
commit()

# It ends for every experiment that this process enabled, and for those that are chosen later.
wrong = error_of(mlflow.disable_databricks_trace_archival, "cat", "sch")
assert isinstance(wrong, errors.InvalidArgumentError), wrong
mlflow.disable_databricks_trace_archival(catalog="cat", schema="sch", table="tab")
assert [table_of(e.experiment_id) for e in (first, second)] == [None] * 2
third = mlflow.set_experiment("third")
traces["default"].append(log())
assert table_of(third.experiment_id) is None

# What was chosen explicitly is bound at once; an experiment that is named is the only one.
mlflow.enable_databricks_trace_archival("cat", "sch", "tab")
assert table_of(third.experiment_id) == "cat.sch.tab"
mlflow.disable_databricks_trace_archival("cat", "sch", "tab", experiment_id=third.experiment_id)
mlflow.enable_databricks_trace_archival("cat", "sch", "one", experiment_id=third.experiment_id)
assert table_of(third.experiment_id) == "cat.sch.one"
mlflow.set_experiment("first")
assert table_of(first.experiment_id) is None
mlflow.disable_databricks_trace_archival()
assert table_of(third.experiment_id) is None
traces["default"] += [log()]
commit()
print(json.dumps(traces))
""",
        server.url,
    )
    assert printed.count("begins with the next mlflow.set_experiment") == 1
    assert archived(server, TABLE) == {*found["first"], *found["second"], found["default"][2]}
    assert archived(server, DEFAULT_TABLE) == {*found["default"]} - {found["default"][2]}


def test_another_experiment_ends_nothing(server: Server, tmp_path: Path) -> None:
    """One that is archived elsewhere is disabled: the rest is archived as before."""
    found, _ = run(
        tmp_path,
        PRELUDE
        + """
from mlflow.tracing.archival import disable_databricks_trace_archival

tracelake.mlflow.install()
tracelake.set_uri(sys.argv[1])
mlflow.set_tracking_uri(sys.argv[1])
one = mlflow.set_experiment("one").experiment_id
mlflow.enable_databricks_trace_archival("cat", "sch", "tab")
other = mlflow.create_experiment("other")
found = []
for disable in (
    lambda: disable_databricks_trace_archival(experiment_id=other),
    lambda: mlflow.disable_databricks_trace_archival(experiment_id=other),
    lambda: tracelake.disable_trace_archival(experiment="other"),
):
    tracelake.enable_trace_archival("cat", "sch", "else", experiment="other")
    tracelake.enable_trace_archival("cat", "sch", "tab", experiment="one")
    disable()
    followed = mlflow.set_experiment(f"after {len(found)}").experiment_id
    asked = tracelake.list_traces().scope[0]
    found.append([asked, *map(table_of, (other, one, followed))])
tracelake.disable_trace_archival()
found.append([tracelake.list_traces(trace_table="tracelake.default.traces").scope[0], table_of(one)])
last = mlflow.set_experiment("last").experiment_id
found.append(table_of(last))
print(json.dumps(found))
""",
        server.url,
    )
    assert found == [[TABLE, None, TABLE, TABLE]] * 3 + [[DEFAULT_TABLE, None], None]


# --- the client beside the package ---


def test_one_service_by_any_of_its_addresses(server: Server, tmp_path: Path) -> None:
    """MLflow's client and the package write it differently: the chosen experiment is archived."""
    port = server.url.rpartition(":")[2]
    found, printed = run(
        tmp_path,
        PRELUDE
        + """
warnings.simplefilter("error", UserWarning)
port, found = sys.argv[1], []
forms = [
    ("127.0.0.1:" + port, "localhost:" + port + "/"),
    ("localhost:" + port + "/", "127.0.0.1:" + port),
    ("me:secret@127.0.0.1:" + port + "/", "LOCALHOST:" + port),
    ("127.0.0.1:" + port, "me:secret@127.0.0.1:" + port),
]
for number, (our, their) in enumerate(forms):
    tracelake.set_uri("http://" + our)
    mlflow.set_tracking_uri("http://" + their)
    chosen = mlflow.set_experiment(f"chosen {number}").experiment_id
    tracelake.enable_trace_archival("cat", "sch", "tab")
    bound = table_of(chosen)
    configured = tracelake.configure_trace_archival_experiment(f"configured {number}")
    active = mlflow.tracking.fluent._active_experiment_id
    tracelake.disable_trace_archival("cat", "sch", "tab")
    found.append([bound, active == configured, table_of(chosen), table_of(configured)])

from tracelake import _place
same = lambda *uris: len({_place.key(_place.archive(uri)) for uri in uris}) == 1
assert same("http://[::1]/a", "http://localhost:80/a/", "HTTP://127.0.0.1/a?x")
assert same("https://Host", "https://me:x@host:443/") and not same("https://host", "http://host")
assert not same("http://host/a", "http://host/b") and not same("http://host:1", "http://host:2")
print(json.dumps(found))
""",
        port,
    )
    assert found == [[TABLE, True, None, None]] * 4
    assert "secret" not in printed


def test_a_client_elsewhere_is_named(
    server: Server, make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """What cannot be chosen in MLflow's client, or is not archived, is a warning at the caller."""
    other = make_server(name="other")
    other.start()
    found, _ = run(
        tmp_path,
        PRELUDE
        + """
def warned(call, *arguments, **options) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*arguments, **options)
    assert all(one.filename == __file__ for one in caught), caught
    return [str(one.message) for one in caught]


tracelake.set_uri(sys.argv[1])
table = ("cat", "sch", "tab")
mlflow.set_tracking_uri("sqlite:///none.db")
assert warned(tracelake.setup_trace_archival, *table, "agent") == []
mlflow.set_tracking_uri(sys.argv[2].replace("//", "//me:secret@"))
assert warned(tracelake.enable_trace_archival, *table) == [], "nothing is chosen"
found = warned(tracelake.setup_trace_archival, *table, "agent")
found += warned(tracelake.configure_trace_archival_experiment, "agent")
mlflow.set_experiment("chosen")
found += warned(tracelake.enable_trace_archival, *table)
assert warned(tracelake.enable_trace_archival, *table, experiment="agent") == []
print(json.dumps(found))
""",
        server.url,
        other.url,
    )
    both = f"MLflow's client talks to {other.url}, and archival is set up at {server.url}: "
    not_chosen = f"{both}`agent` is not chosen there"
    assert found == [not_chosen] * 2 + [f"{both}the experiment that is chosen there is not archived"]
    other.stop()


def test_a_name_that_is_anothers_id(server: Server, tmp_path: Path) -> None:
    """The package binds and unbinds the experiment that is meant, chosen or configured."""
    found, _ = run(
        tmp_path,
        PRELUDE
        + """
tracelake.set_uri(sys.argv[1])
mlflow.set_tracking_uri(sys.argv[1])
meant = mlflow.create_experiment("meant")
other = mlflow.create_experiment(meant)
bindings = lambda: [table_of(meant), table_of(other)]
found = []
tracelake.enable_trace_archival("cat", "sch", "tab")
assert tracelake.configure_trace_archival_experiment("meant") == meant
found.append(bindings())
tracelake.disable_trace_archival()
found.append(bindings())
tracelake.enable_trace_archival("cat", "sch", "tab")
found.append(bindings())
tracelake.disable_trace_archival()
found.append(bindings())
print(json.dumps(found))
""",
        server.url,
    )
    assert found == [[TABLE, None], [None, None]] * 2


def test_a_binding_that_fails_is_no_secret(server: Server, tmp_path: Path) -> None:
    """`set_experiment` chooses the experiment, and says that its traces do not go to the table."""
    found, _ = run(
        tmp_path,
        PRELUDE
        + """
import shutil
from pathlib import Path

import pyarrow
from deltalake import write_deltalake

tracelake.mlflow.install()
mlflow.set_tracking_uri(sys.argv[1])
mlflow.enable_databricks_trace_archival("cat", "sch", "tab")
path = Path(sys.argv[2])
path.rename(path.with_name("aside"))
write_deltalake(path, pyarrow.table({"trace_id": [1]}))
error = error_of(mlflow.set_experiment, "agent")
active = mlflow.tracking.fluent._active_experiment_id
shutil.rmtree(path)
path.with_name("aside").rename(path)
mlflow.set_experiment("agent")
print(json.dumps([type(error).__name__, str(error), active, table_of(active)]))
""",
        server.url,
        str(server.table_path(TABLE)),
    )
    kind, message, active, bound = found
    assert kind == "ConflictError"
    assert f"experiment `agent` is chosen, but its traces do not go to `{TABLE}`" in message
    assert "column `trace_id`" in message and "expected Utf8, found Int64" in message
    assert (active, bound) == ("1", TABLE), "the next call mends it"


def test_setup_of_the_package_leaves_earlier_traces_where_it_shall(
    server: Server, tmp_path: Path
) -> None:
    """`setup_trace_archival(from_now=True)` chooses the experiment, which binds it no second time."""
    found, _ = run(
        tmp_path,
        PRELUDE
        + """
tracelake.mlflow.install()
tracelake.set_uri(sys.argv[1])
mlflow.set_tracking_uri(sys.argv[1] + "/")
mlflow.set_experiment("agent")
traces = [log()]
commit()
mlflow.enable_databricks_trace_archival("cat", "sch", "other")
mlflow.disable_databricks_trace_archival()
tracelake.setup_trace_archival("cat", "sch", "tab", "agent", from_now=True)
traces.append(log())
commit()
print(json.dumps(traces))
""",
        server.url,
    )
    assert archived(server, "cat.sch.other") == {found[0]}
    assert archived(server, TABLE) == {found[1]}


# --- errors ---


def test_what_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    """Experiments and tables that cannot be; each with its class."""
    found, _ = run(
        tmp_path,
        PRELUDE
        + """
from mlflow.tracing.archival import disable_databricks_trace_archival
from mlflow.tracing.archival import enable_databricks_trace_archival

tracelake.mlflow.install()
mlflow.set_tracking_uri(sys.argv[1])
found = [
    error_of(enable_databricks_trace_archival, "cat.sch.tab", "4242"),
    error_of(disable_databricks_trace_archival, "4242"),
    error_of(mlflow.enable_databricks_trace_archival, "cat", "sch", "tab", experiment_id="4242"),
    error_of(enable_databricks_trace_archival, "cat.tab", "0"),
    error_of(mlflow.enable_databricks_trace_archival, "cat", "../sch", "tab"),
    error_of(mlflow.disable_databricks_trace_archival),
    error_of(mlflow.disable_databricks_trace_archival, "cat", experiment_id="0"),
    error_of(enable_databricks_trace_archival),
]
print(json.dumps([[type(error).__name__, str(error)] for error in found]))
""",
        server.url,
    )
    assert [kind for kind, _ in found] == [
        *["ExperimentNotFoundError"] * 3,
        *["InvalidArgumentError"] * 4,
        "TypeError",
    ]
    assert all("`4242`" in message for _, message in found[:3])
    assert all("\nhint: " in message for _, message in found[:-1])
    assert not server.table_path(TABLE).exists()


# --- install and uninstall ---


def test_install_twice_is_install_once_and_uninstall_restores_all(
    server: Server, tmp_path: Path
) -> None:
    """Also in another order than they were called; another's wrapper is left alone."""
    found, _ = run(
        tmp_path,
        PRELUDE
        + """
import inspect

from mlflow.tracing import archival


def state() -> list:
    functions = [archival.enable_databricks_trace_archival,
                 archival.disable_databricks_trace_archival]
    return [
        *functions,
        *map(inspect.signature, functions),
        *(function.__code__ for function in functions),
        mlflow.set_experiment,
        mlflow.tracking.fluent.set_experiment,
        hasattr(mlflow, "enable_databricks_trace_archival"),
        hasattr(mlflow, "disable_databricks_trace_archival"),
        [name for name in sys.modules if name.startswith("databricks.agents")],
    ]


stock = state()
tracelake.mlflow.uninstall()
assert state() == stock
tracelake.mlflow.install()
ours = state()
assert ours[:2] == stock[:2] and ours[2:6] != stock[2:6] and ours[-3:] == [True, True, []]
tracelake.mlflow.install()
assert state() == ours
tracelake.mlflow.uninstall()
assert state() == stock
error = error_of(archival.enable_databricks_trace_archival, delta_table_fullname="a.b.c")
assert isinstance(error, ImportError) and not isinstance(error, errors.TracelakeError)

tracelake.mlflow.install()
installed = mlflow.set_experiment
mlflow.set_experiment = lambda *arguments, **options: installed(*arguments, **options)
theirs = mlflow.set_experiment
tracelake.mlflow.uninstall()
assert mlflow.set_experiment is theirs and mlflow.tracking.fluent.set_experiment is stock[7]
mlflow.set_tracking_uri(sys.argv[1])
import databricks.sdk
print(json.dumps(mlflow.set_experiment("works").name))
""",
        server.url,
    )
    assert found == "works"


def test_beside_databricks_agents_nothing_is_replaced(tmp_path: Path) -> None:
    """A package of that name, as small as can be; MLflow's functions go on calling it."""
    package = tmp_path / "agents" / "databricks" / "agents"
    package.mkdir(parents=True)
    package.joinpath("__init__.py").write_text("")
    # The part of the namespace that databricks-sdk has stays in reach.
    package.parent.joinpath("__init__.py").write_text(
        "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
    )
    package.joinpath("archive.py").write_text(
        "calls = []\n"
        "def enable_trace_archival(**options): calls.append(options)\n"
        "def disable_trace_archival(**options): calls.append(options)\n"
    )
    found, _ = run(
        tmp_path,
        f"import sys; sys.path.insert(0, {str(package.parents[1])!r})"
        + PRELUDE
        + """
from mlflow.tracing.archival import enable_databricks_trace_archival

before = mlflow.set_experiment
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    tracelake.mlflow.install()
assert mlflow.set_experiment is before
assert not hasattr(mlflow, "enable_databricks_trace_archival")
enable_databricks_trace_archival(delta_table_fullname="a.b.c", experiment_id="7")
from databricks.agents import archive

print(json.dumps([archive.calls, [[str(one.message), one.filename] for one in warned]]))
""",
    )
    calls, ((message, place),) = found
    assert calls == [{"experiment_id": "7", "table_fullname": "a.b.c"}]
    assert "databricks-agents is installed" in message and "tracelake.enable_trace" in message
    assert Path(place).name == "program.py", "the warning points at the caller"


def test_other_mlflows_are_named(tmp_path: Path) -> None:
    """None at all, one before 3, and one without the functions; the package itself needs none."""
    missing = """
import json, sys

sys.modules["mlflow"] = None
import tracelake.mlflow

try:
    tracelake.mlflow.install()
except tracelake.TracelakeError as error:
    print(json.dumps([type(error).__name__, isinstance(error, ImportError), str(error)]))
"""
    found, _ = run(tmp_path, missing)
    assert found[:2] == ["MissingPackageError", True] and "pip install mlflow" in found[2]
    old = missing.replace("= None", '= type(sys)("mlflow")\nsys.modules["mlflow"].__version__ = "2.22.0"')
    found, _ = run(tmp_path, old)
    assert found[0] == "MissingPackageError" and "needs MLflow 3; this is 2.22.0" in found[2]
    found, _ = run(
        tmp_path,
        PRELUDE
        + """
sys.modules["mlflow.tracing.archival"] = None
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    tracelake.mlflow.install()
assert mlflow.enable_databricks_trace_archival is tracelake.mlflow.enable_databricks_trace_archival
print(json.dumps([[str(one.message), one.filename] for one in warned]))
""",
    )
    ((message, place),) = found
    assert "no mlflow.tracing.archival" in message and Path(place).name == "program.py"


# --- other tracking servers ---


@pytest.fixture(scope="module", autouse=True)
def stock_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A tracking server of MLflow, which takes its time to start while other tests run."""
    started = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    yield started
    started.close()


def test_other_tracking_servers_are_refused(
    server: Server, stock_server: MlflowServer, tmp_path: Path
) -> None:
    """With both URIs, without passwords, and the way out; nothing is bound or made anywhere."""
    stock_server.wait()
    dead = f"127.0.0.1:{free_port()}"
    uris = {
        f"file://{tmp_path}/mlruns": "",
        f"sqlite:///{tmp_path}/mlflow.db": "",
        "postgresql://me:secret@127.0.0.1/mlflow?password=secret": "",
        "databricks": "",
        stock_server.url: "is no tracelake service",
        f"http://{dead}": "nobody answers",
        f"http://me:secret@{dead}": "nobody answers",
        "http://": "empty host",
    }
    (refusals, beside_a_folder), _ = run(
        tmp_path,
        PRELUDE
        + """
from mlflow.tracing.archival import disable_databricks_trace_archival
from mlflow.tracing.archival import enable_databricks_trace_archival

tracelake.mlflow.install()
tracelake.set_uri(sys.argv[1])
refusals = {}
for uri in sys.argv[3:]:
    mlflow.set_tracking_uri(uri)
    found = [
        error_of(enable_databricks_trace_archival, "cat.sch.tab", "1"),
        error_of(disable_databricks_trace_archival, experiment_id="1"),
        error_of(mlflow.enable_databricks_trace_archival, "cat", "sch", "tab"),
        error_of(mlflow.disable_databricks_trace_archival),
    ]
    kinds = {type(error) for error in found}
    assert kinds == {errors.TrackingUriError}, found
    assert issubclass(errors.TrackingUriError, (errors.TracelakeError, ValueError))
    (refusals[uri],) = {str(error) for error in found}
tracelake.set_uri(sys.argv[2])
mlflow.set_tracking_uri("databricks")
beside_a_folder = str(error_of(enable_databricks_trace_archival, "cat.sch.tab", "1"))
print(json.dumps([refusals, beside_a_folder]))
""",
        server.url,
        str(tmp_path / "archive"),
        *uris,
    )
    assert refusals.keys() == uris.keys()
    for uri, words in uris.items():
        message, hint = refusals[uri].split("\nhint: ")
        shown = uri.replace("me:secret@", "").replace("?password=secret", "")
        assert f"MLflow's tracking URI is {shown}, " in message and words in message
        assert f"tracelake's own URI is {server.url}" in message and "secret" not in message
        assert hint == (
            f"point MLflow's client at it: mlflow.set_tracking_uri(\"{server.url}\"),"
            f" or MLFLOW_TRACKING_URI={server.url}"
        )
    # Where tracelake is a folder, a service is to be started first.
    assert f"tracelake's own URI is {tmp_path / 'archive'}\n" in beside_a_folder
    assert "hint: start a service (`tracelake serve`" in beside_a_folder
    assert not (tmp_path / "archive").exists()
    assert "cat" not in json.dumps(json.loads(server.cli.ok("status", "--format", "json"))["tables"])
