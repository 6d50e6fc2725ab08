"""Run tests on other versions than the newest: versions.py [PYTHON ...] [--lowest] [--tests ...].

For each interpreter, such as python3.12, the library is installed in a fresh virtual environment,
with the newest versions that pip finds, or with --lowest with the oldest that pyproject.toml allows
for each direct requirement. Then the tests run there. A line for each is printed last.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHOWN = ("jax", "optax", "scikit-learn", "matplotlib")


def main():
    """Run all that was asked for; the exit status is 1 where tests failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", nargs="*", default=[sys.executable], help="default: this one")
    parser.add_argument("--lowest", action="store_true", help="the oldest versions allowed")
    parser.add_argument(
        "--tests", nargs=argparse.REMAINDER, default=[], help="the rest is for pytest"
    )
    arguments = parser.parse_args()
    lines = [tested(python, arguments.lowest, arguments.tests) for python in arguments.python]
    print(*lines, sep="\n")
    sys.exit(not all(line.endswith("passed") for line in lines))


def tested(python, lowest, tests):
    """Install and test with one interpreter, and return the line that says how it went."""
    if shutil.which(python) is None:
        return f"{python}: not on this machine"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        bin_ = Path(folder) / "bin"
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(oldest()) if lowest else "")
        install = [bin_ / "pip", "install", "--quiet", "--editable", f"{ROOT}[test]"]
        subprocess.run([*install, "--constraint", constraints], check=True)
        shown = "; ".join(f"print('{name}', version('{name}'), end=' ')" for name in SHOWN)
        versions = subprocess.run(
            [bin_ / "python", "-c", f"from importlib.metadata import version; {shown}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        run = subprocess.run([bin_ / "python", "-m", "pytest", "-q", *tests], cwd=ROOT, check=False)
    return f"{python}: {versions}{'failed' if run.returncode else 'passed'}"


def oldest():
    """Return the oldest version that pyproject.toml allows for each requirement of the core."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        name, version = re.match(r"([\w.-]+)>=([\d.]+)", requirement).groups()
        yield f"{name}=={version}"


if __name__ == "__main__":
    main()
