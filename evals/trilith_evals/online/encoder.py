"""Features as a table of numbers, for models that learn from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trilith_evals.online.record import Floats, Record


class Encoder:
    """Numbers as they are; other values by the order in which the reference has them, and -1 for new ones."""

    def __init__(self, names: Sequence[str], reference: Sequence[Record]) -> None:
        """Learn the values of the features of these names."""
        self._names = names
        self._codes: dict[str, dict[str, int]] = {name: {} for name in names}
        for record in reference:
            for name in names:
                value = record.features.get(name)
                if value is not None and not isinstance(value, int | float):
                    self._codes[name].setdefault(str(value), len(self._codes[name]))

    def table(self, records: Sequence[Record]) -> Floats:
        """Return `(records, names)`; what a record lacks is NaN."""
        table = np.full((len(records), len(self._names)), math.nan)
        for row, record in enumerate(records):
            for column, name in enumerate(self._names):
                value = record.features.get(name)
                if isinstance(value, int | float):
                    table[row, column] = value
                elif value is not None:
                    table[row, column] = self._codes[name].get(str(value), -1)
        return table
