"""Between stages 5 and 6: moves a request to another release, and its reservation to that one's price."""

from __future__ import annotations

from trilith_gateway import charge
from trilith_gateway.budget import Budgets
from trilith_gateway.exchange import Exchange
from trilith_gateway.release import Release
from trilith_gateway.shared import LeasedBudgets
from trilith_gateway.stages.admit import Admit
from trilith_gateway.stages.route import Route


class Fallback:
    """Makes another release answer; the budget is asked again, because it may cost more."""

    def __init__(self, admit: Admit, route: Route, budgets: Budgets | LeasedBudgets) -> None:
        self._admit = admit
        self._route = route
        self._budgets = budgets

    def move(self, exchange: Exchange, release: Release) -> None:
        """Point the exchange at `release`; what the caller owes for earlier tries is booked first.

        Raises:
            BudgetExceededError: the key cannot pay for it; nothing is reserved then.
        """
        if exchange.reserved is not None:
            self._budgets.settle(
                exchange.caller, exchange.reserved, charge.owed(exchange), exchange.reserved_at
            )
            exchange.reserved = None
        exchange.release = release
        exchange.answer = exchange.reply = exchange.call = None
        exchange.usage = exchange.rule = exchange.tally = exchange.first_byte_at = None
        exchange.upstream = exchange.kept_as = ""
        exchange.tag = exchange.only = None  # its replicas have their own
        self._admit.reserve(exchange, release)
        self._route(exchange)
        exchange.fell_back = True
