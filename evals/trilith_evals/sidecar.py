"""The file beside a dataset that says what it promises: `cases.schema.yaml` for `cases.jsonl`.

It holds the schema, the parts, which of them nobody may tune on, and where the rows come from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trilith_evals import atomic, table
from trilith_evals.document import read
from trilith_evals.schema import SchemaSettings
from trilith_evals.split import Split, parts


class SplitSettings(BaseModel):
    """One part of a dataset, or all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    """The part's name."""
    share: float | None = Field(None, gt=0, le=1)
    """Of all clusters, from 0 to 1."""
    start: float = Field(0, ge=0, lt=1)
    """Where the share begins; parts that do not overlap have no case in common."""
    seed: int = 0
    """Parts with different seeds are independent draws."""
    column: str | None = None
    """Take the rows where this column holds `name`, in place of a share."""

    @model_validator(mode="after")
    def _one_way(self) -> SplitSettings:
        if (self.share is None) == (self.column is None):
            raise ValueError("expected share, or column, and not both")
        if self.start + (self.share or 0) > 1:
            raise ValueError(f"the part ends at {self.start + (self.share or 0):g}, expected at most 1")
        return self

    def made(self) -> Split:
        """Return the part."""
        return Split(self.name, self.share or 0.0, self.start, self.seed, self.column)


class PartsSettings(BaseModel):
    """All parts of a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    shares: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}
    """Shares of the clusters by name, at most 1 together."""
    seed: int = 0
    """Of the draw."""
    column: str | None = None
    """The parts are named by this column, in place of shares."""

    @model_validator(mode="after")
    def _one_way(self) -> PartsSettings:
        if bool(self.shares) == (self.column is not None):
            raise ValueError("expected shares, or column, and not both")
        parts(self.shares, self.seed)
        return self

    def part(self, name: str) -> Split | None:
        """Return one part; None when there is none of this name."""
        return Split(name, column=self.column) if self.column else parts(self.shares, self.seed).get(name)


class Sidecar(SchemaSettings):
    """What stands beside a dataset."""

    description: str = ""
    """For people."""
    splits: PartsSettings | None = None
    """The parts that a suite may name."""
    held_out: bool | tuple[str, ...] = False
    """Whether nobody may tune on these cases: all of them, or the parts that are named."""
    source: dict[str, Any] = {}
    """Where the rows come from, as whoever made them says."""

    def is_held_out(self, split: str) -> bool:
        """Say whether a part is held out; the whole is, when one of its parts is."""
        if isinstance(self.held_out, bool):
            return self.held_out
        return split in self.held_out if split else bool(self.held_out)


def beside(path: Path) -> Path:
    """Return where a dataset's sidecar is, whether or not there is one."""
    return path.with_name(f"{table.stem(path)}.schema.yaml")


def read_sidecar(path: Path) -> Sidecar | None:
    """Read what stands beside a dataset; None when nothing does.

    Raises:
        SettingsError: it is wrong.
    """
    found = beside(path)
    return read(found, Sidecar)[0] if found.is_file() else None


def write_sidecar(path: Path, sidecar: Sidecar) -> Path:
    """Write what stands beside a dataset, over what is there; returns the file."""
    from trilith.extras import need

    told = sidecar.model_dump(mode="json", exclude_defaults=True)
    # `${` would be filled in from the environment when the file is read again.
    text = need("yaml", extra="evals").safe_dump(told, sort_keys=False, allow_unicode=True, width=110)
    written = beside(path)
    atomic.write(written, text.replace("${", "$${"))
    return written
