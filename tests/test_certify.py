"""A certificate is useful only if a wrong backward fails it, and the message names the leaf."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

X = np.random.default_rng(0).standard_normal((5, 4))


def planted(mistake):
    """A Dense layer whose backward has a mistake."""

    @nn.layer
    class Planted:
        def init(self, key, x):
            return nn.Dense(4).init(key, x)

        def forward(self, params, x, key=None):
            return nn.Dense(4).forward(params, x)

        def backward(self, params, cache, dy):
            dparams, dx = nn.Dense(4).backward(params, cache, dy)
            return mistake(dparams.w, dparams.b, dx)

    return Planted()


MISTAKES = {
    "params.w": [
        lambda dw, db, dx: (nn.DenseParams(-dw, db), dx),
        lambda dw, db, dx: (nn.DenseParams(dw.T, db), dx),
        lambda dw, db, dx: (nn.DenseParams(1.0005 * dw, db), dx),
        lambda dw, db, dx: (nn.DenseParams(dw / 5, db), dx),
        lambda dw, db, dx: (nn.DenseParams(dw.at[0, 0].set(0), db), dx),
        lambda dw, db, dx: (nn.DenseParams(dw * jnp.nan, db), dx),
    ],
    "params.b": [lambda dw, db, dx: (nn.DenseParams(dw, jnp.zeros_like(db)), dx)],
    "x": [lambda dw, db, dx: (nn.DenseParams(dw, db), 1.0005 * dx)],
}


@pytest.mark.parametrize(
    ("leaf", "mistake"), [(leaf, m) for leaf, all_of in MISTAKES.items() for m in all_of]
)
def test_a_wrong_backward_is_caught_and_its_leaf_named(leaf, mistake):
    with pytest.raises(nn.CertificateError, match=f"wrong with respect to {leaf}") as error:
        nn.certify(planted(mistake), X)
    assert "FAILED" in str(error.value)
    certificate = nn.certify(planted(mistake), X, raises=False)
    assert not certificate.passed
    assert [row.leaf for row in certificate.rows if not row.passed] == [leaf]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda dw, db, dx: (nn.DenseParams(dw, db), None), "wrong structure"),
        (
            lambda dw, db, dx: (nn.DenseParams(dw, db[None]), dx),
            r"params.b has the wrong type.*float64\[1, 4\]",
        ),
        (
            lambda dw, db, dx: (nn.DenseParams(dw, db), dx.astype("float32")),
            "x has the wrong type.*float32",
        ),
    ],
)
def test_a_gradient_of_the_wrong_form_is_caught(mistake, message):
    with pytest.raises(nn.CertificateError, match=message):
        nn.certify(planted(mistake), X)


@pytest.mark.parametrize(
    ("op", "x", "target", "leaf"),
    [
        (nn.ReLU(), -np.abs(X), None, "x"),
        (nn.Hinge(), 9 * np.ones((5, 1)), np.ones((5, 1)), "prediction"),
    ],
)
def test_a_gradient_that_is_0_at_this_point_only_is_not_shown(op, x, target, leaf):
    message = f"The gradient with respect to {leaf} is 0 at this x, but not at others"
    with pytest.raises(nn.CertificateError, match=message):
        nn.certify(op, x, target)
    certificate = nn.certify(op, x, target, raises=False)
    assert "NOT SHOWN" in str(certificate)
    assert not certificate.passed


def test_a_gradient_that_is_0_everywhere_passes():
    assert "passed: 0 everywhere" in str(nn.certify(nn.Heaviside(), X))


def test_a_wrong_loss_gradient_is_caught():
    @nn.loss
    class Doubled:
        def check(self, prediction, target):
            pass

        def forward(self, prediction, target, weights=None):
            return nn.SigmoidBinaryCrossEntropy().forward(prediction, target, weights)

        def backward(self, cache):
            return 2 * nn.SigmoidBinaryCrossEntropy().backward(cache)

    with pytest.raises(nn.CertificateError, match="wrong with respect to prediction"):
        nn.certify(Doubled(), X, np.ones(X.shape))


def test_a_large_layer_is_probed_along_random_directions():
    x = np.random.default_rng(0).standard_normal((20, 60))
    assert nn.certify(nn.Dense(50), x).directions == 3 * 8
    wrong = planted(lambda dw, db, dx: (nn.DenseParams(dw.at[3, 1].multiply(1.01), db), dx))
    certificate = nn.certify(wrong, x[:, :60], raises=False)
    assert [row.leaf for row in certificate.rows if not row.passed] == ["params.w"]


def test_directions_across_a_kink_are_left_out_and_said_so():
    x = X.copy()
    x[0, 0] = 0
    certificate = nn.certify(nn.ReLU(), x)
    assert certificate.passed
    assert (certificate.excluded, certificate.kinks) == (1, ("ReLU: x = 0",))
    assert "1 of 400 directions cross a kink" in str(certificate)


def test_a_gradient_that_is_zero_everywhere_is_not_praised():
    assert "0 everywhere" in str(nn.certify(nn.Heaviside(), X))


def test_a_batch_of_one_is_refused():
    with pytest.raises(nn.InputError, match="certify: expected a batch of at least two samples"):
        nn.certify(nn.Dense(2), X[:1])


def test_a_backward_that_is_not_linear_in_dy_is_caught():
    @nn.layer
    class Clipped(nn.Tanh):
        def backward(self, params, cache, dy):
            return super().backward(params, cache, dy.clip(-100, 100))

    with pytest.raises(nn.CertificateError, match="wrong with respect to x"):
        nn.certify(Clipped(), X)


def test_a_backward_that_remembers_an_earlier_call_is_caught():
    remembered = []

    @nn.layer
    class Stale(nn.Dense):
        def backward(self, params, cache, dy):
            if not isinstance(params.w, jax.core.Tracer):
                remembered.append(params)
                params = remembered[0]
            return super().backward(params, cache, dy)

    with pytest.raises(nn.CertificateError, match="wrong with respect to x"):
        nn.certify(Stale(3), X)


def test_a_gradient_of_running_statistics_is_caught():
    @nn.layer
    class Training(nn.BatchNorm):
        def backward(self, params, cache, dy):
            dparams, dx = super().backward(params, cache, dy)
            return dparams._replace(moments=jax.tree.map(lambda m: m + 1, dparams.moments)), dx

    with pytest.raises(nn.CertificateError, match=r"moments.* expected 0, as running statistics"):
        nn.certify(Training(), X, key=jax.random.key(0))


def test_a_gradient_that_only_kinks_could_show_is_not_passed():
    certificate = nn.certify(nn.ReLU(), np.zeros((2, 3)), raises=False)
    assert not certificate.passed
    assert "NOT SHOWN" in str(certificate)
    with pytest.raises(nn.CertificateError, match="Every direction of x crosses a kink"):
        nn.certify(nn.ReLU(), np.zeros((2, 3)))


def test_certificate_reads_as_a_table_and_as_json():
    certificate = nn.certify(nn.chain(nn.Dense(2), nn.Sigmoid()), X)
    lines = str(certificate).splitlines()
    assert lines[0] == "chain(Dense(features=2), Sigmoid())"
    assert [line.split()[0] for line in lines[2:5]] == ["params[0].w", "params[0].b", "x"]
    read = json.loads(json.dumps(certificate.to_dict()))
    assert read["passed"] is True
    assert read["dtype"] == "float64"
    assert set(read["versions"]) == {"jax", "jaxlib", "numpy"}
    assert read["worst_vs_autodiff"] == max(row["vs_autodiff"] for row in read["rows"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_narrow_dtypes_are_judged_by_their_own_rounding(dtype):
    certificate = nn.certify(nn.chain(nn.Dense(3), nn.Tanh()), X, dtype=dtype)
    assert certificate.dtype == dtype
    assert dataclasses.replace(certificate, rows=certificate.rows[:1]).passed


def test_needs_no_float64_of_the_user():
    import jax

    with jax.enable_x64(False):
        certificate = nn.certify(nn.Dense(3), X.astype("float32"))
    assert certificate.dtype == "float64"
    assert certificate.worst_vs_differences < 1e-8
