"""The file as a package, in other people's type checkers, and in a shell that completes.

    PYTHON -m pytest .ci/package.py

PYTHON is one that .ci/requirements.txt is installed in; .ci/run makes an environment for pipx and uv.
"""

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pexpect
import pytest

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("CLIAUTH_CI_CACHE") or Path.home() / ".cache" / "cliauth-ci")
TOOLS = CACHE / "package" / "bin"
PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
FILES = ["README.md", "cliauth.py", "pyproject.toml", "test_cliauth.py"]
TEXT = (ROOT / "cliauth.py").read_text()
VERSION = re.search(r'^__version__ = "(.+)"', TEXT, re.MULTILINE)[1]
SHOWN = re.compile(rf"cliauth {re.escape(VERSION)} \(Python 3\.\d+\.\d+\S*\)\n")

if not TOOLS.exists():
    pytest.skip("left out: pipx and uv are not installed, .ci/run installs them", allow_module_level=True)


def block(heading, language, index=0):
    """A block of the README, as printed."""
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)[index]


@pytest.fixture(scope="session")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("package")


@pytest.fixture(scope="session")
def checkout(here):
    """The four files; what is built of them leaves its traces here."""
    (here / "cliauth").mkdir()
    for name in FILES:
        shutil.copy2(ROOT / name, here / "cliauth")
    return here / "cliauth"


@pytest.fixture(scope="session")
def environ(here):
    """Nothing is installed but into folders of its own, and no Python is fetched."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("CLIAUTH_", "PYTHON"))}
    folders = ("CLIAUTH_HOME", "PIPX_HOME", "PIPX_BIN_DIR", "PIPX_COMPLETION_DIR", "PIPX_MAN_DIR",
               "UV_CACHE_DIR", "UV_TOOL_BIN_DIR", "UV_TOOL_DIR")
    return {**ours, **{name: str(here / name.lower()) for name in folders}, "UV_PYTHON_DOWNLOADS": "never",
            "PATH": os.pathsep.join([str(here / "venv" / "bin"), str(TOOLS), ours["PATH"]])}


@pytest.fixture(scope="session")
def run(checkout, environ):
    def run(*command, code=0, cwd=checkout, stdin=subprocess.DEVNULL, **env):
        done = subprocess.run([str(word) for word in command], cwd=cwd, env={**environ, **env}, stdin=stdin,
                              capture_output=True, text=True, timeout=100)
        assert done.returncode == code, done.stdout + done.stderr
        return done
    return run


@pytest.fixture(scope="session")
def venv(run, here):
    """An environment with nothing but pip in it, and now cliauth: the first line of the README's block."""
    run(sys.executable, "-m", "venv", here / "venv")
    run("sh", "-c", block("Install", "sh").splitlines()[0])
    return here / "venv" / "bin"


# ---- The package ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def built(run, here):
    run(TOOLS / "python", "-m", "build", "--no-isolation", "-o", here / "dist")
    return here / "dist" / f"cliauth-{VERSION}.tar.gz", here / "dist" / f"cliauth-{VERSION}-py3-none-any.whl"


def test_sdist_and_wheel_hold_what_they_should_and_nothing_else(run, built):
    sdist, wheel = built
    with tarfile.open(sdist) as file:
        assert sorted(Path(name).name for name in file.getnames()) == ["PKG-INFO", *FILES]
    with zipfile.ZipFile(wheel) as file:
        assert sorted(Path(name).name for name in file.namelist()) == [
            "METADATA", "RECORD", "WHEEL", "cliauth.py", "entry_points.txt"]
        metadata = email.message_from_bytes(file.read(f"cliauth-{VERSION}.dist-info/METADATA"))
    assert metadata["Version"] == VERSION
    assert metadata["Summary"] == ast.get_docstring(ast.parse(TEXT)).splitlines()[0]
    assert (metadata["License-Expression"], metadata["Requires-Python"]) == ("0BSD", ">=3.6")
    run(TOOLS / "validate-pyproject", "pyproject.toml")


def test_pip_installs_the_command_and_the_module(run, venv, here):
    for command in (["cliauth"], [venv / "python", "-m", "cliauth"]):
        assert SHOWN.fullmatch(run(*command, "--version", cwd=here).stdout)
    assert "That was a whole sign-in." in run("cliauth", "demo", "--yes", cwd=here).stdout
    assert [line.split()[0] for line in run(venv / "pip", "freeze").stdout.splitlines()] == ["cliauth"]


@pytest.mark.skipif(not list(PYENV.glob("3.6.*")), reason="there is no Python 3.6")
def test_the_oldest_python_installs_it_too(run, here):
    run(max(PYENV.glob("3.6.*")) / "bin" / "python3", "-m", "venv", here / "oldest")
    pip = [here / "oldest" / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run(*pip, "-U", "pip<22")  # the one that venv brings is too old for pyproject.toml
    run(*pip, ".")
    assert SHOWN.fullmatch(run(here / "oldest" / "bin" / "cliauth", "--version").stdout)


@pytest.mark.parametrize("line", block("Install", "sh").splitlines()[1:])
def test_so_do_pipx_and_uv(line, run, here):
    shown = run("sh", "-c", line).stdout
    assert SHOWN.fullmatch(shown) or "install" in line
    if "install" in line:
        installed = here / ("uv_tool_bin_dir" if line.startswith("uv") else "pipx_bin_dir") / "cliauth"
        assert SHOWN.fullmatch(run(installed, "--version").stdout)


def test_an_edited_file_is_built_again(run, here, checkout):
    copy = shutil.copytree(checkout, here / "edited")
    assert SHOWN.fullmatch(run("uvx", "--from", copy, "cliauth", "--version").stdout)
    (copy / "cliauth.py").write_text(TEXT.replace(f'__version__ = "{VERSION}"', '__version__ = "9.9"'))
    assert run("uvx", "--from", copy, "cliauth", "--version").stdout.startswith("cliauth 9.9 ")


def test_it_runs_out_of_a_zip_and_from_stdin(run, checkout):
    zipped = next(line for line in block("Where it runs", "sh").splitlines() if "zipapp" in line)
    run("sh", "-c", zipped)
    assert SHOWN.fullmatch(run("./cliauth.pyz", "--version").stdout)
    with open(checkout / "cliauth.py") as file:
        assert SHOWN.fullmatch(run("python3", "-", "--version", stdin=file).stdout)
    assert SHOWN.fullmatch(run("./cliauth.py", "--version").stdout)


def test_the_tests_of_the_sdist_can_be_run(run, built, here):
    """Those that read the README stand for the rest, which .ci/run runs elsewhere."""
    with tarfile.open(built[0]) as file:
        file.extractall(here / "sdist", filter="data")
    run(sys.executable, "-m", "pytest", "-q", "-k", "readme", cwd=here / "sdist" / f"cliauth-{VERSION}")


# ---- Type checkers, linters -----------------------------------------------------------------------------

PROGRAM = '''
import argparse
import asyncio
import pathlib
import sys
import urllib.request
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import httpx
import requests

IMPORT

if TYPE_CHECKING:
    from typing_extensions import assert_type

cliauth.APP = "mytool"
cliauth.SETTINGS = {"redirect_uri": ["http://127.0.0.1:0/callback"]}


class Client(cliauth.Client, httpx.Auth):
    """Refreshes in time, and once more after a 401."""


client = Client("https://id.example.com", "my-cli", scope="openid offline_access")


async def fetch(url: str) -> None:
    async with httpx.AsyncClient(auth=client) as web:
        await web.get(url)


def call(args: argparse.Namespace) -> int:
    try:
        token = client.access_token(login=True)
        if TYPE_CHECKING:
            assert_type(token, str)
            assert_type(client.userinfo(), Dict[str, Any])
        requests.get(args.url, auth=cliauth.Client(profile="other"), timeout=10)
        httpx.get(args.url, auth=client)
        asyncio.run(fetch(args.url))
        urllib.request.urlopen(client(urllib.request.Request(args.url)))
    except cliauth.ErrorResponse as error:
        print(error.error, error.error_description, error.error_uri, error.status, file=sys.stderr)
        return error.exit_code
    except cliauth.AuthError as error:
        return error.exit_code
    return 0


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="mytool")
    subparsers = parser.add_subparsers(dest="command")
    cliauth.add_commands(subparsers, client)
    args = parser.parse_args(argv)
    return int(args.func(args))


def test_sign_in(token_file: str) -> None:
    with cliauth.DemoServer() as server:
        demo = server.client(pathlib.Path(token_file))
        demo.login("device")
        server.decision, server.user = "deny", {"sub": "grace", "email_verified": True}
        if TYPE_CHECKING:
            assert_type(demo, cliauth.Client)
            assert_type(server.issuer, str)
'''

CACHED = ["--cache-dir", "../mypy_cache"]
CHECKERS = {
    "mypy, oldest": ["-m", "mypy", *CACHED, "--strict", "--python-version", "3.10"],
    "mypy, newest": ["-m", "mypy", *CACHED, "--strict", "--python-version", "3.15"],
    "pyright": ["-m", "pyright", "--pythonpath", sys.executable],
}


@pytest.fixture(scope="session")
def vendoring(here, checkout):
    """A package that carries the file."""
    package = here / "vendoring" / "mytool"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "main.py").write_text(PROGRAM.replace("IMPORT", "from . import cliauth"))
    shutil.copy(checkout / "cliauth.py", package)
    return package.parent


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_type_checker_finds_nothing_in_a_package_that_carries_it(checker, run, vendoring):
    run(sys.executable, *CHECKERS[checker], "mytool", cwd=vendoring)


def test_nor_where_it_is_installed_and_mypy_was_told(run, venv, here):
    folder = here / "installed"
    folder.mkdir()
    (folder / "main.py").write_text(PROGRAM.replace("IMPORT", "import cliauth"))
    path = {"PYTHONPATH": str(next(venv.parent.glob("lib/python3*/site-packages")))}
    mypy = [sys.executable, *CHECKERS["mypy, newest"], "main.py"]
    assert "missing library stubs or py.typed marker" in run(*mypy, cwd=folder, code=1, **path).stdout
    (folder / "pyproject.toml").write_text("[tool.mypy]\n" + block("Put it into your program", "toml"))
    run(*mypy, cwd=folder, **path)
    run(sys.executable, *CHECKERS["pyright"], "main.py", cwd=folder, **path)


def test_linters_find_nothing_and_leave_it_as_it_is(run, vendoring):
    ruff = [sys.executable, "-m", "ruff"]
    run(*ruff, "check", "--isolated", "--select", "E4,E7,E9,F", "mytool/cliauth.py", cwd=vendoring)
    (vendoring / "pyproject.toml").write_text(block("Put it into your program", "toml"))
    assert "cliauth.py" not in run(*ruff, "check", "--show-files", cwd=vendoring).stdout


def test_an_import_warns_of_nothing(run, vendoring):
    for python in (sys.executable, *PYENV.glob("3.*/bin/python3")):
        done = run(python, "-X", "dev", "-W", "error", "-c", "import mytool.cliauth", cwd=vendoring)
        assert done.stdout + done.stderr == ""


# ---- Shells ---------------------------------------------------------------------------------------------


class Bash:
    """An interactive one, on a terminal of its own."""

    def __init__(self, setup, environ, cwd):
        self.bash = pexpect.spawn("bash", ["--norc", "--noprofile"], cwd=cwd, encoding="utf-8", timeout=20,
                                  dimensions=(50, 1000), env={**environ, "PS1": "$ ", "TERM": "dumb"})
        self.bash.sendline(f"bind 'set enable-bracketed-paste off'; {setup.strip()}; echo rea''dy")
        self.bash.expect_exact("ready\r\n")

    def after(self, keys):
        """The line that stands there after these keys; it is made an echo, and entered."""
        self.bash.send(keys + "\x01echo : \r")
        self.bash.expect(r"\r\n: ([^\r]*)\r\n")
        return self.bash.match[1]


@pytest.fixture(scope="session")
def profile(environ):
    folder = Path(environ["CLIAUTH_HOME"])
    folder.mkdir(exist_ok=True)
    (folder / "acme.json").write_text("{}")


@pytest.fixture(scope="session")
def completing(run, venv):
    run(venv / "pip", "install", "-q", "argcomplete", "-c", ROOT / ".ci" / "package" / "requirements.txt")


ALL = "\x1b*"  # readline's insert-completions: all that TAB would list
COMPLETED = [  # for the installed command, and for files
    ("{} sta\t", "{} status"), ("{} login --prov\t", "{} login --provider"), ("{} -q stat\t", "{} -q status"),
    ("{} login --provider goo\t", "{} login --provider google"),
    ("{} login --flow " + ALL, "{} login --flow auto browser client-credentials device paste"),
    ("{} token --format " + ALL, "{} token --format git header json kubectl token"),
    ("{} token --format=k\t", "{} token --format=kubectl"),
    ("{} --profile a\t", "{} --profile acme"), ("{} switch a\t", "{} switch acme"),
]


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize("line, commands", [
    (0, ["cliauth"]),
    (1, ["cliauth", "./cliauth.py", "python3 cliauth.py", "python3 -m cliauth"])])
def test_bash_completes(line, commands, completing, profile, environ, checkout):
    bash = Bash(block("Install", "sh", 1).splitlines()[line], environ, checkout)
    for command in commands:
        for keys, wanted in COMPLETED if command == commands[0] else COMPLETED[:2]:
            assert bash.after(keys.format(command)) == wanted.format(command)


def test_nothing_but_the_answer_is_written(completing, venv, run, here):
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": "cliauth sta", "COMP_POINT": "11"}
    done = run("sh", "-c", "exec cliauth 8>answer", cwd=here, **asked)
    assert (done.stdout, done.stderr, (here / "answer").read_text().strip()) == ("", "", "status")


def test_a_stray_variable_changes_nothing(completing, venv, run):
    assert SHOWN.fullmatch(run("cliauth", "--version", _ARGCOMPLETE="1").stdout)


def test_without_argcomplete_the_shell_gets_no_answer(run, checkout):
    done = run(sys.executable, "-S", "cliauth.py", _ARGCOMPLETE="1")
    assert done.stdout.startswith("usage: ") and done.stderr == ""
