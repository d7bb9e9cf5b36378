"""One MLflow run: opened before training, closed as finished or failed whatever happens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trilith_classical.registry import experiment, open_client, run_folder


class Run:
    """A run that is being recorded."""

    def __init__(self, client: Any, run_id: str, home: Path) -> None:
        self.id = run_id
        self._client = client
        self._home = home

    def record(
        self,
        *,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add values in one write."""
        import time

        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        self._client.log_batch(
            self.id,
            metrics=[Metric(name, value, now, 0) for name, value in (metrics or {}).items()],
            params=[Param(name, str(value)) for name, value in (params or {}).items()],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )

    def keep(self, file: Path) -> None:
        """Copy a file to the run's artefacts."""
        folder = run_folder(self._home, self.id)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / file.name)


@contextmanager
def track(home: Path, name: str) -> Iterator[Run]:
    """Open a run in the experiment `name`."""
    client = open_client(home)
    made = client.create_run(experiment(client, home, name), run_name=name)
    run = Run(client, str(made.info.run_id), home)
    try:
        yield run
    except BaseException:
        client.set_terminated(run.id, status="FAILED")
        raise
    client.set_terminated(run.id)
