"""Strict numerics: float64, no rank promotion, and checks of annotated shapes at run time."""

import gc
import itertools
import os
import pathlib
import tempfile

import matplotlib
from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook

matplotlib.use("agg")
CHECKED = ["backprop", "compose", "descent", "layers", "losses", "neuron", "tracing"]
# the hook has to precede the first import of jaxnn
install_import_hook([f"jaxnn.{name}" for name in CHECKED], "beartype.beartype")

# workers, and the scripts that tests start, inherit these variables and share the compiled programs
if "PYTEST_XDIST_WORKER" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="jaxnn-compiled-")  # removed at exit
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax  # noqa: E402
import jaxlib  # noqa: E402
import pytest  # noqa: E402

# The tests compile thousands of small programs and run each only a few times. XLA for CPU compiles
# them in half the time without its emitters of fused loops; from jaxlib 0.12 on, it has no such
# flag. It reads its flags once, so that the scripts that tests start run as they do for users.
if jaxlib.__version__.startswith("0.10."):
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{given} --xla_cpu_use_fusion_emitters=false"
    jax.devices()
    os.environ["XLA_FLAGS"] = given

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)


def pytest_collection_modifyitems(items):
    """Compare pictures only where matplotlib draws text as it did in the baselines."""
    if tuple(map(int, matplotlib.__version__.split(".")[:2])) >= (3, 11):
        return
    reason = f"the baselines have the text of matplotlib 3.11, this is {matplotlib.__version__}"
    for item in items:
        if item.get_closest_marker("mpl_image_compare"):
            item.add_marker(pytest.mark.skip(reason=reason))


# Each compiled program holds some mappings of memory, of which Linux allows a process 65,530. XLA
# crashes beyond these, and half of the tests come near them.
MAPPINGS = 40_000
_finished = itertools.count(1)


def pytest_runtest_teardown():
    """Release the compiled programs, every now and then, when they have become many."""
    maps = pathlib.Path("/proc/self/maps")
    if next(_finished) % 50 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def as_users_see_it():
    """Disable the run-time checks of the tests, so that the library's own errors are raised."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
