"""Heads: closed forms against plain solvers, label words from a real masked-language model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from pipeline.errors import ConfigurationError
from smp.glue import GLUE
from smp.heads import (
    LABEL_WORDS,
    class_means_head,
    label_word_head,
    least_squares_head,
    linear_head,
    masked_lm_head,
)


@pytest.fixture(scope="module")
def blobs():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 2.0, 0]])
    targets = torch.arange(300) % 3
    return centres[targets] + torch.randn(300, 4, generator=generator), targets


@pytest.fixture(scope="module")
def masked_language_model(tiny_bert, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny-mlm")
    torch.manual_seed(1)
    model = BertForMaskedLM(BertConfig.from_pretrained(tiny_bert))
    torch.nn.init.normal_(model.cls.predictions.bias)
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(directory)
    return directory, model.eval()


def test_least_squares_is_the_ridge_solution_up_to_one_scale(blobs):
    features, targets = blobs
    head, layout = least_squares_head(features, targets, classes=3, pooling="mean")
    x = features.double().numpy()
    one_hot = np.eye(3)[targets.numpy()]
    centred = x - x.mean(axis=0)
    solutions = []
    for penalty in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        ridge = centred.T @ centred / len(x) + penalty * (centred**2).mean() * np.eye(4)
        solutions.append(np.linalg.solve(ridge, centred.T @ one_hot / len(x)).T)
    weight = head.output.weight.detach().double().numpy()
    cosines = [(weight * s).sum() / np.linalg.norm(weight) / np.linalg.norm(s) for s in solutions]
    assert max(cosines) == pytest.approx(1.0, abs=1e-6)
    assert (layout.kind, layout.pooling, layout.outputs) == ("least-squares", "mean", 3)


def test_least_squares_chooses_the_penalty_by_the_true_leave_one_out_error():
    # More features than the examples can determine: a brute-force loop must agree on the penalty.
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(24, 12, generator=generator)
    y = (x[:, 0] + 0.8 * torch.randn(24, generator=generator)).float()
    head, _ = least_squares_head(x, y, classes=None, pooling="first")
    errors = {}
    for penalty in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        residuals = []
        for out in range(24):
            keep = [i for i in range(24) if i != out]
            residuals.append(_ridge(x, y, penalty, keep, out))
        errors[penalty] = float(np.mean(np.square(residuals)))
    best = min(errors, key=errors.__getitem__)
    full = x.double().numpy() - x.double().numpy().mean(axis=0)
    moment = full.T @ (y.double().numpy() - y.double().numpy().mean()) / 24
    expected = np.linalg.solve(full.T @ full / 24 + best * (full**2).mean() * np.eye(12), moment)
    np.testing.assert_allclose(head.output.weight.detach()[0], expected, rtol=1e-4)


def _ridge(x, y, penalty, keep, out):
    # Leave-one-out with penalty and centring fixed by the whole data, as the closed form has it.
    full = x.double().numpy() - x.double().numpy().mean(axis=0)
    goal = y.double().numpy() - y.double().numpy().mean()
    amount = penalty * (full**2).mean() * len(full)
    design = np.hstack([full, np.ones((len(full), 1))])
    ridge = np.diag([amount] * full.shape[1] + [0.0])
    rows, values = design[keep], goal[keep]
    solution = np.linalg.solve(rows.T @ rows + ridge, rows.T @ values)
    return goal[out] - design[out] @ solution


def test_the_logit_scale_is_right_for_a_softmax(blobs):
    features, targets = blobs
    head, _ = least_squares_head(features, targets, classes=3, pooling="mean")
    logits = head(features)
    loss = torch.nn.functional.cross_entropy
    here = loss(logits, targets)
    assert here < loss(logits * 2, targets)
    assert here < loss(logits / 2, targets)


def test_regression_recovers_a_linear_function():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 5, generator=generator)
    values = features @ torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0]) + 4.0
    head, layout = least_squares_head(features, values, classes=None, pooling="first")
    assert layout.outputs == 1
    torch.testing.assert_close(head(features).squeeze(1), values, atol=0.01, rtol=0.01)


def test_class_means_prefers_the_nearest_mean(blobs):
    features, targets = blobs
    head, _ = class_means_head(features, targets, classes=3, pooling="mean")
    means = torch.stack([features[targets == label].mean(dim=0) for label in range(3)])
    nearest = torch.cdist(features, means).argmin(dim=1)
    assert torch.equal(head(features).argmax(dim=1), nearest)


def test_only_the_linear_head_learns():
    generator = torch.Generator().manual_seed(0)
    linear, _ = linear_head(4, 2, pooling="first", generator=generator)
    frozen, _ = class_means_head(torch.randn(9, 4), torch.arange(9) % 3, classes=3, pooling="first")
    assert all(parameter.requires_grad for parameter in linear.parameters())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_label_word_logits_are_the_masked_language_models_own(masked_language_model):
    directory, model = masked_language_model
    tokenizer = AutoTokenizer.from_pretrained(directory)
    found = masked_lm_head(str(directory), revision=None, model_type="bert")
    assert found is not None
    head, layout = label_word_head(found, tokenizer, ("no", "yes"), pooling="mask", hidden_size=32)
    batch = tokenizer(["the film was [MASK]", "a [MASK] story"], return_tensors="pt", padding=True)
    with torch.no_grad():
        states = model.bert(**batch).last_hidden_state
        everything = model(**batch).logits
    position = (batch["input_ids"] == tokenizer.mask_token_id).int().argmax(dim=1)
    rows = torch.arange(2)
    ids = tokenizer.convert_tokens_to_ids(["no", "yes"])
    torch.testing.assert_close(head(states[rows, position]), everything[rows, position][:, ids])
    assert layout.label_words == ("no", "yes")


def test_an_encoder_without_a_masked_language_model_has_no_such_head(tiny_bert: Path):
    assert masked_lm_head(str(tiny_bert), revision=None, model_type="bert") is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("wonderful", "yes"), r"'wonderful' is not one token .* \(it is \[UNK\]\); choose"),
        (
            ("very good", "yes"),
            r"'very good' is not one token .* \(it is very, good\); choose",
        ),
        (("lovely", "greatest"), r"'greatest' .* a word that is, for instance 'great'$"),
        (("Yes", "yes"), "Yes, yes are the tokens yes, yes, which are not all different"),
    ],
)
def test_label_words_must_be_one_token_each_and_differ(masked_language_model, words, message):
    directory, _ = masked_language_model
    tokenizer = AutoTokenizer.from_pretrained(directory)
    found = masked_lm_head(str(directory), revision=None, model_type="bert")
    with pytest.raises(ConfigurationError, match=f"--label-words: {message}"):
        label_word_head(found, tokenizer, words, pooling="mask", hidden_size=32)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """A tiny RoBERTa whose byte-level tokenizer knows whole words after a space only."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([" Yes Maybe No great terrible", " correct"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", mask_token="<mask>"
    )
    torch.manual_seed(2)
    model = RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=20,
        )
    )
    directory = tmp_path_factory.mktemp("roberta")
    model.save_pretrained(directory)
    return directory, model.eval(), tokenizer


@pytest.mark.parametrize("words", [("Yes", "Maybe", "No"), (" Yes", " No"), ("Yes",)])
def test_robertas_label_words_are_those_after_a_space(roberta, words):
    directory, model, tokenizer = roberta
    found = masked_lm_head(str(directory), revision=None, model_type="roberta")
    head, layout = label_word_head(found, tokenizer, words, pooling="mask", hidden_size=16)
    states = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    ids = tokenizer.convert_tokens_to_ids(["Ġ" + word.strip() for word in words])
    assert tokenizer.unk_token_id not in ids
    assert layout.outputs == len(words)
    with torch.no_grad():
        torch.testing.assert_close(head(states), model.lm_head(states.unsqueeze(1))[:, 0, ids])


def test_a_word_of_several_bytes_names_its_pieces_and_a_word_that_is_one(roberta):
    directory, _, tokenizer = roberta
    found = masked_lm_head(str(directory), revision=None, model_type="roberta")
    message = r"'incorrect' is not one .*\(it is Ġ, i, n, co, rrect\); .* instance 'correct'$"
    with pytest.raises(ConfigurationError, match=message):
        label_word_head(found, tokenizer, ("correct", "incorrect"), pooling="mask", hidden_size=16)


def test_every_glue_label_has_a_word():
    for task, row in GLUE.items():
        assert set(LABEL_WORDS[task]) == set(row.labels or ("score",))


def test_a_checkpoint_whose_head_is_of_another_kind_has_no_such_head(tmp_path: Path):
    config = DebertaV2Config(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        legacy=False,
    )
    DebertaV2ForMaskedLM(config).save_pretrained(tmp_path)
    assert masked_lm_head(str(tmp_path), revision=None, model_type="deberta-v2") is None


def test_features_that_are_all_equal_give_a_constant_head():
    targets = torch.tensor([0, 1, 1, 1])
    head, _ = least_squares_head(torch.ones(4, 3), targets, classes=2, pooling="first")
    logits = head(torch.randn(5, 3))
    assert torch.isfinite(logits).all()
    assert (logits.argmax(dim=1) == 1).all()
