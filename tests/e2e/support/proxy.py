"""A recording proxy on loopback: shows what a client really sent."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

HOP_BY_HOP = {
    "connection",
    "content-length",
    "transfer-encoding",
    "host",
    "keep-alive",
    "content-encoding",
}


@dataclass(frozen=True)
class Call:
    """One request and the status of its answer."""

    method: str
    path: str
    body: bytes
    status: int


class RecordingProxy:
    """Passes everything on to `upstream` and keeps it in `calls`."""

    def __init__(self, upstream: str):
        self.calls: list[Call] = []
        calls = self.calls

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                sent = {
                    k: v
                    for k, v in self.headers.items()
                    if k.lower() not in HOP_BY_HOP - {"content-encoding"}
                }
                answer = requests.request(
                    self.command, upstream + self.path, data=body, headers=sent, timeout=60
                )
                calls.append(Call(self.command, self.path, body, answer.status_code))
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("content-length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

            def log_message(self, *_: object) -> None:
                """Quiet: the calls are kept."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stops listening."""
        self.http.shutdown()
        self.http.server_close()
