"""The options that the driver's programs are compiled with, and what happens without them."""

import jax
import jax.numpy as jnp
import pytest

from jaxdist.compute import compiling, tuning
from jaxdist.compute.compiling import compiled


def test_an_option_that_xla_does_not_have_is_left_out():
    with tuning.using(compiler_options=(("xla_of_another_year", True),)):
        assert compiling.supported(tuning.current().compiler_options) == ()
        assert double(jnp.ones(3), times=2).tolist() == [2, 2, 2]


def test_the_options_of_this_platform_are_known():
    assert compiling.supported(tuning.CPU.compiler_options) == tuning.CPU.compiler_options
    with jax.disable_jit():
        assert compiling.supported((("xla_of_a_later_year", True),)) == ()


def test_a_value_that_xla_does_not_take_is_an_error():
    with pytest.raises(Exception, match="xla_cpu_use_fusion_emitters"):
        compiling.supported((("xla_cpu_use_fusion_emitters", "perhaps"),))


def test_a_program_is_compiled_once_for_equal_arguments():
    before = double.program(compiling.supported(tuning.current().compiler_options))._cache_size()
    for value in (1.0, 2.0, 3.0):
        assert double(jnp.full(5, value), times=3).tolist() == [3 * value] * 5
    assert double.program(compiling.supported(tuning.current().compiler_options))._cache_size() == before + 1
    assert "multiply" in double.lower(jnp.ones(5), times=3).as_text()


@compiled("times")
def double(x, *, times):
    return x * times
