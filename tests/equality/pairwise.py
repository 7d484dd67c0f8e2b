"""Which combinations of settings to run: all of them, or few that cover every pair.

Axes are a dict from an axis's name to the list of its levels; a row is a dict that gives each axis
one level. `allowed(row)` says whether a row can be run at all. It is also asked about rows in which
axes are still missing, and must answer True as long as they could be completed: a combination that
it has refused may not become possible again by adding a level.
"""

import itertools


def all_rows(axes, allowed=lambda row: True):
    """Every allowed combination, the last axis varying fastest."""
    for levels in itertools.product(*axes.values()):
        row = dict(zip(axes, levels))
        if allowed(row):
            yield row


def pairs_of(row):
    """The pairs that a row covers, as (axis, level, other axis, level)."""
    return [(a, row[a], b, row[b]) for a, b in itertools.combinations(row, 2)]


def all_pairs(axes, allowed=lambda row: True):
    """Every pair of levels of different axes that is allowed, in the order of the axes."""
    pairs = []
    for a, b in itertools.combinations(axes, 2):
        for level_a, level_b in itertools.product(axes[a], axes[b]):
            if allowed({a: level_a, b: level_b}):
                pairs.append((a, level_a, b, level_b))
    return pairs


def covering_rows(axes, allowed=lambda row: True):
    """A short list of allowed rows in which every allowed pair occurs; always the same list.

    Greedy (after AETG, Cohen et al. 1997): a row starts from a pair that no row has yet, then each
    axis takes the level that adds most pairs not covered so far; among equals the level that was
    used least.

    >>> covering_rows({"a": [1, 2], "b": [1, 2], "c": [1, 2]})  # doctest: +NORMALIZE_WHITESPACE
    [{'a': 1, 'b': 1, 'c': 1}, {'a': 1, 'b': 2, 'c': 2},
     {'a': 2, 'b': 1, 'c': 2}, {'a': 2, 'b': 2, 'c': 1}]
    """
    order = list(axes)
    missing = dict.fromkeys(all_pairs(axes, allowed))  # a set that keeps its order
    uses = {(axis, level): 0 for axis in axes for level in axes[axis]}
    rows = []

    def gain(row, axis, level):
        placed = {**row, axis: level}
        return sum(pair in missing for pair in _pairs_with(placed, axis, order))

    def complete(row):
        """Fills the axes that `row` lacks; None if no way of doing so is allowed."""
        free = [axis for axis in order if axis not in row]
        if not free:
            return row
        axis = free[0]
        levels = sorted(axes[axis],  # a stable sort: among equals the first
                        key=lambda level: (-gain(row, axis, level), uses[axis, level]))
        for level in levels:
            placed = {**row, axis: level}
            if allowed(placed):
                done = complete(placed)
                if done is not None:
                    return done
        return None

    while missing:
        a, level_a, b, level_b = next(iter(missing))
        row = complete({a: level_a, b: level_b})
        if row is None:
            raise ValueError(f"no row can have {a}={level_a} with {b}={level_b}, yet it is allowed")
        row = {axis: row[axis] for axis in order}
        for pair in pairs_of(row):
            missing.pop(pair, None)
        for axis, level in row.items():
            uses[axis, level] += 1
        rows.append(row)
    return rows


def _pairs_with(row, axis, order):
    """The pairs of `row` that `axis` is part of, each written in the order of the axes."""
    pairs = []
    for other in row:
        if other == axis:
            continue
        a, b = (axis, other) if order.index(axis) < order.index(other) else (other, axis)
        pairs.append((a, row[a], b, row[b]))
    return pairs
