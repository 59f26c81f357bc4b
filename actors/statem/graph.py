"""The transition graph of a state machine as data, text, DOT and SVG, drawn from the declaration without running it."""

from dataclasses import dataclass
from html import escape
from math import hypot

from mlld_sdk.actors.statem.rules import Declaration

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 120, 40, 220, 130, 70


@dataclass(frozen=True, slots=True)
class Edge:
    """In `source`, the event `label` may lead to `target`; `handler` decides."""

    source: str
    target: str
    label: str
    handler: str


@dataclass(frozen=True, slots=True)
class Graph:
    """The states of a machine and the ways between them.

    Attributes:
        name: Name of the machine.
        states: Every state, in the order written.
        initial: Where it may begin, the default first.
        edges: Every declared way, in the order written.
    """

    name: str
    states: tuple[str, ...]
    initial: tuple[str, ...]
    edges: tuple[Edge, ...]

    def reachable(self) -> frozenset[str]:
        """Find the states some run can be in."""
        return frozenset(self._distances())

    def text(self) -> str:
        """Write the graph as indented lines, one for each way; unreachable states are marked."""
        reachable = self.reachable()
        lines = [self.name]
        for state in self.states:
            mark = " (initial)" if state in self.initial else "" if state in reachable else " (unreachable)"
            lines.append(f"  {state}{mark}")
            ways = [edge for edge in self.edges if edge.source == state]
            width = max((len(edge.label) for edge in ways), default=0)
            lines += [f"    {edge.label:<{width}} -> {edge.target}  [{edge.handler}]" for edge in ways]
        return "\n".join(lines) + "\n"

    def dot(self) -> str:
        """Write the graph in the language of Graphviz."""
        quoted = {state: '"' + state.replace('"', '\\"') + '"' for state in self.states}
        lines = [f'digraph "{self.name}" {{', "  rankdir=LR;", "  node [shape=box, style=rounded];"]
        lines += [
            f"  {quoted[state]}" + (" [penwidth=2]" if state in self.initial else "") + ";" for state in self.states
        ]
        for (source, target), labels in self._bundles().items():
            text = "\\n".join(label.replace("\\", "\\\\").replace('"', '\\"') for label in labels)
            lines.append(f'  {quoted[source]} -> {quoted[target]} [label="{text}"];')
        return "\n".join([*lines, "}"]) + "\n"

    def svg(self) -> str:
        """Draw the graph as one self-contained SVG: a column for each distance from the initial states."""
        places = self._places()
        right = max((x for x, _ in places.values()), default=0) + WIDTH / 2 + MARGIN
        bottom = max((y for _, y in places.values()), default=0) + HEIGHT / 2 + MARGIN
        parts = [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right:.0f} {bottom:.0f}" '
                f'font-family="system-ui, sans-serif" font-size="12" role="img">'
            ),
            f"<title>{escape(self.name)}</title>",
            (
                '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
                'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#555"/></marker></defs>'
            ),
        ]
        for (source, target), labels in self._bundles().items():
            path, (x, y) = _loop(*places[source]) if source == target else _curve(places[source], places[target])
            parts.append(f'<path d="{path}" fill="none" stroke="#555" marker-end="url(#tip)"/>')
            parts += [
                f'<text x="{x:.0f}" y="{y + 13 * row - 6.5 * (len(labels) - 1):.0f}" text-anchor="middle" fill="#333">'
                f"{escape(label)}</text>"
                for row, label in enumerate(labels)
            ]
        for state, (x, y) in places.items():
            line = 3 if state in self.initial else 1
            parts.append(
                f'<rect x="{x - WIDTH / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="8" '
                f'fill="#fff" stroke="#222" stroke-width="{line}"/>'
                f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{escape(state)}</text>'
            )
        return "\n".join([*parts, "</svg>"]) + "\n"

    def _bundles(self) -> dict[tuple[str, str], list[str]]:
        """Gather the labels of all ways between the same two states: they are drawn as one."""
        found: dict[tuple[str, str], list[str]] = {}
        for edge in self.edges:
            labels = found.setdefault((edge.source, edge.target), [])
            if edge.label not in labels:
                labels.append(edge.label)
        return found

    def _distances(self) -> dict[str, int]:
        """Count, for each state some run can be in, the steps that lead there from where it may begin."""
        distances = dict.fromkeys(self.initial, 0)
        todo = list(self.initial)
        for here in todo:
            for edge in self.edges:
                if edge.source == here and edge.target not in distances:
                    distances[edge.target] = distances[here] + 1
                    todo.append(edge.target)
        return distances

    def _places(self) -> dict[str, tuple[float, float]]:
        distance = self._distances()
        far = max(distance.values(), default=0) + 1
        rows: dict[int, int] = {}
        places = {}
        for state in self.states:
            column = distance.get(state, far)
            row = rows[column] = rows.get(column, -1) + 1
            places[state] = (MARGIN + WIDTH / 2 + column * GAP_X, MARGIN + HEIGHT / 2 + row * GAP_Y)
        return places


def graph_from(declaration: Declaration) -> Graph:
    """Make the graph of a declaration; a rule for every state becomes a way out of each."""
    edges = tuple(
        Edge(state, target, rule.label, rule.method)
        for state in declaration.states
        for rule in declaration.rules[state]
        for target in rule.targets
    )
    return Graph(declaration.name, declaration.states, declaration.initial, edges)


def _loop(x: float, y: float) -> tuple[str, tuple[float, float]]:
    top = y - HEIGHT / 2
    path = f"M{x - 25:.0f} {top:.0f} C{x - 40:.0f} {top - 45:.0f} {x + 40:.0f} {top - 45:.0f} {x + 25:.0f} {top:.0f}"
    return path, (x, top - 40)


def _curve(start: tuple[float, float], end: tuple[float, float]) -> tuple[str, tuple[float, float]]:
    """Bend to the left of the direction of travel, so that a way there and a way back do not lie on each other."""
    (x1, y1), (x2, y2) = start, end
    length = hypot(x2 - x1, y2 - y1)
    normal_x, normal_y = (y2 - y1) / length, -(x2 - x1) / length
    bend = 40 + 0.08 * length
    middle_x, middle_y = (x1 + x2) / 2 + normal_x * bend, (y1 + y2) / 2 + normal_y * bend
    a, b = _edge_of_box(start, (middle_x, middle_y)), _edge_of_box(end, (middle_x, middle_y))
    path = f"M{a[0]:.0f} {a[1]:.0f} Q{middle_x:.0f} {middle_y:.0f} {b[0]:.0f} {b[1]:.0f}"
    return path, ((x1 + x2) / 2 + normal_x * bend * 0.6, (y1 + y2) / 2 + normal_y * bend * 0.6)


def _edge_of_box(center: tuple[float, float], towards: tuple[float, float]) -> tuple[float, float]:
    """Find where a line from the middle of a box leaves it."""
    dx, dy = towards[0] - center[0], towards[1] - center[1]
    scale = min(WIDTH / 2 / abs(dx) if dx else 1e9, HEIGHT / 2 / abs(dy) if dy else 1e9)
    return center[0] + dx * scale, center[1] + dy * scale
