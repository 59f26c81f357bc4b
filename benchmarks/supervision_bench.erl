%% The same work on a real Erlang, one line for each measurement: name, a space, microseconds.
-module(supervision_bench).
-export([main/0, init/1, start_worker/1, handle_call/3, handle_cast/2]).

start_worker(Watcher) -> gen_server:start_link(?MODULE, {worker, Watcher}, []).
init({worker, none}) -> {ok, none};
init({worker, Watcher}) -> Watcher ! {up, self(), erlang:monotonic_time(nanosecond)}, {ok, Watcher};
init({sup, R}) -> {ok, R}.
handle_call(M, _, S) -> {reply, M, S}.
handle_cast(crash, _) -> error(boom).

spec(Id, Watcher) -> #{id => Id, start => {?MODULE, start_worker, [Watcher]}, shutdown => 5000}.
simple(Restart) -> {#{strategy => simple_one_for_one, intensity => 1000000, period => 1},
                    [(spec(w, none))#{restart => Restart, start => {?MODULE, start_worker, []}}]}.

main() ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    {ok, S} = supervisor:start_link(?MODULE, {sup, {#{intensity => 1000000, period => 1}, [spec(w, self())]}}),
    First = receive {up, P0, _} -> P0 end,
    {_, Ts} = lists:foldl(fun(_, {P, Acc}) ->
        T = erlang:monotonic_time(nanosecond), gen_server:cast(P, crash),
        receive {up, N, T2} -> {N, [T2 - T | Acc]} end end, {First, []}, lists:seq(1, 1000)),
    Sorted = lists:sort(Ts),
    say(crash_p50, lists:nth(500, Sorted) / 1000), say(crash_p99, lists:nth(990, Sorted) / 1000),
    stop(S),
    [begin
        {ok, D} = supervisor:start_link(?MODULE, {sup, simple(temporary)}),
        {T, _} = timer:tc(fun() -> [{ok, _} = supervisor:start_child(D, [none]) || _ <- lists:seq(1, N)] end),
        say({dynamic_start, N}, T / N),
        {W, _} = timer:tc(fun() -> supervisor:which_children(D) end), say({which, N}, W),
        {X, _} = timer:tc(fun() -> stop(D) end), say({dynamic_stop, N}, X / N)
     end || N <- [10000, 100000]],
    N = 10000,
    Specs = [spec(I, none) || I <- lists:seq(1, N)],
    {T, {ok, O}} = timer:tc(fun() -> supervisor:start_link(?MODULE, {sup, {#{}, Specs}}) end), say({static_start, N}, T / N),
    {X, _} = timer:tc(fun() -> stop(O) end), say({static_stop, N}, X / N),
    {ok, R} = supervisor:start_link(?MODULE, {sup, simple(permanent)}),
    Kids = [begin {ok, K} = supervisor:start_child(R, [self()]), receive {up, _, _} -> K end end || _ <- lists:seq(1, 1000)],
    {Y, _} = timer:tc(fun() -> [exit(K, kill) || K <- Kids], [receive {up, _, _} -> ok end || _ <- Kids] end), say(storm, Y),
    stop(R).

stop(S) -> M = monitor(process, S), unlink(S), exit(S, shutdown), receive {'DOWN', M, _, _, _} -> ok end.
say({Name, N}, V) -> io:format("~s_~p ~.3f~n", [Name, N, V * 1.0]);
say(Name, V) -> io:format("~s ~.3f~n", [Name, V * 1.0]).
