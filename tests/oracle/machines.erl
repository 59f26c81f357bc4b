%% Plays scripts on gen_statem: each script is a list of events that all wait before the first is handled.
%% An event {ev, Id, Outcome, Actions} does what it says and is written down; so are timeouts and entries.
-module(machines).
-behaviour(gen_statem).
-export([main/1, init/1, callback_mode/0, handle_event/4]).

callback_mode() -> [handle_event_function, state_enter].

init(Observer) -> {ok, a, Observer}.

handle_event(enter, Old, New, Observer) ->
    Observer ! {log, ["enter ", w(Old), " ", w(New)]},
    keep_state_and_data;
handle_event({call, From}, done, _, _) ->
    {keep_state_and_data, [{reply, From, ok}]};
handle_event(Type, {ev, Id, Outcome, Actions}, State, Observer) ->
    Observer ! {log, [w(State), " ", name(Type), " ", w(Id)]},
    case Outcome of
        keep -> {keep_state_and_data, Actions};
        repeat -> {repeat_state_and_data, Actions};
        {goto, Next} -> {next_state, Next, Observer, Actions}
    end;
handle_event(Type, Id, State, Observer) ->
    Observer ! {log, [w(State), " ", name(Type), " ", w(Id)]},
    keep_state_and_data.

name(timeout) -> "event_timeout";
name({timeout, Name}) -> ["timeout ", w(Name)];
name(Type) -> w(Type).

w(Term) -> io_lib:format("~w", [Term]).

main([File]) ->
    {ok, [Scripts]} = file:consult(File),
    [io:format("~s~n", [lists:join(",", play(Script))]) || Script <- Scripts].

play(Script) ->
    {ok, Machine} = gen_statem:start(?MODULE, self(), []),
    sys:suspend(Machine),
    [gen_statem:cast(Machine, Event) || Event <- Script],
    sys:resume(Machine),
    ok = gen_statem:call(Machine, done),
    gen_statem:stop(Machine),
    collect().

collect() -> receive {log, Line} -> [lists:flatten(Line) | collect()] after 0 -> [] end.
