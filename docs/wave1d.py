"""The step that how-it-works.md follows. `python docs/wave1d.py --write` renews its outputs.

python docs/wave1d.py                      prints every stage
BACKSWEEP_DEBUG=4 python docs/wave1d.py    and the whole generated source, to stderr
"""

import re
import sys
from pathlib import Path

import numpy as np

import backsweep as bs
from backsweep.api.tracer import trace_function, type_of
from backsweep.api.tree import flatten
from backsweep.codegen.cache import cache_folder
from backsweep.passes import linearize, simplify, transpose
from backsweep.schedule import Binomial

# [source]
c2 = np.full(200, 0.25, np.float32)  # (velocity dt / spacing)^2
wavelet = np.sin(np.linspace(0, 6, 400)).astype(np.float32)


def step(c2, u, u_prev, w):
    u_next = 2 * u - u_prev
    u_next[1:-1] += c2[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2])
    u_next[20] += w
    return u_next, u_next[180]


def loss(c2):
    def wave(carry, w):
        u_next, trace = step(c2, *carry, w)
        return (u_next, carry[0]), trace

    quiet = np.zeros(200, np.float32)
    five = bs.Checkpointing(schedule="binomial", snapshots=5)
    _, traces = bs.scan(wave, (quiet, quiet), wavelet, checkpointing=five)
    return 0.5 * np.sum(traces**2)


# [end]

TEXTS = ("traced", "tangent", "adjoint", "schedule", "report")


def programs():
    """The step and its derivative as text."""
    leaves, tree = flatten((c2, c2, c2, wavelet[0]))
    traced = trace_function(step, [type_of(leaf) for leaf in leaves], tree, "step")
    active = [False] * traced.n_captured + [True] * 4
    parts = linearize(traced.program, active)
    adjoint = simplify(transpose(parts.tangent, parts.n_residuals))
    return {"traced": traced.program, "tangent": parts.tangent, "adjoint": adjoint}


def longest(functions, prefix, n):
    """The n longest of the functions whose name begins with a prefix, in their order."""
    named = [f for f in functions if f"def {prefix}" in f]
    chosen = sorted(named, key=len)[-n:]
    return "\n\n".join(f for f in named if f in chosen)


def kernels():
    """Parts of the generated module behind the gradient: kernels, drivers, the sweep."""
    modules = [sys.modules[name] for name in sys.modules if name.startswith("backsweep_generated")]
    text = Path(next(m for m in modules if hasattr(m, "reverse")).__file__).read_text()
    functions = [part.strip() for part in re.split(r"\n(?=@njit)", text)]
    return {
        "advance_kernel": longest(functions, "advance_k", 1),
        "advance": longest(functions, "advance(", 1),
        "reverse_kernel": longest(functions, "reverse_k", 1),
        "sweep": longest(functions, "sweep", 1),
    }


def stages():
    _, gradient, report = bs.value_and_grad(loss, has_report=True)(c2)
    actions = "\n".join(str(action) for action in Binomial(8, 3).actions())
    actions = actions.replace(", level=<Level.MEMORY: 0>", "")
    # Seconds and the state of the cache would differ at every writing.
    lines = [line for line in str(report).splitlines() if not line.startswith("total")]
    figures = re.sub(r"[0-9.e-]+ s\b", "... s", "\n".join(lines))
    shown = {**programs(), **kernels(), "schedule": actions, "report": figures}
    return {name: str(text) for name, text in shown.items()}


def main():
    text = Path(__file__).read_text()
    outputs = {"source": text.split("# [source]\n")[1].split("\n\n# [end]")[0].rstrip(), **stages()}
    if "--write" not in sys.argv:
        print("\n\n".join(f"--- {name}\n{body}" for name, body in outputs.items()))
        print(f"\ncompiled code: {cache_folder()}")
        return
    page = Path(__file__).with_name("how-it-works.md")

    def renewed(match):
        language = "text" if match[1] in TEXTS else "python"
        return f"<!-- {match[1]} -->\n```{language}\n{outputs[match[1]]}\n```"

    page.write_text(
        re.sub(r"<!-- (\w+) -->\n```\w*\n.*?```", renewed, page.read_text(), flags=re.S)
    )


if __name__ == "__main__":
    main()
