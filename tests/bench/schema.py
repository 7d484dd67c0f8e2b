"""The form of `paceline bench --json`, schema 1, and a check of files against it."""

NUMBER = (int, float)
OPTIONAL_NUMBER = (int, float, type(None))
OPTIONAL_TEXT = (str, type(None))

SUMMARY = {"count": int, "mean": NUMBER, "median": NUMBER, "stddev": NUMBER, "min": NUMBER,
           "max": NUMBER}
LATENCY = {**SUMMARY, "p50": NUMBER, "p90": NUMBER, "p99": NUMBER}
SETTING = {"numerics_id": str, "weights": str, "backend": str, "threads": int, "ranks": int,
           "tp": int, "exchange": str, "drafter": OPTIONAL_TEXT, "weight_bytes": int,
           "weight_bytes_read": int, "kv_bytes": int, "max_batch_tokens": int,
           "load_seconds": NUMBER}
TASK = {"name": str, "requests": int, "new_tokens": int, "tokens_per_step": NUMBER,
        "tpot_ms": NUMBER}
RANK = {"agree_ms": NUMBER, "forward_ms": NUMBER, "exchange_ms": NUMBER, "compute_ms": NUMBER,
        "peak_memory_bytes": int, "read_bytes_per_s": NUMBER}
TEST = {
    "setting": int, "name": str, "input": OPTIONAL_TEXT, "prompt_tokens": (int, type(None)),
    "new_tokens": int, "concurrency": int, "requests": int, "request_rate": OPTIONAL_NUMBER,
    "draft": str, "draft_nodes": int, "runs": int, "failed": int,
    **{name: SUMMARY for name in (
        "duration_s", "request_throughput", "output_throughput", "total_token_throughput",
        "prefill_tokens_per_s", "tokens_per_step", "rows_per_step", "agree_ms", "plan_ms",
        "draft_ms", "forward_ms", "exchange_ms", "select_ms", "accept_ms", "preemptions")},
    "ttft_ms": LATENCY, "e2el_ms": LATENCY, "output_throughput_per_rank": NUMBER,
    "bandwidth_share": OPTIONAL_NUMBER, "acceptance_by_depth": [NUMBER], "tasks": [TASK],
    "ranks": [RANK],
}
# Left out where there was nothing to measure.
OPTIONAL_TEST = {"decode_tokens_per_s": SUMMARY, "weight_gb_per_s": SUMMARY, "tree_size": SUMMARY,
                 "joules_per_token": SUMMARY, "tpot_ms": LATENCY, "itl_ms": LATENCY,
                 "decode_step_ms": LATENCY}
STEP_COST = {"setting": int, "rows": int, "context": int, "step_ms": LATENCY,
             "forward_ms": LATENCY}
REPORT = {"schema": int, "paceline": str, "commit": str,
          "simulated_tokens_per_step": OPTIONAL_NUMBER,
          "model": {"name": str, "parameters": int},
          "machine": {"cpu": str, "cores": int, "memory_bytes": int, "mpi": str, "hosts": [str]},
          "seed": int, "temperature": NUMBER, "settings": [SETTING], "tests": [TEST],
          "step_cost": [STEP_COST]}


def problems(value, form, place=""):
    """What of a value is not of the form, as a list of lines.

    >>> problems({"a": [1, "x"]}, {"a": [int], "b": str})
    ['.b is missing', ".a[1] is 'x'"]
    >>> problems({"a": 1}, {})
    ['.a is not in the schema']
    """
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return [f"{place} is {value!r}"]
        optional = OPTIONAL_TEST if form is TEST else {}
        found = [f"{place}.{key} is missing" for key in form if key not in value]
        found += [f"{place}.{key} is not in the schema" for key in value
                  if key not in form and key not in optional]
        for key, part in {**form, **optional}.items():
            if key in value:
                found += problems(value[key], part, f"{place}.{key}")
        return found
    if isinstance(form, list):
        if not isinstance(value, list):
            return [f"{place} is {value!r}"]
        return [line for index, item in enumerate(value)
                for line in problems(item, form[0], f"{place}[{index}]")]
    good = isinstance(value, form) and not (isinstance(value, bool) and form is not bool)
    return [] if good else [f"{place} is {value!r}"]
