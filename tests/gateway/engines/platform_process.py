"""A process that runs one supervised fake server, to be killed from outside.

Usage: python platform_process.py PORT FOLDER [FLAGS OF THE SERVER...]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from trilith_gateway.engines import SupervisedEngine


async def main(port: int, folder: Path) -> None:
    server = str(Path(__file__).with_name("fake_server.py"))
    command = [sys.executable, server, str(port), "tiny", str(folder), *sys.argv[3:]]
    engine = SupervisedEngine("tiny", command, port=port, log_path=folder / "tiny.log")
    await engine.start()
    await engine.wait_ready()
    (folder / "ready").touch()
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
