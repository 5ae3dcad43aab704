"""The command line's output, and failures to write it."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.app_server import READY_SECONDS, clean_environment
from tests.command import TENANTBASE, command, refused
from tests.servers import poll

ENTRIES = 20_000


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose listing exceeds a pipe's buffer."""
    database = tmp_path_factory.mktemp("full") / "x.db"
    lines = b"".join(b'{"key":"%05d","value":"%050d"}\n' % (n, n) for n in range(ENTRIES))
    assert command("import", "--database", str(database), stdin=lines).returncode == 0
    return database


@pytest.fixture
def database(tmp_path: Path) -> Path:
    database = tmp_path / "x.db"
    assert command("set", "--database", str(database), "k", "1").returncode == 0
    return database


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory for exported files, which must hold nothing else at the end."""
    directory = tmp_path / "out"
    directory.mkdir()
    yield directory
    assert {path.name for path in directory.iterdir()} <= {"a.ndjson", "link"}


def small_files() -> None:
    """In the child: limit files to 600 kB. Like a full disk, but the error is EFBIG."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))


def export(database: Path, file: Path | str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return command("export", "--database", str(database), str(file), **options)


def test_a_new_file_gets_its_mode_from_the_umask(database: Path, directory: Path) -> None:
    file = directory / "a.ndjson"
    assert export(database, file, umask=0o027).returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert msgspec.json.decode(file.read_bytes())["key"] == "k"


def test_an_old_file_is_replaced_and_keeps_its_mode(database: Path, directory: Path) -> None:
    file = directory / "a.ndjson"
    file.write_text("old\n" * 100_000)
    file.chmod(0o604)
    assert export(database, file).returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o604
    assert file.read_bytes().count(b"\n") == 1


def test_a_link_stays_and_its_target_is_replaced(database: Path, directory: Path) -> None:
    file, link = directory / "a.ndjson", directory / "link"
    file.write_text("old\n")
    link.symlink_to("a.ndjson")
    assert export(database, link).returncode == 0
    assert link.is_symlink() and msgspec.json.decode(file.read_bytes())["key"] == "k"


def test_a_full_disk_leaves_the_old_file(full: Path, directory: Path) -> None:
    file = directory / "a.ndjson"
    file.write_text("old\n")
    done = export(full, file, preexec_fn=small_files)
    assert refused(done, f"cannot write to {file}: ")
    assert file.read_text() == "old\n"


def test_a_failed_sync_leaves_the_old_file(database: Path, directory: Path) -> None:
    file = directory / "a.ndjson"
    file.write_text("old\n")
    # The database itself calls fdatasync.
    before = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO")
    done = export(database, file, before=before)
    assert refused(done, "Input/output error")
    assert file.read_text() == "old\n"


def test_a_new_file_is_synced_before_it_has_its_name(database: Path, directory: Path) -> None:
    trace = directory.parent / "trace"
    before = ("strace", "-f", "-qq", "-y", "-o", str(trace), "-e", "trace=fsync,rename")
    assert export(database, directory / "a.ndjson", before=before).returncode == 0
    calls = re.findall(
        rf"(fsync|rename)\(.*?({re.escape(str(directory))}[^\">]*)", trace.read_text()
    )
    assert [name for name, _ in calls] == ["fsync", "rename", "fsync"]
    assert calls[0][1] == calls[1][1] != str(directory) == calls[2][1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_export_leaves_the_old_file(
    full: Path, directory: Path, number: signal.Signals
) -> None:
    file = directory / "a.ndjson"
    file.write_text("old\n")
    slow = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=write:delay_enter=300ms")
    process = subprocess.Popen(
        # Warnings are not errors here: interrupted code need not close everything.
        [*slow, sys.executable, "-m", "tenantbase", "export", "--database", str(full), str(file)],
        env=clean_environment(),
        stderr=subprocess.PIPE,
    )
    with process:
        poll(
            lambda: any(path != file and path.stat().st_size for path in directory.iterdir()),
            "a new file is begun",
            READY_SECONDS,
        )
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), number)
        assert process.wait(READY_SECONDS) != 0
        assert process.stderr is not None
        assert process.stderr.read() in (b"", b"\nAborted!\n", b"Aborted!\n")
    assert file.read_text() == "old\n"


@pytest.mark.parametrize("suffix", ["", "-wal", "-tags", "-lock"])
def test_an_export_does_not_overwrite_the_database(database: Path, suffix: str) -> None:
    before = database.read_bytes()
    assert refused(export(database, f"{database}{suffix}"), "it is a file of the database")
    assert database.read_bytes() == before
    assert list(database.parent.iterdir()) == [database]


def test_a_directory_is_not_a_file(database: Path, directory: Path) -> None:
    assert refused(export(database, directory), f"cannot write to {directory}: ")


def test_a_directory_that_is_missing(database: Path, directory: Path) -> None:
    file = directory / "missing" / "a.ndjson"
    assert refused(export(database, file), f"cannot write to {file}: No such file or directory")


def test_special_files_are_written_directly(database: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    assert export(database, fifo).returncode == 0
    reader.join(READY_SECONDS)
    assert msgspec.json.decode(read[0])["key"] == "k"
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert export(database, "/dev/stdout").stdout == read[0]
    file = tmp_path / "appended"
    file.write_text("old\n")
    with file.open("ab") as appended:
        assert export(database, "/dev/stdout", stdout=appended).returncode == 0
    assert file.read_bytes() == b"old\n" + read[0]
    assert refused(export(database, "/dev/full"), "cannot write to /dev/full: No space left")


@pytest.mark.parametrize("args", [("get", "k"), ("list",), ("export",), ("--help",), ("get", "-h")])
def test_standard_output_is_full(database: Path, args: tuple[str, ...]) -> None:
    where = () if "--help" in args or "-h" in args else ("--database", str(database))
    with open("/dev/full", "wb") as nowhere:
        done = command(*args, *where, stdout=nowhere)
    assert refused(done, "cannot write to standard output: No space left on device")


@pytest.mark.parametrize("args", [("get", "k"), ("list",), ("export",)])
def test_standard_output_is_closed(database: Path, args: tuple[str, ...]) -> None:
    done = command(*args, "--database", str(database), stdout=None, preexec_fn=lambda: os.close(1))
    assert refused(done, "cannot write to standard output: it is closed")


def test_a_set_whose_answer_cannot_be_printed_has_stored(database: Path) -> None:
    """The exit status says whether the value is stored: a script that takes a lock relies on it."""
    where = ("--database", str(database))
    with open("/dev/full", "wb") as nowhere:
        done = command("set", *where, "k", "2", stdout=nowhere)
    assert done.returncode == 0
    assert done.stderr.startswith(b"The value is stored, ") and done.stderr.count(b"\n") == 1
    assert command("get", *where, "k").stdout == b"2\n"
    done = command("set", *where, "k", "3", stdout=None, preexec_fn=lambda: os.close(1))
    assert done.returncode == 0
    assert done.stderr.startswith(b"The value is stored, ") and done.stderr.count(b"\n") == 1
    assert command("get", *where, "k").stdout == b"3\n"


def test_all_standard_streams_are_closed(database: Path) -> None:
    """No file of the database gets the descriptor of standard output or error."""

    def close_all() -> None:
        os.closerange(0, 3)

    where = ("--database", str(database))
    done = command(
        "set", *where, "k", "2", stdin=None, stdout=None, stderr=None, preexec_fn=close_all
    )
    assert done.returncode == 0
    for args in (("get", "x"), ("set", "k", "-"), ("import",), ("export",)):
        done = command(*args, *where, stdin=None, stdout=None, stderr=None, preexec_fn=close_all)
        assert done.returncode in (1, 2)
    assert command("get", *where, "k").stdout == b"2\n"
    assert list(database.parent.iterdir()) == [database]


@pytest.mark.parametrize("args", [("set", "k", "-"), ("import",), ("import", "-")])
def test_standard_input_is_closed(database: Path, args: tuple[str, ...]) -> None:
    done = command(*args, "--database", str(database), stdin=None, preexec_fn=lambda: os.close(0))
    assert refused(done, "cannot read standard input: it is closed")


def test_there_is_nobody_to_ask(database: Path) -> None:
    for args in (("set", "k"), ("get",)):
        done = command(
            *args, "--database", str(database), stdin=None, preexec_fn=lambda: os.close(0)
        )
        assert refused(done, "is missing, and standard input is closed")


def test_a_reader_that_stops_early_ends_the_command(full: Path) -> None:
    for name in ("list", "export"):
        process = subprocess.Popen(
            [*TENANTBASE, name, "--database", str(full)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
        )
        with process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline().startswith(b'{"key":"00000"')
            process.stdout.close()
            assert process.wait(READY_SECONDS) == 1
            assert process.stderr.read() == b""


def test_ctrl_c_while_an_import_waits_for_its_input(database: Path) -> None:
    process = subprocess.Popen(
        [*TENANTBASE, "import", "--database", str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )
    poll(Path(f"{database}-tags").exists, "it opens the database", READY_SECONDS)
    time.sleep(0.5)  # give it time to wait for input; Ctrl-C must work before that, too
    # Keep the pipe open, or the end of input would end the command.
    process.send_signal(signal.SIGINT)
    assert process.wait(READY_SECONDS) == 1
    assert process.stderr is not None and process.stderr.read().strip() == b"Aborted!"
    process.communicate()
    assert list(database.parent.iterdir()) == [database]


def test_ctrl_c_while_an_export_waits_for_its_reader(full: Path) -> None:
    process = subprocess.Popen(
        [*TENANTBASE, "export", "--database", str(full)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )
    assert process.stdout is not None and process.stderr is not None
    pipe = process.stdout.fileno()
    size = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)

    def is_full() -> bool:
        (waiting,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
        return bool(waiting > size // 2)

    poll(is_full, "it waits for its reader", READY_SECONDS)
    process.send_signal(signal.SIGINT)
    assert process.wait(READY_SECONDS) == 1  # nothing was read
    assert process.stderr.read().strip() == b"Aborted!"
    process.communicate()
    assert list(full.parent.iterdir()) == [full]
