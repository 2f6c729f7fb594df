"""The token file under all that a machine can do: kill -9, faults of system calls, full disks, crowds.

    PYTHON -m pytest -q -rs -s .ci/storm.py

Real processes of cliauth.py meet a server that rotates refresh tokens and ends the family of one that is used
twice (RFC 9700 §4.14). CLIAUTH_PYTHON names another interpreter for them, CLIAUTH_SCRIPT another cliauth.py,
CLIAUTH_SEED repeats what an earlier run drew.
"""

import contextlib
import fcntl
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SCRIPT = Path(os.environ.get("CLIAUTH_SCRIPT", Path(__file__).resolve().parent.parent / "cliauth.py"))
sys.path.insert(0, str(SCRIPT.parent))
import cliauth  # noqa: E402

PYTHON = os.environ.get("CLIAUTH_PYTHON", sys.executable)
SEED = int(os.environ.get("CLIAUTH_SEED", time.time()))
# Root, but without the right to write wherever it likes.
PLAIN = ["setpriv", "--bounding-set=-all"] if os.getuid() == 0 else []
STRACE, CHATTR = shutil.which("strace"), shutil.which("chattr")
PATIENCE = 60  # seconds until a process that hangs fails its test


class Strict(cliauth.DemoServer):
    """The demo's server; it knows client credentials too, can be slow, and counts what a family was asked."""

    pause = 0.0

    def __init__(self):
        super().__init__()
        self.alone, self.asked, self.go = threading.Lock(), threading.Event(), threading.Event()
        self.go.set()

    def post_token(self, params):
        self.asked.set()
        assert self.go.wait(PATIENCE)
        time.sleep(self.pause)
        with self.alone:
            family = self.families.get(params.get("refresh_token"), {"scope": "api", "nonce": "", "asked": 0})
            family["asked"] += 1
            itself = params["grant_type"] == "client_credentials"
            reply = self.tokens(family) if itself else super().post_token(params)
        time.sleep(self.pause)
        return reply

    def settle(self):
        """Waits until all requests are answered, those of the dead too: connections are accepted in order."""
        last = http.client.HTTPConnection(*self.web.server_address)
        last.request("GET", "/")
        last.getresponse().read()
        last.close()
        working = {each for each in threading.enumerate() if "process_request_thread" in each.name}
        while working & set(threading.enumerate()):
            time.sleep(0.001)

    def knows(self, output):
        """Whether that is one access token, which lives."""
        return self.access.get(output.decode().strip(), 0) > time.time()


class Session:
    """A profile in a folder of its own; `family` is what the server knows of it."""

    def __init__(self, server, home, left):
        self.server, self.home, self.path, self.fresh = server, home, home / "p.json", home / "p.json.new"
        self.family = {"scope": "openid offline_access", "nonce": "", "asked": 0}
        home.mkdir(mode=0o700)
        (home / "current").write_text("p\n")
        self.write({**cliauth.NEW, "token": json.loads(server.tokens(self.family)[2]),
                    "metadata": json.loads(server.get_openid_configuration({})[2]),
                    "settings": {"issuer": server.issuer, "client_id": "demo", "flow": "browser"}}, left)

    def write(self, record, left):
        aside = self.home / "aside"
        aside.write_text(json.dumps({**record, "expires_at": time.time() + left}))
        aside.rename(self.path)

    def start(self, *command, prefix=(), script=(str(SCRIPT),)):
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "CLIAUTH_HOME": str(self.home)}
        return subprocess.Popen([*prefix, PYTHON, "-I", *script, *command], env=environment,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def end(self, process):
        """Exit code, stdout and stderr; a failure is one line."""
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, 2, 3, 4, -9), err
        said = re.sub(rb"\ASigned out of .*\n", b"", err)
        assert process.returncode <= 0 and said.count(b"\n") < 2 or re.match(rb"cliauth: .+\n\Z", said), err
        return process.returncode, out, err

    def run(self, *command, **more):
        return self.end(self.start(*command, **more))

    def record(self):
        """What is on disk: it can be read, nothing has piled up, and nobody holds the lock."""
        assert {file.name for file in self.home.iterdir()} <= {
            name + end for name in ("p.json", "q.json", "current") for end in ("", ".lock", ".new")}
        assert cliauth.Client(token_file=str(self.path)).status()["client_id"]
        with open(f"{self.path}.lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cliauth.TokenFile(str(self.path)).read()

    def kept(self, *paths):
        """Whether the refresh token that the server gave last is on disk, where it is sure to be found."""
        for path in paths or (self.path, self.fresh):
            with contextlib.suppress(OSError, ValueError):
                if json.loads(path.read_bytes())["token"].get("refresh_token") == self.family["newest"]:
                    return True
        return False

    def next(self):
        """The exit code of the next `token`: it prints one that lives, or says that a person must sign in."""
        code, out, err = self.run("token")
        assert code == 0 and self.server.knows(out) or code == 3 and b"; run: " in err, (code, err)
        return code


@pytest.fixture
def server():
    with Strict() as running:
        yield running


@pytest.fixture
def session(server, tmp_path):
    numbers = iter(range(10 ** 6))
    return lambda left=-60: Session(server, tmp_path / f"home{next(numbers)}", left)


def each(what, work, cases):
    """Three at a time; says how many came to what, and all that went wrong, not only the first."""
    def tried(case):
        try:
            return work(case), None
        except Exception as error:  # noqa: BLE001
            return "WRONG", f"{case}: {type(error).__name__} {str(error).splitlines()[:1]}"
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(tried, cases))
    told(what, Counter(outcome for outcome, _ in done))
    assert not [wrong for _, wrong in done if wrong]
    return {outcome for outcome, _ in done}


def told(what, outcomes):
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    print(f"\n  {what}: {sum(outcomes.values())}, of which {counts}")


# ---- Processes that are killed, stopped, or many ---------------------------------------------------------

def test_a_kill_at_any_instant_costs_nothing_unless_the_answer_was_still_under_way(server, session):
    server.pause, began, chance = 0.005, time.monotonic(), random.Random(SEED)  # noqa: S311
    assert session().next() == 0
    life = 2 * (time.monotonic() - began)  # with two others beside it

    def kill(case):
        one, (number, asked, delay) = session(), case
        process = one.start("token")
        while asked and not one.family["asked"]:
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
        server.settle()
        one.record()
        asked, kept, renamed = one.family["asked"], one.kept(), one.kept(one.path)
        assert one.next() == (0 if kept else 3) and asked <= 1 and not one.fresh.exists()
        assert kept or number == signal.SIGKILL
        return "too late" if process.returncode == 0 else "before the request" if not asked else (
            "renamed" if renamed else "written, not yet renamed" if kept else "the answer under way")
    for number, count in ((signal.SIGKILL, 100), (signal.SIGTERM, 30)):
        for asked, longest, what in ((False, life, "at any instant"), (True, 0.03, "with the token spent")):
            each(f"{number.name} {what} (seed {SEED})", kill, [
                (number, asked, chance.uniform(0, longest)) for _ in range(count)])


@pytest.mark.parametrize("rounds, kills, leaving", [
    (2, 0, False), (2, 10, False), (1, 0, True), (1, 10, True)])
def test_thirty_at_once_cause_one_refresh_whoever_is_killed_or_signs_out(
        server, session, rounds, kills, leaving):
    outcomes, chance, one = Counter(), random.Random(SEED), session()  # noqa: S311
    for _ in range(rounds):
        asked = one.family["asked"]
        crowd = [one.start("token") for _ in range(5)]
        logout = one.start("logout") if leaving else None
        crowd += [one.start("token") for _ in range(25)]
        for process in chance.sample(crowd, kills):
            process.kill()
        answers = [one.end(process) for process in crowd]
        assert not leaving or one.end(logout)[0] == 0
        server.settle()
        codes, printed = Counter(code for code, *_ in answers), {out for code, out, _ in answers if code == 0}
        outcomes.update({f"exit {code}": count for code, count in codes.items()})
        assert set(codes) <= {0, 3, -9} and len(printed) <= 1
        if leaving:
            assert one.record()["token"] == {} and one.family["newest"] == "" and one.next() == 3
        elif one.kept():
            # One that was killed may have left its successor's refresh token alone.
            assert 3 not in codes and one.family["asked"] - asked <= 1 + bool(kills) and one.next() == 0
            one.write(one.record(), -60)
        else:  # the one that asked was killed; should its request be read late, it ends a sibling's family
            assert kills and one.next() == (0 if printed else 3)
            one = session()
    told("thirty at once", outcomes)


HURRIED = "import sys; sys.path.insert(0, sys.argv.pop(1)); import cliauth; cliauth.LOCK_TIMEOUT = 2; " \
          "sys.exit(cliauth.main())"


def test_while_the_holder_of_the_lock_is_stopped_others_serve_what_lives_or_give_up_in_time(server, session):
    one = session()
    before = one.record()
    server.go.clear()
    holder = one.start("token")
    assert server.asked.wait(PATIENCE)
    holder.send_signal(signal.SIGSTOP)
    server.go.set()
    try:
        for left, code in ((3600, 0), (30, 0), (-60, 4)):
            one.write(before, left)
            began = time.monotonic()
            done, out, err = one.run("token", script=("-c", HURRIED, str(SCRIPT.parent)))
            assert (done, out.decode().strip(), err.count(b"\n")) == (
                code, "" if code else before["token"]["access_token"], left < 60)
            assert time.monotonic() - began < (1.5 if left == 3600 else 6)
    finally:
        holder.send_signal(signal.SIGCONT)
    code, out, _ = one.end(holder)
    assert code == 0 and server.knows(out) and one.kept(one.path) and one.family["asked"] == 1
    assert one.run("token") == (0, out, b"")


# ---- A fault of each system call -------------------------------------------------------------------------

LASTING = "open openat write fsync ftruncate rename renameat renameat2 unlink unlinkat flock mkdir close"
CALLS = LASTING + " mkdirat read lseek chmod fchmod fchmodat fstat lstat stat newfstatat statx"
ERRORS = {"open": "EMFILE EACCES", "write": "ENOSPC", "rename": "EROFS EIO", "unlink": "EROFS",
          "flock": "ENOLCK"}  # EIO for others


@pytest.fixture(scope="session")
def strace():
    """The command that shows, or spoils, the system calls that touch a session's folder."""
    tried = STRACE and subprocess.run([STRACE, "-o", os.devnull, "true"], capture_output=True)
    if not tried or tried.returncode:
        pytest.skip(f"strace cannot trace: {tried.stderr.decode()}" if tried else "strace is not installed")

    def prefix(one, log, inject=""):
        files = [f"{one.home}/{name}{end}" for name in ("p.json", "current") for end in ("", ".lock", ".new")]
        quick = [] if "signal=" in inject else ["--seccomp-bpf"]  # with which no signal arrives
        return [STRACE, "-f", *quick, "-qq", "-o", log, *[f"-P{path}" for path in (one.home, *files)],
                "-e", "trace=?" + CALLS.replace(" ", ",?"), *(["-e", inject] if inject else [])]
    return prefix


@pytest.mark.parametrize("command, left", [
    ("token", -60), ("token", 30), ("logout", -60), ("switch q", 3600),
    ("login --flow client-credentials --profile p", 3600)])
def test_a_fault_of_a_system_call_loses_nothing(server, session, strace, tmp_path, command, left):
    words, log = command.split(), tmp_path / "log"

    def prepared():
        one = session(left)
        shutil.copy(one.path, one.home / "q.json")
        return one
    one = prepared()
    assert one.run(*words, prefix=strace(one, log))[0] == 0
    text = log.read_text()
    names, before_the_lock = (re.findall(r"^\d+ +(\w+)\(", part, re.M) for part in (
        text, text.partition(".lock")[0]))  # what is read there is read for the first time
    assert re.search("(ftruncate write fsync .*){2}close rename openat fsync", " ".join(names))
    calls, early = Counter(names), Counter(before_the_lock)
    faults = [(call, fault, n) for call in calls for n in range(1, calls[call] + 1) for fault in [
        *[f"error={error}" for error in ERRORS.get(re.sub("at2?$", "", call), "EIO").split()],
        *["signal=SIGKILL"] * (command == "token" and left < 0 and call in LASTING.split())]]

    def spoil(case):
        one, (call, fault, n) = prepared(), case
        old = one.record()["token"]
        code, out, _ = one.run(*words, prefix=strace(one, os.devnull, f"inject={call}:{fault}:when={n}"))
        now, killed = one.record()["token"], fault == "signal=SIGKILL"
        assert (code == -9) is killed
        torn = killed or call in ("lseek", "ftruncate", "write")  # what the server just said cannot be kept
        if words[0] == "token":
            kept = one.kept()
            assert kept or torn and one.family["asked"]
            assert (code == 0) is server.knows(out)
            assert code in (0, -9) or left < 0 or n <= early[call]  # what lives, and was read, is printed
            assert one.next() == (0 if kept or left > 0 else 3)
        elif words[0] == "logout":
            gone, over = now == {}, one.family["newest"] == ""
            assert gone and over if code == 0 else gone <= over and (gone == over or torn)
            assert one.next() == (3 if over else 0)
        else:
            current = (one.home / "current").read_text()
            assert code or (now != old if words[0] == "login" else current == "q\n")
        return f"exit {code}"
    each(f"faults in {command} with {left} s left", spoil, faults)


# ---- Disks and folders ----------------------------------------------------------------------------------

MOUNTED = ["unshare", "-rm", "sh", "-c"]
READ_ONLY = 'cd "$HOME" && mount --bind . . && mount -o remount,bind,ro "$HOME" && exec "$@"'
TMPFS = """cp -a "$HOME" "$0" && mount -t tmpfs -o "$1" none "$HOME" && cp -a "$0/." "$HOME" || exit 1
           shift; "$@"; code=$?; cp -a "$HOME/." "$0"; exit $code"""


@pytest.fixture
def mounts():
    tried = subprocess.run([*MOUNTED, "mount -t tmpfs none /tmp"], capture_output=True)
    if tried.returncode:
        pytest.skip(f"there can be no mounts of our own here: {tried.stderr}")


def saved_or_not_asked(one, *prefix):
    code, out, err = one.run("token", prefix=prefix)
    if one.home.with_suffix(".aside").exists():
        shutil.rmtree(one.home)
        one.home.with_suffix(".aside").rename(one.home)
    assert one.record() and one.kept(one.path) and not one.fresh.exists()
    assert one.family["asked"] == 1 and one.server.knows(out) if code == 0 else (
        code == 2 and b" cannot be written: " in err and not one.family["asked"]), err
    return f"exit {code}"


SPARE = cliauth.TokenFile.SPARE


def test_on_a_full_disk_nothing_is_asked_for(session, mounts):
    page = os.sysconf("SC_PAGE_SIZE")

    def fill(options):
        one = session()
        return saved_or_not_asked(one, *MOUNTED, TMPFS, one.home.with_suffix(".aside"), options)
    sizes = [f"size={n * page}" for n in (2, 3, 4, 8, 12, *range(SPARE // page, SPARE // page + 10))]
    assert len(each("full disks", fill, [*sizes, "nr_inodes=4"])) == 2


def test_whatever_the_limit_of_a_file_nothing_is_spent_in_vain(session):
    sizes = [*range(0, 5000, 1024), *range(8192, SPARE, SPARE // 8), *range(SPARE, SPARE + 6000, 1024)]
    done = each("RLIMIT_FSIZE", lambda n: saved_or_not_asked(session(), "prlimit", f"--fsize={n}"), sizes)
    assert len(done) == 2


@pytest.mark.parametrize("mode, prefix, code", [
    (0o700, [*MOUNTED, READ_ONLY, "sh"], 2), (0o500, PLAIN, 2), (0o300, PLAIN, 0)],
    ids=["a read-only mount", "a read-only folder", "one to write but not to read"])
def test_what_lives_is_printed_wherever_it_can_be_read(server, session, mounts, mode, prefix, code):
    for left in (3600, 30, -60):
        one = session(left)
        old = one.record()["token"]["access_token"]
        one.home.chmod(mode)
        ended, out, _ = one.run("token", prefix=prefix)
        one.home.chmod(0o700)
        assert ended == (code if left < 0 else 0) and one.kept(one.path) and server.knows(out) is (ended == 0)
        assert one.family["asked"] == (left < 60 and code == 0)
        assert one.family["asked"] or ended or out.decode().strip() == old


def test_a_file_that_cannot_be_replaced_loses_nothing(session):
    one = session()
    if not CHATTR or subprocess.run([CHATTR, "+i", one.path], capture_output=True).returncode:
        pytest.skip("no file can be made immutable here")
    try:
        assert [one.run("token")[0] for _ in range(3)] == [2, 2, 2] and one.family["asked"] == 1
    finally:
        subprocess.run([CHATTR, "-i", one.path], check=True)
    assert one.next() == 0 and one.family["asked"] == 2
