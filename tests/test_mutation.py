"""Mistakes are planted in every backward pass, and all of them are caught."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cases import LAYERS, LOSSES, LayerCase

from jaxnn.gradcheck import mutation
from jaxnn.gradcheck.vjp_claim import state_claim

ROOT = Path(__file__).parent.parent


def claim_of(case):
    if isinstance(case, LayerCase):
        return state_claim("test", case.layer, case.x, key=case.key)
    return state_claim("test", case.loss, case.prediction, case.target, weights=case.weights)


@pytest.mark.slow
@pytest.mark.parametrize("case", LAYERS + LOSSES, ids=lambda case: case.id)
def test_no_planted_mistake_is_missed(case):
    mutants = mutation.planted(claim_of(case))
    assert [mutant for mutant in mutants if mutant.verdict == "missed"] == []
    assert all(mutant.reason for mutant in mutants if mutant.verdict == "equivalent")


MODULES = sorted(
    {type(case.layer).__module__ for case in LAYERS}
    | {type(case.loss).__module__ for case in LOSSES}
)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_no_mistake_in_the_source_is_missed(module):
    cases = [
        c
        for c in LAYERS + LOSSES
        if type(getattr(c, "layer", getattr(c, "loss", None))).__module__ == module
    ]
    mutants = mutation.rewritten([claim_of(case) for case in cases])
    assert [mutant for mutant in mutants if mutant.verdict == "missed"] == []
    assert len(mutants) >= 3 or module.endswith(("adapter", "reshape", "compose", "positions"))


def test_functions_in_files_of_their_own_are_changed_too():
    reached = {name for case in LAYERS for _, name, _ in mutation._only_backward(case.layer)}
    assert {
        "conv_input",
        "conv_kernel",
        "_add_h",
        "_weights_backward",
        "attend_backward",
        "put_back",
    } <= reached


def test_a_check_that_cannot_fail_would_show(monkeypatch):
    """With a comparison that accepts everything, every mutant is reported as missed."""
    monkeypatch.setattr(mutation, "_differs", lambda leaves, truth: False)
    mutants = mutation.planted(claim_of(LAYERS[1]))
    assert {mutant.verdict for mutant in mutants} == {"missed"}


def test_the_script_certifies_and_mutates(tmp_path):
    file = tmp_path / "certificate.json"
    run = subprocess.run(
        [
            sys.executable,
            ROOT / "scripts" / "certify.py",
            "--only",
            "LeakyReLU",
            "--mutations",
            "--json",
            file,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(file.read_text())
    assert figures["all_passed"] is True
    assert 0 <= figures["worst_vs_autodiff"] <= 1e-12
    assert [
        set(op) >= {"name", "worst_vs_autodiff", "worst_vs_differences", "passed"}
        for op in figures["ops"]
    ] == [True] * 2
    assert figures["mutations"]["planted"] == figures["mutations"]["caught"] > 10
    assert "2 certificates" in run.stdout
