import csv
import json
import random
from pathlib import Path

import pytest

from demo import prepare as prepare_module
from demo.near_duplicates import JACCARD_THRESHOLD, jaccard, word_set
from demo.prepare import main, prepare
from pipeline.artifacts.files import sha256_file
from pipeline.errors import ConfigurationError


def read_csv(path: Path) -> list[tuple[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["text", "label"]
    return [(text, label) for text, label in rows[1:]]


def made_up_reviews(count: int) -> list[str]:
    """Lines of the rating file, positive first, many of them variants of an earlier one."""
    generator = random.Random(0)
    texts: list[str] = []
    for number in range(count):
        if texts and number % 3 == 0:
            texts.append(f"{generator.choice(texts)} indeed")
        else:
            texts.append(" ".join(f"word{generator.randrange(5000)}" for _ in range(9)))
    return [f"{n}\t{2.0 if n < count / 2 else -2.0}\t{text}" for n, text in enumerate(texts)]


def test_no_near_duplicate_crosses_the_written_split(
    archives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "_VALIDATION_SIZE", 60)
    lines = [*made_up_reviews(300), "300\t0.2\tneither good nor bad"]
    other = '1\t-1\tA, "quoted" text'
    archives.write_sdist(
        {
            "movieReviewSnippets": "\r\n".join(lines),
            "tweets": other,
            "amazonReviewSnippets": other,
            "nytEditorialSnippets": other,
        },
    )
    archives.pin()
    content = prepare(tmp_path / "data", requirements=archives.requirements)
    train = read_csv(tmp_path / "data" / "train.csv")
    validation = read_csv(tmp_path / "data" / "validation.csv")
    nearest = max(
        jaccard(word_set(one), word_set(other)) for one, _ in train for other, _ in validation
    )
    assert nearest < JACCARD_THRESHOLD
    assert len(train) + len(validation) == 300
    assert 60 <= len(validation) < 100
    assert read_csv(tmp_path / "data" / "tweets.csv") == [('A, "quoted" text', "negative")]
    labels = [label for _, label in train]
    assert content["examples"]["train"] == {
        "negative": labels.count("negative"),
        "positive": labels.count("positive"),
    }


def test_the_directory_has_all_and_says_what_it_is(archives, tmp_path: Path) -> None:
    prepare(tmp_path / "data", requirements=archives.requirements)
    content = json.loads((tmp_path / "data" / "data.json").read_text())
    assert set(content["sha256"]) == {
        "amazon.csv",
        "licenses/vaderSentiment.txt",
        "model/1_Pooling/config.json",
        "model/config.json",
        "nyt.csv",
        "train.csv",
        "tweets.csv",
        "validation.csv",
    }
    for name, digest in content["sha256"].items():
        assert sha256_file(tmp_path / "data" / name) == digest
    assert content["rules"]["archives"]["vaderSentiment"]["version"] == "2.5"


def test_what_is_there_and_intact_is_not_fetched_again(archives, tmp_path: Path) -> None:
    first = prepare(tmp_path / "data", requirements=archives.requirements)
    for archive in archives.folder.iterdir():
        archive.unlink()
    assert prepare(tmp_path / "data", requirements=archives.requirements) == first


def test_a_damaged_file_is_made_anew(archives, tmp_path: Path) -> None:
    prepare(tmp_path / "data", requirements=archives.requirements)
    before = (tmp_path / "data" / "tweets.csv").read_bytes()
    (tmp_path / "data" / "tweets.csv").write_text("text,label\n")
    prepare(tmp_path / "data", requirements=archives.requirements)
    assert (tmp_path / "data" / "tweets.csv").read_bytes() == before


def test_a_directory_of_somebody_else_is_left_alone(archives, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigurationError, match="exists and is not empty"):
        prepare(tmp_path / "data", requirements=archives.requirements)
    assert (tmp_path / "data" / "thesis.txt").read_text() == "years of work"


def test_an_error_is_one_line_and_leaves_nothing(
    archives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archives.write_sdist({"movieReviewSnippets": "1\t1\tgood"})
    archives.pin()
    monkeypatch.setattr(prepare_module, "_REQUIREMENTS", archives.requirements)
    assert main(["--output-dir", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "no member 'hutto_ICWSM_2014/tweets_GroundTruth.txt'" in error
    assert not (tmp_path / "data").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
