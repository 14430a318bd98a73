"""Pictures and table of schedules.md.

python docs/schedules.py            prints the table
python docs/schedules.py --write    draws into docs/images/ and renews the table
"""

import re
import sys
from pathlib import Path

import matplotlib
from checkpoint_schedules import HRevolve, TwoLevelCheckpointSchedule

from backsweep.schedule import (
    Advance,
    Binomial,
    Discard,
    Keep,
    Level,
    Load,
    Mixed,
    Multistage,
    OnlineRun,
    Reverse,
    Store,
    StoreAll,
    from_checkpoint_schedules,
    mixed_forward_steps,
    simulate,
)

matplotlib.use("Agg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).with_name("images")
PAGE = Path(__file__).with_name("schedules.md")
STATE, RESIDUALS, RUN, BACK = "#9aa5b1", "#e08e0b", "#1f5fa8", "#c0392b"
N = 24


def schedules():
    """What is drawn, by the name of its picture."""
    two_level = TwoLevelCheckpointSchedule(6, 2)
    return {
        "store-all": ("StoreAll(24)", StoreAll(N)),
        "binomial": ("Binomial(24, 4)", Binomial(N, 4)),
        "multistage": ("Multistage(24, 2, 2)", Multistage(N, 2, 2)),
        "mixed": ("Mixed(24, 4)", Mixed(N, 4)),
        "online": ("Online(4), ended at 24", OnlineRun(N, 4)),
        "h-revolve": ("HRevolve(24, 2, 2)", from_checkpoint_schedules(HRevolve(N, 2, 2), N)),
        "two-level": ("TwoLevel(6, 2)", from_checkpoint_schedules(two_level, N)),
    }


def draw(axes, schedule):
    """Steps against the number of actions executed."""
    since = {}
    for t, action in enumerate(schedule.actions()):
        match action:
            case Advance(start, stop):
                axes.plot([t, t + 1], [start, stop], color=RUN, lw=1.6)
            case Reverse(start, stop):
                axes.plot([t, t + 1], [stop, start], color=BACK, lw=1.6)
            case Store(step, level) | Keep(step, level):
                since[step, level] = t, isinstance(action, Keep)
                if isinstance(action, Keep):
                    axes.plot([t, t + 1], [step, step + 1], color=RUN, lw=1.6)
            case Load(step, _):
                axes.plot([t + 0.5], [step], ".", color="k", ms=3)
            case Discard(step, level):
                begin, is_kept = since.pop((step, level))
                style = "--" if level is Level.DISK else "-"
                color = RESIDUALS if is_kept else STATE
                axes.plot([begin, t], [step, step], style, color=color, lw=1, zorder=0)


def draw_all():
    """One small picture for each schedule."""
    for name, (title, schedule) in schedules().items():
        figure, axes = plt.subplots(figsize=(5.4, 2.5), layout="constrained")
        draw(axes, schedule)
        counts = simulate(schedule)
        axes.set_title(f"{title}: {counts.n_advances} advances", fontsize=9)
        axes.set_xlabel("actions executed", fontsize=8)
        axes.set_ylabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set(xlim=(0, counts.n_actions), ylim=(-0.5, N + 0.5))
        figure.savefig(IMAGES / f"schedule-{name}.png", dpi=100)
        plt.close(figure)


def table():
    """Advances of a thousand steps."""
    n, sizes = 1000, (5, 10, 20, 50, 100)
    lines = ["| | " + " | ".join(f"s = {s}" for s in sizes) + " |", "|---|" + "---|" * len(sizes)]

    def add(name, count):
        lines.append(f"| {name} | " + " | ".join(str(count(s)) for s in sizes) + " |")

    add("`Binomial`, `Multistage`", lambda s: Binomial(n, s).n_advances)
    add("`Online`", lambda s: OnlineRun(n, s).n_advances)
    add("`Mixed`", lambda s: Mixed(n, s).n_advances)
    add("`Mixed`, advances and reverses from a state", lambda s: mixed_forward_steps(n, s) + 1)
    add("`Binomial`, the same", lambda s: Binomial(n, s).n_advances + n)
    add("`Binomial`, stores", lambda s: simulate(Binomial(n, s)).n_stores)
    add("`Online`, stores", lambda s: simulate(OnlineRun(n, s)).n_stores)
    return "\n".join(lines)


def main():
    """Print the table, or renew the page."""
    if "--write" not in sys.argv:
        print(table())
        return
    draw_all()
    text = re.sub(
        r"(<!-- advances -->\n).*?(<!-- end -->)",
        lambda match: match[1] + table() + "\n" + match[2],
        PAGE.read_text(),
        flags=re.S,
    )
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
