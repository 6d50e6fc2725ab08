"""A trace contains the numbers of the passes that train, for networks of any nesting."""

import pickle
import re

import jax
import numpy as np
import optax
import pytest
import traces

import jaxnn as nn

same = lambda a, b: jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12), a, b
)


@pytest.mark.parametrize("make", traces.ALL.values(), ids=traces.ALL)
def test_gradients_are_those_of_training(make):
    trace = make()
    value, gradient = nn.value_and_grad(trace.net, trace.loss)(trace.params, trace.x, trace.target)
    same(value, trace.value)
    same(gradient, tuple(stage.dparams for stage in trace.stages))


def test_stages_hang_together():
    trace = traces.nested()
    for before, after in zip(trace.stages, trace.stages[1:], strict=False):
        same(before.y, after.x)
        same(before.dy, after.dx)
    paths = [stage.path for top in trace.stages for stage in top]
    assert "[0].body[1]" in paths
    assert "[1].block[1][0]" in paths
    assert "[2][1][0]" in paths
    repeat = trace.stages[1]
    same(repeat.dparams[0].w, np.stack([block.inner[0].dparams.w for block in repeat.inner]))
    residual = trace.stages[0]
    same(residual.y, residual.x + residual.inner[0].y)
    same(residual.dx, residual.dy + residual.inner[0].dx)


def test_training_mode_is_traced_with_the_same_key():
    net, key = (
        nn.chain(nn.Dense(4), nn.Dropout(0.5), nn.Remat(nn.Dropout(0.5)), nn.BatchNorm()),
        jax.random.key(1),
    )
    x, target = np.random.default_rng(0).standard_normal((3, 2)), np.zeros((3, 4))
    params = net.init(jax.random.key(0), x)
    trace = nn.trace(net, nn.MeanSquaredError(), params, x, target, key)
    _, gradient = nn.value_and_grad(net, nn.MeanSquaredError())(params, x, target, key=key)
    same(gradient, tuple(stage.dparams for stage in trace.stages))
    with pytest.raises(nn.InputError, match="expected a trace at inference"):
        trace.sample(0)


def test_a_users_own_combinator_is_traced_too():
    trace = traces.drawn(
        nn.chain(traces.Twice(nn.Dense(2))), nn.MeanSquaredError(), np.ones((1, 3)), np.ones((1, 2))
    )
    (stage,) = trace.stages
    same(stage.y, 2 * stage.inner[0].y)
    same(stage.inner[0].dy, 2 * stage.dy)


def test_it_pickles():
    trace = traces.nested()
    again = pickle.loads(pickle.dumps(trace))
    same(again, trace)
    assert again.net == trace.net


def test_the_difference_of_two_says_what_a_step_changed():
    before = traces.relu_classes()
    gradient = tuple(stage.dparams for stage in before.stages)
    params = jax.tree.map(lambda p, d: p - 0.1 * d, before.params, gradient)
    change = nn.trace(before.net, before.loss, params, before.x, before.target) - before
    same(change.params, jax.tree.map(lambda d: -0.1 * d, gradient))
    assert change.value < 0
    same(change.x, np.zeros_like(before.x))
    assert change.target == before.target  # an integer, which is kept


def test_one_sample_is_a_share_of_the_batch():
    trace = traces.relu_classes(batch=3)
    samples = [trace.sample(i) for i in range(3)]
    same(trace.value, np.mean([sample.value for sample in samples]))
    mean = jax.tree.map(
        lambda *leaves: np.mean(leaves, axis=0), *[s.stages[0].dparams for s in samples]
    )
    same(trace.stages[0].dparams, mean)
    same(trace.sample(-1), samples[2])


def test_numbers_are_found_by_their_place():
    trace = traces.lecture()
    assert trace.at("[0].w[0, 1]") == (-1.0, trace.stages[0].dparams.w[0, 1])
    assert trace.at("[1].y[0, 2]").value == trace.stages[1].y[0, 2]
    assert trace.at("[1].y[0, 2]").derivative == trace.stages[1].dy[0, 2]
    assert trace.at("[0].x").derivative.shape == (1, 2)
    assert (
        traces.nested().at("[0].body[1].wq[0, 1]").value
        == traces.nested().stages[0].params[1].wq[0, 1]
    )


def test_traces_are_compared_by_identity():
    trace, other = traces.lecture(), traces.lecture()
    the_same = trace
    assert trace == the_same  # without the error that arrays have no single truth value
    assert trace != other
    assert len({trace, other}) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net": "a"}, "trace: expected net to be a layer, got 'a'"),
        ({"loss": None}, "trace: expected loss to be a loss, got None"),
        (
            {"loss": nn.MeanSquaredError},
            "trace: expected loss to be a loss, got the class MeanSquaredError",
        ),
        ({"x": "5.0"}, "trace: expected x as arrays, got the text"),
        ({"target": None}, "trace: expected target as arrays, got None"),
        ({"key": 0}, "trace: expected a PRNG key such as jax.random.key(0), got 0"),
    ],
)
@pytest.mark.usefixtures("as_users_see_it")
def test_what_cannot_be_traced_is_said(change, message):
    t = traces.lecture()
    with pytest.raises(nn.InputError, match=re.escape(message)):
        nn.trace(
            **{"net": t.net, "loss": t.loss, "params": t.params, "x": t.x, "target": t.target}
            | change
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda t: t.at("[7].w[0, 0]"),
            r"expected a place in one of the layers \[0\], \[1\], \[2\], \[3\], got '\[7\].w",
        ),
        (lambda t: t.at("[0].v"), "expected one of x, y, w at"),
        (lambda t: t.at("[0].w[5, 0]"), r"expected an index into w of shape \(2, 3\)"),
        (lambda t: t.sample(1), r"expected the number of a sample in \[-1, 1\), got 1"),
        (lambda t: (t - t).sample(0), "expected the trace of one pass to take a sample out"),
        (lambda t: t - 1, "expected the trace of the same network"),
        (lambda t: t - traces.relu_classes(), "expected the trace of the same network"),
        (
            lambda t: t - nn.trace(t.net, t.loss, t.params, np.ones((2, 2)), np.ones((2, 1), int)),
            r"expected .*x of shape \(1, 2\) to subtract, got \(2, 2\)",
        ),
    ],
)
@pytest.mark.usefixtures("as_users_see_it")
def test_bad_calls(call, message):
    with pytest.raises(nn.InputError, match=message):
        call(traces.lecture())


def test_values_show_themselves_in_a_notebook():
    trace = traces.nested()
    certificate = nn.certify(nn.Dense(2), np.ones((2, 3)))
    fit = nn.fit(
        nn.Dense(1), nn.MeanSquaredError(), optax.sgd(0.1), (np.eye(4), np.ones((4, 1))),
        epochs=3, batch_size=2, key=jax.random.key(0),
    )  # fmt: skip
    for value, words in (
        (trace.net, ("MultiHeadAttention(heads=1, causal=True)", "[0].body[1]", "<details open>")),
        (trace, ("[1].block[1][0]", "‖∂J/∂θ‖", "SoftmaxCrossEntropy()")),
        (certificate, ("params.w", "passed", "vs jax.vjp")),
        (fit, ("6 steps, completed", "<polyline", "loss")),
    ):
        shown = value._repr_html_()
        assert all(word in shown for word in words)
        assert "<script" not in shown


def test_a_failed_certificate_stands_out():
    @nn.layer
    class Wrong(nn.Tanh):
        def backward(self, params, cache, dy):
            return (), dy

    shown = nn.certify(Wrong(), np.ones((2, 3)), raises=False)._repr_html_()
    assert 'class="bad"' in shown
    assert "FAILED" in shown
