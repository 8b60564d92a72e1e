"""Pages of 80 columns whose examples work, and what shells offer."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from pipeline.cli import app

PROGRAM = typer.main.get_command(app)
COMMANDS = PROGRAM.commands


def flags(command):
    options = [param for param in command.params if param.param_type_name == "option"]
    return [flag for option in options for flag in (*option.opts, *option.secondary_opts)]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_fits_80_columns_and_names_every_flag_in_full(command, name):
    code, page, err = command(name, "--help")
    assert (code, err) == (0, "")
    assert max(map(len, page.splitlines())) <= 80
    words = page.replace(",", " ").split()
    arguments = [p.metavar for p in COMMANDS[name].params if p.param_type_name == "argument"]
    assert {*arguments, *flags(COMMANDS[name])} <= set(words)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_common_flags_under_one_heading(command, name):
    page = command(name, "--help").out
    common = page.partition("Common options:\n")[2].partition("\n\n")[0]
    for flag in ("--json", "--quiet", "--help"):
        assert flag in common


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_page_can_be_copied(command, name):
    page = command(name, "--help").out
    examples = page.partition("Examples:\n")[2].replace("\\\n", " ").splitlines()
    assert examples
    for example in examples:
        program, word, *words = shlex.split(example)
        assert (program, word) == ("smp-pipeline", name)
        context = COMMANDS[name].make_context(name, words)
        assert name == "run" or not context.args


def test_no_line_ends_within_a_flag_or_a_choice(command):
    lines = [line for name in COMMANDS for line in command(name, "--help").out.splitlines()]
    assert not [line for line in lines if line.endswith("-")]


def test_the_page_of_the_program_has_the_first_sentence_of_each_command(command):
    code, page, _ = command("--help")
    assert code == 0
    assert max(map(len, page.splitlines())) <= 80
    text = " ".join(page.split())
    for name, entry in COMMANDS.items():
        assert f"{name} {' '.join(entry.help.partition(chr(10) * 2)[0].split())}" in text


def complete(line, shell="bash"):
    """What the console script gives a shell for a command line that ends at the cursor."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "_SMP_PIPELINE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    result = subprocess.run(
        [sys.executable, "-m", "pipeline"], capture_output=True, text=True, env=environment
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("smp-pipeline ", list(COMMANDS)),
        ("smp-pipeline ex", ["export", "export-masks"]),
        ("smp-pipeline export runs/r --form", ["--format"]),
        ("smp-pipeline train --precision ", ["auto", "fp32", "bf16", "fp16"]),
        ("smp-pipeline export runs/r --fuse g", ["gelu"]),
        ("smp-pipeline train --qui", ["--quiet"]),
        ("smp-pipeline train --no-re", ["--no-resume"]),
        ("smp-pipeline bench models/", []),  # the shell offers files then
    ],
)
def test_commands_flags_and_choices_are_completed(line, offered):
    assert [word for word in complete(line) if word] == offered


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_a_command_is_completed_and_explained_on_one_line(name):
    offered = dict(line.split("\t") for line in complete(f"smp-pipeline {name} --", shell="fish"))
    assert set(offered) >= set(flags(COMMANDS[name]))
    assert all(offered.values())


def test_zsh_is_told_choices_and_flags():
    assert complete("smp-pipeline train --device c", shell="zsh") == [
        '_arguments \'*: :(("cpu"',
        '"cuda"))\'',
    ]
    (line,) = complete("smp-pipeline train --dens", shell="zsh")[:1]
    assert line.startswith('_arguments \'*: :(("--density":"Share of')


def test_bash_completes_with_the_script_that_the_program_gives():
    script = """
    eval "$(_SMP_PIPELINE_COMPLETE=source_bash smp-pipeline)"
    COMP_WORDS=(smp-pipeline export runs/r --format p) COMP_CWORD=4
    _smp_pipeline_completion smp-pipeline
    printf '%s\\n' "${COMPREPLY[@]}"
    complete -p smp-pipeline
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
    )
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "packed",
        "complete -o default -F _smp_pipeline_completion smp-pipeline",
    ]
