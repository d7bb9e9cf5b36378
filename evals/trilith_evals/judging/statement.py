"""Says in words and a table what a judge is worth."""

from __future__ import annotations

from collections.abc import Sequence

from trilith.money import format_usd
from trilith_evals.estimate import Estimate
from trilith_evals.figure import brief
from trilith_evals.judging.calibration import Calibration
from trilith_evals.judging.hearing import Hearing
from trilith_evals.judging.pairwise import PairwiseCalibration


def agreement(hearing: Hearing) -> str:
    """Return what came of a hearing in one line, as reports quote it."""
    found = hearing.found
    if isinstance(found, PairwiseCalibration):
        parts = [
            ("kappa", found.kappa),
            ("accuracy", found.accuracy),
            ("both orders alike", found.consistency),
        ]
        over = f"{found.pairs} pairs of {hearing.data.label}"
    else:
        parts = [("kappa", found.kappa), ("precision", found.precision), ("recall", found.recall)]
        if found.spearman is not None:
            parts.append(("rank correlation", found.spearman))
        over = f"{found.labelled} labelled answers of {hearing.data.label}"
    told = ", ".join(f"{name} {cell(figure)}" for name, figure in parts if figure is not None)
    return f"{told or 'no figure is defined'} over {over}"


def statement(hearing: Hearing) -> str:
    """Return everything, as a table for a terminal."""
    settings, found = hearing.file.settings, hearing.found
    what = "pairs" if isinstance(found, PairwiseCalibration) else "answers"
    head = f"{', '.join(settings.models)} as a judge of {what}, {hearing.data.label}"
    rows = _pairwise(found) if isinstance(found, PairwiseCalibration) else _pointwise(found)
    lines = [head, *_aligned(rows)]
    for name, part in found.slices.items():
        inner = _pairwise(part) if isinstance(part, PairwiseCalibration) else _pointwise(part)
        lines += [f"{name}", *_aligned(inner)]
    for reason, count in hearing.problems.items():
        lines.append(f"  no verdict on {count} rows: {reason}")
    if hearing.aside:
        lines.append(f"  {hearing.aside}")
    if hearing.cost_pico_usd:
        lines.append(f"  the verdicts cost {format_usd(hearing.cost_pico_usd)} USD")
    return "\n".join(lines)


def cell(found: Estimate | None) -> str:
    """Return a figure with its interval."""
    if found is None:
        return "n/a"
    if found.low is None or found.high is None:
        return brief(found.value)
    return f"{brief(found.value)} [{brief(found.low)}, {brief(found.high)}]"


def _pairwise(found: PairwiseCalibration) -> list[tuple[str, str, str]]:
    return [
        ("pairs", str(found.pairs), f"{found.unread} of {2 * found.pairs} verdicts name no winner"),
        ("accuracy", cell(found.accuracy), "mean of both orders"),
        ("right in both orders", cell(found.both_right), ""),
        ("both orders alike", cell(found.consistency), ""),
        ("picks the first", cell(found.picks_first), "0.5 without bias"),
        ("Cohen's kappa", cell(found.kappa), ""),
        ("bias to position", cell(found.position_bias), "0 without bias, 1 always the first"),
        ("bias to length", cell(found.length_bias), "0 without bias, 1 always the longer"),
    ]


def _pointwise(found: Calibration) -> list[tuple[str, str, str]]:
    rows = [
        (
            "answers",
            str(found.rows),
            f"{found.labelled} labelled by people, {found.unjudged} without a verdict",
        ),
        ("agreement", cell(found.accuracy), "same step of the scale"),
        ("Cohen's kappa", cell(found.kappa), ""),
        ("Krippendorff's alpha", cell(found.alpha), "the judge as one more rater"),
    ]
    optional = [
        ("precision", found.precision, "of what the judge passes, people pass"),
        ("recall", found.recall, "of what people pass, the judge passes"),
        ("specificity", found.specificity, "of what people fail, the judge fails"),
        ("rank correlation", found.spearman, "Spearman, with the mean of people"),
        ("a person's own", found.ceiling, "Spearman with the other people: the ceiling"),
        (
            "bias to length",
            found.length_bias,
            "long answers, of those that people rate alike; share of the scale",
        ),
        ("judge's mean", found.judge_mean, "uncorrected"),
    ]
    rows += [(name, cell(figure), note) for name, figure, note in optional if figure is not None]
    if found.corrected is not None:
        told = found.corrected
        worth = "" if told.worth is None else f", worth {told.worth:.0f} labels"
        note = f"what people would say (ppi++, weight {told.weight:.2f}{worth})"
        rows.append(("corrected mean", cell(told.estimate), note))
    if found.rogan_gladen is not None:
        rows.append(("by error rates", cell(found.rogan_gladen), "the same by Rogan and Gladen"))
    return rows


def _aligned(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"  {name:<{widths[0]}}  {value:<{widths[1]}}  {note}".rstrip() for name, value, note in rows]
