"""Strict numerics: float64, no rank promotion, every annotated shape checked at run time."""

import matplotlib
from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook

matplotlib.use("agg")
CHECKED = ["backprop", "compose", "descent", "layers", "losses", "neuron", "trace"]
install_import_hook([f"jaxnn.{name}" for name in CHECKED], "beartype.beartype")  # before jaxnn is first imported

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)  # the tests compile thousands of small programs, once each


@pytest.fixture
def as_users_see_it():
    """Without the run-time checker of the tests, so that the library's own errors are seen."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
