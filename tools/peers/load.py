"""What every engine is measured on."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Load:
    """Prompts of random tokens, all sent at once, the answers' length fixed."""

    prompt_tokens: int
    new_tokens: int
    batches: tuple  # requests at once, one measurement each
    threads: int

    def figures(self):
        """The names of the speeds that an engine is asked for, all in tokens per second: prompt
        tokens while prompts are fed, new tokens after that."""
        return [f"{kind}{tokens} @ c{batch}" for batch in self.batches
                for kind, tokens in (("pp", self.prompt_tokens), ("tg", self.new_tokens))]

    def named(self, speeds):
        """{figure: speed} from {batch: (prompt tokens per second, new tokens per second)}."""
        return {f"{kind}{tokens} @ c{batch}": speed for batch, pair in speeds.items()
                for kind, tokens, speed in (("pp", self.prompt_tokens, pair[0]),
                                            ("tg", self.new_tokens, pair[1]))}
