"""The binary end to end: photographs in, bodies out; a killed run goes on; one line and exit code 2 for bad input."""

import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

from dal_jax.fits import file
from tests.experiments import binaries
from tests.loop import small_run
from tests.observations import annotation_files, posed_people

FLOAT32 = 1e-4  # the same pixels, in other places of other batches
REFINED_PERCENT = 3.0  # rms over the box's longer side, from whatever an untrained network answers


def _command(*flags: object) -> list[str]:
    return [sys.executable, "-m", "experiments.predict", *map(str, flags)]


def _run(*flags: object) -> subprocess.CompletedProcess:
    return binaries.run("experiments.predict", *flags)


def _refused(done: subprocess.CompletedProcess, told: str) -> None:
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and told in done.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    small_run.write(workdir)
    return workdir


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three photographs with four people by box; the third is the second, which is stored lying, upright."""
    tmp_path = tmp_path_factory.mktemp("photos")
    folder = tmp_path / "photos"
    folder.mkdir()
    annotation_files.write_picture(folder / "a.png")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (100, 160, 3)).astype(np.uint8)
    PIL.Image.fromarray(noise).save(folder / "b.jpg", exif=exif)
    with PIL.Image.open(folder / "b.jpg") as stored:
        stored.rotate(-90, expand=True).save(folder / "c.png")
    boxes = {"b.jpg": [[10, 20, 60, 120]], "a.png": [[0, 0, 50, 50], [20, 30, 60, 120]], "c.png": [[10, 20, 60, 120]]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    return tmp_path


def _flags(photos, checkpoint) -> list[str]:
    return [
        f"--images={photos}/photos", f"--boxes={photos}/boxes.json", f"--checkpoint={checkpoint}", "--batch=2",
        "--focal_px=1000", "--export=glb",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def bodies(photos, checkpoint):
    """The results of an undisturbed run."""
    done = _run(*_flags(photos, checkpoint), f"--out={photos}/bodies")
    assert done.returncode == 0, done.stderr
    assert "4 people" in done.stdout
    return photos / "bodies"


def test_photographs_become_bodies(photos, checkpoint, bodies):
    names = {"fits.npz", "index.html", "summary.json", "overlays", "meshes", "scenes"}
    assert {path.name for path in bodies.iterdir()} == names
    names = ["a_2", "a_3", "b_1", "c_4"]
    assert sorted(path.stem for path in (bodies / "overlays").iterdir()) == names
    assert sorted(path.name for path in (bodies / "meshes").iterdir()) == [f"{name}.glb" for name in names]
    with PIL.Image.open(bodies / "overlays" / "b_1.png") as picture:
        assert picture.width == 4 * picture.height
    fits = file.read(bodies / "fits.npz")
    assert fits.valid.all() and fits.file_name.tolist() == ["b.jpg", "a.png", "a.png", "c.png"]
    assert np.isnan(fits.dense_error_px).all() and np.isnan(fits.energy).all()
    np.testing.assert_allclose(fits.box_px[[0, 3]], [[-32, 8, 144, 144]] * 2, atol=1e-3)
    np.testing.assert_allclose(fits.joints[0], fits.joints[3], atol=FLOAT32)
    assert np.abs(fits.joints[0] - fits.joints[1]).max() > 3 * FLOAT32
    np.testing.assert_allclose(np.linalg.det(fits.rotation), 1, atol=1e-5)
    with np.load(bodies / "fits.npz") as archive:
        np.testing.assert_allclose(archive["intrinsics_px"], [[1000, 1000, 50, 80]] * 4)  # upright, all 100 x 160
        pelvis = archive["joints_camera"][:, 0]
        assert archive["joints_h36m_camera"].shape == (4, 17, 3) and archive["rotation_camera"].shape == (4, 3, 3)
    np.testing.assert_allclose(1000 * pelvis[:, :2] / pelvis[:, 2:] + (50, 80), fits.joints_px[:, 0], atol=0.05)
    _refused(_run(*_flags(photos, checkpoint), f"--out={bodies}"), "--overwrite")


def test_a_killed_run_goes_on_to_the_same_results(photos, checkpoint, bodies):
    flags, out = [*_flags(photos, checkpoint), f"--out={photos}/killed"], photos / "killed"
    with subprocess.Popen(_command(*flags), stdout=subprocess.DEVNULL) as process:
        while not (out / ".unfinished" / "predicted" / "000000.npz").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert {path.name for path in out.iterdir()} == {".unfinished", ".lock"}
    done = _run(*flags, f"--compare={bodies}")
    assert done.returncode == 0, done.stderr
    files = sorted(path.relative_to(bodies) for path in bodies.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    for name in files:
        if name == pathlib.Path("index.html"):
            assert "4 people have bodies in both" in (out / name).read_text()
        elif name.suffix != ".npz":
            assert (out / name).read_bytes() == (bodies / name).read_bytes(), name
    with np.load(out / "fits.npz") as found, np.load(bodies / "fits.npz") as wanted:
        for name in wanted.files:
            np.testing.assert_array_equal(found[name], wanted[name])


def test_a_bad_picture_is_one_line_and_can_be_skipped(photos, checkpoint, tmp_path):
    annotation_files.write_picture(tmp_path / "a.png")
    whole = (photos / "photos" / "b.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(whole[: len(whole) // 2])
    flags = (f"--images={tmp_path}", f"--checkpoint={checkpoint}", f"--out={tmp_path}/out", "--nooverlays")
    _refused(_run(*flags), "b.jpg: cannot be read as a picture")
    assert not (tmp_path / "out").exists()
    done = _run(*flags, "--skip_invalid")
    assert done.returncode == 0, done.stderr
    assert "1 people, skipped 1: 1 unreadable picture" in done.stdout
    fits = file.read(tmp_path / "out" / "fits.npz")
    assert fits.valid.tolist() == [True, False] and fits.box_px[0].tolist() == [-30, 0, 160, 160]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["file_name"] for row in summary["skipped"]] == ["b.jpg"]


@pytest.mark.slow
def test_annotated_people_are_measured_and_refined(checkpoint, tmp_path):
    for number in (10, 20):
        annotation_files.write_picture(tmp_path / f"{number}.jpg")
    content = annotation_files.content([posed_people.entry(1), posed_people.entry(2)])
    path = annotation_files.write_json(tmp_path / "people.json", content)
    flags = (f"--images={tmp_path}", f"--annotations={path}", f"--checkpoint={checkpoint}", "--nooverlays")
    done = [_run(*flags, f"--out={tmp_path}/predicted"), _run(*flags, "--refine", f"--out={tmp_path}/refined")]
    assert [one.returncode for one in done] == [0, 0], done[1].stderr
    predicted, refined = (file.read(tmp_path / name / "fits.npz") for name in ("predicted", "refined"))
    assert predicted.annotation_id.tolist() == refined.annotation_id.tolist() == [1, 2]
    side = refined.bbox_px[:, 2:].max(axis=1)
    assert np.all(100 * refined.dense_error_px / side < REFINED_PERCENT) and np.isfinite(refined.energy).all()
    rows = json.loads((tmp_path / "refined" / "summary.json").read_text())["people"]
    before = [row["predicted_dense_error_px"] for row in rows]
    np.testing.assert_allclose(before, predicted.dense_error_px, rtol=1e-3)
    assert np.all(refined.dense_error_px < before)


@pytest.mark.slow
@annotation_files.needs_real_data
def test_a_real_photograph_s_person_is_refined_within_the_promised_error(checkpoint, tmp_path):
    """The annotated crop that comes with DensePose, as a photograph of its own."""
    real = annotation_files.demo_annotation()
    height, width = real["ICrop"].shape[:2]
    PIL.Image.fromarray(real["ICrop"]).save(tmp_path / "10.jpg", quality=95)
    entry = annotation_files.entry(1) | {
        "bbox": [0, 0, width, height], "dp_I": real["I"].tolist(), "dp_U": real["U"].tolist(),
        "dp_V": real["V"].tolist(), "dp_x": (real["x"] * 255 / width).tolist(),
        "dp_y": (real["y"] * 255 / height).tolist(),
    }  # fmt: skip
    del entry["keypoints"]
    content = annotation_files.content([entry])
    content["images"][0].update(width=width, height=height)
    done = _run(
        f"--images={tmp_path}", f"--annotations={annotation_files.write_json(tmp_path / 'people.json', content)}",
        f"--chart={annotation_files.real('chart/UV_Processed.mat')}", f"--checkpoint={checkpoint}", "--refine",
        f"--out={tmp_path}/out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "out" / "summary.json").read_text())["people"][0]
    assert row["points"] == 125 and row["dense_error_percent"] < REFINED_PERCENT


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--boxes=a.json", "--keypoints=b.json"], "--boxes and --keypoints both say"),
        (["--refine"], "--refine: needs --annotations"),
        (["--compare=earlier", "--nooverlays"], "--compare=earlier: is shown on the page"),
        ([], "has no config.json"),
    ],
)
def test_wrong_flags_are_one_line(photos, flags, told):
    given = [f"--images={photos}/photos", f"--checkpoint={photos}", *flags, f"--out={photos}/out"]
    _refused(_run(*given), told)
    assert not (photos / "out").exists()
