"""The error log: the traceback of a failure once, then only the count."""

import logging

import pytest

from serving.observability import error_log
from serving.observability.error_log import (
    MAX_REQUEST_IDS,
    MAX_TEXT,
    REPEAT_SECONDS,
    ErrorLog,
    Failure,
)


def caught(function, *arguments):
    """Return the exception that a call raises."""
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError


def fail(text):
    """Raise an exception with a cause; both quote a text."""
    try:
        raise KeyError(text)
    except KeyError as error:
        raise RuntimeError(text) from error


def fail_elsewhere(text):
    """Raise an exception with a text, from another line."""
    raise KeyError(text)


@pytest.fixture
def write(caplog):
    """A function that writes failures to a log, and returns the entries."""

    def write(log, *failures):
        caplog.clear()
        log.write([Failure(name, error, logging.ERROR, "failed") for name, error in failures])
        return [record.getMessage() for record in caplog.records]

    return write


@pytest.fixture
def log():
    """A log without the text of exceptions."""
    return ErrorLog(with_text=False)


def test_failure_of_several_requests_is_one_entry_with_their_ids(write, log):
    """The requests of a batch fail with exceptions of the same cause."""
    (entry,) = write(log, ("a", caught(fail, "x")), ("b", caught(fail, "y")))
    first, *lines = entry.splitlines()
    assert first == "Request a, b failed"
    assert [line for line in lines if not line.startswith("  ")] == ["KeyError", "RuntimeError"]
    assert sum("in fail" in line for line in lines) == 2


def test_repeated_failure_is_counted(write, log):
    """Only occurrences 10, 100, 1000, ... have an entry, with the count."""
    error = caught(fail, "x")
    entries = [write(log, (str(n), error)) for n in range(1, 101)]
    assert [n for n, each in enumerate(entries, 1) if each] == [1, 10, 100]
    assert entries[99] == ["Request 100 failed; KeyError has occurred 100 times"]


def test_other_failure_is_a_new_entry(write, log, caplog):
    """A failure of another type, from another line, or with another consequence."""
    errors = caught(fail, "x"), caught(fail_elsewhere, "x"), caught(int, "x")
    assert all(len(write(log, ("a", error))) == 1 for error in errors)
    assert not any(write(log, ("b", error)) for error in errors)
    log.add_unpredictable("c", errors[0])  # another consequence: a warning
    log.writer.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_traceback_is_logged_again_after_an_hour(write, log, monkeypatch):
    """The first entry may be in a file that is gone."""
    now = 0.0
    monkeypatch.setattr(error_log.time, "monotonic", lambda: now)
    error = caught(fail, "x")
    assert write(log, ("a", error))
    assert not write(log, ("b", error))
    now = REPEAT_SECONDS + 1
    (entry,) = write(log, ("c", error))
    assert "in fail" in entry


@pytest.mark.parametrize("with_text", [False, True])
def test_text_of_an_exception_is_logged_only_with_the_setting(write, with_text):
    """It may quote the record. A line feed in it forges no line, and it is truncated."""
    log = ErrorLog(with_text)
    error = caught(fail_elsewhere, "s3cr3t\nforged" + "x" * 2 * MAX_TEXT)
    (entry,) = write(log, ("a", error))
    assert ("s3cr3t" in entry) == with_text
    assert not any(line.startswith("forged") for line in entry.splitlines())
    assert len(entry) < MAX_TEXT + 1000


class UnprintableError(Exception):
    """An exception that raises another one when its text is read."""

    def __str__(self):
        """Fail."""
        raise RuntimeError


def raise_in_a_circle():
    """Raise an exception whose cause was caused by itself."""
    try:
        raise KeyError from (error := ValueError())
    except KeyError as key_error:
        error.__cause__ = key_error
        raise


def raise_unprintable():
    """Raise an exception, and hide its context."""
    try:
        raise KeyError
    except KeyError:
        raise UnprintableError from None


@pytest.mark.parametrize(
    ("function", "names"),
    [(raise_in_a_circle, ["ValueError", "KeyError"]), (raise_unprintable, ["UnprintableError"])],
)
def test_unusual_exception_does_not_stop_the_log(write, function, names):
    """A model may raise any exception. A hidden context is not logged."""
    log = ErrorLog(with_text=True)
    (entry,) = write(log, ("a", caught(function)))
    lines = [line.partition(":")[0] for line in entry.splitlines()[1:] if line[:1] != " "]
    assert lines == names


def test_many_request_ids_are_counted(write, log):
    """A batch may have as many requests as MAX_CONCURRENCY allows."""
    error = caught(fail, "x")
    (entry,) = write(log, *((f"id{n}", error) for n in range(MAX_REQUEST_IDS + 5)))
    first, *_ = entry.splitlines()
    assert first.endswith(f"id{MAX_REQUEST_IDS - 1} and 5 more failed")


def test_failures_are_written_when_the_log_is_closed(log, caplog):
    """A record that the model can't predict is a warning, not an error of the service."""
    log.add_failure("a", caught(fail, "x"))
    log.add_unpredictable("b", caught(fail_elsewhere, "x"))
    log.writer.close()
    first, second = caplog.records
    assert (first.levelname, second.levelname) == ("ERROR", "WARNING")
    assert second.getMessage().startswith("Request b has a record that the model can't predict\n")
