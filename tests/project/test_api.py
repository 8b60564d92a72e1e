"""The reference of the Python interface, as `make api` writes it."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules() -> list[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (names,) = re.findall(r"^API_MODULES := (.*)$", makefile, flags=re.MULTILINE)
    return str(names).split()


def test_every_public_name_is_in_the_reference(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pdoc", "--docformat", "google", "--no-show-source"]
    command += ["--output-directory", str(tmp_path), *modules()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Warn" not in done.stderr, done.stderr
    for name in modules():
        page = (tmp_path / f"{name.replace('.', '/')}.html").read_text(encoding="utf-8")
        for public in getattr(importlib.import_module(name), "__all__", ()):
            assert f'id="{public}"' in page, f"{name}.{public}"


def test_the_page_names_the_modules() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in modules():
        assert f"`{name}`" in page or f"`{name}.*`" in page, name
