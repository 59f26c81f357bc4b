"""Scenarios of supervision, described once as data, to be played on a real Erlang and on this library.

A scenario is a name, a tree and steps. A tree is a mapping: `id`, the flags (`strategy`, `intensity`, `period`,
`auto_shutdown`) and `children`. A child is a mapping: `id`, `restart`, `shutdown` (milliseconds, `infinity` or
`brutal_kill`), `significant`, and two scripts: `starts`, the outcome of each start attempt (`ok`, `error`,
`raise`, `ignore`, `hang` until released; the last one repeats), and `stop`, what it does when told to stop (`ok`,
`stubborn` or a reason to end with instead). A child with `children` is a supervisor.

Steps:

- `("exit", id, reason)` the child ends by itself; `("kill", id)` it is killed;
- `("die_together", supervisor, ((id, reason), ...))` several end before the supervisor looks at any of it;
- `("call", supervisor, function, args)` a management call; `("async", ...)` the same without waiting for the answer;
- `("hanging", flag)` says that a start hangs and nobody answers meanwhile; `("release", id, outcome)` ends it;
- `("which", supervisor)`, `("count", supervisor)` look at the children; `("wait", ms)` lets time pass;
- `("stranger_exit", supervisor, reason)`, `("parent_exit", reason)`, `("kill_supervisor", supervisor)`.

A trace is a list of what could be seen: `start`, `ignored`, `failed`, `term` (told to stop, and why), `result`,
`later` (the result of an `async` call; where it stands in the trace means nothing), `which`, `count`, and in the end
`alive` or `ended` with a reason.
"""

from typing import Any

Scenario = dict[str, Any]

REASONS = ("normal", "shutdown", "shutdown_x", "boom", "kill")
STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
RESTARTS = ("permanent", "transient", "temporary")


def death(child: str, reason: str) -> tuple[Any, ...]:
    return ("kill", child) if reason == "kill" else ("exit", child, reason)


def tree(*children: Any, **flags: Any) -> dict[str, Any]:
    flags = {"id": "root", "strategy": "one_for_one", "intensity": 3, "period": 60, **flags}
    return {**flags, "children": tuple({"id": one} if isinstance(one, str) else one for one in children)}


def scenario(name: str, tree_: dict[str, Any], *steps: tuple[Any, ...]) -> Scenario:
    return {"name": name, "tree": tree_, "steps": steps}


def c(id_: str, **options: Any) -> dict[str, Any]:
    return {"id": id_, **options}


def call(function: str, *args: Any, on: str = "root") -> tuple[Any, ...]:
    return ("call", on, function, args)


def later(function: str, *args: Any, on: str = "root") -> tuple[Any, ...]:
    return ("async", on, function, args)


WHICH = ("which", "root")
COUNT = ("count", "root")


def matrix() -> list[Scenario]:
    """Every strategy, every restart type, every way to end: the middle child of three ends."""
    return [
        scenario(
            f"{strategy}_{restart}_{reason}",
            tree("a", c("b", restart=restart), "c", strategy=strategy),
            death("b", reason),
            WHICH,
            COUNT,
        )
        for strategy in STRATEGIES
        for restart in RESTARTS
        for reason in REASONS
    ]


def starting() -> list[Scenario]:
    return [
        scenario("start_in_order_stop_in_reverse", tree("a", "b", "c", "d")),
        scenario("empty", tree(), WHICH, COUNT),
        scenario("start_error_rolls_back", tree("a", "b", c("c", starts=("error",)), "d")),
        scenario("start_raise_rolls_back", tree("a", "b", c("c", starts=("raise",)), "d")),
        scenario("first_start_error", tree(c("a", starts=("error",)), "b")),
        scenario("ignore_keeps_the_spec", tree("a", c("b", starts=("ignore",)), "c"), WHICH, COUNT),
        scenario(
            "ignore_drops_a_temporary", tree("a", c("b", starts=("ignore",), restart="temporary"), "c"), WHICH, COUNT
        ),
        scenario(
            "ignore_then_restart_child", tree("a", c("b", starts=("ignore", "ok"))), call("restart_child", "b"), WHICH
        ),
        scenario("duplicate_names", tree("a", "b", "a")),
        scenario("significant_under_never", tree(c("a", restart="transient", significant=True))),
        scenario("significant_permanent", tree(c("a", significant=True), auto_shutdown="any_significant")),
        scenario("negative_intensity", tree("a", intensity=-1)),
        scenario("zero_period", tree("a", period=0)),
        scenario("unknown_strategy", tree("a", strategy="some_for_some")),
        scenario("unknown_restart", tree(c("a", restart="sometimes"))),
        scenario("negative_shutdown", tree(c("a", shutdown=-1))),
        scenario("nested_start_error", tree("a", tree("x", c("y", starts=("error",)), id="inner"), "b")),
    ]


def intensity() -> list[Scenario]:
    found = [
        scenario("intensity_0", tree("a", "b", "c", intensity=0), ("kill", "b")),
        scenario("intensity_1_second_kills", tree("a", "b", "c", intensity=1), ("kill", "b"), ("kill", "b")),
        scenario(
            "intensity_3_allows_three", tree("a", "b", intensity=3), ("kill", "a"), ("kill", "b"), ("kill", "a"), WHICH
        ),
        scenario(
            "intensity_3_fourth_gives_up",
            tree("a", "b", "c", intensity=3),
            *[("kill", "b")] * 4,
        ),
        scenario("intensity_normal_exits_of_permanent_count", tree("a", intensity=1), *[("exit", "a", "normal")] * 2),
        scenario(
            "intensity_transient_normal_is_free",
            tree(c("a", restart="transient"), "b", intensity=1),
            ("exit", "a", "normal"),
            ("kill", "b"),
            WHICH,
        ),
        scenario(
            "intensity_temporary_is_free",
            tree(c("a", restart="temporary"), c("b", restart="temporary"), "c", intensity=1),
            ("kill", "a"),
            ("kill", "b"),
            ("kill", "c"),
            WHICH,
        ),
        scenario(
            "intensity_window_forgets",
            tree("a", intensity=1, period=1),
            ("kill", "a"),
            ("wait", 2200),
            ("kill", "a"),
            ("wait", 2200),
            ("kill", "a"),
            WHICH,
        ),
        scenario(
            "intensity_shared_by_all", tree("a", "b", "c", intensity=2), ("kill", "a"), ("kill", "b"), ("kill", "c")
        ),
        scenario("restart_start_fails_for_ever", tree(c("a", starts=("ok", "error")), "b", intensity=3), ("kill", "a")),
        scenario(
            "restart_start_fails_twice",
            tree(c("a", starts=("ok", "error", "raise", "ok")), "b", intensity=5),
            ("kill", "a"),
            WHICH,
        ),
        scenario("restart_answers_ignore", tree(c("a", starts=("ok", "ignore")), "b"), ("kill", "a"), WHICH, COUNT),
        scenario(
            "restart_answers_ignore_then_crash_again",
            tree(c("a", starts=("ok", "ignore", "ok")), "b", intensity=1),
            ("kill", "a"),
            call("restart_child", "a"),
            ("kill", "a"),
        ),
    ]
    for strategy in STRATEGIES:
        found += [
            scenario(
                f"{strategy}_gives_up_in_reverse_order",
                tree("a", "b", "c", "d", strategy=strategy, intensity=0),
                ("kill", "b"),
            ),
            scenario(
                f"{strategy}_two_die_together_intensity_1",
                tree("a", "b", "c", "d", strategy=strategy, intensity=1),
                ("die_together", "root", (("b", "kill"), ("d", "kill"))),
                WHICH,
            ),
            scenario(
                f"{strategy}_two_die_together_later_first",
                tree("a", "b", "c", "d", strategy=strategy, intensity=2),
                ("die_together", "root", (("d", "boom"), ("b", "boom"))),
                WHICH,
            ),
            scenario(
                f"{strategy}_ends_are_noticed_before_the_group_they_belong_to_restarts",
                tree("a", "b", "c", "d", strategy=strategy, intensity=9),
                ("die_together", "root", (("d", "kill"), ("b", "kill"), ("c", "boom"))),
                WHICH,
            ),
            scenario(
                f"{strategy}_all_die_together",
                tree("a", "b", "c", strategy=strategy, intensity=3),
                ("die_together", "root", (("a", "kill"), ("b", "boom"), ("c", "normal"))),
                WHICH,
            ),
            scenario(
                f"{strategy}_second_fails_twice",
                tree("a", c("b", starts=("ok", "error", "error", "ok")), "c", strategy=strategy, intensity=5),
                ("kill", "a"),
                *([("kill", "b")] if strategy == "one_for_one" else []),
                WHICH,
            ),
            scenario(
                f"{strategy}_other_fails_for_ever",
                tree("a", c("b", starts=("ok", "error")), "c", strategy=strategy, intensity=2),
                ("kill", "a" if strategy != "one_for_one" else "b"),
            ),
            scenario(
                f"{strategy}_counts_once_per_crash",
                tree("a", "b", "c", strategy=strategy, intensity=3),
                *[("kill", "a")] * 3,
                WHICH,
            ),
            scenario(
                f"{strategy}_stopped_siblings_come_back",
                tree("a", "b", c("t", restart="transient"), c("d", restart="temporary"), strategy=strategy),
                call("terminate_child", "b"),
                ("exit", "t", "normal"),
                WHICH,
                ("kill", "a"),
                WHICH,
            ),
            scenario(
                f"{strategy}_added_children_take_part",
                tree("a", "b", strategy=strategy),
                call("start_child", c("n")),
                ("kill", "a"),
                WHICH,
            ),
            scenario(
                f"{strategy}_ignored_sibling_is_asked_again",
                tree("a", c("b", starts=("ignore", "ok")), "c", strategy=strategy),
                ("kill", "a"),
                WHICH,
            ),
            scenario(
                f"{strategy}_sibling_dies_badly_in_group_stop",
                tree("a", c("b", stop="boom"), c("c", stop="normal"), "d", strategy=strategy),
                ("kill", "a"),
                WHICH,
            ),
            scenario(
                f"{strategy}_last_child_crashes",
                tree("a", "b", "c", strategy=strategy),
                ("exit", "c", "boom"),
                WHICH,
            ),
        ]
    return found


def nested() -> list[Scenario]:
    found = []
    for restart in RESTARTS:
        found.append(
            scenario(
                f"inner_gives_up_{restart}",
                tree("a", tree("x", "y", id="inner", intensity=0, restart=restart), "b"),
                ("kill", "x"),
                WHICH,
            )
        )
        found.append(
            scenario(
                f"inner_killed_{restart}",
                tree("a", tree("x", "y", id="inner", restart=restart), "b"),
                ("kill_supervisor", "inner"),
                WHICH,
            )
        )
    found += [
        scenario(
            "give_up_goes_all_the_way",
            tree("a", tree("x", tree("p", "q", id="deep", intensity=0), id="inner", intensity=0), intensity=0),
            ("kill", "p"),
        ),
        scenario(
            "inner_restart_brings_back_the_static_list_only",
            tree(
                tree("x", id="one", intensity=0),
                tree("y", id="two"),
                strategy="one_for_all",
                intensity=2,
            ),
            call("start_child", c("added"), on="two"),
            call("terminate_child", "y", on="two"),
            ("which", "two"),
            ("kill", "x"),
            ("which", "two"),
            WHICH,
        ),
        scenario(
            "nested_stop_order",
            tree("a", tree("x", tree("p", "q", id="deep"), "y", id="inner"), "b"),
        ),
        scenario(
            "nested_rest_for_one",
            tree("a", tree("x", "y", id="inner"), "b", strategy="rest_for_one"),
            ("kill", "a"),
            WHICH,
        ),
        scenario(
            "inner_crash_stays_inside",
            tree("a", tree("x", "y", id="inner", strategy="one_for_all"), "b", strategy="one_for_all"),
            ("kill", "x"),
            WHICH,
        ),
        scenario(
            "inner_start_fails_at_restart",
            tree("a", tree("x", c("y", starts=("ok", "error", "ok")), id="inner", intensity=0), intensity=3),
            ("kill", "x"),
            WHICH,
        ),
    ]
    return found


def management() -> list[Scenario]:
    found = [
        scenario(
            "life_of_a_child",
            tree("a"),
            call("start_child", c("b")),
            call("start_child", c("b")),
            call("delete_child", "b"),
            call("restart_child", "b"),
            call("terminate_child", "b"),
            call("terminate_child", "b"),
            WHICH,
            COUNT,
            call("start_child", c("b")),
            call("restart_child", "b"),
            call("terminate_child", "b"),
            call("delete_child", "b"),
            call("delete_child", "b"),
            call("restart_child", "b"),
            call("terminate_child", "b"),
            call("get_childspec", "b"),
            WHICH,
        ),
        scenario(
            "defaults_of_a_spec",
            tree("a", tree("x", id="inner"), c("k", shutdown="brutal_kill", restart="transient")),
            call("get_childspec", "a"),
            call("get_childspec", "inner"),
            call("get_childspec", "k"),
        ),
        scenario(
            "terminate_removes_a_temporary",
            tree(c("a", restart="temporary")),
            call("terminate_child", "a"),
            call("terminate_child", "a"),
            call("restart_child", "a"),
            call("start_child", c("a", restart="temporary")),
            WHICH,
        ),
        scenario(
            "terminate_never_restarts_or_counts",
            tree("a", "b", intensity=1, strategy="one_for_all"),
            call("terminate_child", "a"),
            call("restart_child", "a"),
            call("terminate_child", "a"),
            call("restart_child", "a"),
            ("kill", "b"),
            WHICH,
        ),
        scenario(
            "start_child_fails",
            tree("a", intensity=0),
            call("start_child", c("b", starts=("error",))),
            call("start_child", c("b2", starts=("raise",))),
            WHICH,
            COUNT,
        ),
        scenario(
            "start_child_ignores",
            tree("a"),
            call("start_child", c("b", starts=("ignore",))),
            call("start_child", c("b", starts=("ignore",))),
            call("start_child", c("t", starts=("ignore",), restart="temporary")),
            WHICH,
            COUNT,
        ),
        scenario(
            "restart_child_fails",
            tree("a", c("b", starts=("ok", "error", "raise", "ok")), intensity=0),
            call("terminate_child", "b"),
            call("restart_child", "b"),
            call("restart_child", "b"),
            WHICH,
            call("restart_child", "b"),
            WHICH,
        ),
        scenario(
            "transient_done_is_already_present",
            tree(c("a", restart="transient")),
            ("exit", "a", "normal"),
            call("start_child", c("a", restart="transient")),
            call("restart_child", "a"),
            ("exit", "a", "shutdown"),
            call("delete_child", "a"),
            WHICH,
        ),
        scenario(
            "stranger_is_ignored",
            tree("a"),
            *[("stranger_exit", "root", r) for r in ("shutdown", "normal", "boom")],
            WHICH,
        ),
        *[scenario(f"parent_exits_{r}", tree("a", "b"), ("parent_exit", r)) for r in ("normal", "shutdown", "boom")],
        scenario("supervisor_killed", tree("a", "b"), ("kill_supervisor", "root")),
        scenario(
            "stop_policies",
            tree(
                "a",
                c("k", shutdown="brutal_kill"),
                c("i", shutdown="infinity"),
                c("z", shutdown=2000),
                c("s", stop="stubborn", shutdown=60),
                "b",
            ),
        ),
        scenario(
            "stubborn_child_in_a_group",
            tree("a", c("s", stop="stubborn", shutdown=60), "b", strategy="one_for_all"),
            ("kill", "a"),
            ("wait", 100),
            WHICH,
        ),
        scenario(
            "stubborn_child_terminated",
            tree("a", c("s", stop="stubborn", shutdown=60)),
            call("terminate_child", "s"),
            WHICH,
        ),
        scenario(
            "children_with_other_reasons_at_the_end",
            tree(
                c("a", stop="boom"),
                c("b", stop="normal", restart="transient"),
                c("d", stop="boom", restart="temporary"),
                "e",
            ),
        ),
        scenario(
            "order_follows_additions",
            tree("a", "b"),
            call("start_child", c("n")),
            call("terminate_child", "a"),
            call("restart_child", "a"),
            ("kill", "b"),
            WHICH,
        ),
    ]
    hanging = tree(c("a", starts=("ok", "hang", "hang", "ok")), "b", intensity=20)
    found += [
        scenario(
            f"{function}_while_restarting",
            hanging,
            ("hanging", "true"),
            ("kill", "a"),
            later(function, "a"),
            ("release", "a", "error"),
            *([] if function == "terminate_child" else [("release", "a", "ok")]),
            ("hanging", "false"),
            WHICH,
            COUNT,
        )
        for function in ("terminate_child", "restart_child", "delete_child")
    ]
    found += [
        scenario(
            "start_child_while_restarting",
            hanging,
            ("hanging", "true"),
            ("kill", "a"),
            later("start_child", c("a")),
            later("start_child", c("n")),
            ("release", "a", "error"),
            ("release", "a", "ok"),
            ("hanging", "false"),
            WHICH,
        ),
        scenario(
            "sibling_dies_while_restarting",
            hanging,
            ("hanging", "true"),
            ("kill", "a"),
            ("kill", "b"),
            ("release", "a", "error"),
            ("release", "a", "ok"),
            ("hanging", "false"),
            WHICH,
        ),
        scenario(
            "terminated_while_restarting_can_be_restarted",
            hanging,
            ("hanging", "true"),
            ("kill", "a"),
            later("terminate_child", "a"),
            ("release", "a", "error"),
            later("restart_child", "a"),
            ("release", "a", "ok"),
            ("hanging", "false"),
            WHICH,
        ),
        scenario(
            "rest_for_one_later_child_is_stopped_meanwhile",
            tree("a", c("b", starts=("ok", "hang", "hang", "ok")), "c", strategy="rest_for_one", intensity=20),
            ("hanging", "true"),
            ("kill", "b"),
            later("terminate_child", "b"),
            ("release", "b", "error"),
            ("hanging", "false"),
            WHICH,
            call("restart_child", "c"),
            WHICH,
        ),
        scenario(
            "one_for_all_died_before_its_turn",
            tree("a", c("s", stop="stubborn", shutdown=150), "c", strategy="one_for_all", intensity=1),
            ("hanging", "true"),
            ("kill", "c"),
            ("kill", "a"),
            ("wait", 300),
            ("hanging", "false"),
            WHICH,
        ),
    ]
    return found


def automatic() -> list[Scenario]:
    found = []
    for mode in ("any_significant", "all_significant"):
        for restart in ("transient", "temporary"):
            for end in ("normal", "boom", "kill", "terminate"):
                first = call("terminate_child", "a") if end == "terminate" else death("a", end)
                second = call("terminate_child", "b") if end == "terminate" else death("b", end)
                found.append(
                    scenario(
                        f"{mode}_{restart}_{end}",
                        tree(
                            c("a", restart=restart, significant=True),
                            c("b", restart=restart, significant=True),
                            "o",
                            auto_shutdown=mode,
                            intensity=9,
                        ),
                        first,
                        *([second] if mode == "all_significant" else []),
                    )
                )
    found += [
        scenario(
            "bystander_in_a_group_is_no_trigger",
            tree(
                "a",
                c("s", restart="temporary", significant=True),
                "c",
                auto_shutdown="any_significant",
                strategy="one_for_all",
            ),
            ("kill", "a"),
            WHICH,
        ),
        scenario(
            "others_are_no_trigger",
            tree(
                c("a", restart="temporary"),
                c("s", restart="temporary", significant=True),
                auto_shutdown="any_significant",
            ),
            ("exit", "a", "normal"),
            WHICH,
        ),
        scenario(
            "significant_in_start_child_refused",
            tree("a"),
            call("start_child", c("s", restart="transient", significant=True)),
            WHICH,
        ),
    ]
    for significant in (True, False):
        found.append(
            scenario(
                f"escalates_{'when' if significant else 'unless'}_significant",
                tree(
                    "a",
                    tree(
                        c("x", restart="transient", significant=True),
                        id="inner",
                        auto_shutdown="any_significant",
                        restart="transient",
                        significant=significant,
                    ),
                    auto_shutdown="any_significant",
                ),
                ("exit", "x", "normal"),
            )
        )
    return found


SCENARIOS: list[Scenario] = [*matrix(), *starting(), *intensity(), *nested(), *management(), *automatic()]
