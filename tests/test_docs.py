"""Every command in a ```bash block of the docs runs, page after page, on tiny files."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel

from pipeline.errors import MachineError
from pipeline.native import library_path

ROOT = Path(__file__).parents[1]
# In the order in which a user goes through them: each finds what the one before it wrote.
PAGES = (
    "quickstart",
    "train",
    "export",
    "small-files",
    "bench",
    "report",
    "runtime",
    "serve",
    "distributed",
    "ci-gate",
    "api",
)


def commands(page: str) -> list[list[str]]:
    """What runs each block of shell or Python on a page."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    shells = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-P", "-c"]}
    return [
        [*shells[language], quick(on_free_ports(block))]
        for language, block in blocks
        # The plugin of pytest has tests of its own.
        if not block.startswith(("pip install", "import pytest"))
    ]


def on_free_ports(block: str) -> str:
    """The block with ports that nothing on this machine listens on."""
    for port in ("8080", "8081"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            block = block.replace(port, str(free.getsockname()[1]))
    return block


def quick(block: str) -> str:
    """The block with little to time, on a machine that need not be steady for it."""
    flags = {
        "bench": "--startups 1 --repetitions 3 --bootstrap-samples 100",
        "check": "--allow-unmeasured",
    }
    for command, more in flags.items():
        block = block.replace(f"smp-pipeline {command}", f"smp-pipeline {command} {more}")
    return block


def has_native_library() -> bool:
    try:
        library_path()
    except MachineError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_commands_of_all_pages_run_in_turn(
    tiny_bert, reviews, questions, tagged_words, smp_pipeline, tmp_path
):
    shutil.copytree(tiny_bert, tmp_path / "model")
    # The benchmark's usual grid needs a model that takes 128 tokens.
    config = BertConfig.from_pretrained(tiny_bert, max_position_embeddings=128)
    BertModel(config).save_pretrained(tmp_path / "model")
    names = ("train.csv", "validation.csv", "squad-train.json", "squad-dev.json")
    names = (*names, "train.conll", "validation.conll")
    for source, name in zip((*reviews, *questions, *tagged_words), names, strict=True):
        shutil.copy(source, tmp_path / name)
    scripts = [str(smp_pipeline.parent), str(Path(sys.executable).parent)]
    environment = {**os.environ, "PATH": os.pathsep.join([*scripts, os.environ["PATH"]])}
    built = has_native_library()
    for page in PAGES:
        found = commands(page)
        assert found, page
        for command in found:
            block = command[-1]
            if not built and "engine" in block:
                continue
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=900,
            )
            # On a busy machine the latency ratio of one model to itself may pass any limit.
            allowed = (0, 1) if "smp-pipeline check" in block else (0,)
            assert done.returncode in allowed, f"{page}: {block}\n{done.stderr}"


def test_no_page_shows_a_command_that_is_not_run():
    shown = re.compile(
        r"^(?:    |\$ ?)smp-pipeline (?:train|export|bench|report|check|serve)", re.MULTILINE
    )
    for page in (ROOT / "docs").glob("*.md"):
        assert not shown.search(page.read_text(encoding="utf-8")), page.name


def anchors(page: Path) -> set[str]:
    """What links to the headings of a page end with, as GitHub makes it."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("folder", [".", "docs", "examples"])
def test_links_between_pages_lead_somewhere(folder):
    for page in (ROOT / folder).glob("*.md"):
        links = re.findall(r"\]\(([^)#:]*)(?:#([^):]*))?\)", page.read_text(encoding="utf-8"))
        for path, anchor in links:
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {path}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {path}#{anchor}"
