"""docs/operations.md: its commands run in the order of the page, and no failure is missing there.

What the machine does for the commands is played by small programs: `systemctl` starts and stops a
real server, `ssh` runs the command here. Paths of the system are below a directory of the test.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app_server import clean_environment
from tests.servers import free_port

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "operations.md").read_text()
DESIGN = (ROOT / "tenantbase" / "DESIGN.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)

PROGRAMS = {
    "systemctl": """
        state=@/state
        serves() { [ -e $state ] && kill -0 "$(cat $state)" 2>/dev/null; }
        start() {
            serves && return
            mkdir -p @/var/lib/tenantbase
            set -a
            [ ! -e @/etc/tenantbase/environment ] || . @/etc/tenantbase/environment
            tenantbase serve --port PORT --database @/var/lib/tenantbase/tenantbase.db \
                --memcached off >@/output 2>@/journal </dev/null &
            echo $! >$state
            until grep -q listening @/output; do serves && sleep 0.05; done
        }
        stop() {
            if serves; then kill "$(cat $state)"; fi
            while serves; do sleep 0.05; done
        }
        case "$1 $*" in
        enable*|start*tenantbase.service*) start ;;
        stop*tenantbase.service*) stop ;;
        restart*tenantbase.service*) stop; start ;;
        status*) serves ;;
        daemon-reload*) ls @/etc/systemd/system/tenantbase.service >&2 ;;
        *) echo "systemctl $*: not known here" >&2; exit 1 ;;
        esac
    """,
    "journalctl": "cat @/journal",
    "ssh": """
        [ "$1" = new-machine ]
        shift
        mkdir -p @/new-machine/tenantbase
        case "$1" in
        tenantbase) exec sh -euc "$(echo "$*" | sed s,/var/lib/,/new-machine/,)" ;;
        systemctl) exec tenantbase check --database @/new-machine/tenantbase/tenantbase.db ;;
        esac
    """,
}


def here(text: str, directory: Path, port: int) -> str:
    """The text with the system's paths, and the service's port, of this test."""
    text = re.sub(r"(?<![\w.@/-])/(etc|opt|var)/", rf"{directory}/\1/", text)
    return text.replace("localhost:8000", f"localhost:{port}")


@pytest.mark.timeout(180)
def test_commands_run_as_they_are_written(tmp_path: Path) -> None:
    port = free_port()
    programs = tmp_path / "bin"
    for name, code in PROGRAMS.items():
        programs.mkdir(exist_ok=True)
        code = code.replace("@", str(tmp_path)).replace("PORT", str(port))
        (programs / name).write_text(f"#!/bin/sh\nset -eu\n{code}\n")
        (programs / name).chmod(0o755)
    program = tmp_path / "opt" / "tenantbase" / "bin" / "tenantbase"
    program.parent.mkdir(parents=True)
    run = shlex.join([sys.executable, "-m", "tenantbase"])
    program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {run} "$@"\n')
    program.chmod(0o755)
    (tmp_path / "var" / "tmp").mkdir(parents=True)
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")

    looking, installing, *others = BLOCKS
    assert "health-check" in looking and "daemon-reload" in installing
    script = "\n".join(["set -x", installing, looking, *others, "tenantbase token list"])
    path = f"{programs}:{program.parent}:{clean_environment()['PATH']}"
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", here(script, tmp_path, port)],
            cwd=tmp_path,
            env=clean_environment(PATH=path),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    finally:
        subprocess.run([programs / "systemctl", "stop", "tenantbase.service"], env={"PATH": path})
    assert done.returncode == 0, done.stderr[-3000:]
    assert '"status":"ok"' in done.stdout and "tenantbase_build_info{" in done.stdout
    # What the page promises of the files.
    operator = tmp_path / "etc" / "tenantbase" / "operator.token"
    assert operator.stat().st_mode & 0o77 == 0
    assert operator.read_text().startswith("tb_")
    copies = {path.name for path in (tmp_path / "var" / "backups" / "tenantbase").iterdir()}
    assert copies == {"now.db", "now.db.gz", "before-upgrade.db"}
    # Listed once by the page, and no more by the last command: it is revoked.
    assert done.stdout.count('"name":"rescue"') == 1
    assert done.stdout.count('"name":"operator"') == 2


def rows(text: str, heading: str) -> list[str]:
    """The first cells of the first table below a heading."""
    section = re.split(rf"^#+ {re.escape(heading)}\n", text, flags=re.M)[1]
    table = re.split(r"^#", section, maxsplit=1, flags=re.M)[0]
    return [row.partition(" | ")[0] for row in re.findall(r"^\| (.+) \|$", table, re.M)[1:]]


def test_every_failure_has_an_answer() -> None:
    failures = rows(DESIGN, "What happens when something breaks")
    assert len(failures) > 20
    assert rows(PAGE, "Recover") == failures


def test_every_alert_has_an_answer() -> None:
    text = (ROOT / "deploy" / "prometheus" / "tenantbase-alerts.yml").read_text()
    alerts = re.findall(r"^ +- alert: (\w+)$", text, re.M)
    assert re.findall(r"^\| `(Tenantbase\w+)` \|", PAGE, re.M) == alerts


def test_links_within_the_page_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", PAGE, re.M)
    }
    links = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert links <= headings and len(links) > 5
