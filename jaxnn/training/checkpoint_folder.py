"""A folder of numbered entries: written whole or not at all, every byte checked when read.

The folder bears a marker file, and nothing is changed in a folder without it. Entry 12 is the
folder ``12`` with its files, and ``entry.json``, which says what it is and holds the SHA-256 of
each. While it is written it is called ``12.part``; one that is found to be damaged is
called ``12.damaged`` from then on.
"""

import errno
import hashlib
import json
import os
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

from jaxnn.checks import InputError
from jaxnn.training.array_files import ARRAYS

MARKER = "jaxnn-checkpoints"
DOCUMENT = "entry.json"
GONE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)  # a file is none any more
PIECE = 2**20  # bytes read at a time

# by process and folder: the descriptor with the lock, and who holds it
_HELD: dict[tuple[int, str], tuple[int, threading.Thread]] = {}


class DamagedError(Exception):
    """An entry is not what was written: the bytes show it."""


class ForeignError(Exception):
    """A numbered folder was not written by this library."""


class Folder:
    """A folder that this library may write to, made if it is not there.

    Args:
        who: whom the errors name.
        path: where it is.

    Raises:
        InputError: if the path is empty, the folder can't be made, or holds something else.
    """

    def __init__(self, who: str, path: str | os.PathLike) -> None:
        if not isinstance(path, str | os.PathLike) or "\0" in str(path):
            raise InputError(f"{who}: expected the path of a folder, got {path!r}.")
        if not os.fspath(path):
            raise InputError(f"{who}: expected the path of a folder, got an empty one.")
        self._who, self.path = who, Path(path).absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            found = sorted(os.listdir(self.path))
            if found and MARKER not in found:
                raise InputError(
                    f"{who}: expected an empty folder, or one with checkpoints of this library, "
                    f"got {self.path} with {found[0]!r} in it."
                )
            if not found:
                (self.path / MARKER).write_text(
                    "Checkpoints of jaxnn are in this folder. Others leave it alone.\n"
                )
        except OSError as error:
            raise self._not_writable(error.strerror) from error

    def numbers(self) -> tuple[int, ...]:
        """Return the numbers of all entries that seem complete, in order."""
        names = os.listdir(self.path)
        return tuple(
            sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))
        )

    def damaged(self) -> tuple[str, ...]:
        """Return the names of the entries that were put aside."""
        return tuple(sorted(name for name in os.listdir(self.path) if ".damaged" in name))

    # ── One writer at a time ──────────────────────────────────────────────────────────────────────

    def hold(self) -> None:
        """Keep others from writing here, until :meth:`release` or the end of this process.

        Raises:
            InputError: if another one writes here, or nobody can.
        """
        key, here = self._key(), threading.current_thread()
        descriptor, holder = _HELD.get(key, (None, here))
        if holder is not here and holder.is_alive():
            raise self._in_use(f"thread {holder.name!r}")
        if descriptor is not None and not os.path.samestat(
            os.fstat(descriptor), os.stat(self.path / MARKER)
        ):
            os.close(descriptor)  # the folder was removed and made anew since
            descriptor = None
        if descriptor is None:
            if not os.access(self.path, os.W_OK):
                raise self._not_writable("Permission denied")
            descriptor = self._locked()
        _HELD[key] = descriptor, here

    def release(self) -> None:
        """Let others write here, if it was this thread that kept them from it."""
        descriptor, holder = _HELD.get(self._key(), (None, None))
        if descriptor is not None and holder is threading.current_thread():
            del _HELD[self._key()]
            os.close(descriptor)

    def _key(self) -> tuple[int, str]:
        return os.getpid(), os.path.realpath(self.path)

    def _locked(self) -> int:
        """Return a descriptor with the system's lock, which goes when the process does."""
        try:
            descriptor = os.open(self.path / MARKER, os.O_RDWR)
        except OSError as error:
            raise self._not_writable(error.strerror) from error
        try:
            import fcntl

            # not flock: a forked child would inherit it, and keep the folder locked after a kill
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            self._warn("this system has no locks on files")
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                self._warn(str(error.strerror))
                return descriptor
            os.close(descriptor)
            raise self._in_use("process") from error
        return descriptor

    def _in_use(self, by: str) -> InputError:
        return InputError(
            f"{self._who}: expected a folder for one run at a time, got {self.path}, "
            f"where another {by} trains now."
        )

    def _not_writable(self, why: str | None) -> InputError:
        return InputError(
            f"{self._who}: expected a folder that can be written to, got {self.path} ({why})."
        )

    def _warn(self, why: str) -> None:
        warnings.warn(
            f"{self.path}: cannot be locked ({why}); let no other run use it.", stacklevel=4
        )

    # ── Entries ───────────────────────────────────────────────────────────────────────────────────

    def part(self, number: int) -> Path:
        """Return the folder into which the files of an entry are written."""
        return self.path / f"{number}.part"

    def begin(self, number: int) -> None:
        """Make the folder for the files of an entry.

        Raises:
            OSError: if it can't be made, or there is an entry of that number already.
        """
        final = self.path / str(number)
        for name in os.listdir(self.path):  # what a killed process left
            if name.endswith(".part") and name.removesuffix(".part").isdecimal():
                shutil.rmtree(self.path / name)
        if os.path.lexists(final):
            raise FileExistsError(
                errno.EEXIST, "expected nothing of this name yet, got something", str(final)
            )
        self.part(number).mkdir()

    def finish(self, number: int, document: dict[str, Any]) -> None:
        """Give an entry its name, once all of its files are on the disk.

        Args:
            number: the entry's.
            document: JSON that says what it is.

        Raises:
            OSError: if it can't be written.
        """
        part = self.part(number)
        files = {path.relative_to(part).as_posix(): _digest(path) for path in _files(part)}
        whole = json.loads(json.dumps({"number": number, "document": document, "files": files}))
        (part / DOCUMENT).write_text(json.dumps({**whole, "sha256": _text_digest(whole)}))
        for path in [*_files(part), *(path for path in part.rglob("*") if path.is_dir()), part]:
            _flush(path)
        os.rename(part, self.path / str(number))
        _flush(self.path)

    def describe(self, number: int) -> dict[str, Any]:
        """Return the JSON that says what an entry is; its other files are not looked at.

        Raises:
            ForeignError: if it was not written by this library.
            DamagedError: if it is not what was written.
            OSError: if it can't be read now.
        """
        return self._described(number)["document"]

    def read(self, number: int) -> tuple[Path, dict[str, Any]]:
        """Return an entry's folder and JSON, once every byte has been checked.

        Raises:
            ForeignError: if it was not written by this library.
            DamagedError: if it is not what was written.
            OSError: if it can't be read now.
        """
        described, folder = self._described(number), self.path / str(number)
        for name, expected in described["files"].items():
            try:
                found = _digest(folder / name)
            except GONE as error:
                raise DamagedError(f"{name} is not there, or is not a file") from error
            if found != expected:
                raise DamagedError(f"the bytes of {name} are not those that were written")
        return folder, described["document"]

    def _described(self, number: int) -> dict[str, Any]:
        folder = self.path / str(number)
        try:
            whole = json.loads((folder / DOCUMENT).read_bytes())
            intact = whole.pop("sha256") == _text_digest(whole)
        except (*GONE, ValueError, RecursionError, TypeError, AttributeError, KeyError):
            intact = False
        if not intact:
            names = set(os.listdir(folder)) if folder.is_dir() else set()
            if not names or any(not name.startswith((DOCUMENT, ARRAYS)) for name in names):
                raise ForeignError("it holds something else, or nothing")
            raise DamagedError(f"{DOCUMENT} is not what was written")
        if whole["number"] != number:
            raise DamagedError(f"it holds step {whole['number']}: its folder was renamed")
        return whole

    def put_aside(self, number: int) -> str:
        """Rename a damaged entry, which is then not read again and not lost; return its name."""
        name, tries = f"{number}.damaged", 1
        while os.path.lexists(self.path / name):
            tries += 1
            name = f"{number}.damaged-{tries}"
        os.rename(self.path / str(number), self.path / name)
        return name

    def remove(self, number: int) -> None:
        """Remove an entry; if this process is killed meanwhile, no half of it keeps its name."""
        part = self.path / f"{number}.part"
        os.rename(self.path / str(number), part)
        shutil.rmtree(part)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _text_digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
