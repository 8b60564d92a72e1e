"""The training stage: from a configuration to a finished run directory."""

import dataclasses
import math
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from pipeline import __version__
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.manifest import to_json
from pipeline.artifacts.run import BaseModel, DataFile, RunManifest
from pipeline.config import TrainConfig
from pipeline.environment import package_versions
from pipeline.machine import describe_machine
from pipeline.status import status_line
from pipeline.task_files import TaskData
from smp.device import device_name, refuse_sharding
from smp.divergence import DivergenceWatch, chance_level
from smp.examples import Examples, collate
from smp.mismatched import evaluate_mismatched
from smp.preparation import Prepared, prepare
from smp.progress import TrainingProgress
from smp.ranks import check_same_inputs
from smp.run_files import (
    Masks,
    local_path_or_hub_id,
    matrix_densities,
    overall_density,
    write_run,
)
from smp.schedules import CubicSchedules, total_steps
from smp.scoring import evaluate, scorer
from smp.task import task_layout
from smp.teacher import learn_from
from smp.trackers import check_trackers, place_tensorboard_logs
from smp.trainer import MaskTrainer
from smp.unfinished import last_checkpoint, open_unfinished

__all__ = ["train"]

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy")


def train(config: TrainConfig) -> RunManifest:
    """Learn masks (or fine-tune, for the baseline) and write the run directory.

    The run directory appears at ``config.output_dir`` when it is complete. Until then checkpoints
    are kept beside it, in ``<output_dir>.partial``, for ``--resume``.

    Returns:
        the run's manifest.

    Raises:
        PipelineError: see the subclasses for what a user can get wrong.
    """
    config = config.resolved()
    refuse_sharding()
    check_trackers(config.report_to)
    run = prepare(config)
    inputs = {
        "--model": run.base_sha256,
        "--train-file": _sha256(config.train_file),
        "--validation-file": _sha256(config.validation_file),
        "--teacher": run.teacher.sha256 if run.teacher else None,
    }
    with open_unfinished(config, inputs) as partial_run:
        started = time.perf_counter()
        with status_line("preparing the training"):
            trainer = _trainer(run, partial_run)
            check_same_inputs({**to_json(config), **inputs}, trainer.args.device)
        if run.teacher is not None:
            learn_from(run.teacher, trainer, config, run.task, partial_run)
        checkpoint = last_checkpoint(partial_run) if config.resume else None
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.update_masks()
        trainer.check_masks()
        trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        with status_line("scoring the validation data"):
            metrics = _score(run)
        masks = {}
        if run.scored is not None:
            masks = {name: mask.numpy() for name, mask in run.scored.masks().items()}
            run.scored.detach()
        training = {
            "steps": trainer.state.global_step,
            "resumed_from_step": int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0,
            "seconds": round(time.perf_counter() - started, 1),
            "world_size": trainer.args.world_size,
            **({"teacher": run.teacher.record(config)} if run.teacher else {}),
        }
        manifest = _manifest(run, masks, metrics, training)
        if trainer.is_world_process_zero():
            manifest = write_run(config.output_dir, manifest, run.classifier, run.tokenizer, masks)
            shutil.rmtree(partial_run)
        return manifest


def _trainer(run: Prepared, directory: Path) -> MaskTrainer:
    config, scored = run.config, run.scored
    arguments = TrainingArguments(
        output_dir=str(directory),
        seed=config.seed,
        use_cpu=run.device.type == "cpu",
        bf16=run.precision == "bf16",
        fp16=run.precision == "fp16",
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=max(32, config.batch_size),
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        max_grad_norm=0.0,
        remove_unused_columns=False,
        dataloader_pin_memory=run.device.type == "cuda",
        label_names=["labels"],
        logging_steps=10,
        save_total_limit=2,
        logging_nan_inf_filter=False,
        report_to=list(config.report_to) or "none",
        run_name=config.output_dir.name,
        # Each process computes its masks from the scores, which are the same in all.
        ddp_broadcast_buffers=False,
        ddp_find_unused_parameters=config.trains_weights,
        disable_tqdm=True,
    )
    # Several GPUs in one process would be DataParallel, which copies no masks: torchrun instead.
    arguments._n_gpu = min(1, arguments.n_gpu)
    total = total_steps(config, len(run.train_examples), arguments.world_size)
    arguments.max_steps = total
    every = math.ceil(total / config.evaluations)
    for stage in ("eval", "save"):
        setattr(arguments, f"{stage}_strategy", type(arguments.eval_strategy)("steps"))
        setattr(arguments, f"{stage}_steps", every)
    schedules = None
    if scored is not None:
        assert config.density is not None
        schedules = CubicSchedules.of_run(
            density=config.density,
            lambda_=config.lambda_,
            total_steps=total,
            density_fraction=config.density_fraction,
            density_steps=config.density_steps,
            pruned_weights=scored.size,
        )
        if schedules.density_steps == 0 and not config.learns_scores:
            scored.fix_masks(config.density)
    watch = DivergenceWatch(
        run.task.metric,
        chance_level(run.task.kind, run.task.metric, run.validation_examples),
        [p for name, p in run.classifier.named_parameters() if name.endswith(".scores")],
        schedules,
        regularised=scored is not None and scored.method.regularised,
        other_start=config.learns_scores and config.score_init != "magnitude",
    )
    trainer = MaskTrainer(
        run.classifier,
        scored,
        schedules,
        kind=run.task.kind,
        args=arguments,
        train_dataset=run.train_examples,
        eval_dataset=run.validation_examples,
        data_collator=partial(collate, pad_token_id=run.tokenizer.pad_token_id),
        compute_metrics=scorer(run.task, run.validation_examples),
        callbacks=[TrainingProgress(run.task.metric), watch],
        weight_learning_rate=config.weight_learning_rate if config.learns_scores else None,
        second_moment=config.second_moment,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    place_tensorboard_logs(trainer, config.output_dir)
    return trainer


def _score(run: Prepared) -> dict[str, float]:
    """The metrics of the finished model on the validation data, and on MNLI's second ones."""
    metrics = evaluate(
        run.classifier,
        run.validation_examples,
        run.task,
        run.tokenizer.pad_token_id,
        run.device,
    )
    return metrics | evaluate_mismatched(
        run.classifier, run.task, run.tokenizer, run.max_length, run.device
    )


def _manifest(
    run: Prepared, masks: Masks, metrics: dict[str, float], training: dict[str, Any]
) -> RunManifest:
    """What is known of a run before its files are written."""
    config, task, encoder = run.config, run.task, run.classifier.encoder
    return RunManifest(
        smp_pipeline_version=__version__,
        method=config.method,
        density=overall_density(masks),
        base_model=BaseModel(
            local_path_or_hub_id(config.model),
            config.revision,
            encoder.config.model_type,
            run.base_sha256,
            int(encoder.config.num_attention_heads),
        ),
        task=task_layout(task, run.max_length, metrics),
        head=run.classifier.layout,
        train_data=_data_file(config.train_file, task.train, run.train_examples),
        validation_data=_data_file(
            config.validation_file, task.validation, run.validation_examples
        ),
        masks_sha256=None,
        head_sha256="",
        weights_sha256=None,
        matrices=matrix_densities(run.matrices, masks),
        metrics=metrics,
        settings={
            field.name.rstrip("_"): getattr(config, field.name)
            for field in dataclasses.fields(config)
        },
        versions=package_versions(_PACKAGES),
        hardware={
            **to_json(describe_machine()),
            "device": device_name(run.device),
            "precision": run.precision,
        },
        pattern=config.pattern,
        training=training,
    )


def _data_file(path: Path | None, data: TaskData, examples: Examples) -> DataFile:
    source = data.source if path is None else str(path.resolve())
    return DataFile(source, _sha256(path), rows=len(data), truncated=examples.truncated)


def _sha256(path: Path | None) -> str | None:
    return None if path is None else sha256_file(path)
