"""The body file: what it becomes, and one line for everything that can be wrong with it."""

import zipfile

import jax
import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.body.formats import load
from dal_jax.runtime.errors import InputError
from tests.body import made_up

ROUNDING = 1e-6  # metres: float32 weights that sum to 1
CHECKED = (
    "vertices", "faces", "joints", "parents", "skin_index", "skin_weight", "mirror", "part", "uv", "h36m_regressor",
)  # fmt: skip


@pytest.fixture
def problem_of(tmp_path):
    """Return the one line that a body file with these fields replaced (None: left out) is refused with."""
    path = tmp_path / "wrong.npz"

    def refuse(**changes):
        fields = made_up.fields() | changes
        np.savez(path, **{name: value for name, value in fields.items() if value is not None})
        return _refusal(path)

    return refuse


def _refusal(path):
    with pytest.raises(InputError) as caught:
        load.load_body(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def _changed(name, index, value, dtype=None):
    array = made_up.fields()[name].astype(dtype or made_up.fields()[name].dtype)
    array[index] = value
    return {name: array}


def test_fields_arrive(made_up_body):
    fields = made_up.fields()
    for name in ("vertices", "faces", "joints", "mirror", "part", "uv", "h36m_regressor"):
        np.testing.assert_array_equal(getattr(made_up_body, name), fields[name])
    assert made_up_body.parents == skeleton.SMPL_PARENTS
    kinds = {leaf.dtype for leaf in jax.tree.leaves(made_up_body)}
    assert kinds == {np.dtype(np.float32), np.dtype(np.int32)}


def test_sparse_weights_become_dense_rows(made_up_body):
    fields = made_up.fields()
    for vertex, row in enumerate(made_up_body.skin_weight):
        expected = np.zeros(24)
        for segment, weight in zip(fields["skin_index"][vertex], fields["skin_weight"][vertex], strict=True):
            expected[segment] += weight
        np.testing.assert_allclose(row, expected, atol=ROUNDING)


def test_a_segment_named_twice_adds_up(tmp_path):
    """Files pad unused slots with index 0: a repeated index must not overwrite the weight before it."""
    np.savez(tmp_path / "body.npz", **made_up.fields() | {"skin_index": np.full((96, 4), 5)})
    np.testing.assert_allclose(load.load_body(tmp_path / "body.npz").skin_weight[:, 5], 1.0, atol=ROUNDING)


def test_constants_are_weights_times_homogeneous_vertices(made_up_body):
    vertices = made_up_body.vertices
    for vertex in (0, 40, 95):
        expected = np.kron(made_up_body.skin_weight[vertex], np.append(vertices[vertex], 1.0))
        np.testing.assert_allclose(made_up_body.skinning_matrix[vertex], expected, atol=ROUNDING)
    regressed = made_up_body.keypoint_regressor @ made_up_body.skinning_matrix
    np.testing.assert_allclose(made_up_body.keypoint_matrix, regressed, atol=ROUNDING)


def test_the_template_passes_through_jit(made_up_body):
    out = jax.jit(lambda body: body)(made_up_body)
    assert out.parents == skeleton.SMPL_PARENTS
    np.testing.assert_array_equal(out.vertices, made_up_body.vertices)


def test_loading_again_is_free(made_up_body):
    assert load.load_body() is load.load_body()


def test_other_integer_and_float_widths_are_welcome(tmp_path, made_up_body):
    wide = {k: v.astype(np.int64 if v.dtype.kind in "iu" else np.float64) for k, v in _numbers().items()}
    np.savez(tmp_path / "wide.npz", **wide)
    found = load.load_body(tmp_path / "wide.npz")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=ROUNDING), found, made_up_body)
    assert found.vertices.dtype == np.float32


def test_texts_are_not_needed(tmp_path):
    np.savez(tmp_path / "bare.npz", **_numbers())
    assert load.load_body(tmp_path / "bare.npz").vertices.shape == (96, 3)


def _numbers():
    return {name: value for name, value in made_up.fields().items() if value.dtype.kind != "U"}


@pytest.mark.parametrize("name", CHECKED)
def test_a_missing_field_is_named(problem_of, name):
    assert problem_of(**{name: None}) == f"field '{name}' is missing"


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("change", ["a row less", "an axis more", "a scalar"])
def test_a_wrong_shape_is_named(problem_of, name, change):
    value = made_up.fields()[name]
    wrong = {"a row less": value[:-1], "an axis more": value[..., None], "a scalar": value.ravel()[0]}[change]
    message = problem_of(**{name: wrong})
    assert "shape" in message
    # Where sizes disagree the fault may be either's: faces against part, vertices against what is one a vertex.
    assert f"'{name}'" in message or change == "a row less"


@pytest.mark.parametrize("name", CHECKED)
def test_an_empty_field_is_named(problem_of, name):
    assert "'" in problem_of(**{name: made_up.fields()[name][:0]})


def test_an_empty_mesh_is_refused(problem_of):
    empty = {name: made_up.fields()[name][:0] for name in ("faces", "part", "uv")}
    assert "'faces'" in problem_of(**empty)
    pointless = {name: made_up.fields()[name][:0] for name in ("vertices", "skin_index", "skin_weight", "mirror")}
    assert "'vertices'" in problem_of(**pointless, h36m_regressor=np.zeros((17, 0), np.float32))


@pytest.mark.parametrize("name", ["vertices", "joints", "skin_weight", "uv", "h36m_regressor"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(problem_of, name, value):
    message = problem_of(**_changed(name, 0, value))
    assert f"'{name}'" in message
    assert "finite" in message


def test_values_too_large_for_float32_are_named(problem_of):
    assert "'vertices'" in problem_of(**_changed("vertices", (5, 1), 1e39, np.float64))


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("dtype", ["U8", "S8", "bool", "complex64"])
def test_values_that_are_no_real_numbers_are_named(problem_of, name, dtype):
    assert f"'{name}'" in problem_of(**{name: made_up.fields()[name].astype(dtype)})


@pytest.mark.parametrize("name", ["faces", "parents", "skin_index", "mirror", "part"])
def test_indices_are_whole_numbers(problem_of, name):
    """2.5 is no vertex; cut to 2 it would be the wrong one without a word."""
    message = problem_of(**{name: made_up.fields()[name].astype(np.float32) + np.float32(0.25)})
    assert f"'{name}'" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [("faces", -1), ("faces", 96), ("mirror", -1), ("mirror", 96), ("skin_index", -1), ("skin_index", 24)],
)
def test_an_index_out_of_range_is_named(problem_of, name, value):
    assert f"'{name}'" in problem_of(**_changed(name, 3, value))


@pytest.mark.parametrize("part", [0, 25, 255])
def test_a_part_outside_densepose_is_named(problem_of, part):
    message = problem_of(**_changed("part", 7, part))
    assert "'part'" in message
    assert "1..24" in message


@pytest.mark.parametrize("weights", [[0.5, 0.2, 0.1, 0.1], [0, 0, 0, 0], [1.5, -0.5, 0, 0], [1, 1, 1, 1]])
def test_skinning_weights_that_do_not_sum_to_one_are_named(problem_of, weights):
    assert "'skin_weight'" in problem_of(**_changed("skin_weight", 3, weights))


def test_a_negative_regressor_weight_is_named(problem_of):
    rows = made_up.fields()["h36m_regressor"]
    rows[2, :2] += np.float32([-1.0, 1.0])
    assert "'h36m_regressor'" in problem_of(h36m_regressor=rows)


@pytest.mark.parametrize("factor", [0.0, 0.9, 2.0])
def test_a_regressor_row_that_does_not_sum_to_one_is_named(problem_of, factor):
    rows = made_up.fields()["h36m_regressor"]
    rows[11] *= np.float32(factor)
    assert "'h36m_regressor'" in problem_of(h36m_regressor=rows)


@pytest.mark.parametrize(("joint", "parent"), [(0, 0), (5, 5), (8, 4), (23, -1), (1, 30)])
def test_another_tree_is_named(problem_of, joint, parent):
    assert "'parents'" in problem_of(**_changed("parents", joint, parent))


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_uv_outside_the_chart_is_named(problem_of, value):
    assert "'uv'" in problem_of(**_changed("uv", (4, 1, 0), value))


@pytest.mark.parametrize("name", CHECKED)
def test_a_pickled_field_is_not_unpickled(problem_of, name):
    message = problem_of(**{name: np.array([_Trap()], dtype=object)})
    assert f"'{name}'" in message
    assert not _Trap.sprung


class _Trap:
    sprung = False

    def __reduce__(self):
        return _spring, ()


def _spring():
    _Trap.sprung = True
    return _Trap()


def test_a_file_that_is_missing_or_a_folder(tmp_path):
    _refusal(tmp_path / "nowhere.npz")
    _refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", b"vertices 1 2 3\n", b"\x80\x04K\x01.", bytes(1000)])
def test_a_file_that_is_no_archive(tmp_path, content):
    path = tmp_path / "body.npz"
    path.write_bytes(content)
    _refusal(path)


def test_a_lone_array_is_no_body(tmp_path):
    np.save(tmp_path / "body.npy", made_up.fields()["vertices"])
    _refusal(tmp_path / "body.npy")


@pytest.mark.parametrize("entry", ["vertices", "vertices.npy"])
def test_an_entry_that_is_no_array_is_named(tmp_path, entry):
    path = tmp_path / "body.npz"
    np.savez(path, **{name: value for name, value in made_up.fields().items() if name != "vertices"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, "1 2 3")
    assert "'vertices'" in _refusal(path)


def test_a_header_that_promises_a_terabyte_is_refused(tmp_path):
    path = tmp_path / "body.npz"
    np.savez(path, **{name: value for name, value in made_up.fields().items() if name != "vertices"})
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999, 3), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("vertices.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    assert "'vertices'" in _refusal(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_is_refused_or_loads(tmp_path, save):
    """Truncated anywhere, or 1 to 3 bytes changed: an InputError of one line, never another exception."""
    small = made_up.fields(vertices=24, faces=2)
    save(tmp_path / "whole.npz", **small)
    whole = (tmp_path / "whole.npz").read_bytes()
    rng = np.random.default_rng(0)
    refusals = []
    for trial in range(300):
        damaged = bytearray(whole)
        if trial < 20:
            del damaged[int(rng.integers(len(whole))) :]
        for _ in range(0 if trial < 20 else rng.integers(1, 4)):
            damaged[_anywhere_but_mostly_in_headers(rng, whole)] = rng.integers(256)
        path = tmp_path / f"{trial}.npz"
        path.write_bytes(damaged)
        try:
            load.load_body(path)
        except InputError as error:
            refusals.append(str(error).removeprefix(str(tmp_path)))
    assert len(refusals) > 100
    assert not [message for message in refusals if "\n" in message]


def _anywhere_but_mostly_in_headers(rng, whole):
    """Return an index; nine in ten lie just after the start of an entry, where names, sizes and types are."""
    if rng.random() < 0.1:
        return int(rng.integers(len(whole)))
    starts = [i for i in range(len(whole)) if whole.startswith((b"PK", b"\x93NUMPY"), i)]
    return min(int(rng.choice(starts) + rng.integers(130)), len(whole) - 1)
