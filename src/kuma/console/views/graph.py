"""Draws one service with those that call it and those that it calls. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kuma.console.views.calls import Relation, State

WIDTH, ROW, NODE = 960, 30, 260
_MOST = 25
"""Neighbours that are drawn on each side; the tables beside have all."""


class Node(NamedTuple):
    """A service, or how many more there are, at a place of the drawing."""

    name: str
    x: int
    y: int


class Edge(NamedTuple):
    """A line between two of them."""

    path: str
    state: State


class Graph(NamedTuple):
    """The drawing."""

    nodes: Sequence[Node]
    edges: Sequence[Edge]
    centre: Node
    height: int


def graph(service: str, incoming: Sequence[Relation], outgoing: Sequence[Relation]) -> Graph:
    """Places a service in the middle, its callers to the left, and whom it calls to the right."""
    left, right = [one.caller for one in incoming[:_MOST]], [one.called for one in outgoing[:_MOST]]
    height = ROW * max(len(left) + (len(incoming) > _MOST), len(right) + (len(outgoing) > _MOST), 1)
    centre = Node(service, (WIDTH - NODE) // 2, height // 2 - 12)
    nodes, edges = [], []
    for side, names, relations in (("left", left, incoming), ("right", right, outgoing)):
        x = 0 if side == "left" else WIDTH - NODE
        for index, name in enumerate(names):
            node = Node(name, x, index * ROW + 3)
            nodes.append(node)
            ends = (x + NODE, centre.x) if side == "left" else (centre.x + NODE, x)
            start, end = (node.y, centre.y) if side == "left" else (centre.y, node.y)
            edges.append(Edge(_curve(ends[0], start + 12, ends[1], end + 12), relations[index].state))
        if len(relations) > _MOST:
            nodes.append(Node(f"and {len(relations) - _MOST} more", x, _MOST * ROW + 3))
    return Graph(tuple(nodes), tuple(edges), centre, height)


def _curve(x1: int, y1: int, x2: int, y2: int) -> str:
    middle = (x1 + x2) // 2
    return f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"
