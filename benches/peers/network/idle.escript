#!/usr/bin/env escript
%%! +P 2097152 -noinput
%% Resident bytes of an idle process, key and directory included: idle.escript plain|hibernated|raw COUNT
-mode(compile).
-export([init/1, handle_call/3, handle_cast/2]).

main([Form, Text]) ->
    Count = list_to_integer(Text),
    Table = ets:new(directory, [set, public]),
    Before = resident(),
    [start(Form, Table, Number) || Number <- lists:seq(1, Count)],
    erlang:garbage_collect(),
    After = resident(),
    %% Each is there and answers.
    1 = call(Form, Table, 1),
    1 = call(Form, Table, Count),
    io:format("~b~n", [(After - Before) div Count]).

start(Form, Table, Number) ->
    ets:insert(Table, {key(Number), spawned(Form)}).

spawned("raw") -> spawn(fun() -> wait(state()) end);
spawned(Form) -> {ok, Pid} = gen_server:start(?MODULE, Form, []), Pid.

key(Number) -> iolist_to_binary(io_lib:format("twin/~8..0b", [Number])).

%% 25 numbers of 8 bytes, as everybody has.
state() -> list_to_tuple(lists:duplicate(25, 0)).

wait(State) ->
    receive
        {From, increment} ->
            Count = element(1, State) + 1,
            From ! {answer, Count},
            wait(setelement(1, State, Count))
    end.

call(Form, Table, Number) ->
    [{_, Pid}] = ets:lookup(Table, key(Number)),
    case Form of
        "raw" -> Pid ! {self(), increment}, receive {answer, Count} -> Count end;
        _ -> gen_server:call(Pid, increment)
    end.

init("plain") -> {ok, state()};
init("hibernated") -> {ok, state(), hibernate}.

handle_call(increment, _, State) ->
    Count = element(1, State) + 1,
    {reply, Count, setelement(1, State, Count)}.

handle_cast(_, State) -> {noreply, State}.

resident() ->
    {ok, File} = file:open("/proc/self/statm", [read]),
    {ok, Line} = file:read_line(File),
    ok = file:close(File),
    [_, Pages | _] = string:tokens(Line, " "),
    list_to_integer(Pages) * 4096.
