"""What variants of the regressor change and leave alike; bad fits are somebody else's, and sample weights see them."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from benchmarks import regressors
from benchmarks.regressors import Comparison, Lesson
from dal_jax.registration import schedules
from dal_jax.regressor import model
from dal_jax.runtime.errors import InputError
from tests.regressor import people

COUNT, SIZE = 20, 32


def _flat(config):
    found = {}
    for name, value in dataclasses.asdict(config).items():
        found |= {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return found


@pytest.mark.parametrize("name", regressors.VARIANTS)
def test_a_variant_changes_what_it_says_and_nothing_else(name):
    base, variant = model.demo(), regressors.VARIANTS[name]
    before, after = _flat(base), _flat(variant.configure(base))
    wanted = dict(variant.regressor) | {f"augmentation.{key}": value for key, value in variant.augmentation.items()}
    assert after == before | wanted
    changed = after != before
    assert changed or variant.sample_weight is not None or name == "base", (
        "a variant that changes nothing measures nothing"
    )
    assert _flat(base) == _flat(model.demo()), "the base is another variant's base too"


def test_all_parts_together_are_the_whole_augmentation():
    config = model.demo()
    for name in ("geometry", "colours", "occlusion"):  # the demo is mirrored
        config = regressors.VARIANTS[name].configure(config)
    assert config == regressors.VARIANTS["augmented"].configure(model.demo())


def test_variants_come_in_the_table_s_order():
    assert regressors.chosen(["bad_fits", "unaltered", "base"]) == ["base", "unaltered", "bad_fits"]
    assert regressors.chosen([]) == list(regressors.VARIANTS)
    with pytest.raises(InputError, match="--variants=no_hope: of base, augmented, "):
        regressors.chosen(["base", "no_hope"])


def test_a_bad_fit_is_another_person_s_whole_body():
    fits = people.random_bodies(200, seed=0)
    spoiled, bad = regressors.swap_bodies(fits, 0.2)
    assert bad.sum() == 40
    for leaf, other in zip(jax.tree.leaves(fits), jax.tree.leaves(spoiled), strict=True):
        np.testing.assert_array_equal(other[~bad], leaf[~bad])
    whose = np.argmax(np.all(spoiled.pose[:, None] == fits.pose[None], axis=(2, 3)), axis=1)
    assert np.all((whose == np.arange(200)) == ~bad)
    jax.tree.map(lambda leaf, other: np.testing.assert_array_equal(other, leaf[whose]), fits, spoiled)


def test_bad_fits_need_somebody_else():
    fits, bad = regressors.swap_bodies(people.random_bodies(1, seed=0), 0.0)
    assert not bad.any() and fits.pose.shape == (1, 23, 3)
    for count, share in ((1, 1.0), (10, 0.01)):
        with pytest.raises(InputError, match=f"--bad_fits={share}: of {count} people"):
            regressors.swap_bodies(people.random_bodies(count, seed=0), share)


def test_a_summary_compares_seed_with_seed():
    def rows(*values):
        return [{"mpjpe_mm": v, "pa_mpjpe_mm": None, "keypoint_error_px": v / 10, "steps": 7} for v in values]

    found = regressors.summary("unaltered", rows(100.0, 130.0, 110.0), rows(90.0, 140.0, 105.0))
    assert found["name"] == "unaltered" and found["seeds"] == 3 and found["steps"] == 7
    assert found["mpjpe_mm_median"] == 110 and found["mpjpe_mm_minus_base"] == 5
    assert found["pa_mpjpe_mm_median"] is None and found["pa_mpjpe_mm_minus_base"] is None
    assert "mpjpe_mm_minus_base" not in regressors.summary("unaltered", rows(100.0), None)


def _comparison(scored):
    config = dataclasses.replace(model.demo(), width=4, depth=14, image_size=SIZE, batch=8)
    shown = people.training_set(COUNT, SIZE)
    # half a pixel of noise: of exact annotation the errors are roundings, and their spread says nothing
    clicked = np.random.default_rng(0).normal(0, 0.01, shown.observations.point_position.shape).astype(np.float32)
    observed = dataclasses.replace(shown.observations, point_position=shown.observations.point_position + clicked)
    shown = dataclasses.replace(shown, observations=observed)
    lesson = Lesson(config, shown, "none", schedules.objective_by_name("pose_prior"))

    def score(config, learned):
        scored.append(model.predict(config, learned, shown.images))
        return {"mpjpe_mm": math.nan, "pa_mpjpe_mm": 1.0, "keypoint_error_px": 1.0}

    return Comparison(lesson, epochs=2, bad_share=0.25, score=score), lesson


def test_variants_of_one_seed_differ_in_what_they_change_alone():
    """Two epochs of 20 people in batches of 8 are 6 steps; where 5 people have no weight, 2 steps are an epoch's."""
    scored = []
    comparison, lesson = _comparison(scored)
    rows = {name: comparison.row(name, 0) for name in ("base", "bad_fits", "bad_fits_residual")}
    assert {row["steps"] for row in rows.values()} == {6}
    assert rows["base"]["mpjpe_mm"] is None and rows["base"]["pa_mpjpe_mm"] == 1.0
    assert rows["bad_fits"]["bad_weight_share"] == rows["bad_fits"]["bad_fits"] == 0.25
    assert rows["bad_fits_residual"]["bad_weight_share"] < 0.05
    again, other_seed = comparison.row("base", 0), comparison.row("base", 1)
    jax.tree.map(np.testing.assert_array_equal, scored[3], scored[0])
    assert again | {"seconds": 0} == rows["base"] | {"seconds": 0} != other_seed | {"seconds": 0}
    assert np.abs(scored[4].pose - scored[0].pose).max() > 1e-4
    assert np.abs(scored[1].pose - scored[0].pose).max() > 1e-4

    weight = np.ones(COUNT, np.float32)
    weight[:5] = 0
    config = dataclasses.replace(lesson.config, epochs=2)
    state, _ = regressors.train(config, dataclasses.replace(lesson.people, sample_weight=weight), 0, "")
    assert int(state.step) == 6


def test_a_row_depends_on_its_variant_seed_and_share():
    comparison, _ = _comparison([])
    made_of = [comparison.made_of(*one) for one in (("base", 0), ("base", 1), ("occlusion", 0), ("bad_fits", 0))]
    assert json.loads(json.dumps(made_of)) == made_of, "kept beside the rows, and compared with"
    assert [one["seed"] for one in made_of] == [0, 1, 0, 0]
    assert made_of[0]["config"]["epochs"] == 2 and made_of[2]["config"]["augmentation"]["erase_share"] == 0.3
    assert made_of[0]["bad_fits"] == 0 and made_of[3]["bad_fits"] == 0.25
