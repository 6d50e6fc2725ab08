"""What can go wrong around a run, done on purpose; each experiment says what did not hold."""

import contextlib
import errno
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import any_network
import jax
import numpy as np
import optax

import jaxnn as nn
from jaxnn.training.checkpoint import Checkpoints

HERE = Path(__file__).parent
NOBODY = 65534  # a user who may read nothing of ours
ENDS = 20  # seconds in which a process that was told to end must have ended
NOISE = ("Event loop is closed", "Fatal Python error", "Exception ignored", "terminate called")


class Row(NamedTuple):
    """A line of the table: what was done, how often, what must hold, and where it did not."""

    done: str
    times: int
    must: str
    broken: list[str]


def networks(times, dtypes=("float32", "bfloat16"), *, same_each_time=False):
    """Networks out of all layers and combinators, drawn at random."""
    done, must = "networks drawn", "hand equals auto, eager compiled; narrow as near as auto"
    try:
        with jax.enable_x64(True):
            any_network.campaign(times, dtypes, same_each_time=same_each_time)()
    except AssertionError as failure:
        return Row(done, times, must, [str(failure)])
    return Row(done, times, must, [])


def arrays(step):
    return {
        "w": np.random.default_rng(step).normal(size=500),
        "n": np.array(step),
        "b": np.ones(3, np.float32),
    }


def save(checkpoints, *steps):
    for step in steps:
        checkpoints.save(step, {"state": arrays(step)}, {"of": "the campaign"})
    checkpoints.wait()


def is_what_was_saved(found):
    stored = found.group("state")
    return all(
        stored[name].tobytes() == array.tobytes() for name, array in arrays(found.step).items()
    )


def load(folder):
    """Return what is loaded, or the error's kind; warnings count as told."""
    checkpoints = Checkpoints(folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = checkpoints.load()
        except Exception as error:  # the kind is what is asked about
            found = error
        finally:
            checkpoints.wait()
    return found, " ".join(str(each.message) for each in told)


@contextlib.contextmanager
def as_nobody():
    """Do without the rights of the administrator, who may read and write everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


# ── Kills ─────────────────────────────────────────────────────────────────────────────────────────

ENOUGH = 50  # runs that ended before they were killed
LOOP = ([sys.executable, str(HERE / "loop_to_kill.py")], ("{folder}", "60"))
TRAIN = (
    [sys.executable, str(HERE.parent.parent / "scripts" / "train.py"), "iris", "--epochs", "40"],
    ("--checkpoint", "{folder}", "--out", "{folder}-out", "--json", "{folder}.json"),
)


def result(target, folder, output):
    if target is LOOP:
        return output.split()[-1]
    import json

    return json.loads(Path(f"{folder}.json").read_text())["params_sha256"]


def start(target, folder):
    command, options = target
    options = [each.format(folder=folder) for each in options]
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def newest(folder):
    return (
        max((int(name) for name in os.listdir(folder) if name.isdecimal()), default=-1)
        if folder.is_dir()
        else -1
    )


def kills(times, numbers, target, seed=0):
    """Kill a run at random moments, by each signal in turn, go on, and compare where it ends."""
    moments, broken, done, ended = random.Random(seed), [], 0, 0
    with tempfile.TemporaryDirectory() as place:
        whole = start(target, Path(place) / "whole")
        expected = result(target, Path(place) / "whole", whole.communicate()[0])
        folder = Path(place) / "0"
        while (done < times or newest(folder) != -1) and ended < ENOUGH:
            process, before = start(target, folder), newest(folder)
            if done < times:
                # until it has saved once more, and then at any moment of the next few saves
                while process.poll() is None and newest(folder) == before:
                    time.sleep(0.002)
                time.sleep(moments.uniform(0, 0.4))
                process.send_signal(numbers[done % len(numbers)])
            try:
                output, errors = process.communicate(timeout=ENDS + 100 * (done >= times))
            except subprocess.TimeoutExpired:
                process.kill()
                output, errors = process.communicate()
                broken.append(f"kill {done}: it was still running {ENDS} s later")
            broken += [f"kill {done}: {noise!r} on stderr" for noise in NOISE if noise in errors]
            if newest(folder) < before:
                broken.append(f"kill {done}: checkpoint {before} was lost")
            if process.returncode == 0:
                if result(target, folder, output) != expected:
                    broken.append(f"kill {done}: it ended in other parameters")
                ended += 1  # a run may end before it is killed; the next one starts anew
                folder = Path(place) / str(ended)
            else:
                done += 1
                if "is damaged" in errors:
                    broken.append(f"kill {done}: a damaged checkpoint")
    if ended == ENOUGH:
        broken.append(f"{done} of {times} kills; {ended} runs ended, as if signals were ignored")
    name = "a loop" if target is LOOP else "scripts/train.py"
    must = "the same bits in the end, nothing lost, no hang, no noise"
    return Row(f"{', '.join(number.name for number in numbers)} to {name}", done, must, broken)


# ── Damage ────────────────────────────────────────────────────────────────────────────────────────


def truncate(path, other, at):
    path.write_bytes(path.read_bytes()[:at])


def flip(path, other, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << at % 8
    path.write_bytes(bytes(content))


def empty(path, other, at):
    path.write_bytes(b"")


def delete(path, other, at):
    path.unlink()


def replace(path, other, at):
    path.unlink()
    path.mkdir()


def swap(path, other, at):
    here, there = path.read_bytes(), other.read_bytes()
    path.write_bytes(there)
    other.write_bytes(here)


def forbid(path, other, at):
    path.chmod(0)


WAYS = {
    "truncated": truncate,
    "a bit flipped": flip,
    "emptied": empty,
    "deleted": delete,
    "replaced by a directory": replace,
    "swapped with another step's": swap,
    "without permission": forbid,
}


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damage(way, repeat):
    """Damage each file of the newest checkpoint of three in one way, at so many places."""
    broken, times, places = [], 0, random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        intact = Path(place) / "intact"
        save(Checkpoints(intact), 1, 2, 3)
        for i, path in [*enumerate(files_of(intact / "3"))] * repeat:
            folder, times = Path(place) / "damaged", times + 1
            shutil.copytree(intact, folder)
            ours, others = files_of(folder / "3"), files_of(folder / "2")
            same = ours[i].read_bytes() == others[i].read_bytes()
            WAYS[way](ours[i], others[i], places.randrange(path.stat().st_size))
            broken += [f"{path.name}: {what}" for what in after_damage(folder, way, same)]
            shutil.rmtree(folder)
    must = (
        "PermissionError, and all as it was"
        if way == "without permission"
        else "told, put aside, an older one used"
    )
    return Row(f"a file {way}", times, must, broken)


def after_damage(folder, way, same):
    if way == "without permission":
        for path in (folder, *folder.iterdir()):
            if path.is_dir():
                os.chown(path, NOBODY, -1) if os.geteuid() == 0 else None
        os.chown(folder / "jaxnn-checkpoints", NOBODY, -1) if os.geteuid() == 0 else None
        with as_nobody():
            found, _ = load(folder)
        if not isinstance(found, PermissionError) or not (folder / "3").is_dir():
            yield f"expected PermissionError, got {found!r}"
        return
    found, told = load(folder)
    expected = 3 if way.startswith("swapped") and same else 1 if way.startswith("swapped") else 2
    if getattr(found, "step", None) not in ({expected, 2} if expected == 1 else {expected}):
        yield f"expected step {expected}, got {found!r}"
    elif not is_what_was_saved(found):
        yield "other bits than were saved"
    elif found.step != 3 and not ("is damaged" in told and (folder / "3.damaged").is_dir()):
        yield f"expected a warning and 3.damaged, got {told!r}"


# ── Disks ─────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def small_disk(options):
    """Mount a small disk in memory; where that is not allowed, OSError."""
    with tempfile.TemporaryDirectory() as place:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place],
            capture_output=True,
            check=False,
        )
        if made.returncode:
            raise PermissionError(errno.EPERM, "cannot mount")
        try:
            yield Path(place) / "run"
        finally:
            subprocess.run(["umount", "-l", place], check=True)


@contextlib.contextmanager
def file_limit(size):
    """Allow this process files of only so many bytes."""
    with tempfile.TemporaryDirectory() as place:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield Path(place) / "run"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(name, disk, size):
    """Save until the disk takes no more, and read what was saved before."""
    broken, times = [], 0
    must = "OSError, at once; what was saved before is whole"
    try:
        with disk as folder:
            checkpoints = Checkpoints(folder, keep=1000)
            for step in range(1, 400):
                began = time.perf_counter()
                try:
                    checkpoints.save(
                        step, {"state": arrays(step), "more": np.ones(step * size)}, {}
                    )
                except OSError:
                    times += 1
                    if times == 1:
                        break
                except Exception as error:
                    broken.append(f"expected OSError, got {type(error).__name__}")
                    break
                if time.perf_counter() - began > ENDS:
                    broken.append(f"it took {time.perf_counter() - began:.0f} s")
            checkpoints.wait()
            if not times:
                broken.append("it was never full")
            for step in checkpoints.steps():
                if not is_what_was_saved(checkpoints.read(step)):
                    broken.append(f"step {step} has other bits")
            found, told = load(folder)
            if told or getattr(found, "step", None) != max(checkpoints.steps()):
                broken.append(f"got {found!r} {told}")
    except PermissionError:
        return Row(f"{name} (not possible here)", 0, must, [])
    return Row(name, times, must, broken)


def full_disk():
    return fill("a full disk", small_disk("size=3m"), 1000)


def no_inodes():
    return fill("no inodes left", small_disk("size=30m,nr_inodes=60"), 10)


def short_files():
    return fill("files of 60 kB at most", file_limit(60_000), 100)


def read_only():
    """Take away the right to write between two saves."""
    broken, kinds = [], ("the folder is read-only", "a file is in its place", "it is gone")
    for kind in kinds:
        with tempfile.TemporaryDirectory() as place:
            os.chmod(place, 0o755)
            folder = Path(place) / "run"
            checkpoints = Checkpoints(folder)
            save(checkpoints, 1)
            checkpoints.load()
            if kind == kinds[0]:
                folder.chmod(0o555)
            else:
                folder.rename(Path(place) / "away")
                if kind == kinds[1]:
                    folder.write_text("")
            began = time.perf_counter()
            try:
                with as_nobody() if kind == kinds[0] else contextlib.nullcontext():
                    save(checkpoints, 2)
                broken.append(f"{kind}: expected OSError, got none")
            except OSError:
                pass
            if time.perf_counter() - began > ENDS:
                broken.append(f"{kind}: it took {time.perf_counter() - began:.0f} s")
            checkpoints.wait()
            kept = folder if kind == kinds[0] else Path(place) / "away"
            if load(kept)[0].step != 1:
                broken.append(f"{kind}: the one before is lost")
    return Row(
        "saves where none is possible any more",
        len(kinds),
        "OSError, at once; the one before is kept",
        broken,
    )


# ── Folders ───────────────────────────────────────────────────────────────────────────────────────


def renamed():
    """Give a checkpoint the name of another step."""
    broken = []
    names = [("3", "7"), ("3", "03"), ("2", "30"), ("1", "4")]
    for old, new in names:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "run"
            save(Checkpoints(folder), 1, 2, 3)
            (folder / old).rename(folder / new)
            found, told = load(folder)
            if found.step != (2 if old == "3" else 3) or not is_what_was_saved(found):
                broken.append(f"{old} to {new}: got step {found.step}")
            if new != "03" and "was renamed" not in told:
                broken.append(f"{old} to {new}: told {told!r}")
    return Row("a checkpoint renamed", len(names), "not believed, told, kept", broken)


def foreign():
    """Lay what is not ours where a run begins, among its checkpoints and in their place."""
    broken = []

    def contents(folder):
        return {path.relative_to(folder): path.read_bytes() for path in files_of(folder)}

    for kind in ("a folder", "a marked folder", "no marker any more"):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            if kind != "a folder":
                save(Checkpoints(folder), 1, 2)
            (folder / "2023" / "arrays").mkdir(parents=True)
            (folder / "2023" / "arrays" / "thesis.txt").write_text("years of work")
            (folder / "2023" / "notes").write_text("and more")
            if kind == "no marker any more":
                (folder / "jaxnn-checkpoints").unlink()
            before = contents(folder)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    step = Checkpoints(folder).load().step
            except nn.InputError:
                step = None
            if step != (2 if kind == "a marked folder" else None):
                broken.append(f"{kind}: got {step}")
            if contents(folder) != before:
                broken.append(f"{kind}: something was changed")
            if kind == "a marked folder":
                Checkpoints(folder).wait()
    return Row("somebody else's files", 3, "refused or left alone, nothing changed", broken)


def shared(times):
    """Start several processes in one folder at once."""
    broken = []
    for i in range(times):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "run"
            processes = [start(LOOP, folder) for _ in range(3)]
            ends = [process.communicate(timeout=100) for process in processes]
            if all(process.returncode for process in processes):
                broken.append(f"{i}: none came to its end")
            for process, (_, errors) in zip(processes, ends, strict=True):
                last = (errors.splitlines() or [""])[-1]
                if process.returncode and "expected a folder for one run at a time" not in last:
                    broken.append(f"{i}: {last}")
            if load(folder)[0].step != 60:
                broken.append(f"{i}: the last checkpoint is lost")
    return Row("three processes in one folder", times, "one trains, the others are told", broken)


# ── Readers ───────────────────────────────────────────────────────────────────────────────────────


class BrokenError(Exception):
    """What a reader or a callback raises here."""


def fit(data, **options):
    net = nn.chain(nn.Dense(4), nn.Tanh(), nn.Dense(2))
    options = {"steps": 30, "every": 5, "key": jax.random.key(0), "progress": False, **options}
    return nn.fit(net, nn.SoftmaxCrossEntropy(), optax.adam(1e-2), data, **options)


def batches(then):
    """Yield batches, and do something before the 23rd."""
    numbers = np.random.default_rng(0)
    for i in range(30):
        if i == 22:
            then()
        yield numbers.normal(size=(8, 3)).astype(np.float32), numbers.integers(2, size=8)


def bits(params):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)]


def readers(times):
    """Read from what fails, is slow, or waits forever."""
    broken = []
    expected = bits(fit(batches(lambda: None)).params)
    never = threading.Event()

    def fails():
        raise BrokenError("the reader")

    def stop(event):
        raise BrokenError("the callback")

    for i in range(times):
        with tempfile.TemporaryDirectory() as folder:
            try:
                fit(batches(fails), checkpoint=folder)
                broken.append(f"{i}: the reader's error was lost")
            except nn.TrainingError as error:
                if "the reader" not in str(error):
                    broken.append(f"{i}: told {error}")
            if bits(fit(batches(lambda: None), checkpoint=folder).params) != expected:
                broken.append(f"{i}: other bits after a reader failed")
        if bits(fit(batches(lambda: time.sleep(1))).params) != expected:
            broken.append(f"{i}: other bits from a slow reader")
        began = time.perf_counter()
        with contextlib.suppress(nn.TrainingError):
            fit(
                (batch for part in (batches(int), batches(never.wait)) for batch in part),
                steps=60,
                callbacks=(stop,),
            )
        if time.perf_counter() - began > ENDS:
            broken.append(
                f"{i}: a reader that waits held up an error for {time.perf_counter() - began:.0f} s"
            )
    never.set()
    must = "told, nothing lost, the same bits; nobody is held up"
    return Row("a reader that fails, is slow, or waits", 3 * times, must, broken)
