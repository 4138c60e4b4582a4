"""What may pass is asked again; what will not is told at once."""

import errno
import os
import urllib.error

import pytest

from cnn_jax import UserError, storage
from cnn_jax.errors import Unavailable, of_system


class Answer(Exception):
    """As Google's clients raise it."""

    def __init__(self, code):
        super().__init__(f"{code} GET https://storage.googleapis.com/b/bucket/o/checkpoints/7")
        self.code = code


def system(number, path="/data/503.jpg"):
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    "error",
    [
        *map(system, (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET)),
        *map(Answer, (408, 429, 500, 503)),
        RuntimeError("UNAVAILABLE: failed to connect to all addresses"),
        # What ArrayRecord said of a bucket that answered 503, and of one that did not answer, after 17 minutes.
        RuntimeError(
            'Retry policy exhausted, with a last message of {"error": {"code": 503}}; reading gs://bucket/404'
        ),
        RuntimeError("Retry policy exhausted, with a last message of PerformWork() - CURL error [52]=Server returned"),
        RuntimeError("UNKNOWN: read() failed: Stale file handle; reading /data/set.array_record-00000-of-00001"),
        TimeoutError(),
        urllib.error.URLError("connection refused"),
    ],
)
def test_a_fault_that_may_pass_is_asked_again(error, monkeypatch):
    answers, waited = iter([error, error, "here"]), []

    def attempt():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(storage.time, "sleep", waited.append)
    assert storage.patiently(attempt, "cannot read") == "here" and waited == [0.5, 1]
    assert isinstance(storage.told("cannot read", error), Unavailable)


@pytest.mark.parametrize(
    "error",
    [
        *map(system, (errno.ENOENT, errno.EACCES, errno.EISDIR)),
        FileNotFoundError("bucket/run/checkpoints/503/manifest.json"),  # a number in a name is no status
        *map(Answer, (400, 403, 404)),
        RuntimeError("NOT_FOUND: gs://bucket/503"),
        ValueError("no JSON"),
    ],
)
def test_what_will_not_pass_is_not_asked_again(error, monkeypatch):
    def attempt():
        raise error

    monkeypatch.setattr(storage.time, "sleep", lambda seconds: pytest.fail("waited"))
    with pytest.raises(type(error)):
        storage.patiently(attempt, "cannot read")
    told = storage.told("cannot read /x", error)
    assert type(told) is UserError and str(told).startswith("cannot read /x: ")


def test_who_stays_away_is_told_with_the_number_of_attempts(monkeypatch):
    def attempt():
        raise system(errno.ESTALE)

    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    with pytest.raises(Unavailable, match="^/x cannot be read: Stale file handle, 7 times$") as error:
        storage.patiently(attempt, "/x cannot be read")
    assert error.value.exit_code == 75 and UserError("").exit_code == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_may_be_emptied(number):
    """Whatever tensorstore says around it."""
    assert str(storage.told("x", RuntimeError(f"Error writing: {os.strerror(number)} [source locations='...']"))) == (
        f"x: {os.strerror(number)}"
    )
    assert isinstance(of_system("x", system(number)), Unavailable)
    assert str(of_system("x", OSError("of no number"))) == "x: of no number"
