"""What ends a command in one line: what was wrong and what would be right."""

import difflib
import errno
from collections.abc import Iterable

# Of the operating system's errors those that the same command meets again: a wrong path, missing rights.
LASTING = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.ENXIO, errno.ENODEV, errno.EMFILE, errno.ENOSYS),
}


class UserError(ValueError):
    """A mistake that the user can mend and a restart repeats. Its message is one line; commands print it and exit 2."""

    exit_code = 2


class Unavailable(UserError):
    """No mistake: storage, the network or another process failed, and may serve the next time. Commands exit 75."""

    exit_code = 75  # EX_TEMPFAIL: start me again


class BadData(UserError):
    """What a data set holds cannot be used. Of several processes maybe only this one has met it.

    A run that meets it is saved before it ends.
    """


class LostData(BadData, Unavailable):
    """What a data set holds was not given, also when asked again; nothing says that it is bad."""


def of_system(what: str, error: OSError) -> UserError:
    """The operating system's error as `what: reason`: a mistake if it is LASTING, else Unavailable."""
    told = f"{what}: {error.strerror or first_line(error)}"
    return UserError(told) if lasting(error) else Unavailable(told)


def lasting(error: OSError) -> bool:
    """Whether the same command meets an error again."""
    kinds = FileNotFoundError | FileExistsError | NotADirectoryError | IsADirectoryError | PermissionError
    forbidden = str(error).startswith("Forbidden")  # gcsfs's word
    return error.errno in LASTING or isinstance(error, kinds) or forbidden  # some libraries give no number


def did_you_mean(kind: str, name: str, choices: Iterable[str]) -> str:
    """The line for an unknown name: `unknown KIND 'NAME'; did you mean A, B?`.

    Without a near name it lists the first dozen choices instead.
    """
    choices = sorted(set(choices))
    near = difflib.get_close_matches(name.lower(), choices, n=3, cutoff=0.6)
    if near:
        return f"unknown {kind} {name!r}; did you mean {', '.join(near)}?"
    shown = ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "")
    return f"unknown {kind} {name!r}; there are: {shown}"


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line; a very long one loses its middle."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0].partition(" [tensorstore_spec=")[0] if lines else type(error).__name__
    return line if len(line) <= 300 else f"{line[:150]} ... {line[-145:]}"
