"""The platform's main job, end to end on real input; run it with `make demo`.

A chat answered by vLLM, a question answered from documents with citations, a prediction by a model that
was trained a minute ago: one gateway, one key, personal data protected, every call priced and traced, and
an eval suite that gives a verdict.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trilith import Client, traced
from trilith_gateway.tracing import provider as span_provider

HERE = Path(__file__).resolve().parent
TRILITH = str(Path(sys.executable).with_name("trilith"))


class StepFailed(Exception):
    """A step of the demo did not do what it should; the message says what."""


class Demo:
    """Runs the steps, times them, and stops what it started."""

    def __init__(self) -> None:
        gateway, engine = free_port(), free_port()
        self.url = f"http://127.0.0.1:{gateway}"
        self.env = {
            **os.environ,
            "TRILITH_SETTINGS": str(HERE / "trilith.yaml"),
            "TRILITH_GATEWAY__PORT": str(gateway),
            "TRILITH_ENGINES__SMOLLM2__PORT": str(engine),
        }
        self.home = HERE / ".trilith"
        self.platform: subprocess.Popen[bytes] | None = None
        self.number = 0
        self.total: int | None = None
        """What the ledger held after the last step (pico-USD); None before the first."""

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Announce a step, and print its results, time and cost when it is done."""
        self.number += 1
        print(f"\n[{self.number}] {title}", flush=True)
        started = time.monotonic()

        def say(text: str) -> None:
            print("    " + text.replace("\n", "\n    "), flush=True)

        try:
            if self.total is None:
                self.total = self.spent()
            yield say
            before, self.total = self.total, self.spent()
            say(f"-- {time.monotonic() - started:.1f} s, {dollars(self.total - before)} USD")
        except KeyboardInterrupt:
            print(f"\ndemo: interrupted in step {self.number} ({title})", file=sys.stderr)
            raise SystemExit(130) from None
        except StepFailed as error:
            raise SystemExit(f"demo: step {self.number} ({title}) failed: {error}") from error
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise SystemExit(f"demo: step {self.number} ({title}) failed: {reason}") from error

    def command(self, *arguments: str, quiet: bool = False) -> str:
        """Run one `trilith` command as a user would; its last words are the reason when it fails."""
        done = subprocess.run(
            [TRILITH, *arguments], env=self.env, text=True, stdout=subprocess.PIPE, check=False
        )
        if done.returncode:
            raise StepFailed(f"`trilith {' '.join(arguments)}` ended with {done.returncode}\n{done.stdout}")
        return done.stdout.strip()

    def spent(self) -> int:
        """Return what the ledger holds so far, in pico-USD."""
        if not (self.home / "trilith.db").exists():
            return 0
        return sum(row["amount_pico_usd"] for row in json.loads(self.command("costs", "--json")))

    def start(self) -> None:
        """Start `trilith up`; `wait` waits for it."""
        with (self.home / "up.log").open("wb") as log:
            self.platform = subprocess.Popen([TRILITH, "up"], env=self.env, stdout=log, stderr=log)

    def wait(self) -> None:
        """Return when every model is ready."""
        deadline = time.monotonic() + 900
        while True:
            if self.platform is None or self.platform.poll() is not None:
                raise StepFailed(
                    f"`trilith up` ended early:\n{(self.home / 'up.log').read_text(encoding='utf-8')}"
                )
            models = self.ready()
            if models and all(models.values()):
                return
            if time.monotonic() > deadline:
                raise StepFailed(f"not ready after 15 minutes: {models}; see {self.home / 'up.log'}")
            time.sleep(0.5)

    def ready(self) -> dict[str, bool]:
        """Ask the gateway which models can answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=30) as response:
                return dict(json.load(response)["models"])
        except (urllib.error.URLError, OSError):
            return {}

    def stop(self) -> None:
        """Stop the platform as Ctrl-C would."""
        if self.platform is not None and self.platform.poll() is None:
            self.platform.send_signal(signal.SIGINT)
            try:
                self.platform.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.platform.kill()
                self.platform.wait()


def main() -> None:
    """Run the demo; exits with 1 and names the step when one fails."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing may be left running
    demo = Demo()
    demo.home.mkdir(exist_ok=True)
    try:
        prepare(demo)
        use(demo)
        judge(demo)
    finally:
        demo.stop()
    with demo.step("Stop everything") as say:
        if demo.ready():
            raise StepFailed(f"something still answers on {demo.url}")
        say("nothing is left running")
    print("\ndemo: ok")


def prepare(demo: Demo) -> None:
    """Engine, platform, index, model."""
    with demo.step("Install vLLM and a small language model (kept for the next time)") as say:
        say(demo.command("engines", "install", "vllm"))
    with demo.step("Start the platform, vLLM and the gateway; it loads while the next steps work") as say:
        demo.start()
        say(f"log: {demo.home / 'up.log'}")
    with demo.step("Read documents into the Qdrant index") as say:
        say(demo.command("ingest"))
    with demo.step("Train, register and convert the bike-demand model") as say:
        say(demo.command("train"))
    with demo.step("Wait until every model is ready") as say:
        demo.wait()
        say(f"ready on {demo.url}")
        say(demo.command("models"))


def use(demo: Demo) -> None:
    """One key, three kinds of model."""
    with demo.step("Create a key with a budget and a rate limit") as say:
        name = f"demo-{int(time.time())}"
        key = demo.command(
            "keys",
            "create",
            name,
            "--team",
            "demo",
            "--budget-usd",
            "1",
            "--requests-per-minute",
            "600",
            "--quiet",
        )
        demo.env |= {"TRILITH_API_KEY": key, "TRILITH_BASE_URL": demo.url}
        say(f"{key[:16]}... may spend 1 USD a month")

    client = Client(base_url=demo.url, api_key=key, timeout_s=300)
    with app_spans(demo.home), client:
        chat(demo, client)
        ask(demo, client)
        predict(demo, client)


def chat(demo: Demo, client: Client) -> None:
    """Stream an answer to a prompt that holds personal data."""
    with demo.step("Chat with vLLM, streamed; the prompt holds personal data") as say:
        prompt = (
            "Repeat exactly: The order of Marianne Keller was paid with card 4111 1111 1111 1111; "
            "write to marianne.keller@example.org."
        )
        started, first, parts = time.monotonic(), None, []
        stream = client.chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": prompt}],
            max_tokens=60,
            temperature=0,
            stream=True,
        )
        for chunk in stream:
            text = chunk.choices[0].delta.content if chunk.choices else None
            first = first or (time.monotonic() - started if text else None)
            parts.append(text or "")
        answer = "".join(parts).strip()
        if not answer:
            raise StepFailed("the model said nothing")
        if re.search(r"<(PERSON|EMAIL_ADDRESS|CREDIT_CARD)_\d+>", answer):
            raise StepFailed(f"a placeholder was not restored: {answer}")
        say(f"prompt: {prompt}\nanswer: {answer}\nfirst token after {first or 0:.2f} s")
        say("audit:  " + demo.command("audit", "list", "--limit", "1").splitlines()[-1])


def ask(demo: Demo, client: Client) -> None:
    """Ask the documents; the citation must be a real span of a real file."""
    with demo.step("Ask the documents; the answer cites them") as say:
        question = "Who won Super Bowl 50?"
        answer = research(client, question)
        say(f"question: {question}\nanswer:   {answer.text}")
        if not answer.citations:
            raise StepFailed("the answer cites nothing")
        for citation in answer.citations:
            where = f"page {citation.page}, " if citation.page else ""
            span = f"{where}characters {citation.start}-{citation.end}"
            say(f"[{citation.number}] {citation.path}, {span}: {citation.quote[:90]}...")
        time.sleep(1.5)  # spans are written in batches
        say(
            "trace of this answer, from the app's function to the model:\n"
            + demo.command("traces", answer.request_id)
        )


@traced(name="research")
def research(client: Client, question: str):  # type: ignore[no-untyped-def]
    """An app's own function: its span is the root of the trace."""
    return client.ask("encyclopedia", question)


def predict(demo: Demo, client: Client) -> None:
    """Predict with the model that was trained above."""
    with demo.step("Predict bike demand for hours that the model has not seen") as say:
        with (HERE / "data" / "bike_requests.jsonl").open(encoding="utf-8") as file:
            cases = [json.loads(line) for line in file][:5]
        prediction = client.predict("bike-demand", [case["features"] for case in cases])
        for case, value in zip(cases, prediction.values, strict=True):
            say(f"{case['id']}: predicted {flat(value):6.0f}, counted {case['label']:6.0f}")
        say(f"answered by version {prediction.version}")


def judge(demo: Demo) -> None:
    """Evals and costs."""
    with demo.step("Evaluate all three against the running gateway") as say:
        reports = demo.home / "reports"
        reports.mkdir(exist_ok=True)
        say(
            demo.command(
                "eval",
                "run",
                str(HERE / "evals.yaml"),
                "--junit",
                str(reports / "evals.xml"),
                "--report",
                str(reports / "evals.html"),
            )
        )
        say(f"report: {reports / 'evals.html'}")
    with demo.step("What did it cost, and is the audit log intact?") as say:
        say(demo.command("costs", "--by", "key,model,kind"))
        say(demo.command("audit", "verify"))


@contextmanager
def app_spans(home: Path) -> Iterator[None]:
    """Let this app's spans go where the gateway's go, so that one tree shows both."""
    from opentelemetry import trace

    from trilith.settings.server import TelemetrySettings

    provider = span_provider(TelemetrySettings(), home, service="demo-app")
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


def flat(value: object) -> float:
    """Return a prediction as a number, whether the output has one column or none."""
    return float(value[0] if isinstance(value, list) else value)  # type: ignore[arg-type]


def dollars(pico: int) -> str:
    """Write pico-USD as dollars."""
    return f"{pico / 1e12:.9f}"


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
