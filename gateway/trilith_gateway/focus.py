"""The ledger in the form of FOCUS 1.2, the FinOps Foundation's specification of cost and usage data.

One row for each day, key, model, release, price and rule. Amounts are decimal dollars with all their twelve
places, so their sum is that of the ledger. Source: https://focus.finops.org/focus-specification/v1-2/.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from trilith.extras import need
from trilith.money import format_usd
from trilith.types import Kind
from trilith_gateway.store.amount import read, total

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
select {day} as day, {booked} as booked, team, key_id, model, kind, release, price, rule, category, tier,
    {amount}, {sums}
from ledger where amount_pico_usd is not null and at >= ? and at < ?
group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 order by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
"""


def statement(day: str) -> str:
    """Return the query for `rows`, with the two Unix times between which charges lie as its parameters.

    `day` is the database's expression for a charge's day (UTC).
    """
    booked = day.replace("ledger.at", "coalesce(ledger.booked_at, ledger.at)")
    sums = ", ".join(f"sum({name}) as {name}" for name in _SUMS)
    return _ROWS.format(day=day, booked=booked, amount=total("amount_pico_usd"), sums=sums)


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


def write_parquet(rows: list[dict[str, str]], path: Path) -> None:
    """Write rows as a Parquet file: costs are decimals with twelve places, counts whole numbers.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    pyarrow = need("pyarrow", extra="classical")
    parquet = need("pyarrow.parquet", extra="classical")
    kinds = {name: pyarrow.decimal128(38, 12) for name in COLUMNS if name.endswith("Cost")}
    kinds |= {name: pyarrow.int64() for name in COLUMNS if name in _WHOLE}
    read = {
        name: Decimal if name in kinds and name not in _WHOLE else int if name in _WHOLE else str
        for name in COLUMNS
    }
    columns = {
        name: pyarrow.array(
            [read[name](row[name]) if row[name] != "" else None for row in rows],
            type=kinds.get(name, pyarrow.string()),
        )
        for name in COLUMNS
    }
    parquet.write_table(pyarrow.table(columns), str(path))


_WHOLE = frozenset(
    {
        "ConsumedQuantity",
        "PricingQuantity",
        "x_CachedInputTokens",
        "x_InputTokens",
        "x_OutputTokens",
        "x_Requests",
    }
)
_DESCRIPTIONS = {
    "attempt": "{model} ({kind}), a further try",
    "adjustment": "{model} ({kind}), adjustment",
    "idle": "{model}, idle time",
}


def _category(row: Any) -> str:
    """Return FOCUS' category: a server that was busier than planned gives its platform a credit."""
    if row["category"] == "adjustment":
        return "Adjustment"
    return "Credit" if row["category"] == "credit" or read(row) < 0 else "Usage"


def _row(row: Any, account: str) -> dict[str, str]:
    day, booked = (datetime.strptime(row[name], "%Y-%m-%d").replace(tzinfo=UTC) for name in ("day", "booked"))
    adjusts = row["category"] == "adjustment"
    # An adjustment is on the bill of the month in which it was made, for the day that it adjusts.
    month = (booked if adjusts else day).replace(day=1)
    later = adjusts and month > day
    cost = format_usd(read(row))
    predicts = row["kind"] == Kind.PREDICTOR
    quantity = row["rows"] if predicts else row["input_tokens"] + row["output_tokens"]
    unit = "Rows" if predicts else "Tokens"
    row_names = {"model": row["model"], "kind": row["kind"]}
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
        "ChargeCategory": _category(row),
        "ChargeClass": "Correction" if later else "",
        "ChargeDescription": _DESCRIPTIONS.get(row["category"], "{model} ({kind})").format(**row_names),
        "ChargeFrequency": "One-Time" if adjusts else "Usage-Based",
        "ChargePeriodStart": _time(day),
        "ChargePeriodEnd": _time(day + timedelta(days=1)),
        "ConsumedQuantity": "" if adjusts else str(quantity),
        "ConsumedUnit": "" if adjusts else unit,
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": "Trilith",
        "ListCost": cost,
        "PricingCategory": "Dynamic" if row["tier"] else "Standard",
        "PricingQuantity": "" if adjusts else str(quantity),
        "PricingUnit": "" if adjusts else unit,
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
        "Tags": json.dumps({"key": row["key_id"]} | ({"tier": row["tier"]} if row["tier"] else {})),
        "x_CachedInputTokens": str(row["cached_input_tokens"]),
        "x_InputTokens": str(row["input_tokens"]),
        "x_OutputTokens": str(row["output_tokens"]),
        "x_Requests": str(row["requests"]),
        "x_Rule": row["rule"],
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
