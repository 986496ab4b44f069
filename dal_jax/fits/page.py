"""The page of fits: one HTML file with a card a person, the gravest verdict first, of tracks in time; or two runs."""

import dataclasses
import datetime
import math
import pathlib
import typing
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

import dal_jax
from dal_jax.body.kinematics import BodyParameters
from dal_jax.fits import figures, file, overlays
from dal_jax.fits.figures import Figures
from dal_jax.fits.file import FitRows
from dal_jax.runtime import files, machine, progress
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import PathLike
from dal_jax.uncertainty.verdict import GOOD_MM, USABLE_MM, Verdict
from dal_jax.viewing import html

if TYPE_CHECKING:
    from dal_jax.fits.fits import Fits

NAME = "index.html"
SHOWN_IN_FULL = 40
"""People who have a card; the others are rows of a table."""

_VERDICTS: tuple[str, ...] = tuple(reversed(typing.get_args(Verdict)))  # the gravest first
_UNJUDGED = "unjudged"
_ORDER = {name: rank for rank, name in enumerate(("no body", *_VERDICTS, _UNJUDGED))}
_NUMBERS = {
    # name: label, term that explains it, unit, decimals, whether less is better
    "expected": ("expected error", "expected", " mm", 0, True),
    "dense": ("dense points off by", "dense", "%", 1, True),
    "held_out": ("left-out points off by", "held-out", "%", 1, True),
    "keypoint": ("key points off by", "keypoint", "%", 1, True),
    "coverage": ("of the body was seen", "coverage", "%", 0, False),
    "weight": ("sample weight", "weight", "", 2, False),
}


def write(path: PathLike, fits: "Fits", other: PathLike | None = None, pictures: pathlib.Path | None = None) -> None:
    """Write the page; about half a second a person that has a card.

    Args:
      path: of the HTML file; an older one is replaced.
      fits: with a body. What else they know is shown: photographs, annotation, reports.
      other: folder that other fits of the same people were saved to; the page shows both.
      pictures: folder of the fits' overlays (`output.draw`), which are then not drawn again.

    Raises:
      errors.InputError: an extra is not installed, or a file of `other`, or a photograph, cannot be used.
      ValueError: the fits were read without a body.
    """
    now, rows = datetime.datetime.now().astimezone(), fits.report_rows()
    track = fits.extra.get("track_id")
    order = _order(rows, track, fits.extra.get("frame"))
    earlier = None if other is None else Earlier.read(other)
    draw = Figures(fits, pictures)
    shown = progress.bar("page", order[:SHOWN_IN_FULL], unit="person")
    cards = [_card(rows[index], draw, index, earlier) for index in shown]
    title = f"Fits of {_count(len(rows), 'person', 'people')}"
    if track is not None:
        title = f"{_count(len(set(track[track >= 0].tolist())), 'track')} of {_count(len(rows), 'frame')}"
    page = html.render(
        "people.html",
        title=title,
        in_time=track is not None,
        counts=_counts(rows),
        run={
            "made": f"{now.day} {now:%B %Y, %H:%M %Z}",
            "by": f"dal_jax {dal_jax.__version__}",
            "machine": machine.describe(),
            "command": machine.command(),
        },
        compared=None if earlier is None else earlier.compared(rows),
        cards=cards,
        others=[_line(rows[index]) for index in order[SHOWN_IN_FULL:]],
        numbers=_NUMBERS,
        skipped=[] if fits.annotations is None else fits.annotations.rejected,
        error_classes=figures.ERROR_CLASSES_PERCENT,
        limits_mm=(GOOD_MM, USABLE_MM),
        viewer=html.pack(html.viewer()),
        viewer_mark=html.GLB_MARK,
    )
    files.write_text(path, page)


def _order(rows: list[dict[str, Any]], track: np.ndarray | None, frame: np.ndarray | None) -> list[int]:
    """Return rows in the order of the page: the gravest first; of tracks some first, evenly apart in time."""
    gravest = sorted(range(len(rows)), key=lambda index: _gravity(rows[index]))
    if track is None or frame is None:
        return gravest
    in_time = [index for index in np.lexsort((frame, track)).tolist() if track[index] >= 0]
    places = np.linspace(0, len(in_time) - 1, min(SHOWN_IN_FULL, len(in_time)))
    shown = [in_time[place] for place in np.rint(places).astype(int)]
    return shown + [index for index in gravest if index not in set(shown)]


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def _verdict(row: dict[str, Any]) -> str:
    if not row.get("valid"):
        return "no body"
    found = _quality(row).get("verdict")
    return found if isinstance(found, str) and found in _VERDICTS else _UNJUDGED


def _gravity(row: dict[str, Any]) -> tuple:
    """Return what people are sorted by: the verdict, then what they are expected to be off by, or miss."""
    value = _values(row)
    return _ORDER[_verdict(row)], *(-value.get(name, math.inf) for name in ("expected", "dense", "keypoint"))


def _quality(row: dict[str, Any]) -> dict[str, Any]:
    """Return the report in a row of summary.json; that of another run may be anything."""
    found = row.get("quality")
    return found if isinstance(found, dict) else {}


def _flags(row: dict[str, Any]) -> list[str]:
    found = _quality(row).get("flags")
    return [str(flag) for flag in found] if isinstance(found, list) else []


def _values(row: dict[str, Any]) -> dict[str, float]:
    """Return the `_NUMBERS` that were measured of a row of summary.json."""
    quality, side = _quality(row), row.get("bbox_longer_side_px")
    found = {
        "expected": (quality.get("expected_error_mm"), 1.0),
        "dense": (row.get("dense_error_percent"), 1.0),
        "held_out": (row.get("held_out_error_percent"), 1.0),
        "keypoint": (row.get("keypoint_error_px"), 100.0 / side if _is_number(side) and side > 0 else math.nan),
        "coverage": (quality.get("coverage"), 100.0),
        "weight": (quality.get("weight"), 1.0),
    }
    return {name: value * unit for name, (value, unit) in found.items() if _is_number(value) and _is_number(unit)}


def _is_number(value: object) -> typing.TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _counts(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    counts = Counter(_verdict(row) for row in rows)
    return [(name, counts[name]) for name in _ORDER if counts[name]]


def _name(row: dict[str, Any]) -> str:
    return row["file_name"] or f"person {row['annotation_id']}"


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """Return a person as a row of the table."""
    values, flags = _values(row), _flags(row)
    cells = [_text(name, values[name]) if name in values else "-" for name in _NUMBERS]
    return {
        "name": _name(row),
        "id": row["annotation_id"],
        "verdict": _verdict(row),
        "cells": cells,
        "flags": flags[:1],
    }


def _text(name: str, value: float) -> str:
    _, _, unit, decimals, _ = _NUMBERS[name]
    return f"{value:.{decimals}f}{unit}"


def _card(row: dict[str, Any], draw: Figures, index: int, earlier: "Earlier | None") -> dict[str, Any]:
    """Return what the template shows of a person."""
    quality, values = _quality(row), _values(row)
    before, then = None, {}
    if earlier is not None and (found := earlier.find(row)) is not None:
        then = _values(found)
        before = {"verdict": _verdict(found), "flags": _flags(found)}
        before["tiles"] = draw.tiles(index, earlier.body(row, draw.box_px(index)), {})
    texts, old = ({name: _text(name, value) for name, value in each.items()} for each in (values, then))
    numbers = [
        {"name": name, "text": text, "was": old[name] if old.get(name, text) != text else None}
        for name, text in texts.items()
    ]
    spread = quality.get("joint_sd_mm") or {}
    return {
        "index": index,
        "name": _name(row),
        "row": row,
        "verdict": _verdict(row),
        "flags": _flags(row),
        "numbers": numbers,
        "tiles": [*draw.residuals(index, row["bbox_longer_side_px"]), *draw.tiles(index, None, spread)],
        "scene": draw.scene(index, spread),
        "spread": spread,
        "parts": quality.get("dense_error_by_part_px") or {},
        "before": before,
    }


@dataclasses.dataclass(frozen=True)
class Earlier:
    """Fits that were saved to a folder, by image_id and annotation_id."""

    folder: str
    fits: FitRows
    people: dict[tuple[str, str], dict[str, Any]]

    @classmethod
    def read(cls, folder: PathLike) -> "Earlier":
        """Read what `Fits.save` has written.

        Raises:
          errors.InputError: summary.json or fits.npz is missing, or not what it must be.
        """
        path = pathlib.Path(folder) / "summary.json"
        content = files.read_json(path)
        people = content.get("people") if isinstance(content, dict) else None
        if not isinstance(people, list) or not all(isinstance(one, dict) for one in people):
            raise InputError(f"{path}: 'people' is no list of people")
        fits = file.read(pathlib.Path(folder) / "fits.npz")
        return cls(str(folder), fits, {_identity(one): one for one in people})

    def find(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return a person's row of this summary.json, if the person has a body in it."""
        found = self.people.get(_identity(row))
        return found if found is not None and found.get("valid") else None

    def body(self, row: dict[str, Any], box_px: np.ndarray) -> BodyParameters:
        """Return a person's body in another square crop."""
        try:
            return overlays.select(file.starts_for(self.fits, [_identity(row)], box_px[None]), 0)
        except InputError as error:
            raise InputError(f"{self.folder}: summary.json and fits.npz disagree: {error}") from error

    def compared(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what the head of the page says of both."""
        both = [(row, found) for row in rows if (found := self.find(row)) is not None]
        steps = [_ORDER[_verdict(row)] - _ORDER[_verdict(found)] for row, found in both]
        medians = {}
        for name in _NUMBERS:
            pairs = [
                (_values(found)[name], _values(row)[name])
                for row, found in both
                if name in _values(found) and name in _values(row)
            ]
            if pairs:
                medians[name] = [_text(name, float(value)) for value in np.median(pairs, axis=0)]
        return {
            "folder": self.folder,
            "both": len(both),
            "only_here": len(rows) - len(both),
            "only_there": len(self.people) - len(both),
            "better": sum(step > 0 for step in steps),
            "worse": sum(step < 0 for step in steps),
            "medians": medians,
        }


def _identity(row: dict[str, Any]) -> tuple[str, str]:
    return str(row.get("image_id")), str(row.get("annotation_id"))
