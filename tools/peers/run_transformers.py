"""Measures transformers: MODEL PROMPT_TOKENS NEW_TOKENS BATCH,BATCH,... THREADS. Runs in the
environment of that peer; prints {batch: [prompt tokens, new tokens per second]}."""

import json
import sys
import time

import torch
import transformers


def measure(model, prompt_tokens, new_tokens, batch):
    """Prompt tokens and new tokens per second of `batch` random prompts."""
    ids = torch.randint(100, model.config.vocab_size, (batch, prompt_tokens))
    begin = time.perf_counter()
    out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    first = time.perf_counter()
    for _ in range(new_tokens):
        token = out.logits[:, -1:].argmax(-1)
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
    end = time.perf_counter()
    return batch * prompt_tokens / (first - begin), batch * new_tokens / (end - first)


@torch.inference_mode()
def main():
    """Measures each batch, after a short one to warm up."""
    path, prompt_tokens, new_tokens, batches, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    measure(model, int(prompt_tokens), 4, 1)
    speeds = {batch: measure(model, int(prompt_tokens), int(new_tokens), int(batch))
              for batch in batches.split(",")}
    print(json.dumps(speeds))


main()
