"""The table of a network agrees with counts by hand."""

import cases
import jax
import numpy as np
import optax
import pytest

import jaxnn as nn
from jaxnn.summarize import count_flops

F64 = 8


def test_a_dense_network():
    found = nn.summary(nn.chain(nn.Dense(3), nn.Tanh(), nn.Dense(2)), np.ones((5, 4)))
    dense, tanh, last = found.rows
    assert [row.path for row in found.rows] == ["[0]", "[1]", "[2]"]
    assert dense.output.shape == (5, 3)
    assert dense.parameters == 4 * 3 + 3
    assert dense.forward_flops == 2 * 5 * 4 * 3 + 5 * 3
    assert dense.backward_flops == 2 * (2 * 5 * 4 * 3) + 5 * 3  # dw, dx, and the sum of db
    assert dense.cache_bytes == 5 * 4 * F64
    assert tanh.parameters == 0
    assert tanh.forward_flops == 5 * 3
    assert found.total.parameters == dense.parameters + last.parameters
    assert found.total.forward_flops == sum(row.forward_flops for row in found.rows)


def test_a_convolution_and_a_loop():
    (conv,) = nn.summary(nn.Conv2D(6, 3, bias=False), np.ones((2, 8, 8, 4))).rows
    assert conv.forward_flops == 2 * (2 * 8 * 8 * 6) * (3 * 3 * 4)
    block = nn.chain(nn.Dense(4), nn.Tanh())
    one, many = (nn.summary(nn.Repeat(block, times), np.ones((2, 4))).total for times in (1, 7))
    assert many.forward_flops == 7 * one.forward_flops
    assert many.parameters == 7 * one.parameters


def test_remat_keeps_its_input_alone():
    body = nn.chain(nn.Dense(64), nn.Tanh(), nn.Dense(4))
    plain, lean = (nn.summary(net, np.ones((10, 4))).total for net in (body, nn.Remat(body)))
    assert lean.cache_bytes == 10 * 4 * F64 + 8  # the key, too
    assert plain.cache_bytes > 20 * lean.cache_bytes
    assert lean.backward_flops == plain.backward_flops + plain.forward_flops


def test_branches_of_a_conditional_count_once():
    program = jax.make_jaxpr(lambda x: jax.lax.cond(x.sum() > 0, lambda x: x @ x, lambda x: x, x))(
        np.ones((3, 3))
    )
    assert count_flops(program.jaxpr) == 9 + 2 * 27


@pytest.mark.parametrize("case", cases.NETWORKS, ids=lambda case: case.id)
def test_it_prints(case):
    found = nn.summary(case.layer, case.x)
    lines = str(found).splitlines()
    assert len(lines) == len(found.rows) + 2
    assert lines[-1].startswith("total")
    assert found.total.parameters == sum(
        leaf.size for leaf in jax.tree.leaves(nn.split_running(case.params())[0])
    )


def test_a_summary_and_a_diagnosis_show_themselves_in_a_notebook():
    shown = nn.summary(nn.mlp(3, 2), np.ones((4, 5)))._repr_html_()
    assert shown.count("<tr") == 1 + len(nn.summary(nn.mlp(3, 2), np.ones((4, 5))).rows) + 1
    wrong = lambda params, cache, dy: ((), dy)
    graded = nn.diagnose(nn.Tanh(), backward=wrong, x=np.ones((2, 3)) / 3)._repr_html_()
    assert 'class="bad"' in graded
    assert "left out" in graded


def test_the_memory_of_a_step_is_foretold():
    block = nn.networks.transformer_block(32, 4, causal=True)
    loss, rule = nn.SoftmaxCrossEntropy(), optax.adam(1e-3)
    words = jax.ShapeDtypeStruct((16, 64), np.int32)

    def peak_of(block):
        net = nn.chain(nn.Embedding(50, 32), nn.Repeat(block, 6), nn.Dense(50))
        return net, nn.sharding_plan(net, loss, rule, (words, words)).peak_bytes

    net, peak = peak_of(block)
    state = nn.init_state(net, rule, words, jax.random.key(0))
    step = jax.jit(nn.train_step(net, loss, rule), donate_argnums=0)
    memory = step.lower(state, (words, words)).compile().memory_analysis()
    needed = (
        memory.argument_size_in_bytes + memory.output_size_in_bytes
        + memory.temp_size_in_bytes - memory.alias_size_in_bytes
    )  # fmt: skip
    assert peak == pytest.approx(needed, rel=0.1)
    assert peak_of(nn.Remat(block))[1] < peak / 2
