#!/usr/bin/env python3
"""Writes a model of random weights in a real model's shape, for measuring speed where the model
itself is not at hand, and a drafter for it.

    tools/make_synthetic_model.py --shape llama-3.2-1b --output models/synthetic-1b
    paceline bench --model models/synthetic-1b --drafter models/synthetic-1b/drafter \\
        --simulate-acceptance 3.5 --sweep draft=off,2x4

Linears are 4-bit integers in groups of 32, the embedding 8-bit, or with --weights bf16 all of them
are bf16; scales are such that activations stay in the range of a trained model's. Its answers mean
nothing. The drafter is a recurrent one of
8-bit integers that can draft the first 8192 tokens: as large as a trained one of that kind, and it
guesses nothing. Nothing is downloaded.
"""

import argparse
import functools
import json
import pathlib
import random
import struct
import sys

GROUP = 32
DRAFTED = 8192  # ids that the drafter's head knows
BF16_RUN = 524287  # values

SHAPES = {
    "llama-2-7b": {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
                   "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
                   "head_dim": 128, "max_position_embeddings": 4096, "rope_theta": 10000.0,
                   "tie_word_embeddings": False},
    "llama-2-13b": {"vocab_size": 32000, "hidden_size": 5120, "intermediate_size": 13824,
                    "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 40,
                    "head_dim": 128, "max_position_embeddings": 4096, "rope_theta": 10000.0,
                    "tie_word_embeddings": False},
    "llama-3.2-1b": {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
                     "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
                     "head_dim": 64, "max_position_embeddings": 131072, "rope_theta": 500000.0,
                     "tie_word_embeddings": True},
    "llama-3.1-8b": {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
                     "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
                     "head_dim": 128, "max_position_embeddings": 131072, "rope_theta": 500000.0,
                     "tie_word_embeddings": False},
    "llama-3.1-70b": {"vocab_size": 128256, "hidden_size": 8192, "intermediate_size": 28672,
                      "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
                      "head_dim": 128, "max_position_embeddings": 131072, "rope_theta": 500000.0,
                      "tie_word_embeddings": False},
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
             "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "head_dim": 16, "max_position_embeddings": 512, "rope_theta": 10000.0,
             "tie_word_embeddings": True},
}


def half(value):
    """A number as the bytes of an fp16."""
    return struct.pack("<e", value)


def int4(name, n, k):
    """(name, dtype, shape, filler) of a linear [n, k] of 4-bit integers: w = scale q + minimum is
    spread evenly over a range of the deviation 1 / sqrt(k)."""
    scale = 12**0.5 / 15 / k**0.5
    groups = [n, k // GROUP]
    return [(f"{name}.qweight", "U8", [n, k // 2], None),
            (f"{name}.scales", "F16", groups, half(scale)),
            (f"{name}.minimums", "F16", groups, half(-7.5 * scale))]


def int8(name, n, k):
    """The same in 8-bit integers."""
    return [(f"{name}.qweight", "I8", [n, k], None),
            (f"{name}.scales", "F16", [n, k // GROUP], half(12**0.5 / 255 / k**0.5))]


@functools.cache
def bf16_values(k):
    """A run of random bf16, evenly spread with the deviation 1 / sqrt(k); its length is a prime, so
    that rows which repeat it differ."""
    largest = (3 / k)**0.5
    table = [struct.pack("<f", largest * (code - 127.5) / 127.5)[2:] for code in range(256)]
    codes = random.Random(k).randbytes(BF16_RUN)
    values = bytearray(2 * BF16_RUN)
    for byte in (0, 1):
        values[byte::2] = codes.translate(bytes(value[byte] for value in table))
    return bytes(values)


def bf16(name, n, k):
    """The same in bf16."""
    return [(f"{name}.weight", "BF16", [n, k], bf16_values(k))]


def vector(name, n, value):
    """A vector of one value."""
    return [(name, "F32", [n], struct.pack("<f", value))]


def model_tensors(shape, weights):
    """All tensors of a model of that shape."""
    linear, vocabulary = {"int4": (int4, int8), "bf16": (bf16, bf16)}[weights]
    hidden, ffn = shape["hidden_size"], shape["intermediate_size"]
    queries = shape["num_attention_heads"] * shape["head_dim"]
    keys = shape["num_key_value_heads"] * shape["head_dim"]
    tensors = vocabulary("model.embed_tokens", shape["vocab_size"], hidden)
    for layer in range(shape["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        tensors += vector(f"{prefix}input_layernorm.weight", hidden, 1)
        tensors += vector(f"{prefix}post_attention_layernorm.weight", hidden, 1)
        for name, n, k in (("self_attn.q_proj", queries, hidden), ("self_attn.k_proj", keys, hidden),
                           ("self_attn.v_proj", keys, hidden), ("self_attn.o_proj", hidden, queries),
                           ("mlp.gate_proj", ffn, hidden), ("mlp.up_proj", ffn, hidden),
                           ("mlp.down_proj", hidden, ffn)):
            tensors += linear(prefix + name, n, k)
    tensors += vector("model.norm.weight", hidden, 1)
    if not shape["tie_word_embeddings"]:
        tensors += vocabulary("lm_head", shape["vocab_size"], hidden)
    return tensors


def drafter_tensors(shape):
    """All tensors of a recurrent drafter with one residual block."""
    hidden = shape["hidden_size"]
    return [*int8("rnn_w", hidden, hidden), *int8("rnn_u", hidden, hidden),
            *vector("rnn_u.bias", hidden, 0),
            *int8("lm_head.0.linear", 2 * hidden, 2 * hidden),
            *vector("lm_head.0.linear.bias", 2 * hidden, 0),
            *int8("lm_head.1", min(DRAFTED, shape["vocab_size"]), 2 * hidden)]


def write_safetensors(path, tensors, seed):
    """Writes tensors whose filler is the bytes of values to repeat, or None for random bytes."""
    width = {"U8": 1, "I8": 1, "F16": 2, "BF16": 2, "F32": 4}
    header, end = {}, 0
    for name, dtype, dimensions, _ in tensors:
        size = width[dtype]
        for dimension in dimensions:
            size *= dimension
        header[name] = {"dtype": dtype, "shape": dimensions, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    draw = random.Random(seed)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, _, _, filler in tensors:
            begin, tensor_end = header[name]["data_offsets"]
            left = tensor_end - begin
            while left:
                count = min(left, 1 << 24)
                file.write(draw.randbytes(count) if filler is None
                           else (filler * -(-count // len(filler)))[:count])
                left -= count


def write_model(shape, weights, output, seed):
    """Writes the model's directory, and the drafter's in it."""
    output.mkdir(parents=True)
    quantized = {"quant_method": "paceline", "group_size": GROUP}
    (output / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "bos_token_id": 0, "eos_token_id": 1, **shape,
        **({"torch_dtype": "bfloat16"} if weights == "bf16" else
           {"quantization_config": quantized})}, indent=2) + "\n", encoding="utf-8")
    write_safetensors(output / "model.safetensors", model_tensors(shape, weights), seed)
    drafter = output / "drafter"
    drafter.mkdir()
    config = {"model_type": "recurrent_drafting_drafter", "vocab_size": shape["vocab_size"],
              "hidden_size": shape["hidden_size"], "exit_dim": 2 * shape["hidden_size"],
              "num_draft_layers": 1, "rnn": True, "quantization_config": quantized}
    if shape["vocab_size"] > DRAFTED:
        config["draft_vocab"] = list(range(DRAFTED))
    (drafter / "config.json").write_text(json.dumps(config) + "\n", encoding="utf-8")
    write_safetensors(drafter / "model.safetensors", drafter_tensors(shape), seed + 1)


def main(arguments=None):
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="DIR",
                        help="the directory to make")
    parser.add_argument("--weights", choices=["int4", "bf16"], default="int4")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        write_model(SHAPES[options.shape], options.weights, options.output, options.seed)
    except OSError as error:
        print(f"make_synthetic_model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
