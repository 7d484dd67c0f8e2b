"""GGUF tensors to model.safetensors.

`exact` keeps the integer formats as they are. A linear X [n, k] is stored in groups of 32 columns:
- Q4_1: X.qweight U8 [n, k/2] (column 2i in the low half of byte i), X.scales F16 [n, k/32] and
  X.minimums F16 [n, k/32]; w = scale * q + minimum.
- Q4_0: the same, with minimum = -8 * scale.
- Q8_0: X.qweight I8 [n, k], X.scales F16 [n, k/32]; w = scale * q.
Every other tensor is X.weight (or X.bias) in its own floating-point type.
"""

import dataclasses
import json
import re
from typing import Callable

import numpy
from gguf import GGMLQuantizationType, GGUFReader, dequantize

from . import Refused
from .config import ModelShape

GROUP = 32  # columns that share a scale, in all three formats
HEADER_ALIGNMENT = 64  # of the first tensor's byte in the file

FLOAT_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
INTEGER_TYPES = ("Q4_0", "Q4_1", "Q8_0")
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1}

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """One tensor of the output file; `data` makes its array when it is written."""

    name: str
    dtype: str  # a safetensors dtype: F32, F16, BF16 (as uint16), I8, U8
    shape: tuple
    data: Callable


def open_gguf(path):
    """A gguf.GGUFReader over `path`; raises Refused if the file is not a readable GGUF."""
    try:
        return GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is not a readable GGUF file: {error}") from None


def embedding_rows(reader):
    """The number of rows of the embedding, which is the vocabulary's size."""
    for tensor in reader.tensors:
        if tensor.name == "token_embd.weight" and len(tensor.shape) == 2:
            return int(tensor.shape[1])
    raise Refused("there is no tensor 'token_embd.weight' with two dimensions")


def expected_tensors(shape: ModelShape, tied):
    """What the architecture consists of: {GGUF name: (output name, output shape)}."""
    query, key_value = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = {
        "attn_norm": (shape.hidden,),
        "attn_q": (query, shape.hidden),
        "attn_k": (key_value, shape.hidden),
        "attn_v": (key_value, shape.hidden),
        "attn_output": (shape.hidden, query),
        "ffn_norm": (shape.hidden,),
        "ffn_gate": (shape.intermediate, shape.hidden),
        "ffn_up": (shape.intermediate, shape.hidden),
        "ffn_down": (shape.hidden, shape.intermediate),
    }
    table = (shape.vocabulary, shape.hidden)
    expected = {
        "token_embd.weight": ("model.embed_tokens.weight", table),
        "output_norm.weight": ("model.norm.weight", (shape.hidden,)),
    }
    if not tied:
        expected["output.weight"] = ("lm_head.weight", table)
    for layer in range(shape.layers):
        for name, size in sizes.items():
            output = f"model.layers.{layer}.{LAYER_NAMES[name]}"
            expected[f"blk.{layer}.{name}.weight"] = (f"{output}.weight", size)
            if shape.architecture == "qwen2" and name in ("attn_q", "attn_k", "attn_v"):
                expected[f"blk.{layer}.{name}.bias"] = (f"{output}.bias", size[:1])
    return expected


def rotated_heads(shape: ModelShape, name):
    """How many heads the rows of tensor `name` hold in llama.cpp's order; 0 if in their own."""
    if shape.architecture == "llama":
        if re.fullmatch(r"blk\.\d+\.attn_q\.weight", name):
            return shape.heads
        if re.fullmatch(r"blk\.\d+\.attn_k\.weight", name):
            return shape.kv_heads
    return 0


def undo_rotation_order(rows, heads):
    """Puts the rows of q or k back into Hugging Face's order.

    llama.cpp rotates neighbouring rows (2i, 2i+1), Hugging Face rows (i, i + head_dim/2), so the
    GGUF conversion interleaves the two halves of every head. For one head of 6 rows the file holds
    0 3 1 4 2 5, and this gives 0 1 2 3 4 5.
    """
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def to_bf16(values):
    """float32 to the bits of bfloat16, rounded to nearest, ties to even."""
    bits = numpy.ascontiguousarray(values, dtype=numpy.float32).view(numpy.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)
    quiet = ((bits >> 16) | 0x40).astype(numpy.uint16)  # a NaN must not round to infinity
    return numpy.where(numpy.isnan(values), quiet, rounded)


def split_blocks(name, blocks, kind):
    """The parts of a quantized tensor.

    Args:
      name: for messages.
      blocks: the file's bytes, uint8 [n, k/32 * bytes per block].
      kind: "Q4_0", "Q4_1" or "Q8_0".
    Returns: {"qweight", "scales" and, for four bits, "minimums"} as in the module's comment.
    """
    block_bytes = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}[kind]
    rows = blocks.shape[0]
    blocks = blocks.reshape(rows, -1, block_bytes)
    scales = _halves(blocks[:, :, 0:2])
    if kind == "Q8_0":
        quants = numpy.ascontiguousarray(blocks[:, :, 2:]).view(numpy.int8)
        parts = {"qweight": quants.reshape(rows, -1), "scales": scales}
    else:
        if kind == "Q4_1":
            minimums = _halves(blocks[:, :, 2:4])
        else:  # exact but for an overflow, which is found below
            with numpy.errstate(over="ignore"):
                minimums = scales * numpy.float16(-8)
        # A block's byte j holds columns j (low half) and j + 16 (high half).
        packed = blocks[:, :, block_bytes - 16:]
        columns = numpy.concatenate([packed & 0x0F, packed >> 4], axis=2)
        pairs = columns[:, :, 0::2] | (columns[:, :, 1::2] << 4)
        parts = {"qweight": pairs.reshape(rows, -1), "scales": scales, "minimums": minimums}
    for part in ("scales", "minimums"):
        if part in parts and not numpy.isfinite(parts[part]).all():
            raise Refused(f"tensor '{name}' ({kind}) has {part} that are not finite float16 values")
    return parts


def _halves(two_bytes):
    return numpy.ascontiguousarray(two_bytes).view("<f2")[:, :, 0].astype(numpy.float16)


def plan_tensors(reader, shape: ModelShape, tied, weights):
    """Checks every tensor of the file and says what becomes of it.

    Args:
      weights: "exact", "fp32" or "bf16".
    Returns: a list of StoredTensor, in no particular order.
    """
    expected = expected_tensors(shape, tied)
    present = {tensor.name: tensor for tensor in reader.tensors}
    for name in expected:
        if name not in present:
            raise Refused(f"there is no tensor '{name}'")
    plan = []
    for name, tensor in present.items():
        if name == "rope_freqs.weight":
            continue  # becomes rope_scaling in config.json
        if name not in expected:
            raise Refused(f"tensor '{name}' is not part of architecture '{shape.architecture}'")
        output, size = expected[name]
        actual = tuple(int(n) for n in reversed(tensor.shape))
        if actual != size:
            raise Refused(f"tensor '{name}' has shape {list(actual)}, expected {list(size)}")
        plan += _plan_tensor(tensor, output, size, rotated_heads(shape, name), weights)
    return plan


def _plan_tensor(tensor, output, size, heads, weights):
    kind = tensor.tensor_type.name

    def in_order(rows):
        return undo_rotation_order(rows, heads) if heads else rows

    if weights == "fp32":
        return [StoredTensor(output, "F32", size, lambda: in_order(_as_float32(tensor)))]
    if weights == "bf16":
        return [StoredTensor(output, "BF16", size, lambda: to_bf16(in_order(_as_float32(tensor))))]
    if kind in FLOAT_DTYPES:
        def as_stored():
            bits = tensor.data.view(numpy.uint16) if kind == "BF16" else tensor.data
            return in_order(bits)
        return [StoredTensor(output, kind, size, as_stored)]
    if kind not in INTEGER_TYPES or len(size) != 2:
        raise Refused(f"tensor '{tensor.name}' has type {kind}, which cannot be kept exactly; "
                      "use --weights fp32 or bf16")
    rows, columns = size
    stem = output.removesuffix(".weight")
    eight_bits = kind == "Q8_0"
    shapes = {
        "qweight": ("I8" if eight_bits else "U8", (rows, columns if eight_bits else columns // 2)),
        "scales": ("F16", (rows, columns // GROUP)),
    }
    if not eight_bits:
        shapes["minimums"] = ("F16", (rows, columns // GROUP))

    def part(which):
        blocks = in_order(tensor.data.reshape(rows, -1))
        return split_blocks(tensor.name, blocks, kind)[which]

    return [StoredTensor(f"{stem}.{which}", dtype, shape, lambda which=which: part(which))
            for which, (dtype, shape) in shapes.items()]


def _as_float32(tensor):
    try:
        return dequantize(tensor.data, GGMLQuantizationType(tensor.tensor_type))
    except NotImplementedError:
        raise Refused(f"tensor '{tensor.name}' has type {tensor.tensor_type.name}, "
                      "which cannot be dequantized") from None


def is_quantized(plan):
    """Whether any tensor of the plan keeps an integer format."""
    return any(tensor.dtype in ("I8", "U8") for tensor in plan)


def float_dtype(plan):
    """The torch name of the type of the most elements that are not quantized."""
    elements = dict.fromkeys(FLOAT_DTYPES, 0)
    for tensor in plan:
        if tensor.name.endswith((".weight", ".bias")):
            elements[tensor.dtype] += int(numpy.prod(tensor.shape))
    return FLOAT_DTYPES[max(elements, key=elements.get)]


def write_safetensors(path, plan):
    """Writes the planned tensors, one in memory at a time."""
    plan = sorted(plan, key=lambda tensor: (-DTYPE_BYTES[tensor.dtype], tensor.name))
    header = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in plan:
        begin, end = end, end + DTYPE_BYTES[tensor.dtype] * int(numpy.prod(tensor.shape))
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape),
                               "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % HEADER_ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in plan:
            array = numpy.ascontiguousarray(tensor.data())
            begin, end = header[tensor.name]["data_offsets"]
            if array.nbytes != end - begin:
                raise AssertionError(f"{tensor.name}: {array.nbytes} bytes, planned {end - begin}")
            file.write(array.data)
