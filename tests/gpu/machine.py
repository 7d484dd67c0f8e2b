"""What the machine is."""

import os
import pathlib
import re

from report import Failed, Skipped

QUERY = {"name": str, "driver_version": str, "compute_cap": str, "memory.total": int,
         "clocks.max.sm": int, "clocks.max.memory": int, "power.limit": float, "uuid": str}


def parse_query(text):
    """GPUs as dicts from what `nvidia-smi --query-gpu=...` prints with the keys of QUERY.

    >>> parse_query("NVIDIA H200, 580.1, 9.0, 143771, 1980, 3201, [N/A], GPU-1\\n")[0]["power.limit"]
    >>> parse_query("NVIDIA H200, 580.1, 9.0, 143771, 1980, 3201, 700.00, GPU-1")[0]["memory.total"]
    143771
    """
    gpus = []
    for line in text.strip().splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != len(QUERY):
            raise Failed(f"nvidia-smi printed {line!r}, expected {', '.join(QUERY)}")
        gpus.append({key: None if field.startswith("[") else of(field)
                     for (key, of), field in zip(QUERY.items(), fields)})
    return gpus


def architectures(gpus):
    """CMAKE_CUDA_ARCHITECTURES for these GPUs.

    >>> architectures([{"compute_cap": "9.0"}, {"compute_cap": "8.0"}, {"compute_cap": "9.0"}])
    '80;90'
    """
    return ";".join(sorted({gpu["compute_cap"].replace(".", "") for gpu in gpus}, key=int))


def first_line(job, name, words, pattern):
    """What the first group of a pattern finds in a command's output; None without the command."""
    try:
        _, text = job.run(f"machine/{name}", words, 30)
    except Failed:
        return None
    found = re.search(pattern, text)
    return found.group(1) if found else None


def cpu_name():
    """The processor as the kernel calls it."""
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"model name\s*: (.*)", text)
    return found.group(1) if found else "unknown"


def describe(job):
    """What builds and runs here, apart from the GPU."""
    return {"cpu": cpu_name(), "cores": len(os.sched_getaffinity(0)),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "kernel": os.uname().release,
            "nvcc": first_line(job, "nvcc", ["nvcc", "--version"], r"(V\d[\d.]+)"),
            "g++": first_line(job, "g++", ["g++", "--version"], r"\n(g\+\+.*)"),
            "cmake": first_line(job, "cmake", ["cmake", "--version"], r"version (\S+)")}


def find_gpus(job, seconds):
    """The GPUs; the whole of `nvidia-smi -q` goes to the log."""
    words = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    try:
        status, text = job.run("machine/gpus", words, seconds)
    except Failed as failure:
        raise Skipped(f"no GPU: {failure}") from None
    if status != 0:
        raise Skipped(f"no GPU: nvidia-smi ends with {status}")
    job.run("machine/nvidia-smi", ["nvidia-smi", "-q"], seconds)
    return parse_query(text.split("\n", 1)[1])
