"""Mimics a model server's /health and /v1/models, with a child and a grandchild, and dies when it is told to.

Usage: python fake_server.py PORT NAME FOLDER [--stubborn] [--slow-to-end] [--dies-at-start] [--usage]
Writes the process ids of the whole family to FOLDER/pids; ends by itself when FOLDER/die appears.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SLEEP = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
# A grandchild in a session of its own, which a signal to the group does not reach.
OFFSPRING = f"""
import subprocess, sys
far = subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)
print(far.pid, flush=True)
{SLEEP}
"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        models = {"object": "list", "data": [{"id": sys.argv[2], "root": "/models/tiny"}]}
        body = json.dumps(models).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    if "--usage" in sys.argv:
        print("fake_server: error: unrecognized arguments: --nonsense", file=sys.stderr)
        sys.exit(2)
    if "--dies-at-start" in sys.argv:
        print("(EngineCore pid=7) ERROR 11-23 09:05:26 [core.py:1] ValueError: no room for the weights")
        print("INFO 11-23 09:05:27 [core.py:2] goodbye")
        sys.exit(1)
    if "--stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--slow-to-end" in sys.argv:
        signal.signal(signal.SIGTERM, lambda *_: threading.Timer(3, os._exit, [0]).start())
    port, folder = int(sys.argv[1]), Path(sys.argv[3])
    near = subprocess.Popen([sys.executable, "-c", OFFSPRING], stdout=subprocess.PIPE, text=True)
    assert near.stdout is not None
    far = int(near.stdout.readline())
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    part = folder / "pids.part"
    part.write_text(json.dumps([os.getpid(), near.pid, far]), encoding="utf-8")
    part.replace(folder / "pids")
    while not (folder / "die").exists():
        time.sleep(0.05)
    (folder / "die").unlink()
    os._exit(9)


if __name__ == "__main__":
    main()
