"""Benchmarks: backsweep against hand-written kernels and its peers.

Importing this package settles the number of threads, before NumPy, Numba, JAX or Devito is
imported: afterwards it is too late for some of them.
"""

import os

N_THREADS = 2

for _name, _value in {
    "BACKSWEEP_NUM_THREADS": str(N_THREADS),
    "NUMBA_NUM_THREADS": str(N_THREADS),
    "OMP_NUM_THREADS": str(N_THREADS),
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    # XLA's and Eigen's pools follow this; on a machine of two cores it is also the default.
    "NPROC": str(N_THREADS),
    "DEVITO_LANGUAGE": "openmp",
    "DEVITO_LOGGING": "WARNING",
}.items():
    os.environ.setdefault(_name, _value)

# JAX has no flag for its threads: it counts the cores that the process may use.
if len(os.sched_getaffinity(0)) > N_THREADS:
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:N_THREADS]))
