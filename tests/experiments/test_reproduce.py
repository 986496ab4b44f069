"""The paper's claims: whole configurations, honest verdicts, cells that are run once; runs side by side."""

import dataclasses
import itertools
import json
import math
import pathlib
import shutil

import PIL.Image
import pytest

from benchmarks import comparison, recipes
from benchmarks.recipes import LIFTER, REGISTRATION, SIZES, TEST, VARIANTS, Claim
from dal_jax import algorithm, config as configurations
from dal_jax.algorithm import Run, RunState
from dal_jax.body.formats.load import load_body
from dal_jax.loop import run as run_lib
from dal_jax.loop.folder import RunFolder
from dal_jax.synthetic import people
from dal_jax.synthetic.annotator import RECIPES
from tests.experiments import binaries

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("size", SIZES)
def test_every_variant_is_a_whole_configuration_of_its_own(size):
    for variant in VARIANTS:
        recipes.config_of(variant, size, 0).check()
    names = {recipes.cell_name(variant, size, seed) for variant in VARIANTS for seed in (0, 1)}
    assert len({name.rsplit("-", 1)[1] for name in names}) == 2 * len(VARIANTS), "no two are the same run"


def test_choices_have_runs_of_their_own_that_do_not_read_the_test_people():
    config = recipes.config_of("ours", "small", 0, "validation")
    assert config.scored == "validation" and recipes.config_of("ours", "small", 0).scored == "test"
    assert recipes.cell_name("ours", "small", 0, "validation") != recipes.cell_name("ours", "small", 0)


def test_a_field_that_does_not_exist_is_no_change():
    with pytest.raises(AttributeError):
        recipes.changed(configurations.demo(), {"regressor.epoch": 3})


def _trained(config) -> dict:
    """Return the configuration without what names it or only says how many people are worked on at once."""
    values = dataclasses.asdict(config)
    del values["preset"]
    return values


def test_the_ladder_leads_from_the_paper_s_recipe_by_way_of_the_demo_to_ours():
    rungs = list(recipes.LADDER)
    top = recipes.changed(configurations.best_small(), {"rounds": recipes.ROUNDS, "route": "mosh"})
    assert _trained(recipes.config_of(rungs[-1], "demo", 0)) == _trained(top)
    assert _trained(recipes.config_of(rungs[-2], "demo", 0)) == _trained(recipes.config_of("ours", "demo", 0))
    changes = [VARIANTS[name][1] for name in rungs]
    assert all(set(one) <= set(other) for one, other in itertools.pairwise(changes))


def test_the_control_and_the_loop_take_as_many_training_steps():
    for variant in ("ours", "paper"):
        pair = [recipes.config_of(name, "small", 0) for name in (variant, f"{variant}_once")]
        assert [one.refit for one in pair] == [True, False]
        assert len({(one.rounds, one.regressor.epochs, one.regressor.batch, one.synthetic) for one in pair}) == 1


def _cell(seed: int, first: float, last: float) -> dict:
    def entry(number: int, error: float) -> dict:
        return {
            "round": number,
            REGISTRATION: error,
            TEST: error + 1,
            "regressor_test_pa_mpjpe_mm": error,
            LIFTER: None,
        }

    rounds = [entry(1, first), entry(2, last)]
    return {"variant": "ours", "seed": seed, "seconds": 90.0, "history": rounds}


def test_means_deviations_and_verdicts():
    cells = [_cell(0, 10.0, 4.0), _cell(1, 12.0, 6.0)]
    row = recipes.summary("ours", cells)
    assert row["seeds"] == [0, 1]
    assert row["last_round"][TEST] == {"mean": 6.0, "sd": pytest.approx(2**0.5)}
    assert row["first_round"][REGISTRATION]["mean"] == 11.0 and row["first_round"][LIFTER]["mean"] is None
    assert recipes.summary("ours", cells[:1])["last_round"][TEST] == {"mean": 5.0, "sd": None}
    falls = Claim("", ("ours", TEST), ("ours", TEST), 0.64, first_round=True)
    verdict = recipes.judged(falls, {"ours": cells})
    assert verdict["worst"] == pytest.approx(7 / 11) and verdict["mean"] == pytest.approx(6 / 12) and verdict["holds"]
    assert recipes.judged(dataclasses.replace(falls, share=0.63), {"ours": cells})["holds"] is False
    assert recipes.judged(falls, {"ours": cells[:1]})["holds"] is None
    assert not recipes.judged(Claim("", ("ours", TEST), ("ours", TEST)), {"ours": cells})["holds"], "seeds overlap"


PUBLISHED = ("table_1.json", "figure_2.json", "section_6_3.json")


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_follows_from_its_cells(name):
    """Means, deviations and verdicts are computed again; the tables of docs/results.md have these numbers."""
    rows = json.loads((ROOT / "benchmarks" / name).read_text())
    cells: dict[str, list[dict]] = {}
    for row in rows:
        if row["what"] == "cell":
            assert row["commit"] and row["cpu"] and row["jax"], "where it was measured"
            cells.setdefault(row["variant"], []).append(row)
    section = (ROOT / "docs" / "results.md").read_text().split("## Evidence")[1].split("\n## ")[0]
    for row in (row for row in rows if row["what"] == "summary"):
        again = recipes.summary(row["variant"], cells[row["variant"]])
        assert again["seeds"] == row["seeds"]
        for which in ("first_round", "last_round"):
            for field in recipes.FIELDS:
                for kind, value in row[which][field].items():
                    expected = None if value is None else pytest.approx(value, rel=1e-4)
                    assert again[which][field][kind] == expected, (row["variant"], field)
        start = f"| `{row['variant']}` | {len(row['seeds'])} |"  # more than one where recipes have changed
        lines = [line for line in section.splitlines() if line.startswith(start)]
        shown = (("last_round", REGISTRATION), ("first_round", TEST), ("last_round", TEST))
        if row["variant"] == "cgan":
            shown = (("last_round", LIFTER),)
        numbers = [f"{row[which][field]['mean']:.1f}" for which, field in shown]
        assert any(all(number in line for number in numbers) for line in lines), (start, numbers)
    recipe = recipes.RECIPES[rows[0]["recipe"]]
    for row in (row for row in rows if row["what"] == "claim"):
        (claim,) = (one for one in recipe.claims if one.text == row["claim"])
        verdict = recipes.judged(claim, cells)
        assert verdict["holds"] == row["holds"] and verdict["worst"] == pytest.approx(row["worst"], rel=1e-4)


def _done(workdir: pathlib.Path, variant: str, seed: int) -> None:
    """Leave a cell as if it had been run."""
    cell = _cell(seed, 110.0, 90.0 + seed) | {"variant": variant}
    for entry in cell["history"]:
        entry[LIFTER] = 170.0
    made_of = {"variant": variant, "seed": seed, "size": "tiny"}
    path = workdir / f"{recipes.cell_name(variant, 'tiny', seed)}.json"
    path.write_text(json.dumps({"made_of": made_of, "row": cell}))


@pytest.mark.parametrize(
    ("flag", "name", "cells"),
    [("--table=1", "table 1", 10), ("--figure=2", "figure 2", 4), ("--section=6.3", "section 6.3", 8)],
)
def test_what_is_done_is_not_run_again_and_printed_beside_the_paper(flag, name, cells, tmp_path):
    for variant in recipes.RECIPES[name].variants:
        for seed in (0, 1):
            _done(tmp_path, variant, seed)
    out = tmp_path / "rows.json"
    done = binaries.run(
        "experiments.reproduce", flag, "--size=tiny", "--seeds=0,1", f"--workdir={tmp_path}", f"--out={out}"
    )
    assert done.returncode == 0, done.stderr
    assert f"{cells} cells of size tiny, {cells} done; the others take about 0 minutes" in done.stdout
    assert "91.5 ± 0.7" in done.stdout
    assert ("Kudo et al., no 3D" in done.stdout) == (name == "table 1")
    rows = json.loads(out.read_text())
    assert [row["what"] for row in rows[:cells]] == ["cell"] * cells
    assert sum(row["what"] == "claim" for row in rows) == len(recipes.RECIPES[name].claims)
    assert all(row["recipe"] == name and row["size"] == "tiny" for row in rows)
    assert (tmp_path / "rows_ours.png").exists() == (name == "figure 2")
    if name == "table 1":
        few = ("--size=tiny", "--seeds=0", "--variants=ours,ours_degraded", f"--workdir={tmp_path}")
        done = binaries.run("experiments.reproduce", flag, *few)
        assert "exact below degraded: " in done.stdout and "cGAN alone:" not in done.stdout, done.stderr


@pytest.mark.slow
def test_a_killed_cell_goes_on_and_runs_side_by_side_say_what_its_history_does(tmp_path, tiny_people):
    """The cell was killed before its last round was judged; nothing has been learned, which scores do not mind."""
    config = recipes.config_of("ours", "tiny", 0)
    train, _ = run_lib.load(config, tiny_people)
    fresh = algorithm.initial_state(Run(config, load_body(), train))
    learned = dataclasses.replace(fresh.regressor, step=fresh.regressor.step + 1)
    folder, before = tmp_path / recipes.cell_name("ours", "tiny", 0), _cell(0, 110.0, 0.0)["history"][:1]
    with RunFolder(folder, config) as run:
        at = RunState(round=2, phase="judge", history=({**before[0], "seconds": 60.0},), epoch=2)
        run.save(dataclasses.replace(fresh, regressor=learned), at)
    out = tmp_path / "figure.json"
    flags = ("--figure=1", "--size=tiny", "--seeds=0", f"--workdir={tmp_path}", f"--data_dir={tiny_people}")
    done = binaries.run("experiments.reproduce", *flags, f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "cell 1 of 1: ours, seed 0" in done.stdout
    row = json.loads(folder.with_name(f"{folder.name}.json").read_text())["row"]
    assert row["cpu_s"] is None, "of a killed run it is not known"
    assert row["cpu"] and row["jax"] and "commit" in row and row["seconds"] > 60
    assert row["history"] == json.loads((folder / "history.json").read_text()) and len(row["history"]) == 2
    said = row["history"][1][TEST]
    (refined,) = (row for row in json.loads(out.read_text()) if row["what"] == "refined")
    assert refined["before_mpjpe_mm"] == pytest.approx(said, rel=1e-5) and refined["people"] == 12
    assert refined["after_mpjpe_mm"] < refined["before_mpjpe_mm"], "the annotation knows better than a T-pose"
    with PIL.Image.open(tmp_path / "figure_ours.png") as picture:
        assert picture.size == (7 * 160, 8 * 160)

    shutil.copytree(folder, tmp_path / "other")
    flags = (f"--runs={folder},{tmp_path}/other", f"--data_dir={tiny_people}", "--people=2", f"--out={tmp_path}/report")
    done = binaries.run("experiments.report", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report" / "errors.json").read_text())
    assert list(found["rows"][0]["mpjpe_mm"].values()) == pytest.approx([said, said], rel=1e-5)
    joints = [row["mpjpe_mm"][str(folder)] for row in found["rows"] if row["by"] == "joint"]
    assert len(joints) == 17 and sum(joints) / 17 == pytest.approx(said, rel=1e-5)
    for kind in ("action", "heading", "distance", "visible"):
        of = [row for row in found["rows"] if row["by"] == kind]
        assert sum(row["people"] for row in of) == 12
        assert sum(row["people"] * row["mpjpe_mm"][str(folder)] for row in of) / 12 == pytest.approx(said, rel=1e-5)
    worst = max(found["people"], key=lambda person: person[str(folder)])["name"]
    assert f"worst: {worst}" in done.stdout
    for kind in ("worst", "median"):
        with PIL.Image.open(tmp_path / "report" / f"{kind}.png") as picture:
            assert picture.size == (7 * 160, 2 * 160)
    again = binaries.run("experiments.report", *flags)
    assert again.returncode == 2 and "--overwrite replaces it" in again.stderr


def test_headings_are_how_far_people_turn_from_the_camera(tiny_people):
    config = recipes.config_of("ours", "tiny", 0)
    config.route = "default"
    _, test = run_lib.load(config, tiny_people)
    found = comparison.groups(test)
    for row in range(6):
        front = people.make_person(RECIPES["tiny"], "test", row)["truth_rotation"][:, 2]
        turned = math.degrees(math.atan2(abs(front[0]), -front[2]))
        (name,) = (name for name, rows in found["heading"].items() if rows[row])
        low, high = (float(text) for text in name.removesuffix(" deg").split(" to "))
        assert low - 15 < turned < high + 15, "hips are turned a little against the pelvis"
    assert [int(rows.sum()) for rows in found["distance"].values()] == [3, 3, 3, 3]
    assert set(found["action"]) == {str(name).split("_")[1] for name in test.names}


def test_wrong_flags_are_one_line(tmp_path):
    (tmp_path / "rows.json").write_text("[]")
    for flags, message in (
        ((), "one of --table, --figure, --section and --ablation is needed"),
        (("--table=1", "--figure=2"), "one of --table, --figure, --section and --ablation is needed"),
        (("--table=1", "--seeds=0,0"), "--seeds=0,0: different whole numbers"),
        (("--table=1", f"--out={tmp_path}/rows.json"), "rows.json exists; --overwrite replaces it"),
        (("--ablation=all",), "--ablation"),
        (("--table=1", "--data=iuv_folder"), "--data, --source and --chart go with --figure=1"),
        (("--figure=2", "--variants=ours,ours_once"), "--variants=ours_once: of ours, paper"),
    ):
        done = binaries.run("experiments.reproduce", f"--workdir={tmp_path}/runs", *flags)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "runs").exists()
    done = binaries.run("experiments.report", f"--runs={tmp_path}/no", f"--out={tmp_path}/report")
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == f"error: {tmp_path}/no: no such folder"
