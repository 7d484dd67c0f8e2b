#!/usr/bin/env python3
"""Answers one file of prompts with several drafters, and shows what each of them saves.

    tools/compare_drafters.py --model models/SmolLM2-135M-Instruct --input prompts.jsonl \\
        --drafter my-redrafter --drafter my-medusa --lookup --draft 4x4 --draft 8x4/31 \\
        --temperature 0 --temperature 1 --draft-noise shared --draft-noise none -- --max-tokens 128

For every temperature: no drafter, then each drafter in each shape, alone and, with --lookup, merged
with prompt lookup, which is run alone as well. The answers' checksums have to be equal; if one
differs the exit status is 1. With --rounds the configurations take turns, so that a machine that
gets slower or faster does so for all of them; speed is then the median of the rounds, each compared
with that round's run without a drafter.

The table, in Markdown, goes to standard output (or --output), all figures to --json. What follows
-- goes to every `paceline generate`. A request's own temperature wins over --temperature.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

PROJECT = pathlib.Path(__file__).resolve().parent.parent
OFF = "off"


class Failed(Exception):
    """A run that ended badly, or answers that differ; the message says which."""


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One way to answer the input."""

    drafter: str  # as the table names it
    shape: str = ""
    temperature: str = ""  # as given; empty: the requests' own
    noise: str = ""  # shared or none; empty: the default
    options: tuple = ()  # of `paceline generate`

    def __str__(self):
        parts = [self.drafter, self.shape]
        parts += [f"T={self.temperature}"] if self.temperature else []
        parts += [f"noise {self.noise}"] if self.noise else []
        return " ".join(part for part in parts if part)


def shape_options(shape):
    """What to pass for a shape.

    >>> shape_options("8x4/31")
    ['--draft', '8x4', '--draft-nodes', '31']
    >>> shape_options("1x5")
    ['--draft', '1x5']
    """
    draft, _, nodes = shape.partition("/")
    return ["--draft", draft] + (["--draft-nodes", nodes] if nodes else [])


def drafter_names(directories):
    """A short name for each: its last part, or the whole path where those are not distinct.

    >>> drafter_names(["a/redrafter", "b/medusa/"])
    ['redrafter', 'medusa']
    >>> drafter_names(["a/head", "b/head"])
    ['a/head', 'b/head']
    """
    names = [pathlib.Path(directory).name for directory in directories]
    return names if len(set(names)) == len(names) else list(directories)


def drafters_of(arguments):
    """(name, options) of everything that drafts."""
    drafters = [("lookup", ["--lookup"])] if arguments.lookup else []
    for name, directory in zip(drafter_names(arguments.drafter), arguments.drafter):
        drafters.append((name, ["--drafter", directory]))
        if arguments.lookup:
            drafters.append((f"{name} + lookup", ["--drafter", directory, "--lookup"]))
    return drafters


def configurations(arguments):
    """All of them, of each temperature the one without a drafter first."""
    found = []
    for temperature in arguments.temperature or [""]:
        common = ["--temperature", temperature] if temperature else []
        found.append(Configuration(OFF, temperature=temperature, options=tuple(common)))
        sampled = not temperature or float(temperature) > 0
        for name, options in drafters_of(arguments):
            has_noise = sampled and "--drafter" in options  # lookup alone sees none
            for noise in (arguments.draft_noise or [""]) if has_noise else [""]:
                words = options + (["--draft-noise", noise] if noise else [])
                found += [Configuration(name, shape, temperature, noise,
                                        tuple(common + words + shape_options(shape)))
                          for shape in arguments.draft]
    return found


def run(configuration, arguments, folder):
    """Answers the input once; returns the report."""
    report = folder / "report.json"
    launcher = ["mpirun", "--oversubscribe", "-n", str(arguments.ranks)]
    words = [*(launcher if arguments.ranks > 1 else []), str(arguments.paceline), "generate",
             "--model", arguments.model, "--input", arguments.input,
             "--output", str(folder / "answers.jsonl"), "--report", str(report),
             *configuration.options, *arguments.more]
    environment = dict(os.environ)
    if os.geteuid() == 0:  # Open MPI asks whether this is meant
        environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    for file in folder.iterdir():
        file.unlink()
    done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{configuration}: exit status {done.returncode}\n{done.stderr.strip()}")
    return json.loads(report.read_text(encoding="utf-8"))


def figures_of(report):
    """What a comparison needs of one report."""
    drafts = report["drafts"]
    unmerged = drafts["tree_rows"] + drafts["rows_saved_by_merging"]
    return {
        "checksum": report["checksum"],
        "tokens_per_step": report["tokens_per_step"],
        "tokens_per_second": report["tokens_per_second"],
        "acceptance_by_depth": drafts["acceptance_by_depth"],
        "rows_per_tree": drafts["tree_rows"] / drafts["trees"] if drafts["trees"] else 0,
        "saved_rows": drafts["rows_saved_by_merging"] / unmerged if unmerged else 0,
    }


def compare(arguments, folder):
    """Runs everything; returns the figures of each configuration, in their order."""
    every = configurations(arguments)
    rounds = []
    for number in range(1, arguments.rounds + 1):
        rounds.append([])
        for configuration in every:
            print(f"round {number} of {arguments.rounds}: {configuration}", file=sys.stderr,
                  flush=True)
            rounds[-1].append(figures_of(run(configuration, arguments, folder)))
    results = []
    off = 0
    for index, configuration in enumerate(every):
        off = index if configuration.drafter == OFF else off
        speeds = [figures[index]["tokens_per_second"] for figures in rounds]
        ratios = [figures[index]["tokens_per_second"] / figures[off]["tokens_per_second"]
                  for figures in rounds if figures[off]["tokens_per_second"] > 0]
        results.append({
            **{key: value for key, value in dataclasses.asdict(configuration).items()
               if key != "options"},
            **rounds[0][index],
            "tokens_per_second": statistics.median(speeds),
            "speed_against_off": statistics.median(ratios) if ratios else 0,
            "equal": all(figures[index]["checksum"] == rounds[0][off]["checksum"] is not None
                         for figures in rounds),
        })
    return results


def markdown(results):
    """The table."""
    lines = ["| drafter | shape | temperature | noise | tokens per step | accepted by depth |"
             " rows per tree | saved by merging | tokens/s | against off | same answers |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for result in results:
        drafted = result["drafter"] != OFF
        accepted = " ".join(f"{share:.2f}" for share in result["acceptance_by_depth"])
        cells = [result["drafter"], result["shape"], result["temperature"], result["noise"],
                 f"{result['tokens_per_step']:.3f}", accepted,
                 f"{result['rows_per_tree']:.1f}" if drafted else "",
                 f"{result['saved_rows']:.0%}" if drafted else "",
                 f"{result['tokens_per_second']:.1f}", f"{result['speed_against_off']:.2f}",
                 "yes" if result["equal"] else "NO"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def parse_arguments(words):
    """The command line as an argparse.Namespace; what stands behind -- is in `more`."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR")
    parser.add_argument("--input", required=True, metavar="FILE.jsonl")
    parser.add_argument("--drafter", action="append", default=[], metavar="DIR",
                        help="a drafter of any kind; may be given several times")
    parser.add_argument("--lookup", action="store_true",
                        help="prompt lookup alone, and merged with every drafter")
    parser.add_argument("--draft", action="append", metavar="WIDTHxDEPTH[/NODES]",
                        help="a shape, 4x4 by default; may be given several times")
    parser.add_argument("--temperature", action="append", metavar="T",
                        help="may be given several times (default: the requests' own)")
    parser.add_argument("--draft-noise", action="append", choices=["shared", "none"],
                        help="of drafters at temperature above 0; may be given twice")
    parser.add_argument("--ranks", type=int, default=1, help="by mpirun (default: 1)")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each (default: 1)")
    parser.add_argument("--paceline", type=pathlib.Path,
                        default=PROJECT / "build" / "launcher" / "paceline")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE.md",
                        help="where the table goes (default: standard output)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE.json", help="all figures")
    more = []
    if "--" in words:
        more = words[words.index("--") + 1:]
        words = words[:words.index("--")]
    arguments = parser.parse_args(words)
    arguments.more = more
    arguments.draft = arguments.draft or ["4x4"]
    if arguments.rounds < 1:
        parser.error("--rounds: expected at least 1")
    try:
        [float(temperature) for temperature in arguments.temperature or []]
    except ValueError:
        parser.error("--temperature: expected a number")
    if not arguments.drafter and not arguments.lookup:
        parser.error("nothing to compare: give --drafter, --lookup or both")
    return arguments


def main(words):
    """Runs the command; returns its exit status."""
    arguments = parse_arguments(words)
    try:
        with tempfile.TemporaryDirectory(prefix="paceline-compare-") as folder:
            results = compare(arguments, pathlib.Path(folder))
    except (Failed, OSError) as failure:
        print(f"compare_drafters: {failure}", file=sys.stderr)
        return 1
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if arguments.output:
        arguments.output.write_text(markdown(results), encoding="utf-8")
    else:
        print(markdown(results), end="")
    different = [result for result in results if not result["equal"]]
    for result in different:
        name = Configuration(*(result[key] for key in ("drafter", "shape", "temperature", "noise")))
        print(f"compare_drafters: {name}: other answers than without a drafter", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
