%% Plays scenarios on a real Erlang supervisor and prints the trace of each as one line of JSON.
%%
%%   erlc oracle.erl && erl -noshell -s oracle main scenarios.terms -s init stop
%%
%% The file holds one term: a list of #{name, tree, steps}. scenarios.py describes what the terms mean, and writes them.
-module(oracle).
-behaviour(supervisor).
-export([main/1, init/1, start_child/2, worker/3]).

main([File]) ->
    logger:set_primary_config(level, none),
    {ok, [Scenarios]} = file:consult(atom_to_list(File)),
    Self = self(),
    Runs = [{maps:get(name, S), spawn(fun() -> Self ! {self(), play(S)} end)} || S <- Scenarios],
    [receive {Pid, Trace} -> io:format("~s~n", [json([Name, Trace])])
     after 30000 -> io:format("~s~n", [json([Name, [[timeout]]])]) end || {Name, Pid} <- Runs].

%% -- one scenario ---------------------------------------------------------------------------------------------------

play(#{tree := Tree, steps := Steps}) ->
    process_flag(trap_exit, true),
    Tab = ets:new(t, [public]),
    Log = self(),
    Me = {Log, Tab},
    Result = try supervisor:start_link(?MODULE, {Me, Tree}) of
        {ok, Root} -> ets:insert(Tab, {{pid, maps:get(id, Tree)}, Root}), {ok, Root};
        Other -> Other
    catch C:E -> {C, E} end,
    case Result of
        {ok, Sup} ->
            log(Me, [up]),
            [begin step(S, Me, Sup), settle(Sup) end || S <- Steps],
            End = case is_process_alive(Sup) of
                true -> log(Me, [ending]), exit(Sup, shutdown), wait_exit(Sup), [alive];
                false -> [ended, reason(wait_exit(Sup))]
            end,
            trace() ++ [End];
        Failed -> trace() ++ [[start_failed, reason(Failed)]]
    end.

trace() -> receive {log, M} -> [M | trace()] after 20 -> [] end.
log({Log, _}, M) -> Log ! {log, M}.
wait_exit(Sup) -> receive {'EXIT', Sup, R} -> R after 5000 -> no_exit end.

%% The supervisor has dealt with everything when it answers and nothing was logged meanwhile.
settle(Sup) ->
    timer:sleep(25),
    case is_process_alive(Sup) of
        true -> case get(hanging) of true -> ok; _ -> catch supervisor:count_children(Sup) end;
        false -> ok
    end,
    timer:sleep(5).

step({exit, Id, R}, Me, _) -> pid(Me, Id) ! {exit, R};
step({kill, Id}, Me, _) -> exit(pid(Me, Id), kill);
step({die_together, SupId, Deaths}, Me, _) ->
    Sup = pid(Me, SupId),
    sys:suspend(Sup),
    [begin
        P = pid(Me, Id), M = monitor(process, P),
        case R of kill -> exit(P, kill); _ -> P ! {exit, R} end,
        receive {'DOWN', M, _, _, _} -> ok end
     end || {Id, R} <- Deaths],
    sys:resume(Sup);
step({call, SupId, F, Args}, Me, _) -> log(Me, [result, F, call(Me, SupId, F, Args)]);
step({async, SupId, F, Args}, Me, _) ->
    Sup = pid(Me, SupId),
    spawn(fun() -> log(Me, [later, F, call(Me, Sup, F, Args)]) end), timer:sleep(10);
step({which, SupId}, Me, _) ->
    try supervisor:which_children(pid(Me, SupId)) of
        Rows -> log(Me, [which, [[Id, status(P)] || {Id, P, _, _} <- Rows]])
    catch exit:_ -> log(Me, [which, gone]) end;
step({count, SupId}, Me, _) ->
    try supervisor:count_children(pid(Me, SupId)) of
        C -> log(Me, [count | [proplists:get_value(K, C) || K <- [specs, active, supervisors, workers]]])
    catch exit:_ -> log(Me, [count, gone]) end;
step({hanging, Flag}, _, _) -> put(hanging, Flag);
step({release, Id, Outcome}, Me, _) ->
    {_, Tab} = Me, [{_, Starter}] = ets:lookup(Tab, {starter, Id}), Starter ! {release, Id, Outcome};
step({wait, Ms}, _, _) -> timer:sleep(Ms);
step({stranger_exit, SupId, R}, Me, _) ->
    Sup = pid(Me, SupId), spawn(fun() -> exit(Sup, R) end);
step({parent_exit, R}, _, Sup) -> exit(Sup, R);
step({kill_supervisor, SupId}, Me, _) -> exit(pid(Me, SupId), kill).

call(Me, SupId, F, Args) when is_atom(SupId) -> call(Me, pid(Me, SupId), F, Args);
call(Me, Sup, start_child, [Spec]) -> result(catch supervisor:start_child(Sup, spec(Me, Spec)));
call(_, Sup, get_childspec, [Id]) ->
    case catch supervisor:get_childspec(Sup, Id) of
        {ok, M} -> [spec, maps:get(restart, M), maps:get(type, M), shutdown(maps:get(shutdown, M))];
        Other -> result(Other)
    end;
call(_, Sup, F, Args) -> result(catch apply(supervisor, F, [Sup | Args])).

result(ok) -> ok;
result({ok, undefined}) -> ignored;
result({ok, _}) -> ok;
result({ok, _, _}) -> ok;
result({error, {already_started, _}}) -> already_started;
result({error, no}) -> start_failed;
result({error, A}) when is_atom(A) -> A;
result({error, {invalid_child_type, _}}) -> invalid;
result({error, {bad_combination, _}}) -> invalid;
result({error, {_, _}}) -> start_failed;
result({error, {_, _, _}}) -> start_failed;
result({'EXIT', _}) -> exit;
result(X) -> X.

status(undefined) -> stopped;
status(restarting) -> restarting;
status(P) when is_pid(P) -> running.

shutdown(infinity) -> infinity;
shutdown(brutal_kill) -> kill;
shutdown(N) -> N.

reason({error, R}) -> reason(R);
reason({shutdown, {failed_to_start_child, Id, _}}) -> [failed_to_start, Id];
reason({start_spec, {duplicate_child_name, Id}}) -> [duplicate, Id];
reason({start_spec, _}) -> invalid;
reason({supervisor_data, _}) -> invalid;
reason({shutdown, _}) -> shutdown_x;
reason(R) when is_atom(R) -> R;
reason({R, St}) when is_atom(R), is_list(St) -> R;
reason(_) -> other.

pid({_, Tab}, Id) -> [{_, P}] = ets:lookup(Tab, {pid, Id}), P.

%% -- the tree -------------------------------------------------------------------------------------------------------

init({Me, Tree}) ->
    Flags = maps:with([strategy, intensity, period, auto_shutdown], Tree),
    {ok, {Flags, [spec(Me, C) || C <- maps:get(children, Tree, [])]}}.

spec(Me, C) ->
    Base = case maps:is_key(children, C) of
        true -> maps:merge(#{type => supervisor}, maps:with([id, restart, shutdown, significant], C));
        false -> maps:with([id, restart, shutdown, significant], C)
    end,
    Base#{start => {?MODULE, start_child, [Me, C]}}.

start_child({_, Tab} = Me, #{id := Id} = C) ->
    log(Me, [start, Id]),
    ets:insert(Tab, {{starter, Id}, self()}),
    N = ets:update_counter(Tab, {starts, Id}, 1, {{starts, Id}, 0}),
    Outcomes = maps:get(starts, C, [ok]),
    outcome(lists:nth(min(N, length(Outcomes)), Outcomes), Me, C).

outcome(ok, {_, Tab} = Me, #{children := _} = C) ->
    case supervisor:start_link(?MODULE, {Me, C}) of
        {ok, P} -> ets:insert(Tab, {{pid, maps:get(id, C)}, P}), {ok, P};
        Other -> log(Me, [failed, maps:get(id, C)]), Other
    end;
outcome(ok, {_, Tab} = Me, #{id := Id} = C) ->
    Starter = self(),
    P = spawn_link(?MODULE, worker, [Starter, Me, C]),
    receive {P, ready} -> ok end,
    ets:insert(Tab, {{pid, Id}, P}),
    {ok, P};
outcome(ignore, Me, #{id := Id}) -> log(Me, [ignored, Id]), ignore;
outcome(error, Me, #{id := Id}) -> log(Me, [failed, Id]), {error, no};
outcome(raise, Me, #{id := Id}) -> log(Me, [failed, Id]), error(boom);
outcome(hang, Me, #{id := Id} = C) -> receive {release, Id, O} -> outcome(O, Me, C) end.

worker(Starter, Me, #{id := Id} = C) ->
    process_flag(trap_exit, true),
    Starter ! {self(), ready},
    loop(Starter, Me, Id, maps:get(stop, C, ok)).

loop(Sup, Me, Id, Stop) ->
    receive
        {exit, R} -> exit(R);
        {'EXIT', Sup, R} ->
            log(Me, [term, Id, reason(R)]),
            case Stop of
                ok -> exit(R);
                stubborn -> loop(Sup, Me, Id, Stop);
                Other -> exit(Other)
            end
    end.

%% -- JSON -----------------------------------------------------------------------------------------------------------

json(A) when is_atom(A) -> ["\"", atom_to_list(A), "\""];
json(N) when is_integer(N) -> integer_to_list(N);
json(L) when is_list(L) -> ["[", lists:join(",", [json(X) || X <- L]), "]"];
json(T) when is_tuple(T) -> json(tuple_to_list(T)).
