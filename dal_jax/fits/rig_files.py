"""Rigs as files: binary glTF (.glb) through pygltflib, USD (.usd, its text form) through usd-core; still or moving.

Scales of UsdSkel have half precision, which would move skin by up to 0.2 mm. What rounding takes from a scale is put
into the bind transform of its node, so that UsdSkel's own skinning is exact.
"""
# pyright: reportAttributeAccessIssue=false
# usd-core's modules are compiled, and pyright does not know their names.

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.fits import rig as rigs
from dal_jax.fits.rig import Rig
from dal_jax.runtime import files
from dal_jax.runtime.errors import needs_extra

CAMERA = "camera"
"""The name of a scene's camera."""


def glb(
    template: Template,
    people: Mapping[str, Rig],
    view: tuple[float, float] | None = None,
    times_s: Float[np.ndarray, "frames"] | None = None,
    extras: Mapping[str, dict[str, Any]] | None = None,
) -> bytes:
    """Return people as a .glb: each a node of its name with its skeleton, and one skinned mesh.

    What changes over frames is animated, linearly between them (needs `times_s`, increasing); nodes have the first
    frame. Meshes are roots of the scene, as glTF wants skinned meshes to be. view: of a camera at the origin that looks
    along -z, `CAMERA`: the vertical field of view, radians, and width over height. extras: JSON values that the nodes
    of people and camera keep, by name.
    """
    with needs_extra("viewing"):
        import pygltflib

    file = _File(pygltflib, template)
    content, extras, roots = file.content, extras or {}, []
    if view is not None:
        yfov, aspect_ratio = view
        perspective = pygltflib.Perspective(yfov=yfov, aspectRatio=aspect_ratio, znear=0.05)
        content.cameras.append(pygltflib.Camera(type="perspective", perspective=perspective, name=CAMERA))
        roots.append(file.node(name=CAMERA, camera=0, extras=extras.get(CAMERA, {})))
    for name, rig in people.items():
        roots += file.person(name, rig, extras.get(name, {}), times_s)
    content.scenes.append(pygltflib.Scene(nodes=roots))
    content.scene = 0
    return file.finish()


STILL_S = 1 / 30  # frame time of a .bvh of one frame


def animation(
    template: Template,
    parameters: BodyParameters,
    times_s: Sequence[float] | Float[np.ndarray, "frames"],
    path: str | os.PathLike[str],
    position: Float[np.ndarray, "frames 3"] | None = None,
) -> None:
    """Write a body that moves: `.glb` (whatever changes is animated, linearly between frames), `.bvh` or `.usd`.

    Args:
      template: the body.
      parameters: stacked over frames, (frames, ...). A .bvh needs one `segment_scale` for all.
      times_s: of the frames, seconds, increasing from 0 or later; evenly for a .bvh or a .usd.
      path: the file; its ending names the format, its stem the person.
      position: of the pelvis, camera axes, metres; left out: the origin.

    Raises:
      ValueError: another ending, times that do not increase or do not fit, or more than one skeleton for a .bvh.
    """
    path, times_s = pathlib.Path(path), np.asarray(times_s, np.float64)
    if times_s.shape != (len(parameters.pose),):
        raise ValueError(f"times_s has shape {times_s.shape} for {len(parameters.pose)} frames")
    steps = np.diff(times_s.astype(np.float32))
    if not (np.isfinite(times_s).all() and times_s[0] >= 0 and (steps > 0).all()):
        raise ValueError("times_s must increase, from 0 or later")
    rig = rigs.make(template, parameters, position)
    if path.suffix in (".bvh", ".usd") and len(steps) and not np.allclose(steps, np.mean(steps), rtol=0.01):
        raise ValueError(f"times_s must be evenly spaced for a {path.suffix}")
    if path.suffix == ".glb":
        files.write_bytes(path, glb(template, {path.stem: rig}, times_s=times_s))
    elif path.suffix == ".bvh":
        frame_s = float(np.mean(steps)) if len(steps) else STILL_S
        files.write_text(path, rigs.bvh(rig, frame_s))
    elif path.suffix == ".usd":
        files.write_text(path, usd(template, path.stem, rig, times_s))
    else:
        raise ValueError(f"{path}: an animation is a .glb, a .bvh or a .usd")


class _File:
    """A glTF file in the making: its JSON, and the bytes behind it."""

    def __init__(self, library: Any, template: Template):
        self._gltf, self._bytes, self._template = library, bytearray(), template
        self._meshes: dict[bytes, tuple[int, int]] = {}  # by the rest pose, which people of one template share
        self.content = library.GLTF2(asset=library.Asset(version="2.0", generator="dal_jax"))
        colour = [*rigs.COLOUR, 1.0]
        matte = library.PbrMetallicRoughness(baseColorFactor=colour, metallicFactor=0.0, roughnessFactor=0.8)
        self.content.materials.append(library.Material(name="body", pbrMetallicRoughness=matte))

    def person(
        self, name: str, rig: Rig, extras: dict[str, Any], times_s: Float[np.ndarray, "frames"] | None
    ) -> list[int]:
        """Add a person; return the nodes that are roots: the skeleton's and the mesh's."""
        joints, scales = self._skeleton(rig)
        root = self.node(name=name, children=[joints[0]], extras=extras)
        if (rest := rig.vertices.tobytes()) not in self._meshes:
            bind = self._numbers(_inverse_bind(rig), "MAT4")
            self._meshes[rest] = self._mesh(rig), bind
        mesh, bind = self._meshes[rest]
        skin = self._gltf.Skin(name=name, joints=joints + scales, skeleton=joints[0], inverseBindMatrices=bind)
        self.content.skins.append(skin)
        if times_s is not None:
            self._animate(rig, joints, scales, np.asarray(times_s), name)
        body = self.node(name=f"{name}_body", mesh=mesh, skin=len(self.content.skins) - 1)
        return [root, body]

    def node(self, **fields: Any) -> int:
        self.content.nodes.append(self._gltf.Node(**fields))
        return len(self.content.nodes) - 1

    def _skeleton(self, rig: Rig) -> tuple[list[int], list[int]]:
        """Add the nodes of the joints and of their scales."""
        joints, scales = [], []
        for joint, name in enumerate(rigs.NAMES):
            translation, rotation = rig.translation[0, joint].tolist(), rig.rotation[0, joint].tolist()
            joints.append(self.node(name=name, translation=translation, rotation=rotation, children=[]))
        for joint, name in enumerate(rigs.SCALE_NAMES):
            rotation, scale = rig.axes[joint].tolist(), rig.scale[0, joint].tolist()
            scales.append(self.node(name=name, rotation=rotation, scale=scale))
            children = [joints[child] for child, parent in enumerate(rigs.PARENTS) if parent == joint]
            self.content.nodes[joints[joint]].children = [scales[joint], *children]
        return joints, scales

    def _mesh(self, rig: Rig) -> int:
        with needs_extra("viewing"):
            import trimesh

        template = self._template
        vertex, texture, faces = _cut(template)
        normals = trimesh.Trimesh(rig.vertices, template.faces, process=False).vertex_normals
        normals = np.where(np.linalg.norm(normals, axis=1, keepdims=True) > 0.5, normals, (0.0, 1.0, 0.0))
        weight = np.asarray(template.skin_weight, np.float64)
        index = np.argsort(-weight, axis=1, kind="stable")[:, :4]  # a body file has no more
        weight = np.take_along_axis(weight, index, axis=1)
        index = np.where(weight > 0, index + len(rigs.NAMES), 0)  # the scale nodes move the skin
        weight = weight / weight.sum(axis=1, keepdims=True)
        at = self._gltf.Attributes()
        at.POSITION = self._numbers(rig.vertices[vertex], "VEC3", _VERTICES, bounds=True)
        at.NORMAL = self._numbers(normals[vertex], "VEC3", _VERTICES)
        at.TEXCOORD_0 = self._numbers(texture, "VEC2", _VERTICES)
        at.JOINTS_0 = self._numbers(index[vertex], "VEC4", _VERTICES, component=_UINT8)
        at.WEIGHTS_0 = self._numbers(weight[vertex], "VEC4", _VERTICES)
        corners = self._numbers(faces.reshape(-1, 1), "SCALAR", _INDICES, component=_UINT32)
        primitive = self._gltf.Primitive(attributes=at, indices=corners, material=0, mode=4)
        self.content.meshes.append(self._gltf.Mesh(name="body", primitives=[primitive]))
        return len(self.content.meshes) - 1

    def _animate(
        self, rig: Rig, joints: list[int], scales: list[int], times_s: Float[np.ndarray, "frames"], name: str
    ) -> None:
        """Add an animation of whatever changes."""
        animation = self._gltf.Animation(name=name, channels=[], samplers=[])
        times = self._numbers(times_s[:, None], "SCALAR", bounds=True)
        for nodes, path, kind, values in (
            (joints, "translation", "VEC3", rig.translation),
            (joints, "rotation", "VEC4", rig.rotation),
            (scales, "scale", "VEC3", rig.scale),
        ):
            for joint in np.flatnonzero(np.any(values != values[:1], axis=(0, 2))):
                output = self._numbers(values[:, joint], kind)
                sampler = self._gltf.AnimationSampler(input=times, output=output, interpolation="LINEAR")
                target = self._gltf.AnimationChannelTarget(node=nodes[joint], path=path)
                channel = self._gltf.AnimationChannel(sampler=len(animation.samplers), target=target)
                animation.samplers.append(sampler)
                animation.channels.append(channel)
        if animation.channels:
            self.content.animations.append(animation)

    def _numbers(
        self, values: np.ndarray, kind: str, target: int | None = None, component: int = 5126, bounds: bool = False
    ) -> int:
        """Add an accessor of numbers and return it; `target`: what the graphics card takes them for."""
        stored = np.ascontiguousarray(values, _DTYPES[component])
        view = self._gltf.BufferView(buffer=0, byteOffset=len(self._bytes), byteLength=stored.nbytes, target=target)
        self._bytes += stored.tobytes() + bytes(-stored.nbytes % 4)
        accessor = self._gltf.Accessor(
            bufferView=len(self.content.bufferViews), componentType=component, count=len(stored), type=kind
        )
        if bounds:
            accessor.min, accessor.max = stored.min(axis=0).tolist(), stored.max(axis=0).tolist()
        self.content.bufferViews.append(view)
        self.content.accessors.append(accessor)
        return len(self.content.accessors) - 1

    def finish(self) -> bytes:
        self.content.buffers.append(self._gltf.Buffer(byteLength=len(self._bytes)))
        self.content.set_binary_blob(bytes(self._bytes))
        return b"".join(self.content.save_to_bytes())


_VERTICES, _INDICES = 34962, 34963
_UINT8, _UINT32 = 5121, 5125
_DTYPES = {_UINT8: np.uint8, _UINT32: np.uint32, 5126: np.float32}


def _cut(
    template: Template,
) -> tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k 2"], Int[np.ndarray, "m 3"]]:
    """Cut the mesh where parts of the chart meet: a vertex for each (vertex, place in the texture).

    Returns:
      Which vertex each was, its place in the texture, and the faces.
    """
    faces, texture = np.asarray(template.faces), rigs.texture(template).reshape(-1, 2)
    x, y = np.rint(texture * _TEXTURE_STEPS).astype(np.int64).T
    corner = (faces.reshape(-1).astype(np.int64) * (_TEXTURE_STEPS + 1) + x) * (_TEXTURE_STEPS + 1) + y
    _, first, where = np.unique(corner, return_index=True, return_inverse=True)
    return faces.reshape(-1)[first], texture[first], where.reshape(faces.shape)


_TEXTURE_STEPS = 2**18  # a texture's side: corners that are nearer are one


def _inverse_bind(rig: Rig) -> Float[np.ndarray, "48 16"]:
    """Return [I | -J] of the joints and [E^T | -E^T J] of the scale nodes, by columns."""
    rotation = np.concatenate([np.tile(np.eye(3), (24, 1, 1)), Rotation.from_quat(rig.axes).as_matrix().swapaxes(1, 2)])
    matrices = np.tile(np.eye(4), (len(rotation), 1, 1))
    matrices[:, :3, :3] = rotation
    matrices[:, :3, 3] = -np.einsum("kij,kj->ki", rotation, np.tile(rig.joints, (2, 1)))
    return matrices.swapaxes(1, 2).reshape(-1, 16)


_SLOTS = 4


def usd(template: Template, name: str, rig: Rig, times_s: Float[np.ndarray, "frames"] | None = None) -> str:
    """Return a rig as the text of a USD file; `times_s` of its frames make it an animation, a time code a frame."""
    with needs_extra("usd"):
        from pxr import Gf, Sdf, Tf, Usd, UsdGeom, UsdSkel, Vt  # pyright: ignore[reportMissingImports]

    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdSkel.Root.Define(stage, f"/{Tf.MakeValidIdentifier(name)}")
    stage.SetDefaultPrim(root.GetPrim())
    mesh = UsdGeom.Mesh.Define(stage, root.GetPath().AppendChild("body"))
    skeleton = UsdSkel.Skeleton.Define(stage, root.GetPath().AppendChild("skeleton"))
    motion = UsdSkel.Animation.Define(stage, skeleton.GetPath().AppendChild("motion"))

    def matrices(values: np.ndarray) -> Vt.Matrix4dArray:  # USD's act on rows
        return Vt.Matrix4dArray([Gf.Matrix4d(*one.T.ravel().tolist()) for one in values])

    joints = [_path(joint) for joint in range(len(rigs.NAMES))]
    joints += [f"{path}/{name}" for path, name in zip(joints, rigs.SCALE_NAMES, strict=True)]
    translation, rotation, scale = _channels(rig)
    skeleton.CreateJointsAttr(joints)
    skeleton.CreateRestTransformsAttr(matrices(_matrix(translation[0], rotation[0], scale[0])))
    skeleton.CreateBindTransformsAttr(matrices(_bind(rig)))
    motion.CreateJointsAttr(joints)
    for frame in range(len(translation)):
        when = Usd.TimeCode.Default() if times_s is None else Usd.TimeCode(frame)
        motion.CreateTranslationsAttr().Set(Vt.Vec3fArray.FromNumpy(translation[frame].astype(np.float32)), when)
        quaternions = Vt.QuatfArray([Gf.Quatf(w, x, y, z) for x, y, z, w in rotation[frame].tolist()])
        motion.CreateRotationsAttr().Set(quaternions, when)
        motion.CreateScalesAttr().Set(Vt.Vec3hArray([Gf.Vec3h(*one) for one in scale[frame].tolist()]), when)
    if times_s is not None:
        rate = 1.0 if len(times_s) < 2 else 1.0 / float(np.mean(np.diff(times_s)))
        stage.SetTimeCodesPerSecond(rate)
        stage.SetStartTimeCode(0)
        stage.SetEndTimeCode(len(times_s) - 1)
    UsdSkel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets([motion.GetPath()])

    weight = np.asarray(template.skin_weight, np.float32)
    index = np.argsort(-weight, axis=1, kind="stable")[:, :_SLOTS]
    weight = np.take_along_axis(weight, index, axis=1)
    index = np.where(weight > 0, index + len(rigs.NAMES), 0).astype(np.int32)
    faces = np.asarray(template.faces, np.int32)
    mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(rig.vertices.astype(np.float32)))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(faces.ravel()))
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray([3] * len(faces)))
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    mesh.CreateDisplayColorAttr([Gf.Vec3f(*rigs.COLOUR)])
    texture = rigs.texture(template) * (1, -1) + (0, 1)  # up, where glTF's is down
    st = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying)
    st.Set(Vt.Vec2fArray.FromNumpy(texture.reshape(-1, 2).astype(np.float32)))
    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets([skeleton.GetPath()])
    binding.CreateJointIndicesPrimvar(False, _SLOTS).Set(Vt.IntArray.FromNumpy(index.ravel()))
    binding.CreateJointWeightsPrimvar(False, _SLOTS).Set(Vt.FloatArray.FromNumpy(weight.ravel()))
    binding.CreateGeomBindTransformAttr(Gf.Matrix4d(1.0))
    return stage.GetRootLayer().ExportToString()


def _path(joint: int) -> str:
    """Return a joint's name after those of all above it."""
    parent = rigs.PARENTS[joint]
    return rigs.NAMES[joint] if parent < 0 else f"{_path(parent)}/{rigs.NAMES[joint]}"


def _channels(
    rig: Rig,
) -> tuple[Float[np.ndarray, "f 48 3"], Float[np.ndarray, "f 48 4"], Float[np.ndarray, "f 48 3"]]:
    """Return translations, rotations and scales of joints and their scale nodes."""
    none = np.zeros_like(rig.scale)
    axes = np.broadcast_to(rig.axes, rig.rotation.shape)
    return (
        np.concatenate([rig.translation, none], axis=1),
        np.concatenate([rig.rotation, axes], axis=1),
        np.concatenate([none + 1.0, rig.scale], axis=1),
    )


def _matrix(translation: np.ndarray, rotation: np.ndarray, scale: np.ndarray) -> Float[np.ndarray, "n 4 4"]:
    matrix = np.tile(np.eye(4), (len(translation), 1, 1))
    matrix[:, :3, :3] = Rotation.from_quat(rotation).as_matrix() * scale[:, None]
    matrix[:, :3, 3] = translation
    return matrix


def _bind(rig: Rig) -> Float[np.ndarray, "48 4 4"]:
    """Return where joints and scale nodes are when the mesh is at rest: T(J), T(J) E diag(half(d) / d)."""
    rounded = rig.scale[0].astype(np.float16) / rig.scale[0]
    return np.concatenate([
        _matrix(rig.joints, np.tile([0.0, 0.0, 0.0, 1.0], (len(rig.joints), 1)), np.ones_like(rig.joints)),
        _matrix(rig.joints, rig.axes, rounded),
    ])  # fmt: skip
