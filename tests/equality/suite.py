"""What `run` checks: how a row becomes command lines, and what has to be equal."""

import itertools
import json
import pathlib

from cases import (CASES, DIFFERENT_FORMATS, FULL_CASES, PERPLEXITY_CASES, POOL_PAGES,
                   SHARP_CASES, UNEVEN)
from command import (MODELS, RunFailed, checked_command, first_difference, generate, mpirun, shown)
from twins import random_drafter, random_medusa, random_model, twin_model

ALONE = 3  # requests of a run that get a job each


# Who drafts: these stand for the random drafters of the row's model, by what writes them.
HEADS = {"DRAFTER": random_drafter, "MEDUSA": random_medusa}
DRAFTS = {
    "none": [],
    "lookup": ["--lookup", "--draft", "1x7"],
    "lookups": ["--lookup", "--draft", "8x4", "--draft-nodes", "11"],
    "beams": ["--drafter", "DRAFTER", "--draft", "5x3"],
    "noiseless": ["--drafter", "DRAFTER", "--draft", "4x4", "--draft-noise", "none"],
    "auto": ["--drafter", "DRAFTER", "--lookup", "--draft", "auto"],
    "medusa": ["--drafter", "MEDUSA", "--draft", "7x3"],
    "both": ["--drafter", "DRAFTER", "--lookup", "--draft", "2x9", "--draft-nodes", "14"],
}


def options_of(row, drafter_of):
    """The options of `paceline generate` for a row; drafter_of gives the directory of a head."""
    words = [*row["case"].options, "--tp", row["tp"], "--threads", row["threads"],
             "--max-batch", row["max_batch"], "--max-batch-tokens", row["chunk"],
             "--isa", row["isa"], "--exchange", row["exchange"], "--device", row["device"]]
    if row["graphs"] == "off":
        words += ["--no-graphs"]
    if row["pool"] == "small":
        words += ["--kv-memory", row["case"].kv_memory(row["tp"])]
    return words + [drafter_of(word) if word in HEADS else word for word in DRAFTS[row["draft"]]]


def plainest(case, isa, device):
    """The row of a reference: one rank, one thread, one request at a time, prompts in one chunk."""
    return {"case": case, "tp": 1, "replicas": 1, "threads": 1, "max_batch": 1, "chunk": 512,
            "pool": "ample", "company": "file", "isa": isa, "exchange": "auto", "draft": "none",
            "graphs": "on", "device": device}


def reference_device(case, device):
    """Where a case's reference is computed for answers of `device`: the CPU, if both give the same.

    >>> reference_device(CASES[0], "cuda"), reference_device(CASES[1], "cuda")
    ('cpu', 'cuda')
    """
    return "cpu" if case.equal_on_all_devices else device


def numerics_of(report, same_device):
    """The numerics_id to compare: what follows the backend's name, if that may differ.

    >>> numerics_of({"numerics_id": "cuda,w=fp32,v=8"}, same_device=False)
    'w=fp32,v=8'
    """
    return report["numerics_id"] if same_device else report["numerics_id"].partition(",")[2]


def compare(expected, actual, same_input, same_device=True):
    """Raises RunFailed at the first token or figure in which a job differs from its reference.

    Both are (answers, report, words); `actual` may have answered fewer requests.
    """
    answers, report, words = actual
    expected_answers, expected_report, expected_words = expected
    commands = f"  {shown(words)}\nreference:\n  {shown(expected_words)}"
    for name in sorted(answers):
        difference = first_difference(expected_answers[name], answers[name])
        if difference:
            position, wanted, got = difference
            raise RunFailed(f"{name}: token {position} is {got}, expected {wanted}\n{commands}")
    figures = {"numerics_id": lambda of: numerics_of(of, same_device)}
    if same_input:
        figures["checksum"] = lambda of: of["checksum"]
    for key, figure in figures.items():
        got, wanted = figure(report), figure(expected_report)
        if got != wanted:
            raise RunFailed(f"{key} is {got}, expected {wanted}\n{commands}")


def check_pool(report, words):
    """A small pool that preempts nobody, or is not small, tests nothing."""
    if sum(replica["preemptions"] for replica in report["replicas"]) == 0:
        raise RunFailed(f"the small pool forced no preemption: {shown(words)}")
    pages = max(replica["peak_kv_pages"] for replica in report["replicas"])
    if pages > POOL_PAGES:
        raise RunFailed(f"{pages} KV pages were used of {POOL_PAGES}: {shown(words)}")


def check_drafted(report, words):
    """A drafter whose guesses never reach the model tests nothing."""
    if sum(replica["tree_rows"] for replica in report["replicas"]) == 0:
        raise RunFailed(f"nothing was drafted: {shown(words)}")


class Suite:
    """Runs rows and compares them with the references."""

    def __init__(self, paceline, folder, isas, device):
        self.paceline = paceline
        self.folder = folder
        self.isas = isas
        self.device = device
        self.models = {}
        for name in sorted({case.model for case in [*CASES, *FULL_CASES, *PERPLEXITY_CASES]}):
            source = MODELS / name
            if name == "uneven":
                source = self.folder / "uneven-without-twins"
                random_model(source, UNEVEN)
            self.models[name] = self.folder / name
            twin_model(source, self.models[name])
            config = json.loads((self.models[name] / "config.json").read_text())
            for head, write in HEADS.items():
                write(self.drafter_of(name, head), config)
        self.answers = {}  # (case, isa): (answers, report, words)
        self.scores = {}  # (case, isa): (what perplexity printed, words)

    def drafter_of(self, model, head):
        return self.folder / f"{model}-{head}"

    def generate(self, stem, row, requests, more=()):
        """One job: (answers, report, words)."""
        model = row["case"].model
        options = options_of(row, lambda head: self.drafter_of(model, head))
        return generate(self.paceline, self.models[model], self.folder / stem, requests,
                        [*options, *more], ranks=row["tp"] * row["replicas"])

    def score(self, row):
        """One perplexity: (what it printed, words)."""
        case = row["case"]
        text = self.folder / f"{case.model}.text.json"
        if not text.exists():
            # Written aside first: another thread may be about to read it.
            aside = pathlib.Path(f"{text}.{id(row)}")
            aside.write_text(json.dumps(case.text()))
            aside.rename(text)
        words = [*mpirun(row["tp"]), self.paceline, "perplexity",
                 "--model", self.models[case.model], *case.options,
                 "--threads", row["threads"], "--isa", row["isa"], "--exchange", row["exchange"],
                 "--device", row["device"],
                 "--text", text, "--token-ids", "--context", 512]
        return json.loads(checked_command(words)), words

    def make_reference(self, case):
        """Every instruction set gives what the first one does, if it computes the same numerics."""
        first = {}  # numerics_id: reference
        for isa in self.isas:
            row = plainest(case, isa, reference_device(case, self.device))
            answers = self.generate(f"reference-{str(case).replace('/', '-')}-{isa}", row,
                                    case.requests())
            self.answers[case, isa] = answers
            compare(first.setdefault(answers[1]["numerics_id"], answers), answers, same_input=True)
            if case in PERPLEXITY_CASES:
                self.scores[case, isa] = self.score(row)

    def check_tokens(self, index, row):
        """One run (for requests alone: one for each) against the reference."""
        requests = row["case"].requests()
        jobs = [requests]
        if row["company"] == "reverse":
            requests.reverse()
        if row["company"] == "alone":
            step = len(requests) // ALONE
            jobs = [[requests[(index + step * i) % len(requests)]] for i in range(ALONE)]
        for number, job in enumerate(jobs):
            actual = self.generate(f"{index}-{number}", row, job)
            compare(self.answers[row["case"], row["isa"]], actual,
                    same_input=row["company"] == "file",
                    same_device=row["device"] == reference_device(row["case"], self.device))
            if row["pool"] == "small":
                check_pool(*actual[1:])
            # Lookup has to find something first, a full batch leaves no rows, and where drafts do
            # not pay `auto` makes none.
            if (HEADS.keys() & DRAFTS[row["draft"]] and row["draft"] != "auto"
                    and row["max_batch"] < row["chunk"]):
                check_drafted(*actual[1:])

    def check_perplexity(self, row):
        """One perplexity against the reference: the same number to the last bit."""
        expected, expected_words = self.scores[row["case"], row["isa"]]
        actual, words = self.score(row)
        if actual != expected:
            raise RunFailed(f"{actual}\nexpected {expected}\n  {shown(words)}\n"
                            f"reference:\n  {shown(expected_words)}")

    def check_formats_differ(self):
        """Other numerics give other tokens somewhere; so the comparison of tokens can fail."""
        for one, other in itertools.combinations(DIFFERENT_FORMATS, 2):
            if self.answers[one, self.isas[0]][0] == self.answers[other, self.isas[0]][0]:
                raise RunFailed(f"{one} and {other} give the same answers: do formats count?")

    def check_virtual_shards_differ(self):
        """So does another order of adding, wherever the output matrix sees the last bits."""
        for case in SHARP_CASES:
            answers, _, words = self.generate(
                f"shards-{str(case).replace('/', '-')}",
                plainest(case, self.isas[0], self.device), case.requests(),
                ["--virtual-shards", 3])
            if answers == self.answers[case, self.isas[0]][0]:
                raise RunFailed(f"3 virtual shards give the answers of 8: {shown(words)}")
