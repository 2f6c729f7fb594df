"""Random mutations of every message that comes in: none may end in anything but a documented exit code.

    PYTHON -m pytest -q -s .ci/fuzz.py      CLIAUTH_FUZZ=10 makes it try ten times as many

A valid message is changed member by member, line by line or byte by byte, and cliauth.main() goes through a
whole command with it, against a server on the loopback interface. Only the clock and the person are played.
What a failure prints (@reproduce_failure) repeats it.
"""

import contextlib
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict, namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

SCRIPT = Path(__file__).resolve().parent.parent / "cliauth.py"
sys.path.insert(0, str(SCRIPT.parent))
import cliauth  # noqa: E402

PYTHON = os.environ.get("CLIAUTH_PYTHON", sys.executable)
TRIES = int(360 * float(os.environ.get("CLIAUTH_FUZZ", "1"))) or 1
PATIENCE = 5  # seconds that one command may take by the wall's clock
TOKENS = ("access_token", "refresh_token", "id_token")
SECRETS = (*TOKENS, "token", "code", "code_verifier", "device_code", "client_secret")  # as parameters
SECRET = "a-client-secret/that+nobody&may=see"  # noqa: S105
SENT = b"what-was-sent-in-confidence"  # stands for the secrets of the request that is being answered
FILE, STDIN = Path("profile.json"), Path("stdin")
TRIED = defaultdict(Counter)  # what was tried → what came of it → how often

settings.register_profile("fuzz", max_examples=TRIES, deadline=None, database=None, derandomize=False,
                          print_blob=True, suppress_health_check=list(HealthCheck))
settings.load_profile("fuzz")
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of what fails


# ---- Mutations: what hypothesis draws, and what that does to a message -----------------------------------

TEXTS = [
    "", " ", "a b", "-v", "0", "3600", "x" * 70000, "é✓😀", "\x1b[2J\x07", "\x1b" * 600, "\x9b31m", "a\nb",
    "\u2028", "\u202egpj.exe\u2066", "\r\nX-Injected: 1", "~", ".", "a/b", "con", "*", "'", "/nowhere/x",
    "%s", "https://evil.invalid/", "http://evil.invalid/", "http://evil.invalid\\@127.0.0.1/", "https://[::1",
    "https://me:pw@evil.invalid/", "https://evil.invalid/\x1b", "http://127.0.0.1:1/", "https://127.0.0.1:1",
    "http://127.0.0.1:99999/", "socks5://127.0.0.1:1", "file:///etc/passwd", "none", "mac", "github",
    "workos", "e30.e30.x", "e30.e30.e30.e30.e30", "authorization_pending", "slow_down", "access_denied",
    "server_error", "expired_token", "invalid_grant", "invalid_client",
    '{"apiVersion":5}', '{"apiVersion":{}}', "[" * 9999, "{}"]
# JSON texts, and what is none, that take the place of a member or stand beside it.
NASTY = [*map(json.dumps, TEXTS), '"\x1b[31m"', '"é"', r'"\ud800"', r'{"\udfff":1}', r'"\u0000"', "'x'",
    "}", "", "\ufeff", "\0", "null", "true", "false", "-1", "0", "1e3", "1e999", "NaN", "9" * 45, "9" * 5000,
    "[]", "{}", "99999999999", "[null]", '[[["x"]]]', '["demo",{}]', '["openid",5]', '{"a":{"b":[1]}}',
    "[" * 90000, "[" * 50 + "]" * 50, '{"a":1,"a":2}', '{"a":' * 39 + "1" + "}" * 39]
NAMES = ["error", "error_description", "error_uri", "message", "code", "ok", "authed_user", "interval", "iss",
         "state", "refresh_token", "expires_at", "scope", "user", "sub", "", "\x1b]0;x\x07", "a" * 5000]
# Lines of a head, of an answer or of a browser's request.
STATUSES = b"204 No", b"100 Go on", b"401 No", b"400 \x1b[2J", b"429 Slow", b"503 Out", b"999 X", b"-1 X"
LINES = [*(b"HTTP/1.1 " + status for status in STATUSES),
    b"HTTP/1.1 302 Found\r\nLocation: \x1b", b"HTTP/1.1 302 Found\r\nLocation: /?" + SENT, b"Location: /",
    b"HTTP/9.9 x", b"HTTP/0.9", b"ICY 200 OK", b"\x16\x03\x01\x02", b"<html>\x1b", b"", b" folded", b"\0: \0",
    b"x", b"\n\n", SENT, b"X: " + b"y" * 70000, b"\r\n".join([b"X: y"] * 200), b"Content-Length: 5",
    b"Content-Length: -1", b"Content-Length: " + b"9" * 14, b"Transfer-Encoding: chunked",
    b"Content-Encoding: gzip", b"Content-Type: \x1b]0;x\x07", b"Content-Type: " + SENT, b"Retry-After: \xff",
    b"Retry-After: 99999999999", b"Retry-After: Wed, 31 Feb 9999 99:99:99 GMT", b"Sec-Fetch-Mode: cors",
    b"Date: Wed, 99 Foo 0000 99:99:99 GMT", b"Host: evil.invalid", b"Host: 127.0.0.1",
    b"POST /callback HTTP/1.1", b"GET http://evil.invalid/ HTTP/1.1"]
REFUSED = {"error": "invalid_request", "error_description": f"not with {SENT.decode()}", "interval": 5}
# What becomes of a message: of the members of its JSON, of the lines of its head, of its bytes; or it is a
# refusal of that status.
Change = namedtuple("Change", "members lines flips refusal", defaults=((), (), (), 0))


def some(change, most=3):
    return st.lists(change, min_size=1, max_size=most)


none, place, name = st.just([]), st.integers(0, 10000), st.sampled_from(NAMES)
nasty = st.sampled_from(NASTY) | st.text(max_size=20).map(json.dumps) | st.integers().map(str)
one = st.tuples(st.sampled_from(["put", "put", "put", "delete"]), place, st.sampled_from(NASTY), name)
member = one | st.tuples(st.sampled_from(["put", "twice", "wrap", "add"]), place, nasty, name)
line = st.tuples(st.sampled_from(["put", "delete", "twice", "add"]), place, some(st.sampled_from(LINES), 1))
byte = st.tuples(st.sampled_from(["put", "delete", "twice", "add", "truncate"]), place, st.binary(
    min_size=1, max_size=4) | st.sampled_from([b"\xef\xbb\xbf", b"\0", b"\x1b[", b"&", b"="]))
json_text = st.builds(Change, st.tuples(one)) | st.builds(
    Change, some(member) | none, flips=some(byte) | none)
request = st.builds(Change, lines=some(line) | none, flips=some(byte) | none)
refusal = st.builds(Change, some(member) | none, refusal=st.sampled_from([200, 400, 401, 404, 429, 500]))
answer = json_text | refusal | st.builds(Change, some(member)) | st.builds(
    Change, lines=some(line), flips=some(byte) | none)


def inside(value):
    """Each member and element in the value, however deep, with what it is in."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from inside(value[key])


def with_members(value, changes, flips=()):
    """The text of a JSON value with its members changed, into what is no JSON too, and then its bytes."""
    value, texts = json.loads(json.dumps([value])), []
    for what, at, text, name in changes:
        found = list(inside(value))
        home, key = found[at % len(found)]
        mark = f"@{len(texts)}@"  # a text that may be no JSON comes in at the end
        texts.append(text)
        if what == "delete" and home is not value:
            del home[key]
        elif what in ("twice", "add") and isinstance(home, dict):
            home["@again@" + key if what == "twice" else name] = mark
        else:
            home[key] = [home[key]] if what == "wrap" else mark
    text = json.dumps(value[0]).replace("@again@", "")
    text = re.sub('"@([0-9]+)@"', lambda mark: texts[int(mark[1])], text)
    return with_parts(text.encode("utf-8", "surrogatepass"), flips)


def with_parts(parts, changes):
    """Bytes, or a list of lines, with some of them changed."""
    for what, at, more in changes:
        at %= len(parts) + 1
        old, rest = parts[at : at + len(more)], parts[at + len(more) :]
        parts = parts[:at] + {"put": more + rest, "delete": rest, "twice": old * 20 + rest,
                              "add": more + old + rest, "truncate": parts[:0]}[what]
    return parts


def with_lines(text, changes):
    return b"\r\n".join(with_parts(text.split(b"\r\n"), changes))


def changed_answer(status, headers, body, change, secrets):
    """An HTTP answer as bytes: its body is changed, or (with lines) anything in it."""
    members, lines, flips, refusal = change
    body = with_members(REFUSED if refusal else json.loads(body), members, () if lines else flips)
    body = body.replace(SENT, secrets)
    headers = {**headers, "Content-Length": str(len(body))}
    top = "\r\n".join([f"HTTP/1.1 {refusal or status} Fine", *map(": ".join, headers.items())])
    top = with_lines(top.encode(), lines).replace(SENT, secrets)
    return with_parts(top + b"\r\n\r\n" + body, flips if lines else ())


def browser_request(params, back, change=Change()):  # noqa: B008
    """The request that brings the answer to the redirect URI."""
    top = f"GET {back.path}?{urlencode(params, errors='replace')} HTTP/1.1\r\nHost: {back.netloc}".encode()
    return with_parts(with_lines(top, change.lines) + b"\r\n\r\n", change.flips)


# ---- The provider, the person, the clock -----------------------------------------------------------------

class Provider(cliauth.DemoServer):
    """The demo's server; the next answers of a path go through changes[path] on their way out."""

    callers = ()

    def __enter__(self):
        super().__enter__()

        class Handler(self.web.RequestHandlerClass):
            def do_GET(handler):
                body = handler.rfile.read(int(handler.headers["Content-Length"] or 0)).decode()
                path, _, query = handler.path.partition("?")
                params = dict(parse_qsl(query or body))
                handler.wfile.write(self.reply(handler.command, path, params, handler.headers))

            do_POST = do_GET

        self.web.RequestHandlerClass = Handler

    def reset(self):
        for each in self.callers:
            each.close()
        self.callers, self.changes, self.last, self.pushed, self.secrets = [], {}, b"", {}, {SECRET}
        self.claims, self.lie = (0, Change()), browser_request

    def reply(self, method, path, params, headers):
        secrets = [params[name] for name in SECRETS if name in params]
        secrets += [headers["Authorization"].partition(" ")[2]] if headers["Authorization"] else []
        self.secrets.update(secrets)
        change = self.changes[path].pop(0) if self.changes.get(path) else Change()
        path = re.sub("/[0-9]", "", path)
        truth = (0, {}, b"") if change.refusal else self.answer(method, path, params, headers)
        sent = changed_answer(*truth, change, "/".join(secrets).encode())
        self.last = sent if path == "/token" else self.last
        return sent

    def get_openid_configuration(self, params):
        found = json.loads(super().get_openid_configuration(params)[2])
        return cliauth.json_reply({**found, "pushed_authorization_request_endpoint": self.issuer + "/par"})

    get_oauth_authorization_server = get_openid_configuration

    def post_par(self, params):
        uri = "urn:request:" + cliauth.base64url(os.urandom(9))
        self.pushed[uri] = params
        return cliauth.json_reply({"request_uri": uri, "expires_in": 60}, 201)

    def tokens(self, family):
        token, (which, change) = json.loads(super().tokens(family)[2]), self.claims
        parts, value = token["id_token"].split("."), cliauth.decode_jwt(token["id_token"])[which]
        parts[which] = cliauth.base64url(with_members(value, change.members))
        token["id_token"] = with_parts(".".join(parts).encode(), change.flips).decode("latin-1")
        return cliauth.json_reply({**token, "user": {"password": SECRET}, "api_key": SECRET})

    def visit(self, said):
        """What the person does with the address that is shown: signs in, and comes back with the answer."""
        url = urlsplit(re.search(r"open (?:this address.*\n\n\s+)?(\S+)", said)[1])
        for each in self.pending.values():
            each["decision"] = "allow"
        request = self.pushed.get(dict(parse_qsl(url.query)).get("request_uri"))
        if not request or not url.geturl().startswith(self.issuer + "/"):  # nobody comes back from there
            cliauth.time.skipped += 0 if "enter the code" in said else 1000
            return
        code, back = cliauth.base64url(os.urandom(16)), urlsplit(request["redirect_uri"])
        self.decided[code] = {**request, "decision": "allow"}
        truth = {"code": code, "state": request["state"], "iss": self.issuer}
        messages = [self.lie(truth, back), browser_request(truth, back)]
        self.lied = request["state"], messages[0]
        if "on any machine" in said:
            STDIN.write_bytes(messages[0] + b"\n?" + urlencode(truth).encode() + b"\n")
        for message in [] if "on any machine" in said else messages:
            self.callers.append(socket.socket())
            self.callers[-1].connect((back.hostname, back.port))
            self.callers[-1].sendall(message)


class Clock:
    """The true one, but that sleeping takes no time."""

    skipped = 0

    def __getattr__(self, name):
        true = getattr(time, name)
        return (lambda: true() + self.skipped) if name in ("time", "monotonic") else true

    def sleep(self, seconds):
        self.skipped += seconds


provider = Provider()


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    """One provider for all, an empty home, no way out but to that provider, and a report at the end."""
    root, parser = tmp_path_factory.mktemp("fuzz"), cliauth.build_parser()
    find, say = socket.getaddrinfo, cliauth.Terminal.say

    def said(terminal, text):
        say(terminal, text)
        if text.startswith("To sign in, open "):
            provider.visit(text)

    os.umask(0o77)
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # what hangs ends with 130, never right here
    with provider, pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - {"PATH", "PYTHONDONTWRITEBYTECODE"}:
            patch.delenv(name)
        for name, value in {"HOME": root, "CLIAUTH_HOME": root / "home", "CLIAUTH_TOKEN_FILE": FILE}.items():
            patch.setenv(name, str(value))
        patch.chdir(root)
        Path("secret").write_text(SECRET)
        patch.setattr(cliauth, "time", Clock())
        patch.setattr(cliauth, "build_parser", lambda *_: parser)
        patch.setattr(cliauth.Terminal, "surroundings", lambda *_: (["person"], ["browser"], "it is played"))
        patch.setattr(cliauth.Terminal, "open_browser", lambda *_: None)
        patch.setattr(cliauth.Terminal, "say", said)
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(socket, "getaddrinfo", lambda host, port, *more: (
            find(host, port, *more) if f"http://{host}:{port}" == provider.issuer else []))
        yield
        provider.reset()
    for kind, ends in TRIED.items():
        counts = ", ".join(f"{end} {count:,}" for end, count in sorted(ends.items()))
        print(f"\n{kind}: {ends.total():,} tried: {counts}")
    print(f"in all {sum(ends.total() for ends in TRIED.values()):,}")


# ---- A run, and what must be true of every one -----------------------------------------------------------

PAGES = [b"", cliauth.http_page(200, cliauth.SIGNED_IN), cliauth.http_page(400, cliauth.FAILED),
         *(cliauth.http_page(status, cliauth.NOT_HERE) for status in (400, 404, 405))]


def afresh(lifetime=None, **more):
    """Nothing is left of the run before; the token file holds a session of so many seconds, or is none."""
    provider.reset()
    cliauth.time.skipped = 0
    FILE.unlink(missing_ok=True)
    if lifetime is None:
        return None
    given = {"issuer": provider.issuer, "client_id": "demo", "client_secret": SECRET, "flow": "browser"}
    record = {**cliauth.NEW, "settings": {**given, **more}, "expires_at": time.time() + lifetime,
              "metadata": json.loads(provider.get_openid_configuration({})[2]),
              "token": json.loads(provider.tokens({"scope": "openid", "nonce": "before"})[2])}
    FILE.write_text(json.dumps(record))
    return record


def run(argv, stdin=b""):
    """Exit code, stdout and stderr of a command in this process."""
    STDIN.write_bytes(stdin)
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with STDIN.open(encoding="utf-8") as typed, pytest.MonkeyPatch.context() as patch:
        for name, stream in {"stdin": typed, "stdout": out, "stderr": err}.items():
            patch.setattr(sys, name, stream)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            code = cliauth.main(argv)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return code, *(stream.buffer.getvalue().decode(errors="replace") for stream in (out, err))


def judge(kind, codes, command, stdin=b""):
    """Runs a command and asserts what is always true; exit code, stdout, and what tokens were saved."""
    argv = shlex.split(command.replace("ISSUER", provider.issuer))
    before = FILE.exists() and FILE.read_bytes()
    code, out, err = done = run(argv, stdin)
    TRIED[kind][f"exit {code}"] += 1
    told = [line for line in err.split("\n") if line.startswith("cliauth: ")]
    assert code in codes and "unforeseen" not in err and "Traceback" not in err, done
    assert all(c.isprintable() or c == "\n" for c in err + ("" if argv[0] == "request" else out)), done
    assert not code or "--json" in argv or len(told) == 1 and err.endswith(told[0] + "\n"), done
    assert "-v" in argv or argv[0] == "login" or err.count("\n") == bool(err), done
    quiet = err if argv[0] in ("token", "request", "userinfo") else err + out
    assert not [secret for secret in provider.secrets if len(secret) > 8 and secret in quiet], done
    for each in provider.callers:
        each.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionError), each.makefile("rb") as page:
            assert page.read() in PAGES, done
    assert not Path(f"{FILE}.new").exists()
    if not FILE.exists() or FILE.read_bytes() == before:
        return code, out, None
    token = cliauth.TokenFile(str(FILE)).read()["token"]
    received = [token.get(name) or "" for name in TOKENS if kind != "token files"]  # there, the old may stay
    assert all(re.fullmatch("[!-~]*", value) for value in received), token
    assert code or argv[0] == "logout" or "access_token" in token, done
    assert run(["status", "--json"])[0] in (0, 3)
    return code, out, token


LOGIN = ("login --issuer ISSUER --client-id demo --client-secret-file secret "
         "--scope 'openid offline_access' --flow ")
WELL_KNOWN = ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"]
ANSWERS = {  # what is changed: the paths, the exit codes of INTERFACE.md, how long a token lives, the command
    "metadata": (WELL_KNOWN, {0, 1, 2, 4}, None, LOGIN + "browser"),
    "metadata, for a device": (WELL_KNOWN, {0, 1, 2, 4}, None, LOGIN + "device"),
    "pushed authorization responses": (["/par"], {0, 1, 4}, None, LOGIN + "browser"),
    "token responses": (["/token"], {0, 1, 4}, None, LOGIN + "browser"),
    "device authorization responses": (["/device_authorization"], {0, 1, 3, 4}, None, LOGIN + "device"),
    "answers to polls": (["/token"], {0, 1, 3, 4}, None, LOGIN + "device"),
    "refresh responses": (["/token"], {0, 1, 3, 4}, -10, "refresh"),
    "refresh responses, for token": (["/token"], {0, 1, 3, 4}, -10, "token"),
    "userinfo responses": (["/userinfo"], {0, 1, 3, 4}, 3600, "userinfo"),
    "revocation responses": (["/revocation"], {0}, 3600, "logout"),
    "answers of an API": (["/userinfo"], {0, 1, 3, 4}, 3600, "request ISSUER/userinfo"),
    "ID tokens": ([], {0, 1}, None, LOGIN + "browser"),
    "ID tokens of a refresh": ([], {0, 1}, -10, "refresh"),
}


@pytest.mark.parametrize("kind", ANSWERS)
@given(changes=some(answer), which=st.sampled_from([0, 1, 1]), verbose=st.sampled_from(["", "", " -v"]))
def test_answers(kind, changes, which, verbose):
    paths, codes, lifetime, command = ANSWERS[kind]
    before = afresh(lifetime)
    provider.changes = {path: list(changes) for path in paths}
    provider.claims = provider.claims if paths else (which, changes[0])
    code, out, token = judge(kind, codes, command + verbose)
    assert command != "logout" or token == {}
    assert command != "token" or code or out == (token or before["token"])["access_token"] + "\n"
    if command in ("refresh", "token"):  # there is the old refresh token or a new one, unless it is dead
        dead = any(word.encode() in provider.last for word in cliauth.DEAD)
        assert token is None or dead or token == {} and code == 1 or cliauth.printable(token["refresh_token"])
        assert not token or not code or token.get("access_token") in (None, before["token"]["access_token"])


@pytest.mark.parametrize("flow", ["browser", "paste"])
@given(ours=st.sampled_from([True, True, False]), without=st.sampled_from(["", "", "code", "state", "iss"]),
       more=st.lists(st.tuples(name, nasty), max_size=3), twice=st.booleans(), change=request)
def test_a_sign_in_ends_by_an_answer_with_our_state_alone(flow, ours, without, more, twice, change):
    def lie(truth, back):
        query = {**truth, **({} if ours else {"state": "another", "code": "another"}), **dict(more)}
        query = [pair for pair in query.items() if pair[0] != without] + (more if twice else [])
        if flow == "browser":
            return browser_request(query, back, change)
        return with_parts(with_lines(urlencode(query, errors="replace").encode(), change.lines), change.flips)

    afresh()
    provider.lie = lie
    code, _, _ = judge("answers by " + flow, {0, 1, 3, 4}, LOGIN + flow)
    state, lied = provider.lied
    vouched = flow == "paste" and re.search(rb"(?im)^\s*y(es)?\s*$", lied)
    assert code == 0 or vouched or state.encode() in lied, lied


COMMANDS = ["token", "token --format json", "token --format kubectl", "token --id-token", "status",
            "status --json", "userinfo", "refresh --json", "logout", "logout --forget"]


@settings(max_examples=4 * TRIES)
@given(change=json_text, lifetime=st.sampled_from([-10, 3600]), command=st.sampled_from(COMMANDS))
def test_token_files(change, lifetime, command):
    record = afresh(lifetime)
    data, whole = with_members(record, change.members, change.flips), with_members(record, change.members)
    # What is called like no secret is shown: a name that was flipped tells nobody what it held.
    assume(all(whole.count(name) <= data.count(name) for name in (b"token", b'"api_key"', b'"password"')))
    FILE.write_bytes(data)
    code, _, _ = judge("token files", {0, 1, 2, 3, 4}, command)
    assert code != 2 or command == "userinfo" or FILE.read_bytes() == data


@given(lines=some(line | st.tuples(st.just("add"), place, some(st.text(max_size=9).map(str.encode), 1))),
       flips=none | some(byte), ours=st.booleans())
def test_git_gets_the_token_for_the_providers_host_alone(lines, flips, ours):
    token, host = afresh(3600)["token"]["access_token"], provider.issuer[7:]
    asked = f"protocol=http\r\nhost={host}" if ours else "protocol=https\r\nhost=evil.invalid"
    asked = with_parts(with_lines(asked.encode(), lines).replace(b"\r\n", b"\n"), flips)
    _, out, _ = judge("questions of git", {0, 2}, "token --format git get", asked)
    assert not out or out == f"username=oauth2\npassword={token}\n" and f"host={host}".encode() in asked


FOLDERS = ["CLIAUTH_TOKEN_FILE", "CLIAUTH_HOME", "XDG_CONFIG_HOME", "HOME"]
VARIABLES = [*FOLDERS, "CLIAUTH_ISSUER", "CLIAUTH_PROVIDER", "CLIAUTH_CLIENT_ID", "CLIAUTH_CLIENT_SECRET",
             "CLIAUTH_SCOPE", "CLIAUTH_AUDIENCE", "CLIAUTH_PROFILE", "CLIAUTH_ACCESS_TOKEN", "BROWSER", "CI",
             "HTTPS_PROXY", "http_proxy", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "KUBERNETES_EXEC_INFO",
             "LANG", "TERM", "DISPLAY", "WSL_INTEROP"]
value = st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(variables=st.dictionaries(st.sampled_from(VARIABLES), value, min_size=1, max_size=4),
       command=st.sampled_from([*COMMANDS, "list", "list --json", "login", "login --device", "switch x"]))
def test_the_environment(variables, command):
    afresh(-10)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():  # nothing is written outside of the test's folder
            patch.setenv(name, value.replace("..", "").lstrip("/") if name in FOLDERS else value)
        judge("environments", {0, 1, 2, 3, 4}, command)


@settings(max_examples=TRIES // 25 or 1)
@given(changes=st.lists(answer, min_size=8, max_size=8))
def test_processes(changes):
    """The same with a Python of its own for each: what it says at its end is no traceback either."""
    jobs = []
    for number in range(8):
        afresh(-10, token_endpoint=f"{provider.issuer}/token/{number}")
        jobs.append([PYTHON, SCRIPT, "refresh", "--token-file", FILE.rename(f"{number}.json")])
    provider.changes = {f"/token/{number}": [change] for number, change in enumerate(changes)}
    with ThreadPoolExecutor(4) as pool:
        for done in pool.map(lambda job: subprocess.run(job, capture_output=True, timeout=60), jobs):
            TRIED["processes"][f"exit {done.returncode}"] += 1
            assert done.returncode in {0, 1, 3, 4} and done.stdout == b"", done
            assert not done.returncode or re.fullmatch(rb"cliauth: .*\n", done.stderr), done


# ---- What must be true of each function that reads -------------------------------------------------------

def read(function, *args):
    """What the function makes of it, None with the error that it may raise."""
    value = None
    with contextlib.suppress(ValueError, cliauth.AuthError):
        value = function(*args)
    TRIED[function.__name__]["refused" if value is None else "read"] += 1
    return value


def unique(pairs):
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@given(change=json_text)
def test_what_is_read_as_json_can_be_written_and_read_again(change):
    data = with_members({"a": [{"b": 1}], "c": "d"}, change.members, change.flips)
    value = read(cliauth.parse_json, data)
    assert value is None or cliauth.parse_json(cliauth.dump_json(value)) == value
    assert value is None or json.loads(data.decode("utf-8-sig"), object_pairs_hook=unique) == value


@given(text=st.text() | st.binary().map(os.fsdecode))
def test_what_is_shown_can_be_printed(text):
    assert cliauth.visible(text).isprintable() and len(cliauth.visible(text, 40)) <= 401


@given(text=st.lists(st.sampled_from(["e30", "W10", ".", "=", "-", "\n", "é"])).map("".join) | some(byte).map(
    lambda flips: os.fsdecode(with_parts(b"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2ln", flips))))
def test_a_jwt_is_two_objects_or_a_value_error(text):
    parts = read(cliauth.decode_jwt, text)
    assert parts is None or [type(part) for part in parts] == [dict, dict]


@given(start=st.sampled_from(["", "https://", "http://127.0.0.1", "https://a"]),
       rest=st.lists(st.sampled_from([*"\\/@:#?\t\n .。é\0[]0a%", "127.0.0.1", "evil.invalid", ":80", "[::1]",
                                      "localhost", "//", "http:"]), max_size=6).map("".join))
def test_an_address_means_one_host_to_all(start, rest):
    """The check, urllib, and a browser, to which a backslash is a slash (WHATWG URL §4.4)."""
    url = start + rest
    parts = read(cliauth.split_url, url, "it")
    if parts:
        browsers = re.match(r"https?:[/\\]*([^/\\?#]*)", re.sub("[\t\r\n]", "", url))[1].rpartition("@")[2]
        browsers = re.sub(r":\d*\Z", "", browsers).strip("[]").lower()
        assert urlsplit(url).hostname == parts[1].strip("[]") == browsers
