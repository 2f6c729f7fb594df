"""The token in other programs' hands, as the README has it: requests, httpx, urllib, curl, git, kubectl.

    PYTHON -m pytest .ci/others.py

CLIAUTH_PYTHON names the interpreter that runs cliauth.py as a process, should it be another one.
"""

import asyncio
import functools
import json
import os
import pty
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from base64 import b64decode
from pathlib import Path

import httpx
import pytest
import requests
import trustme

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import cliauth  # noqa: E402

CURL, GIT, KUBECTL = shutil.which("curl"), shutil.which("git"), shutil.which("kubectl")
CLIAUTH = [os.environ.get("CLIAUTH_PYTHON", sys.executable), str(HERE.parent / "cliauth.py")]
COMMAND = " ".join(map(shlex.quote, CLIAUTH))
README = (HERE.parent / "README.md").read_text("utf-8")
PATIENCE = 30  # seconds until a process that hangs is ended, and its test fails


# ---- Those who want the token ---------------------------------------------------------------------------


class Provider(cliauth.DemoServer):
    """The demo's server, and beside it an API and a git repository for those whom it has signed in."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.issued = []  # token responses; one that is taken out of here is refused, as if revoked
        self.open, self.taken = True, 0  # or the API refuses everybody; how often it took something
        self.seen, self.bodies = [], []  # of each request to one of them: the token, or None, and the body
        self.meanwhile = lambda: None  # what happens elsewhere before a refusal goes out

    def tokens(self, family):
        reply = super().tokens(family)
        self.issued.append(json.loads(reply[2]))
        return reply

    def answer(self, method, path, params, headers):
        scheme, _, credentials = headers.get("Authorization", "").partition(" ")
        if path == "/api":
            known = self.knows(credentials, params) and scheme == "Bearer"
            return cliauth.json_reply({"ok": True}) if known else self.refuse("Bearer")
        if path.startswith("/repository.git/"):
            user, _, password = b64decode(credentials).decode().partition(":")
            known = self.knows(password, params) and (scheme, user) == ("Basic", "oauth2")
            return self.file(path) if known else self.refuse("Basic")
        if path == "/taken":
            self.taken += 1
            return 303, {"Location": self.issuer + "/api"}, b""
        if path in ("/moved", "/elsewhere"):
            host = "localhost" if path == "/elsewhere" else "127.0.0.1"
            return 307, {"Location": self.issuer.replace("127.0.0.1", host) + "/api"}, b""
        return super().answer(method, path, params, headers)

    def knows(self, token, params):
        self.seen.append(token or None)
        self.bodies.append(params)
        return self.open and any(token in (each["access_token"], each["id_token"]) for each in self.issued)

    def refuse(self, scheme):
        self.meanwhile()
        return 401, {"WWW-Authenticate": f'{scheme} realm="here"'}, b"no"

    def file(self, path):
        """Of the repository, as files are all that git's "dumb" protocol needs (gitprotocol-http(5))."""
        file = self.folder / path[1:]
        return (200, {}, file.read_bytes()) if file.is_file() else (404, {}, b"")


@pytest.fixture
def provider(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLIAUTH_HOME", str(tmp_path / "tokens"))
    for name in ("CI", "SSL_CERT_FILE", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY",
                 "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_ASKPASS", "SSH_ASKPASS"):
        monkeypatch.delenv(name, raising=False)
    with Provider(tmp_path) as running:
        yield running


@pytest.fixture
def https(provider):
    """The address of the same over TLS, and the file of the CA that it has its certificate from."""
    ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = provider.folder / "ca.pem"
    ca.cert_pem.write_to_path(ca_file)
    web = cliauth.web_server(provider.answer, provider.tell)
    web.socket = context.wrap_socket(web.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=web.serve_forever, args=(0.005,), daemon=True).start()
    yield f"https://127.0.0.1:{web.server_address[1]}", str(ca_file)
    web.shutdown()
    web.server_close()


@pytest.fixture
def client(provider):
    client = cliauth.Client(provider.issuer, provider.client_id, terminal=provider.terminal())
    client.login("browser")
    return client


@pytest.fixture
def browser(provider, monkeypatch):
    """The person's own: BROWSER names a program, which presses the button."""
    script = provider.folder / "browser.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(HERE.parent)!r})\nimport cliauth\n"
                      f"server = cliauth.DemoServer()\nserver.issuer = {provider.issuer!r}\n"
                      "server.person(sys.argv[1])\n")
    monkeypatch.setenv("BROWSER", f"{shlex.quote(sys.executable)} {shlex.quote(str(script))}")


def run(*command, text="", **more):
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE, **more)


def here(printed, places):
    """What the README prints, with the places of this machine."""
    for theirs, ours in places.items():
        assert theirs in printed
        printed = printed.replace(theirs, ours)
    return printed


# ---- requests, httpx, urllib ----------------------------------------------------------------------------


class Auth(cliauth.Client, httpx.Auth):
    """For httpx, as the README has it."""


def by_requests(method, url, client, **body):
    return requests.request(method, url, auth=client, timeout=PATIENCE, **body).status_code


def by_session(method, url, client, **body):
    with requests.Session() as session:
        session.auth = client
        return session.request(method, url, timeout=PATIENCE, **body).status_code


def by_httpx(method, url, client, **body):
    return httpx.request(method, url, auth=client, follow_redirects=True, **body).status_code


def by_httpx_auth(method, url, client, **body):
    return by_httpx(method, url, Auth(profile=client.profile), **body)


async def by_httpx_async(method, url, client, **body):
    async with httpx.AsyncClient(follow_redirects=True, auth=Auth(profile=client.profile)) as session:
        return (await session.request(method, url, **body)).status_code


def by_urllib(method, url, client, data=None):
    body = data and cliauth.encode_form(data).encode()
    try:
        with urllib.request.urlopen(client(urllib.request.Request(url, body, method=method))) as answer:
            return answer.status
    except urllib.error.HTTPError as no:
        no.close()
        return no.code


CAREFUL = {  # those whose interface allows to ask once more
    "requests": by_requests, "requests.Session": by_session, "httpx.Auth": by_httpx_auth,
    "httpx.Auth, async": lambda *call, **body: asyncio.run(by_httpx_async(*call, **body)),
}
SIMPLE = {"httpx, a function": by_httpx, "urllib": by_urllib}
CALLS = {**CAREFUL, **SIMPLE}
careful, every = (pytest.mark.parametrize("name", each) for each in (CAREFUL, CALLS))


def revoked(provider):
    """The token that the API knows no more, though it is not said to have expired."""
    token = provider.issued[-1]["access_token"]
    provider.issued.clear()
    return token


@every
def test_the_client_is_an_auth(name, provider, client):
    assert CALLS[name]("GET", provider.issuer + "/api", client) == 200
    assert provider.seen == [client.access_token()]


@every
def test_no_library_takes_the_token_to_another_origin_though_that_asks_for_one(name, provider, client):
    assert CALLS[name]("GET", provider.issuer + "/elsewhere", client) == 401
    assert provider.seen == [None] and len(provider.issued) == 1


@careful
def test_after_a_401_they_ask_once_more_with_a_fresh_token_and_the_same_body(name, provider, client):
    first = revoked(provider)
    assert CALLS[name]("POST", provider.issuer + "/api", client, data={"a": "1"}) == 200
    assert provider.seen == [first, client.access_token()] and provider.bodies == [{"a": "1"}] * 2
    assert len(provider.issued) == 1


@careful
def test_after_a_redirect_within_the_origin_too(name, provider, client):
    first = revoked(provider)
    assert CALLS[name]("GET", provider.issuer + "/moved", client) == 200
    assert provider.seen == [first, client.access_token()]


@careful
def test_what_was_taken_before_the_redirect_is_not_sent_again(name, provider, client):
    first = revoked(provider)
    assert CALLS[name]("POST", provider.issuer + "/taken", client, data={"a": "1"}) == 200
    assert provider.seen == [first, client.access_token()] and provider.taken == 1


@careful
def test_they_ask_once_more_and_no_more(name, provider, client):
    first, provider.open = revoked(provider), False
    assert CALLS[name]("GET", provider.issuer + "/api", client) == 401
    assert provider.seen == [first, client.access_token()] and len(provider.issued) == 1


@careful
def test_they_refresh_once_though_no_token_lives_long(name, provider, client):
    provider.lifetime = 30
    client.refresh()
    provider.open, provider.meanwhile = False, lambda: setattr(provider, "open", True)
    before = len(provider.issued)
    assert CALLS[name]("GET", provider.issuer + "/api", client) == 200
    assert len(provider.seen) == 2 and len(provider.issued) == before + 2  # the first of them in time


@careful
def test_they_hand_the_401_over_where_no_other_token_can_be_had(name, provider, client):
    first = revoked(provider)
    provider.families.clear()
    assert CALLS[name]("GET", provider.issuer + "/api", client) == 401
    assert provider.seen == [first]


@careful
def test_they_take_what_a_sibling_refreshed_in_the_meantime(name, provider, client):
    first = revoked(provider)
    provider.meanwhile = lambda: run(*CLIAUTH, "refresh", check=True)
    assert CALLS[name]("GET", provider.issuer + "/api", client) == 200
    assert provider.seen == [first, client.access_token()] and len(provider.issued) == 1


@careful
def test_they_do_not_where_the_token_was_given_as_it_is(name, provider, client, monkeypatch):
    monkeypatch.setenv("CLIAUTH_ACCESS_TOKEN", "another")
    assert CALLS[name]("GET", provider.issuer + "/api", client) == 401
    assert provider.seen == ["another"] and len(provider.issued) == 1


@pytest.mark.parametrize("name", SIMPLE)
def test_the_others_hand_a_401_over(name, provider, client):
    first = revoked(provider)
    assert CALLS[name]("GET", provider.issuer + "/api", client) == 401
    assert provider.seen == [first]


async def pieces():
    yield b"a=1"


@careful
def test_requests_sends_a_stream_once_and_httpx_reads_it_before(name, provider, client, tmp_path):
    first, again = revoked(provider), "httpx" in name
    (tmp_path / "body").write_text("a=1")
    with (tmp_path / "body").open("rb") as file:
        body = {"data": file} if not again else {
            "content": pieces() if "async" in name else file, "headers": {"Content-Length": "3"}}
        status = CAREFUL[name]("POST", provider.issuer + "/api", client, **body)
    assert (status, provider.seen[0], len(provider.seen)) == (200 if again else 401, first, 1 + again)
    assert provider.bodies == [{"a": "1"}] * (1 + again)


def test_requests_goes_on_as_if_there_had_been_no_401(provider, client, https):
    api, ca_file = https
    first, heard = revoked(provider), []
    answer = requests.get(api + "/api", auth=client, verify=ca_file, timeout=PATIENCE,
                          hooks={"response": lambda answer, **_: heard.append(answer.status_code)})
    assert answer.json() == {"ok": True} and heard == [200]
    assert [(each.status_code, each.text) for each in answer.history] == [(401, "no")]
    assert answer.request.headers["Authorization"] == "Bearer " + client.access_token() != "Bearer " + first


def test_its_timeout_is_for_the_second_time_too(provider, client):
    slow = threading.Event()
    provider.meanwhile = lambda: setattr(provider, "knows", lambda *_: slow.wait(PATIENCE))
    revoked(provider)
    with pytest.raises(requests.ReadTimeout):
        requests.get(provider.issuer + "/api", auth=client, timeout=0.5)
    slow.set()


# ---- curl -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not CURL, reason="curl is not installed")
def test_curl_reads_the_header_from_stdin(provider, client, https):
    api, ca_file = https
    header = run(*CLIAUTH, "token", "--format", "header", check=True).stdout
    assert run(CURL, "-sSf", "--cacert", ca_file, "-H", "@-", api + "/api", text=header, check=True).stdout
    assert provider.seen == [client.access_token()]


# ---- git ------------------------------------------------------------------------------------------------


@pytest.fixture
def git(provider, client, monkeypatch):
    """A person's git, with a helper for all hosts, then the README's lines. It may not ask the person."""
    if not GIT:
        pytest.skip("git is not installed")
    for name, value in (("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_TERMINAL_PROMPT", "0"), ("LC_ALL", "C")):
        monkeypatch.setenv(name, value)
    run(GIT, "config", "--global", "credential.helper", "store", check=True)
    lines = "".join(re.findall("^git config .*\n", README, re.M))
    lines = here(lines, {"https://git.example.com": provider.issuer, "python3 /path/to/cliauth.py": COMMAND})
    run("sh", "-ec", lines, check=True)
    repository = str(provider.folder / "repository.git")
    run(GIT, "init", "-q", "--bare", repository, check=True)
    run(GIT, "--git-dir", repository, "update-server-info", check=True)
    return lambda *command, **more: run(GIT, *command, cwd=provider.folder, **more)


def test_git_clones_with_the_readmes_lines(provider, client, git):
    done = git("clone", provider.issuer + "/repository.git", "copy")
    assert done.returncode == 0 and (provider.folder / "copy" / ".git").is_dir(), done.stderr
    assert provider.seen[:2] == [None, client.access_token()]


def test_no_other_helper_keeps_the_token_but_it_stays_for_other_hosts(provider, client, git):
    for copy in ("copy", "another"):
        assert git("clone", provider.issuer + "/repository.git", copy).returncode == 0
        revoked(provider)
        client.refresh()
    assert not (provider.folder / ".git-credentials").exists()
    assert git("config", "--get-urlmatch", "credential.helper", "https://example.com").stdout == "store\n"


EVERYWHERE = ("-c", f"credential.helper=!{COMMAND} token --format git")  # then it is asked for every host


def test_another_host_gets_nothing(provider, client, git):
    elsewhere = provider.issuer.replace("127.0.0.1", "localhost")
    done = git(*EVERYWHERE, "clone", elsewhere + "/repository.git", "copy")
    assert done.returncode == 128 and "could not read Username" in done.stderr
    assert "cliauth" not in done.stderr
    assert provider.seen == [None]


@pytest.mark.parametrize("address, ours", [
    ("{issuer}/x", True), ("https://{host}/x", False), ("http://127.0.0.1/x", False),
    ("ssh://{host}/x", False), ("https://git.example.com/x", False)])
def test_git_is_told_it_for_the_issuers_scheme_host_and_port(address, ours, provider, client, git):
    url = address.format(issuer=provider.issuer, host=provider.issuer[len("http://"):])
    done = git(*EVERYWHERE, "credential", "fill", text=f"url={url}\n\n")
    assert (f"username=oauth2\npassword={client.access_token()}\n" in done.stdout) is ours
    assert (done.returncode == 0) is ours


def test_git_says_that_it_got_none_and_cliauth_what_to_do(provider, client, git):
    client.logout()
    done = git("clone", provider.issuer + "/repository.git", "copy")
    assert done.returncode == 128 and "could not read Username" in done.stderr
    assert "cliauth: nobody is signed in" in done.stderr and "cliauth.py login" in done.stderr


def test_what_git_stores_and_erases_changes_nothing(provider, client, git):
    """It stores after a success, erases after a refusal, and would do something else in a version to come."""
    before = Path(client.file.path).read_bytes()
    git("clone", provider.issuer + "/repository.git", "copy", check=True)
    provider.open = False
    assert "Authentication failed" in git("clone", provider.issuer + "/repository.git", "another").stderr
    done = run(*CLIAUTH, "token", "--format", "git", "capability", text="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert Path(client.file.path).read_bytes() == before


# ---- kubectl --------------------------------------------------------------------------------------------

CLUSTER = """
apiVersion: v1
kind: Config
current-context: it
contexts:
- {{name: it, context: {{cluster: it, user: me}}}}
clusters:
- {{name: it, cluster: {{server: "{server}", certificate-authority: "{ca_file}"}}}}
"""
USER = """
users:
- name: me
  user:
    exec:
      apiVersion: client.authentication.k8s.io/{version}
      interactiveMode: {mode}
      provideClusterInfo: true
      command: "{python}"
      args: ["{script}", token, --format, kubectl, {more}]
"""


@functools.cache
def kubectl_minor():
    told = run(KUBECTL, "version", "--client", "-o", "json", check=True).stdout
    return int(re.match("[0-9]+", json.loads(told)["clientVersion"]["minor"]).group())


class Kubectl:
    """A person's kubectl, which calls the API with cliauth as its plugin."""

    def __init__(self, folder, server, ca_file):
        self.config, self.cluster = folder / "config", CLUSTER.format(server=server, ca_file=ca_file)
        self.config.write_text(self.cluster)

    def __call__(self, *more, version="v1beta1", mode="IfAvailable", terminal=False):
        python, script = CLIAUTH
        self.config.write_text(self.cluster + USER.format(
            version=version, mode=mode, python=python, script=script, more=", ".join(more)))
        return self.call(terminal)

    def call(self, terminal=False):
        command = [KUBECTL, "--kubeconfig", str(self.config), "get", "--raw", "/api"]
        return self.on_a_terminal(command) if terminal else run(*command)

    def on_a_terminal(self, command):
        leader, follower = pty.openpty()
        command = ["timeout", "-s", "KILL", str(PATIENCE), *command]  # it and its plugin
        process = subprocess.Popen(command, stdin=follower, stdout=subprocess.PIPE, stderr=follower)
        os.close(follower)
        said = b""
        try:
            for data in iter(lambda: os.read(leader, 1 << 16), b""):
                said += data
        except OSError:  # how Linux says that nobody has the terminal open
            pass
        os.close(leader)
        stdout, _ = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, stdout.decode(), said.decode())


@pytest.fixture
def kubectl(provider, client, https):
    if not KUBECTL:
        pytest.skip("kubectl is not installed")
    return Kubectl(provider.folder, *https)


def since_1_22(why):
    if kubectl_minor() < 22:  # Debian bookworm's is 1.20
        pytest.skip(f"kubectl 1.{kubectl_minor()} {why}")


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
@pytest.mark.parametrize("option, name", [((), "access_token"), (("--id-token",), "id_token")])
def test_kubectl_gets_through(version, option, name, provider, kubectl):
    if version == "v1":
        since_1_22("knows v1beta1 alone")
    done = kubectl(*option, version=version)
    assert done.returncode == 0 and json.loads(done.stdout) == {"ok": True}, done.stderr
    assert provider.seen == [provider.issued[0][name]]


def test_kubectl_is_set_up_by_the_readmes_line(provider, kubectl):
    since_1_22("panics at the options")
    line, = re.findall(r"^kubectl config (?:.*\\\n)*.*\n", README, re.M)
    line = here(line, {"kubectl config": f"{KUBECTL} --kubeconfig {kubectl.config} config",
                       "python3": shlex.quote(CLIAUTH[0]), "/path/to/cliauth.py": shlex.quote(CLIAUTH[1])})
    run("sh", "-c", line, check=True)
    done = kubectl.call()
    assert done.returncode == 0, done.stderr
    assert provider.seen == [provider.issued[0]["id_token"]]


def test_kubectl_gets_through_with_a_token_that_has_expired(provider, client, kubectl):
    provider.lifetime = 0
    client.refresh()
    provider.lifetime = 3600
    assert kubectl().returncode == 0
    assert provider.seen == [client.access_token()] and len(provider.issued) == 3


def test_after_a_401_kubectl_asks_again_but_does_not_say_why(provider, client, kubectl):
    """So it gets the same token, which still lives as far as its end tells; `refresh` brings another."""
    first = revoked(provider)
    done = kubectl()
    assert done.returncode == 1 and "You must be logged in to the server" in done.stderr
    assert provider.seen == [first] and not provider.issued
    run(*CLIAUTH, "refresh", check=True)
    assert kubectl().returncode == 0 and provider.seen == [first, client.access_token()]


@pytest.mark.parametrize("option", [(), ("--login",)])
def test_signed_out_kubectl_fails_and_shows_what_to_do(option, provider, client, kubectl, browser):
    if option:
        since_1_22("does not say whether somebody is there")
    client.logout()
    done = kubectl(*option)
    assert done.returncode == 1 and "exit code 3" in done.stderr and not provider.seen
    assert "cliauth: nobody is signed in" in done.stderr and "cliauth.py login" in done.stderr


@pytest.mark.parametrize("mode, asks", [("IfAvailable", True), ("Always", True), ("Never", False)])
def test_login_signs_in_on_a_terminal_that_kubectl_lends_it(mode, asks, provider, client, kubectl, browser):
    if not asks:
        since_1_22("does not know interactiveMode")
    client.logout()
    done = kubectl("--login", mode=mode, terminal=True)
    assert ("Signed in as ada@example.com" in done.stderr) is asks is (done.returncode == 0), done.stderr
    assert provider.seen == ([client.access_token()] if asks else [])
    assert asks or "cliauth: nobody is signed in" in done.stderr
