"""The entry point: commands, and one clear sentence for each error.

Exit codes: 0 done; 1 an unexpected error (a bug, ours or of the user's module); 2 wrong use, or
something that the run needs is missing; 85 after SIGUSR1 or SIGTERM, when an inversion is kept and
the same command goes on with it; 130 after Ctrl-C, when it is kept as well. Without anything to go
on with 143 after SIGTERM.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from backsweep import config
from backsweep.cli import interrupt
from backsweep.comm import Agreed
from backsweep.errors import BacksweepError, Stopped

app = typer.Typer(
    help="Gradients of long simulations: inversions and designs from run files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunPath = Annotated[Path, typer.Argument(metavar="RUN.toml", help="The run file.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the run file; repeatable."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a result that is there.")]


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Gradients of long simulations: inversions and designs from run files."""
    _state["debug"] = debug


@app.command()
def invert(
    run: RunPath,
    changes: Changes = None,
    overwrite: Overwrite = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over, whatever there is to resume.")
    ] = False,
) -> None:
    """Find the parameters that explain the data; the same command resumes what was killed."""
    from backsweep.cli.inversion import run_inversion

    _guarded(run_inversion, run, changes or [], overwrite, fresh)


@app.command()
def gradient(
    run: RunPath,
    changes: Changes = None,
    overwrite: Overwrite = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over, whatever there is to resume.")
    ] = False,
    items: Annotated[
        str,
        typer.Option(
            metavar="FIRST:END|K/N",
            help="Only these items: a part, for `reduce`. K/N: the K-th of N shares.",
        ),
    ] = "",
    model: Annotated[str, typer.Option(help="start, true, or a result file.")] = "start",
    stage: Annotated[int, typer.Option(help="Of the run file, the first is 1.")] = 1,
    output: Annotated[
        Path | None, typer.Option(help="Default: gradient.h5, or part-FIRST-END.h5.")
    ] = None,
) -> None:
    """Misfit and gradient at one model, of all items or of some."""
    from backsweep.cli.gradients import run_gradient

    _guarded(run_gradient, run, changes or [], items, model, stage, output, overwrite, fresh)


@app.command()
def reduce(
    parts: Annotated[list[Path], typer.Argument(metavar="PART.h5...", help="From `gradient`.")],
    output: Annotated[Path, typer.Option(help="File for the sum.")] = Path("gradient.h5"),
    overwrite: Overwrite = False,
) -> None:
    """Add up the parts of a gradient: the same bits as those of one job."""
    from backsweep.cli.gradients import reduce_parts

    _guarded(reduce_parts, parts, output, overwrite)


@app.command()
def forward(
    run: RunPath,
    changes: Changes = None,
    overwrite: Overwrite = False,
    model: Annotated[str, typer.Option(help="start, true, or a result file.")] = "start",
    output: Annotated[Path, typer.Option(help="File for the data.")] = Path("data.h5"),
) -> None:
    """Simulate the data of all items."""
    from backsweep.cli.commands import run_forward

    _guarded(run_forward, run, changes or [], model, output, overwrite)


@app.command()
def plan(
    run: RunPath,
    changes: Changes = None,
    sweep: Annotated[
        Path | None, typer.Option(help="Draw time against memory to this file (.png).")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure this machine; predict runs on more ranks.")
    ] = False,
    machine: Annotated[
        Path | None, typer.Option(help="What --save wrote, on this machine or another one.")
    ] = None,
    ranks: Annotated[str, typer.Option(help="Of the predicted runs, such as 1,64,4096.")] = "",
    ranks_per_node: Annotated[int | None, typer.Option(help="Default: one for each core.")] = None,
    threads_per_rank: Annotated[
        int | None, typer.Option(help="Default: a rank's share of the cores.")
    ] = None,
    shots: Annotated[int | None, typer.Option(help="Instead of the run file's number.")] = None,
    save: Annotated[Path | None, typer.Option(help="File for what is measured (.toml).")] = None,
) -> None:
    """Tell what a gradient will cost: bytes, steps, seconds. Only trial steps are run."""
    from backsweep.cli.plans import print_plan
    from backsweep.cli.scaling import Asked, print_scaling

    asked = Asked(measure, machine, ranks, ranks_per_node, threads_per_rank, shots, save, sweep)
    if asked.is_asked:
        _guarded(print_scaling, run, changes or [], asked)
    else:
        _guarded(print_plan, run, changes or [], sweep)


@app.command()
def check(
    run: RunPath,
    changes: Changes = None,
    item: Annotated[int, typer.Option(help="Which item, such as a shot, is checked.")] = 0,
) -> None:
    """Test the gradient of this very problem: dot product, finite difference, Taylor."""
    from backsweep.cli.commands import check_gradient

    _guarded(check_gradient, run, changes or [], item)


@app.command()
def show(
    result: Annotated[Path, typer.Argument(metavar="RESULT.h5", help="A result file.")],
    output: Annotated[Path | None, typer.Option(help="File for the picture (.png).")] = None,
) -> None:
    """Say what a result holds, and draw it."""
    from backsweep.cli.pictures import show_result

    _guarded(show_result, result, output)


@app.command()
def demo(changes: Changes = None) -> None:
    """See a subsurface appear from seismic records that the code makes itself."""
    from backsweep.cli.inversion import run_inversion

    # Whatever is found under its name: overwritten, and not resumed.
    _guarded(run_inversion, Path(__file__).with_name("demo.toml"), changes or [], True, True)


_state = {"debug": False}


def main() -> None:
    """Parse the arguments and run a command."""
    _hush_other_ranks()
    interrupt.die_at_once()
    app()


def _guarded(command: Callable[..., None], *args: Any) -> None:
    """Run a command; end with its exit code."""
    try:
        command(*args)
    except Agreed as error:
        _say(error, config.launched_rank() in (None, 0))
        sys.exit(2)
    except BacksweepError as error:
        _end(error, 2)
    except Stopped as stopped:  # which all ranks raise
        sys.exit(stopped.code)
    except KeyboardInterrupt:
        _end(None, interrupt.exit_code())
    except SystemExit as error:  # of the user's module, on this rank alone
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        _end(error, code, f"the program called exit({error.code!r})")
    except MemoryError as error:
        _end(error, 2, "not enough memory: lower checkpointing.memory, or use fewer ranks")
    except Exception as error:
        _end(error, 1, _unexpected(error))


def _hush_other_ranks() -> None:
    if config.launched_rank() not in (None, 0):
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the end


def _say(error: BaseException | None, is_heard: bool, message: str = "") -> None:
    if error is None or not is_heard or sys.__stderr__ is None:
        return
    if _state["debug"]:
        traceback.print_exception(error, file=sys.__stderr__)
    print(f"backsweep: {message or error}", file=sys.__stderr__, flush=True)


def _end(error: BaseException | None, code: int, message: str = "") -> None:
    """End this process, and with it the other ranks, which would wait for it for ever."""
    rank = config.launched_rank()
    where = f"rank {rank}: " if rank else ""
    _say(error, True, where + (message or str(error)))
    if config.n_launched() in (None, 1):
        sys.exit(code)
    from backsweep.comm.mpi import abort_all

    abort_all(code)


def _unexpected(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = Path(__file__).parent.parent
    users = [f for f in frames if not Path(f.filename).is_relative_to(own)]
    place = (users or frames)[-1] if frames else None
    where = f" at {place.filename}, line {place.lineno}" if place else ""
    return (
        f"unexpected {type(error).__name__}{where}: {error} (backsweep --debug ... shows the "
        "traceback)"
    )
