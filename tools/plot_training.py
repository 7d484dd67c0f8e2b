#!/usr/bin/env python3
"""Draws the curves of a drafter's training from its log.

    tools/plot_training.py drafters/mine
    tools/plot_training.py drafters/mine/training_log.jsonl -o curves.png

Four panels: loss, of training and held out, and the learning rate, over steps; of the held-out
texts, acceptance by depth and tokens per step, over the positions trained on. A log that is still
being written is drawn as far as it goes. Needs matplotlib (on Debian: python3-matplotlib).
"""

import argparse
import collections
import json
import math
import pathlib
import sys

LOG = "training_log.jsonl"
NEEDS_MATPLOTLIB = ("plot_training: drawing needs matplotlib; install it with "
                    "'apt-get install python3-matplotlib' or 'pip install matplotlib'")


class BadLog(Exception):
    """What is not a training's log; the message names file and line."""


def read_log(path):
    """(steps, evaluations) of a log, each the objects of its lines. A torn last line is left out."""
    steps, evaluations = [], []
    lines = pathlib.Path(path).read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            entry = json.loads(line)
            if "evaluation" in entry:
                check(entry, ["step", "positions"])
                check(entry["evaluation"], ["loss"])
                check(entry["evaluation"]["tokens_per_step"])
                check(entry["evaluation"].get("shapes", {}))
                check(dict(enumerate(entry["evaluation"]["acceptance"])))
                evaluations.append(entry)
            else:
                check(entry, ["step", "positions", "loss", "learning_rate"])
                steps.append(entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadLog(f"{path} line {number}: is not a line of a training's log: "
                         f"{type(error).__name__} {error}") from None
    if not steps and not evaluations:
        raise BadLog(f"{path}: has no whole line yet")
    return steps, evaluations


def check(numbers, keys=None):
    """ValueError unless those values of a dict (by default all) are numbers."""
    for key in numbers if keys is None else keys:
        value = numbers[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{key} is {value!r}, expected a number")


def moving_mean(values, window):
    """The mean of up to `window` values that end at each.

    >>> moving_mean([4, 2, 6, 8], 2)
    [4.0, 3.0, 4.0, 7.0]
    """
    recent, means, total = collections.deque(), [], 0.0
    for value in values:
        recent.append(value)
        total += value
        if len(recent) > window:
            total -= recent.popleft()
        means.append(total / len(recent))
    return means


def curves_of(evaluations, numbers_of):
    """{name: (positions, values)} of what `numbers_of` finds in each evaluation; a name may be
    missing from some.

    >>> curves_of([{"positions": 5, "evaluation": {"shapes": {"1x5": 1.5}}},
    ...            {"positions": 9, "evaluation": {"shapes": {"1x5": 2, "4x4": 3}}}],
    ...           lambda evaluation: evaluation["shapes"])
    {'1x5': ([5, 9], [1.5, 2]), '4x4': ([9], [3])}
    """
    curves = {}
    for entry in evaluations:
        for name, value in numbers_of(entry["evaluation"]).items():
            positions, values = curves.setdefault(name, ([], []))
            positions.append(entry["positions"])
            values.append(value)
    return curves


def acceptance(evaluation):
    return {f"depth {depth}": share for depth, share in enumerate(evaluation["acceptance"], 1)}


def tokens_per_step(evaluation):
    tried = {f"{name} tried" if name != "1" else "1 token tried": value
             for name, value in evaluation["tokens_per_step"].items()}
    return tried | {f"tree {name}": value for name, value in evaluation.get("shapes", {}).items()}


def draw(figure, steps, evaluations):
    """Fills a matplotlib figure."""
    loss, rate, accepted, tokens = figure.subplots(2, 2).flatten()
    if steps:
        at = [entry["step"] for entry in steps]
        losses = [entry["loss"] for entry in steps]
        window = max(1, math.ceil(len(steps) / 100))
        loss.plot(at, losses, color="tab:blue", alpha=0.25)
        loss.plot(at, moving_mean(losses, window), color="tab:blue",
                  label=f"training, mean of {window} lines")
        rate.plot(at, [entry["learning_rate"] for entry in steps])
    if evaluations:
        loss.plot([entry["step"] for entry in evaluations],
                  [entry["evaluation"]["loss"] for entry in evaluations], "o-",
                  color="tab:orange", markersize=3, label="held out")
    for panel, numbers_of in ((accepted, acceptance), (tokens, tokens_per_step)):
        for name, (positions, values) in curves_of(evaluations, numbers_of).items():
            panel.plot(positions, values, "o-", markersize=3, label=name)
    titles = {loss: ("loss", "step"), rate: ("learning rate", "step"),
              accepted: ("held out: accepted by depth", "positions"),
              tokens: ("held out: tokens per step", "positions")}
    for panel, (title, along) in titles.items():
        panel.set_title(title)
        panel.set_xlabel(along)
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[1]:
            panel.legend(fontsize="small")


def main(words):
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=pathlib.Path, metavar=f"DIR|{LOG}",
                        help="what `paceline train --output` named, or the log in it")
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("curves.png"),
                        help="the picture: .png, .svg or .pdf (default: %(default)s)")
    arguments = parser.parse_args(words)
    path = arguments.log / LOG if arguments.log.is_dir() else arguments.log
    try:
        steps, evaluations = read_log(path)
    except (BadLog, OSError) as error:
        print(f"plot_training: {error}", file=sys.stderr)
        return 2
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        print(NEEDS_MATPLOTLIB, file=sys.stderr)
        return 2
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure, steps, evaluations)
    try:
        figure.savefig(arguments.output, dpi=120)
    except (OSError, ValueError) as error:
        print(f"plot_training: {arguments.output}: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.output}: {len(steps)} steps, {len(evaluations)} evaluations")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
