"""The tokenizers and classifiers of ``made_up``, as a run directory gives them."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipeline.artifacts.classifier import TextClassifier
from tests.export.vocabulary.made_up import CORPUS, KINDS, random_classifier


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tokenizer of each kind, as `AutoTokenizer` loads it."""
    loaded = {}
    for kind, (make, _) in KINDS.items():
        directory = tmp_path_factory.mktemp(kind)
        make().save_pretrained(directory)
        loaded[kind] = AutoTokenizer.from_pretrained(str(directory))
    return loaded


@pytest.fixture(scope="session")
def classifiers(tokenizers: dict[str, Any]) -> dict[str, TextClassifier]:
    """A random classifier for each tokenizer."""
    return {
        kind: random_classifier(tokenizers[kind], config_class)
        for kind, (_, config_class) in KINDS.items()
    }


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the corpus."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(CORPUS) + "\n", encoding="utf-8")
    return path
