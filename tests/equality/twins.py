"""Models in which the last bit of a logit decides a token.

Random weights forgive: two sums that differ by a rounding still choose the same token in all but
one of about 10^6 cases, so that equal tokens say little about equal bits. Here the output rows of
tokens 2i and 2i + 1 are the same but for a few weights that add less than a rounding, once with
this sign and once with that. Which of the two wins then hangs on how the sums before were rounded.
"""

import array
import json
import pathlib
import random
import struct

TINY = 2.0**-23
TINY_COLUMNS = 6


def read_safetensors(path):
    """{name: (type, shape, bytes)} of a file."""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = (entry["dtype"], entry["shape"], data[8 + length + begin:8 + length + end])
    return tensors


def write_safetensors(path, tensors):
    """Writes what read_safetensors() reads."""
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        end = offset + len(data)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text +
                                   b"".join(data for _, _, data in tensors.values()))


def vocabulary_matrix(tensors, name):
    """Takes a fp32 or int8 matrix out of `tensors` and returns it as rows of numbers."""
    if f"{name}.weight" in tensors:
        dtype, (rows, columns), data = tensors.pop(f"{name}.weight")
        if dtype != "F32":
            raise ValueError(f"{name}.weight is {dtype}, expected F32")
        values = struct.unpack(f"<{rows * columns}f", data)
    else:
        _, (rows, columns), data = tensors.pop(f"{name}.qweight")
        codes = struct.unpack(f"<{rows * columns}b", data)
        _, (_, groups), data = tensors.pop(f"{name}.scales")
        scales = struct.unpack(f"<{rows * groups}e", data)
        group = columns // groups
        values = [code * scales[i // group] for i, code in enumerate(codes)]
    return [list(values[row * columns:(row + 1) * columns]) for row in range(rows)]


def make_twins(matrix, seed):
    """Makes every odd row the twin of the row above it, in place."""
    draw = random.Random(seed)
    for row in range(0, len(matrix) - 1, 2):
        columns = draw.sample(range(len(matrix[row])), TINY_COLUMNS)
        matrix[row + 1] = list(matrix[row])
        for column in columns:
            tiny = draw.choice([TINY, -TINY])
            matrix[row][column], matrix[row + 1][column] = tiny, -tiny


def twin_model(source, destination):
    """Writes a copy of a tiny model whose output matrix has twins; its vocabulary is fp32 then.

    No token ends a sequence in it, so that every answer has the length that was asked for.
    """
    source, destination = pathlib.Path(source), pathlib.Path(destination)
    destination.mkdir()
    config = json.loads((source / "config.json").read_text())
    config.pop("eos_token_id", None)
    (destination / "config.json").write_text(json.dumps(config))
    tensors = read_safetensors(source / "model.safetensors")
    tied = config["tie_word_embeddings"]
    for name in ["model.embed_tokens"] + ([] if tied else ["lm_head"]):
        matrix = vocabulary_matrix(tensors, name)
        if tied or name == "lm_head":
            make_twins(matrix, f"twins of {destination.name}")
        values = [value for row in matrix for value in row]
        tensors[f"{name}.weight"] = ("F32", [len(matrix), len(matrix[0])],
                                     struct.pack(f"<{len(values)}f", *values))
    write_safetensors(destination / "model.safetensors", tensors)


def random_model(destination, config):
    """Writes a Llama of random fp32 weights, drawn like those in tests/data/models."""
    destination = pathlib.Path(destination)
    destination.mkdir()
    (destination / "config.json").write_text(json.dumps(config))
    draw = random.Random("random model")
    tensors = {}

    def tensor(name, shape, low, high):
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        values = array.array("f", (low + (high - low) * draw.random() for _ in range(count)))
        tensors[name + ".weight"] = ("F32", shape, values.tobytes())

    def linear(name, rows, columns):
        bound = 1.4 * (3 / columns)**0.5  # a standard deviation of 1.4 / sqrt(columns)
        tensor(name, [rows, columns], -bound, bound)

    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"] * config["head_dim"]
    kv_heads = config["num_key_value_heads"] * config["head_dim"]
    tensor("model.embed_tokens", [config["vocab_size"], hidden], -0.9, 0.9)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        tensor(prefix + "input_layernorm", [hidden], 0.75, 1.25)
        tensor(prefix + "post_attention_layernorm", [hidden], 0.75, 1.25)
        linear(prefix + "self_attn.q_proj", heads, hidden)
        linear(prefix + "self_attn.k_proj", kv_heads, hidden)
        linear(prefix + "self_attn.v_proj", kv_heads, hidden)
        linear(prefix + "self_attn.o_proj", hidden, heads)
        linear(prefix + "mlp.gate_proj", inner, hidden)
        linear(prefix + "mlp.up_proj", inner, hidden)
        linear(prefix + "mlp.down_proj", hidden, inner)
    tensor("model.norm", [hidden], 0.75, 1.25)
    linear("lm_head", config["vocab_size"], hidden)
    write_safetensors(destination / "model.safetensors", tensors)


def write_random_heads(path, seed, shapes):
    """Tensors of these names and shapes, uniform, of a size that keeps sums near 1."""
    draw = random.Random(seed)
    tensors = {}
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        bound = (6 / shape[-1])**0.5
        values = array.array("f", (bound * (2 * draw.random() - 1) for _ in range(count)))
        tensors[name] = ("F32", shape, values.tobytes())
    write_safetensors(path, tensors)


def random_drafter(destination, config):
    """Writes a recurrent drafter of random weights for a model of that config: it guesses badly."""
    destination = pathlib.Path(destination)
    destination.mkdir()
    vocabulary, hidden = config["vocab_size"], config["hidden_size"]
    (destination / "config.json").write_text(json.dumps({
        "model_type": "recurrent_drafting_drafter", "vocab_size": vocabulary,
        "hidden_size": hidden, "exit_dim": 2 * hidden, "num_draft_layers": 1, "rnn": True}))
    write_random_heads(destination / "model.safetensors", "random drafter", {
        "rnn_w.weight": [hidden, hidden],
        "rnn_u.weight": [hidden, hidden],
        "rnn_u.bias": [hidden],
        "lm_head.0.linear.weight": [2 * hidden, 2 * hidden],
        "lm_head.0.linear.bias": [2 * hidden],
        "lm_head.1.weight": [vocabulary, 2 * hidden]})


def random_medusa(destination, config):
    """Writes three Medusa heads of random weights for a model of that config."""
    destination = pathlib.Path(destination)
    destination.mkdir()
    vocabulary, hidden = config["vocab_size"], config["hidden_size"]
    (destination / "config.json").write_text(json.dumps({
        "medusa_num_heads": 3, "medusa_num_layers": 1, "base_model_name_or_path": "random"}))
    shapes = {}
    for head in range(3):
        shapes[f"{head}.0.linear.weight"] = [hidden, hidden]
        shapes[f"{head}.0.linear.bias"] = [hidden]
        shapes[f"{head}.1.weight"] = [vocabulary, hidden]
    write_random_heads(destination / "medusa_lm_head.safetensors", "random heads", shapes)
