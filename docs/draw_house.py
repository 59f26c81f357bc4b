"""Draw the rooms and their arrows from the imports, and write the table of rooms into `design.md`.

python docs/draw_house.py            # write both
python docs/draw_house.py --check    # fail when one of them is stale

The rows are the layers that `pyproject.toml` declares. An arrow says that one room imports another; arrows that follow
from others are left out, and one that ran upwards would be red.
"""

import importlib
import inspect
import itertools
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp

DOCS = Path(__file__).parent
PICTURE, PAGE = DOCS / "house.svg", DOCS / "design.md"
BEGIN, END = "<!-- rooms -->", "<!-- /rooms -->"

WIDTH, ROW, BOX, HIGH = 860, 84, 120, 36
STYLE = """\
<style>
  rect { fill: #f4f1ea; stroke: #5b5346 }
  text { font: 15px sans-serif; fill: #2c2822; text-anchor: middle }
  path { fill: none; stroke: #8a8172; stroke-width: 1.3; marker-end: url(#head) }
  path.up { stroke: #c22 }
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0 L8 4 L0 8 z" style="fill: #8a8172; stroke: none; marker-end: none"/></marker></defs>"""

Rooms = dict[str, set[str]]


def layers() -> list[list[str]]:
    """Read the layers from the top down."""
    settings = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [found for found in settings["tool"]["importlinter"]["contracts"] if found["type"] == "layers"]
    return [[room.strip() for room in layer.split("|")] for layer in contract["layers"]]


def arrows(rooms: set[str]) -> Rooms:
    """Find which rooms each room imports."""
    graph = grimp.build_graph("mlld_sdk", cache_dir=None)
    found: Rooms = {room: set() for room in rooms}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            here, there = room_of(module), room_of(imported)
            if here in rooms and there in rooms and here != there:
                found[here].add(there)
    return found


def room_of(module: str) -> str:
    """Return the room a module lies in."""
    return module.split(".")[1] if "." in module else ""


def needed(found: Rooms) -> Iterator[tuple[str, str]]:
    """Leave out the arrows that a way over other rooms stands for."""

    def reached(room: str, seen: frozenset[str]) -> set[str]:
        onwards = found[room] - seen
        return onwards.union(*(reached(other, seen | {room}) for other in onwards))

    for room, others in sorted(found.items()):
        far = set().union(*(reached(other, frozenset({room})) for other in others))
        yield from ((room, other) for other in sorted(others - far))


def way(places: dict[str, tuple[int, int]], room: str, other: str) -> str:
    """Draw a line from below one room to above another, around the rooms between them."""
    (x, y), (end_x, end_y) = places[room], places[other]
    points = [(x, y + HIGH)]
    for row in range(y + ROW, end_y, ROW):
        through = x + (end_x - x) * (row - y) // (end_y - y)
        for side in [at for at, line in places.values() if line == row and abs(at - through) < BOX // 2 + 15]:
            through = side + (BOX // 2 + 15) * (1 if through >= side else -1)
        points += [(through, row), (through, row + HIGH)]
    points.append((end_x, end_y - 2))
    drawn = f"M{x} {y + HIGH}"
    for (from_x, from_y), (to_x, to_y) in itertools.pairwise(points):
        bend = (to_y - from_y) // 2 if from_x != to_x else 0
        drawn += f" C{from_x} {from_y + bend} {to_x} {to_y - bend} {to_x} {to_y}"
    return drawn


def picture(rows: list[list[str]], found: Rooms) -> str:
    """Draw the rooms as SVG."""
    drawn = list(needed(found))
    places: dict[str, tuple[int, int]] = {}
    for line, row in enumerate(rows):
        for column, room in enumerate(row):
            x = WIDTH * (2 * column + 1) // (2 * len(row))
            above = [places[user][0] for user, used in drawn if used == room and user in places]
            if len(row) == 1 and above:  # a room with its row to itself stands below those that use it
                x = sum(above) // len(above)
            places[room] = (x, 10 + ROW * line)
    height = ROW * (len(rows) - 1) + HIGH + 20
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">']
    parts += ["<title>Rooms and what they import, drawn by docs/draw_house.py</title>", STYLE]
    for room, other in drawn:
        up = ' class="up"' if places[other][1] <= places[room][1] else ""
        parts.append(f'<path{up} d="{way(places, room, other)}"/>')
    for room, (x, y) in places.items():
        parts.append(f'<rect x="{x - BOX // 2}" y="{y}" width="{BOX}" height="{HIGH}" rx="6"/>')
        parts.append(f'<text x="{x}" y="{y + HIGH // 2 + 5}">{room}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def table(rows: list[list[str]], found: Rooms) -> str:
    """Write the rooms as a table: what lives there, and which rooms use it."""
    lines = ["| room | what lives there | which rooms use it |", "|---|---|---|"]
    for room in (room for row in rows for room in row):
        doc = inspect.getdoc(importlib.import_module(f"mlld_sdk.{room}")) or ""
        users = sorted(other for other, used in found.items() if room in used)
        what = " ".join(doc.partition("\n\n")[0].split())
        lines.append(f"| `{room}` | {what} | {', '.join(users) or 'programs'} |")
    return "\n".join(lines)


def main() -> None:
    """Write or check."""
    rows = layers()
    found = arrows({room for row in rows for room in row})
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    page = f"{before}{BEGIN}\n\n{table(rows, found)}\n\n{END}{rest.partition(END)[2]}"
    for path, text in ((PICTURE, picture(rows, found)), (PAGE, page)):
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"docs/{path.name} is stale: run python docs/draw_house.py")


if __name__ == "__main__":
    main()
