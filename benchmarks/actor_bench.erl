%% The same work as benchmarks/actors.py on a real Erlang: prints `name value` lines, microseconds or bytes each.
-module(actor_bench).
-behaviour(gen_server).
-export([main/0, start_link/0, init/1, handle_call/3, handle_cast/2, handle_info/2]).

start_link() -> gen_server:start_link(?MODULE, idle, []).
init({sup, Spec}) -> Spec;
init(idle) -> {ok, 0}.
handle_call(Request, _From, State) -> {reply, Request, State}.
handle_cast({notify, To}, State) -> To ! done, {noreply, State};
handle_cast(_, State) -> {noreply, State + 1}.
handle_info({next, Pid}, _) -> {noreply, Pid};
handle_info({hop, 0, To}, Next) -> To ! done, {noreply, Next};
handle_info({hop, N, To}, Next) -> Next ! {hop, N - 1, To}, {noreply, Next}.

us(T) -> erlang:convert_time_unit(T, native, nanosecond) / 1000.
timed(F) -> T = erlang:monotonic_time(), R = F(), {us(erlang:monotonic_time() - T), R}.
say(Name, Value) -> io:format("~s ~.3f~n", [Name, Value * 1.0]).
times(0, _) -> ok;
times(N, F) -> F(), times(N - 1, F).

main() ->
    logger:set_primary_config(level, none),
    [scale(N) || N <- [10000, 100000]],
    {ok, P} = start_link(),
    times(10000, fun() -> gen_server:call(P, x) end),
    {Ask, _} = timed(fun() -> times(200000, fun() -> gen_server:call(P, x) end) end),
    say("ask", Ask / 200000),
    {Pipe, _} = timed(fun() -> times(1000, fun() ->
        Ids = [gen_server:send_request(P, x) || _ <- lists:seq(1, 100)],
        [gen_server:wait_response(Id, infinity) || Id <- Ids] end) end),
    say("pipelined", Pipe / 100000),
    Self = self(),
    {Cast, _} = timed(fun() -> times(200000, fun() -> gen_server:cast(P, x) end),
        gen_server:cast(P, {notify, Self}), receive done -> ok end end),
    say("tell", Cast / 200000),
    Ring = [element(2, start_link()) || _ <- lists:seq(1, 1000)],
    [A ! {next, B} || {A, B} <- lists:zip(Ring, tl(Ring) ++ [hd(Ring)])],
    {Hops, _} = timed(fun() -> hd(Ring) ! {hop, 100000, Self}, receive done -> ok end end),
    say("ring", Hops / 100000),
    init:stop().

scale(N) ->
    erlang:garbage_collect(), timer:sleep(100),
    Child = #{id => c, start => {?MODULE, start_link, []}, restart => temporary, shutdown => 5000},
    {ok, Sup} = supervisor:start_link(?MODULE, {sup, {ok, {#{strategy => simple_one_for_one}, [Child]}}}),
    unlink(Sup),
    Before = erlang:memory(total),
    {Start, Pids} = timed(fun() -> [element(2, supervisor:start_child(Sup, [])) || _ <- lists:seq(1, N)] end),
    Bytes = (erlang:memory(total) - Before) / N,
    Self = self(),
    {Burst, _} = timed(fun() ->
        [gen_server:cast(P, {notify, Self}) || P <- Pids],
        [receive done -> ok end || _ <- Pids] end),
    {Stop, _} = timed(fun() -> M = monitor(process, Sup), catch sys:terminate(Sup, shutdown, infinity),
        receive {'DOWN', M, _, _, _} -> ok end end),
    Label = integer_to_list(N),
    say("start-" ++ Label, Start / N), say("bytes-" ++ Label, Bytes),
    say("burst-" ++ Label, Burst / N), say("stop-" ++ Label, Stop / N).
