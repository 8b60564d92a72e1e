"""A run directory from a mask file as SMP's authors published them."""

import dataclasses
import sys
from typing import Any

import torch
from transformers import PreTrainedModel

from pipeline import __version__
from pipeline.artifacts.classifier import Head, TextClassifier, encoder_sha256, load_encoder
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.manifest import to_json
from pipeline.artifacts.published_masks import read_published_masks
from pipeline.artifacts.run import (
    AnswerLayout,
    BaseModel,
    DataFile,
    HeadLayout,
    RunManifest,
    TaskKind,
    TaskLayout,
)
from pipeline.config import ImportMasksConfig, TrainConfig
from pipeline.data import LabelledText, read_labelled_text
from pipeline.environment import package_versions
from pipeline.errors import ConfigurationError, ModelError
from pipeline.machine import describe_machine
from pipeline.status import status_line
from smp.architectures import pruned_matrices
from smp.backbone import check_vocabulary, load_tokenizer, longest_input
from smp.device import choose_device, device_name
from smp.glue import GLUE
from smp.heads import ANSWER_WORDS, LABEL_WORDS, label_word_head, masked_lm_head
from smp.run_files import local_path_or_hub_id, matrix_densities, overall_density, write_run
from smp.scoring import evaluate
from smp.task import Task, tokenise_data, usual_length

__all__ = ["import_masks"]

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


def import_masks(config: ImportMasksConfig) -> RunManifest:
    """Write the run that masks from elsewhere make of a pretrained BERT.

    The head is the model's masked-language-model head, cut to the rows of the label words, and sees
    the state at the mask token, or at the first one in a text without it; for question answering
    every state. That is the paper's.

    Returns:
        the run's manifest; its metrics are empty without a validation file.

    Raises:
        PipelineError: see the subclasses for what a user can get wrong.
    """
    labels, words = _labels_and_words(config)
    device = choose_device(config.device)
    with status_line("loading the model") as status:
        encoder = load_encoder(config.model, revision=config.revision)
        model_type = encoder.config.model_type
        if model_type != "bert":
            raise ModelError(
                f"--model {config.model}: the layout of {config.masks} is BERT's, and this is "
                f"a {model_type} model; give the BERT that the masks belong to"
            )
        matrices = pruned_matrices(encoder, model_type)
        shapes = {matrix.name: tuple(matrix.module.weight.shape) for matrix in matrices}
        masks = read_published_masks(config.masks, shapes)
        tokenizer = load_tokenizer(config.model, revision=config.revision)
        check_vocabulary(config.model, tokenizer, encoder)
        base = BaseModel(
            local_path_or_hub_id(config.model),
            config.revision,
            model_type,
            encoder_sha256(encoder),
            int(encoder.config.num_attention_heads),
        )
        head, head_layout = _head(config, encoder, tokenizer, words)
        classifier = TextClassifier(encoder, head, head_layout)
        with torch.no_grad():
            for matrix in matrices:
                matrix.module.weight.mul_(torch.from_numpy(masks[matrix.name]))
        layout = _layout(config, labels, encoder)
        metrics: dict[str, float] = {}
        validation = DataFile("none", None, rows=0, truncated=0)
        if config.validation_file is not None:
            status.update("scoring the validation data")
            data = _validation_texts(config, layout)
            layout = dataclasses.replace(
                layout,
                text_column=data.text_column,
                text_pair_column=data.text_pair_column,
                label_column=data.label_column,
            )
            task = Task(data, data, layout.kind, labels, layout.metric)
            flag = "--validation-file"
            examples = tokenise_data(task, data, tokenizer, layout.max_length, flag=flag)
            metrics = evaluate(
                classifier.to(device), examples, task, tokenizer.pad_token_id, device
            )
            validation = DataFile(
                str(config.validation_file.resolve()),
                sha256_file(config.validation_file),
                rows=len(data),
                truncated=examples.truncated,
            )
    source = DataFile(str(config.masks.resolve()), sha256_file(config.masks), rows=0, truncated=0)
    manifest = RunManifest(
        smp_pipeline_version=__version__,
        method=config.method,
        density=overall_density(masks),
        base_model=base,
        task=layout,
        head=head_layout,
        train_data=source,
        validation_data=validation,
        masks_sha256=None,
        head_sha256="",
        weights_sha256=None,
        matrices=matrix_densities(matrices, masks),
        metrics=metrics,
        settings=to_json(config),
        versions=package_versions(_PACKAGES),
        hardware={**to_json(describe_machine()), "device": device_name(device)},
        training={"imported_from": source.source},
    )
    manifest = write_run(config.output_dir, manifest, classifier, tokenizer, masks)
    pairs = zip(_outputs(config, labels), words, strict=True)
    rows = ", ".join(f"{word} scores {output}" for output, word in pairs)
    print(f"label words: {rows}", file=sys.stderr)
    return manifest


def _head(
    config: ImportMasksConfig, encoder: PreTrainedModel, tokenizer: Any, words: tuple[str, ...]
) -> tuple[Head, HeadLayout]:
    """The paper's head.

    Raises:
        ConfigurationError: a word is not one token.
        ModelError: the checkpoint has no masked-language-model head.
    """
    language_model = masked_lm_head(config.model, revision=config.revision, model_type="bert")
    if language_model is None or tokenizer.mask_token_id is None:
        raise ModelError(
            f"--model {config.model}: it has no masked-language-model head, whose rows score "
            "the classes; give the whole pretrained checkpoint"
        )
    return label_word_head(
        language_model,
        tokenizer,
        words,
        pooling="tokens" if config.task == "squad" else "mask",
        hidden_size=int(encoder.config.hidden_size),
    )


def _labels_and_words(config: ImportMasksConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Label names in the order of the logits, none for other tasks, and the word of each logit."""
    labels: tuple[str, ...] = config.labels
    usual: tuple[str, ...] = ()
    if config.task == "squad":
        usual = ANSWER_WORDS
    elif config.task is not None:
        by_label = LABEL_WORDS[config.task]
        labels = GLUE[config.task].labels
        usual = tuple(by_label[label] for label in labels or by_label)
        if config.task == "mnli" and not config.label_words:
            raise ConfigurationError(
                f"--label-words is needed with --task mnli, one for each of {', '.join(labels)}: "
                "the published files have Maybe No Yes, the paper (and a run of ours) "
                f"{' '.join(usual)}"
            )
    words = config.label_words or usual
    outputs = _outputs(config, labels)
    if len(words) != len(outputs):
        raise ConfigurationError(
            f"--label-words: expected {len(outputs)} words for {', '.join(outputs)}, "
            f"got {len(words)}"
        )
    return labels, words


def _outputs(config: ImportMasksConfig, labels: tuple[str, ...]) -> tuple[str, ...]:
    """What each logit is of, for people."""
    return labels or (("the start", "the end") if config.task == "squad" else ("the number",))


def _layout(
    config: ImportMasksConfig, labels: tuple[str, ...], encoder: PreTrainedModel
) -> TaskLayout:
    """What the model predicts, and from which columns if the validation file does not say."""
    kind: TaskKind = "question-answering" if config.task == "squad" else "classification"
    layout = TaskLayout(
        kind=kind,
        labels=labels,
        text_column=config.text_column or "text",
        text_pair_column=config.text_pair_column,
        label_column=config.label_column or "label",
        max_length=min(config.max_length or usual_length(kind), longest_input(encoder)),
        metric="accuracy",
    )
    if config.task == "squad":
        return dataclasses.replace(
            layout,
            text_column=config.text_column or "question",
            text_pair_column=config.text_pair_column or "context",
            label_column=config.label_column or "answers",
            metric="squad_f1",
            answers=AnswerLayout(
                stride=TrainConfig.stride,
                max_answer_length=TrainConfig.max_answer_length,
                n_best=TrainConfig.n_best,
                no_answer=False,
            ),
        )
    if config.task is not None:
        row = GLUE[config.task]
        return dataclasses.replace(
            layout,
            kind=row.kind,
            text_column=config.text_column or row.text_column,
            text_pair_column=config.text_pair_column or row.text_pair_column,
            metric=row.metric,
        )
    return layout


def _validation_texts(config: ImportMasksConfig, layout: TaskLayout) -> LabelledText:
    assert config.validation_file is not None
    by_task = config.task is not None
    return read_labelled_text(
        config.validation_file,
        flag="--validation-file",
        text_column=layout.text_column if by_task else config.text_column,
        text_pair_column=layout.text_pair_column if by_task else config.text_pair_column,
        label_column=config.label_column,
    )
