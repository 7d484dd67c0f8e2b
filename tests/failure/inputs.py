"""Inputs and models made for the suite; prompts are token ids, the models have no tokenizer."""

import json
import math
import random
import struct
from pathlib import Path

VOCAB = 158  # below the end-of-sequence ids of the tiny models


def write_lines(path, lines):
    with open(path, "w", encoding="utf-8") as file:
        for line in lines:
            file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
    return path


def request(rng, name, prompt_tokens, max_tokens, **fields):
    prompt = [rng.randrange(1, VOCAB) for _ in range(prompt_tokens)]
    return {"custom_id": name, "prompt": prompt, "max_tokens": max_tokens, **fields}


def short_requests(path, count, seed=1, max_tokens=12):
    """Little work, half of it sampled."""
    rng = random.Random(seed)
    lines = [
        request(rng, f"short-{i}", rng.randrange(1, 20), max_tokens, temperature=float(i % 2))
        for i in range(count)
    ]
    return write_lines(path, lines)


def two_part_requests(path, prompts, answers, seed=2):
    """First `prompts` requests whose work is prefill, then `answers` whose work is decode."""
    rng = random.Random(seed)
    lines = [
        request(rng, f"prompt-{i}", rng.randrange(250, 450), rng.randrange(1, 4))
        for i in range(prompts)
    ]
    lines += [
        request(rng, f"answer-{i}", rng.randrange(2, 6), rng.randrange(120, 250), temperature=1.0)
        for i in range(answers)
    ]
    return write_lines(path, lines)


def _random_halves(rng, count, exponent):
    """fp16 numbers of magnitude 2^(exponent-15) to twice that, of either sign, as bytes."""
    ones = int.from_bytes(b"\1\0" * count, "little")
    sign_and_mantissa = int.from_bytes(rng.randbytes(2 * count), "little") & (ones * 0x83FF)
    return (sign_and_mantissa | ones * (exponent << 10)).to_bytes(2 * count, "little")


def write_tensors(path, tensors):
    """A safetensors file of fp32 tensors, {name: (shape, numbers)}."""
    header, offset = {}, 0
    for name, (shape, numbers) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape}
        header[name]["data_offsets"] = [offset, offset + 4 * len(numbers)]
        offset += 4 * len(numbers)
    text = json.dumps(header).encode()
    data = b"".join(struct.pack(f"<{len(numbers)}f", *numbers) for _, numbers in tensors.values())
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def drafter(directory, hidden=32, vocab=160, **numbers):
    """A drafter of one block that fits the tiny models; `numbers` are {tensor: {element: number}},
    all others are 0."""
    directory = Path(directory)
    directory.mkdir()
    config = {
        "model_type": "recurrent_drafting_drafter",
        "vocab_size": vocab,
        "hidden_size": hidden,
        "exit_dim": 2 * hidden,
        "num_draft_layers": 1,
        "rnn": False,
    }
    (directory / "config.json").write_text(json.dumps(config))
    shapes = {
        "lm_head.0.linear.weight": [2 * hidden, 2 * hidden],
        "lm_head.0.linear.bias": [2 * hidden],
        "lm_head.1.weight": [vocab, 2 * hidden],
    }
    tensors = {name: (shape, [0.0] * math.prod(shape)) for name, shape in shapes.items()}
    for name, elements in numbers.items():
        for element, number in elements.items():
            tensors[name][1][element] = number
    write_tensors(directory / "model.safetensors", tensors)
    return directory


def heavy_model(directory, hidden=512, ffn=2048, layers=4, vocab=8192):
    """A random Llama of 48 MB: heavy enough that loading it takes a while."""
    heads, kv_heads, head_dim = 8, 4, 64
    directory = Path(directory)
    directory.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "bos_token_id": 0,
        "eos_token_id": vocab - 1,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "head_dim": head_dim,
        "intermediate_size": ffn,
        "max_position_embeddings": 512,
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "vocab_size": vocab,
    }
    (directory / "config.json").write_text(json.dumps(config))
    tensors = [
        ("model.embed_tokens.weight", [vocab, hidden], 14),
        ("lm_head.weight", [vocab, hidden], 12),
        ("model.norm.weight", [hidden], 15),
    ]
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        tensors += [
            (prefix + "input_layernorm.weight", [hidden], 15),
            (prefix + "post_attention_layernorm.weight", [hidden], 15),
            (prefix + "self_attn.q_proj.weight", [heads * head_dim, hidden], 11),
            (prefix + "self_attn.k_proj.weight", [kv_heads * head_dim, hidden], 11),
            (prefix + "self_attn.v_proj.weight", [kv_heads * head_dim, hidden], 11),
            (prefix + "self_attn.o_proj.weight", [hidden, heads * head_dim], 11),
            (prefix + "mlp.gate_proj.weight", [ffn, hidden], 11),
            (prefix + "mlp.up_proj.weight", [ffn, hidden], 11),
            (prefix + "mlp.down_proj.weight", [hidden, ffn], 11),
        ]
    rng = random.Random(3)
    header, blocks, offset = {}, [], 0
    for name, shape, exponent in tensors:
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        blocks.append(_random_halves(rng, count, exponent))
        offsets = [offset, offset + 2 * count]
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": offsets}
        offset += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(directory / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(blocks)
    return directory
