"""GGUF metadata to config.json and generation_config.json."""

import dataclasses

import numpy

from . import Refused

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}


@dataclasses.dataclass(frozen=True)
class ModelShape:
    """The sizes of a model, as the weights need them."""

    architecture: str  # "llama" or "qwen2"
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int  # rows of the embedding


def read_metadata(reader):
    """All metadata of a gguf.GGUFReader as a dict from key to Python value."""
    try:
        return {name: field.contents() for name, field in reader.fields.items()}
    except UnicodeDecodeError as error:
        raise Refused(f"the metadata holds a string that is not UTF-8: {error}") from None


def shortest(value):
    """The double whose decimal form is the shortest that names the same float32.

    GGUF stores 1e-5 as a float32, which is 9.999999747378752e-06 as a double; config.json should
    say 1e-05 again.
    """
    return float(str(numpy.float32(value)))


def _integer(metadata, key, default=None):
    value = metadata.get(key, default)
    if value is None:
        raise Refused(f"the metadata has no '{key}'")
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise Refused(f"'{key}': expected one positive integer, got {str(value)[:60]}")
    return value


def model_shape(metadata, vocabulary):
    """Reads the sizes; raises Refused for what is not a plain Llama or Qwen2 decoder."""
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise Refused(f"'general.architecture' is '{architecture}', expected one of "
                      f"{', '.join(ARCHITECTURES)}")
    if metadata.get("split.count", 1) > 1:
        raise Refused("'split.count': the model is split over several files, expected one file")
    if metadata.get(f"{architecture}.expert_count", 0) > 0:
        raise Refused(f"'{architecture}.expert_count': mixtures of experts are not supported")

    hidden = _integer(metadata, f"{architecture}.embedding_length")
    heads = _integer(metadata, f"{architecture}.attention.head_count")
    kv_heads = _integer(metadata, f"{architecture}.attention.head_count_kv", heads)
    if heads % kv_heads != 0:
        raise Refused(f"'{architecture}.attention.head_count_kv' is {kv_heads}, expected a "
                      f"divisor of the {heads} heads")
    head_dim = _integer(metadata, f"{architecture}.attention.key_length", hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if metadata.get(f"{architecture}.{key}", head_dim) != head_dim:
            raise Refused(f"'{architecture}.{key}' is {metadata[f'{architecture}.{key}']}, "
                          f"expected the head's {head_dim}")
    if head_dim % 2 != 0:
        raise Refused(f"a head of {head_dim} columns cannot be rotated, expected an even number")
    return ModelShape(
        architecture=architecture,
        layers=_integer(metadata, f"{architecture}.block_count"),
        hidden=hidden,
        intermediate=_integer(metadata, f"{architecture}.feed_forward_length"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=vocabulary,
    )


def llama3_factors(head_dim, theta, factor, low=1.0, high=4.0, original=8192):
    """What "llama3" rope scaling divides each of the head_dim/2 frequencies by.

    Wavelengths up to original/high stay, those from original/low on are divided by `factor`, those
    between are blended.
    """
    frequency = theta ** -(numpy.arange(0, head_dim, 2, dtype=numpy.float64) / head_dim)
    turns = original * frequency / (2 * numpy.pi)  # in the original context
    blend = numpy.clip((turns - low) / (high - low), 0.0, 1.0)
    return 1.0 / ((1.0 - blend) / factor + blend)


def rope_scaling(metadata, shape, theta, rope_freqs):
    """The `rope_scaling` of config.json, or None.

    A GGUF holds llama3's scaling as the tensor rope_freqs, the divisors themselves; the parameters
    are those of the Llama 3.1 and 3.2 models, checked against the tensor.
    """
    kind = metadata.get(f"{shape.architecture}.rope.scaling.type", "none")
    if rope_freqs is not None:
        factor = shortest(rope_freqs.max())
        expected = llama3_factors(shape.head_dim, theta, factor)
        if rope_freqs.shape != expected.shape or not numpy.allclose(rope_freqs, expected, 1e-4, 0):
            raise Refused("tensor 'rope_freqs.weight' is not llama3 scaling with low_freq_factor "
                          "1, high_freq_factor 4 and 8192 original positions")
        return {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    if kind == "none":
        return None
    if kind == "linear":
        key = f"{shape.architecture}.rope.scaling.factor"
        if key not in metadata:
            raise Refused(f"the metadata has no '{key}'")
        return {"rope_type": "linear", "factor": shortest(metadata[key])}
    raise Refused(f"'{shape.architecture}.rope.scaling.type' is '{kind}', expected none or linear")


def special_ids(metadata):
    """bos, eos and pad ids as config.json names them; those that are not stored are left out.

    eos_token_id is a list if the end of a turn is a token of its own.
    """
    ids = {}
    if "tokenizer.ggml.bos_token_id" in metadata:
        ids["bos_token_id"] = metadata["tokenizer.ggml.bos_token_id"]
    ends = []
    for name in ("eos", "eot", "eom"):
        token = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if token is not None and token not in ends:
            ends.append(token)
    if ends:
        ids["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    if "tokenizer.ggml.padding_token_id" in metadata:
        ids["pad_token_id"] = metadata["tokenizer.ggml.padding_token_id"]
    return ids


def hf_config(metadata, shape, rope_freqs, tied, dtype, quantized):
    """config.json of the model.

    Args:
      rope_freqs: the tensor rope_freqs.weight as float32 [head_dim/2], or None.
      tied: whether the output matrix is the embedding.
      dtype: "float32", "float16" or "bfloat16", of the tensors that are not quantized.
      quantized: whether any tensor keeps its integer format.
    """
    key = shape.architecture
    theta = shortest(metadata.get(f"{key}.rope.freq_base", 10000.0))
    if f"{key}.attention.layer_norm_rms_epsilon" not in metadata:
        raise Refused(f"the metadata has no '{key}.attention.layer_norm_rms_epsilon'")
    config = {
        "architectures": [ARCHITECTURES[key]],
        "model_type": key,
        "attention_dropout": 0.0,
        **special_ids(metadata),
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": _integer(metadata, f"{key}.context_length"),
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shortest(metadata[f"{key}.attention.layer_norm_rms_epsilon"]),
        "rope_scaling": rope_scaling(metadata, shape, theta, rope_freqs),
        "rope_theta": theta,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": shape.vocabulary,
    }
    if key == "llama":
        config |= {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}
    else:
        config |= {"use_sliding_window": False}
    if quantized:
        config["quantization_config"] = {"quant_method": "paceline", "group_size": 32}
    return config


def hf_generation_config(metadata):
    """generation_config.json: the ids at which generation begins and ends."""
    return {"_from_model_config": True, **special_ids(metadata)}
