"""Measures CTranslate2: MODEL PROMPT_TOKENS NEW_TOKENS BATCH,BATCH,... THREADS. Runs in the
environment of that peer; prints {batch: [prompt tokens, new tokens per second]}."""

import json
import pathlib
import random
import sys
import time

import ctranslate2


def seconds(generator, prompts, new_tokens):
    """The time to answer all prompts with exactly so many tokens, greedily."""
    begin = time.perf_counter()
    generator.generate_batch(prompts, max_length=new_tokens, min_length=new_tokens, beam_size=1,
                             sampling_topk=1, include_prompt_in_result=False,
                             max_batch_size=len(prompts))
    return time.perf_counter() - begin


def measure(generator, words, prompt_tokens, new_tokens, batch):
    """Prompt tokens and new tokens per second of `batch` random prompts."""
    prompts = [random.choices(words, k=prompt_tokens) for _ in range(batch)]
    # It reports no time of its own for the prompts: what one token takes, less what a further one
    # takes.
    short, long = (seconds(generator, prompts, tokens) for tokens in (1, 1 + new_tokens))
    decode = max(long - short, 1e-9)
    prefill = max(short - decode / new_tokens, 1e-9)
    return batch * prompt_tokens / prefill, batch * new_tokens / decode


def main():
    """Measures each batch, after a short one to warm up."""
    path, prompt_tokens, new_tokens, batches, threads = sys.argv[1:]
    random.seed(0)
    generator = ctranslate2.Generator(path, device="cpu", inter_threads=1,
                                      intra_threads=int(threads))
    vocabulary = json.loads((pathlib.Path(path) / "vocabulary.json").read_text(encoding="utf-8"))
    words = vocabulary[100:]  # special tokens come first
    measure(generator, words, int(prompt_tokens), 4, 1)
    speeds = {batch: measure(generator, words, int(prompt_tokens), int(new_tokens), int(batch))
              for batch in batches.split(",")}
    print(json.dumps(speeds))


main()
