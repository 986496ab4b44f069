"""Rigs as USD (.usd, its text form): UsdSkel's skeleton, skinned mesh and animation; written through usd-core.

Scales of UsdSkel have half precision, which would move skin by up to 0.2 mm. What rounding takes from a scale is put
into the bind transform of its node, so that UsdSkel's own skinning is exact.
"""
# pyright: reportAttributeAccessIssue=false
# usd-core's modules are compiled, and pyright does not know their names.

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from dal_jax.body.template import Template
from dal_jax.fits import rig as rigs
from dal_jax.fits.rig import Rig
from dal_jax.runtime.errors import needs_extra

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
