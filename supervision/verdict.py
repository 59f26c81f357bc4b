"""One word about a tree: is everything as it should be, and if not, how bad is it?

Computed from a snapshot and nothing else, so that the command line, readiness checks and the page cannot disagree.
Numbered, because tests cite them; the first that holds for a place is its verdict, and the tree's verdict is the worst
of its places:

- V-1 `gave_up`: a supervisor gave up, or a child is down for good.
- V-8 `ended`: the tree has ended, and the place with it: nothing runs there, and nothing is restarted any more.
- V-2 `wedged`: a child has work and has finished nothing for the time its spec allows.
- V-3 `flapping`: a child failed three times within its window, or, when it has failed at least twice, its last
  failures were within its window and half of them or more came before the stable period was over; or 60 % or more of a
  restart limit are used up.
- V-4 `degraded`: a breaker in front of a child or of steps is not closed, a child is parked, a thread has gone on for
  `HAUNTED` seconds although what it worked for was killed, or runs for the place starve (V-9).
- V-5 `recovering`: a child waits for its restart or is starting again, or failed within its window.
- V-6 `maintenance`: a child was stopped on purpose, with a reason, or told to take no more work.
- V-7 `healthy`: none of these.

- V-9 Runs starve at a place when the oldest that waits has waited for as long as the place's limit (`oldest_waiting` of
  an agent), unless it was stopped on purpose or told to take no more work. A run waits while nobody works on it; not
  while it sleeps, waits for the time of a retry, is worked on or is parked. Several processes that share a journal
  share what waits in it: each that has the place says so, whoever could have taken the run. The wait goes on being
  counted between two looks at the journal, and while that takes no writes. If it cannot be read, what waits is not
  known, and nobody is said to starve: that the journal fails is said then.
"""

from collections import Counter
from collections.abc import Mapping
from statistics import median
from typing import Literal, get_args

import msgspec

from mlld_sdk.supervision.snapshot import NodeView, duration, walk

Word = Literal["gave_up", "ended", "wedged", "flapping", "degraded", "recovering", "maintenance", "healthy"]
"""Verdicts, worst first."""

WORST_FIRST: tuple[Word, ...] = get_args(Word)

NEARLY_SPENT = 0.6

HAUNTED = 5.0
"""Seconds a thread may take to notice that what it worked for was killed."""


class Concern(msgspec.Struct, frozen=True):
    """One place that is not healthy, and why."""

    path: str
    word: Word
    why: str


class Verdict(msgspec.Struct, frozen=True):
    """What is to be said about a tree.

    Attributes:
        word: The worst of its places.
        counts: How many places there are of each verdict that occurs.
        concerns: The places that are not healthy, worst first. At most `MOST_CONCERNS`.
    """

    word: Word
    counts: dict[str, int]
    concerns: tuple[Concern, ...]

    def joined_by(self, concern: Concern) -> "Verdict":
        """Count in something that is no place of the tree."""
        return _summed_up(Counter(self.counts) + Counter([concern.word]), [*self.concerns, concern])

    def explained(self, whys: Mapping[str, str]) -> "Verdict":
        """Replace what is said about some places."""
        concerns = [msgspec.structs.replace(one, why=whys.get(one.path, one.why)) for one in self.concerns]
        return msgspec.structs.replace(self, concerns=tuple(concerns))

    def __str__(self) -> str:
        said = [f"{self.counts[word]} {word.replace('_', ' ')}" for word in WORST_FIRST if word in self.counts]
        return f"{self.word.replace('_', ' ').upper()}   {' · '.join(said)}"


MOST_CONCERNS = 100


def verdict(root: NodeView) -> Verdict:
    """Judge a whole tree."""
    counts: Counter[str] = Counter()
    concerns: list[Concern] = []
    for node in walk(root):
        word, why = judge(node)
        counts[word] += 1
        if word != "healthy":
            concerns.append(Concern(node.path, word, why))
    return _summed_up(counts, concerns)


def _summed_up(counts: Counter[str], concerns: list[Concern]) -> Verdict:
    concerns.sort(key=lambda one: WORST_FIRST.index(one.word))
    worst = concerns[0].word if concerns else "healthy"
    return Verdict(worst, dict(counts), tuple(concerns[:MOST_CONCERNS]))


def judge(node: NodeView) -> tuple[Word, str]:
    """Judge one place, without what is below it."""
    if node.gave_up or node.state == "failed":
        return "gave_up", node.gave_up or f"down for good: {node.last}"
    if node.over:
        return "ended", "ended with its tree"
    if node.info is not None and node.wedge_after is not None and node.info.idle >= node.wedge_after:
        return "wedged", f"no progress for {node.info.idle:.0f} s with {node.info.queued} waiting"
    recent = [(ago, lived) for ago, lived in node.failures if ago <= max(node.window, node.stable)]
    if why := _flaps(node, recent):
        return "flapping", why
    if why := _works_badly(node):
        return "degraded", why
    if node.state == "waiting" or (node.state == "starting" and node.incarnation > 1):
        return "recovering", f"being restarted, last: {node.last}"
    if recent:
        return "recovering", f"failed {recent[-1][0]:.0f} s ago: {node.last}"
    if node.held and node.state == "stopped":
        return "maintenance", node.held
    if node.info is not None and node.info.off_duty:
        return "maintenance", f"{node.info.off_duty}: it takes no more work until it is resumed"
    return "healthy", ""


def _refuses(node: NodeView) -> str:
    """Say which breaker of a place is not closed, or return an empty text."""
    if node.breaker is not None and node.breaker.status != "closed":
        return f"breaker {node.breaker.status.replace('_', '-')}: {node.breaker.cause}"
    for other in node.step_breakers:
        if other.status != "closed":
            return f"breaker {other.name} {other.status.replace('_', '-')}: {other.cause}"
    return ""


def _works_badly(node: NodeView) -> str:
    """Return what keeps a place from doing all its work, or an empty text."""
    if node.state == "parked":
        return f"parked by its breaker, last: {node.last}"
    if why := _refuses(node):
        return why
    if node.haunted >= HAUNTED:
        running = f"{node.zombies} killed and still running, for {node.haunted:.0f} s"
        return f"{running}: it ends by itself or with the process"
    on_purpose = node.held or (node.info is not None and node.info.off_duty)
    if node.backlog is not None and node.backlog.starves and not on_purpose:
        many, long = node.backlog.waiting, duration(node.backlog.oldest)
        return f"{many} runs wait, the oldest for {long}" if many > 1 else f"a run has waited for {long}"
    return ""


def _flaps(node: NodeView, recent: list[tuple[float, float]]) -> str:
    """Return in what way a place fails again and again, or an empty text."""
    if len(recent) >= 3:
        return f"failed {len(recent)} times in {recent[0][0]:.0f} s, last: {node.last}"
    if len(recent) >= 2 and median(lived for _, lived in recent) < node.stable:
        return f"lives {median(lived for _, lived in recent):.1f} s after a restart, last: {node.last}"
    budget = node.budget
    if budget is not None and min(budget.limit, budget.used) > 1 and budget.used >= NEARLY_SPENT * budget.limit:
        return f"{budget.used} of {budget.limit} restarts in {budget.within:g} s used"
    return ""
