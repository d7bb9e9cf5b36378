"""CPU and wall time of the runner, per call, against a server that answers after 50 ms (in its own process).

Run it as `python -m bench.evals.runner [--rows 200] [--wide 16]`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trilith_evals as evals
from trilith_evals import Means

DELAY_S = 0.05


async def _serve() -> None:
    message = {"role": "assistant", "content": "yes"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps(
        {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    ).encode()
    head = (
        "HTTP/1.1 {}\r\ncontent-type: application/json\r\nx-trilith-cost-usd: 0.001\r\n"
        "content-length: {}\r\n\r\n"
    )
    seen: dict[bytes, int] = {}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                raw = await reader.readuntil(b"\r\n\r\n")
                size = next(
                    int(line.partition(b":")[2])
                    for line in raw.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                asked = await reader.readexactly(size)
                number = len(seen) if asked not in seen else -1
                seen[asked] = seen.get(asked, 0) + 1
                await asyncio.sleep(DELAY_S)
                faulty = b'"faulty"' in asked and number >= 0
                if faulty and number % 50 == 7:
                    await asyncio.sleep(60)
                status = "500 Oops" if faulty and number % 10 == 3 else "200 OK"
                sent = body[:30] if faulty and number % 10 == 5 else body
                writer.write(head.format(status, len(sent)).encode() + sent)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _run(url: str, model: str, rows: int, wide: int, name: str, means: Means) -> None:
    cases = [{"id": str(i), "input": f"{name} {i}", "expected": "yes"} for i in range(rows)]
    cpu, clock = time.process_time(), time.perf_counter()
    report = evals.run(
        model,
        cases,
        ["exact"],
        base_url=url,
        api_key="k",
        concurrency=wide,
        timeout_s=3,
        means=means,
    )
    cpu, wall = time.process_time() - cpu, time.perf_counter() - clock
    (found,) = report.suites
    spend = found.spend
    assert spend
    scored, calls = found.figures[0].scored, spend.calls or rows
    print(
        f"{name:<10} {rows:>5} rows {wall:6.2f} s wall {cpu:6.2f} s CPU {1000 * cpu / calls:6.2f} ms CPU "
        f"a call "
        f"{len(found.rows):>5} accounted {scored:>5} scored {calls:>5} calls "
        f"{spend.total_pico_usd / 1e12:.3f} USD exit {report.exit_code}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--wide", type=int, default=16)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(_serve())
        return
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.evals.runner", "--serve"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        assert server.stdout
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        with tempfile.TemporaryDirectory() as folder:
            rows, wide = arguments.rows, arguments.wide
            _run(url, "m", 20, wide, "warm-up", Means())
            _run(url, "m", rows, wide, "plain", Means())
            _run(url, "m", rows, wide, "journal", Means(10**15, journal=Path(folder, "j.jsonl")))
            _run(url, "faulty", rows, wide, "faults", Means(10**12, 2 * 10**9))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
