"""All programs that are compared, and what is asked of each."""

from partition import losses, nested, points, reductions, stencils
from partition.comparing import Case

SUMS = {"value": 1e-13}
FED_BACK = {"value": 1e-12, "fields": 1e-12, "wholes": 1e-12}
FIRST, SECOND = ((0,),), ((1,),)


def _all(module, names, **asked):
    return [Case(name, getattr(module, name), **asked) for name in names.split()]


CASES = [
    *_all(
        stencils,
        "slices one_sided in_place periodic margins padded_state staggered "
        "several_carries wide branches single complex_field transposed joined_and_stacked",
    ),
    *_all(stencils, "edges_of_edges", value=1e-13),
    *_all(stencils, "strided", **FED_BACK),
    *_all(stencils, "flipped", axes=FIRST),
    *_all(
        points,
        "one_source many_sources coinciding_sources between_cells overwritten rows_of_columns "
        "points_of_the_model sources_by_argument traces",
    ),
    *_all(points, "lines", value=1e-13),
    *_all(
        losses,
        "final_field final_stencil final_points one_cell other_shapes two_scans "
        "smoothed_model whole_fields stencil_on_records forcing forcing_of_sources scalars "
        "profiles smoothed_profiles captured shots shots_and_more checkpointed "
        "without_a_scan reshaped",
        value=1e-13,
        wholes=1e-13,
    ),
    *_all(reductions, "normalised sums_of_rows", **FED_BACK),
    *_all(reductions, "largest_of_the_other_axis", axes=FIRST, value=1e-13),
    # These read all of the grid along an axis: right on small grids, refused on wide ones.
    *_all(reductions, "far_away cumulative multiplied"),
    *_all(stencils, "flipped_along_the_cut"),
    *_all(reductions, "largest", **FED_BACK),
    *_all(losses, "peak_of_the_field", value=1e-13),
    *_all(losses, "ties", value=1e-13, fields=1e-13),
    *_all(losses, "nested", value=1e-13),
    *_all(nested, "implicit substeps", value=1e-13, wholes=1e-13, has_second=True),
    *_all(nested, "numbered three_deep wide_inside many_sweeps"),
    *_all(nested, "reactions between_stencils", value=1e-13, wholes=1e-13),
    *_all(nested, "single_inside", value=1e-6, wholes=1e-6),
    *_all(nested, "normalised_inside", **FED_BACK),
    *_all(nested, "until_it_is_small", refused="u, max_steps=50), None) inside a step is not cut"),
    *_all(points, "moving_source", refused="new[i, 3] += 1.0) has indices that are only known"),
]
