"""A run directory from a mask file as SMP's authors published them."""

import dataclasses
import sys

import torch

from pipeline import __version__
from pipeline.artifacts.classifier import TextClassifier, encoder_sha256, load_encoder
from pipeline.artifacts.files import sha256_file
from pipeline.artifacts.manifest import to_json
from pipeline.artifacts.published_masks import read_published_masks
from pipeline.artifacts.run import BaseModel, DataFile, RunManifest
from pipeline.config import ImportMasksConfig
from pipeline.data import LabelledText, encode_labels, numeric_labels, read_labelled_text
from pipeline.environment import package_versions
from pipeline.errors import ConfigurationError, ModelError
from pipeline.machine import describe_machine
from pipeline.status import status_line
from smp.architectures import pruned_matrices
from smp.backbone import check_vocabulary, load_tokenizer, longest_input
from smp.device import choose_device, device_name
from smp.examples import tokenise
from smp.glue import GLUE
from smp.heads import LABEL_WORDS, label_word_head, masked_lm_head
from smp.run_files import local_path_or_hub_id, matrix_densities, overall_density, write_run
from smp.task import Task, evaluate, task_layout

__all__ = ["import_masks"]

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


def import_masks(config: ImportMasksConfig) -> RunManifest:
    """Write the run that masks from elsewhere make of a pretrained BERT.

    The head is the model's masked-language-model head, cut to the rows of the label words, and sees
    the state at the mask token, or at the first one in a text without it: the paper's.

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
        status.update("reading the masks")
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
        language_model = masked_lm_head(
            config.model, revision=config.revision, model_type=model_type
        )
        if language_model is None or tokenizer.mask_token_id is None:
            raise ModelError(
                f"--model {config.model}: it has no masked-language-model head, whose rows score "
                "the classes; give the whole pretrained checkpoint"
            )
        head, layout = label_word_head(
            language_model,
            tokenizer,
            words,
            pooling="mask",
            hidden_size=int(encoder.config.hidden_size),
        )
        classifier = TextClassifier(encoder, head, layout)
        with torch.no_grad():
            for matrix in matrices:
                matrix.module.weight.mul_(torch.from_numpy(masks[matrix.name]))
        max_length = min(config.max_length, longest_input(encoder))
        data, task = _task(config, labels)
        metrics: dict[str, float] = {}
        truncated = 0
        if config.validation_file is not None:
            status.update("scoring the validation data")
            targets: list[int] | list[float] = (
                encode_labels(data, labels, flag="--validation-file")
                if labels
                else numeric_labels(data, flag="--validation-file")
            )
            examples = tokenise(data, targets, tokenizer, max_length)
            truncated = examples.truncated
            classifier.to(device)
            metrics = evaluate(classifier, examples, task, tokenizer.pad_token_id, device)
    masks_sha256 = sha256_file(config.masks)
    masks_source = str(config.masks.resolve())
    manifest = RunManifest(
        smp_pipeline_version=__version__,
        method=config.method,
        density=overall_density(masks),
        base_model=base,
        task=task_layout(task, max_length),
        head=layout,
        train_data=DataFile(masks_source, masks_sha256, rows=0, truncated=0),
        validation_data=DataFile(
            data.source,
            None if config.validation_file is None else sha256_file(config.validation_file),
            rows=len(data),
            truncated=truncated,
        ),
        masks_sha256=None,
        head_sha256="",
        weights_sha256=None,
        matrices=matrix_densities(matrices, masks),
        metrics=metrics,
        settings={field.name: getattr(config, field.name) for field in dataclasses.fields(config)},
        versions=package_versions(_PACKAGES),
        hardware={**to_json(describe_machine()), "device": device_name(device)},
        training={"imported_from": masks_source},
    )
    manifest = write_run(config.output_dir, manifest, classifier, tokenizer, masks)
    pairs = zip(labels or ("the number",), words, strict=True)
    rows = ", ".join(f"{word} scores {label}" for label, word in pairs)
    print(f"label words: {rows}", file=sys.stderr)
    return manifest


def _labels_and_words(config: ImportMasksConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Label names in the order of the logits, none for regression, and the word of each."""
    if config.task is None:
        labels, usual = config.labels, None
    else:
        # In the order that training gives the same labels.
        by_label = LABEL_WORDS[config.task]
        regression = GLUE[config.task].kind == "regression"
        labels = () if regression else tuple(sorted(by_label))
        usual = tuple(by_label[label] for label in sorted(by_label))
        if config.task == "mnli" and not config.label_words:
            raise ConfigurationError(
                f"--label-words is needed with --task mnli, one for each of {', '.join(labels)}: "
                "the published files have Yes Maybe No, the paper (and a run of ours) "
                f"{' '.join(usual)}"
            )
    words = config.label_words or usual or ()
    if len(words) != (len(labels) or 1):
        raise ConfigurationError(
            f"--label-words: expected {len(labels) or 1} words for "
            f"{', '.join(labels) or 'one number'}, got {len(words)}"
        )
    return labels, words


def _task(config: ImportMasksConfig, labels: tuple[str, ...]) -> tuple[LabelledText, Task]:
    """The validation texts, none of them without a file, and what is to be predicted."""
    row = GLUE[config.task] if config.task is not None else None
    columns = {
        "text_column": config.text_column or (row.text_column if row else None),
        "text_pair_column": config.text_pair_column or (row.text_pair_column if row else None),
        "label_column": config.label_column,
    }
    if config.validation_file is not None:
        data = read_labelled_text(config.validation_file, flag="--validation-file", **columns)
    else:
        data = LabelledText(
            source="none",
            texts=(),
            pairs=None,
            labels=(),
            text_column=columns["text_column"] or "text",
            text_pair_column=columns["text_pair_column"],
            label_column=columns["label_column"] or "label",
        )
    kind = row.kind if row else "classification"
    return data, Task(data, data, kind, labels, row.metric if row else "accuracy")
