import json

import pytest

from tests.data.sources import made_folders
from tests.experiments import binaries


def _run(*flags):
    return binaries.run("experiments.prepare_data", *flags)


def test_tiny_is_prepared_and_named(tmp_path):
    done = _run("--dataset=synthetic_people/tiny", f"--data_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "24 train, 12 test people" in done.stdout
    assert (tmp_path / "synthetic_people" / "tiny").is_dir()


def test_a_data_set_of_files_is_prepared_and_counted(tmp_path):
    """From the official files to the last line; a second run finds it and says the same."""
    folder = made_folders.densepose_coco(tmp_path / "coco")
    flags = ("--dataset=densepose_coco", f"--source={folder}", f"--data_dir={tmp_path}/data", "--image_size=32")
    done = _run(*flags)
    assert done.returncode == 0, done.stderr
    assert "5 train, 2 minival, 1 valminusminival people" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("prepared 8, skipped 5: 2 without points, 1 crowd, 1 masks only, 1 too few points; noted ")
    assert "skipped, masks only, for instance: densepose_coco_2014_train.json: annotation 8" in done.stderr
    again = _run(*flags)
    assert again.returncode == 0 and again.stdout == done.stdout and not again.stderr


def test_a_name_that_leaves_the_folder_reads_nothing(tmp_path):
    folder = made_folders.coco_folder(tmp_path / "mine")
    content = json.loads((folder / "train.json").read_text())
    for image in content["images"]:
        image["file_name"] = f"../../mine/images/{image['file_name']}"
    (folder / "train.json").write_text(json.dumps(content))
    done = _run("--dataset=coco_folder", f"--source={folder}", f"--data_dir={tmp_path}/data", "--workers=0")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "no person of 'train' can be used" in done.stderr and "leaves the images' folder" in done.stderr
    assert not (tmp_path / "data" / "coco_folder").exists()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--dataset=densepose_coco",), "--source=DIR"),
        (("--dataset=densepose_coco", "--source=nowhere"), "nowhere: no such folder"),
        (("--dataset=synthetic_people/huge",), "synthetic_people/huge"),
        (("--dataset=mnist",), "--dataset=mnist"),
    ],
)
def test_a_wrong_name_is_one_line(tmp_path, flags, named):
    done = _run(*flags, f"--data_dir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
