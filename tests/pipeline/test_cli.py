"""The command line as users meet it: pages, exit codes, one line for each thing that is wrong."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import pipeline
from pipeline.artifacts.benchmark import write_benchmark
from pipeline.artifacts.run import read_run
from pipeline.cli import app

COMMANDS = ["train", "export", "bench", "report", "check", "serve", "run", "info"]
COMMANDS = [*COMMANDS, "import-masks", "export-masks"]
TEXTS = "text,label\na good film,1\na bad film,0\n"


@pytest.fixture
def files(tmp_path):
    """A training and a validation file that are in order, to be overwritten with others."""
    for name in ("train.csv", "validation.csv"):
        (tmp_path / name).write_text(TEXTS)
    return tmp_path


@pytest.fixture
def train(command, tiny_bert, files):
    """A function that trains one step on the files, with flags that win over the usual ones."""

    def run(**changes):
        flags = {
            "model": tiny_bert,
            "train-file": files / "train.csv",
            "validation-file": files / "validation.csv",
            "density": 0.5,
            "steps": 1,
            "device": "cpu",
            "output-dir": files / "out" / "run",
        }
        flags |= {key.replace("_", "-"): value for key, value in changes.items()}
        given = [(f"--{key}", value) for key, value in flags.items() if value is not None]
        return command("train", *(word for pair in given for word in pair if word != ""))

    return run


def one_line(result):
    """The error of a command that ended as it should on bad input."""
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    return result.err


def test_the_version(command):
    assert command("--version") == (0, f"{pipeline.__version__}\n", "")


def test_nothing_at_all_shows_the_commands(command):
    result = command()
    assert result.code == 2
    assert "error" not in result.err
    for name in COMMANDS:
        assert name in result.out


MODEL_LIBRARIES = {
    *("torch", "transformers", "tokenizers", "datasets", "pandas"),
    *("onnx", "onnxruntime", "matplotlib"),
}
HEAVY = {*MODEL_LIBRARIES, "safetensors", "numpy", "yaml", "rich", "pydantic"}
IMPORTED = f"""
import sys
from pipeline.__main__ import main
try:
    main()
finally:
    print(sorted(set(sys.modules) & {HEAVY}), file=sys.stderr)
"""


def imported(*words, **environment):
    """Which of the packages that take long to import a command line imports."""
    result = subprocess.run(
        [sys.executable, "-c", IMPORTED, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    return ast.literal_eval(result.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    "words", [[], ["--version"], ["--help"], *([c, "--help"] for c in COMMANDS)]
)
def test_pages_import_nothing_that_takes_long(words):
    assert imported(*words) == []


@pytest.mark.parametrize("words", [["info", "RUN"], ["train"], ["export", "--format", "packd"]])
def test_early_errors_and_what_needs_no_model_wait_for_no_model_library(tiny_run, words):
    words = [tiny_run if word == "RUN" else word for word in words]
    assert not MODEL_LIBRARIES & set(imported(*words))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_wait_for_no_model_library(shell):
    line = "smp-pipeline export --format p"
    environment = {"COMP_WORDS": line, "COMP_CWORD": "3", "_TYPER_COMPLETE_ARGS": line}
    environment |= {
        "_SMP_PIPELINE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    assert not MODEL_LIBRARIES & set(imported(**environment))


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "pipeline", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f"{pipeline.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "nope", "--output-dir", "out"], "nope is no run directory"),
        (["bench", "nope", "--validation-file", "v.csv"], "nope is no model directory"),
        (["report", "nope.json"], "nope.json is missing"),
        (["check", "nope.json", "--baseline", "b.json"], "nope.json is missing"),
        (["run", "nope.yaml"], "RECIPE nope.yaml: no such file"),
        (["run", "--density", "0.1", "nope.yaml"], "give RECIPE before flags that go to its"),
        (["info", "nope"], "nope: no run directory, model directory or bench.json"),
    ],
)
def test_a_wrong_command_line_gives_one_line(command, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in one_line(command(*words))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"density": 0}, "--density must be greater than 0 and at most 1, got 0"),
        ({"density": 1.5}, "--density must be greater than 0 and at most 1, got 1.5"),
        ({"density": 10}, "--density must be greater than 0 and at most 1, got 10"),
        ({"density": "nan"}, "--density must be greater than 0 and at most 1, got nan"),
        ({"density": None}, "--density is needed for --method smp-s; try 0.1"),
        ({"train_file": "nope.csv"}, "--train-file nope.csv: no such file"),
        ({"text_column": "review"}, "expected column 'review', the file has text, label"),
        ({"label_column": "stars"}, "expected column 'stars'"),
        ({"model": "./nope"}, "--model ./nope: no such directory; give a directory or a hub id"),
        ({"output_dir": "."}, "--output-dir must be a new directory with a name, got ."),
        ({"seed": 2**40}, "--seed must be"),
    ],
)
def test_a_wrong_flag_of_train_gives_one_line(train, files, flags, message):
    assert message in one_line(train(**flags))
    assert sorted(path.name for path in files.iterdir()) == ["train.csv", "validation.csv"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.csv", "", "the file is empty"),
        ("train.csv", "text,label\n", "the file has no examples"),
        ("train.csv", "text,label\na,1\nb,1\n", "all 2 examples have the label '1'"),
        ("train.csv", "text,label\na,1\nb,nan\n", "example 2 has label None in 'label'"),
        ("validation.csv", "text,label\na,1\nb,2\n", "has the label '2', which the training data"),
    ],
)
def test_wrong_data_give_one_line(train, files, name, content, message):
    (files / name).write_text(content)
    error = one_line(train())
    assert message in error
    assert f"{files / name}" in error
    assert not (files / "out").exists()


def test_an_output_that_is_taken_or_below_a_file(train, files):
    taken = files / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    assert "exists and is not empty" in one_line(train(output_dir=taken))
    assert (taken / "notes.txt").read_text() == "mine"
    one_line(train(output_dir=taken / "notes.txt" / "run"))
    assert sorted(path.name for path in files.iterdir()) == [
        "taken",
        "train.csv",
        "validation.csv",
    ]


def test_train_writes_a_run_and_says_where(train, files):
    result = train(max_length=4)
    assert result.code == 0
    run = files / "out" / "run"
    assert f"wrote {run}" in result.err
    assert "smp-run" in result.out
    assert read_run(run).training["steps"] == 1
    assert [path.name for path in run.parent.iterdir()] == ["run"]
    # texts that the model cannot take whole are cut, counted and said
    assert "note: 2 of 2 texts in" in result.err
    assert read_run(run).train_data.truncated == 2


def test_a_dry_run_plans_and_writes_nothing(train, command, files, tiny_bert):
    flags = ["--model", tiny_bert, "--train-file", files / "train.csv", "--density", 0.25]
    flags += ["--validation-file", files / "validation.csv", "--output-dir", files / "run"]
    result = command("train", *flags, "--dry-run", "--json")
    assert result.code == 0
    plan = json.loads(result.out)
    assert plan["settings"]["density"] == 0.25
    assert plan["settings"]["epochs"] > 0  # settled, where the flags left it open
    assert len(plan) > 2  # settings, and an estimate beside the stage's name
    assert command("train", *flags, "--dry-run").code == 0
    assert sorted(path.name for path in files.iterdir()) == ["train.csv", "validation.csv"]


def test_a_dry_run_of_a_recipe_plans_every_stage_and_runs_none(command, files, tiny_bert):
    recipe = files / "recipe.yaml"
    data = {"validation-file": str(files / "validation.csv")}
    train = {"model": str(tiny_bert), "train-file": str(files / "train.csv"), **data}
    stages = {
        "train": {**train, "density": 0.5, "output-dir": str(files / "run")},
        "export": {"run": str(files / "run"), "output-dir": str(files / "model")},
        "bench": {"models": [str(files / "model")], "output": str(files / "b.json"), **data},
    }
    recipe.write_text(json.dumps(stages))  # JSON is YAML
    result = command("run", recipe, "--density", "0.125", "--dry-run")
    assert result.code == 0
    assert "0.125" in result.out
    for name in stages:
        assert f"== {name}" in result.err
    assert {path.name for path in files.iterdir()} == {"recipe.yaml", "train.csv", "validation.csv"}


def test_info_as_json_is_json(command, tiny_run):
    code, out, err = command("info", tiny_run, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["density"] == read_run(tiny_run).density


@pytest.fixture
def recipe(tmp_path, tiny_bert, reviews, make_model):
    """A recipe of all stages on tiny models; its check finds a regression."""
    train_file, validation_file = map(str, reviews)
    data = {"validation-file": validation_file}
    dense = make_model(tmp_path / "dense")
    stages = {
        "train": {
            **{"model": str(tiny_bert), "train-file": train_file, "output-dir": "run", **data},
            **{"density": 0.5, "steps": 1, "evaluations": 1, "device": "cpu"},
        },
        "export": {"run": "run", "output-dir": "model", "verification-samples": 2},
        "bench": {
            **{"models": [str(dense), "model"], **data, "max-samples": 4, "repetitions": 3},
            **{"batch-sizes": 1, "sequence-lengths": 16, "bootstrap-samples": 100, "threads": 1},
        },
        "gate": {"bench": "bench.json", "baseline": "bench.json", "max-size-ratio": 0.5},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(stages))  # JSON is YAML
    return path


def test_a_recipe_as_json_is_one_list_with_the_result_of_each_stage(command, recipe, monkeypatch):
    monkeypatch.chdir(recipe.parent)
    code, out, err = command("run", recipe, "--json", "--quiet")
    assert (code, err) == (1, "")
    results = {entry["stage"]: entry["result"] for entry in json.loads(out)}
    assert list(results) == ["train", "export", "bench", "gate"]
    assert results["train"]["density"] == pytest.approx(0.5, abs=1e-2)
    assert results["export"]["format"] == "dense"
    assert [model["name"] for model in results["bench"]["models"]] == ["dense", "model"]
    assert results["gate"]["verdict"] == "failed"


def test_a_dry_run_of_a_recipe_as_json_is_one_list_too(command, recipe):
    code, out, _ = command("run", recipe, "--json", "--dry-run")
    assert code == 0
    plans = [entry["result"] for entry in json.loads(out)]
    assert [plan["stage"] for plan in plans] == ["train", "export", "bench", "gate"]
    assert plans[1]["settings"]["format"] == "dense"


def test_a_quiet_command_prints_its_result_and_errors(command, train, files):
    result = train(quiet="", max_length=4)
    assert (result.code, result.err) == (0, "")
    assert "smp-run" in result.out
    again = train(quiet="")
    assert "exists and is not empty" in one_line(again)


def damaged(tiny_run, tmp_path, damage):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    manifest = run / "manifest.json"
    if damage == "newer schema":
        content = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**content, "schema_version": 99}))
    elif damage == "truncated manifest":
        manifest.write_bytes(manifest.read_bytes()[:100])
    else:
        masks = run / "masks.safetensors"
        masks.write_bytes(masks.read_bytes()[:-100])
    return run


def test_info_of_a_run_that_this_version_cannot_read(command, tiny_run, tmp_path):
    run = damaged(tiny_run, tmp_path, "newer schema")
    assert "has schema version 99" in one_line(command("info", run))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("newer schema", "has schema version 99, this smp-pipeline reads up to 1; upgrade"),
        ("truncated manifest", "manifest.json is corrupt"),
        ("truncated masks", "run/masks.safetensors is"),
    ],
)
def test_export_of_a_damaged_run_gives_one_line(command, tiny_run, tmp_path, damage, message):
    run = damaged(tiny_run, tmp_path, damage)
    result = command("export", run, "--output-dir", tmp_path / "model")
    assert result.code == 2
    assert message in result.err.splitlines()[-1]
    assert "Traceback" not in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_report_says_which_files_it_wrote(command, benchmark, tmp_path):
    path, output = tmp_path / "bench.json", tmp_path / "report.html"
    write_benchmark(path, benchmark)
    files = [str(output), str(output.with_suffix(".md"))]
    assert command("report", path, "--output", output) == (0, "", f"wrote {', '.join(files)}\n")
    result = command("report", path, "--output", output, "--json")
    assert json.loads(result.out) == {"files": files}
    assert all((tmp_path / name).is_file() for name in ("report.html", "report.md"))


def test_check_passes_with_0_and_fails_with_1(command, measured, tmp_path):
    path = tmp_path / "bench.json"
    write_benchmark(path, measured)
    assert command("check", path, "--baseline", path).code == 0
    result = command("check", path, "--baseline", path, "--max-size-ratio", 0.5)
    assert result.code == 1
    assert "error" not in result.err


def test_an_operating_system_error_gives_one_line(command, monkeypatch):
    def describe(path):
        raise PermissionError(13, "Permission denied", "run/manifest.json")

    monkeypatch.setattr("pipeline.info.describe", describe)
    assert one_line(command("info", "run")) == "error: run/manifest.json: Permission denied\n"


@pytest.mark.parametrize("place", ["pipeline.info.describe", "pipeline.stages.run_stage"])
def test_ctrl_c_in_any_command_ends_with_130(command, benchmark, tmp_path, monkeypatch, place):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupted)
    path = tmp_path / "bench.json"
    write_benchmark(path, benchmark)
    words = ["info", path] if "info" in place else ["check", path, "--baseline", path]
    result = command(*words)
    assert result == (130, "", "interrupted; nothing half-written was left\n")


def test_ctrl_c_while_the_command_line_is_imported(command, monkeypatch):
    class Interrupt:
        def find_spec(self, name, path=None, target=None):
            if name == "pipeline.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "pipeline.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupt(), *sys.meta_path])
    assert command("--version") == (130, "", "")


def test_the_hub_client_is_told_to_send_no_telemetry(command, monkeypatch):
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    assert command("--version")[0] == 0
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


def wait_until(true, seconds=400):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_ctrl_c_in_training_keeps_checkpoints_and_leaves_no_run(
    command, tiny_bert, reviews, tmp_path
):
    output, partial = tmp_path / "run", tmp_path / "run.partial"
    flags = ["--model", tiny_bert, "--train-file", reviews[0], "--validation-file", reviews[1]]
    flags += ["--density", 0.5, "--steps", 100_000, "--evaluations", 20_000, "--device", "cpu"]
    words = ["train", *map(str, flags), "--output-dir", str(output)]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell's background job, and so the tests in it, may ignore Ctrl-C; the command must not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_until(lambda: any(partial.glob("checkpoint-*")) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""
    assert err.splitlines()[-2:] == [
        f"{partial} is kept: go on with --resume",
        "interrupted; nothing half-written was left",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["run.partial"]
    again = command(*words)
    assert f"an unfinished run is in {partial}; add --resume" in one_line(again)


def test_the_commands_are_those_of_the_documentation():
    commands = app.registered_commands
    names = [info.name or info.callback.__name__.replace("_", "-") for info in commands]
    assert names == COMMANDS


def test_existing_outputs_of_a_recipe_can_be_skipped(command, files, tiny_bert):
    settings = f"model: {tiny_bert}, train-file: {files}/train.csv, density: 0.5, steps: 1"
    recipe = files / "recipe.yaml"
    recipe.write_text(
        f"train: [{{{settings}, validation-file: {files}/validation.csv, output-dir: {files}/one}},"
        f" {{{settings}, validation-file: {files}/validation.csv, output-dir: {files}/two}}]"
    )
    (files / "one").mkdir()
    (files / "one" / "manifest.json").write_text("kept as it is")
    refused = command("run", recipe)
    assert refused.code == 2
    assert "exists and is not empty" in refused.err
    done = command("run", recipe, "--skip-existing")
    assert done.code == 0, done.err
    assert f"skipped: {files}/one exists" in done.err
    assert read_run(files / "two").training["steps"] == 1
    assert (files / "one" / "manifest.json").read_text() == "kept as it is"


def test_a_crash_is_no_verdict(command, monkeypatch, tiny_run):
    def broken(path):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("pipeline.info.describe", broken)
    result = command("info", tiny_run)
    assert result.code == 70
    assert "ZeroDivisionError: a defect" in result.err
