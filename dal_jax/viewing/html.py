"""Pages that stand alone: HTML with its style, its pictures and its 3D views inside, which loads nothing.

Templates and the one style sheet lie in `assets/`. Every value that enters a template is escaped.
"""

import base64
import gzip
import importlib.util
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from dal_jax.runtime.errors import needs_extra

GLB_MARK = "GLB-IN-BASE64"
"""Where a viewer's page takes its scene."""

_ASSETS = pathlib.Path(__file__).parent / "assets"
_NEEDED = ("jinja2", "trimesh")
_WEBP_QUALITY = 82
_PLACE_STEPS, _NORMAL_STEPS = 512, 32  # a metre, and a unit vector: rounded numbers pack to half, 2 mm do not show


def missing() -> str | None:
    """Return one line on what keeps pages from being written; None: nothing does."""
    for package in _NEEDED:
        if importlib.util.find_spec(package) is None:
            return f"no page is written: package '{package}' is not installed: pip install 'dal_jax[viewing]'"
    return None


def render(template: str, **values: Any) -> str:
    """Return a template of `assets/`, filled in and escaped; a value that it lacks raises.

    Raises:
      errors.InputError: jinja2 is not installed.
    """
    with needs_extra("viewing"):
        import jinja2
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def picture(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """Return a picture as the address of an <img>: WebP inside the page."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", quality=_WEBP_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def pack(content: bytes) -> str:
    """Return bytes as text that a page carries: gzip in base64, which browsers unpack; equal bytes give equal text."""
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def viewer() -> bytes:
    """Return a page that shows a glTF scene and turns it with mouse or finger, `GLB_MARK` in the scene's place.

    It is trimesh's, with three.js in it (MIT).
    """
    with needs_extra("viewing"):
        import trimesh
        from trimesh.viewer import notebook
    stand_in: Any = trimesh.Scene(trimesh.creation.icosahedron())
    page = notebook.scene_to_html(stand_in)
    before, *after = page.split(base64.b64encode(stand_in.export(file_type="glb")).decode())
    if len(after) != 1:
        raise RuntimeError("trimesh's viewer does not hold its scene as one base64 text")
    return (before + GLB_MARK + after[0]).encode()


def scene(
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "m 3"],
    colour: Sequence[float],
    centres: Float[np.ndarray, "k 3"],
    half_axes: Float[np.ndarray, "k 3"],
) -> bytes:
    """Return a mesh, and translucent ellipsoids about points of it, as .glb; places are rounded to 2 mm.

    Args:
      vertices: metres, y up, z towards the viewer.
      faces: of the mesh.
      colour: of the mesh, in [0, 1]; halved, because the viewer's light is bright.
      centres: of the ellipsoids.
      half_axes: along x, y and z.
    """
    with needs_extra("viewing"):
        import trimesh
        from trimesh.visual import TextureVisuals
        from trimesh.visual.material import PBRMaterial

    normals = trimesh.Trimesh(vertices, faces, process=False).vertex_normals
    body = trimesh.Trimesh(
        _rounded(vertices),
        faces,
        vertex_normals=np.round(normals * _NORMAL_STEPS) / _NORMAL_STEPS,
        process=False,
    )
    dimmed = [0.5 * float(channel) for channel in colour]
    body.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=[*dimmed, 1.0], **_MATT))
    parts = {"body": body}
    if len(centres):
        cloud: Any = trimesh.util.concatenate([_ellipsoid(*one) for one in zip(centres, half_axes, strict=True)])
        material = PBRMaterial(baseColorFactor=[*_CLOUD, 0.4], alphaMode="BLEND", **_MATT)
        cloud.visual = TextureVisuals(material=material)
        parts["deviations"] = cloud
    whole = trimesh.Scene()
    for name, part in parts.items():  # by name, as the camera below: names of trimesh's own are random
        whole.add_geometry(part, node_name=name, geom_name=name)
    return _glb(whole)


_MATT: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 0.8}
_FIELD_OF_VIEW_DEG = (60.0, 45.0)
_CLOUD = (0.95, 0.45, 0.1)


def _ellipsoid(centre: np.ndarray, half_axes: np.ndarray):
    with needs_extra("viewing"):
        import trimesh

    ball = trimesh.creation.icosphere(subdivisions=1)
    return trimesh.Trimesh(_rounded(ball.vertices * half_axes + centre), ball.faces, process=False)


def _rounded(places: np.ndarray) -> np.ndarray:
    return np.round(places * _PLACE_STEPS) / _PLACE_STEPS


def _glb(whole: Any) -> bytes:
    with needs_extra("viewing"):
        from trimesh.scene.cameras import Camera

    whole.camera = Camera(name="camera", fov=_FIELD_OF_VIEW_DEG)  # the viewer looks through it
    whole.set_camera()  # where it sees everything
    return whole.export(file_type="glb", include_normals=True)
