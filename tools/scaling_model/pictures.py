"""The pictures of docs/scaling.md."""

from scaling_model import inputs, step, tables

REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PARTS = ("products", "attention", "exchanges", "gaps")


def frontier(model, fmt, gpu, costs):
    """{layout: [(tokens a second of one request, of all requests)]} on eight GPUs."""
    lines = {}
    for tp in (8, 4, 2, 1):
        points = []
        for requests in REQUESTS:
            if requests < 8 // tp:
                continue
            speed = tables.layout_speed(model, fmt, gpu, tp, requests, costs)
            if speed is not None:
                points.append((speed / requests, speed))
        if points:
            lines[f"{8 // tp} x TP{tp}" if tp < 8 else "TP8"] = points
    return lines


def draw_frontiers(figure):
    """Speed of a request against that of all, each point a number of requests."""
    cases = (("Llama-3-8B", "bf16"), ("Llama-3-70B", "bf16"))
    for axes, (model, fmt) in zip(figure.subplots(1, len(cases)), cases):
        for name, points in frontier(model, fmt, "H200", inputs.ASKED).items():
            axes.plot(*zip(*points), marker="o", markersize=3, label=name)
        axes.set_title(f"{model} {fmt}", fontsize=9)
        axes.set_xlabel("tokens/s of a request")
        axes.set_ylabel("tokens/s of 8 x H200")
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)


def draw_parts(figure):
    """Bars of a step's parts."""
    cases = [(model, tp) for model in ("Llama-3-8B", "Llama-3-70B") for tp in tables.TPS
             if step.fits(tables.setup_of(model, "bf16", "H200", tp), inputs.Load())]
    axes = figure.subplots()
    names = [f"{model.rsplit('-', 1)[1]}, TP{tp}" for model, tp in cases]
    shares = []
    for model, tp in cases:
        time = step.step_time(tables.setup_of(model, "bf16", "H200", tp), inputs.Load())
        shares.append([getattr(time, part) / time.total for part in PARTS])
    below = [0.0] * len(cases)
    for index, part in enumerate(PARTS):
        heights = [share[index] for share in shares]
        axes.bar(names, heights, 0.7, bottom=below, label=part)
        below = [low + height for low, height in zip(below, heights)]
    axes.set_ylabel("share of a step")
    axes.tick_params(axis="x", labelrotation=30)
    axes.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))


PICTURES = {"scaling_layouts": draw_frontiers, "scaling_parts": draw_parts}


def draw(directory):
    """Writes every picture; returns the files written."""
    import matplotlib
    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "scaling"})
    from matplotlib import pyplot

    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, paint in PICTURES.items():
        figure = pyplot.figure(figsize=(8, 3.8), layout="constrained")
        paint(figure)
        figure.supxlabel("predicted by tools/scaling.py (`asked`): H200, 1,024 positions a request",
                         fontsize=7, color="gray")
        path = directory / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
        written.append(path)
    return written
