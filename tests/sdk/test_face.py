"""The SDK's face: what `from trilith import ...` offers."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from types import ModuleType

import trilith
from trilith import errors


def test_the_face_is_sorted_and_complete() -> None:
    public = {
        name
        for name, value in vars(trilith).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert trilith.__all__ == sorted(trilith.__all__)
    assert set(trilith.__all__) == public | {"__version__"}


def test_every_error_is_on_the_face() -> None:
    kinds = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert kinds <= set(trilith.__all__)


def test_the_version_is_the_installed_one() -> None:
    assert trilith.__version__ == version("trilith")


def test_what_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(trilith, "Klient")


def test_both_clients_have_the_same_calls_with_the_same_arguments() -> None:
    plain, coroutine = trilith.Client("http://x"), trilith.AsyncClient("http://x")
    for path in (
        "chat.completions.create",
        "embeddings.create",
        "models.list",
        "models.retrieve",
        "ask",
        "predict",
        "feedback",
        "with_options",
        "embedded",
    ):
        one, other = (_signature(client, path) for client in (plain, coroutine))
        assert one == other, path


def _signature(client: object, path: str) -> list[inspect.Parameter]:
    found = client
    for name in path.split("."):
        found = getattr(found, name)
    assert callable(found)
    return list(inspect.signature(found).parameters.values())
