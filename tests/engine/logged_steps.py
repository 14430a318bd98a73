"""Run as a program: the gradient of `resumable`, which logs every piece of work and every point.

python logged_steps.py FOLDER LOG '{"snapshots": 12}'

Lines of the log are JSON lists that begin with a word and the process's seconds of computing:
"from" and where the run goes on; "steps", how many were advanced and reversed so far, and the
seconds of the call that was the last; "point", when its state is taken, with its generation and
where a run would go on from there; "over", when the gradient is there. What is written stays when
the process is killed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np
import resumable

from backsweep.runtime.sweeper import Sweeper
from backsweep.schedule import ADVANCE, REVERSE
from backsweep.storage.durable import DurableFolder


def log_to(path: str) -> None:
    """From now on each call of compiled code and each durable point leave a line."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    done = {ADVANCE: 0, REVERSE: 0}
    run = Sweeper.run
    save, latest, clear = DurableFolder.save, DurableFolder.latest, DurableFolder.clear

    def write(kind: str, *values: Any) -> None:
        line = json.dumps([kind, time.process_time(), *values]) + "\n"
        os.write(file, line.encode())

    def where(notes: Any) -> list[Any]:
        return [notes.get(name) for name in ("event", "done", "step", "end")]

    def logged_run(self: Sweeper, table: np.ndarray) -> None:
        begin = time.process_time()
        if not any(done.values()):
            write("steps", 0, 0, 0.0)
        run(self, table)
        for kind in done:
            rows = table[table[:, 0] == kind]
            done[kind] += int(np.sum(rows[:, 2] - rows[:, 1]))
        write("steps", *done.values(), time.process_time() - begin)

    def logged_save(self: DurableFolder, arrays: Any, notes: Any, **others: Any) -> int:
        write("point", self._next_number(), where(notes))
        return save(self, arrays, notes, **others)

    def logged_latest(self: DurableFolder, **others: Any) -> Any:
        point = latest(self, **others)
        write("from", where(point.notes) if point is not None else None)
        return point

    def logged_clear(self: DurableFolder) -> None:
        write("over")
        clear(self)

    Sweeper.run = logged_run  # type: ignore[method-assign]
    DurableFolder.save = logged_save  # type: ignore[method-assign]
    DurableFolder.latest = logged_latest  # type: ignore[method-assign]
    DurableFolder.clear = logged_clear  # type: ignore[method-assign]


if __name__ == "__main__":
    log_to(sys.argv[2])
    resumable.main(sys.argv[1], json.loads(sys.argv[3]))
