"""GGUF tokenizer metadata to tokenizer.json and tokenizer_config.json."""

from . import Refused

# Token types as GGUF numbers them.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

# How each model family cuts text into words before merging: (pattern, or None for GPT-2's own;
# whether every digit stands alone; whether a whole word that is a token skips the merges).
_LLAMA3_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
                   r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
_QWEN2_PATTERN = _LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
PRE_TOKENIZERS = {
    "gpt-2": (None, False, False),
    "smollm": (None, True, False),
    "llama-bpe": (_LLAMA3_PATTERN, False, True),
    "qwen2": (_QWEN2_PATTERN, False, False),
}

# SentencePiece's sign for a space.
SPACE = "\u2581"


class Vocabulary:
    """The tokens of a GGUF, checked."""

    def __init__(self, metadata):
        self.tokens = metadata.get("tokenizer.ggml.tokens")
        if not isinstance(self.tokens, list) or not self.tokens:
            raise Refused("the metadata has no 'tokenizer.ggml.tokens'")
        self.types = metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(self.tokens))
        if len(self.types) != len(self.tokens):
            raise Refused(f"'tokenizer.ggml.token_type' has {len(self.types)} entries, expected "
                          f"one for each of the {len(self.tokens)} tokens")
        # Unused tokens at the end only pad the embedding's rows.
        used = len(self.tokens)
        while used > 0 and self.types[used - 1] == UNUSED:
            used -= 1
        self.tokens, self.types = self.tokens[:used], self.types[:used]
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            raise Refused("'tokenizer.ggml.tokens' holds the same token twice")

    def added_tokens(self):
        """The entries of tokenizer.json that are matched in text before anything else."""
        added = (CONTROL, UNKNOWN, USER_DEFINED)
        return [{"id": index, "content": token, "single_word": False, "lstrip": False,
                 "rstrip": False, "normalized": False, "special": kind != USER_DEFINED}
                for index, (token, kind) in enumerate(zip(self.tokens, self.types))
                if kind in added]

    def model_ids(self):
        """The vocabulary of the BPE model itself.

        Special tokens behind the last normal one are left to `added_tokens`; those in front stay,
        because tokenizers numbers added tokens from the end of this vocabulary.
        """
        end = len(self.tokens)
        while end > 0 and self.types[end - 1] in (CONTROL, USER_DEFINED):
            end -= 1
        return {token: index for index, token in enumerate(self.tokens[:end])}


def _token(metadata, vocabulary, name):
    """The text of the special token tokenizer.ggml.<name>_token_id, or None."""
    index = metadata.get(f"tokenizer.ggml.{name}_token_id")
    if index is None:
        return None
    if not 0 <= index < len(vocabulary.tokens):
        raise Refused(f"'tokenizer.ggml.{name}_token_id' is {index}, expected an id below "
                      f"{len(vocabulary.tokens)}")
    return vocabulary.tokens[index]


def _stored_merges(merges):
    """Merges as "left right" strings; as pairs if a token holds a space itself."""
    if all(" " not in left and " " not in right for left, right in merges):
        return [f"{left} {right}" for left, right in merges]
    return [list(pair) for pair in merges]


def _bpe(vocabulary, merges, **options):
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False, **options, "vocab": vocabulary.model_ids(),
            "merges": _stored_merges(merges)}


def _byte_level(use_regex, **options):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
            "use_regex": use_regex, **options}


def byte_level_parts(metadata, vocabulary):
    """Normalizer, pre-tokenizer, model and decoder of a byte-level BPE tokenizer."""
    kind = metadata.get("tokenizer.ggml.pre")
    if kind not in PRE_TOKENIZERS:
        raise Refused(f"'tokenizer.ggml.pre' is '{kind}', expected one of "
                      f"{', '.join(PRE_TOKENIZERS)}")
    if metadata.get("tokenizer.ggml.add_space_prefix", False):
        raise Refused("'tokenizer.ggml.add_space_prefix' is true, expected false for 'gpt2'")
    pattern, single_digits, ignore_merges = PRE_TOKENIZERS[kind]
    steps = []
    if single_digits:
        steps.append({"type": "Digits", "individual_digits": True})
    if pattern is not None:
        steps.append({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
                      "invert": False})
    steps.append(_byte_level(use_regex=pattern is None))
    merges = []
    for index, merge in enumerate(metadata.get("tokenizer.ggml.merges", [])):
        left, space, right = merge.partition(" ")
        if not space or left + right not in vocabulary.ids:
            raise Refused(f"'tokenizer.ggml.merges': entry {index} '{merge}' does not make a token")
        merges.append((left, right))
    return {
        "normalizer": {"type": "NFC"} if kind == "qwen2" else None,
        "pre_tokenizer": (steps[0] if len(steps) == 1
                          else {"type": "Sequence", "pretokenizers": steps}),
        "model": _bpe(vocabulary, merges, ignore_merges=ignore_merges),
        "decoder": _byte_level(use_regex=True),
    }


def merges_from_scores(vocabulary, scores):
    """The merges of a SentencePiece BPE vocabulary, best first.

    SentencePiece joins the two neighbours whose joint piece scores best, so every way to cut a
    normal piece into two normal pieces is a merge, ranked by the piece's score; cuts of one piece
    are ranked by the ids of their parts.
    """
    normal = {token: index for token, index in vocabulary.ids.items()
              if vocabulary.types[index] == NORMAL}
    merges = []
    for piece, index in normal.items():
        for cut in range(1, len(piece)):
            left, right = normal.get(piece[:cut]), normal.get(piece[cut:])
            if left is not None and right is not None:
                merges.append((-scores[index], left, right))
    merges.sort()
    return [(vocabulary.tokens[left], vocabulary.tokens[right]) for _, left, right in merges]


def sentencepiece_parts(metadata, vocabulary):
    """Normalizer, pre-tokenizer, model and decoder of a SentencePiece BPE tokenizer."""
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) < len(vocabulary.tokens):
        raise Refused("'tokenizer.ggml.scores': expected one score for each token")
    if metadata.get("tokenizer.ggml.remove_extra_whitespaces", False):
        raise Refused("'tokenizer.ggml.remove_extra_whitespaces' is true, expected false")
    if metadata.get("tokenizer.ggml.precompiled_charsmap"):
        raise Refused("'tokenizer.ggml.precompiled_charsmap': normalization is not supported")
    for byte in range(256):
        if f"<0x{byte:02X}>" not in vocabulary.ids:
            raise Refused(f"'tokenizer.ggml.tokens' has no byte token <0x{byte:02X}>")
    to_signs = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    decoders = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}]
    normalizers = [to_signs]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        normalizers.insert(0, {"type": "Prepend", "prepend": SPACE})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = _token(metadata, vocabulary, "unknown")
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "model": _bpe(vocabulary, merges_from_scores(vocabulary, scores), unk_token=unknown,
                      fuse_unk=True, byte_fallback=True),
        "decoder": {"type": "Sequence", "decoders": decoders},
    }


def _adds(metadata, kind):
    """Whether encoding puts bos in front and eos behind, with the defaults of each family."""
    begins_by_default = kind == "llama" or metadata.get("tokenizer.ggml.pre") == "llama-bpe"
    return (metadata.get("tokenizer.ggml.add_bos_token", begins_by_default),
            metadata.get("tokenizer.ggml.add_eos_token", False))


def _post_processor(vocabulary, bos, eos):
    """A template that puts the given tokens around a text; None if there are none."""
    if bos is None and eos is None:
        return None

    def around(text, type_id):
        pieces = [{"Sequence": {"id": text, "type_id": type_id}}]
        if bos is not None:
            pieces.insert(0, {"SpecialToken": {"id": bos, "type_id": type_id}})
        if eos is not None:
            pieces.append({"SpecialToken": {"id": eos, "type_id": type_id}})
        return pieces

    special = {token: {"id": token, "ids": [vocabulary.ids[token]], "tokens": [token]}
               for token in (bos, eos) if token is not None}
    return {"type": "TemplateProcessing", "single": around("A", 0),
            "pair": around("A", 0) + around("B", 1), "special_tokens": special}


def hf_tokenizer(metadata):
    """tokenizer.json and tokenizer_config.json of a GGUF, from its metadata.

    Returns: (tokenizer, tokenizer_config), two dicts ready for JSON.
    """
    vocabulary = Vocabulary(metadata)
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        parts = byte_level_parts(metadata, vocabulary)
    elif kind == "llama":
        parts = sentencepiece_parts(metadata, vocabulary)
    else:
        raise Refused(f"'tokenizer.ggml.model' is '{kind}', expected gpt2 or llama")

    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {name: _token(metadata, vocabulary, key) for name, key in names.items()}
    begins, ends = _adds(metadata, kind)
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": vocabulary.added_tokens(),
        "normalizer": parts["normalizer"],
        "pre_tokenizer": parts["pre_tokenizer"],
        "post_processor": _post_processor(vocabulary, special["bos"] if begins else None,
                                          special["eos"] if ends else None),
        "decoder": parts["decoder"],
        "model": parts["model"],
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": begins,
        "add_eos_token": ends,
        "added_tokens_decoder": {str(token["id"]): {k: v for k, v in token.items() if k != "id"}
                                 for token in tokenizer["added_tokens"]},
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.get(
            f"{metadata.get('general.architecture')}.context_length"),
    }
    config |= {f"{name}_token": token for name, token in special.items() if token is not None}
    if "tokenizer.chat_template" in metadata:
        config["chat_template"] = metadata["tokenizer.chat_template"]
    return tokenizer, config
