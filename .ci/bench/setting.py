"""Where the benchmark runs: virtual environments, the provider as a process, and folders for token files."""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("CLIAUTH_CI_CACHE") or Path.home() / ".cache" / "cliauth-ci") / "bench"
PATIENCE = 60  # seconds until what hangs has failed

# Starts a command, and tells how long it took, its CPU time, its peak memory and how it ended. A process of
# its own, as a large one takes longer to fork, and on Linux a child's peak memory begins with its parent's.
STOPWATCH = """
import os, sys, time
quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
start = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(child, 0)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, status)
"""


class Command(NamedTuple):
    """What is run: `says` stands in its output, `home` is the folder of its token files."""

    name: str
    argv: list
    says: str = ""
    home: str = "home"
    stdin: str = os.devnull
    cwd: str = "."


def execute(*argv, **options):
    """Runs something that is not measured."""
    result = subprocess.run(argv, capture_output=True, text=True, **options)
    if result.returncode:
        raise RuntimeError(f"{argv[0]}: {(result.stderr or result.stdout).strip()[-300:]}")
    return result.stdout


def pip(python, command, *arguments):
    execute(python, "-m", "pip", command, "-q", "--disable-pip-version-check", *arguments)


def environment(name, python, pins=os.devnull, *requirements):
    """The interpreter of a virtual environment without .pth hooks, made anew if something else is wanted."""
    version = execute(python, "-c", "import sys; print(sys.version)")
    folder, wanted = CACHE / name, "\n".join((version, *requirements, Path(pins).read_text()))
    made, inner = folder / "made-of", str(folder / "bin" / "python")
    if not made.exists() or made.read_text() != wanted:
        execute(python, "-m", "venv", "--clear", folder)
        if requirements:
            pip(inner, "install", "-c", pins, *requirements)
        for hook in folder.glob("lib/*/site-packages/*.pth"):
            hook.unlink()
        made.write_text(wanted)
    return inner


class Provider:
    """provider.py as a process, and what it was asked."""

    def __init__(self, python, folder):
        self.ca_file = str(folder / "ca.pem")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([python, HERE / "provider.py", self.ca_file], text=True, **pipes)
        self.issuer = self.process.stdout.readline().strip()
        self.host = urlsplit(self.issuer).netloc
        self.tls = ssl.create_default_context(cafile=self.ca_file)

    def close(self):
        self.process.communicate()  # it ends when its standard input does

    def get(self, address):
        """The headers and the body of an answer; redirects are not followed."""
        place = urlsplit(address)
        with contextlib.closing(http.client.HTTPSConnection(self.host, context=self.tls)) as connection:
            connection.request("GET", f"{place.path}?{place.query}")
            answer = connection.getresponse()
            return answer.headers, answer.read()

    def requests(self):
        """What programs have asked since the last look; what browsers and the benchmark ask is left out."""
        others = re.compile("/(authorization|decision|device|hold|release|requests)")
        return [each for each in json.loads(self.get("/requests")[1]) if not others.fullmatch(each["path"])]


class Setting:
    """A folder in which commands run, with next to nothing in their environment, and folders for token files:
    home, many (with so many other profiles), and other, for what writes."""

    def __init__(self, folder, python, provider, profiles):
        self.folder, self.python, self.provider = folder, python, provider
        spawns = "posix_spawn" in execute(python, "-c", "import os; print(dir(os))")  # since 3.8
        self.stopwatch = python if spawns else sys.executable  # smaller than F, so that F's peak is F's own
        self.installed, self.script = [str(Path(python).with_name("cliauth"))], [python, "cliauth.py"]
        shutil.copy(HERE.parent.parent / "cliauth.py", folder)
        self.login("--issuer", provider.issuer)
        self.token = self.run(Command("token", [*self.installed, "token"])).strip()
        (folder / "question").write_text(f"protocol=https\nhost={provider.host}\n\n")
        shutil.copytree(folder / "home", folder / "other")
        many = shutil.copytree(folder / "home", folder / "many")
        profile = next(many.glob("*.json")).read_bytes()
        for number in range(profiles - 1):
            (many / f"profile-{number}.json").write_bytes(profile)

    def around(self, command):
        """Folder and environment of a command."""
        variables = {"PATH": os.defpath, "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}
        variables["CLIAUTH_HOME"] = str(self.folder / command.home)
        return {"cwd": self.folder / command.cwd, "env": variables, "text": True}

    def start(self, command, **pipes):
        return subprocess.Popen(command.argv, stdin=subprocess.DEVNULL, **pipes, **self.around(command))

    def run(self, command, prefix=()):
        """The output of a command; RuntimeError where it does not work."""
        with open(self.folder / command.stdin) as stdin:
            result = subprocess.run([*prefix, *command.argv], stdin=stdin, capture_output=True,
                                    timeout=PATIENCE, **self.around(command))
        if result.returncode or command.says not in result.stdout:
            raise RuntimeError(f"{command.name}: {(result.stderr or result.stdout).strip()[-300:]}")
        return result.stdout

    def time(self, command):
        """Seconds, seconds of CPU, and MiB at the peak."""
        stopwatch = [self.stopwatch, "-I", "-S", "-c", STOPWATCH]
        seconds, busy, peak, status = self.run(command._replace(says=""), stopwatch).split()
        if status != "0":
            raise RuntimeError(f"{command.name}: ended with status {status}")
        return float(seconds), float(busy), int(peak) / 1024

    def sign_in(self, *options, home):
        """A `login` that has said which address to open, and that address."""
        login = [*self.installed, "login", "--no-browser", "--timeout", str(PATIENCE), *options]
        process, said = self.start(Command("login", login, home=home), stderr=subprocess.PIPE), ""
        for line in process.stderr:
            said += line
            if re.match(" +https:.*[?]", line):
                return process, line.strip()
        raise RuntimeError(f"login: {said}")

    def login(self, *options, home="home"):
        """Signs in: seconds from callback to end, less the server's, and what that was asked."""
        self.provider.requests()
        process, address = self.sign_in(
            "--flow", "browser", "--client-id", "demo", "--scope", "openid email offline_access",
            "--ca-file", self.provider.ca_file, *options, home=home)
        callback = urlsplit(self.provider.get(address)[0]["Location"])
        request = f"GET {callback.path}?{callback.query} HTTP/1.1\r\nHost: {callback.netloc}\r\n\r\n"
        with socket.create_connection((callback.hostname, callback.port)) as browser:
            sent = time.monotonic()
            browser.sendall(request.encode())
            process.wait()
            seconds = time.monotonic() - sent
        finish(process)
        asked = self.provider.requests()
        return seconds - sum(each["answered"] - each["came"] for each in asked if each["came"] > sent), asked


def finish(process):
    """The output of a process that was started; RuntimeError where it failed."""
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError(err or f"ended with {process.returncode}")
    return out
