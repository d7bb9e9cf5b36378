"""What pages, Markdown and annotations all say of a suite, in the same words."""

from __future__ import annotations

from trilith_evals import repeat
from trilith_evals.figure import brief
from trilith_evals.gate import Outcome
from trilith_evals.report import JudgeMark, Spend, SuiteReport

_PICO = 10**12


def harmless(text: str) -> str:
    """Return one line without what a terminal or a CI's log acts on: control characters, workflow commands.

    GitHub reads `::command::` at the start of a line, whatever wrote it; error messages and tags come from
    servers and data.
    """
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return (
        line.replace("::", ": :").replace("##[", "## [") if line.lstrip().startswith(("::", "##[")) else line
    )


def money(pico_usd: int) -> str:
    """Write an amount in US dollars, exact to the last place that counts: `$0.0125`, `$3.10`."""
    whole, rest = divmod(abs(pico_usd), _PICO)
    places = f"{rest:012d}".rstrip("0").ljust(2, "0")
    return f"{'-' if pico_usd < 0 else ''}${whole:,}.{places}"


def spent(spend: Spend) -> str:
    """Say what a run cost, on what, and how much of it was allowed."""
    parts = [f"{money(spend.total_pico_usd)} ({money(spend.target_pico_usd)} target"]
    parts[0] += f", {money(spend.scorers_pico_usd)} judges)"
    parts.append(f"cap {money(spend.cap_pico_usd)}" if spend.cap_pico_usd is not None else "no cap")
    parts.append(f"{spend.calls:,} calls")
    if spend.kept:
        parts.append(f"{spend.kept:,} kept from earlier")
    if spend.unpriced:
        parts.append(f"{spend.unpriced:,} without a price: the sum is too low")
    return ", ".join(parts)


def notes(suite: SuiteReport) -> list[str]:
    """Say in lines what must be known beside the figures: what they leave out, and what they were made by."""
    told = []
    if len(suite.rows) < suite.planned_rows:
        told.append(f"stopped when decided, after {len(suite.rows):,} of {suite.planned_rows:,} rows")
    for figure in suite.figures:
        if figure.uncorrected is not None:
            alone = brief(figure.uncorrected.value)
            told.append(f"{figure.metric} is corrected by people's labels; the judge alone says {alone}")
        if figure.bounds is not None:
            low, high = map(brief, figure.bounds)
            told.append(
                f"{figure.metric} lies from {low} to {high}, whatever the {figure.unscored:,} unscored rows "
                "are worth"
            )
    return told + repeat.table(suite.repeated)


def opinion(mark: JudgeMark) -> str:
    """Say of a judge that nobody has calibrated what it is."""
    why = f" ({mark.agreement})" if mark.agreement else ""
    return (
        f"{mark.metric} was given by {mark.judge}, which nobody has held against people's verdicts{why}: "
        "read it as an opinion."
    )


def flaky(suite: SuiteReport) -> int | None:
    """Count the cases whose repeats were not scored alike; None for a suite without repeats.

    Latency differs always, and does not count.
    """
    if suite.repeats < 2:
        return None
    seen: dict[str, set[tuple[object, ...]]] = {}
    for row in suite.rows:
        told = tuple(
            (metric, score.state, score.value)
            for metric, score in sorted(row.scores.items())
            if metric != "latency_s"
        )
        seen.setdefault(row.case.id, set()).add(told)
    return sum(len(kinds) > 1 for kinds in seen.values())


def rests_on(suite: SuiteReport) -> list[str]:
    """Say in a few lines what a suite's verdict rests on: the checks that decided it."""
    decisive = [check for check in suite.checks if check.outcome is suite.outcome]
    if suite.outcome is Outcome.PASS:
        thresholds = [check for check in decisive if check.metric]
        if not thresholds:
            return ["Nothing was demanded but coverage."]
        decisive = thresholds
    shown = [f"{check.name}: {check.message}" for check in decisive[:5]]
    if len(decisive) > 5:
        shown.append(f"and {len(decisive) - 5} more")
    return shown
