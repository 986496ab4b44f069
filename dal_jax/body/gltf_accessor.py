"""Arrays of a glTF file: accessors over buffer views over buffers, every offset checked against what is there."""

from collections.abc import Sequence

import numpy as np
import pygltflib
from jaxtyping import Float

_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTH = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Accessors:
    """The arrays of one file.

    buffers: the bytes of each of its buffers.
    """

    def __init__(self, content: pygltflib.GLTF2, buffers: list[bytes]):
        self._content, self._buffers = content, buffers

    def read(self, index: object, entry: str, kind: str) -> Float[np.ndarray, "count width"]:
        """Return an accessor's numbers as float64, normalised integers in [-1, 1].

        Raises:
          ValueError: it is of another kind or leaves its buffer, or a number is not finite; names `entry`.
        """
        accessor = item(self._content.accessors, index, entry)
        where = f"{entry}: accessors[{index}]"
        if accessor.type != kind or accessor.componentType not in _COMPONENTS:
            raise ValueError(f"{where} is {accessor.type} of type {accessor.componentType}, expected {kind}")
        if accessor.sparse is not None or accessor.bufferView is None:
            raise ValueError(f"{where} is sparse, which is not read")
        stored = self._stored(accessor, np.dtype(_COMPONENTS[accessor.componentType]), _WIDTH[kind], where)
        values = stored.astype(np.float64)
        if accessor.normalized and stored.dtype.kind in "iu":
            values = np.maximum(values / np.iinfo(stored.dtype).max, -1.0)
        if not np.all(np.isfinite(values)):
            raise ValueError(f"{where} holds values that are not finite")
        return values

    def _stored(self, accessor: pygltflib.Accessor, dtype: np.dtype, width: int, where: str) -> np.ndarray:
        view = item(self._content.bufferViews, accessor.bufferView, f"{where}.bufferView")
        buffer = item(self._buffers, view.buffer, f"{where}: bufferViews[{accessor.bufferView}].buffer")
        count = whole(accessor.count, f"{where}.count")
        offset = whole(accessor.byteOffset or 0, f"{where}.byteOffset")
        start, length = (whole(value or 0, f"{where}: its view") for value in (view.byteOffset, view.byteLength))
        size = width * dtype.itemsize
        stride = whole(view.byteStride or size, f"{where}: its stride")
        end = offset + (stride * (count - 1) + size if count else 0)
        if end > length or start + length > len(buffer):
            raise ValueError(f"{where} ends beyond its buffer")
        return np.ndarray((count, width), dtype, buffer, start + offset, (stride, dtype.itemsize))


def item(items: Sequence, index: object, entry: str):
    """Return an item by the index that a file gives for it; ValueError that names the entry if there is none."""
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(items):
        raise ValueError(f"{entry}: there is no number {str(index)[:40]} among {len(items)}")
    return items[index]


def whole(value: object, entry: str) -> int:
    """Return a size or an offset; ValueError that names the entry if it is none."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**40:
        raise ValueError(f"{entry} is {str(value)[:40]}, expected a whole number")
    return value


def numbers(values: object, count: int, entry: str) -> Float[np.ndarray, "count"]:
    """Return a list of so many finite numbers; ValueError that names the entry if it is none."""
    array = np.array(values, np.float64)
    if array.shape != (count,) or not np.all(np.isfinite(array)):
        raise ValueError(f"{entry}: expected {count} finite numbers")
    return array
