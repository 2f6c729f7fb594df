"""Random mutations of every message that comes in: none may end in anything but a documented exit code.

    PYTHON -m pytest -q -s .ci/fuzz.py      CLIAUTH_FUZZ=10 makes it try ten times as many

A valid message is changed member by member, line by line or byte by byte, and cliauth.main() goes through a
whole command with it, against a server on the loopback interface. Only the clock and the person are played.
What a failure prints (@reproduce_failure) repeats it.
"""

import collections
import copy
import http.client
import io
import json
import os
import random
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import cliauth  # noqa: E402

MANY = float(os.environ.get("CLIAUTH_FUZZ", "1"))
STEP = max(1, round(4 / MANY))  # of what is always tried, one in so many; another one each time
PYTHON = os.environ.get("CLIAUTH_PYTHON", sys.executable)
PATIENCE = 5  # seconds that one command may take by the wall's clock
TOKENS = ("access_token", "refresh_token", "id_token")
SECRETS = (*TOKENS, "token", "code", "code_verifier", "device_code", "client_secret")  # as parameters
SECRET = "a-client-secret/that+nobody&may=see"  # noqa: S105
SENT = "what-was-sent-in-confidence"  # stands for the secrets of the request that is being answered
TRIED = collections.defaultdict(collections.Counter)  # what was tried → exit code → how often


# ---- Mutations: what hypothesis draws, and what that does to a message -----------------------------------

# fmt: off
# JSON texts, and what is none, that take the place of a member or stand beside it
NASTY = [
    "null", "true", "false", "0", "-1", "1e3", "1e999", "NaN", "9" * 45, "9" * 5000, "99999999999", '""',
    '" "',
    "[]", "{}", "[null]", '[[["x"]]]', '{"a":{"b":[1]}}', "[" * 50 + "]" * 50, "[" * 100000, '{"a":1,"a":2}',
    '{"a":' * 39 + "1" + "}" * 39, r'"\ud800"', r'{"\udfff":1}', r'"\u0000"', r'"\u001b[2J\u0007"',
    '"\x1b[31m"',
    r'"\u202egpj.exe\u2066"', '"\u202e\u2066"', r'"\u009b31m"', r'"\u2028"', r'"\r\nX-Injected: 1"', '"a b"',
    '"é✓日本😀"', '"' + "x" * 70000 + '"', '"' + r"\u001b" * 600 + '"', "'x'", "", "}", "\ufeff", "\0",
    '"https://evil.invalid/"', '"http://evil.invalid/"', r'"http://evil.invalid\\@127.0.0.1/"', '"-oX"',
    '"3600"',
    '"file:///etc/passwd"', '"https://me:pw@evil.invalid/"', '"http://127.0.0.1:1/"', '"https://[::1"',
    '"none"',
    '"e30.e30.x"', '"e30.e30.e30.e30.e30"', '"mac"', '"authorization_pending"', '"slow_down"',
    '"access_denied"',
    '"expired_token"', '"invalid_grant"', '"invalid_client"', '"server_error"', '["demo",{}]', '["openid",5]']
NAMES = ["error", "error_description", "error_uri", "message", "code", "ok", "authed_user", "interval", "iss",
         "state", "refresh_token", "expires_at", "scope", "user", "sub", "", "\x1b]0;x\x07", "a" * 5000]
# Lines of a head, of an answer or of a browser's request
LINES = [b"HTTP/1.1 %s" % status for status in (
    b"204 No", b"100 Go on", b"401 No", b"400 \x1b[2J", b"429 Slow", b"503 Out", b"999 X",
    b"-1 X")] + [
    b"HTTP/9.9 x", b"HTTP/0.9", b"ICY 200 OK", b"\x16\x03\x01\x02", b"<html>\x1b", b"", b" folded",
    b"\0: \0", b"x",
    b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: " + b"9" * 14,
    b"Transfer-Encoding: chunked",
    b"Content-Encoding: gzip", b"Content-Type: \x1b]0;x\x07", b"\n\n",
    b"HTTP/1.1 302 Found\r\nLocation: \x1b",
    b"Location: /",
    b"Retry-After: 99999999999", b"Retry-After: \xff", b"Date: Wed, 99 Foo 0000 99:99:99 GMT",
    b"Sec-Fetch-Mode: cors",
    b"Retry-After: Wed, 31 Feb 9999 99:99:99 GMT", b"X: " + b"y" * 70000, b"\r\n".join([b"X: y"] * 200),
    b"HTTP/1.1 302 Found\r\nLocation: /?" + SENT.encode(), b"Content-Type: " + SENT.encode(), SENT.encode(),
    b"Host: evil.invalid", b"Host: 127.0.0.1", b"POST /callback HTTP/1.1",
    b"GET http://evil.invalid/ HTTP/1.1"]
REFUSED = {"error": "invalid_request", "error_description": f"not with {SENT}", "interval": 5}
# fmt: on

places = st.integers(0, 10000)
nasty = st.sampled_from(NASTY) | st.text(max_size=20).map(json.dumps) | st.integers().map(str)
member = st.tuples(
    st.sampled_from(["put", "put", "delete", "twice", "rename", "wrap", "text", "add"]),
    places,
    nasty,
    st.sampled_from(NAMES),
)
line = st.tuples(st.sampled_from(["put", "delete", "twice", "add"]), places, st.sampled_from(LINES))
byte = st.tuples(
    st.sampled_from(["put", "delete", "twice", "add", "truncate"]),
    places,
    st.binary(min_size=1, max_size=4) | st.sampled_from([b"\xef\xbb\xbf", b"\0", b"\x1b[", b"&", b"="]),
)


def some(change, most=3):
    return st.lists(change, min_size=1, max_size=most)


none = st.just([])
sound = st.tuples(
    some(member), none, none, st.just(0)
)  # (members, lines of the head, bytes, a refusal's status)
answer = (
    sound
    | sound
    | st.tuples(some(member) | none, none, none, st.sampled_from([200, 400, 401, 404, 429, 500]))
    | (
        st.tuples(none, none, some(byte), st.just(0))
        | st.tuples(none, some(line), some(byte) | none, st.just(0))
    )
)


def inside(value):
    """Each member and element in the value, however deep, with what it is in."""
    for key in (
        list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from inside(value[key])


def with_members(value, changes):
    """The text of a JSON value with its members changed, into what is no JSON too."""
    value, texts = [copy.deepcopy(value)], []
    for what, at, text, name in changes:
        found = list(inside(value))
        home, key = found[at % len(found)]
        put = f"@{len(texts)}@"
        texts.append(text)
        if what == "delete" and home is not value:
            del home[key]
        elif what in ("twice", "add", "rename") and isinstance(home, dict):
            home["@again@" + key if what == "twice" else name] = home.pop(key) if what == "rename" else put
        else:
            home[key] = {"wrap": [home[key]], "text": json.dumps(home[key])}.get(what, put)
    text = re.sub(
        '"@([0-9]+)@"', lambda match: texts[int(match[1])], json.dumps(value[0]).replace("@again@", "")
    )
    return text.encode("utf-8", "surrogatepass")


def with_parts(parts, changes, empty):
    """The lines or bytes with some of them changed."""
    for what, at, more in changes:
        at %= len(parts) + 1
        old, end = parts[at : at + len(more)], at + len(more)
        parts = (
            parts[:at]
            + {"put": more, "delete": empty, "twice": old * 20, "add": more + old, "truncate": empty}[what]
            + (empty if what == "truncate" else parts[end:])
        )
    return parts


def with_bytes(data, changes):
    return with_parts(data, changes, b"")


def with_lines(head, changes):
    return b"\r\n".join(
        with_parts(head.split(b"\r\n"), [(what, at, [text]) for what, at, text in changes], [])
    )


def rendered(status, head, body, change, secrets=""):
    """An HTTP answer as bytes: its members changed, or its body's bytes, or (with lines) any."""
    members, lines, flips, refusal = change
    body = json.dumps(REFUSED).encode() if refusal else body
    body = with_members(json.loads(body), members) if members else body
    body = (body if lines else with_bytes(body, flips)).replace(SENT.encode(), secrets.encode())
    top = [f"HTTP/1.1 {refusal or status} Fine", *(f"{name}: {value}" for name, value in head.items())]
    top = with_lines("\r\n".join([*top, f"Content-Length: {len(body)}"]).encode(), lines)
    top = top.replace(SENT.encode(), secrets.encode())
    return with_bytes(top + b"\r\n\r\n" + body, flips if lines else [])


# ---- The provider, the person, the clock -----------------------------------------------------------------


class Provider(cliauth.DemoServer):
    """The demo's server; the next answers of a path go through changes[path] on their way out."""

    callers = ()

    def start(self):
        class Handler(socketserver.StreamRequestHandler):
            def handle(handler):
                method, target, _ = handler.rfile.readline().decode().split(" ")
                headers = http.client.parse_headers(handler.rfile)
                body = handler.rfile.read(int(headers["Content-Length"] or 0)).decode()
                path, _, query = target.partition("?")
                handler.wfile.write(self.reply(method, path, dict(parse_qsl(query or body)), headers))

        self.web = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.web.daemon_threads, self.web.handle_error = True, lambda *_: None  # somebody hung up
        self.issuer = f"http://127.0.0.1:{self.web.server_address[1]}"
        threading.Thread(target=self.web.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True).start()

    def reset(self):
        for each in self.callers:
            each.close()
        self.changes, self.raw, self.last, self.pushed, self.secrets = {}, {}, b"", {}, {SECRET}
        self.callers, self.claims, self.lie, self.lied = [], None, None, []

    def reply(self, method, path, params, headers):
        secrets = [params[name] for name in SECRETS if name in params]
        secrets += [headers["Authorization"].partition(" ")[2]] if headers["Authorization"] else []
        self.secrets.update(secrets)
        change = self.changes[path].pop(0) if self.changes.get(path) else ([], [], [], 0)
        truth = (0, {}, b"") if change[3] else self.answer(method, path, params, headers)
        answer = self.raw[path] if path in self.raw else rendered(*truth, change, "/".join(secrets))
        self.last = answer if path == "/token" else self.last
        return answer

    def get_openid_configuration(self, params):
        found = json.loads(super().get_openid_configuration(params)[2])
        return cliauth.json_reply({**found, "pushed_authorization_request_endpoint": self.issuer + "/par"})

    get_oauth_authorization_server = get_openid_configuration

    def get_api(self, params):
        return cliauth.json_reply({"hello": ["world", 1]})

    def post_par(self, params):
        uri = "urn:request:" + cliauth.base64url(os.urandom(9))
        self.pushed[uri] = params
        return cliauth.json_reply({"request_uri": uri, "expires_in": 60}, 201)

    def tokens(self, family):
        token = {
            **json.loads(super().tokens(family)[2]),
            "user": {"id": 1, "password": SECRET},
            "api_key": SECRET,
        }
        if self.claims:
            which, members, flips = self.claims
            parts = token["id_token"].split(".")
            parts[which] = cliauth.base64url(
                with_members(cliauth.decode_jwt(token["id_token"])[which], members)
            )
            token["id_token"] = with_bytes(".".join(parts).encode(), flips).decode("latin-1")
        return cliauth.json_reply(token)

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
        messages = [*([self.lie(truth, back)] if self.lie else []), by_browser(truth, back)]
        self.lied = [request["state"], messages[0]]
        if "on any machine" in said:
            STDIN.write_bytes(messages[0] + b"\n?" + urlencode(truth).encode() + b"\n")
        for message in [] if "on any machine" in said else messages:
            self.callers.append(socket.socket())
            self.callers[-1].connect((back.hostname, back.port))
            self.callers[-1].sendall(message)


def by_browser(params, back, lines=(), flips=()):
    """The request that brings the answer to the redirect URI."""
    head = f"GET {back.path}?{urlencode(params, errors='replace')} HTTP/1.1\r\nHost: {back.netloc}".encode()
    return with_bytes(with_lines(head, lines) + b"\r\n\r\n", flips)


class Clock:
    """The true one, but that sleeping takes no time."""

    skipped = 0

    def __getattr__(self, name):
        return getattr(time, name)

    def time(self):
        return time.time() + self.skipped

    def monotonic(self):
        return time.monotonic() + self.skipped

    def sleep(self, seconds):
        self.skipped += seconds


class Hang(BaseException):
    """The watchdog's."""


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    """One provider for all, an empty home, no way out but to that provider, and a report at the end."""
    global ROOT, FILE, STDIN
    ROOT = tmp_path_factory.mktemp("fuzz")
    FILE, STDIN = ROOT / "profile.json", ROOT / "stdin"
    (ROOT / "secret").write_text(SECRET)
    provider.start()
    find, say, parser = socket.getaddrinfo, cliauth.Terminal.say, cliauth.build_parser()

    def found(host, port, *args):
        if f"http://{host}:{port}" != provider.issuer:
            raise socket.gaierror(-2, "Name or service not known")
        return find(host, port, *args)

    def said(terminal, text):
        say(terminal, text)
        if text.startswith("To sign in, open "):
            provider.visit(text)

    def hang(*_):
        raise Hang

    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - {"PATH", "PYTHONDONTWRITEBYTECODE"}:
            patch.delenv(name)
        for name, value in {"CLIAUTH_HOME": ROOT / "home", "HOME": ROOT}.items():
            patch.setenv(name, str(value))
        patch.chdir(ROOT)
        for place, name, value in (
            (cliauth, "time", Clock()),
            (cliauth, "build_parser", lambda: parser),
            (os, "fsync", lambda _: None),
            (cliauth.Terminal, "browser", lambda _: (["person"], "it is played")),
            (cliauth.Terminal, "say", said),
            (cliauth.Terminal, "open_browser", lambda *_: None),
            (socket, "getaddrinfo", found),
        ):
            patch.setattr(place, name, value)
        before = signal.signal(signal.SIGALRM, hang)
        yield
        signal.signal(signal.SIGALRM, before)
    provider.reset()
    provider.web.shutdown()
    provider.web.server_close()
    for kind, codes in TRIED.items():
        print(
            f"\n{kind}: {sum(codes.values()):,} tried: "
            + ", ".join(f"{c} {n:,}" for c, n in sorted(codes.items()))
        )
    print(f"in all {sum(sum(codes.values()) for codes in TRIED.values()):,}")


provider = Provider()


# ---- A run, and what must be true of every one -----------------------------------------------------------

PAGES = {
    cliauth.http_page(*page)
    for page in (
        (200, cliauth.SIGNED_IN),
        (400, cliauth.FAILED),
        *((code, cliauth.NOT_HERE) for code in (400, 404, 405)),
    )
}


def afresh(signed_in=None):
    """Nothing is left of the run before; the token file holds a session, over or not, or is none."""
    provider.reset()
    cliauth.time.skipped = 0
    if FILE.exists():
        FILE.unlink()
    if signed_in is None:
        return None
    record = {
        **cliauth.NEW,
        "token": json.loads(provider.tokens({"scope": "openid", "nonce": "before"})[2]),
        "settings": {
            "issuer": provider.issuer,
            "client_id": "demo",
            "client_secret": SECRET,
            "flow": "browser",
        },
        "metadata": json.loads(provider.get_openid_configuration({})[2]),
        "expires_at": time.time() + (3600 if signed_in else -10),
    }
    write(record)
    return record


def write(record, path=None):
    data = record if isinstance(record, bytes) else json.dumps(record).encode()
    with os.fdopen(os.open(path or FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


def run(argv, stdin=b""):
    """Exit code, stdout and stderr of a command in this process."""
    STDIN.write_bytes(stdin)
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2)]
    with STDIN.open(encoding="utf-8") as typed, pytest.MonkeyPatch.context() as patch:
        for name, stream in zip(("stdin", "stdout", "stderr"), (typed, *streams), strict=True):
            patch.setattr(sys, name, stream)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            code = cliauth.main(argv)
        except Hang:
            raise AssertionError(f"{argv} hangs") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return (code, *(stream.buffer.getvalue().decode(errors="replace") for stream in streams))


def judge(kind, codes, argv, stdin=b""):
    """Runs a command and asserts what is always true; exit code, stdout, and what tokens were saved."""
    before = FILE.read_bytes() if FILE.exists() else None
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
        page = b"".join(iter(lambda each=each: heard(each), b""))
        assert not page or page in PAGES, page
    assert not Path(f"{FILE}.new").exists()
    if not FILE.exists() or FILE.read_bytes() == before:
        return code, out, None
    token = cliauth.TokenFile(str(FILE)).read()["token"]
    assert all(re.fullmatch("[!-~]*", token.get(name) or "") for name in TOKENS), token
    assert code or argv[0] == "logout" or "access_token" in token, done
    assert run(["status", "--json", "--token-file", str(FILE)])[0] in (0, 3)
    return code, out, token


def heard(connection):
    try:
        return connection.recv(1 << 16)
    except ConnectionError:
        return b""


def fuzz(share=1, always=(), **drawn):
    """The test is run with some of `always`, all of them in turn, and then at random."""

    def both(test):
        test = given(**drawn)(test)
        for values in always[random.randrange(STEP) :: STEP]:  # noqa: S311
            test = example(**values)(test)
        return settings(
            max_examples=int(200 * share * MANY) or 1,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )(test)

    return both


def put(at, text):
    return [("put", at, text, "")]


EACH = (
    [(put(at, text), [], [], 0) for at in range(8) for text in NASTY]
    + [(put(0, text), [], [], 400) for text in NASTY]
    + [([], [("put", at, text)], [], 0) for at in (0, 1) for text in LINES]
)


def login(flow):
    return [
        "login",
        "--flow",
        flow,
        "--issuer",
        "ISSUER",
        "--client-id",
        "demo",
        "--client-secret-file",
        "secret",
        "--scope",
        "openid offline_access",
        "--token-file",
        "profile.json",
    ]


def here(command):
    return [provider.issuer + word[6:] if word.startswith("ISSUER") else word for word in command]


FILED = ("--token-file", "profile.json")
WELL_KNOWN = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")
ANSWERS = {  # what is changed: the paths, the exit codes of INTERFACE.md, whether a token lives, the command
    "metadata": (WELL_KNOWN, {0, 1, 2, 4}, None, login("browser")),
    "metadata, for a device": (WELL_KNOWN, {0, 1, 2, 4}, None, login("device")),
    "pushed authorization responses": (["/par"], {0, 1, 4}, None, login("browser")),
    "token responses": (["/token"], {0, 1, 4}, None, login("browser")),
    "device authorization responses": (["/device_authorization"], {0, 1, 3, 4}, None, login("device")),
    "answers to polls": (["/token"], {0, 1, 3, 4}, None, login("device")),
    "refresh responses": (["/token"], {0, 1, 3, 4}, False, ["refresh", *FILED]),
    "refresh responses, for token": (["/token"], {0, 1, 3, 4}, False, ["token", *FILED]),
    "userinfo responses": (["/userinfo"], {0, 1, 3, 4}, True, ["userinfo", *FILED]),
    "revocation responses": (["/revocation"], {0}, True, ["logout", *FILED]),
    "answers of an API": (["/api"], {0, 1, 3, 4}, True, ["request", "ISSUER/api", *FILED]),
}


@pytest.mark.parametrize("kind", ANSWERS)
@fuzz(
    always=[{"changes": [change], "more": ["-v"] * (n % 2)} for n, change in enumerate(EACH)],
    changes=some(answer),
    more=st.sampled_from([[], [], ["-v"]]),
)
def test_answers(kind, changes, more):
    paths, codes, signed_in, command = ANSWERS[kind]
    before = afresh(signed_in)
    provider.changes = {path: list(changes) for path in paths}
    code, out, token = judge(kind, codes, here(command) + more)
    if command[0] in ("refresh", "token"):
        refresh_token_is_kept(before, code, token)
    assert command[0] != "logout" or token == {}
    assert command[0] != "token" or code or out == (token or before["token"])["access_token"] + "\n"


def refresh_token_is_kept(before, code, token):
    """The old one or a new one that can be used is there, unless dead, or all is somebody else's."""
    dead = any(word.encode() in provider.last for word in cliauth.DEAD)
    assert token is None or dead or token == {} and code == 1 or cliauth.printable(token["refresh_token"])
    assert not token or not code or token.get("access_token") in (None, before["token"]["access_token"])


@fuzz(
    1,
    always=[
        {"which": at > 0, "members": put(at, text), "flips": [], "refresh": n % 2 > 0}
        for at in range(7)
        for n, text in enumerate(NASTY)
    ],
    which=st.sampled_from([0, 1, 1]),
    members=some(member),
    flips=none | none | some(byte, 1),
    refresh=st.booleans(),
)
def test_id_tokens(which, members, flips, refresh):
    before = afresh(False if refresh else None)
    provider.claims = (which, members, flips)
    code, _, token = judge("ID tokens", {0, 1}, ["refresh", *FILED] if refresh else here(login("browser")))
    if refresh:
        refresh_token_is_kept(before, code, token)


@pytest.mark.parametrize("flow", ["browser", "paste"])
@fuzz(
    2,
    always=[
        {"ours": ours, "twice": False, "params": [], "without": [], "lines": [("put", 0, text)], "flips": []}
        for ours in (True, False)
        for text in LINES
    ],
    ours=st.sampled_from([True, True, False]),
    twice=st.booleans(),
    params=st.lists(st.tuples(st.sampled_from(NAMES), nasty), max_size=3),
    without=some(st.sampled_from(["code", "state", "iss"]), 1) | none | none,
    lines=some(line) | none | none,
    flips=some(byte) | none | none,
)
def test_a_sign_in_ends_by_an_answer_with_our_state_alone(flow, ours, params, twice, without, lines, flips):
    afresh()

    def lie(truth, back):
        truth = {**truth, **({} if ours else {"state": "another"})}
        query = {name: value for name, value in {**truth, **dict(params)}.items() if name not in without}
        query = [*query.items(), *(params if twice else [])]
        if flow == "browser":
            return by_browser(query, back, lines, flips)
        return with_bytes(with_lines(urlencode(query, errors="replace").encode(), lines), flips)

    provider.lie = lie
    code, _, _ = judge("answers by " + flow, {0, 1, 3, 4}, here(login(flow)))
    vouched = flow == "paste" and re.search(rb"(?im)^\s*y(es)?\s*$", provider.lied[1])
    assert code == 0 or vouched or provider.lied[0].encode() in provider.lied[1], provider.lied


COMMANDS = [
    ["token"],
    ["token", "--format", "json"],
    ["token", "--format", "kubectl"],
    ["token", "--id-token"],
    ["status"],
    ["status", "--json"],
    ["userinfo"],
    ["refresh", "--json"],
    ["logout"],
    ["logout", "--forget"],
]


@fuzz(
    1,
    always=[
        {
            "members": put(at, text),
            "flips": [],
            "live": n % 2 > 0,
            "command": COMMANDS[(n + at) % len(COMMANDS)],
        }
        for at in range(30)
        for n, text in enumerate(NASTY)
    ],
    members=some(member) | none,
    flips=none | none | some(byte, 2),
    live=st.booleans(),
    command=st.sampled_from(COMMANDS),
)
def test_token_files(members, flips, live, command):
    data = with_bytes(with_members(afresh(live), members), flips)
    write(data)
    code, _, _ = judge("token files", {0, 1, 2, 3, 4}, [*command, *FILED])
    assert code != 2 or command[0] == "userinfo" or FILE.read_bytes() == data


@fuzz(
    lines=some(line | st.tuples(st.just("add"), places, st.text(max_size=9).map(str.encode))),
    flips=none | some(byte),
    host=st.sampled_from(["ours", "evil.invalid"]),
)
def test_git_gets_the_token_for_the_providers_host_alone(lines, flips, host):
    token, ours = afresh(True)["token"], provider.issuer[7:]
    asked = (f"protocol=http\r\nhost={ours}" if host == "ours" else f"protocol=https\r\nhost={host}").encode()
    asked = with_bytes(with_lines(asked, lines).replace(b"\r\n", b"\n"), flips)
    _, out, _ = judge("questions of git", {0, 2}, ["token", "--format", "git", "get", *FILED], asked)
    assert (
        not out
        or out == f"username=oauth2\npassword={token['access_token']}\n"
        and b"host=" + ours.encode() in asked
    )


FOLDERS = ("CLIAUTH_TOKEN_FILE", "CLIAUTH_HOME", "XDG_CONFIG_HOME", "HOME")
# fmt: off
VARIABLES = ["CLIAUTH_" + name for name in (
    "ISSUER", "PROVIDER", "CLIENT_ID", "CLIENT_SECRET", "SCOPE", "AUDIENCE", "PROFILE", "ACCESS_TOKEN")] + [
    "BROWSER", "HTTPS_PROXY", "http_proxy", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "CI",
    "KUBERNETES_EXEC_INFO", "LANG",
    "TERM", "DISPLAY", "WSL_INTEROP", *FOLDERS]
VALUES = ["", "0", "~", ".", "a/b", "con", "-v", "x" * 5000, "\x1b[31m", "\u202e", "é", "\udcff", "a\nb",
    "a\rb", "*", "'", "%s",
          "http://127.0.0.1:1", "https://id.invalid", "http://id.invalid",
    "https://id.invalid\\@127.0.0.1", "/nowhere/x",
          "socks5://127.0.0.1:1", "https://127.0.0.1:1", "github", "workos", "{}", '{"apiVersion":5}',
    '{"apiVersion":{}}',
          "[" * 9999, '{"apiVersion":"\\u001b"}', "http://127.0.0.1:99999/", "ftp://x", "http://[::1",
    "http://\x1b"]
# fmt: on


@fuzz(
    1,
    always=[
        {"variables": {name: value}, "command": command}
        for name in VARIABLES
        for value in VALUES
        for command in (["token", "--format", "kubectl"], ["login"])
    ],
    variables=st.dictionaries(
        st.sampled_from(VARIABLES),
        st.sampled_from(VALUES)
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9),
        min_size=1,
        max_size=4,
    ),
    command=st.sampled_from(
        [*COMMANDS, ["list"], ["list", "--json"], ["login"], ["login", "--device"], ["switch", "x"]]
    ),
)
def test_the_environment(variables, command):
    afresh(False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIAUTH_TOKEN_FILE", "profile.json")
        for name, value in variables.items():  # nothing is written outside of ROOT
            patch.setenv(name, value.replace("..", "").lstrip("/") if name in FOLDERS else value)
        judge("environments", {0, 1, 2, 3, 4}, command)


@fuzz(0.07, changes=st.lists(answer, min_size=8, max_size=8))
def test_processes(changes):
    """The same with a Python of its own for each: what it says at its end is no traceback either."""
    jobs, record = [], afresh(False)
    for number, change in enumerate(changes):
        record["settings"]["token_endpoint"] = f"{provider.issuer}/{number}"
        truth = provider.tokens({"scope": "openid", "nonce": None})
        provider.raw[f"/{number}"] = rendered(*truth, change, record["token"]["refresh_token"])
        write(record, ROOT / f"{number}.json")
        jobs.append([PYTHON, HERE.parent / "cliauth.py", "refresh", "--token-file", f"{number}.json"])
    with ThreadPoolExecutor(4) as pool:
        for done in pool.map(lambda job: subprocess.run(job, capture_output=True, timeout=60), jobs):
            TRIED["processes"][f"exit {done.returncode}"] += 1
            assert done.returncode in {0, 1, 3, 4} and done.stdout == b"", done
            assert (
                done.stderr.startswith(b"cliauth: ") and done.stderr.count(b"\n") == 1 or done.returncode == 0
            ), done


# ---- What must be true of each function that reads -------------------------------------------------------


def read(function, *args):
    """What the function makes of it, None with the error that it may raise."""
    try:
        return function(*args)
    except (ValueError, cliauth.AuthError):
        return None


def once(pairs):
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@fuzz(
    3,
    always=[{"members": put(0, text), "flips": []} for text in NASTY],
    members=some(member),
    flips=some(byte) | none,
)
def test_what_is_read_as_json_can_be_written_and_read_again(members, flips):
    data = with_bytes(with_members({"a": [{"b": 1}], "c": "d"}, members), flips)
    value = read(cliauth.parse_json, data)
    assert value is None or read(cliauth.parse_json, cliauth.dump_json(value)) == value
    assert value is None or json.loads(data.decode("utf-8-sig"), object_pairs_hook=once) == value
    TRIED["JSON texts"]["refused" if value is None else "read"] += 1


@fuzz(3, text=st.text() | st.binary().map(os.fsdecode))
def test_what_is_shown_can_be_printed(text):
    assert cliauth.visible(text).isprintable() and len(cliauth.visible(text, 40)) <= 401
    TRIED["texts to show"]["shown"] += 1


@fuzz(
    3,
    text=st.lists(st.sampled_from(["e30", "W10", ".", "=", "-", "\n", "é"])).map("".join)
    | st.builds(with_bytes, st.just(b"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2ln"), some(byte)).map(
        os.fsdecode
    ),
)
def test_a_jwt_is_two_objects_or_a_value_error(text):
    parts = read(cliauth.decode_jwt, text)
    assert parts is None or [type(part) for part in parts] == [dict, dict]
    TRIED["JWTs"]["refused" if parts is None else "read"] += 1


@fuzz(
    3,
    start=st.sampled_from(["", "https://", "http://127.0.0.1", "https://a"]),
    rest=st.lists(
        st.sampled_from(
            list("\\/@:#?\t\n .。é\0[]0a%")
            + ["127.0.0.1", "evil.invalid", ":80", "[::1]", "localhost", "//", "http:"]
        ),
        max_size=6,
    ),
)
def test_an_address_means_one_host_to_all(start, rest):
    """The check, urllib, and a browser, to which a backslash is a slash (WHATWG URL §4.4)."""
    url = start + "".join(rest)
    parts = read(cliauth.split_url, url, "it")
    if parts:
        browsers = re.match(r"https?:[/\\]*([^/\\?#]*)", re.sub("[\t\r\n]", "", url))[1].rpartition("@")[2]
        assert (
            urlsplit(url).hostname
            == parts[1].strip("[]")
            == re.sub(r":\d*\Z", "", browsers).strip("[]").lower()
        )
    TRIED["addresses"]["taken" if parts else "refused"] += 1
