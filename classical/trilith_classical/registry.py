"""The model registry: MLflow on SQLite, with a sha256 of every file, so that what is served is what was made.

Writing goes through MLflow's client. Reading does not: importing MLflow costs about three seconds of CPU,
and a gateway only asks which version an alias names. That is one read-only query over MLflow's own tables
(`model_versions`, `model_version_tags`, `registered_model_aliases`), which is always the truth, also when
someone moved the alias in MLflow's own pages; a file beside the database could fall behind it. The price is
that the tables' shape matters: MLflow is held to one minor version, and a test compares both ways of reading.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trilith.errors import DataError, IntegrityError
from trilith.extras import need
from trilith.types import RegisteredModel
from trilith_classical.manifest import FILES, ONNX, file_digest

_PATH = "trilith.path"
_DIGEST = "trilith.sha256."

_VERSION = "select version from model_versions where workspace = 'default' and name = ? and version = ?"
_TAGS = "select key, value from model_version_tags where workspace = 'default' and name = ? and version = ?"
_ALIAS = "select version from registered_model_aliases where workspace = 'default' and name = ? and alias = ?"
_TAGGED = (
    "select max(version) from model_version_tags"
    " where workspace = 'default' and name = ? and key = ? and value = ?"
)


def open_client(home: Path) -> Any:
    """Return MLflow's client on `<home>/mlflow.db`, which is made if it is missing. Imports MLflow.

    Raises:
        MissingExtra: MLflow is not installed.
    """
    # Before the import: MLflow reports its use to its makers unless it is told not to.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    need("mlflow", extra="classical")
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    home.mkdir(parents=True, exist_ok=True)
    address = f"sqlite:///{home.absolute() / 'mlflow.db'}"
    return MlflowClient(tracking_uri=address, registry_uri=address)


def run_folder(home: Path, run_id: str) -> Path:
    """Return where a run's artefacts lie: MLflow's own layout, below `home` wherever that is moved to."""
    return home / "mlartifacts" / run_id / "artifacts"


def experiment(client: Any, home: Path, name: str) -> str:
    """Return the id of the experiment `name`, which is made if it is missing."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = (home.absolute() / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=location))


class MlflowRegistry:
    """Versions and aliases of classical models, kept in one folder.

    Args:
        home: Holds `mlflow.db` and `mlartifacts/`, and may be moved as a whole.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    def register(
        self, name: str, folder: str, *, tags: Mapping[str, str], run_id: str | None = None
    ) -> RegisteredModel:
        """Store the artefacts in `folder` as the next version of `name`.

        Args:
            name: Registered model; made if it is missing.
            folder: Holds `model.onnx`, `model.skops` and `manifest.json`; copied.
            tags: Kept with the version.
            run_id: The MLflow run that made them; without it a run is made to hold them.

        Raises:
            DataError: the folder lacks a file.
        """
        digests = folder_digests(Path(folder))
        client = open_client(self._home)
        if run_id is None:
            run_id = str(client.create_run(experiment(client, self._home, name)).info.run_id)
            client.set_terminated(run_id)
        place = run_folder(self._home, run_id) / f"model-{uuid.uuid4().hex[:8]}"
        shutil.copytree(folder, place)
        own = {_DIGEST + file: digest for file, digest in digests.items()}
        own[_PATH] = place.relative_to(self._home).as_posix()
        _ensure_model(client, name)
        made = client.create_model_version(
            name, source=place.absolute().as_uri(), run_id=run_id, tags={**tags, **own}
        )
        return RegisteredModel(name, str(made.version), None, str(place), digests[ONNX])

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point `alias` at `version`.

        Raises:
            DataError: there is no such version.
        """
        self._tags(name, version)
        open_client(self._home).set_registered_model_alias(name, alias, version)

    def resolve(self, name: str, alias: str) -> RegisteredModel:
        """Return what `alias` names, after its files were held against their digests.

        Raises:
            DataError: no such model or alias.
            IntegrityError: a file is missing or is not the one that was registered.
        """
        version = self.alias_version(name, alias)
        if version is None:
            raise DataError(
                f"no version of {name!r} has the alias {alias!r} in {self._home / 'mlflow.db'}; "
                f"train one with: trilith train {name}"
            )
        return self._verified(name, version, alias)

    def open_version(self, name: str, version: str) -> RegisteredModel:
        """Return a version, whatever names it, after its files were held against their digests.

        Raises:
            DataError: there is no such version.
            IntegrityError: a file is missing or is not the one that was registered.
        """
        return self._verified(name, version, None)

    def alias_version(self, name: str, alias: str) -> str | None:
        """Return the version that `alias` names, None where there is none. Takes a millisecond."""
        found = self._query(_ALIAS, name, alias)
        return str(found[0][0]) if found else None

    def find(self, name: str, key: str, value: str) -> RegisteredModel | None:
        """Return the newest version of `name` with this tag, verified as by `resolve`; None if there is none.

        Raises:
            IntegrityError: a file is missing or is not the one that was registered.
        """
        found = self._query(_TAGGED, name, key, value)
        if not found or found[0][0] is None:
            return None
        return self._verified(name, str(found[0][0]), None)

    def _verified(self, name: str, version: str, alias: str | None) -> RegisteredModel:
        tags = self._tags(name, version)
        digests = {file: tags.get(_DIGEST + file) for file in FILES}
        if _PATH not in tags or None in digests.values():
            raise DataError(
                f"version {version} of {name!r} carries no digests, so it was not registered by Trilith; "
                f"train one with: trilith train {name}"
            )
        folder = self._home / tags[_PATH]
        for file, digest in digests.items():
            verify(folder / file, str(digest), name=name, version=version)
        return RegisteredModel(name, version, alias, str(folder), str(digests[ONNX]))

    def _tags(self, name: str, version: str) -> dict[str, str]:
        if not version.isdigit() or not self._query(_VERSION, name, int(version)):
            raise DataError(f"there is no version {version!r} of {name!r} in {self._home / 'mlflow.db'}")
        return dict(self._query(_TAGS, name, int(version)))

    def _query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        path = self._home / "mlflow.db"
        if not path.exists():
            return []
        address = f"file:{quote(str(path.absolute()))}?mode=ro"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=10)) as connection:
                return connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise DataError(
                f"{path} cannot be read as an MLflow 3.17 registry: {error}; expected the database that "
                "`trilith train` makes"
            ) from error


def folder_digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of each of a version's files.

    Raises:
        DataError: the folder lacks a file.
    """
    for file in FILES:
        if not (folder / file).is_file():
            raise DataError(f"{folder} holds no {file}; expected {', '.join(FILES)}")
    return {file: file_digest(folder / file) for file in FILES}


def verify(path: Path, digest: str, *, name: str, version: str) -> None:
    """Hold a file against its recorded sha256.

    Raises:
        IntegrityError: the file is missing or another one.
    """
    found = file_digest(path) if path.is_file() else "no file"
    if found != digest:
        raise IntegrityError(
            f"{path} is not what was registered as version {version} of {name!r}: expected sha256 "
            f"{digest[:12]}..., found {found[:12]}; restore it, or train again with: trilith train {name}"
        )


def _ensure_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
