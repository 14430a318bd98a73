"""All rows of the table, one script after the other.

    python -m benchmarks [SCRIPT ...] [--marmousi2 FOLDER] [--repeat N] [--write]

Results are kept in output/benchmarks, so that single scripts can be measured again; `--write` makes
the table in docs/benchmarks.md of all that are there and leaves the text around it alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, make_parser
from benchmarks.table import update_page

SCRIPTS = (
    "acoustic",
    "bloch",
    "pair_forces",
    "shallow_water",
    "hdf5",
    "budgets",
    "heat",
    "first_call",
    "shots",
    "marmousi2",
)
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "output" / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"


def run(script: str, options: list[str]) -> bool:
    """Measure one script's rows; a failure is kept as such."""
    path = RESULTS / f"{script}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"benchmarks.{script}", "--json", str(path), *options]
    status = subprocess.run(command, check=False, cwd=ROOT).returncode
    if status:
        print(f"{script} failed with status {status}", flush=True)
        path.write_text(json.dumps({"failed": f"status {status}"}) + "\n")
    return status == 0


def load(script: str) -> dict[str, Any] | None:
    """What a script left, with its rows as `Row`s; None if it was not measured."""
    path = RESULTS / f"{script}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    record["rows"] = [Row(**row) for row in record.get("rows", ())]
    return record


def main() -> int:
    parser = make_parser(__doc__)
    parser.set_defaults(repeat=None)
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help=f"of {', '.join(SCRIPTS)}")
    parser.add_argument("--marmousi2", metavar="FOLDER", help="with the two .mat files")
    parser.add_argument("--maxfun", type=int, default=40, help="of the inversion of Marmousi2")
    parser.add_argument("--write", action="store_true", help=f"to {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    unknown = set(arguments.scripts) - set(SCRIPTS)
    if unknown:
        parser.error(f"no such script: {', '.join(sorted(unknown))}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    is_complete = True
    for script in arguments.scripts or SCRIPTS:
        options = ["--repeat", str(arguments.repeat)] if arguments.repeat else []
        if script == "marmousi2":
            if not arguments.marmousi2:
                print("marmousi2 is left out: --marmousi2 FOLDER is missing")
                continue
            options += [arguments.marmousi2, "--maxfun", str(arguments.maxfun)]
        is_complete &= run(script, options)
    if arguments.write:
        update_page(PAGE, {script: load(script) for script in SCRIPTS})
    return 0 if is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
