"""The binary end to end: known bodies come back, files as promised, one line and exit code 2 for what is wrong."""

import json
import pathlib
import subprocess

import numpy as np
import PIL.Image
import pytest

from dal_jax.fits import file
from tests.body import gltf_files, smpl_files
from tests.experiments import binaries
from tests.observations import annotation_files, posed_people

KNOWN_BODY_PERCENT = 0.5  # rms over the box's longer side; what the stiff weights leave of exact annotation
ANNOTATED_PERCENT = 2.5  # the same on real clicks, and on clicks that were left out


def _run(*flags: object) -> subprocess.CompletedProcess:
    return binaries.run("experiments.register", *flags)


def _refused(done: subprocess.CompletedProcess, told: str) -> None:
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and told in done.stderr


@pytest.fixture
def people(tmp_path):
    """Two known bodies and their photographs."""
    (tmp_path / "photos").mkdir()
    for number in (10, 20):
        annotation_files.write_picture(tmp_path / "photos" / f"{number}.jpg")
    content = annotation_files.content([posed_people.entry(1), posed_people.entry(2)])
    annotation_files.write_json(tmp_path / "people.json", content)
    return tmp_path


def test_known_bodies_are_found_and_everything_is_written(people):
    out = people / "out"
    flags = (f"--annotations={people}/people.json", f"--images={people}/photos", "--export=glb,obj", f"--out={out}")
    done = _run(*flags, "--optimizer=lm")
    assert done.returncode == 0, done.stderr
    assert "held out" in done.stdout and "20.jpg #2" in done.stdout
    fits = file.read(out / "fits.npz")
    assert (
        fits.valid.all() and fits.annotation_id.tolist() == [1, 2] and fits.file_name.tolist() == ["10.jpg", "20.jpg"]
    )
    assert np.all(100 * fits.dense_error_px / fits.bbox_px[:, 2:].max(axis=1) < KNOWN_BODY_PERCENT)
    assert np.isnan(fits.keypoint_error_px).all()
    np.testing.assert_allclose(np.linalg.det(fits.rotation), 1, atol=1e-5)
    assert np.all(fits.rotation[:, 2, 2] < -0.5)  # they face the camera
    summary = json.loads((out / "summary.json").read_text())
    assert [row["points"] for row in summary["people"]] == [100, 100] and summary["skipped"] == []
    assert sorted(path.name for path in (out / "meshes").iterdir()) == ["10_1.glb", "10_1.obj", "20_2.glb", "20_2.obj"]
    for name in ("10_1.png", "20_2.png"):
        with PIL.Image.open(out / "overlays" / name) as picture:
            assert picture.width == 4 * picture.height
    names = {"fits.npz", "index.html", "summary.json", "overlays", "meshes", "scenes"}
    assert {path.name for path in out.iterdir()} == names
    assert sorted(path.name for path in (out / "scenes").iterdir()) == ["10.glb", "20.glb"]

    before = (out / "fits.npz").read_bytes()
    _refused(_run(*flags), "--overwrite")
    assert (out / "fits.npz").read_bytes() == before
    again = _run(
        f"--annotations={people}/people.json", f"--out={out}", "--overwrite", "--holdout=0",
        f"--initial={out}/fits.npz", "--noquality", "--optimizer=adam", "--steps=2", "--learning_rate=1e-6",
        "--starts=closed_form", f"--compare={out}",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    names = {path.name for path in out.iterdir()}
    assert names == {"fits.npz", "index.html", "summary.json"}  # nothing stale beside the new fits
    look = " ".join((out / "index.html").read_text().split())
    assert "2 people have bodies in both" in look  # it compares with the results that it replaces
    resumed = file.read(out / "fits.npz")  # the earlier fit is one of the starts, and two tiny steps keep it
    np.testing.assert_allclose(resumed.energy, fits.energy, rtol=0.01)
    np.testing.assert_allclose(resumed.joints, fits.joints, atol=1e-3)


def test_bad_entries_are_skipped_on_request_and_keep_their_row(people):
    content = json.loads((people / "people.json").read_text())
    content["annotations"][0]["dp_I"][3] = 25
    content["annotations"][1]["keypoints"] = [0, 0, 2, *[0] * 48]
    path = annotation_files.write_json(people / "people.json", content)
    _refused(_run(f"--annotations={path}", f"--out={people}/out"), "annotation 1: dp_I[3] is 25")
    assert not (people / "out").exists()
    done = _run(f"--annotations={path}", f"--out={people}/out", "--skip_invalid", "--holdout=0", "--noquality")
    assert done.returncode == 0, done.stderr
    assert "1 people, skipped 1: 1 unknown part" in done.stdout
    assert f"{path}: annotation 2: key point 'nose' at 0, 0 or -1, -1 or NaN: not used (1 in all)" in done.stdout
    fits = file.read(people / "out" / "fits.npz")
    assert fits.valid.tolist() == [False, True] and fits.annotation_id.tolist() == [1, 2]
    assert np.isnan(fits.joints[0]).all() and np.isfinite(fits.joints[1]).all()


def test_files_that_cannot_be_used_are_one_line(people):
    text = (people / "people.json").read_text()
    (people / "cut.json").write_text(text[: len(text) // 2])
    (people / "photos" / "20.jpg").unlink()
    out, good = f"--out={people}/out", f"--annotations={people}/people.json"
    for flags, told in (
        ((f"--annotations={people}/cut.json", out), "cut.json: not valid JSON"),
        ((good, f"--images={people}/photos", out), "20.jpg"),
        ((good, f"--chart={people}/people.json", out), "people.json: not a MATLAB file"),
        ((good, f"--initial={people}/absent.npz", out), "absent.npz"),
        ((good, f"--compare={people}/absent", out), "summary.json: no such file"),
        ((good, f"--lifting={people}/absent", out), "absent"),
        ((good, f"--lifting={people}/absent.npz", out), "absent.npz: no such file"),
        ((good, f"--lifting={people}/people.json", out), "people.json: is no folder of a trained lifter"),
    ):
        _refused(_run(*flags), told)
    assert not (pathlib.Path(people) / "out" / "fits.npz").exists()


def test_one_line_says_which_lifter_gives_depths_and_to_whom(people):
    """The runs end before the fit, at a camera whose focal length is not known."""
    content = json.loads((people / "people.json").read_text())
    dense = {"dp_I", "dp_U", "dp_V", "dp_x", "dp_y"}
    content["annotations"] = [
        {name: value for name, value in entry.items() if name not in dense}
        | {"keypoints": np.ravel([[30 + 7 * k, 40 + 9 * k, 2] for k in range(17)]).tolist()}
        for entry in content["annotations"]
    ]
    alone = annotation_files.write_json(people / "alone.json", content)
    default = "lifter of depths: shipped, for people without dense points; --lifting=none: no depths"
    for file_name, flags, expected in (
        ("alone.json", [], [default]),
        ("alone.json", ["--lifting=none"], []),
        ("alone.json", ["--pitch_deg=10"], [default]),
        ("alone.json", ["--weights=paper_soft"], []),
        ("people.json", [], []),
        ("people.json", ["--lifting=shipped"], ["lifter of depths: shipped"]),
    ):
        done = _run(
            f"--annotations={alone.with_name(file_name)}", "--camera=perspective", f"--out={people}/out", *flags
        )
        _refused(done, "focal length")
        assert [line for line in done.stdout.splitlines() if "lifter" in line] == expected


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "--annotations"),
        (["--annotations=a.json", "--iuv=b.png"], "one of"),
        (["--annotations=tests"], "tests: holds no .json and no .txt, which pose detectors write for each picture"),
        (["--detect=a.task"], "--images"),
        (["--detect=a.task", "--images=b", "--chart=c.mat"], "--chart=c.mat"),
        (["--annotations=a.json", "--optimizer=magic"], "--optimizer=magic"),
        (["--annotations=a.json", "--export=fbx"], "fbx"),
        (["--annotations=a.json", "--export=npz"], "--export=npz: holds SMPL's parameters"),
        (["--annotations=a.json", "--tracks", "--optimizer=adam"], "--tracks"),
        (["--annotations=a.json", "--pose_blendshapes"], "--optimizer=dense_lm"),
        (["--annotations=a.json", "--optimizer=optax.adam(b3=1)"], "b3"),
    ],
)
def test_wrong_flags_are_one_line(tmp_path, flags, told):
    _refused(_run(*flags, f"--out={tmp_path}/out"), told)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SMPL_NEUTRAL.npz", "person.glb"])
def test_known_people_are_found_by_bodies_of_other_formats(people, name):
    """Annotated on the free body in its own chart, which other bodies carry: a made-up SMPL model and a rigged glTF."""
    path = people / name
    if path.suffix == ".glb":
        gltf_files.write(path, gltf_files.build(gltf_files.person(), gltf_files.names("mixamo")))
    else:
        smpl_files.write_npz(path, smpl_files.model())
    out = people / "out"
    done = _run(f"--annotations={people}/people.json", f"--body={path}", f"--out={out}", "--noquality", "--holdout=0")
    assert done.returncode == 0, done.stderr
    fits = file.read(out / "fits.npz")
    assert np.all(100 * fits.dense_error_px / fits.bbox_px[:, 2:].max(axis=1) < KNOWN_BODY_PERCENT)


def test_a_body_that_cannot_be_used_is_one_line(people):
    (people / "trap.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    (people / "cut.glb").write_bytes(b"glTF\x02\0\0\0")
    for name, told in (("trap.pkl", "names 'os.system'"), ("cut.glb", "not a readable glTF"), ("no.npz", "no.npz")):
        flags = (f"--annotations={people}/people.json", f"--body={people}/{name}", f"--out={people}/out")
        _refused(_run(*flags), told)
    assert not (people / "out").exists() and not pathlib.Path("ran").exists()


@annotation_files.needs_real_data
def test_real_people_are_fitted_within_the_promised_error(tmp_path):
    """Two people of DensePose-COCO: error at the annotated points, and at points that were left out."""
    done = _run(
        f"--annotations={annotation_files.real('densepose_coco/densepose_coco_2014_train.boxed.json')}",
        f"--chart={annotation_files.real('chart/UV_Processed.mat')}", f"--out={tmp_path}/out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for row in json.loads((tmp_path / "out" / "summary.json").read_text())["people"]:
        assert row["dense_error_percent"] < ANNOTATED_PERCENT
        assert row["held_out_error_percent"] < ANNOTATED_PERCENT


@pytest.mark.slow
@annotation_files.needs_real_data
def test_real_people_are_fitted_by_a_body_of_smpls_form(tmp_path):
    """DensePose's chart on SMPL's own triangles; the made-up shape is the free body's, so the errors are too."""
    model = smpl_files.model() | {"f": annotation_files.smpls_triangles()}
    body = smpl_files.write_npz(tmp_path / "SMPL_NEUTRAL.npz", model)
    done = _run(
        f"--annotations={annotation_files.real('densepose_coco/densepose_coco_2014_train.boxed.json')}",
        f"--chart={annotation_files.real('chart/UV_Processed.mat')}", f"--body={body}", f"--out={tmp_path}/out",
        "--noquality", "--holdout=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for row in json.loads((tmp_path / "out" / "summary.json").read_text())["people"]:
        assert row["dense_error_percent"] < ANNOTATED_PERCENT


@pytest.mark.slow
@annotation_files.needs_real_data
def test_a_photograph_alone_leads_to_a_body(tmp_path):
    pytest.importorskip("mediapipe", exc_type=ImportError)
    photograph = annotation_files.real("several_cameras/photographs") / "cam02_000.jpg"
    PIL.Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(photograph.read_bytes())
    model = annotation_files.real("pose_landmarker_full.task")
    done = _run(f"--images={tmp_path}", f"--detect={model}", f"--out={tmp_path}/out", "--noquality")
    assert done.returncode == 0, done.stderr
    assert "1 people, skipped 1: 1 nobody found" in done.stdout and "nobody is found in a.png" in done.stdout
    assert "lifter of depths: shipped" in done.stdout and "else assumed: their longer side" in done.stdout
    fits = file.read(tmp_path / "out" / "fits.npz")
    assert fits.valid.tolist() == [False, True] and fits.focal_px[1] == pytest.approx(1920)
    assert fits.keypoint_error_px[1] < 0.03 * fits.bbox_px[1, 3]
    assert (tmp_path / "out" / "overlays" / "b_1.png").is_file()


@annotation_files.needs_real_data
def test_every_person_of_a_real_photograph_gets_a_fit(tmp_path):
    folder = annotation_files.real("densepose_demo")
    done = _run(
        f"--iuv={folder}/demo_im_IUV.png", f"--inds={folder}/demo_im_INDS.png", f"--images={folder}/demo_im.jpg",
        f"--chart={annotation_files.real('chart/UV_Processed.mat')}", f"--out={tmp_path}/out", "--holdout=0",
        "--noquality",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    fits = file.read(tmp_path / "out" / "fits.npz")
    assert fits.annotation_id[fits.valid].tolist() == [7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19]
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 12
    whole = np.isin(fits.annotation_id, (17, 18, 19))  # whom DensePose saw whole and apart from others
    assert np.all(100 * fits.dense_error_px[whole] / fits.bbox_px[whole, 2:].max(axis=1) < ANNOTATED_PERCENT)
