# SPDX-License-Identifier: MIT
"""What `cmake --install` brings is whole: programs, manual pages, units, migrations."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from pipeline import BUILD

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "doc" / "man" / f"postern-{name}.1" for name in ("gateway", "processor")]


def run(*words, **options):
    return subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=120, check=False, **options)


def tool(name):
    """A program that the tests' packages bring."""
    found = shutil.which(name, path="/usr/bin:/usr/sbin:/bin")
    assert found, f"{name} is not there: run toolchains/install.sh test"
    return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    done = run("cmake", "--install", ROOT / "build" / BUILD, "--prefix", folder)
    assert done.returncode == 0, done.stdout
    return folder


def test_all_of_it_is_there(installed):
    found = sorted(path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file())
    migrations = [f"share/postern/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "migrations").rglob("*")
                  if path.is_file() and "__pycache__" not in path.parts]
    assert found == sorted([
        "bin/postern-gateway", "bin/postern-processor",
        "share/man/man1/postern-gateway.1", "share/man/man1/postern-processor.1",
        "lib/systemd/system/postern-gateway.service", "lib/systemd/system/postern-processor.service",
        "share/postern/.env.template", "share/postern/LICENSE", "share/postern/alembic.ini", *migrations])


def test_the_edge_gets_the_gateway_alone(tmp_path):
    done = run("cmake", "--install", ROOT / "build" / BUILD, "--prefix", tmp_path, "--component", "gateway")
    assert done.returncode == 0, done.stdout
    names = {path.name for path in tmp_path.rglob("*")}
    assert "postern-gateway" in names and not names & {"postern-processor", "migrations", "alembic.ini"}


def test_the_programs_run_where_they_were_put(installed):
    for name in ("postern-gateway", "postern-processor"):
        done = run(installed / "bin" / name, "--version")
        assert done.returncode == 0 and done.stdout.startswith(f"{name} "), done.stdout


def test_the_migrations_are_found_there(installed):
    done = run("/usr/bin/alembic", "-c", "alembic.ini", "history", cwd=installed / "share/postern",
               env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "DATABASE_URL": "postgresql://127.0.0.1/none"})
    assert done.returncode == 0 and "0001 (head)" in done.stdout, done.stdout


def test_the_manual_pages_are_well_formed():
    done = run(tool("mandoc"), "-T", "lint", "-W", "warning", *PAGES)
    assert done.returncode == 0, done.stdout


def test_the_manual_pages_tell_what_help_tells(installed):
    """Each option and exit code of --help is on the page, and no other option."""
    for page in PAGES:
        name = page.stem
        said = run(installed / "bin" / name, "--help").stdout
        shown = run(tool("mandoc"), "-T", "ascii", page).stdout.replace("_\b", "")
        shown = "".join(letter for at, letter in enumerate(shown) if shown[at + 1:at + 2] != "\b" and letter != "\b")
        options = {word.strip("[],.:") for word in said.split() if word.startswith("--")}
        on_page = {word.strip("[],.:") for word in shown.split() if word.startswith("--")}
        assert options == on_page >= {"--check", "--plan", "--version", "--help"}, (options, on_page)
        assert "EXIT STATUS" in shown and all(f"\n     {code} " in shown for code in (0, 1, 2))


def test_the_units_are_what_systemd_takes(installed, tmp_path):
    """The user that they name need not exist here."""
    if not shutil.which("systemd-analyze", path="/usr/bin:/bin"):
        pytest.skip("systemd-analyze is not on this machine: the units are not checked")
    for name in ("postern-gateway", "postern-processor"):
        unit = (installed / f"lib/systemd/system/{name}.service").read_text("utf-8")
        assert f"ExecStart=/usr/local/bin/{name}\n" in unit
        copy = tmp_path / f"{name}.service"
        copy.write_text(unit.replace("/usr/local/bin", f"{installed}/bin").replace("User=postern", "User=root"))
        done = run(tool("systemd-analyze"), "verify", "--man=no", copy)
        complaints = [line for line in done.stdout.splitlines() if name in line]
        assert done.returncode == 0 and not complaints, done.stdout
