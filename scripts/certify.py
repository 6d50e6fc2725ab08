"""Certify all public layers and losses: compare every hand-derived gradient with independent ones.

    python scripts/certify.py [--json FILE] [--mutations] [--only NAME]

The gradients are compared with jax.vjp and with finite differences. The table of cases is that of
the tests. With --mutations, mistakes are also planted in every backward pass, and each has to be
caught.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import jax

import jaxnn as nn
from jaxnn.gradcheck import mutation, vjp_claim

jax.config.update("jax_enable_x64", True)
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import cases  # noqa: E402, the table of cases, which the tests use too


def arguments_of(case):
    """Return the positional and named arguments of ``certify`` for a case."""
    if isinstance(case, cases.LossCase):
        return (case.loss, case.prediction, case.target), {"weights": case.weights}
    return (case.layer, case.x), {"key": case.key}


def certify(selected):
    """Certify each case and print a line for it; print the whole table of those that failed."""
    ops = []
    print(f"{'vs jax.vjp':>10}  {'vs differences':>14}  verdict  operation")
    for case in selected:
        positional, named = arguments_of(case)
        certificate = nn.certify(*positional, **named, raises=False)
        verdict = "passed" if certificate.passed else "FAILED"
        errors = f"{certificate.worst_vs_autodiff:10.1e}  {certificate.worst_vs_differences:14.1e}"
        print(f"{errors}  {verdict:<7}  {case.id}")
        if not certificate.passed:
            print(certificate)
        ops.append(certificate.to_dict() | {"name": case.id})
    worst = {
        name: max(op[name] for op in ops) for name in ("worst_vs_autodiff", "worst_vs_differences")
    }
    passed = all(op["passed"] for op in ops)
    print(
        f"{len(ops)} certificates; worst {worst['worst_vs_autodiff']:.1e} against jax.vjp, "
        f"{worst['worst_vs_differences']:.1e} against differences; all passed: {passed}\n"
    )
    return {"ops": ops, **worst, "all_passed": passed}


def mutate(selected):
    """Plant mistakes in every backward pass, and count those that are caught."""
    claims = [
        vjp_claim.state_claim("certify", *positional, **named)
        for positional, named in map(arguments_of, selected)
    ]
    mutants = [mutant for stated in claims for mutant in mutation.planted(stated)]
    mutants += mutation.rewritten(claims)
    count = Counter(mutant.verdict for mutant in mutants)
    reasons = Counter(mutant.reason for mutant in mutants if mutant.verdict == "equivalent")
    for mutant in mutants:
        if mutant.verdict == "missed":
            print(f"MISSED   {mutant.op}  {mutant.mistake}")
    for reason, number in reasons.items():
        print(f"{number:>4} equivalent: {reason}")
    planted = count["caught"] + count["missed"]
    print(
        f"{planted} mistakes planted, {count['caught']} caught, "
        f"{count['equivalent']} more change nothing\n"
    )
    return {
        "planted": planted,
        "caught": count["caught"],
        "equivalent": [mutant._asdict() for mutant in mutants if mutant.verdict == "equivalent"],
        "missed": [mutant._asdict() for mutant in mutants if mutant.verdict == "missed"],
    }


def main():
    """Certify, plant mistakes if requested, write the figures, and exit with 1 after a failure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--mutations", action="store_true", help="also plant mistakes in every backward pass"
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="NAME",
        help="only the operations whose description contains NAME",
    )
    arguments = parser.parse_args()

    start = time.perf_counter()
    selected = [
        case for case in cases.LAYERS + cases.NETWORKS + cases.LOSSES if arguments.only in case.id
    ]
    if not selected:
        parser.error(f"no operation has {arguments.only!r} in its description")
    figures = certify(selected)
    if arguments.mutations:
        figures["mutations"] = mutate([case for case in selected if case not in cases.NETWORKS])
    figures["seconds"] = time.perf_counter() - start
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    missed = figures.get("mutations", {}).get("missed", [])
    sys.exit(0 if figures["all_passed"] and not missed else 1)


if __name__ == "__main__":
    main()
