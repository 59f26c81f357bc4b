"""Which numbered clause of OTP's supervision is held by what: scenarios here, test functions elsewhere.

`docs/semantics-supervision.md` states the clauses in words. A clause names scenarios (played on the decisions, on
running supervisors and on a real Erlang) or test functions as `file::function`, or both.
"""

MATRIX = tuple(
    f"{strategy}_{restart}_{reason}"
    for strategy in ("one_for_one", "one_for_all", "rest_for_one")
    for restart in ("permanent", "transient", "temporary")
    for reason in ("normal", "shutdown", "shutdown_x", "boom", "kill")
)
SIGNIFICANT = tuple(
    f"{mode}_{restart}_{end}"
    for mode in ("any_significant", "all_significant")
    for restart in ("transient", "temporary")
    for end in ("normal", "boom", "kill", "terminate")
)
EACH = ("one_for_one", "one_for_all", "rest_for_one")

SCENARIOS_OF: dict[str, tuple[str, ...]] = {
    "SUP-2": ("defaults_of_a_spec",),
    "SUP-3": ("unknown_restart", "negative_shutdown"),
    "SUP-5": ("duplicate_names", "unknown_restart"),
    "SUP-6": ("duplicate_names",),
    "SUP-7": ("first_start_error", "start_raise_rolls_back", "ignore_keeps_the_spec"),
    "SUP-8": ("ignore_keeps_the_spec", "ignore_drops_a_temporary", "start_child_ignores", "ignore_then_restart_child"),
    "SUP-12": ("defaults_of_a_spec", "empty"),
    "SUP-13": ("negative_intensity", "zero_period", "unknown_strategy"),
    "SUP-15": ("start_in_order_stop_in_reverse", "empty"),
    "SUP-16": ("start_error_rolls_back", "start_raise_rolls_back", "first_start_error", "nested_start_error"),
    "SUP-19": ("start_in_order_stop_in_reverse", "nested_stop_order", "order_follows_additions"),
    "SUP-20": ("stop_policies", "stubborn_child_terminated", "stubborn_child_in_a_group"),
    "SUP-22": (
        "children_with_other_reasons_at_the_end",
        *tuple(f"{one}_sibling_dies_badly_in_group_stop" for one in EACH),
    ),
    "SUP-24": ("parent_exits_normal", "parent_exits_shutdown", "parent_exits_boom", "intensity_0", "supervisor_killed"),
    "SUP-25": ("stranger_is_ignored",),
    "SUP-26": ("supervisor_killed", "inner_killed_permanent", "inner_killed_transient", "inner_killed_temporary"),
    "SUP-28": (
        "intensity_normal_exits_of_permanent_count",
        "intensity_transient_normal_is_free",
        "intensity_temporary_is_free",
        *MATRIX,
    ),
    "SUP-30": ("transient_done_is_already_present",),
    "SUP-31": ("one_for_one_last_child_crashes", "one_for_one_counts_once_per_crash"),
    "SUP-32": ("one_for_all_last_child_crashes", "one_for_all_counts_once_per_crash", "inner_crash_stays_inside"),
    "SUP-33": ("rest_for_one_last_child_crashes", "rest_for_one_counts_once_per_crash", "nested_rest_for_one"),
    "SUP-34": tuple(f"{one}_stopped_siblings_come_back" for one in EACH)
    + tuple(f"{one}_ignored_sibling_is_asked_again" for one in EACH),
    "SUP-35": ("one_for_all_stopped_siblings_come_back", "rest_for_one_stopped_siblings_come_back"),
    "SUP-36": (
        *tuple(f"{one}_added_children_take_part" for one in EACH),
        "inner_restart_brings_back_the_static_list_only",
    ),
    "SUP-37": tuple(f"{one}_counts_once_per_crash" for one in EACH),
    "SUP-38": tuple(f"{one}_two_die_together_intensity_1" for one in EACH)
    + tuple(f"{one}_two_die_together_later_first" for one in EACH)
    + tuple(f"{one}_all_die_together" for one in EACH)
    + tuple(f"{one}_ends_are_noticed_before_the_group_they_belong_to_restarts" for one in EACH)
    + ("one_for_all_died_before_its_turn",),
    "SUP-39": ("intensity_0", "intensity_1_second_kills", "intensity_3_allows_three", "intensity_3_fourth_gives_up"),
    "SUP-40": ("intensity_window_forgets",),
    "SUP-41": ("intensity_shared_by_all",),
    "SUP-42": (*tuple(f"{one}_gives_up_in_reverse_order" for one in EACH), "give_up_goes_all_the_way"),
    "SUP-43": ("inner_gives_up_permanent", "inner_gives_up_transient", "inner_gives_up_temporary"),
    "SUP-44": (
        "inner_start_fails_at_restart",
        "restart_start_fails_for_ever",
        "restart_start_fails_twice",
        "one_for_one_other_fails_for_ever",
    ),
    "SUP-45": ("terminate_child_while_restarting", "sibling_dies_while_restarting"),
    "SUP-46": (
        *tuple(f"{one}_second_fails_twice" for one in EACH),
        "one_for_all_other_fails_for_ever",
        "rest_for_one_other_fails_for_ever",
        "rest_for_one_later_child_is_stopped_meanwhile",
    ),
    "SUP-47": ("restart_answers_ignore", "restart_answers_ignore_then_crash_again"),
    "SUP-48": ("significant_under_never", "significant_permanent", "significant_in_start_child_refused"),
    "SUP-49": SIGNIFICANT,
    "SUP-50": SIGNIFICANT,
    "SUP-51": ("bystander_in_a_group_is_no_trigger", "others_are_no_trigger"),
    "SUP-52": ("escalates_when_significant", "escalates_unless_significant"),
    "SUP-53": (
        "life_of_a_child",
        "restart_child_while_restarting",
        "delete_child_while_restarting",
        "start_child_while_restarting",
        "terminate_child_while_restarting",
        "terminated_while_restarting_can_be_restarted",
    ),
    "SUP-54": ("start_child_fails",),
    "SUP-55": ("restart_child_fails",),
    "SUP-56": ("terminate_removes_a_temporary", "terminate_never_restarts_or_counts"),
    "SUP-57": ("life_of_a_child", "order_follows_additions"),
    "SUP-58": ("ignore_keeps_the_spec", "terminate_child_while_restarting"),
}

TREE, DYNAMIC = "test_tree.py", "test_dynamic.py"
SPEC, LIMITS = "test_spec.py", "test_restart_policy.py"

TESTS_OF: dict[str, tuple[str, ...]] = {
    "SUP-1": (f"{SPEC}::test_a_childs_name_defaults_to_its_class_and_must_fit_into_a_path",),
    "SUP-4": (f"{SPEC}::test_an_option_nobody_knows_is_refused_not_swallowed",),
    "SUP-9": (f"{TREE}::test_a_killed_supervisor_leaves_nobody",),
    "SUP-10": (f"{TREE}::test_the_arguments_of_a_temporary_child_are_not_kept",),
    "SUP-11": (f"{SPEC}::test_one_bad_spec_in_a_list_declares_nothing",),
    "SUP-14": (f"{TREE}::test_a_stranger_and_a_strange_message_change_nothing",),
    "SUP-17": (
        f"{TREE}::test_a_supervisor_class_that_has_nothing_to_do_is_ignored",
        f"{TREE}::test_a_supervisor_class_whose_init_fails_fails_the_start",
    ),
    "SUP-18": (f"{TREE}::test_a_taken_name_is_reported_as_such",),
    "SUP-21": (f"{TREE}::test_a_child_that_does_not_stop_in_time_is_killed_and_named_in_the_report",),
    "SUP-23": (f"{TREE}::test_a_supervisor_killed_in_the_middle_of_its_stop_leaves_nobody",),
    "SUP-27": (f"{TREE}::test_a_stranger_and_a_strange_message_change_nothing",),
    "SUP-29": (f"{TREE}::test_every_transition_is_exactly_one_event",),
    "SUP-59": (
        f"{TREE}::test_a_child_that_calls_its_supervisor_from_its_start_is_refused_instead_of_hanging",
        f"{TREE}::test_a_child_may_have_itself_terminated",
    ),
    "SUP-60": (f"{DYNAMIC}::test_terminate_child_goes_by_reference",),
    "SUP-61": (f"{DYNAMIC}::test_extra_arguments_go_in_front_at_every_start",),
    "SUP-62": (
        f"{DYNAMIC}::test_children_without_a_name_are_known_by_reference_and_share_that_of_their_class",
        f"{DYNAMIC}::test_a_name_that_was_given_is_the_place_and_belongs_to_one_child_at_a_time",
        f"{DYNAMIC}::test_a_second_start_of_a_name_waits_for_the_first_and_hears_who_has_it",
        f"{DYNAMIC}::test_a_bad_spec_is_refused_in_the_caller",
        f"{DYNAMIC}::test_extra_arguments_go_in_front_at_every_start",
    ),
    "SUP-63": (f"{DYNAMIC}::test_max_children_counts_every_entry_and_a_restart_keeps_its_place",),
    "SUP-64": (f"{DYNAMIC}::test_a_waiting_restart_is_called_off_by_the_last_reference",),
    "SUP-65": (f"{DYNAMIC}::test_all_children_are_told_at_once_and_each_has_its_own_time",),
    "SUP-66": (f"{DYNAMIC}::test_intensity_is_shared_by_all_unless_a_child_has_its_own",),
    "SUP-67": (f"{DYNAMIC}::test_a_thousand_children_come_and_go",),
    "SUP-68": (f"{SPEC}::test_partitions_are_numbered_and_get_their_arguments",),
    "SUP-69": (f"{DYNAMIC}::test_keys_are_routed_without_asking_the_supervisor",),
    "SUP-70": (f"{DYNAMIC}::test_partitions_can_be_fewer_for_a_while",),
    "SUP-71": (f"{DYNAMIC}::test_partitions_of_nothing_are_an_error",),
    "SUP-72": (f"{TREE}::test_an_update_merges_specs_and_flags_and_starts_and_stops_nothing",),
    "SUP-73": (f"{TREE}::test_a_wrong_update_changes_nothing", f"{DYNAMIC}::test_flags_can_be_changed_while_it_runs"),
    "SUP-74": (
        f"{TREE}::test_changed_significance_counts_for_later_ends_only",
        f"{TREE}::test_never_again_means_never",
    ),
    "SUP-76": (f"{LIMITS}::test_a_rung_wins_over_what_the_child_was_given_while_it_ran",),
    "SUP-77": (
        f"{TREE}::test_a_member_that_restarts_is_in_its_groups_before_anybody_sees_it_up",
        f"{TREE}::test_a_child_that_does_not_come_up_joins_nothing",
        f"{TREE}::test_groups_that_cannot_be_joined_are_refused_where_they_are_declared",
    ),
    "SUP-75": (f"{TREE}::test_every_transition_is_exactly_one_event",),
}
