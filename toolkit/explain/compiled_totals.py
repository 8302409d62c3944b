"""Compiled sums: over contributions, and over trees in which only some players are known."""

from __future__ import annotations

from functools import partial

from toolkit.explain.compiled import Edges, clear, mark
from toolkit.jit import LANES, Array, jit_cached, jit_inline

# Without contracted products, so that the bits are the same on every processor.
_inline = partial(jit_inline, contract=False)
_cached = partial(jit_cached, contract=False)


@_inline
def _sum_magnitudes(row: Array) -> float:
    # Four sums side by side: one after another would wait for every addition.
    a = b = c = d = 0.0
    for r in range(0, LANES, 4):
        a += abs(row[r])
        b += abs(row[r + 1])
        c += abs(row[r + 2])
        d += abs(row[r + 3])
    return (a + b) + (c + d)


@_cached
def add_coalitions(  # noqa: PLR0917
    edges: Edges,
    trees: Array,
    values: Array,
    n_players: int,
    passes: Array,
    reached: Array,
    on_path: Array,
    out: Array,
) -> None:
    """Add what some trees expect when only some players are known, for every set of players.

    Set s holds player m where bit m of s is 1. `reached` and `out` hold sets * LANES numbers,
    `reached` for every depth.
    """
    n_sets = 1 << n_players
    size = n_sets * LANES
    for i in range(size):
        reached[i] = 1.0
    for tree in trees:
        for k in range(edges.starts[tree], edges.starts[tree + 1]):
            depth = edges.depth[k]
            above = edges.above[k]
            on_path[depth] = k
            column = edges.column[k] * LANES
            here = passes[depth * LANES : (depth + 1) * LANES]
            mark(edges, k, values[column : column + LANES], passes)
            ratio = edges.share[k]
            if above > 0:
                ratio /= edges.share[on_path[above]]
            for s in range(n_sets):
                known = (s >> edges.player[k]) & 1
                place = depth * size + s * LANES
                for r in range(LANES):
                    reached[place + r] = reached[place - size + r] * (
                        here[r] if known else ratio
                    )
            if edges.is_leaf[k]:
                for i in range(size):
                    out[i] += edges.value[k] * reached[depth * size + i]


@_cached
def add_totals(  # noqa: PLR0917
    shares: Array,
    n_classes: int,
    groups: Array,
    by_dimension: Array,
    dimensions: Array,
    signed: Array,
    absolute: Array,
    of_feature: Array,
    of_dimension: Array,
    lanes: Array,
) -> None:
    """Sum up the contributions of one block; they are centred over the classes on the way.

    `shares` (n_classes * n_used * LANES) is changed. `signed` and `absolute` (n_classes *
    n_groups * LANES) get sums as they are and of centred magnitudes; `of_feature` (n_classes,
    n_used) and `of_dimension` (n_classes, n_dimensions) magnitudes summed over rows.
    `by_dimension` lists the features dimension after dimension, `dimensions` is in its order.
    """
    n_used = len(groups)
    n_groups = len(signed) // (n_classes * LANES)
    for j in range(n_used):
        clear(lanes)
        for c in range(n_classes):
            row = shares[(c * n_used + j) * LANES : (c * n_used + j + 1) * LANES]
            for r in range(LANES):
                lanes[r] += row[r]
        for r in range(LANES):
            lanes[r] /= n_classes
        for c in range(n_classes):
            row = shares[(c * n_used + j) * LANES : (c * n_used + j + 1) * LANES]
            place = (c * n_groups + groups[j]) * LANES
            for r in range(LANES):
                signed[place + r] += row[r]
                row[r] -= lanes[r]
                absolute[place + r] += abs(row[r])
            of_feature[c, j] += _sum_magnitudes(row)
    for c in range(n_classes):
        clear(lanes)
        for i in range(n_used):
            j = by_dimension[i]
            row = shares[(c * n_used + j) * LANES : (c * n_used + j + 1) * LANES]
            for r in range(LANES):
                lanes[r] += row[r]
            if i + 1 == n_used or dimensions[i + 1] != dimensions[i]:
                of_dimension[c, dimensions[i]] += _sum_magnitudes(lanes)
                clear(lanes)
