"""How many processes run the tests: several, unless a person looks at a few of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.inner import run_tests

CODE = "def test_it():\n    pass\n"
AUTO = ("-n", "auto", "--dist", "worksteal")  # as scripts/test


@pytest.mark.parametrize(
    "options",
    [
        ("{}/test_it.py",),
        ("{}/test_it.py::test_it",),
        ("{}", "-k", "it"),
        ("{}", "-s"),
        ("{}", "--pdb"),
        ("{}", "-n", "0"),
    ],
    ids=" ".join,
)
def test_a_few_tests_are_run_by_one_process(tmp_path: Path, options: tuple[str, ...]) -> None:
    given = [option.format(tmp_path) for option in options]
    run = run_tests(tmp_path, CODE, *AUTO, *given)
    assert b"1 passed" in run.stdout and b"worker" not in run.stdout, run.stdout


def test_all_tests_are_run_by_several(tmp_path: Path) -> None:
    run = run_tests(tmp_path, CODE, *AUTO, str(tmp_path))
    assert b"1 passed" in run.stdout and b" workers [1 item]" in run.stdout, run.stdout
