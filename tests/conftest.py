"""Strict numerics: float64, no rank promotion, every annotated shape checked at run time."""

import os
import tempfile

import matplotlib
from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook

matplotlib.use("agg")
CHECKED = ["backprop", "compose", "descent", "layers", "losses", "neuron", "tracing"]
install_import_hook(
    [f"jaxnn.{name}" for name in CHECKED], "beartype.beartype"
)  # before jaxnn is first imported

if (
    "PYTEST_XDIST_WORKER" not in os.environ
):  # workers, and the scripts that tests start, inherit what is set here
    compiled = tempfile.TemporaryDirectory(prefix="jaxnn-compiled-")  # removed at exit
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name  # what one has compiled the others find
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update(
    "jax_disable_most_optimizations", True
)  # the tests compile thousands of small programs, once each


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
