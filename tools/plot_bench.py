#!/usr/bin/env python3
"""Draws what `paceline bench --json` wrote.

    tools/plot_bench.py bench.json [more.json ...] --output pictures/ [--format svg]

    speedup_tasks.svg  tokens per second with a draft over those without, by task of the input
    speedup_batch.svg  the same by requests in flight
    step_cost.svg      time of a step against its rows (--step-rows)
    acceptance.svg     how often a draft is accepted, by depth
    scaling.svg        tokens per second against tensor-parallel ranks, over those of the fewest

A picture that the files hold nothing for is left out, and said so. Files of several runs may be
given together: the ranks of `scaling` are each a run of their own. Needs matplotlib.
"""

import argparse
import importlib.util
import json
import pathlib
import sys

SCHEMA = 1


class Refused(Exception):
    """What is wrong with the input, for the user."""


def read_reports(paths):
    """The parsed files; raises Refused for what is not a report of our schema."""
    reports = []
    for path in paths:
        try:
            report = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Refused(f"{path}: {error}") from error
        if not isinstance(report, dict) or "tests" not in report:
            raise Refused(f"{path}: not a report of `paceline bench --json`")
        if report.get("schema") != SCHEMA:
            raise Refused(f"{path}: schema {report.get('schema')}, expected {SCHEMA}")
        reports.append(report)
    return reports


def tests_of(reports):
    """(setting, test) of all reports, their speeds as they are in the files."""
    return [(report["settings"][test["setting"]], test)
            for report in reports for test in report["tests"]]


def setting_name(setting):
    """"int4, 2 threads, TP 2": what differs between runs of one model."""
    threads = setting["threads"]
    text = f"{setting['weights']}, {threads} thread{'' if threads == 1 else 's'}"
    return text + (f", TP {setting['tp']}" if setting["tp"] > 1 else "")


def load_key(setting, test):
    """What two tests share if only their drafts differ."""
    return (setting_name(setting), setting["numerics_id"], test["input"], test["prompt_tokens"],
            test["new_tokens"], test["concurrency"], test["request_rate"])


def draft_name(setting, test):
    """"head 8x4, 12 nodes"."""
    nodes = f", {test['draft_nodes']} nodes" if test["draft_nodes"] else ""
    return f"{setting['drafter']} {test['draft']}{nodes}"


def drafted_pairs(reports):
    """[(name of the draft, test without drafts, test with them)] of one load each."""
    plain = {load_key(setting, test): test for setting, test in tests_of(reports)
             if test["draft"] == "off"}
    return [(draft_name(setting, test), plain[load_key(setting, test)], test)
            for setting, test in tests_of(reports)
            if test["draft"] != "off" and load_key(setting, test) in plain]


def speedup_by_task(reports):
    """{draft: {task: time of a token without drafts over that with them}}, of the smallest batch;
    "all" is the whole input."""
    series = {}
    least = {}
    for name, plain, drafted in drafted_pairs(reports):
        tasks = {task["name"]: task["tpot_ms"] for task in plain["tasks"]}
        if len(tasks) < 2 or drafted["concurrency"] >= least.get(name, 1 << 30):
            continue
        least[name] = drafted["concurrency"]
        bars = {task["name"]: tasks[task["name"]] / task["tpot_ms"]
                for task in drafted["tasks"] if task["tpot_ms"] and tasks.get(task["name"])}
        bars["all"] = plain["tpot_ms"]["mean"] / drafted["tpot_ms"]["mean"]
        series[name] = bars
    return series


def speedup_by_batch(reports):
    """{(draft, load): [(requests in flight, output tokens per second over those without)]}"""
    series = {}
    for name, plain, drafted in drafted_pairs(reports):
        load = drafted["input"] or f"pp{drafted['prompt_tokens']}"
        ratio = drafted["output_throughput"]["mean"] / plain["output_throughput"]["mean"]
        series.setdefault(f"{name}, {load}", []).append((drafted["concurrency"], ratio))
    return {name: sorted(points) for name, points in series.items()}


def step_costs(reports):
    """{setting: [(rows, median, p10 and p90 or least and most, ms)]}"""
    series = {}
    for report in reports:
        for cost in report["step_cost"]:
            step = cost["step_ms"]
            name = setting_name(report["settings"][cost["setting"]])
            series.setdefault(name, []).append(
                (cost["rows"], step["median"], step["min"], step["p90"]))
    return {name: sorted(points) for name, points in series.items()}


def acceptance(reports):
    """{draft and load: shares accepted, by depth from 1}"""
    return {f"{draft_name(setting, test)}: {test['name']}": test["acceptance_by_depth"]
            for setting, test in tests_of(reports) if test["acceptance_by_depth"]}


def scaling(reports):
    """{kind of speed and load: [(ranks of a replica, speed over that of the fewest ranks)]}"""
    speeds = {}
    for setting, test in tests_of(reports):
        if test["draft"] != "off":
            continue
        for kind, label in (("prefill_tokens_per_s", "prefill"), ("decode_tokens_per_s", "decode")):
            if kind not in test:
                continue
            name = f"{label}, {setting['weights']}, {test['name']}"
            speeds.setdefault(name, {})[setting["tp"]] = test[kind]["mean"]
    series = {}
    for name, by_tp in speeds.items():
        if len(by_tp) < 2:
            continue
        fewest = by_tp[min(by_tp)]
        series[name] = [(tp, by_tp[tp] / fewest) for tp in sorted(by_tp)]
    return series


def draw_tasks(axes, series):
    """Groups of bars, a group for each task."""
    tasks = list(dict.fromkeys(task for bars in series.values() for task in bars))
    width = 0.8 / len(series)
    for index, (name, bars) in enumerate(series.items()):
        places = [i + (index - (len(series) - 1) / 2) * width for i in range(len(tasks))]
        axes.bar(places, [bars.get(task, 0) for task in tasks], width, label=name)
    axes.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel("speed-up over plain decoding")


def draw_lines(axes, series, xlabel, ylabel):
    """A line through the points of each series, the x axis in powers of two."""
    for name, points in series.items():
        axes.plot([point[0] for point in points], [point[1] for point in points], marker="o",
                  label=name)
    axes.set_xscale("log", base=2)
    places = sorted({point[0] for points in series.values() for point in points})
    axes.set_xticks(places, [str(place) for place in places])
    axes.minorticks_off()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_ylim(bottom=0)


def draw_step_cost(axes, series):
    """Medians, and around them from the least to the 90th percentile."""
    draw_lines(axes, series, "rows of a step", "ms")
    for line, points in zip(axes.get_lines(), series.values()):
        axes.fill_between([p[0] for p in points], [p[2] for p in points], [p[3] for p in points],
                          color=line.get_color(), alpha=0.15)


def draw_acceptance(axes, series):
    """Shares by depth."""
    for name, shares in series.items():
        axes.plot(range(1, len(shares) + 1), shares, marker="o", label=name)
    axes.set_xticks(range(1, max(len(shares) for shares in series.values()) + 1))
    axes.set_ylim(0, 1)
    axes.set_xlabel("depth")
    axes.set_ylabel("accepted, of the trees that reached it")


def draw_scaling(axes, series):
    """Speeds, and what they would be if ranks were free."""
    draw_lines(axes, series, "ranks of a replica", "speed over that of the fewest ranks")
    ranks = sorted({point[0] for points in series.values() for point in points})
    axes.plot(ranks, [rank / ranks[0] for rank in ranks], color="gray", linestyle=":",
              label="linear")


PICTURES = {
    "speedup_tasks": ("Speed-up by task", speedup_by_task, draw_tasks),
    "speedup_batch": ("Speed-up by batch", speedup_by_batch,
                      lambda axes, series: draw_lines(axes, series, "requests in flight",
                                                      "speed-up over plain decoding")),
    "step_cost": ("Cost of a step", step_costs, draw_step_cost),
    "acceptance": ("Acceptance by depth", acceptance, draw_acceptance),
    "scaling": ("Scaling", scaling, draw_scaling),
}


def subtitle(reports):
    """The models, machines and commits of the reports, and whether acceptance was simulated."""
    parts = []
    for report in reports:
        part = f"{report['model']['name']}, {report['machine']['cpu']}, {report['commit']}"
        if report["simulated_tokens_per_step"]:
            part += f", acceptance simulated at {report['simulated_tokens_per_step']:g} a step"
        if part not in parts:
            parts.append(part)
    return "\n".join(parts)


def draw(reports, output, file_format):
    """Writes every picture that there are figures for; returns the files written."""
    import matplotlib
    matplotlib.use("agg")
    from matplotlib import pyplot

    written = []
    for name, (title, collect, paint) in PICTURES.items():
        series = collect(reports)
        if not series:
            print(f"plot_bench: no figures for {name}", file=sys.stderr)
            continue
        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        paint(axes, series)
        axes.set_title(title)
        figure.supxlabel(subtitle(reports), fontsize=7, color="gray")
        axes.set_ylim(top=1.2 * axes.get_ylim()[1])  # room for the legend
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
        path = output / f"{name}.{file_format}"
        figure.savefig(path, dpi=150)
        pyplot.close(figure)
        written.append(path)
    return written


def main(arguments=None):
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("reports", nargs="+", type=pathlib.Path, metavar="FILE.json")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("."), metavar="DIR",
                        help="where the pictures go (default: here)")
    parser.add_argument("--format", choices=("svg", "png", "pdf"), default="svg")
    options = parser.parse_args(arguments)
    try:
        reports = read_reports(options.reports)
        if importlib.util.find_spec("matplotlib") is None:
            raise Refused("needs matplotlib; install it (Debian: python3-matplotlib, or `pip "
                          "install matplotlib` in an environment of your own) and run this again "
                          "with that Python")
        options.output.mkdir(parents=True, exist_ok=True)
        for path in draw(reports, options.output, options.format):
            print(path)
    except (Refused, OSError) as error:
        print(f"plot_bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
