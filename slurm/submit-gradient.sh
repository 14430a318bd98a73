#!/bin/bash
# Submit a gradient as a job array and, for when all of its tasks are done, their sum:
#     RUN=run.toml PARTS=8 slurm/submit-gradient.sh [options of sbatch for the array]
# MODEL (start, true, or a result file), OUT (folder of the parts: parts), GRADIENT (the result:
# gradient.h5) and DISK go on to the jobs. Prints the number of the job that writes the result, on
# which another job may depend.
set -eu
: "${RUN:?the run file}" "${PARTS:?the number of tasks}"
export RUN PARTS
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

array="$(sbatch --parsable --array="1-$PARTS" "$@" "$here/gradient-array.sbatch")"
# afterok: all tasks ended with code 0; those that are requeued have not ended. If one fails the sum
# can never run, and is cancelled.
sbatch --parsable --dependency="afterok:${array%%;*}" --kill-on-invalid-dep=yes \
    "$here/reduce.sbatch"
