"""What a training step costs: fine-tuning, SMP-S, and SMP-S that sorts every matrix.

    python -m benchmarks.train_step --model DIR
    python -m benchmarks.train_step --shapes bert-base --batch-size 64 --sequence-lengths 128 \
        --precisions bf16 --device cuda

All three train the same model on the same batch, in turns of random order: `--method finetune`
trains all weights, embeddings included; SMP-S is in the middle of its run, so that its density
falls and its scores move; the third differs in the selection alone, which is the reference
implementation's. A step is all from the masks to the optimiser, as `smp-pipeline train` does it.
Peak memory is that of a process for each. The second line is the whole measurement of a GPU.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, BertConfig

from benchmarks.entry import run
from benchmarks.train_step_subjects import SUBJECTS, Setting
from benchmarks.train_step_table import write_table
from pipeline.artifacts.classifier import model_source
from pipeline.artifacts.manifest import to_json
from pipeline.bootstrap import median_estimate, ratio_estimate
from pipeline.environment import package_versions
from pipeline.errors import MachineError
from pipeline.machine import describe_machine
from smp.device import choose_device, choose_precision, device_name

PACKAGES = ("smp-pipeline", "numpy", "torch", "transformers", "accelerate")
SAMPLES = 2000


def main() -> int:
    return run(measure, parse_arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="a pretrained encoder: a directory")
    model.add_argument("--shapes", choices=["bert-base"], help="its shapes with random weights")
    add("--batch-size", type=int, default=32)
    add("--sequence-lengths", nargs="+", type=int, default=[32, 128])
    add("--precisions", nargs="+", choices=["fp32", "bf16", "fp16"], default=["fp32", "bf16"])
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--density", type=float, default=0.1, help="that the run ends with")
    add("--turns", type=int, default=30, help="timed steps of each")
    add("--warm-up", type=int, default=3, help="steps of each before")
    add("--seed", type=int, default=0)
    add("--work-dir", type=Path, default=Path("runs/train-step"))
    add("--output", type=Path, default=Path("benchmarks/results/train-step.md"))
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> None:
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    results = arguments.work_dir / "train-step.json"
    device = choose_device(arguments.device)
    content: dict[str, Any] = {
        "machine": {
            **to_json(describe_machine()),
            "device": device_name(device),
            "threads": torch.get_num_threads(),
        },
        "versions": package_versions(PACKAGES),
        "model": shapes(arguments.model),
        "cells": [],
    }
    for precision in arguments.precisions:
        choose_precision(precision, device)
        for length in arguments.sequence_lengths:
            setting = Setting(
                model=arguments.model,
                batch_size=arguments.batch_size,
                sequence_length=length,
                precision=precision,
                device=device.type,
                density=arguments.density,
                turns=arguments.turns,
                warm_up=arguments.warm_up,
                seed=arguments.seed,
            )
            print(f"{precision}, {length} tokens", file=sys.stderr, flush=True)
            content["cells"].append(measure_cell(setting))
            # After each cell, so that a measurement that is stopped leaves what it has.
            write_table(content, arguments.output)
            results.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            print(f"wrote {results}, {arguments.output}", file=sys.stderr)


def shapes(model: str | None) -> str:
    """Kind and size of a model, in words; None for BERT-base."""
    found = BertConfig() if model is None else AutoConfig.from_pretrained(model_source(model))
    return f"{found.model_type} with {found.num_hidden_layers} layers, {found.hidden_size} wide"


def measure_cell(setting: Setting) -> dict[str, Any]:
    """Times of all subjects in one process, then the memory of each in one of its own."""
    timed = worker(setting, "time")
    seconds = {name: np.array(timed["seconds"][name]) for name in SUBJECTS}
    drawn = {"samples": SAMPLES, "seed": setting.seed}
    subjects = {}
    for name, values in seconds.items():
        subjects[name] = {
            "seconds": to_json(median_estimate(values, **drawn)),
            "ratios": {
                other: to_json(ratio_estimate(values, seconds[other], **drawn))
                for other in seconds
                if other != name
            },
            "parts": timed["parts"][name],
            "trained": timed["trained"][name],
            "peak_bytes": worker(setting, name)["peak_bytes"],
        }
    return {"setting": asdict(setting), "density": timed["density"], "subjects": subjects}


def worker(setting: Setting, task: str) -> dict[str, Any]:
    """Run benchmarks/train_step_worker.py.

    Args:
        setting: what is measured.
        task: ``time``, or the subject whose memory is measured.

    Raises:
        MachineError: it failed, perhaps for want of memory.
    """
    command = [sys.executable, "-m", "benchmarks.train_step_worker"]
    command += [json.dumps(asdict(setting)), task]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise MachineError(f"measuring {setting.precision} failed: {reason}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
