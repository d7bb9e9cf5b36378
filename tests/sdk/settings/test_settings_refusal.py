"""How a wrong file is refused: every fault, with file, line, key, what was found and what was expected."""

from __future__ import annotations

import pytest

from trilith.settings import Settings

from .conftest import SettingsFolder

KINDS = "chat, embedding, rerank, rag, predictor, image, audio, moderation"
CHAT = "kind: chat, upstream: {url: 'http://127.0.0.1:1/v1'}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gateway: {port: 70000}", "gateway.port: found 70000, expected a whole number from 0 to 65535"),
        ("gateway: {port: 80.5}", "gateway.port: found 80.5, expected a whole number from 0 to 65535"),
        ("gateway: {drain_s: }", "gateway.drain_s: found nothing, expected a number >= 0"),
        ("gateway: 8080", "gateway: found 8080, expected a mapping"),
        ("telemetry: {content: perhaps}", "telemetry.content: found 'perhaps', expected true or false"),
        ("gatway: {}", "gatway: unknown key; did you mean gateway?"),
        ("gateway: {port: true}", "gateway.port: found true, expected a whole number from 0 to 65535"),
        ("gateway: {host: true}", "gateway.host: found true, expected text"),
        ("gateway: {drain_s: 1e400}", "gateway.drain_s: found 1E+400, expected a number >= 0"),
        ("home: ''", "home: found '', expected a path"),
        ("home: [a]", "home: found a list, expected a path"),
        (
            "policies: {p: {pii: {action: masc}}}",
            "policies.p.pii.action: found 'masc', expected one of mask, block, allow; did you mean mask?",
        ),
        ("policies: {p: {pii: {entities: [A, 3]}}}", "policies.p.pii.entities.1: found 3, expected text"),
        (
            "models: {m: {kind: chta}}",
            f"models.m.kind: found 'chta', expected one of {KINDS}; did you mean chat?",
        ),
        (
            "models: {m: {}}",
            f"models.m.kind: is missing, expected one of {KINDS}",
        ),
        ("models: {m: {kind: chat}}", "models.m.upstream: is missing, expected a mapping"),
        (
            "models: {m: {kind: chat, upstream: {}}}",
            "models.m.upstream: expected exactly one of engine, url, provider, local; found none",
        ),
        (
            "models: {m: {kind: chat, upstream: {url: gpu1}}}",
            "models.m.upstream.url: found 'gpu1', expected an http(s) URL such as http://127.0.0.1:8000/v1",
        ),
        (
            f"models: {{m: {{{CHAT}, price: {{input_usd_per_mtok: abc}}}}}}",
            "models.m.price.input_usd_per_mtok: found 'abc', expected a decimal number >= 0",
        ),
        (
            f"models: {{m: {{{CHAT}, price: {{input_usd_per_mtok: 0.0000001}}}}}}",
            "models.m.price.input_usd_per_mtok: found 1E-7, "
            "expected a decimal number >= 0 with at most 6 decimals",
        ),
        (f"models: {{m: {{{CHAT}, polcy: p}}}}", "models.m.polcy: unknown key; did you mean policy?"),
        (
            f"models: {{'my model': {{{CHAT}}}}}",
            "models.my model: found 'my model' as a name, "
            "expected a name of letters, digits and . _ / -, at most 128 characters",
        ),
    ],
)
def test_a_fault_says_what_was_found_and_what_was_expected(
    at: SettingsFolder, text: str, expected: str
) -> None:
    assert at.refuse(text) == [f"trilith.yaml:1: {expected}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"models: {{m: {{{CHAT}, policy: p}}}}", "models.m.policy: found 'p', expected one of the policies"),
        ("models: {m: {kind: chat, upstream: {engine: e}}}", "models.m.upstream.engine: found 'e'"),
        ("models: {m: {kind: rag, index: i, generator: g}}", "models.m.generator: found 'g'"),
        (
            "models: {m: {kind: chat, upstream: {local: all-minilm-l6-v2}}}",
            "models.m.upstream.local: local models only embed",
        ),
        ("engines: {a: {}, b: {}}", "engines.b.port: found 8100, which engines.a has"),
    ],
)
def test_a_name_that_nothing_declares_is_refused(at: SettingsFolder, text: str, expected: str) -> None:
    assert any(expected in fault for fault in at.refuse(text))


THEIRS = "kind: chat, upstream: {url: 'http://127.0.0.1:1/v1', protocol: anthropic}"


@pytest.mark.parametrize(
    ("own", "other", "where"),
    [
        (f"{CHAT}, fallbacks: [b]", THEIRS, "a.fallbacks.0"),
        (f"{THEIRS}, fallbacks: [b]", CHAT, "a.fallbacks.0"),
        (f"{CHAT}, cascade: [{{model: b}}]", THEIRS, "a.cascade.0.model"),
        (f"{THEIRS}, cascade: [{{model: b}}]", CHAT, "a.cascade"),
        (f"{THEIRS}, cascade: [{{model: b}}]", THEIRS, "a.cascade"),
        (f"{THEIRS}, otherwise: {{model: b}}", "kind: predictor, registered_model: r", "a.otherwise"),
    ],
)
def test_a_model_that_speaks_another_protocol_is_no_stand_in(
    at: SettingsFolder, own: str, other: str, where: str
) -> None:
    (fault,) = at.refuse(f"models: {{a: {{{own}}}, b: {{{other}}}}}")
    assert f"models.{where}: " in fault
    assert "protocol" in fault


def test_a_generator_speaks_chat(at: SettingsFolder) -> None:
    rag = "kind: rag, index: i, generator: b"
    (fault,) = at.refuse(f"models: {{a: {{{rag}}}, b: {{{THEIRS}}}}}\nindexes: {{i: {{source: docs}}}}")
    assert "models.a.generator: found 'b', which speaks another protocol" in fault


def test_a_provider_and_a_server_stand_in_for_each_other(at: SettingsFolder) -> None:
    provider = "kind: chat, upstream: {provider: openai/gpt-5}"
    at.load(f"models: {{a: {{{CHAT}, fallbacks: [b]}}, b: {{{provider}, fallbacks: [a]}}}}")


def test_every_fault_is_told_at_once_in_the_order_of_the_lines(at: SettingsFolder) -> None:
    faults = at.refuse(
        """\
        gateway:
          port: x
          prot: 1
        models:
          m: {kind: chat, policy: none-such, upstream: {url: "${NO_URL}"}}
          m: {kind: rag}
        """,
        {"TRILITH_GATEWAY__DRAIN_S": "soon"},
    )
    assert [": ".join(fault.split(": ")[:2]) for fault in faults] == [
        "trilith.yaml:2: gateway.port",
        "trilith.yaml:3: gateway.prot",
        "trilith.yaml:5: models.m.policy",
        "trilith.yaml:5: models.m.upstream.url",
        "trilith.yaml:6: models.m",
        "env TRILITH_GATEWAY__DRAIN_S: gateway.drain_s",
    ]


SECRETS = [
    "models: {m: {kind: chat, upstream: {url: 'http://x', api_key: [sk-secret]}}}",
    "models: {m: {kind: chat, upstream: {url: 'http://x', api_kye: sk-secret}}}",
    "models: {m: {kind: chat, upstream: {url: '${URL}'}}}",
    "models: {m: {kind: chat, upstream: {url: 'ftp://me:sk-secret@host'}}}",
    "models: {m: {kind: chat, upstream: {url: 'ftp://me:p@sk-secret@host'}}}",
    "gateway: {port: '${URL}'}",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_refusal_shows_no_credential(at: SettingsFolder, text: str) -> None:
    (fault,) = at.refuse(text, {"URL": "sk-secret"})
    assert "sk-secret" not in fault


def test_a_credential_of_the_wrong_type_is_hidden(at: SettingsFolder) -> None:
    (fault,) = at.refuse("models: {m: {kind: chat, upstream: {url: 'http://x', api_key: 31337}}}")
    assert fault.endswith("models.m.upstream.api_key: found (hidden), expected text")


def test_a_refused_variable_in_the_file_is_shown_as_written(at: SettingsFolder) -> None:
    (fault,) = at.refuse("gateway: {port: '${PORT}'}", {"PORT": "hunter2"})
    assert "found what ${PORT} stands for, expected a whole number" in fault


def test_settings_made_by_code_are_held_to_the_same_references() -> None:
    with pytest.raises(ValueError, match=r"models\.m\.policy: found 'p'"):
        Settings.model_validate(
            {"models": {"m": {"kind": "predictor", "registered_model": "r", "policy": "p"}}}
        )
