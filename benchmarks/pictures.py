"""Whole IUV pictures to template vertices, measured."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, vertex_table
from dal_jax.body.template import Template
from dal_jax.observations import chart

_SIDE_PX = 256


def row(template: Template, batch: int, seconds: float) -> dict[str, object]:
    """Measure one batch of pictures of 256 x 256 pixels, in the body's own chart.

    Every pixel has a part, u and v of its own, drawn at random: the table is read all over, which is its worst case.
    build_s: the exact search for the nearest vertex of every possible pixel, once a chart.
    """
    with measure.first_call() as built:
        table = jax.device_put(vertex_table.build(chart.body_chart(template)))
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (batch, _SIDE_PX, _SIDE_PX, 3), dtype=np.uint8)
    pixels[..., 2] = random.integers(1, chart.PARTS + 1, pixels.shape[:-1])
    pictures = jnp.asarray(pixels)
    with measure.first_call() as first:
        jax.block_until_ready(vertex_table.decode(table, pictures))
    devices = jax.devices()[:1]
    work = {"": lambda: jax.block_until_ready(vertex_table.decode(table, pictures))}
    rate = measure.rates(work, measure.matmul_probe(devices), seconds)[""]
    return {
        "batch": batch,
        "side_px": _SIDE_PX,
        "vertices": len(table.part),
        "build_s": built["first_s"],
        "compile_s": first["first_s"],
        "repeats": rate.repeats,
        "pictures_per_second": batch / rate.wall_s,
        "cpu_s_per_picture": rate.cpu_s / batch,
        "matmul_gflops": rate.matmul_gflops,
        **measure.machine(devices),
    }
