"""The ledger in the form of FOCUS 1.2, the FinOps Foundation's specification of cost and usage data.

One row for each day, key, model, release, price and rule. Amounts are decimal dollars with all their twelve
places, so their sum is that of the ledger. Source: https://focus.finops.org/focus-specification/v1-2/.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

from trilith.money import format_usd
from trilith.types import Kind

COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "x_CachedInputTokens",
    "x_InputTokens",
    "x_OutputTokens",
    "x_Requests",
    "x_Rule",
)

_SUMS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "rows",
    "images",
    "seconds",
    "characters",
)
_UNITS = {"images": "Images", "seconds": "Seconds", "characters": "Characters"}
"""Columns of media and what they count; one call has one of them."""
_ROWS = """
select {day} as day, team, key_id, model, kind, release, price, rule,
    sum(amount_pico_usd) as amount_pico_usd, {sums}
from ledger where amount_pico_usd is not null
group by 1, 2, 3, 4, 5, 6, 7, 8 order by 1, 2, 3, 4, 5, 6, 7, 8
"""


def statement(day: str) -> str:
    """Return the query for `rows`; `day` is the database's expression for a charge's day (UTC)."""
    return _ROWS.format(day=day, sums=", ".join(f"sum({name}) as {name}" for name in _SUMS))


def rows(found: Iterable[Any], account: str) -> list[dict[str, str]]:
    """Turn what `statement` returned into FOCUS rows.

    Charges without a price are not in it: their cost is unknown.

    Args:
        found: Rows, read by name.
        account: Whom the platform bills: its home's name.
    """
    return [_row(row, account) for row in found]


def write(rows: Iterable[dict[str, str]], file: TextIO) -> None:
    """Write rows as CSV; what FOCUS calls null is an empty field."""
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _row(row: Any, account: str) -> dict[str, str]:
    day = datetime.strptime(row["day"], "%Y-%m-%d").replace(tzinfo=UTC)
    month = day.replace(day=1)
    cost = format_usd(row["amount_pico_usd"])
    predicts = row["kind"] == Kind.PREDICTOR
    quantity = row["rows"] if predicts else row["input_tokens"] + row["output_tokens"]
    unit = "Rows" if predicts else "Tokens"
    for name, counted in _UNITS.items():
        if row[name]:
            quantity, unit = row[name], counted
    return dict.fromkeys(COLUMNS, "") | {
        "BilledCost": cost,
        "BillingAccountId": account,
        "BillingAccountName": account,
        "BillingCurrency": "USD",
        "BillingPeriodStart": _time(month),
        "BillingPeriodEnd": _time((month + timedelta(days=32)).replace(day=1)),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{row['model']} ({row['kind']})",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _time(day),
        "ChargePeriodEnd": _time(day + timedelta(days=1)),
        "ConsumedQuantity": str(quantity),
        "ConsumedUnit": unit,
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": "Trilith",
        "ListCost": cost,
        "PricingCategory": "Standard",
        "PricingQuantity": str(quantity),
        "PricingUnit": unit,
        "ProviderName": "Trilith",
        "PublisherName": "Trilith",
        "ResourceId": row["release"],
        "ResourceName": row["model"],
        "ResourceType": row["kind"],
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": row["model"],
        "ServiceSubcategory": "Machine Learning" if predicts else "Generative AI",
        "SkuId": row["model"],
        "SkuPriceId": row["price"],
        "SubAccountId": row["team"],
        "SubAccountName": row["team"],
        "Tags": json.dumps({"key": row["key_id"]}),
        "x_CachedInputTokens": str(row["cached_input_tokens"]),
        "x_InputTokens": str(row["input_tokens"]),
        "x_OutputTokens": str(row["output_tokens"]),
        "x_Requests": str(row["requests"]),
        "x_Rule": row["rule"],
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
