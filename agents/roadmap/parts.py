"""Walls that nobody tells of, but recorded positions show: the parts of places that they divide.

A place stands for all positions that are nearest to it, even for those behind a wall that is thin. But whoever follows
one recorded path can turn into another where the two cross. So positions that steps and crossings join in both
directions are on the same side of every wall. Others are on two sides if steps as they were recorded nearby would often
have led from the one to the other, and no path does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.spatial import KDTree

from .graph import PlaceGraph

AROUND = 1.5  # spacings around a place, in which paths are looked at
MOST = 1024  # recorded positions there, those of pieces of episodes that are drawn at random
FEWEST = 8  # recorded positions of a part
SLIVER = 0.1  # of the positions of a place's largest part; of a part with fewer of them, nobody knows
MOSTLY = 0.5  # of the positions of a place belong to its parts, or else too few paths were recorded to tell
APART = 1.5  # spacings that a step from one part to another leads, at full speed
NEARBY = 4.0  # spacings around a place, in which such steps are recorded
STEPS = 32  # of them
NEAREST = 4  # recorded positions to where such a step leads, none of which are of the part that it comes from
WOULD = 3.0  # paths that would have led from one part to another, if none does because of a wall


def behind_walls(graph: PlaceGraph, position_NG: np.ndarray, piece_N: np.ndarray, begin_M: np.ndarray,
                 end_M: np.ndarray) -> PlaceGraph:
    """The graph with the passages that begin and end in these rows of recorded positions, and with a place for each
    part of its places; `piece_N` is the number of the piece of an episode of each position.

    Walls are believed where ways round them were recorded. Where places would leave the core, for want of a way out or
    in, they and those around them stay whole.
    """
    place_N = graph.place_of(position_NG)
    whole = graph.with_passages(position_NG, place_N, begin_M, end_M)
    part_N = parts_of_places(graph, position_NG, piece_N, place_N)
    found, found_N = divided(graph, position_NG, place_N, part_N)
    found = found.with_passages(position_NG, found_N, begin_M, end_M)
    in_core_N = found.is_core_P[np.where(found_N < 0, place_N, found_N)]
    cut_P = np.zeros(len(graph.place_PG), bool)
    cut_P[place_N[whole.is_core_P[place_N] & ~in_core_N]] = True
    if not cut_P.any():
        return found
    part_N[np.isin(place_N, whole.edge_E2[cut_P[whole.edge_E2].any(1)])] = 0
    found, found_N = divided(graph, position_NG, place_N, part_N)
    return found.with_passages(position_NG, found_N, begin_M, end_M)


def divided(graph: PlaceGraph, position_NG: np.ndarray, place_N: np.ndarray,
            part_N: np.ndarray) -> tuple[PlaceGraph, np.ndarray]:
    """A graph with a place for each part of its places, and the place of each recorded position, or -1 where nobody
    knows its part."""
    place_PG, part_place_N, known = graph.place_PG.copy(), np.where(part_N >= 0, place_N, -1), [np.zeros(0, int)]
    for place in np.unique(place_N[part_N > 0]):
        row_M = np.flatnonzero((place_N == place) & (part_N >= 0))
        known.append(row_M)
        for part in range(1, part_N[row_M].max() + 1):
            part_place_N[row_M[part_N[row_M] == part]] = len(place_PG)
            place_PG = np.append(place_PG, graph.place_PG[[place]], 0)
    row_M = np.flatnonzero(part_place_N >= 0)
    away_M = np.square(position_NG[row_M] - graph.place_PG[place_N[row_M]]).sum(1)
    row_M = row_M[np.lexsort((away_M, part_place_N[row_M]))]
    label_K, first_K = np.unique(part_place_N[row_M], return_index=True)
    place_PG[label_K] = position_NG[row_M[first_K]]
    known_K = np.concatenate(known)
    graph = replace(graph, place_PG=place_PG, known_KG=position_NG[known_K], known_K=part_place_N[known_K])
    return graph, part_place_N


def parts_of_places(graph: PlaceGraph, position_NG: np.ndarray, piece_N: np.ndarray, place_N: np.ndarray) -> np.ndarray:
    """(N,) the number of the part of its place that each recorded position belongs to, or -1 where nobody knows on
    which side of a wall it is; `piece_N` is the number of the piece of an episode of each.

    Walls divide places in a plane. With more entries that move, or fewer, nothing is divided.
    """
    plane = np.flatnonzero(graph.scale_G == 1)
    if len(plane) != 2:
        return np.zeros_like(place_N)
    tree, rng = KDTree(position_NG * graph.scale_G), np.random.default_rng(0)
    at_N2 = position_NG[:, plane].astype(np.float64)
    span = max(round(APART * graph.spacing / graph.speed), 1)
    drawn_N = rng.permutation(piece_N.max() + 1)[piece_N]
    part_N = np.full_like(place_N, -1)
    for place, place_G in enumerate(graph.place_PG):
        from_S = np.array(tree.query_ball_point(place_G * graph.scale_G, NEARBY * graph.spacing), int)
        from_S = from_S[from_S + span < len(place_N)]
        from_S = from_S[piece_N[from_S] == piece_N[from_S + span]]
        from_S = rng.choice(from_S, min(STEPS, len(from_S)), replace=False)
        row_M = np.array(tree.query_ball_point(place_G * graph.scale_G, AROUND * graph.spacing), int)
        row_M = np.sort(row_M[np.argsort(drawn_N[row_M], kind="stable")[:MOST]])
        follows_M = np.append(False, (np.diff(row_M) == 1) & (np.diff(piece_N[row_M]) == 0))
        is_own_M = place_N[row_M] == place
        part_M = parts(at_N2[row_M] - place_G[plane], follows_M, is_own_M, at_N2[from_S + span] - at_N2[from_S], span)
        if (part_M[is_own_M] >= 0).sum() <= MOSTLY * is_own_M.sum():
            part_M[:] = 0
        part_N[row_M[is_own_M]] = part_M[is_own_M]
    return part_N


def parts(at_M2: np.ndarray, follows_M: np.ndarray, is_own_M: np.ndarray, step_S2: np.ndarray, span: int) -> np.ndarray:
    """(M,) the number of the part that each position belongs to, or -1 where nobody knows.

    `follows_M` says which position is the next one on a path after the one before, and `is_own_M` which of them belong
    to the place that is divided, in whose middle 0 is. `step_S2` were recorded nearby in `span` environment steps each.
    """
    graph = crossings(at_M2, follows_M)
    part_M = connected_components(graph, connection="strong")[1]
    count_C = np.bincount(part_M)
    largest = part_M == count_C.argmax()
    comes_M, leads_M = _reached(graph, largest), _reached(graph.T.tocsr(), largest)
    is_few_M = count_C[part_M] < FEWEST  # as where paths come from, or lead to, and none lead back
    from_E, to_E = graph.nonzero()
    is_alike_E = (comes_M[from_E] == comes_M[to_E]) & (leads_M[from_E] == leads_M[to_E])
    is_loose_E = is_alike_E & is_few_M[from_E] & is_few_M[to_E]
    loose = csr_array((np.ones(is_loose_E.sum()), (from_E[is_loose_E], to_E[is_loose_E])), shape=graph.shape)
    part_M = np.where(is_few_M, len(count_C) + connected_components(loose, directed=False)[1], part_M)
    own_C = np.bincount(part_M[is_own_M], minlength=part_M.max() + 1) * (np.bincount(part_M) >= FEWEST)
    told = np.argsort(-own_C, kind="stable")[: int((own_C > SLIVER * own_C.max()).sum())]
    sides: list[list[np.ndarray]] = []
    for rows in (np.flatnonzero(part_M == part) for part in told):
        same = [side for side in sides
                if not any(_is_wall_between(rows, others, graph, at_M2, step_S2, span) for others in side)]
        if same:
            apart = [np.median(KDTree(at_M2[np.concatenate(side)]).query(at_M2[rows])[0]) for side in same]
            same[int(np.argmin(apart))].append(rows)
        else:
            sides.append([rows])
    found_M = np.full(len(at_M2), -1)
    for number, side in enumerate(sides):
        found_M[np.concatenate(side)] = number
    return found_M


def crossings(at_M2: np.ndarray, follows_M: np.ndarray) -> csr_array:
    """The graph (M, M) of the positions on paths: from one position to the next one, and to where a step ends that
    crosses the step from it."""
    end_S = np.flatnonzero(follows_M)
    begin_S2, step_S2 = at_M2[end_S - 1], at_M2[end_S] - at_M2[end_S - 1]
    longest = np.linalg.norm(step_S2, axis=1).max(initial=0)
    pair_C2 = KDTree(begin_S2 + step_S2 / 2).query_pairs(longest, output_type="ndarray")
    one_C2, other_C2 = step_S2[pair_C2].swapaxes(0, 1)
    away_C2 = begin_S2[pair_C2[:, 1]] - begin_S2[pair_C2[:, 0]]
    one_parts_C = _cross(one_C2, away_C2) * _cross(one_C2, away_C2 + other_C2) < 0
    other_parts_C = _cross(other_C2, away_C2) * _cross(other_C2, away_C2 - one_C2) < 0
    pair_C2 = pair_C2[one_parts_C & other_parts_C]
    from_E = np.concatenate([end_S, *end_S[pair_C2].T]) - 1
    to_E = np.concatenate([end_S, *end_S[pair_C2[:, ::-1]].T])
    return csr_array((np.ones(len(from_E), np.int8), (from_E, to_E)), shape=(len(at_M2), len(at_M2)))


def _cross(one_C2: np.ndarray, other_C2: np.ndarray) -> np.ndarray:
    return one_C2[:, 0] * other_C2[:, 1] - one_C2[:, 1] * other_C2[:, 0]


def _is_wall_between(rows: np.ndarray, others: np.ndarray, graph: csr_array, at_M2: np.ndarray, step_S2: np.ndarray,
                     span: int) -> bool:
    """Whether a wall divides two parts, from at least one of them to the other."""
    tree, radius = KDTree(at_M2), np.linalg.norm(at_M2, axis=1).max()
    for begin, end in ((rows, others), (others, rows)):
        if not _reached(graph, begin)[end].any():
            to_L2 = (at_M2[begin][:, None] + step_S2).reshape(-1, 2)
            to_L2 = to_L2[np.linalg.norm(to_L2, axis=1) <= radius]
            near_LK = tree.query(to_L2, NEAREST)[1]
            would = (np.isin(near_LK[:, 0], end) & ~np.isin(near_LK, begin).any(1)).sum()
            if would > WOULD * span * len(step_S2):  # positions of one path would lead there for so many steps
                return True
    return False


def _reached(graph: csr_array, begin: np.ndarray) -> np.ndarray:
    """(M,) whether a part leads to each position."""
    reached_M = np.zeros(graph.shape[0], bool)
    first = np.arange(len(reached_M))[begin][0]
    reached_M[breadth_first_order(graph, first, return_predecessors=False)] = True
    return reached_M
