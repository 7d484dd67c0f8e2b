"""`paceline bench` on models of random weights, and what of its report goes into ours."""

import dataclasses
import json
import shutil
import sys

from job import tail
from report import Failed


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of tools/make_synthetic_model.py."""

    shape: str
    weights: str
    gigabytes: float  # on disk
    seconds: int  # for making it and for each of its benchmarks, at most

    @property
    def name(self):
        return f"{self.shape}-{self.weights}"


QUICK = [Model("llama-3.2-1b", "bf16", 2.5, 60), Model("llama-3.2-1b", "int4", 1.0, 60)]
FULL = [*QUICK, Model("llama-3.1-8b", "bf16", 16.1, 300), Model("llama-2-7b", "bf16", 13.5, 300),
        Model("llama-3.1-8b", "int4", 5.6, 300), Model("llama-2-13b", "bf16", 26.1, 400)]

SIMULATED_TOKENS = 3.5
TREE_ROWS = 32


def commands(paceline, model, weights, folder, quick, device="cuda"):
    """{name: command} for a model's directory; each writes `folder`/name.json."""
    requests = "1,8" if quick else "1,8,64"
    plain = [paceline, "bench", "--device", device, "--model", model, "--repeat", 3]
    several = {
        "plain": [*plain, "--prompt-tokens", "8,512", "--new-tokens", 64,
                  "--concurrency", requests, "--step-rows", "1,2,4,8,16,32,64",
                  "--json", folder / "plain.json"],
        "drafts": [*plain, "--prompt-tokens", 32, "--new-tokens", 128, "--concurrency", 1,
                   "--drafter", model / "drafter", "--simulate-acceptance", SIMULATED_TOKENS,
                   "--sweep", "draft=off,5x5", "--json", folder / "drafts.json"],
    }
    if weights == "bf16":  # the same by cuBLASLt, whose reading is to be compared with ours
        several["fast"] = [*several["plain"][:-1], folder / "fast.json", "--numerics", "fast"]
    if not quick or weights == "bf16":
        several["long"] = [*plain, "--prompt-tokens", 2048, "--new-tokens", 64, "--concurrency", 1,
                           "--json", folder / "long.json"]
    if weights == "bf16":  # what tensor cores give attention, where it counts
        several["long-fp32"] = [*several["long"][:-1], folder / "long-fp32.json",
                                "--attention", "fp32"]
    return several


def mean(test, key):
    """The mean of a figure of a test, None where it was not measured."""
    return test[key]["mean"] if key in test else None


def figures_of(report):
    """The figures of a bench report that say how fast a GPU is."""
    tests = [{"name": test["name"], "draft": test["draft"],
              "decode_tokens_per_s": mean(test, "decode_tokens_per_s"),
              "prefill_tokens_per_s": mean(test, "prefill_tokens_per_s"),
              "weight_gb_per_s": mean(test, "weight_gb_per_s"),
              "read_gb_per_s": sum(rank["read_bytes_per_s"] for rank in test["ranks"]) / 1e9,
              "bandwidth_share": test["bandwidth_share"],
              "tokens_per_step": mean(test, "tokens_per_step"),
              "step_ms": {part: mean(test, f"{part}_ms") for part in (
                  "agree", "plan", "draft", "forward", "select", "accept")}}
             for test in report["tests"]]
    cost = {entry["rows"]: entry["step_ms"]["median"] for entry in report["step_cost"]}
    figures = {"settings": [{key: setting[key] for key in (
        "numerics_id", "backend", "weight_bytes", "load_seconds")} for setting in report["settings"]],
               "simulated_tokens_per_step": report["simulated_tokens_per_step"],
               "tests": tests, "step_ms_by_rows": cost}
    if 1 in cost and TREE_ROWS in cost:
        figures[f"step_of_{TREE_ROWS}_rows_over_one"] = cost[TREE_ROWS] / cost[1]
    by_draft = {test["draft"]: test["decode_tokens_per_s"] for test in tests}
    if report["simulated_tokens_per_step"] and by_draft.get("off") and by_draft.get("5x5"):
        figures["speed_up_simulated"] = by_draft["5x5"] / by_draft["off"]
    return figures


def measure(job, paceline, model, folder, quick, seconds, left):
    """Makes a model if it is not there, and benchmarks it; left() is the time that is left."""
    directory = folder / model.name
    if not (directory / "drafter" / "model.safetensors").exists():
        free = shutil.disk_usage(folder).free / 1e9
        if free < 1.2 * model.gigabytes:
            raise Failed(f"{model.name} takes {model.gigabytes} GB of disk, {free:.1f} are free")
        shutil.rmtree(directory, ignore_errors=True)
        job.checked(f"bench/{model.name}/make",
                    [sys.executable, "tools/make_synthetic_model.py", "--shape", model.shape,
                     "--weights", model.weights, "--output", directory], min(seconds, left()))
    figures, wrong = {}, []
    logs = job.logs / "bench" / model.name
    for name, words in commands(paceline, directory, model.weights, logs,
                                quick).items():
        status, text = job.run(f"bench/{model.name}/{name}", words, min(seconds, left()))
        if status != 0:
            wrong.append(f"{model.name} {name}: "
                         + ("no time left" if status is None else f"exit status {status}")
                         + f"\n{tail(text)}")
            continue
        figures[name] = figures_of(json.loads((logs / f"{name}.json").read_text("utf-8")))
    if wrong:
        raise Failed("\n".join(wrong), figures)
    return figures
