"""What is measured: how each target is installed, set up and started, always on core 0."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


class Missing(Exception):
    """A target cannot be had here; the message says why."""


@dataclass(frozen=True)
class Started:
    """A running target."""

    port: int
    pid: int
    key: str
    ready_s: float


@dataclass(frozen=True)
class Target:
    """One row of the table."""

    name: str
    version: Callable[[Path], str]
    """Installs into a folder what is not there yet and returns the version; raises Missing."""
    command: Callable[[Path, int, str], list[str]]
    """Command line, from a work folder, a port, and the upstream's base URL without `/v1`."""
    key: Callable[[Path], str] = lambda folder: "bench"
    environment: tuple[tuple[str, str], ...] = ()
    ready_s: float = 20
    ready_path: str = ""
    """Ready when this path answers with 200; without it, when anything answers at all."""

    @contextmanager
    def running(self, peers: Path, folder: Path, upstream: str) -> Iterator[Started]:
        """Run it for as long as the block lasts."""
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        command = self.command(folder if self.name.startswith("trilith") else peers, port, upstream)
        key = self.key(folder)
        environment = {**os.environ, **dict(self.environment), "PYTHONDONTWRITEBYTECODE": ""}
        log = (folder / "log").open("w")
        began = time.monotonic()
        process = subprocess.Popen(
            ["taskset", "-c", "0", *command],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while not _answers(port, self.ready_path):
                if process.poll() is not None or time.monotonic() - began > self.ready_s:
                    raise Missing(f"did not start: {(folder / 'log').read_text()[-300:].strip()}")
                time.sleep(0.05)
            yield Started(port, process.pid, key, time.monotonic() - began)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            log.close()


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(port: int, path: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            head = f"GET {path or '/healthz'} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            connection.sendall(head.encode())
            said = connection.recv(15)
            return b" 200" in said if path else said != b""
    except OSError:
        return False


def rss_mb(pid: int) -> float:
    """Return a process's memory (MB)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


# Ours.
_FULL = "price: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}"


def trilith(name: str, *, spans: bool, model: str = _FULL, policies: str = "", budget: bool = True) -> Target:
    """Return a row of our own."""

    def command(folder: Path, port: int, upstream: str) -> list[str]:
        shutil.rmtree(folder / "home", ignore_errors=True)
        (folder / "trilith.yaml").write_text(
            f"home: home\ngateway: {{port: {port}}}\n"
            f"telemetry: {{store_spans: {str(spans).lower()}}}\n{policies}"
            f'models:\n  m: {{kind: chat, upstream: {{url: "{upstream}/v1"}}, {model}}}\n'
        )
        return [str(BIN / "trilith"), "serve"]

    def key(folder: Path) -> str:
        limits = ["--budget-usd", "1000000", "--requests-per-minute", "100000000"] if budget else []
        made = [str(BIN / "trilith"), "keys", "create", "bench", "--quiet", *limits]
        return subprocess.run(made, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    def version(peers: Path) -> str:
        head = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        return subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()

    return Target(name, version, command, key, ready_s=60, ready_path="/readyz")


# Peers.
def _debian(peers: Path, package: str, *more: str) -> Path:
    root = peers / package
    if not root.exists():
        (peers / "deb").mkdir(parents=True, exist_ok=True)
        got = subprocess.run(
            ["apt-get", "download", package, *more], cwd=peers / "deb", capture_output=True, text=True
        )
        if got.returncode:
            raise Missing(f"apt-get cannot download it: {got.stderr.strip()[-200:]}")
        for name in (package, *more):
            for file in (peers / "deb").glob(f"{name}_*.deb"):
                subprocess.run(["dpkg", "-x", str(file), str(root)], check=True)
    return root


def _said(*command: str, **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    return (done.stdout + done.stderr).strip()


def _nginx(peers: Path) -> str:
    return _said(str(_debian(peers, "nginx", "nginx-common") / "usr/sbin/nginx"), "-v").rpartition("/")[2]


def _nginx_command(peers: Path, port: int, upstream: str) -> list[str]:
    folder = peers / "nginx-run"
    folder.mkdir(exist_ok=True)
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"worker_processes 1; daemon off; master_process off; error_log stderr error; pid {folder}/pid;\n"
        f"events {{ worker_connections 4096; }}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; {paths}\n"
        f"upstream u {{ server {upstream.removeprefix('http://')};\n"
        "keepalive 256; keepalive_requests 100000000; }\n"
        f"server {{ listen 127.0.0.1:{port}; keepalive_requests 100000000; location / {{ proxy_pass http://u;\n"
        f'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }} }}\n'
    )
    return [str(peers / "nginx/usr/sbin/nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


_HAPROXY_LIBRARIES = ("liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")


def _haproxy(peers: Path) -> str:
    _debian(peers, "haproxy", *_HAPROXY_LIBRARIES)
    said = _said(str(peers / "haproxy/usr/sbin/haproxy"), "-v", LD_LIBRARY_PATH=_libraries(peers))
    if "version" not in said:
        raise Missing(said[:200])
    return said.split()[2]


def _libraries(peers: Path) -> str:
    return str(peers / "haproxy/usr/lib/x86_64-linux-gnu")


def _haproxy_command(peers: Path, port: int, upstream: str) -> list[str]:
    config = peers / "haproxy.cfg"
    config.write_text(
        "global\n  nbthread 1\n  maxconn 4096\n"
        "defaults\n  mode http\n  option http-no-delay\n  timeout connect 5s\n"
        "  timeout client 60s\n  timeout server 60s\n  http-reuse always\n"
        f"frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n"
        f"backend b\n  server s {upstream.removeprefix('http://')} pool-max-conn 512\n"
    )
    binary = str(peers / "haproxy/usr/sbin/haproxy")
    return ["env", f"LD_LIBRARY_PATH={_libraries(peers)}", binary, "-f", str(config)]


def _python(*requirements: str) -> Callable[[Path], str]:
    def install(peers: Path) -> str:
        name = requirements[0].partition("[")[0].partition("=")[0]
        folder = peers / f"venv-{name}"
        python = folder / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            uv = next(iter((ROOT / ".uv").glob("bin/uv")), None)
            pip = (
                [str(uv), "pip", "install", "-q", "--python", str(python)]
                if uv
                else [str(python), "-m", "pip", "install", "-q"]
            )
            got = subprocess.run([*pip, *requirements], capture_output=True, text=True)
            if got.returncode:
                shutil.rmtree(folder)
                raise Missing(f"cannot be installed: {got.stderr.strip()[-200:]}")
        said = f"import importlib.metadata as m; print(m.version({name!r}))"
        return _said(str(python), "-c", said)

    return install


def _litellm_command(peers: Path, port: int, upstream: str) -> list[str]:
    config = peers / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: m\n    litellm_params: {model: openai/m, api_key: x, "
        f"api_base: {upstream}/v1}}\n"
        "general_settings: {master_key: bench}\nlitellm_settings: {telemetry: false, num_retries: 0}\n"
    )
    return [
        str(peers / "venv-litellm/bin/litellm"),
        "--config",
        str(config),
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
    ]


def _portkey(peers: Path) -> str:
    folder = peers / "portkey"
    package = folder / "node_modules/@portkey-ai/gateway"
    if not package.exists():
        folder.mkdir(parents=True, exist_ok=True)
        packages = ["@portkey-ai/gateway@1.15.2", "@hono/node-server@1.3.3"]
        got = subprocess.run(
            ["npm", "install", "--silent", "--no-audit", "--no-fund", *packages],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if got.returncode:
            raise Missing(f"npm cannot install it: {(got.stderr or got.stdout).strip()[-200:]}")
    return "1.15.2"


def _portkey_command(peers: Path, port: int, upstream: str) -> list[str]:
    server = peers / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    return ["node", str(server), "--headless", f"--port={port}"]


def _router_command(peers: Path, port: int, upstream: str) -> list[str]:
    python = str(peers / "venv-vllm-router/bin/python")
    started = [python, "-m", "vllm_router.launch_router", "--host", "127.0.0.1", "--port", str(port)]
    return [*started, "--worker-urls", upstream, "--policy", "random", "--disable-retries"]


def _smg_command(peers: Path, port: int, upstream: str) -> list[str]:
    binary = str(peers / "venv-smg/bin/smg")
    started = [binary, "launch", "--host", "127.0.0.1", "--port", str(port), "--worker-urls", upstream]
    return [*started, "--policy", "random", "--disable-retries"]


TARGETS = (
    Target("nginx", _nginx, _nginx_command),
    Target("haproxy", _haproxy, _haproxy_command),
    trilith("trilith bare", spans=False, model="max_output_tokens: 1024", budget=False),
    trilith("trilith full", spans=False),
    trilith("trilith full + tracing", spans=True),
    trilith(
        "trilith full + PII",
        spans=False,
        model=f"{_FULL}, policy: private",
        policies="policies: {private: {}}\n",
    ),
    Target("vllm-router", _python("vllm-router==0.1.17"), _router_command, ready_s=60),
    Target("smg", _python("smg==1.13.0"), _smg_command, ready_s=60),
    Target("portkey", _portkey, _portkey_command),
    Target(
        "litellm",
        _python("litellm[proxy]==1.106.2", "openai==2.54.0", "httptools", "uvloop", "opentelemetry-sdk"),
        _litellm_command,
        environment=(("LITELLM_LOCAL_MODEL_COST_MAP", "True"),),
        ready_s=120,
    ),
)
