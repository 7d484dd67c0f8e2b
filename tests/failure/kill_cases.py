"""kill -9 of ranks and of mpirun, at random points; resumed runs answer as undisturbed ones."""

import fcntl
import os
import signal
import struct
import termios
import time

import inputs
from answers import count_lines
from job import DIED, expect

PHASES = {"start", "configure", "load", "wait", "prefill", "decode", "output", "finish"}
LEAST_KILL_POINTS = 20


def check_death(suite, job, victims, output, reference):
    """After SIGKILL of ranks: the job is gone, says so once, and left whole answers."""
    code = job.wait_gone()
    left = reference.check_partial(output) if reference else 0
    complaints = job.complaints()
    if reference and left == len(reference.answers) and not complaints:
        return  # it had already finished
    expect(code != 0, "exit code 0 although a rank was killed", job)
    expect(len(complaints) == 1, f"{len(complaints)} lines say why, expected one", job)
    found = DIED.match(complaints[0])
    expect(found, f"unexpected line: {complaints[0]}", job)
    expect(int(found.group(1)) in victims, f"killed {victims}, told: {complaints[0]}", job)
    expect(found.group(3) in PHASES, f"unknown phase: {complaints[0]}", job)
    suite.count_kill(found.group(3))


class Disturbed:
    """An output under repeated attack: every kill resumes what the one before left."""

    def __init__(self, suite, name, model, source, reference, ranks, tp, more=(), slowly=()):
        """`more` options are for all runs, `slowly` for those that are attacked."""
        self.suite = suite
        self.rng = suite.rng(name)
        self.model = model
        self.source = source
        self.output = source.parent / "disturbed.jsonl"
        self.reference = reference
        self.ranks = ranks
        self.more = ("--tp", tp, *more)
        self.slowly = slowly

    def start(self):
        more = [*self.more, *self.slowly, *(["--resume"] if self.output.exists() else [])]
        return self.suite.generate(
            self.model, self.source, self.output, *more, ranks=self.ranks
        )

    def kill(self, rank, moment):
        """Kills when `moment(job)` returns true; none if the run was over first."""
        with self.start() as job:
            pid = job.rank_pid(rank)
            if pid is None or not moment(job):
                expect(job.wait_done() == 0, "the run failed by itself", job)
                return
            job.send(signal.SIGKILL, pid)
            check_death(self.suite, job, {rank}, self.output, self.reference)

    def finish(self):
        self.suite.resume(
            self.reference, self.model, self.source, self.output, *self.more, ranks=self.ranks
        )

    def when_loading(self, seconds):
        """A moment within the first `seconds` of loading."""
        delay = self.rng.uniform(0, seconds)

        def moment(job):
            if not job.wait_for_loading():
                return False
            time.sleep(delay)
            return True

        return moment

    def when_lines(self, least, extra, delay=0.03):
        """A moment up to `delay` after the file has `least` lines and `extra` more than now."""
        target = max(least, count_lines(self.output) + extra)
        pause = self.rng.uniform(0, delay)

        def moment(job):
            if not job.wait_until(lambda: count_lines(self.output) >= target, pause=0.0005):
                return False
            time.sleep(pause)
            return not job.ended()

        return moment


LAYOUTS = ((2, 2), (2, 1), (3, 3), (4, 2))  # ranks, --tp


def kill_in_load(suite):
    """First and last rank, while 48 MB of weights are read and converted."""
    directory = suite.directory()
    model = inputs.heavy_model(directory / "heavy")
    source = inputs.short_requests(directory / "input.jsonl", 6, max_tokens=4)
    more = ("--weights", "int4")
    reference = suite.reference(model, source, *more)
    for ranks, tp in LAYOUTS if suite.full else LAYOUTS[:2] + LAYOUTS[3:]:
        name = f"load {ranks} {tp}"
        attacked = Disturbed(suite, name, model, source, reference, ranks, tp, more)
        for _ in range(3 if suite.full else 1):
            attacked.kill(0, attacked.when_loading(0.1))
            attacked.kill(ranks - 1, attacked.when_loading(0.1))
        attacked.finish()
        attacked.output.unlink()


def _kill_at_work(suite, layouts, rounds):
    """The input's first part is prefill, its second is decode; kills fall into both."""
    directory = suite.directory()
    model = suite.models / "llama_gqa"
    prompts, answers = 100, 120
    source = inputs.two_part_requests(directory / "input.jsonl", prompts, answers)
    slowly = ("--max-batch-tokens", 64, "--max-batch", 16)
    reference = suite.reference(model, source, ranks=2)
    for ranks, tp in layouts:
        name = f"work {ranks} {tp}"
        attacked = Disturbed(
            suite, name, model, source, reference, ranks, tp, slowly=slowly
        )
        rng = attacked.rng
        for _ in range(rounds):
            for rank in (0, ranks - 1):
                attacked.kill(rank, attacked.when_lines(0, rng.randrange(3, 12)))
        attacked.kill(0, attacked.when_lines(0, 1, delay=0))  # as it writes
        for _ in range(rounds):
            for rank in (0, ranks - 1):
                attacked.kill(rank, attacked.when_lines(prompts + 5, rng.randrange(3, 12)))
        attacked.kill(ranks - 1, attacked.when_lines(0, 1, delay=0))
        attacked.finish()
        attacked.output.unlink()


def kill_at_work_2_ranks(suite):
    _kill_at_work(suite, [(2, 2), (2, 1)], 4 if suite.full else 1)


def kill_at_work_3_ranks(suite):
    _kill_at_work(suite, [(3, 3)], 4 if suite.full else 1)


def kill_at_work_4_ranks(suite):
    layouts = [(4, 2), (4, 1), (4, 4)] if suite.full else [(4, 2)]
    _kill_at_work(suite, layouts, 3 if suite.full else 1)


def kill_in_output(suite):
    """Rank 0 stands in write(2) to a pipe that nobody empties, when it or the last rank dies."""
    directory = suite.directory()
    model = suite.models / "llama_gqa"
    source = inputs.short_requests(directory / "input.jsonl", 100)
    for ranks, tp, victim in ((2, 2, 0), (2, 2, 1), (2, 1, 0), (4, 2, 3)):
        pipe = directory / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)

        def filled():
            return struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, b"\0" * 4))[0]

        with suite.generate(model, source, pipe, "--tp", tp, ranks=ranks) as job:
            pid = job.rank_pid(victim)
            # Lines have 600 bytes: with less room than one the next write stands.
            expect(job.wait_until(lambda: filled() > 4096 - 600), "the pipe did not fill", job)
            time.sleep(0.3)
            expect(not job.ended(), "the run did not wait for the pipe's reader", job)
            job.send(signal.SIGKILL, pid)
            check_death(suite, job, {victim}, pipe, None)
            if victim == 0:
                expect("died in output" in job.complaints()[0], "it was in output", job)
        os.close(reader)
        pipe.unlink()


def kill_at_start(suite):
    """Any time from the ranks' first instruction on: MPI is not there yet, so the line may be
    missing, but nothing else."""
    directory = suite.directory()
    model = suite.models / "llama_gqa"
    source = inputs.short_requests(directory / "input.jsonl", 20)
    reference = suite.reference(model, source)
    rng = suite.rng("start")
    for index in range(12 if suite.full else 4):
        output = directory / f"{index}.jsonl"
        with suite.generate(model, source, output, ranks=2) as job:
            victim = rng.randrange(2)
            pid = job.rank_pid(victim)
            time.sleep(rng.uniform(0, 0.25))
            job.send(signal.SIGKILL, pid)
            code = job.wait_gone()
            complete = reference.check_partial(output) == len(reference.answers)
            expect(code != 0 or complete, "exit code 0 although a rank was killed", job)
            expect(len(job.complaints()) <= 1, "more than one line", job)
        if output.exists():
            suite.resume(reference, model, source, output, ranks=2)


def kill_two_ranks_at_once(suite):
    """One line names one of them."""
    directory = suite.directory()
    model = suite.models / "llama_gqa"
    source = inputs.two_part_requests(directory / "input.jsonl", 10, 40)
    reference = suite.reference(model, source)
    attacked = Disturbed(suite, "two at once", model, source, reference, 4, 2)
    with attacked.start() as job:
        pids = [job.rank_pid(rank) for rank in (0, 3)]
        expect(attacked.when_lines(0, 5)(job), "the run was over before it was attacked", job)
        for pid in pids:
            job.send(signal.SIGKILL, pid)
        check_death(suite, job, {0, 3}, attacked.output, reference)
    attacked.finish()


def crash_of_a_rank(suite):
    """A segmentation fault is a death like any other."""
    directory = suite.directory()
    model = suite.models / "llama_gqa"
    source = inputs.two_part_requests(directory / "input.jsonl", 10, 40)
    reference = suite.reference(model, source)
    attacked = Disturbed(suite, "crash", model, source, reference, 2, 2)
    with attacked.start() as job:
        pid = job.rank_pid(1)
        expect(attacked.when_lines(0, 5)(job), "the run was over before it was attacked", job)
        job.send(signal.SIGSEGV, pid)
        check_death(suite, job, {1}, attacked.output, reference)
    attacked.finish()


def kill_mpirun(suite):
    """The ranks notice that their launcher is gone."""
    directory = suite.directory()
    model = suite.models / "llama_gqa"
    source = inputs.two_part_requests(directory / "input.jsonl", 30, 240)
    reference = suite.reference(model, source)
    for ranks, tp in LAYOUTS if suite.full else ((2, 2), (4, 2)):
        attacked = Disturbed(suite, f"mpirun {ranks}", model, source, reference, ranks, tp)
        for least in (0, 35):
            with attacked.start() as job:
                moment = attacked.when_lines(least, attacked.rng.randrange(1, 15))
                expect(moment(job), "the run was over before it was attacked", job)
                job.send(signal.SIGKILL, job.pid)
                expect(job.wait_gone() == 137, "mpirun was not killed", job)
                reference.check_partial(attacked.output)
        attacked.finish()
        attacked.output.unlink()


def kill_a_lone_process(suite):
    """Without mpirun there is nobody to tell, but the file is as good."""
    directory = suite.directory()
    model = suite.models / "llama_gqa"
    source = inputs.two_part_requests(directory / "input.jsonl", 30, 60)
    reference = suite.reference(model, source)
    attacked = Disturbed(suite, "alone", model, source, reference, 0, 1)
    for _ in range(3):
        with attacked.start() as job:
            moment = attacked.when_lines(0, attacked.rng.randrange(1, 15))
            expect(moment(job), "the run was over before it was attacked", job)
            job.send(signal.SIGKILL, job.pid)
            expect(job.wait_gone() == 137, "it was not killed", job)
            reference.check_partial(attacked.output)
    attacked.finish()


def kill_with_the_real_model(suite):
    """Text and stop strings come through a kill as well."""
    if suite.real_model is None:
        return
    directory = suite.directory()
    questions = ("What is a rank?", "Name three rivers.", "Write a haiku.", "Why is the sky blue?")
    lines = [
        {"messages": [{"role": "user", "content": q}], "max_tokens": 40, "temperature": 0.7 * i}
        for q in questions
        for i in range(3)
    ]
    source = inputs.write_lines(directory / "input.jsonl", lines)
    reference = suite.reference(suite.real_model, source, ranks=2)
    for ranks, tp in ((2, 2), (2, 1)):
        attacked = Disturbed(
            suite, f"real {tp}", suite.real_model, source, reference, ranks, tp, ("--max-batch", 3)
        )
        for rank in (0, ranks - 1):
            attacked.kill(rank, attacked.when_loading(0.3))
            attacked.kill(rank, attacked.when_lines(0, 2, delay=0.5))
        attacked.finish()
        attacked.output.unlink()


def kill_points_reached_every_phase(suite):
    """The cases above were no empty exercise."""
    total = sum(suite.phases.values())
    tally = ", ".join(f"{name} {count}" for name, count in suite.phases.most_common())
    print(f"        {total} kill points: {tally}")
    expect(total >= LEAST_KILL_POINTS, f"only {total} kill points, expected {LEAST_KILL_POINTS}")
    for phase in ("load", "prefill", "decode", "output"):
        expect(suite.phases[phase] > 0, f"no kill fell into {phase}")


CASES = [
    kill_in_load,
    kill_at_work_2_ranks,
    kill_at_work_3_ranks,
    kill_at_work_4_ranks,
    kill_in_output,
    kill_at_start,
    kill_two_ranks_at_once,
    crash_of_a_rank,
    kill_mpirun,
    kill_a_lone_process,
    kill_with_the_real_model,
]
LAST_CASES = [kill_points_reached_every_phase]
