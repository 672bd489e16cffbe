"""Unity Catalog's official API as tests see it: its schemas, and answers held against them."""

from __future__ import annotations

import copy
import re
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import requests
import yaml

from support.server import REPOSITORY, Server, binary

SPECIFICATION = REPOSITORY / "tests" / "contract" / "unity-catalog.yaml"
API = "/api/2.1/unity-catalog"

# The codes of the official server that this one uses.
CODES = {
    "NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNIMPLEMENTED",
    "CATALOG_ALREADY_EXISTS", "SCHEMA_ALREADY_EXISTS", "TABLE_ALREADY_EXISTS",
}  # fmt: skip
ERROR = {
    "type": "object",
    "required": ["error_code", "message", "details"],
    "additionalProperties": False,
    "properties": {
        "error_code": {"enum": sorted(CODES)},
        "message": {"type": "string", "minLength": 1},
        "details": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["@type", "reason"],
                "properties": {"@type": {"const": "google.rpc.ErrorInfo"}},
            },
        },
    },
}


def specification() -> dict:
    """The official text, as it stands."""
    return yaml.safe_load(SPECIFICATION.read_text())


def strict(node: object) -> object:
    """The same schemas, but with no members beside those that they name."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: strict(value) for key, value in node.items()}
    if "properties" in made and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


class Api:
    """Calls a server; each answer must be one that the official text allows."""

    def __init__(self, server: Server):
        self.server = server
        self.text = specification()
        self.components = strict(copy.deepcopy(self.text["components"]))
        self.walked: set[tuple[str, str, int]] = set()

    def __call__(self, method: str, path: str, **options) -> requests.Response:
        """One call below the API's path."""
        url = f"{self.server.url}{API}{path}"
        answer = requests.request(method, url, timeout=20, allow_redirects=False, **options)
        self.check(method.lower(), path, answer)
        return answer

    def check(self, method: str, path: str, answer: requests.Response) -> None:
        """Fails unless the answer is as the official text has it."""
        shown = f"{method} {path}: {answer.status_code} {answer.text[:2000]}"
        assert answer.headers["content-type"] == "application/json", shown
        body = answer.json()
        template, schema = self.schema_of(method, path)
        self.walked.add((method, template, answer.status_code))
        if answer.status_code != 200:
            assert 400 <= answer.status_code < 500 or answer.status_code == 501, shown
            jsonschema.validate(body, ERROR)
            assert body["details"][0]["reason"] == body["error_code"], shown
            return
        assert schema is not None, f"answered though it is not in the API: {shown}"
        document = schema | {"components": self.components}
        jsonschema.Draft4Validator(document).validate(body)

    def schema_of(self, method: str, path: str) -> tuple[str, dict | None]:
        """Template and schema of the answer to a call, by the text's paths."""
        plain = path.partition("?")[0]
        for template, operations in self.text["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), plain):
                if method not in operations:
                    return template, None
                answer = operations[method]["responses"]["200"]
                return template, answer["content"]["application/json"]["schema"]
        return "", None


def example_binary() -> Path:
    """The program that makes every call of our client."""
    path = binary().parent / "examples" / "unity_calls"
    assert path.is_file(), (
        f"no {path}\nhint: cargo build --locked -p tracelake-catalog --example unity_calls"
    )
    return path


def client_calls(url: str) -> tuple[int, dict[str, str]]:
    """Exit code, and how each call of our client ended."""
    done = subprocess.run(
        [str(example_binary()), url], capture_output=True, text=True, timeout=60
    )
    assert done.stdout, done.stderr
    return done.returncode, dict(line.split(": ", 1) for line in done.stdout.splitlines())


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def process(command: list[str], port: int, log: Path, env: dict[str, str] | None = None):
    """A server as a child process, from when it accepts connections."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=env
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert child.poll() is None, f"{command[0]} ended\n{log.read_text()}"
                assert time.monotonic() < deadline, f"{command[0]}\n{log.read_text()}"
                time.sleep(0.05)
        yield child
    finally:
        child.kill()
        child.wait(timeout=30)
