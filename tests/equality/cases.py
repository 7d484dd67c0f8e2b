"""The models, number formats and requests of the equality suite.

A *case* is what output bits may depend on: model, --weights, --kv-format and --attention. Whatever
else is set, the answers of a case are the same.
"""

import dataclasses
import json
import random

from command import MODELS

# Besides the models of tests/data/models one that is drawn: 9 heads and 3 KV heads fit 8 shards
# badly, as SmolLM2's do, and its matrices are wide enough to be cut into tiles and among threads.
UNEVEN = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 288,
    "head_dim": 32,
    "intermediate_size": 704,
    "max_position_embeddings": 512,
    "num_attention_heads": 9,
    "num_hidden_layers": 2,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "vocab_size": 1000,
}

PAGE = 64  # tokens of a KV page
POOL_PAGES = 6  # the longest request fits (300 + 24 - 1 tokens), a second one hardly

# (prompt tokens, new tokens). Prompts end around a page (64), half of one, and a segment of
# attention (256). The four in the middle start small and grow: any two of them together outgrow the
# small pool, however slowly their prompts are fed.
LENGTHS = [(290, 24), (33, 24), (5, 30), (256, 24), (150, 17), (96, 24), (60, 150), (63, 150),
           (64, 150), (50, 150), (1, 24), (257, 20), (300, 24), (255, 24), (17, 24), (2, 40)]

# Every second request is greedy; the others take these. Without a seed it is the default one.
SAMPLING = [
    {"temperature": 0.3, "seed": 11},
    {"temperature": 1},
    {"temperature": 1.5, "top_k": 40, "seed": 2**63 - 1},
    {"temperature": 0.7, "top_p": 0.9, "seed": 0},
    {"temperature": 0.3, "top_k": 3},
    {"temperature": 1.5},
    {"temperature": 1.5, "top_p": 0.5},
    {"temperature": 1, "top_k": 5, "top_p": 0.8, "seed": 5},
]


@dataclasses.dataclass(frozen=True)
class Case:
    """A model in one set of number formats. The models hold no bf16 or fp16 weights themselves."""

    model: str  # a folder of tests/data/models, or "uneven"
    weights: str
    kv_format: str = "auto"
    attention: str = "auto"

    def __str__(self):
        kv = "" if self.kv_format == "auto" else f"/kv={self.kv_format}"
        attention = "" if self.attention == "auto" else f"/attention={self.attention}"
        return f"{self.model}/{self.weights}{kv}{attention}"

    @property
    def config(self):
        if self.model == "uneven":
            return UNEVEN
        with open(MODELS / self.model / "config.json", encoding="utf-8") as file:
            return json.load(file)

    @property
    def options(self):
        return ["--weights", self.weights, "--kv-format", self.kv_format,
                "--attention", self.attention]

    @property
    def equal_on_all_devices(self):
        """Whether every backend computes the same bits (docs/cuda.md, "Products")."""
        return self.weights not in ("bf16", "fp16", "fp8") and self.attention != "bf16"

    def kv_memory(self, tp):
        """Bytes per rank for POOL_PAGES pages, where the fullest of `tp` ranks has no more.

        Heads are dealt evenly to 8 virtual shards, in atoms that fill an activation group of the
        format: 64 columns for int8, 32 for int4 and for checkpoints that hold such groups.
        """
        config = self.config
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        head_dim = config.get("head_dim", config["hidden_size"] // heads)
        stored = self.weights == "auto" and "quantization_config" in config
        group = {"int8": 64, "int4": 32}.get(self.weights, 32 if stored else 1)
        kv_format = self.kv_format
        if kv_format == "auto":
            fp32 = self.weights == "fp32" or (self.weights == "auto" and not stored)
            kv_format = "fp32" if fp32 else "bf16"
        # Bytes of a key or value; int8 has an fp32 scale.
        vector = {"fp32": 4 * head_dim, "bf16": 2 * head_dim, "int8": head_dim + 4}[kv_format]
        atom = max(1, group // head_dim)
        atoms = -(-heads // atom)
        first = [min(heads, atom * sum(atoms // 8 + (shard < atoms % 8) for shard in range(count)))
                 for count in range(9)]  # first[i]: the first head of shard i
        most = 0
        for rank in range(tp):
            begin, end = first[rank * 8 // tp], first[(rank + 1) * 8 // tp]
            if begin < end:
                ratio = heads // kv_heads
                most = max(most, (end - 1) // ratio - begin // ratio + 1)
        return POOL_PAGES * 2 * config["num_hidden_layers"] * most * PAGE * vector

    def requests(self):
        """16 requests in token ids, of all lengths, greedy and sampled; always the same."""
        vocabulary = self.config["vocab_size"]
        draw = random.Random(f"prompts of {self.model}")
        requests = []
        for index, (length, new_tokens) in enumerate(LENGTHS):
            sampling = SAMPLING[index // 2] if index % 2 else {}
            requests.append({"custom_id": f"{length}-tokens",
                             "prompt": [draw.randrange(vocabulary) for _ in range(length)],
                             "max_tokens": new_tokens, **sampling})
        return requests

    def text(self):
        """Token ids to score."""
        vocabulary = self.config["vocab_size"]
        draw = random.Random(f"text of {self.model}")
        return [draw.randrange(vocabulary) for _ in range(PERPLEXITY_TOKENS)]


# An FFN of 5 columns is no multiple of int4's groups of 32.
CASES = [
    Case("llama_gqa", "fp32"),
    Case("llama_gqa", "bf16"),
    Case("llama_gqa", "int8"),
    Case("llama_gqa", "int4"),
    Case("qwen2_bias", "fp32"),
    Case("uneven", "fp32"),
    Case("uneven", "bf16"),
    Case("uneven", "int8"),
    Case("uneven", "int4"),
    Case("llama_mqa", "bf16"),
    Case("llama_mqa", "int8"),
    Case("llama_ffn5", "fp32"),
    Case("llama_mha_tied", "bf16", "fp32"),
    Case("llama_mha_tied", "fp32", "bf16"),
    Case("llama_gqa", "fp32", "int8"),
    Case("uneven", "int4", "int8"),
    Case("llama_int4", "auto"),
    Case("llama_int8", "auto"),
]

# With bf16 weights and a cache of bf16 or int8 a GPU's tensor cores compute attention, too; the CPU
# has one kind of attention, and no fp8. What can be chosen on a GPU besides.
CASES_OF_CUDA = [
    Case("llama_gqa", "bf16", attention="fp32"),
    Case("uneven", "bf16", attention="fp32"),
    Case("uneven", "bf16", "int8"),
    Case("llama_mqa", "int8", attention="bf16"),
    Case("llama_gqa", "fp8"),
    Case("uneven", "fp8"),
]


def cases_of(device):
    """The cases of the default runs.

    >>> len(cases_of("cuda")) - len(cases_of("cpu"))
    6
    """
    return [*CASES, *(CASES_OF_CUDA if device == "cuda" else [])]


# --full also runs all combinations of the axes on one case of each format, no two of one model.
FULL_CASES = [
    Case("llama_gqa", "fp32"),
    Case("qwen2_bias", "bf16"),
    Case("llama_mqa", "int8"),
    Case("llama_int4", "auto"),
]

# Sums that differ by a rounding give different tokens here (see twins.py): what the output matrix
# multiplies is not rounded to int8 or bf16 and so keeps the last bits.
SHARP_CASES = [case for case in CASES if case.weights not in ("int8", "int4", "bf16")]

# And these, where it is, are compared by their perplexity.
PERPLEXITY_CASES = [
    Case("llama_mqa", "bf16"),
    Case("uneven", "bf16"),
    Case("llama_mha_tied", "bf16", "fp32"),
    Case("llama_gqa", "int8"),
    Case("llama_mqa", "int8"),
    Case("uneven", "int8"),
    Case("uneven", "int4"),
    Case("uneven", "int4", "int8"),
]
PERPLEXITY_TOKENS = 300

# No two of these may answer alike.
DIFFERENT_FORMATS = [Case("llama_gqa", weights) for weights in ("fp32", "bf16", "int8", "int4")]
DIFFERENT_FORMATS.append(Case("llama_gqa", "fp32", "int8"))
