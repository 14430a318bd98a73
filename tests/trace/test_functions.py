"""Every supported function against NumPy itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from harness import check, check_derivative, run_numpy, trace

from backsweep.ir import evaluate
from backsweep.passes import vjp_program

rng = np.random.default_rng(3)
U = rng.standard_normal((4, 5))
V = rng.standard_normal((4, 5))
W = rng.standard_normal((5, 3))
T = rng.standard_normal((2, 3, 4))
X = rng.standard_normal(7)
Y = rng.standard_normal(7)
F = U.astype(np.float32)
Z = U + 1j * V
I = rng.integers(-3, 4, (4, 5))  # noqa: E741
I32 = I.astype(np.int32)
B = U > 0
S = np.array(0.7)

UNARY: dict[str, Callable[[Any], Any]] = {
    "sum": np.sum,
    "sum_axis": lambda u: np.sum(u, axis=0),
    "sum_tuple": lambda u: u.sum((0, 1), keepdims=True),
    "sum_negative": lambda u: u.sum(-1),
    "mean": np.mean,
    "mean_axis": lambda u: u.mean(axis=1, keepdims=True),
    "var": np.var,
    "var_axis": lambda u: u.var(0, ddof=1),
    "std": lambda u: u.std(axis=1),
    "prod": np.prod,
    "prod_axis": lambda u: u.prod(axis=0, keepdims=True),
    "any": lambda u: np.any(u > 0.5, axis=1),
    "all": lambda u: (u > -1).all(0),
    "all_none": np.all,
    "count": lambda u: np.count_nonzero(u, axis=1),
    "cumsum": np.cumsum,
    "cumsum_axis": lambda u: u.cumsum(axis=1),
    "diff": np.diff,
    "diff_2": lambda u: np.diff(u, 2, 0),
    "diff_prepend": lambda u: np.diff(u, axis=0, prepend=0, append=u[:1]),
    "diff_bool": lambda u: np.diff(u > 0),
    "gradient": np.gradient,
    "gradient_axis": lambda u: np.gradient(u, 0.5, axis=1, edge_order=2),
    "reshape": lambda u: u.reshape(5, -1),
    "reshape_tuple": lambda u: np.reshape(u, (2, 10)),
    "reshape_F": lambda u: u.reshape((2, 10), order="F"),
    "ravel": np.ravel,
    "ravel_F": lambda u: u.ravel("F"),
    "flatten": lambda u: u.T.flatten(),
    "transpose": lambda u: np.transpose(u, (1, 0)),
    "transpose_method": lambda u: u.transpose(1, 0),
    "T": lambda u: u.T,
    "swapaxes": lambda u: u.swapaxes(0, 1),
    "moveaxis": lambda u: np.moveaxis(u[None, :, :], (0, 1), (-1, 0)),
    "rollaxis": lambda u: np.rollaxis(u[None], 2),
    "broadcast_to": lambda u: np.broadcast_to(u, (3, 4, 5)),
    "broadcast_arrays": lambda u: np.broadcast_arrays(u, u[:1]),
    "squeeze": lambda u: np.squeeze(u[None, :, :1]),
    "squeeze_axis": lambda u: u[None, :, :1].squeeze(axis=0),
    "expand_dims": lambda u: np.expand_dims(u, (0, -1)),
    "atleast": lambda u: (np.atleast_1d(u[0, 0]), np.atleast_2d(u[0]), np.atleast_3d(u[0])),
    "flip": np.flip,
    "flip_axis": lambda u: np.flip(u, 1),
    "flipud": np.flipud,
    "fliplr": np.fliplr,
    "rot90": lambda u: [np.rot90(u, k) for k in range(4)],
    "diagonal": lambda u: [np.diagonal(u, k) for k in range(-4, 6)],
    "diagonal_3d": lambda u: u.reshape(2, 2, 5).diagonal(1, 2, 0),
    "diag": lambda u: np.diag(u[0], 1),
    "diag_of_matrix": lambda u: np.diag(u, -1),
    "trace": np.trace,
    "trace_offset": lambda u: u.trace(1),
    "roll": lambda u: np.roll(u, 3),
    "roll_axis": lambda u: np.roll(u, -1, axis=0),
    "roll_tuple": lambda u: np.roll(u, (1, -2), axis=(0, 1)),
    "roll_far": lambda u: np.roll(u, (11, 0, 2), axis=(1, 0, 1)),
    "roll_0d": lambda u: np.roll(u[0, 0], 2),
    "concatenate": lambda u: np.concatenate([u, u[:2]]),
    "concatenate_none": lambda u: np.concatenate([u, u[:2]], axis=None),
    "concatenate_plain": lambda u: np.concatenate((u, np.ones((4, 2))), axis=1),
    "stack": lambda u: np.stack([u, 2 * u], axis=-1),
    "stack_scalars": lambda u: np.stack([u[0, 0], 1.0, u[1, 1]]),
    "vstack": lambda u: np.vstack([u[0], u]),
    "hstack": lambda u: np.hstack([u[0], u[1, :2]]),
    "dstack": lambda u: np.dstack([u, u]),
    "column_stack": lambda u: np.column_stack([u[:, 0], u]),
    "append": lambda u: np.append(u, u[:, :1], axis=1),
    "split": lambda u: np.split(u, 2),
    "split_at": lambda u: np.split(u, [1, 3], axis=1),
    "array_split": lambda u: np.array_split(u, 3, axis=1),
    "hsplit": lambda u: np.hsplit(u, [2]),
    "tile": lambda u: np.tile(u, 2),
    "tile_more": lambda u: np.tile(u[0], (2, 1, 3)),
    "repeat": lambda u: np.repeat(u, 2),
    "repeat_axis": lambda u: u.repeat(3, axis=1),
    "repeat_each": lambda u: np.repeat(u, [1, 0, 2, 1], axis=0),
    "take": lambda u: np.take(u, [[0, 2], [1, 1]], axis=1),
    "take_flat": lambda u: u.take([3, 1]),
    "take_one": lambda u: np.take(u, 2, axis=0),
    "take_along_axis": lambda u: np.take_along_axis(u, np.argmax(u, 1, keepdims=True), 1),
    "meshgrid": lambda u: np.meshgrid(u[0], u[:, 0]),
    "meshgrid_ij": lambda u: np.meshgrid(u[0], u[:, 0], indexing="ij", sparse=True),
    "pad": lambda u: np.pad(u, 2),
    "pad_constant": lambda u: np.pad(u, ((1, 2), (0, 3)), constant_values=3),
    "pad_constants": lambda u: np.pad(u, 1, constant_values=((1, 2), (3, 4))),
    "pad_edge": lambda u: np.pad(u, ((1, 2), (2, 0)), mode="edge"),
    "pad_wrap": lambda u: np.pad(u, 2, "wrap"),
    "pad_wrap_far": lambda u: np.pad(u, 7, "wrap"),
    "pad_reflect": lambda u: np.pad(u, (3, 2), "reflect"),
    "pad_symmetric": lambda u: np.pad(u, (3, 2), "symmetric"),
    "copy": lambda u: u.copy(),
    "np_copy": np.copy,
    "astype": lambda u: u.astype(np.complex64),
    "np_astype": lambda u: np.astype(u, np.complex128),
    "zeros_like": np.zeros_like,
    "ones_like": lambda u: np.ones_like(u, dtype=np.float32),
    "full_like": lambda u: np.full_like(u, 2, shape=(3,)),
    "full_like_traced": lambda u: np.full_like(u, u[0, 0]),
    "zeros": lambda u: np.zeros((2, 3), like=u),
    "ones": lambda u: np.ones(3, np.float32, like=u),
    "full": lambda u: np.full(3, 4, like=u),
    "full_traced": lambda u: np.full((2, 2), u[0, 1], like=u),
    "array": lambda u: np.array([[u[0, 0], 1.0], [2, u[1, 1]]], like=u),
    "array_dtype": lambda u: np.array([1, 2], dtype=np.float32, like=u),
    "asarray": lambda u: np.asarray([u[0], u[1]], like=u),
    "arange": lambda u: np.arange(2, 9, 3, like=u),
    "eye": lambda u: np.eye(3, 4, 1, like=u),
    "identity": lambda u: np.identity(2, like=u),
    "linspace": lambda u: np.linspace(u[0, 0].real, 3.0, 5),
    "where": lambda u: np.where(B, u, 0),
    "where_scalars": lambda u: np.where(u > 0, 1.0, -1),
    "where_broadcast": lambda u: np.where(B[0], u, u[:, :1]),
    "select": lambda u: np.select([u > 1, u > 0], [u, 2 * u], -1.0),
    "real": np.real,
    "imag": np.imag,
    "angle": np.angle,
    "angle_degrees": lambda u: np.angle(u, deg=True),
    "conj": np.conj,
    "conj_method": lambda u: u.conj(),
    "triu": lambda u: np.triu(u, 1),
    "tril": np.tril,
    "matmul": lambda u: u @ W,
    "matmul_vector": lambda u: np.matmul(u, W[:, 0]),
    "vector_matmul": lambda u: W[:, 0] @ u.T,
    "dot": lambda u: np.dot(u, W),
    "dot_method": lambda u: u[0].dot(u[1]),
    "dot_scalar": lambda u: np.dot(u, 2.0),
    "vdot": lambda u: np.vdot(u, U),
    "inner": lambda u: np.inner(u, V),
    "outer": lambda u: np.outer(u[0], u[:, 0]),
    "tensordot": lambda u: np.tensordot(u, W, 1),
    "tensordot_axes": lambda u: np.tensordot(u, V, ([1, 0], [1, 0])),
    "tensordot_outer": lambda u: np.tensordot(u[0], u[1], 0),
    "einsum_sum": lambda u: np.einsum("ij->", u),
    "einsum_transpose": lambda u: np.einsum("ji", u),
    "einsum_implicit": lambda u: np.einsum("ij,jk", u, W),
    "einsum_explicit": lambda u: np.einsum("ij,jk->ki", u, W),
    "einsum_lone": lambda u: np.einsum("ij,kl->il", u, W),
    "einsum_outer": lambda u: np.einsum("i,j->ji", u[0], u[:, 0]),
    "einsum_diagonal": lambda u: np.einsum("ii->i", u[:, :4]),
    "einsum_trace": lambda u: np.einsum("ii,j->j", u[:, :4], u[0]),
    "einsum_three": lambda u: np.einsum("ij,jk,lk->il", u, W, np.ones((2, 3))),
    "einsum_four": lambda u: np.einsum("ij,jk,kl,i->l", u, W, W.T, u[:, 0]),
    "einsum_ellipsis": lambda u: np.einsum("...j,jk->...k", u.reshape(2, 2, 5), W),
    "einsum_ellipsis_2": lambda u: np.einsum("i...,...->i...", u, u[0]),
    "einsum_scalar": lambda u: np.einsum(",ij->ji", u[0, 0], u),
    "einsum_elementwise": lambda u: np.einsum("ij,ij->ij", u, u[:1]),
    "norm": np.linalg.norm,
    "norm_axis": lambda u: np.linalg.norm(u, axis=1, keepdims=True),
    "norm_1": lambda u: np.linalg.norm(u, 1, axis=0),
    "norm_inf": lambda u: np.linalg.norm(u, np.inf, axis=0),
    "cross": lambda u: np.cross(u[:, :3], u[:, 1:4]),
    "cross_axis": lambda u: np.cross(u[:3], u[1:], axis=0),
    "average": lambda u: np.average(u, axis=0, weights=[1.0, 2.0, 3.0, 4.0]),
    "add_reduce": lambda u: np.add.reduce(u, axis=1),
    "shape": lambda u: (u + 1).reshape(np.shape(u)[::-1]) * np.ndim(u) * np.size(u),
    "slices_of_views": lambda u: u.T[::-1, 1:].reshape(-1)[::3],
    "iteration": lambda u: sum(row[0] for row in u),
}
REAL_ONLY: dict[str, Callable[[Any], Any]] = {
    "max": np.max,
    "max_axis": lambda u: u.max(axis=0),
    "amax": lambda u: np.amax(u, (0, 1), keepdims=True),
    "min": lambda u: np.min(u, 1),
    "ptp": np.ptp,
    "argmax": np.argmax,
    "argmax_axis": lambda u: u.argmax(0),
    "argmin": lambda u: np.argmin(u, axis=1, keepdims=True),
    "clip": lambda u: np.clip(u, -0.5, 0.5),
    "clip_int": lambda u: u.clip(-1, 1),
    "clip_one": lambda u: np.clip(u, None, 0.2),
    "clip_array": lambda u: u.clip(min=np.zeros(5)),
    "clip_keywords": lambda u: np.clip(u, min=-1, max=0.25),
    "maximum": lambda u: np.maximum(u, 0),
    "abs": lambda u: np.abs(u) + abs(u),
    "nan_to_num": lambda u: np.nan_to_num(u / (u - u[0]), posinf=3.0),
    "nansum": lambda u: np.nansum(u * (u / u)),
    "maximum_reduce": lambda u: np.maximum.reduce(u),
    "isclose": lambda u: np.isclose(u, U + 1e-7),
}
NEEDS_ORDER = {"diff_bool", "where_scalars", "any", "all", "select", "take_along_axis"}
"""Not for complex values."""


def _cases(dtypes: dict[str, np.ndarray]) -> list[Any]:
    return [
        pytest.param(function, u, id=f"{name}-{dtype}")
        for name, function in {**UNARY, **REAL_ONLY}.items()
        for dtype, u in dtypes.items()
        if u.dtype.kind != "c" or name not in NEEDS_ORDER | set(REAL_ONLY)
    ]


@pytest.mark.parametrize(
    "function, u", _cases({"float64": U, "float32": F, "complex128": Z, "int64": I})
)
def test_against_numpy(function: Callable[..., Any], u: np.ndarray) -> None:
    check(function, u, ulp=16)


@pytest.mark.parametrize("function, u", _cases({"float64": U, "complex128": Z}))
def test_derivative(function: Callable[..., Any], u: np.ndarray) -> None:
    if np.result_type(*run_numpy(function, [u])) == np.complex64:
        pytest.skip("differences are too coarse in complex64")
    check_derivative(function, u, step=1e-6, tolerance=1e-6)


@pytest.mark.parametrize("u", [B, I32, I32.astype(np.uint8)], ids=["bool", "int32", "uint8"])
@pytest.mark.parametrize("name", ["sum", "mean", "prod", "cumsum", "max", "any", "all_none"])
def test_small_integers(name: str, u: np.ndarray) -> None:
    check({**UNARY, **REAL_ONLY}[name], u)


# --------------------------------------------------------------------------- kinks


def _gradient(function: Callable[..., Any], *arguments: np.ndarray) -> list[np.ndarray]:
    program, captured = trace(function, arguments)
    adjoint = vjp_program(program, [True] * len(arguments) + [False] * len(captured), [True])
    return evaluate(adjoint, [*arguments, *captured, np.ones(program.out_types[0].shape)])


def test_clip_counts_its_bounds_as_inside() -> None:
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    np.testing.assert_array_equal(_gradient(lambda u: np.clip(u, -1, 1), x)[0], [0, 1, 1, 1, 0])
    _, low, high = _gradient(lambda u, a, b: np.clip(u, a, b), x, x * 0 - 1, x * 0 + 1)
    np.testing.assert_array_equal(low, [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(high, [0, 0, 0, 0, 1])


def test_clip_with_crossed_bounds() -> None:
    check(lambda u: np.clip(u, 1, -1), U, exact=True)


def test_where_blocks_the_branch_not_taken() -> None:
    x = np.array([-1.0, 0.0, 4.0])
    (bar,) = _gradient(lambda u: np.where(u > 0, np.sqrt(u), 2 * u), x)
    np.testing.assert_array_equal(bar, [2, 2, 0.25])


def test_reductions_give_ties_to_the_lowest_index() -> None:
    x = np.array([[1.0, 3.0, 3.0], [3.0, 0.0, 0.0]])
    np.testing.assert_array_equal(_gradient(np.max, x)[0], [[0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(_gradient(lambda u: u.min(axis=1), x)[0], [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(_gradient(lambda u: np.maximum(u, 3.0), x)[0], (x == 3) / 2)


def test_product_with_zeros() -> None:
    x = np.array([2.0, 0.0, 5.0])
    np.testing.assert_array_equal(_gradient(np.prod, x)[0], [0, 10, 0])


# --------------------------------------------------------------------------- corner cases


@pytest.mark.parametrize(
    "function",
    [
        np.sum,
        np.prod,
        lambda u: u.sum(axis=0),
        lambda u: u.prod(axis=1),
        np.cumsum,
        np.ravel,
        lambda u: np.roll(u, 1, 1),
        lambda u: np.concatenate([u, u]),
        lambda u: np.pad(u, 1),
        lambda u: np.tile(u, 2),
        lambda u: u @ np.ones((0, 3)),
        lambda u: np.where(u > 0, u, 1),
        lambda u: np.any(u > 0),
        lambda u: np.take(u, [], axis=0),
        lambda u: u.T.reshape(0),
    ],
)
def test_no_elements(function: Callable[..., Any]) -> None:
    check(function, np.zeros((2, 0)))


def test_extrema_of_nothing() -> None:
    for function in (np.max, np.argmin, lambda u: u.min(axis=1)):
        with pytest.raises(ValueError, match="of no elements"):
            trace(function, [np.zeros((2, 0))])


def test_matmul_of_stacks() -> None:
    a, b = rng.standard_normal((3, 1, 2, 4)), rng.standard_normal((5, 4, 2))
    check(lambda x, y: x @ y, a, b, ulp=16)
    check(lambda x, y: x[0, 0] @ y, a, b, ulp=16)
    check(lambda x, y: y @ x[0, 0, :, 0], a, b, ulp=16)
    check(lambda x, y: np.matmul(x, y, out=np.zeros((3, 5, 2, 2), like=x)), a, b, ulp=16)
    check_derivative(lambda x, y: x @ y, a, b, step=1e-6, tolerance=1e-6)


def test_products_of_many_dimensions() -> None:
    check(lambda x: np.dot(x, T.transpose(0, 2, 1)), T, ulp=16)
    check(lambda x: np.inner(x, T), T, ulp=16)
    check(lambda x: np.tensordot(x, T, ((0, -1), (0, 2))), T, ulp=16)
    check(lambda x, y: np.vdot(x, y), Z, Z.T.copy().reshape(4, 5), ulp=16)
    check(lambda x: np.einsum("iji->j", x @ x.swapaxes(1, 2)[:, :, :2]), T, ulp=16)


def test_products_of_masks() -> None:
    check(lambda u: ((u > 0) @ np.ones(5, bool), np.dot(u > 0, u[0])), U, ulp=16)


def test_out() -> None:
    def function(u: Any) -> Any:
        line, scaled = np.zeros_like(u[0]), np.empty_like(u)
        np.sum(u, axis=0, out=line[::-1])
        np.clip(u, -0.1, 0.1, out=scaled)
        np.multiply(u, 2, out=u)
        return u, line, scaled

    check(function, U, ulp=16)


def test_copyto() -> None:
    def function(u: Any) -> Any:
        np.copyto(u[1:], 3.0)
        np.copyto(u, 2 * u, where=u < 0)
        return u

    check(function, U, exact=True)


def test_two_points_in_one_kernel_of_roll() -> None:
    """A roll is two slices, not a gather."""
    program, _ = trace(lambda u: np.roll(u, 1, axis=1), [U])
    names = [eqn.primitive.name for eqn in program.equations]
    assert names == ["slice", "slice", "concatenate"]
