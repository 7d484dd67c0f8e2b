"""The time of a step: products, attention, exchanges, gaps, drafting. They follow one another; in
each product and in attention reading and computing go on together: the longer of the two counts."""

import dataclasses

from scaling_model import inputs, shards


@dataclasses.dataclass(frozen=True)
class StepTime:
    """In microseconds."""
    products: float
    attention: float
    exchanges: float
    gaps: float
    draft: float = 0

    @property
    def total(self):
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class Setup:
    """A model on the ranks of one replica."""
    shape: inputs.Shape
    weights: inputs.Format
    gpu: inputs.Gpu
    tp: int
    costs: inputs.Costs = inputs.ASKED
    all_reduce: str = "canonical"

    @property
    def vocabulary_format(self):
        return inputs.FORMATS[self.weights.vocabulary or self.weights.name]

    @property
    def parts(self):
        return shards.rank_parts(self.shape, self.weights.activation_group, self.tp)

    @property
    def read_bandwidth(self):
        """Bytes per microsecond, measured; so are all rates here."""
        return self.gpu.bandwidth * self.costs.read_share * 1e3


def layer_products(setup, part):
    """(outputs, inputs) of a layer's four products on a rank."""
    shape = setup.shape
    queries, keys = part.query_heads * shape.head_dim, part.kv_heads * shape.head_dim
    return [(queries + 2 * keys, shape.hidden), (shape.hidden, queries),
            (2 * part.ffn, shape.hidden), (shape.hidden, part.ffn)]


def weight_bytes_read(setup, part):
    """What a step reads of a rank's weights, as runtime/model/shard_plan.cc counts it."""
    shape = setup.shape
    layer = sum(setup.weights.bytes(n, k) for n, k in layer_products(setup, part))
    norms = (2 * shape.layers + 1) * shape.hidden * 4
    return (shape.layers * layer + norms
            + setup.vocabulary_format.bytes(part.vocabulary, shape.hidden))


def weight_bytes(setup, part):
    """What a rank keeps: the embedding too, where it is not the output matrix."""
    table = setup.vocabulary_format.bytes(part.vocabulary, setup.shape.hidden)
    return weight_bytes_read(setup, part) + (0 if setup.shape.tied else table)


def largest_read(setup):
    """Bytes of the rank that reads most."""
    return max(weight_bytes_read(setup, part) for part in setup.parts)


def kv_bytes_per_position(setup, part, kv):
    """Of one layer on a rank."""
    element, scale = inputs.KV_BYTES[kv]
    return part.kv_heads * 2 * (setup.shape.head_dim * element + scale)


def kv_bytes(setup, load):
    """What the ranks that read most read of the cache in a step, each position once a request."""
    return max(kv_bytes_per_position(setup, part, load.kv) for part in setup.parts) \
        * setup.shape.layers * load.requests * load.context


def product_time(setup, fmt, outputs, width, rows):
    """The weights are read once; so many rows are computed meanwhile."""
    costs, gpu = setup.costs, setup.gpu
    rate = gpu.int8_tflops * costs.tensor_share_int8 if fmt.int8_rate \
        else gpu.bf16_tflops * costs.tensor_share
    read = fmt.bytes(outputs, width) / (setup.read_bandwidth * costs.product_share)
    compute = 2 * rows * outputs * width / (rate * 1e6)
    return max(read, compute) + costs.product_ramp


def attention_time(setup, part, load, rows):
    """Of one layer: a request's rows share what is read."""
    costs = setup.costs
    read = kv_bytes_per_position(setup, part, load.kv) * load.requests * load.context \
        / (setup.read_bandwidth * costs.kv_share)
    compute = 4 * rows * load.context * part.query_heads * setup.shape.head_dim \
        / (setup.gpu.bf16_tflops * costs.tensor_share * 1e6)
    return max(read, compute) + costs.product_ramp


def exchange_times(setup, rows, width):
    """{way: time} of summing the ranks' partial sums [rows, width] in fp32."""
    tp, costs = setup.tp, setup.costs
    link = setup.gpu.link * costs.link_bandwidth_share * 1e3
    size = rows * width * 4
    counts = shards.subtree_counts(shards.VIRTUAL_SHARDS, tp)
    largest, least, total = max(counts), min(counts), sum(counts)
    gathered = max(total - least, (tp - 1) * largest) * size  # received, or sent
    scattered = max(total - least, (tp - 1) * largest) * size / tp
    adding = (total + 2) * size / setup.read_bandwidth
    return {
        "gather": costs.exchange_latency + gathered / link + adding,
        "scatter": 2 * costs.exchange_latency + (scattered + (tp - 1) * size / tp) / link
        + adding / tp,
        "all-reduce": costs.all_reduce_latency + 2 * (tp - 1) / tp * size / link,
    }


def exchange_time(setup, rows, width):
    """The canonical exchange takes the faster of its two ways."""
    if setup.tp == 1:
        return 0
    times = exchange_times(setup, rows, width)
    return times["all-reduce"] if setup.all_reduce == "nccl" else min(times["gather"],
                                                                      times["scatter"])


def gather_time(setup, received):
    """An all-gather of which each rank receives so many bytes."""
    if setup.tp == 1:
        return 0
    return setup.costs.exchange_latency \
        + received / (setup.gpu.link * setup.costs.link_bandwidth_share * 1e3)


def embedding_time(setup, rows):
    """Every rank brings rows of the hidden width, all but one of them +0."""
    return gather_time(setup, (setup.tp - 1) * rows * setup.shape.hidden * 4)


def forward_time(setup, load, rows_per_request=1):
    """A step without its draft. Logits of every decoded row; greedy: 12 bytes a row and rank."""
    shape, costs = setup.shape, setup.costs
    decoded = load.requests * rows_per_request
    rows = decoded + load.prompt_rows
    parts = setup.parts
    layer = [max(product_time(setup, setup.weights, *layer_products(setup, part)[i], rows)
                 for part in parts) for i in range(4)]
    logits = max(product_time(setup, setup.vocabulary_format, part.vocabulary, shape.hidden,
                              decoded) for part in parts)
    attention = max(attention_time(setup, part, load, rows) for part in parts)
    exchanges = 2 * shape.layers * exchange_time(setup, rows, shape.hidden) \
        + embedding_time(setup, rows) + gather_time(setup, (setup.tp - 1) * decoded * 12)
    gaps = (shape.layers * costs.kernels_per_layer + costs.kernels_per_step) * costs.kernel_gap \
        + costs.step_gap
    return StepTime(shape.layers * sum(layer) + logits, shape.layers * attention, exchanges, gaps)


def drafter_products(shape, drafter, first=False):
    """(outputs, inputs) of one depth; the first has no state before it."""
    hidden = shape.hidden
    recurrence = [(hidden, hidden)] * (1 if first else 2)
    vocab = min(drafter.vocab, shape.vocab)
    return [*recurrence, *[(2 * hidden, 2 * hidden)] * drafter.layers, (vocab, 2 * hidden)]


def drafter_bytes(shape, drafter):
    """What each rank keeps of a drafter that is whole on each."""
    return sum(inputs.FORMATS[drafter.format].bytes(n, k)
               for n, k in drafter_products(shape, drafter))


def draft_time(setup, load, drafter):
    """Every depth reads the head again, and looks up an embedding that is split over the ranks. A
    split head has its outputs dealt to ranks and gathers those of state, block and candidates."""
    fmt = inputs.FORMATS[drafter.format]
    ranks = setup.tp if drafter.split else 1
    total = 0
    for depth in range(drafter.depth):
        rows = load.requests * (drafter.width if depth else 1)
        total += embedding_time(setup, rows)
        total += setup.costs.kernels_per_depth * setup.costs.kernel_gap
        total += sum(product_time(setup, fmt, -(-n // ranks), k, rows)
                     for n, k in drafter_products(setup.shape, drafter, depth == 0))
        if drafter.split:
            share = (setup.tp - 1) / setup.tp * rows * 4
            total += gather_time(setup, share * setup.shape.hidden)
            total += drafter.layers * gather_time(setup, share * 2 * setup.shape.hidden)
            total += gather_time(setup, (setup.tp - 1) * rows * 50 * 8)
    return total


def step_time(setup, load, drafter=None):
    """A whole step, with a draft for every request if there is a drafter."""
    if drafter is None:
        return forward_time(setup, load)
    forward = forward_time(setup, load, drafter.rows)
    return dataclasses.replace(forward, draft=draft_time(setup, load, drafter))


def tokens_per_second(setup, load, drafter=None):
    """Of all requests of the replica."""
    per_step = drafter.tokens_per_step if drafter else 1
    return load.requests * per_step / step_time(setup, load, drafter).total * 1e6


def bound(setup, load):
    """Tokens per second if nothing but weights and cache were read, at the read bandwidth."""
    read = largest_read(setup) + kv_bytes(setup, load)
    return load.requests * setup.read_bandwidth / read * 1e6


def fits(setup, load, drafter=None):
    """Whether weights, cache and drafter are within each GPU's memory."""
    held = max(weight_bytes(setup, part) for part in setup.parts) + kv_bytes(setup, load)
    if drafter:
        held += drafter_bytes(setup.shape, drafter)
    return held / 1e9 + setup.costs.reserve_gb <= setup.gpu.memory_gb


def break_even(setup, load, drafter):
    """Tokens per step from which on the draft pays."""
    return step_time(setup, load, drafter).total / step_time(setup, load).total


def crossover_rows(setup, width):
    """The first number of rows at which scattering is faster; None: never (to 2^16)."""
    for rows in range(1, 1 << 16):
        times = exchange_times(setup, rows, width)
        if times["scatter"] < times["gather"]:
            return rows
    return None
