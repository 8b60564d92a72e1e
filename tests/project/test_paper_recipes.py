"""The paper's recipes hold what follows from its rules, so that a slip of the pen is found."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import TrainConfig
from pipeline.config.train import GLUE_TASKS
from pipeline.recipe import read_recipe, resolve
from smp.schedules import BERT_BASE_PRUNED_WEIGHTS, CubicSchedules, total_steps

DIRECTORY = Path(__file__).parents[2] / "recipes" / "paper"
DENSITIES = ("0.5", "0.1", "0.03")
RECIPES = [(task, density) for task in (*GLUE_TASKS, "squad") for density in DENSITIES]

# Training examples of the data sets; SQuAD's questions, which are cut into somewhat more windows.
EXAMPLES = {
    "cola": 8551,
    "mnli": 392_702,
    "mrpc": 3668,
    "qnli": 104_743,
    "qqp": 363_846,
    "rte": 2490,
    "sst2": 67_349,
    "stsb": 5749,
    "squad": 87_599,
}
LARGE = ("mnli", "qnli", "qqp", "sst2")
STEPS_AT_DENSITY = 30_000


def paper_settings(task: str, density: float) -> dict[str, Any]:
    """What the paper and its reference implementation use, by the name of our setting."""
    settings: dict[str, Any] = {
        "method": "smp-s",
        "density": density,
        "score_init": "zero",
        "learning_rate": 2e-2,
        "lambda_": 400.0,
        "score_temperature": 1.0,
        "overflow": "clip",
        "pattern": "unstructured",
        "head": "label-words",
        "label_words": (),
        "teacher_temperature": 2.0,
        "teacher_weight": 0.5,
        "batch_size": 64 if task in LARGE else 32,
        "max_length": 384 if task == "squad" else 128,
        "steps": None,
        "gradient_accumulation_steps": 1,
        "precision": "fp32",
    }
    if task == "squad":
        settings["epochs"] = 20.0 if density == 0.03 else 10.0
        settings["stride"] = 128
        settings["density_steps"] = 22_650 if density == 0.03 else -5000
    else:
        settings["epochs"] = 12.0 if task in LARGE else 100.0 if task == "rte" else 60.0
        batches = -(-EXAMPLES[task] // settings["batch_size"])
        if batches * settings["epochs"] > STEPS_AT_DENSITY:
            settings["density_steps"] = -STEPS_AT_DENSITY
        else:
            settings["density_steps"], settings["density_fraction"] = None, 0.6
    return settings


def read(task: str, density: str) -> list[TrainConfig]:
    path = DIRECTORY / f"{task}_{density}.yaml"
    configs = [config for _, config in resolve(read_recipe(path), [], source=str(path))]
    assert all(isinstance(config, TrainConfig) for config in configs)
    return configs  # type: ignore[return-value]


def test_there_is_a_recipe_for_each_task_and_density_and_no_other() -> None:
    expected = {f"{task}_{density}.yaml" for task, density in RECIPES}
    assert {path.name for path in DIRECTORY.glob("*.yaml")} == expected


@pytest.mark.parametrize(("task", "density"), RECIPES)
def test_the_student_has_the_papers_settings(task: str, density: str) -> None:
    _, student = read(task, density)
    settings = paper_settings(task, float(density))
    assert {name: getattr(student, name) for name in settings} == settings
    total = total_steps(student, EXAMPLES[task])
    schedules = CubicSchedules.of_run(
        density=float(density),
        lambda_=student.lambda_,
        total_steps=total,
        density_fraction=student.density_fraction,
        density_steps=student.density_steps,
        pruned_weights=BERT_BASE_PRUNED_WEIGHTS,
    )
    assert 0 < schedules.density_steps < total
    assert schedules.lambda_ == 400.0


@pytest.mark.parametrize(("task", "density"), RECIPES)
def test_the_teacher_is_the_same_model_fine_tuned_in_the_same_recipe(
    task: str, density: str
) -> None:
    teacher, student = read(task, density)
    assert teacher.method == "finetune"
    assert student.teacher == teacher.output_dir
    assert teacher.output_dir == Path("runs/paper") / f"{task}_{density}" / "teacher"
    assert student.output_dir == Path("runs/paper") / f"{task}_{density}" / "smp-s"
    same = ("model", "task", "max_length", "stride")
    assert [getattr(teacher, name) for name in same] == [getattr(student, name) for name in same]
    assert (student.model, student.task) == ("google-bert/bert-base-uncased", task)


def test_the_tasks_that_are_too_short_are_those_that_the_readme_names() -> None:
    text = " ".join((DIRECTORY / "README.md").read_text().split())
    for task, name in {
        "qnli": "QNLI",
        "cola": "CoLA",
        "sst2": "SST-2",
        "stsb": "STS-B",
        "rte": "RTE",
        "mrpc": "MRPC",
    }.items():
        _, student = read(task, "0.1")
        assert f"{name} {total_steps(student, EXAMPLES[task]):,}" in text
        assert student.density_steps is None
    _, mnli = read("mnli", "0.1")
    total = total_steps(mnli, EXAMPLES["mnli"])
    assert f"({1 - STEPS_AT_DENSITY / total:.2f} of {total:,} steps)" in text
