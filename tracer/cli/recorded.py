"""The file of --record, beside whatever else becomes of the reports of a trace."""

from __future__ import annotations

import sys
from types import TracebackType

from tracer.attach.user import invoking_user
from tracer.errors import ExitCode, UsageError
from tracer.report.model import Report


class Record:
    """Records what it is given, or nothing where there is no file. Use as a context manager."""

    def __init__(self, path: str | None, settings: object) -> None:
        """Create the file, for who called sudo. Raises UsageError."""
        self._recorder = None
        self._failed = False
        if path is None:
            return
        from tracer.recorder import Recorder

        user = invoking_user()
        try:
            owner, groups = ((user.uid, user.gid), user.groups) if user is not None else (None, ())
            self._recorder = Recorder(path, settings, owner, groups=groups)
        except OSError as problem:
            raise UsageError(f"{path} cannot be written: {problem.strerror}.", "Name another file.") from None
        self._path = path

    def write(self, report: Report) -> None:
        """Append a report. Where that cannot be, say so once; the recording ends before it, and the trace goes on."""
        if self._recorder is None:
            return
        try:
            self._recorder.write(report)
        except OSError as problem:
            self.close()
            self._failed = True
            print(f"leaktrace: the recording {self._path} ends here: {problem.strerror}. All before it can be read.",
                  file=sys.stderr, flush=True)

    def exit_code(self, code: int) -> int:
        """Return the exit code of a trace that ends with a code: a recording that is not whole must be noticed."""
        return ExitCode.INCOMPLETE if self._failed and code == ExitCode.DONE else code

    def close(self) -> None:
        """Close the file."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    def __enter__(self) -> Record:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()
