"""The scripts of docs/ranks.md print the same on any number of ranks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ranks.md").read_text()


def block(name, language):
    return re.search(rf"<!-- {name} -->\n```{language}\n(.*?)```", PAGE, re.S).group(1)


@pytest.mark.parametrize(
    ("name", "ranks"),
    [*(("ranks", n) for n in (0, 1, 2, 3, 4, 8)), *(("own", n) for n in (0, 1, 3, 4))],
)
def test_any_number_of_ranks_prints_the_same(tmp_path, name, ranks):
    script = tmp_path / "script.py"
    script.write_text(block(f"{name} example", "python"))
    command = [sys.executable, str(script)]
    if ranks:
        command = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(ranks), *command]
    # Of the step that talks each number of ranks would compile others: Python will do.
    no_jit = "1" if name == "own" else "0"
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "BACKSWEEP_NO_JIT": no_jit},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    # The value of the first misfit is the same as well: all its terms are records at points.
    assert done.stdout == block(f"{name} output", "text")
