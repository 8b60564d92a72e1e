"""The training stage: from a configuration to a finished run directory."""

import dataclasses
import math
import shutil
import time
from functools import partial
from pathlib import Path

import torch
from transformers import PrinterCallback, TrainingArguments, set_seed
from transformers.trainer_callback import ProgressCallback

from pipeline import __version__
from pipeline.artifacts.classifier import TextClassifier, encoder_sha256, load_encoder
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.manifest import to_json
from pipeline.artifacts.run import (
    BaseModel,
    DataFile,
    RunManifest,
)
from pipeline.config import TrainConfig
from pipeline.environment import package_versions
from pipeline.machine import describe_machine
from pipeline.status import status_line
from pipeline.task_files import TaskData
from smp.architectures import pruned_matrices
from smp.backbone import build_head, check_vocabulary, load_tokenizer, longest_input
from smp.device import choose_device, choose_precision, device_name, refuse_sharding
from smp.divergence import DivergenceWatch, chance_level
from smp.examples import Examples, collate
from smp.gradient_checkpointing import enable_gradient_checkpointing
from smp.methods import pruning_method
from smp.mismatched import evaluate_mismatched
from smp.patterns import check_shapes
from smp.progress import TrainingProgress
from smp.ranks import check_same_inputs
from smp.run_files import local_path_or_hub_id, matrix_densities, overall_density, write_run
from smp.schedules import CubicSchedules, total_steps
from smp.score_starts import starting_scores
from smp.scores import ScoredMatrices
from smp.scoring import evaluate, scorer
from smp.task import Task, longest_text, read_task, task_layout, tokenise_task
from smp.teacher import learn_from, open_teacher
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
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    with status_line("reading the data") as status:
        task = read_task(config)
        status.update("loading the model")
        encoder = load_encoder(config.model, revision=config.revision)
        tokenizer = load_tokenizer(config.model, revision=config.revision)
        check_vocabulary(config.model, tokenizer, encoder)
        matrices = pruned_matrices(encoder, encoder.config.model_type)
        base_sha256 = encoder_sha256(encoder)
        max_length = min(longest_text(config, task.kind), longest_input(encoder))
        status.update("tokenising the texts")
        train_examples, validation_examples = tokenise_task(task, tokenizer, max_length)
        status.update("loading the teacher")
        teacher = open_teacher(config, task, max_length, tokenizer, base_sha256)

        status.update("preparing the head and the scores")
        set_seed(config.seed)
        encoder.requires_grad_(config.trains_weights)
        head, layout = build_head(
            config, encoder, tokenizer, train_examples, task.labels, device, task=task.kind
        )
        classifier = TextClassifier(encoder, head, layout)
        if config.gradient_checkpointing:
            enable_gradient_checkpointing(encoder)
        scored = None
        if config.prunes:
            check_shapes(matrices, config.pattern)
            starts = starting_scores(
                config,
                classifier,
                matrices,
                train_examples,
                kind=task.kind,
                pad_token_id=tokenizer.pad_token_id,
                device=device,
            )
            scored = ScoredMatrices(matrices, pruning_method(config), starts)

    inputs = {
        "--model": base_sha256,
        "--train-file": _sha256(config.train_file),
        "--validation-file": _sha256(config.validation_file),
        "--teacher": teacher.sha256 if teacher else None,
    }
    with open_unfinished(config, inputs) as partial_run:
        started = time.perf_counter()
        with status_line("preparing the training"):
            trainer = _trainer(
                config,
                classifier,
                scored,
                task,
                train_examples,
                validation_examples,
                tokenizer.pad_token_id,
                device,
                precision,
                partial_run,
            )
            check_same_inputs({**to_json(config), **inputs}, trainer.args.device)
        if teacher is not None:
            learn_from(teacher, trainer, config, task, partial_run)
        checkpoint = last_checkpoint(partial_run) if config.resume else None
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.update_masks()
        trainer.check_masks()
        trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        with status_line("scoring the validation data"):
            metrics = evaluate(
                classifier, validation_examples, task, tokenizer.pad_token_id, device
            )
            metrics |= evaluate_mismatched(classifier, task, tokenizer, max_length, device)
        masks = {}
        if scored is not None:
            masks = {name: mask.numpy() for name, mask in scored.masks().items()}
            scored.detach()
        manifest = RunManifest(
            smp_pipeline_version=__version__,
            method=config.method,
            density=overall_density(masks),
            base_model=BaseModel(
                local_path_or_hub_id(config.model),
                config.revision,
                encoder.config.model_type,
                base_sha256,
                int(encoder.config.num_attention_heads),
            ),
            task=task_layout(task, max_length, metrics),
            head=layout,
            train_data=_data_file(config.train_file, task.train, train_examples),
            validation_data=_data_file(
                config.validation_file, task.validation, validation_examples
            ),
            masks_sha256=None,
            head_sha256="",
            weights_sha256=None,
            matrices=matrix_densities(matrices, masks),
            metrics=metrics,
            settings={
                field.name.rstrip("_"): getattr(config, field.name)
                for field in dataclasses.fields(config)
            },
            versions=package_versions(_PACKAGES),
            hardware={
                **to_json(describe_machine()),
                "device": device_name(device),
                "precision": precision,
            },
            pattern=config.pattern,
            training={
                "steps": trainer.state.global_step,
                "resumed_from_step": int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0,
                "seconds": round(time.perf_counter() - started, 1),
                "world_size": trainer.args.world_size,
                **({"teacher": teacher.record(config)} if teacher else {}),
            },
        )
        if trainer.is_world_process_zero():
            manifest = write_run(config.output_dir, manifest, classifier, tokenizer, masks)
            shutil.rmtree(partial_run)
        return manifest


def _trainer(
    config: TrainConfig,
    classifier: TextClassifier,
    scored: ScoredMatrices | None,
    task: Task,
    train_examples: Examples,
    validation_examples: Examples,
    pad_token_id: int,
    device: torch.device,
    precision: str,
    directory: Path,
) -> MaskTrainer:
    arguments = TrainingArguments(
        output_dir=str(directory),
        seed=config.seed,
        use_cpu=device.type == "cpu",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=max(32, config.batch_size),
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        max_grad_norm=0.0,
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
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
    total = total_steps(config, len(train_examples), arguments.world_size)
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
        task.metric,
        chance_level(task.kind, task.metric, validation_examples),
        [p for name, p in classifier.named_parameters() if name.endswith(".scores")],
        schedules,
        regularised=scored is not None and scored.method.regularised,
    )
    trainer = MaskTrainer(
        classifier,
        scored,
        schedules,
        kind=task.kind,
        args=arguments,
        train_dataset=train_examples,
        eval_dataset=validation_examples,
        data_collator=partial(collate, pad_token_id=pad_token_id),
        compute_metrics=scorer(task, validation_examples),
        callbacks=[TrainingProgress(task.metric), watch],
        weight_learning_rate=config.weight_learning_rate if config.learns_scores else None,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    place_tensorboard_logs(trainer, config.output_dir)
    return trainer


def _data_file(path: Path | None, data: TaskData, examples: Examples) -> DataFile:
    source = data.source if path is None else str(path.resolve())
    return DataFile(source, _sha256(path), rows=len(data), truncated=examples.truncated)


def _sha256(path: Path | None) -> str | None:
    return None if path is None else sha256_file(path)
