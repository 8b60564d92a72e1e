"""The order of examples, and what a checkpoint holds."""

from functools import partial

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments

from pipeline.artifacts.classifier import TextClassifier, load_encoder
from smp.architectures import pruned_matrices
from smp.distillation import Distillation, distillation_loss
from smp.examples import Examples, collate
from smp.heads import linear_head
from smp.methods import PruningMethod, ScoreBased
from smp.schedules import CubicSchedules
from smp.score_starts import initial_scores
from smp.scores import ScoredMatrices
from smp.trainer import LengthGroupedOrder, MaskTrainer


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 9), st.integers(0, 3))
@settings(deadline=None)
def test_every_example_comes_once_an_epoch(lengths, batch_size, epoch):
    order = LengthGroupedOrder(lengths, batch_size, seed=5)
    order.set_epoch(epoch)
    assert sorted(order) == list(range(len(lengths)))


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = [3, 9, 4, 4, 8, 7, 1, 2] * 5
    first, again = LengthGroupedOrder(lengths, 4, seed=1), LengthGroupedOrder(lengths, 4, seed=1)
    other = LengthGroupedOrder(lengths, 4, seed=2)
    torch.rand(3)
    assert list(first) == list(again)
    assert list(first) != list(other)
    again.set_epoch(1)
    assert list(first) != list(again)


def test_batches_hold_similar_lengths():
    lengths = torch.randint(1, 100, (1000,), generator=torch.Generator().manual_seed(0)).tolist()
    order = list(LengthGroupedOrder(lengths, 10, seed=0))
    spreads = []
    for start in range(0, 1000, 10):
        batch = [lengths[index] for index in order[start : start + 10]]
        spreads.append(max(batch) - min(batch))
    # Ten lengths drawn at random out of 1..99 spread by about eighty.
    assert sum(spreads) / len(spreads) < 10


def tiny_trainer(tiny_bert, directory, *, density=0.3, steps=4, linear=False, **more):
    encoder = load_encoder(str(tiny_bert)).requires_grad_(False)
    head, layout = linear_head(32, 2, pooling="mean", generator=torch.Generator().manual_seed(0))
    head.requires_grad_(linear)
    matrices = pruned_matrices(encoder, "bert")
    starts = [initial_scores(matrix.module.weight, "magnitude", 0.5) for matrix in matrices]
    scored = ScoredMatrices(matrices, PruningMethod(ScoreBased()), starts)
    rows = [[2, 5 + index % 20, 3] for index in range(16)]
    targets = torch.arange(16) % 2
    examples = Examples(
        {"input_ids": rows, "attention_mask": [[1] * 3 for _ in rows]}, targets, truncated=0
    )
    arguments = TrainingArguments(
        output_dir=str(directory),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        use_cpu=True,
        remove_unused_columns=False,
        label_names=["labels"],
        save_steps=2,
        report_to="none",
        disable_tqdm=True,
        max_grad_norm=0.0,
    )
    schedules = CubicSchedules(density, 2, lambda_=1.0, total_steps=steps)
    return MaskTrainer(
        TextClassifier(encoder, head, layout),
        scored,
        schedules,
        kind="classification",
        args=arguments,
        train_dataset=examples,
        eval_dataset=examples,
        data_collator=partial(collate, pad_token_id=0),
        **more,
    )


def test_only_scores_change_and_masks_follow_the_last_scores(tiny_bert, tmp_path):
    trainer = tiny_trainer(tiny_bert, tmp_path)
    frozen = {n: p.clone() for n, p in trainer.model.named_parameters() if not p.requires_grad}
    scores = [item.scores.detach().clone() for item in trainer.scored.parametrizations]
    trainer.train()
    trainer.evaluate()
    for name, parameter in trainer.model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), name
    for before, item in zip(scores, trainer.scored.parametrizations, strict=True):
        assert not torch.equal(before, item.scores)
    kept = [item.mask.clone() for item in trainer.scored.parametrizations]
    trainer.scored.update_masks(0.3)
    for mask, item in zip(kept, trainer.scored.parametrizations, strict=True):
        assert torch.equal(mask, item.mask)


def test_a_checkpoint_holds_the_trained_tensors_and_nothing_else(tiny_bert, tmp_path):
    trainer = tiny_trainer(tiny_bert, tmp_path, linear=True)
    trainer.train()
    saved = load_file(str(tmp_path / "checkpoint-4" / "model.safetensors"))
    trained = {n: p for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert set(saved) == set(trained)
    assert all(torch.equal(saved[name], trained[name]) for name in saved)
    assert any(name.startswith("head.") for name in saved)
    assert not any(name.endswith("original") for name in saved)


def test_scores_alone_share_a_second_moment(tiny_bert, tmp_path):
    trainer = tiny_trainer(tiny_bert, tmp_path, linear=True, second_moment="matrix")
    trainer.train()
    saved = torch.load(tmp_path / "checkpoint-4" / "optimizer.pt", weights_only=True)
    scores = saved["param_groups"][0]
    assert len(scores["params"]) == len(trainer.scored.parametrizations)
    for index, state in saved["state"].items():
        assert (state["exp_avg_sq"].ndim == 0) is (index in scores["params"])
    before = tiny_trainer(tiny_bert, tmp_path / "start").scored.parametrizations
    for start, item in zip(before, trainer.scored.parametrizations, strict=True):
        moved = (item.scores - start.scores).abs()
        # With a moment a weight they all move about equally far.
        assert moved.max() > 10 * moved.median() > 0.0


def test_the_teacher_has_its_share_of_the_loss_of_a_step_and_none_of_an_evaluation(
    tiny_bert, tmp_path
):
    trainer = tiny_trainer(tiny_bert, tmp_path)
    batch = collate([trainer.train_dataset[index] for index in range(4)], pad_token_id=0)
    teacher = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))

    def loss(training, **extra):
        torch.manual_seed(0)  # the same dropout
        trainer.model.train(training)
        return trainer.compute_loss(trainer.model, {**batch, **extra}, return_outputs=True)

    plain, outputs = loss(training=True)
    task = cross_entropy(outputs["logits"], batch["labels"])
    trainer.distillation = Distillation("classification", temperature=2.0, weight=0.25)
    term = distillation_loss("classification", outputs["logits"], teacher, temperature=2.0)
    taught, _ = loss(training=True, teacher_logits=teacher)
    torch.testing.assert_close(taught - plain, 0.25 * (term - task))
    trainer.distillation = Distillation("classification", 2.0, 0.25, lambda **inputs: teacher)
    torch.testing.assert_close(loss(training=True)[0], taught)
    evaluated, outputs = loss(training=False)
    torch.testing.assert_close(evaluated, cross_entropy(outputs["logits"], batch["labels"]))
