#!/usr/bin/env python3
"""Predicts the time of an engine step on one to eight GPUs, from a cost model.

    tools/scaling.py                                      the tables of docs/scaling.md
    tools/scaling.py --update docs/scaling.md             writes them into that page
    tools/scaling.py --pictures docs/                     and its pictures (needs matplotlib)
    tools/scaling.py --model Llama-3-70B --weights fp8 --gpu H200 --requests 16 --context 4096
    tools/scaling.py --model Llama-3-8B --cost exchange_latency=5 --cost read_share=0.94

With --model it prints where a step's time goes at each number of ranks. --cost replaces one of the
parameters of `asked` (scaling_model/inputs.py), say by what has been measured.
"""

import argparse
import dataclasses
import importlib.util
import pathlib
import sys

from scaling_model import inputs, pictures, step, tables


class Refused(Exception):
    """What is wrong with the input, for the user."""


def replaced_costs(assignments):
    """`asked` with NAME=VALUE replaced; raises Refused for what is not a cost."""
    costs = inputs.ASKED
    known = {field.name: field.type for field in dataclasses.fields(inputs.Costs)
             if field.name != "name"}
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        if name not in known:
            raise Refused(f"--cost {assignment}: expected one of {', '.join(known)}")
        try:
            value = float(text)
        except ValueError as error:
            raise Refused(f"--cost {assignment}: expected a number after '='") from error
        if not 0 <= value < float("inf") or (value == 0 and name.endswith("_share")):
            raise Refused(f"--cost {assignment}: out of range")
        costs = dataclasses.replace(costs, **{name: value})
    return costs


def with_tables(page):
    """The page with each `<!-- table: name -->` ... `<!-- end -->` filled anew."""
    parts = page.split("<!-- table: ")
    filled = [parts[0]]
    for part in parts[1:]:
        name, found, rest = part.partition(" -->\n")
        _, end, rest = rest.partition("<!-- end -->")
        if not found or not end or name not in tables.TABLES:
            raise Refused(f"no table '{name.splitlines()[0]}', or it has no end")
        filled.append(f"{name} -->\n" + "\n".join(tables.TABLES[name]()) + f"\n{end}{rest}")
    return "<!-- table: ".join(filled)


def case_table(options):
    """Where a step's time goes, of what the options name."""
    load = inputs.Load(options.requests, options.context, kv=options.kv)
    costs = replaced_costs(options.cost)
    setups = [step.Setup(inputs.SHAPES[options.model], inputs.FORMATS[options.weights],
                         inputs.GPUS[options.gpu], tp, costs) for tp in range(1, 9)]
    drafter = inputs.Drafter() if options.draft else None
    return tables.parts_table([(f"TP{setup.tp}", setup) for setup in setups], load, drafter)


def main(arguments=None):
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--update", type=pathlib.Path, metavar="PAGE.md")
    parser.add_argument("--pictures", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--model", choices=sorted(inputs.SHAPES))
    parser.add_argument("--weights", choices=sorted(inputs.FORMATS), default="bf16")
    parser.add_argument("--gpu", choices=sorted(inputs.GPUS), default="H200")
    parser.add_argument("--requests", type=int, default=1)
    parser.add_argument("--context", type=int, default=1024, help="positions of each request")
    parser.add_argument("--kv", choices=sorted(inputs.KV_BYTES), default="bf16")
    parser.add_argument("--draft", action="store_true",
                        help="with trees of 32 rows, 5 x 5 beams, 3.5 tokens a step")
    parser.add_argument("--cost", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args(arguments)
    try:
        if options.requests < 1 or options.context < 0:
            raise Refused("--requests and --context: expected positive numbers")
        if options.cost and not options.model:
            raise Refused("--cost needs --model: the page is of the parameters that it states")
        if options.model:
            print("\n".join(case_table(options)))
        if options.update:
            page = options.update.read_text(encoding="utf-8")
            options.update.write_text(with_tables(page), encoding="utf-8")
        if options.pictures:
            if importlib.util.find_spec("matplotlib") is None:
                raise Refused("--pictures needs matplotlib; install it (Debian: python3-matplotlib, "
                              "or `pip install matplotlib` in an environment of your own) and "
                              "run this again with that Python")
            for path in pictures.draw(options.pictures):
                print(path)
        if not (options.model or options.update or options.pictures):
            for name, table in tables.TABLES.items():
                print(f"{name}\n\n" + "\n".join(table()) + "\n")
    except (Refused, OSError) as error:
        print(f"scaling: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
