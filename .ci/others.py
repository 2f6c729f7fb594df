"""The token in other programs' hands: requests, httpx, urllib, curl and git take it as the README has it.

    PYTHON -m pytest .ci/others.py
"""

import asyncio
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx
import pytest
import requests

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import cliauth  # noqa: E402

CURL, GIT = shutil.which("curl"), shutil.which("git")
CLIAUTH = [os.environ.get("CLIAUTH_PYTHON", sys.executable), str(HERE.parent / "cliauth.py")]


class Provider(cliauth.DemoServer):
    """The demo's server, with an API that remembers which token came, and a redirect to another origin."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def answer(self, method, path, params, headers):
        if path == "/api":
            self.seen.append(headers.get("Authorization"))
            return cliauth.json_reply({"ok": True})
        if path == "/elsewhere":
            return 302, {"Location": self.issuer.replace("127.0.0.1", "localhost") + "/api"}, b""
        return super().answer(method, path, params, headers)


@pytest.fixture
def provider(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIAUTH_HOME", str(tmp_path))
    for name in ("CI", "SSL_CERT_FILE", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Provider() as running:
        yield running


@pytest.fixture
def client(provider):
    client = cliauth.Client(provider.issuer, provider.client_id, terminal=provider.terminal())
    client.login("browser")
    return client


async def get_async(url, client):
    async with httpx.AsyncClient() as session:
        return await session.get(url, auth=client)


CALLS = {
    "requests": lambda url, client: requests.get(url, auth=client, timeout=10),
    "httpx": lambda url, client: httpx.get(url, auth=client, follow_redirects=True),
    "httpx, async": lambda url, client: asyncio.run(get_async(url, client)),
    "urllib": lambda url, client: urllib.request.urlopen(client(urllib.request.Request(url))).close(),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_client_is_an_auth(name, provider, client):
    CALLS[name](provider.issuer + "/api", client)
    assert provider.seen == ["Bearer " + client.access_token()]


@pytest.mark.parametrize("name", ["requests", "httpx", "urllib"])
def test_no_library_takes_the_token_to_another_origin(name, provider, client):
    CALLS[name](provider.issuer + "/elsewhere", client)
    assert provider.seen == [None]


@pytest.mark.skipif(not CURL, reason="curl is not installed")
def test_curl_reads_the_header_from_stdin(provider, client):
    token = subprocess.run([*CLIAUTH, "token", "--format", "header"], stdout=subprocess.PIPE, check=True)
    subprocess.run([CURL, "-sS", "-H", "@-", provider.issuer + "/api"], input=token.stdout, check=True)
    assert provider.seen == ["Bearer " + client.access_token()]


@pytest.mark.skipif(not GIT, reason="git is not installed")
@pytest.mark.parametrize("ours", [True, False])
def test_git_gets_the_token_for_the_issuers_host_alone(ours, provider, client):
    host = provider.issuer if ours else "https://git.example.com"
    helper = "!" + " ".join(CLIAUTH) + " token --format git"
    command = [GIT, "-c", "credential.helper=", "-c", "credential.helper=" + helper, "credential", "fill"]
    done = subprocess.run(command, input=f"url={host}/repository.git\n\n", capture_output=True, text=True,
                          env={**os.environ, "GIT_TERMINAL_PROMPT": "0"})
    assert (f"username=oauth2\npassword={client.access_token()}\n" in done.stdout) is ours
    assert (done.returncode == 0) is ours
