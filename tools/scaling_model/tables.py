"""The tables of docs/scaling.md, each a list of lines."""

import dataclasses

from scaling_model import inputs, published, step

MODELS = ("Llama-2-7B", "Llama-2-13B", "Llama-3-8B", "Llama-3-70B")
TPS = (1, 2, 4, 8)
BOTH = (inputs.OTHERS, inputs.ASKED)


def rows_of(header, rows):
    """A table in Markdown."""
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header),
            *["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]]


def setup_of(model, weights, gpu, tp, costs=inputs.ASKED, **more):
    """A Setup by names."""
    return step.Setup(inputs.SHAPES[model], inputs.FORMATS[weights], inputs.GPUS[gpu], tp, costs,
                      **more)


def span(low, high, digits=0):
    """"12-15", as one number where both round to it."""
    low, high = f"{low:,.{digits}f}", f"{high:,.{digits}f}"
    return low if low == high else f"{low}–{high}"


def milliseconds(time):
    """Of microseconds."""
    return f"{time / 1e3:.2f}"


def parameters():
    """Of both sets."""
    asked, others = (dataclasses.asdict(costs) for costs in (inputs.ASKED, inputs.OTHERS))
    return rows_of(("parameter", "asked", "others"),
                   [(f"`{name}`", value, others[name]) for name, value in asked.items()
                    if name != "name"])


def measured_by_others():
    """Published speeds beside the model's."""
    rows = []
    for point in published.SPEEDS:
        model = [published.predicted_speed(point, costs) for costs in BOTH]
        rows.append((point.who, f"{point.shape} {point.weights}", f"{point.tp} x {point.gpu}",
                     point.requests, f"{point.speed:,.0f}",
                     *[f"{speed:,.0f} ({speed / point.speed - 1:+.0%})" for speed in model]))
    return rows_of(("engine", "model", "GPUs", "requests", "published, tokens/s", "others",
                    "asked"), rows)


def exchanges_by_others():
    """Published times of exchanges beside the model's."""
    rows = []
    for gpus, size, *times in published.EXCHANGES:
        model = published.predicted_exchange(gpus, size, inputs.ASKED)
        rows.append((gpus, f"{size >> 10} KiB",
                     *[f"{time}, {guess:.0f}" for time, guess in zip(times, model)]))
    return rows_of(("GPUs", "message", "one-shot, `gather`", "two-shot, `scatter`",
                    "NCCL, `all-reduce`"), rows)


def weights():
    """GB that the ranks that read most read in a step."""
    rows = []
    for model in MODELS:
        for fmt in ("bf16", "fp8", "int8", "int4"):
            sizes = [step.largest_read(setup_of(model, fmt, "H100", tp)) / 1e9
                     for tp in (1, 2, 3, 4, 6, 8)]
            rows.append((model, fmt, *[f"{size:.2f}" for size in sizes]))
    return rows_of(("model", "weights", "TP1", "TP2", "TP3", "TP4", "TP5 to 7 (of 6)", "TP8"), rows)


def exchanges():
    """Microseconds of one exchange, and where the ways cross."""
    rows = []
    for hidden, model in ((4096, "Llama-3-8B"), (8192, "Llama-3-70B")):
        for tp in (2, 4, 8):
            setup = setup_of(model, "bf16", "H100", tp)
            cells = []
            for count in (1, 8, 32, 64, 512):
                times = step.exchange_times(setup, count, hidden)
                cells.append(", ".join(f"{times[way]:.0f}" for way in
                                       ("gather", "scatter", "all-reduce")))
            rows.append((hidden, tp, *cells, step.crossover_rows(setup, hidden) or "never"))
    return rows_of(("hidden", "ranks", "1 row", "8 rows", "32 rows", "64 rows", "512 rows",
                    "`scatter` faster from rows"), rows)


def speed_rows(load, drafter):
    """Tokens per second by GPU, model, weights and ranks."""
    rows = []
    for gpu in ("H100", "H200"):
        for model in MODELS:
            for fmt in ("bf16", "fp8", "int4"):
                cells = []
                for tp in TPS:
                    setups = [setup_of(model, fmt, gpu, tp, costs) for costs in BOTH]
                    if not step.fits(setups[0], load, drafter):
                        cells.append("does not fit")
                        continue
                    speeds = [step.tokens_per_second(setup, load, drafter) for setup in setups]
                    cells.append(span(*speeds))
                    if drafter is None:
                        cells[-1] += f" of {step.bound(setups[0], load):,.0f}"
                rows.append((gpu, model, fmt, *cells))
    return rows_of(("GPU", "model", "weights", *[f"TP{tp}" for tp in TPS]), rows)


def plain(requests):
    """A table's function."""
    return lambda: speed_rows(inputs.Load(requests), None)


def drafted():
    """The same of one request with drafts."""
    return speed_rows(inputs.Load(), inputs.Drafter())


def drafted_many():
    """Tokens per second of more requests with drafts and without, bf16, `asked`."""
    rows = []
    for model in MODELS:
        for requests in (8, 64):
            load = inputs.Load(requests)
            cells = []
            for tp in TPS:
                setup = setup_of(model, "bf16", "H200", tp)
                speeds = [step.tokens_per_second(setup, load, drafter)
                          for drafter in (None, inputs.Drafter())]
                cells.append(", ".join(f"{speed:,.0f}" for speed in speeds)
                             if step.fits(setup, load, inputs.Drafter()) else "does not fit")
            rows.append((model, requests, *cells))
    return rows_of(("model", "requests", *[f"TP{tp}: plain, drafts" for tp in TPS]), rows)


def parts_table(setups, load, drafter=None):
    """Where a step's time goes: [(name, Setup)]."""
    rows = []
    for name, setup in setups:
        time = step.step_time(setup, load, drafter)
        rows.append((name, *[milliseconds(part) for part in dataclasses.astuple(time)],
                     milliseconds(time.total),
                     f"{step.tokens_per_second(setup, load, drafter):,.0f}",
                     f"{step.bound(setup, load):,.0f}",
                     "yes" if step.fits(setup, load, drafter) else "no"))
    return rows_of(("", "products", "attention", "exchanges", "gaps", "draft", "step, ms",
                    "tokens/s", "bound, plain", "fits"), rows)


def parts():
    """Of two models, one request."""
    setups = [(f"{model}, TP{tp}, {costs.name}", setup_of(model, "bf16", "H100", tp, costs))
              for model in ("Llama-3-8B", "Llama-3-70B") for costs in (inputs.ASKED, inputs.OTHERS)
              for tp in TPS]
    return parts_table(setups, inputs.Load())


def drafts():
    """What a draft costs and must give."""
    rows = []
    for model in ("Llama-3-8B", "Llama-3-70B"):
        for tp in TPS:
            for requests in (1, 8, 64):
                setup = setup_of(model, "bf16", "H200", tp)
                load = inputs.Load(requests)
                if not step.fits(setup, load, inputs.Drafter()):
                    continue
                one = step.forward_time(setup, load).total
                cells = [f"{step.forward_time(setup, load, 32).total / one:.2f}"]
                for drafter in (inputs.Drafter(format="bf16"), inputs.Drafter(),
                                inputs.Drafter(split=True)):
                    cells.append(f"{step.draft_time(setup, load, drafter) / one:.0%}")
                for count in (8, 32):
                    drafter = inputs.Drafter(rows=count)
                    cells.append(f"{step.break_even(setup, load, drafter):.2f}")
                rows.append((model, f"TP{tp}", requests, *cells))
    return rows_of(("model", "ranks", "requests", "32 rows / 1 row", "draft, bf16", "int8g32",
                    "int8g32, split", "pays from tokens/step, 8 rows", "32 rows"), rows)


def sensitivity():
    """Tokens per second of TP8 when one parameter is another."""
    changes = (("as `asked`", {}), ("exchange 4 us", {"exchange_latency": 4}),
               ("exchange 10 us", {"exchange_latency": 10}),
               ("exchange 18 us (NCCL)", {"exchange_latency": 18}),
               ("18 kernels a layer (each op its own)", {"kernels_per_layer": 18}),
               ("gap 2 us", {"kernel_gap": 2}), ("gap 0.5 us (PDL)", {"kernel_gap": 0.5}),
               ("ramp 4 us", {"product_ramp": 4}), ("product share 0.85", {"product_share": 0.85}))
    rows = []
    for name, change in changes:
        costs = dataclasses.replace(inputs.ASKED, **change)
        cells = []
        for model in ("Llama-3-8B", "Llama-3-70B"):
            for tp in (1, 8) if model == "Llama-3-8B" else (4, 8):
                setup = setup_of(model, "bf16", "H200", tp, costs)
                cells.append(f"{step.tokens_per_second(setup, inputs.Load()):,.0f}")
        rows.append((name, *cells))
    return rows_of(("", "8B, TP1", "8B, TP8", "70B, TP4", "70B, TP8"), rows)


def layout_speed(model, fmt, gpu, tp, requests, costs, drafter=None):
    """Tokens per second of 8 / tp replicas that share the requests; None if they do not fit. With
    fewer requests than replicas some stand idle."""
    replicas = 8 // tp
    shares = [requests // replicas + (i < requests % replicas) for i in range(replicas)]
    setup = setup_of(model, fmt, gpu, tp, costs)
    if not step.fits(setup, inputs.Load(shares[0]), drafter):
        return None
    return sum(step.tokens_per_second(setup, inputs.Load(share), drafter)
               for share in shares if share)


def best_layouts():
    """Tokens per second of all eight GPUs by layout and requests."""
    rows = []
    for model, fmt in (("Llama-3-8B", "bf16"), ("Llama-3-70B", "bf16"), ("Llama-3-70B", "int4")):
        for tp in (8, 4, 2, 1):
            cells = []
            for requests in (1, 2, 4, 8, 16, 32, 64, 128, 256):
                speeds = [layout_speed(model, fmt, "H200", tp, requests, costs) for costs in BOTH]
                cells.append("–" if None in speeds else span(*speeds))
            if any(cell != "–" for cell in cells):
                rows.append((f"{model} {fmt}", f"{8 // tp} x TP{tp}", *cells))
    return rows_of(("model", "layout", *[str(r) for r in (1, 2, 4, 8, 16, 32, 64, 128, 256)]), rows)


def crossing(model, fmt, gpu, costs, drafter=None):
    """The least even number of requests from which on 2 x TP4 gives more tokens than TP8; None:
    never (up to 512), or not while it fits."""
    for requests in range(2, 513, 2):
        one, two = (layout_speed(model, fmt, gpu, tp, requests, costs, drafter) for tp in (8, 4))
        if two is None or one is None:
            return None
        if two > one:
            return requests
    return None


def eight_or_four():
    """Where 2 x TP4 overtakes TP8, and what each token then costs in time."""
    rows = []
    for gpu in ("H100", "H200"):
        for model in MODELS:
            for fmt in ("bf16", "fp8", "int4"):
                cells = []
                for costs in BOTH:
                    plain_speeds = [1e6 / step.tokens_per_second(
                        setup_of(model, fmt, gpu, tp, costs), inputs.Load()) for tp in (8, 4)]
                    cells.append(" / ".join(milliseconds(time) for time in plain_speeds))
                for drafter in (None, inputs.Drafter()):
                    found = [crossing(model, fmt, gpu, costs, drafter) for costs in BOTH]
                    cells.append(", ".join("none" if at is None else str(at) for at in found))
                rows.append((gpu, model, fmt, *cells))
    return rows_of(("GPU", "model", "weights", "ms of a step, one request, TP8 / TP4: others",
                    "asked", "2 x TP4 ahead from requests: others, asked", "with drafts"), rows)


def bytes_per_rank():
    """What a rank keeps besides its part: norms, drafter; the cache by position."""
    rows = []
    for model in MODELS:
        shape = inputs.SHAPES[model]
        sizes = [step.drafter_bytes(shape, inputs.Drafter(format=fmt)) / 1e6
                 for fmt in ("bf16", "int8g32", "int4")]
        caches = []
        for kv in ("bf16", "int8"):
            setup = setup_of(model, "bf16", "H100", 1)
            caches.append(step.kv_bytes(setup, inputs.Load(1, 1, kv=kv)) / 1e3)
        rows.append((model, f"{(2 * shape.layers + 1) * shape.hidden * 4 / 1e6:.1f}",
                     *[f"{size:,.0f}" for size in sizes], *[f"{size:.0f}" for size in caches]))
    return rows_of(("model", "norms, MB", "drafter bf16, MB", "int8g32", "int4",
                    "cache of a position, all ranks: bf16, kB", "int8"), rows)


TABLES = {
    "parameters": parameters, "measured by others": measured_by_others,
    "exchanges by others": exchanges_by_others, "weights": weights,
    "bytes per rank": bytes_per_rank, "exchanges": exchanges,
    "plain 1": plain(1), "plain 8": plain(8), "plain 64": plain(64),
    "drafted": drafted, "drafted many": drafted_many, "parts": parts, "drafts": drafts,
    "sensitivity": sensitivity, "best layouts": best_layouts, "eight or four": eight_or_four,
}
