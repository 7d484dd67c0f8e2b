"""Runs the GoogleTest programs on the device, each group of tests in a process of its own: a kernel
that traps spoils the device for its process, not for the other groups."""

import concurrent.futures
import re
import time

from job import tail
from report import Failed

AT_ONCE = 4
NO_DEVICE = 77  # the exit status of a program that finds no GPU

# Small ones that use every kind of memory and barrier; none that traps on purpose. Each thread's
# every access is watched.
SMALL = {
    "memcheck": "CudaBlock.*:CudaTile.*:CudaAsyncCopies.*:CudaEmbed.*:CudaGatherRows.*"
                ":CudaRopeAppend.SameBits:CudaCompactKv.Moves*:CudaAttention.ATree*"
                ":CudaTensorAttention.SameBitsForEvery*:CudaTensorAttention.TreesOf*"
                ":CudaSelect.Greedy*:CudaSelect.LimitsCut*:CudaTopLogProbs.ARow*"
                ":*CudaLinear.CutsAndAdds*:CudaLinearFloats.*:CudaSumWords.*"
                ":CudaLibraryProducts.EveryNumberOfInputs*",
    "racecheck": "CudaBlock.*:CudaTile.*:CudaAsyncCopies.*:CudaAttention.ATree*"
                 ":CudaTensorAttention.SameBitsForEvery*:CudaTensorAttention.TreesOf*"
                 ":CudaSelect.LimitsCut*:CudaTopLogProbs.ARow*:*CudaLinear.CutsAndAdds*",
}


def groups_of(listing):
    """The groups in what --gtest_list_tests prints.

    >>> groups_of("$ program\\nCudaBlock.\\n  Reduces\\nFormats/CudaModels.\\n  Logits/0  # x\\n")
    ['CudaBlock', 'Formats/CudaModels']
    """
    return re.findall(r"^(\S+)\.$", listing, re.MULTILINE)


def results_of(log):
    """What of a program's log passed and failed; a test that began and never ended failed.

    >>> results_of("[ RUN      ] A.b\\n[       OK ] A.b (3 ms)\\n[ RUN      ] A.c/0\\nkilled")
    (['A.b'], ['A.c/0'])
    """
    begun = re.findall(r"^\[ RUN      \] (\S+)", log, re.MULTILINE)
    passed = re.findall(r"^\[       OK \] ([^\s,]+)", log, re.MULTILINE)
    return passed, [name for name in begun if name not in passed]


def run_groups(job, program, seconds):
    """Every group of a test program; figures, or Failed with the tests that failed."""
    end = time.monotonic() + seconds
    name = program.name
    status, listing = job.run(f"{name}/list", [program, "--gtest_list_tests"], seconds)
    if status == NO_DEVICE:  # though the driver's tool sees one
        raise Failed(tail(listing, 1))
    groups = groups_of(listing)
    if status != 0 or not groups:
        raise Failed(f"{name} lists no tests, exit status {status}\n{tail(listing)}")

    def run(group):
        left = end - time.monotonic()
        if left <= 0:
            return group, "left out", ""
        status, log = job.run(f"{name}/{group.replace('/', '-')}",
                              [program, f"--gtest_filter={group}.*"], left)
        return group, status, log

    passed, failed, ended_badly, left_out = [], [], [], []
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for group, status, log in pool.map(run, groups):
            if status == "left out":
                left_out.append(group)
                continue
            good, bad = results_of(log)
            passed += good
            failed += bad
            if status != 0:
                ended_badly.append({"group": group, "status": status, "log": tail(log)})
    figures = {"tests_passed": len(passed), "tests_failed": failed, "groups": len(groups),
               "groups_ended_badly": ended_badly, "groups_left_out": left_out}
    if ended_badly or failed:
        raise Failed(f"{len(failed)} tests failed, {len(passed)} passed", figures)
    if left_out:
        raise Failed(f"no time for {', '.join(left_out)}", figures)
    return figures


def sanitize(job, program, tool, test_filter, seconds):
    """Runs tests under a tool of compute-sanitizer; figures, or Failed."""
    words = ["compute-sanitizer", "--tool", tool, "--error-exitcode", 9, program,
             f"--gtest_filter={test_filter}"]
    log = job.checked(f"sanitizer/{tool}-{program.name}", words, seconds)
    summary = re.findall(r"^=+ (.*SUMMARY.*)$", log, re.MULTILINE)
    passed, failed = results_of(log)
    figures = {"tool": tool, "tests_passed": len(passed), "summary": summary}
    if failed or not passed or not summary:
        raise Failed(f"{tool}: {len(passed)} tests passed, failed: {failed}", figures)
    return figures
