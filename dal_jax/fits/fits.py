"""Fits: what `fit` and `predict` return; people with bodies, looked at, saved and exported."""

import dataclasses
import math
import pathlib
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from dal_jax.body import kinematics, skinning
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.fits import file
from dal_jax.fits.file import FitRows
from dal_jax.observations.following import Frames
from dal_jax.observations.observations import Observations
from dal_jax.observations.person import AnnotatedPerson, Annotations
from dal_jax.registration.views import Bodies
from dal_jax.runtime import files, machine, programs
from dal_jax.uncertainty import measurements, quality
from dal_jax.uncertainty.measurements import Measurement
from dal_jax.uncertainty.quality import Quality
from dal_jax.uncertainty.verdict import Verdict


@dataclasses.dataclass(frozen=True)
class Report:
    """What a fit is worth.

    verdict: see `uncertainty.verdict`. flags: warnings in plain words, the gravest first.
    sample_weight: in [0, 1], what the fit should count for in training.
    numbers: errors by part, inliers, other modes, standard deviations: the person's `quality` in summary.json.
    """

    verdict: Verdict
    flags: list[str]
    sample_weight: float
    numbers: dict[str, Any]


@dataclasses.dataclass(eq=False)
class Fits(FitRows):
    """People with bodies: the rows of `fits.npz`, and what they were made from.

    body: the template; None where the fits were read without one.
    observations: of the fitted people; None where the fits were read from a file.
    annotations: the entries that the rows stand for, with their photographs; None where arrays were fitted.
    quality: a `Report` a fitted person, in the order of `observations`; empty where it was not asked for.
    shape_covariance: of the log sizes of each fitted person (`Posterior.shape_covariance`); None without reports.
    height_cm: true heights, one or one a fitted person, which give measurements their size; None: not known.
    held_out_error_px: (k,) of each fitted person, root mean square at points left out of a fit.
    fps: frames a second of tracks; None: the people are of photographs.
    world: bodies in the world of calibrated cameras, one a moment (`joints_m`, `vertices`); None: there are none.
    extra: further fields of the file, by name. summary: further fields of summary.json, a value a fitted person.
    """

    body: Template | None = None
    observations: Observations | None = None
    annotations: Annotations | None = None
    quality: Sequence[Report] = ()
    shape_covariance: Float[np.ndarray, "k sizes sizes"] | None = None
    height_cm: float | tuple[float, ...] | None = None
    held_out_error_px: Float[np.ndarray, "k"] | None = None
    fps: float | None = None
    world: Bodies | None = None
    extra: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    summary: dict[str, list] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        observations: Observations,
        body: Template,
        parameters: BodyParameters,
        energy: np.ndarray | float = np.nan,
        converged: np.ndarray | bool = True,
        annotations: Annotations | None = None,
    ) -> "Fits":
        """Return people with these bodies (stacked), and a row that is not valid for every rejected annotation."""
        fields: dict[str, Any] = dict(file.rows_of(observations, body, parameters, energy, converged))
        if annotations is not None:
            fields = file.spread(fields, annotations.entries)
        return cls(**fields, body=body, observations=observations, annotations=annotations)

    def report(self, assessed: Quality) -> None:
        """Keep the reports on the fitted people; that a camera contradicts the others is the first of its flags."""
        described = [quality.describe(assessed, row) for row in range(len(assessed.points))]
        first = self.summary.get("camera_flags", [[]] * len(described))
        for one, flags in zip(described, first, strict=True):
            one |= {"flags": [*flags, *one["flags"]]} | ({"verdict": "doubtful"} if flags else {})
        self.quality = [Report(one["verdict"], one["flags"], one["weight"], one) for one in described]
        self.shape_covariance = np.asarray(assessed.posterior.shape_covariance)
        self.summary["measurements"] = [self.measured(row) for row in self.fitted_rows().tolist()]

    def follow(self, frames: Frames, exchanged: Bool[np.ndarray, "k"]) -> None:
        """Say whose each row is and when: `track_id` and `frame`, -1 of rows that were not fitted.

        And whether left and right of its key points were `exchanged` (`following.set_right`).
        """
        rows = self.fitted_rows()
        self.fps = frames.fps
        self.extra["sides_exchanged"] = np.zeros(len(self), bool)
        self.extra["sides_exchanged"][rows] = exchanged
        self.summary["sides_exchanged"] = exchanged.tolist()
        for name, values in (("track_id", frames.track), ("frame", frames.frame)):
            self.extra[name] = np.full(len(self), -1, np.int64)
            self.extra[name][rows] = values
            self.summary[name] = values.tolist()

    def vertices(self, row: int) -> Float[np.ndarray, "v 3"]:
        """Return a person's posed mesh: metres, camera axes, relative to the pelvis; its faces are `body.faces`.

        Raises:
          ValueError: the fits were read from a file without a body: `load_fits(path, body)`.
        """
        return np.asarray(_vertices(self.known_body(), jax.tree.map(lambda leaf: leaf[row], self.parameters)))

    def measurements(self, row: int, height_cm: float | None = None) -> dict[str, Measurement]:
        """Return a fitted person's height, lengths and girths, each with a standard deviation.

        Example:
            fits.measurements(0, height_cm=178)["waist_girth"].value

        Args:
          row: of the person.
          height_cm: the true height; None: that of `FitOptions`; without any all are shares of the height.

        Raises:
          ValueError: the fits have no reports (`FitOptions(quality=False)`, or they were read from a file), the row was
            not fitted, or a height that nobody has.
        """
        if self.shape_covariance is None:
            raise ValueError("measurements need the fits' reports: dal.fit with quality=True")
        rows = self.fitted_rows()
        if row not in rows:
            raise ValueError(f"row {row} was not fitted")
        index = int(np.flatnonzero(rows == row)[0])
        if height_cm is None and self.height_cm is not None:
            height_cm = float(np.broadcast_to(self.height_cm, len(rows))[index])
        parameters = jax.tree.map(lambda leaf: leaf[row], self.parameters)
        return measurements.measure(self.known_body(), parameters, self.shape_covariance[index], height_cm)

    def save(
        self,
        folder: str | pathlib.Path,
        formats: Sequence[str] = (),
        *,
        overlays: bool = True,
        keep_fragments: bool = False,
        overwrite: bool = False,
        other: str | pathlib.Path | None = None,
    ) -> None:
        """Write fits.npz and summary.json, overlays/ where photographs are known, meshes/ in `formats`; all or nothing.

        With `glb` also scenes/, one a photograph. Of tracks `glb`, `bvh` and `usd` are in motion/, one a track. People
        of an annotation have a page to look at, too: index.html, which needs the extra `viewing`; without it a warning
        says so. `overlays=False` leaves out all pictures, and the page. A fit whose verdict is `fragment` has no mesh,
        but with `keep_fragments`.

        Args:
          folder: made if missing.
          formats: of `export.FORMATS`.
          overlays: whether to draw.
          keep_fragments: write their meshes.
          overwrite: replace what is there.
          other: folder that other fits of the same people were saved to, to compare with on the page.

        Raises:
          errors.InputError: results are there already (`overwrite` replaces them), an unknown format, or `other` has no
            fits.
        """
        from dal_jax.fits import output  # draws, by libraries that fitting alone does not need

        out = pathlib.Path(folder).absolute()
        files.refuse_taken(out, output.NAMES, overwrite)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fits.", dir=out) as building:
            self.write_into(
                pathlib.Path(building), formats, overlays=overlays, keep_fragments=keep_fragments, other=other
            )
            files.publish(pathlib.Path(building), out, output.NAMES)

    def write_into(
        self,
        folder: pathlib.Path,
        formats: Sequence[str] = (),
        *,
        overlays: bool = True,
        keep_fragments: bool = False,
        other: str | pathlib.Path | None = None,
    ) -> None:
        """Write what `save` does into a folder as it is; an overlay that is there already is not drawn again."""
        from dal_jax.fits import export, output, page
        from dal_jax.viewing import html

        body, parameters = self.known_body(), self.fitted()
        if overlays and self.annotations is not None and self.observations is not None:
            output.draw(folder / "overlays", body, self.annotations, self.observations.stacked, parameters)
        moving = () if self.fps is None else [one for one in formats if one in export.MOVING_FORMATS]
        if still := [one for one in formats if one not in moving]:
            self.export(folder / "meshes", still, keep_fragments=keep_fragments)
        if moving:
            self.export_motion(folder / "motion", moving)
        elif "glb" in formats:
            self.export_scenes(folder / "scenes", keep_fragments=keep_fragments)
        if overlays and self.annotations is not None:
            if (missing := html.missing()) is None:
                with machine.for_people(len(self)):
                    page.write(folder / page.NAME, self, other, folder / "overlays")
            else:
                warnings.warn(missing, stacklevel=2)
        skipped = [] if self.annotations is None else [dataclasses.asdict(one) for one in self.annotations.rejected]
        files.write_json(folder / "summary.json", {"people": self.report_rows(), "skipped": skipped})
        file.write(folder / "fits.npz", self, self.extra)

    def page(self, path: str | pathlib.Path, other: str | pathlib.Path | None = None) -> None:
        """Write one HTML file to look at: a card a person, the gravest verdict first, with views that turn.

        Args:
          path: of the file, such as `look.html`.
          other: folder that other fits of the same people were saved to; the page shows both.

        Raises:
          ValueError: the fits were read from a file without a body.
          errors.InputError: an extra is not installed, or a file of `other`, or a photograph, cannot be used.
        """
        from dal_jax.fits import page

        page.write(path, self, other)

    def export(
        self, folder: str | pathlib.Path, formats: Sequence[str] = ("glb",), *, keep_fragments: bool = False
    ) -> list[pathlib.Path]:
        """Write each person into a folder: a rig (`glb`, `usd`, `bvh`), a mesh (`obj`, `ply`), SMPL's `npz`.

        Metres, y up; where the camera sees them if its focal length is known, else with the pelvis at the origin.
        Returns the paths. A fit whose verdict is `fragment` has none, but with `keep_fragments`.

        Raises:
          errors.InputError: an unknown format, or `npz` of a body that is not SMPL's.
        """
        from dal_jax.fits import export

        formats = export.parse_formats(",".join(formats))
        return export.export_fits(self, self.known_body(), pathlib.Path(folder), formats, keep_fragments)

    def export_motion(self, folder: str | pathlib.Path, formats: Sequence[str] = ("glb",)) -> list[pathlib.Path]:
        """Write each track into a folder, a body that moves (`glb`, `bvh`, `usd`): track_0.glb and so on; return paths.

        Frames in which a person was lost are filled in between those before and after.

        Raises:
          ValueError: the fits are no tracks (`FitOptions(tracks=True)`).
        """
        from dal_jax.fits import export

        return export.export_motion(self, self.known_body(), pathlib.Path(folder), formats)

    def export_scenes(self, folder: str | pathlib.Path, *, keep_fragments: bool = False) -> list[pathlib.Path]:
        """Write each photograph into a folder as a .glb: its camera and its people, where it sees them; return paths.

        A focal length that is not known is taken for the photograph's diagonal, and the file says so. Photographs of
        unknown size have no scene.
        """
        from dal_jax.fits import export

        return export.export_scenes(self, self.known_body(), pathlib.Path(folder), keep_fragments)

    def fitted(self) -> BodyParameters:
        """Return the bodies of the fitted people, stacked, in the order of `observations`."""
        rows = self.fitted_rows()
        return jax.tree.map(lambda leaf: leaf[rows], self.parameters)

    def names(self) -> list[str]:
        """Return a file name without extension for each fitted person."""
        from dal_jax.fits import export

        rows = self.fitted_rows()
        return export.file_names(
            f"{pathlib.PurePath(name).stem or 'person'}_{number}"
            for name, number in zip(self.file_name[rows].tolist(), self.annotation_id[rows].tolist(), strict=True)
        )

    def report_rows(self) -> list[dict[str, Any]]:
        """Return summary.json's `people`: one dict a fitted person; None is "not measured"."""
        from dal_jax.fits import output

        people, result = None if self.annotations is None else self.annotations.people, []
        counts = None if self.observations is None else np.sum(self.observations.stacked.point_confidence > 0, axis=1)
        for index, row in enumerate(self.fitted_rows()):
            left_out = None if self.held_out_error_px is None else self.held_out_error_px[index]
            points = len(people[index].part) if people else 0 if counts is None else int(counts[index])
            one = output.summary_row(self, row, points, left_out)
            if people:  # ids as the annotation writes them: numbers may stand beside words
                one |= {"image_id": people[index].image_id, "annotation_id": people[index].annotation_id}
            one |= {"measurements": None} | {name: values[index] for name, values in self.summary.items()}
            result.append(one | {"quality": self.quality[index].numbers if self.quality else None})
        return result

    def measured(self, row: int) -> dict[str, Any] | None:
        """Return a fitted person's `measurements` as summary.json has them; None if a deviation is not finite."""
        found = self.measurements(row)
        if not all(math.isfinite(one.value) and math.isfinite(one.sd) for one in found.values()):
            return None
        unit = found["height"].unit
        return {"unit": unit} | {name: [round(one.value, 4), round(one.sd, 4)] for name, one in found.items()}

    def fitted_rows(self) -> np.ndarray:
        """Return the rows of the people who were fitted (those of rejected annotations are left out)."""
        if self.annotations is None:
            return np.arange(len(self))
        return np.flatnonzero([isinstance(entry, AnnotatedPerson) for entry in self.annotations.entries])

    def known_body(self) -> Template:
        """Return the body.

        Raises:
          ValueError: the fits were read from a file without one.
        """
        if self.body is None:
            raise ValueError("these fits were read without a body: load_fits(path, body=load_body(...))")
        return self.body


def load_fits(path: str | pathlib.Path, body: Template | None = None) -> Fits:
    """Read fits.npz, with the body that it was fitted with if meshes are wanted.

    Raises:
      errors.InputError: missing, no .npz, or a field is missing or misshaped.
    """
    rows = file.read(path)
    return Fits(**{field.name: getattr(rows, field.name) for field in dataclasses.fields(rows)}, body=body)


@programs.kept
def _vertices(template: Template, parameters: BodyParameters) -> jax.Array:
    segments = kinematics.pose_segments(template, parameters)
    return skinning.skin_vertices(template, segments)
