"""The engine's operators in numpy and float64, and encoders as other exporters write them.

The operators are written from the format's and their own definition: nothing comes from export/.
"""

import io
import math
import struct
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import Tensor, nn

Feeds = dict[str, np.ndarray]

MASKS = ("dense", "bitmap", "gaps")


def decode(blob: np.ndarray) -> np.ndarray:
    """The matrix [rows, columns], float64, read byte by byte."""
    data = bytes(blob)
    magic, version, values, mask, rows, columns, nonzeros, mask_bytes = struct.unpack_from(
        "<4sHBBIIQQ", data
    )
    assert (magic, version) == (b"SMPW", 1)
    offset = 32

    def section(count: int, kind: str) -> tuple:
        nonlocal offset
        if not count:
            return ()
        while offset % 64:
            assert data[offset] == 0
            offset += 1
        content = struct.unpack_from(f"<{count}{kind}", data, offset)
        offset += struct.calcsize(f"<{count}{kind}")
        return content

    scales = section(rows, "f") if values == 2 else [1.0] * rows
    bits = section(mask_bytes, "B")
    stored = section(nonzeros, "feb"[values])
    assert offset == len(data)
    positions = []
    if MASKS[mask] == "dense":
        positions = list(range(rows * columns))
    elif MASKS[mask] == "bitmap":
        assert mask_bytes == math.ceil(rows * columns / 8)
        positions = [8 * j + i for j, byte in enumerate(bits) for i in range(8) if byte >> i & 1]
    else:
        position = -1
        for byte in bits:
            position += 255 if byte == 255 else byte + 1
            if byte != 255:
                positions.append(position)
        assert not bits or bits[-1] != 255
    assert len(positions) == nonzeros
    matrix = np.zeros(rows * columns)
    for position, value in zip(positions, stored, strict=True):
        matrix[position] = value * scales[position // columns]
    return matrix.reshape(rows, columns)


ACTIVATIONS = {
    "none": lambda x: x,
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def layer_norm(x, gamma, beta, epsilon):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon) * gamma + beta


class SmpLinear(OpRun):
    op_domain = "smp"

    def _run(self, x, blob, bias=None, residual=None, gamma=None, beta=None, **attributes):
        weight = decode(blob)
        assert weight.shape == (attributes["out_features"], attributes["in_features"])
        y = x.astype(np.float64) @ weight.T
        if bias is not None:
            y = y + bias
        y = ACTIVATIONS[attributes["activation"]](y)
        if residual is not None:
            assert residual.shape == y.shape
            y = y + residual
        if gamma is not None:
            y = layer_norm(y, gamma, beta, attributes["epsilon"])
        return (y.astype(np.float32),)


class SmpEncoder(OpRun):
    op_domain = "smp"

    def _run(self, x, mask, *tensors, **attributes):
        batch, sequence, hidden = x.shape
        heads = attributes["heads"]
        assert hidden == attributes["hidden"]
        norm = tensors[16 * attributes["layers"] :]
        assert len(norm) in (0, 2)
        if mask is None:
            mask = np.ones((batch, sequence), np.int64)
        assert mask.dtype == np.int64
        assert mask.shape == (batch, sequence)
        kept = mask != 0
        x = x.astype(np.float64)
        if norm:
            x = layer_norm(x, *norm, attributes["epsilon"])
        for layer in range(attributes["layers"]):
            given = tensors[16 * layer : 16 * (layer + 1)]
            q_w, q_b, k_w, k_b, v_w, v_b, o_w, o_b = given[:8]
            gamma1, beta1, f1_w, f1_b, f2_w, f2_b, gamma2, beta2 = given[8:]
            q, k, v = (
                (x @ decode(w).T + b).reshape(batch, sequence, heads, -1).swapaxes(1, 2)
                for w, b in ((q_w, q_b), (k_w, k_b), (v_w, v_b))
            )
            scores = attributes["scale"] * q @ k.swapaxes(2, 3)
            scores = np.where(kept[:, None, None, :], scores, -np.inf)
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            attended = (weights @ v).swapaxes(1, 2).reshape(x.shape)
            epsilon = attributes["epsilon"]
            a = layer_norm(x + attended @ decode(o_w).T + o_b, gamma1, beta1, epsilon)
            up = decode(f1_w)
            assert up.shape == (attributes["intermediate"], hidden)
            inner = ACTIVATIONS[attributes["activation"]](a @ up.T + f1_b)
            x = layer_norm(a + inner @ decode(f2_w).T + f2_b, gamma2, beta2, epsilon)
        x = np.where(kept[..., None], x, 0.0)
        if attributes["tokens"] == "first":
            x = x[:, :1]
        return (x.astype(np.float32),)


@pytest.fixture(scope="session")
def decode_blob() -> Callable[[np.ndarray], np.ndarray]:
    """Reads encoded weights byte by byte: float64 [rows, columns]."""
    return decode


@pytest.fixture(scope="session")
def run_reference() -> Callable[[onnx.ModelProto, Feeds], list[np.ndarray]]:
    """Runs a graph with operators of the engine in numpy."""

    def run(model: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
        return ReferenceEvaluator(model, new_ops=[SmpLinear, SmpEncoder]).run(None, feeds)

    return run


class Layer(nn.Module):
    """One encoder layer, with the variations that decide whether the engine has an operator."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.options = options
        self.query, self.key, self.value, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        epsilons = options.get("epsilons", (1e-12, 1e-12))
        self.norm1, self.norm2 = (nn.LayerNorm(32, eps=epsilon) for epsilon in epsilons)
        for norm in (self.norm1, self.norm2):
            nn.init.normal_(norm.weight, mean=1.0, std=0.2)
            nn.init.normal_(norm.bias, std=0.2)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        options, heads = self.options, 4
        before = self.norm1(x) if options.get("pre_norm") else x
        q, k, v = (
            linear(before).view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(2, 3) * options.get("scale", 8**-0.5)
        if options.get("distance"):
            steps = torch.arange(x.shape[1])
            scores = scores - 0.1 * (steps[:, None] - steps[None, :]).abs()
        if options.get("causal"):
            steps = torch.arange(x.shape[1])
            scores = scores.masked_fill(steps[None, :] > steps[:, None], -1e9)
        if bias is not None:
            scores = scores + bias
        attended = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(x.shape)
        activation = options.get("activation", nn.functional.gelu)
        if options.get("pre_norm"):
            a = x + self.out(attended)
            return a + self.down(activation(self.up(self.norm2(a))))
        a = self.norm1(x + self.out(attended))
        return self.norm2(a + self.down(activation(self.up(a))))


class Encoder(nn.Module):
    """Embeddings, layers and a pooling, all small."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self.words = nn.Embedding(50, 32)
        self.positions = nn.Embedding(40, 32)
        self.layers = nn.ModuleList(Layer(options) for _ in range(options.get("layers", 2)))
        self.head = nn.Linear(32, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        x = self.words(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        if self.options.get("mask") == "of ids":
            attention_mask = input_ids != 0
        bias = None
        if attention_mask is not None:
            bias = (1.0 - attention_mask[:, None, None, :].float()) * -1e9
        for layer in self.layers:
            x = layer(x, bias)
        match self.options.get("pooling", "first"):
            case "first":
                return self.head(x[:, 0])
            case "mean":
                weights = torch.ones_like(input_ids)[..., None].float()
                if attention_mask is not None:
                    weights = attention_mask[..., None].float()
                return self.head((x * weights).sum(dim=1) / weights.sum(dim=1))
        return x


@pytest.fixture(scope="session")
def make_encoder() -> Callable[..., tuple[onnx.ModelProto, Feeds]]:
    """Makes graphs with the TorchScript exporter: a random pruned encoder, and inputs for it.

    The masks of the inputs have padding on the right.
    """

    def make(
        *, density: float = 0.3, opset: int = 17, size: tuple[int, int] = (2, 6), **options: Any
    ) -> tuple[onnx.ModelProto, Feeds]:
        torch.manual_seed(0)
        encoder = Encoder(**options).eval()
        for module in encoder.layers.modules():
            if isinstance(module, nn.Linear):
                module.weight.data *= torch.rand_like(module.weight) < density
        ids = torch.randint(1, 50, size)
        kept = torch.ones(size, dtype=torch.int64)
        kept[0, size[1] // 2 :] = 0
        inputs = {"input_ids": ids}
        if options.get("mask", "int64") == "of ids":
            inputs["input_ids"] = ids * kept
        elif options.get("mask", "int64") != "none":
            inputs["attention_mask"] = kept.to(getattr(torch, options.get("mask", "int64")))
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                encoder,
                tuple(inputs.values()),
                file,
                dynamo=False,
                opset_version=opset,
                input_names=list(inputs),
                output_names=["output"],
                dynamic_axes=None
                if options.get("static")
                else {name: {0: "batch", 1: "sequence"} for name in inputs},
            )
        model = onnx.load_from_string(file.getvalue())
        return model, {name: tensor.numpy() for name, tensor in inputs.items()}

    return make
