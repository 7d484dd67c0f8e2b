"""SIGTERM and its like: running requests are dropped, finished ones are in the file."""

import resource
import signal

import inputs
from answers import count_lines
from job import DIED, expect
from kill_cases import Disturbed

ENDED = "ended by a signal; the same command with --resume goes on"


SLOWLY = ("--max-batch", 1)


def _many_requests(suite):
    """More work than a run, slowly, gets done before it is told to stop."""
    directory = suite.directory()
    source = inputs.two_part_requests(directory / "input.jsonl", 10, 150)
    model = suite.models / "llama_gqa"
    return source, model, suite.reference(model, source, ranks=2)


def _heavy_requests(suite):
    """So much that it is not done either in the seconds that mpirun takes to pass a signal on."""
    directory = suite.directory()
    source = inputs.short_requests(directory / "input.jsonl", 80, max_tokens=30)
    model = inputs.heavy_model(directory / "heavy")
    return source, model, suite.reference(model, source, ranks=2)


def _end_by_signal(suite, work, layouts, ends):
    """`ends(job, rank pids)` sends the signal and says which exit code is right."""
    source, model, reference = work
    for ranks, tp, *how in layouts:
        name = f"signal {ranks} {tp} {how}"
        attacked = Disturbed(suite, name, model, source, reference, ranks, tp, (), SLOWLY)
        with attacked.start() as job:
            pids = [job.rank_pid(rank) for rank in range(max(ranks, 1))]
            expect(attacked.when_lines(0, 5)(job), "the run was over before the signal", job)
            code = ends(job, pids, *how)
            found = job.wait_gone()
            expect(found == code, f"exit code {found}, expected {code}", job)
            expect(not job.complaints(), "complaints, though nothing failed", job)
            expect(ENDED in job.stderr().splitlines(), "the end is not explained", job)
            expect(job.checksum() is None, "a checksum of half of the answers", job)
            data = attacked.output.read_bytes()
            expect(data.endswith(b"\n"), "a torn line although nobody was killed", job)
            whole = reference.check_partial(attacked.output)
            answered = job.request_counts()[0]
            expect(answered == whole, f"{whole} lines, the summary says {answered}", job)
        attacked.finish()
        attacked.output.unlink()


def sigterm_to_a_rank(suite):
    """The rank tells the others at the next step; mpirun reports the exit code 128 + 15."""

    def ends(job, pids, rank):
        job.send(signal.SIGTERM, pids[rank])
        return 143

    layouts = [(2, 2, 0), (2, 2, 1), (4, 2, 3), (3, 3, 1), (4, 4, 3)]
    _end_by_signal(suite, _many_requests(suite), layouts if suite.full else layouts[:3], ends)


def sigterm_to_one_of_two_replicas(suite):
    """It ends the whole job: the other replica gets nothing new, and finishes what it runs."""
    source, model, reference = _many_requests(suite)
    for rank in (0, 1):
        attacked = Disturbed(suite, f"one {rank}", model, source, reference, 2, 1, (), SLOWLY)
        with attacked.start() as job:
            pid = job.rank_pid(rank)
            expect(attacked.when_lines(0, 12)(job), "the run was over before the signal", job)
            job.send(signal.SIGTERM, pid)
            expect(job.wait_gone_by_itself() == 143, "expected exit code 143", job)
            done = reference.check_partial(attacked.output)
            # Told after 12 requests, with a few at hand in each replica.
            expect(done < len(reference.answers) - 20, f"went on to {done} answers", job)
        attacked.finish()
        attacked.output.unlink()


def sigterm_without_mpirun(suite):
    """The exit codes are the shell's for a process that the signal ended."""

    def ends(job, pids, number):
        job.send(number, pids[0])
        return 128 + number

    work = _many_requests(suite)
    _end_by_signal(suite, work, [(0, 1, signal.SIGTERM), (0, 1, signal.SIGINT)], ends)


def sigterm_to_mpirun(suite):
    """mpirun passes it on and has an exit code of its own: 1."""

    def ends(job, _, number):
        job.send(number, job.pid)
        return 1

    layouts = [(2, 2, signal.SIGTERM), (2, 2, signal.SIGINT), (4, 2, signal.SIGTERM)]
    _end_by_signal(suite, _heavy_requests(suite), layouts if suite.full else layouts[:2], ends)


def sigterm_while_loading(suite):
    """Nothing has run yet: the run ends as soon as it can, without an answer or with whole ones."""
    directory = suite.directory()
    model = inputs.heavy_model(directory / "heavy")
    source = inputs.short_requests(directory / "input.jsonl", 12, max_tokens=20)
    reference = suite.reference(model, source)
    output = directory / "output.jsonl"
    with suite.generate(model, source, output, ranks=2) as job:
        pid = job.rank_pid(1)
        expect(job.wait_for_loading(), "the run was over before it loaded", job)
        job.send(signal.SIGTERM, pid)
        code = job.wait_gone()
        expect(code == 143, f"exit code {code}, expected 143", job)
        reference.check_partial(output)
    suite.resume(reference, model, source, output, ranks=2)


def disk_fills_in_the_middle_of_a_line(suite):
    """A file size limit on rank 0 cuts a line where it likes, then the system kills the rank."""
    source, model, reference = _many_requests(suite)
    for ranks in (0, 2):
        name = f"limit {ranks}"
        attacked = Disturbed(suite, name, model, source, reference, ranks, 0, (), SLOWLY)
        with attacked.start() as job:
            pid = job.rank_pid(0)
            ready = job.wait_until(lambda: count_lines(attacked.output) >= 3)
            expect(ready, "the run was over before its disk was full", job)
            limit = attacked.output.stat().st_size + attacked.rng.randrange(3000, 5000)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))
            code = job.wait_gone()
            expect(code != 0, "exit code 0 on a full disk", job)
            expect(attacked.output.stat().st_size == limit, "not filled to the limit", job)
            if ranks > 0:
                found = [DIED.match(line) for line in job.complaints()]
                expect(len(found) == 1 and found[0], "expected one line", job)
                expect(found[0].groups()[::2] == ("0", "output"), "rank 0 died in output", job)
            reference.check_partial(attacked.output)
        attacked.finish()
        attacked.output.unlink()


def input_changes_under_the_job(suite):
    """Requests are read when their turn comes; one that is not the same any more ends the job."""
    source, model, reference = _many_requests(suite)
    text = source.read_text()
    for ranks, tp in ((0, 1), (2, 1)):
        attacked = Disturbed(suite, "changed", model, source, reference, ranks, tp, (), SLOWLY)
        with attacked.start() as job:
            ready = job.wait_until(lambda: count_lines(attacked.output) >= 3)
            expect(ready, "the run was over before its input changed", job)
            source.write_text(text.replace("answer-", "ANSWER-"))
            code = job.wait_gone_by_itself()
            source.write_text(text)
            expect(code == 1, f"exit code {code}, expected 1", job)
            lines = job.complaints()
            expect(len(lines) == 1, f"{len(lines)} lines say why, expected one", job)
            for part in ("rank 0 on ", str(source), "has changed since the job began"):
                expect(part in lines[0], f"the line has no {part!r}", job)
            reference.check_partial(attacked.output)
        attacked.finish()
        attacked.output.unlink()


CASES = [
    sigterm_to_a_rank,
    sigterm_to_one_of_two_replicas,
    sigterm_without_mpirun,
    sigterm_to_mpirun,
    sigterm_while_loading,
    disk_fills_in_the_middle_of_a_line,
    input_changes_under_the_job,
]
