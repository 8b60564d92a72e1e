"""What the base model's files hold beside the encoder is found by its values."""

import shutil

import pytest
import torch
from transformers import AutoTokenizer, BertModel

from pipeline.artifacts.base_model import BaseFiles, load_base_encoder, tensor_sha256
from pipeline.artifacts.classifier import encoder_sha256, load_encoder
from pipeline.artifacts.run import BaseModel
from pipeline.errors import ModelError


@pytest.fixture
def base(tiny_bert):
    digest = encoder_sha256(load_encoder(str(tiny_bert)))
    return BaseModel(str(tiny_bert), "main", "bert", digest)


@pytest.fixture(scope="module")
def sharded(tiny_bert, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sharded")
    BertModel.from_pretrained(str(tiny_bert)).save_pretrained(directory, max_shard_size="20kB")
    assert len(list(directory.glob("*.safetensors"))) > 1
    return directory


def test_the_recorded_revision_belongs_to_the_recorded_model_only(base):
    assert BaseFiles.locate(base, None) == BaseFiles(base.id, "main")
    assert BaseFiles.locate(base, "elsewhere") == BaseFiles("elsewhere", None)


def test_the_encoder_is_checked_by_its_hash(base, sharded):
    assert encoder_sha256(load_base_encoder(base, str(sharded), owner="the run r")) == base.sha256
    wrong = BaseModel(base.id, None, "bert", "0" * 64)
    with pytest.raises(ModelError, match=f"hash {base.sha256[:12]}, the run r belongs to"):
        load_base_encoder(wrong, None, owner="the run r")


@pytest.mark.parametrize("shards", [False, True])
def test_tensors_are_found_by_their_bits_and_read_by_name(tiny_bert, sharded, shards):
    files = BaseFiles(str(sharded if shards else tiny_bert), None)
    weights = dict(load_encoder(str(tiny_bert)).named_parameters())
    names = ("encoder.layer.0.output.dense.weight", "encoder.layer.1.attention.self.key.weight")
    wanted = {str(index): weights[name].detach() for index, name in enumerate(names)}
    nearly = wanted["0"].clone()
    nearly[0, 0] = torch.nextafter(nearly[0, 0], torch.tensor(9.0))
    others = {"nearly": nearly, "other shape": wanted["0"][:1], "flipped": wanted["0"].T}
    found = files.equal_tensors(wanted | others)
    assert found == dict(zip("01", names, strict=True))
    read = files.read_tensors(found | {"none": "no.such.tensor"})
    assert read.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert tensor_sha256(read[key]) == tensor_sha256(tensor)


def test_a_tensor_that_is_read_twice_does_not_share_memory(tiny_bert):
    name = "encoder.layer.0.output.dense.weight"
    read = BaseFiles(str(tiny_bert), None).read_tensors({"a": name, "b": name})
    read["a"].zero_()
    assert read["b"].abs().sum() > 0


def test_half_precision_tensors_are_compared_as_the_float32_that_transformers_loads(
    tiny_bert, tmp_path
):
    BertModel.from_pretrained(str(tiny_bert)).half().save_pretrained(tmp_path / "half")
    name = "encoder.layer.0.output.dense.weight"
    weight = load_encoder(str(tmp_path / "half")).get_parameter(name).detach()
    assert BaseFiles(str(tmp_path / "half"), None).equal_tensors({"w": weight}) == {"w": name}


def test_a_checkpoint_of_other_files_has_no_tensors(tiny_bert, tmp_path):
    directory = shutil.copytree(tiny_bert, tmp_path / "copy")
    (directory / "model.safetensors").rename(directory / "other.safetensors")
    files = BaseFiles(str(directory), None)
    assert files.equal_tensors({"w": torch.zeros(32, 32)}) == {}
    assert files.read_tensors({"w": "w"}) == {}


def test_the_tokenizer_is_given_as_training_saves_it(tiny_bert, tmp_path):
    directory = shutil.copytree(tiny_bert, tmp_path / "copy")
    expected = BaseFiles(str(directory), None).tokenizer()
    assert {"tokenizer.json", "tokenizer_config.json"} <= expected.keys()
    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    tokenizer.backend_tokenizer.enable_truncation(7)
    tokenizer.backend_tokenizer.enable_padding(length=7)
    tokenizer.save_pretrained(directory)
    assert b'"max_length": 7' in (directory / "tokenizer.json").read_bytes()
    assert (
        BaseFiles(str(directory), None).tokenizer()["tokenizer.json"]
        == (expected["tokenizer.json"])
    )


def test_files_that_cannot_be_read_are_one_line(tiny_bert, tmp_path):
    directory = shutil.copytree(tiny_bert, tmp_path / "copy")
    (directory / "model.safetensors").write_bytes(b"no safetensors file")
    (directory / "tokenizer.json").write_text("{")
    files = BaseFiles(str(directory), None)
    with pytest.raises(ModelError, match=f"--model {directory}: cannot be loaded"):
        files.equal_tensors({"w": torch.zeros(32, 32)})
    with pytest.raises(ModelError, match=f"--model {directory}: cannot be loaded"):
        files.tokenizer()
