#!/usr/bin/env bash
# Erlang: thousands of processes on several schedulers, messages, maps, binaries, tables, code compiled at run time; its own
# allocators, and then all of them turned off, so that every block is malloc's.
# packages: erlang-base
# program: beam.smp
set -euo pipefail
cat >program.erl <<'EOF'
-module(program).
-export([main/1]).
main([Argument]) ->
    N = list_to_integer(Argument),
    Numbers = numbers(N, 1, []),
    Map = lists:foldl(fun(X, M) -> maps:update_with(X rem 3000, fun(L) -> [X | L] end, [X], M) end, #{}, Numbers),
    io:format("maps ~w ~w~n", [maps:size(Map), erlang:phash2(lists:sort(maps:to_list(Map)))]),
    Binary = << <<(integer_to_binary(X))/binary, " ">> || X <- Numbers >>,
    Parts = binary:split(Binary, <<"1">>, [global]),
    io:format("binaries ~w ~w ~w~n", [byte_size(Binary), length(Parts), erlang:crc32(binary:replace(Binary, <<"7">>, <<"seven">>, [global]))]),
    Table = ets:new(table, [ordered_set, public]),
    Self = self(),
    Pids = [spawn_link(fun() ->
        [ets:insert(Table, {{K, I}, binary:copy(<<"v">>, I rem 300)}) || I <- lists:seq(1, N div 200)],
        receive {sum, List} -> Self ! {self(), lists:sum(List)} end
    end) || K <- lists:seq(1, 500)],
    [P ! {sum, lists:sublist(Numbers, 1, 100)} || P <- Pids],
    io:format("processes ~w~n", [lists:sum([receive {P, S} -> S end || P <- Pids])]),
    io:format("tables ~w ~w~n", [ets:info(Table, size), ets:foldl(fun({_, V}, A) -> A + byte_size(V) end, 0, Table)]),
    ets:delete(Table),
    Ring = lists:foldl(fun(_, Next) -> spawn_link(fun() -> ring(Next) end) end, Self, lists:seq(1, 1000)),
    [Ring ! {token, I, binary:copy(<<"t">>, 100)} || I <- lists:seq(1, 20)],
    io:format("ring ~w~n", [lists:sum([receive {token, I, B} -> I + byte_size(B) end || _ <- lists:seq(1, 20)])]),
    io:format("numbers ~w~n", [erlang:crc32(integer_to_binary(lists:foldl(fun(A, B) -> A * B end, 1, lists:seq(1, 1500))))]),
    io:format("terms ~w~n", [erlang:phash2(binary_to_term(term_to_binary(Map, [compressed])) =:= Map)]),
    erlang:garbage_collect(),
    io:format("regex ~w~n", [element(2, re:run(Binary, "(\\d)\\1\\1", [{capture, first, index}]))]),
    halt(0).
numbers(0, _, List) -> List;
numbers(N, X, List) -> numbers(N - 1, X * 16807 rem 2147483647, [X | List]).
ring(Next) -> receive Message -> Next ! Message, ring(Next) end.
EOF
n=100000
[ "${1:-}" != brief ] || n=300
erlc +deterministic program.erl
erl -noinput +S 2:2 -pa . -run program main "$n"
erl -noinput +S 2:2 +Mea min -pa . -run program main "$n"
