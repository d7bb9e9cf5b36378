"""What a run may cost: an amount is reserved before every call, and settled when its price is known."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal, TypeAlias

from trilith.errors import TrilithError
from trilith.money import format_usd
from trilith_evals.report import Spend

Payer: TypeAlias = Literal["target", "scorer"]
"""Who calls: the target that is judged, or a scorer that asks a judge."""

_MARGIN = 2
"""A call is taken to cost at most so many times what the dearest so far did."""

_UNTOLD = (
    "the server does not say what a call costs (header x-trilith-cost-usd), so the cost cap cannot be kept; "
    "state the most that one call can cost (max_call_cost_usd), or no cap"
)


class Refused(TrilithError):
    """No further call is made in this run; what is kept is still served."""


class CapReached(Refused):
    """The next call might exceed the run's cost cap; go on with a larger one."""


class CostUntold(Refused):
    """There is a cost cap, and the server does not say what a call costs; state a ceiling per call."""


class Ledger:
    """Counts one run's money (10^-12 USD) and never lets reservations exceed the cap.

    With a ceiling per call the cap is exact. Without one a call is reserved at twice the dearest of its kind
    so far, and the first of a kind runs alone, so that nothing else is bought before a price is known.
    """

    def __init__(self, cap_pico_usd: int | None = None, ceiling_pico_usd: int | None = None) -> None:
        """Take the cap, and the most that one call can cost; None: no cap, and no such promise."""
        self._cap = cap_pico_usd
        self._ceiling = ceiling_pico_usd
        self._spent: dict[Payer, int] = {"target": 0, "scorer": 0}
        self._dearest: dict[Payer, int] = {}
        self._held = 0
        self._untold = False
        self._refused: Refused | None = None
        self._ended: Refused | None = None
        self._alone: set[Payer] = set()
        self._changed = asyncio.Event()
        self._calls = self._kept = self._unpriced = 0

    @property
    def capped(self) -> bool:
        """Whether there is a cap."""
        return self._cap is not None

    @property
    def refused(self) -> Refused | None:
        """Why a call was refused; None when none was."""
        return self._refused

    def refuse(self, why: Refused) -> None:
        """Let no further call begin."""
        self._ended = why
        self._changed.set()

    async def reserve(self, payer: Payer) -> int:
        """Set money aside for one call; waits while calls under way may still give some back.

        Raises:
            Refused: `refuse` was called.
            CapReached: what is left may not be enough.
            CostUntold: an earlier call showed that nobody tells prices, and there is no ceiling.
        """
        while True:
            if self._ended:
                self._refused = self._ended
                raise self._ended
            if self._cap is None:
                return 0
            if self._untold:
                self._refused = CostUntold(_UNTOLD)
                raise self._refused
            left = self._cap - sum(self._spent.values()) - self._held
            wanted = self._expected(payer)
            if wanted is not None and wanted <= left:
                self._held += wanted
                return wanted
            if wanted is None and not self._alone and not self._held and left > 0:
                self._alone.add(payer)
                self._held += left
                return left
            if not self._held:
                self._refused = CapReached(
                    f"the cost cap of {format_usd(self._cap)} USD is reached: "
                    f"{format_usd(sum(self._spent.values()))} USD are spent, and the next call may cost "
                    f"{format_usd(wanted or 0)} USD; go on with a larger cap"
                )
                raise self._refused
            self._changed.clear()
            await self._changed.wait()

    def settle(self, payer: Payer, held: int, cost: int | None) -> None:
        """Close the reservation of a call that was answered; None: nobody said what it cost.

        Raises:
            CostUntold: there is a cap, but neither a price nor a ceiling.
        """
        self._calls += 1
        first = payer in self._alone
        self._release(payer, held)
        if cost is None:
            self._unpriced += 1
            if self._cap is None:
                return
            if first:
                self._untold, self._refused = True, CostUntold(_UNTOLD)
                raise self._refused
            cost = held
        else:
            self._dearest[payer] = max(cost, self._dearest.get(payer, 0))
        self._spent[payer] += cost

    def lost(self, payer: Payer, held: int, *, charged: bool) -> None:
        """Close a failed call's reservation; one that may be charged counts as what was set aside."""
        self._calls += 1
        first = payer in self._alone
        self._release(payer, held)
        if charged:
            self._unpriced += 1
            self._spent[payer] += 0 if first else held

    def recall(self, payer: Payer, cost: int | None) -> None:
        """Count an answer from the journal: nothing is paid again, but its price counts towards the cap."""
        self._kept += 1
        if cost is not None:
            self._spent[payer] += cost
            self._dearest[payer] = max(cost, self._dearest.get(payer, 0))

    def owe(self, payer: Payer, held: int) -> None:
        """Count a call that an earlier, killed run had begun: it may have been charged."""
        self._unpriced += 1
        self._spent[payer] += held

    def keep(self) -> None:
        """Count an answer from the cache, which cost nothing."""
        self._kept += 1

    def certain(self, payer: Payer) -> bool:
        """Whether what is set aside for a call is an estimate and not all that is left."""
        return payer not in self._alone

    @property
    def left(self) -> int | None:
        """What is neither spent nor set aside; None without a cap."""
        return None if self._cap is None else self._cap - sum(self._spent.values()) - self._held

    @property
    def prices(self) -> dict[Payer, int]:
        """The dearest call of each kind so far (10^-12 USD)."""
        return dict(self._dearest)

    @property
    def blind(self) -> bool:
        """Whether there is a cap, and nothing to foresee a call's price from."""
        return self._cap is not None and self._ceiling is None and not self._dearest

    def learn(self, prices: Mapping[Payer, int]) -> None:
        """Hear of prices that another ledger has seen."""
        for payer, price in prices.items():
            self._dearest[payer] = max(price, self._dearest.get(payer, 0))

    def lend(self, amount: int) -> None:
        """Set so much aside for calls that another ledger counts."""
        self._held += amount

    def repaid(self, amount: int, spend: Spend) -> None:
        """Take back what was lent, less what the other ledger has spent."""
        self._held -= amount
        self._spent["target"] += spend.target_pico_usd
        self._spent["scorer"] += spend.scorers_pico_usd
        self._calls += spend.calls
        self._kept += spend.kept
        self._unpriced += spend.unpriced
        self._changed.set()

    def spend(self) -> Spend:
        """Return the count so far."""
        return Spend(
            self._cap,
            self._spent["target"],
            self._spent["scorer"],
            calls=self._calls,
            kept=self._kept,
            unpriced=self._unpriced,
        )

    def _expected(self, payer: Payer) -> int | None:
        if self._ceiling is not None:
            return self._ceiling
        dearest = self._dearest.get(payer)
        return None if dearest is None else _MARGIN * dearest

    def _release(self, payer: Payer, held: int) -> None:
        self._alone.discard(payer)
        self._held -= held
        self._changed.set()
