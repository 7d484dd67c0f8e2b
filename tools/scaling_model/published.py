"""What others have measured, beside what the model says of it."""

import dataclasses

from scaling_model import inputs, step


@dataclasses.dataclass(frozen=True)
class Speed:
    """Tokens per second of an engine, plain decoding. `prompt` and `answer` positions a request."""
    who: str
    gpu: str
    shape: str
    weights: str
    tp: int
    speed: float
    requests: int = 1
    prompt: int = 5
    answer: int = 200
    prompt_counts: bool = False  # whether the speed is over the time of prompts, too


GPT_FAST = "gpt-fast"
TRT_2023 = "TensorRT-LLM 0.5"
SPEEDS = (
    Speed("SGLang", "H100", "Llama-3-8B", "bf16", 1, 157, prompt=512),
    Speed("megakernel", "H100", "Llama-3.2-1B", "bf16", 1, 0.78 * 3350e9 / 2.4716e9),
    Speed("TensorRT-LLM 2026", "B200", "Llama-3-8B", "fp8", 2, 1e3 / 2.35, 1, 1000, 1000),
    Speed(GPT_FAST, "A100", "Llama-2-7B", "bf16", 1, 104.9),
    Speed(GPT_FAST, "A100", "Llama-2-7B", "bf16", 2, 168.84),
    Speed(GPT_FAST, "A100", "Llama-2-7B", "bf16", 4, 254.02),
    Speed(GPT_FAST, "A100", "Llama-2-7B", "bf16", 8, 328.43),
    Speed(GPT_FAST, "A100", "Llama-3-8B", "bf16", 1, 93.83),
    Speed(GPT_FAST, "A100", "Llama-3-8B", "bf16", 8, 276.01),
    Speed(GPT_FAST, "A100", "Llama-2-70B", "bf16", 2, 21.32),
    Speed(GPT_FAST, "A100", "Llama-2-70B", "bf16", 4, 38.01),
    Speed(GPT_FAST, "A100", "Llama-2-70B", "bf16", 8, 62.50),
    Speed(GPT_FAST, "A100", "Llama-2-7B", "int4", 1, 196.80),
    Speed(GPT_FAST, "A100", "Llama-2-70B", "int4", 8, 90.77),
    Speed(TRT_2023, "H100", "Llama-2-7B", "fp8", 1, 9193, 64, 128, 128, True),
    Speed(TRT_2023, "H100", "Llama-2-70B", "fp8", 4, 3317, 64, 128, 128, True),
)


def predicted_speed(point, costs):
    """What the model says of a Speed."""
    setup = step.Setup(inputs.SHAPES[point.shape], inputs.FORMATS[point.weights],
                       inputs.GPUS[point.gpu], point.tp, costs)
    load = inputs.Load(point.requests, point.prompt + point.answer // 2)
    time = step.step_time(setup, load).total * point.answer
    if point.prompt_counts:
        prompts = inputs.Load(point.requests, point.prompt, point.requests * (point.prompt - 1))
        time += step.forward_time(setup, prompts).total
    return point.requests * point.answer / time * 1e6


# H100, vLLM's pull request 24111: (GPUs, bytes of the summed message, microseconds of the one-shot
# and two-shot kernels of vLLM and of NCCL's all-reduce).
EXCHANGES = (
    (4, 1 << 19, 10, 17, 17),
    (4, 1 << 22, 38, 43, 37),
    (6, 1 << 19, 13, 15, 23),
    (6, 1 << 22, 70, 37, 53),
)


def predicted_exchange(gpus, size, costs):
    """(gather, scatter, all-reduce) of a message of so many bytes."""
    setup = step.Setup(inputs.SHAPES["Llama-3-70B"], inputs.FORMATS["bf16"], inputs.GPUS["H100"],
                       gpus, costs)
    times = step.exchange_times(setup, 1, size // 4)
    return times["gather"], times["scatter"], times["all-reduce"]
