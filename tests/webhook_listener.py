"""A webhook on this machine, for tests: it keeps what it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from pydantic import SecretStr

TOKEN = "T0KEN-nobody-may-see"


class Listener:
    """A server that keeps what is posted to it, and answers with `codes`, one after the other, the last one again."""

    def __init__(self) -> None:
        self.codes, self.asked, self.received = [200], 0, list[dict[str, Any]]()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.headers["Content-Type"] == "application/json"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code = listener.codes[min(listener.asked, len(listener.codes) - 1)]
                listener.asked += 1
                if code == 200:
                    listener.received.append(json.loads(body))
                self.send_response(code)
                if code in (301, 302, 307):
                    self.send_header("Location", f"{listener.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.secret = SecretStr(f"{self.url}/services/{TOKEN}")


@contextmanager
def listening() -> Iterator[Listener]:
    """Yield a listener that answers."""
    found = Listener()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        found.server.shutdown()
        thread.join()
        found.server.server_close()
