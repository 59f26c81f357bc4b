"""The picture a demo ends with: progress, what each part was doing, and where it was killed. Plain SVG."""

from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape

WIDTH = 960
LEFT, RIGHT = 120, 24
CURVE_TOP, CURVE_HEIGHT = 64, 170
LANE_HEIGHT, LANE_GAP = 22, 12

COLOURS = {
    "running": "#2e9e6b",
    "starting": "#e0b13c",
    "restarting": "#e0b13c",
    "backoff": "#e08a3c",
    "down": "#c9463d",
    "stopped": "#8a8f98",
    "closed": "#2e9e6b",
    "half_open": "#e0b13c",
    "open": "#c9463d",
}
"""A lane's colour by state. Every bar also carries its state's name as a tooltip, so colour is never the only sign."""

Scale = Callable[[float], float]

STYLE = """
  svg { font: 12px system-ui, sans-serif; fill: #24292f; background: #ffffff }
  .axis { stroke: #8a8f98; stroke-width: 1 } .grid { stroke: #8a8f98; stroke-opacity: .25 }
  .curve { fill: none; stroke: #2f6fd6; stroke-width: 2.5 } .kill { stroke: #c9463d; stroke-dasharray: 4 3 }
  .killed { fill: #c9463d; font-weight: 600 } .title { font-size: 16px; font-weight: 600 } .note { fill: #6b717b }
  @media (prefers-color-scheme: dark) { svg { fill: #d5dae1; background: #14171b } .note { fill: #9aa1ab } }
"""


@dataclass(frozen=True, slots=True)
class LaneSpan:
    """One part in one state for a while."""

    start: float
    end: float
    state: str


@dataclass(slots=True)
class Story:
    """What happened, in seconds since the beginning.

    Attributes:
        title: Said above the picture.
        goal: How many steps there are in all.
        unit: What is counted.
        progress: Moments at which one more step was finished.
        kills: Moments of violence and what was killed.
        lanes: For each part, the states it went through.
    """

    title: str
    goal: int
    unit: str = "steps"
    progress: list[float] = field(default_factory=list)
    kills: list[tuple[float, str]] = field(default_factory=list)
    lanes: dict[str, list[LaneSpan]] = field(default_factory=dict)

    def turn(self, lane: str, state: str, now: float) -> None:
        """Note that a part is in a state from now on; the one it was in ends."""
        spans = self.lanes.setdefault(lane, [])
        if spans:
            spans[-1] = LaneSpan(spans[-1].start, now, spans[-1].state)
        if not spans or spans[-1].state != state:
            spans.append(LaneSpan(now, now, state))

    def end(self, now: float) -> None:
        """Note that every part is still in its last state."""
        for lane, spans in self.lanes.items():
            self.turn(lane, spans[-1].state, now)


def draw(story: Story) -> str:
    """Draw a story as one self-contained SVG document."""
    end = _end_of(story)
    lanes_top = CURVE_TOP + CURVE_HEIGHT + 40
    height = lanes_top + len(story.lanes) * (LANE_HEIGHT + LANE_GAP) + 36

    def x(at: float) -> float:
        return round(LEFT + at / end * (WIDTH - LEFT - RIGHT), 1)

    def y(steps: float) -> float:
        return round(CURVE_TOP + CURVE_HEIGHT * (1 - steps / max(1, story.goal)), 1)

    body = [
        f'<text class="title" x="{LEFT}" y="24">{escape(story.title)}</text>',
        *_axes(story, end, x, y),
        *_curve(story, end, x, y),
        *_lanes(story, lanes_top, x),
        *_kills(story, height, x),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(story.title)}">\n<style>{STYLE}</style>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _end_of(story: Story) -> float:
    moments = [*story.progress, *(at for at, _ in story.kills)]
    moments += [span.end for spans in story.lanes.values() for span in spans]
    return max(moments, default=0.0) or 1.0


def _axes(story: Story, end: float, x: Scale, y: Scale) -> list[str]:
    bottom = y(0)
    lines = [
        f'<text class="note" x="{LEFT - 10}" y="{y(story.goal) + 4}" text-anchor="end">{story.goal} {story.unit}</text>'
    ]
    for quarter in range(5):
        level = y(story.goal * quarter / 4)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level}" y2="{level}"/>')
    for tick in range(6):
        at = end * tick / 5
        lines.append(f'<text class="note" x="{x(at)}" y="{bottom + 18}" text-anchor="middle">{at:.1f} s</text>')
    lines.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    return lines


def _curve(story: Story, end: float, x: Scale, y: Scale) -> list[str]:
    path = [f"M{x(0)} {y(0)}"]
    for done, at in enumerate(sorted(story.progress), start=1):
        path.append(f"H{x(at)} V{y(done)}")
    path.append(f"H{x(end)}")
    return [f'<path class="curve" d="{" ".join(path)}"><title>{len(story.progress)} {story.unit}</title></path>']


def _lanes(story: Story, top: float, x: Scale) -> list[str]:
    drawn = []
    for row, (name, spans) in enumerate(story.lanes.items()):
        at = top + row * (LANE_HEIGHT + LANE_GAP)
        drawn.append(f'<text x="{LEFT - 10}" y="{at + 15}" text-anchor="end">{escape(name)}</text>')
        for span in spans:
            width = max(1.0, round(x(span.end) - x(span.start), 1))
            colour = COLOURS.get(span.state, "#8a8f98")
            tip = f"{name}: {span.state} from {span.start:.2f} s for {span.end - span.start:.2f} s"
            drawn.append(
                f'<rect x="{x(span.start)}" y="{at}" width="{width}" height="{LANE_HEIGHT}" rx="3" fill="{colour}">'
                f"<title>{escape(tip)}</title></rect>"
            )
    return drawn


def _kills(story: Story, height: float, x: Scale) -> list[str]:
    drawn = []
    for number, (at, what) in enumerate(story.kills):
        level = 40 + 13 * (number % 2)
        drawn.append(f'<line class="kill" x1="{x(at)}" x2="{x(at)}" y1="{level + 4}" y2="{height - 28}"/>')
        label = f"\N{MULTIPLICATION X} {escape(what)}"
        drawn.append(f'<text class="killed" x="{x(at)}" y="{level}" text-anchor="middle">{label}</text>')
    return drawn
