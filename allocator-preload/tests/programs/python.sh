#!/usr/bin/env bash
# Python: its own regression tests of what allocates; those of its objects with every object from malloc, those of threads and
# processes as usual. Prints the outcome of each test.
# packages: python3 libpython3.*-testsuite
# program: python3
# bindings: brief
set -euo pipefail
cat >run.py <<'EOF'
"""Runs a module of tests; what it prints goes to a file, but for what went wrong."""
import os, re, sys, unittest
from test import support

# These mostly wait, or take a second for what others do, too.
left_out = re.compile(r"timeout|_dead$|Queue\w*\.test_(basic|failing_queue)|NoPoll|after_stdout_close|nondaemon_on_shutdown|_fds"
                      r"|weak_(key|value)_dict_(deep)?copy|(Barrier|Lock|Event|Semaphore|Condition\w*|Timer)Tests|test_trashcan|blowup"
                      r"|threaded_weak_valued_consistency|PySimpleQueue")

results = os.fdopen(os.dup(1), "w")
noise = os.open("noise", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(noise, 1)
os.dup2(noise, 2)
support.use_resources = []  # nothing that is large, slow or far away

class Result(unittest.TestResult):
    def say(self, test, outcome):
        print(test.id(), outcome, file=results, flush=True)
    def addSuccess(self, test): self.say(test, "ok")
    def addSkip(self, test, reason): self.say(test, "skipped")
    def addExpectedFailure(self, test, error): self.say(test, "ok")
    def wrong(self, test, error):
        self.failures.append(test)
        self.say(test, "FAILED\n" + self._exc_info_to_string(error, test))
    addFailure = addError = wrong
    def addSubTest(self, test, subtest, error):
        if error: self.wrong(subtest, error)

def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite): yield from flat(test)
        elif not left_out.search(test.id()): yield test

result = Result()
unittest.TestSuite(flat(unittest.defaultTestLoader.loadTestsFromName(sys.argv[1]))).run(result)
print(result.testsRun, "tests", file=results, flush=True)
sys.exit(bool(result.failures))
EOF
if [ "${1:-}" = brief ]; then
    python3 -c 'import array, asyncio, bz2, ctypes, decimal, json, lzma, mmap, multiprocessing.pool, pickle, re, sqlite3, ssl, threading, unicodedata, zlib; t = threading.Thread(target=print, args=("thread",)); t.start(); t.join()'
    exit
fi
# A process for each, because they collect garbage all the time, and the modules of the others would be searched for it.
for module in list dict deque json array bytes heapq ordered_dict re struct weakref gc zlib sort memoryview generators ctypes; do
    PYTHONMALLOC=malloc python3 run.py "test.test_$module"
done
for module in threading subprocess queue mmap thread; do python3 run.py "test.test_$module"; done
