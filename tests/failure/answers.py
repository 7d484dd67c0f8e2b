"""Reads answer files and compares them."""

import json
from pathlib import Path

from job import expect


def manifest_path(output):
    return Path(f"{output}.manifest.json")


def count_lines(output):
    """Whole lines that are there now."""
    try:
        return Path(output).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def whole_lines(data):
    """The lines of `data` that have their end."""
    return data[: data.rfind(b"\n") + 1].splitlines()


def substance(line):
    """What of an answer must not depend on how the job went: everything but times."""
    if line["error"] is not None:
        return ("error", line["error"]["code"], line["error"]["message"], line["error"]["param"])
    body = line["response"]["body"]
    choice = body["choices"][0]
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    ours = line["paceline"]
    return (
        text,
        choice["finish_reason"],
        body["usage"]["prompt_tokens"],
        body["usage"]["completion_tokens"],
        ours["seed"],
        ours["token_sha256"],
    )


def read_answers(data, what):
    """{custom_id: substance} of whole lines, each id once."""
    answers = {}
    for number, text in enumerate(whole_lines(data), 1):
        try:
            line = json.loads(text)
        except ValueError as error:
            expect(False, f"{what} line {number} is broken: {error}: {text[:200]}")
        expect(line["custom_id"] not in answers, f"{what}: {line['custom_id']} is answered twice")
        answers[line["custom_id"]] = substance(line)
    return answers


class Reference:
    """What an undisturbed run answered."""

    def __init__(self, output, checksum):
        self.data = Path(output).read_bytes()
        self.answers = read_answers(self.data, output)
        self.checksum = checksum

    def check_partial(self, output):
        """A file in any state of a job: its whole lines agree. Returns how many they are."""
        path = Path(output)
        answers = read_answers(path.read_bytes(), output) if path.exists() else {}
        for name, answer in answers.items():
            expect(name in self.answers, f"{output}: {name} was not asked")
            expect(
                answer == self.answers[name],
                f"{output}: {name}: {answer}, undisturbed {self.answers[name]}",
            )
        return len(answers)

    def check_complete(self, output):
        data = Path(output).read_bytes()
        expect(data.endswith(b"\n"), f"{output}: the last line has no end")
        count = self.check_partial(output)
        expect(count == len(self.answers), f"{output}: {count} of {len(self.answers)} answers")
