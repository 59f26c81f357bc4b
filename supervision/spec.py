"""What to run, as values: child specs, supervisor specs, and the functions that build them.

A tree is data. `child(...)` declares one child, `one_for_one(...)`, `one_for_all(...)` and `rest_for_one(...)` declare
a supervisor over children, `dynamic(...)` one whose children come and go. Everything is checked when it is declared:
a wrong option never gets as far as a running system.

```python
tree = one_for_one(
    child(Reviewer, command="mlld"),
    rest_for_one(child(Reader), child(Writer), name="ingest"),
    dynamic(name="sessions", max_children=200),
    max_restarts=3,
    within=5.0,
)
```
"""

import copy
import difflib
import functools
import inspect
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any, ClassVar, Literal, TypeAlias, TypedDict, Unpack

import msgspec
from msgspec.structs import force_setattr

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.names import Name
from mlld_sdk.base.durations import Duration, seconds
from mlld_sdk.base.errors import InvalidOption, UnknownOption
from mlld_sdk.base.options import check_class, checked, path_part, unknown, whole
from mlld_sdk.supervision.backoff import Backoff
from mlld_sdk.supervision.breaker import BreakerPolicy
from mlld_sdk.supervision.errors import DuplicateChild
from mlld_sdk.supervision.intensity import RestartLimit

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
AutoShutdown: TypeAlias = Literal["never", "any_significant", "all_significant"]
GiveUpAs: TypeAlias = Literal["failure", "shutdown"]
Then: TypeAlias = Literal["stop", "escalate"]
Shutdown: TypeAlias = float | Literal["kill"]
"""How a child is stopped: asked, and killed after so many seconds (`math.inf`: never), or killed at once."""

WORKER_SHUTDOWN = 5.0
START_TIMEOUT = 30.0


class Budget(msgspec.Struct, frozen=True):
    """A child's own restart limit. It replaces the supervisor's: this child's restarts charge no other limit.

    Attributes:
        limit: How many restarts are too many.
        then: `stop` leaves the child down and its siblings alone; `escalate` makes the supervisor give up.
    """

    limit: RestartLimit
    then: Then = "stop"


def budget(max_restarts: int, within: Duration, *, then: Then = "stop") -> Budget:
    """Declare a restart limit of a child's own.

    Raises:
        InvalidOption: A value is out of range.
    """
    checked(Budget, {"then": then})
    return Budget(RestartLimit.of(max_restarts, within), then)


class Wedge(msgspec.Struct, frozen=True):
    """What counts as stuck, and what is tried against it.

    Attributes:
        after: Duration with work waiting and nothing finished. Then the child is killed and started afresh.
        times: How many times in a row on one rung before the next one is tried.
        ladder: Rungs, each a set of start options that replace the child's own: a stronger model, another script.
        then: What follows the last rung: `stop` leaves the child down, `escalate` makes the supervisor give up.
    """

    after: float
    times: int = 3
    ladder: tuple[Mapping[str, Any], ...] = ()
    then: Then = "escalate"


def wedge(
    after: Duration, *, times: int = 3, ladder: Iterable[Mapping[str, Any]] = (), then: Then = "escalate"
) -> Wedge:
    """Declare when a child counts as stuck, and what to try.

    Raises:
        InvalidOption: A value is out of range.
    """
    if not isinstance(ladder, Iterable):
        raise InvalidOption("ladder", ladder, "mappings of start options")
    rungs = tuple(ladder)
    for rung in rungs:
        if not isinstance(rung, Mapping):
            raise InvalidOption("ladder", rung, "mappings of start options")
    checked(Wedge, {"then": then})
    return Wedge(seconds(after, "after", above=0, infinite=False), whole("times", times, least=1), rungs, then)


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a supervisor needs to start, restart and stop one child, as described at `child`, which builds it.

    While `restart` is `None` it is left to the supervisor: permanent under a static one, temporary under a dynamic one.
    """

    name: str
    start: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    restart: Restart | None = None
    shutdown: Shutdown = WORKER_SHUTDOWN
    kind: Literal["worker", "supervisor"] = "worker"
    significant: bool = False
    register: Name | None = None
    start_timeout: float = START_TIMEOUT
    backoff: Backoff | None = None
    budget: Budget | None = None
    breaker: BreakerPolicy | None = None
    wedge: Wedge | None = None
    groups: tuple[str, ...] = ()
    named: bool = False
    """Whether the name was given, and not made from the class: then it alone is the child's part of the path."""

    def __post_init__(self) -> None:
        """Check the spec, whoever made it.

        Raises:
            InvalidOption: It could not be a child.
        """
        start, ladder = self.start, self.wedge.ladder if isinstance(self.wedge, Wedge) else ()
        path_part("name", self.name)
        by_spec = isinstance(start, SupervisorSpec | DynamicSpec)
        if not by_spec and not (isinstance(start, type) and issubclass(start, Actor)):
            raise InvalidOption("start", start, "an actor class, a child spec or a supervisor spec")
        for rung in ({}, *ladder):
            check_arguments(start, self.args, {**self.kwargs, **rung})
        values = {option: value for option in _TYPED if (value := getattr(self, option)) is not _DEFAULTS[option]}
        values["shutdown"] = self.shutdown if isinstance(self.shutdown, str) else seconds(self.shutdown, "shutdown")
        values["start_timeout"] = seconds(self.start_timeout, "start_timeout", above=0)
        values["groups"] = _group_names(self.groups, self.kind == "supervisor")
        checked(ChildSpec, values)
        if isinstance(self.register, str):
            path_part("register", self.register)
        if self.significant and self.restart in (None, "permanent"):
            raise InvalidOption("significant", True, "False unless restart is 'transient' or 'temporary'")
        for option in ("shutdown", "start_timeout", "groups"):
            force_setattr(self, option, values[option])

    def with_restart(self, restart: Restart) -> "ChildSpec":
        """Return this spec with what it left open about restarts; what is right stays unchecked, for speed."""
        spec = copy.copy(self)
        force_setattr(spec, "restart", restart)
        return spec

    def without_arguments(self) -> "ChildSpec":
        """Return this spec without what its class is called with."""
        spec = copy.copy(self)
        force_setattr(spec, "args", ())
        force_setattr(spec, "kwargs", {})
        return spec


UNNAMED = ("supervisor", "dynamic")
"""What supervisors are called that were given no name."""


class SupervisorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A supervisor over a fixed list of children, as described at `SupervisorOptions`; built by `one_for_one(...)`."""

    name: str = "supervisor"
    strategy: Strategy = "one_for_one"
    children: tuple[ChildSpec, ...] = ()
    limit: RestartLimit = RestartLimit()
    auto_shutdown: AutoShutdown = "never"
    give_up_as: GiveUpAs = "failure"

    def __post_init__(self) -> None:
        """Check the spec, whoever made it, and fill in what its children leave open.

        Raises:
            InvalidOption: An option has a wrong value, or one of the children is none.
            DuplicateChild: Two children have one name.
        """
        _check_fields(self, "strategy", "limit", "auto_shutdown", "give_up_as")
        force_setattr(self, "children", check_children(self.children, self.auto_shutdown))


class DynamicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A supervisor whose children come and go, as described at `dynamic`, which builds it."""

    strategy: ClassVar[Literal["dynamic"]] = "dynamic"

    name: str = "dynamic"
    max_children: int | None = None
    limit: RestartLimit = RestartLimit()
    extra_args: Sequence[Any] = ()
    extra_kwargs: Mapping[str, Any] = {}
    give_up_as: GiveUpAs = "failure"

    def __post_init__(self) -> None:
        """Check the spec, whoever made it.

        Raises:
            InvalidOption: An option has a wrong value.
        """
        _check_fields(self, "limit", "give_up_as")
        if self.max_children is not None:
            whole("max_children", self.max_children)
        if not isinstance(self.extra_args, list | tuple):
            raise InvalidOption("extra_args", self.extra_args, "a list or tuple of arguments")
        if not isinstance(self.extra_kwargs, Mapping):
            raise InvalidOption("extra_kwargs", self.extra_kwargs, "a mapping of keyword arguments")
        force_setattr(self, "extra_args", tuple(self.extra_args))
        force_setattr(self, "extra_kwargs", dict(self.extra_kwargs))


def _check_fields(spec: SupervisorSpec | DynamicSpec, *options: str) -> None:
    path_part("name", spec.name)
    checked(type(spec), {option: getattr(spec, option) for option in options})


OPTIONS = frozenset(ChildSpec.__struct_fields__) - {"name", "named", "start", "args", "kwargs"}
_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(ChildSpec)}
_TYPED = OPTIONS - {"shutdown", "start_timeout", "groups"}


def child(
    start: object,
    *args: Any,
    name: str | None = None,
    restart: Restart | None = None,
    shutdown: Duration | Literal["kill"] | None = None,
    kind: Literal["worker", "supervisor"] | None = None,
    significant: bool | None = None,
    register: Name | None = None,
    start_timeout: Duration | None = None,
    backoff: Backoff | None = None,
    budget: Budget | None = None,
    breaker: BreakerPolicy | None = None,
    wedge: Wedge | None = None,
    groups: Sequence[str] | None = None,
    **kwargs: Any,
) -> ChildSpec:
    """Declare one child.

    What is not named here goes to the class, and is checked at once: against its signature, and by its class method
    `check_child_arguments(kwargs)` if it has one, as agents and pools do. A class may carry defaults for the options
    below in a mapping named `child_options`; what is given here wins.

    Args:
        start: Actor class, a spec made by this function (the options given here replace its own), or a supervisor
            spec. A class that is no actor may name the one to start in its place in `child_actor`, as
            `module:class`; `Client` does.
        *args: Arguments of the class.
        name: Unique among the siblings, and what runs of an agent are filed under. By default made from the name of the
            class; under a dynamic supervisor a number is added then, which is another one at the next time.
        restart: When it is started again. `permanent`: always; `transient`: after a failure; `temporary`: never.
        shutdown: Duration between being asked to stop and being killed, `math.inf`, or `"kill"`. By default 5 seconds,
            and for supervisors as long as their children need.
        kind: Worker or supervisor.
        significant: Whether its own end can end the supervisor.
        register: Name under which the whole actor system finds it, whichever incarnation it is.
        start_timeout: Duration its start may take; by default 30, and for supervisors as long as their children need.
        backoff: Delays between start attempts; by default it is started again at once.
        budget: A restart limit of its own; by default it shares the supervisor's.
        breaker: A circuit breaker in front of it.
        wedge: When it counts as stuck, and what to try.
        groups: Groups that each of its incarnations joins before it counts as up, in the scope `Groups.shared(system)`.
        **kwargs: Keyword arguments of the class.

    Raises:
        InvalidOption: An option has a wrong value, or the class takes no such argument.
    """
    given = {
        "restart": restart,
        "shutdown": shutdown,
        "kind": kind,
        "significant": significant,
        "register": register,
        "start_timeout": start_timeout,
        "backoff": backoff,
        "budget": budget,
        "breaker": breaker,
        "wedge": wedge,
        "groups": groups,
    }
    defaults: Mapping[str, Any]
    named = name is not None
    if isinstance(start, ChildSpec):
        named |= start.named
        defaults = {option: getattr(start, option) for option in OPTIONS}
        own_name, args, kwargs, start = start.name, args or start.args, {**start.kwargs, **kwargs}, start.start
    elif isinstance(start, SupervisorSpec | DynamicSpec):
        if args or kwargs:
            raise InvalidOption("kwargs", kwargs or args, "left out: a supervisor spec holds its own")
        named |= start.name not in UNNAMED
        own_name, defaults = start.name, {"kind": "supervisor"}
    elif inspect.isclass(start):
        own_name, start = snake_case(start.__name__), _actor_of(start)
        defaults = getattr(start, "child_options", {})
        if unknown := set(defaults) - OPTIONS:
            raise InvalidOption("child_options", sorted(unknown), f"a mapping of {', '.join(sorted(OPTIONS))}")
    else:
        own_name, defaults = str(name), {}  # refused by the spec
    options = {**defaults, **{option: value for option, value in given.items() if value is not None}}
    patient = options.get("kind") == "supervisor"
    patience = {"shutdown": inf, "start_timeout": inf} if patient else {}
    own_name = own_name if name is None else name
    return ChildSpec(name=own_name, named=named, start=start, args=args, kwargs=kwargs, **{**patience, **options})


def _actor_of(start: type) -> type[Actor]:
    """Return the actor class that is started for a class: itself, or what it names as `child_actor`."""
    named = getattr(start, "child_actor", start)
    found = pkgutil.resolve_name(named) if isinstance(named, str) else named
    if not (inspect.isclass(found) and issubclass(found, Actor)):
        raise InvalidOption("start", start, "an actor class, a child spec or a supervisor spec")
    return found


def _group_names(groups: object, supervises: bool) -> tuple[str, ...]:
    """Check the groups of a child."""
    names = groups if isinstance(groups, list | tuple) else ("",)
    if not all(isinstance(name, str) and name for name in names):
        raise InvalidOption("groups", groups, "a list of names of groups, each a text that is not empty")
    if len(set(names)) < len(names):
        raise InvalidOption("groups", groups, "names of groups, each of them once")
    if names and supervises:
        raise InvalidOption("groups", groups, "left out: a supervisor takes no messages")
    return tuple(names)


def check_arguments(start: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments the class does not take: a misspelt option must not vanish into the child.

    A class may say more of them in a class method `check_child_arguments(kwargs)`, which raises what is wrong.
    """
    if not inspect.isclass(start):
        return
    if (check := getattr(start, "check_child_arguments", None)) is not None:
        try:
            check(kwargs)
        except UnknownOption as wrong:
            raise _meant_for_child(wrong.option, wrong.value) or wrong from None
    accepted = _parameters_of(start)  # type: ignore[arg-type]
    if accepted is None:
        return
    swallows = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    for option in kwargs:
        if option in accepted:
            continue
        if slip := _meant_for_child(option, kwargs[option]):
            raise slip
        if not swallows:
            raise unknown(option, kwargs[option], accepted, f"arguments of {start.__name__}")
    if len(args) > len(accepted) and not any(p.kind is p.VAR_POSITIONAL for p in accepted.values()):
        raise InvalidOption("args", args, f"at most the arguments of {start.__name__}: {', '.join(accepted)}")


def _meant_for_child(option: str, value: object) -> UnknownOption | None:
    """Make the error for a slip of what `child` takes for every class; `None` if the name is not like any of that."""
    names = sorted(OPTIONS | {"name"})
    close = difflib.get_close_matches(option, names, 1, 0.8)
    return unknown(option, value, names, "options of every child") if close else None


@functools.lru_cache(256)
def _parameters_of(start: type) -> Mapping[str, inspect.Parameter] | None:
    """Return what a class is called with; `None` for one written in C that hides it: its own start will tell."""
    try:
        return inspect.signature(start).parameters
    except (TypeError, ValueError):
        return None


def snake_case(name: str) -> str:
    """Turn a class name into a child name: `LogReader` into `log_reader`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip("_")).lower()


class RestartOptions(TypedDict, total=False):
    """Options of supervisors of every kind.

    Attributes:
        max_restarts: Restart attempts allowed within `within`; 3 if nothing is said.
        within: Length of the window; 5 seconds if nothing is said.
        limit: Both at once, for instance `RestartLimit.patient()`; wins over the two.
        give_up_as: The reason it ends with when it gives up: `failure` is abnormal for its parent, `shutdown` is what
            OTP does, where a transient supervisor that gave up is not restarted.
    """

    max_restarts: int
    within: Duration
    limit: RestartLimit | None
    give_up_as: GiveUpAs


class SupervisorOptions(RestartOptions, total=False):
    """Options of `one_for_one`, `one_for_all` and `rest_for_one`.

    Attributes:
        name: Name when it is itself a child.
        auto_shutdown: Whether the end of `significant` children ends it: `never`, `any_significant` or
            `all_significant`.
    """

    name: str
    auto_shutdown: AutoShutdown


def _fields(options: Mapping[str, Any], known: type, *others: str) -> dict[str, Any]:
    """Check options of a supervisor, which takes `others` besides, and return them as fields of its spec."""
    names = [*others, *known.__annotations__]
    for option, value in options.items():
        if option not in names:
            raise unknown(option, value, names)
    fields = dict(options)
    restarts, within, limit = fields.pop("max_restarts", 3), fields.pop("within", 5.0), fields.pop("limit", None)
    if limit is not None:
        check_class("limit", limit, RestartLimit)
        restarts, within = limit.restarts, limit.within
    return {**fields, "limit": RestartLimit.of(restarts, within)}


def supervisor(strategy: Strategy, *children: Any, **options: Unpack[SupervisorOptions]) -> SupervisorSpec:
    """Declare a supervisor.

    Args:
        strategy: Which children are restarted together.
        *children: Child specs, supervisor specs or actor classes, in start order.
        **options: As in `SupervisorOptions`.

    Raises:
        InvalidOption: An option has a wrong value.
        DuplicateChild: Two children have one name.
    """
    return SupervisorSpec(strategy=strategy, children=children, **_fields(options, SupervisorOptions))


def one_for_one(*children: Any, **options: Unpack[SupervisorOptions]) -> SupervisorSpec:
    """Declare a supervisor that restarts only the child that died. Options as in `SupervisorOptions`."""
    return supervisor("one_for_one", *children, **options)


def one_for_all(*children: Any, **options: Unpack[SupervisorOptions]) -> SupervisorSpec:
    """Declare a supervisor that restarts all children when one died. Options as in `SupervisorOptions`."""
    return supervisor("one_for_all", *children, **options)


def rest_for_one(*children: Any, **options: Unpack[SupervisorOptions]) -> SupervisorSpec:
    """Declare a supervisor that restarts the child that died and those after it. Options as in `SupervisorOptions`."""
    return supervisor("rest_for_one", *children, **options)


def dynamic(
    *,
    name: str = "dynamic",
    max_children: int | None = None,
    extra_args: Sequence[Any] = (),
    extra_kwargs: Mapping[str, Any] | None = None,
    **options: Unpack[RestartOptions],
) -> DynamicSpec:
    """Declare a supervisor whose children are added and removed while it runs; it starts empty.

    Args:
        name: Name when it is itself a child.
        max_children: How many it holds at most; `None` is unlimited.
        extra_args: Put in front of every child's own arguments, at every start.
        extra_kwargs: Likewise; a child's own keyword arguments win.
        **options: As in `RestartOptions`.

    Raises:
        InvalidOption: An option has a wrong value.
    """
    fields = _fields(options, RestartOptions, "name", "max_children", "extra_args", "extra_kwargs")
    extra = extra_kwargs if extra_kwargs is not None else {}
    return DynamicSpec(name=name, max_children=max_children, extra_args=extra_args, extra_kwargs=extra, **fields)


def check_children(children: object, auto_shutdown: AutoShutdown = "never") -> tuple[ChildSpec, ...]:
    """Check a list of children without starting anything, and fill in what was left open.

    Raises:
        InvalidOption: One of them is no child, or is significant under a supervisor that never shuts down by itself.
        DuplicateChild: Two have one name.
    """
    if not isinstance(children, list | tuple):
        raise InvalidOption("children", children, "a list of child specs, supervisor specs or actor classes")
    settled = tuple(settle(one, "permanent", auto_shutdown) for one in children)
    seen: set[str] = set()
    for spec in settled:
        if spec.name in seen:
            raise DuplicateChild(spec.name)
        seen.add(spec.name)
    return settled


def settle(one: object, restart: Restart, auto_shutdown: AutoShutdown) -> ChildSpec:
    """Turn what stands for a child into a complete spec, under a supervisor with these habits.

    Args:
        one: Child spec, supervisor spec or actor class.
        restart: What the supervisor takes for granted.
        auto_shutdown: Its setting; significant children make no sense under `never`.
    """
    spec = one if isinstance(one, ChildSpec) else child(one)
    if spec.significant and auto_shutdown == "never":
        raise InvalidOption("significant", True, f"False under auto_shutdown='never' (child `{spec.name}`)")
    return spec if spec.restart is not None else spec.with_restart(restart)
