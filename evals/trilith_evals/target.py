"""What is judged: any callable, or a model's name behind a gateway or any OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from trilith.errors import SettingsError
from trilith.types import Json, Prediction, Usage
from trilith_evals.case import Case, Output, ToolCall, as_output

if TYPE_CHECKING:
    from trilith import AsyncClient
    from trilith.client.raw import RawResponse
    from trilith.client.schema import CompletionUsage, Function

ASKED_HEADER = "trilith-release"
"""Of a request: the digest of the release that must answer."""
ANSWERED_HEADER = "x-trilith-release"
"""Of an answer: the digest of the release that answered."""
CASCADE_HEADER = "x-trilith-cascade"
"""Of an answer: the model in a cascade that gave it; its release is then no sign of another one."""
DIGEST = r"^(sha256:)?[0-9a-f]{12,64}$"

Task: TypeAlias = Literal["chat", "rag", "predictor"]
"""How a model is asked: as a conversation, for an answer with citations, or for a prediction."""


@runtime_checkable
class Target(Protocol):
    """Answers cases."""

    @property
    def name(self) -> str:
        """Shown in reports."""
        ...

    @property
    def remote(self) -> bool:
        """Whether a network lies between: a late answer then says nothing about the model."""
        ...

    async def answer(self, case: Case) -> Output:
        """Answer one case; whatever it raises becomes the row's reason."""
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...


class CallableTarget:
    """A function of the case's input, plain or async. Plain ones run in threads of their own."""

    remote = False

    def __init__(self, function: Callable[[Any], Any], *, name: str | None = None) -> None:
        """Take the function.

        Args:
            function: Gets `case.input`; returns whatever `trilith_evals.case.as_output` reads.
            name: Shown in reports; the function's own name when None.
        """
        self.name = name or str(getattr(function, "__qualname__", type(function).__name__))
        self._function = function
        call = getattr(function, "__call__", function)  # noqa: B004  # an object whose __call__ is async
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)

    async def answer(self, case: Case) -> Output:
        """Call the function."""
        if self._is_async:
            return as_output(await self._function(case.input))
        returned = await _in_thread(self._function, case.input)
        return as_output(await returned if inspect.isawaitable(returned) else returned)

    async def aclose(self) -> None:
        """Do nothing: the function is the caller's."""


class ModelTarget:
    """A public model, called through the SDK."""

    remote = True

    def __init__(
        self,
        client: AsyncClient,
        model: str,
        *,
        task: Task = "chat",
        system: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        release: str | None = None,
        version: str | None = None,
    ) -> None:
        """Take a client, which is closed with the target.

        Args:
            client: Open client.
            model: The public name.
            task: How it is asked.
            system: System message before every conversation (chat only).
            parameters: Sent with every call, such as `max_tokens` and `temperature`.
            release: Digest of the release that must answer, also one without traffic; `model` may end in
                `@DIGEST` instead. None: whichever the gateway takes.
            version: A predictor's version, as its registry numbers it; None: whichever is live.

        Raises:
            ValueError: the SDK's call knows no such parameter.
        """
        unknown = sorted(set(parameters or {}) - known_parameters(task))
        if unknown:
            expected = ", ".join(sorted(known_parameters(task)))
            raise ValueError(
                f"a {task} model takes no parameter {unknown[0]!r}, expected one of {expected}; "
                "what only the server knows goes into extra_body"
            )
        named = re.fullmatch(r"(.+)@((?:sha256:)?[0-9a-f]{12,64})", model)
        if named is not None and release is None:
            model, release = named[1], named[2]
        if release is not None and not re.fullmatch(DIGEST, release):
            raise ValueError(f"release is {release!r}, expected a digest such as sha256:0123456789ab")
        self.release = release.removeprefix("sha256:") if release else None
        self.model = model
        self.version = version
        self.name = f"{model}@{self.release}" if self.release else model
        if version is not None:
            self.name += f" version {version}"
        self._owned = client
        # The run tries again itself: it knows the causes, the deadline and what an attempt may cost.
        self._raw = client.with_options(max_retries=0).with_raw_response
        self._task = task
        self._system = system
        self._parameters = dict(parameters or {})
        if self.release:
            headers = self._parameters.get("extra_headers") or {}
            self._parameters["extra_headers"] = {**headers, ASKED_HEADER: self.release}

    async def answer(self, case: Case) -> Output:
        """Ask the model.

        Raises:
            SettingsError: the release that was asked for is not what answered.
        """
        said: RawResponse[Any]
        if self._task == "predictor":
            features = [_features(case.input)]
            said = await self._raw.predict(self.model, features, version=self.version, **self._parameters)
            prediction: Prediction = said.parse()
            release = self._answered(said.headers, prediction.version)
            return replace(as_output(prediction), release=release)
        if self._task == "rag":
            said = await self._raw.ask(self.model, _question(case.input), **self._parameters)
            output = as_output(said.parse())
        else:
            said = await self._raw.chat.completions.create(
                model=self.model, messages=self._messages(case.input), **self._parameters
            )
            reply = said.parse()
            message = reply.choices[0].message
            output = Output(
                text=message.content or message.refusal or "",
                tool_calls=tuple(_tool_call(call.function) for call in message.tool_calls if call.function),
                usage=_usage(reply.usage),
                request_id=reply.request_id or reply.id,
                cost_pico_usd=reply.cost_pico_usd,
            )
        return replace(output, release=self._answered(said.headers))

    def _answered(self, headers: Mapping[str, str], version: str = "") -> str:
        """Return who answered; a server that cannot be asked for a release must not pass for one that was."""
        release = headers.get(ANSWERED_HEADER, "")
        if self.release and release != self.release:
            found = f"the release {release} answered" if release else "the server names no release"
            raise SettingsError(
                f"{found}, expected {self.release}: releases are asked for behind a Trilith gateway only; "
                "leave target.release out for other servers"
            )
        if self.version is not None and version != self.version:
            raise SettingsError(f"version {version or 'unknown'} answered, expected version {self.version}")
        if CASCADE_HEADER in headers and not self.release:
            return ""
        # An alias may move to another version, and the release that declares it stays the same.
        return " ".join(part for part in (release, version and f"version {version}") if part)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made from the client, which travels by its address."""
        return {name: value for name, value in vars(self).items() if name != "_raw"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._raw = self._owned.with_options(max_retries=0).with_raw_response

    def identity(self) -> dict[str, Json]:
        """Return all but the case that an answer depends on; the server's address is no part of it."""
        return {
            "model": self.name,
            "task": self._task,
            "system": self._system,
            "parameters": self._parameters,
        }

    async def aclose(self) -> None:
        """Close the client."""
        await self._owned.aclose()

    def _messages(self, given: Json) -> list[dict[str, Any]]:
        messages = given if isinstance(given, list) else [{"role": "user", "content": _question(given)}]
        opening = [{"role": "system", "content": self._system}] if self._system else []
        return [*opening, *(dict(message) for message in messages)]


def known_parameters(task: Task) -> frozenset[str]:
    """Return the names that a task's `parameters` may have."""
    from trilith.client.option import CallOptions, ChatOptions

    return frozenset((CallOptions if task == "predictor" else ChatOptions).__annotations__)


def shown(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as reports show them: of headers, which may carry a key, only the names."""
    told = dict(parameters)
    if isinstance(headers := told.get("extra_headers"), Mapping):
        told["extra_headers"] = dict.fromkeys(headers, "(not shown)")
    return told


def unfit(given: Json, task: Task) -> str:
    """Say why a model cannot be asked with a case's input; empty when it can."""
    if task == "predictor":
        return "" if isinstance(given, dict) else f"is {_kind(given)}, expected features by name"
    if isinstance(given, str):
        return ""
    if task == "chat" and isinstance(given, list):
        wrong = next((one for one in given if not isinstance(one, dict) or "role" not in one), None)
        if given and wrong is None:
            return ""
        return (
            f"is a list with {_kind(wrong)}, expected messages, each with its role" if given else "is empty"
        )
    wanted = "a question as text" + (", or messages" if task == "chat" else "")
    return f"is {_kind(given)}, expected {wanted}"


def _kind(value: Json) -> str:
    names = {dict: "a mapping", list: "a list", bool: "true or false", str: "text", type(None): "null"}
    return names.get(type(value), "a number")


def _question(given: Json) -> str:
    if not isinstance(given, str):
        raise TypeError(f"the case's input {unfit(given, 'rag')}")
    return given


def _features(given: Json) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise TypeError(f"the case's input {unfit(given, 'predictor')}")
    return given


def _tool_call(wanted: Function) -> ToolCall:
    text = wanted.arguments or "{}"
    try:
        arguments = json.loads(text)
    except ValueError:  # a model's slip is the answer to judge, and no failure
        arguments = text
    return ToolCall(wanted.name or "", arguments)


def _usage(reported: CompletionUsage | None) -> Usage | None:
    if reported is None:
        return None
    read, wrote = reported.prompt_tokens_details, reported.completion_tokens_details
    return Usage(
        input_tokens=reported.prompt_tokens,
        output_tokens=reported.completion_tokens,
        cached_input_tokens=(read and read.cached_tokens) or 0,
        reasoning_tokens=(wrote and wrote.reasoning_tokens) or 0,
    )


async def _in_thread(function: Callable[[Any], Any], given: Any) -> Any:
    """Run a plain function in a daemon thread of its own.

    A pool would be exhausted by functions that hang, and Python waits for a pool's threads at exit.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def work() -> None:
        result: Any = None
        error: Exception | None = None
        try:
            result = context.run(function, given)
        except StopIteration as raised:  # a future cannot carry it
            error = RuntimeError(f"the target raised StopIteration: {raised}")
        except Exception as raised:  # handed to the awaiting task below
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended: no one waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="trilith-eval-target", daemon=True).start()
    return await done
