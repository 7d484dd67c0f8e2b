"""What the model is fed with: GPUs, shapes, formats, costs. Where each value comes from is said in
docs/scaling.md."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Gpu:
    """As the maker's sheet says, but for the A100 of gpt-fast's measurements."""
    name: str
    memory_gb: float
    bandwidth: float  # GB/s
    bf16_tflops: float  # dense
    int8_tflops: float  # dense, of fp8 too
    link: float  # GB/s each way


GPUS = {gpu.name: gpu for gpu in (
    Gpu("H100", 80, 3350, 989, 1979, 450),
    Gpu("H200", 141, 4800, 989, 1979, 450),
    # For comparison with what others measured only. The A100's power was limited to 330 W; 1,700
    # GB/s is what its measurers took for the peak: here the product with `read_share`.
    Gpu("A100", 80, 1700 / 0.92, 312, 624, 300),
    Gpu("B200", 180, 8000, 2250, 4500, 900),
)}


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes as in a model's config.json."""
    name: str
    vocab: int
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int = 128
    tied: bool = False


SHAPES = {shape.name: shape for shape in (
    Shape("Llama-2-7B", 32000, 4096, 11008, 32, 32, 32),
    Shape("Llama-2-13B", 32000, 5120, 13824, 40, 40, 40),
    Shape("Llama-3-8B", 128256, 4096, 14336, 32, 32, 8),
    Shape("Llama-3-70B", 128256, 8192, 28672, 80, 64, 8),
    Shape("Llama-2-70B", 32000, 8192, 28672, 80, 64, 8),
    Shape("Llama-3.2-1B", 128256, 2048, 8192, 16, 32, 8, 64, True),
)}


@dataclasses.dataclass(frozen=True)
class Format:
    """How weights are stored: a value, what each group of 32 inputs and each output adds."""
    name: str
    value: float  # bytes
    group: int = 0  # bytes for each 32 inputs
    output: int = 0  # bytes for each output
    activation_group: int = 0  # shards are cut at multiples of it
    int8_rate: bool = False  # its products run at the tensor cores' rate for 8 bits
    vocabulary: str = ""  # the format of embedding and output matrix; empty: the same

    def bytes(self, outputs, inputs):
        """Of a matrix."""
        return int(outputs * (inputs * self.value + inputs // 32 * self.group + self.output))


FORMATS = {fmt.name: fmt for fmt in (
    Format("bf16", 2),
    Format("fp8", 1, output=4, int8_rate=True),
    Format("int8", 1, output=4, activation_group=64, int8_rate=True),
    Format("int8g32", 1, group=2, activation_group=32, int8_rate=True),
    Format("int4", 0.5, group=4, activation_group=32, int8_rate=True, vocabulary="int8g32"),
)}

KV_BYTES = {"bf16": (2, 0), "int8": (1, 4)}  # of an element; of a key or value of a head besides


@dataclasses.dataclass(frozen=True)
class Costs:
    """The parameters. Times in microseconds."""
    name: str
    product_share: float  # of the read bandwidth, that a long product reaches
    product_ramp: float  # of a product or attention besides: start, first loads, tail
    kernel_gap: float  # from one kernel of a graph to the next
    kernels_per_layer: int
    exchange_latency: float
    read_share: float = 0.92  # measured read bandwidth over the sheet's
    kv_share: float = 0.8  # the same as product_share, of attention
    tensor_share: float = 0.5  # of the sheet's tensor rate, bf16
    tensor_share_int8: float = 0.25  # the same of the 8-bit rate
    link_bandwidth_share: float = 0.82
    all_reduce_latency: float = 18
    kernels_per_step: int = 12  # outside the layers
    kernels_per_depth: int = 12  # of drafting
    step_gap: float = 10  # between two steps' graphs
    reserve_gb: float = 6  # of a GPU's memory: activations, graphs, NCCL


ASKED = Costs("asked", 0.95, 2, 1, 10, 7.4)
OTHERS = Costs("others", 0.90, 3, 1.5, 12, 10)


@dataclasses.dataclass(frozen=True)
class Drafter:
    """A ReDrafter head with a recurrence, one residual block of twice the model's width, and the
    draft made with it."""
    width: int = 5  # beams
    depth: int = 5
    rows: int = 32  # of a request's tree, its root with them
    tokens_per_step: float = 3.5
    vocab: int = 8192
    layers: int = 1
    format: str = "int8g32"
    split: bool = False  # over the ranks instead of whole on each: see docs/scaling.md


@dataclasses.dataclass(frozen=True)
class Load:
    """Requests that each decode, with so many positions before them."""
    requests: int = 1
    context: int = 1024
    prompt_rows: int = 0  # of prompt chunks in the same step
    kv: str = "bf16"
