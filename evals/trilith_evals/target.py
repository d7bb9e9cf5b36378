"""What is judged: any callable, or a model's name behind a gateway or any OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from trilith.types import Json, Usage
from trilith_evals.case import Case, Output, as_output

if TYPE_CHECKING:
    from trilith import AsyncClient
    from trilith.client.schema import CompletionUsage

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
    ) -> None:
        """Take a client, which is closed with the target.

        Args:
            client: Open client.
            model: The public name.
            task: How it is asked.
            system: System message before every conversation (chat only).
            parameters: Sent with every call, such as `max_tokens` and `temperature`.

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
        self.name = model
        self._owned = client
        # The run tries again itself: it knows the causes, the deadline and what an attempt may cost.
        self._client = client.with_options(max_retries=0)
        self._task = task
        self._system = system
        self._parameters = dict(parameters or {})

    async def answer(self, case: Case) -> Output:
        """Ask the model."""
        if self._task == "predictor":
            prediction = await self._client.predict(self.name, [_features(case.input)], **self._parameters)
            return as_output(prediction)
        if self._task == "rag":
            return as_output(await self._client.ask(self.name, _question(case.input), **self._parameters))
        reply = await self._client.chat.completions.create(
            model=self.name, messages=self._messages(case.input), **self._parameters
        )
        return Output(
            text=reply.choices[0].message.content or "",
            usage=_usage(reply.usage),
            request_id=reply.request_id or reply.id,
            cost_pico_usd=reply.cost_pico_usd,
        )

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


def _question(given: Json) -> str:
    if not isinstance(given, str):
        raise TypeError(f"the case's input is a {type(given).__name__}, expected a question as text")
    return given


def _features(given: Json) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise TypeError(f"the case's input is a {type(given).__name__}, expected features by name")
    return given


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
