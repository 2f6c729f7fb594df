"""cliauth.py as a process against an authorization server of another make: glewlwyd, in C, from Debian.

    PYTHON -m pytest -rs .ci/glewlwyd.py

PYTHON is as for .ci/real.py. The packages are unpacked in the cache folder, which needs no root; where they
cannot be had, one line says why.
"""

import contextlib
import json
import os
import re
import socket
import sqlite3
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
import trustme
from real import API, Browser, CommandLine, payload, wait_until

CACHE = Path(os.environ.get("CLIAUTH_CI_CACHE") or Path.home() / ".cache" / "cliauth-ci")
ADMIN = {"username": "admin", "password": "password"}  # as the package's SQL has it
ADA = {"username": "ada", "password": "correct horse"}
SCOPES = ["openid", "profile", "api:read"]
# It takes what comes by Basic as it is, where RFC 6749 §2.3.1 has it form-encoded: the last is never right.
CLIENT_SECRETS = {"basic": "nothing-to-encode", "post": "a:secret/with %41+&=signs", "encoded": "an/other"}


# ---- The provider ---------------------------------------------------------------------------------------


def run(*command):
    subprocess.run(command, check=True, capture_output=True, text=True)


def unpack(target):
    """The package, and those it needs that are missing here; all that apt-get writes goes to one folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as folder:
        root, lists, archives = (Path(folder, name) for name in ("root", "lists", "archives"))
        lists.mkdir()
        archives.mkdir()
        places = (f"-oDir::State::Lists={lists}", f"-oDir::Cache={folder}")
        apt = ("apt-get", "-qq", *places, "-oDebug::NoLocking=1", "-oAPT::Sandbox::User=")
        run(*apt, "update")
        only = ("--download-only", "--reinstall", "--no-install-recommends", "--yes")
        run(*apt, "install", *only, "glewlwyd", "dbconfig-no-thanks")
        for package in archives.glob("*.deb"):
            run("dpkg-deb", "--extract", package, root)
        root.rename(target)


def unpacked():
    root = CACHE / "glewlwyd"
    try:
        if not root.exists():
            unpack(root)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", "").strip() or str(error)
        pytest.skip(f"left out: glewlwyd ({why.splitlines()[0]})", allow_module_level=True)
    return root


ROOT = unpacked()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Server:
    """A glewlwyd with a database of its own, set up over its HTTP API as its administrator's pages do it.

    It is two providers: `issuer` takes pushed requests (RFC 9126), says iss (RFC 9207) and rotates refresh
    tokens, `plain` does none of that.
    """

    def __init__(self, folder):
        port = free_port()
        self.site = f"http://127.0.0.1:{port}"
        self.issuer, self.plain = f"{self.site}/api/oidc", f"{self.site}/api/plain"
        self.http = requests.Session()
        self.http.trust_env = False
        self.start(folder, port)
        # It compares redirect URIs as strings: one without a port is not one with any, against RFC 8252 §7.3.
        self.redirect_uris = [f"http://127.0.0.1:{free_port()}/callback", "https://localhost:9000/callback"]

    def start(self, folder, port):
        database, log, modules = folder / "database", folder / "log", ROOT / "usr/lib/glewlwyd"
        with contextlib.closing(sqlite3.connect(database)) as connection:
            sql = ROOT / "usr/share/dbconfig-common/data/glewlwyd/install/sqlite3"
            connection.executescript(sql.read_text())
        settings = {
            "PORT": port, "BIND_ADDRESS": "127.0.0.1", "EXTERNAL_URL": self.site, "LOG_MODE": "console",
            "LOG_LEVEL": "INFO", "DATABASE_TYPE": "sqlite3", "DATABASE_SQLITE3_PATH": database,
            "USER_MODULE_PATH": modules / "user", "CLIENT_MODULE_PATH": modules / "client",
            "AUTH_SCHEME_MODULE_PATH": modules / "scheme", "PLUGIN_MODULE_PATH": modules / "plugin",
        }
        environment = {f"GLWD_{name}": str(value) for name, value in settings.items()}
        environment["LD_LIBRARY_PATH"] = ":".join(map(str, ROOT.glob("usr/lib/*-linux-*")))
        # Like real.py's, it must never outlive the tests.
        command = ["setpriv", "--pdeathsig", "TERM", ROOT / "usr/bin/glewlwyd", "--env-variables"]
        with log.open("w") as output:
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        wait_until(lambda: "started on port" in log.read_text() or self.process.poll() is not None)
        assert self.process.poll() is None, log.read_text()

    def close(self):
        self.http.close()
        self.process.terminate()
        self.process.wait()

    def set_up(self):
        self.add("auth", **ADMIN)
        for scope in SCOPES[1:]:
            self.add("scope", name=scope)
        self.add("user", **ADA, email="ada@example.test", scope=SCOPES)
        par = {"oauth-par-allowed": True, "oauth-par-request_uri-prefix": "urn:example:request_uri:"}
        self.add_provider("oidc", **par, **{"oauth-as-iss-id": True, "refresh-token-one-use": "always"})
        self.add_provider("plain")
        self.add_client("native", "none", "device_authorization")
        for name, secret in CLIENT_SECRETS.items():
            method = "client_secret_post" if name == "post" else "client_secret_basic"
            self.add_client(name, method, "client_credentials", client_secret=secret, confidential=True)

    def add_provider(self, name, **more):
        leaf = trustme.CA().issue_cert("127.0.0.1")
        key, cert = leaf.private_key_pem.bytes().decode(), leaf.cert_chain_pems[0].bytes().decode()
        parameters = {
            "iss": f"{self.site}/api/{name}", "allowed-scope": SCOPES, "email-claim": "mandatory",
            "jwt-type": "ecdsa", "jwt-key-size": "256", "key": key, "cert": cert,
            **{f"auth-type-{grant}-enabled": True for grant in ("code", "client", "device", "refresh")},
            **{f"{token}-duration": 3600 for token in ("access-token", "refresh-token", "code")},
            **{f"introspection-revocation-{what}": True for what in ("allowed", "allow-target-client")},
            "allow-non-oidc": True, "pkce-allowed": True, "pkce-required": True,
            "resource-allowed": True, "resource-scope": {"api:read": [API]},
            "device-authorization-interval": 1, **more,
        }
        self.add("mod/plugin", module="oidc", name=name, parameters=parameters)

    def add_client(self, name, method, grant, **more):
        more |= {"token_endpoint_auth_method": [method], "redirect_uri": self.redirect_uris}
        more |= {"authorization_type": ["code", "refresh_token", grant], "scope": ["api:read"]}
        self.add("client", client_id=f"{name}-cli", **more)

    def add(self, what, **members):
        answer = self.http.post(f"{self.site}/api/{what}/", json=members)
        assert answer.ok, answer.text

    def decide(self, address, granted=""):
        """Does what its pages, which are JavaScript, do for ada; where her browser is sent in the end."""
        with requests.Session() as browser:
            browser.trust_env = False
            assert browser.post(f"{self.site}/api/auth/", json=ADA).ok
            log_in = browser.get(address, allow_redirects=False).headers["Location"]
            asked = dict(parse_qsl(urlsplit(log_in).query))
            grant = f"{self.site}/api/auth/grant/{asked['client_id']}"
            assert browser.put(grant, json={"scope": granted or asked["scope"]}).ok
            onward = browser.get(asked["callback_url"] + "&g_continue", allow_redirects=False)
            return onward.headers["Location"]

    def accepts(self, token):
        """What a resource server is told about an access or a refresh token (RFC 7662)."""
        data = {"token": token, "client_id": "post-cli", "client_secret": CLIENT_SECRETS["post"]}
        return self.http.post(f"{self.issuer}/introspect", data=data).json()["active"]


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("glewlwyd"))
    try:
        server.set_up()
        yield server
    finally:
        server.close()


# ---- The command line -----------------------------------------------------------------------------------


class Terminal(CommandLine):
    """Remembers all that was secret, since nothing of it may be said."""

    def __init__(self, folder, server):
        super().__init__(folder)
        self.server, self.browser, self.secrets = server, Browser(folder), set(CLIENT_SECRETS.values())

    def finish(self, running, typed=""):
        result = super().finish(running, typed)
        for path in self.home.glob("*.json"):
            token = json.loads(path.read_text())["token"]
            self.secrets |= {token[name] for name in token if name.endswith("_token")}
        return result

    def start_login(self, flow, *options, issuer="", client_id="native-cli", redirect_uri="", browser=None):
        whom = ("--issuer", issuer or self.server.issuer, "--client-id", client_id)
        how = ("--redirect-uri", redirect_uri or self.server.redirect_uris[0], "--scope", "openid profile")
        return self.start("login", "--flow", flow, *whom, *how, *options, browser=browser)

    def sign_in(self, *options, granted="", **whom):
        """In the browser: the address opened, the one it was sent back to, the page there, what was said."""
        running = self.start_login("browser", *options, **whom, browser=self.browser.path)
        address = self.browser.opened(running)
        callback = self.server.decide(address, granted)
        self.secrets.add(dict(parse_qsl(urlsplit(callback).query))["code"])
        page = self.server.http.get(callback).text
        result = self.finish(running)
        assert result.code == 0, result.err
        return address, callback, page, result


@pytest.fixture
def cli(tmp_path, server):
    cli = Terminal(tmp_path, server)
    yield cli
    os.close(cli.browser.reader)
    for running in cli.started:
        running.end()
    said = "\n".join(cli.said)
    assert not {secret for secret in cli.secrets if secret in said}


def with_secret(folder, name, secret=""):
    file, method = folder / "secret", "post" if name == "post" else "basic"
    file.write_text(secret or CLIENT_SECRETS[name])
    return "--client-auth", method, "--client-secret-file", str(file)


# ---- Signing in -----------------------------------------------------------------------------------------


def test_signs_in_with_a_pushed_request_and_an_iss_that_was_not_announced(cli):
    address, callback, page, result = cli.sign_in()
    assert "request_uri=" in address
    assert "code_challenge" not in address
    assert "iss=" in callback
    assert "signed in" in page.lower()
    assert "ada@example.test" in result.err


def test_signs_in_where_nothing_is_pushed_and_no_iss_comes(cli, server):
    address, callback, _, _ = cli.sign_in(issuer=server.plain)
    assert "code_challenge_method=S256" in address
    assert "iss=" not in callback
    assert cli.status()["account"] == "ada@example.test"


def test_has_no_more_than_was_granted(cli):
    _, _, _, result = cli.sign_in(granted="openid")
    assert "Not granted: profile" in result.err
    assert cli.status()["scope"] == "openid"


@pytest.mark.parametrize("redirect_uri", ["", "https://localhost:9000/callback"])
def test_signs_in_by_paste(cli, server, redirect_uri):
    running = cli.start_login("paste", redirect_uri=redirect_uri)
    callback = server.decide(running.until(re.escape(server.issuer) + r"/auth\?\S+"))
    result = cli.finish(running, typed=callback + "\n")
    assert result.code == 0, result.err
    assert server.accepts(cli.run("token").out.strip())


def test_signs_in_on_a_device(cli, server):
    running = cli.start_login("device")
    user_code = running.until(r"\b[0-9A-Z]{4}-[0-9A-Z]{4}\b")
    running.until("< 400")  # authorization_pending
    assert "deviceComplete" in server.decide(f"{server.issuer}/device?code={user_code}")
    result = cli.finish(running)
    assert result.code == 0, result.err
    assert cli.status()["flow"] == "device"
    assert cli.status()["extra"] == {}  # every token response holds an iat
    cli.run("refresh")


def test_a_redirect_uri_that_it_does_not_know_is_refused_at_once(cli):
    result = cli.finish(cli.start_login("browser", redirect_uri="http://127.0.0.1:0/callback"))
    assert result.code == 1
    assert "--redirect-uri" in result.complaint  # 403, with an empty body


def test_or_never_comes_back_and_the_end_says_what_must_be_registered(cli, server):
    unknown = {"issuer": server.plain, "redirect_uri": "http://127.0.0.1:0/callback"}
    running = cli.start_login("browser", "--timeout", "2", **unknown, browser=cli.browser.path)
    assert server.http.get(cli.browser.opened(running)).status_code == 403  # and a page with nothing on it
    assert "register redirect URI http://127.0.0.1:" in cli.finish(running).complaint


# ---- Afterwards -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("userinfo", ["", "?format=jwt"])
def test_userinfo_comes_as_json_or_as_a_jwt(cli, server, userinfo):
    cli.sign_in("--userinfo-endpoint", f"{server.issuer}/userinfo{userinfo}")
    me = json.loads(cli.run("userinfo").out)
    assert (me["sub"], me["email"]) == (cli.status()["claims"]["sub"], "ada@example.test")


def test_refreshes_twice_with_rotation_and_a_spent_refresh_token_needs_ada_again(cli, server):
    cli.sign_in()
    (path,) = cli.home.glob("*native*.json")
    spent, seen = path.read_text(), {cli.refresh_token()}
    for _ in range(2):
        cli.run("refresh")
        seen.add(cli.refresh_token())
    assert len(seen) == 3
    assert server.accepts(cli.run("token").out.strip())

    path.write_text(spent)  # as a backup would
    assert "login" in cli.run("refresh", code=3).complaint  # 400, with an empty body


def test_keeps_the_refresh_token_where_no_other_comes(cli, server):
    cli.sign_in(issuer=server.plain)
    kept, before = cli.refresh_token(), cli.run("token").out
    cli.run("refresh")
    assert cli.run("token").out != before
    assert cli.refresh_token() == kept


@pytest.mark.parametrize("name", ["basic", "post"])
def test_logout_revokes_what_a_confidential_client_has(cli, server, tmp_path, name):
    cli.sign_in(*with_secret(tmp_path, name), client_id=f"{name}-cli")
    tokens = [cli.refresh_token(), cli.run("token").out.strip()]
    assert all(map(server.accepts, tokens))
    cli.run("logout")
    assert not any(map(server.accepts, tokens))
    assert "login" in cli.run("token", code=3).complaint


def test_logout_says_that_nothing_is_revoked_for_a_public_client(cli, server):
    cli.sign_in()
    token = cli.run("token").out.strip()
    assert "could not be revoked" in cli.run("logout").complaint  # 401, with an empty body
    assert server.accepts(token)
    cli.run("token", code=3)


# ---- Without a person, and for a resource ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["basic", "post"])
def test_client_credentials_need_no_person(cli, server, tmp_path, name):
    options = ("--scope", "api:read", "--resource", API, *with_secret(tmp_path, name))
    assert cli.finish(cli.start_login("client-credentials", *options, client_id=f"{name}-cli")).code == 0
    first = cli.run("token").out.strip()
    assert payload(first)["aud"] == API
    cli.run("refresh")
    second = cli.run("token").out.strip()
    assert second != first
    cli.run("logout")
    assert [server.accepts(token) for token in (first, second)] == [True, False]


@pytest.mark.parametrize(("name", "secret"), [("basic", "guessed"), ("post", "guessed"), ("encoded", "")])
def test_a_secret_that_it_does_not_take_is_refused(cli, tmp_path, name, secret):
    options = ("--scope", "api:read", *with_secret(tmp_path, name, secret))
    result = cli.finish(cli.start_login("client-credentials", *options, client_id=f"{name}-cli"))
    assert result.code == 1
    assert "--client-auth post" in result.complaint  # 403, with an empty body


def test_a_resource_stays_the_audience_of_what_is_refreshed(cli):
    cli.sign_in("--scope", "openid api:read", "--resource", API)
    for _ in range(2):
        assert payload(cli.run("token").out)["aud"] == API
        cli.run("refresh")
