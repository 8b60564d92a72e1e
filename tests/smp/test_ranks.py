"""Two processes train one run: the same masks in both, and those of one process."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from pipeline.artifacts.masks import read_masks
from pipeline.artifacts.run import read_run
from pipeline.config import TrainConfig
from smp.ranks import check_same_inputs, mask_digest, ranks_agree
from smp.train import train
from smp.unfinished import unfinished_directory

# The command as a launcher starts it. Each process notes what it compared, and afterwards, while
# the two can still talk, what becomes of differences.
DRIVER = """
import os, pathlib
import torch
from pipeline.errors import PipelineError
from smp import ranks

rank = os.environ["RANK"]
notes = pathlib.Path(os.environ["NOTES"], rank).open("w")
digest = ranks.mask_digest

def noted(masks):
    print(digest(masks).hex(), file=notes)
    return digest(masks)

ranks.mask_digest = noted
try:
    from pipeline.__main__ import main
    main()
except SystemExit as exit:
    assert not exit.code, exit.code
    ranks.mask_digest = digest
    cpu = torch.device("cpu")
    assert ranks.ranks_agree(b"same", cpu)
    for check in (
        lambda: ranks.check_same_inputs({"--model": rank}, cpu),
        lambda: ranks.check_same_masks({"a": torch.tensor([rank == "0"])}, cpu, step=7),
    ):
        try:
            check()
        except PipelineError as error:
            print(error, file=notes)
"""


@pytest.fixture
def config(tiny_bert, reviews, tmp_path):
    """Without dropout, which each process draws for itself; an epoch of 96 examples is 6 steps."""
    settings = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = tmp_path / "model"
    encoder = BertModel.from_pretrained(tiny_bert, **settings)
    encoder.save_pretrained(model)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(model)
    assert BertConfig.from_pretrained(model).hidden_dropout_prob == 0.0
    return TrainConfig(
        model=str(model),
        output_dir=tmp_path / "run",
        train_file=reviews[0],
        validation_file=reviews[1],
        density=0.3,
        epochs=3,
        batch_size=16,
        evaluations=3,
        learning_rate=0.03,
        device="cpu",
        precision="fp32",
    )


@pytest.mark.slow
def test_two_processes_train_the_masks_of_one(config, tmp_path):
    one = train(replace(config, output_dir=tmp_path / "one"))
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "notes").mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(tmp_path / "driver.py"), "train"]
    command += ["--model", config.model, "--train-file", str(config.train_file)]
    command += ["--validation-file", str(config.validation_file), "--density", "0.3"]
    command += ["--epochs", "3", "--batch-size", "8", "--evaluations", "3", "--device", "cpu"]
    command += ["--learning-rate", "0.03", "--precision", "fp32"]
    command += ["--output-dir", str(config.output_dir)]
    environment = {**os.environ, "NOTES": str(tmp_path / "notes")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    two = read_run(config.output_dir)
    assert two.training["world_size"] == 2
    assert two.training["steps"] == one.training["steps"] == 18
    # The first process alone speaks and writes.
    assert done.stderr.count("wrote ") == 1
    assert not unfinished_directory(config.output_dir).exists()

    # Both processes had the same masks at each of three evaluations and at the end.
    first, second = ((tmp_path / "notes" / rank).read_text().splitlines() for rank in "01")
    assert first == second
    masks = read_masks(config.output_dir / "masks.safetensors")
    tensors = {name: torch.from_numpy(mask) for name, mask in masks.items()}
    assert len(set(first[:4])) == 3
    assert first[3] == mask_digest(tensors).hex()
    assert "different flags, models or data files" in first[4]
    assert "masks of the processes differ after step 7" in first[5]

    # The examples of a step are those of one process with the sum of the batches. Its gradients are
    # added up in another order, so scores that differ in the last bit alone may change places.
    train(replace(config, output_dir=tmp_path / "other", seed=1))
    alone, other = (read_masks(tmp_path / n / "masks.safetensors") for n in ("one", "other"))
    assert share_of_equal_bits(masks, alone) >= 0.999
    assert share_of_equal_bits(other, alone) < 0.99


def share_of_equal_bits(first, second):
    same = sum(int((first[name] == second[name]).sum()) for name in first)
    return same / sum(mask.size for mask in first.values())


def test_one_process_agrees_with_itself_without_asking(monkeypatch):
    cpu = torch.device("cpu")
    assert ranks_agree(b"any", cpu)
    check_same_inputs({"--seed": 1}, cpu)


def test_the_digest_of_masks_follows_every_bit_and_name():
    mask = torch.zeros(3, 5, dtype=torch.bool)
    other = mask.clone()
    other[2, 4] = True
    digests = [mask_digest({"a": mask}), mask_digest({"a": other}), mask_digest({"b": mask})]
    assert len(set(digests)) == 3
    assert mask_digest({"a": mask.clone()}) == digests[0]
    assert all(len(digest) == 32 for digest in digests)
    assert np.frombuffer(digests[0], np.uint8).size == 32
