"""Engines that are Python packages: each measured by a script of ours in its own environment."""

import json
import pathlib

from .command import environment, note, run

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parents[1]

TRANSFORMERS = ("transformers==5.23.0", "torch==2.15.0")
CTRANSLATE2 = ("ctranslate2==4.8.5", *TRANSFORMERS)  # the converter needs them


def float_model(settings):
    """The GGUF file as a Hugging Face directory in bf16, made once."""
    folder = settings.cache / "model-bf16"
    run([PROJECT / "tools" / "import_gguf.py", "--gguf", settings.gguf, "--output", folder,
         "--weights", "bf16"], "importing the GGUF file as bf16")
    return folder


class ScriptEngine:
    """Runs one of our scripts, which prints {batch: [prompt, new tokens per second]} as JSON."""

    def __init__(self, name, python, script, model):
        self.name = name
        self.python = python
        self.script = HERE / script
        self.model = model

    def measure(self, load):
        """{figure: tokens per second} of one run."""
        output = run([self.python, self.script, self.model, load.prompt_tokens, load.new_tokens,
                      ",".join(map(str, load.batches)), load.threads], self.name,
                     OMP_NUM_THREADS=str(load.threads), TOKENIZERS_PARALLELISM="false")
        speeds = json.loads(output.strip().splitlines()[-1])
        return load.named({int(batch): pair for batch, pair in speeds.items()})


def prepare_transformers(settings):
    """transformers in bf16, eager."""
    python = settings.environments.get("transformers") or environment(
        settings.cache, "transformers", TRANSFORMERS)
    return [ScriptEngine("transformers bf16", python, "run_transformers.py",
                         float_model(settings))]


def prepare_ctranslate2(settings):
    """CTranslate2 with int8 weights, converted once."""
    python = settings.environments.get("ctranslate2") or environment(
        settings.cache, "ctranslate2", CTRANSLATE2)
    converted = settings.cache / "model-ctranslate2"
    if not (converted / "model.bin").exists():
        note(f"converting the model for CTranslate2 into {converted}")
        run([pathlib.Path(python).parent / "ct2-transformers-converter", "--model",
             float_model(settings), "--quantization", "int8", "--output_dir", converted, "--force"],
            "converting the model for CTranslate2")
    return [ScriptEngine("CTranslate2 int8", python, "run_ctranslate2.py", converted)]
