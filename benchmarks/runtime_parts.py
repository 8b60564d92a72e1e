"""One part of benchmarks/runtime.py: models that are measured together."""

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.runtime_cells import BOOTSTRAP_SAMPLES, time_cell
from benchmarks.runtime_engines import ENGINES, Subject, worker_processes
from benchmarks.runtime_models import ModelFiles, comparison_inputs
from benchmarks.runtime_results import Results
from pipeline.artifacts.manifest import to_json
from pipeline.bootstrap import metric_estimate
from pipeline.data import encode_labels, read_labelled_text
from pipeline.metrics import METRICS
from serve import open_session

# Of memory, load time and exactness.
STARTUP_SHAPE = (1, 128)
ACCURACY_BATCH = 32


class Part:
    """The measurements of one part: the random models or the trained one."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        results: Results,
        name: str,
        pythons: dict[str, Path],
    ) -> None:
        self._arguments = arguments
        self._results = results
        self._name = name
        self._pythons = pythons
        self._logs = arguments.work_dir / "logs"
        self.content = results.content["parts"].setdefault(name, {"startup": {}, "cells": []})

    def measure(
        self, subjects: Sequence[Subject], models: Sequence[ModelFiles], names: Sequence[str]
    ) -> None:
        """Load time, memory and exactness, then all cells."""
        self.content["densities"] = dict(
            zip(names, (files.density for files in models), strict=True)
        )
        self._measure_startups(subjects, models, names)
        limit = min(files.sequence_limit for files in models)
        for threads in self._arguments.threads:
            self._measure_cells(subjects, threads, limit)

    def _measure_startups(
        self, subjects: Sequence[Subject], models: Sequence[ModelFiles], names: Sequence[str]
    ) -> None:
        """Load time, memory and logits, each engine alone in fresh processes, in turn."""
        threads = max(self._arguments.threads)
        shape = (STARTUP_SHAPE[0], min(STARTUP_SHAPE[1], models[0].sequence_limit))
        references = {}
        for files, name in zip(models, names, strict=True):
            inputs = comparison_inputs(files)
            dense = Subject(ENGINES["ort-fp32"], None, files.directory / "dense.onnx", 1)
            with worker_processes(
                [dense], {"onnxruntime": Path(sys.executable)}, self._logs
            ) as workers:
                workers[0].open(threads, shape)
                output = files.directory / "logits.npy"
                references[name] = (inputs, workers[0].logits(inputs, output))
        missing = [each for each in subjects if each.key not in self.content["startup"]]
        opened: dict[str, list[dict[str, Any]]] = {subject.key: [] for subject in missing}
        for process, subject in product(range(self._arguments.processes), missing):
            self._say(f"load time and memory {process + 1}: {subject.key}")
            with worker_processes([subject], self._pythons, self._logs) as (worker,):
                found = worker.open(threads, shape)
                worker.time(0, 1)
                found["ran"] = worker.ask("memory")
                if process == 0:
                    inputs, reference = references[subject.model or names[0]]
                    logits = worker.logits(inputs, subject.path.with_name("logits-found.npy"))
                    found["difference"] = float(np.abs(logits - reference).max())
                    found["largest"] = float(np.abs(reference).max())
                    found["plan"] = worker.ask("report").get("nodes", [])
                opened[subject.key].append(found)
        for subject in missing:
            runs = opened[subject.key]
            self._results.content["versions"][subject.engine.kind] = runs[0]["version"]
            self.content["startup"][subject.key] = {
                "engine": subject.engine.name,
                "model": subject.model,
                "file_bytes": subject.path.stat().st_size,
                "threads": threads,
                "shape": shape,
                "load_ms": float(np.median([run["load_ms"] for run in runs])),
                **{
                    f"{when}_{what}_bytes": int(np.median([run[when][what] for run in runs]))
                    for when, what in product(
                        ("before", "loaded", "ran"), ("resident", "anonymous", "peak")
                    )
                },
                "largest_logit_difference": runs[0]["difference"],
                "largest_logit": runs[0]["largest"],
                "plan": runs[0]["plan"],
            }
        self._results.save()

    def _measure_cells(self, subjects: Sequence[Subject], threads: int, limit: int) -> None:
        done = {
            (cell["threads"], cell["batch_size"], cell["sequence_length"])
            for cell in self.content["cells"]
        }
        shapes = [
            (batch, sequence)
            for batch, sequence in product(self._arguments.batches, self._arguments.sequences)
            if sequence <= limit and (threads, batch, sequence) not in done
        ]
        if not shapes:
            return
        random = Random(self._arguments.seed)
        with worker_processes(subjects, self._pythons, self._logs) as workers:
            for worker in workers:
                self._say(f"opening {worker.subject.key} on {threads} threads")
                worker.open(threads, shapes[0])
            for shape in shapes:
                self._say(f"{threads} threads, batch {shape[0]}, sequence {shape[1]}")
                cell = time_cell(workers, shape, self._arguments.seconds_per_cell, random)
                self.content["cells"].append({"threads": threads, **cell})
                self._results.save()

    def accuracy(
        self, subjects: Sequence[Subject], files: ModelFiles, exported: Path, data_file: Path
    ) -> None:
        """Accuracy on a labelled file, and against the dense fp32 model's answers."""
        session = open_session(exported)
        assert session.manifest is not None
        task = session.manifest.task
        flag = "--validation-file"
        data = read_labelled_text(
            data_file,
            flag=flag,
            text_column=task.text_column,
            text_pair_column=task.text_pair_column,
            label_column=task.label_column,
        )
        labels = np.array(encode_labels(data, task.labels, flag=flag))
        encodings = session.encode(data.texts, data.pairs)
        # Texts of like length together: little padding.
        order = np.argsort([len(encoding.ids) for encoding in encodings], kind="stable")
        arrays: dict[str, Any] = {}
        for batch, first in enumerate(range(0, len(order), ACCURACY_BATCH)):
            rows = order[first : first + ACCURACY_BATCH]
            for name, values in session.collate([encodings[row] for row in rows]).items():
                arrays[f"{name}/{batch}"] = values
        inputs = files.directory / "validation.npz"
        np.savez(inputs, **arrays)
        labels = labels[order]
        predicted = {}
        for subject in subjects:
            self._say(f"accuracy: {subject.key}")
            with worker_processes([subject], self._pythons, self._logs) as (worker,):
                worker.open(max(self._arguments.threads), (1, 32))
                logits = worker.logits(inputs, files.directory / "logits-found.npy")
            predicted[subject.key] = logits.argmax(axis=1)
        self.content["texts"] = len(labels)
        self.content["accuracy"] = {
            key: to_json(
                metric_estimate(
                    METRICS["accuracy"], guesses, labels, samples=BOOTSTRAP_SAMPLES, seed=0
                )
            )
            for key, guesses in predicted.items()
        }
        self.content["agreement"] = {
            key: float(np.mean(guesses == predicted[subjects[0].key]))
            for key, guesses in predicted.items()
        }
        self._results.save()

    def _say(self, text: str) -> None:
        print(f"{self._name}: {text}", file=sys.stderr, flush=True)
