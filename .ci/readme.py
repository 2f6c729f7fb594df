"""Every block of README.md, run as it is printed, by somebody who is new and has nothing but what it says.

    PYTHON -m pytest .ci/readme.py

PYTHON is one that .ci/requirements.txt is installed in. The newcomer has an empty home, a folder with
cliauth.py in it, and a virtual environment without pip, or, where .ci/roots has put a root, Debian's Python
without pip. The hosts that the README names stand behind a proxy on the loopback interface, under their own
names, with certificates of a CA of ours. The browser is a program that presses the button.

A block that no test runs fails `test_no_block_is_left_out`. CLIAUTH_PYTHON names the interpreter of the
virtual environment, should it be another one; CLIAUTH_ROOTS the folder of the roots.
"""

import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler
from itertools import chain, takewhile
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import cliauth  # noqa: E402
from test_cliauth import SYSTEMS, Provider, Server  # noqa: E402

README = (HERE.parent / "README.md").read_text(encoding="utf-8")
PYTHON = os.environ.get("CLIAUTH_PYTHON", sys.executable)
CACHE = os.environ.get("CLIAUTH_CI_CACHE", Path.home() / ".cache/cliauth-ci")
ROOTS = Path(os.environ.get("CLIAUTH_ROOTS", CACHE))
PATIENCE = 60  # seconds until what hangs is ended, and its test fails

# What readers replace by what is so on their machines. All else is run byte for byte.
OWN = {"/path/to/cliauth.py": "{folder}/cliauth.py"}


# ---- The README -----------------------------------------------------------------------------------------


class Block(NamedTuple):
    line: int
    fenced: str  # with its fences, so that words can tell where it begins and ends
    language: str
    text: str


FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
FOUND = list(FENCE.finditer(README))
BLOCKS = [Block(README.count("\n", 0, each.start()) + 1, *each.group(0, 1, 2)) for each in FOUND]
PROSE = FENCE.sub("", README)
KNOWN = [  # the words by which the tests below know their blocks; these are run by .ci/package.py
    "pipx install .", "register-python-argcomplete", "follow_untyped_imports"]


def block(*words):
    """Hands a test the text of the one block that these words stand in; of several, one after the other."""
    KNOWN.extend(words)
    return pytest.mark.parametrize("words", words, ids=lambda words: words.strip()[:40])


@pytest.fixture
def printed(words):
    return text_of(words)


def text_of(words):
    found = [each for each in BLOCKS if words in each.fenced]
    assert len(found) == 1, f"{words!r} stands in {len(found)} blocks of README.md: give @block words of one"
    return found[0].text


@pytest.mark.parametrize("each", BLOCKS, ids=lambda each: f"line {each.line}, {each.language}")
def test_no_block_is_left_out(each):
    known = [words for words in KNOWN if words in each.fenced]
    assert known, f"no test runs this block; write one in .ci/readme.py, under @block:\n\n{each.text}"
    assert len(known) == 1, f"this block has the words of {len(known)} tests of .ci/readme.py: {known}"


def test_no_block_is_overlooked():
    assert not re.search(r"```|~~~|<pre|\n\n(    |\t)", PROSE)


OURS = re.compile(r"(?:[A-Z_]+=\S* )*(?:python3 cliauth\.py|python3 -m cliauth|cliauth)(?: |\Z)")


def commands(prose):
    """The arguments in each piece of code that is a command of ours, up to what a shell makes of the rest."""
    pieces = [re.findall(r"(`+)(.+?)\1(?!`)", paragraph, re.S) for paragraph in prose.split("\n\n")]
    for _, code in chain(*pieces):
        code = " ".join(code.split()).replace(r"\|", "|")  # which a table wants
        if OURS.match(code):
            lexer = shlex.shlex(OURS.sub("", code, count=1), posix=True, punctuation_chars=True)
            lexer.whitespace_split, lexer.commenters = True, ""
            yield [*takewhile(lambda word: not re.fullmatch("[|&;<>()]+|[0-9]*>.*", word), lexer)]


@pytest.mark.parametrize("argv", [*commands(PROSE)], ids=" ".join)
def test_the_command_line_takes_what_stands_in_the_prose(argv):
    _, unknown = cliauth.build_parser().parse_known_args([word for word in argv if word != "…"])
    assert not [word for word in unknown if word.startswith("-")]


# ---- The Internet ---------------------------------------------------------------------------------------


class Proxy(BaseHTTPRequestHandler):
    """What HTTPS_PROXY names. It leads nowhere: it plays the hosts that it knows, inside of TLS."""

    def do_CONNECT(self):
        self.host = self.path.partition(":")[0]
        if self.host not in self.server.hosts:
            return self.send_error(502, f"the test has no {self.host}")
        self.send_response(200)
        self.end_headers()
        self.request = self.server.tls(self.host).wrap_socket(self.connection, server_side=True)
        self.setup()
        self.close_connection = False  # the next request is the one inside
        return None

    def do_GET(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        answer, params = self.server.hosts[self.host].answer, cliauth.parse_form(query or body)
        status, headers, data = answer(self.command, path, params, self.headers)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET

    def finish(self):
        super().finish()
        self.request.close()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def proxy():
    authority, contexts, lock = trustme.CA(), {}, threading.Lock()

    def tls(host):
        with lock:
            if host not in contexts:
                contexts[host] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                authority.issue_cert(host).configure_cert(contexts[host])
            return contexts[host]

    with cliauth.threaded(Proxy) as proxy:
        proxy.tls, proxy.authority, proxy.address = tls, authority, f"http://127.0.0.1:{proxy.server_address[1]}"
        threading.Thread(target=proxy.serve_forever, args=(0.005,), daemon=True).start()
        yield proxy
        proxy.shutdown()


class Issuer(Server):
    """One under its own name, which knows the client my-cli."""

    client_id = "my-cli"

    def __init__(self, issuer):
        super().__init__()
        self.issuer = issuer


class Famous(Provider):
    """A row of SYSTEMS as it is, under its own name."""

    def __init__(self, name, site, elsewhere=None):
        super().__init__(SYSTEMS[name])
        self.stand(site, elsewhere)

    def post_decision(self, params):
        status, headers, body = super().post_decision(params)
        if not self.row["issuer"]:  # nobody has told the client who it is
            headers = {name: re.sub("&iss=[^&]+", "", value) for name, value in headers.items()}
        return status, headers, body


class Api:
    """api.example.com, which takes the tokens of an issuer, and remembers what it was asked with them."""

    def __init__(self, issuer):
        self.issuer, self.asked, self.tokens = issuer, [], []

    def answer(self, method, path, params, headers):
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        status = 200 if self.accepts(token) else 401
        self.asked.append((status, method, path))
        self.tokens.append(token)
        return cliauth.json_reply({"path": path} if status == 200 else {"error": "invalid_token"}, status)

    def accepts(self, token):
        """An access token that lives, or, as a cluster does, an ID token for its client."""
        if "." in token:
            return cliauth.decode_jwt(token)[1]["aud"] == self.issuer.client_id
        return self.issuer.access.get(token, 0) > time.time()


@pytest.fixture
def hosts(proxy):
    """The hosts that are there, by their names: id.example.com and api.example.com, and whom a test adds."""
    proxy.hosts = {"id.example.com": Issuer("https://id.example.com")}
    proxy.hosts["api.example.com"] = Api(proxy.hosts["id.example.com"])
    return proxy.hosts


@pytest.fixture
def issuer(hosts):
    return hosts["id.example.com"]


@pytest.fixture
def api(hosts):
    return hosts["api.example.com"]


# ---- The newcomer ---------------------------------------------------------------------------------------

BROWSER = """#!/usr/bin/env python3
# Presses the button on the page at an address. Where that leads to one that nobody answers, the person pastes
# it into the terminal.
import os, re, sys
from urllib import error, parse, request

sys.stderr = open(os.environ["BROWSER"] + ".log", "a")

class AddressBar(request.HTTPRedirectHandler):
    def redirect_request(self, *what):
        self.shown = what[-1]
        return super().redirect_request(*what)

bar = AddressBar()
browser = request.build_opener(bar)
with browser.open(sys.argv[1], timeout=30) as page:
    number = re.search("name=request value=([^>]+)", page.read().decode()).group(1)
form = parse.urlencode({"request": number, "decision": "allow"}).encode()
try:
    browser.open(parse.urljoin(page.url, "/decision"), form, timeout=30).close()
except error.URLError:
    with open(os.environ["KEYBOARD"], "w") as keyboard:
        keyboard.write(bar.shown + "\\n")
"""

# In the place of another machine: another home, no browser; the words are joined for a shell, as by ssh.
SSH = """#!/bin/sh
shift
unset BROWSER
HOME=$HOME/elsewhere
mkdir -p "$HOME" && cd "$HOME" && exec sh -c "$*"
"""

IN_ROOT = """set -e
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
mount -t tmpfs tmpfs "$0/tmp"
mount --bind "$1" "$0/mnt"
shift
exec chroot "$0" env -C /mnt/here "$@"
"""


class Result(NamedTuple):
    out: str
    err: str


class Desk:
    """Where the newcomer sits: a folder with cliauth.py in it, a home, a terminal, and programs in `bin`."""

    def __init__(self, outside, inside, path, prefix, proxy):
        self.outside, self.inside, self.prefix = outside, inside, prefix  # the same folder, seen from a root
        for name in ("bin", "home", "here"):
            (outside / name).mkdir()
        self.folder = outside / "here"
        self.bring("cliauth.py")
        os.mkfifo(outside / "keyboard")
        self.keyboard = os.open(outside / "keyboard", os.O_RDWR)
        proxy.authority.cert_pem.write_to_path(outside / "ca.pem")
        self.program("browser", BROWSER)
        self.program("ssh", SSH)
        self.environment = {
            "PATH": f"{inside}/bin:{path}", "HOME": f"{inside}/home", "LANG": "C.UTF-8",
            "HTTPS_PROXY": proxy.address, "NO_PROXY": "localhost,127.0.0.1",
            "SSL_CERT_FILE": f"{inside}/ca.pem", "REQUESTS_CA_BUNDLE": f"{inside}/ca.pem",
            "BROWSER": f"{inside}/bin/browser", "KEYBOARD": f"{inside}/keyboard"}

    def bring(self, *names):
        for name in names:
            shutil.copy(HERE.parent / name, self.folder)

    def program(self, name, text):
        (self.outside / "bin" / name).write_text(text)
        (self.outside / "bin" / name).chmod(0o755)

    def write(self, name, text):
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(text, encoding="utf-8")

    def run(self, text, code=0, typed=None, env=(), traceback=False):
        """Types a text into bash, up to the first line that fails, and does what stderr asks for."""
        for meant, own in OWN.items():
            text = text.replace(meant, own.format(folder=f"{self.inside}/here"))
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*self.prefix, "bash", "-eo", "pipefail", "-c", text], cwd=self.folder, start_new_session=True,
            stdin=self.keyboard if typed is None else pipe, stdout=pipe, stderr=pipe,
            env={name: value for name, value in {**self.environment, **dict(env)}.items() if value})
        watchdog = threading.Timer(PATIENCE, os.killpg, (process.pid, 9))
        watchdog.start()
        screen = []
        reader = threading.Thread(target=self.watch, args=(process.stderr, screen))
        reader.start()
        if typed is not None:
            process.stdin.write(typed.encode())
            process.stdin.close()
        out = process.stdout.read().decode()
        reader.join()
        process.wait()
        watchdog.cancel()
        process.stdout.close()
        process.stderr.close()
        err = "".join(screen)
        opened = "".join(log.read_text() for log in (self.outside / "bin").glob("*.log"))
        assert process.returncode == code, "\n".join([str(process.returncode), text, out, err, opened])
        assert ("Traceback" in err) == traceback, err
        return Result(out, err)

    def watch(self, stderr, screen):
        """What holds a code is opened on another device: by the person, who sits here."""
        for line in stderr:
            screen.append(line.decode())
            address = re.match(r"    (https://\S+[?&]user_code=\S+)\n", screen[-1])
            if address:
                browser = self.outside / "bin/browser"
                here = {**self.environment, "SSL_CERT_FILE": self.outside / "ca.pem", "BROWSER": browser}
                subprocess.run([sys.executable, browser, address[1]], env=here, check=True)

    def token(self, *words):
        return self.run(shlex.join(["python3", "cliauth.py", "token", *words])).out.strip()

    def tools(self):
        """Puts the tools' own Python before all others, which has requests, httpx and pytest."""
        self.program("python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """A virtual environment with nothing in it, not even pip."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", folder], check=True)
    return f"{folder}/bin:/usr/local/bin:/usr/bin:/bin"


def debian(folder):
    """What runs a command with Debian's Python, in a root that .ci/roots has made; the folder is its /mnt."""
    root = ROOTS / "debian-testing"
    if not root.is_dir():
        pytest.skip(f"there is no root at {root}: .ci/roots makes it")
    mounts = ["unshare", "--mount", "--propagation", "private"]
    if os.getuid() or subprocess.run([*mounts, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("only root can chroot, where mounts are allowed")
    return [*mounts, "sh", "-c", IN_ROOT, root, folder]


@pytest.fixture
def desk(request, empty, proxy, hosts):
    with tempfile.TemporaryDirectory(prefix="cliauth-readme-") as name:
        folder = Path(name)
        if getattr(request, "param", "venv") == "debian":
            desk = Desk(folder, Path("/mnt"), "/usr/sbin:/usr/bin:/sbin:/bin", debian(folder), proxy)
        else:
            desk = Desk(folder, folder, empty, [], proxy)
        yield desk
        os.close(desk.keyboard)


everywhere = pytest.mark.parametrize("desk", ["venv", "debian"], indirect=True)


@everywhere
def test_there_is_no_pip(desk):
    assert "No module named pip" in desk.run("python3 -m pip --version", code=1).err


def sign_in(desk, issuer, *options):
    desk.run(f"python3 cliauth.py login --issuer {issuer.issuer} --client-id my-cli"
             f" --scope 'openid offline_access' {shlex.join(options)}")
    assert desk.token() in issuer.access


# ---- See it work ----------------------------------------------------------------------------------------


def told(text):
    """A demo's words without what differs from run to run: the port, and which of two requests is first."""
    text = re.sub(r"(http://127\.0\.0\.1):\d+", r"\1:…", text)
    well_known = r"  GET  /\.well-known/.*\n +.*\n"
    return re.sub(f"({well_known}){{2}}", lambda both: "".join(sorted(re.findall(well_known, both[0]))), text)


@everywhere
@block("$ python3 cliauth.py demo --yes\n")
def test_the_demo_says_what_is_printed(printed, desk):
    command, _, output = printed.removeprefix("$ ").partition("\n")
    assert told(desk.run(command).out) == told(output)


# ---- Sign in to a real provider -------------------------------------------------------------------------


@everywhere
@block('--client-id my-cli --scope "openid email offline_access"\npython3 cliauth.py status')
def test_signs_in_and_out(printed, desk, issuer):
    shown = desk.run(printed).out
    assert "ada@example.com" in shown and "https://id.example.com" in shown
    assert issuer.asked("/authorization")[0]["scope"] == "openid email offline_access"
    assert len(issuer.asked("/revocation")) == 2 and not issuer.access
    hint = desk.run("python3 cliauth.py token", code=3).err.rpartition("; run: ")[2]
    desk.run(hint)
    assert desk.token() in issuer.access


@block("you              browser ", "you            your phone ")
def test_the_diagrams_show_what_is_sent(printed, desk, issuer):
    device = "--device" in printed
    if device:
        del desk.environment["BROWSER"]
    sign_in(desk, issuer, *["--device"] * device)
    sent = [path for method, path, *_ in issuer.requests if method == "POST" and path != "/decision"]
    assert sent == [*dict.fromkeys(re.findall(r"POST (/\w+)", printed))]
    drawn = re.findall(r"POST (/token): ([\w, ]+)|GET(): (client_id[\w, ]+)", printed)
    for names in (posted or shown for _, posted, _, shown in drawn):
        asked = issuer.asked("/authorization" if "redirect_uri" in names else "/token")[0]
        assert set(re.findall(r"\w{4,}", names)) <= set(asked) | {"code"}
    assert drawn


def provider(hosts, name, *sites):
    """Lets a row of SYSTEMS stand at its sites: its own, and that of its endpoints if they are elsewhere."""
    provider = Famous(name, *sites)
    hosts.update({site.removeprefix("https://"): provider for site in sites})
    return provider


THE_FIVE = {  # words of the block, the row of SYSTEMS, and where it stands
    "--issuer https://cognito-idp.": (
        "AWS Cognito", "https://cognito-idp.eu-west-1.amazonaws.com",
        "https://example.auth.eu-west-1.amazoncognito.com"),
    "--issuer https://example.eu.auth0.com": ("Auth0", "https://example.eu.auth0.com"),
    "--issuer https://id.authproject.example": ("Authproject", "https://id.authproject.example"),
    "organization_id=org_01EXAMPLE\n```": ("WorkOS AuthKit", "https://api.workos.com"),
    "--scope 'openid offline_access'\n": ("TOKI", "https://toki.example"),
    "--client-auth post --no-pkce\n": ("TOKI, with a secret", "https://toki.example"),
}


@block(*THE_FIVE)
def test_signs_in_at_each_of_the_five(words, printed, desk, hosts):
    one = provider(hosts, *THE_FIVE[words])
    secret = {"CLIAUTH_CLIENT_SECRET": "s3cret"} if one.row["client_auth"] == "post" else {}
    said = desk.run(printed, env=secret).err
    assert re.search(r"Signed in as .*ada@example\.com", said) and "No refresh token came" not in said
    assert desk.token() in one.access
    if "userinfo" in one.row["endpoints"]:
        assert json.loads(desk.run("python3 cliauth.py userinfo").out)["sub"] == "ada"


@block("# again, months later: nothing else is needed\n")
def test_several_accounts_are_several_profiles(printed, desk, hosts):
    workos = provider(hosts, "WorkOS AuthKit", "https://api.workos.com")
    assert desk.run(printed).out == "* acme  ada@example.com\n"
    assert len(workos.asked("/authorization")) == 2


# ---- Use the token --------------------------------------------------------------------------------------


def needs(program):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")


@block("# refreshed first, if less than a minute is left\n")
def test_the_token_is_printed_and_sent(printed, desk, issuer, api):
    needs("curl")
    sign_in(desk, issuer)
    out = desk.run(printed).out
    assert out.startswith(desk.token() + "\n") and out.count('"path": "/me"') == 2
    assert api.asked == [(200, "GET", "/me")] * 2


@block("git config --global --add credential.https://git.example.com.helper ")
def test_git_gets_the_token_for_the_issuers_host_alone(printed, desk, hosts):
    needs("git")
    hosts["git.example.com"] = Issuer("https://git.example.com")
    sign_in(desk, hosts["git.example.com"])
    desk.run(printed)
    ask = "git credential fill"
    ours, theirs = (f"url=https://{host}.example.com/a.git\n\n" for host in ("git", "other"))
    assert f"username=oauth2\npassword={desk.token()}\n" in desk.run(ask, typed=ours).out
    assert not desk.run(ask, typed=theirs, code=128, env={"GIT_TERMINAL_PROMPT": "0"}).out


CLUSTER = """kubectl config set-cluster here --server https://api.example.com
kubectl config set-context here --cluster here --user me
kubectl config use-context here"""


@block("kubectl config set-credentials me ")
def test_kubectl_shows_the_id_token_to_its_cluster(printed, desk, issuer, api):
    needs("kubectl")
    if int(re.search(r"v1\.(\d+)", desk.run("kubectl version --client").out)[1]) < 22:
        pytest.skip("Debian bookworm's kubectl panics at the options: kubernetes/kubectl#1394")
    desk.run(printed)
    desk.run(CLUSTER)
    asks = "kubectl get --raw /me"
    assert "; run: python3 " in desk.run(asks, code=1).err
    sign_in(desk, issuer)
    desk.run(asks)
    shown = [token for token, (_, _, path) in zip(api.tokens, api.asked, strict=True) if path == "/me"]
    assert shown == [desk.token("--id-token")] and api.asked[-1] == (200, "GET", "/me")


def revoke(issuer):
    """Lets all access tokens end, of which the client knows nothing."""
    issuer.access.clear()


@block("import cliauth, requests\n")
def test_requests_refreshes_after_a_401(printed, desk, issuer, api):
    desk.tools()
    desk.write("program.py", printed)
    first = desk.run("python3 program.py").out
    assert first == desk.run("python3 program.py").out and len(issuer.asked("/authorization")) == 1
    revoke(issuer)
    assert desk.run("python3 program.py").out == first
    assert [status for status, *_ in api.asked] == [200, 200, 401, 200]


@block("import cliauth, httpx\n")
def test_httpx_refreshes_after_a_401(printed, desk, issuer, api):
    desk.tools()
    sign_in(desk, issuer)
    desk.write("program.py", printed)
    first = desk.run("python3 program.py").out
    revoke(issuer)
    assert desk.run("python3 program.py").out == first
    assert [status for status, *_ in api.asked] == [200, 401, 200]


@everywhere
@block("with urlopen(client(Request(")
def test_urllib_sends_the_token(printed, desk, issuer, api):
    desk.write("program.py", printed)
    assert "nobody is signed in" in desk.run("python3 program.py", code=1, traceback=True).err
    sign_in(desk, issuer)
    desk.run("python3 program.py")
    assert api.asked == [(200, "GET", "/me")]


# ---- Put it into your program ---------------------------------------------------------------------------


def works_as_mycli(desk, issuer, scope):
    """What every program that carries the file must do, under its own name and with its own folder."""
    desk.program("mycli", f'#!/bin/sh\nexec python3 {desk.inside}/here/mycli.py "$@"\n')
    said = desk.run("mycli token", code=3).err
    hint = re.fullmatch("mycli: nobody is signed in.*; run: (mycli login.*)\n", said)
    assert hint, said
    desk.run(hint[1])
    assert desk.run("mycli token").out.strip() in issuer.access
    assert "ada" in desk.run("mycli status").out
    assert [each.name for each in (desk.outside / "home/.config").iterdir()] == ["mycli"]
    assert "usage: mycli login" in desk.run("mycli login --help").out
    desk.run("mycli logout")
    assert not issuer.access
    desk.run("mycli login")
    assert [asked["scope"] for asked in issuer.asked("/authorization")] == [scope] * 2


@everywhere
@block("sed -e 's|^APP = ")
def test_a_copy_has_its_presets_filled_in(printed, desk, issuer):
    desk.run(printed)
    assert desk.run("python3 mycli.py token").out.strip() in issuer.access
    assert [each.name for each in (desk.outside / "home/.config").iterdir()] == ["mycli"]
    desk.run("python3 mycli.py logout --forget")
    assert desk.run("python3 mycli.py token", code=3).err.endswith("; run: python3 mycli.py login\n")


@everywhere
@block("raise SystemExit(cliauth.main()) ")
def test_a_program_fills_in_the_presets(printed, desk, issuer):
    desk.write("mycli.py", printed)
    works_as_mycli(desk, issuer, "openid offline_access")


@everywhere
@block("cliauth.add_commands(subparsers, ")
def test_a_program_mounts_the_commands_into_its_own_argparse(printed, desk, issuer):
    desk.write("mycli.py", printed)
    works_as_mycli(desk, issuer, "openid email offline_access")
    assert desk.run("mycli whoami").out == "ada@example.com\n"
    desk.run("mycli logout")
    assert "; run: mycli login\n" in desk.run("mycli whoami", code=3).err


OFFLINE = {"HTTPS_PROXY": "http://127.0.0.1:1", "BROWSER": None}


@block("def test_whoami(", "def test_login(")
def test_the_tests_of_others_sign_in_offline(printed, desk):
    desk.tools()
    desk.write("mycli.py", text_of("cliauth.add_commands(subparsers, "))
    desk.write("test_mycli.py", printed)
    shown = desk.run("python3 -W error -m pytest -q", env=OFFLINE).out
    assert re.search(r"^1 passed", shown, re.M), shown


# ---- Coming from ----------------------------------------------------------------------------------------


@block("# the browser, or what else can be had;")
def test_a_program_signs_in_where_it_is_needed(printed, desk, issuer):
    desk.write("program.py", printed)
    first, second = (desk.run("python3 program.py").out.split() for _ in range(2))
    assert first == second == [*issuer.access, "ada@example.com"] and len(issuer.asked("/authorization")) == 1


@block("muttrc     set ")
def test_what_reads_mail_gets_the_token_by_a_command(printed, desk, issuer):
    sign_in(desk, issuer, "--profile", "mail")
    commands = re.findall(r'(python3 .*?)"?\n', printed)
    assert [desk.run(command).out.strip() for command in commands] == [desk.token()] * 4


# ---- Where it runs --------------------------------------------------------------------------------------


@everywhere
@block("ssh host python3 - token < cliauth.py\n")
def test_needs_no_installation(printed, desk, issuer):
    presets = (desk.folder / "cliauth.py").read_text(encoding="utf-8")
    for name, value in {"ISSUER": "https://id.example.com", "CLIENT_ID": "my-cli"}.items():
        presets, count = re.subn(f'^{name} = ""', f'{name} = "{value}"', presets, flags=re.M)
        assert count == 1
    desk.write("mytool/__init__.py", "")
    desk.write("mytool/cliauth.py", presets)
    token = desk.run(printed).out.strip()
    assert token in issuer.access  # the one at the host
    assert desk.run("python3 -m mytool.cliauth token").out.strip() in issuer.access.keys() - {token}
    assert desk.run("./cliauth.pyz token --profile nobody", code=3).out == ""


# ---- The token file -------------------------------------------------------------------------------------


def fits(printed, real):
    """Whether something printed is what there is; an ellipsis stands for any text."""
    if isinstance(printed, dict):
        return isinstance(real, dict) and all(fits(value, real.get(name)) for name, value in printed.items())
    return printed == real or printed == "…" and isinstance(real, str)


@block('"version": 1,\n')
def test_the_token_file_has_the_shape_that_is_printed(printed, desk, issuer):
    sign_in(desk, issuer)
    printed = json.loads(printed)
    (path,) = (desk.outside / "home/.config/cliauth").glob("*.json")
    real = json.loads(path.read_bytes())
    assert type(printed.pop("expires_at")) is type(real.pop("expires_at"))
    assert fits(printed, real), real
    assert list(printed) == list(real) and set(printed["settings"]) == set(real["settings"])
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700


# ---- Tests ----------------------------------------------------------------------------------------------


def network():
    """The environment that leads to the true Internet, as far as pip needs it."""
    ours = dict.fromkeys(("HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"))
    theirs = {name: value for name, value in os.environ.items() if name in ours or name[:4] == "PIP_"}
    config = Path.home() / ".config/pip/pip.conf"
    return {**ours, "PIP_CONFIG_FILE": config.exists() and config, "XDG_CACHE_HOME": CACHE, **theirs}


@everywhere
@block("python3 test_cliauth.py\n")
def test_the_tests_run(printed, desk):
    """A part of them: with all of them .ci/run begins."""
    desk.bring("test_cliauth.py")
    shown = desk.run(printed, env={**network(), "PYTEST_ADDOPTS": "-k TestErrors"}).out
    assert re.search(r"\b[1-9]\d* passed", shown), shown
