"""The experiments API of an unchanged MLflow client. Run as: use_experiments.py TRACKING_URI."""

import sys

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

client = MlflowClient(sys.argv[1])


def error_code(call, *arguments, **options) -> str:
    try:
        call(*arguments, **options)
    except MlflowException as error:
        return error.error_code
    raise AssertionError(f"{call.__name__}{arguments} did not fail")


default = client.get_experiment("0")
assert (default.name, default.lifecycle_stage) == ("Default", "active"), default

first = client.create_experiment("first", tags={"team": "search", "note": "caf\u00e9"})
second = client.create_experiment("second/with/path")
assert first != second and first.isdigit()

found = client.get_experiment_by_name("first")
assert (
    found.experiment_id == first
    and found.tags["team"] == "search"
    and found.tags["note"] == "caf\u00e9"
)
assert found.creation_time and found.last_update_time
assert client.get_experiment(second).name == "second/with/path"
assert client.get_experiment_by_name("nobody") is None
assert error_code(client.create_experiment, "first") == "RESOURCE_ALREADY_EXISTS"
assert error_code(client.get_experiment, "424242") == "RESOURCE_DOES_NOT_EXIST"

names = {e.name for e in client.search_experiments()}
assert {"Default", "first", "second/with/path"} <= names, names
assert [e.name for e in client.search_experiments(filter_string="name = 'first'")] == ["first"]
assert [e.name for e in client.search_experiments(filter_string="tags.team = 'search'")] == [
    "first"
]
assert [e.name for e in client.search_experiments(filter_string="name LIKE 'second%'")] == [
    "second/with/path"
]
pages, token = [], None
while True:
    page = client.search_experiments(max_results=1, page_token=token, order_by=["name ASC"])
    pages += [e.name for e in page]
    token = page.token
    if not token:
        break
assert sorted(pages) == sorted(names) and len(pages) == len(set(pages)), pages

client.rename_experiment(first, "renamed")
assert client.get_experiment(first).name == "renamed"
assert error_code(client.rename_experiment, second, "renamed")
assert client.get_experiment(second).name == "second/with/path"
client.set_experiment_tag(first, "team", "ranking")
client.set_experiment_tag(first, "new", "1")
assert client.get_experiment(first).tags["team"] == "ranking"
client.delete_experiment_tag(first, "new")
assert "new" not in client.get_experiment(first).tags

client.delete_experiment(first)
assert client.get_experiment(first).lifecycle_stage == "deleted"
assert "renamed" not in {e.name for e in client.search_experiments()}
assert "renamed" in {e.name for e in client.search_experiments(view_type=ViewType.DELETED_ONLY)}
client.restore_experiment(first)
assert client.get_experiment(first).lifecycle_stage == "active"
print("experiments: all as MLflow does it")
