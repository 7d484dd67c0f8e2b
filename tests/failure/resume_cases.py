"""What --resume accepts and what it refuses, by the bytes of the files."""

import json
import shutil
import signal

import inputs
from answers import count_lines, manifest_path, whole_lines
from job import Job, expect


class Prepared:
    """A finished job of little work, to be damaged and resumed by a lone process."""

    def __init__(self, suite, count=24):
        self.suite = suite
        self.directory = suite.directory()
        self.model = suite.models / "llama_gqa"
        self.source = inputs.short_requests(self.directory / "input.jsonl", count)
        self.reference = suite.reference(self.model, self.source)
        self.output = self.directory / "output.jsonl"
        self.manifest = manifest_path(self.directory / "undisturbed.jsonl").read_bytes()

    def restore(self, data):
        self.output.write_bytes(data)
        manifest_path(self.output).write_bytes(self.manifest)

    def resume(self, *more, ranks=0):
        self.suite.resume(self.reference, self.model, self.source, self.output, *more, ranks=ranks)

    def refuse(self, names, *more, model=None, source=None, ranks=0):
        """Exit code 2, one line that has every one of `names`, and no byte changed."""
        before = snapshot(self.directory)
        words = self.suite.words(
            model or self.model, source or self.source, self.output, "--resume", *more
        )
        refused(self.suite, words, names, ranks, self.directory, before)


def snapshot(directory):
    """Names and bytes of what a user would see in `directory` (not of the suite's captures)."""
    return {
        path.name: path.read_bytes() if path.is_file() else None
        for path in directory.iterdir()
        if path.suffix not in (".out", ".err") and not path.name.startswith("ompi.")
    }


def refused(suite, words, names, ranks, directory, before=None):
    """Runs what must be refused before anything is loaded or written. Returns the line."""
    before = snapshot(directory) if before is None else before
    with Job(suite.paceline, words, ranks, directory) as job:
        code = job.wait_done(60)
        job.wait_gone()
        expect(code == 2, f"exit code {code}, expected 2", job)
        lines = job.complaints()
        expect(len(lines) == 1, f"{len(lines)} lines say why, expected one", job)
        for name in names:
            expect(name in lines[0], f"the line does not name {name!r}", job)
        expect("loading " not in job.stderr(), "it loaded first", job)
        expect(snapshot(directory) == before, "files have changed", job)
        return lines[0]


def torn_last_line(suite):
    """The output cut at any byte is resumed to the same set of answers."""
    prepared = Prepared(suite)
    data = prepared.reference.data
    rng = suite.rng("torn")
    lines = whole_lines(data)
    first = len(lines[0])
    # Empty; one byte; before and behind the first line's end; before the last line's end; whole.
    places = [0, 1, first, first + 1, len(data) - 1, len(data)]
    places += [rng.randrange(len(data)) for _ in range(40 if suite.full else 8)]
    for place in places:
        prepared.restore(data[:place])
        prepared.resume()
    prepared.restore(data[: len(data) // 2])
    prepared.resume("--tp", 2, ranks=2)
    for junk in (b"\0" * 4096, b"{", b'{"id":"batch', b"\xff\xfe", lines[-1] + b" "):
        prepared.restore(data[: first + 1] + junk)
        prepared.resume()


def resume_begins_what_is_not_there(suite):
    """--resume may be given from the start; an output that was removed is begun again."""
    prepared = Prepared(suite)
    prepared.resume()
    prepared.output.unlink()
    prepared.resume()
    prepared.output.unlink()
    manifest_path(prepared.output).unlink()
    prepared.resume("--tp", 1, ranks=2)


def resume_of_a_finished_job(suite):
    """It has nothing to do, and leaves every byte."""
    prepared = Prepared(suite)
    prepared.restore(prepared.reference.data)
    prepared.resume()
    prepared.resume("--tp", 2, ranks=2)
    expect(prepared.output.read_bytes() == prepared.reference.data, "the output has changed")


def resume_on_another_cluster(suite):
    """Ranks, replicas, threads and batches do not change answers, so a resume may change them."""
    prepared = Prepared(suite)
    data = prepared.reference.data
    half = data[: len(data) // 2]
    for ranks, more in (
        (0, ("--max-batch", 1)),
        (0, ("--threads", 2, "--max-batch-tokens", 7)),
        (2, ("--tp", 1)),
        (3, ("--tp", 3, "--exchange", "mpi")),
    ):
        prepared.restore(half)
        prepared.resume(*more, ranks=ranks)


def resume_of_another_job(suite):
    """Every option that changes answers is compared, and refused by its name."""
    prepared = Prepared(suite)
    data = prepared.reference.data
    prepared.restore(data[: len(data) // 2])
    for name, more in (
        ("job_seed", ("--seed", 1)),
        ("max_tokens", ("--max-tokens", 17)),
        ("temperature", ("--temperature", 0.5)),
        ("top_k", ("--top-k", 3)),
        ("top_p", ("--top-p", 0.25)),
        ("stop", ("--stop", "x")),
        ("numerics_id", ("--weights", "int8")),
        ("numerics_id", ("--kv-format", "bf16")),
        ("numerics_id", ("--kv-format", "int8")),
        ("numerics_id", ("--virtual-shards", 4)),
    ):
        prepared.refuse([name, str(manifest_path(prepared.output))], *more)
    prepared.refuse(["job_seed", "0", "1"], "--seed", 1, ranks=2)
    prepared.refuse(["job_seed", "temperature"], "--seed", 1, "--temperature", 1)
    prepared.resume()


def resume_with_another_input(suite):
    prepared = Prepared(suite)
    prepared.restore(prepared.reference.data[:2000])
    text = prepared.source.read_text()
    longer = prepared.directory / "longer.jsonl"
    longer.write_text(text + '{"custom_id": "one-more", "prompt": [1]}\n')
    prepared.refuse(["input_sha256"], source=longer)
    changed = prepared.directory / "changed.jsonl"
    changed.write_text(text.replace('"max_tokens": 12', '"max_tokens": 11', 1))
    prepared.refuse(["input_sha256"], source=changed)


def resume_with_another_model(suite):
    prepared = Prepared(suite)
    prepared.restore(prepared.reference.data[:2000])
    prepared.refuse(["model_sha256"], model=suite.models / "mistral")
    for name in ("model.safetensors", "generation_config.json"):
        model = prepared.directory / "changed"
        shutil.copytree(prepared.model, model)
        data = bytearray((model / name).read_bytes())
        if name == "model.safetensors":
            data[-1] ^= 1  # one bit of one weight
        else:
            data += b"\n"
        (model / name).write_bytes(data)
        prepared.refuse(["model_sha256"], model=model)
        shutil.rmtree(model)


def resume_of_damaged_files(suite):
    """Only the last line may be torn; what else is wrong is named, and nothing is touched."""
    prepared = Prepared(suite)
    lines = [line + b"\n" for line in whole_lines(prepared.reference.data)]
    stranger = json.loads(lines[0])
    stranger["custom_id"] = "stranger"
    no_digest = json.loads(lines[1])
    del no_digest["paceline"]["token_sha256"]
    encoded = [json.dumps(line).encode() + b"\n" for line in (stranger, no_digest)]
    for names, content in (
        (["line 2"], [lines[0], b'{"id":\n', lines[2]]),
        (["line 1"], [b"\n", lines[0]]),
        (["line 3", "twice"], [lines[0], lines[1], lines[0]]),
        (["line 2", "stranger"], [lines[1], encoded[0]]),
        (["line 2", "token_sha256"], [lines[0], encoded[1]]),
    ):
        prepared.restore(b"".join(content))
        prepared.refuse([str(prepared.output), *names])
    for text in (b"", b"{}", b"[1]", b'{"format_version": 99}', prepared.manifest[:60]):
        prepared.restore(b"".join(lines[:2]))
        manifest_path(prepared.output).write_bytes(text)
        prepared.refuse([str(manifest_path(prepared.output))])
    manifest_path(prepared.output).unlink()
    prepared.refuse([str(prepared.output), "manifest"], ranks=2)


def output_without_resume(suite):
    """Answers that exist are never overwritten."""
    prepared = Prepared(suite)
    prepared.restore(prepared.reference.data[:500])
    words = suite.words(prepared.model, prepared.source, prepared.output)
    for ranks in (0, 2):
        names = [str(prepared.output), "--resume"]
        refused(suite, words, names, ranks, prepared.directory)


def two_jobs_on_one_output(suite):
    """The second is refused while the first one runs, and the first one's answers stay right."""
    directory = suite.directory()
    model = suite.models / "llama_gqa"
    source = inputs.two_part_requests(directory / "input.jsonl", 10, 150)
    reference = suite.reference(model, source)
    output = directory / "output.jsonl"
    with suite.generate(model, source, output, "--max-batch", 2, ranks=2) as first:
        pid = first.rank_pid(0)
        ready = first.wait_until(lambda: count_lines(output) > 5)
        expect(ready, "the first job was over too early for this case", first)
        first.send(signal.SIGSTOP, pid)
        before = output.read_bytes()
        with suite.generate(model, source, output, "--resume", ranks=2) as second:
            code = second.wait_done(60)
            expect(code == 2, f"exit code {code}, expected 2", second)
            expect(len(second.complaints()) == 1, "expected one line", second)
            expect(str(output) in second.complaints()[0], "it names the output", second)
        expect(output.read_bytes() == before, "the second job changed the output", first)
        first.send(signal.SIGCONT, pid)
        expect(first.wait_done() == 0, "the first job failed", first)
        expect(first.checksum() == reference.checksum, "another checksum", first)
    reference.check_complete(output)


CASES = [
    torn_last_line,
    resume_begins_what_is_not_there,
    resume_of_a_finished_job,
    resume_on_another_cluster,
    resume_of_another_job,
    resume_with_another_input,
    resume_with_another_model,
    resume_of_damaged_files,
    output_without_resume,
    two_jobs_on_one_output,
]
