"""A second process that looks at a file and reads its counts, packed into a file both have open.

Python runs one thread at a time. While this process loads its modules, or does the small steps
between large ones, the other decodes (`scratch.serve`). It is started first of all. Where it cannot be
started, or ends, this process does everything by itself.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Final, NamedTuple

from senoscore.errors import SenoscoreError

MIN_BYTES: Final = 32 << 20  # of a file: a smaller one is read before a second process is ready
_SERVE: Final = (
    "import sys; sys.path.insert(0, sys.argv[1])\n"
    "from senoscore.console import settle_process; settle_process()\n"
    "from senoscore.scratch import serve; serve(int(sys.argv[2]), sys.argv[3])"
)


class Job(NamedTuple):
    """What to do: look at a file, with what is known better, and read its counts in blocks."""

    path: str
    overrides: Mapping[str, Any]
    block_size: int
    threads: int


class Reader:
    """The other process.

    What it says comes over a pair of sockets that no third process has, as pickles.

    Parameters
    ----------
    path
        The file it may look at until it is told what to do; empty for none.

    Raises
    ------
    OSError
        It cannot be started here.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[1])
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _SERVE, root, str(theirs.fileno()), os.fspath(path)],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()], env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        self._socket = ours
        self._said: SimpleQueue[Any] = SimpleQueue()
        self.file: IO[bytes] | None = None

    def begin(self, job: Job, folder: Path) -> None:
        """Let it do its work, and write what it packs to a file without a name in `folder`."""
        try:
            self.file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
            socket.send_fds(self._socket, [pickle.dumps(job)], [self.file.fileno()])
        except OSError as error:
            self._said.put(error)
        else:
            threading.Thread(target=self._listen, name="senoscore-reader", daemon=True).start()

    def _listen(self) -> None:
        """Take what it says as it comes: it would wait otherwise."""
        said: Any = OSError("the process that reads the file has ended")
        try:
            with self._socket.makefile("rb") as stream, suppress(EOFError, OSError):
                while (one := pickle.load(stream)) is not None:  # noqa: S301 - our own process
                    self._said.put(one)
                said = None
        finally:  # whatever happens: somebody waits
            self._said.put(said)

    def facts(self) -> Any:
        """What the file holds (`inspect.Facts`): the first that it says. Raises as `units`."""
        return next(self.units())

    def units(self) -> Iterator[Any]:
        """What it says of each block, in order: where in the file it lies (`scratch.Unit`).

        Raises
        ------
        SenoscoreError
            The file cannot be used, or is damaged: as reading it here would have raised.
        OSError
            The other process cannot go on.
        """
        while (said := self._said.get()) is not None:
            if isinstance(said, (SenoscoreError, OSError)):
                raise said
            yield said

    def close(self) -> None:
        """End it, wherever it is."""
        self._process.kill()
        self._process.wait()
        self._socket.close()
        if self.file is not None:
            self.file.close()


@contextmanager
def started(source: object, threads: int) -> Iterator[Reader | None]:
    """A reader for a large file, ended afterwards; None where it would not help or cannot be had."""
    reader = None
    able = bool(sys.executable) and hasattr(socket, "send_fds")
    if able and threads > 1 and isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with suppress(OSError):
            reader = Reader(source) if path.is_file() and path.stat().st_size >= MIN_BYTES else None
    try:
        yield reader
    finally:
        if reader is not None:
            reader.close()
