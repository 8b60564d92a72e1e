"""The training stage: from a configuration to a finished run directory."""

import dataclasses
import math
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, PrinterCallback, TrainingArguments, set_seed
from transformers.trainer_callback import ProgressCallback

from pipeline import __version__
from pipeline.artifacts.classifier import TextClassifier, encoder_sha256, load_encoder
from pipeline.artifacts.files import sha256_file, staged_directory
from pipeline.artifacts.manifest import to_json
from pipeline.artifacts.masks import write_masks
from pipeline.artifacts.run import (
    HEAD_FILE,
    MASKS_FILE,
    WEIGHTS_FILE,
    BaseModel,
    DataFile,
    MatrixDensity,
    RunManifest,
    write_run_manifest,
)
from pipeline.config import TrainConfig
from pipeline.data import LabelledText
from pipeline.environment import package_versions
from pipeline.machine import describe_machine
from pipeline.metrics import primary_metrics
from smp.architectures import pruned_matrices
from smp.backbone import build_head, check_vocabulary, load_tokenizer, longest_input
from smp.device import choose_device, choose_precision, device_name, refuse_sharding
from smp.examples import Examples, collate
from smp.progress import TrainingProgress
from smp.schedules import CubicSchedules
from smp.scores import ScoredMatrices
from smp.task import Task, read_task, scorer, task_layout, tokenise_task
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
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    task = read_task(config)
    encoder = load_encoder(config.model, revision=config.revision)
    tokenizer = load_tokenizer(config.model, revision=config.revision)
    check_vocabulary(config.model, tokenizer, encoder)
    matrices = pruned_matrices(encoder, encoder.config.model_type)
    base_sha256 = encoder_sha256(encoder)
    max_length = min(config.max_length, longest_input(encoder))
    train_examples, validation_examples = tokenise_task(task, tokenizer, max_length)

    set_seed(config.seed)
    encoder.requires_grad_(not config.prunes)
    head, layout = build_head(config, encoder, tokenizer, train_examples, task.labels, device)
    classifier = TextClassifier(encoder, head, layout)
    scored = None
    if config.prunes:
        scored = ScoredMatrices(
            matrices,
            method="smp-l" if config.method == "smp-l" else "smp-s",
            score_init=config.score_init,
            score_init_scale=config.score_init_scale,
            temperature=config.score_temperature,
            redistribute=config.overflow == "redistribute",
        )

    with open_unfinished(config, base_sha256) as partial_run:
        started = time.perf_counter()
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
        checkpoint = last_checkpoint(partial_run) if config.resume else None
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        metrics = trainer.final_metrics()
        seconds = time.perf_counter() - started
        if scored is not None:
            masks = {name: mask.numpy() for name, mask in scored.masks().items()}
            kept, size = scored.kept(), scored.size
            scored.detach()
        else:
            masks, kept, size = {}, 1, 1
        manifest = RunManifest(
            smp_pipeline_version=__version__,
            method=config.method,
            density=kept / size,
            base_model=BaseModel(
                config.model, config.revision, encoder.config.model_type, base_sha256
            ),
            task=task_layout(task, max_length),
            head=layout,
            train_data=_data_file(config.train_file, task.train, train_examples),
            validation_data=_data_file(
                config.validation_file, task.validation, validation_examples
            ),
            masks_sha256=None,
            head_sha256="",
            weights_sha256=None,
            matrices={
                matrix.name: MatrixDensity(
                    matrix_type=matrix.matrix_type,
                    layer=matrix.layer,
                    shape=tuple(masks[matrix.name].shape),
                    kept=int(np.count_nonzero(masks[matrix.name])),
                )
                for matrix in (matrices if scored is not None else ())
            },
            metrics={
                name: metrics[f"eval_{name}"] for name in primary_metrics(task.kind, task.metric)
            },
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
            training={
                "steps": trainer.state.global_step,
                "seconds": round(seconds, 1),
                "world_size": trainer.args.world_size,
            },
        )
        if trainer.is_world_process_zero():
            manifest = _write(config.output_dir, manifest, classifier, tokenizer, masks)
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
    regression = task.kind == "regression"
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
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
    )
    # Several GPUs in one process would be DataParallel, which copies no masks: torchrun instead.
    arguments._n_gpu = min(1, arguments.n_gpu)
    batches = math.ceil(len(train_examples) / (config.batch_size * arguments.world_size))
    steps_an_epoch = math.ceil(batches / config.gradient_accumulation_steps)
    total = config.steps or math.ceil((config.epochs or 1.0) * steps_an_epoch)
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
    trainer = MaskTrainer(
        classifier,
        scored,
        schedules,
        regression=regression,
        args=arguments,
        train_dataset=train_examples,
        eval_dataset=validation_examples,
        data_collator=partial(collate, pad_token_id=pad_token_id),
        compute_metrics=scorer(task),
        callbacks=[TrainingProgress(task.metric)],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def _data_file(path: Path | None, data: LabelledText, examples: Examples) -> DataFile:
    digest = None if path is None else sha256_file(path)
    source = data.source if path is None else str(path.resolve())
    return DataFile(source, digest, rows=len(data), truncated=examples.truncated)


def _write(
    output_dir: Path,
    manifest: RunManifest,
    classifier: TextClassifier,
    tokenizer: Any,
    masks: dict[str, "np.ndarray[Any, np.dtype[np.bool_]]"],
) -> RunManifest:
    with staged_directory(output_dir) as directory:
        tokenizer.save_pretrained(directory)
        head = {n: t.detach().cpu().contiguous() for n, t in classifier.head.state_dict().items()}
        save_file(head, str(directory / HEAD_FILE))
        manifest = dataclasses.replace(manifest, head_sha256=sha256_file(directory / HEAD_FILE))
        if masks:
            write_masks(directory / MASKS_FILE, masks)
            digest = sha256_file(directory / MASKS_FILE)
            manifest = dataclasses.replace(manifest, masks_sha256=digest)
        else:
            save_file(_weights(classifier.encoder), str(directory / WEIGHTS_FILE))
            digest = sha256_file(directory / WEIGHTS_FILE)
            manifest = dataclasses.replace(manifest, weights_sha256=digest)
        write_run_manifest(directory, manifest)
    return manifest


def _weights(encoder: PreTrainedModel) -> dict[str, torch.Tensor]:
    named = encoder.named_parameters()
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in named}
