"""The real vLLM on this machine's processor, with the model that comes inside a package."""

from __future__ import annotations

import json
from typing import Any

import httpx
from support.installed import until
from vllm_fixture import Vllm

QUESTION = "What is the capital of France?"


def body(vllm: Vllm, text: str = QUESTION, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": vllm.served_name, "messages": messages, "temperature": 0, "max_tokens": 16, **fields}


def chat(vllm: Vllm, text: str = QUESTION, **fields: Any) -> dict[str, Any]:
    response = httpx.post(f"{vllm.base_url}/chat/completions", json=body(vllm, text, **fields), timeout=120)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def test_the_small_model_knows_the_capital_of_france(vllm: Vllm) -> None:
    assert "Paris" in chat(vllm)["choices"][0]["message"]["content"]


def test_the_engine_counts_the_tokens_that_it_reports(vllm: Vllm) -> None:
    before = vllm.metrics()
    usage = chat(vllm)["usage"]
    after = vllm.metrics()
    assert after["prompt_tokens"] - before["prompt_tokens"] == usage["prompt_tokens"] > 0
    assert after["generation_tokens"] - before["generation_tokens"] == usage["completion_tokens"] > 0


def test_a_stream_ends_with_its_usage(vllm: Vllm) -> None:
    asked = body(vllm, stream=True, stream_options={"include_usage": True})
    with httpx.stream("POST", f"{vllm.base_url}/chat/completions", json=asked, timeout=120) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1])
    assert "Paris" in text
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] > 0


def test_a_caller_that_hangs_up_frees_the_engine(vllm: Vllm) -> None:
    before = vllm.metrics()["generation_tokens"]
    asked = body(vllm, "Tell a long story.", stream=True, max_tokens=1500, ignore_eos=True)
    with httpx.stream("POST", f"{vllm.base_url}/chat/completions", json=asked, timeout=120) as response:
        lines = response.iter_lines()  # held: httpx hangs up as soon as nobody has it
        next(lines)
        until(
            lambda: vllm.metrics()["num_requests_running"] == 1, seconds=20, what="the start of the sequence"
        )
    until(lambda: vllm.metrics()["num_requests_running"] == 0, seconds=20, what="the end of the sequence")
    assert vllm.metrics()["generation_tokens"] - before < 1000


def test_the_log_shows_the_prompt_when_that_is_asked_for_by_name(vllm: Vllm) -> None:
    chat(vllm, "The password is xyzzy-4711.", max_tokens=1)
    until(lambda: "xyzzy-4711" in vllm.logged(), seconds=10, what="the prompt in the log")
