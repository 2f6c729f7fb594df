"""cliauth.py as a process against django-oauth-toolkit, the authorization server of many a Django site.

    PYTHON -m pytest .ci/toolkit.py

PYTHON is one that .ci/requirements.txt is installed in; .ci/run makes an environment for the server.
"""

import contextlib
import json
import os
import re
import sqlite3
from pathlib import Path

import pytest
import real
from person import Person
from real import Provider, assert_sent_one_way, sign_in, wait_until

CACHE = Path(os.environ.get("CLIAUTH_CI_CACHE") or Path.home() / ".cache" / "cliauth-ci")
SERVER = (CACHE / "toolkit" / "bin" / "python", real.HERE / "toolkit" / "server.py")
SCOPE = ("--scope", "openid read")
CLIENT_SECRET = "a:secret/of {} with %41+&=signs".format

if not SERVER[0].exists():
    pytest.skip("left out: django-oauth-toolkit is not installed, .ci/run says why", allow_module_level=True)


# ---- The server -----------------------------------------------------------------------------------------


class Toolkit(Provider):
    """Its metadata does not speak of its device flow, so that endpoint is given by hand."""

    def __init__(self, folder):
        super().__init__(folder, server=SERVER)
        self.device = ("--device-authorization-endpoint", f"{self.issuer}/device-authorization/")

    def accepts(self, access_token):
        """By introspection (RFC 7662): without the scope openid its userinfo endpoint accepts none."""
        robot = {"client_id": "robot-cli", "client_secret": CLIENT_SECRET("robot-cli")}
        return self.http.post(f"{self.issuer}/introspect/", {"token": access_token, **robot}).json()["active"]


browser, cli = real.browser, real.cli  # the same fixtures, of the providers here


@pytest.fixture(scope="session")
def provider(tmp_path_factory):
    provider = Toolkit(tmp_path_factory.mktemp("toolkit"))
    yield provider
    provider.close()


@pytest.fixture
def secure_provider(provider):
    """There is none; `cli` asks all of them for the secrets that may not be said."""
    return provider


@pytest.fixture
def changing_provider(provider):
    return provider


@pytest.fixture
def signed_in(cli, browser, provider):
    sign_in(cli, browser, provider, *SCOPE)
    return cli


# ---- In the browser -------------------------------------------------------------------------------------


def test_signs_in_on_any_port_with_what_both_metadata_documents_say(signed_in, provider):
    metadata, status = signed_in.file()["metadata"], signed_in.status()
    assert metadata["userinfo_endpoint"] == f"{provider.issuer}/userinfo/"  # OpenID Connect's alone has it
    assert metadata["revocation_endpoint"] == f"{provider.issuer}/revoke_token/"  # and RFC 8414's this one
    assert metadata["authorization_response_iss_parameter_supported"] is True
    assert (status["scope"], status["refreshable"]) == ("openid read", True)
    assert json.loads(signed_in.run("userinfo").out) == {"sub": status["account"]}  # no more than a number


def test_says_no_where_the_person_does_although_no_iss_comes_with_it(cli, browser, provider):
    _, page, result = sign_in(cli, browser, provider, *SCOPE, act=Person.decline, code=1)
    assert "access_denied" in result.complaint
    assert "terminal" in page


def test_a_scope_that_it_does_not_know_is_refused(cli, browser, provider):
    _, _, result = sign_in(cli, browser, provider, "--scope", "openid offline_access", code=1)
    assert "invalid_scope" in result.complaint
    assert "--scope" in result.complaint


@pytest.mark.parametrize(
    ("client_id", "path", "said"),
    [("native-cli", "/elsewhere", "Mismatching redirect URI"), ("nobody", "/callback", "Invalid client_id")],
)
def test_what_is_not_registered_never_comes_back(cli, browser, provider, client_id, path, said):
    options = (*SCOPE, "--redirect-uri", "http://127.0.0.1:0" + path, "--timeout", "1")
    _, page, result = sign_in(cli, browser, provider, *options, client_id=client_id, code=4)
    assert said in page
    assert re.search(rf"redirect URI \S+{path} .*for client {client_id}", result.complaint)


def test_signs_in_with_the_redirected_address_pasted(cli, provider):
    redirect_uri = ("--redirect-uri", "https://localhost:9000/callback")
    login = ("login", "--flow", "paste", "--issuer", provider.issuer, "--client-id", "paste-cli")
    running = cli.start(*login, *redirect_uri, *SCOPE)
    address = running.until(re.escape(provider.issuer) + r"/authorize/\?\S+")
    result = cli.finish(running, typed=Person().approve_and_copy(address) + "\n")
    assert result.code == 0, result.err
    assert provider.accepts(cli.run("token").out.strip())


# ---- Afterwards -----------------------------------------------------------------------------------------


def test_refreshes_twice_with_rotation_and_a_thief_costs_the_session(signed_in, provider):
    tokens = [signed_in.file()["token"]]
    for command in (["refresh"], ["token", "--min-ttl", "40000"]):
        signed_in.run(*command)
        tokens.append(signed_in.file()["token"])
    assert [provider.accepts(token["access_token"]) for token in tokens] == [False, False, True]
    assert len({token["refresh_token"] for token in tokens}) == 3

    assert provider.refuses_refresh(tokens[0]["refresh_token"])
    assert not provider.accepts(tokens[2]["access_token"])
    assert re.search("invalid_grant.*run: .* login", signed_in.run("refresh", code=3).complaint)
    assert "refresh_token" not in signed_in.file()["token"]


def test_logout_revokes_and_login_needs_no_options_then(signed_in, browser, provider):
    token = signed_in.file()["token"]
    signed_in.run("logout")
    assert not provider.accepts(token["access_token"])
    assert provider.refuses_refresh(token["refresh_token"])
    assert "login" in signed_in.run("token", code=3).complaint
    running = signed_in.start("login", "--flow", "browser", browser=browser.path)
    Person().approve(browser.opened(running))
    assert signed_in.finish(running).code == 0


# ---- On a device ----------------------------------------------------------------------------------------


@pytest.fixture
def device(cli, provider):
    """A sign-in that waits, the address for the person, and the code."""
    login = ("login", "--flow", "device", "--issuer", provider.issuer, "--client-id", "device-cli")
    running = cli.start(*login, *provider.device, *SCOPE)
    return running, f"{provider.issuer}/device/", running.until(r"^ {4}[0-9A-V]{8}$").strip()


def test_signs_in_on_a_device_and_gets_the_id_token_with_the_first_refresh(cli, device, provider):
    running, address, user_code = device
    wait_until(lambda: provider.requests()[-1]["answer"].get("error") == "authorization_pending")
    assert "Device Authorized" in Person().approve(address, user_code=user_code)
    assert cli.finish(running).code == 0
    assert cli.status()["account"] is None
    assert cli.run("token", "--id-token").out.count(".") == 2
    assert cli.status()["account"]


def test_says_no_where_the_person_does_on_a_device(cli, device):
    running, address, user_code = device
    assert "Device Denied" in Person().decline(f"{address}?user_code={user_code}")
    result = cli.finish(running)
    assert result.code == 1, result.err
    assert "access_denied" in result.complaint


def test_a_code_that_is_entered_too_late_means_that_a_person_is_needed(cli, device, provider):
    running, address, user_code = device
    database = sqlite3.connect(provider.log.with_name("database"), isolation_level=None)
    with contextlib.closing(database):  # half an hour later
        database.execute("UPDATE oauth2_provider_devicegrant SET expires = '2000-01-01 00:00:00'")
    assert "Expired user code" in Person().approve(address, user_code=user_code)
    result = cli.finish(running)
    assert result.code == 3, result.err
    assert "expired_token" in result.complaint


def test_without_that_endpoint_there_is_no_device_flow(cli, provider):
    result = cli.run("login", "--device", "--issuer", provider.issuer, "--client-id", "device-cli", code=1)
    assert "--flow browser or paste" in result.complaint


# ---- Confidential clients -------------------------------------------------------------------------------


@pytest.fixture(params=["basic", "post"])
def method(request):
    """How a secret is sent."""
    return request.param


def test_a_confidential_client_signs_in_refreshes_and_signs_out(cli, browser, provider, method):
    client_id = f"{method}-cli"
    cli.environment["CLIAUTH_CLIENT_SECRET"] = CLIENT_SECRET(client_id)
    sign_in(cli, browser, provider, *SCOPE, "--client-auth", method, client_id=client_id)
    cli.run("refresh")
    token = cli.run("token").out.strip()
    assert provider.accepts(token)
    cli.run("logout")
    assert not provider.accepts(token)
    for grant_type in ("authorization_code", "refresh_token"):
        assert_sent_one_way(method, provider.requests(grant_type=grant_type, client_id=client_id))


@pytest.fixture
def robot(cli, provider, method):
    cli.environment["CLIAUTH_CLIENT_SECRET"] = CLIENT_SECRET("robot-cli")
    login = ("login", "--flow", "client-credentials", "--issuer", provider.issuer, "--client-id", "robot-cli")
    return (*login, "--client-auth", method)


def test_client_credentials_need_no_person(cli, provider, robot):
    cli.run(*robot, "--scope", "read")
    first = cli.run("token").out.strip()
    cli.run("refresh")  # there is no refresh token: it asks again
    second = cli.run("token").out.strip()
    assert second != first
    assert provider.accepts(second)
    cli.run("logout")
    assert not provider.accepts(second)


def test_a_wrong_secret_is_refused(cli, robot):
    cli.environment["CLIAUTH_CLIENT_SECRET"] += "?"
    assert "invalid_client" in cli.run(*robot, code=1).complaint
