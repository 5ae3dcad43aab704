"""Set-up common to all tests: their kind, their processes, their event loop, their signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
import uvloop

from tenantbase.process.processors import usable_processors
from tests import kinds

EVENT_LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
_WATCH: Final = kinds.Watch()
_FEWEST_WORKERS: Final = 2
_MOST_WORKERS: Final = 16  # each imports all tests, and holds half a gigabyte in the end


def pytest_configure(config: pytest.Config) -> None:
    """Let no property test fail because the machine is slow: its examples have no deadline, and making
    them may take any time."""
    if config.pluginmanager.has_plugin("hypothesispytest"):
        from hypothesis import HealthCheck, settings  # slow to import, and not always needed

        settings.register_profile(
            "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
        )
        settings.load_profile("any machine")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes run the tests with ``-n auto``, as `scripts/test` does.

    Returns: 0, which means this process alone, for a run of chosen tests and for one whose output
    is not captured: a person is looking at them.
    """
    given = config.option
    chosen = given.keyword or any(".py" in name for name in given.file_or_dir)
    if chosen or given.capture == "no":
        return 0
    # One for each processor: with more, tests wait for each other's servers, and time limits that the
    # product sets itself, such as memcached's, pass for no other reason.
    return max(_FEWEST_WORKERS, min(usable_processors(), _MOST_WORKERS))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m`` and a kind, do not import the modules whose tests are all of another kind, nor
    what a directory of such modules shares."""
    wanted = config.option.markexpr
    if wanted not in kinds.KINDS:
        return None
    modules = [collection_path] if collection_path.suffix == ".py" else []
    if collection_path.is_dir():
        modules = list(collection_path.rglob("test_*.py"))
    others = (kinds.set_by(module) not in (None, wanted) for module in modules)
    return True if modules and all(others) else None


@pytest.hookimpl(tryfirst=True)  # before `-m` selects tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its kind, unless its module sets one."""
    rule = kinds.Rule()
    for item in items:
        if not kinds.kinds_of(item):
            item.add_marker(rule.kind(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    """Record what a test starts from now on."""
    _WATCH.started.clear()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Fail a unit test that has started something.

    What its teardown starts does not count: it may end the fixtures of other tests.
    """
    started = _WATCH.started.copy()
    result = yield
    if kinds.kinds_of(item) == ["unit"] and started:
        pytest.fail(f"a unit test starts something: {started}; see tests/kinds.py")
    return result


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests of a module on the event loops that it names in EVENT_LOOPS."""
    module = item.getparent(pytest.Module)
    names = getattr(module and module.obj, "EVENT_LOOPS", ["asyncio"])
    return {name: EVENT_LOOPS[name] for name in names}


@pytest.fixture
def short_path() -> Iterator[Path]:
    """An empty directory whose path leaves room for a socket's name, unlike that of ``tmp_path``:
    a socket's path has at most 103 bytes."""
    with TemporaryDirectory(prefix="tb-") as directory:
        yield Path(directory).resolve()


@pytest.fixture(autouse=True, scope="session")
def usual_priority() -> Iterator[None]:
    """Let no command that runs in this process lower its priority: that is for good, and what the tests
    start afterwards would inherit it."""
    from tenantbase.process import maintenance  # slow to import, and not always needed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maintenance, "_let_others_go_first", lambda: None)
        yield


# The processes that a test starts would inherit ignored signals. A shell without job control starts
# background commands with SIGINT ignored, and nohup ignores SIGHUP.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
