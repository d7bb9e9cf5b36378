"""Model files from strangers: refused before anything in them runs, whatever their manifest says."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import pickle
import runpy
import timeit
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from trilith.errors import IntegrityError
from trilith_classical import pipeline


class Run:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def attacks(marker: Path) -> dict[str, bytes]:
    """Return files that would make `marker` when they are loaded."""
    script = marker.with_suffix(".py")
    script.write_text(f"open({str(marker)!r}, 'w').close()", "utf-8")
    touch = f"open({str(marker)!r}, 'w').close()"
    plain = {
        "the shell": Run(os.system, f"touch {marker}"),
        "eval": Run(eval, touch),
        "exec": Run(exec, touch),
        "a module that is run": Run(runpy.run_path, str(script)),
        "a timer that runs code": Run(timeit.timeit, touch, "pass", timeit.default_timer, 1),
        "a partial call": Run(functools.partial(eval, touch)),
        "within a list": [1, [Run(eval, touch)]],
    }
    files = {name: pickle.dumps(value) for name, value in plain.items()}
    files["an old protocol"] = pickle.dumps(Run(eval, touch), protocol=0)
    files["compressed, as joblib does"] = zlib.compress(files["eval"])
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr(
            "schema.json", '{"__class__": "eval", "__module__": "builtins", "__loader__": "TypeNode"}'
        )
        made.writestr("payload.pkl", files["eval"])
    files["an archive that names eval"] = archive.getvalue()
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    files["an archive of nothing"] = empty.getvalue()
    return files


NAMES = list(attacks(Path("/tmp/never-made")))


@pytest.mark.parametrize("name", NAMES)
def test_a_malicious_file_is_refused_and_nothing_in_it_runs(tmp_path: Path, name: str) -> None:
    """The manifest vouches for it, digest and all, and trusts whatever it may hold."""
    marker, path = tmp_path / "it-ran", tmp_path / "model.skops"
    path.write_bytes(attacks(marker)[name])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(IntegrityError):
        pipeline.load(
            path, digest=digest, trusted=["builtins.eval", "posix.system", "os.system", "timeit.timeit"]
        )
    assert not marker.exists()


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("an archive")])
def test_the_same_files_would_have_run(tmp_path: Path, name: str) -> None:
    """Proof that the corpus is live."""
    data = attacks(tmp_path / "it-ran")[name]
    pickle.loads(zlib.decompress(data) if name.startswith("compressed") else data)
    assert (tmp_path / "it-ran").exists()


def test_a_pipeline_with_one_byte_changed_is_refused_before_it_is_read(tmp_path: Path) -> None:
    from sklearn.dummy import DummyRegressor
    from sklearn.pipeline import Pipeline

    path = tmp_path / "model.skops"
    types = pipeline.save(Pipeline([("model", DummyRegressor())]), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert pipeline.load(path, digest=digest, trusted=types)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="not the file that was registered"):
        pipeline.load(path, digest=digest, trusted=types)


def test_a_pipeline_with_a_function_of_a_stranger_is_refused(tmp_path: Path) -> None:
    import skops.io
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer

    path = tmp_path / "model.skops"
    path.write_bytes(skops.io.dumps(Pipeline([("run", FunctionTransformer(os.system))])))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    asked = skops.io.get_untrusted_types(data=path.read_bytes())
    with pytest.raises(IntegrityError):
        pipeline.load(path, digest=digest, trusted=asked)
