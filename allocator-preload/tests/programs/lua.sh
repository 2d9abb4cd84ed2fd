#!/usr/bin/env bash
# Lua: tables, strings, closures, coroutines, and both ways of collecting garbage.
# packages: lua5.4
# program: lua.*
set -euo pipefail
cat >program.lua <<'EOF'
local n = tonumber(arg[1])
local x = 1
local function draw() x = x * 16807 % 2147483647 return x end
local function digest(text)
  local h = 5381
  for i = 1, #text do h = (h * 33 + text:byte(i)) & 0xffffffff end
  return ("%08x"):format(h)
end

local function work(name)
  local t = {}
  for i = 1, n do
    local k = "key" .. draw() % 5000
    t[k] = (t[k] or "") .. string.char(97 + x % 26)
  end
  local keys = {}
  for k in pairs(t) do keys[#keys + 1] = k end
  table.sort(keys)
  for i, k in ipairs(keys) do keys[i] = k .. "=" .. t[k] end
  print(name, "tables", #keys, digest(table.concat(keys, ",")))

  local list = {}
  for i = 1, n do list[i] = { number = draw() % 1000, name = "n" .. i } end
  table.sort(list, function(a, b)
    if a.number ~= b.number then return a.number < b.number end
    return a.name < b.name
  end)
  for i = #list, 1, -3 do list[i] = list[#list]; list[#list] = nil end
  print(name, "lists", #list, list[1].name, list[#list].name)

  local words = {}
  for i = 1, n do words[i] = "word" .. draw() % 300 end
  local text = table.concat(words, " ")
  local changed, count = text:gsub("word(%d)(%d*)", "%2-%1")
  print(name, "strings", #changed, count, digest(changed), select(2, text:gsub("%f[%d]1%d+", "")))

  local closures = {}
  for i = 1, n do local c = i; closures[i] = function(d) c = c + d return c end end
  local sum = 0
  for i = 1, n do sum = sum + closures[i](2) end
  print(name, "closures", sum)

  sum = 0
  for i = 1, n // 20 do
    local co = coroutine.wrap(function(a) for j = 1, 5 do a = a + coroutine.yield(a * j) end return 0 end)
    for j = 1, 5 do sum = sum + co(j) end
  end
  print(name, "coroutines", sum)

  local weak, closed = setmetatable({}, { __mode = "k" }), 0
  for i = 1, n // 10 do weak[setmetatable({}, { __gc = function() closed = closed + 1 end })] = ("v"):rep(i % 100) end
  collectgarbage()
  collectgarbage()
  print(name, "collected", closed, next(weak))
  local code = {}
  for i = 1, n // 50 do code[i] = "s = s + " .. i end
  print(name, "load", load("local s = 0 " .. table.concat(code, " ") .. " return s")())
end

collectgarbage("incremental")
work("incremental")
collectgarbage("generational")
work("generational")
EOF
lua5.4 program.lua "$([ "${1:-}" = brief ] && echo 100 || echo 100000)"
