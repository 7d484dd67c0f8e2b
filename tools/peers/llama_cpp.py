"""llama.cpp, built from the source that the PyPI package llama-cpp-python carries."""

import json
import os
import pathlib
import shutil
import sys
import tarfile
import tempfile

from . import Refused
from .command import note, run

PACKAGE = "llama-cpp-python==0.3.36"
TARGETS = ("llama-bench", "llama-batched-bench")

# What -march=native would turn on, by the flags of /proc/cpuinfo, without AMX.
FEATURES = {
    "GGML_AVX": ("avx",),
    "GGML_AVX2": ("avx2",),
    "GGML_FMA": ("fma",),
    "GGML_F16C": ("f16c",),
    "GGML_BMI2": ("bmi2",),
    "GGML_AVX_VNNI": ("avx_vnni",),
    "GGML_AVX512": ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
    "GGML_AVX512_VBMI": ("avx512vbmi",),
    "GGML_AVX512_VNNI": ("avx512_vnni",),
    "GGML_AVX512_BF16": ("avx512_bf16",),
}


def cpu_flags(cpuinfo="/proc/cpuinfo"):
    """The processor's features as Linux names them."""
    for line in pathlib.Path(cpuinfo).read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set()


def builds(flags):
    """{name: CMake options} of the builds worth measuring on a processor with these flags.

    One for the machine as it is. With AMX another without: its AMX path is faster for some batches,
    slower (or, compiled by g++ 12, broken) for others.
    """
    found = {"native": ["-DGGML_NATIVE=ON"]}
    if "amx_int8" in flags:
        plain = [f"-D{option}={'ON' if set(needed) <= flags else 'OFF'}"
                 for option, needed in FEATURES.items()]
        found["no-amx"] = ["-DGGML_NATIVE=OFF", *plain]
    return found


def unpack_source(cache):
    """The folder of llama.cpp's source, downloaded once."""
    version = PACKAGE.rpartition("==")[2]
    source = cache / f"llama.cpp-{version}"
    if source.exists():
        return source
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        note(f"downloading {PACKAGE}")
        run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary",
             PACKAGE.partition("==")[0], "--dest", scratch, PACKAGE], f"downloading {PACKAGE}")
        archives = list(pathlib.Path(scratch).glob("*.tar.gz"))
        if len(archives) != 1:
            raise Refused(f"{PACKAGE}: expected one source archive, got {len(archives)}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(scratch, filter="data")
        found = list(pathlib.Path(scratch).glob("*/vendor/llama.cpp"))
        if len(found) != 1 or not (found[0] / "tools" / "llama-bench").is_dir():
            raise Refused(f"{PACKAGE}: carries no llama.cpp with its tools")
        shutil.move(found[0], source)
    return source


def build(cache, name, options):
    """The folder with the built tools."""
    folder = cache / f"llama.cpp-{name}"
    tools = folder / "bin"
    if all((tools / target).exists() for target in TARGETS):
        return tools
    source = unpack_source(cache)
    note(f"building llama.cpp ({name}) in {folder}")
    run(["cmake", "-S", source, "-B", folder, "-DCMAKE_BUILD_TYPE=Release",
         "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
         "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_OPENSSL=OFF",
         "-DLLAMA_BUILD_TOOLS=ON", *options], f"configuring llama.cpp ({name})")
    run(["cmake", "--build", folder, "--target", *TARGETS, "--parallel",
         str(len(os.sched_getaffinity(0)))], f"building llama.cpp ({name})")
    return tools


def batched_words(tools, gguf, load):
    """llama-batched-bench of a load: every request a prompt of its own."""
    positions = max(load.batches) * (load.prompt_tokens + load.new_tokens)
    return [tools / "llama-batched-bench", "-m", gguf, "-c", positions, "-b", 2048, "-ub", 512,
            "-npp", load.prompt_tokens, "-ntg", load.new_tokens,
            "-npl", ",".join(map(str, load.batches)), "-t", load.threads, "-tb", load.threads,
            "--output-format", "jsonl"]


def bench_words(tools, gguf, load):
    """llama-bench of a single request: the prompt, and new tokens behind such a prompt."""
    words = [tools / "llama-bench", "-m", gguf, "-t", load.threads, "-r", 1, "-o", "json"]
    return ([*words, "-p", load.prompt_tokens, "-n", 0],
            [*words, "-p", 0, "-n", load.new_tokens, "-d", load.prompt_tokens])


def read_batched(text):
    """{batch: (prompt tokens per second, new tokens per second)} of llama-batched-bench's lines."""
    speeds = {}
    for line in text.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            speeds[row["pl"]] = (row["speed_pp"], row["speed_tg"])
    return speeds


def read_bench(text):
    """Tokens per second of the only test that llama-bench ran."""
    rows = json.loads(text)
    if len(rows) != 1:
        raise Refused(f"llama-bench ran {len(rows)} tests, expected one")
    return rows[0]["avg_ts"]


class LlamaCpp:
    """One build of llama.cpp; of llama-bench and llama-batched-bench the better for each figure."""

    def __init__(self, name, tools, gguf):
        self.name = f"llama.cpp {name}"
        self.tools = tools
        self.gguf = gguf

    def measure(self, load):
        """{figure: tokens per second} of one run of each tool."""
        speeds = read_batched(run(batched_words(self.tools, self.gguf, load), self.name))
        if 1 in load.batches:
            alone = [read_bench(run(words, self.name))
                     for words in bench_words(self.tools, self.gguf, load)]
            speeds[1] = tuple(max(pair) for pair in zip(speeds[1], alone))
        return load.named(speeds)


def prepare(settings):
    """The builds for this machine."""
    return [LlamaCpp(name, build(settings.cache, name, options), settings.gguf)
            for name, options in builds(cpu_flags()).items()]
