"""A language model on loopback that takes money for each answer, counts what it sold, and fails on demand."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Shop:
    """What it does, and what it sold."""

    price: str | None = "0.01"
    """US dollars an answer, told in the gateway's header; None: not told."""
    delay_s: float = 0.0
    fault: Callable[[str, int], int | str | None] = lambda question, nth: None
    """From a question and how often it was asked before: a status, `broken`, `hang`, or None."""
    answer: Callable[[str], str] = str
    headers: dict[str, str] = field(default_factory=dict)
    """Added to failures."""
    asked: Counter[str] = field(default_factory=Counter)
    sold: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    most_under_way: int = 0
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def open_shop() -> Iterator[Shop]:
    """Serve until the block ends."""
    shop, lock = Shop(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            question = body["messages"][-1]["content"]
            with lock:
                nth = shop.asked[question]
                shop.asked[question] += 1
                shop.under_way += 1
                shop.most_under_way = max(shop.most_under_way, shop.under_way)
            try:
                self._serve(question, nth)
            except OSError:
                self.close_connection = True
            finally:
                with lock:
                    shop.under_way -= 1

        def _serve(self, question: str, nth: int) -> None:
            time.sleep(shop.delay_s)
            fault = shop.fault(question, nth)
            if fault == "hang":
                shop.closing.wait(30)
                self.close_connection = True
            elif isinstance(fault, int):
                self._reply(fault, b'{"error": {"message": "scripted"}}', shop.headers)
            else:
                priced = {} if shop.price is None else {"x-trilith-cost-usd": shop.price}
                message = {"role": "assistant", "content": shop.answer(question)}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                answer: dict[str, Any] = {"id": "c", "object": "chat.completion", "created": 0}
                raw = json.dumps({**answer, "model": "tiny", "choices": [choice]}).encode()
                with lock:
                    shop.sold[question] += 1
                self._reply(200, raw[:20] if fault == "broken" else raw, priced)

        def _reply(self, status: int, raw: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"content-type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    class Listener(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a killed caller resets its connections

    server = Listener(("127.0.0.1", 0), Handler)
    shop.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield shop
    finally:
        shop.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
