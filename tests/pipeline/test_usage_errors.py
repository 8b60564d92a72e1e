"""Mistakes on the command line: one line, with what was meant."""

import pytest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("exprot", "no such command exprot; did you mean export? see smp-pipeline --help"),
        ("zzz", "no such command zzz; see smp-pipeline --help"),
        ("--versoin", "no such flag --versoin; did you mean --version? see smp-pipeline --help"),
        (
            "--quiet train",
            "--quiet is a flag of commands; put it after the command's name; "
            "see smp-pipeline --help",
        ),
        (
            "train --densty 0.1",
            "no such flag --densty; did you mean --density? see smp-pipeline train --help",
        ),
        (
            "train --densty=0.1",
            "no such flag --densty; did you mean --density? see smp-pipeline train --help",
        ),
        (
            "train -density 0.1",
            "no such flag -density; did you mean --density? see smp-pipeline train --help",
        ),
        (
            "export r --output_dir m",
            "no such flag --output_dir; did you mean --output-dir? see smp-pipeline export --help",
        ),
        ("train --zzz 1", "no such flag --zzz; see smp-pipeline train --help"),
        ("info -x", "no such flag -x; see smp-pipeline info --help"),
        ("train", "--model is needed"),
        ("bench", "MODELS is needed"),
        ("run", "RECIPE is needed"),
        ("info a b", "got unexpected extra argument"),
        (
            "export r --output-dir m --format packd",
            "--format must be one of dense, sparse, packed, engine, triton, delta, got 'packd' "
            "(did you mean 'packed'?)",
        ),
        (
            "export r --output-dir m --fuse gleu",
            "--fuse must be one of attention, skip-layer-norm, gelu, embed-layer-norm, got 'gleu' "
            "(did you mean 'gelu'?)",
        ),
        ("serve m --port http", "--port must be a whole number, got 'http'"),
        ("check a.json --baseline b.json --max-size-ratio 2%", "must be a number, got '2%'"),
        ("check a.json --baseline=", "--baseline must be a path, got ''"),
    ],
)
def test_a_mistake_is_named_with_what_was_meant(command, words, message):
    code, out, err = command(*words.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}") or message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--densty 0.2", "--densty is a flag of no stage in the recipe; did you mean --density?"),
        ("--dry-rn", "--dry-rn is a flag of no stage in the recipe; did you mean --dry-run?"),
        ("--train.densty 0.2", "did you mean --train.density?"),
        ("--trian.density 0.2", "did you mean --train.density?"),
        ("--export.format packd", "got 'packd' (did you mean 'packed'?)"),
    ],
)
def test_a_mistake_in_the_flags_of_a_recipe_is_named_too(command, tmp_path, words, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "train: {model: m, task: sst2, density: 0.1, output-dir: out}\n"
        "export: {run: out, output-dir: model}\n"
    )
    code, out, err = command("run", recipe, *words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
