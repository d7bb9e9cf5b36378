"""A cascade over a classifier of texts that scikit-learn has trained, from the registry, through ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.gateway import StartGateway

from trilith.testing import MemoryUpstream
from trilith_classical import conversion, pipeline
from trilith_classical.manifest import ONNX, SKOPS, InputColumn, Manifest, Parity, Split, file_digest
from trilith_classical.registry import MlflowRegistry

pytestmark = [
    # MLflow's own models use what SQLAlchemy 2.1 and Python deprecate; nothing of ours can change that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
ABOUT = {
    "refund": ["i want my money back", "please refund my order", "give me back the money", "refund this"],
    "hours": ["when do you open", "opening hours on sunday", "are you open today", "when do you close"],
}


def register(home: Path) -> None:
    """Train on a few sentences, as someone would with scikit-learn, and register what came out."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = [text for each in ABOUT.values() for text in each]
    labels = [label for label, each in ABOUT.items() for _ in each]
    # Lower-casing in ONNX needs a locale that not every machine has.
    fitted: Any = make_pipeline(TfidfVectorizer(lowercase=False), LogisticRegression(C=50)).fit(texts, labels)
    folder = home / "made"
    folder.mkdir(parents=True)
    columns = (InputColumn(name="text", datatype="BYTES"),)
    trusted = pipeline.save(fitted, folder / SKOPS)
    (folder / ONNX).write_bytes(conversion.convert(fitted, columns, "classification"))
    Manifest(
        name="triage",
        task="classification",
        target="label",
        time_column=None,
        inputs=columns,
        outputs=conversion.outputs(fitted, "classification"),
        split=Split(train_rows=8, test_rows=0, trained_until=8, test_from="-"),
        metrics={},
        baseline={},
        baseline_name="-",
        parity=Parity(rows=0, max_difference=0, share_over=0, limit=1e-3),
        recipe={},
        trusted=trusted,
        digests={file: file_digest(folder / file) for file in (ONNX, SKOPS)},
    ).write(folder)
    registry = MlflowRegistry(home)
    made = registry.register("triage", str(folder), tags={})
    registry.set_alias("triage", "champion", made.version)


def test_a_trained_classifier_answers_what_it_is_sure_of(start_gateway: StartGateway, tmp_path: Path) -> None:
    register(tmp_path / "home")
    large = MemoryUpstream("from large")
    step = {"model": "triage", "confidence": 0.9, "answers": {"refund": "Refunds take five days."}}
    gateway = start_gateway(
        {"echo": large},
        echo={"cascade": [step]},
        triage={
            "kind": "predictor",
            "registered_model": "triage",
            "upstream": None,
            "price": {"usd_per_krow": "0.001"},
        },
    )
    sure = gateway.chat("please give me back my money")
    assert sure.json()["choices"][0]["message"]["content"] == "Refunds take five days."
    assert sure.headers["x-trilith-cascade"] == "triage"
    unsure = gateway.chat("tell me a story about the sea")
    assert unsure.json()["choices"][0]["message"]["content"] == "from large"
    rows = [(row["model"], row["kind"], row["rows"]) for row in gateway.ledger()]
    assert rows == [("triage", "predictor", 1), ("triage", "predictor", 1), ("echo", "chat", 0)]
    assert [row["amount_pico_usd"] for row in gateway.ledger()][:2] == [10**6, 10**6]
