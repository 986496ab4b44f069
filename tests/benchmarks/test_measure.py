"""The instruments: medians over rounds, what a first call compiles, memory, the machine."""

import math

import jax
import jax.numpy as jnp
import pytest

from benchmarks import measure


def test_works_take_turns_and_everyone_is_measured():
    calls = []
    works = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    found = measure.rates(works, lambda: calls.append("probe") or 7.0, 10.0)
    assert calls == ["probe", "a", "b"] * measure.MOST_REPEATS
    assert found["a"].repeats == measure.MOST_REPEATS and found["b"].matmul_gflops == 7.0
    assert found["a"].wall_s >= 0 and found["a"].cpu_s >= 0


def test_one_round_at_least_and_no_probe_is_no_number():
    calls = []
    found = measure.rates({"a": lambda: calls.append(1)}, None, 0.0)["a"]
    assert calls == [1] and found.repeats == 1 and math.isnan(found.matmul_gflops)


def test_a_failing_work_is_not_swallowed():
    def work():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        measure.rates({"a": work}, None, 0.0)


def test_the_first_call_is_timed_and_says_whether_the_cache_helped():
    with measure.first_call() as first:
        pass
    assert 0 <= first["first_s"] < 1 and first["compile_cached"] is False


def test_matmul_rate_is_positive_on_all_devices():
    assert measure.matmul_probe(jax.devices()[:2], size=64)() > 0


def test_memory_is_counted_in_bytes():
    size = 1 << 20
    compiled = jax.jit(lambda x: x + 1.0).lower(jnp.zeros(size, jnp.float32)).compile()
    assert measure.compiled_bytes(compiled) >= 8 * size, "argument and result"
    assert 1e7 < measure.peak_rss_bytes() < 1e12


def test_a_row_says_where_it_was_measured():
    found = measure.machine(jax.devices()[:2])
    assert found["devices"] == 2 and found["jax"] == jax.__version__ and found["cores"] >= 1 and found["cpu"]
