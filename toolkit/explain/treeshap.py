"""The compiled passes of exact TreeSHAP: trees to edges, and edges to SHAP values.

For a leaf of value v reached through conditions on d distinct players, of which player j has
the indicator o_j of the row and the cover fraction z_j, the Shapley value of player i is
``v (o_i - z_i) * integral over t from 0 to 1 of prod_{j != i} (t o_j + (1 - t) z_j)`` [1]_, a
polynomial of degree d - 1, which ceil(d / 2) Gauss-Legendre nodes integrate exactly. Leaves
of a tree share their paths, so the products are carried down edge by edge and the sums over
leaves up again: an edge costs a few operations per node and row, whatever is below it. All of
it runs over blocks of rows, one row per lane of the processor's vectors.

References
----------
.. [1] Owen, G. (1972). Multilinear extensions of games. Management Science 18, P64-P79.
"""

from functools import partial
from typing import NamedTuple

from toolkit.jit import LANES, Array, jit, jit_cached

# Without contracted products, so that the bits are the same on every processor.
_inline = partial(jit, inline=True, contract=False)
_cached = partial(jit_cached, contract=False)


class Edges(NamedTuple):
    """The edges of all trees, each tree's depth first and left first; arrays of n_edges.

    - starts: shape (n_trees + 1,); first edge of each tree.
    - n_points: shape (n_trees,); quadrature nodes per tree: half the largest number of distinct
      players on one of its paths, rounded up.
    - depth: Edges from the root, 1 for the first.
    - ancestor: Depth of the nearest edge above it of the same player; 0 without one.
    - player, column: Player of the edge's condition, and the feature it compares.
    - threshold: Largest value that goes left.
    - fraction: Cover fraction, multiplied over the edges above of the same player.
    """

    starts: Array
    n_points: Array
    depth: Array
    ancestor: Array
    player: Array
    column: Array
    threshold: Array
    goes_left: Array
    missing_passes: Array
    fraction: Array
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
    fractions: Array,
) -> int:
    """Lay out the edges of every tree, and return the largest depth.

    `expected` gets each tree's mean over its covers. The rest is scratch for the longest
    path: `stack` (3, n) of nodes to come, with their parent and depth; `path` (2, n) of
    player and number of distinct players; `fractions` (2, n), merged and multiplied over all.
    """
    k = 0
    deepest = 0
    path[1, 0] = 0
    fractions[1, 0] = 1.0
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
            ancestor = depth - 1
            while ancestor > 0 and path[0, ancestor] != player:
                ancestor -= 1
            fraction = cover[node] / cover[parent]
            path[0, depth] = player
            path[1, depth] = path[1, depth - 1] + (ancestor == 0)
            fractions[0, depth] = (
                fraction * fractions[0, ancestor] if ancestor > 0 else fraction
            )
            fractions[1, depth] = fractions[1, depth - 1] * fraction
            goes_left = left[parent] == node
            edges.depth[k] = depth
            edges.ancestor[k] = ancestor
            edges.player[k] = player
            edges.column[k] = feature[parent]
            edges.threshold[k] = threshold[parent]
            edges.goes_left[k] = goes_left
            edges.missing_passes[k] = missing_left[parent] == goes_left
            edges.fraction[k] = fractions[0, depth]
            edges.is_leaf[k] = left[node] < 0
            edges.value[k] = value[node]
            k += 1
            deepest = max(deepest, depth)
            if left[node] < 0:
                most = max(most, path[1, depth])
                expected[tree] += value[node] * fractions[1, depth]
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

    - passes: shape ((depth + 1) * LANES,); whether each row passes the edges of one player, 1
      or 0, at every depth.
    - products, sums: shape ((depth + 1) * n * LANES,); at every depth and quadrature node: the
      path's product, and its sum over leaves.
    - totals: shape (LANES,).
    - on_path: shape (depth + 1,); the edge at every depth.
    """

    passes: Array
    products: Array
    sums: Array
    totals: Array
    on_path: Array


@_inline
def _mark_passing(edges: Edges, k: int, values: Array, passes: Array) -> None:
    """Mark the rows that pass an edge and all above it of the same player."""
    threshold = edges.threshold[k]
    missing_passes = edges.missing_passes[k]
    goes_left = edges.goes_left[k]
    ancestor = edges.ancestor[k]
    row_passes = passes[edges.depth[k] * LANES : (edges.depth[k] + 1) * LANES]
    for r in range(LANES):
        x = values[r]  # NaN, which is missing, differs from itself
        side = (x <= threshold) == goes_left
        row_passes[r] = 1.0 if (missing_passes if x != x else side) else 0.0  # noqa: PLR0124
    if ancestor > 0:
        ancestor_passes = passes[ancestor * LANES : (ancestor + 1) * LANES]
        for r in range(LANES):
            row_passes[r] *= ancestor_passes[r]


@_inline
def _clear(lanes: Array) -> None:
    """Set every lane to 0."""
    for r in range(LANES):
        lanes[r] = 0.0


@_inline
def _multiply(before: Array, passes: Array, failing: float, passing: float, now: Array) -> None:
    for r in range(LANES):
        now[r] = before[r] * (passing if passes[r] > 0.5 else failing)


@_inline
def _add_credit(totals: Array, passes: Array, fraction: float, sign: float, out: Array) -> None:
    for r in range(LANES):
        out[r] += sign * (passes[r] - fraction) * totals[r]


@_inline
def _credit_player(  # noqa: PLR0917
    edges: Edges,
    edge: int,
    sign: float,
    offset: int,
    t: Array,
    scratch: Scratch,
    out: Array,
) -> None:
    """Credit a player with the sums at an offset, divided by its own factor in them."""
    passes, _, sums, totals, _ = scratch
    n = len(t)
    fraction = edges.fraction[edge]
    start = edges.depth[edge] * LANES
    row_passes = passes[start : start + LANES]
    _clear(totals)
    for q in range(n):
        found = sums[offset + q * LANES : offset + (q + 1) * LANES]
        failing = (1.0 - t[q]) * fraction
        by_failing, by_passing = 1.0 / failing, 1.0 / (failing + t[q])
        for r in range(LANES):
            totals[r] += found[r] * (by_passing if row_passes[r] > 0.5 else by_failing)
    player = edges.player[edge] * LANES
    _add_credit(totals, row_passes, fraction, sign, out[player : player + LANES])


@_inline
def _go_up(edges: Edges, depth: int, t: Array, scratch: Scratch, out: Array) -> None:
    """Go up an edge: credit its player, and add the sums to those of the node above."""
    _, _, sums, _, on_path = scratch
    n = len(t)
    edge = on_path[depth]
    offset = depth * n * LANES
    _credit_player(edges, edge, 1.0, offset, t, scratch, out)
    ancestor = edges.ancestor[edge]
    if ancestor > 0:
        # This credit is also in the sums of the upper edge, which would give it again.
        _credit_player(edges, on_path[ancestor], -1.0, offset, t, scratch, out)
    before = offset - n * LANES
    for i in range(n * LANES):
        sums[before + i] += sums[offset + i]


@_inline
def _visit_leaf(edges: Edges, k: int, t: Array, scratch: Scratch, out: Array) -> None:
    """Go down to a leaf and up again; the path's product lacks the leaf's own factor."""
    passes, products, sums, totals, _ = scratch
    n = len(t)
    depth = edges.depth[k]
    fraction = edges.fraction[k]
    value = edges.value[k]
    row_passes = passes[depth * LANES : (depth + 1) * LANES]
    _clear(totals)
    for q in range(n):
        offset = ((depth - 1) * n + q) * LANES
        before = products[offset : offset + LANES]
        found = sums[offset : offset + LANES]
        failing = value * (1.0 - t[q]) * fraction
        passing = failing + value * t[q]
        for r in range(LANES):
            totals[r] += before[r]
            found[r] += before[r] * (passing if row_passes[r] > 0.5 else failing)
    player = edges.player[k] * LANES
    _add_credit(totals, row_passes, fraction, value, out[player : player + LANES])


@_inline
def _go_down(edges: Edges, k: int, t: Array, scratch: Scratch) -> None:
    """Go down an edge: multiply the products by its factor, and divide by its ancestor's."""
    passes, products, sums, _, on_path = scratch
    n = len(t)
    depth = edges.depth[k]
    ancestor = edges.ancestor[k]
    value = edges.value[k]
    row_passes = passes[depth * LANES : (depth + 1) * LANES]
    ancestor_passes = passes[ancestor * LANES : (ancestor + 1) * LANES]
    on_path[depth] = k
    for q in range(n):
        offset = (depth * n + q) * LANES
        now = products[offset : offset + LANES]
        before = products[offset - n * LANES : offset - n * LANES + LANES]
        failing = (1.0 - t[q]) * edges.fraction[k]
        _multiply(before, row_passes, failing, failing + t[q], now)
        if ancestor > 0:
            failing = (1.0 - t[q]) * edges.fraction[on_path[ancestor]]
            _multiply(now, ancestor_passes, 1.0 / failing, 1.0 / (failing + t[q]), now)
        for r in range(LANES):
            sums[offset + r] = value * now[r]


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
    """Add the SHAP values of a subset of trees to one block of rows.

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
                _go_up(edges, depth, t, scratch, out)
                depth -= 1
            column = edges.column[k] * LANES
            _mark_passing(edges, k, values[column : column + LANES], scratch.passes)
            if edges.is_leaf[k] and edges.ancestor[k] == 0:
                _visit_leaf(edges, k, t, scratch, out)
            else:
                _go_down(edges, k, t, scratch)
                depth += 1
        while depth > 0:
            _go_up(edges, depth, t, scratch, out)
            depth -= 1


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
    """Add v(S): the margin that a subset of trees expects when the players in S are known.

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
            ancestor = edges.ancestor[k]
            on_path[depth] = k
            column = edges.column[k] * LANES
            row_passes = passes[depth * LANES : (depth + 1) * LANES]
            _mark_passing(edges, k, values[column : column + LANES], passes)
            ratio = edges.fraction[k]
            if ancestor > 0:
                ratio /= edges.fraction[on_path[ancestor]]
            for s in range(n_sets):
                known = (s >> edges.player[k]) & 1
                offset = depth * size + s * LANES
                for r in range(LANES):
                    reached[offset + r] = reached[offset - size + r] * (
                        row_passes[r] if known else ratio
                    )
            if edges.is_leaf[k]:
                for i in range(size):
                    out[i] += edges.value[k] * reached[depth * size + i]


@_cached
def add_totals(  # noqa: PLR0917
    shap: Array,
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
    """Sum up the SHAP values of one block, which this centres over the classes.

    `shap` (n_classes * n_used * LANES) is overwritten. `signed` and `absolute` (n_classes *
    n_groups * LANES) get sums as they are and of centred magnitudes; `of_feature` (n_classes,
    n_used) and `of_dimension` (n_classes, n_dimensions) magnitudes summed over rows.
    `by_dimension` lists the features dimension after dimension, `dimensions` is in its order.
    """
    n_used = len(groups)
    n_groups = len(signed) // (n_classes * LANES)
    for j in range(n_used):
        _clear(lanes)
        for c in range(n_classes):
            row = shap[(c * n_used + j) * LANES : (c * n_used + j + 1) * LANES]
            for r in range(LANES):
                lanes[r] += row[r]
        for r in range(LANES):
            lanes[r] /= n_classes
        for c in range(n_classes):
            row = shap[(c * n_used + j) * LANES : (c * n_used + j + 1) * LANES]
            start = (c * n_groups + groups[j]) * LANES
            for r in range(LANES):
                signed[start + r] += row[r]
                row[r] -= lanes[r]
                absolute[start + r] += abs(row[r])
            of_feature[c, j] += _sum_magnitudes(row)
    for c in range(n_classes):
        _clear(lanes)
        for i in range(n_used):
            j = by_dimension[i]
            row = shap[(c * n_used + j) * LANES : (c * n_used + j + 1) * LANES]
            for r in range(LANES):
                lanes[r] += row[r]
            if i + 1 == n_used or dimensions[i + 1] != dimensions[i]:
                of_dimension[c, dimensions[i]] += _sum_magnitudes(lanes)
                _clear(lanes)
