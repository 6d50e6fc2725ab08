"""The house: imports go downward, README's commands are CI's, importing stays cheap."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jaxnn"

# each may import only from those before it; a package counts as one
ORDER = [
    "checks", "conversion", "formulas", "notebook", "numerics", "programs", "progress", "types",
    "values", "parameters", "padding", "jaxprs",
    "rematerialization", "layers", "losses", "compose", "networks", "backprop",
    "descent", "neuron", "data", "watching", "tracing", "equations", "notation", "mlp_columns",
    "summarize",
    "serialization", "gradcheck", "training", "sklearn", "plots", "explanation",
]  # fmt: skip


def name_of(path):
    return (
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        .removesuffix("__init__")
        .rstrip(".")
    )


FILES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(name):
    """Find what a module imports of this package anywhere, except for type checkers alone."""
    tree = ast.parse(FILES[name].read_text())
    for_types = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.partition(".")[0] == "jaxnn"
        ):
            module = node.module.removeprefix("jaxnn").lstrip(".")
            names = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
            if id(node) not in for_types:
                yield from (found if found in FILES else module for found in names)


def test_every_module_has_its_place():
    assert {name.partition(".")[0] for name in FILES if name} == set(ORDER)


@pytest.mark.parametrize("name", [name for name in FILES if name])
def test_imports_go_downward(name):
    here = name.partition(".")[0]
    for other in imports(name):
        there = other.partition(".")[0]
        assert ORDER.index(there) <= ORDER.index(here), (
            f"{name} imports {other}, which is not below it"
        )


def test_no_imports_form_a_circle():
    waiting = {name: set(imports(name)) - {name} for name in FILES if name}
    while leaves := {name for name, below in waiting.items() if not below}:
        waiting = {name: below - leaves for name, below in waiting.items() if name not in leaves}
    assert waiting == {}


def commands():
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    return [block.strip() for block in blocks]


def test_readme_has_the_two_commands_and_ci_runs_the_second_as_it_stands():
    main, tests = commands()[:2]
    assert "scripts/lecture.py" in main
    assert "pytest" in tests
    printed = subprocess.run(
        ["bash", ROOT / ".ci" / "run", "--print-test-command"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip() == tests


README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```\s*```text\n(.*?)```", README, flags=re.DOTALL)


def test_each_example_in_readme_says_what_it_prints():
    assert len(EXAMPLES) == README.count("```python") > 0


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_readme_code_runs_and_prints_what_it_says(tmp_path, number):
    code, output = EXAMPLES[number]
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert run.stdout.split() == output.split()


def test_readme_pictures_exist():
    pictures = re.findall(r"\]\((tests/baseline/[^)]+)\)", (ROOT / "README.md").read_text())
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)


def test_import_is_light():
    slow = ("sklearn", "matplotlib", "tqdm")
    code = f"import sys, jaxnn; print([m for m in {slow} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_import_changes_no_configuration():
    code = (
        "import jax; before = dict(jax.config.values); import jaxnn, jaxnn.data; "
        "assert dict(jax.config.values) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
