"""The compiled passes of exact TreeSHAP: trees to edges, and edges to contributions.

For a leaf of value v reached through conditions on d distinct players, of which player j has
the indicator o_j of the row and the cover fraction z_j, the Shapley value of player i is
``v (o_i - z_i) * integral over t from 0 to 1 of prod_{j != i} (t o_j + (1 - t) z_j)`` [1]_, a
polynomial of degree d - 1, which ceil(d / 2) Gauss-Legendre nodes integrate exactly. Leaves
of a tree share their paths, so the products are carried down edge by edge and the sums over
leaves up again: an edge costs a few operations a node and row, whatever is below it. All of
it runs over blocks of rows, one row a lane of the processor's vectors.

References
----------
.. [1] Owen, G. (1972). Multilinear extensions of games. Management Science 18, P64-P79.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from toolkit.jit import LANES, Array, jit_cached, jit_inline

# Without contracted products, so that the bits are the same on every processor.
_inline = partial(jit_inline, contract=False)
_cached = partial(jit_cached, contract=False)


class Edges(NamedTuple):
    """The edges of all trees, each tree's in the order of a walk that goes left first.

    - starts: shape (n_trees + 1,); Where each tree's edges begin.
    - n_points: shape (n_trees,); Quadrature nodes that the tree needs: half the largest number
      of distinct players on one of its paths, rounded up.
    - depth: shape (n_edges,); Edges from the root, 1 for the first.
    - above: shape (n_edges,); Depth of the nearest edge above it of the same player; 0 where
      there is none.
    - player: shape (n_edges,); Whose condition the edge is.
    - column: shape (n_edges,); The feature that is compared.
    - threshold: shape (n_edges,); Largest value that goes left.
    - goes_left, missing_passes: shape (n_edges,); Which side the edge is, and whether a missing
      value takes it.
    - share: shape (n_edges,); Cover fraction, multiplied over the edges above of the same
      player.
    - is_leaf: shape (n_edges,); Whether it ends in a leaf.
    - value: shape (n_edges,); The leaf's value.
    """

    starts: Array
    n_points: Array
    depth: Array
    above: Array
    player: Array
    column: Array
    threshold: Array
    goes_left: Array
    missing_passes: Array
    share: Array
    is_leaf: Array
    value: Array


@_cached
def fill_edges(  # noqa: PLR0917  (compiled code takes no keywords)
    left: Array,
    right: Array,
    feature: Array,
    threshold: Array,
    missing_left: Array,
    cover: Array,
    value: Array,
    starts: Array,
    players: Array,
    edges: Edges,
    expected: Array,
    stack: Array,
    path: Array,
    shares: Array,
) -> int:
    """Walk every tree and write down its edges; give the largest depth.

    `expected` gets each tree's mean over its covers. The rest is scratch for the longest
    path: `stack` (3, n) of nodes to come, with their parent and depth; `path` (2, n) of
    player and number of distinct players; `shares` (2, n) of merged share and product of all.
    """
    k = 0
    deepest = 0
    path[1, 0] = 0
    shares[1, 0] = 1.0
    for tree in range(len(starts) - 1):
        edges.starts[tree] = k
        root = starts[tree]
        most = 0
        expected[tree] = value[root]
        n_waiting = 0
        if left[root] >= 0:
            stack[0, 0], stack[0, 1] = right[root], left[root]
            stack[1, 0] = stack[1, 1] = root
            stack[2, 0] = stack[2, 1] = 1
            n_waiting = 2
        while n_waiting > 0:
            n_waiting -= 1
            node, parent, depth = stack[:, n_waiting]
            player = players[feature[parent]]
            above = depth - 1
            while above > 0 and path[0, above] != player:
                above -= 1
            share = cover[node] / cover[parent]
            path[0, depth] = player
            path[1, depth] = path[1, depth - 1] + (above == 0)
            shares[0, depth] = share * shares[0, above] if above > 0 else share
            shares[1, depth] = shares[1, depth - 1] * share
            goes_left = left[parent] == node
            edges.depth[k] = depth
            edges.above[k] = above
            edges.player[k] = player
            edges.column[k] = feature[parent]
            edges.threshold[k] = threshold[parent]
            edges.goes_left[k] = goes_left
            edges.missing_passes[k] = missing_left[parent] == goes_left
            edges.share[k] = shares[0, depth]
            edges.is_leaf[k] = left[node] < 0
            edges.value[k] = value[node]
            k += 1
            deepest = max(deepest, depth)
            if left[node] < 0:
                most = max(most, path[1, depth])
                expected[tree] += value[node] * shares[1, depth]
                continue
            stack[0, n_waiting], stack[0, n_waiting + 1] = right[node], left[node]
            stack[1, n_waiting] = stack[1, n_waiting + 1] = node
            stack[2, n_waiting] = stack[2, n_waiting + 1] = depth + 1
            n_waiting += 2
        edges.n_points[tree] = max((most + 1) // 2, 1)
    edges.starts[len(starts) - 1] = k
    return deepest


class Scratch(NamedTuple):
    """Memory for the deepest path, used again for every tree.

    - passes: shape ((depth + 1) * LANES,); Whether each row passes the edges of one player, 1
      or 0, at every depth.
    - products, sums: shape ((depth + 1) * n * LANES,); At every depth and quadrature node: the
      path's product, and its sum over leaves.
    - totals: shape (LANES,); One sum.
    - on_path: shape (depth + 1,); The edge at every depth.
    """

    passes: Array
    products: Array
    sums: Array
    totals: Array
    on_path: Array


@_inline
def mark(edges: Edges, k: int, values: Array, passes: Array) -> None:
    """Say which rows of the block pass an edge and all above it of the same player."""
    threshold = edges.threshold[k]
    missing_passes = edges.missing_passes[k]
    goes_left = edges.goes_left[k]
    above = edges.above[k]
    here = passes[edges.depth[k] * LANES : (edges.depth[k] + 1) * LANES]
    for r in range(LANES):
        x = values[r]
        side = (x <= threshold) == goes_left
        here[r] = 1.0 if (missing_passes if x != x else side) else 0.0  # noqa: PLR0124
    if above > 0:
        there = passes[above * LANES : (above + 1) * LANES]
        for r in range(LANES):
            here[r] *= there[r]


@_inline
def clear(lanes: Array) -> None:
    """Set every lane to 0."""
    for r in range(LANES):
        lanes[r] = 0.0


@_inline
def _multiply(before: Array, passes: Array, failing: float, passing: float, now: Array) -> None:
    for r in range(LANES):
        now[r] = before[r] * (passing if passes[r] > 0.5 else failing)


@_inline
def _give(totals: Array, passes: Array, share: float, sign: float, out: Array) -> None:
    for r in range(LANES):
        out[r] += sign * (passes[r] - share) * totals[r]


@_inline
def _give_without(  # noqa: PLR0917
    edges: Edges,
    edge: int,
    sign: float,
    place: int,
    t: Array,
    scratch: Scratch,
    out: Array,
) -> None:
    """Give a player its part of the sums at a place, which hold its own factor too."""
    passes, _, sums, totals, _ = scratch
    n = len(t)
    share = edges.share[edge]
    start = edges.depth[edge] * LANES
    here = passes[start : start + LANES]
    clear(totals)
    for q in range(n):
        found = sums[place + q * LANES : place + (q + 1) * LANES]
        failing = (1.0 - t[q]) * share
        by_failing, by_passing = 1.0 / failing, 1.0 / (failing + t[q])
        for r in range(LANES):
            totals[r] += found[r] * (by_passing if here[r] > 0.5 else by_failing)
    player = edges.player[edge] * LANES
    _give(totals, here, share, sign, out[player : player + LANES])


@_inline
def _leave(edges: Edges, depth: int, t: Array, scratch: Scratch, out: Array) -> None:
    """Go up an edge: its player gets its part, the node above gets the sums."""
    _, _, sums, _, on_path = scratch
    n = len(t)
    edge = on_path[depth]
    place = depth * n * LANES
    _give_without(edges, edge, 1.0, place, t, scratch, out)
    above = edges.above[edge]
    if above > 0:
        # What was just given is not the upper edge's to give again.
        _give_without(edges, on_path[above], -1.0, place, t, scratch, out)
    before = place - n * LANES
    for i in range(n * LANES):
        sums[before + i] += sums[place + i]


@_inline
def _visit_leaf(edges: Edges, k: int, t: Array, scratch: Scratch, out: Array) -> None:
    """Go down to a leaf and up again; without its own factor it has the path's product."""
    passes, products, sums, totals, _ = scratch
    n = len(t)
    depth = edges.depth[k]
    share = edges.share[k]
    value = edges.value[k]
    here = passes[depth * LANES : (depth + 1) * LANES]
    clear(totals)
    for q in range(n):
        place = ((depth - 1) * n + q) * LANES
        before = products[place : place + LANES]
        found = sums[place : place + LANES]
        failing = value * (1.0 - t[q]) * share
        passing = failing + value * t[q]
        for r in range(LANES):
            totals[r] += before[r]
            found[r] += before[r] * (passing if here[r] > 0.5 else failing)
    player = edges.player[k] * LANES
    _give(totals, here, share, value, out[player : player + LANES])


@_inline
def _enter(edges: Edges, k: int, t: Array, scratch: Scratch) -> None:
    """Go down an edge: the path's products get its factor, in place of the one above."""
    passes, products, sums, _, on_path = scratch
    n = len(t)
    depth = edges.depth[k]
    above = edges.above[k]
    value = edges.value[k]
    here = passes[depth * LANES : (depth + 1) * LANES]
    there = passes[above * LANES : (above + 1) * LANES]
    on_path[depth] = k
    for q in range(n):
        place = (depth * n + q) * LANES
        now = products[place : place + LANES]
        before = products[place - n * LANES : place - n * LANES + LANES]
        failing = (1.0 - t[q]) * edges.share[k]
        _multiply(before, here, failing, failing + t[q], now)
        if above > 0:
            failing = (1.0 - t[q]) * edges.share[on_path[above]]
            _multiply(now, there, 1.0 / failing, 1.0 / (failing + t[q]), now)
        for r in range(LANES):
            sums[place + r] = value * now[r]


@_cached
def add_contributions(  # noqa: PLR0917
    edges: Edges,
    trees: Array,
    values: Array,
    points: Array,
    weights: Array,
    scratch: Scratch,
    out: Array,
) -> None:
    """Add the contributions of some trees to one block of rows.

    `values` (n_columns * LANES) and `out` (n_players * LANES) hold a row of the block in each
    lane; `points` and `weights` (n, n) are the quadrature of each size.
    """
    for tree in trees:
        n = edges.n_points[tree]
        t = points[n - 1, :n]
        for q in range(n):
            for r in range(LANES):
                scratch.products[q * LANES + r] = weights[n - 1, q]
        depth = 0
        for k in range(edges.starts[tree], edges.starts[tree + 1]):
            while depth >= edges.depth[k]:
                _leave(edges, depth, t, scratch, out)
                depth -= 1
            column = edges.column[k] * LANES
            mark(edges, k, values[column : column + LANES], scratch.passes)
            if edges.is_leaf[k] and edges.above[k] == 0:
                _visit_leaf(edges, k, t, scratch, out)
            else:
                _enter(edges, k, t, scratch)
                depth += 1
        while depth > 0:
            _leave(edges, depth, t, scratch, out)
            depth -= 1


# Without contracted products, so that the bits are the same on every processor.


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
