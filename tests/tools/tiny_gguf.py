"""Writes small GGUF files for the importer's tests."""

import dataclasses

import gguf
import numpy

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, LAYERS = 64, 96, 4, 2, 2
HEAD_DIM = HIDDEN // HEADS

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


@dataclasses.dataclass
class Tokens:
    """The tokenizer of a GGUF: (text, type, score) per token, and merges if it is byte-level."""

    model: str
    entries: list
    merges: list = dataclasses.field(default_factory=list)
    pre: str | None = None
    extra: dict = dataclasses.field(default_factory=dict)  # further tokenizer.ggml keys


def byte_characters():
    """The 256 characters that stand for bytes in byte-level BPE, in GPT-2's order."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + index) for index in range(len(hidden))]


def byte_level_tokens(pre="smollm"):
    """Ids 0-2 special, 3-258 the bytes, then one token per merge (from 259 on)."""
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2"]
    entries = [("<|end|>", CONTROL), ("<|start|>", CONTROL), ("<|stop|>", CONTROL)]
    entries += [(character, NORMAL) for character in byte_characters()]
    entries += [(merge.replace(" ", ""), NORMAL) for merge in merges]
    return Tokens("gpt2", [(text, kind, 0.0) for text, kind in entries], merges, pre)


def sentencepiece_tokens():
    """Ids 0-2 special, 3-258 the bytes, then characters and pieces with their scores."""
    entries = [("<unk>", UNKNOWN, 0.0), ("<s>", CONTROL, 0.0), ("</s>", CONTROL, 0.0)]
    entries += [(f"<0x{byte:02X}>", BYTE, 0.0) for byte in range(256)]
    pieces = ["▁a", "▁t", "he", "▁the", "s>", "▁", "a", "b", "e", "h", "s", "t", ">",
              "<"]
    entries += [(piece, NORMAL, -float(rank)) for rank, piece in enumerate(pieces)]
    return Tokens("llama", entries)


def random_weights(tokens, seed=0, tied=True, bias=False):
    """fp32 weights by GGUF name, rows in Hugging Face's order."""
    rng = numpy.random.default_rng(seed)
    vocabulary = len(tokens.entries)
    shapes = {"token_embd.weight": (vocabulary, HIDDEN), "output_norm.weight": (HIDDEN,)}
    if not tied:
        shapes["output.weight"] = (vocabulary, HIDDEN)
    for layer in range(LAYERS):
        for name, shape in {
                "attn_norm": (HIDDEN,), "attn_q": (HEADS * HEAD_DIM, HIDDEN),
                "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN), "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
                "attn_output": (HIDDEN, HEADS * HEAD_DIM), "ffn_norm": (HIDDEN,),
                "ffn_gate": (INTERMEDIATE, HIDDEN), "ffn_up": (INTERMEDIATE, HIDDEN),
                "ffn_down": (HIDDEN, INTERMEDIATE)}.items():
            shapes[f"blk.{layer}.{name}.weight"] = shape
            if bias and name in ("attn_q", "attn_k", "attn_v"):
                shapes[f"blk.{layer}.{name}.bias"] = shape[:1]
    return {name: rng.standard_normal(shape).astype(numpy.float32)
            for name, shape in shapes.items()}


def interleaved(rows, heads):
    """The rows of q or k in llama.cpp's order: those of a head's two halves alternate."""
    order = []
    for head in range(heads):
        first = head * HEAD_DIM
        for i in range(HEAD_DIM // 2):
            order += [first + i, first + HEAD_DIM // 2 + i]
    return rows[order]


def write_gguf(path, weights, tokens, architecture="llama", linear_type="Q4_1", types=None,
               metadata=None):
    """Writes a GGUF.

    Args:
      weights: fp32 by GGUF name; q and k are interleaved here if the architecture is llama.
      linear_type: the GGUF type of linear layers; embedding and output are Q8_0, the rest F32.
      types: {GGUF name: type} that differ.
      metadata: {key: (kind, value)} to add or replace, with kind as in GGUFWriter.add_<kind>.
    """
    writer = gguf.GGUFWriter(path, architecture)
    values = {
        f"{architecture}.block_count": ("uint32", LAYERS),
        f"{architecture}.context_length": ("uint32", 256),
        f"{architecture}.embedding_length": ("uint32", HIDDEN),
        f"{architecture}.feed_forward_length": ("uint32", INTERMEDIATE),
        f"{architecture}.attention.head_count": ("uint32", HEADS),
        f"{architecture}.attention.head_count_kv": ("uint32", KV_HEADS),
        f"{architecture}.attention.layer_norm_rms_epsilon": ("float32", 1e-5),
        f"{architecture}.rope.freq_base": ("float32", 10000.0),
        "tokenizer.ggml.bos_token_id": ("uint32", 1),
        "tokenizer.ggml.eos_token_id": ("uint32", 2),
        "tokenizer.ggml.model": ("string", tokens.model),
        "tokenizer.ggml.tokens": ("array", [text for text, _, _ in tokens.entries]),
        "tokenizer.ggml.token_type": ("array", [kind for _, kind, _ in tokens.entries]),
        "tokenizer.ggml.scores": ("array", [score for _, _, score in tokens.entries]),
        "tokenizer.chat_template": ("string", "{{ messages[0]['content'] }}"),
    }
    if tokens.pre is not None:
        values["tokenizer.ggml.pre"] = ("string", tokens.pre)
        values["tokenizer.ggml.merges"] = ("array", tokens.merges)
    values |= {f"tokenizer.ggml.{key}": value for key, value in tokens.extra.items()}
    for key, (kind, value) in (values | (metadata or {})).items():
        getattr(writer, f"add_{kind}")(key, value)
    for name, tensor in weights.items():
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.split(".")[-2])
        if architecture == "llama" and heads and tensor.ndim == 2:
            tensor = interleaved(tensor, heads)
        table = name in ("token_embd.weight", "output.weight")
        kind = "F32" if tensor.ndim == 1 else "Q8_0" if table else linear_type
        kind = gguf.GGMLQuantizationType[(types or {}).get(name, kind)]
        writer.add_tensor(name, gguf.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
