"""What can be declared, what is refused, and how the refusal reads."""

from collections.abc import Callable
from datetime import timedelta
from math import inf
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.names import Via
from mlld_sdk.base.errors import ConfigurationError, UnknownOption
from mlld_sdk.supervision import (
    Backoff,
    ChildSpec,
    DuplicateChild,
    DynamicSpec,
    InvalidOption,
    RestartLimit,
    Supervisor,
    SupervisorSpec,
    budget,
    check_children,
    child,
    circuit_breaker,
    dynamic,
    one_for_all,
    one_for_one,
    partitioned,
    rest_for_one,
    wedge,
)


class LogReader(Actor):
    def __init__(self, path: str = "", *, lines: int = 10) -> None:
        super().__init__()


class Tuned(Actor):
    child_options: ClassVar = {"restart": "transient", "shutdown": 1.5}


def refuses(option: str, value: object, make: Any) -> None:
    with pytest.raises(InvalidOption) as caught:
        make()
    assert caught.value.option == option
    assert repr(caught.value.value) == repr(value)
    if isinstance(caught.value, UnknownOption):
        assert caught.value.message == f"there is no option {option!r}"
        assert caught.value.allowed in str(caught.value)
    else:
        assert caught.value.message.startswith(f"{option} must be {caught.value.allowed}, got {repr(value)[:60]}")
    assert isinstance(caught.value, ConfigurationError)


def test_a_child_has_otps_defaults_and_they_depend_on_its_kind() -> None:  # SUP-2
    worker = one_for_one(child(LogReader)).children[0]
    assert (worker.restart, worker.shutdown, worker.kind, worker.significant) == ("permanent", 5.0, "worker", False)
    subtree = one_for_one(one_for_all(name="inner")).children[0]
    assert (subtree.restart, subtree.shutdown, subtree.kind) == ("permanent", inf, "supervisor")
    assert child(one_for_all(), shutdown=3).shutdown == 3.0
    assert child(LogReader, kind="supervisor").shutdown == inf


def test_a_childs_name_defaults_to_its_class_and_must_fit_into_a_path() -> None:  # SUP-1
    assert child(LogReader).name == "log_reader"
    assert child(LogReader, name="r1").name == "r1"
    for wrong in ("", "a/b", 7):
        refuses("name", wrong, lambda wrong=wrong: child(LogReader, name=wrong))


def test_something_that_is_no_class_cannot_be_a_child() -> None:  # SUP-1, SUP-3
    for wrong in (None, "LogReader", print, int, LogReader()):
        refuses("start", wrong, lambda wrong=wrong: child(wrong))


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("restart", "sometimes"),
        ("restart", 1),
        ("shutdown", -1),
        ("shutdown", "brutal"),
        ("shutdown", float("nan")),
        ("kind", "boss"),
        ("significant", "yes"),
        ("start_timeout", 0),
        ("start_timeout", "soon"),
        ("backoff", 3),
        ("budget", (1, 2)),
        ("breaker", "open"),
        ("wedge", 30),
        ("register", {"service": 1, "key": 2}),
        ("backoff", {}),
        ("budget", {"limit": {}}),
        ("breaker", {"name": "x"}),
        ("wedge", {"after": 1.0}),
    ],
)
def test_a_wrong_option_is_refused_by_name_value_and_range(option: str, wrong: Any) -> None:  # SUP-3
    refuses(option, wrong, lambda: child(LogReader, **{option: wrong}))


def test_options_may_be_of_classes_made_of_those_they_are_said_to_be_of() -> None:  # SUP-3
    class Patient(Backoff, frozen=True):
        """A backoff of one's own making."""

    class Known(Via, frozen=True):
        """A name kept by a service that everyone knows."""

    patient, known = Patient(), Known(None, "x")
    spec = child(LogReader, backoff=patient, register=known)
    assert (spec.backoff, spec.register) == (patient, known)


def test_zero_and_a_millisecond_are_legal_shutdowns() -> None:  # SUP-3
    assert child(LogReader, shutdown=0).shutdown == 0.0
    assert child(LogReader, shutdown=timedelta(milliseconds=1)).shutdown == 0.001
    assert child(LogReader, shutdown="kill").shutdown == "kill"
    assert child(LogReader, shutdown=inf).shutdown == inf


def test_an_option_nobody_knows_is_refused_not_swallowed() -> None:  # SUP-4
    with pytest.raises(InvalidOption, match="did you mean `restart`"):
        child(LogReader, restrat="permanent")
    refuses("colour", "red", lambda: child(LogReader, colour="red"))
    refuses("args", ("a", "b", "c"), lambda: child(LogReader, "a", "b", "c"))
    refuses("max_restart", 3, lambda: one_for_one(max_restart=3))
    assert child(LogReader, "x", lines=3).kwargs == {"lines": 3}


def test_a_class_may_carry_defaults_and_the_caller_wins() -> None:
    assert (child(Tuned).restart, child(Tuned).shutdown) == ("transient", 1.5)
    assert child(Tuned, restart="temporary").restart == "temporary"
    assert child(child(Tuned, name="t", shutdown=9), restart="permanent").shutdown == 9

    class Wrong(Actor):
        child_options: ClassVar = {"restrat": "permanent"}

    with pytest.raises(InvalidOption, match="child_options"):
        child(Wrong)


def test_one_bad_spec_in_a_list_declares_nothing() -> None:  # SUP-5, SUP-11
    with pytest.raises(InvalidOption):
        one_for_one(child(LogReader), "not a child")
    refuses("children", 7, lambda: check_children(7))
    assert [spec.name for spec in check_children([LogReader, child(Tuned)])] == ["log_reader", "tuned"]


def test_two_children_of_one_name_are_refused() -> None:  # SUP-6
    with pytest.raises(DuplicateChild, match="log_reader"):
        one_for_all(LogReader, LogReader)


def test_supervisors_have_defaults_and_limits() -> None:  # SUP-12
    spec = rest_for_one()
    assert (spec.strategy, spec.limit, spec.auto_shutdown) == ("rest_for_one", RestartLimit(3, 5.0), "never")
    assert one_for_one(limit=RestartLimit.patient()).limit == RestartLimit(5, 60.0)
    assert one_for_one(max_restarts=0, within=timedelta(seconds=2)).limit == RestartLimit(0, 2.0)


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("max_restarts", -1),
        ("max_restarts", inf),
        ("max_restarts", True),
        ("within", 0),
        ("within", inf),
        ("auto_shutdown", "sometimes"),
        ("give_up_as", "quietly"),
        ("limit", 3),
    ],
)
def test_wrong_flags_are_refused(option: str, wrong: Any) -> None:  # SUP-13
    refuses(option, wrong, lambda: one_for_one(**{option: wrong}))


def test_significance_needs_a_child_that_may_end_and_a_supervisor_that_listens() -> None:  # SUP-48
    refuses("significant", True, lambda: child(LogReader, restart="permanent", significant=True))
    refuses("significant", True, lambda: child(LogReader, significant=True))
    refuses("significant", True, lambda: one_for_one(child(LogReader, restart="transient", significant=True)))
    good = one_for_one(
        child(LogReader, restart="transient", significant=True), auto_shutdown="any_significant", name="x"
    )
    assert good.children[0].significant
    with pytest.raises(InvalidOption):
        partitioned(LogReader, name="p", auto_shutdown="any_significant")


def test_dynamic_supervisors_check_their_options() -> None:  # SUP-62
    spec = dynamic()
    assert (spec.max_children, spec.extra_args, spec.limit) == (None, (), RestartLimit(3, 5.0))
    assert dynamic(max_children=0).max_children == 0
    refuses("max_children", -1, lambda: dynamic(max_children=-1))
    refuses("extra_args", "abc", lambda: dynamic(extra_args="abc"))
    refuses("extra_kwargs", 3, lambda: dynamic(extra_kwargs=3))  # type: ignore[arg-type]


def test_partitions_are_numbered_and_get_their_arguments() -> None:  # SUP-68
    spec = partitioned(
        child(LogReader, "base"), name="p", partitions=3, with_arguments=lambda args, n: [f"{args[0]}-{n}"]
    )
    assert [(one.name, one.args) for one in spec.children] == [
        ("0", ("base-0",)),
        ("1", ("base-1",)),
        ("2", ("base-2",)),
    ]
    refuses("partitions", 0, lambda: partitioned(LogReader, name="p", partitions=0))
    refuses("with_arguments", "abc", lambda: partitioned(LogReader, name="p", with_arguments=lambda a, n: "abc"))


def test_a_supervisor_class_is_a_child_of_kind_supervisor() -> None:
    class Branch(Supervisor):
        def init(self, size: int) -> Any:
            return one_for_one()

    spec = child(Branch, 3)
    assert (spec.name, spec.kind, spec.shutdown) == ("branch", "supervisor", inf)


def test_a_subtree_takes_no_arguments() -> None:
    with pytest.raises(InvalidOption, match="kwargs"):
        child(one_for_one(), 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Backoff.of(0),
        lambda: Backoff.of(5, most=1),
        lambda: Backoff.of(factor=0.5),
        lambda: Backoff.of(jitter=1.5),
        lambda: budget(-1, 5),
        lambda: budget(1, 5, then="explode"),  # type: ignore[arg-type]
        lambda: wedge(0),
        lambda: wedge(5, times=0),
        lambda: wedge(5, ladder=["stronger"]),  # type: ignore[list-item]
        lambda: circuit_breaker(failures=None),
        lambda: circuit_breaker(failures=0),
        lambda: circuit_breaker(rate=2.0),
        lambda: circuit_breaker(growth=0),
        lambda: circuit_breaker(probes=0),
        lambda: circuit_breaker(open_for=0),
    ],
)
def test_the_smaller_specs_check_themselves_too(make: Any) -> None:
    with pytest.raises(InvalidOption):
        make()


def test_presets_say_what_they_sustain() -> None:
    assert str(RestartLimit.default()) == "3 in 5 s (sustains 2160 restarts an hour)"
    assert RestartLimit.patient().sustained == 300
    assert RestartLimit.stubborn().sustained == 60
    assert RestartLimit.none().sustained == 0
    assert RestartLimit.burst().restarts == 20


def test_a_spec_is_a_value() -> None:
    assert child(LogReader, "a") == child(LogReader, "a")
    with pytest.raises(AttributeError):
        child(LogReader).name = "other"  # type: ignore[misc]
    assert isinstance(child(LogReader), ChildSpec)


WRONG: list[tuple[str, Callable[[], object], str]] = [
    ("an unknown strategy", lambda: SupervisorSpec(strategy="zz"), "strategy"),  # type: ignore[arg-type]
    ("a limit that is none", lambda: SupervisorSpec(limit=(3, 5)), "limit"),  # type: ignore[arg-type]
    ("a child that is none", lambda: SupervisorSpec(children=(object,)), "start"),  # type: ignore[arg-type]
    ("children that are no list", lambda: SupervisorSpec(children=LogReader), "children"),  # type: ignore[arg-type]
    ("a path as a name", lambda: SupervisorSpec(name="a/b"), "name"),
    ("an unknown way to shut down", lambda: SupervisorSpec(auto_shutdown="always"), "auto_shutdown"),  # type: ignore[arg-type]
    (
        "significance where nothing shuts down",
        lambda: SupervisorSpec(children=(ChildSpec(name="a", start=LogReader, restart="transient", significant=True),)),
        "significant",
    ),
    (
        "significance of what is permanent",
        lambda: ChildSpec(name="a", start=LogReader, significant=True),
        "significant",
    ),
    ("a start that is no class", lambda: ChildSpec(name="a", start=lambda: None), "start"),
    ("an unknown restart", lambda: ChildSpec(name="a", start=LogReader, restart="often"), "restart"),  # type: ignore[arg-type]
    ("a negative time", lambda: ChildSpec(name="a", start=LogReader, shutdown=-1), "shutdown"),
    ("arguments nobody takes", lambda: ChildSpec(name="a", start=LogReader, kwargs={"x": 1}), "x"),
    ("a dynamic one without room", lambda: DynamicSpec(max_children=-1), "max_children"),
    ("extra arguments that are none", lambda: DynamicSpec(extra_args="ab"), "extra_args"),
    ("a copy made wrong", lambda: replace(one_for_one(), strategy="zz"), "strategy"),
    ("a time beyond all clocks", lambda: child(LogReader, shutdown=-(10**400)), "shutdown"),
    ("a window beyond all clocks", lambda: one_for_one(within=10**400), "within"),
    ("a time with more digits than can be shown", lambda: one_for_one(within=10**5000), "within"),
    ("a rate beyond all numbers", lambda: circuit_breaker(growth=10**400), "growth"),
]


@pytest.mark.parametrize(("make", "option"), [pytest.param(*one[1:], id=one[0]) for one in WRONG])
def test_a_spec_made_by_hand_is_checked_like_one_that_was_declared(make: Callable[[], object], option: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        make()
    assert caught.value.option == option


def test_two_children_of_one_name_are_refused_in_a_spec_made_by_hand() -> None:
    a = ChildSpec(name="a", start=LogReader)
    with pytest.raises(DuplicateChild):
        SupervisorSpec(children=(a, a))


def test_a_duration_no_clock_can_count_is_endless_where_that_is_allowed() -> None:
    assert child(LogReader, shutdown=10**400).shutdown == inf
