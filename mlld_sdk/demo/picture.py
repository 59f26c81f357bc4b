"""The picture a demo ends with: progress, what each part was doing, and where it was killed. Plain SVG."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

WIDTH = 960
LEFT, RIGHT = 120, 24
CURVE_TOP, CURVE_HEIGHT = 64, 170
LANES_TOP = CURVE_TOP + CURVE_HEIGHT + 40
LANE_HEIGHT, LANE_GAP = 22, 12

COLOURS = {
    "running": "#2e9e6b",
    "starting": "#e0b13c",
    "restarting": "#e0b13c",
    "backoff": "#e08a3c",
    "down": "#c9463d",
    "closed": "#2e9e6b",
    "half_open": "#e0b13c",
    "open": "#c9463d",
}
"""A lane's colour by state. Every bar also carries its state's name as a tooltip, so colour is never the only sign."""

STYLE = """
  svg { font: 12px system-ui, sans-serif; fill: #24292f; background: #ffffff }
  .axis { stroke: #8a8f98; stroke-width: 1 } .grid { stroke: #8a8f98; stroke-opacity: .25 }
  .curve { fill: none; stroke: #2f6fd6; stroke-width: 2.5 } .kill { stroke: #c9463d; stroke-dasharray: 4 3 }
  .killed { fill: #c9463d; font-weight: 600 } .title { font-size: 16px; font-weight: 600 } .note { fill: #6b717b }
  @media (prefers-color-scheme: dark) { svg { fill: #d5dae1; background: #14171b } .note { fill: #9aa1ab } }
"""


@dataclass(slots=True)
class Story:
    """What happened, in seconds since the beginning.

    Attributes:
        title: Said above the picture.
        goal: How many steps there are in all.
        unit: What is counted.
        progress: Moments at which one more step was finished.
        kills: Moments of violence and what was killed.
        lanes: For each part, the moments at which it came into a state, and which.
        end: When it was over.
    """

    title: str
    goal: int
    unit: str = "steps"
    progress: list[float] = field(default_factory=list)
    kills: list[tuple[float, str]] = field(default_factory=list)
    lanes: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    end: float = 1.0

    def turn(self, lane: str, state: str, now: float) -> None:
        """Note that a part is in a state from now on."""
        turns = self.lanes.setdefault(lane, [])
        if not turns or turns[-1][1] != state:
            turns.append((now, state))


def draw(story: Story) -> str:
    """Draw a story as one self-contained SVG document."""
    height = LANES_TOP + len(story.lanes) * (LANE_HEIGHT + LANE_GAP) + 36
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(story.title)}">\n<style>{STYLE}</style>\n'
        + "\n".join([*_curve(story), *_lanes(story), *_kills(story, height)])
        + "\n</svg>\n"
    )


def _x(story: Story, at: float) -> float:
    return round(LEFT + at / story.end * (WIDTH - LEFT - RIGHT), 1)


def _y(story: Story, steps: float) -> float:
    return round(CURVE_TOP + CURVE_HEIGHT * (1 - steps / max(1, story.goal)), 1)


def _curve(story: Story) -> Iterator[str]:
    goal, unit, bottom = story.goal, story.unit, _y(story, 0)
    yield f'<text class="title" x="{LEFT}" y="24">{escape(story.title)}</text>'
    yield f'<text class="note" x="{LEFT - 10}" y="{_y(story, goal) + 4}" text-anchor="end">{goal} {unit}</text>'
    for quarter in range(5):
        level = _y(story, goal * quarter / 4)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level}" y2="{level}"/>'
    for tick in range(6):
        at = story.end * tick / 5
        yield f'<text class="note" x="{_x(story, at)}" y="{bottom + 18}" text-anchor="middle">{at:.1f} s</text>'
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    steps = [f"H{_x(story, at)} V{_y(story, done)}" for done, at in enumerate(sorted(story.progress), start=1)]
    path = " ".join([f"M{_x(story, 0)} {bottom}", *steps, f"H{_x(story, story.end)}"])
    yield f'<path class="curve" d="{path}"><title>{len(steps)} {unit}</title></path>'


def _lanes(story: Story) -> Iterator[str]:
    for row, (name, turns) in enumerate(story.lanes.items()):
        top = LANES_TOP + row * (LANE_HEIGHT + LANE_GAP)
        yield f'<text x="{LEFT - 10}" y="{top + 15}" text-anchor="end">{escape(name)}</text>'
        for (start, state), (end, _) in pairwise([*turns, (story.end, "")]):
            left = _x(story, start)
            width = max(1.0, round(_x(story, end) - left, 1))
            tip = f"{name}: {state} from {start:.2f} s for {end - start:.2f} s"
            yield (
                f'<rect x="{left}" y="{top}" width="{width}" height="{LANE_HEIGHT}" rx="3" fill="{COLOURS[state]}">'
                f"<title>{escape(tip)}</title></rect>"
            )


def _kills(story: Story, height: float) -> Iterator[str]:
    for number, (at, what) in enumerate(story.kills):
        x, level = _x(story, at), 40 + 13 * (number % 2)
        label = f"\N{MULTIPLICATION X} {escape(what)}"
        yield f'<line class="kill" x1="{x}" x2="{x}" y1="{level + 4}" y2="{height - 28}"/>'
        yield f'<text class="killed" x="{x}" y="{level}" text-anchor="middle">{label}</text>'
