"""All rows of the table, one script after the other: `python -m benchmarks`."""

import subprocess
import sys

SCRIPTS = ("acoustic", "bloch", "pair_forces", "hdf5")

for script in SCRIPTS:
    subprocess.run([sys.executable, "-m", f"benchmarks.{script}"], check=True)
