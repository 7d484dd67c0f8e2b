"""What is wrong from the start: exit code 2, one line that names it, before anything is loaded."""

import json
import math
import os
import shutil

import inputs
from answers import manifest_path, read_answers
from job import Job, expect
from resume_cases import refused, snapshot


class Place:
    """A directory with an input, for runs that should not get far."""

    def __init__(self, suite, count=6):
        self.suite = suite
        self.directory = suite.directory()
        self.model = suite.models / "llama_gqa"
        self.source = inputs.short_requests(self.directory / "input.jsonl", count)
        self.output = self.directory / "output.jsonl"

    def refuse(self, names, *more, model=None, source=None, output=None, ranks=0):
        words = self.suite.words(
            model or self.model, source or self.source, output or self.output, *more
        )
        return refused(self.suite, words, names, ranks, self.directory)

    def input(self, name, lines):
        return inputs.write_lines(self.directory / name, lines)


def bad_options(suite):
    """Of options that parse, on every rank together; one rank tells."""
    place = Place(suite)
    place.refuse(["--tp 9"], "--tp", 9, ranks=2)
    place.refuse(["--tp 2", "3 ranks"], "--tp", 2, ranks=3)
    place.refuse(["bogus", "avx2"], "--isa", "bogus", ranks=2)
    place.refuse(["--numerics fast", "CPU"], "--device", "cpu", "--numerics", "fast", ranks=2)
    place.refuse(["--attention bf16", "--device cuda"], "--device", "cpu", "--attention", "bf16",
                 ranks=2)
    place.refuse(["--kv-memory"], "--kv-memory", "1KB", ranks=2)
    place.refuse(["max_tokens"], "--max-tokens", 0)
    place.refuse(["temperature"], "--temperature", -1)
    place.refuse(["top_p"], "--top-p", 1.5)
    place.refuse(["top_k"], "--top-k", -5)
    place.refuse(["--report"], "--report", place.directory / "none" / "report.json", ranks=2)


def more_ranks_than_shards(suite):
    """--virtual-shards is the most that --tp can be."""
    place = Place(suite)
    place.refuse(["--tp 3", "2"], "--tp", 3, "--virtual-shards", 2, ranks=3)


def unparsable_options(suite):
    """The parser's own message, once, although every rank has parsed."""
    place = Place(suite)
    for names, more in (
        (["--weights"], ("--weights", "int3")),
        (["--bogus"], ("--bogus",)),
        (["--threads"], ("--threads", "many")),
        (["--max-batch"], ("--max-batch", 0)),
        (["--seed"], ("--seed", "x")),
    ):
        before = snapshot(place.directory)
        words = suite.words(place.model, place.source, place.output, *more)
        with Job(suite.paceline, words, 2, place.directory) as job:
            code = job.wait_done(60)
            expect(code == 2, f"exit code {code}, expected 2", job)
            lines = [line for line in job.stderr().splitlines() if names[0] in line]
            expect(len(lines) == 1, f"{len(lines)} lines name {names[0]}, expected one", job)
            expect(snapshot(place.directory) == before, "files have changed", job)


def bad_model_directory(suite):
    """The file or the key that is wrong is named."""
    place = Place(suite)
    place.refuse(["config.json"], model=place.directory / "none", ranks=2)
    place.refuse(["config.json"], model=place.directory)

    def changed(key, value):
        model = place.directory / "changed"
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(place.model, model)
        config = json.loads((model / "config.json").read_text())
        config[key] = value
        (model / "config.json").write_text(json.dumps(config))
        return model

    for key, value in (
        ("model_type", "bert"),
        ("hidden_act", "gelu"),
        ("num_hidden_layers", -1),
        ("num_attention_heads", "eight"),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
    ):
        place.refuse(["config.json", key], model=changed(key, value))
    place.refuse(["config.json", "hidden_act"], model=changed("hidden_act", "gelu"), ranks=2)
    model = changed("num_hidden_layers", 3)  # one more than the file has
    place.refuse(["model.layers.2."], model=model, ranks=2)
    model = changed("torch_dtype", "float32")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    place.refuse(["model.safetensors"], model=model, ranks=2)
    weights.unlink()
    place.refuse(["safetensors"], model=model)


def bad_drafter(suite):
    """The drafter's file, key or number that is wrong is named, and the model that it does not fit."""
    place = Place(suite)

    def refuse(names, drafter, ranks=0):
        place.refuse(names, "--drafter", drafter, ranks=ranks)

    refuse(["config.json"], place.directory / "none", ranks=2)
    refuse(["model_type", "recurrent_drafting_drafter"], place.model)
    other = inputs.drafter(place.directory / "other", vocab=161)
    refuse([str(other), "161", str(place.model), "160"], other)
    wide = inputs.drafter(place.directory / "wide", hidden=48)
    refuse([str(wide), "48", str(place.model), "32"], wide, ranks=2)
    for name, number in (("nan", math.nan), ("infinite", -math.inf)):
        spoilt = inputs.drafter(place.directory / name, **{"lm_head.1.weight": {77: number}})
        refuse([f"{name}/model.safetensors", "lm_head.1.weight", "element 77"], spoilt, ranks=2)
    place.refuse(["--draft 65x1", "64x16"], "--draft", "65x1")


def bad_input_file(suite):
    place = Place(suite)
    place.refuse([str(place.directory / "none")], source=place.directory / "none", ranks=2)
    folder = place.directory / "folder"
    folder.mkdir()
    place.refuse([str(folder)], source=folder)
    pipe = place.directory / "pipe"
    os.mkfifo(pipe)
    place.refuse([str(pipe), "regular file"], source=pipe)


def bad_output_path(suite):
    place = Place(suite)
    missing = place.directory / "none" / "output.jsonl"
    place.refuse([str(missing)], output=missing, ranks=2)
    folder = place.directory / "folder"
    folder.mkdir()
    place.refuse([str(folder), "directory"], output=folder, ranks=2)
    place.refuse(["--resume"], "--resume", output="-")
    place.refuse(["--resume"], "--resume", output="/dev/null")


def repeated_ids(suite):
    """Both lines are named, also where one id is the default of another line."""
    place = Place(suite)
    line = {"custom_id": "same", "prompt": [1, 2]}
    other = {"custom_id": "other", "prompt": [1, 2]}
    source = place.input("repeated.jsonl", [other, line, {"prompt": [3]}, line])
    place.refuse([str(source), "lines 2 and 4", "same"], source=source, ranks=2)
    source = place.input("default.jsonl", [{"custom_id": "line-2", "prompt": [1]}, {"prompt": [2]}])
    place.refuse(["lines 1 and 2", "line-2"], source=source)
    place.refuse(["lines 1 and 2", "line-2"], "--dry-run", source=source)


BAD_LINES = (  # line, the error's field, and a part of its message
    ("not JSON", None, ""),
    ('{"custom_id": "cut", "prompt": [1', None, ""),
    ("[1, 2]", None, "object"),
    ({"custom_id": "no prompt"}, "prompt", ""),
    ({"custom_id": "empty", "prompt": []}, "prompt", ""),
    ({"custom_id": "beyond", "prompt": [1, 160]}, "prompt", "160"),
    ({"custom_id": "negative", "prompt": [-1]}, "prompt", ""),
    ({"custom_id": "long", "prompt": [1] * 512}, "prompt", "512"),
    ({"custom_id": "text", "prompt": "needs a tokenizer"}, "prompt", "tokenizer"),
    ({"custom_id": "chat", "messages": [{"role": "user", "content": "?"}]}, "messages", ""),
    ({"custom_id": "n", "prompt": [1], "n": 2}, "n", "n"),
    ({"custom_id": "tools", "prompt": [1], "tools": [{}]}, "tools", "tools"),
    ({"custom_id": "unknown", "prompt": [1], "colour": 1}, "colour", "colour"),
    ({"custom_id": "hot", "prompt": [1], "temperature": -1}, "temperature", ""),
    ({"custom_id": "none", "prompt": [1], "max_tokens": 0}, "max_tokens", ""),
    ({"custom_id": "url", "method": "POST", "url": "/v1/x", "body": {"prompt": [1]}}, "url", ""),
    ({"custom_id": "template", "prompt": [1], "chat_template": "x"}, "chat_template", ""),
)


def bad_lines_among_good_ones(suite):
    """Each becomes an error line that names its line and field; the others are answered as if
    they were alone."""
    place = Place(suite)
    reference = suite.reference(place.model, place.source)
    good = [json.loads(line) for line in place.source.read_text().splitlines()]
    harmless = {"n": 1, "stream": False, "tools": [], "metadata": {"a": "b"}, "user": "u"}
    good = [{**line, **harmless} for line in good]
    lines = [line for line, _, _ in BAD_LINES]
    for index, line in enumerate(good):
        lines.insert(3 * index, line)
    source = place.input("mixed.jsonl", lines)
    numbers = {str(line): number for number, line in enumerate(lines, 1)}
    for ranks, tp in ((0, 1), (2, 1), (2, 2)):
        with suite.generate(place.model, source, place.output, "--tp", tp, ranks=ranks) as job:
            code = job.wait_done()
            expect(code == 0, f"exit code {code}: bad lines are not the job's failure", job)
            counts = job.request_counts()
            expected = (len(good), len(BAD_LINES), 0, len(lines))
            expect(counts == expected, f"the summary counts {counts}, expected {expected}", job)
        answers = read_answers(place.output.read_bytes(), place.output)
        expect(len(answers) == len(lines), f"{len(answers)} of {len(lines)} lines")
        for name, answer in reference.answers.items():
            expect(answers[name] == answer, f"{name}: {answers[name]}, alone {answer}")
        for line, field, part in BAD_LINES:
            number = numbers[str(line)]
            own = line.get("custom_id") if isinstance(line, dict) else None
            kind, code, message, param = answers[own or f"line-{number}"]
            expect((kind, code) == ("error", "invalid_request"), f"{line}: {kind} {code}")
            expect(param == field, f"{line}: the field is {param}, expected {field}")
            expect(f"line {number}" in message and part in message, f"{line}: {message}")
        place.output.unlink()
        manifest_path(place.output).unlink()


def full_device(suite):
    """An answer that cannot be written ends the job: it is never counted as given."""
    place = Place(suite)
    for ranks, tp in ((0, 1), (2, 2), (2, 1)):
        more = ("--tp", tp)
        with suite.generate(place.model, place.source, "/dev/full", *more, ranks=ranks) as job:
            code = job.wait_gone_by_itself()
            expect(code == 1, f"exit code {code}, expected 1", job)
            lines = job.complaints()
            expect(len(lines) == 1, f"{len(lines)} lines say why, expected one", job)
            for part in ("rank 0 on ", " in output: ", "/dev/full", "No space left"):
                expect(part in lines[0], f"the line has no {part!r}", job)


def ranks_that_disagree(suite):
    """Ranks started with different limits plan different steps: found in the next exchange, and
    no answer of that step is written."""
    place = Place(suite)
    for first, second, names, code in (
        ("--max-batch-tokens=512", "--max-batch-tokens=33", ["decided differently"], 1),
        ("--virtual-shards=8", "--virtual-shards=4", ["numerics", "v=8", "v=4"], 2),
    ):
        programs = [
            suite.words(place.model, place.source, place.output, "--tp", 2, option)
            for option in (first, second)
        ]
        with Job(suite.paceline, [], 2, place.directory, programs) as job:
            found = job.wait_gone_by_itself()
            expect(found == code, f"exit code {found}, expected {code}", job)
            lines = job.complaints()
            expect(len(lines) == 1, f"{len(lines)} lines say why, expected one", job)
            for name in names + ["rank 1" if code == 2 else "ranks 0 and 1"]:
                expect(name in lines[0], f"the line has no {name!r}", job)
        if place.output.exists():
            expect(place.output.stat().st_size == 0, "an answer was written")


def standard_output(suite):
    """`--output -`: answers alone on standard output, the rest on standard error, no manifest."""
    place = Place(suite)
    reference = suite.reference(place.model, place.source)
    before = snapshot(place.directory)
    for ranks in (0, 2):
        with suite.generate(place.model, place.source, "-", ranks=ranks) as job:
            expect(job.wait_done() == 0, "it failed", job)
            answers = read_answers(job.stdout().encode(), "standard output")
            expect(answers == reference.answers, "other answers than in a file", job)
            expect(job.checksum() == reference.checksum, "another checksum", job)
        expect(snapshot(place.directory) == before, "files have appeared", job)


def dry_run(suite):
    """It prints the plan and what is wrong with lines, and writes nothing."""
    place = Place(suite)
    source = place.input(
        "input.jsonl", [{"prompt": [1, 2, 3], "max_tokens": 5}, {"prompt": [1], "n": 2}, "{"]
    )
    report = place.directory / "report.json"
    before = snapshot(place.directory)
    for ranks, tp in ((0, 1), (2, 2), (4, 2), (3, 3)):
        more = ("--tp", tp, "--dry-run", "--report", report)
        with suite.generate(place.model, source, place.output, *more, ranks=ranks) as job:
            expect(job.wait_done() == 0, "it failed", job)
            plan = job.stdout()
            for part in ("replica(s) of ", "numerics ", "kv cache ", "line 2: n: ", "line 3: "):
                expect(part in plan, f"the plan has no {part!r}:\n{plan}", job)
            for rank in range(max(ranks, 1)):
                own = [line for line in plan.splitlines() if f" rank {rank} on " in line]
                expect(len(own) == 1, f"rank {rank} has {len(own)} lines:\n{plan}", job)
                for part in (f"replica {rank // tp}, ", "shards ", "weights ", "kv "):
                    expect(part in own[0], f"no {part!r} in {own[0]}", job)
            expect("1 of 3 can be served: 3 prompt tokens, at most 5 new" in plan, plan, job)
        expect(snapshot(place.directory) == before, "files have changed", job)


CASES = [
    bad_options,
    more_ranks_than_shards,
    unparsable_options,
    bad_model_directory,
    bad_drafter,
    bad_input_file,
    bad_output_path,
    repeated_ids,
    bad_lines_among_good_ones,
    full_device,
    ranks_that_disagree,
    standard_output,
    dry_run,
]
