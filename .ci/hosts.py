"""Every host: a sign-in where something is missing, refused, full, slow or odd; a line for each row.

    python3 .ci/hosts.py            (any option of pytest after it: -k umask)

Real processes of cliauth.py, started as a person starts them, sign in at the demo's server. CLIAUTH_PYTHON
names another interpreter for them, CLIAUTH_SCRIPT another cliauth.py. What this machine cannot do is skipped,
with the reason.
"""

import ast
import json
import os
import pty
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from storm import MOUNTED, PLAIN, PYTHON, READ_ONLY, SCRIPT, STRACE

import cliauth

CACHE = os.environ.get("CLIAUTH_CI_CACHE", Path.home() / ".cache" / "cliauth-ci")
ROOTS = Path(os.environ.get("CLIAUTH_ROOTS", CACHE))  # where .ci/roots has put Debian's
VERSION = subprocess.run([PYTHON, "-c", "import sys; print('%d.%02d' % sys.version_info[:2])"],
                         capture_output=True, text=True, check=True).stdout.strip()
PATIENCE = 20   # seconds until a process that hangs fails its row
SOON = 3        # seconds: one for the program, the others for a machine that is busy with the rest
ROOT = os.getuid() == 0
# Somebody without a line in /etc/passwd, of the group root, as OpenShift has it. The one right that is left
# lets the interpreter be found where it is root's own.
ONE_RIGHT = [f"--{which}=-all,+dac_read_search" for which in ("inh-caps", "ambient-caps", "bounding-set")]
RANDOM_UID = (["setpriv", "--reuid=12345", "--regid=0", "--clear-groups", *ONE_RIGHT] if ROOT else
              ["unshare", "--map-user=12345"])

# BROWSER: notes the address and what the terminal showed before, and then plays the person.
BROWSER = """
import re, socket, sys
address = sys.argv[1]
with open(folder + "/said") as said, open(folder + "/opened", "a") as opened:
    opened.write(said.read() + "opened " + address + "\\n")
print("a chatty browser\\n" * 10000, file=sys.stderr)
print("a chatty browser\\n" * 10000, flush=True)
resolve = socket.getaddrinfo  # browsers know by themselves what localhost is
socket.getaddrinfo = lambda host, *more: [found for address in (
    ["127.0.0.1", "::1"] if host == "localhost" else [host]) for found in resolve(address, *more)]
sys.path.insert(0, script_folder)
import cliauth
server = cliauth.DemoServer()
server.issuer = re.match("http://[^/]+", address).group()
server.person(address)
"""


def needs(*command):
    """Skips the row where this machine cannot make the stimulus."""
    try:
        tried = subprocess.run([*command, "true"], capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"{command[0]}: {error.strerror}")
    if tried.returncode:
        pytest.skip(tried.stderr.strip() or f"{command[0]} cannot do it here")


class Host:
    """A person's home, current folder and browser, and processes of cliauth.py there."""

    def __init__(self, server, folder):
        self.server, self.folder, self.home, self.here = server, folder, folder / "home", folder / "here"
        self.said, self.opened = folder / "said", folder / "opened"
        for place in (self.home, self.here):
            place.mkdir(mode=0o700)
        for file in (self.said, self.opened, folder / "browser.py"):
            file.touch()
            file.chmod(0o666)
        (folder / "browser.py").write_text(
            f"folder, script_folder = {str(folder)!r}, {str(SCRIPT.parent)!r}\n" + BROWSER)
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.home),
            # env: a Python in root's own home is none that which(1) finds for others
            "BROWSER": f"env '{sys.executable}' -I -B '{folder}/browser.py'"}
        self.processes = []

    def belongs_to_the_random_uid(self):
        needs(*RANDOM_UID)
        for place in (self.home, self.here):
            os.chown(place, 12345 if ROOT else -1, -1)

    def start(self, *command, prefix=(), script=(str(SCRIPT),), environment=None, **more):
        """A process; a variable that is None is not set; stderr is a file, which can be read meanwhile."""
        changed = {**self.environment, **(environment or {})}
        with self.said.open("w") as said:
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": said}
            self.processes.append(subprocess.Popen(
                [*prefix, PYTHON, *script, *command], cwd=self.here, **{**streams, **more},
                env={name: str(value) for name, value in changed.items() if value is not None}))
        return self.processes[-1]

    def end(self, process):
        """Exit code, stdout, stderr: no traceback, a failure says why, the current folder is as it was."""
        out, err = (process.communicate(timeout=PATIENCE)[0] or b"").decode("utf-8", "replace"), (
            self.said.read_text("utf-8", "replace"))
        assert process.returncode in (0, 1, 2, 3, 4, 130, 143), (process.returncode, err)
        assert not re.search("Traceback|unforeseen|Exception ignored|Warning", err), err
        assert process.returncode == 0 or not err or err.splitlines()[-1].startswith("cliauth: "), err
        assert not list(self.here.iterdir())
        return process.returncode, out, err

    def run(self, *command, **more):
        return self.end(self.start(*command, **more))

    def login(self, *options, **more):
        """`login` at the demo's server, under way."""
        return self.start("login", "--issuer", self.server.issuer, "--client-id", "demo",
                          "--timeout", str(PATIENCE), *options, **more)

    def address(self, process):
        """The address to open, once it is printed."""
        end = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < end:
            shown = re.search(r"^ {4}(http\S+)\n", self.said.read_text(), re.M)
            if shown:
                return shown.group(1)
            time.sleep(0.01)
        raise AssertionError(self.said.read_text())

    def signs_in(self, *options, **more):
        """A whole sign-in in the browser (or another's): what was said."""
        return self.signed_in(self.login(*options, **more))

    def signed_in(self, process):
        code, out, err = self.end(process)
        assert (code, out) == (0, "") and "Signed in as ada@example.com" in err, err
        return err

    def opened_by_hand(self, process):
        """The same where the person opens the address that is printed."""
        self.server.person(self.address(process))
        return self.signed_in(process)

    def refuses(self, *options, **more):
        """What `login` said that could not be done, before it asked anything of the person."""
        code, out, err = self.end(self.login(*options, **more))
        assert (code, out, err.count("\n")) == (2, "", 1) and not self.opened.read_text(), err
        return err

    def has_token(self, *options, **more):
        """Whether `token` prints one that lives."""
        code, out, err = self.run("token", *options, **more)
        assert code == 0, err
        return self.server.access.get(out.strip(), 0) > time.time()


@pytest.fixture
def server():
    with cliauth.DemoServer() as running:
        yield running


@pytest.fixture
def host(server, tmp_path):
    one = Host(server, tmp_path)
    yield one
    for process in one.processes:
        with process:  # closes what is open
            process.kill()


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def modes_in(folder):
    """The modes of whatever is in it, each with whether it is that of a folder."""
    return {(path.is_dir(), path.stat().st_mode & 0o7777) for path in folder.rglob("*")}


# ---- The home folder --------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["XDG_CONFIG_HOME", "CLIAUTH_HOME"])
def test_no_home_but_another_folder(host, name):
    """HOME unset and no passwd entry (random uid): signs in where another folder is named"""
    host.belongs_to_the_random_uid()
    folder = host.home / "conf"
    nowhere = {"prefix": RANDOM_UID, "environment": {"HOME": None, name: folder}}
    host.signs_in(**nowhere)
    assert host.has_token(**nowhere)
    assert names_in(host.home) == {"conf"}
    assert "current" in names_in(folder / "cliauth" if name == "XDG_CONFIG_HOME" else folder)


NO_FOLDERS = ["", "here", ".", "~"]
NAMES = ["empty", "relative", ".", "~"]


@pytest.mark.parametrize("home", [None, *NO_FOLDERS], ids=["unset", *NAMES])
def test_no_home_at_all(host, home):
    """HOME unset, empty or relative, and no passwd entry: a clean failure that names CLIAUTH_HOME"""
    host.belongs_to_the_random_uid()
    nowhere = {"prefix": RANDOM_UID, "environment": {"HOME": home}}
    said = host.refuses(**nowhere)
    assert "set CLIAUTH_HOME or XDG_CONFIG_HOME" in said
    for command in ("token", "status", "refresh", "userinfo", "logout", "list", "switch x"):
        assert host.run(*command.split(), **nowhere) == (2, "", said)
    given = {"HOME": home, "CLIAUTH_ACCESS_TOKEN": "given"}
    assert host.run("token", prefix=RANDOM_UID, environment=given) == (0, "given\n", "")
    host.signs_in("--token-file", host.home / "t.json", **nowhere)
    assert names_in(host.home) == {"t.json", "t.json.lock"} and host.run("demo", "--yes", **nowhere)[0] == 0


def test_home_is_the_root_folder(host):
    """HOME or XDG_CONFIG_HOME is /, no passwd entry, as in Docker: a clean failure that names CLIAUTH_HOME"""
    host.belongs_to_the_random_uid()
    for name in ("HOME", "XDG_CONFIG_HOME"):
        assert "set CLIAUTH_HOME or XDG_CONFIG_HOME" in host.refuses(
            prefix=RANDOM_UID, environment={"HOME": None, name: "/"})


# Nothing can be written but in the test's own folder: a fault here would end in the root folder.
ENTRY = """mount --bind "$0" "$0" && mount --bind "$0/passwd" /etc/passwd && mount -o remount,bind,ro / &&
           cd "$0/here" && exec "$@" """


@pytest.mark.parametrize("home", [None, *NO_FOLDERS], ids=["unset", *NAMES])
def test_home_out_of_passwd(host, home):
    """HOME unset, empty or relative, and a passwd entry: the folder that stands there"""
    (host.folder / "passwd").write_text(f"root:x:0:0::{host.home}:/bin/sh\n")
    needs(*MOUNTED, ENTRY, host.folder)
    host.signs_in(prefix=[*MOUNTED, ENTRY, host.folder], environment={"HOME": home})
    assert "current" in names_in(host.home / ".config" / "cliauth")


@pytest.mark.parametrize("folder", NO_FOLDERS, ids=NAMES)
def test_xdg_config_home_is_no_folder(host, folder):
    """XDG_CONFIG_HOME empty or relative: ignored"""
    host.signs_in(environment={"XDG_CONFIG_HOME": folder})
    assert "current" in names_in(host.home / ".config" / "cliauth")


# ---- The config folder and the token file -----------------------------------------------------------------

FULL = """mount -t tmpfs -o size=4k none "$HOME/.config/cliauth" || exit 1
          cat /dev/zero 2>/dev/null >"$HOME/.config/cliauth/x"; exec "$@" """


@pytest.mark.parametrize("prefix, mode, why", [
    (PLAIN, 0o500, "cannot be written: Permission denied; "),
    ([*MOUNTED, READ_ONLY, "sh"], 0o700, "cannot be written: Read-only file system; "),
    ([*MOUNTED, FULL, "sh"], 0o700, "cannot be written: No space left on device; "),
    ([], None, "cannot be read: Not a directory; ")],
    ids=["read-only", "on a read-only mount", "full", "a file"])
def test_a_config_folder_that_takes_nothing(host, prefix, mode, why):
    """config folder read-only, full, a file: found before a browser opens; what needs none of it works"""
    config, elsewhere = host.home / ".config" / "cliauth", host.folder / "elsewhere" / "t.json"
    needs(*([*MOUNTED, "mount -t tmpfs none /mnt"] if MOUNTED[0] in prefix else PLAIN))
    config.parent.mkdir()
    config.mkdir(mode) if mode else config.touch()
    said = host.refuses(prefix=prefix)
    assert str(config) in said and why in said
    host.server.access["given"] = time.time() + 60
    given = {"prefix": prefix, "environment": {"CLIAUTH_ACCESS_TOKEN": "given"}}
    assert host.run("token", **given) == (0, "given\n", "")
    assert '"ada"' in host.run("request", host.server.issuer + "/userinfo", **given)[1]
    host.signs_in("--token-file", elsewhere, prefix=prefix)
    assert host.has_token("--token-file", elsewhere, prefix=prefix)


BIND = 'mount --bind "$0" "$0" && exec "$@"'
BIND_READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def test_a_token_file_that_is_mounted(host):
    """token file bind-mounted (EBUSY): written in place"""
    needs(*MOUNTED, "mount -t tmpfs none /mnt")
    path = host.home / "t.json"
    host.environment["CLIAUTH_TOKEN_FILE"] = str(path)
    host.signs_in()
    inode, mounted = path.stat().st_ino, [*MOUNTED, BIND, path]
    for work in (lambda: host.run("refresh", prefix=mounted), lambda: host.signs_in(prefix=mounted)):
        before = path.read_text()
        work()
        assert path.read_text() != before and path.stat().st_ino == inode and host.has_token()
        assert names_in(host.home) == {"t.json", "t.json.lock"}


def test_a_token_file_that_is_mounted_read_only(host):
    """token file bind-mounted read-only: a clean failure, nothing is lost"""
    needs(*MOUNTED, "mount -t tmpfs none /mnt")
    path = host.home / "t.json"
    host.environment["CLIAUTH_TOKEN_FILE"] = str(path)
    host.signs_in()
    code, out, err = host.run("refresh", prefix=[*MOUNTED, BIND_READ_ONLY, path])
    assert (code, out) == (2, "") and f"{path} cannot be written: Read-only file system; " in err
    assert host.run("refresh") == (0, "", "") and host.has_token()


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777], ids=["000", "077", "777"])
def test_whatever_the_umask(host, umask):
    """umask: the token file is 0600, every folder that is made 0700"""
    needs(*PLAIN)
    host.environment["XDG_CONFIG_HOME"] = str(host.home / "a" / "b")
    host.signs_in(prefix=PLAIN, umask=umask)
    assert modes_in(host.home) == {(True, 0o700), (False, 0o600)} and host.has_token(prefix=PLAIN)
    assert len(names_in(host.home / "a" / "b" / "cliauth")) == 4


def with_fault(calls, error):
    """A command whose system calls of those names fail, as far as the processor has them."""
    calls = "?" + calls.replace(",", ",?")
    prefix = [STRACE or "strace", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull,
              "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
    needs(*prefix)
    return prefix


@pytest.mark.parametrize("calls, error", [
    ("flock", "ENOSYS"), ("fsync", "EPERM"), ("chmod,fchmod,fchmodat", "EPERM"),
    ("chmod,fchmod,fchmodat", "ENOSYS"), ("chmod,fchmod,fchmodat", "EOPNOTSUPP")])
def test_calls_that_some_file_systems_lack(host, calls, error):
    """flock, fsync, chmod that fail: carries on, and all is private without a chmod"""
    prefix = with_fault(calls, error)
    host.signs_in(prefix=prefix, umask=0)
    assert modes_in(host.home) == {(True, 0o700), (False, 0o600)}
    assert host.run("refresh", prefix=prefix) == (0, "", "") and host.has_token(prefix=prefix)


def test_no_file_can_be_renamed(host):
    """rename EPERM: a clean failure"""
    code, out, err = host.end(host.login(prefix=with_fault("rename,renameat,renameat2", "EPERM")))
    assert (code, out) == (2, "") and " cannot be written: Operation not permitted; " in err


# ---- The network ------------------------------------------------------------------------------------------

# In a network of its own: the demo's server, and a name server that never answers.
SERVED = """
import socket, socketserver, subprocess, sys
script_folder, host, issuer, *command = sys.argv[1:]
sys.path.insert(0, script_folder)
import cliauth
family = socket.AF_INET6 if ":" in host else socket.AF_INET
class Web(socketserver.ThreadingTCPServer):
    address_family = family
    def server_bind(self):
        self.server_address = (host, 0)
        super().server_bind()
socketserver.ThreadingTCPServer = Web
deaf = socket.socket(family, socket.SOCK_DGRAM)
deaf.bind((host, 53))
with cliauth.DemoServer() as server:
    if family == socket.AF_INET6:
        server.issuer = server.issuer.replace("127.0.0.1", "[::1]")
    sys.exit(subprocess.run([word.replace(issuer, server.issuer) for word in command]).returncode)
"""
NETWORK = """ip link set lo up && hostname nobody.example && mount --bind "$0" /etc/hosts &&
             mount --bind "$1" /etc/resolv.conf && shift && """
LOCALHOST = ["--redirect-uri", "http://localhost:0/callback"]
NO_IPV6, ONLY_IPV6 = "ip addr del ::1/128 dev lo", "ip addr del 127.0.0.1/8 dev lo"


def network(host, change="true", address="127.0.0.1"):
    """A command in a network of its own, where no name is ever resolved, not even localhost."""
    empty, resolver = host.folder / "hosts", host.folder / "resolv.conf"
    empty.touch()
    resolver.write_text(f"nameserver {address}\n")
    prefix = ["unshare", "-rmun", "sh", "-c", NETWORK + change + ' && exec "$@"', empty, resolver]
    needs(*prefix)
    return [*prefix, sys.executable, "-I", "-B", "-c", SERVED, SCRIPT.parent, address, host.server.issuer]


@pytest.mark.parametrize("options", [[], LOCALHOST], ids=["as it comes", "localhost"])
@pytest.mark.parametrize("change, address, heard", [
    (NO_IPV6, "127.0.0.1", "127.0.0.1"), (ONLY_IPV6, "::1", "%5B%3A%3A1%5D")], ids=["no IPv6", "only IPv6"])
def test_one_kind_of_loopback(host, change, address, heard, options):
    """no IPv6, only IPv6, localhost unknown: listens on 127.0.0.1, then [::1]"""
    said = host.signs_in(*options, prefix=network(host, change, address))
    assert f"&redirect_uri=http%3A%2F%2F{'localhost' if options else heard}%3A" in said


def test_nothing_can_listen(host):
    """bind refused: the device flow"""
    prefix = with_fault("bind", "EACCES")
    said = host.signs_in(prefix=prefix)
    assert "Signing in by device: nothing can listen on http://[::1]:0/callback: Permission denied. " in said
    code, out, err = host.end(host.login("--flow", "browser", prefix=prefix))
    assert (code, out, err.count("\n")) == (4, "", 1)


def test_nothing_can_listen_and_there_is_no_device_flow(host):
    """bind refused, no device flow: the address is pasted"""
    metadata = cliauth.parse_json(host.server.get_openid_configuration({})[2])
    del metadata["device_authorization_endpoint"]
    host.server.get_openid_configuration = lambda params: cliauth.json_reply(metadata)
    process = host.login(prefix=with_fault("bind", "EACCES"), stdin=subprocess.PIPE)
    query = host.address(process).partition("?")[2]
    page = host.server.get_authorization(cliauth.parse_form(query))[2].decode()
    number = page.partition("name=request value=")[2].partition(">")[0]
    _, redirect, _ = host.server.post_decision({"request": number, "decision": "allow"})
    process.stdin.write(redirect["Location"].encode() + b"\n")
    process.stdin.flush()
    host.signed_in(process)


@pytest.mark.parametrize("options", [[], LOCALHOST, ["--device"]], ids=["browser", "localhost", "device"])
def test_dns_never_answers(host, options):
    """DNS that never answers: a sign-in that needs no name waits for none"""
    prefix, began = network(host), time.monotonic()
    host.signs_in(*options, prefix=prefix)
    assert time.monotonic() - began < SOON + ("--device" in options)


def test_dns_never_answers_for_the_provider(host):
    """DNS that never answers: a clean failure by the deadline"""
    provider, prefix, began = "https://id.example.com", network(host), time.monotonic()
    code, out, err = host.end(host.login("--issuer", provider, "--timeout", "2", prefix=prefix))
    assert (code, out, err.count("\n")) == (4, "", 1) and time.monotonic() - began < 2 + SOON


# ---- Threads, processes and browsers ----------------------------------------------------------------------

@pytest.mark.parametrize("flow", ["browser", "device", "auto"])
def test_no_thread_and_no_process(host, flow):
    """can't start new thread, fork refused: signs in all the same, the address printed"""
    host.belongs_to_the_random_uid()
    limited = {"prefix": [*RANDOM_UID, "prlimit", "--nproc=1"]}
    said = host.opened_by_hand(host.login("--flow", flow, **limited))
    assert "The browser did not start (Resource temporarily unavailable); open the address yourself." in said
    assert host.run("refresh", **limited) == (0, "", "") and '"ada"' in host.run("userinfo", **limited)[1]


def test_the_address_is_printed_first(host):
    """a chatty browser: the address is printed before it starts, and none of its words are ours"""
    said = host.signs_in()
    before, _, address = host.opened.read_text().partition("opened ")
    assert f"\n    {address}" in before and "chatty" not in said


def program(host, name, text):
    """A program of that name on the PATH."""
    path = host.folder / "bin" / name
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(0o755)
    host.environment["PATH"] = f"{path.parent}:{host.environment['PATH']}"
    return path


NOTES = '#!/bin/sh\necho "$1" >>"$HOME/../opened"\n'


@pytest.mark.parametrize("browser, text, started, note", [
    (None, "", False, ""), ("/nowhere/firefox", "", False, ""),
    ("broken", "#!/nowhere/sh\n", False, "The browser did not start (No such file or directory"),
    ("failing", NOTES + "exit 1\n", True, ""),
    ("blocking", NOTES + 'echo $$ >"$HOME/../pid"; exec sleep 60\n', True, ""),
    ("lynx", NOTES, False, ""), ("w3m", NOTES, False, "")],
    ids=["none", "missing", "broken", "failing", "blocking", "lynx", "w3m"])
def test_browsers(host, browser, text, started, note):
    """no browser; BROWSER missing, failing, blocking, or a text browser: the address is printed, no hang"""
    if text:
        program(host, browser, text)
    try:
        began = time.monotonic()
        said = host.opened_by_hand(host.login("--flow", "browser", environment={"BROWSER": browser}))
        assert note in said and bool(host.opened.read_text()) is started and time.monotonic() - began < SOON
    finally:
        if browser == "blocking":
            os.kill(int((host.folder / "pid").read_text()), signal.SIGKILL)


def test_nobody_is_there(host):
    """no browser and no terminal: says at once how else to sign in"""
    code, out, err = host.end(host.login(environment={"BROWSER": None}))
    assert (code, out, err.count("\n")) == (3, "", 1) and "--flow client-credentials" in err


def through(shell):
    """A prefix under which the shell opens and closes descriptors."""
    return ["sh", "-c", f'exec "$@" {shell}', "sh"]


IN_ROOT = """for each in dev tmp; do mount --rbind "/$each" "$0/$each" || exit; done
             python=$1; shift 2; exec chroot "$0" "$python" "$@" """


def in_root(host, name, python="python3"):
    """What starts a copy of the script with Debian's own Python, in a root that debroots.sh has made."""
    needs(*MOUNTED, "mount -t tmpfs none /mnt")
    copy = host.folder / "cliauth.py"
    shutil.copy(SCRIPT, copy)
    return {"prefix": [*MOUNTED, IN_ROOT, ROOTS / name, python], "script": [copy]}


def sign_in(host, *options, **more):
    """A sign-in that needs no browser: the code is approved here. `more` as for Host.start."""
    process = host.login("--device", *options, **more)
    approve(host, process)
    return host.signed_in(process)


def approve(host, process):
    """Plays the person who opens the address and says yes, without a way through the network."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end and not host.server.decided:
        time.sleep(0.01)
    for request in host.server.decided.values():
        request["decision"] = "allow"


def age(host, seconds):
    """Lets the access token end so many seconds from now."""
    path, = (host.home / ".config/cliauth").glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "expires_at": time.time() + seconds}))
    return path


# ---- The three streams ------------------------------------------------------------------------------------

@pytest.mark.parametrize("shell", ["<&-", "</dev/null"])
def test_no_stdin(host, shell):
    """stdin closed or /dev/null: signs in; what needs an answer ends at once instead of asking"""
    prefix = through(shell)
    host.signs_in(prefix=prefix)
    assert host.has_token(prefix=prefix)
    code, out, err = host.end(host.login("--flow", "paste", prefix=prefix))
    assert (code, out) == (3, "") and "stdin has ended; run " in err
    code, out, err = host.end(host.login("--client-secret-file", "-", prefix=prefix))
    assert (code, out, err.count("\n")) == (2, "", 1)


OUTPUT = ["token", "token --format json", "status", "status --json", "list", "userinfo", "request URL",
          "demo --yes", "--help", "login --help", "--version"]


@pytest.mark.parametrize("shell", [">&-", ">/dev/full", "a broken pipe"])
def test_no_stdout(host, shell):
    """stdout closed, full, a broken pipe: non-zero where output was lost, and only there"""
    reader, writer = os.pipe()
    os.close(reader)
    lost = {"stdout": writer} if shell == "a broken pipe" else {"prefix": through(shell)}
    assert "Signed in as" in host.signs_in(**lost)
    for command in OUTPUT:
        code, out, err = host.run(*command.replace("URL", host.server.issuer + "/userinfo").split(), **lost)
        assert (code, out, err.count("\n")) == (4, "", 1), (command, err)
        assert err.startswith("cliauth: the output could not be written: ")
    assert host.run("refresh", **lost) == (0, "", "") and host.has_token()
    code, _, err = host.end(host.login("--json", **lost))
    assert code == 4 and "could not be written" in err and host.has_token()
    os.close(writer)


def test_a_reader_who_leaves(host):
    """stdout a pipe that breaks half-way (demo | head): one line says so, non-zero"""
    process = host.start("demo", "--yes")
    for line in process.stdout:
        if b"discovery" in line:
            break
    process.stdout.close()
    assert process.wait(PATIENCE) == 4
    assert host.said.read_text().splitlines()[-1].startswith("cliauth: the output could not be written: ")
    assert "Traceback" not in host.said.read_text()


def mute(host, *command, **more):
    """Exit code and stdout of a process that has no way to say why it failed."""
    process = host.start(*command, **more)
    return process.communicate(timeout=PATIENCE)[0].decode(), process.returncode


@pytest.mark.parametrize("shell", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_no_stderr(host, shell):
    """stderr closed or full: the same results and exit codes"""
    prefix = through(shell)
    assert mute(host, "token", prefix=prefix) == ("", 3)
    assert mute(host, "nonsense", prefix=prefix) == ("", 2)
    assert host.login(prefix=prefix).wait(PATIENCE) == 0
    age(host, -60)
    out, code = mute(host, "token", prefix=prefix)
    assert code == 0 and host.server.access[out.strip()] > time.time() and host.has_token()


def test_descriptors(host):
    """stdin, stdout and stderr closed: descriptors 0-2 never become the token file"""
    needs(STRACE or "strace", "-o", os.devnull)
    log, prefix = host.folder / "log", through("<&- >&- 2>&-")
    traced = [*prefix, STRACE, "-f", "-qq", "-o", log, "-e", "trace=open,openat,socket,dup2,dup3"]
    assert mute(host, "demo", "--yes", prefix=prefix) == ("", 4)
    assert host.login(prefix=traced).wait(PATIENCE) == 0
    text = log.read_text()
    opened = re.findall(r'"[^"]*(?:\.json|\.lock|\.new|current)", [^)]*\) = (\d+)', text)
    assert len(opened) > 5 and min(map(int, opened)) > 2
    assert min(map(int, re.findall(r"socket\(.*\) = (\d+)", text))) > 2
    age(host, -60)
    assert mute(host, "refresh", prefix=prefix) == ("", 0) and host.has_token()


# ---- Encodings and escapes --------------------------------------------------------------------------------

def interpreter(version):
    """A prefix that starts another Python in the place of ours."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = next(pyenv.glob(f"versions/{version}.*/bin/python3"), None) or shutil.which(f"python{version}")
    if not found:
        pytest.skip(f"there is no Python {version} here")
    return ["sh", "-c", 'shift; exec "$0" "$@"', found]


def variables(text):
    return dict(word.split("=") for word in text.split())


@pytest.mark.parametrize("version, environment", [
    ("3.6", "LC_ALL=C"), ("3.6", "PYTHONIOENCODING=cp1252"), ("", "LC_ALL=C"),
    ("", "LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0"), ("", "PYTHONIOENCODING=ascii:strict"),
    ("", "PYTHONIOENCODING=cp1252")])
def test_encodings(host, version, environment):
    """LC_ALL=C on 3.6, PYTHONIOENCODING=ascii, cp1252: no crash; the file is UTF-8"""
    prefix = interpreter(version) if version else ()
    wordy = host.server.tokens

    def tokens(family):
        return cliauth.json_reply({**json.loads(wordy(family)[2]), "organization_id": "Łódź ✓ 日本"})
    host.server.tokens = tokens
    home = host.home / "hömé"
    odd = {"prefix": prefix, "environment": {**variables(environment), "CLIAUTH_HOME": home}}
    assert ", organization " in host.signs_in(**odd)
    path, = home.glob("*.json")
    assert "Łódź ✓ 日本" in path.read_text("utf-8")
    assert host.has_token(**odd)
    for command in ("status", "list", "demo --yes", "token --profile é"):
        assert host.run(*command.split(), **odd)[0] == (2 if "é" in command else 0)
    assert names_in(host.home) == {home.name}


def on_a_terminal(host, *command, **more):
    """What a command wrote to a terminal, all of it."""
    leader, follower = pty.openpty()
    process, written = host.start(*command, stdin=follower, stdout=follower, stderr=follower, **more), b""
    os.close(follower)
    if "login" in command and "--help" not in command:
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
    try:
        for data in iter(lambda: os.read(leader, 1 << 16), b""):
            written += data
    except OSError:  # how Linux says that nobody has the terminal open
        pass
    os.close(leader)
    process.wait(PATIENCE)
    return written.decode()


def newest():
    """The name of a root with Python 3.14."""
    found = sorted(root for root in ROOTS.glob("*") if (root / "usr/bin/python3.14").exists()
                   and not root.name.endswith(("-min", ".part")))  # the latter is not whole yet
    return found[0].name if found else pytest.skip("there is no Python 3.14, as CLIAUTH_ROOTS could hold it")


@pytest.mark.parametrize("environment", [
    "", "TERM=dumb", "NO_COLOR=1", "NO_COLOR=1 FORCE_COLOR=1", "PYTHON_COLORS=0", "FORCE_COLOR=1",
    "PYTHON_COLORS=1"])
def test_escapes(host, environment):
    """TERM=dumb, NO_COLOR, FORCE_COLOR on 3.14, on a terminal and not: no escapes unless asked for"""
    more = {"environment": {"TERM": "xterm-256color", **variables(environment)}}
    if VERSION < "3.14":
        more.update(in_root(host, newest(), "python3.14"))
    for command in ("--help", "login --help", "token --frobnicate"):
        _, piped, said = host.run(*command.split(), **more)
        shown = on_a_terminal(host, *command.split(), **more).replace("\r", "")
        assert environment in ("FORCE_COLOR=1", "PYTHON_COLORS=1") or "\x1b" not in shown + piped + said
        plain = re.sub("\x1b[^m]*m", "", piped + said)
        assert re.sub("\x1b[^m]*m", "", shown) == plain and "cliauth.py" in plain


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_line_written_over(host, term):
    """TERM=dumb: nothing is written over while it waits"""
    shown = on_a_terminal(host, "login", "--issuer", host.server.issuer, "--client-id", "demo", "--device",
                          environment={"TERM": term})
    assert ("\rWaiting" in shown) is (term == "xterm") and "cliauth: interrupted" in shown


# ---- How Python is started --------------------------------------------------------------------------------

FLAGS = ["-I", "-S", "-E -B", "-O", "-OO", "-W error -X dev -bb", "-I -S -B -OO -W error -X dev -bb"]


@pytest.fixture(scope="module")
def helps(tmp_path_factory):
    """What --help says without any flag."""
    one = Host(None, tmp_path_factory.mktemp("plain"))
    return {command: one.run(*command.split()) for command in ("--help", "login --help")}


@pytest.mark.parametrize("flags", FLAGS)
def test_flags(host, helps, flags):
    """-I -S -E -B -O -OO, -W error -X dev -bb: the same results; help without __doc__"""
    more, api = {"script": [*flags.split(), SCRIPT]}, host.server.issuer + "/userinfo"
    for command, known in helps.items():
        assert host.run(*command.split(), **more) == known and "usage: " in known[1]
    assert host.run("token", **more)[0] == 3
    host.signs_in(**more)
    age(host, -60)
    assert host.has_token(**more)
    assert "account               ada@example.com\n" in host.run("status", **more)[1]
    assert json.loads(host.run("request", api, **more)[1])["sub"] == "ada"
    assert host.run("request", api + "x", **more)[0] == 1
    assert "That was a whole sign-in." in host.run("demo", "--yes", **more)[1]


def test_no_assert():
    """-O: no assert as a check"""
    assert not [node for node in ast.walk(ast.parse(SCRIPT.read_bytes())) if isinstance(node, ast.Assert)]


def archived(folder, *options, name="cliauth.py", main=""):
    """A zipapp of the script."""
    app = folder / "app"
    app.mkdir()
    shutil.copy(SCRIPT, app / name)
    if main:
        (app / "__main__.py").write_text(main)
    subprocess.run([PYTHON, "-m", "zipapp", app, "-o", folder / "app.pyz", *options], check=True)
    return [folder / "app.pyz"]


def copied(folder):
    shutil.copy(SCRIPT, folder / "cliauth.py")
    return [folder / "cliauth.py"]


def linked(folder):
    (folder / "link.py").symlink_to(SCRIPT)
    return [folder / "link.py"]


OURS = "import sys, cliauth\nsys.exit(cliauth.main())\n"
EXEC = f"import pathlib; exec(pathlib.Path({str(SCRIPT)!r}).read_text('utf-8'))"
WAYS = {  # what stands behind python3, and what the hints name
    "python3 - login < cliauth.py": (lambda place: ["-"], "cliauth"),
    "python3 -c exec": (lambda place: ["-c", EXEC], "cliauth"),
    "zipapp -m cliauth:main": (lambda place: archived(place, "-m", "cliauth:main"), "the file"),
    "zipapp with a __main__.py": (lambda place: archived(place, main=OURS), "the file"),
    "zipapp of the file as __main__.py": (lambda place: archived(place, name="__main__.py"), "the file"),
    "-m cliauth": (lambda place: ["-m", "cliauth"], "python3 -m cliauth"),
    "a symlink": (linked, "the file"),
    "a read-only folder": (copied, "the file"),
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_start(host, way):
    """without __file__, zipapp, -m, a symlink, a read-only folder: works; hints name what to type"""
    place = host.folder / "place"
    place.mkdir()
    (script, hint), prefix = WAYS[way], through(f"<'{SCRIPT}'" if " - " in way else "")
    script = script(place)
    if hint == "the file":
        hint = f"python3 {script[0]}"
    if way == "a read-only folder":
        needs(*MOUNTED, "mount -t tmpfs none /mnt")
        prefix = [*MOUNTED, BIND_READ_ONLY, place]
    more = {"script": script, "prefix": prefix, "environment": {"PYTHONPATH": SCRIPT.parent}}
    code, out, err = host.run("status", **more)
    forgotten = way == "zipapp -m cliauth:main"  # the __main__.py that zipapp writes drops the exit code
    assert (code, out) == (0 if forgotten else 3, "") and f"; run: {hint} login --issuer URL" in err
    host.signs_in(**more)
    assert host.has_token(**more) and host.run("demo", "--yes", **more)[0] == 0


# ---- Other files beside the script ------------------------------------------------------------------------

HIDING = ["json.py", "re.py", "argparse.py", "select.py", "socket.py", "secrets.py", "fcntl.py", "http.py",
          "json/__init__.py", "email/__init__.py"]


@pytest.mark.parametrize("version, name, text", [
    *[("", name, "x = 1") for name in HIDING], ("", "json.py", "x = ("), ("", "json.py", "1 / 0"),
    *[("3.6", name, "x = 1") for name in ("json.py", "re.py", "select.py")]])
def test_a_module_beside_the_script(host, name, text, version):
    """json.py beside the script (or another module of Python's own): a clean failure that names the file"""
    place, named = host.folder / "beside", []
    (place / name).parent.mkdir(parents=True)
    (place / name).write_text(text + "\n")
    more = {"script": copied(place), "prefix": interpreter(version) if version else ()}
    for command in ("--help", "token", f"login --issuer {host.server.issuer} --client-id demo", "demo --yes"):
        code, out, err = host.run(*command.split(), **more)
        named.append(code == 2 and f"{str(place / name)!r} " in err.splitlines()[-1])
        assert named[-1] or code == (3 if command == "token" else 0), err
    assert not host.opened.read_text() or not any(named)  # Python may have had its own before


# ---- Certificates and clocks ------------------------------------------------------------------------------

OPENSSL = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config {0}/cnf -days 20"
EXTENSIONS = """[req]
distinguished_name = name
[name]
[leaf]
subjectAltName = IP:127.0.0.1
[usual]
basicConstraints = critical, CA:true
subjectKeyIdentifier = hash
[odd]
basicConstraints = CA:true
subjectKeyIdentifier = hash
"""


@pytest.fixture(scope="session")
def authorities(tmp_path_factory):
    """Two private CAs, the second one's basicConstraints not critical, and a server's certificate of each."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cnf").write_text(EXTENSIONS)
    for name in ("usual", "odd"):
        ca, server = folder / f"{name}-ca.pem", folder / f"{name}.pem"
        for command in (f"-extensions {name} -subj /CN={name} -keyout {ca}.key -out {ca}",
                        f"-extensions leaf -subj /CN=server -keyout {server}.key -out {server} "
                        f"-CA {ca} -CAkey {ca}.key"):
            subprocess.run(f"{OPENSSL.format(folder)} {command}".split(), check=True, capture_output=True)
    return folder


class Secured(cliauth.DemoServer):
    """The demo's server behind TLS; it counts what it is asked."""

    def __init__(self, certificate):
        self.asked = []
        super().__init__(tell=lambda *request: self.asked.append(request[1]))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, f"{certificate}.key")

    def __enter__(self):
        super().__enter__()
        self.web.socket = self.context.wrap_socket(
            self.web.socket, server_side=True, do_handshake_on_connect=False)  # but in each one's thread
        self.issuer = self.issuer.replace("http:", "https:")
        self.web.handle_error = lambda *_: None  # whoever does not trust us hangs up
        return self


@pytest.fixture
def secured(authorities, tmp_path):
    """A host whose provider has a certificate of the CA of that name."""
    running = []

    def of(name):
        one = Secured(authorities / f"{name}.pem").__enter__()
        running.append(one)
        return Host(one, tmp_path)
    yield of
    for one in running:
        one.__exit__()


NO_STORE = {"SSL_CERT_FILE": "", "SSL_CERT_DIR": "/nowhere"}


def test_certificates(secured, authorities):
    """SSL_CERT_FILE missing, no CA store, another CA: a clean failure that says so; verification never off"""
    host, other = secured("usual"), authorities / "odd-ca.pem"
    for code, options, environment in [
            (2, [], {"SSL_CERT_FILE": "/nowhere/ca.pem"}), (2, [], {"SSL_CERT_FILE": "/dev/null"}),
            (2, ["--ca-file", "/nowhere/ca.pem"], {}), (2, ["--ca-file", SCRIPT], {}),
            (4, [], NO_STORE), (4, [], {}), (4, [], {"SSL_CERT_FILE": other}), (4, ["--ca-file", other], {}),
            (4, ["--ca-file", other], {"SSL_CERT_FILE": authorities / "usual-ca.pem"}),
            (4, [], {"PYTHONHTTPSVERIFY": "0"})]:
        done, out, err = host.end(host.login("--device", *options, environment=environment))
        assert (done, out, err.count("\n")) == (code, "", 1), (options, environment, err)
        assert "--ca-file" in err and "SSL_CERT_FILE" in err and not host.server.asked


@pytest.mark.parametrize("name, where", [("usual", "--ca-file"), ("odd", "SSL_CERT_FILE")])
def test_a_private_ca(secured, authorities, name, where):
    """a private CA, also one whose basicConstraints are not critical: signs in, refreshes"""
    host, ca = secured(name), authorities / f"{name}-ca.pem"
    options, environment = (["--ca-file", ca], {}) if where == "--ca-file" else ([], {"SSL_CERT_FILE": ca})
    sign_in(host, *options, environment=environment)
    age(host, -60)
    assert host.has_token(environment=environment) and host.server.asked.count("/token") >= 2


def test_a_private_ca_on_the_newest(secured, authorities):
    """a private CA whose basicConstraints are not critical, on 3.13 or newer: signs in all the same"""
    host, ca = secured("odd"), authorities / "odd-ca.pem"
    sign_in(host, "--ca-file", ca, **(in_root(host, newest()) if VERSION < "3.13" else {}))


def faked(date):
    needs("faketime", date)
    return ["faketime", date]


def counted(host):
    """The token requests that come to the provider."""
    truth, asked = host.server.post_token, []
    host.server.post_token = lambda params: asked.append(params) or truth(params)
    return asked


DATES = ["2020-01-01 00:00:00", "2040-01-01 00:00:00"]


@pytest.mark.parametrize("date", DATES)
def test_clock_at_sign_in(host, date):
    """clock in 2020 or 2040: a sign-in says that it is the clock"""
    asked = counted(host)
    code, _, err = host.end(host.login(prefix=faked(date)))
    assert code == 1 and "this machine's clock" in err.splitlines()[-1] and len(asked) == 1
    assert host.run("token")[0] == 3


@pytest.mark.parametrize("date", DATES)
def test_clock_later(host, date):
    """clock in 2020 or 2040, signed in before: no refresh loop, one attempt at most, nothing lost"""
    asked, prefix = counted(host), faked(date)
    host.signs_in()
    for command in ("token", "userinfo", "request " + host.server.issuer + "/userinfo", "refresh", "status"):
        asked.clear()
        code, out, err = host.run(*command.split(), prefix=prefix)
        assert len(asked) == (command == "refresh" or date == DATES[1] and command != "status")
        assert code == 0 or code == 1 and "this machine's clock" in err.splitlines()[-1], (command, err)
        assert code == bool(asked)
    assert host.has_token()
    code, out, _ = host.run("status", "--json", prefix=prefix)
    assert code == 0 and json.loads(out)["refreshable"]


def test_clock_and_a_date(host):
    """clock in 2040, a provider that says when tokens end, not how long they live: says it is the clock"""
    wordy = host.server.tokens

    def tokens(family):
        token = json.loads(wordy(family)[2])
        end = time.time() + token.pop("expires_in")
        return cliauth.json_reply({**token, "id_token": None, "user": host.server.user, "expires_at": end})
    host.server.tokens, asked = tokens, counted(host)
    host.signs_in("--scope", "api")
    code, out, err = host.run("token", prefix=faked(DATES[1]))
    assert (code, len(asked), err.count("\n")) == (0, 2, 1) and "check this machine's clock" in err
    assert host.has_token() and len(asked) == 2


@pytest.mark.parametrize("date", DATES)
def test_clock_and_certificates(secured, authorities, date):
    """clock in 2020 or 2040, behind TLS: the certificate's dates lead to the clock"""
    host = secured("usual")
    code, out, err = host.end(host.login("--ca-file", authorities / "usual-ca.pem", prefix=faked(date)))
    assert (code, out, err.count("\n")) == (4, "", 1) and not host.server.asked
    assert "clock" in err


# ---- Signals ----------------------------------------------------------------------------------------------

FIRST = ["unshare", "-rpf", "--kill-child"]


def first_process(process):
    """The one child of unshare, which is process 1 of its own namespace."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children:
            assert re.search(r"^NSpid:.*\t1$", Path(f"/proc/{children[0]}/status").read_text(), re.M)
            return int(children[0])
        time.sleep(0.01)
    raise AssertionError("it was not started")


def until(done):
    end = time.monotonic() + PATIENCE
    while not done() and time.monotonic() < end:
        time.sleep(0.01)
    assert done()


WAITS = {"the browser": "--flow browser --no-browser", "approval": "--device", "a paste": "--flow paste",
         "the provider": "--device"}
NUMBERS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
PROCESS_1 = pytest.mark.parametrize("prefix", [(), FIRST], ids=["", "as process 1"])


def sent(process, number, prefix):
    os.kill(first_process(process) if prefix else process.pid, number)


def slowed(host, name, seconds):
    """An event that is set when the provider is asked there; it answers so many seconds later."""
    truth, asked = getattr(host.server, name), threading.Event()
    setattr(host.server, name, lambda params: asked.set() or time.sleep(seconds) or truth(params))
    return asked


@NUMBERS
@pytest.mark.parametrize("wait, prefix", [
    *[pytest.param(wait, (), id=wait) for wait in WAITS],
    *[pytest.param(wait, FIRST, id=f"{wait}, as process 1") for wait in ("the browser", "the provider")]])
def test_signals(host, wait, number, prefix):
    """SIGINT, SIGTERM, also as process 1: ends within a second, 130 or 143, port closed, nothing lost"""
    needs(*prefix or ["env"])
    host.signs_in("--profile", "p")
    before = age(host, 3600).read_bytes()
    asked = slowed(host, "post_device_authorization", SOON if wait == "the provider" else 0)
    process = host.login(*WAITS[wait].split(), "--profile", "p", prefix=prefix, stdin=subprocess.PIPE)
    until(lambda: asked.is_set() if wait == "the provider" else
          re.search("open this address.*\n\n    http|Only enter the code", host.said.read_text()))
    port = re.search(r"redirect_uri=http%3A%2F%2F127.0.0.1%3A(\d+)", host.said.read_text())
    if wait == "the browser":
        socket.create_connection(("127.0.0.1", int(port.group(1)))).close()
    began = time.monotonic()
    sent(process, number, prefix)
    code, out, err = host.end(process)
    assert time.monotonic() - began < SOON / 2
    said = "interrupted" if number == signal.SIGINT else "terminated"
    assert (code, out, err.splitlines()[-1]) == (128 + number, "", f"cliauth: {said}")
    if port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port.group(1))))
    config = host.home / ".config/cliauth"
    assert names_in(config) == {"p.json", "p.json.lock", "current", "current.lock"}
    assert (config / "p.json").read_bytes() == before and host.has_token()


@PROCESS_1
@NUMBERS
def test_signals_during_a_refresh(host, number, prefix):
    """SIGINT, SIGTERM while a refresh token is spent: what the provider answers is kept, then it ends"""
    needs(*prefix or ["env"])
    host.signs_in()
    age(host, -60)
    asked = slowed(host, "post_token", 0.5)
    process = host.start("token", prefix=prefix)
    assert asked.wait(PATIENCE)
    sent(process, number, prefix)
    assert host.end(process)[0] == 128 + number
    assert host.has_token()


# ---- Half a Python ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", sorted(root.name for root in ROOTS.glob("*-min")) or [None])
def test_python3_minimal(host, name):
    """python3-minimal: what needs no network works, the rest names the module and the remedy"""
    if not name:
        pytest.skip("there is no python3-minimal, as CLIAUTH_ROOTS could hold it")
    host.signs_in()
    more, lacking = in_root(host, name), {}
    for command in ("--version", "--help", "login --help", "token", "status", "list", "refresh", "logout",
                    "demo --yes", f"login --issuer {host.server.issuer} --client-id demo"):
        code, out, err = host.run(*command.split(), **more)
        named = re.fullmatch(r"cliauth: this Python lacks the module ([a-z.]+); install all of it "
                             r"\(Debian: apt install python3\)\n", err)
        lacking[command.split()[0]] = named.group(1) if named else ""
        assert (code, out) == (2, "") if named else code == 0, (command, err)
        assert named or command != "token" or host.server.access[out.strip()] > time.time()
    assert lacking["token"] in ("", "json") and lacking["demo"] and lacking["refresh"] and host.has_token()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """A row is what a person reads: the stimulus, what must come of it, the case, and why it was skipped."""
    report = (yield).get_result()
    case = f" [{item.callspec.id}]" if hasattr(item, "callspec") else ""
    why = f" ({report.longrepr[2].removeprefix('Skipped: ')})" if report.skipped else ""
    report.row = f"{report.outcome.upper():8} {item.function.__doc__}{case}{why}\n"


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report):
    told = report.when == "call" or not report.passed
    return (report.outcome, report.row, "") if told else ("", "", "")


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "--tb=short", "--rootdir=.", "-p", "no:cacheprovider", "-o",
                          "console_output_style=classic", *sys.argv[1:]], plugins=[sys.modules[__name__]]))
