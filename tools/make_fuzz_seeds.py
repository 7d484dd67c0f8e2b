#!/usr/bin/env python3
"""Write the seeds of the fuzz targets for safetensors, its index, config.json and JSONL.

Each seed is a valid file or one hostile idea (a length beyond the file, dimensions whose product
wraps, ...). Run it from anywhere; it writes tests/fuzz/corpus/<target>/<seed> in this repository.
Seeds that a fuzzer found are added to the same folders by hand and stay there.
"""

import argparse
import json
import pathlib
import struct


def safetensors(header, data=b"", length=None):
    """A safetensors file; `length` replaces the true length of the header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype, shape, begin, end):
    """One entry of a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_seeds():
    """Files for tests/fuzz/safetensors_fuzz.cc."""
    two = {"__metadata__": {"format": "pt"}, "a": tensor("F16", [2, 3], 0, 12),
           "b": tensor("I8", [4], 12, 16)}
    one = tensor("F32", [2], 0, 8)
    entry = json.dumps(one)
    return {
        "valid": safetensors(two, bytes(range(16))),
        "valid_padded": safetensors(json.dumps(two).encode() + b"   ", bytes(16)),
        "valid_empty_tensor": safetensors({"a": tensor("F32", [0, 7], 0, 0)}),
        "valid_scalar": safetensors({"a": tensor("F64", [], 0, 8)}, bytes(8)),
        "valid_no_tensor": safetensors({}),
        "empty": b"",
        "no_header": bytes(8),
        "length_beyond_file": safetensors(two, bytes(16), length=10_000),
        "length_huge": safetensors(two, bytes(16), length=2**64 - 1),
        "length_wraps_with_prefix": safetensors(two, bytes(16), length=2**64 - 8),
        "length_over_limit": safetensors(two, bytes(16), length=100_000_001),
        "not_json": safetensors(b"{this is no JSON", bytes(4)),
        "list": safetensors(b"[]"),
        "invalid_utf8": safetensors(b'{"\xff": 1}'),
        "product_wraps_to_0": safetensors({"a": tensor("F32", [2**32, 2**32], 0, 0)}),
        "product_wraps_to_8": safetensors({"a": tensor("F32", [2**62 + 2], 0, 8)}, bytes(8)),
        "dimension_over_int64": safetensors({"a": tensor("U8", [0, 2**63], 0, 0)}),
        "dimension_negative": safetensors({"a": tensor("U8", [-1], 0, 1)}, bytes(1)),
        "dimension_float": safetensors({"a": tensor("U8", [1.0], 0, 1)}, bytes(1)),
        "many_dimensions": safetensors({"a": tensor("U8", [1] * 1000, 0, 1)}, bytes(1)),
        "overlap": safetensors({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 3, 7)},
                               bytes(7)),
        "same_place": safetensors({"a": one, "b": one}, bytes(8)),
        "gap": safetensors({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 5, 9)}, bytes(9)),
        "gap_at_begin": safetensors({"a": tensor("U8", [4], 1, 5)}, bytes(5)),
        "gap_at_end": safetensors({"a": one}, bytes(9)),
        "offsets_disagree_with_shape": safetensors({"a": tensor("F32", [3], 0, 8)}, bytes(8)),
        "offsets_reversed": safetensors({"a": tensor("F32", [2], 8, 0)}, bytes(8)),
        "offsets_beyond_file": safetensors({"a": tensor("F32", [4], 0, 16)}, bytes(8)),
        "offsets_huge": safetensors({"a": tensor("U8", [2], 2**64 - 1, 1)}, bytes(8)),
        "unknown_dtype": safetensors({"a": tensor("F33", [2], 0, 8)}, bytes(8)),
        "unknown_key": safetensors({"a": dict(one, more=1)}, bytes(8)),
        "missing_key": safetensors({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
        "duplicate_tensor": safetensors(f'{{"a": {entry}, "a": {entry}}}'.encode(), bytes(8)),
        "duplicate_key": safetensors(
            b'{"a": {"dtype": "U8", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
            bytes(8)),
        "deep_nesting": safetensors(b'{"a": ' + b"[" * 5000),
        "metadata_number": safetensors({"__metadata__": {"a": 1}}),
        "metadata_list": safetensors({"__metadata__": []}),
    }


def index_seeds():
    """Files for tests/fuzz/safetensors_index_fuzz.cc."""

    def shard(name):
        return json.dumps({"weight_map": {"a": name}}).encode()

    return {
        "valid": json.dumps({"metadata": {"total_size": 8}, "weight_map": {
            "model.norm.weight": "model-00001-of-00002.safetensors",
            "lm_head.weight": "model-00002-of-00002.safetensors"}}).encode(),
        "no_tensor": b'{"weight_map": {}}',
        "no_map": b"{}",
        "list": b"[]",
        "empty": b"",
        "map_is_list": b'{"weight_map": []}',
        "shard_is_number": b'{"weight_map": {"a": 1}}',
        "shard_parent": shard(".."),
        "shard_above": shard("../model.safetensors"),
        "shard_above_inside": shard("x/../../model.safetensors"),
        "shard_absolute": shard("/etc/passwd"),
        "shard_folder": shard("x/model.safetensors"),
        "shard_backslash": shard("..\\model.safetensors"),
        "shard_empty": shard(""),
        "shard_here": shard("."),
        "shard_zero_byte": shard("a\0b"),
        "duplicate_tensor": b'{"weight_map": {"a": "1", "a": "2"}}',
        "duplicate_map": b'{"weight_map": {}, "weight_map": {"a": "1"}}',
        "deep_nesting": b'{"weight_map": ' + b'{"a": ' * 2000,
    }


LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256,
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                     "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True,
    "eos_token_id": [128001, 128008, 128009]}


def config_seeds():
    """Files for tests/fuzz/model_config_fuzz.cc."""

    def changed(**changes):
        return json.dumps({**LLAMA, **changes}).encode()

    without_rope = {key: value for key, value in LLAMA.items() if not key.startswith("rope_")}
    return {
        "valid_llama": changed(),
        "valid_llama_small": changed(rope_scaling=None, head_dim=None),
        "valid_linear": changed(rope_scaling={"type": "linear", "factor": 2.0}),
        "valid_rope_parameters": json.dumps({**without_rope, "rope_parameters": {
            "rope_theta": 10000.0, "rope_type": "default"}}).encode(),
        "valid_mistral": changed(model_type="mistral", architectures=["MistralForCausalLM"],
                                 sliding_window=None),
        "valid_qwen2": changed(model_type="qwen2", architectures=["Qwen2ForCausalLM"],
                               sliding_window=32768, use_sliding_window=False,
                               layer_types=["full_attention"] * 2),
        "valid_quantized": changed(
            quantization_config={"quant_method": "paceline", "group_size": 32}),
        "valid_generation": changed() + b'\0{"eos_token_id": [2, 3], "temperature": 0.6}',
        "eos_out_of_range": changed(eos_token_id=2**63),
        "generation_list": changed() + b"\0[]",
        "sizes_huge": changed(vocab_size=2**63, hidden_size=2**64 - 1),
        "sizes_negative": changed(num_hidden_layers=-1),
        "sizes_zero": changed(num_attention_heads=0, num_key_value_heads=0),
        "sizes_float": changed(hidden_size=2048.5),
        "heads_do_not_divide": changed(num_key_value_heads=7),
        "head_dim_odd": changed(head_dim=63),
        "theta_zero": changed(rope_theta=0),
        "theta_overflows": changed().replace(b"500000.0", b"1e999"),
        "rope_unknown": changed(rope_scaling={"rope_type": "yarn", "factor": 4.0}),
        "rope_both_differ": changed(rope_parameters={"rope_theta": 1.0, "rope_type": "default"}),
        "rope_is_list": changed(rope_scaling=[1]),
        "window": changed(model_type="mistral", sliding_window=4096),
        "quantized_otherwise": changed(quantization_config={"quant_method": "gptq", "bits": 4}),
        "other_model": changed(model_type="gemma2"),
        "duplicate_key": b'{"model_type": "llama", "model_type": "qwen2"}',
        "deep_nesting": b'{"model_type": ' + b"[" * 2000,
        "list": b"[]",
        "empty": b"",
    }


def jsonl_seeds():
    """Files for tests/fuzz/jsonl_fuzz.cc."""

    def lines(*objects):
        return b"".join(json.dumps(line).encode() + b"\n" for line in objects)

    chat = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {
        "model": "m", "messages": [{"role": "system", "content": "Be brief."},
                                   {"role": "user", "content": "Hello \U0001f600"}],
        "max_tokens": 5, "temperature": 0.7, "top_p": 0.9, "top_k": 40, "seed": 1,
        "stop": ["\n", "END"], "n": 1, "stream": False, "metadata": {"k": {"deep": [1]}}}}
    flat = {"prompt": "Once upon", "max_completion_tokens": 3, "stop": "."}
    part = {"type": "text", "text": "part"}
    return {
        "valid_batch": lines(chat),
        "valid_flat": lines(flat, {"prompt": [1, 2, 3]}),
        "valid_parts": lines({"messages": [{"role": "user", "content": [part, part]}]}),
        "valid_mark_crlf": b"\xef\xbb\xbf" + lines(flat).replace(b"\n", b"\r\n"),
        "valid_no_line_end": lines(flat)[:-1],
        "blank_lines": b"\n  \n\r\n" + lines(flat) + b"\n\n",
        "empty": b"",
        "repeated_id": lines(chat, flat, chat),
        "repeated_id_implied": lines({"custom_id": "line-2"}, flat),
        "bad_json": b'{"custom_id": "a", \n{"prompt": "x"}\n',
        "not_an_object": b'[1]\n"text"\n5\nnull\n',
        "no_prompt": lines({"custom_id": "a"}),
        "both_prompts": lines({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}),
        "bad_id": lines({"custom_id": 5, "prompt": "a"}, {"custom_id": "", "prompt": "a"}),
        "bad_parameters": lines({"prompt": "a", "temperature": -1}, {"prompt": "a", "top_p": 0},
                                {"prompt": "a", "top_k": -2}, {"prompt": "a", "max_tokens": 0},
                                {"prompt": "a", "seed": 1.5}, {"prompt": "a", "stop": [""]}),
        "extreme_numbers": lines({"prompt": "a", "seed": 2**64 - 1, "top_k": 2**31 - 1},
                                 {"prompt": "a", "seed": -2**63, "temperature": 1e-300},
                                 {"prompt": [2**63, 2**64 - 1]}),
        "number_overflows": b'{"prompt": "a", "temperature": 1e999}\n',
        "unsupported": lines({"prompt": "a", "n": 2}, {"prompt": "a", "tools": [{}]},
                             {"prompt": "a", "unknown": 1}, {"prompt": "a", "logprobs": True}),
        "wrong_url": lines({"url": "/v1/completions", "body": chat["body"]}),
        "bad_messages": lines(*({"messages": messages} for messages in (
            [], [1], [{}], [{"role": "tool", "content": "x"}], [{"role": "user", "content": None}],
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]))),
        "duplicate_key": b'{"prompt": "a", "prompt": "b"}\n{"custom_id": "a", "custom_id": "b"}\n',
        "deep_nesting": b"[" * 5000 + b"\n" + b'{"metadata": ' * 1000 + b"\n",
        "invalid_utf8": b'{"prompt": "\xff"}\n{"custom_id": "\xc3"}\n\xff\xfe\n',
        "lone_surrogate": b'{"prompt": "\\ud800"}\n{"prompt": "\\u0000"}\n',
        "control_characters": b'{"prompt": "\x01"}\n\x00\n{"prompt": "\\n\\r\\u2028"}\n',
        "no_json_line_end": b"\r\r\n\r",
    }


def main():
    """Write all seeds."""
    root = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fuzz" / "corpus"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=root, help="default: %(default)s")
    output = parser.parse_args().output
    targets = {"safetensors": safetensors_seeds(), "safetensors_index": index_seeds(),
               "model_config": config_seeds(), "jsonl": jsonl_seeds()}
    for target, seeds in targets.items():
        folder = output / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in seeds.items():
            (folder / name).write_bytes(content)
        print(f"{folder}: {len(seeds)} seeds")


if __name__ == "__main__":
    main()
