"""The specification of cliauth, room by room, in the order of the file.

    python3 test_cliauth.py     makes a private environment with pytest where there is none, and runs this file
    pytest                      where pytest is installed

No network, no sleeps, no mocks: a strict authorization server (cliauth.DemoServer) answers on the loopback
interface, a person is played by it, and where the claim is about processes, processes are started.
"""
import contextlib
import errno
import functools
import importlib
import io
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from hashlib import sha256
from itertools import takewhile


def run_with_pytest():
    """Runs this file with pytest, which PEP 668 and others may forbid to install, so out of a folder of its own."""
    from importlib.util import find_spec
    command, version = ["-m", "pytest", os.path.abspath(__file__)] + sys.argv[1:], sys.version_info[:2]
    if find_spec("pytest"):
        return subprocess.call([sys.executable] + command)
    pytest = "pytest" + {(3, 6): "==7.0.1", (3, 7): "==7.4.4", (3, 8): "==8.3.5", (3, 9): "==8.4.2"}.get(version, "")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(cache, "cliauth-tests-%s-%s" % (sys.implementation.name, sys.version.split()[0]))
    python = os.path.join(folder, "Scripts" if os.name == "nt" else "bin", "python")
    install = ["-m", "pip", "install", "-q", "--disable-pip-version-check"]
    aside = dict(os.environ, PYTHONPATH=os.path.join(folder, "modules"))

    def works(*steps, **options):
        return all(subprocess.call(step, **{**quiet, **options}) == 0 for step in steps)

    with open(os.devnull, "w") as nowhere:
        quiet = {"stdout": nowhere, "stderr": nowhere}
        if os.path.exists(python) and works([python, "-c", "import pytest"]):
            return subprocess.call([python] + command)
        if works([sys.executable, "-c", "import pytest"], env=aside):
            return subprocess.call([sys.executable] + command, env=aside)
        print("Making a private environment with pytest, once, in " + folder, file=sys.stderr)
        if works([sys.executable, "-m", "venv", "--clear", folder]) and works(
                *[[python] + install + ["-U", "pip<22"]] * (version == (3, 6)),  # the one that venv brings is too old
                [python] + install + [pytest], stderr=None):
            return subprocess.call([python] + command)
        if works([sys.executable] + install + ["--target", aside["PYTHONPATH"], pytest]):  # Debian without python3-venv
            return subprocess.call([sys.executable] + command, env=aside)
    return "pytest could not be installed; install it yourself (Debian: apt install python3-pytest), then try again"


if __name__ == "__main__":
    sys.exit(run_with_pytest())

import pytest  # noqa: E402

import cliauth  # noqa: E402
from cliauth import Client, ErrorResponse, InvalidResponse, LoginRequired, Terminal, Unreachable, UsageError  # noqa: E402

HERE = os.path.dirname(os.path.abspath(cliauth.__file__))
SCRIPT = os.path.join(HERE, "cliauth.py")


class Server(cliauth.DemoServer):
    """The demo's authorization server, with a memory, and a script of what it says instead of the truth.

    server.script["/token"] = [(400, {"error": "slow_down"}), ...]: the next answers of that path, in this order. An
    answer is (status, JSON value | str | bytes | callable(params)), or (status, body, headers).
    server.extra["/token"] = {...}: members laid over the true answers of that path; None takes a member away.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.requests, self.script, self.extra = [], {}, {}

    def answer(self, method, path, params, headers):
        self.requests.append((method, path, dict(params), headers))
        if self.script.get(path):
            return self.scripted(params, *self.script[path].pop(0))
        status, head, body = super().answer(method, path, params, headers)
        if path in self.extra and status == 200:
            value = {**json.loads(body.decode()), **self.extra[path]}
            body = json.dumps({k: v for k, v in value.items() if v is not None}).encode()
        return status, head, body

    def scripted(self, params, status, body, headers=None):
        body = body(params) if callable(body) else body
        if not isinstance(body, (str, bytes)):
            body, headers = json.dumps(body), {"Content-Type": "application/json", **(headers or {})}
        return status, headers or {"Content-Type": "text/html"}, body.encode() if isinstance(body, str) else body

    def asked(self, path):
        """The parameters of each request that came for this path."""
        return [params for _, at, params, _ in self.requests if at == path]


class Clock:
    """The module's time: it stands still but for sleeps, which take no time and are recorded."""

    def __init__(self, now=1800000000.0):
        self.now, self.sleeps = now, []
        self.strftime, self.localtime, self.gmtime = time.strftime, time.localtime, time.gmtime

    def time(self):
        return self.now

    monotonic = time

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """Every test has an empty home, and nothing of the environment that could lead it astray."""
    for name in list(os.environ):
        if re.match("CLIAUTH_|XDG_|SSL_|SSH_|.*_proxy$|BROWSER$|DISPLAY$|WAYLAND|KUBERNETES_EXEC|CI$|GITHUB_|GITLAB_|"
                    "TF_BUILD|JENKINS|BUILDKITE|TEAMCITY|CODESPACES|GITPOD|CLOUD_SHELL|WSL|TERM$|NO_COLOR|"
                    "PYTHON(UNBUFFERED|IOENCODING|UTF8|DEVMODE)|APPDATA$", name, re.I):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLIAUTH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # what Windows calls it


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(cliauth, "time", Clock())
    return cliauth.time


@pytest.fixture
def client(server):
    """A client of that server whose browser is the server's person; nobody is signed in yet."""
    return Client(server.issuer, server.client_id, "openid email offline_access", terminal=server.terminal())


def terminal_pair():
    """Two ends of a pseudo-terminal; where there is none, as in a bare chroot, the test is left out."""
    try:
        return pytest.importorskip("pty").openpty()
    except OSError as error:
        return pytest.skip("no pseudo-terminal here: %s" % error)


def run(*args, input="", env=None, timeout=20):
    """cliauth.py as a process, the way a person runs it."""
    return subprocess.run([sys.executable, SCRIPT] + list(args), input=input.encode(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=timeout, env={**os.environ, **(env or {})})


table = pytest.mark.parametrize
WINDOWS = os.name == "nt"


def brief(value):
    """The name of a row: pytest keeps it in the environment, where Windows has no room for all of a large answer."""
    return str(value)[:40]


def posix(what):
    """Leaves a test out where there is no such thing to try."""
    return pytest.mark.skipif(WINDOWS, reason="Windows has no " + what)


def fails(kind, work, *args, **more):
    """The words of the error, of exactly this kind, that the work ends in."""
    try:
        pytest.fail("no error: %r" % (work(*args, **more),))
    except cliauth.AuthError as error:  # not by pytest.raises, which holds on to what the error holds
        assert type(error) is kind
        return str(error)


# ─── 2 Errors ────────────────────────────────────────────────────────────────────────────────────────────────────────

class TestErrors:
    @table("exit_code, errors", [
        (1, [cliauth.AuthError(), InvalidResponse(), ErrorResponse("", "access_denied", status=404)]),
        (2, [UsageError()]), (3, [LoginRequired()]),
        (4, [Unreachable(), ErrorResponse("", "server_error", status=400), ErrorResponse("", "temporarily_unavailable"),
             ErrorResponse("", status=503), ErrorResponse("", status=429)])])
    def test_each_error_knows_its_exit_code(self, exit_code, errors):
        assert {(isinstance(error, cliauth.AuthError), error.exit_code) for error in errors} == {(True, exit_code)}


# ─── 3 Text ──────────────────────────────────────────────────────────────────────────────────────────────────────────

class TestText:
    @table("text, shown", [
        ("naïve ✓ 日本", "naïve ✓ 日本"), ("\x1b[31m\x07\x7f\0", "\\x1b[31m\\x07\\x7f\\x00"), ("a\r\n\t", "a\\r\\n\\t"),
        ("\x9b2J\u2028", "\\x9b2J\\u2028"), ("\u202egpj.exe\u2066", "\\u202egpj.exe\\u2066"), ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"), (None, "None"), ("x" * 500, "x" * 500), ("x" * 501, "x" * 500 + "…")])
    def test_what_comes_from_outside_cannot_play_with_the_terminal(self, text, shown):
        assert cliauth.visible(text) == shown

    @table("url, parts", [
        ("https://id.example", ("https", "id.example", 443)), ("https://ID.x:84/a?b=c@d", ("https", "id.x", 84)),
        ("https://[2001:db8::1]?q", ("https", "[2001:db8::1]", 443)), ("http://[::1]:1/", ("http", "[::1]", 1)),
        ("http://127.0.0.1/x", ("http", "127.0.0.1", 80)), ("http://localhost:65535", ("http", "localhost", 65535))])
    def test_an_address_is_https_or_on_this_machine(self, url, parts):
        assert cliauth.split_url(url, "it") == parts

    @table("words, urls", [
        ("it is no plain address: %s; write it like https://host/path", r"""
            https:\\id https://id/\
            https://id# https://id:0/ https://id:65536 https://id:123456 https://id: https://id:x https://id:８０/ //id
            https://bücher.example https://id/ü https://id%2eexample ftp://id/ file:///etc/passwd javascript:alert(1)
            https:///x https:/id""".split() + ["", "https://id/\n", "https://id\n", "\thttps://id", "https://e\til/",
                                               "https://id/ b", "https://id\0", "https://id/\x7f", "https://id/\t",
                                               "id.example"]),
        ("it must begin with https://, or be on this machine: %s", [
            "http://id.example/", "http://127.0.0.1.evil.example", "http://127.1/", "http://0.0.0.0:80/", "http://0x7f.1",
            "http://127.0.0.2/", "http://[::]/", "http://localhost.evil.example", "http://localhost./",
            "http://2130706433", "http://[::ffff:127.0.0.1]", "http://[0:0:0:0:0:0:0:1]/"])])
    def test_tricks_with_addresses_are_refused_before_urlsplit_sees_them(self, words, urls):
        assert [fails(UsageError, cliauth.split_url, url, "it") for url in urls] == [
            words % cliauth.visible(url) for url in urls]

    @table("url, shown", [
        ("http://evil.example\\@127.0.0.1/", "http://…@127.0.0.1/"), ("https://me@id", "https://…@id"),
        ("me:S3CRET@id", "…@id"),
        ("https://me:S3/C\n@R@id/x", "https://…@id/x"), ("https://id/#top", "https://id/#…"),
        ("http://id/?key=S3CRET", "http://id/?…"), ("https://id/a b?S3CRET#x", "https://id/a b?…"),
        ("https://id/?\n", "https://id/?…")])
    def test_of_a_refused_address_only_what_is_no_secret_is_shown(self, url, shown):
        assert fails(UsageError, cliauth.split_url, url, "it").partition(": ")[2].partition(";")[0] == shown

    def test_a_long_address_is_judged_in_no_time(self):
        begun = time.monotonic()
        for url in ("https://id" + "/" * 900000, "/" * 900000, "https://id/" + "@" * 900000 + "\n"):
            with contextlib.suppress(UsageError):
                cliauth.split_url(url, "it")
        assert time.monotonic() - begun < 1 and not cliauth.fits("https://a.b", "https://" + "{tenantid}" * 99 + "x")

    def test_json_and_forms_are_read_and_written(self):
        assert cliauth.parse_json(b'\xef\xbb\xbf{"a": [1, -2.5, 1e3, null]}') == {"a": [1, -2.5, 1000.0, None]}
        assert cliauth.parse_json('"ü\\u00fc\\ud83d\\ude00"'.encode()) == "üü😀"
        assert cliauth.parse_json(b"9" * 39) == int("9" * 39) and cliauth.parse_json(b"[" * 40 + b"]" * 40)
        assert cliauth.encode_form({"a": "\udcff é"}) == "a=%FF%20%C3%A9"  # as it was typed
        assert cliauth.parse_form("a=b+c%20d&e=") == {"a": "b c d", "e": ""}
        form = {"scope": "a b+c", "resource": ["https://x/1", "u"], "none": None, "empty": "", "q": "ü&="}
        assert cliauth.encode_form(form) == "scope=a%20b%2Bc&resource=https%3A%2F%2Fx%2F1&resource=u&q=%C3%BC%26%3D"

    @table("text", [
        b"NaN", b"[Infinity]", b'{"a": -Infinity}', b'{"a": 1, "a": 1}', b'[{"b": {"a": 1, "a": 2}}]', b"",
        b'"\\ud800"', b'{"\\udc00": 1}', b"[" * 41 + b"1" + b"]" * 41, b'{"a":' * 41 + b"1" + b"}" * 41, b"[" * 100000,
        b'{"a":' * 100000, b"9" * 40, b"-" + b"1" * 5000, b"1e999", b"-1E999", b"0." + b"1" * 5000, b"{", b"{} x",
        b"[" * 100000 + b"]" * 100000, b'"\xe9"', "[1]".encode("utf-16"), b"<html>"], ids=lambda text: str(text[:20]))
    def test_json_that_could_not_be_written_again_is_a_value_error(self, text):
        with pytest.raises(ValueError):
            cliauth.parse_json(text)

    def test_seconds_and_scopes_come_in_several_dresses(self):
        assert [cliauth.number(value) for value in (3600, "3600", " 0.5 ", 0, "0")] == [3600, 3600, 0.5, 0, 0]
        for value in (None, True, -1, "-1", "", "1e3", "0x10", "٣", 1e15, "9" * 12, "9" * 16, [], float("nan"), "soon"):
            assert cliauth.number(value) is None
        assert [cliauth.words(value) for value in (" a  b ", "a, b,", ["a", 1, "b"])] == [["a", "b"]] * 3
        assert [cliauth.words(value) for value in ("", None, {"a": 1}, 5)] == [[]] * 4

    def test_a_jwt_is_header_and_claims(self):
        assert cliauth.decode_jwt(jwt({"sub": "ä"})) == ({"alg": "RS256"}, {"sub": "ä"})
        assert [cliauth.claims_of(token) for token in ({}, {"id_token": "opaque"}, {"id_token": 5})] == [{}, {}, {}]
        for text in ("", "e30.e30", "e30.W10.x", "bnVsbA.e30.x", "e30.e30.x\n", "e3 0.e30.x", "e30.e3.x", "e30.e30.ü"):
            with pytest.raises(ValueError):
                cliauth.decode_jwt(text)


# ─── 4 Protocol ──────────────────────────────────────────────────────────────────────────────────────────────────────

NOW, TOKEN_URL = 1800000000, "https://id.example/token"
ASCII = " that came is not printable ASCII; ask the provider"
ALIEN = ", which only another client can use; ask the provider"


def jwt(claims, alg="RS256"):
    """A JWT that nobody signed."""
    return "%s.%s.c2ln" % tuple(cliauth.base64url(json.dumps(part).encode()) for part in ({"alg": alg}, claims))


def answered(status, body, headers=None, sent=None):
    """An answer of the token endpoint."""
    body = json.dumps(body) if isinstance(body, (dict, list)) else body
    return cliauth.Response(TOKEN_URL + "?q=1", status, headers or {}, body.encode("latin-1"), sent)


def refused(*args):
    """The refusal in that answer."""
    with pytest.raises(ErrorResponse) as error:
        cliauth.read_answer(answered(*args))
    return error.value


class TestProtocol:
    @table("body, members", [
        ({"a": 1}, {"a": 1}), (" a=1&b=x%20y+z\n", {"a": "1", "b": "x y z"}), ({}, {}), ("", None), ("<html>a=b", None),
        ("c2VjcmV0=", None), ("c2VjcmV0==", None),
        ([1], None), ("a=1&a=2", None), ('{"a": 1, "a": 2}', None), ("OK", None), ("\xff", None), ("a=%ff", None)])
    def test_an_answer_is_json_else_a_form(self, body, members):
        assert answered(200, body).members() == members

    @table("who, status, body, code, words", [
        ("RFC 6749", 400, {"error": "invalid_grant", "error_description": "Old"}, "invalid_grant", "Old"),
        ("Slack", 200, {"ok": False, "error": "bad_code"}, "bad_code", ""), ("Slack", 200, {"ok": False}, "", ""),
        ("GitHub", 200, "error=token_expired&error_description=It+is+old", "token_expired", "It is old"),
        ("Google", 401, {"error": {"code": "old", "message": "Old."}}, "old", "Old."),
        ("WorkOS", 400, {"code": "invalid_grant", "message": "Spent."}, "invalid_grant", "Spent."),
        ("Supabase", 400, {"code": 400, "error_code": "spent", "msg": "No"}, "spent", "No"),
        ("Databricks", 403, {"errorCode": "E6", "errorSummary": "Not you"}, "E6", "Not you"),
        ("Twitch", 400, {"status": 400, "message": "not_yet"}, "not_yet", "not_yet"),
        ("Twitch", 400, {"status": 400, "message": "No such token"}, "", "No such token"),
        ("Kanidm", 401, "", "", ""), ("a proxy", 403, "<html>", "", ""), ("any", 400, {"error": 5, "msg": []}, "", "")])
    def test_error_codes_and_words_are_found_where_providers_hide_them(self, who, status, body, code, words):
        no = refused(status, body)
        assert (no.error, no.error_description, no.status) == (code, words, status)

    @table("poll, statuses, body", [  # seconds to the next poll where 5 was the interval, else how it ends
        (5, "400 403 428 429 200", "authorization_pending"),  # RFC 8628, Auth0, Google, GitHub
        (10, "400 403 429", "slow_down"), (10, "400", "server_error"), (10, "429 401 503", ""),  # authentik, Kanidm
        (10, "400", {"error": "slow_down", "interval": "2"}), (60, "400", {"error": "slow_down", "interval": 9999}),
        (30, "200", {"error": "slow_down", "interval": 30}),  # GitHub
        (ErrorResponse, "400 403 429 500", "access_denied"),
        (ErrorResponse, "400", "authorization_declined"), (ErrorResponse, "401", "invalid_client")] + [  # Entra
        (LoginRequired, "400 200 429 500", code) for code in (  # RFC 8628, GitHub, GitHub, Entra, Dex, any
            "expired_token", "token_expired", "incorrect_device_code", "bad_verification_code", "invalid_request",
            "invalid_grant")])
    def test_polling_is_judged_by_the_code_and_not_by_the_status(self, poll, statuses, body):
        for status in map(int, statuses.split()):
            no = refused(status, {"error": body} if body and isinstance(body, str) else body)
            if isinstance(poll, int):
                assert cliauth.next_poll(no, 5) == poll
            else:
                assert fails(poll, cliauth.next_poll, no, 5)

    def test_retry_after_is_honoured_to_a_minute_at_most(self):
        now = "Wed, 21 Oct 2099 07:28:00 GMT"
        for seconds, poll in (("3", 10), ("25", 25), ("9999", 60), (now.replace("28:00", "28:30"), 30), (now, 10),
                              (now.replace("07:", "06:"), 10), ("Wed, 99 Foo 0000 99:99:99 GMT", 10), ("soon", 10)):
            assert cliauth.next_poll(refused(429, "", {"Retry-After": seconds, "Date": now}), 5) == poll
            assert cliauth.next_poll(refused(429, WAITING, {"Retry-After": seconds, "Date": now}), 5) == (
                poll if poll > 10 else 5)
        assert cliauth.next_poll(refused(429, "", {"Retry-After": now}), 5) == 10

    @table("status, body, headers, kind, message", [
        (302, "", {"Location": "https://evil\x1b/"}, InvalidResponse,
         "redirects to https://evil\\x1b/, which is never followed; name the endpoint's own address"),
        (200, "<html>", {"Content-Type": "text/html"}, InvalidResponse,
         "answered something that is not JSON (text/html); check the address"),
        (204, "", {}, InvalidResponse, "answered something that is not JSON (no type); check the address"),
        (400, {"error": "invalid_scope", "error_description": "no\x1b[0m"}, {}, ErrorResponse,
         "answered 400 invalid_scope (no\\x1b[0m); check login's --scope"),
        (401, "", {}, ErrorResponse, "answered 401; check the settings, or ask the provider"),
        (403, "", {}, ErrorResponse, "answered 403; check the settings, or ask the provider"),
        (200, {"error": "incorrect_client_credentials"}, {}, ErrorResponse,  # GitHub
         "answered 200 incorrect_client_credentials; check login's --client-id, and the client's secret, assertion or "
         "certificate"),
        (400, {"error": "invalid_grant"}, {}, ErrorResponse,
         "answered 400 invalid_grant; to try again, run the same command"),
        (401, {"error": "invalid_token"}, {}, ErrorResponse,
         "answered 401 invalid_token; to sign in again, run: cliauth login"),
        (403, {"error": "insufficient_scope"}, {}, ErrorResponse,
         "answered 403 insufficient_scope; check login's --scope"),
        (400, {"error": "invalid_target"}, {}, ErrorResponse, "answered 400 invalid_target; check login's --resource"),
        (400, {"error": "unsupported_token_type"}, {}, ErrorResponse,
         "answered 400 unsupported_token_type; it ends by itself"),
        (429, "", {"Retry-After": "7"}, ErrorResponse, "answered 429; try again in 7 s"),
        (503, "<html>", {}, ErrorResponse, "answered 503; try again later"),
        (200, "<", {"Content-Type": "\x1b"}, InvalidResponse,
         "answered something that is not JSON (\\x1b); check the address"),
        (400, {"error": "server_error"}, {}, ErrorResponse, "answered 400 server_error; try again later")])
    def test_what_is_no_success_says_what_to_do(self, status, body, headers, kind, message):
        assert fails(kind, cliauth.read_answer, answered(status, body, headers)) == TOKEN_URL + " " + message
        assert cliauth.read_answer(answered(200, {"error": None, "x": [1]})) == {"error": None, "x": [1]}

    def test_a_server_that_says_nothing_may_mean_anything_about_the_client(self):
        said = fails(ErrorResponse, cliauth.read_answer, answered(403, "", None, {"client_id": "my-cli"}))
        assert said == (TOKEN_URL + " answered 403; check login's --client-id, --redirect-uri, --scope, and the client "
                        "secret, which some servers take by --client-auth post alone")

    @table("name", "code code_verifier access_token refresh_token id_token token device_code client_secret "
                   "client_assertion request_uri".split())
    def test_a_secret_that_the_server_says_again_is_not_shown(self, name):
        body = {"error": "x-S3CRET", "error_description": name + " S3CRET is unknown", "error_uri": "https://x/S3CRET"}
        no = refused(400, body, {}, {name: "S3CRET"})
        assert "S3CRET" not in repr(no) + repr(vars(no)) and name + " … is unknown" in str(no)
        for status, head in ((302, {"Location": "https://x/?S3CRET"}), (200, {"Content-Type": "S3CRET"})):
            assert "…" in fails(InvalidResponse, cliauth.read_answer, answered(status, "<", head, {name: "S3CRET"}))
        assert refused(400, {"error": "no"}, {}, {name: "\udcff" * 9}).error == "no"
        no = refused(400, {"error": "got 1%2F%2FS3CRET%3D"}, {}, {name: "1//S3CRET="})  # as it was sent
        assert no.error == "got …"

    @table("settings, listed, way", [
        ({}, "", ""), ({"client_auth": "basic"}, "client_secret_basic", ""), ({"client_secret": "s"}, "", "basic"),
        ({"client_secret": "s"}, "client_secret_post client_secret_basic", "basic"),
        ({"client_secret": "s"}, "client_secret_post", "post"), ({"client_secret": "s"}, "private_key_jwt", "post"),
        ({"client_secret": "s", "client_auth": "post"}, "client_secret_basic", "post"),
        ({"client_secret": "s", "client_auth": "basic"}, "client_secret_post", "basic"),
        ({"client_secret": "s", "client_auth": "none"}, "", "")])
    def test_a_secret_is_sent_one_way_and_the_client_id_always(self, settings, listed, way):
        metadata = {"token_endpoint_auth_methods_supported": listed.split()} if listed else {}
        headers, params = cliauth.client_authentication(dict(settings, client_id="my-cli"), metadata)
        assert headers == ({"Authorization": "Basic bXktY2xpOnM="} if way == "basic" else {})
        assert params == dict({"client_secret": "s"} if way == "post" else {}, client_id="my-cli")

    def test_basic_credentials_are_form_encoded_first_and_an_assertion_replaces_the_secret(self):
        settings = {"client_id": "my cli:1", "client_secret": "a+b/%:é"}  # my%20cli%3A1:a%2Bb%2F%25%3A%C3%A9
        assert cliauth.client_authentication(settings, {}) == (
            {"Authorization": "Basic bXklMjBjbGklM0ExOmElMkJiJTJGJTI1JTNBJUMzJUE5"}, {"client_id": "my cli:1"})
        kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert cliauth.client_authentication(settings, {}, "e30.e30.x") == ({}, {
            "client_id": "my cli:1", "client_assertion": "e30.e30.x", "client_assertion_type": kind})

    def test_each_attempt_has_secrets_of_its_own_and_knows_its_state(self, monkeypatch):
        import secrets
        compare, compared = secrets.compare_digest, set()
        monkeypatch.setattr(secrets, "compare_digest", lambda *both: compared.update(map(type, both)) or compare(*both))
        first, second = cliauth.Attempt(True, True), cliauth.Attempt(True, True)
        values = list(vars(first).values()) + list(vars(second).values())
        assert len(set(values)) == 6 and all(re.match(r"[\w-]{43}\Z", value) for value in values)
        others = [{"state": state} for state in ("", "é", "\udc80", first.state, second.state[:-1], second.state + "x")]
        assert second.owns({"state": second.state}) and not any(second.owns(other) for other in others + [{}])
        assert compared == {bytes}  # in constant time; of text it would take ASCII alone
        first.code_verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636, appendix B
        assert first.code_challenge() == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

    def test_the_authorization_request_carries_all_that_ties_the_answer_to_it(self):
        attempt, bare = cliauth.Attempt(openid=True, pkce=True), cliauth.Attempt(openid=False, pkce=False)
        more = {"client_id": "c", "scope": "openid a", "audience": "api", "resource": ["r1", "r2"]}
        assert cliauth.authorization_request(dict(more, param={"prompt": "none"}), "http://[::1]:1", attempt) == dict(
            more, response_type="code", redirect_uri="http://[::1]:1", state=attempt.state, nonce=attempt.nonce,
            prompt="none", code_challenge=attempt.code_challenge(), code_challenge_method="S256")
        for url in ("https://id/a?x=1&", "https://id/a?"):
            found = cliauth.with_query(url[:-1], cliauth.authorization_request({"client_id": "c"}, "", bare))
            assert found == "%sresponse_type=code&client_id=c&state=%s" % (url, bare.state)

    @table("params, required, kind, message", [
        ({"code": "c"}, False, None, "c"), ({"code": "c", "iss": "https://id/"}, True, None, "c"),
        ({"code": "c", "iss": "https://evil\x1b"}, False, InvalidResponse,
         "the answer is of another server: iss is https://evil\\x1b, not https://id; do not use it"),
        ({"error": "access_denied", "iss": "https://evil"}, True, InvalidResponse, "the answer is of another server: "),
        ({"code": "c"}, True, InvalidResponse, "the answer is of another server: iss is missing"),
        ({"error": "access_denied", "code": "c"}, True, ErrorResponse,
         "the sign-in was denied: access_denied; to try again, run the same command"),
        ({"error": "invalid_scope", "error_description": "x\n", "iss": "https://id"}, True, ErrorResponse,
         "the sign-in was refused: invalid_scope (x\\n); check login's --scope"),
        ({"error": "\x1b"}, True, ErrorResponse, "the sign-in was refused: \\x1b; check the settings")])
    def test_a_callback_is_judged_by_iss_then_error_then_code(self, params, required, kind, message):
        args = cliauth.read_callback, params, "https://id", required
        assert (fails(kind, *args) if kind else args[0](*args[1:])).startswith(message)
        assert cliauth.read_callback({"code": "c", "iss": "any"}, "", True) == "c"  # nothing to compare it with

    def test_an_address_its_query_or_a_code_can_be_pasted_and_all_else_is_a_value_error(self):
        a = {"code": "a", "state": "s"}
        for text, params in [
                ("http://[::1]:1/cb?code=a&state=s", a), ("https://x/c=d#code=a&state=s", a), ("?code=a&state=s", a),
                ("state=s&code=a", a), ("my.app:/cb?code=a&state=s#_=_", a), (" <http://x?code=%2F>\n", {"code": "/"}),
                ("app:cb?code=a&state=s", a), ("urn:ietf:wg:oauth:2.0:oob?code=a&state=s", a),
                ("localhost:6363/?code=a&state=s", a), ("state=s&code=4/a?b", {"state": "s", "code": "4/a?b"}),
                ("'4/0Abc-_~=='", {"code": "4/0Abc-_~=="}),
                ("error=no&state=s", {"error": "no", "state": "s"})]:
            assert cliauth.read_pasted(text) == params
        for text in ("", "a b", "https://id/login", "http://x/?code=a\nstate=s", "?code=a&code=b", "ü", "code=%ff",
                     "http://x/cb?error=&state=s", "http://x/cb?code=&state=s"):
            with pytest.raises(ValueError):
                cliauth.read_pasted(text)

    @table("changes, found", [
        ({}, (5, 900)), ({"interval": "7", "expires_in": "60"}, (7, 60)), ({"interval": 0.1}, (1, 900)),
        ({"interval": 0}, (5, 900)), ({"interval": 3600}, (60, 900)), ({"interval": None, "expires_in": 0}, (5, 900)),
        ({"verification_uri": None, "verification_url": "https://id/d"}, (5, 900)),  # Google
        ({"device_code": None}, "has no device_code; try --flow paste"), ({"user_code": 5}, "has no user_code; "),
        ({"verification_uri": ""}, "has no verification_uri; try --flow paste"),
        ({"verification_uri": "http://id/d"}, "is not to be trusted: verification_uri must begin with https"),
        ({"verification_uri_complete": "javascript:x"}, "is not to be trusted: verification_uri_complete is no plain"),
        ({"verification_uri_complete": ["https://id"]}, "is not to be trusted: verification_uri_complete is no plain")])
    def test_a_device_response_has_its_defaults_and_addresses_that_are_safe_to_open(self, changes, found):
        answer = dict({"device_code": "d", "user_code": "U", "verification_uri": "https://id/d"}, **changes)
        if isinstance(found, str):
            words = fails(InvalidResponse, cliauth.read_device_response, answer)
            assert words.startswith("the device authorization response " + found)
        else:
            device = cliauth.read_device_response(answer)
            assert (device["interval"], device["expires_in"], device["verification_uri"]) == found + ("https://id/d",)

    @table("message, answers", [
        ("", [{"token_type": "bearer", "user": {}}, {"token_type": 0, "refresh_token": None, "id_token": ""}]),
        ("the token response holds no access_token; check --token-endpoint", [{"access_token": x} for x in ("", None)]),
        ("the access_token" + ASCII, [{"access_token": x} for x in (5, "a b", "a\r\nX: y", "a\n", "a\0", "a\x7f")]),
        ("the refresh_token" + ASCII, [{"refresh_token": "ü"}]), ("the id_token" + ASCII, [{"id_token": ["x"]}]),
        ("the token is of type DPoP\\n" + ALIEN, [{"token_type": "DPoP\n"}]),
        ("the token is of type ['mac']" + ALIEN, [{"token_type": ["mac"]}])])
    def test_tokens_that_cannot_stand_in_a_header_are_refused_and_all_else_is_kept(self, message, answers):
        for answer in (dict({"access_token": "~!"}, **changes) for changes in answers):
            if message:
                assert fails(InvalidResponse, cliauth.read_token, answer) == message
            else:
                assert cliauth.read_token(dict(answer)) == answer
        assert "no access_token; " in fails(InvalidResponse, cliauth.read_token, {})

    @table("token, end", [
        ({"expires_in": 60}, NOW + 60), ({"expires_in": "60"}, NOW + 60), ({"expires_in": 0.9}, NOW),
        ({"expires_in": 60, "expires_at": 5}, NOW + 60), ({"expires_in": None, "expires_at": str(NOW + 9)}, NOW + 9),
        ({"access_token": jwt({"exp": NOW + 7})}, NOW + 7), ({"access_token": jwt({"exp": "never"})}, None),
        ({"expires_in": "soon", "expires_at": "2030-01-01", "access_token": jwt({"exp": NOW + 7})}, NOW + 7),
        ({"expires_at": 5, "access_token": jwt({"exp": NOW + 7})}, 5), ({"access_token": "opaque"}, None)])
    def test_when_a_token_ends(self, token, end):
        assert cliauth.expires_at(token, NOW) == end

    def test_what_a_response_leaves_out_is_as_asked_or_as_before(self):
        for scope, tokens in (("a", [{"scope": "a,"}, {"scope": ["a"]}, {"scopes": "a"}, {"scopes": ["a"]}]),
                              ("asked too", [{}, {"scope": ""}, {"scope": None, "scopes": 5}])):
            assert {cliauth.granted(token, "asked too") for token in tokens} == {scope}
        old = {"access_token": "a", "refresh_token": "r", "id_token": "i", "user": {"id": 1}, "expires_in": 9,
               "issued_at": 1, "expires_at": 1, "created_at": 1, "refresh_expires_in": 9, "refresh_token_expires_in": 9}
        new, kept = {"access_token": "b", "user": 2, "refresh_expires_in": 0}, {"refresh_token": "r", "id_token": "i"}
        assert cliauth.renewed(old, dict(new, refresh_token="", id_token=None)) == dict(new, **kept)
        assert cliauth.renewed({"scope": "a b"}, {"scopes": ["a"]}) == {"scopes": ["a"]}
        assert cliauth.renewed({"scope": "a b"}, {"scope": ""}) == {"scope": "a b"}

    @table("fault, rows", [  # what differs in the claims (small) and in the rest (CAPITALS)
        ("", [{}, {"aud": ["my-cli"]}, {"aud": ["x", "my-cli"], "azp": "my-cli"}, {"ID_TOKEN": None}, {"exp": NOW - 99},
              {"nonce": None, "NONCE": ""}, {"iss": "https://any", "ISSUER": ""}, {"iat": NOW + 119},
              {"auth_time": NOW - 60, "MAX_AGE": "60"}, {"iss": "google", "ISSUER": "https://google"},
              {"iss": "https://ms/t-1/v2", "tid": "t-1", "ISSUER": "https://ms/{tenantid}/v2"},
              {"at_hash": "77QmUPtjPfzWtF2AnpK9RQ", "TOKEN": "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"},  # A.3
              {"at_hash": "4hulEO2T04y86FsZK2pA8fxDcRCCi6uc", "ALG": "ES384"}] + [
                  {"at_hash": "dTR5nNqNrsxqjWP_lCTH2ESWpeTv9f1yZraJ_wsSjjE", "ALG": a} for a in ("PS512", "EdDSA")]),
        ("used: an encrypted one cannot be read here; ask the provider", [{"ID_TOKEN": "a.b.c.d.e"}]),
        ("used: it is not a signed JWT; ask the provider", [{"ID_TOKEN": "opaque"}]),
        ("trusted: it is unsigned", [{"ALG": x} for x in ("none", " None", "", None)] + [{"ID_TOKEN": "e30.e30.x"}]),
        ("trusted: iss is evil\\n, not https://id/; if you trust that one, name it as --issuer", [{"iss": "evil\n"}]),
        ("trusted: iss is https://id, not https://id/; if you trust that one, name it as --issuer", [
            {"iss": "https://id"}]),
        ("trusted: iss is d/, not https://id/; if you trust that one, name it as --issuer", [{"iss": "d/"}]),
        ("trusted: iss is t-2, not https://t-1\\x1b; if you trust that one, name it as --issuer", [
            {"iss": "t-2", "tid": "t-1\x1b", "ISSUER": "https://{tenantid}"}]),
        ("trusted: it was issued to another client (aud my-cli)", [{"azp": "other"}]),
        ("trusted: it was issued to another client (aud None)", [{"aud": None}]),
        ("trusted: it was issued to another client (aud ['a', 'b'])", [{"aud": ["a", "b"], "azp": "my-cli"}]),
        ("trusted: of several audiences none is the authorized party (azp)", [{"aud": ["api", "my-cli"]}]),
        ("trusted: it has no exp or no iat", [{"exp": None}, {"iat": "now"}]),
        ("trusted: this machine's clock is 121 s off; set it", [{"iat": NOW + 121}]),
        ("trusted: this machine's clock is 900 s off; set it", [{"iat": NOW - 900, "exp": NOW - 121}]),
        ("trusted: it has expired already", [{"exp": NOW - 200}]),
        ("trusted: its nonce belongs to another sign-in", [{"nonce": "x"}, {"nonce": None}]),
        ("trusted: at_hash belongs to another access token", [{"at_hash": "77"}, {"at_hash": 5, "ALG": "EdDSA"}]),
        ("trusted: the person signed in longer ago than max_age allows", [
            {"auth_time": NOW - 181, "MAX_AGE": "60"}, {"MAX_AGE": "60"}, {"auth_time": NOW - 121, "MAX_AGE": 0}])])
    def test_an_id_token_is_for_this_client_this_sign_in_and_now(self, fault, rows):
        for row in rows:
            claims = dict(dict(iss="https://id/", aud="my-cli", sub="ada", iat=NOW, exp=NOW + 600, nonce="n"), **row)
            claims = {name: value for name, value in claims.items() if value is not None and name.islower()}
            id_token = row.get("ID_TOKEN", jwt(claims, row.get("ALG", "RS256")))
            token = {"access_token": row.get("TOKEN", "at"), "id_token": id_token}
            settings = {"client_id": "my-cli", "param": {"max_age": row.get("MAX_AGE")}}
            args = token, settings, row.get("ISSUER", "https://id/"), NOW, row.get("NONCE", "n")
            if fault:
                said = "the ID token cannot be " + fault + ("" if ";" in fault else "; ask the provider")
                assert fails(InvalidResponse, cliauth.check_id_token, *args) == said
            else:
                cliauth.check_id_token(*args)

    def test_metadata_is_merged_from_two_places_and_that_of_another_issuer_ignored(self):
        assert cliauth.discovery_addresses("https://i:8/a/") == [
            "https://i:8/a/.well-known/openid-configuration", "https://i:8/.well-known/oauth-authorization-server/a"]
        for issuer, known in (("https://id", "https://id/"), ("https://id/", "https://id"),
                              ("https://m/x/v2", "https://m/{tenantid}/v2")):
            assert cliauth.fits(issuer, known)
        for issuer, known in ((None, "https://id"), ("https://id/a", "https://id"), ("https://idxe", "https://id.e"),
                              ("https://id\n", "https://id"), ("https://m/a/b", "https://m/{tenantid}"),
                              ("https://m", "https://{tenantid}"), ("https://m//v2", "https://m/{tenantid}/v2")):
            assert not cliauth.fits(issuer, known)
        openid = {"issuer": "https://id/", "token_endpoint": "https://id/t1", "userinfo_endpoint": "", "jwks_uri": "x"}
        oauth = {"issuer": "https://id", "token_endpoint": "https://id/t2", "userinfo_endpoint": "https://id/u"}
        evil = {"issuer": "https://evil", "revocation_endpoint": "https://evil/r"}
        assert cliauth.read_metadata("https://id", [None, openid, evil, oauth]) == {
            "issuer": "https://id/", "token_endpoint": "https://id/t1", "userinfo_endpoint": "https://id/u"}
        assert cliauth.read_metadata("https://id", [evil, None, {"token_endpoint": "https://x/t"}]) == {}
        for url in (["https://id/t"], "http://id/t", "https://id/\x1b", 5):
            words = fails(InvalidResponse, cliauth.read_metadata, "https://id", [dict(openid, token_endpoint=url)])
            assert words.startswith("the metadata of https://id is not to be trusted: token_endpoint ")

    def test_an_endpoint_by_hand_wins_and_an_mtls_alias_needs_a_certificate(self):
        metadata = {"token_endpoint": "https://id/t", "mtls_endpoint_aliases": {"token_endpoint": "https://mtls/t"}}
        for settings, url in (({}, "https://id/t"), ({"client_cert": "c.pem"}, "https://mtls/t"),
                              ({"client_cert": "c.pem", "token_endpoint": "https://hand/t"}, "https://hand/t")):
            assert cliauth.Server(settings, metadata, print).endpoint("token_endpoint") == url

    def test_bearer_is_spelt_in_any_case(self):
        for kind in ("bearer", "Bearer", "BEARER", "", None):
            assert cliauth.read_token({"access_token": "a", "token_type": kind})["access_token"] == "a"

    def test_a_scope_may_come_back_in_another_spelling_or_within_a_wider_one(self):
        for asked, came in (("email", "openid https://www.googleapis.com/auth/userinfo.email"),
                            ("https://graph.microsoft.com/mail.read", "openid Mail.Read"), ("user:email", "user"),
                            ("https://graph.microsoft.com/.default", "openid")):
            assert cliauth.covered(asked, came.split())
        for asked, came in (("mail", "email"), ("mail", "https://a/email"), ("user", "user:email"), ("a", "")):
            assert not cliauth.covered(asked, came.split())

    def test_the_userinfo_address_is_filled_from_the_token_response(self):
        token = {"user_id": 7, "user": {"id": "a/b?{c}", "access_token": "S3CRET"}, "access_token": "S3CRET"}
        assert cliauth.fill("https://id/{user_id}/{user.id}?x={user_id}", token) == "https://id/7/a%2Fb%3F%7Bc%7D?x=7"
        for name in ("nobody", "user", "user.id.x", "access_token", "user.access_token"):
            assert fails(UsageError, cliauth.fill, "https://id/{%s}" % name, token) == (
                "the token response has no %s for https://id/{%s}; check login's --userinfo-endpoint" % (name, name))


# ─── 5 HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────────────

@contextlib.contextmanager
def talker(*pieces):
    """A server that answers each request with these bytes, waits where a number stands, and hangs up."""
    door, over = socket.socket(), threading.Event()
    door.bind(("127.0.0.1", 0))
    door.listen(5)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                with door.accept()[0] as connection, contextlib.suppress(ConnectionError):
                    with connection.makefile("rb") as request:
                        talker.heard = b"".join(takewhile(lambda line: line != b"\r\n", request))
                    for piece in pieces:
                        over.wait(piece) if isinstance(piece, float) else connection.sendall(piece)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield "127.0.0.1:%d" % door.getsockname()[1]
    finally:
        over.set()
        with contextlib.suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)  # ends accept; on Windows close does
        door.close()
        thread.join()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """The files of certificates, each with its key, that nobody trusts: for 127.0.0.1, for another host, and for
    127.0.0.1 at other times."""
    import ssl
    files = [str(tmp_path_factory.mktemp("tls") / "cert.pem") for _ in range(4)]
    for path, name in ((files[0], "IP:127.0.0.1"), (files[1], "DNS:elsewhere.example")):
        with open(path, "w") as config:  # not critical, as with many boxes that inspect TLS; 3.13's own default minds
            config.write("[req]\ndistinguished_name = req\nx509_extensions = box\n"
                         "[box]\nbasicConstraints = CA:TRUE\nsubjectAltName = " + name)
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=test -config"
        try:
            subprocess.run(command.split() + [path, "-keyout", path + ".key", "-out", path], check=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no openssl command that can make a certificate")
    with open(files[0]) as file:
        ours = ssl.PEM_cert_to_DER_cert(file.read())
    for path, date in ((files[2], b"200101000000Z"), (files[3], b"490101000000Z")):
        shutil.copy(files[0] + ".key", path + ".key")
        with open(path, "w") as file:  # nobody checks how a root is signed
            file.write(ssl.DER_cert_to_PEM_cert(re.sub(rb"\d{12}Z", date, ours)))
    return files


@contextlib.contextmanager
def behind_tls(cert):
    """The metadata's address of a server behind this certificate."""
    import ssl
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, cert + ".key")
    with Server() as server:
        server.web.socket = context.wrap_socket(server.web.socket, server_side=True)
        yield server.issuer.replace("http:", "https:") + "/.well-known/openid-configuration"


OK = b"HTTP/1.1 200 OK\r\n"


class TestHTTP:
    def send(self, url, form=None, headers=None, timeout=5, **settings):
        self.traced = []
        return cliauth.Http(settings, self.traced.append).send("POST" if form else "GET", url, form, headers, timeout)

    def test_a_redirect_is_reported_and_never_followed(self, server):
        for status in (301, 302, 303, 307, 308):
            server.script["/token"] = [(status, "", {"Location": server.issuer + "/userinfo"})]
            answer = self.send(server.issuer + "/token", {"code": "c"}, {"Authorization": "Basic eA=="})
            assert (answer.status, answer.headers["Location"]) == (status, server.issuer + "/userinfo")
        assert [path for _, path, _, _ in server.requests] == ["/token"] * 5
        method, _, params, headers = server.requests[0]
        assert (method, params, headers["Accept"]) == ("POST", {"code": "c"}, "application/json")
        assert headers["User-Agent"].startswith("cliauth/%s " % cliauth.__version__)  # GitHub wants one

    @table("head, drop", [
        (b"", b""), (b"", b"H"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (OK, b"A: b\r\n"), (OK + b"\r\n", b"x"),
        (OK + b"Content-Length: 999\r\n\r\n", b"x"), (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n")])
    def test_a_dripping_server_cannot_outlive_the_deadline(self, head, drop):
        with talker(head, *[drop, 0.02] * 100) as place:
            started = time.monotonic()
            words = fails(Unreachable, self.send, "http://%s/" % place, timeout=0.1)
            assert re.search("no whole answer|timed out", words) and time.monotonic() - started < 1.5

    def test_an_endless_body_is_read_no_further_than_the_limit(self):
        with talker(OK + b"\r\n" + b"x" * (cliauth.BODY_LIMIT + (1 << 15)), 3.0) as place:
            assert "answered more than" in fails(InvalidResponse, self.send, "http://%s/" % place, timeout=1)

    @pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy counts no references")
    def test_what_broke_an_exchange_is_not_held_by_its_own_error(self):
        import gc
        import weakref

        class Socket:
            """What the traceback of the error leads to."""

        left = []

        def work():
            socket = Socket()
            left.append(weakref.ref(socket))
            raise OSError("broken")

        gc.disable()
        try:
            with contextlib.suppress(OSError):
                cliauth.Background(work).result(5)
            assert left[0]() is None
        finally:
            gc.enable()

    @table("answer, kind, message", [
        (OK + b"Content-Length: 10\r\n\r\nab", Unreachable, "the answer of http://%s/x was cut short; try again"),
        (OK + b"Content-Length: " + b"9" * 20 + b"\r\n\r\nab", Unreachable, "the answer of http://%s/x was cut short"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", Unreachable, "the answer of %s was cut short; try again"),
        (OK + b"\r\n" + b"x" * 1048577, InvalidResponse, "http://%s/x answered more than 1048576 bytes; check "),
        (b"SSH-2.0-x\x1b\r\n", InvalidResponse, "%s does not speak HTTP (BadStatusLine); check the address"),
        (OK + b"A: b\r\n" * 101 + b"\r\n", InvalidResponse, "%s does not speak HTTP (HTTPException); check"),
        (OK + b"A: " + b"b" * 70000 + b"\r\n\r\n", InvalidResponse, "%s does not speak HTTP (LineTooLong); check the"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"e" * 70000, InvalidResponse, "%s does not speak HTTP (LineT"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + b"x" * 2000000, InvalidResponse, "%s does not speak HTTP "),
        (b"<html>", InvalidResponse, "%s does not speak HTTP (BadStatusLine); check the address"),  # HTTP/0.9
        (b"", Unreachable, "%s cannot be reached: Remote end closed connection without response; check the ")],
        ids=brief)
    def test_a_broken_answer_is_an_error_that_says_what_helps(self, answer, kind, message):
        with talker(answer) as place:
            words = fails(kind, self.send, "http://%s/x?S3CRET" % place)
            assert words.startswith(message.replace("%s", place)) and "; " in words and "S3CRET" not in words
        with talker(OK + b"\r\n" + b"x" * 1048576) as place:
            assert len(self.send("http://%s/" % place).body) == 1048576

    @table("path", ["/?S3CRET", "?S3CRET"])
    def test_a_refused_connection_is_unreachable_and_its_query_is_not_shown(self, path):
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            place = "127.0.0.1:%d" % nobody.getsockname()[1]
            words = fails(Unreachable, self.send, "http://%s%s" % (place, path))
        assert words == place + " cannot be reached: Connection refused; check the address, the network, and any proxy"

    @table("host", ["id.example", "[:]", "[127.0.0.1]"])
    def test_a_host_that_python_cannot_spell_is_an_error_like_any_other(self, host, monkeypatch):
        def lookup(*_, **__):
            raise UnicodeError("label empty or too long")
        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        words = fails(InvalidResponse, self.send, "https://%s/" % host)
        assert words.startswith(host + " does not speak HTTP (") and words.endswith("; check the address")

    def test_a_name_that_is_looked_up_for_ever_cannot_outlive_the_deadline(self, monkeypatch):
        found = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found.wait(5))
        words = fails(Unreachable, self.send, "https://id.example/", timeout=0.1)
        found.set()
        assert words == "no whole answer within 0.1 s; check the network, and try again"

    def test_nor_can_a_server_that_takes_no_more_of_the_request_nor_one_where_no_thread_can_be_had(self, monkeypatch):
        def start(thread):
            raise RuntimeError("can't start new thread")
        http = cliauth.Http({}, print)
        with talker(5.0) as place:
            words = fails(Unreachable, http.open, "POST", "http://%s/" % place, b"x" * (1 << 24), timeout=0.1)
            assert re.search("no whole answer|timed out", words)
        with talker(5.0) as place:
            monkeypatch.setattr(threading.Thread, "start", start)
            words = fails(Unreachable, http.open, "GET", "http://%s/" % place, timeout=0.1)
        assert words == place + " cannot be reached: timed out; check the address, the network, and any proxy"

    def test_head_and_body_share_one_deadline(self, monkeypatch):
        given, result = [], cliauth.Background.result
        monkeypatch.setattr(cliauth.Background, "result", lambda *args: given.append(args[1]) or result(*args))
        with talker(0.05, OK + b"\r\n") as place:
            self.send("http://%s/" % place)
        assert given == [5]

    def test_loopback_never_goes_through_a_proxy_and_all_else_does_but_for_no_proxy(self, server, monkeypatch):
        def nowhere(host, *_, **__):
            raise OSError("there is no network for " + host)
        with talker(b"HTTP/1.1 407 Not you\r\n\r\n") as place:
            for kind in ("http://me:S3CRET@", "HTTP://me:S3CRET@", "me:S3CRET@", ""):
                for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
                    monkeypatch.setenv(name, kind + place)
                assert self.send(server.issuer + "/.well-known/openid-configuration").status == 200
                words = fails(Unreachable, self.send, "https://id.example:84/token", {"code": "S3CRET"})
                assert "407 Not you" in words and "S3CRET" not in words + str(self.traced)
                assert talker.heard.startswith(b"CONNECT id.example:84 HTTP/1.") and b"S3CRET" not in talker.heard
                assert (b"Basic bWU6UzNDUkVU" in talker.heard) == bool(kind)  # me:S3CRET
            monkeypatch.setenv("HTTPS_PROXY", "socks5://" + place)  # of no account where it is not used
            monkeypatch.setenv("NO_PROXY", "other.example, .example")
            monkeypatch.setattr(socket, "getaddrinfo", nowhere)
            assert "no network for id.example;" in fails(Unreachable, self.send, "https://id.example/")

    @table("pieces, kind, message", [
        ([b"SSH-2.0-x\r\n"], InvalidResponse, "id.example does not speak HTTP (BadStatusLine); check the address"),
        ([OK, *[b"A: b\r\n", 0.05] * 100], Unreachable, "no whole answer within 0.2 s; check the network"),
        ([b""], Unreachable, "id.example cannot be reached: "),
        ([OK + b"\r\nSSH-2.0-x\r\n"], Unreachable, "id.example cannot be reached: ")])
    def test_a_broken_proxy_is_an_error_like_a_broken_server(self, pieces, kind, message, monkeypatch):
        with talker(*pieces) as place:
            monkeypatch.setenv("HTTPS_PROXY", "http://me:S3CRET@" + place)
            words = fails(kind, self.send, "https://id.example/", timeout=0.2)
            assert words.startswith(message) and "S3CRET" not in words

    @table("proxy, kind", [
        ("socks5://me:S3CRET@127.0.0.1:1080", "socks5"), ("https://me:S3CRET@127.0.0.1:1080", "https"),
        ("http:/me:S3CRET@127.0.0.1:1", "unknown"),
        ("http://me:S3CRET", "http"), ("http://me:S3/CRET@127.0.0.1:1", "http"), ("//S3CRET@127.0.0.1:1", "unknown")])
    def test_a_proxy_that_python_cannot_use_is_refused_by_name(self, proxy, kind, monkeypatch):
        for name in ("HTTPS_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy)
            assert fails(UsageError, self.send, "https://id.example/") == (
                "Python cannot use a proxy of the kind " + kind
                + "; name one like http://host:port in HTTPS_PROXY, or list the host in NO_PROXY")
            monkeypatch.delenv(name)

    def test_only_a_trusted_certificate_of_that_very_host_and_of_today_will_do(self, certificates, monkeypatch):
        import ssl
        ours, other, expired, early = certificates
        monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda self: self.load_verify_locations(ours))
        with behind_tls(ours) as url:
            assert self.send(url).status == 200  # the system's roots
            words = fails(Unreachable, self.send, url, ca_file=other)
            assert words.startswith("the certificate of 127.0.0.1:") and "--ca-file" in words
            monkeypatch.setenv("SSL_CERT_FILE", other)
            assert fails(Unreachable, self.send, url) == words
            assert self.send(url, ca_file=ours).status == 200
        with behind_tls(other) as url:
            assert fails(Unreachable, self.send, url).endswith("; check the address")
        for cert, cause in ((expired, "certificate has expired"), (early, "certificate is not yet valid")):
            with behind_tls(cert) as url:
                words = fails(Unreachable, self.send, url, ca_file=cert)
                if sys.version_info >= (3, 7):  # 3.6 does not tell why
                    assert " cannot be trusted: " + cause in words and words.endswith("; check this machine's clock")

    def test_what_speaks_no_tls_or_nothing_else_is_no_server_for_us(self, server, certificates):
        url = server.issuer.replace("http:", "https:")
        assert fails(Unreachable, self.send, url).startswith(url[8:] + " cannot be reached: ")
        with behind_tls(certificates[0]) as url:
            assert " cannot be reached: " in fails(Unreachable, self.send, url.replace("https:", "http:"))

    @table("content", [None, "no certificate", ""])
    def test_files_without_certificates_are_an_error(self, content, tmp_path, monkeypatch):
        path = tmp_path / ("ca.pem" if WINDOWS else "ca\x1b.pem")
        if content is not None:
            path.write_text(content)
        words = fails(UsageError, self.send, "https://127.0.0.1:1/", client_cert=str(path))
        assert words.startswith("the client certificate %s cannot be used (" % cliauth.visible(path))
        words = fails(UsageError, self.send, "https://127.0.0.1:1/", ca_file=str(path))
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        assert words == fails(UsageError, self.send, "https://127.0.0.1:1/")
        why = "No such file or directory" if content is None else "it holds none in PEM"
        assert words == "no CA certificates can be read from %s: %s; check login's --ca-file or SSL_CERT_FILE" % (
            cliauth.visible(path), why)

    def test_nor_has_every_system_some(self, monkeypatch):
        import ssl
        monkeypatch.setattr(ssl.SSLContext, "load_default_certs", refusing(errno.ENOENT))  # as PyPy says so
        assert fails(UsageError, self.send, "https://127.0.0.1:1/").startswith(
            "no CA certificates can be read from this system: No such file or directory; check login's --ca-file ")

    def test_neither_trace_nor_error_tells_a_secret(self, server):
        server.script["/token"] = [(400, {"error": "no", "error_description": "S3CRET HIDDEN", "\x1bname": "S3CRET"},
                                    {"Content-Type": "application/json\x1b"})]
        form, headers = {"code": "S3CRET", "scope": "", "client_id": "c"}, {"Authorization": "Bearer HIDDEN"}
        answer = self.send(server.issuer + "/token?key=S3CRET", form, headers)
        traced = "\n".join(self.traced)
        place = server.issuer + "/token"
        assert re.sub(r"\d\.\d{3}", "S", traced) == (
            "> POST %s, 23 bytes: code, client_id\n< 400 from %s after S s\n< %d bytes from %s, application/json\\x1b: "
            "error, error_description, \\x1bname" % (place, place, len(answer.body), place))
        assert "S3CRET" not in traced and "HIDDEN" not in traced
        assert "400 no (… …); " in fails(ErrorResponse, cliauth.read_answer, answer)


# ─── 6 Terminal ──────────────────────────────────────────────────────────────────────────────────────────────────────

DISPLAY, LINUX = {"DISPLAY": ":0"}, {"/proc/version": "Linux version 6.1"}
WSL = {"/proc/version": "Linux version 5.15-microsoft-standard-WSL2"}
DOCKER, PODMAN = dict(LINUX, **{"/.dockerenv": ""}), dict(LINUX, **{"/run/.containerenv": ""})
SSH, TTY = {"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, {"SSH_TTY": "/dev/pts/1"}
CODE = {"BROWSER": "/home/me/.vscode-server/bin/helpers/browser.sh"}  # VS Code's way to its own desktop
HELPER, RUNDLL = CODE["BROWSER"], "\\System32\\rundll32.exe url.dll,FileProtocolHandler"
AWAY, NOTHING = ", so your browser is on another machine", ""


class TestTerminal:
    @table("reason, rows", [  # where it runs; environment; platform, or files that tell; what is installed; what opens
        ("this is a desktop", [
            ("X11", DISPLAY, LINUX, "xdg-open firefox", "xdg-open"),
            ("Wayland", {"WAYLAND_DISPLAY": "w"}, LINUX, "firefox", "firefox"),
            ("Windows", {}, "win32", "", "C:\\Windows" + RUNDLL),
            ("Windows elsewhere", {"SystemRoot": "D:\\W"}, "win32", "", "D:\\W" + RUNDLL),
            ("Windows, where bad is bad.CMD", {"BROWSER": "bad"}, "win32", "bad>bad.CMD", "C:\\Windows" + RUNDLL),
            ("macOS", {}, "darwin", "", "/usr/bin/open"),
            ("Android", {"TERMUX_VERSION": "1"}, LINUX, "xdg-open", "xdg-open"),
            ("VS Code here", dict(DISPLAY, TERM_PROGRAM="vscode"), LINUX, "xdg-open", "xdg-open"),
            ("a tmux that SSH began, seen here", dict(DISPLAY, TMUX="x", **TTY), LINUX, "xdg-open", "xdg-open"),
            ("toolbox, distrobox", DISPLAY, PODMAN, "firefox", "firefox"),
            ("WSL with a Linux browser", DISPLAY, WSL, "xdg-open", "xdg-open")]),
        ("BROWSER is set", [
            ("anywhere", {"BROWSER": "'a:gone:lynx:/bin/links:mine --new %s"}, LINUX, "lynx /bin/links mine",
             "mine --new %s"),
            ("as Python's webbrowser takes it", {"BROWSER": "mine %s &"}, LINUX, "mine", "mine %s"),
            ("with quotes", {"BROWSER": "\"mine\" 'a\"b' %s"}, LINUX, "mine", 'mine a"b %s'),
            ("no Windows", {"BROWSER": "mine.cmd"}, LINUX, "mine.cmd", "mine.cmd"),
            ("SSH", dict(SSH, BROWSER="mine", **TTY), LINUX, "mine", "mine"),
            ("Codespaces", {"CODESPACES": "true", "BROWSER": "mine"}, LINUX, "mine", "mine"),
            ("Windows", {"BROWSER": "gone;bad.cmd;D:\\B.BAT;C:\\ff.exe -x"}, "win32", "bad.cmd D:\\B.BAT C:\\ff.exe",
             "C:\\ff.exe -x"),
            ("Windows, with quotes", {"BROWSER": '"C:\\ff.exe" -x="%s"'}, "win32", "C:\\ff.exe", "C:\\ff.exe -x=%s"),
            ("VS Code over SSH", dict(SSH, **CODE), LINUX, HELPER, HELPER),
            ("VS Code in WSL", CODE, WSL, HELPER, HELPER),
            ("a dev container", dict(CODE, REMOTE_CONTAINERS="true"), DOCKER, HELPER, HELPER)]),
        ("this is WSL", [
            ("WSL 2", {}, WSL, "wslview rundll32.exe", "wslview"),
            ("WSL 1", {}, {"/proc/version": "Linux 4.4-Microsoft"}, "wslview", "wslview"),
            ("without wslu", {"WSL_INTEROP": "x"}, LINUX, "rundll32.exe", "rundll32.exe url.dll,FileProtocolHandler"),
            ("without the PATH of Windows", {}, WSL, "/mnt/c/Windows/System32/rundll32.exe",
             "/mnt/c/Windows/System32/rundll32.exe url.dll,FileProtocolHandler")]),
        ("this is an SSH session" + AWAY, [
            ("ssh -X", dict(DISPLAY, **SSH), LINUX, "xdg-open", NOTHING), ("macOS", SSH, "darwin", "", NOTHING),
            ("Windows", SSH, "win32", "", NOTHING), ("WSL", SSH, WSL, "wslview", NOTHING),
            ("a text browser", dict(SSH, BROWSER="w3m"), LINUX, "w3m", NOTHING),
            ("a new pane of a tmux of this desktop", dict(SSH, TMUX="x"), LINUX, "xdg-open", NOTHING)]),
        ("CODESPACES is set" + AWAY, [
            ("Codespaces", dict(DISPLAY, CODESPACES="true"), LINUX, "xdg-open", NOTHING),
            ("its VS Code", dict(CODE, CODESPACES="true", REMOTE_CONTAINERS="true"), DOCKER, HELPER, NOTHING)]),
        ("GITPOD_WORKSPACE_URL is set" + AWAY, [
            ("Gitpod", dict(DISPLAY, GITPOD_WORKSPACE_URL="x"), LINUX, "xdg-open", NOTHING),
            ("its terminals", {"GITPOD_WORKSPACE_URL": "x", "BROWSER": "/.supervisor/browser.sh"}, LINUX,
             "/.supervisor/browser.sh", NOTHING)]),
        ("CLOUD_SHELL is set" + AWAY, [
            ("Cloud Shell", dict(DISPLAY, CLOUD_SHELL="true"), LINUX, "xdg-open", NOTHING)]),
        ("this is VS Code in a browser or through a tunnel" + AWAY, [
            ("code-server, serve-web, Ona", CODE, LINUX, HELPER, NOTHING),
            ("code tunnel, begun over SSH", dict(CODE, **SSH, **TTY), LINUX, HELPER, NOTHING)]),
        ("this is a container", [
            ("docker", {}, DOCKER, "xdg-open", NOTHING), ("podman", {}, PODMAN, "firefox", NOTHING),
            ("docker under WSL", {}, dict(DOCKER, **WSL), "wslview rundll32.exe", NOTHING)]),
        ("there is no display", [
            ("a server's console", {}, LINUX, "xdg-open", NOTHING),
            ("sudo over SSH", {"SUDO_UID": "1"}, LINUX, "xdg-open", NOTHING),
            ("WSL without Windows's programs", {}, WSL, "", NOTHING),
            ("empty variables", {"DISPLAY": "", "CODESPACES": "", "BROWSER": ""}, LINUX, "xdg-open", NOTHING),
            ("text browsers", {"BROWSER": "links2:elinks:browsh:carbonyl:www-browser:w3m"}, LINUX,
             "links2 elinks browsh carbonyl www-browser w3m", NOTHING),
            ("a wrong BROWSER", {"BROWSER": "gone"}, LINUX, "", NOTHING)]),
        ("no browser is installed", [("X11", DISPLAY, LINUX, "lynx w3m", NOTHING)])])
    def test_where_it_runs_decides_how_auto_signs_in(self, reason, rows):
        for where, environ, files, installed, argv in rows:
            platform, files = (files, {}) if isinstance(files, str) else ("linux", files)
            known = platform, files, {name.split(">")[0]: name.split(">")[-1] for name in installed.split()}.get
            argv, flows = argv.split(), ["browser"] * bool(argv) + ["device", "paste"]
            assert cliauth.choose_flows(environ, *known, True) == (argv, flows, reason), where
            assert cliauth.choose_flows(environ, *known, False) == (
                (argv, flows, reason) if argv else ([], [], reason + ", and stderr is no terminal")), where
            job = dict(environ, CI="true")  # whatever BROWSER says; what opens is for a flow that was asked for
            assert cliauth.choose_flows(job, *known, True) == (argv, [], "CI is set"), where
            assert cliauth.choose_flows(environ, *known, True, open_browser=False) == (
                [], ["browser", "device", "paste"], "--no-browser was given"), where

    @table("environ, name", [
        ({}, ""), ({"CI": "woodpecker"}, "CI"), ({"CI": "False"}, ""), ({"CI": "0"}, ""), ({"CI": ""}, ""),
        ({"CI": "no"}, ""), ({"CI": "off"}, ""),
        ({"CI": "false", "TF_BUILD": "True"}, "TF_BUILD")] + [({name: "x"}, name) for name in (
            "GITHUB_ACTIONS", "GITLAB_CI", "TF_BUILD", "JENKINS_URL", "BUILDKITE", "TEAMCITY_VERSION",
            "CODEBUILD_BUILD_ARN")])
    def test_in_a_ci_job_nobody_is_there(self, environ, name):
        flows, reason = cliauth.choose_flows(dict(environ, BROWSER="x"), "linux", {}, {"x": "x"}.get, True)[1:]
        assert (bool(flows), reason) == (not name, name + " is set" if name else "BROWSER is set")

    def test_three_files_tell_of_containers_and_of_wsl(self, monkeypatch):
        monkeypatch.setattr("builtins.open", lambda path, **how: io.StringIO("text of " + path))
        monkeypatch.setattr(cliauth, "choose_flows", lambda environ, platform, files, *_: files)
        assert Terminal().surroundings() == {
            path: "text of " + path for path in ("/.dockerenv", "/run/.containerenv", "/proc/version")}

    def test_the_browser_of_this_machine_may_have_a_space_in_its_name(self, monkeypatch, tmp_path):
        (tmp_path / "my browser.exe").touch(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("BROWSER", "my browser.exe")
        flows = ["browser", "device", "paste"]
        assert Terminal().surroundings() == (["my browser.exe"], flows, "BROWSER is set")

    TELL = ("import json, os, socket, sys; print('noise'); print('noise', file=sys.stderr); session = getattr(os, "
            "'getsid', id)(0); secret = 'CLIAUTH_CLIENT_SECRET' in os.environ; socket.create_connection(('127.0.0.1', "
            "int(sys.argv[1]))).sendall(json.dumps([sys.argv[2:], sys.stdin.read(), session, secret]).encode())")

    @table("argv, expected", [([], "%s"), (["--app=%s", "--new"], "--app=%s --new")])
    def test_the_browser_is_started_detached_without_a_shell_and_without_our_secrets(
            self, argv, expected, monkeypatch, capfd):
        monkeypatch.setenv("CLIAUTH_CLIENT_SECRET", "S3CRET")
        url = "https://id.example/a?b=$(touch${IFS}x);`id`|'\"&c=%20<>*~"
        with socket.socket() as door:
            door.bind(("127.0.0.1", 0))
            door.listen(1)
            door.settimeout(10)
            Terminal().open_browser([sys.executable, "-c", self.TELL, str(door.getsockname()[1])] + argv, url)
            with door.accept()[0] as told, told.makefile("rb") as words:
                args, stdin, session, secret = json.loads(words.read().decode())
        plain = "https://id.example/a?b=%24%28touch%24%7BIFS%7Dx%29;%60id%60%7C%27%22&c=%20%3C%3E*~"  # for scripts
        assert (args, stdin, secret) == ([part.replace("%s", plain) for part in expected.split()], "", False)
        assert WINDOWS or session != os.getsid(0)
        assert capfd.readouterr() == ("", "")

    @table("url", ["http://id.example/", "file:///etc/passwd", "javascript:alert(1)", "--help", "https://id/ x"])
    def test_only_a_checked_address_is_opened_and_a_browser_that_does_not_start_is_no_failure(self, url, capsys):
        assert fails(UsageError, Terminal().open_browser, ["/nowhere"], url).startswith("the address to open ")
        Terminal().open_browser(["/nowhere"], "https://id.example/")
        assert re.match(r"The browser did not start \(.*(No such|not found|find).*\); open ", capsys.readouterr().err)

    @table("quiet, verbose, shown", [(0, 0, "say\nnote\n"), (1, 0, "say\n"), (0, 1, "say\nnote\ntrace\n")])
    def test_quiet_leaves_out_notes_and_verbose_adds_the_trace(self, quiet, verbose, shown, capsys):
        terminal = Terminal(quiet, verbose)
        for work in (terminal.say, terminal.note, terminal.trace):
            work(work.__name__)
        terminal.countdown("it", 5)  # not where stderr is no terminal
        assert capsys.readouterr() == ("", shown)

    @table("stream, words", [
        (lambda: None, "stdout is closed"), (lambda: io.TextIOWrapper(io.BytesIO()).detach(), "stdout is closed"),
        (lambda: [stream.close() or stream for stream in [io.StringIO()]][0], "stdout is closed"),
        pytest.param(lambda: open("/dev/full", "w"), "No space left on device", marks=posix("/dev/full")),
        (lambda: io.TextIOWrapper(io.BytesIO(), "ascii"), "")])
    def test_what_cannot_be_said_is_left_out_and_what_cannot_be_printed_is_an_error(self, stream, words, monkeypatch):
        for name, work in (("stderr", Terminal().say), ("stdout", cliauth.out)):
            opened = stream()
            monkeypatch.setattr(sys, name, opened)
            if words and name == "stdout":
                assert fails(Unreachable, work, "→").startswith("the output could not be written: " + words)
            else:
                work("→")
            assert words or opened.buffer.getvalue().strip() == b"\\u2192"
            with contextlib.suppress(AttributeError, OSError):
                opened.close()

    @pytest.mark.skipif(sys.version_info < (3, 7), reason="Python 3.6 cannot change how lines end")
    def test_on_windows_too_a_result_ends_with_a_line_feed_alone(self, monkeypatch):
        stdout = io.TextIOWrapper(io.BytesIO(), newline="\r\n")
        with monkeypatch.context() as there:
            there.setattr(sys, "stdout", stdout)
            there.setattr(os, "name", "nt")
            codes = [cliauth.guarded(lambda: cliauth.out("a\n"))]
            seen = stdout.buffer.getvalue()
            stdout.close()
            codes.append(cliauth.guarded(lambda: cliauth.out("b\n")))
        assert seen == b"a\n" and codes == [0, 4]

    def test_a_countdown_stands_on_a_terminal_alone_and_is_wiped(self, monkeypatch):
        master, slave = terminal_pair()
        line = "Waiting for the browser: 4:09 left, Ctrl-C ends it "
        with open(slave, "w") as stderr, open(master, "rb", 0) as seen:
            monkeypatch.setattr(sys, "stderr", stderr)
            for quiet, term, expected in [(True, "", ""), (False, "dumb", ""),
                                          (False, "xterm", "\r%s\r%s\r" % (line, " " * len(line)))]:
                monkeypatch.setenv("TERM", term)
                terminal, shown = Terminal(quiet), b""
                for left in (249.9, 249.1):  # which shows no other line
                    terminal.countdown("the browser", left)
                terminal.say("end")
                while not shown.endswith(b"end\r\n"):
                    shown += seen.read(1000)
                assert shown.decode() == expected + "end\r\n"

    def test_lines_are_read_from_the_descriptor_as_they_come(self, monkeypatch):
        (reading, writing), terminal = os.pipe(), Terminal()
        with open(reading) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            with terminal.keyboard(terminal_only=True) as nobody:
                assert nobody is None  # a pipe is not where somebody types
            with terminal.keyboard(terminal_only=False) as keyboard:
                assert WINDOWS or keyboard == reading
                for data, line in ((b"ha", None), (b"lf \r\nne", "half"), (b"xt\n", "next"), (b"l\xff", None)):
                    os.write(writing, data)
                    assert terminal.read_line(keyboard) == line
                typed, terminal.typed = terminal.typed, b"x" * (1 << 20)
                os.write(writing, b"y")
                with pytest.raises(EOFError):  # nobody types a line of a megabyte
                    terminal.read_line(keyboard)
                terminal.typed = typed
                os.close(writing)
                assert terminal.read_line(keyboard) == "l\ufffd"
                with pytest.raises(EOFError):
                    terminal.read_line(keyboard)
        for closed in (stdin, None, io.StringIO()):
            monkeypatch.setattr(sys, "stdin", closed)
            with terminal.keyboard(terminal_only=False) as nobody:
                assert nobody is None

    DRAWN = "\x1b[40;37;1m█▀▄█\x1b[0m\n\x1b[40;37;1m█  █\x1b[0m\n"  # .ci/looks.py has the real one, and reads it

    @posix("pseudo-terminals")
    @table("columns, environ, quiet, encoding, drawn, shown", [
        (80, {}, False, "utf-8", DRAWN, True), (80, {"NO_COLOR": "1"}, False, "utf-8", "█▀▄█\n", True),
        (4, {}, False, "utf-8", DRAWN, True), (3, {}, False, "utf-8", DRAWN, False),
        (0, {}, False, "utf-8", DRAWN, True), (80, {"TERM": "dumb"}, False, "utf-8", DRAWN, False),
        (80, {}, True, "utf-8", DRAWN, False), (80, {}, False, "latin-1", DRAWN, False),
        (80, {}, False, "utf8", DRAWN, True), (80, {}, False, "UTF-8", DRAWN, True),
        (80, {"NO_COLOR": ""}, False, "utf-8", DRAWN, True), (3, {}, False, "utf-8", "    \n█\n", False),
        (80, {"PATH": ""}, False, "utf-8", DRAWN, False), (80, {}, False, "utf-8", "", False),
        (80, {"CODE": "1"}, False, "utf-8", DRAWN, False), (80, {}, False, "utf-8", "█\udcff\n", False),
        (80, {}, False, "utf-8", "█\x1b]0;m█\n", False), (80, {}, False, "utf-8", "█\x1b[?25l█\n", False)])
    def test_an_address_is_drawn_where_qrencode_is_there_and_the_terminal_can_show_it(
            self, columns, environ, quiet, encoding, drawn, shown, monkeypatch, tmp_path, capfd):
        import fcntl
        import struct
        import termios
        monkeypatch.setenv("CLIAUTH_CLIENT_SECRET", "s3cret")
        monkeypatch.setenv("PATH", "%s:%s" % (tmp_path, os.environ["PATH"]))
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        program, told = tmp_path / "qrencode", tmp_path / "told"
        (tmp_path / "drawn").write_bytes(drawn.encode("utf-8", "surrogateescape"))
        program.write_text("#!/bin/sh\ncd '%s' && { echo \"$@\"; cat; env; } > told; cat drawn; echo hm >&2\n"
                           "exit $CODE\n" % tmp_path)
        program.chmod(0o755)
        master, slave = terminal_pair()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        with open(slave, "w", encoding=encoding) as stderr, open(master, "rb", 0) as seen:
            monkeypatch.setattr(sys, "stderr", stderr)
            Terminal(quiet).draw("https://a.example/device?user_code=WDJB")
            stderr.write("end")
            stderr.flush()
            screen = b""
            while not screen.endswith(b"end"):
                screen += seen.read(4096)
        assert screen.decode() == (drawn.replace("\n", "\r\n") if shown else "") + "end"
        assert capfd.readouterr() == ("", "")
        if shown:  # the address on stdin, not where `ps` shows it
            kind = "UTF8" if environ.get("NO_COLOR") else "ANSIUTF8"
            assert told.read_text().startswith("-m 2 -t %s\nhttps://a.example/device?user_code=WDJB" % kind)
            assert "s3cret" not in told.read_text()

    def test_a_program_that_does_not_draw_is_in_nobodys_way(self, monkeypatch):
        monkeypatch.setattr(Terminal, "interactive", lambda self: True)
        monkeypatch.setattr(shutil, "which", {"qrencode": "/nowhere/qrencode"}.get)
        with io.TextIOWrapper(io.BytesIO(), "utf-8") as stderr:
            monkeypatch.setattr(sys, "stderr", stderr)
            Terminal().draw("https://a.example/")
            assert not stderr.buffer.getvalue()

    @table("reads, system", [(False, "posix"), (True, "nt")])
    def test_where_nobody_reads_and_on_windows_no_program_is_looked_for(self, monkeypatch, reads, system):
        monkeypatch.setattr(shutil, "which", lambda name: pytest.fail("%s was looked for" % name))
        monkeypatch.setattr(Terminal, "interactive", lambda self: reads)
        with io.TextIOWrapper(io.BytesIO(), "utf-8") as stderr, monkeypatch.context() as there:
            there.setattr(sys, "stderr", stderr)
            there.setattr(os, "name", system)
            Terminal().draw("https://a.example/")

    def test_from_a_terminal_is_read_in_the_foreground_alone(self, monkeypatch):
        master, slave = terminal_pair()
        with open(slave, closefd=False) as stdin, open(slave, "w") as stderr, open(master, "rb", 0):
            monkeypatch.setattr(sys, "stdin", stdin)
            monkeypatch.setattr(sys, "stderr", stderr)
            for off, expected in ((0, slave), (1, None)):  # in the background SIGTTIN would stop us
                monkeypatch.setattr(os, "tcgetpgrp", lambda fd, off=off: os.getpgrp() + off)
                with Terminal().keyboard(terminal_only=True) as keyboard:
                    assert keyboard == expected


# ─── 7 Loopback ──────────────────────────────────────────────────────────────────────────────────────────────────────

TRUE = "GET /callback?code=MARK&state=ours HTTP/1.1\r\nHost: {host}\r\n\r\n"


def listening(uri="http://127.0.0.1:0/callback"):
    return contextlib.closing(cliauth.Listener(uri))


def need_ipv6():
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no ::1")


def connect(listener, request="", which=0):
    client = socket.socket(listener.sockets[which].family)
    client.settimeout(5)
    client.connect(listener.sockets[which].getsockname())
    client.sendall(request.replace("{host}", listener.hosts[0]).encode("latin-1"))
    return client


def serve(listener, client=None):
    """Lets the listener work until it has the authorization response, has answered the client, or has no more to do."""
    for _ in range(100):
        ready = select.select(listener.sources() + ([client] if client else []), [], [], 5 if client else 0)[0]
        params = None if client in ready else listener.step(ready, lambda params: params.get("state") == "ours")
        if params or not ready or client in ready:
            return params
    return pytest.fail("it turns in circles")


def visit(listener, request=TRUE, which=0, signed_in=True):
    """The parameters that the listener took from this request, and the page that it answered."""
    with connect(listener, request, which) as client:
        if "\r\n\r\n" not in request:
            client.shutdown(socket.SHUT_WR)
        params = serve(listener, client)
        if params:
            client.settimeout(0)
            with pytest.raises(BlockingIOError):  # nothing is said before the code has been exchanged
                client.recv(1)
            client.settimeout(5)
            listener.answer(signed_in)
        with contextlib.suppress(ConnectionResetError):
            return params, b"".join(iter(lambda: client.recv(1 << 16), b"")).decode()
        return params, ""


class TestLoopback:
    @table("uri, target, which", [
        ("http://127.0.0.1:0/callback", "/callback", 0), ("http://127.0.0.1:0", "/", 0), ("http://[::1]:0/", "/", 0),
        ("http://127.0.0.1:0/a/b?x=0", "/a/b", 0), ("http://[::1]:0/cb", "/cb", 0), ("http://localhost:0", "/", 0),
        ("http://localhost:0/callback", "/callback", 1)])
    def test_the_callback_arrives_at_the_redirect_uri_as_it_was_given(self, uri, target, which, monkeypatch):
        if "127.0.0.1" not in uri:
            need_ipv6()
        for name in ("getaddrinfo", "gethostbyaddr", "getnameinfo", "getfqdn"):  # nobody is looked up
            monkeypatch.delattr(socket, name)
        with listening(uri) as listener:
            port = listener.sockets[0].getsockname()[1]
            assert listener.redirect_uri == uri.replace(":0", ":%d" % port, 1)
            addresses = {"[": ["::1"], "l": ["127.0.0.1", "::1"]}.get(uri[7], ["127.0.0.1"])
            assert [each.getsockname()[:2] for each in listener.sockets] == [(address, port) for address in addresses]
            sharing = getattr(socket, "SO_REUSEPORT", socket.SO_REUSEADDR)  # which on Windows does the same
            assert not any(each.getsockopt(socket.SOL_SOCKET, sharing) for each in listener.sockets)
            params, page = visit(listener, TRUE.replace("/callback?code=MARK", target + "?x=0&code=a%20b"), which)
            assert params == {"x": "0", "code": "a b", "state": "ours"} and page.startswith("HTTP/1.1 200 OK\r\n")

    def test_blanks_around_a_header_are_no_part_of_it(self):  # RFC 9110 §5.5
        with listening() as listener:
            head = TRUE.replace("Host: {host}", "Host:{host} \t\r\nSec-Fetch-Mode:\tnavigate ")
            assert visit(listener, head)[0] == {"code": "MARK", "state": "ours"}

    def test_a_parameter_that_nobody_needs_may_be_in_any_encoding(self):
        with listening() as listener:
            params = visit(listener, TRUE.replace("&state", "&who=Ren%E9&state"))[0]
            assert params == {"code": "MARK", "who": "Ren\ufffd", "state": "ours"}

    @table("status, ignored, changes", [  # the answer, what is remembered, what is changed in the true request
        (405, "a request that was no GET", [("GET", "POST"), ("GET", "HEAD"), ("GET", "OPTIONS")]),
        (400, "a request that was no GET", [("GET ", "GET http://{host}"), ("GET", "get"), ("MARK", "\0"),
                                            ("MARK", "\xe9"), (" HTTP/1.1", ""), ("HTTP/1.1", "HTTP/1.1x"),
                                            (TRUE, "PRI * HTTP/2.0\r\n\r\n")]),
        (None, "a request that was no GET", [(TRUE, "GET /" + "x" * 70000)]),  # an answer may get lost
        (400, "a request for host evil\\x1b.example", [
            ("{host}", "evil\x1b.example"), (TRUE, "GET / HTTP/1.1\r\nHost: evil\x1b.example\r\n\r\n")]),
        (400, ..., [("{host}", host) for host in ("{host}.evil.example", "{host}0", "evil.x:{host}", "me@{host}")]),
        (400, "a request for host 127.0.0.1", [("{host}", "127.0.0.1")]),
        (400, "a request for host None", [("Host: {host}\r\n", ""), ("Host", "X-Forwarded-Host")]),
        (400, "a request in which a name comes twice", [("\r\n\r\n", "\r\nhost: evil.example\r\n\r\n")]),
        (404, None, [("/callback?code=MARK&state=ours", "/favicon.ico"),
                     (TRUE, "GET /favicon.ico HTTP/1.1\r\nSec-Fetch-Mode: no-cors\r\nHost: {host}\r\n\r\n")] + [
            ("/callback", path) for path in ("/callback/", "/Callback", "/%63allback", "//callback", "/")]),
        (400, "a request from inside a page", [
            ("\r\n\r\n", "\r\nSec-Fetch-Mode: %s\r\n\r\n" % mode) for mode in ("cors", "no-cors", "websocket")]),
        (400, "a request in which a name comes twice", [
            ("&state", "&code=2&state"), ("&state=", "&code=2&state=not-"), ("ours", "ours&%73tate=ours")]),
        (400, ..., [("MARK", "%ff")]),
        (400, "an answer without our state", [("ours", "theirs"), ("&state=ours", ""), ("code=MARK", "")]),
        (400, "an answer without our state (error denied\\x1b)", [
            ("code=MARK&state=ours", "error=denied%1b&state=theirs"), ("code=MARK&state=ours", "error=denied%1b")]),
        (0, None, [(TRUE, TRUE[:-2]), (TRUE, ""), (TRUE, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")])])  # TLS
    def test_whatever_is_not_the_answer_is_turned_away_and_the_wait_goes_on(self, status, ignored, changes):
        with listening() as listener:
            for old, new in changes:
                params, page = visit(listener, TRUE.replace(old, new))
                assert params is None and not re.search("MARK|theirs|evil|denied", page)
                assert status is None or page[:13] == ("HTTP/1.1 %d " % status if status else "")
                assert "return to the terminal" in page or not page
            assert ignored is ... or listener.ignored == [ignored] * (ignored is not None)
            assert visit(listener)[0] == {"code": "MARK", "state": "ours"}

    def test_what_was_ignored_is_remembered_once_and_not_without_end(self):
        with listening() as listener:
            for number in [1, 1] + list(range(9)):
                visit(listener, TRUE.replace("{host}", "h%d" % number))
            assert listener.ignored == ["a request for host h%d" % number for number in (1, 0, 2, 3, 4)]

    @table("signed_in, status, title", [(True, "200 OK", "Signed in"), (False, "400 Bad Request", "Sign-in failed")])
    def test_the_page_tells_the_truth_and_reflects_nothing(self, signed_in, status, title):
        request = TRUE.replace("code=", "error=").replace("Host", "Sec-Fetch-Mode: navigate\r\nCookie: MARK\r\nHost")
        with listening() as listener:
            params, page = visit(listener, request, signed_in=signed_in)
        head, _, body = page.partition("\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        assert params == {"error": "MARK", "state": "ours"} and "MARK" not in page and "terminal" in body
        assert head.startswith("HTTP/1.1 %s\r\n" % status) and "<h1>%s</h1>" % title in body
        assert headers == {
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            "Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body.encode())),
            "Connection": "close", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff"}

    def test_300_idle_and_slow_connections_delay_nothing_and_cost_nothing(self):
        started = time.monotonic()
        with listening() as listener, contextlib.ExitStack() as stack:
            for number in range(300):
                stack.enter_context(connect(listener, "GET /callback?code=" if number % 2 else ""))
                serve(listener)
            assert len(listener.heads) <= 64 and not select.select(listener.sources(), [], [], 0)[0]
            assert {each.gettimeout() for each in listener.sources()} == {0}
            slow = stack.enter_context(connect(listener, TRUE[:30]))
            for _ in range(60):  # the oldest make room
                stack.enter_context(connect(listener))
                assert serve(listener) is None
            slow.sendall(TRUE[30:].replace("{host}", listener.hosts[0]).encode())
            assert serve(listener, slow) == {"code": "MARK", "state": "ours"}
        assert time.monotonic() - started < 2

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets select go beyond the file limit")
    def test_at_the_file_limit_an_idle_connection_makes_room(self):
        import resource
        with listening() as listener, contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(connect(listener))
                serve(listener)
            client = stack.enter_context(connect(listener, TRUE))
            spare = [os.dup(0)]
            while spare[-1] < client.fileno():
                spare.append(os.dup(0))
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare[-1] + 1, hard))
            try:
                assert serve(listener, client) == {"code": "MARK", "state": "ours"} and len(listener.heads) == 1
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for descriptor in spare:
                    os.close(descriptor)

    def test_a_port_that_is_taken_or_impossible_is_an_os_error_and_nothing_stays_open(self):
        need_ipv6()
        with listening("http://localhost:0") as taken:
            port = taken.sockets[0].getsockname()[1]
            taken.sockets.pop(0).close()  # 127.0.0.1 is free again, ::1 is not
            for host, at in (("[::1]", port), ("localhost", port), ("127.0.0.1", 70000)):
                with pytest.raises(OSError):
                    cliauth.Listener("http://%s:%d/callback" % (host, at))
            cliauth.Listener("http://127.0.0.1:%d/callback" % port).close()

    def test_a_port_that_is_taken_is_called_so_where_there_is_no_ipv6_too(self, monkeypatch):
        def bind(host, port):
            raise OSError(errno.EADDRNOTAVAIL if ":" in host else errno.EADDRINUSE, "")
        monkeypatch.setattr(cliauth, "bind", bind)
        with pytest.raises(OSError) as error:
            cliauth.Listener("http://localhost:6363")
        assert error.value.errno == errno.EADDRINUSE

    def test_on_windows_the_port_is_ours_alone(self, monkeypatch):
        monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)  # any that can be read
        monkeypatch.setattr(os, "name", "nt")
        with cliauth.bind("127.0.0.1", 0) as listener:
            alone, shared = (listener.getsockopt(socket.SOL_SOCKET, option) for option in (
                socket.SO_KEEPALIVE, socket.SO_REUSEADDR))
        monkeypatch.undo()
        assert alone and not shared

    def test_a_fixed_port_can_be_used_again_at_once(self):
        with listening() as listener:
            visit(listener)
        with listening(listener.redirect_uri) as again:
            assert again.redirect_uri == listener.redirect_uri and visit(again)[0]


# ─── 8 Flows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

TOKEN = {"access_token": "at-1", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "rt-1"}
PENDING = (400, {"error": "authorization_pending"})


def fetch(url, form=None):
    """Status, headers and body of one request, whose redirect is not followed; a form is posted."""
    from http.client import HTTPConnection
    host, path = re.match("http://([^/?]+)(.*)", url).groups()
    path = path if path.startswith("/") else "/" + path  # as browsers do
    with contextlib.closing(HTTPConnection(host, timeout=5)) as connection:
        connection.request("POST" if form else "GET", path, cliauth.encode_form(form) if form else None)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


def query(url):
    return cliauth.parse_form(url.partition("?")[2])


def decide(server, address, decision="allow"):
    """Presses a button on the page at the address; the redirect that comes of it."""
    number = re.search("name=request value=([^>]+)", fetch(address)[2]).group(1)
    site = re.match("http://[^/]+", address).group()
    return fetch(site + "/decision", {"request": number, "decision": decision})[1].get("Location")


def redirected(server, address):
    """Where a server that asks nobody sends the browser from this address."""
    uri = query(address)["redirect_uri"]
    return cliauth.with_query(uri if uri.count("/") > 2 else uri + "/", {
        "code": "code-1", "state": query(address)["state"], "iss": server.issuer})


def signed(**claims):
    """A JWT whose signature nobody can check."""
    return ".".join(cliauth.base64url(json.dumps(part).encode()) for part in ({"alg": "RS256"}, claims, "signature"))


def failure(work, *args, **options):
    """Exit code and text of the error that the work ends with."""
    with pytest.raises(cliauth.AuthError) as error:
        work(*args, **options)
    return error.value.exit_code, str(error.value)


def held(client):
    """What is in the client's token file."""
    with open(client.locate().path, encoding="utf-8") as file:
        return json.load(file)


class Played(Terminal):
    """A terminal that remembers what it says; `visit` plays its browser, `typist` types what an address leads to."""

    def __init__(self, visit=None, typist=None, pen=None):
        super().__init__()
        self.text, self.opened, self.visit, self.typist, self.pen, self.tty = "", [], visit, typist, pen, False
        self.drawn = []

    def write(self, text):
        self.text += text

    def draw(self, address):
        self.drawn.append(address)

    def interactive(self):
        return self.tty

    def surroundings(self, open_browser=True):
        environ, which = dict(os.environ, **({"BROWSER": "browser"} if self.visit else {})), {"browser": "browser"}.get
        return cliauth.choose_flows(environ, "linux", {}, which, self.tty, open_browser)

    def open_browser(self, argv, url):
        self.opened.append(url)
        self.visited = cliauth.Background(lambda: self.visit(url))
        if "/device" in url:  # the person is quicker than the first poll
            self.visited.result(5)

    def say(self, text):
        super().say(text)
        shown = re.search(r"\n    (https?://\S+)\n", text)
        if shown and self.typist:
            with os.fdopen(self.pen, "w") as pen:
                pen.write("".join(line + "\n" for line in self.typist(shown.group(1))))


def client_of(server, scope="openid", visit=None, client_id="demo", **settings):
    """A client whose browser does as `visit` says, or else is its person's."""
    visit = visit or (lambda url: fetch(decide(server, url) or url))
    return Client(server.issuer, client_id, scope, **{"terminal": Played(visit), **settings})


@pytest.fixture
def typing(monkeypatch):
    """typing(function): a terminal without a browser, where somebody types the lines it makes of the address shown."""
    reader, pen = os.pipe()
    with os.fdopen(reader) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield lambda typist: Played(typist=typist, pen=pen)


def need_localhost():
    """cliauth does not need the name to resolve; the person's browser does."""
    try:
        socket.getaddrinfo("localhost", 80)
    except OSError:
        pytest.skip("localhost does not resolve here")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Whoever waits for a browser that never comes back finds out in ten seconds."""
    monkeypatch.setattr(Client.login, "__defaults__", ("auto", 10, True))


class TestFlows:
    """The conversations with an authorization server, as they look on the wire and on the terminal."""

    def test_the_browser_flow_asks_for_what_the_rfcs_want_and_nothing_else(self, server):
        client = client_of(server, "openid email")
        client.login("browser")
        asked, exchange = query(client.terminal.opened[0]), server.asked("/token")[0]
        verifier, uri = exchange["code_verifier"], exchange["redirect_uri"]
        assert asked == {"response_type": "code", "client_id": "demo", "scope": "openid email", "redirect_uri": uri,
                         "state": asked["state"], "nonce": asked["nonce"], "code_challenge_method": "S256",
                         "code_challenge": cliauth.base64url(sha256(verifier.encode()).digest())}
        assert exchange == {"grant_type": "authorization_code", "client_id": "demo", "code": exchange["code"],
                            "redirect_uri": uri, "code_verifier": verifier}
        assert re.match(r"http://127\.0\.0\.1:\d+/callback\Z", uri) and "scope=openid%20email" in client.terminal.text
        assert min(map(len, (asked["state"], asked["nonce"], verifier))) == 43
        Client(server.issuer, "demo", "email", terminal=client.terminal).login("browser")
        again = query(client.terminal.opened[1])
        assert "nonce" not in again and not {asked["state"], asked["code_challenge"]} & set(again.values())

    def test_what_begins_a_sign_in_stays_out_of_later_requests_but_for_resource(self, server):
        client = client_of(server, "api", lambda url: fetch(redirected(server, url)), audience="urn:a",
                           resource=["urn:r"], param={"prompt": "consent"})
        server.script["/token"] = [(200, TOKEN), (200, TOKEN)]
        client.login("browser")
        client.refresh()
        begin, exchange, refresh = query(client.terminal.opened[0]), *server.asked("/token")
        assert (begin["audience"], begin["resource"], begin["prompt"]) == ("urn:a", "urn:r", "consent")
        assert set(exchange) == {"grant_type", "client_id", "code", "redirect_uri", "code_verifier", "resource"}
        assert refresh == {"grant_type": "refresh_token", "client_id": "demo", "refresh_token": "rt-1",
                           "resource": "urn:r"}

    @pytest.mark.parametrize("uri", ["http://127.0.0.1:0", "http://localhost:0/callback", "http://127.0.0.1:0/a?b=c"])
    def test_the_redirect_uri_is_sent_byte_for_byte_but_for_the_port(self, server, uri):
        if "localhost" in uri:
            need_localhost()
        client = client_of(server, "api", lambda url: fetch(redirected(server, url)), redirect_uri=[uri])
        server.script["/token"] = [(200, TOKEN)]
        client.login("browser")
        sent = server.asked("/token")[0]["redirect_uri"]
        assert re.sub(":[0-9]+", ":0", sent) == uri and sent == query(client.terminal.opened[0])["redirect_uri"]

    def test_where_par_is_offered_the_address_holds_client_and_request_uri_alone(self, server):
        client = client_of(server, visit=lambda url: fetch(decide(server, cliauth.with_query(
            server.issuer + "/authorization", server.asked("/par")[0]))))
        server.extra["/.well-known/openid-configuration"] = {
            "pushed_authorization_request_endpoint": server.issuer + "/par"}
        server.script["/par"] = [(201, {"request_uri": "urn:1", "expires_in": 60}), (400, {"error": "bad"}), (201, {})]
        client.login("browser")
        assert query(client.terminal.opened[0]) == {"client_id": "demo", "request_uri": "urn:1"}
        assert "To sign in, open this address within 60 s:\n" in client.terminal.text
        for said in (server.issuer + "/par answered 400 bad", "the pushed authorization response has no request_uri"):
            assert failure(client.login, "browser")[1].startswith(said) and len(client.terminal.opened) == 1

    @pytest.mark.parametrize("openid, rfc8414, outcome", [
        ((200, {"issuer": "I", "token_endpoint": "I/token"}),
         (200, {"issuer": "I", "token_endpoint": "I/other", "userinfo_endpoint": "I/u"}),
         {"issuer": "I", "token_endpoint": "I/token", "userinfo_endpoint": "I/u"}),
        ((200, {"issuer": "https://b.example", "token_endpoint": "https://b.example/token"}),
         (200, {"issuer": "I/", "token_endpoint": "I/token"}), {"issuer": "I/", "token_endpoint": "I/token"}),
        ((200, {"issuer": "I", "token_endpoint": "I/token"}), (503, ""), {"issuer": "I", "token_endpoint": "I/token"}),
        ((200, {"issuer": "https://b.example"}), (404, ""), [1, "the metadata of I is that of https://b.example; "]),
        ((404, ""), (404, ""), [1, "no metadata at I/.well-known/openid-configuration (HTTP 404) and I/.well-known/"
                                "oauth-authorization-server (HTTP 404); check --issuer, or name the endpoints with "]),
        ((503, ""), (404, ""), [4, "no metadata at I/.well-known/openid-configuration (HTTP 503) and "]),
        ((429, ""), (404, ""), [4, "no metadata at I/.well-known/openid-configuration (HTTP 429) and "])])
    def test_discovery_merges_what_the_two_addresses_say_of_this_issuer(self, server, openid, rfc8414, outcome):
        openid, rfc8414, outcome = json.loads(re.sub(r"\bI\b", server.issuer, json.dumps([openid, rfc8414, outcome])))
        server.script = {"/.well-known/openid-configuration": [openid], "/token": [(200, TOKEN)],
                         "/.well-known/oauth-authorization-server": [rfc8414]}
        client = client_of(server)
        if isinstance(outcome, dict):
            client.login("client-credentials")
            assert held(client)["metadata"] == outcome
        else:
            code, said = failure(client.login, "client-credentials")
            assert [code, said[:len(outcome[1])]] == outcome

    def test_no_request_of_the_discovery_is_left_under_way_when_the_other_one_fails(self, monkeypatch):
        answered, left = threading.Event(), []

        def send(http, method, url, **more):
            if "openid" in url:
                threading.Timer(0.05, answered.set).start()
                raise Unreachable("no")
            left.append(answered.wait(5))
        monkeypatch.setattr(cliauth.Http, "send", send)
        assert failure(Client("https://id.example", "cli", terminal=Played()).login, "browser")[0] == 4
        assert left == [True]

    @pytest.mark.parametrize("token, said", [
        ("https://127.0.0.1:9/token", "no CA certificates can be read from none.pem: No such file or directory; "),
        ("", "no token_endpoint is known; name one with login --token-endpoint, or an --issuer")])
    def test_what_the_exchange_will_lack_is_found_before_a_browser_opens(self, server, token, said):
        client = client_of(server, ca_file="none.pem", token_endpoint=token)
        server.extra["/.well-known/openid-configuration"] = {"token_endpoint": token}
        server.script["/.well-known/oauth-authorization-server"] = [(404, "")]
        assert fails(UsageError, client.login, "browser")[:len(said)] == said and client.terminal.opened == []

    def test_a_known_provider_is_not_discovered_again(self, server, signed_in):
        for work in (client_of(server).login, signed_in.refresh, signed_in.userinfo, signed_in.logout):
            work()
        assert "/.well-known/openid-configuration" not in [path for _, path, _, _ in server.requests]

    @pytest.mark.parametrize("name, work", [
        ("token_endpoint", "refresh"), ("userinfo_endpoint", "userinfo"), ("revocation_endpoint", "logout"),
        ("device_authorization_endpoint", "login")])
    @pytest.mark.parametrize("status", [301, 404, 410])
    def test_where_a_kept_address_leads_nowhere_the_metadata_are_fetched_anew_and_kept(
            self, server, clock, signed_in, name, work, status):
        fresh = held(signed_in)["metadata"]
        change(signed_in, metadata={**fresh, name: server.issuer + "/old"})
        server.script["/old"], signed_in.terminal = [(status, "")], Played(client_of(server).terminal.visit)
        getattr(signed_in, work)(*["device"] * (work == "login"))
        assert held(signed_in)["metadata"] == fresh
        asked = [request[:3] for request in server.requests]
        assert asked[0][1] == "/old" and {path[:13] for _, path, _ in asked[1:3]} == {"/.well-known/"}
        assert asked[3] == (asked[0][0], fresh[name][len(server.issuer):], asked[0][2])  # the very same request

    @pytest.mark.parametrize("fresh", [(503, ""), (200, {"issuer": "I", "token_endpoint": "I/old"})])
    def test_where_fresh_metadata_know_no_better_a_404_is_a_refusal_like_any_other(self, server, signed_in, fresh):
        before = dict(held(signed_in), metadata={"issuer": server.issuer, "token_endpoint": server.issuer + "/old"})
        change(signed_in, **before)
        server.script["/.well-known/openid-configuration"] = [
            json.loads(json.dumps(fresh).replace('"I', '"' + server.issuer))]
        code, said = failure(signed_in.refresh)
        assert code == 3 and said.startswith("the sign-in cannot be refreshed (not_found); run: ")
        assert held(signed_in) == before and len(server.asked("/old")) == 1

    def test_metadata_are_fetched_anew_once_and_no_more(self, server, signed_in):
        change(signed_in, metadata=dict(held(signed_in)["metadata"], device_authorization_endpoint=""))
        server.script["/device_authorization"] = [(404, "")]
        assert "does not offer the device flow to this client (404)" in failure(client_of(server).login, "device")[1]
        assert sorted(path[:20] for _, path, _, _ in server.requests) == [
            "/.well-known/oauth-a", "/.well-known/openid-", "/device_authorizatio"]

    @pytest.mark.parametrize("name, flow", [("device_authorization_endpoint", "device"), ("issuer", "device"),
                                            ("authorization_endpoint", "browser"), ("issuer", "browser")])
    def test_a_kept_copy_that_denies_what_is_needed_is_not_believed(self, server, clock, signed_in, name, flow):
        fresh = held(signed_in)["metadata"]
        change(signed_in, metadata={**fresh, name: "https://old.example" if name == "issuer" else ""})
        client_of(server).login(flow)
        assert held(signed_in)["metadata"] == fresh

    def test_after_nobody_came_back_the_address_is_looked_up_anew(self, server, signed_in):
        metadata, client = held(signed_in)["metadata"], client_of(server, visit=fetch)
        change(signed_in, metadata={**metadata, "authorization_endpoint": server.issuer + "/old",
                                    "device_authorization_endpoint": ""})
        code, said = failure(client.login, "browser", timeout=0.2)
        assert code == 4 and said.endswith(" for client demo at the provider") and held(signed_in)["metadata"] == {}
        client_of(server).login("browser")
        assert held(signed_in)["metadata"] == metadata

    def test_the_time_for_a_sign_in_includes_discovery(self, server, clock, monkeypatch):
        asked = []
        monkeypatch.setattr(cliauth.Server, "discover", lambda self, seconds: asked.append(seconds))
        for timeout in (7, 300):
            failure(client_of(server).login, "browser", timeout)
        assert asked == [7, cliauth.HTTP_TIMEOUT]

    def test_what_a_failed_sign_in_learned_is_kept_too(self, server, clock, signed_in):
        fresh, before = held(signed_in)["metadata"], held(signed_in)["token"]
        change(signed_in, metadata={**fresh, "device_authorization_endpoint": server.issuer + "/old"})
        server.script["/token"] = [(400, {"error": "access_denied"})]
        assert failure(client_of(server).login, "device")[0] == 1
        assert held(signed_in)["metadata"] == fresh and held(signed_in)["token"] == before

    def test_where_par_is_no_longer_offered_the_sign_in_goes_on_without(self, server, signed_in):
        fresh = held(signed_in)["metadata"]
        change(signed_in, metadata={**fresh, "pushed_authorization_request_endpoint": server.issuer + "/gone"})
        client_of(server).login("browser")
        assert held(signed_in)["metadata"] == fresh and len(server.asked("/gone")) == 1

    def test_without_metadata_the_endpoints_given_do_and_a_network_error_ends_it(self, server):
        server.script["/token"] = [(200, TOKEN)]
        Client(server.issuer + "/t/1", "ci", token_endpoint=server.issuer + "/token").login("client-credentials")
        assert sorted(path for _, path, _, _ in server.requests) == [
            "/.well-known/oauth-authorization-server/t/1", "/t/1/.well-known/openid-configuration", "/token"]
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            host = "127.0.0.1:%d" % nobody.getsockname()[1]
            assert failure(Client("http://" + host, "ci").login, "client-credentials") == (
                4, host + " cannot be reached: Connection refused; check the address, the network, and any proxy")

    @pytest.mark.parametrize("decision, answer, page, code, said", [
        ("allow", None, "Signed in", None, ""), ("deny", None, "Sign-in failed", 1, "the sign-in was denied: access_"),
        ("allow", (400, lambda sent: json.dumps({"error": "invalid_grant", "message": "no " + sent["code"]})),
         "Sign-in failed", 1, "I/token answered 400 invalid_grant (no …); "),
        ("allow", (502, "<html>"), "Sign-in failed", 4, "I/token answered 502"),
        ("allow", (200, {"access_token": "x", "token_type": "DPoP"}), "Sign-in failed", 1, "the token is of type ")])
    def test_the_page_in_the_browser_tells_how_it_ended(self, server, decision, answer, page, code, said):
        server.script["/token"] = [answer] if answer else []
        client = client_of(server, visit=lambda url: fetch(decide(server, url, decision)))
        status, text = failure(client.login, "browser") if code else client.login("browser") or (None, "")
        said = said.replace("I/", server.issuer + "/")
        assert (status, text[:len(said)]) == (code, said) and bool(code) == (not cliauth.profile_names())
        assert "<h1>%s</h1>" % page in client.terminal.visited.result(5)[2]
        assert len(server.asked("/token")) == (decision == "allow")
        with pytest.raises(ConnectionRefusedError):  # and nobody listens any more
            fetch(query(client.terminal.opened[0])["redirect_uri"])

    def test_the_id_token_of_another_sign_in_is_refused_and_nothing_kept(self, server):
        server.extra["/token"] = {"id_token": signed(iss=server.issuer, sub="ada", aud="demo", iat=time.time(),
                                                  exp=time.time() + 60, nonce="of-another")}
        assert failure(client_of(server).login, "browser") == (
            1, "the ID token cannot be trusted: its nonce belongs to another sign-in; ask the provider")
        assert not cliauth.profile_names()

    def test_when_time_runs_out_it_says_what_to_register_and_what_was_ignored(self, server, clock):
        def visit(url):
            uri = query(url)["redirect_uri"]
            fetch(uri + "?error=invalid_scope&state=other")
            clock.now += 301
            fetch(uri.replace("callback", "favicon.ico"))
        client = client_of(server, visit=visit)
        code, said = failure(client.login, "browser", 300)
        assert (code, said.replace(query(client.terminal.opened[0])["redirect_uri"], "U")) == (
            4, "nobody signed in within 300 s. Ignored meanwhile: an answer without our state (error invalid_scope). "
            "If the browser showed an error page, register redirect URI U (any port; where it counts, name one by "
            "--redirect-uri) for client demo at the provider; or try --flow device")

    @pytest.mark.parametrize("typed", [
        lambda url: [url], lambda url: [url.partition("?")[2]], lambda url: ["", "", "<%s>" % url],
        lambda url: [query(url)["code"], "yes"], lambda url: [query(url)["code"], "no", "http://127.0.0.1/x", url],
        lambda url: [re.sub("state=[^&]+", "state=x", url), url]])
    def test_pasted_are_the_whole_address_its_query_or_a_bare_code_with_yes(self, server, typing, typed):
        client = client_of(server, terminal=typing(lambda url: typed(decide(server, url))))
        client.login("paste")
        assert client.status()["account"] == "ada@example.com" and client.status()["flow"] == "paste"
        assert len(server.asked("/token")) == 1

    @pytest.mark.parametrize("before, after, code, said", [
        ("http.*", "", 3, "nothing was pasted, and stdin has ended; run the same command in a terminal"),
        ("state=[^&]+", "state=x", 3, "nothing was pasted, and stdin has ended; run the same command in a terminal"),
        (".*code=([^&]+).*", "\\1\nno", 3, "nothing was pasted, and stdin has ended; run the same command in a"),
        ("https?", "\u00e9", 3, "nothing was pasted, and stdin has ended; run the same command in a terminal"),
        ("iss=[^&]+", "iss=https://b.example", 1, "the answer is of another server: iss is https://b.example, not "),
        ("&iss=[^&]+", "", 1, "the answer is of another server: iss is missing, not "),
        ("code=[^&]+", "error=access_denied", 1, "the sign-in was denied: access_denied")])
    def test_pasted_is_nothing_that_will_not_do(self, server, typing, before, after, code, said):
        client = client_of(server, terminal=typing(lambda url: [re.sub(before, after, decide(server, url))]))
        status, text = failure(client.login, "paste")
        assert (status, text[:len(said)]) == (code, said) and not server.asked("/token")

    def test_a_redirect_uri_that_this_machine_cannot_listen_on_means_paste(self, server, typing):
        client = client_of(server, redirect_uri=["https://localhost:9000/callback"],
                           terminal=typing(lambda url: [redirected(server, url)]))
        server.script["/token"] = [(200, TOKEN)]
        client.login("browser")
        assert server.asked("/token")[0]["redirect_uri"] == "https://localhost:9000/callback"

    def test_redirect_uris_are_tried_in_order_and_one_that_is_taken_is_passed_over(self, server):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen(1)
            uri = "http://127.0.0.1:%d/callback" % taken.getsockname()[1]
            client_of(server, redirect_uri=[uri, "http://127.0.0.1:0/callback"]).login("browser")
            assert server.asked("/token")[0]["redirect_uri"] != uri
            client = client_of(server, redirect_uri=[uri])
            code, said = failure(client.login, "browser")
            assert code == failure(client.login, timeout=0)[0] == 4 and re.match(
                "nothing can listen on %s: .{8,}; end what does, or name another --redirect-uri" % uri, said)
            why = said.split(";")[0]
            assert "Signing in by device: %s. For another way: --flow " % why in client.terminal.text

    @pytest.mark.parametrize("device, answers, sleeps", [
        ({"interval": 5}, [PENDING], [5, 5]), ({"interval": None}, [], [5]), ({"interval": "7"}, [], [7]),
        ({"interval": 900}, [], [60]), ({"interval": 3}, [(400, {"error": "slow_down"}), PENDING], [3, 8, 8]),
        ({"interval": 3}, [(400, {"error": "slow_down", "interval": 17}), PENDING], [3, 17, 17]),
        ({"interval": 3}, [(429, ""), (429, "", {"Retry-After": "30"}), PENDING], [3, 8, 30, 30]),
        ({"interval": 2}, [(504, "<html>"), (200, "<html>"), (200, "{", {"Content-Length": "99"}), PENDING],
         [2, 4, 8, 16, 16]),
        ({"interval": 40}, [(504, "<html>"), (200, "<html>"), (429, "")], [40, 60, 60, 60]),
        ({"interval": 2}, [(200, PENDING[1]), (403, PENDING[1]), (400, {"message": "authorization_pending"})],
         [2, 2, 2, 2])])
    def test_a_device_is_polled_no_faster_than_it_may(self, server, clock, device, answers, sleeps):
        server.extra["/device_authorization"], server.script["/token"] = device, list(answers)
        client = client_of(server)
        client.login("device", timeout=600)
        assert clock.sleeps == sleeps and client.status()["account"] == "ada@example.com"
        assert all(sent == {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "client_id": "demo",
                            "device_code": sent["device_code"]} for sent in server.asked("/token"))

    @pytest.mark.parametrize("answer, timeout, code, said", [
        ((403, {"error": "access_denied"}), 300, 1, "the sign-in was denied: "),
        ((400, {"error": "authorization_declined"}), 300, 1, "the sign-in was denied: "),
        ((500, {"error": "access_denied"}), 300, 1, "the sign-in was denied: "),
        ((400, {"error": "expired_token"}), 300, 3, "the code ran out or was used already (expired_token); "),
        ((200, {"error": "incorrect_device_code"}), 300, 3, "the code ran out or was used already (incorrect_device_"),
        ((400, {"status": 400, "message": "invalid device code"}), 300, 3, "the code ran out or was used already (inv"),
        ((400, {"error": "invalid_scope"}), 300, 1, "http://127.0.0.1:"),
        (PENDING, 300, 3, "the code ran out before it was entered; run the same command again"),
        (PENDING, 12, 4, "nobody signed in within 12 s; run the same command again"),
        ((503, ""), 12, 4, "nobody signed in within 12 s (http://127.0.0.1:"),
        ((200, "<html>"), 12, 4, "nobody signed in within 12 s (http://127.0.0.1:")])
    def test_a_device_code_is_given_up_for_a_reason(self, server, clock, answer, timeout, code, said):
        server.extra["/device_authorization"], server.script["/token"] = {"interval": 5, "expires_in": 30}, [answer] * 9
        status, text = failure(Client(server.issuer, "demo", terminal=Played()).login, "device", timeout)
        assert (status, text[:len(said)]) == (code, said) and sum(clock.sleeps) <= min(30, timeout)

    def test_a_poll_takes_no_longer_than_is_left(self, server, clock, monkeypatch):
        given, send = [], cliauth.Http.send
        monkeypatch.setattr(cliauth.Http, "send", lambda *args, **more: given.append(args[-1]) or send(*args, **more))
        server.extra["/device_authorization"], server.script["/token"] = {"interval": 5}, [PENDING] * 2
        assert failure(Client(server.issuer, "demo", terminal=Played()).login, "device", 12)[0] == 4
        assert given[-2:] == [7, 2]

    @pytest.mark.parametrize("answer", [(401, ""), (403, ""), (404, "<html>"), (422, {}), None, (
        400, {"error": "unauthorized_client"}), (400, {"error": "device_flow_disabled"}), (
        401, {"error": "invalid_client"})])
    def test_where_no_device_flow_is_offered_auto_moves_on_and_an_explicit_one_fails(self, server, typing, answer):
        server.script["/device_authorization"] = [answer, answer]
        if not answer:
            server.extra["/.well-known/openid-configuration"] = {"device_authorization_endpoint": None}
        client = client_of(server, terminal=typing(lambda url: [decide(server, url)]))
        code, said = failure(client.login, "device")
        perhaps = "check the client secret, or " if "invalid_client" in str(answer) else ""
        assert code == 1 and said.endswith("; %stry --flow browser or paste" % perhaps)
        client.terminal.tty = True
        client.login("auto")
        why = said.split(";")[0]
        assert "Signing in by paste: %s. For another way: --flow browser.\n" % why in client.terminal.text

    def test_where_other_flows_would_need_a_secret_auto_is_the_device_flow_or_nothing(self, server, monkeypatch):
        monkeypatch.setitem(cliauth.PROVIDERS, "github", {"issuer": server.issuer, "without_secret": "device"})
        server.script["/device_authorization"] = [(400, {"error": "device_flow_disabled"})]
        client = Client(provider="github", client_id="demo", terminal=Played(fetch))
        code, said = failure(client.login)
        assert code == 1 and "does not offer the device flow to this client (device_flow_disabled)" in said
        assert client.terminal.text == ("Signing in by device: the other flows need a client secret at this provider. "
                                        "For another way: --flow browser or paste.\n")

    @pytest.mark.parametrize("name", ["verification_uri", "verification_uri_complete"])
    @pytest.mark.parametrize("address", ["http://id.example.com/device", "javascript:alert(1)", "https://a\\@127.0.0.1"])
    def test_an_address_that_a_person_must_not_open_is_neither_opened_nor_shown(self, server, name, address):
        server.extra["/device_authorization"] = {name: address}
        client = client_of(server)
        code, said = failure(client.login, "device")
        assert code == 1 and said.startswith("the device authorization response is not to be trusted: " + name)
        assert client.terminal.opened == [] and client.terminal.text == "" and not server.asked("/token")

    def test_an_address_out_of_the_token_file_is_checked_before_it_is_shown(self, server, signed_in, cli):
        evil = dict(held(signed_in)["metadata"], end_session_endpoint=server.issuer + "/\x1b[2J")
        change(signed_in, metadata=dict(evil, authorization_endpoint=evil["end_session_endpoint"]))
        signed_in.terminal = Played(fetch)
        words = "the address to open is no plain address: %s/\\x1b[2J?" % server.issuer
        code, said = failure(signed_in.login, "browser")
        assert (code, signed_in.terminal.opened, signed_in.terminal.text) == (2, [], "") and said.startswith(words)
        code, _, err = cli("logout", "--browser")
        assert code == 2 and words in err and "\x1b" not in err and held(signed_in)["token"] == {}

    def test_the_code_is_shown_with_a_warning_and_the_device_code_never(self, server, clock):
        server.extra["/device_authorization"] = {
            "device_code": "dc-1", "user_code": "AB\x1b[2JCD", "message": "Go \u202edc-1", "verification_uri": None,
            "verification_url": server.issuer + "/device", "verification_uri_complete": server.issuer + "/device?c=1"}
        server.script["/token"] = [PENDING, (200, TOKEN)]
        client = client_of(server, visit=fetch)
        client.terminal.verbose = True
        client.login("device")
        assert client.terminal.opened == [server.issuer + "/device?c=1"] and "dc-1" not in client.terminal.text
        assert client.terminal.drawn == client.terminal.opened
        assert [line for line in client.terminal.text.split("\n") if line and line[0] not in "<>"][:-1] == [
            "To sign in, open %s/device on any device and enter the code:" % server.issuer, r"    AB\x1b[2JCD",
            "Or open this address, which holds it already:", "    %s/device?c=1" % server.issuer,
            r"The provider says: Go \u202e…",
            r"Only enter the code AB\x1b[2JCD if you have started this sign-in yourself."]

    def test_an_address_with_the_device_code_in_it_is_not_shown(self, server, clock):
        server.extra["/device_authorization"] = {
            "device_code": "dc/1", "verification_uri_complete": server.issuer + "/dc%2F1"}
        server.script["/token"] = [(200, TOKEN)]
        client = client_of(server, visit=fetch)
        client.login("device")
        assert client.terminal.opened == [server.issuer + "/device"] and "%2F" not in client.terminal.text
        assert not client.terminal.drawn

    @pytest.mark.parametrize("visit, tty, open_browser, said", [
        (print, False, True, "browser: BROWSER is set. For another way: --flow device or paste."),
        (None, True, True, "device: there is no display. For another way: --flow browser or paste."),
        (None, True, False, "browser: --no-browser was given. For another way: --flow device or paste.")])
    def test_auto_says_what_it_chose_and_how_to_choose_otherwise(self, server, visit, tty, open_browser, said):
        client = client_of(server, terminal=Played(visit))
        client.terminal.tty = tty
        assert failure(client.login, timeout=0, open_browser=open_browser)[1].startswith("nobody signed in within 0 s")
        assert client.terminal.text.split("\n")[0] == "Signing in by " + said

    def test_auto_says_that_the_address_will_have_to_be_pasted_where_nothing_can_listen(self, server):
        client = client_of(server, redirect_uri=["https://localhost:9000/callback"])
        assert failure(client.login, timeout=0)[0] == 4
        assert client.terminal.text.startswith("Signing in by browser and paste: BROWSER is set. For another way: ")

    def test_a_paste_has_a_port_that_nobody_listens_on(self, server):
        client = client_of(server, redirect_uri=["http://127.0.0.1:0/callback"])
        failure(client.login, "paste", timeout=0)
        assert re.search(r"redirect_uri=http%3A%2F%2F127\.0\.0\.1%3A[1-9]\d{4}%2Fcallback", client.terminal.text)

    @pytest.mark.parametrize("flow, paths", [
        ("browser", ["/par", "/token"]), ("device", ["/device_authorization", "/token"]),
        ("client-credentials", ["/token"])])
    def test_a_resource_goes_with_every_request_that_can_carry_it_an_audience_with_the_first(
            self, server, clock, flow, paths):
        server.extra["/.well-known/openid-configuration"] = {
            "pushed_authorization_request_endpoint": server.issuer + "/par"}
        server.script["/par"] = [(201, {"request_uri": "urn:1"})]
        server.script["/token"] = [PENDING] * (flow == "device") + [(200, dict(TOKEN, expires_in=9))] * 2

        def visit(url):
            if flow == "browser":
                fetch(redirected(server, cliauth.with_query(server.issuer + "/authorization", server.asked("/par")[0])))
        client = client_of(server, "api", visit, resource=["urn:r"], audience="urn:a", client_secret="s3cret",
                           client_auth="post")
        client.login(flow, timeout=600)
        client.access_token()
        asked = [(path, params) for _, path, params, _ in server.requests if path in paths]
        assert len(asked) == len(paths) + 1 + (flow == "device") and asked[0][0] == paths[0]
        assert all((params["resource"], params["client_secret"]) == ("urn:r", "s3cret") for _, params in asked)
        audiences = [params.get("audience") for _, params in asked]
        assert audiences == ["urn:a"] * 2 if flow == "client-credentials" else audiences[0] and not any(audiences[1:])

    @pytest.mark.parametrize("name, value, visit, why", [
        ("CI", "true", print, "CI is set"), ("BUILDKITE", "1", print, "BUILDKITE is set"),
        ("CI", "false", None, "there is no display, and stderr is no terminal")])
    def test_auto_gives_up_where_nobody_is_there_but_a_flow_that_was_asked_for_goes_on(
            self, server, monkeypatch, name, value, visit, why):
        monkeypatch.setenv(name, value)
        client = client_of(server, terminal=Played(visit))
        assert failure(client.login) == (3, "nobody can sign in here: %s; use login --flow client-credentials, or ask "
                                         "for --flow device, paste or browser" % why)
        assert client.terminal.text == "" and server.requests == []
        assert failure(client.login, "device", timeout=0)[0] == 4 and "To sign in, open " in client.terminal.text

    def test_client_credentials_renew_themselves_with_an_assertion_read_afresh(self, server, clock, tmp_path):
        assertion = tmp_path / "jwt"
        assertion.write_text("a.a.a\n")
        client = Client(server.issuer, "ci", "api", audience="urn:a", client_assertion_file=str(assertion))
        server.script["/token"] = [(200, {"access_token": "one", "expires_in": 100}), (200, {"access_token": "two"})]
        client.login("client-credentials")
        assertion.write_text("b.b.b\n")
        assert client.access_token() == "one" and client.status()["refreshable"]
        clock.now += 50
        assert client.access_token() == "two"
        first, second = server.asked("/token")
        assert first == {"grant_type": "client_credentials", "client_id": "ci", "scope": "api", "audience": "urn:a",
                         "client_assertion": "a.a.a",
                         "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}
        assert second == {**first, "client_assertion": "b.b.b"}

    def test_without_pkce_there_is_neither_challenge_nor_verifier_but_a_secret(self, server):
        code, said = failure(Client(server.issuer, "toki", pkce=False).login, "browser")
        assert (code, said[:70]) == (2, "--no-pkce needs a client secret; give --client-secret-file, or CLIAUTH")
        client = client_of(server, "api", lambda url: fetch(redirected(server, url)), pkce=False, client_auth="post",
                           client_secret="s3cret")
        server.script["/token"] = [(200, TOKEN)]
        client.login("browser")
        asked = query(client.terminal.opened[0])
        assert set(asked) == {"response_type", "client_id", "redirect_uri", "state", "scope"}
        assert server.asked("/token") == [{"grant_type": "authorization_code", "client_id": "demo", "code": "code-1",
                                           "client_secret": "s3cret", "redirect_uri": asked["redirect_uri"]}]


# ─── 9 Token file ────────────────────────────────────────────────────────────────────────────────────────────────────

def keep(name, **members):
    """A profile as an earlier sign-in left it, and the current one."""
    folder = os.environ["CLIAUTH_HOME"]
    os.makedirs(folder, exist_ok=True)
    record = {"version": 1, "settings": {}, "metadata": {}, "token": TOKEN, "scope": "", "expires_at": None, **members}
    for path, text in ((name + ".json", json.dumps(record)), ("current", name)):
        with open(os.path.join(folder, path + ".tmp"), "w") as file:
            file.write(text)
        os.replace(file.name, file.name[:-4])


def change(client, **members):
    """Another process writes these members of the client's record."""
    keep(client.status()["profile"], **{**held(client), **members})


@pytest.fixture
def signed_in(server, client):
    """The client, signed in, an hour before its token ends."""
    metadata, token = (json.loads(answer[2].decode()) for answer in (
        server.get_openid_configuration({}), server.tokens({"scope": client.options["scope"], "nonce": ""})))
    keep(client.status()["profile"], settings=dict(client.options, flow="browser"), metadata=metadata, token=token,
         scope=token["scope"], expires_at=cliauth.time.time() + 3600)
    return client


def address_in(process):
    """The address that a process tells the person to open."""
    return next(line for line in process.stderr if line.startswith(b"    ")).decode().strip()


class Process(subprocess.Popen):
    """One that a test which failed does not wait for: a sign-in takes up to 300 s."""

    def __exit__(self, failure, *more):
        if failure:
            self.kill()
        super().__exit__(failure, *more)


def start(*args, **streams):
    """cliauth.py as a process that goes on; in the background Ctrl-C would be ignored, under nohup a hangup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = None if WINDOWS else signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        return Process([sys.executable, SCRIPT] + list(args), **{
            "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
            "creationflags": 0x08000000 * WINDOWS, **streams})  # CREATE_NO_WINDOW, but a console for its Ctrl-C
    finally:
        if not WINDOWS:
            signal.signal(signal.SIGHUP, before)


CTRL_C = ("import ctypes, sys; system = ctypes.windll.kernel32; system.FreeConsole(); sys.exit(not ("
          "system.AttachConsole(int(sys.argv[1])) and system.SetConsoleCtrlHandler(None, 1) and "
          "system.GenerateConsoleCtrlEvent(0, 0)))")


def send(process, name):
    """The signal, as a person sends it: Ctrl-C on Windows comes out of the process's own console."""
    if WINDOWS:
        assert name == "SIGINT"
        subprocess.run([sys.executable, "-c", CTRL_C, str(process.pid)], check=True)
    else:
        process.send_signal(getattr(signal, name))


def refusing(number):
    """A system call that fails with that errno."""
    def refuse(*args):
        raise OSError(number, os.strerror(number))
    return refuse


class Slow:
    """An answer that says when it is asked for, and is given when the test says so."""

    def __init__(self, answer):
        self.answer, self.asked, self.go = answer, threading.Event(), threading.Event()

    def __call__(self, params):
        self.asked.set()
        assert self.go.wait(10)
        return json.dumps(self.answer)


class TestTokenFile:
    """One JSON file a profile: nothing is lost in it, nothing is spent before it can be saved, nobody else reads it."""

    def test_its_shape_is_documented_and_members_that_nobody_knows_are_kept(self, server, clock):
        server.extra["/token"] = {"organization_id": "org_1", "custom": {"nested": [1, None, "é\U0001f600"]}}
        client = client_of(server)
        client.login("browser")
        record = held(client)
        assert record == {
            "version": 1, "scope": "openid", "expires_at": clock.now + 3600,
            "settings": {"issuer": server.issuer, "client_id": "demo", "scope": "openid", "flow": "browser"},
            "metadata": {**record["metadata"], "issuer": server.issuer, "token_endpoint": server.issuer + "/token"},
            "token": {**record["token"], "token_type": "Bearer", "expires_in": 3600, **server.extra["/token"]}}
        assert {"access_token", "refresh_token", "id_token"} < set(record["token"])
        server.extra["/token"] = {"custom": "changed", "expires_in": None, "scope": "email"}
        client.refresh()
        renewed = held(client)
        assert renewed == {**record, "scope": "email", "expires_at": None, "token": renewed["token"]}
        assert renewed["token"]["custom"] == "changed" and renewed["token"]["organization_id"] == "org_1"
        assert "expires_in" not in renewed["token"]

    @posix("file modes")
    @pytest.mark.parametrize("umask, refused", [(0, 0), (0o777, 0), (0, errno.EPERM), (0, errno.ENOSYS)])
    def test_nobody_else_can_read_it_from_the_first_instant_whatever_the_umask(
            self, server, tmp_path, monkeypatch, umask, refused):
        modes = []

        def look(params):  # while the refresh is under way
            modes.extend("%s %o" % (path.relative_to(tmp_path), path.stat().st_mode & 0o777)
                         for path in sorted(tmp_path.glob("a/**/*")) + [tmp_path / "a"])
            return json.dumps(TOKEN)

        for name in ("chmod", "fchmod") if refused else ():  # some file systems do not do it
            monkeypatch.setattr(os, name, refusing(refused))
        server.script["/token"] = [(200, TOKEN), (200, look)]
        before = os.umask(umask)
        try:
            client = Client(server.issuer, "ci", token_file=str(tmp_path / "a" / "b" / "t.json"))
            client.login("client-credentials")
            client.refresh()
        finally:
            os.umask(before)
        assert modes == ["a/b 700", "a/b/t.json 600", "a/b/t.json.lock 600", "a/b/t.json.new 600", "a 700"]

    @pytest.mark.parametrize("make, why", [
        pytest.param(lambda path: os.symlink(__file__, path), "it is a symbolic link", marks=posix("links for all")),
        pytest.param(lambda path: os.mkfifo(path), "it is no plain file", marks=posix("named pipes in folders")),
        pytest.param(os.mkdir, "it is no plain file", marks=posix("folders that open reads")),
        (" " * 5000000, "it is no plain file, or too large"),
        ("{", "it is damaged ("), ("[" * 99 + "]" * 99, "it is damaged ("), ("[]", "it is not one of cliauth's"),
        *[('{"version": 1, "settings": {"%s}, "metadata": {}, "token": {}, "scope": "", "expires_at": 0}' % odd,
           "it is not one of cliauth's") for odd in ('param": []', 'resource": [5]', 'redirect_uri": [null]')],
        ('{"version": 2, "settings": {}, "metadata": {}, "token": {}, "scope": "", "expires_at": 0}',
         "it is of version 2, and this cliauth knows version 1")], ids=brief)
    def test_what_cannot_be_used_is_named_before_anything_happens_and_left_alone(self, server, tmp_path, make, why):
        path = tmp_path / "t.json"
        make(str(path)) if callable(make) else path.write_text(make)
        before = path.lstat()
        client = client_of(server, token_file=str(path))
        for work in (client.access_token, client.status, client.refresh, client.logout, client.userinfo, client.login):
            code, said = failure(work)
            assert code == 2 and said.startswith("the token file %s cannot be used: %s" % (path, why))
            assert said.endswith("; move it away, then run: cliauth login")
        with pytest.raises(UsageError) as error:
            client.status()
        assert error.value.__context__ is None or callable(make)  # which would hold all that is in the file
        assert os.listdir(str(tmp_path)) == ["t.json"] and not client.terminal.text and not server.requests
        assert [path.lstat()[i] for i in (0, 1, 6, 8)] == [before[i] for i in (0, 1, 6, 8)]  # mode, inode, size, mtime

    @posix("files of that many kinds")
    def test_where_the_folder_is_a_file_it_says_so_and_what_to_name_instead(self, server, tmp_path):
        (tmp_path / "file").write_text("")
        path = str(tmp_path / "file" / "t.json")
        client = client_of(server, token_file=path)
        for work in (client.access_token, client.login):
            assert failure(work) == (2, path + " cannot be read: Not a directory; move away what is there, or name "
                                     "another place with --token-file or CLIAUTH_HOME")
        assert not server.requests

    @posix("owners of files")
    @pytest.mark.parametrize("uid, refused", [(1000, False), (0, False), (1001, True)])
    def test_a_file_of_somebody_else_is_refused(self, signed_in, monkeypatch, uid, refused):
        fstat = os.fstat
        monkeypatch.setattr(os, "getuid", lambda: 1000)
        monkeypatch.setattr(os, "fstat", lambda file: os.stat_result([*fstat(file)[:4], uid, *fstat(file)[5:]]))
        if refused:
            assert ": it belongs to somebody else; move it away" in failure(signed_in.access_token)[1]
        else:
            assert signed_in.access_token()

    def test_nothing_is_spent_when_the_answer_could_not_be_saved(self, server, signed_in):
        path, token = signed_in.locate().path, held(signed_in)["token"]
        os.mkdir(path + ".new")
        for work in (signed_in.refresh, signed_in.login):
            code, said = failure(work)
            assert code == 2 and said.startswith(path + " cannot be written: ") and said.endswith(
                "; make room there, or name another place with --token-file or CLIAUTH_HOME")
        change(signed_in, expires_at=time.time() + 30)
        assert signed_in.access_token() == token["access_token"]  # what still lives is served all the same
        assert not server.requests

    @posix("limit for the size of a file")
    def test_nothing_is_spent_where_a_file_may_not_grow(self, server, signed_in):
        path, token = signed_in.locate().path, held(signed_in)["token"]
        process = subprocess.run(["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", sys.executable, SCRIPT, "refresh"],
                                 stderr=subprocess.PIPE, timeout=20)
        assert process.returncode == 2 and b".json cannot be written: File too large; make room" in process.stderr
        assert not server.requests and held(signed_in)["token"] == token and not os.path.exists(path + ".new")

    def test_what_lives_is_served_when_the_system_fails_under_the_lock(self, signed_in, monkeypatch):
        change(signed_in, expires_at=time.time() + 30)
        monkeypatch.setattr(cliauth, "lock_now", refusing(errno.EIO))
        assert signed_in.access_token() == held(signed_in)["token"]["access_token"]

    @pytest.mark.parametrize("answer, code", [
        ('{"access_token": "at-2", "refresh_token": "rt-2", "x": %s1%s}' % ("[" * 39, "]" * 39), 0),  # 40 levels
        ('{"access_token": "at-2", "x": %s%s%s}' % ("[" * 36, "0," * 80000 + "0", "]" * 36), 1)],  # too long, indented
        ids=brief)
    def test_what_could_not_be_read_again_is_not_written(self, server, signed_in, answer, code):
        before, server.script["/token"] = held(signed_in), [(200, answer)]
        assert (failure(signed_in.refresh)[0] if code else signed_in.refresh() or 0) == code
        assert Client().status()["signed_in"] and (held(signed_in) == before) is bool(code)

    @pytest.mark.parametrize("change_, secret, said", [
        (lambda settings: settings.pop("client_id"), "", "no client id; register a client at the provider and"),
        (lambda settings: settings.update({"x\ue000": "\0"}), "", r"--x\ue000 holds characters that cannot be"),
        (lambda settings: None, "\udcff", "CLIAUTH_CLIENT_SECRET holds characters that cannot be sent; type it anew")])
    def test_settings_that_cannot_be_sent_are_named_before_anything_is_spent(
            self, server, signed_in, monkeypatch, change_, secret, said):
        settings = held(signed_in)["settings"]
        change_(settings)
        change(signed_in, settings=settings)
        for name, value in (("CLIENT_SECRET", secret), ("CLIENT_ID", secret and "demo")):
            monkeypatch.setenv("CLIAUTH_" + name, value)
        code, text = failure(Client(profile=signed_in.profile).refresh)
        assert code == 2 and text.startswith(said) and not server.requests

    def test_one_without_an_end_is_one_whose_end_is_not_known(self, signed_in):
        record = held(signed_in)
        del record["expires_at"]
        with open(signed_in.file.path, "w") as file:
            json.dump(record, file)
        client = Client()
        assert [client.status()["expires_at"] for _ in "12"] == [None, None]

    def test_a_locale_that_has_no_word_for_one_of_them_does_not_matter(self, server, signed_in):
        change(signed_in, settings=dict(held(signed_in)["settings"], **{"x\ue000": "y"}))
        ascii_ = dict(os.environ, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
        assert subprocess.call([sys.executable, SCRIPT, "refresh"], env=ascii_) == 0

    def test_thirty_processes_that_find_it_expired_cause_one_refresh_and_print_the_same_token(self, server, signed_in):
        change(signed_in, expires_at=1)
        crowd = [start("token") for _ in range(30)]
        answers = {process.communicate(timeout=30) + (process.returncode,) for process in crowd}
        assert answers == {(held(signed_in)["token"]["access_token"].encode() + b"\n", b"", 0)}
        assert len(server.asked("/token")) == 1

    READER = ("import sys; sys.path.insert(0, %r); import cliauth; client = cliauth.Client(); print(flush=True)\n"
              "while client.access_token() != 'last':\n    cliauth.time.sleep(0.002)" % HERE)

    def test_it_is_replaced_while_other_processes_read_it_and_none_of_them_notices(self, signed_in):
        readers = [subprocess.Popen([sys.executable, "-c", self.READER], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                   for _ in range(3)]
        assert all(reader.stdout.readline() for reader in readers)
        file, record = signed_in.locate(), held(signed_in)
        for token in ["x" * 1000 * size for size in range(1, 20)] + ["last"]:
            with file.locked():
                file.store(dict(record, token={"access_token": token}))
        assert [reader.communicate(timeout=20) + (reader.returncode,) for reader in readers] == [(b"", b"", 0)] * 3

    @pytest.mark.parametrize("system, error, seconds", [  # a PermissionError are Windows' errors 5 and 32
        ("nt", PermissionError, 5), ("nt", OSError, 0), ("posix", PermissionError, 0)])
    def test_windows_is_asked_again_for_a_while_and_no_other(self, clock, monkeypatch, system, error, seconds):
        def refuse(path):
            raise error
        with monkeypatch.context() as there, pytest.raises(error):
            there.setattr(os, "name", system)
            cliauth.in_turn(refuse, "t.json")
        assert abs(sum(clock.sleeps) - seconds) < 0.1

    def test_a_token_that_lives_is_served_while_somebody_holds_the_lock(self, server, clock, signed_in):
        path = signed_in.locate().path
        busy = "another process has held %s.lock for more than 40 s; end it, then try again" % path
        signed_in.terminal = Played()
        with open(path + ".lock", "ab") as lock:
            assert cliauth.lock_now(lock.fileno())
            clock.now += 3580  # nobody waits for the lock until the token has ended
            assert signed_in.access_token() == held(signed_in)["token"]["access_token"]
            assert signed_in.terminal.text == "cliauth: not renewed: " + busy.replace("40 s", "19 s") + "\n"
            clock.now += 60
            assert failure(signed_in.access_token) == (4, busy) and not server.requests

    @pytest.mark.parametrize("forget, left", [(False, {}), (True, None)])
    def test_nothing_comes_back_after_a_logout_whoever_holds_the_lock_first(self, server, signed_in, forget, left):
        renewing, revoking, before, path = Slow(TOKEN), Slow({}), held(signed_in), signed_in.locate().path
        server.script = {"/token": [(200, renewing)], "/revocation": [(200, {}), (200, {}), (200, revoking)]}
        other = Client(profile=signed_in.profile, terminal=signed_in.terminal)
        renewal = cliauth.Background(signed_in.refresh)
        assert renewing.asked.wait(5)
        leaving = cliauth.Background(lambda: other.logout(forget))
        renewing.go.set()
        renewal.result(5)
        leaving.result(5)
        assert (other.locate().read() or {}).get("token") == left and os.path.exists(path + ".lock")
        assert [sent["token"] for sent in server.asked("/revocation")] == ["rt-1", "at-1"]
        keep(signed_in.profile, **{**before, "token": TOKEN, "expires_at": 1})
        leaving = cliauth.Background(lambda: other.logout(forget))
        assert revoking.asked.wait(5)
        renewal = cliauth.Background(signed_in.access_token)
        revoking.go.set()
        leaving.result(5)
        assert failure(renewal.result, 5)[0] == 3 and len(server.asked("/token")) == 1
        assert (other.locate().read() or {}).get("token") == left

    def test_a_sign_in_that_was_killed_before_its_file_was_in_place_is_none(self, server, signed_in, cli):
        path = signed_in.locate().path
        os.rename(path, path + ".new")
        assert cli("logout") == (0, "", "Nobody was signed in.\n")
        assert cli("login", "--issuer", server.issuer, "--client-id", "demo", "--flow", "paste")[0] == 3
        assert cli("token")[0] == 3 and not os.path.exists(path + ".new")

    def test_forgotten_is_what_a_crash_left_too(self, signed_in):
        path = signed_in.locate().path
        with open(path + ".new", "w") as file:
            file.write('{"token": {"refresh_token": "S3C')
        signed_in.logout(forget=True)
        assert sorted(os.listdir(os.path.dirname(path))) == [os.path.basename(path) + ".lock", "current"]

    def test_what_a_command_learned_does_not_bring_back_a_profile_that_was_forgotten(self, server, signed_in):
        path, metadata = signed_in.locate().path, held(signed_in)["metadata"]
        change(signed_in, metadata=dict(metadata, userinfo_endpoint=server.issuer + "/gone"))
        server.script["/gone"] = [(404, lambda params: os.unlink(path) or "")]
        server.script["/userinfo"] = [(200, {"sub": "ada"})]
        assert signed_in.userinfo() == {"sub": "ada"} and not os.path.exists(path)

    def test_whoever_writes_holds_the_lock(self, server, signed_in, monkeypatch):
        written, staged = [], cliauth.TokenFile.staged

        def watched(file, *spare):
            written.append((os.path.basename(file.path)[:7], cliauth.MUTEXES[file.path].locked()))
            return staged(file, *spare)
        monkeypatch.setattr(cliauth.TokenFile, "staged", watched)
        for name in ("token_endpoint", "userinfo_endpoint"):  # what a kept address leads to is learned anew
            change(signed_in, metadata=dict(held(signed_in)["metadata"], **{name: server.issuer + "/gone"}))
            (signed_in.refresh if name == "token_endpoint" else signed_in.userinfo)()
        signed_in.login("browser")
        signed_in.logout()
        assert written == [("127.0.0", True)] * 5 + [("current", True), ("127.0.0", True)]

    @posix("error of its own for a lock that somebody holds")
    def test_where_a_file_system_has_no_locks_threads_take_turns_all_the_same(self, signed_in, monkeypatch):
        monkeypatch.setattr("fcntl.flock", refusing(errno.ENOLCK))

        def take():
            with signed_in.locate().locked(0.01):
                return "alone"
        with signed_in.locate().locked(0.01):
            assert failure(cliauth.Background(take).result, 5)[1].startswith("another process has held ")
        assert take() == "alone"

    def test_the_room_is_on_the_disk_before_the_request_and_the_answer_before_it_takes_its_place(
            self, server, signed_in, tmp_path, monkeypatch):
        story, fsync, replace, path = [], os.fsync, os.replace, signed_in.locate().path

        def synced(descriptor):
            with open(path + (".lock" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else ".new"), "rb") as file:
                data = file.read()
            enough = len(data) >= (1 << 16) + os.path.getsize(path) and len(set(data)) > 200  # if compressed too
            story.append("folder" if not data else "answer" if data[:2] + data[-2:] == b"{\n}\n" else "room" * enough)
            fsync(descriptor)

        def replaced(*paths):
            story.append("replace")
            replace(*paths)
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "replace", replaced)
        server.script["/token"] = [(200, lambda params: story.append("request") or json.dumps(TOKEN))]
        signed_in.refresh()
        written = ["answer", "replace"] + ["folder"] * (not WINDOWS)
        assert story == ["room", "request"] + written * 2  # the refresh token first, and once it was checked the rest

    def test_a_full_disk_is_found_before_a_browser_opens_and_before_anything_is_revoked(
            self, server, signed_in, monkeypatch):
        monkeypatch.setattr(os, "write", lambda *_: refusing(errno.ENOSPC)())
        client = client_of(server)
        assert failure(client.login, "browser")[0] == failure(signed_in.logout)[0] == 2
        assert client.terminal.opened == [] and not server.requests

    @pytest.mark.parametrize("number, spent", [
        (errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EIO, False), (errno.EINVAL, True)])
    def test_a_disk_that_is_full_or_broken_is_found_before_and_one_that_cannot_tell_is_believed(
            self, server, signed_in, monkeypatch, number, spent):
        monkeypatch.setattr(os, "fsync", refusing(number))
        before = held(signed_in)
        if spent:
            signed_in.refresh()
        else:
            assert failure(signed_in.refresh)[0] == 2
        assert (held(signed_in) != before, len(server.requests)) == (spent, spent)

    @pytest.mark.parametrize("faults, said", [({1}, ""), ({2, 3, 4}, "cliauth: not saved: ")])
    def test_a_token_that_could_not_be_saved_is_served_all_the_same(self, server, signed_in, monkeypatch, faults, said):
        calls, replace = [], os.replace

        def faulty(*paths):
            calls.append(paths)
            (refusing(errno.EIO) if len(calls) in faults else replace)(*paths)
        change(signed_in, expires_at=1)
        signed_in.terminal = Played()
        monkeypatch.setattr(os, "replace", faulty)
        token = signed_in.access_token()
        assert token in server.access and signed_in.terminal.text[:len(said)] == said and len(calls) == 3
        assert (held(signed_in)["token"].get("access_token") == token) is (said == "")
        calls.extend([None] * 9)
        assert signed_in.access_token() == token and len(server.asked("/token")) == 1

    def test_a_file_that_cannot_be_replaced_is_filled(self, server, signed_in, monkeypatch):
        path, write = signed_in.locate().path, os.write
        change(signed_in, token=dict(TOKEN, padding="x" * 5000))
        inode = os.stat(path).st_ino
        server.script["/token"] = [(200, dict(TOKEN, refresh_token="rt-2", padding="x"))]
        monkeypatch.setattr(os, "replace", refusing(errno.EBUSY))  # it was mounted into a container
        monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:100]))  # as it may
        signed_in.refresh()
        assert held(signed_in)["token"]["refresh_token"] == "rt-2" and os.stat(path).st_ino == inode
        assert os.path.getsize(path) < 5000 and not os.path.exists(path + ".new")

    @pytest.mark.parametrize("status", [400, 429, 500, 503])
    def test_a_refresh_token_is_sent_once_whatever_fresh_metadata_would_say(self, server, signed_in, status):
        change(signed_in, metadata=dict(held(signed_in)["metadata"], token_endpoint=server.issuer + "/old"))
        server.script["/old"] = [(status, "")]
        assert failure(signed_in.refresh)[0] and len(server.asked("/old")) == 1 and not server.asked("/token")

    def test_signals_are_held_back_while_the_refresh_token_is_spent_and_not_before(self, server, signed_in):
        def look(answer):
            return 200, lambda params: seen.append(signal.getsignal(signal.SIGINT)) or json.dumps(answer)
        seen, metadata = [signal.getsignal(signal.SIGINT)], held(signed_in)["metadata"]
        change(signed_in, metadata={})
        server.script = {"/.well-known/openid-configuration": [look(metadata)], "/token": [look(TOKEN)]}
        signed_in.refresh()
        assert [handler is seen[0] for handler in seen] == [True, True, False]

    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", pytest.param("SIGHUP", marks=posix("SIGHUP"))])
    def test_the_first_signal_is_held_back_and_the_second_is_not(self, name):
        class Came(Exception):
            pass

        def handler(number, frame):
            raise Came

        def send():
            signal.raise_signal(number) if WINDOWS else os.kill(os.getpid(), number)  # which would end it there
            for _ in range(99):  # CPython sees to it between two steps
                pass
        number = getattr(signal, name)
        before, done = signal.signal(number, handler), []
        try:
            with cliauth.signals_held():
                assert signal.getsignal(number) is not handler
            assert signal.getsignal(number) is handler
            for times in (1, 2):
                with pytest.raises(Came), cliauth.signals_held():
                    for _ in range(times):
                        send()
                        done.append(times)
                assert signal.getsignal(number) is handler
            signal.signal(number, signal.SIG_IGN)  # nohup
            with cliauth.signals_held():
                send()
            assert done == [1, 2] and signal.getsignal(number) is signal.SIG_IGN
        finally:
            signal.signal(number, before)

    @pytest.mark.parametrize("name, code, said", [
        ("SIGINT", 130, b"cliauth: interrupted\n"),
        pytest.param("SIGTERM", 143, b"cliauth: terminated\n", marks=posix("SIGTERM between processes")),
        pytest.param("SIGHUP", -1, b"", marks=posix("SIGHUP"))])
    def test_a_signal_while_the_refresh_token_is_spent_waits_until_the_new_one_is_saved(
            self, server, signed_in, name, code, said):
        answer = Slow(dict(TOKEN, refresh_token="rt-2"))
        server.script["/token"] = [(200, answer)]
        change(signed_in, expires_at=1)
        process = start("token")
        assert answer.asked.wait(10)
        send(process, name)
        answer.go.set()
        assert process.communicate(timeout=10) == (b"", said) and process.returncode == code
        assert held(signed_in)["token"]["refresh_token"] == "rt-2" and len(server.asked("/token")) == 1

    @posix("links for all")
    def test_what_a_crash_left_behind_is_replaced_and_never_followed(self, signed_in, tmp_path, monkeypatch):
        path = signed_in.locate().path
        (tmp_path / "victim").write_text("mine")
        for target in ("victim", "nothing"):
            os.symlink(str(tmp_path / target), path + ".new")
            signed_in.refresh()
        assert (tmp_path / "victim").read_text() == "mine" and not os.path.islink(path)
        assert not (tmp_path / "nothing").exists()
        assert len(os.listdir(os.path.dirname(path))) == 3  # it, its lock, and the name of the current profile
        os.link(str(tmp_path / "victim"), path + ".new")
        monkeypatch.setattr(os, "unlink", lambda path: None)  # as if it had come in between
        code, said = failure(signed_in.refresh)
        assert code == 2 and "File exists" in said and (tmp_path / "victim").read_text() == "mine"

    @pytest.mark.parametrize("whole", [True, False])
    def test_what_was_written_whole_before_a_death_is_put_in_its_place_by_the_next_one(
            self, server, signed_in, monkeypatch, whole):
        change(signed_in, expires_at=1)
        path, before = signed_in.locate().path, held(signed_in)
        with monkeypatch.context() as death:
            death.setattr(os, "replace", refusing(errno.EIO))
            assert failure(signed_in.refresh)[0] == 2 and held(signed_in) == before
        if not whole:
            os.truncate(path + ".new", os.path.getsize(path) // 2)
            server.families[before["token"]["refresh_token"]]["newest"] = before["token"]["refresh_token"]
        assert signed_in.access_token() in server.access
        assert (server.asked("/token")[1]["refresh_token"] != before["token"]["refresh_token"]) is whole
        assert held(signed_in)["token"]["refresh_token"] in server.families and not os.path.exists(path + ".new")


# ─── 10 Client ───────────────────────────────────────────────────────────────────────────────────────────────────────

class TestClient:
    """What programs use: the tokens of one profile, renewed in time, and never those of another."""

    def test_a_token_with_a_minute_left_costs_no_request_and_one_with_less_is_renewed(self, server, clock, signed_in):
        first = held(signed_in)["token"]
        clock.now += 3539
        assert signed_in.access_token() == first["access_token"] and not server.requests
        clock.now += 2
        second = signed_in.access_token()
        assert [request[:3] for request in server.requests] == [("POST", "/token", {
            "grant_type": "refresh_token", "refresh_token": first["refresh_token"], "client_id": "demo"})]
        assert second != first["access_token"] and second == Client(profile=signed_in.profile).access_token(3599)
        signed_in.refresh()  # with the rotated refresh token: the server refuses any other

    def test_a_new_token_that_ended_before_it_came_is_handed_out_with_a_word_about_the_clock(self, server, signed_in):
        change(signed_in, expires_at=1)
        server.extra["/token"] = {"expires_in": None, "expires_at": int(time.time()) - 999, "id_token": None}
        signed_in.terminal = Played()
        assert signed_in.access_token() == held(signed_in)["token"]["access_token"] and len(server.requests) == 1
        assert signed_in.terminal.text == "cliauth: the new token has expired already; check this machine's clock\n"

    def test_without_a_new_refresh_token_the_old_one_stays_and_so_does_the_id_token(self, server, signed_in):
        before = held(signed_in)["token"]
        server.extra["/token"] = {"refresh_token": "", "id_token": None, "scope": None, "access_token": "new"}
        signed_in.refresh()
        assert held(signed_in)["token"] == {**before, "access_token": "new"}

    @pytest.mark.parametrize("error", [
        "invalid_grant", "bad_refresh_token", "interaction_required", "consent_required", "login_required",
        "refresh_token_not_found", "refresh_token_already_used", "unauthorized_client"])
    def test_a_dead_refresh_token_alone_is_dropped_and_what_lives_is_served(self, server, clock, signed_in, error):
        server.script["/token"] = [(400, {"error": error})]
        before = held(signed_in)
        clock.now += 3590
        assert signed_in.access_token() == signed_in.access_token() == before["token"].pop("access_token")
        del before["token"]["refresh_token"]
        assert {**held(signed_in)["token"], **before["token"]} == held(signed_in)["token"] and len(server.requests) == 1
        clock.now += 11
        assert failure(signed_in.access_token) == (
            3, "the token has expired and cannot be refreshed; run: cliauth login --profile " + signed_in.profile)
        assert "refresh_token" not in held(signed_in)["token"]

    @pytest.mark.parametrize("answer, code", [
        ((401, {"error": "invalid_client"}), 1), ((400, {"error": "invalid_request"}), 3), ((400, ""), 3),
        ((401, ""), 3), ((403, {}), 3), ((503, "<html>"), 4), ((429, "", {"Retry-After": "9"}), 4),
        ((400, {"error": "temporarily_unavailable"}), 4), ((400, {"error": "server_error"}), 4), ((200, "<html>"), 1),
        ((302, "", {"Location": "http://127.0.0.1/"}), 1), ((200, "{", {"Content-Length": "9"}), 4)])
    def test_any_other_refusal_keeps_the_tokens_and_what_lives_is_served(self, server, clock, signed_in, answer, code):
        server.script["/token"], before = [answer] * 2, held(signed_in)
        clock.now += 3590
        assert signed_in.access_token() == before["token"]["access_token"]
        assert failure(signed_in.refresh)[0] == code and held(signed_in) == before and len(server.asked("/token")) == 2

    def test_an_id_token_that_has_ended_and_is_not_renewed_needs_a_person(self, server, signed_in, cli, person):
        change(signed_in, token=dict(held(signed_in)["token"], id_token=signed(exp=cliauth.time.time() - 1)))
        server.script["/token"] = [(200, TOKEN)] * 2
        status, out, err = cli("token", "--id-token")
        assert (status, out) == (3, "") and err.startswith("cliauth: the ID token has expired, and a refresh ")
        status, out, err = cli("token", "--id-token", "--login")
        assert status == 0 and out.count(".") == 2 and "Signed in as ada" in err

    @pytest.mark.parametrize("before", ["https://id", "id", None])
    def test_a_refreshed_id_token_may_leave_out_the_scheme_and_tell_when_the_person_signed_in(self, server, before):
        claims = {"sub": "ada", "aud": "demo", "iat": time.time(), "exp": time.time() + 9, "auth_time": 5}
        keep("acme", token=dict(TOKEN, **({"id_token": signed(iss=before, **claims)} if before else {})), settings={
            "token_endpoint": server.issuer + "/token", "client_id": "demo", "param": {"max_age": "60"}})
        server.script["/token"] = [(200, dict(TOKEN, access_token="at-2", id_token=signed(iss="id", **claims)))]
        Client(profile="acme").refresh()
        assert held(Client(profile="acme"))["token"]["access_token"] == "at-2"
        assert Client(profile="acme").status()["claims"]["iss"] == "id"

    def test_what_a_refresh_learned_by_the_id_token_is_kept(self, server, signed_in):
        fresh, token = held(signed_in)["metadata"], held(signed_in)["token"]
        change(signed_in, metadata={**fresh, "issuer": "https://old.example"})
        signed_in.refresh()
        assert held(signed_in)["metadata"] == fresh and held(signed_in)["token"] != token

    @pytest.mark.parametrize("lasts, refreshable", [
        ({"refresh_expires_in": 0}, True), ({"refresh_expires_in": 1800}, False), ({}, True),
        ({"refresh_token_expires_in": "9999"}, True), ({"refresh_token_expires_in": 1800}, False)])
    def test_a_refresh_token_may_end_too_and_0_is_never(self, clock, signed_in, lasts, refreshable):
        change(signed_in, token=dict(TOKEN, expires_in=3600, **lasts), expires_at=clock.now - 1)
        assert signed_in.status()["refreshable"] is refreshable

    def test_a_sibling_that_was_quicker_counts(self, server, clock, signed_in):
        def sibling(params):  # where locks do not work, it gets between our reading and our asking
            change(signed_in, token=dict(TOKEN, access_token="of-the-sibling"), expires_at=clock.now + 3600)
            return json.dumps({"error": "invalid_grant"})
        server.script["/token"] = [(400, sibling)]
        clock.now += 4000
        assert signed_in.access_token() == "of-the-sibling" and held(signed_in)["token"]["refresh_token"] == "rt-1"

    @pytest.mark.parametrize("extra, stays, said", [
        (lambda claims: {"id_token": signed(**dict(claims, sub="eve"))}, None, "the refreshed ID token is of somebody"),
        (lambda claims: {"id_token": signed(**dict(claims, iss="https://b.c"))}, None, "the refreshed ID token is of"),
        (lambda claims: {"id_token": signed(**dict(claims, aud="x"))}, "rt-2", "the ID token "),
        (lambda claims: {"token_type": "DPoP"}, "rt-2", "the token is of type DPoP"),
        (lambda claims: {"access_token": "a\nb"}, "rt-2", "the access_token that came "),
        (lambda claims: {"access_token": None}, "rt-2", "the token response holds no access_token"),
        (lambda claims: {"refresh_token": "a b"}, "rt-1", "the refresh_token that came is not printable ASCII")])
    def test_of_an_answer_that_cannot_be_used_a_usable_refresh_token_stays_and_nothing_else(
            self, server, signed_in, extra, stays, said):
        change(signed_in, token=dict(held(signed_in)["token"], refresh_token="rt-1"))
        before = held(signed_in)
        claims = cliauth.claims_of(before["token"])
        server.families["rt-1"] = {"newest": "rt-1", "scope": "openid", "nonce": ""}
        server.extra["/token"] = {"refresh_token": "rt-2", **extra(claims)}
        code, text = failure(signed_in.refresh)
        assert (code, text[:len(said)], held(signed_in)["token"].get("refresh_token")) == (1, said, stays)
        if stays == "rt-1":
            assert held(signed_in) == before
        elif stays:  # with what tells whose it is: the next one is not to be of somebody else
            kept = {**before["token"], "refresh_token": "rt-2", "access_token": None}
            assert held(signed_in) == {**before, "token": kept, "expires_at": None}
            server.extra, server.script = {}, {"/token": [
                (200, TOKEN), (200, dict(TOKEN, id_token=signed(**dict(claims, sub="eve"))))]}
            assert signed_in.access_token() == "at-1" and server.asked("/token")[-1]["refresh_token"] == "rt-2"
            assert failure(signed_in.refresh)[0] == 1 and held(signed_in)["token"] == {}

    def test_nothing_of_an_answer_but_the_refresh_token_is_on_disk_before_it_was_checked(
            self, server, signed_in, monkeypatch):
        seen, examine = [], Client.examine
        monkeypatch.setattr(Client, "examine", lambda self, *rest: seen.append(held(self)) or examine(self, *rest))
        before = held(signed_in)
        signed_in.refresh()
        after = held(signed_in)["token"]  # meanwhile, who cannot wait for the lock has the old access token
        assert seen == [{**before, "token": {**before["token"], "refresh_token": after["refresh_token"]}}]
        assert after["access_token"] != before["token"]["access_token"]

    @pytest.mark.parametrize("sub, code", [("eve", 1), ("ada", None)])
    def test_a_token_that_still_lives_is_not_used_once_it_was_dropped(self, server, signed_in, sub, code):
        claims = cliauth.claims_of(held(signed_in)["token"])
        server.extra["/token"] = {"id_token": signed(**dict(claims, sub=sub))}
        if code:
            assert failure(signed_in.access_token, 4000)[0] == code and held(signed_in)["token"] == {}
        else:
            assert signed_in.access_token(4000) == held(signed_in)["token"]["access_token"]

    def test_an_error_never_holds_what_was_sent(self, server, signed_in):
        import traceback
        sent, basic = held(signed_in)["token"]["refresh_token"], "ZGVtbzpzM2NyZXQ="  # demo:s3cret
        change(signed_in, settings=dict(held(signed_in)["settings"], client_secret="s3cret"))
        said = "%s and s3cret by Basic %s" % (sent, basic)
        server.script["/token"] = [(400, {"error": "bad", "error_description": "got " + said, "error_uri": said})]
        with pytest.raises(LoginRequired, match="got … and … by Basic …") as error:
            signed_in.refresh()
        told = "".join(traceback.format_exception(type(error.value), error.value, error.value.__traceback__))
        for each in (error.value, error.value.__cause__, error.value.__context__, told, signed_in):
            told = str(each) + repr(each) + ("" if each is signed_in else repr(getattr(each, "__dict__", "")))
            assert not [secret for secret in (sent, basic, "s3cret") if secret in told]
        assert server.requests[-1][3]["Authorization"] == "Basic " + basic

    def test_a_known_profile_is_signed_in_again_by_its_name_alone(self, server):
        server.script["/token"] = [(200, TOKEN)] * 2
        client_of(server, "api", profile="acme", audience="urn:a", client_secret="s3cret").login("client-credentials")
        Client(profile="acme").login()
        first, second = (request[2:] for request in server.requests if request[1] == "/token")
        assert first[0] == second[0] == {"grant_type": "client_credentials", "client_id": "demo", "scope": "api",
                                         "audience": "urn:a"}
        assert first[1]["Authorization"] == second[1]["Authorization"] == "Basic ZGVtbzpzM2NyZXQ="  # demo:s3cret

    def test_a_param_lies_over_those_of_the_profile_and_without_a_value_takes_one_away(self, server):
        server.script["/token"] = [(200, TOKEN)] * 3
        given = {"organization_id": "o", "a": "b"}
        Client(server.issuer, "ci", profile="acme", param=given).login("client-credentials")
        Client(profile="acme", param={"a": "", "prompt": "consent"}).login("client-credentials")
        sent = {"grant_type": "client_credentials", "client_id": "ci", "organization_id": "o", "prompt": "consent"}
        assert server.asked("/token")[-1] == sent
        Client(profile="acme").login()
        assert server.asked("/token")[-1] == sent

    @pytest.mark.parametrize("named, kept", [
        ({"scope": "one"}, True), ({"issuer": "I/"}, True), ({"issuer": "I", "client_id": "other"}, False),
        ({"issuer": "I/b", "token_endpoint": "I/token"}, False), ({"token_endpoint": "I/token"}, False)])
    def test_naming_another_server_or_client_drops_all_that_a_profile_held(self, server, named, kept):
        keep("acme", settings={"issuer": server.issuer, "client_id": "ci", "client_secret": "s3cret", "audience": "a"})
        server.script["/token"] = [(200, TOKEN)]
        named = {name: value.replace("I", server.issuer) for name, value in named.items()}
        Client(profile="acme", **{"client_id": "ci", **named}).login("client-credentials")
        settings, (_, _, sent, headers) = held(Client(profile="acme"))["settings"], server.requests[-1]
        assert {kept} == {"client_secret" in settings, "audience" in settings, "audience" in sent,
                          "Authorization" in headers}

    def test_an_option_for_another_server_leaves_nothing_that_was_meant_for_the_first(self, server, monkeypatch):
        monkeypatch.setenv("CLIAUTH_CLIENT_SECRET", "s3cret")
        monkeypatch.setenv("CLIAUTH_AUDIENCE", "urn:a")
        server.script["/token"] = [(200, TOKEN)] * 2
        Client(server.issuer, "ci", client_auth="post").login("client-credentials")
        monkeypatch.setenv("CLIAUTH_ISSUER", "https://a.example")
        Client(server.issuer, "c2").login("client-credentials")
        assert [params.get("client_secret") for params in server.asked("/token")] == ["s3cret", None]
        assert [params.get("audience") for params in server.asked("/token")] == ["urn:a", None]
        assert "Authorization" not in server.requests[-1][3]

    def test_another_site_of_a_provider_gets_nothing_to_do_with_the_first(self):
        named = {"provider": "github", "client_id": "x", "issuer": "https://ghe.example/"}
        settings = cliauth.with_provider(named)
        assert "github.com" not in str(settings) and settings["token_endpoint"] == (
            "https://ghe.example/login/oauth/access_token")
        assert cliauth.with_provider(dict(named, issuer="https://github.com"))["userinfo_endpoint"].endswith("/user")

    def test_what_is_named_beats_what_a_provider_s_row_says(self):
        settings = Client(provider="atlassian", audience="urn:a", param={"prompt": "login"}).settle({})
        assert cliauth.extras(settings)["audience"] == "urn:a" and cliauth.extras(settings)["prompt"] == "login"

    def test_an_issuer_without_metadata_is_spelt_as_the_id_token_has_it_but_for_the_slash(self):
        issuer = cliauth.Server({"issuer": "https://a/"}, {}, print).issuer
        assert [issuer(iss) for iss in (None, "https://a", "https://a/", "https://b")] == [
            "https://a/", "https://a", "https://a/", "https://a/"]

    def test_profiles_that_nobody_named_never_share_a_name(self):
        places = ["https://id.example.com", "https://id.example.com/a", "https://id.example.com/A", "https://127.0.0.1",
                  "https://id.example.com:8443", "https://ID.example.com", "http://127.0.0.1"]
        names = {(place, client): Client(place, client).status()["profile"]
                 for place in places for client in ("my-cli", "My-cli", "my_cli", "my cli", "x" * 300)}
        assert len({name.lower() for name in names.values()}) == len(names) == 35
        assert names[places[0], "my-cli"] == "id.example.com_my-cli"
        assert Client(places[0] + "/", "my-cli").status()["profile"] == "id.example.com_my-cli"
        assert names[places[1], "my-cli"] == "id.example.com_my-cli-18b73674"  # a newer cliauth has to find it
        odd = [Client(place, client).status()["profile"] for place, client in (
            ("https://con.example.com", "x"), ("http://[::1]:9", "x"), ("https://id.example.com", "\udcff"))]
        assert all(cliauth.PROFILE.match(name) for name in [*names.values(), *odd]) and odd[0] == "at-con.example.com_x"
        assert all(re.match(r"[a-z0-9._@-]{1,120}\Z", name) for name in names.values())
        assert Client(provider="github", client_id="x").status()["profile"].startswith("github.com_x")

    @pytest.mark.parametrize("options, environ, presets, name", [
        ({}, {}, {}, "work"), ({"client_id": "cli"}, {}, {}, "work"),
        ({"issuer": "https://a.example/"}, {}, {}, "work"), ({"issuer": "https://b.example"}, {}, {}, "b.example_"),
        ({}, {"ISSUER": "https://c.example"}, {}, "c.example_"),
        ({"issuer": "https://a.example", "client_id": "c2"}, {}, {}, "a.example_c2"),
        ({}, {}, {"ISSUER": "https://b.example", "CLIENT_ID": "cli"}, "b.example_cli"),
        ({}, {"PROFILE": "home"}, {}, "home"), ({"profile": "other"}, {"PROFILE": "home"}, {}, "other")])
    def test_the_current_profile_is_used_where_it_is_of_the_server_and_client_named(
            self, monkeypatch, options, environ, presets, name):
        keep("work", settings={"issuer": "https://a.example", "client_id": "cli"})
        for variable, value in environ.items():
            monkeypatch.setenv("CLIAUTH_" + variable, value)
        for preset, value in presets.items():
            monkeypatch.setattr(cliauth, preset, value)
        assert Client(**options).status()["profile"].startswith(name)

    def test_a_secret_in_the_environment_is_not_for_a_public_client_that_nobody_named(
            self, server, signed_in, monkeypatch):
        monkeypatch.setenv("CLIAUTH_CLIENT_SECRET", "S3CRET")
        Client().refresh()
        assert b"S3CRET" not in repr(server.requests).encode() and not server.requests[-1][3]["Authorization"]
        monkeypatch.setenv("CLIAUTH_CLIENT_ID", "demo")
        Client().refresh()
        assert server.requests[-1][3]["Authorization"].startswith("Basic ")

    def test_tokens_of_another_server_or_client_are_never_used(self):
        assert failure(Client().access_token) == (
            3, "nobody is signed in; run: cliauth login --issuer URL --client-id ID")
        keep("work", settings={"issuer": "https://a.example", "client_id": "cli"})
        for issuer, client_id, wanted in (("https://b.example", "", "https://b.example (client any)"),
                                          ("https://a.example", "c2", "https://a.example (client c2)")):
            assert failure(Client(issuer, client_id, profile="work").access_token) == (
                3, "profile work is signed in at https://a.example (client cli), not at %s; run: cliauth login "
                "--profile work --issuer %s --client-id %s" % (wanted, issuer, client_id or "ID"))

    @pytest.mark.parametrize("made, variables, typed", [
        ({}, {}, " --issuer URL --client-id ID"), ({"client_id": "cli"}, {}, " --client-id cli --issuer URL"),
        ({"profile": "new"}, {}, " --profile new --issuer URL --client-id ID"),
        ({"profile": "work"}, {}, " --profile work"),
        ({"token_file": "a b"}, {}, ' --token-file "a b" --issuer URL --client-id ID'),
        ({"issuer": "https://b.example", "client_id": "cli", "scope": "a b"}, {},
         ' --issuer https://b.example --client-id cli --scope "a b"'),
        ({"token_endpoint": "https://b.example/t?key=s3cret", "client_id": "cli"}, {},
         " --token-endpoint 'https://b.example/t?…' --client-id cli"),
        ({"token_endpoint": "https://b.example/t", "client_id": "cli", "audience": "b c", "client_secret": "s3cret",
          "resource": ["https://b.example/1", "https://b.example/2"]}, {},
         ' --token-endpoint https://b.example/t --audience "b c" --resource https://b.example/1 --resource '
         "https://b.example/2 --client-id cli"),
        ({"profile": "work", "scope": "a"}, {}, " --profile work --scope a"),
        ({}, {"ISSUER": "https://b.example"}, " --client-id ID"),
        ({}, {"PROVIDER": "github", "CLIENT_ID": "cli"}, ""), ({}, {"PROFILE": "work"}, " --profile work"),
        ({"profile": "work"}, {"ISSUER": "https://b.example"}, " --profile work --client-id ID")])
    def test_the_login_of_a_hint_names_what_is_not_known_without_it(self, monkeypatch, made, variables, typed):
        keep("work", settings={"issuer": "https://a.example", "client_id": "cli"}, token={})
        os.unlink(os.path.join(os.environ["CLIAUTH_HOME"], "current"))
        for name, value in variables.items():
            monkeypatch.setenv("CLIAUTH_" + name, value)
        client = Client(**made)
        with contextlib.suppress(LoginRequired):
            client.locate().read()
        assert client.hint() == "run: cliauth login" + typed

    def test_a_token_file_is_named_by_any_path_or_by_none(self, tmp_path):
        assert Client(token_file=tmp_path / "a.json").path == str(tmp_path / "a.json")
        assert Client(token_file=None).path == Client(token_file="").path == ""

    def test_only_with_login_is_a_person_asked(self, server, client):
        code, said = failure(client.access_token)
        assert code == 3 and said.startswith("nobody is signed in as 127.0.0.1_demo-") and not server.requests
        assert client.access_token(login=True) == client.access_token() == held(client)["token"]["access_token"]

    def test_requests_httpx_and_urllib_take_it_as_it_is(self, server, signed_in):
        from urllib.request import Request

        class Foreign:  # as requests and httpx have it
            def __init__(self, url):
                self.url, self.headers = url, {}
        header = {"Authorization": "Bearer " + signed_in.access_token()}
        assert signed_in(Foreign("https://api.example.com/a#b")).headers == header
        assert signed_in(Request(server.issuer + "/a")).unredirected_hdrs == header  # never across a redirect
        for request in (Foreign("http://api.example.com/"), Request("http://api.example.com\\@127.0.0.1/")):
            assert failure(signed_in, request)[0] == 2 and "Authorization" not in request.headers

    class Asked:
        """A request and its answer, as requests and httpx have them in common, with what the first has besides."""

        def __init__(self, url="https://api.example.com/", body=None, status=401):
            self.url, self.headers, self.body, self.status_code = url, {}, body, status
            self.request = self.connection = self
            self.hooks, self.sent, self.done = [], [], []

        @property
        def content(self):
            self.done.append("read")

        def register_hook(self, event, hook):
            self.hooks.append((event, hook))

        def copy(self):
            copied = type(self)(self.url, self.body)
            copied.headers.update(self.headers)
            return copied

        def close(self):
            self.done.append("closed")

        def send(self, request, **options):
            self.sent.append((request.headers["Authorization"], options))
            return type(self)(status=200)

    @table("status, body, sibling, header, answer, sent", [
        (200, None, False, None, 200, 0), (401, None, False, None, 200, 1), (401, "a=1", False, None, 200, 1),
        (401, b"a=1", False, None, 200, 1), (401, iter("ab"), False, None, 401, 0), (401, None, True, None, 200, 1),
        (401, None, False, {}, 401, 0), (401, None, False, {"Authorization": "Basic YTpi"}, 401, 0),
        (403, None, False, None, 403, 0)])
    def test_after_a_401_requests_asks_once_more_with_another_token(
            self, server, signed_in, status, body, sibling, header, answer, sent):
        asked = signed_in(self.Asked(body=body))
        server.lifetime = 30  # less than min_ttl is
        (event, hook), first = asked.hooks[0], asked.headers["Authorization"]
        if sibling:  # whose token will do
            Client(server.issuer, "demo").refresh()
        if header is not None:  # requests drops it where a redirect leads elsewhere, or has another in ~/.netrc
            asked.headers = header
        asked.status_code = status
        response = hook(asked, timeout=7)
        assert (event, response.status_code, len(asked.sent)) == ("response", answer, sent)
        assert len(server.asked("/token")) == (1 if sent else 0)
        if sent:
            again = asked.sent[0][0]
            assert asked.sent == [("Bearer " + signed_in.access_token(0), {"timeout": 7})] and again != first
            assert response.history == [asked] and asked.headers["Authorization"] == first  # which is as it was
            assert response.request.headers["Authorization"] == again and asked.done == ["read", "closed"]

    def test_a_401_is_handed_on_where_no_other_token_can_be_had(self, server, signed_in, monkeypatch):
        signed_in.terminal = Played()
        asked = signed_in(self.Asked())
        server.script["/token"] = [(503, "")]
        assert asked.hooks[0][1](asked) is asked and not asked.sent
        assert signed_in.terminal.text.startswith("cliauth: not renewed: %s/token answered 503" % server.issuer)
        signed_in.logout()
        assert asked.hooks[0][1](asked) is asked and not asked.sent
        monkeypatch.setenv("CLIAUTH_ACCESS_TOKEN", "given")
        assert asked.hooks[0][1](signed_in(asked)) is asked and not asked.sent

    @table("status, times", [(200, 1), (401, 2), (403, 1)])
    def test_a_class_of_httpx_s_asks_once_more_too(self, server, signed_in, status, times):
        request = self.Asked()
        request.status_code, flow = status, signed_in.auth_flow(request)
        server.lifetime = 30  # less than min_ttl is
        tokens = [next(flow).headers["Authorization"]]
        with pytest.raises(StopIteration):
            while True:
                tokens.append(flow.send(request).headers["Authorization"])
        assert len(tokens) == len(set(tokens)) == times and tokens[-1] == "Bearer " + signed_in.access_token(0)

    def test_it_asks_once_more_where_a_redirect_led_to_and_sends_nothing_twice_that_was_taken(self, signed_in):
        taken, elsewhere = self.Asked(), self.Asked("https://api.example.com/result")
        flow = signed_in.auth_flow(taken)
        elsewhere.headers.update(next(flow).headers)
        assert flow.send(elsewhere) is elsewhere

    def test_a_sign_in_ends_with_who_where_until_when_and_what_was_not_granted(self, server, clock):
        server.extra["/token"] = {"scope": "openid", "organization_id": "org_1", "authentication_method": "SSO",
                                  "refresh_token": None}
        client = client_of(server, "openid email offline_access", profile="acme")
        client.login("device")
        assert client.terminal.text.split("\n")[-4:] == [
            "Signed in as ada@example.com at %s, organization org_1, method SSO, until %s (profile acme)." % (
                server.issuer, cliauth.when(clock.now + 3600)),
            "Not granted: email. The provider decides; what usually helps: --param prompt=consent.",
            "No refresh token came, so you will be asked to sign in again. What usually helps: --param prompt=consent, "
            "--param access_type=offline, or to allow it for the client.", ""]

    def test_status_tells_everything_but_secrets_and_asks_nobody(self, server, clock, signed_in):
        change(signed_in, token=dict(
            held(signed_in)["token"], organization_id="org_1", user={"id": "u1", "email": "a@b.c", "api_key": "hush"},
            client_assertion="hush", refresh_expires_in=0, list=[{"password": "hush"}], **{name: "hush" for name in (
                "Session-Token", "app_secret", "CODE", "jwt", "credentials", "bearer", "cookies", "incoming_webhook",
                "session_id", "signature", "otp", "ticket", "code_x")}, id_token=signed(
                    sub="ada", email="ada@example.com", address={"postal_code": "W1"}, idp={"refresh_token": "hush"})))
        status = signed_in.status()
        assert status == {
            "profile": signed_in.profile, "signed_in": True, "account": "ada@example.com", "issuer": server.issuer,
            "client_id": "demo", "flow": "browser", "scope": "openid email offline_access", "refreshable": True,
            "expires_at": clock.now + 3600, "claims": status["claims"], "extra": {
                "organization_id": "org_1", "user": {"id": "u1", "email": "a@b.c"}, "list": [{}]}}
        assert status["claims"] == {
            "sub": "ada", "email": "ada@example.com", "address": {"postal_code": "W1"}, "idp": {}}
        change(signed_in, token=dict(TOKEN, refresh_expires_in=7200))
        for seconds, alive in ((7199, True), (2, False)):
            clock.now += seconds
            assert signed_in.status()["signed_in"] is alive and not server.requests

    def test_a_userinfo_endpoint_of_the_metadata_names_the_person(self, server, signed_in):
        server.script["/userinfo"] = [(200, {"email": "eve@example.com"})]
        said = "the userinfo is about somebody else (sub None, not ada); sign in again, or name another --userinfo-"
        assert failure(signed_in.userinfo) == (1, said + "endpoint")

    @pytest.mark.parametrize("answer, outcome", [
        ((200, {"sub": "ada", "x": 1}), {"sub": "ada", "x": 1}), ((200, signed(sub="ada", y=2)), dict(sub="ada", y=2)),
        ((200, {"id": 7}), {"id": 7}), ((200, {"sub": "eve"}), "the userinfo is about somebody else (sub eve, not "),
        ((200, signed(sub="eve")), "the userinfo is about somebody else (sub eve, not ada); sign in again, "),
        ((401, {"error": "invalid_token"}), "I/users/u%2F1 answered 401 invalid_token"),
        ((403, {"error": "insufficient_scope"}), "I/users/u%2F1 answered 403 insufficient_scope")])
    def test_userinfo_is_of_the_person_who_signed_in(self, server, signed_in, answer, outcome):
        server.script["/users/u%2F1"] = [(401, ""), answer]  # after a refresh it is asked once more
        change(signed_in, token=dict(held(signed_in)["token"], user={"id": "u/1"}),
               settings=dict(held(signed_in)["settings"], userinfo_endpoint=server.issuer + "/users/{user.id}"))
        if isinstance(outcome, dict):
            assert signed_in.userinfo() == outcome
        else:
            assert failure(signed_in.userinfo)[1].startswith(outcome.replace("I/", server.issuer + "/"))
        method, _, params, headers = server.requests[-1]
        assert headers["Authorization"] == "Bearer " + signed_in.access_token()  # it goes on
        assert (method, params) == ("GET", {})  # and the token stands nowhere else

    @pytest.mark.parametrize("answers, revoked, said", [
        ([], ["refresh_token", "access_token"], "."),
        ([(200, ""), (400, {"error": "unsupported_token_type"})], ["refresh_token", "access_token"], "."),
        ([(503, "")], ["refresh_token", "access_token"],
         "; the tokens were forgotten here, but could not be revoked: I/revocation "),
        ([(204, "")], ["refresh_token", "access_token"], "."),
        ([(400, {"error": "invalid_token"})], ["refresh_token", "access_token"], "."),
        ([(401, "")], ["refresh_token", "access_token"], "; the tokens were forgotten here, but could not be revoked: "
         "the provider does it for clients with a secret alone."),
        (None, [], "; the provider has no revocation endpoint, so the tokens were only forgotten here.")])
    def test_logout_revokes_as_well_as_can_be_and_forgets_in_any_case(self, server, signed_in, answers, revoked, said):
        server.script["/revocation"], token = answers, held(signed_in)["token"]
        if answers is None:
            change(signed_in, metadata={"issuer": server.issuer})
        signed_in.terminal = Played()
        signed_in.logout()
        assert server.asked("/revocation") == [
            {"token": token[name], "token_type_hint": name, "client_id": "demo"} for name in revoked]
        assert signed_in.terminal.text.startswith("Signed out of I".replace("I", server.issuer) + said.replace(
            "I/", server.issuer + "/"))
        assert held(signed_in)["token"] == {} and held(signed_in)["settings"]["client_id"] == "demo"
        signed_in.logout(forget=True)
        assert cliauth.profile_names() == []

    def test_nothing_is_revoked_that_could_not_be_forgotten(self, server, signed_in):
        before = held(signed_in)
        os.mkdir(signed_in.file.path + ".new")
        assert failure(signed_in.logout)[0] == 2 and not server.asked("/revocation") and held(signed_in) == before
        signed_in.logout(forget=True)  # for which no room is needed
        assert len(server.asked("/revocation")) == 2 and cliauth.profile_names() == []

    def test_logout_looks_for_the_revocation_endpoint_where_no_metadata_were_kept(self, server, signed_in):
        change(signed_in, metadata={})
        signed_in.logout()
        assert len(server.asked("/revocation")) == 2


# ─── Every provider by name ──────────────────────────────────────────────────────────────────────────────────────────

NO_GRANT = {"error": "invalid_grant", "error_description": "Unknown or expired refresh token."}
USER = {"object": "user", "id": "user_01", "email": "ada@example.com"}
WORDS = ("error", "error_description", "code", "message", "msg", "error_code", "errorCode", "errorSummary")
WAITING, SLOWER = {"error": "authorization_pending"}, {"error": "slow_down"}
PLAIN = {"id_token": None, "scope": None}  # of OAuth 2.0 alone, and as was asked

# What a provider does as the others do: the facts that its row in SYSTEMS leaves out.
USUAL = {
    "flows": ["browser"],   # how a person may sign in
    "chosen": "",           # what `auto` makes of it where a browser is there
    "login": "",            # what the person types after `login`; the client is called ID, and its secret s3cret
    "endpoints": {},        # where they are: what is not named is not offered
    "elsewhere": False,     # whether on another host than the issuer
    "issuer": None,         # as metadata and ID token spell it; None: there are no metadata
    "metadata": {},         # what else OpenID Connect's document holds, None for a member or all of it that is missing
    "rfc8414": None,        # the same for the other document
    "client_auth": "none",  # how the client says who it is: none, post or basic, and never in a second way
    "redirect_uri": r"http://127\.0\.0\.1:\d+/callback",
    "pkce": True,           # S256 is demanded; False: refused
    "asks": {},             # what the request that begins a sign-in must hold, and no later one may
    "token": {},            # what is other in a token response, None for what is missing
    "inside": "",           # the member that all of it stands in
    "untyped": False,       # whether it comes without a Content-Type
    "jwt": False,           # whether the access token is one, so that its exp can be read
    "claims": {},           # what else the ID token holds
    "rotates": True,        # whether a refresh answers with a new refresh token
    "dead": (400, NO_GRANT),  # the answer to a dead refresh token; None: there are no refresh tokens
    "kept": False,          # whether it leaves open that the refresh token may yet be good
    "device": {},           # what is other in a device response
    "waits": [(400, WAITING), (400, SLOWER)],  # the answers before the person has approved
    "revoked": (200, {}),   # the answer to an access token that went with its refresh token
    "account": "ada@example.com", "lives": 3600, "extra": {},  # what `status` then shows
}

SYSTEMS = {
    # The five that cliauth was begun for; their command lines stand in the README.
    "AWS Cognito": dict(  # endpoints on another host than the issuer; no device flow; exact port, http on localhost
        login="--issuer https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE --client-id ID "
              "--scope 'openid email' --redirect-uri http://localhost:6363",
        issuer="https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE", redirect_uri=r"http://localhost:\d+",
        endpoints={"authorization": "/oauth2/authorize", "token": "/oauth2/token", "userinfo": "/oauth2/userInfo",
                   "revocation": "/oauth2/revoke"}, elsewhere=True,
        metadata={"token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                  "scopes_supported": ["openid", "email", "phone", "profile"]},
        token={"scope": None}, jwt=True, rotates=False, dead=(400, {"error": "invalid_grant"}),
        revoked=(400, {"error": "unsupported_token_type"})),
    "Auth0": dict(  # the issuer ends in "/"; without an audience the access token is of no use; ports are compared
        flows=["browser", "device"],
        login="--issuer https://example.eu.auth0.com --client-id ID --audience https://api.example.com "
              "--scope 'openid profile email offline_access' --redirect-uri http://127.0.0.1:6363/callback",
        issuer="https://example.eu.auth0.com/", asks={"audience": "https://api.example.com"},
        endpoints={"authorization": "/authorize", "token": "/oauth/token", "device_authorization": "/oauth/device/code",
                   "userinfo": "/userinfo", "revocation": "/oauth/revoke"},
        device={"interval": 5, "expires_in": 900, "verification_uri": "https://example.eu.auth0.com/device"},
        waits=[(403, dict(WAITING, error_description="User has yet to authorize device code.")), (429, SLOWER)],
        token={"expires_in": 86400, "scope": None}, lives=86400, dead=(403, NO_GRANT),
        revoked=(200, {"error": "invalid_request"})),
    "Authproject": dict(  # redirects to https alone, which nothing here can listen on
        flows=["paste"], login="--issuer https://id.authproject.example --client-id ID --scope 'openid profile email' "
                               "--redirect-uri https://localhost:9000/callback",
        issuer="https://id.authproject.example", redirect_uri="https://localhost:9000/callback",
        endpoints={"authorization": "/authorize", "token": "/token"}),
    "WorkOS AuthKit": dict(  # no metadata, no lifetime, no ID token; the organization is in the answer
        flows=["browser", "device"],
        login="--profile acme --provider workos --client-id ID --param organization_id=org_01EXAMPLE",
        endpoints={"authorization": "/user_management/authorize", "token": "/user_management/authenticate",
                   "device_authorization": "/user_management/authorize/device"},
        asks={"provider": "authkit", "organization_id": "org_01EXAMPLE"},
        token={"token_type": None, "expires_in": None, "id_token": None, "scope": None,
               "organization_id": "org_01EXAMPLE",
               "user": USER,
               "authentication_method": "GoogleOAuth"}, jwt=True,
        extra={"organization_id": "org_01EXAMPLE", "authentication_method": "GoogleOAuth",
               "user": USER},
        dead=(400, {"code": "invalid_grant", "message": "Refresh token already exchanged."})),
    "WorkOS AuthKit, with its API key": dict(
        login="--provider workos --client-id ID", client_auth="post", jwt=True, asks={"provider": "authkit"},
        endpoints={"authorization": "/user_management/authorize", "token": "/user_management/authenticate"},
        token={"token_type": None, "expires_in": None, "id_token": None, "scope": None, "user": USER}),
    "TOKI": dict(  # endpoints by hand; whose the userinfo is stands in the token response
        login="--authorization-endpoint https://toki.example/authorize --token-endpoint https://toki.example/token "
              "--userinfo-endpoint 'https://toki.example/users/{user_id}' --client-id ID "
              "--scope 'openid offline_access'",
        endpoints={"authorization": "/authorize", "token": "/token", "userinfo": "/users/u-1"},
        token={"user_id": "u-1"}, extra={"user_id": "u-1"}),
    "TOKI, with a secret": dict(
        login="--authorization-endpoint https://toki.example/authorize --token-endpoint https://toki.example/token "
              "--userinfo-endpoint 'https://toki.example/users/{user_id}' --client-id ID "
              "--scope 'openid offline_access' --client-auth post --no-pkce",
        endpoints={"authorization": "/authorize", "token": "/token", "userinfo": "/users/u-1"},
        client_auth="post", pkce=False, token={"user_id": "u-1"}, extra={"user_id": "u-1"}),

    # Identity for the people of a company.
    "Okta": dict(  # scopes in another order than asked for; the same refresh token again
        flows=["browser", "device"], login="--issuer https://dev-1.okta.com/oauth2/default --client-id ID "
                                           "--scope 'openid offline_access'",
        issuer="https://dev-1.okta.com/oauth2/default", rotates=False, token={"scope": "offline_access openid"},
        endpoints={"authorization": "/oauth2/default/v1/authorize", "token": "/oauth2/default/v1/token",
                   "device_authorization": "/oauth2/default/v1/device/authorize",
                   "revocation": "/oauth2/default/v1/revoke"}),
    "Microsoft Entra ID": dict(  # the metadata's issuer is a template; no complete address; no revocation
        flows=["browser", "device"],
        login="--provider microsoft --client-id ID --scope 'openid offline_access user.read'",
        issuer="https://login.microsoftonline.com/{tenantid}/v2.0", redirect_uri=r"http://localhost:\d+",
        endpoints={"authorization": "/common/oauth2/v2.0/authorize", "token": "/common/oauth2/v2.0/token",
                   "device_authorization": "/common/oauth2/v2.0/devicecode", "userinfo": "/oidc/userinfo"},
        claims={"iss": "https://login.microsoftonline.com/7d2a/v2.0", "tid": "7d2a"},
        token={"scope": "https://graph.microsoft.com/User.Read profile openid email"},
        device={"verification_uri": "https://microsoft.com/device", "verification_uri_complete": None,
                "message": "To sign in, use a web browser to open the page and enter the code."},
        dead=(400, {"error": "interaction_required", "error_description": "AADSTS50076: use multi-factor",
                    "suberror": ""})),
    "Microsoft Entra ID, one tenant": dict(
        login="--provider microsoft --issuer https://login.microsoftonline.com/7d2a/v2.0 --client-id ID",
        issuer="https://login.microsoftonline.com/7d2a/v2.0", redirect_uri=r"http://localhost:\d+",
        endpoints={"authorization": "/7d2a/oauth2/v2.0/authorize", "token": "/7d2a/oauth2/v2.0/token"},
        asks={"scope": "openid profile email offline_access"}, token={"scope": "profile openid email"}),
    "Google": dict(  # a secret that is none; a refresh token on request; verification_url; codes with their own status
        flows=["browser", "device"], login="--provider google --client-id ID", client_auth="post",
        issuer="https://accounts.google.com",
        asks={"access_type": "offline", "prompt": "consent", "scope": "openid email profile"},
        endpoints={"authorization": "/o/oauth2/v2/auth", "token": "/token", "device_authorization": "/device/code",
                   "userinfo": "/v1/userinfo", "revocation": "/revoke"},
        device={"verification_uri": None, "verification_uri_complete": None,
                "verification_url": "https://www.google.com/device"},
        waits=[(428, WAITING), (403, SLOWER)], rotates=False, revoked=(400, {"error": "invalid_token"}),
        token={"scope": "https://www.googleapis.com/auth/userinfo.email openid "
                        "https://www.googleapis.com/auth/userinfo.profile"}),
    "Keycloak": dict(
        flows=["browser", "device"], login="--issuer https://sso.example.com/realms/acme/ --client-id ID "
                                           "--scope 'openid offline_access'",
        issuer="https://sso.example.com/realms/acme", token={"refresh_expires_in": 0, "not-before-policy": 0},
        endpoints={"authorization": "/realms/acme/protocol/openid-connect/auth",
                   "token": "/realms/acme/protocol/openid-connect/token",
                   "device_authorization": "/realms/acme/protocol/openid-connect/auth/device",
                   "userinfo": "/realms/acme/protocol/openid-connect/userinfo",
                   "revocation": "/realms/acme/protocol/openid-connect/revoke"},
        dead=(400, {"error": "invalid_grant", "error_description": "Token is not active"})),
    "Zitadel": dict(
        flows=["browser", "device"], login="--issuer https://acme.zitadel.cloud --client-id ID --scope 'openid email'",
        issuer="https://acme.zitadel.cloud", token={"expires_in": 43199}, lives=43199,
        endpoints={"authorization": "/oauth/v2/authorize", "token": "/oauth/v2/token", "userinfo": "/oidc/v1/userinfo",
                   "device_authorization": "/oauth/v2/device_authorization", "revocation": "/oauth/v2/revoke"}),
    "authentik": dict(  # says 429 with nothing in it to whoever polls too fast
        flows=["browser", "device"], login="--issuer https://auth.example.com/application/o/cli/ --client-id ID "
                                           "--scope 'openid offline_access'",
        issuer="https://auth.example.com/application/o/cli/", waits=[(400, WAITING), (429, "")],
        endpoints={"authorization": "/application/o/authorize/", "token": "/application/o/token/",
                   "device_authorization": "/application/o/device/", "userinfo": "/application/o/userinfo/",
                   "revocation": "/application/o/revoke/"}),
    "Authelia": dict(  # with PAR, where the metadata have it
        login="--issuer https://auth.example.com --client-id ID --scope 'openid offline_access'",
        issuer="https://auth.example.com", token={"token_type": "bearer", "expires_in": 3599}, lives=3599,
        endpoints={"authorization": "/api/oidc/authorization", "token": "/api/oidc/token",
                   "userinfo": "/api/oidc/userinfo", "revocation": "/api/oidc/revocation",
                   "pushed_authorization_request": "/api/oidc/pushed-authorization-request"}),
    "Kanidm": dict(  # an issuer for each client; JSON that is not called so; 401 without a word
        login="--issuer https://idm.example.com/oauth2/openid/ID --client-id ID --scope 'openid email'",
        issuer="https://idm.example.com/oauth2/openid/ID", token={"expires_in": 900}, lives=900, kept=True,
        untyped=True,
        endpoints={"authorization": "/ui/oauth2", "token": "/oauth2/token", "userinfo": "/oauth2/openid/ID/userinfo",
                   "revocation": "/oauth2/token/revoke"}, dead=(401, "")),
    "Dex": dict(  # a dead token of either kind is an invalid_request; no revocation
        flows=["browser", "device"], login="--issuer https://dex.example.com/dex --client-id ID "
                                           "--scope 'openid email offline_access'",
        issuer="https://dex.example.com/dex", token={"token_type": "bearer"}, kept=True,
        endpoints={"authorization": "/dex/auth", "token": "/dex/token", "device_authorization": "/dex/device/code",
                   "userinfo": "/dex/userinfo"},
        dead=(400, {"error": "invalid_request", "error_description": "Refresh token expired."})),
    "Hydra": dict(  # `offline` is its older name for offline_access
        login="--issuer https://hydra.example.com/ --client-id ID --scope 'openid offline'",
        issuer="https://hydra.example.com", lives=3599,
        token={"token_type": "bearer", "expires_in": 3599, "scope": "openid"},
        endpoints={"authorization": "/oauth2/auth", "token": "/oauth2/token", "userinfo": "/userinfo",
                   "revocation": "/oauth2/revoke"}),
    "glewlwyd": dict(  # says nothing at all when it refuses; when it answered is in its answer
        login="--issuer https://glewlwyd.example.com/api/oidc --client-id ID --scope 'openid email'", kept=True,
        issuer="https://glewlwyd.example.com/api/oidc", token={"token_type": "bearer", "iat": 1795244678},
        endpoints={"authorization": "/api/oidc/auth", "token": "/api/oidc/token", "userinfo": "/api/oidc/userinfo",
                   "revocation": "/api/oidc/revoke"}, dead=(400, "")),
    "Django OAuth Toolkit": dict(  # two metadata documents, each with endpoints of its own
        login="--issuer https://django.example.com/o --client-id ID --scope 'openid email'",
        issuer="https://django.example.com/o", metadata={"revocation_endpoint": None},
        rfc8414={"userinfo_endpoint": None}, dead=(400, {"error": "invalid_grant"}),
        endpoints={"authorization": "/o/authorize/", "token": "/o/token/", "userinfo": "/o/userinfo/",
                   "revocation": "/o/revoke_token/"}),
    "FusionAuth": dict(
        flows=["browser", "device"],
        login="--issuer https://acme.fusionauth.io --client-id ID --scope 'openid offline_access'",
        issuer="https://acme.fusionauth.io", token={"userId": "3b6d"}, extra={"userId": "3b6d"}, rotates=False,
        endpoints={"authorization": "/oauth2/authorize", "token": "/oauth2/token", "userinfo": "/oauth2/userinfo",
                   "device_authorization": "/oauth2/device_authorize"},
        dead=(400, dict(NO_GRANT, error_reason="refresh_token_not_found"))),
    "Clerk": dict(
        login="--issuer https://acme.clerk.accounts.dev --client-id ID --scope 'openid email offline_access'",
        issuer="https://acme.clerk.accounts.dev", rfc8414={},
        endpoints={"authorization": "/oauth/authorize", "token": "/oauth/token", "userinfo": "/oauth/userinfo",
                   "revocation": "/oauth/token/revoke"}),
    "Stytch": dict(  # its metadata list neither public clients nor refreshing nor S256, and all of it works
        login="--issuer https://acme.customers.stytch.dev --client-id ID --scope 'openid email offline_access'",
        issuer="https://acme.customers.stytch.dev", metadata={
            "grant_types_supported": ["authorization_code"], "code_challenge_methods_supported": [],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"]},
        endpoints={"authorization": "/oauth/authorize", "token": "/v1/oauth2/token", "userinfo": "/v1/oauth2/userinfo",
                   "revocation": "/v1/oauth2/revoke"},
        token={"token_type": "bearer", "request_id": "request-1", "status_code": 200},
        extra={"request_id": "request-1"}),
    "WorkOS Connect": dict(  # unlike AuthKit it has metadata, which list less than it does
        login="--issuer https://acme.authkit.app --client-id ID --scope 'openid email offline_access'",
        issuer="https://acme.authkit.app", rfc8414={}, metadata={"grant_types_supported": ["authorization_code"]},
        endpoints={"authorization": "/oauth2/authorize", "token": "/oauth2/token", "userinfo": "/oauth2/userinfo"}),

    # Where code is kept.
    "GitHub": dict(  # tokens that live until they are revoked; errors with 200; scopes with commas; a new interval
        flows=["auto", "device"], chosen="device", login="--provider github --client-id ID --scope 'repo read:org'",
        endpoints={"authorization": "/login/oauth/authorize", "token": "/login/oauth/access_token",
                   "device_authorization": "/login/device/code", "userinfo": "/user"},
        waits=[(200, WAITING), (200, dict(SLOWER, interval=10))], lives=None, account=None, dead=None,
        token={"id_token": None, "expires_in": None, "scope": "repo,read:org", "token_type": "bearer"}),
    "GitHub Enterprise": dict(
        flows=["auto"], chosen="device", login="--provider github --issuer https://github.example.com --client-id ID",
        endpoints={"token": "/login/oauth/access_token", "device_authorization": "/login/device/code"},
        waits=[(200, WAITING)], lives=None, account=None, dead=None,
        token={"id_token": None, "expires_in": None, "scope": "", "token_type": "bearer"}),
    "GitHub App": dict(  # these have refresh tokens, and with a secret a browser
        flows=["auto"], chosen="browser", login="--provider github --client-id ID", client_auth="post", account=None,
        lives=28800,
        endpoints={"authorization": "/login/oauth/authorize", "token": "/login/oauth/access_token",
                   "device_authorization": "/login/device/code", "userinfo": "/user"},
        token={"id_token": None, "expires_in": 28800, "refresh_token_expires_in": 15897600, "scope": "",
               "token_type": "bearer"}, dead=(200, {"error": "bad_refresh_token",
                                                    "error_description": "It is expired."})),
    "GitLab": dict(  # has a device flow that its metadata do not name
        flows=["browser", "device"], login="--provider gitlab --client-id ID --scope 'openid read_user'",
        issuer="https://gitlab.com", rfc8414={},
        endpoints={"authorization": "/oauth/authorize", "token": "/oauth/token", "userinfo": "/oauth/userinfo",
                   "device_authorization": "/oauth/authorize_device", "revocation": "/oauth/revoke"},
        metadata={"device_authorization_endpoint": None, "grant_types_supported": ["authorization_code",
                                                                                   "device_code"]},
        token={"created_at": 1607635748, "expires_in": 7200}, lives=7200),
    "GitLab of one's own": dict(
        login="--provider gitlab --issuer https://git.example.com/gitlab --client-id ID --scope openid",
        flows=["device"],
        issuer="https://git.example.com/gitlab", endpoints={
            "authorization": "/gitlab/oauth/authorize", "token": "/gitlab/oauth/token",
            "device_authorization": "/gitlab/oauth/authorize_device", "revocation": "/gitlab/oauth/revoke"},
        metadata={"device_authorization_endpoint": None}),
    "Gitea, Forgejo": dict(  # a spent refresh token is an unauthorized_client
        login="--issuer https://codeberg.org/ --client-id ID --scope openid", issuer="https://codeberg.org/",
        token={"token_type": "bearer", "scope": None},
        endpoints={"authorization": "/login/oauth/authorize", "token": "/login/oauth/access_token",
                   "userinfo": "/login/oauth/userinfo"},
        dead=(400, {"error": "unauthorized_client", "error_description": "token was already used"})),
    "Hugging Face": dict(
        flows=["browser", "device"], login="--provider huggingface --client-id ID", issuer="https://huggingface.co",
        endpoints={"authorization": "/oauth/authorize", "token": "/oauth/token", "userinfo": "/oauth/userinfo",
                   "device_authorization": "/oauth/device"}, rfc8414={},
        token={"token_type": "bearer", "expires_in": 28800}, lives=28800, asks={"scope": "openid profile"}),
    "Supabase": dict(  # error codes in a place of its own; the redirect URI is compared to the last letter
        login="--issuer https://abc.supabase.co/auth/v1 --client-id ID --redirect-uri http://localhost:6363/callback "
              "--scope 'openid email'", redirect_uri=r"http://localhost:\d+/callback",
        issuer="https://abc.supabase.co/auth/v1", metadata=None,
        rfc8414={"grant_types_supported": ["authorization_code"]},
        endpoints={"authorization": "/auth/v1/oauth/authorize", "token": "/auth/v1/oauth/token",
                   "userinfo": "/auth/v1/oauth/userinfo"},
        dead=(400, {"code": 400, "error_code": "refresh_token_already_used", "msg": "Invalid Refresh Token"})),

    # Where work is done.
    "Slack": dict(  # refuses with 200; the person's own token is inside, and of a type that nobody else knows
        login="--authorization-endpoint https://slack.com/oauth/v2/authorize --client-id ID "
              "--token-endpoint https://slack.com/api/oauth.v2.access --param user_scope=chat:write",
        endpoints={"authorization": "/oauth/v2/authorize", "token": "/api/oauth.v2.access"},
        asks={"user_scope": "chat:write"}, inside="authed_user", token=dict(PLAIN, ok=True, token_type="user", id="U1"),
        account=None, extra={"id": "U1"}, kept=True, dead=(200, {"ok": False, "error": "invalid_refresh_token"})),
    "Slack, as a bot": dict(
        login="--authorization-endpoint https://slack.com/oauth/v2/authorize --client-id ID --scope commands "
              "--token-endpoint https://slack.com/api/oauth.v2.access --client-auth post",
        endpoints={"authorization": "/oauth/v2/authorize", "token": "/api/oauth.v2.access"}, client_auth="post",
        token=dict(PLAIN, ok=True, expires_in=None, token_type="bot", authed_user={"id": "U1", "access_token": "xoxp"}),
        account=None,
        lives=None,
        extra={"authed_user": {"id": "U1"}}, dead=None),
    "Atlassian": dict(  # no public clients; audience and prompt are wanted; a dead refresh token is a 403
        login="--provider atlassian --client-id ID", client_auth="post", redirect_uri=r"http://localhost:\d+/callback",
        endpoints={"authorization": "/authorize", "token": "/oauth/token", "userinfo": "/me",
                   "revocation": "/oauth/revoke"},
        asks={"audience": "api.atlassian.com", "prompt": "consent", "scope": "read:me offline_access"},
        token={"id_token": None}, account=None,
        dead=(403, {"error": "unauthorized_client", "error_description": "refresh_token is invalid"})),
    "Dropbox": dict(  # no redirect URI: the page shows a code; a refresh answers neither scope nor refresh token
        flows=["paste"], login="--provider dropbox --client-id ID", redirect_uri="",
        asks={"token_access_type": "offline"},
        endpoints={"authorization": "/oauth2/authorize", "token": "/oauth2/token"}, rotates=False,
        token=dict(PLAIN, token_type="bearer", expires_in=14400, account_id="dbid:1"), account=None, lives=14400,
        extra={"account_id": "dbid:1"}),
    "Snowflake": dict(  # Basic; its scope for a refresh token is refresh_token
        login="--authorization-endpoint https://acme.snowflakecomputing.com/oauth/authorize --client-id ID "
              "--token-endpoint https://acme.snowflakecomputing.com/oauth/token-request "
              "--scope 'refresh_token session:role:ANALYST'", client_auth="basic",
        endpoints={"authorization": "/oauth/authorize", "token": "/oauth/token-request"}, rotates=False,
        token={"id_token": None, "expires_in": 600, "refresh_token_expires_in": 86399, "username": "ADA",
               "scope": "session:role:ANALYST"}, account=None, lives=600, extra={"username": "ADA"}),
    "Databricks": dict(  # a port of its own; errors in two words of its own
        login="--issuer https://dbc-1.cloud.databricks.com/oidc --client-id ID --scope 'all-apis offline_access' "
              "--redirect-uri http://localhost:8020", redirect_uri=r"http://localhost:\d+",
        issuer="https://dbc-1.cloud.databricks.com/oidc", token={"id_token": None}, account=None, kept=True,
        endpoints={"authorization": "/oidc/v1/authorize", "token": "/oidc/v1/token"},
        dead=(403, {"errorCode": "E0000006", "errorSummary": "You do not have permission"})),
    "Salesforce": dict(  # no lifetime; when it was issued, in milliseconds and quotes
        login="--issuer https://acme.my.salesforce.com --client-id ID --scope 'openid refresh_token' "
              "--redirect-uri http://localhost:1717/OauthRedirect", redirect_uri=r"http://localhost:\d+/OauthRedirect",
        issuer="https://acme.my.salesforce.com", rotates=False, lives=None,
        endpoints={"authorization": "/services/oauth2/authorize", "token": "/services/oauth2/token",
                   "userinfo": "/services/oauth2/userinfo", "revocation": "/services/oauth2/revoke"},
        token={"expires_in": None, "issued_at": "1607635748123", "instance_url": "https://acme.my.salesforce.com",
               "scope": "refresh_token openid"},
        revoked=(400, {"error": "invalid_token"}),
        dead=(400, {"error": "invalid_grant", "error_description": "expired access/refresh token"})),

    # Where people are at leisure.
    "Twitch": dict(  # scopes in an array; what a device waits for stands in `message`, and its scopes in `scopes`
        flows=["device"], login="--device-authorization-endpoint https://id.twitch.tv/oauth2/device --client-id ID "
                                "--token-endpoint https://id.twitch.tv/oauth2/token --param scopes=user:read:email",
        endpoints={"device_authorization": "/oauth2/device", "token": "/oauth2/token"},
        asks={"scopes": "user:read:email"}, device={"verification_uri": "https://id.twitch.tv/device"},
        waits=[(400, {"status": 400, "message": "authorization_pending"})],
        token={"id_token": None, "token_type": "bearer", "scope": ["user:read:email"]}, account=None, kept=True,
        dead=(400, {"error": "Bad Request", "status": 400, "message": "Invalid refresh token"})),
    "Discord": dict(  # takes forms alone, and blocks clients that hide their name
        login="--authorization-endpoint https://discord.com/oauth2/authorize --client-id ID --scope identify "
              "--token-endpoint https://discord.com/api/oauth2/token "
              "--userinfo-endpoint https://discord.com/api/users/@me "
              "--revocation-endpoint https://discord.com/api/oauth2/token/revoke",
        endpoints={"authorization": "/oauth2/authorize", "token": "/api/oauth2/token", "userinfo": "/api/users/@me",
                   "revocation": "/api/oauth2/token/revoke"}, client_auth="basic",
        token={"id_token": None, "expires_in": 604800}, lives=604800, account=None),
    "Spotify": dict(  # a loopback IP address, never localhost
        login="--authorization-endpoint https://accounts.spotify.com/authorize --client-id ID "
              "--token-endpoint https://accounts.spotify.com/api/token --scope user-read-email",
        endpoints={"authorization": "/authorize", "token": "/api/token"}, token={"id_token": None}, account=None),
}


def loopback(text, site):
    """The text with the hosts of others changed to the server's, and fixed ports to free ones."""
    text = re.sub(r"http://(localhost|127\.0\.0\.1):\d+", r"http://\1:0", text)
    return re.sub(r"https://(?!localhost)[\w.-]+", site, text)


class Provider(Server):
    """The strict server in the manner of somebody else: a row of SYSTEMS."""

    client_id = "ID"

    def __init__(self, row):
        super().__init__()
        self.row = {**USUAL, **row}

    def __enter__(self):
        super().__enter__()
        self.row = json.loads(loopback(json.dumps(self.row), self.issuer))
        return self.stand(self.issuer, self.issuer.replace("127.0.0.1", "localhost"))

    def stand(self, site, elsewhere):
        """Answers as what stands there; a row whose endpoints are on another host has them `elsewhere`."""
        self.site, self.endpoints = site, elsewhere if self.row["elsewhere"] else site
        self.issuer = self.row["issuer"] or self.site
        self.rooms = {path: "/" + name for name, path in self.row["endpoints"].items()}
        self.user, self.extra = {**self.user, **self.row["claims"]}, {"/device_authorization": self.row["device"]}
        return self

    def answer(self, method, path, params, headers):
        own = self.issuer[len(self.site):].rstrip("/").replace("{tenantid}", "common")
        documents = {own + "/.well-known/openid-configuration": "metadata",
                     "/.well-known/oauth-authorization-server" + own: "rfc8414"}
        if path in documents:
            self.requests.append((method, path, params, headers))
            return self.document(self.row[documents[path]])
        page = path not in self.rooms and path.rpartition("/")[2] in ("device", "decision")
        room = self.rooms.get(path, "/" + path.rpartition("/")[2] if page else "/none")
        begins = room in ("/authorization", "/device_authorization", "/pushed_authorization_request")
        if method == "POST" and not page and not self.knows(params, headers):
            return cliauth.refusal("invalid_client", "the client does not say who it is as it should", 401)
        if "request_uri" not in params and (begins or room == "/token") and any(
                (params.get(name) == value) != begins for name, value in self.row["asks"].items()):
            return cliauth.refusal("invalid_request", "what it asks for at the start is to be there, and nowhere else")
        return super().answer(method, room, params, headers)

    def document(self, members):
        if not self.row["issuer"] or members is None:
            return cliauth.refusal("not_found", status=404)
        named = {name + "_endpoint": self.endpoints + path for name, path in self.row["endpoints"].items()}
        document = {"issuer": self.issuer, **named, **members}
        return cliauth.json_reply({name: value for name, value in document.items() if value is not None})

    def knows(self, params, headers):
        """Whether the client says who it is in the one way agreed, names itself in the body too, and wants JSON."""
        ways = {"none": (None, None), "post": ("s3cret", None), "basic": (None, "Basic SUQ6czNjcmV0")}  # ID:s3cret
        polite = (headers["Accept"], headers["User-Agent"][:8]) == ("application/json", "cliauth/")
        return polite and params.get("client_id") == "ID" and ways[self.row["client_auth"]] == (
            params.get("client_secret"), headers["Authorization"])

    def post_pushed_authorization_request(self, params):
        self.pushed = params
        return cliauth.json_reply({"request_uri": "urn:ietf:params:oauth:request_uri:1", "expires_in": 60}, 201)

    def get_authorization(self, params):
        params = self.pushed if params.get("request_uri") else params
        uri = params.setdefault("redirect_uri", "")
        if params.get("client_id") != "ID" or not re.match(self.row["redirect_uri"] + r"\Z", uri):
            return cliauth.refusal("invalid_request", "unknown client or redirect URI")
        if params["response_type"] != "code" or self.row["pkce"] != (params.get("code_challenge_method") == "S256"):
            return cliauth.redirect(params, {"error": "invalid_request"})
        return self.page(params)

    def proven(self, grant, request, params):
        if not self.row["pkce"]:
            request["code_challenge"] = cliauth.base64url(sha256(params.get("code_verifier", "").encode()).digest())
        return super().proven(grant, request, {"redirect_uri": "", **params})

    def tokens(self, family):
        old, row = family.get("newest"), self.row
        status, headers, body = super().tokens(family)
        token = {**json.loads(body.decode()), **row["token"]}
        if row["jwt"]:
            end = self.access[token["access_token"]]
            token["access_token"] = signed(exp=end, jti=token["access_token"])
            self.access[token["access_token"]] = end
        if old and not row["rotates"]:
            family["newest"], self.families[old] = old, family
        if not row["dead"] or old and not row["rotates"]:
            del token["refresh_token"]
        token = {name: value for name, value in token.items() if value is not None}
        token = {"ok": True, row["inside"]: token} if row["inside"] else token
        return status, {} if row["untyped"] else headers, cliauth.dump_json(token)

    def post_revocation(self, params):
        if params["token_type_hint"] == "access_token":
            return cliauth.json_reply(self.row["revoked"][1], self.row["revoked"][0])
        return super().post_revocation(params)

    def visit(self, address):
        """Plays the person, who enters the newest code where the address does not hold it."""
        codes = [code for code, request in self.pending.items() if request.get("user_code") == code]
        at_code = codes and "?" not in address
        landing = decide(self, cliauth.with_query(address, {"user_code": codes[-1]}) if at_code else address)
        return landing and re.sub("&iss=[^&]+", "", landing)


@table("name, flow", [(name, flow) for name, row in SYSTEMS.items() for flow in row.get("flows", USUAL["flows"])])
def test_a_person_signs_in_stays_signed_in_and_signs_out(name, flow, clock, typing, monkeypatch):
    if "localhost" in SYSTEMS[name].get("redirect_uri", "") + str(SYSTEMS[name].get("elsewhere")):
        need_localhost()
    with Provider(SYSTEMS[name]) as provider:
        row = provider.row
        monkeypatch.setattr(cliauth, "PROVIDERS", json.loads(loopback(json.dumps(cliauth.PROVIDERS), provider.site)))
        if row["client_auth"] != "none":
            monkeypatch.setenv("CLIAUTH_CLIENT_SECRET", "s3cret")
        client = cliauth.client_of(cliauth.build_parser().parse_args(["login"] + shlex.split(row["login"])))
        def visit(url):
            try:
                fetch(provider.visit(url) or url)
            except Exception:  # an error page: nobody will ever come back
                clock.now += 1000
                raise
        client.terminal = Played(visit)
        if flow == "paste":  # the address that the browser ends at, or the code that the page shows
            client.terminal = typing(lambda url: [provider.visit(url)] if row["redirect_uri"] else [
                query(provider.visit(url))["code"], "yes"])
        provider.script["/token"] = list(row["waits"]) if flow == "device" or row["chosen"] == "device" else []

        client.login(flow, timeout=600)
        facts = client.status()
        assert facts["account"] == row["account"]
        assert (facts["expires_at"] and facts["expires_at"] - clock.now) == row["lives"]
        assert facts["flow"] == (row["chosen"] or flow) and "{" not in str(facts["issuer"])
        assert {**facts["extra"], **row["extra"]} == facts["extra"]
        assert not {"iat", "issued_at", "created_at"} & set(facts["extra"])
        places = [held(client)["settings"].get(each) for each in ("issuer", "provider", "token_endpoint")]
        assert re.search(" at %s, (organization org_01EXAMPLE, method GoogleOAuth, )?until " % re.escape(
            next(filter(None, places))), client.terminal.text)
        assert not re.search("Not granted|No refresh token came|[+]", client.terminal.text)  # a scope's blank is %20
        assert client.access_token() == held(client)["token"]["access_token"] in provider.access
        if "userinfo" in row["endpoints"]:
            assert client.userinfo()["sub"] == "ada"

        if not row["dead"]:
            assert failure(client.refresh)[1].startswith("the token cannot be refreshed; run: ")
        for _ in range(2 if row["dead"] else 0):
            before, asked = held(client)["token"], len(provider.requests)
            client.refresh()
            after = held(client)["token"]
            assert [request[1] for request in provider.requests[asked:]] == ["/token"]
            assert [before[each] != after[each] for each in ("access_token", "refresh_token")] == [True, row["rotates"]]
            assert client.access_token() == after["access_token"] and client.status()["account"] == row["account"]
        if row["dead"]:
            before, provider.script["/token"] = held(client), [row["dead"]]
            code, said = failure(client.refresh)
            words = [row["dead"][1][each] for each in row["dead"][1] if each in WORDS] or [str(row["dead"][0])]
            assert code == 3 and said.endswith("; run: cliauth login --profile " + client.profile)
            assert all(each in said for each in words if each != 400)
            assert ("refresh_token" in held(client)["token"]) == row["kept"]
            assert client.access_token() == before["token"]["access_token"]  # which lives on
            change(client, **before)

        known = len(provider.requests)
        if flow != "paste":  # signing in again needs the profile's name alone, and no discovery
            provider.script["/token"] = list(row["waits"]) if facts["flow"] == "device" else []
            client = Client(profile=client.profile, terminal=client.terminal)
            client.login(flow, timeout=600)
        token = held(client)["token"]
        client.logout()
        sent = [(params["token_type_hint"], params["token"]) for params in provider.asked("/revocation")]
        hints = ("refresh_token", "access_token") if "revocation" in row["endpoints"] else ()
        assert sent == [(each, token[each]) for each in hints] and held(client)["token"] == {}
        assert not held(client)["metadata"] or not [
            path for _, path, _, _ in provider.requests[known:] if "well-known" in path]
        assert ("forgotten here" in client.terminal.text) != bool(hints)
        assert not hints or provider.families[token["refresh_token"]]["newest"] == ""


def test_organizations_are_profiles_to_switch_between_and_to_sign_in_to_by_name(monkeypatch, cli):
    row = dict(SYSTEMS["WorkOS AuthKit"], asks={"provider": "authkit"})
    with Provider(row) as provider:
        monkeypatch.setattr(cliauth, "PROVIDERS", json.loads(loopback(json.dumps(cliauth.PROVIDERS), provider.site)))
        monkeypatch.setattr(Terminal, "surroundings", lambda *_: (["person"], ["browser"], "BROWSER is set"))
        monkeypatch.setattr(Terminal, "open_browser", lambda self, argv, url: setattr(
            self, "visited", cliauth.Background(lambda: fetch(provider.visit(url)))))
        for name, organization in (("acme", "org_1"), ("globex", "org_2")):
            provider.row["token"]["organization_id"] = organization
            code, _, err = cli("login", "--profile", name, "--provider", "workos", "--client-id", "ID",
                               "--param", "organization_id=" + organization)
            assert code == 0 and ", organization %s, method GoogleOAuth, until " % organization in err
        tokens = [cli("token", "--profile", name)[1] for name in ("acme", "globex")]
        assert cli("list")[1] == "  acme  ada@example.com\n* globex  ada@example.com\n" and cli("token")[1] == tokens[1]
        assert cli("switch", "acme")[0] == 0 and cli("token")[1] == tokens[0] != tokens[1]
        assert re.search("organization_id +org_1\n", cli("status")[1]) and cli("logout")[0] == 0
        assert (cli("token")[0], cli("token", "--profile", "globex")[1]) == (3, tokens[1])
        assert cli("login")[0] == 0 and provider.asked("/authorization")[-1]["organization_id"] == "org_1"


def test_the_readme_has_the_command_line_of_the_five_that_this_was_begun_for():
    with open(os.path.join(HERE, "README.md"), encoding="utf-8") as file:
        readme = re.sub(r"\\\n +", "", file.read())
    for name in list(SYSTEMS)[:4] + ["TOKI", "TOKI, with a secret"]:
        assert "python3 cliauth.py login " + SYSTEMS[name]["login"] in readme, name


# ─── 11 Demo ─────────────────────────────────────────────────────────────────────────────────────────────────────────

class TestDemo:
    """A server to throw away, and a whole session with it; strict, so that tests against it mean something."""

    @pytest.mark.parametrize("options, env, steps", [  # it plays the person where it is told, and where nobody is
        (["--yes"], {"BROWSER": sys.executable}, "GET /authorization 200, POST /decision 302, POST /token 200"),
        (["--device"], {"CI": "true"}, "POST /device_authorization 200, GET /device 200, POST /decision 200, "
         "POST /token 200")])
    def test_the_demo_plays_a_whole_session_and_tells_each_step(self, tmp_path, options, env, steps):
        process = run("demo", *options, env=env)
        out = process.stdout.decode()
        told = re.findall(r"^(?:\$ python3? .*cliauth\.py\S? (\w+)|  (GET|POST) +(/[^.\s]*) +\S+ +([0-9]+))", out, re.M)
        assert process.returncode == 0 and ", ".join(" ".join(filter(None, step)) for step in told) == (
            "login, %s, token, refresh, POST /token 200, userinfo, GET /userinfo 200, logout, POST /revocation 200, "
            "POST /revocation 200, login" % steps)
        for name in ("code_challenge", "state", "nonce", "code_verifier") if "--yes" in options else ("device_code",):
            assert name in out
        assert '"email": "ada@example.com"' in out and not (tmp_path / "home").exists()

    @table("flow", ["browser", "device"])
    def test_other_people_s_tests_sign_in_with_its_client(self, flow, tmp_path):
        with cliauth.DemoServer() as server:
            client = server.client(str(tmp_path / "token.json"))
            client.login(flow)
            assert client.userinfo()["email"] == "ada@example.com" and client.terminal.quiet
            assert client.status()["scope"] == "openid email offline_access"
            server.decision = "deny"
            assert fails(ErrorResponse, client.login, flow).startswith("the sign-in was denied: ")

    def test_what_goes_wrong_at_the_played_browser_ends_the_sign_in(self, server, tmp_path):
        client = server.client(tmp_path / "token.json")
        server.client_id = "other"  # whom the server knows now
        assert fails(InvalidResponse, client.login, "browser").startswith(
            "the person sees HTTP 400 at %s/authorization?…; check the issuer and " % server.issuer)

    @table("entered, status, said", [
        (None, 200, "<p>Which code does the terminal show?"), ("", 200, "<p>Which code does the terminal show?"),
        ("{}", 200, "<p>Does the terminal show this code? <b>{}</b>"), ("{}7", 200, "<b>{}</b>"),
        ("no-such", 400, "<p>There is no such code, or it was used.")])
    def test_a_person_who_enters_the_code_may_write_it_in_any_way_and_sees_what_to_compare(self, entered, status, said):
        with cliauth.DemoServer() as server:
            code = json.loads(server.post_device_authorization({"client_id": "demo"})[2])["user_code"]
            form = {} if entered is None else {"user_code": entered.format(code[:4].lower() + "-" + code[4:])}
            answer = server.get_device(form)
            assert answer[0] == status and said.format(code) in answer[2].decode()
            if status == 200 and entered:
                assert server.get_device(form)[0] == 400 and b">Sign in as Ada Lovelace<" in answer[2]

    def test_a_person_decides_once_and_has_no_code_to_compare_where_there_is_none(self):
        with cliauth.DemoServer() as server:
            asked = {"client_id": "demo", "redirect_uri": "http://127.0.0.1:1/callback", "response_type": "code",
                     "code_challenge_method": "S256"}
            page = server.get_authorization(asked)[2].decode()
            assert "<b>" not in page
            form = {"request": re.search("name=request value=([^>]+)", page).group(1), "decision": "deny"}
            assert [server.post_decision(form)[0] for _ in "12"] == [302, 400]
            assert server.get_authorization({**asked, "client_id": "x"})[0] == 400

    def test_the_person_may_press_another_button_than_usual_and_the_terminal_may_speak(self):
        with cliauth.DemoServer() as server:
            answer = json.loads(server.post_device_authorization({"client_id": "demo"})[2])
            server.person(answer["verification_uri_complete"], "deny")
            assert server.decided[answer["device_code"]]["decision"] == "access_denied"
            terminal = server.terminal(quiet=False, verbose=True)
            assert (terminal.quiet, terminal.verbose, terminal.surroundings()[1][0]) == (False, True, "browser")

    def test_other_people_s_programs_sign_in_whole_where_its_terminal_takes_the_place_of_ours(self, cli, monkeypatch):
        with cliauth.DemoServer() as server:
            server.client_id, server.user = "my-cli", {"sub": "grace"}
            monkeypatch.setattr(cliauth, "Terminal", server.terminal)
            monkeypatch.setattr(cliauth, "ISSUER", server.issuer)
            monkeypatch.setattr(cliauth, "CLIENT_ID", "my-cli")
            assert cli("login")[:2] == (0, "") and "account               grace\n" in cli("status")[1]
            assert (cli("logout")[0], cli("token")[0]) == (0, 3)
            assert server.client(os.devnull).options["client_id"] == "my-cli"

    def test_where_threads_are_refused_the_server_answers_one_by_one_or_says_so(self, monkeypatch):
        import socketserver

        def refuse(*args):
            raise RuntimeError("can't start new thread")

        with Server() as server:
            monkeypatch.setattr(socketserver.ThreadingMixIn, "process_request", refuse)
            client_of(server).login("browser")
        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert fails(Unreachable, Server().__enter__) == (
            "the demo needs a thread, and can have none; raise the limit of processes")

    @table("head", ["GET /\x1b]0;mine\x07?%1b%5d=1", "POST /token HTTP/1.0\r\nContent-Length: abc"])
    def test_what_any_page_may_ask_of_the_demo_is_shown_as_all_text_of_others(self, head, cli, monkeypatch):
        class Visited(cliauth.DemoServer):
            def person(self, url, decision=""):
                with socket.create_connection(self.web.server_address, 5) as connection:
                    connection.sendall(head.encode() + b"\r\n\r\n")
                    while connection.recv(1000):
                        pass
                super().person(url, decision)

        monkeypatch.setattr(cliauth, "DemoServer", Visited)
        code, out, err = cli("demo", "--yes")
        assert code == 0 and "\x1b" not in out and "Traceback" not in err
        assert "POST" in head or r"/\x1b]0;mine\x07 → 404" in out and r"with \x1b]" in out

    def test_where_nobody_reads_on_the_demo_ends_at_once(self):
        with start("demo", "--yes") as process:
            process.stdout.close()
            assert b"Traceback" not in process.stderr.read() and process.wait(20) == 4

    @pytest.mark.parametrize("change, answer", [
        ({}, 200), ({"code_verifier": "x" * 43}, 400), ({"code_verifier": ""}, 400), ({"code": "guessed"}, 400),
        ({"redirect_uri": "http://127.0.0.1:1/callback/"}, 400), ({"client_id": "other"}, 401),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:device_code"}, 400)])
    def test_a_code_is_exchanged_once_for_whoever_asked_for_it(self, server, change, answer):
        attempt = cliauth.Attempt(True, True)
        uri = "http://127.0.0.1:1/callback"
        request = cliauth.authorization_request({"client_id": "demo", "scope": "openid"}, uri, attempt)
        callback = query(decide(server, cliauth.with_query(server.issuer + "/authorization", request)))
        assert (callback["state"], callback["iss"]) == (attempt.state, server.issuer)
        form = {"grant_type": "authorization_code", "client_id": "demo", "code": callback["code"],
                "redirect_uri": uri, "code_verifier": attempt.code_verifier}
        assert fetch(server.issuer + "/token", {**form, **change})[0] == answer
        assert fetch(server.issuer + "/token", form)[0] == (400 if answer == 200 else 200)  # a code is spent by success
        assert json.loads(fetch(server.issuer + "/token", form)[2])["error"] == "invalid_grant"  # at any later time

    def test_a_refresh_token_used_twice_ends_its_family_and_so_does_revocation(self, server, signed_in):
        first = held(signed_in)["token"]["refresh_token"]
        form = {"grant_type": "refresh_token", "client_id": "demo", "refresh_token": first}
        second = json.loads(fetch(server.issuer + "/token", form)[2])["refresh_token"]
        assert fetch(server.issuer + "/token", form)[0] == 400
        assert fetch(server.issuer + "/token", dict(form, refresh_token=second))[0] == 400
        signed_in.login("browser")
        token = held(signed_in)["token"]
        for name in ("access_token", "refresh_token", "refresh_token"):
            assert fetch(server.issuer + "/revocation", {"token": token[name]})[0] == 200
        assert fetch(server.issuer + "/token", dict(form, refresh_token=token["refresh_token"]))[0] == 400
        assert failure(signed_in.userinfo)[0] == 3

    def test_a_device_code_waits_for_the_person_who_may_refuse(self, server):
        for decision, outcome in (("allow", 200), ("deny", "access_denied")):
            device = json.loads(fetch(server.issuer + "/device_authorization", {"client_id": "demo"})[2])
            form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "client_id": "demo",
                    "device_code": device["device_code"]}
            answers = [json.loads(fetch(server.issuer + "/token", form)[2])["error"]]
            decide(server, device["verification_uri_complete"], decision)
            status, _, body = fetch(server.issuer + "/token", form)
            answers += [status if status == 200 else json.loads(body)["error"]]
            assert answers == ["authorization_pending", outcome] and fetch(server.issuer + "/token", form)[0] == 400
        assert fetch(device["verification_uri_complete"])[0] == 400

    @pytest.mark.parametrize("change, redirected_with", [
        ({"client_id": "other"}, None), ({"redirect_uri": "http://127.0.0.1:1/other"}, None),
        ({"redirect_uri": "https://b.example/callback"}, None), ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"response_type": "token"}, "invalid_request")])
    def test_only_a_known_client_at_its_own_redirect_uri_hears_of_an_error(self, server, change, redirected_with):
        asked = {**cliauth.authorization_request({"client_id": "demo"}, "http://127.0.0.1:1/callback",
                                                 cliauth.Attempt(True, True)), **change}
        status, headers, _ = fetch(cliauth.with_query(server.issuer + "/authorization", asked))
        assert (status, "Location" in headers) == ((302, True) if redirected_with else (400, False))
        assert not redirected_with or query(headers["Location"])["error"] == redirected_with


# ─── 12 Command line ─────────────────────────────────────────────────────────────────────────────────────────────────

@pytest.fixture
def cli(capsys, monkeypatch):
    """A command line in this process: its exit code, stdout and stderr."""
    def call(*argv, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        try:
            code = cliauth.main(list(argv))
        except SystemExit as end:
            code = end.code
        return (code, *capsys.readouterr())
    return call


@pytest.fixture
def person(server, monkeypatch):
    """Whatever browser is opened, the server's person sits at it."""
    monkeypatch.setattr(Terminal, "surroundings", lambda *_: (["person"], ["browser"], "BROWSER is set"))
    monkeypatch.setattr(Terminal, "open_browser", lambda self, argv, url: setattr(
        self, "visited", cliauth.Background(lambda: fetch(decide(server, url) or url))))


class TestCommandLine:
    """Results on stdout and nothing else, every word for a person on stderr, and an exit code that says which."""

    def test_files_are_named_from_anywhere(self):
        args = cliauth.build_parser().parse_args(["login", "--ca-file", "roots.pem"])
        assert cliauth.client_of(args).options["ca_file"] == os.path.abspath("roots.pem")

    @pytest.mark.parametrize("option", ["--client-secret-file", "--client-assertion-file"])
    def test_a_file_that_is_no_text_is_never_sent(self, server, cli, tmp_path, option):
        (tmp_path / "key").write_bytes(b"\xff\xfeS3CRET")
        said = "%s cannot be read from %s: it is not text; name another file\n" % (option, tmp_path / "key")
        login = ["login", "--flow", "client-credentials", "--issuer", server.issuer, "--client-id", "x"]
        assert cli(*login, option, str(tmp_path / "key")) == (2, "", "cliauth: " + said) and not server.asked("/token")

    def test_a_secret_is_read_no_further_than_the_limit(self, monkeypatch, tmp_path):
        monkeypatch.setattr(cliauth, "BODY_LIMIT", 4)
        (tmp_path / "key").write_text("abcdefgh")
        assert cliauth.read_text(str(tmp_path / "key"), "it") == "abcd"

    def test_help_is_as_wide_as_the_terminal(self, cli, monkeypatch):
        widths = []
        for columns in ("60", "200"):
            monkeypatch.setenv("COLUMNS", columns)
            *text, example, _ = cli("login", "--help")[1].split("\n")
            widths.append(max(map(len, text)))
            assert example == "example: cliauth " + cliauth.COMMANDS["login"][2]  # not broken, to be copied
        assert widths[0] < 100 < widths[1]

    def test_a_login_is_silent_on_stdout_and_later_commands_need_no_options(self, server, cli, person):
        options = ["--issuer", server.issuer, "--client-id", "demo", "--scope", "openid", "--param", "prompt=login"]
        code, out, err = cli("login", "--timeout", "10", *options)
        assert (code, out) == (0, "") and "\nSigned in as ada@example.com at " + server.issuer in err
        code, out, err = cli("token")
        assert (code, err) == (0, "") and re.match(r"[\w-]{22}\n\Z", out)
        code, out, err = cli("login", "--timeout", "10", "-q", "--json", "--param", "a=b=c")
        assert (code, out) == (0, cli("status", "--json")[1]) and re.match(
            r"To sign in, open this address:\n\n    http\S+\n\n\Z", err)
        assert [(sent["prompt"], sent.get("a")) for sent in server.asked("/authorization")] == [
            ("login", None), ("login", "b=c")]

    def test_token_in_every_format(self, server, clock, signed_in, cli, monkeypatch):
        token = held(signed_in)["token"]
        assert cli("token") == (0, token["access_token"] + "\n", "")
        assert cli("token", "--format", "header") == (0, "Authorization: Bearer %s\n" % token["access_token"], "")
        assert cli("token", "--id-token") == (0, token["id_token"] + "\n", "")
        assert json.loads(cli("token", "--format=json")[1]) == {
            "access_token": token["access_token"], "token_type": "Bearer", "expires_at": clock.now + 3600,
            "scope": "openid email offline_access"}
        for info, version in (("", "v1"), ('{"apiVersion": "client.authentication.k8s.io/v1beta1"}', "v1beta1")):
            monkeypatch.setenv("KUBERNETES_EXEC_INFO", info)
            assert json.loads(cli("token", "--format", "kubectl")[1]) == {
                "apiVersion": "client.authentication.k8s.io/" + version, "kind": "ExecCredential",
                "status": {"token": token["access_token"], "expirationTimestamp": "2027-01-15T09:00:00Z"}}
        monkeypatch.setenv("KUBERNETES_EXEC_INFO", "[1]")  # not kubectl's
        assert '"client.authentication.k8s.io/v1"' in cli("token", "--format", "kubectl")[1]
        assert not server.requests and cli("token", "--min-ttl", "3601")[1] != token["access_token"] + "\n"
        for left, times in ((61, 1), (59, 2)):
            change(signed_in, expires_at=clock.now + left)
            assert cli("token", "--format", "header")[0] == 0 and len(server.asked("/token")) == times
        monkeypatch.setenv("CLIAUTH_ACCESS_TOKEN", "given")
        assert cli("token") == (0, "given\n", "")
        assert cli("request", server.issuer + "/userinfo")[::2] == (
            1, "cliauth: HTTP 401 Unauthorized; set another CLIAUTH_ACCESS_TOKEN\n")

    @pytest.mark.parametrize("format_, info, code", [
        ("kubectl", '{"spec": {"interactive": false}}', 3), ("kubectl", '{"spec": {"interactive": true}}', 0),
        ("kubectl", '{"spec": {}}', 0), ("kubectl", '{"spec": 1}', 0), ("kubectl", "", 0),
        ("token", '{"spec": {"interactive": false}}', 0)])
    def test_kubectl_says_whether_a_person_may_be_asked(self, server, cli, person, monkeypatch, format_, info, code):
        monkeypatch.setenv("CLIAUTH_ISSUER", server.issuer)
        monkeypatch.setenv("CLIAUTH_CLIENT_ID", "demo")
        monkeypatch.setenv("KUBERNETES_EXEC_INFO", info)
        assert cli("token", "--login", "--format", format_)[0] == code

    @pytest.mark.parametrize("operation, protocol, host, answered", [
        ("get", "http", "HOST", True), ("get", "https", "HOST", False), ("store", "http", "HOST", False),
        ("erase", "http", "HOST", False), ("get", "http", "HOST1", False), ("get", "https", "github.com", False),
        ("get", "http", "github.com", False), ("get", "", "", False)])
    def test_git_gets_the_token_for_the_host_of_the_issuer_alone(
            self, server, signed_in, cli, operation, protocol, host, answered):
        asked = "protocol=%s\nhost=%s\npath=a/b.git\n\n" % (protocol, host.replace("HOST", server.issuer[7:]))
        out = "username=oauth2\npassword=%s\n" % held(signed_in)["token"]["access_token"] if answered else ""
        assert cli("token", "--format", "git", operation, stdin=asked) == (0, out, "")

    def test_status_list_and_switch(self, clock, signed_in, cli):
        name, issuer = signed_in.profile, signed_in.options["issuer"]
        change(signed_in, token=dict(held(signed_in)["token"], organization_id="org_1\x1b[m", **{"n\x1b": 7}))
        keep("other", token={}, settings={"issuer": "https://a.example", "client_id": "cli"})
        assert cli("list") == (0, "  %s  ada@example.com\n* other  signed out\n" % name, "")
        assert cli("status") == (3, "", "cliauth: nobody is signed in as other; run: cliauth login --profile other\n")
        code, out, err = cli("status", "--json")
        assert (code, json.loads(out)["signed_in"], err) == (3, False, "")
        assert cli("switch", name) == (0, "", "")
        assert cli("status") == (0, "".join("%-21s %s\n" % row for row in (
            ("profile", name), ("account", "ada@example.com"), ("issuer", issuer), ("client_id", "demo"),
            ("flow", "browser"), ("scope", "openid email offline_access"),
            ("until", cliauth.when(clock.now + 3600) + ", then refreshed"), ("organization_id", r"org_1\x1b[m"),
            (r"n\x1b", "7"))), "")
        assert json.loads(cli("list", "--json")[1]) == [
            {"current": True, "profile": name, "signed_in": True, "account": "ada@example.com", "issuer": issuer,
             "client_id": "demo"}, {"current": False, "profile": "other", "signed_in": False, "account": None,
                                    "issuer": "https://a.example", "client_id": "cli"}]
        assert cli("switch", "acme") == (2, "", "cliauth: there is no profile acme; there are: %s, other; run: "
                                         "cliauth switch %s\n" % (name, name))
        change(signed_in, settings={"token_endpoint": "https://a.example/token", "client_id": "demo"}, metadata={})
        assert cli("status", "--profile", name)[1].split("\n")[2].split() == ["issuer", "https://a.example/token"]
        keep("zoe", token={"access_token": "x", "user": {"name": "Zoe\x1b"}})
        assert cli("list")[1].endswith("\n* zoe  Zoe\\x1b\n")

    def test_status_v_says_where_the_tokens_are_and_what_protects_them(self, signed_in, cli, monkeypatch):
        path, windows = signed_in.file.path, ": Windows protects it by the access list of its folder"
        for mode, folder_mode in ((0o600, 0o700), (0o644, 0o755)):
            os.chmod(path, mode)
            os.chmod(os.path.dirname(path), folder_mode)
            said = "token file %s: mode %04o, in a folder of mode %04o\n" % (path, mode, folder_mode)
            said = re.sub(": mode.*", windows, said) if WINDOWS else said
            assert cli("-v", "status") == (*cli("status")[:2], said)
        absent = os.path.join(cliauth.home(), "x.json")
        assert cli("status", "-v", "--profile", "x")[2].startswith("token file %s: not there yet\n" % absent)
        monkeypatch.setattr(os, "name", "nt")
        protection = signed_in.file.protection()
        monkeypatch.setattr(os, "name", "nt" if WINDOWS else "posix")
        assert protection == windows[2:]

    def test_logout_in_the_browser_too_of_all_profiles_and_for_good(self, server, signed_in, cli, monkeypatch):
        opened = []
        monkeypatch.setattr(Terminal, "surroundings", lambda *_: (["opener"], ["browser"], ""))
        monkeypatch.setattr(Terminal, "open_browser", lambda _, argv, url: opened.extend([url] * argv.count("opener")))
        change(signed_in, metadata=dict(held(signed_in)["metadata"], end_session_endpoint=server.issuer + "/bye"))
        code, out, err = cli("logout", "--browser")
        assert (code, out, opened) == (0, "", [server.issuer + "/bye?client_id=demo"]) and opened[0] in err
        assert len(server.asked("/revocation")) == 2 and cliauth.profile_names() == [signed_in.profile]
        keep("other", settings={"token_endpoint": "https://a.example/token", "client_id": "cli"})
        assert cli("logout", "--all", "--forget") == (
            0, "", "Signed out of https://a.example/token; the provider has no revocation endpoint, so the tokens "
            "were only forgotten here.\n")
        assert cliauth.profile_names() == [] and cli("list") == (0, "", "")

    def test_help_and_version_are_results_and_every_command_has_an_example(self, cli):
        assert cli("--version") == (0, "cliauth %s (Python %s)\n" % (cliauth.__version__, sys.version.split()[0]), "")
        assert cli() == cli("--help")
        for command in cliauth.COMMANDS:
            code, out, err = cli(command, "-h")
            assert (code, err) == (0, "") and "\nexample: cliauth %s" % command in out and "--profile NAME" in out
            assert "\n    %s " % command in cli("-h")[1]

    def test_the_example_of_every_command_works_as_it_is_printed(self, server, cli, person):
        server.client_id = "my-cli"
        for command in ("", *cliauth.COMMANDS):
            example = cli(*command.split(), "-h")[1].rpartition("\nexample: cliauth ")[2]
            for name, here in (("id.example.com", ""), ("api.example.com/me", "/userinfo")):
                example = example.replace("https://" + name, server.issuer + here)
            assert cli(*shlex.split(example.partition(" | curl -H @- http")[0]))[0] == 0, example
            keep("acme", **cliauth.Client().locate().read())  # for `switch acme`

    def test_profile_token_file_quiet_and_verbose_stand_before_or_after_the_command(self, server, signed_in, cli):
        name, path, token = signed_in.profile, signed_in.locate().path, held(signed_in)["token"]["access_token"]
        keep("other", token=dict(TOKEN, access_token="not-this"))
        for option in (["--profile", name], ["--token-file", path], ["--token-file=" + path, "-q"]):
            assert cli(*option, "token") == cli("token", *option) == (0, token + "\n", "")
        for line in (["-v", "refresh", "--profile", name], ["--profile", name, "refresh", "-v"]):
            assert "> POST %s/token" % server.issuer in cli(*line)[2]

    LOGIN = ["login", "--issuer", "I", "--client-id"]

    @pytest.mark.parametrize("argv, code, said", [
        (["status"], 3, "nobody is signed in; run: cliauth login --issuer URL --client-id ID\n"),
        (["token", "--profile", "acme"], 3, "nobody is signed in as acme; run: cliauth login --profile acme --issuer "
         "URL --client-id ID\n"),
        (["login"], 2, "which provider? name it with --issuer URL, or --provider github|"),
        (["login", "--issuer", "I"], 2, "no client id; register a client at the provider and name it with --client-"),
        (["login", "--issuer", "http://a.example", "--client-id", "x"], 2, "--issuer must begin with https://, or "),
        (LOGIN + ["x", "--param", "state=1"], 2, "--param cannot set state, which the protocol needs; leave it out\n"),
        (LOGIN + ["x", "--param", "state"], 2, "--param takes NAME=VALUE"),
        (LOGIN + ["x", "--param", "hint=j\udcfc"], 2, "--param holds characters that cannot be sent; type it anew, in"),
        (["login", "--provider", "acme", "--client-id", "x"], 2, "no provider is called acme; there are github, "),
        (["login", "--client-secret-file", "/no"], 2, "--client-secret-file cannot be read from /no: No such file"),
        (["login", "--profile", "../x"], 2, "no profile can be called ../x; use letters, digits and . _ @ + -\n"),
        (["login", "--client-secret", "x"], 2, "unknown: --client-secret; run: cliauth login --help\n"),
        (LOGIN + ["x", "--param", "request_uri=1"], 2, "--param cannot set request_uri, which the protocol needs; "),
        pytest.param(["status", "--token-file", "a\x1b.json"], 3, "nobody is signed in as a\\x1b; run: cliauth login "
                     "--token-", marks=posix("such names")),
        (["status", "--token-file", "a", "--profile", "\x1b"], 3, "nobody is signed in as \\x1b; run: cliauth login "),
        (["switch", "acme"], 2, "there is no profile acme; run: cliauth login --issuer URL --client-id ID\n"),
        (["--nope"], 2, "unknown: --nope; run: cliauth --help\n"),
        (["request", "I", "--nope"], 2, "unknown: --nope; run: cliauth request --help\n"),
        (["request"], 2, "the following arguments are required: "),
        (["request", "GET", "I", "I"], 2, "unknown: an argument too many; run: cliauth request --help\n"),
        (["token", "get"], 2, "token takes no argument but with --format git; run: cliauth token --help\n"),
        (LOGIN + ["x", "--client-secret-file", os.devnull], 2, "there is no client secret in "),
        (LOGIN + ["x", "--flow", "client-credentials"], 1, "I/token answered 401 invalid_client"),
        (LOGIN + ["x"], 3, "nobody can sign in here: there is no display, and stderr is no terminal; use "),
        (LOGIN + ["x", "--flow", "paste"], 3, "nothing was pasted, and stdin has ended; run the same command in a"),
        (LOGIN + ["x", "--device", "--timeout", "0", "--param", "claims={\r\n\t}"], 4,
         "nobody signed in within 0 s; run the same command again\n"),
        (["login", "--issuer", "http://127.0.0.1:1", "--client-id", "x", "--device"], 4, "127.0.0.1:1 cannot be ")])
    def test_an_error_is_one_line_and_an_exit_code(self, server, cli, monkeypatch, argv, code, said):
        monkeypatch.setattr(cliauth, "find_browser", lambda *_: ([], "there is no display"))
        status, out, err = cli(*(server.issuer if word == "I" else word for word in argv))
        assert (status, out) == (code, "")
        assert (err.split("\n")[-2] + "\n").startswith("cliauth: " + said.replace("I/", server.issuer + "/"))

    def test_nobody_is_there_in_a_ci_job_whatever_the_provider_offers(self, cli, monkeypatch):
        monkeypatch.setenv("CI", "1")
        for provider in ("github", "gitlab"):
            code, _, err = cli("login", "--provider", provider, "--client-id", "x")
            assert code == 3 and err.startswith("cliauth: nobody can sign in here: CI is set; use login --flow ")

    def test_logout_does_not_guess_who_is_meant(self, signed_in, cli):
        os.unlink(os.path.join(os.environ["CLIAUTH_HOME"], "current"))
        assert cli("logout") == (3, "", "cliauth: no profile is the current one; run: cliauth switch %s\n"
                                 % signed_in.profile)
        assert held(signed_in)["token"]
        signed_in.logout()
        assert cli("logout") == (0, "", "Nobody was signed in.\n")

    def test_a_userinfo_refused_for_good_says_who_has_to_sign_in(self, server, signed_in, cli):
        server.access.clear()
        change(signed_in, token=dict(held(signed_in)["token"], refresh_token=None))
        assert cli("userinfo") == (3, "", "cliauth: the token is not taken any more (invalid_token); run: cliauth "
                                   "login --profile %s\n" % signed_in.profile)
        server.script["/userinfo"] = [(403, {"error": "insufficient_scope"})]
        assert cli("userinfo") == (1, "", "cliauth: %s/userinfo answered 403 insufficient_scope; check login's "
                                   "--scope\n" % server.issuer)

    def test_what_else_commands_say_of_what_is_missing(self, server, signed_in, cli, monkeypatch):
        assert json.loads(cli("refresh", "--json")[1]) == json.loads(cli("status", "--json")[1])
        server.extra["/token"] = {"id_token": None}
        change(signed_in, token=dict(held(signed_in)["token"], id_token=None))
        assert cli("token", "--id-token") == (2, "", "cliauth: the provider gave no id_token; run: cliauth login "
                                              "--profile %s with openid in the scope\n" % signed_in.profile)
        assert cli("logout", "--browser")[2].endswith(".\nThe provider names no end_session_endpoint; sign out on its "
                                                      "own page.\n")
        with open(os.path.join(signed_in.file.folder, "broken.json"), "w") as file:
            file.write("{")
        code, out, err = cli("list")
        assert (code, out) == (0, "* %s  signed out\n" % signed_in.profile) and "broken.json cannot be used: " in err
        os.unlink(os.path.join(signed_in.file.folder, "current"))
        assert cli("token")[2].endswith(": no profile is the current one; run: cliauth switch %s\n" % signed_in.profile)
        monkeypatch.setenv("CLIAUTH_ACCESS_TOKEN", "a b")
        assert cli("token") == (2, "", "cliauth: CLIAUTH_ACCESS_TOKEN holds no token; unset it\n")

    def test_a_damaged_current_profile_is_in_nobodys_way_who_names_another(self, server, signed_in, cli):
        with open(signed_in.file.path, "w") as file:
            file.write("{")
        assert cli("token")[0] == 2 and cli("token", "--profile", "other")[0] == 3
        assert Client("https://id.example", "x").locate().path.endswith("id.example_x.json")

    @pytest.mark.parametrize("argv", [
        ["login", "--client-secret=hunter2"], ["login", "--client-secret", "hunter2"], ["hunter2"],
        ["login", "-phunter2"], ["-qxhunter2", "list"], ["login", "--password:hunter2"],
        ["login", "--client-sec=hunter2"], ["login", "--flow", "hunter2"], ["login", "--timeout", "hunter2"],
        ["login", "--device=hunter2"], ["token", "get", "hunter2"], ["--token-f=hunter2", "list"],
        ["request", "-H", "hunter2", "https://a.b"], ["login", "--timeout", "1\nhunter2"],
        ["list", "--json=1\nhunter2"], ["login", "--flow", "auto\nhunter2"], ["login", "--param", "hunter2"],
        ["login", "--flow", "x (choose hunter2"],
        ["login", "--issuer", "https://a.b", "--client-id", "x", "--param", "code=hunter2"]])
    def test_an_argument_in_the_wrong_place_is_not_echoed(self, cli, argv):
        code, out, err = cli(*argv)
        assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith("cliauth: ") and "hunter2" not in err

    HALF = NameError("name 'os' is not defined")  # what 3.13's tempfile ends in where shutil is missing
    HALF.__context__ = ImportError(name="shutil")

    @pytest.mark.parametrize("error, code, said", [
        (HALF, 2, "this Python lacks the module shutil; install all of it (Debian: apt install python3)"),
        (KeyError("S3CRET\n"), 1, "an unforeseen KeyError; please report it, with what you typed"),
        (ImportError("S3CRET", name="ssl"), 2, "this Python lacks the module ssl; install all of it (Debian: apt "
         "install python3)"), (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.EIO, "Input/output error", "a\x1b"), 4, "a\\x1b: Input/output error; try again"),
        (OSError("odd"), 4, "the system says: odd; try again")])
    def test_whatever_goes_wrong_is_one_line_and_signals_stay_as_they_were(self, cli, monkeypatch, error, code, said):
        def work(*args):
            raise error
        before = signal.getsignal(signal.SIGTERM)
        monkeypatch.setattr(Client, "status", work)
        assert cli("status") == (code, "", "cliauth: " + said + "\n")
        assert signal.getsignal(signal.SIGTERM) is before
        assert cliauth.Background(lambda: cliauth.main(["--version"])).result(5) == 0  # in a thread there are none

    def test_a_client_secret_comes_from_stdin_and_is_kept_for_the_refresh(self, server, cli):
        server.script["/token"] = [(200, TOKEN)] * 2
        options = ["--issuer", server.issuer, "--client-id", "a:b", "--flow", "client-credentials"]
        login = cli("-q", "login", *options, "--client-secret-file", "-", stdin="s 3cret\n")
        assert login == cli("-q", "refresh") == (0, "", "")
        for _, _, params, headers in server.requests[-2:]:
            assert headers["Authorization"] == "Basic YSUzQWI6cyUyMDNjcmV0"  # a%3Ab:s%203cret
            assert params == {"grant_type": "client_credentials", "client_id": "a:b"}

    FORM = "application/x-www-form-urlencoded"

    @pytest.mark.parametrize("options, stdin, received", [
        ([], "", ("GET", {}, None)), (["-d", "a=1&b=%20"], "", ("POST", {"a": "1", "b": " "}, FORM)),
        (["-d", "@-"], "c=3", ("POST", {"c": "3"}, FORM)),
        (["-d", "@FILE", "-H", "Content-Type: application/json"], "", ("POST", {'{"x":1}': ""}, "application/json"))])
    def test_request_sends_the_token_and_what_it_is_told(
            self, server, signed_in, cli, tmp_path, options, stdin, received):
        (tmp_path / "body").write_text('{"x":1}')
        server.script["/api"] = [(200, "körper"), (201, ""), (200, "")]
        options = [word.replace("FILE", str(tmp_path / "body")) for word in options]
        assert cli("request", server.issuer + "/api", *options, stdin=stdin) == (0, "körper", "")
        assert cli("request", "post", server.issuer + "/api", "-H", "X-A:  b ", "-H", "Accept: a/b") == (0, "", "")
        assert server.requests[1][3]["Accept"] == "a/b"
        assert cli("request", "POST", "-d", "a=1", server.issuer + "/api") == (0, "", "")
        verb, _, params, headers = server.requests[0]
        assert (verb, params, headers["Content-Type"]) == received and headers["User-Agent"].startswith("cliauth/")
        assert headers["Authorization"] == "Bearer " + held(signed_in)["token"]["access_token"]
        assert (server.requests[1][0], server.requests[1][3]["X-A"]) == ("POST", "b")

    @pytest.mark.parametrize("answers, code, out, said", [
        ([(404, "gone")], 1, "gone", "cliauth: HTTP 404 Not Found\n"), ([(401, "one"), (200, "two")], 0, "two", ""),
        ([(401, "one"), (401, "two")], 1, "two", "cliauth: HTTP 401 Unauthorized\n"),
        ([(401, "")], 1, "", "cliauth: HTTP 401 Unauthorized; run: cliauth login --profile 127.0.0.1"),
        ([(503, "")], 4, "", "cliauth: HTTP 503 Service Unavailable\n"),
        ([(302, "", {"Location": "https://b.example/\x1b"})], 0, "",
         "cliauth: HTTP 302 Found, Location: https://b.example/\\x1b\n"),
        ([(302, "", {"Location": "/?token=at-1"})], 0, "", "cliauth: HTTP 302 Found, Location: /?token=…\n"),
        ([(200, "cut", {"Content-Length": "9"})], 4, "cut", "cliauth: the answer was cut short; try again\n")])
    def test_request_tells_what_became_of_it(self, server, signed_in, cli, answers, code, out, said):
        server.script["/api"] = list(answers)
        if re.search("login|…", said):  # as it says where nothing can be refreshed, and where the token came back
            change(signed_in, token={"access_token": "at-1"})
        status, body, words = cli("request", server.issuer + "/api")
        assert (status, body, words[:len(said)] if "login" in said else words) == (code, out, said)
        tokens = [headers["Authorization"] for _, path, _, headers in server.requests if path == "/api"]
        assert len(set(tokens)) == len(tokens) == len(answers) == 1 + len(server.asked("/token"))

    @pytest.mark.parametrize("answer, said", [
        (b"HTTP/1.1 403 at-1\r\n\r\n", "HTTP 403 …"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + b"x" * 200000, "%s does not speak HTTP (LineTooLong); ")],
        ids=brief)
    def test_request_trusts_no_api(self, signed_in, cli, answer, said):
        change(signed_in, token=dict(TOKEN, access_token="at-1"))
        with talker(answer) as place:
            code, out, err = cli("request", "http://" + place)
        assert (code, out) == (1, "") and err.startswith("cliauth: " + said.replace("%s", place))

    def test_request_shows_headers_with_i_and_goes_nowhere_without_tls(self, server, signed_in, cli):
        server.script["/api"] = [(200, "body", {"X-A": "b", "Content-Type": "text/plain"})]
        out = cli("request", "-i", server.issuer + "/api")[1]
        assert re.match(r"HTTP/1\.[01] 200 OK\r?\n", out) and re.search(r"\nX-A: b\r?\n(.*\n)*\r?\nbody\Z", out)
        for url in ("http://api.example.com/", "http://127.0.0.1@evil.example/", "file:///etc/passwd"):
            assert cli("request", url)[0] == 2
        for header in ("Authorization: x", "X-A", "X-A: \n", "X A: b"):
            assert cli("request", "-H", header, server.issuer + "/api")[0] == 2
        assert len(server.requests) == 1

    def test_a_body_of_any_size_and_kind_arrives_as_it_is(self, server, signed_in):
        body = bytes(range(256)) * 8192
        server.script["/api"] = [(200, body)]
        process = run("request", server.issuer + "/api")
        assert process.returncode == 0 and process.stdout == body and process.stderr == b""

    @posix("/dev/full")
    def test_what_cannot_be_said_is_left_out(self, signed_in):
        process = subprocess.run(["sh", "-c", 'exec "$@" 2>/dev/full', "sh", sys.executable, SCRIPT, "logout"])
        assert process.returncode == 0 and held(signed_in)["token"] == {}

    MOUNTED = ("import argparse, sys; sys.path.insert(0, %r); import cliauth; parser = argparse.ArgumentParser()\n"
               "cliauth.add_commands(parser.add_subparsers()); args = parser.parse_args()\n"
               "sys.exit(args.func(args))" % HERE)

    @posix("/dev/full, nor a shell that closes streams")
    @pytest.mark.parametrize("program", [[SCRIPT], ["-c", MOUNTED]], ids=["itself", "mounted"])
    @pytest.mark.parametrize("command, where", [
        ("token", "/dev/full"), ("status", "/dev/full"), ("token", "&-"), ("status", "&-")])
    def test_output_that_could_not_be_written_is_an_error(self, signed_in, program, command, where):
        before = held(signed_in)
        process = subprocess.run(["sh", "-c", 'exec "$@" >' + where, "sh", sys.executable] + program + [command],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
        assert (process.returncode, process.stderr.count(b"\n"), held(signed_in)) == (4, 1, before)
        assert process.stderr.startswith(b"cliauth: the output could not be written: ")

    @pytest.mark.parametrize("flow, name, code, said", [
        ("browser", "SIGINT", 130, b"interrupted"), ("device", "SIGINT", 130, b"interrupted"),
        ("paste", "SIGINT", 130, b"interrupted")] + [
        pytest.param(flow, "SIGTERM", 143, b"terminated", marks=posix("SIGTERM between processes"))
        for flow in ("browser", "paste")])
    def test_a_signal_ends_a_sign_in_within_a_second_and_the_port_is_closed(self, server, flow, name, code, said):
        with start("login", "--issuer", server.issuer, "--client-id", "demo", "--flow", flow, "--no-browser",
                   stdin=subprocess.PIPE) as process:
            address = address_in(process)
            begun = time.monotonic()
            send(process, name)
            assert process.wait(5) == code and time.monotonic() - begun < 1
            assert process.stderr.read().endswith(b"\ncliauth: " + said + b"\n") and process.stdout.read() == b""
        if flow == "browser":
            with pytest.raises(ConnectionRefusedError):
                fetch(query(address)["redirect_uri"])

    def test_300_connections_that_idle_babble_and_forge_neither_delay_nor_end_a_sign_in(self, server):
        def computed():
            with open("/proc/%d/stat" % process.pid) as file:
                return sum(map(int, file.read().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")
        with start("login", "--issuer", server.issuer, "--client-id", "demo", "--flow", "browser",
                   "--no-browser") as process, contextlib.ExitStack() as stack:
            address = address_in(process)
            state, (host, port) = query(address)["state"], query(address)["redirect_uri"][7:-9].split(":")
            true = TRUE.replace("ours", state).replace("{host}", host + ":" + port)
            idle = ["", true[:-2], "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
            forged = [true.replace(old, new) for old, new in [
                ("code=MARK&state=" + state, "error=access_denied"), (state, "theirs"), ("/callback", "/"),
                ("code=MARK&state=" + state, "error=access_denied&state=theirs"), (host, "evil.example"),
                ("GET", "POST"), ("code=MARK", "code=MARK&code=MARK"), (" HTTP/1.1", ""),
                ("\r\n\r\n", "\r\nSec-Fetch-Mode: no-cors\r\n\r\n")]]
            crowd = [stack.enter_context(socket.create_connection((host, int(port)), 5)) for _ in range(300)]
            for number, each in enumerate(crowd):
                with contextlib.suppress(ConnectionError):  # the oldest make room
                    each.sendall(((idle + forged)[number % 12] + "x" * 70000 * (number == 290)).encode("latin-1"))
            heard = b"".join(iter(lambda: crowd[-1].recv(1 << 16), b""))
            if not WINDOWS and os.path.exists("/proc/self/stat"):  # Linux, but for a bare chroot; wine shows it too
                before = computed()
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.3)
                assert computed() - before < 0.1
            status, _, page = fetch(decide(server, address))
            assert (status, process.wait(5)) == (200, 0) and "<h1>Signed in</h1>" in page
            for each in crowd:
                with contextlib.suppress(ConnectionError):
                    heard += b"".join(iter(lambda: each.recv(1 << 16), b""))
            assert heard.count(b"HTTP/1.1 40") > 40 and len(server.asked("/token")) == 1
            for secret in (state, "MARK", "denied", "theirs", "evil"):
                assert secret.encode() not in heard

    def test_the_true_callback_counts_once(self, server):
        answer = Slow(TOKEN)
        server.script["/token"] = [(200, answer)]
        with start("login", "--issuer", server.issuer, "--client-id", "demo", "--scope", "api", "--flow", "browser",
                   "--no-browser") as process:
            callback = decide(server, address_in(process))
            first = cliauth.Background(lambda: fetch(callback))
            assert answer.asked.wait(10)
            second = cliauth.Background(lambda: fetch(callback))
            with pytest.raises(Unreachable):
                second.result(0.1)
            answer.go.set()
            assert "<h1>Signed in</h1>" in first.result(5)[2] and process.wait(5) == 0
            with pytest.raises(ConnectionError):  # which is told nothing
                second.result(5)
        assert len(server.asked("/token")) == 1

    def test_a_signal_ends_a_discovery_within_a_second_too(self, server):
        slow = Slow({})
        server.script = {"/.well-known/" + name: [(200, slow)] for name in (
            "openid-configuration", "oauth-authorization-server")}
        with start("login", "--issuer", server.issuer, "--client-id", "demo", "--flow", "device") as process:
            assert slow.asked.wait(10)
            begun = time.monotonic()
            send(process, "SIGINT")
            assert process.wait(5) == 130 and time.monotonic() - begun < 1
            slow.go.set()

    def test_a_browser_is_started_with_nothing_of_ours_but_the_address(self, server, tmp_path):
        (tmp_path / "my browser.py").write_text(
            "import json, os, sys; sys.path.insert(0, %r); import cliauth\nserver = cliauth.DemoServer()\n"
            "server.issuer = %r\nprint('noise'); print('noise', file=sys.stderr)\n"
            "json.dump([sys.argv, dict(os.environ), sys.stdin.read()], open('seen', 'w'))\nserver.person(sys.argv[1])\n"
            % (HERE, server.issuer))
        process = subprocess.run(
            [sys.executable, SCRIPT, "login", "--issuer", server.issuer, "--client-id", "demo"], cwd=str(tmp_path),
            env=dict(os.environ, BROWSER='nosuch%s"%s" "my browser.py" %%s' % (os.pathsep, sys.executable),
                     SSH_CONNECTION="x", CLIAUTH_CLIENT_SECRET="s3cret"),
            input=b"typed", stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
        assert (process.returncode, process.stdout) == (0, b"") and b"noise" not in process.stderr
        assert b"paste here" not in process.stderr  # stdin is no terminal: what is in it belongs to somebody else
        assert process.stderr.startswith(b"Signing in by browser: BROWSER is set. For another way: --flow device or ")
        seen = (tmp_path / "seen").read_text()
        assert server.asked("/token")[0]["code_verifier"] not in seen and "s3cret" not in seen
        assert json.loads(seen)[0][1] in process.stderr.decode() and "typed" not in seen

    @pytest.mark.parametrize("typed, code", [(None, 0), ("\x03", 130)])
    def test_at_a_terminal_the_wait_counts_down_and_takes_a_pasted_address_too(self, server, typed, code):
        master, slave = terminal_pair()
        leader = ("import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "  # or Ctrl-C reaches nobody
                  "os.execv(sys.executable, [sys.executable] + sys.argv[1:])")
        with os.fdopen(master, "r+b", 0) as screen, subprocess.Popen(
                [sys.executable, "-S", "-c", leader, SCRIPT, "login", "--issuer", server.issuer, "--client-id", "demo",
                 "--no-browser"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                env=dict(os.environ, TERM="xterm")) as process:
            os.close(slave)
            seen = b""
            while b"Waiting for the browser: 4:59 left, Ctrl-C ends it " not in seen and process.poll() is None:
                seen += screen.read(4096)
            address = re.search(r"\n    (http\S+)", seen.decode()).group(1)
            screen.write((typed or decide(server, address) + "\n").encode())
            with contextlib.suppress(OSError):  # which Linux raises once the other end is closed
                while True:
                    seen += screen.read(4096)
        assert process.returncode == code and (typed or re.search(b"\r {40,}\r", seen))
        assert seen.endswith(b"cliauth: interrupted\r\n" if typed else b").\r\n")

    def test_verbose_shows_the_exchange_and_no_secret(self, server, cli, person, monkeypatch):
        monkeypatch.setenv("CLIAUTH_CLIENT_SECRET", "s3cret")
        options = ["--issuer", server.issuer, "--client-id", "demo", "--client-auth", "post", "--timeout", "10"]
        said, secrets = "", {"s3cret"}
        for line in (["login", *options], ["refresh"], ["userinfo"], ["logout"]):
            code, _, err = cli("-v", *line)
            assert code == 0
            said += re.sub(r"\n    http\S+\n", "", err)  # what the person opens is for the person
            token = held(Client())["token"]
            secrets.update(token[name] for name in ("access_token", "refresh_token", "id_token") if token)
        secrets.update(server.asked("/token")[0][name] for name in ("code", "code_verifier"))
        for part in ("> POST I/token, ", "\n< 200 from I/token after ", "\n< the browser's answer: code, iss, state\n"):
            assert part.replace("I/", server.issuer + "/") in said
        assert len(secrets) >= 8 and not [secret for secret in secrets if secret in said]

    def test_a_program_mounts_the_commands_in_its_own_argparse(self, server, signed_in, capsys, monkeypatch):
        import argparse
        monkeypatch.setattr(cliauth, "COMMAND", "cliauth")
        parser = argparse.ArgumentParser(prog="acme")
        subparsers = parser.add_subparsers().add_parser("auth").add_subparsers()
        cliauth.add_commands(subparsers, signed_in)
        args = parser.parse_args(["auth", "token", "--format", "header"])
        assert args.func(args) == 0
        assert capsys.readouterr().out == "Authorization: Bearer %s\n" % held(signed_in)["token"]["access_token"]
        assert sorted(subparsers.choices) == ["login", "logout", "status", "token"]
        assert set(re.findall("--[a-z-]+", subparsers.choices["login"].format_help())) == {
            "--help", "--flow", "--device", "--no-browser", "--timeout", "--json"}
        monkeypatch.setenv("COLUMNS", "80")  # the example on one line of the usual width
        for name, example in (("login", "login"), ("token", "token --format header | curl -H @- https://api.example.com")):
            assert subparsers.choices[name].format_help().endswith("\nexample: acme auth %s\n" % example)
        server.script["/token"] = [(503, "")]
        change(signed_in, expires_at=1)
        assert args.func(args) == 4 and capsys.readouterr().out == ""
        signed_in.logout()
        monkeypatch.setattr(cliauth, "APP", "acme")
        assert args.func(args) == 3 and capsys.readouterr().err == "acme: nobody is signed in; run: acme auth login\n"

    def test_the_words_for_the_hints_may_be_given(self, signed_in, monkeypatch):
        import argparse
        monkeypatch.setattr(cliauth, "COMMAND", "acme x")
        subparsers = argparse.ArgumentParser(prog="acme").add_subparsers()
        cliauth.add_commands(subparsers, signed_in)
        assert signed_in.nobody().args == ("nobody is signed in; run: acme x login",)
        anybody = Client()
        cliauth.add_commands(subparsers, anybody, ["userinfo"])
        assert anybody.nobody().args == ("nobody is signed in; run: acme x login",)  # there may be no `switch`

    def test_of_several_clients_in_one_parser_each_has_its_own_words(self, server, tmp_path, capsys, monkeypatch):
        import argparse
        monkeypatch.setattr(cliauth, "COMMAND", "cliauth")
        for _ in range(2):  # as a program's tests do, one after the other
            parser = argparse.ArgumentParser(prog="acme")
            subparsers = parser.add_subparsers()
            clients = [server.client(tmp_path / name) for name in ("home", "work")]
            for name, client in zip(("home", "work"), clients):
                cliauth.add_commands(subparsers.add_parser(name).add_subparsers(), client)
            for name, client in zip(("home", "work"), clients):
                args = parser.parse_args([name, "token"])
                assert args.func(args) == 3 and capsys.readouterr().err.endswith("; run: acme %s login\n" % name)
                assert str(client.nobody()).endswith("; run: acme %s login" % name)  # a command of the program's own

    def test_logout_of_all_profiles_is_one_of_a_token_file_of_its_own_too(self, server, signed_in, tmp_path, cli):
        client = server.client(tmp_path / "own.json")
        client.login()
        assert cli("logout", "--all", "--token-file", str(tmp_path / "own.json"))[0] == 0
        assert not client.status()["signed_in"] and not signed_in.status()["signed_in"]

    def test_no_option_of_a_mounted_command_is_abbreviated(self, monkeypatch, capsys):
        import argparse
        monkeypatch.setattr(cliauth, "COMMAND", "cliauth")
        parser = argparse.ArgumentParser(prog="acme")
        cliauth.add_commands(parser.add_subparsers())
        with pytest.raises(SystemExit):
            parser.parse_args(["login", "--client-secret", "it"])
        assert "unrecognized arguments: --client-secret" in capsys.readouterr().err

    def test_a_shell_that_asks_what_could_be_typed_is_answered_by_argcomplete(self, cli, monkeypatch):
        seen = []
        argcomplete = type(sys)("argcomplete")
        argcomplete.autocomplete = lambda parser: seen.append(parser.format_help())
        monkeypatch.setitem(sys.modules, "argcomplete", argcomplete)
        assert cli()[0] == 0 and not seen
        monkeypatch.setenv("_ARGCOMPLETE", "1")
        assert cli("--version")[0] == 0 and not seen
        assert cli()[0] == 0 and all("    %s " % name in seen[0] for name in cliauth.COMMANDS)
        monkeypatch.setitem(sys.modules, "argcomplete", None)  # not installed
        assert cli()[0] == 0
        with open(SCRIPT, "rb") as file:
            assert b"PYTHON_ARGCOMPLETE_OK" in file.read(1024)

    def test_it_completes_what_argparse_knows_no_choices_of(self):
        import argparse
        keep("acme")
        parser = cliauth.build_parser()
        commands = next(each.choices for each in parser._actions if isinstance(each, argparse._SubParsersAction))
        completed = {action.dest: list(action.completer()) for command in (parser, *commands.values())
                     for action in command._actions if getattr(action, "completer", None)}
        assert completed == {"profile": ["acme"], "name": ["acme"], "provider": list(cliauth.PROVIDERS)}

    def test_every_error_begins_with_the_name_of_the_program(self):
        with open(SCRIPT, encoding="utf-8") as file:
            assert file.read().count('"cliauth: ') == 1  # before that is known: of a module that Python lacks

    def test_a_program_that_carries_the_file_sets_its_presets(self, server, cli, person, monkeypatch, tmp_path):
        monkeypatch.delenv("CLIAUTH_HOME")
        for name, value in (("APP", "acme"), ("COMMAND", "acme auth"), ("ISSUER", server.issuer), ("CLIENT_ID", "demo"),
                            ("SCOPE", "openid"), ("SETTINGS", {"param": {"prompt": "login"}})):
            monkeypatch.setattr(cliauth, name, value)
        assert cli("status")[2].endswith("; run: acme auth login\n")
        assert cli("login", "--timeout", "10")[0] == 0
        asked = server.asked("/authorization")[0]
        assert (asked["client_id"], asked["scope"], asked["prompt"]) == ("demo", "openid", "login")
        assert (tmp_path / ".config" / "acme" / "current").read_text() == Client().status()["profile"] + "\n"
        monkeypatch.setenv("CLIAUTH_CLIENT_ID", "other")  # beats the preset, and is not whom the tokens are for
        assert cli("token")[0] == 3

    IMPORTED = "import os, sys; sys.path[:0] = [%r]; import cliauth; %%s; sys.exit(cliauth.main())" % HERE

    @pytest.mark.parametrize("folder, argv, command", [
        (HERE, ["cliauth.py"], "python cliauth.py"), (os.sep, [SCRIPT], "python " + (
            SCRIPT if re.match(r"[\w:./\\-]+\Z", SCRIPT) else '"%s"' % SCRIPT)), ("", ["my 1.py"], 'python "my 1.py"'),
        (HERE, ["-m", "cliauth"], "python -m cliauth"), ("", ["cli.pyz"], "python cli.pyz"),
        ("", ["mine"], "mine"), ("", ["-c", IMPORTED % "sys.argv[0] = '/a/mine'"], "/a/mine"),
        ("", ["-c", IMPORTED % "sys.argv[0] = os.environ['PATH'].split(os.pathsep)[0] + '/mine'"], "mine"),
        ("", ["-m", "my.auth"], "python -m my.auth"), ("", ["-m", "my"], "python -m my"),
        ("", ["-c", IMPORTED % "pass"], "cliauth"),
        ("", ["-c", IMPORTED % "cliauth.COMMAND = 'mine'; sys.argv[0] = 'm.py'"], "mine"),
        ("", ["-c", IMPORTED % "sys.argv[0] = '/e\\x1b.py'"], "python '/e\\x1b.py'"),
        ("", ["-c", IMPORTED % "sys.argv[0] = '/$(a)/b.py'"], "python '/$(a)/b.py'"),
        (HERE, ["-c", "import pathlib; exec(pathlib.Path('cliauth.py').read_text('utf-8'))"], "cliauth")])
    def test_what_to_type_next_can_be_typed_where_it_was_started(self, folder, argv, command, tmp_path):
        with zipfile.ZipFile(str(tmp_path / "cli.pyz"), "w") as zipped:
            zipped.write(SCRIPT, "__main__.py")
        (tmp_path / "my").mkdir()
        for name in ("mine", "my 1.py", "my/auth.py", "my/__main__.py"):
            shutil.copy(SCRIPT, str(tmp_path / name))
        process = subprocess.run([sys.executable] + argv + ["token"], cwd=folder or str(tmp_path),
                                 stderr=subprocess.PIPE, timeout=20)
        command = command if WINDOWS else command.replace("python ", "python3 ")
        words = "cliauth: nobody is signed in; run: %s login --issuer URL --client-id ID" % command
        assert (process.returncode, process.stderr.decode().rstrip()) == (3, words)

    @pytest.mark.skipif(sys.version_info < (3, 10) and not os.path.isfile(os.__file__),
                        reason="nothing tells what is in a library that is zipped")
    @pytest.mark.parametrize("name, text, command", [
        ("json", "x = 1", "demo"), ("json", "import nowhere", "list"), ("json", "x = (", "token"),
        ("enum", "x = 1", "token"), ("argparse", "x = 1", "list"), ("socket", "import nowhere", "demo")])
    def test_a_file_beside_it_that_hides_what_python_brings_is_named(self, tmp_path, name, text, command):
        (tmp_path / (name + ".py")).write_text(text)
        shutil.copy(SCRIPT, str(tmp_path / "cliauth.py"))
        process = subprocess.run([sys.executable, "-S", "cliauth.py", command], cwd=str(tmp_path), timeout=20,
                                 stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        words = r"cliauth: '.*%s\.py' hides Python's own module of that name; rename it\r?\n\Z" % name
        assert process.returncode == 2 and re.match(words, process.stderr.decode())

    def test_whoever_imports_it_hears_of_such_a_file_by_the_error_itself(self, tmp_path):
        (tmp_path / "json.py").write_text("import nowhere")
        shutil.copy(SCRIPT, str(tmp_path / "cliauth.py"))
        code = "try:\n    import cliauth\nexcept ImportError as error:\n    print(error.name)"
        assert subprocess.check_output([sys.executable, "-c", code], cwd=str(tmp_path)).split() == [b"nowhere"]

    @pytest.mark.parametrize("where", ["a package", "a frozen module", "a program without a library in files"])
    def test_no_file_is_blamed_that_hides_nothing(self, monkeypatch, tmp_path, capsys, where):
        (tmp_path / "mine").mkdir()
        for name, text in (("__init__", ""), ("token", "def work():\n    return {}['S3CRET']")):
            (tmp_path / "mine" / (name + ".py")).write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        work = importlib.import_module("mine.token").work
        if "frozen" in where:
            work = functools.partial(os.path.join, 1)
        elif "without" in where:
            monkeypatch.delattr(os, "__file__")
        assert cliauth.guarded(work) == 1 and " unforeseen " in capsys.readouterr().err
        del sys.modules["mine"], sys.modules["mine.token"]

    @pytest.mark.parametrize("lacking, line", [
        ("json", "demo"), ("argparse", "demo"), ("shutil", "demo"),
        ("ssl", "login --device --client-id x --issuer https://127.0.0.1:1")])
    def test_what_a_minimal_python_lacks_is_named_with_the_remedy(self, lacking, line):
        code = "import runpy, sys; sys.modules[%r] = None; runpy.run_path(%r, None, '__main__')" % (lacking, SCRIPT)
        process = subprocess.run([sys.executable, "-c", code] + line.split(), timeout=20, stderr=subprocess.PIPE,
                                 stdout=subprocess.PIPE)
        assert (process.returncode, process.stderr.decode().rstrip()) == (
            2, "cliauth: this Python lacks the module %s; install all of it (Debian: apt install python3)" % lacking)

    @pytest.mark.parametrize("environ, entry, folder", [
        ({"CLIAUTH_HOME": "T/a", "XDG_CONFIG_HOME": "T/b"}, "", "a"), ({"XDG_CONFIG_HOME": "T/b"}, "", "b/cliauth"),
        ({"XDG_CONFIG_HOME": "b", "HOME": "T/c"}, "", "c/.config/cliauth"), ({"HOME": "~"}, "T/d", "d/.config/cliauth"),
        ({"XDG_CONFIG_HOME": "/", "HOME": "T/c"}, "", "c/.config/cliauth"), ({"HOME": "/"}, "T/d", "d/.config/cliauth"),
        ({"XDG_CONFIG_HOME": "", "HOME": ""}, "T/d", "d/.config/cliauth"), ({"HOME": "/"}, "/", None),
        ({}, "T/d", "d/.config/cliauth"), ({}, "", None), ({}, None, None)])
    def test_without_a_home_or_an_entry_among_the_users_it_says_what_to_set(
            self, cli, monkeypatch, tmp_path, environ, entry, folder):
        pwd = pytest.importorskip("pwd")
        users = {} if entry is None else {os.getuid(): entry.replace("T", str(tmp_path))}
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(["x"] * 5 + [users[uid], "sh"]))
        monkeypatch.delenv("CLIAUTH_HOME")
        monkeypatch.delenv("HOME")
        for name, value in environ.items():
            monkeypatch.setenv(name, value.replace("T", str(tmp_path)))
        if folder:
            assert cliauth.home() == str(tmp_path / folder)
        else:
            assert cli("token") == (2, "", "cliauth: there is no home folder to keep tokens in; set CLIAUTH_HOME or "
                                    "XDG_CONFIG_HOME to one\n")

    def test_no_folder_is_ever_called_by_a_tilde(self, cli, monkeypatch):
        for name, what in (("CLIAUTH_TOKEN_FILE", "the token file's path"), ("CLIAUTH_HOME", "CLIAUTH_HOME")):
            monkeypatch.setenv(name, "~/cliauth")
            assert cli("login", "--issuer", "https://id.example", "--client-id", "x") == (
                2, "", "cliauth: %s begins with ~, which is for a shell to replace; write the whole path\n" % what)
            monkeypatch.delenv(name)

    def test_on_windows_the_home_is_a_folder_of_appdata(self, monkeypatch, tmp_path):
        monkeypatch.delenv("CLIAUTH_HOME")
        for name, value, folder in [("XDG_CONFIG_HOME", str(tmp_path / "x"), tmp_path / "x" / "cliauth"),
                                    ("APPDATA", str(tmp_path / "a"), tmp_path / "a" / "cliauth"),
                                    ("APPDATA", "a", tmp_path / "x" / "cliauth")]:
            monkeypatch.setenv(name, value)
            with monkeypatch.context() as there:
                there.setattr(os, "name", "nt")
                found = cliauth.home()
            assert found == str(folder)

    @pytest.mark.skipif(not WINDOWS, reason="only Windows starts programs without any streams")
    @pytest.mark.parametrize("command, code", [("token", 4), ("refresh", 0), ("login --flow paste", 3)])
    def test_without_a_console_there_are_no_streams(self, server, signed_in, command, code):
        nothing = subprocess.STARTUPINFO(dwFlags=subprocess.STARTF_USESTDHANDLES)
        process = subprocess.Popen([sys.executable, SCRIPT] + command.split(), startupinfo=nothing)
        assert process.wait(20) == code and len(server.asked("/token")) == (command == "refresh")

    @posix("shell that closes streams")
    @pytest.mark.parametrize("line, code, said", [
        ("token 2>&-", 0, ""), ("refresh >&- 2>&-", 0, ""), ("login --flow paste", 3, "nothing was pasted, and stdin "),
        ("login --flow paste 0>main.out", 3, "nothing was pasted, and stdin has ended; run "),  # it cannot be read
        ("login --client-secret-file -", 2, "--client-secret-file cannot be read from -: "),
        ("request -d @- https://a.example", 2, "-d cannot be read from -: it is closed; name another file"),
        ("token --format git get", 2, "git's question cannot be read from -: ")])
    def test_with_closed_streams_there_is_no_traceback_and_no_file_takes_their_number(
            self, signed_in, tmp_path, line, code, said):
        (tmp_path / "main.py").write_text(
            "import os, sys; sys.path.insert(0, %r); import cliauth; code = cliauth.main(sys.argv[1:])\n"
            "sys.exit(code if all(os.fstat(each) for each in range(3)) else 99)" % HERE)
        process = subprocess.run(["sh", "-c", "exec %s main.py <&- %s" % (sys.executable, line)], cwd=str(tmp_path),
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
        err = process.stderr.decode()
        lines = (1 if said else 0) + 4 * ("paste" in line) + ("out" in line)
        assert process.returncode == code and err.count("\n") == lines
        assert not said or err.split("\n")[-2].startswith("cliauth: " + said)

    @pytest.mark.parametrize("argv", [["-m", "cliauth", "token"], ["-", "token"], ["-I", SCRIPT, "token"],
                                      ["-S", "-O", SCRIPT, "token", "--min-ttl", "0"],
                                      ["-OO", "-bb", "-W", "error", "-X", "dev", SCRIPT, "token", "--min-ttl", "0"]])
    def test_it_runs_however_python_is_started(self, signed_in, argv):
        with open(SCRIPT, "rb") as source:
            process = subprocess.run([sys.executable] + argv, stdin=source, cwd=HERE, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE, timeout=20)
        assert (process.stdout.decode(), process.stderr) == (held(signed_in)["token"]["access_token"] + "\n", b"")


# ─── What it costs ───────────────────────────────────────────────────────────────────────────────────────────────────

class TestCosts:
    """What can be said without a stopwatch: modules, files, requests and sleeps. .ci/bench.py has the milliseconds."""

    @pytest.mark.parametrize("first, commands", [
        ("pass", ["token"]), ("import signal", ["token", "status"]),
        ("import argparse, signal; argparse.HelpFormatter('', width=80)", [
            "token --min-ttl 60", "token --format header", "token --format json", "token --format kubectl",
            "token --format git get", "status --json", "list", "list --json", "--version"]),
        ("import argparse, signal; argparse.ArgumentParser().format_help()", ["token -q", "--help", "login --help"])])
    def test_what_is_on_the_disk_is_printed_without_the_heavy_modules(self, signed_in, first, commands):
        code = ("import sys; %s; before = set(sys.modules); sys.path.insert(0, %r); import cliauth\nfor line in %r:\n"
                "    sys.stdin.seek(0)\n    try:\n        assert not cliauth.main(line.split()), line\n"
                "    except SystemExit as end:\n        assert not end.code, line\n"
                "sys.exit(' '.join(set(sys.modules) - before))" % (first, HERE, commands))
        with open(os.path.join(cliauth.home(), "asked"), "w+b") as asked:
            asked.write(b"protocol=http\nhost=" + signed_in.options["issuer"][7:].encode() + b"\n\n")
            asked.flush()
            process = subprocess.run([sys.executable, "-S", "-c", code], stdin=asked, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE)
        heavy = {"argparse", "contextlib", "dataclasses", "email", "hashlib", "hmac", "http", "pathlib", "random",
                 "secrets", "select", "shutil", "signal", "socket", "ssl", "subprocess", "tempfile", "threading",
                 "typing", "urllib", "webbrowser"}
        more = set(process.stderr.decode().split())
        assert signed_in.access_token().encode() in process.stdout and "cliauth" in more and not more & heavy

    def test_beside_ten_others_a_profile_is_found_without_looking_at_them(self, signed_in, cli, monkeypatch):
        opened, open_private = [], cliauth.open_private
        for name in ["other%d" % number for number in range(10)] + [signed_in.profile]:
            keep(name, **held(signed_in))
        monkeypatch.setattr(os, "listdir", None)
        monkeypatch.setattr(cliauth, "open_private", lambda path, how: opened.append(path) or open_private(path, how))
        assert cli("token")[0] == 0
        assert set(opened) == {os.path.join(cliauth.home(), "current"), signed_in.file.path}

    def test_a_program_that_asks_often_has_the_file_parsed_when_it_has_changed(self, signed_in, monkeypatch):
        parsed, parse_json = [], cliauth.parse_json
        monkeypatch.setattr(cliauth, "parse_json", lambda *args: parsed.append(args) or parse_json(*args))
        for token in ("one", "one", "two", "two", "one"):
            keep(signed_in.profile, settings=signed_in.options, token={"access_token": token})
            assert signed_in.access_token() == signed_in.access_token() == token
        assert len(parsed) == 3

    @pytest.mark.parametrize("known, flow, paths", [
        (None, "browser", ["/.well-known/", "/.well-known/", "/token"]), ({}, "browser", ["/token"]),
        ({"pushed_authorization_request_endpoint": "/par"}, "browser", ["/par", "/token"]),
        ({}, "device", ["/device_authorization", "/token"])])
    def test_a_sign_in_makes_these_requests_and_sleeps_between_polls_alone(self, server, clock, known, flow, paths):
        server.script["/par"] = [(201, {"request_uri": "urn:1"})]

        def visit(url):
            for params in server.asked("/par"):
                url = cliauth.with_query(server.issuer + "/authorization", params)
            fetch(decide(server, url) or url)

        client = client_of(server, visit=visit)
        if known is not None:
            metadata = json.loads(server.get_openid_configuration({})[2].decode())
            metadata.update((name, server.issuer + path) for name, path in known.items())
            keep(client.status()["profile"], metadata=metadata, settings=client.options)
        client.login(flow)
        ours = [path for _, path, _, headers in server.requests if headers["User-Agent"]]  # the browser has none
        assert [re.sub("(known/).*", r"\1", path) for path in ours] == paths
        assert clock.sleeps == [1] * (flow == "device")  # the interval

    def test_the_two_addresses_of_a_discovery_are_asked_side_by_side(self, server):
        both = threading.Barrier(2)  # neither is answered before the other has come

        def meet(params):
            both.wait(10)
            return server.get_openid_configuration({})[2]

        for path in ("openid-configuration", "oauth-authorization-server"):
            server.script["/.well-known/" + path] = [(200, meet)]
        client_of(server).login("browser")
        assert not both.broken

    @pytest.mark.parametrize("command", ["token", "refresh"])
    def test_a_refresh_is_one_request_and_no_sleep_and_needs_no_parser(
            self, server, clock, signed_in, cli, monkeypatch, command):
        monkeypatch.delattr(cliauth, "build_parser")
        clock.now += 3600
        assert cli(command) == (0, (held(signed_in)["token"]["access_token"] + "\n") * (command == "token"), "")
        assert [path for _, path, _, _ in server.requests] == ["/token"] and clock.sleeps == []
