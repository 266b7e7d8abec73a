"""From a trained network to an ONNX graph. Import this only where PyTorch and ONNX are installed.

The graph is written operator by operator. What a tracer finds in a library's BERT, and what an optimiser leaves of
that, takes a quarter more time: masks and positions made anew for every batch, copies between layouts, and a fused
SkipLayerNormalization that is five times slower than the two operators that it replaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from intent.manifest import POOLED, PROBABILITIES
from intent.network import IntentNetwork
from intent.recipe import Precision
from tasks.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OPSET: Final = 17
_IR: Final = 8
_MS: Final = "com.microsoft"
_WEIGHT_STEPS: Final = 63
"""Seven bits: eight overflow in the integer kernels of processors without VNNI."""
_WORD_STEPS: Final = 127
_NEVER: Final = -10_000.0
"""Added to the score of what is padded: its exponential is nothing, and half a float's precision can hold it."""
_IDS: Final = "input_ids"
_MASK: Final = "attention_mask"


def export_graph(network: IntentNetwork, file: Path, precision: Precision = "int8") -> None:
    """Write the encoder of ``network`` to ``file`` as an ONNX graph with dynamic axes and a head still to fit.

    With ``int8`` its weights and what they are multiplied with are integers, for CPUs; with ``fp16`` it is all in
    half a float's precision, for GPUs. The head stays in float32: it is small, and its numbers are replaced.

    Raises:
        TrainingError: the encoder is not BERT as it was published.
    """
    onnx.save(_Encoder(network, precision).model(), file)


class _Graph:
    """Nodes and numbers, as they are added."""

    def __init__(self, kind: type[np.floating[Any]]) -> None:
        """Hold floating-point numbers as ``kind``, unless told otherwise."""
        self.nodes: list[Any] = []
        self.numbers: dict[str, Any] = {}
        self._kind = kind

    def op(self, kind: str, *inputs: str, out: str = "", domain: str = "", **attributes: Any) -> str:
        """Add an operator with one output, ``out``; return its name."""
        return self.ops(kind, *inputs, out=(out or f"{kind}_{len(self.nodes)}",), domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str, out: Sequence[str], domain: str = "", **attributes: Any) -> Sequence[str]:
        """Add an operator with the outputs ``out``; return them."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, out, name=name, domain=domain, **attributes))
        return out

    def floats(self, name: str, value: NDArray[Any] | float) -> str:
        """Hold ``value`` under ``name``, which is returned."""
        return self.put(name, np.asarray(value, dtype=self._kind))

    def ints(self, *values: int) -> str:
        """Hold ``values``, one-dimensional; return their name."""
        return self.put(f"ints_{'_'.join(map(str, values))}", np.asarray(values, dtype=np.int64))

    def put(self, name: str, value: NDArray[Any]) -> str:
        """Hold ``value`` as it is."""
        self.numbers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name


class _Encoder:
    """BERT with mean pooling and the head.

    Vectors are ``[tokens, texts, hidden]``: that way attention needs none of its three inputs in another order.
    """

    def __init__(self, network: IntentNetwork, precision: Precision) -> None:
        config = network.encoder.config
        if config.hidden_act != "gelu" or getattr(config, "position_embedding_type", "absolute") != "absolute":
            raise TrainingError("base: only BERT with gelu and absolute positions can be exported")
        self._bert = network.encoder
        self._labels, self._hidden = network.head.weight.shape
        self._heads = config.num_attention_heads
        self._epsilon = float(config.layer_norm_eps)
        self._int8 = precision == "int8"
        self._float = TensorProto.FLOAT if self._int8 else TensorProto.FLOAT16
        self._graph = _Graph(np.float32 if self._int8 else np.float16)

    def model(self) -> Any:
        """Return the whole graph."""
        hidden = self._embedded()
        mask = self._graph.op("Cast", _MASK, to=self._float)
        bias = self._bias(mask)
        for number, layer in enumerate(self._bert.encoder.layer):
            hidden = self._layer(f"layer_{number}", layer, hidden, bias)
        self._head(self._pooled(hidden))
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in (_IDS, _MASK)]
        sizes = {PROBABILITIES: self._labels, POOLED: self._hidden}
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in sizes.items()
        ]
        graph = helper.make_graph(self._graph.nodes, "intent", inputs, outputs, list(self._graph.numbers.values()))
        sets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MS, 1)]
        return helper.make_model(graph, opset_imports=sets, ir_version=_IR)

    def _embedded(self) -> str:
        """Return the embeddings of the tokens: words, places, and the one kind of sentence that there is."""
        graph, part = self._graph, self._bert.embeddings
        ids = graph.op("Transpose", _IDS, perm=[1, 0])
        words = _numbers(part.word_embeddings.weight)
        if self._int8:
            # Each word has a scale of its own.
            scale = _scale(words, 1, _WORD_STEPS)
            graph.put("words", np.round(words / scale).astype(np.int8))
            found = graph.op("Cast", graph.op("Gather", "words", ids), to=TensorProto.FLOAT)
            found = graph.op("Mul", found, graph.op("Gather", graph.floats("words_scale", scale), ids))
        else:
            found = graph.op("Gather", graph.floats("words", words), ids)
        places = _numbers(part.position_embeddings.weight) + _numbers(part.token_type_embeddings.weight)[0]
        graph.floats("places", places[:, None])
        length = graph.op("Slice", graph.op("Shape", ids), graph.ints(0), graph.ints(1))
        places_used = graph.op("Slice", "places", graph.ints(0), length, graph.ints(0))
        return self._normed("embeddings", graph.op("Add", found, places_used), part.LayerNorm)

    def _bias(self, mask: str) -> str:
        """Return what is added to scores, ``[texts, 1, 1, tokens]``: much below nothing for what is padded."""
        graph = self._graph
        padded = graph.op("Sub", graph.floats("one", 1.0), mask)
        return graph.op("Unsqueeze", graph.op("Mul", padded, graph.floats("never", _NEVER)), graph.ints(1, 2))

    def _layer(self, name: str, layer: Any, hidden: str, bias: str) -> str:
        graph = self._graph
        seen = self._attended(name, layer.attention.self, hidden, bias)
        out = self._times(f"{name}_out", seen, [layer.attention.output.dense])[0]
        hidden = self._normed(f"{name}_seen", graph.op("Add", out, hidden), layer.attention.output.LayerNorm)
        wide = self._times(f"{name}_up", hidden, [layer.intermediate.dense])[0]
        out = self._times(f"{name}_down", graph.op("Gelu", wide, domain=_MS), [layer.output.dense])[0]
        return self._normed(f"{name}_done", graph.op("Add", out, hidden), layer.output.LayerNorm)

    def _attended(self, name: str, part: Any, hidden: str, bias: str) -> str:
        graph, size = self._graph, self._hidden // self._heads
        apart, whole = graph.ints(0, 0, self._heads, size), graph.ints(0, 0, self._hidden)
        three = self._times(name, hidden, [part.query, part.key, part.value], first_by=size**-0.5)
        query, key, value = (graph.op("Reshape", each, apart) for each in three)
        scores = graph.op("FusedMatMul", query, key, domain=_MS, transB=1, transBatchA=1, transBatchB=1)
        shares = graph.op("Softmax", graph.op("Add", scores, bias), axis=-1)
        seen = graph.op("FusedMatMul", shares, value, domain=_MS, transBatchB=1)
        return graph.op("Reshape", graph.op("Transpose", seen, perm=[2, 0, 1, 3]), whole)

    def _times(self, name: str, hidden: str, parts: Sequence[Any], first_by: float = 1.0) -> list[str]:
        """Return what each of the linear ``parts`` makes of ``hidden``; ``first_by`` is a factor of the first one."""
        weights = [(_numbers(part.weight).T, _numbers(part.bias)) for part in parts]
        weights[0] = weights[0][0] * first_by, weights[0][1] * first_by
        names = [f"{name}_{number}" for number in range(len(parts))]
        if not self._int8:
            graph = self._graph
            return [
                graph.op("Add", graph.op("MatMul", hidden, graph.floats(f"{one}_w", w)), graph.floats(f"{one}_b", b))
                for one, (w, b) in zip(names, weights, strict=True)
            ]
        quantised = self._graph.ops("DynamicQuantizeLinear", hidden, out=[f"{name}_{part}" for part in "qsz"])
        return [self._times_int8(one, quantised, w, b) for one, (w, b) in zip(names, weights, strict=True)]

    def _times_int8(self, name: str, quantised: Sequence[str], weight: NDArray[Any], bias: NDArray[Any]) -> str:
        """Multiply with ``weight`` ``[in, out]``, which has a scale for each output and no zero point."""
        graph, (values, values_scale, values_zero) = self._graph, quantised
        scale = _scale(weight, 0, _WEIGHT_STEPS)
        held = graph.put(f"{name}_w", np.round(weight / scale).astype(np.int8))
        scales, biases = graph.floats(f"{name}_s", scale[0]), graph.floats(f"{name}_b", bias)
        return graph.op("MatMulIntegerToFloat", values, held, values_scale, scales, values_zero, "", biases, domain=_MS)

    def _normed(self, name: str, hidden: str, norm: Any) -> str:
        weight = self._graph.floats(f"{name}_norm_w", _numbers(norm.weight))
        bias = self._graph.floats(f"{name}_norm_b", _numbers(norm.bias))
        return self._graph.op("LayerNormalization", hidden, weight, bias, axis=-1, epsilon=self._epsilon)

    def _pooled(self, hidden: str) -> str:
        """Return the mean over what is not padded, ``[texts, hidden]``, from here on in float32."""
        graph = self._graph
        mask = graph.op("Cast", _MASK, to=TensorProto.FLOAT)
        if not self._int8:
            hidden = graph.op("Cast", hidden, to=TensorProto.FLOAT)
        row = graph.op("Unsqueeze", mask, graph.ints(1))
        total = graph.op("Squeeze", graph.op("FusedMatMul", row, hidden, domain=_MS, transBatchB=1), graph.ints(1))
        count = graph.op("ReduceSum", mask, graph.ints(1), keepdims=1)
        least = graph.put("least", np.ones((), np.float32))
        return graph.op("Div", total, graph.op("Max", count, least), out=POOLED)

    def _head(self, pooled: str) -> None:
        """Add softmax and distance, whose numbers :func:`intent.directory.replace_head` replaces."""
        graph, hidden, labels = self._graph, self._hidden, self._labels
        shapes = {
            "head_weight": (hidden, labels), "head_bias": (labels,), "far_outside": (labels,),
            "far_basis": (hidden, hidden), "far_centres": (hidden, labels), "far_offsets": (labels,),
        }  # fmt: skip
        for name, shape in shapes.items():
            graph.put(name, np.zeros(shape, np.float32))
        turned = graph.op("MatMul", pooled, "far_basis")
        nearest = graph.op("ReduceMin", graph.op("Gemm", turned, "far_centres", "far_offsets"), axes=[1], keepdims=1)
        far = graph.op("Add", graph.op("ReduceSumSquare", turned, axes=[1], keepdims=1), nearest)
        logits = graph.op("Gemm", pooled, "head_weight", "head_bias")
        graph.op("Softmax", graph.op("Add", logits, graph.op("Mul", far, "far_outside")), out=PROBABILITIES, axis=-1)


def _numbers(parameter: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = parameter.detach().cpu().float().numpy()
    return found


def _scale(values: NDArray[np.float32], axis: int, steps: int) -> NDArray[np.float32]:
    """Return the size of a step along ``axis`` with ``steps`` from nothing to the largest of ``values``."""
    largest: NDArray[np.float32] = np.abs(values).max(axis=axis, keepdims=True)
    return np.where(largest > 0, largest / steps, np.float32(1))
