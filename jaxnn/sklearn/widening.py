"""Members whose hidden layers are narrower than those of others, trained in the program of these.

A hidden unit whose weights, on either side, and bias are 0 adds nothing to the next layer. It stays
so, if its activation f has f(0) = 0: the derivative of a weight behind it has the factor f(0), and
that of a weight before it the sum over the weights behind it. Adam and momentum leave a number at 0
whose derivative has always been 0, and so does the penalty on the weights. A narrow network is thus
the same as a wider one that is filled up with such units, and needs no program of its own.

The units cost time, and a program has to be compiled. :func:`pays` compares the two.
"""

import copy
import dataclasses
import math
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.compose import Sequential
from jaxnn.layers.activations import ELU, GELU, SELU, LeakyReLU, Mish, ReLU, SiLU, Tanh
from jaxnn.layers.dense import Dense
from jaxnn.sklearn.plans import RuleUpdate
from jaxnn.training.members import Member
from jaxnn.training.train_step import TrainStep
from jaxnn.types import Layer

ZERO_AT_ZERO = (Tanh, ReLU, LeakyReLU, ELU, SELU, GELU, SiLU, Mish)
ENTRYWISE_OPTIMIZERS = ("adam", "sgd")

# The work, in parameters times rows, that takes as long as to compile a program: on two cores, for
# digits, 0.7 s and 4e9 a second.
COMPILING = 3e9


def can_join(narrow: Member, wide: Member) -> bool:
    """Return whether a member is the same as a wider one that is filled up with zeros."""
    if _family(narrow.step) != _family(wide.step):
        return False
    leaves = zip(*(jax.tree.leaves(each.state.params) for each in (narrow, wide)), strict=True)
    return all(np.all(np.array(np.shape(one)) <= np.shape(other)) for one, other in leaves)


def size(member: Member) -> int:
    """Return the number of parameters, to which the time of a step is nearly proportional."""
    return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(member.state.params))


def pays(narrow: Member, wide: Member, rows: int) -> bool:
    """Return whether members are trained sooner in the program of a wider one than in their own.

    It depends on nothing that differs from run to run, so that a search gives the same results
    again: rounding differs between the programs.

    Args:
        narrow: one of the members that would share a program of their own.
        wide: a wider member of the same family.
        rows: the rows that all of them are trained on, in all of their epochs.
    """
    return (size(wide) - size(narrow)) * rows < COMPILING


class Widened:
    """A member as one of a wider network, or of its own.

    Args:
        own: the member.
        wide: a member with the wider network.

    Attributes:
        member: the member with the state of the wider network. The records are those of ``own``.
    """

    def __init__(self, own: Member, wide: Member) -> None:
        self._own = own
        self.member = copy.copy(own)
        self.member.step = dataclasses.replace(own.step, net=wide.step.net)
        self.member.state = _filled_up(own.state, wide.state)
        if own.best is not None:
            self.member.best = _filled_up(own.best, wide.state.params)

    def hand_back(self) -> None:
        """Give the own member what this one has reached."""
        own, wide = self._own, self.member
        own.stopped, best = wide.stopped, wide.best
        own.best = None if best is None else _cut(best, own.state.params)
        own.state = _cut(wide.state, own.state)


def _family(step: TrainStep) -> Hashable:
    """Return everything about a step but the widths of its hidden layers.

    Steps that can't be widened have families of their own.
    """
    net, update = step.net, step.update
    entrywise = isinstance(update, RuleUpdate) and update.name in ENTRYWISE_OPTIMIZERS
    if not entrywise or not isinstance(net, Sequential):
        return jax.tree.structure(step)
    *hidden, last = net.layers
    if not all(isinstance(part, (Dense, *ZERO_AT_ZERO)) for part in (*hidden, last)):
        return jax.tree.structure(step)
    layers = tuple(_without_width(part) for part in hidden)
    return jax.tree.structure(dataclasses.replace(step, net=Sequential((*layers, last))))


def _without_width(part: Layer) -> Layer:
    return dataclasses.replace(part, features=1) if isinstance(part, Dense) else part


def _filled_up(tree: Any, like: Any) -> Any:
    """Fill up each array of a tree with zeros, to the shape of that of another."""

    def fill(leaf: Any, other: Any) -> Any:
        missing = [(0, n - m) for m, n in zip(np.shape(leaf), np.shape(other), strict=True)]
        return np.pad(leaf, missing) if any(end for _, end in missing) else leaf

    return jax.tree.map(fill, tree, like)


def _cut(tree: Any, like: Any) -> Any:
    """Cut each array of a tree to the shape of that of another."""

    def cut(leaf: Any, other: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        return leaf[tuple(map(slice, np.shape(other)))]

    return jax.tree.map(cut, tree, like)
