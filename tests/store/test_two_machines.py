"""Two gateways on homes of their own, as on two machines, with one PostgreSQL between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
from support.gateway import Gateway, Running

from trilith.settings.schema import Settings
from trilith.testing import MemoryUpstream
from trilith_gateway import key
from trilith_gateway.commands.costs import spending
from trilith_gateway.store import postgres
from trilith_gateway.store.opening import open_connection

CENT = 10**10


@pytest.fixture
def machines(postgres_url: str, tmp_path: Path) -> Iterator[list[Gateway]]:
    postgres.migrate(postgres_url)
    model = {
        "kind": "chat",
        "upstream": {"url": "http://127.0.0.1:9/v1"},
        "price": {"usd_per_request": "0.01"},
    }
    with ExitStack() as stack:
        found = []
        for name in ("a", "b"):
            tree = {"home": str(tmp_path / name), "store": {"url": postgres_url}, "models": {"echo": model}}
            settings = Settings.model_validate(tree)
            found.append(stack.enter_context(Running(settings, {"echo": MemoryUpstream()})))
        yield found


def test_they_share_keys_budgets_and_the_ledger(machines: list[Gateway]) -> None:
    settings = machines[0].platform.settings
    made, token = key.mint("shared", budget_pico_usd=50 * CENT)
    with closing(open_connection(settings)) as connection:
        key.save(connection, made)

    def call(number: int) -> int:
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        url, headers = machines[number % 2].url, {"authorization": f"Bearer {token}"}
        return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(16) as pool:
        seen = Counter(pool.map(call, range(120)))
    assert set(seen) == {200, 429}
    assert 40 <= seen[200] <= 50  # what one machine holds unspent, the other cannot spend at once
    for machine in machines:
        machine.platform.store.flush()
    with closing(open_connection(settings)) as connection:
        (row,) = spending(connection, ["day", "team", "model"], postgres=True)
    assert (row["requests"], row["amount_pico_usd"]) == (seen[200], seen[200] * CENT)
