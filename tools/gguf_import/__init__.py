"""Conversion of a Llama-family GGUF file into a Hugging Face model directory.

`config` reads the metadata into config.json, `tokenizer` builds tokenizer.json, `weights` writes
model.safetensors, `source` finds the GGUF file and `output` keeps the model directory whole.
`source`, `output` and `tokenizer` need nothing but the standard library.
"""


class Refused(Exception):
    """The user's file or options cannot be imported; the message says which and why."""
