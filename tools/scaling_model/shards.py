"""How a model is dealt to virtual shards: parallel/shards.cc and runtime/model/shard_plan.cc again,
for sizes only. Ranges are (begin, end)."""

import dataclasses
import math

VIRTUAL_SHARDS = 8
VOCABULARY_ATOM = 16


def deal(units, atom, shards):
    """Cuts `units` into one range per shard, in atoms, the first shards one more."""
    atoms = -(-units // atom)
    ranges = []
    begin = 0
    for shard in range(shards):
        end = min(units, begin + (atoms // shards + (shard < atoms % shards)) * atom)
        ranges.append((begin, end))
        begin = end
    return ranges


def rank_shards(shards, tp, rank):
    """The shards of a rank."""
    return rank * shards // tp, (rank + 1) * shards // tp


def kv_heads_for(query_heads, heads, kv_heads):
    """The key/value heads that a range of query heads reads."""
    begin, end = query_heads
    if begin == end:
        return 0, 0
    group = heads // kv_heads
    return begin // group, (end - 1) // group + 1


def inner_nodes(begin, end):
    """The inner nodes of the tree in which partial sums are added."""
    if end - begin < 2:
        return []
    middle = begin + (1 << (end - begin - 1).bit_length() - 1)
    return [*inner_nodes(begin, middle), *inner_nodes(middle, end), (begin, end)]


def subtree_counts(shards, tp):
    """How many partial sums each rank brings to an exchange: its maximal complete subtrees."""
    nodes = inner_nodes(0, shards)
    counts = []
    for rank in range(tp):
        begin, end = rank_shards(shards, tp, rank)
        counts.append(0)
        while begin < end:
            begin = max([node_end for node_begin, node_end in nodes
                         if node_begin == begin and node_end <= end], default=begin + 1)
            counts[-1] += 1
    return counts


@dataclasses.dataclass(frozen=True)
class RankPart:
    """What a rank keeps of a model."""
    query_heads: int
    kv_heads: int
    ffn: int
    vocabulary: int


def rank_parts(shape, activation_group, tp, shards=VIRTUAL_SHARDS):
    """The parts of all ranks; heads and FFN columns in atoms that fill whole activation groups."""
    group = max(1, activation_group)
    heads = deal(shape.heads, math.lcm(group, shape.head_dim) // shape.head_dim, shards)
    ffn = deal(shape.ffn, group, shards)
    vocabulary = deal(shape.vocab, VOCABULARY_ATOM, shards)
    parts = []
    for rank in range(tp):
        begin, end = rank_shards(shards, tp, rank)
        queries = heads[begin][0], heads[end - 1][1]
        keys = kv_heads_for(queries, shape.heads, shape.kv_heads)
        parts.append(RankPart(queries[1] - queries[0], keys[1] - keys[0],
                              ffn[end - 1][1] - ffn[begin][0],
                              vocabulary[end - 1][1] - vocabulary[begin][0]))
    return parts
