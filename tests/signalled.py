"""A Python program that gets a signal at a set moment: python signalled.py SIGNAL MOMENT WHAT PROGRAM OPTIONS...

MOMENT is the name of an audit event of Python's (open, os.rename, import, ...) and WHAT a pattern that its first
argument has; or it is "call:N", the N-th call of the function WHAT, "MODULE:NAME"; or "inside:PATH", and WHAT a pattern
of "FILE:FUNCTION" in which the main thread is after PATH is made. So it depends on nothing but the program's own
course, not on how fast the machine is. PROGRAM is a file, or -m and a module.
"""

import importlib
import itertools
import os
import re
import runpy
import sys
import threading
import time
from functools import reduce

sent = []


def send():
    if not sent:
        sent.append(True)
        os.kill(os.getpid(), signum)


def count(number, target):
    module, name = target.split(":")
    *path, last = name.split(".")
    owner = reduce(getattr, path, importlib.import_module(module))
    function, calls = getattr(owner, last), itertools.count(1)

    def counted(*arguments, **options):
        if next(calls) == number:
            send()
        return function(*arguments, **options)

    setattr(owner, last, counted)


def audit(event, arguments):
    if event == moment and not sent and what.search(str(arguments[0])):
        send()


def watch(path):
    while not sent:
        frame = sys._current_frames()[threading.main_thread().ident]
        if what.search(f"{frame.f_code.co_filename}:{frame.f_code.co_name}") and os.path.exists(path):
            send()
        time.sleep(0.001)


if __name__ == "__main__":
    signum, moment, what = int(sys.argv[1]), sys.argv[2], re.compile(sys.argv[3])
    sys.argv[:4] = []
    if moment.startswith("call:"):
        count(int(moment.partition(":")[2]), what.pattern)
    elif moment.startswith("inside:"):
        threading.Thread(target=watch, args=(moment.partition(":")[2],), daemon=True).start()
    else:
        sys.addaudithook(audit)
    sys.path[0] = os.getcwd()
    if sys.argv[0] == "-m":
        runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
