"""The figure of time against memory in README.md, and the printed plan of checkpointing.md.

python docs/budget.py            prints the figures
python docs/budget.py --write    draws docs/images/budget.png and renews the page (a minute)
"""

import re
import statistics
import sys
import time
from pathlib import Path

import numpy as np

import backsweep as bs
from backsweep.api.planning import budget_sweep
from backsweep.cli.pictures import draw_budgets

HERE = Path(__file__).parent
SHAPE, N_STEPS = (300, 300), 2000


def make_misfit(memory):
    """Waves on 300 x 300 points, recorded along a line."""
    checkpointing = bs.Checkpointing(memory=memory)
    wavelet = np.exp(-(((np.arange(N_STEPS) - 60) / 20) ** 2)).astype(np.float32)
    quiet = np.zeros(SHAPE, np.float32)

    def misfit(c2):
        def step(state, w):
            u, u_prev = state
            u_next = 2 * u - u_prev
            sides = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2]
            u_next[1:-1, 1:-1] += c2[1:-1, 1:-1] * (sides - 4 * u[1:-1, 1:-1])
            u_next[5, 150] += w
            return (u_next, u), u_next[5, ::3]

        _, records = bs.scan(step, (quiet, quiet), wavelet, checkpointing=checkpointing)
        return 0.5 * np.sum(records**2)

    return misfit


def measure(memory, c2, repeats=3):
    gradient = bs.value_and_grad(make_misfit(memory))
    gradient(c2)
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        gradient(c2)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main():
    c2 = np.full(SHAPE, 0.2, np.float32)
    text = str(bs.plan(make_misfit("20 MB"), measure=True)(c2))
    print(text)
    rows = budget_sweep(make_misfit("20 MB"), 60)(c2)
    budgets = np.geomspace(rows[0][0] * 2.2, rows[-1][0] * 1.02, 9).astype(int).tolist()
    measured = [(b, measure(b, c2)) for b in budgets]
    for budget, seconds in measured:
        print(f"{budget / 1e6:8.1f} MB {seconds:.3f} s")
    if "--write" in sys.argv[1:]:
        draw_budgets(rows, HERE / "images" / "budget.png", measured=measured)
        page = HERE / "checkpointing.md"
        block = f"<!-- plan -->\n```text\n{text}\n```\n<!-- end -->"
        page.write_text(
            re.sub(r"<!-- plan -->.*?<!-- end -->", lambda _: block, page.read_text(), flags=re.S)
        )


if __name__ == "__main__":
    main()
