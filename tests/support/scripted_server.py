"""An HTTP server on a real socket that answers from a script and keeps what it was sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, Self


@dataclass
class Received:
    """One request, as it came over the wire; `headers` with names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Scripted:
    """One answer."""

    status: int = 200
    body: object = b""
    """Bytes as they are, anything else as JSON; sent with its length."""
    headers: dict[str, str] = field(default_factory=dict)
    parts: Iterable[bytes] | None = None
    """In place of `body`: sent one by one, chunked, each in a write of its own."""
    breaks: bool = False
    """Whether the connection is reset after the parts, without the end of the body."""
    stays: bool = False
    """Whether more parts (comments) follow until the caller has left."""
    delay_s: float = 0.0
    """Before the status line."""


class ScriptedServer:
    """Gives the answers of its script in turn, and the last one again and again."""

    def __init__(self, script: Sequence[Scripted]) -> None:
        self.script = list(script)
        self.received: list[Received] = []
        self.connections = 0
        self.left = threading.Event()
        """Set when a caller left before its answer was complete."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def answer(self) -> None:
                size = int(self.headers.get("content-length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.received.append(Received(self.command, self.path, headers, self.rfile.read(size)))
                scripted = server.script[min(len(server.received), len(server.script)) - 1]
                try:
                    server._send(self, scripted)
                except OSError:
                    server.left.set()
                    self.close_connection = True

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                server.left.set()  # reset while the next request was waited for

        self._listener = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._listener.server_address[1]}"
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.01,))

    def _send(self, to: BaseHTTPRequestHandler, scripted: Scripted) -> None:
        time.sleep(scripted.delay_s)
        to.send_response(scripted.status)
        for name, value in scripted.headers.items():
            to.send_header(name, value)
        if scripted.parts is None:
            body = scripted.body if isinstance(scripted.body, bytes) else json.dumps(scripted.body).encode()
            to.send_header("content-length", str(len(body)))
            to.end_headers()
            to.wfile.write(body)
            return
        to.send_header("transfer-encoding", "chunked")
        to.end_headers()
        for part in scripted.parts:
            to.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        while scripted.stays:
            to.wfile.write(b"3\r\n:\n\n\r\n")
            time.sleep(0.005)
        if scripted.breaks:
            to.close_connection = True
            return
        to.wfile.write(b"0\r\n\r\n")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join(timeout=10)


class Serve(Protocol):
    """Starts a server with a script."""

    def __call__(self, *script: Scripted) -> ScriptedServer: ...
