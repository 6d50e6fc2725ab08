"""The house: imports go downward, README's commands are CI's, importing stays cheap."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jaxnn"

# each may import only from those before it; those within one line are independent of one another
SHARED = [f"layers.{name}" for name in ("initializers", "activation", "convolve", "positions", "recurrence")]
FLOORS = [
    ["checks", "notebook", "formulas"],
    ["types", "numerics"],
    SHARED[:2],
    SHARED[2:],
    [f"layers.{path.stem}" for path in (PACKAGE / "layers").glob("[a-z]*.py") if f"layers.{path.stem}" not in SHARED],
    ["layers"],
    ["losses.mean"],
    ["losses.adapter", "losses.binary", "losses.categorical", "losses.regression"],
    ["losses"],
    ["compose"],
    ["networks", "summarize"],
    ["backprop"],
    ["problem"],
    ["differences"],
    ["certify"],
    ["mutation", "wrong_slopes"],
    ["diagnose"],
    ["trace"],
    ["columns"],
    ["progress", "portable"],
    ["descent"],
    ["neuron"],
    ["batches", "metrics", "checkpoint", "export"],
    ["evaluation", "optimizers"],
    ["step"],
    ["compiled"],
    ["sources"],
    ["loop"],
    ["train"],
    ["population"],
    ["data"],
    ["plots.display"],
    ["plots.activation", "plots.curves", "plots.data", "plots.diagram", "plots.training"],
    ["plots.passes"],
    ["plots.blocks", "plots.matrices"],
    ["plots.worked"],
    ["plots"],
    ["explanation.expressions"],
    ["explanation.evaluate"],
    ["explanation.tape", "explanation.terms"],
    ["explanation.labels", "explanation.rows", "explanation.witness", "explanation.writer"],
    ["explanation.chain", "explanation.latex", "explanation.redraw", "explanation.page", "explanation.pictures"],
    ["explanation.text"],
    ["explanation"],
    [""],
]
FLOOR = {name: i for i, floor in enumerate(FLOORS) for name in floor}


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


FILES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def test_every_module_has_a_floor():
    assert set(FILES) == set(FLOOR)


@pytest.mark.parametrize("name", FILES)
def test_imports_go_downward(name):
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("jaxnn") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "jaxnn":
            module = node.module.removeprefix("jaxnn").lstrip(".")
            imported = [module] if module else [alias.name for alias in node.names]
            for other in imported:
                assert FLOOR[other] < FLOOR[name], f"{name} imports {other}, which is not below it"


def test_files_stay_small():
    long = {name: lines for name, path in FILES.items() if (lines := len(path.read_text().splitlines())) > 400}
    assert long == {}


def commands():
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    return [block.strip() for block in blocks]


def test_readme_has_the_two_commands_and_ci_runs_the_second_as_it_stands():
    main, tests = commands()[:2]
    assert "scripts/lecture.py" in main
    assert "pytest" in tests
    printed = subprocess.run(
        ["bash", ROOT / ".ci" / "run", "--print-test-command"], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == tests


def test_readme_code_runs_and_prints_what_it_says(tmp_path):
    readme = (ROOT / "README.md").read_text()
    examples = re.findall(r"```python\n(.*?)```\s*```text\n(.*?)```", readme, flags=re.DOTALL)
    assert len(examples) == readme.count("```python")
    for code, output in examples:
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert run.stdout.split() == output.split()


def test_readme_pictures_exist():
    pictures = re.findall(r"\]\((tests/baseline/[^)]+)\)", (ROOT / "README.md").read_text())
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)


def test_import_is_light():
    code = "import sys, jaxnn; print([m for m in ('sklearn', 'matplotlib', 'tqdm') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_import_changes_no_configuration():
    code = (
        "import jax; before = dict(jax.config.values); import jaxnn, jaxnn.data; "
        "assert dict(jax.config.values) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
