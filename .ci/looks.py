"""What is to be looked at, looked at: the QR code as a camera reads it, the pages as Chromium draws them.

    .ci/provider/install PYTHON && PYTHON -m pytest .ci/looks.py

PYTHON is one that .ci/requirements.txt is installed in; qrencode and zbarimg are on the PATH.
"""

import contextlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import screen
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import cliauth  # noqa: E402

AXE = (HERE / "provider" / "node_modules" / "axe-core" / "axe.min.js").read_text()
CLIAUTH = [os.environ.get("CLIAUTH_PYTHON", sys.executable), str(HERE.parent / "cliauth.py")]
CODE = "WDJB-MJHT"
# Complete addresses as these providers have them; GitHub, Google and Entra send none.
GITLAB = "https://gitlab.com/oauth/device?user_code=0A44L90H"
ADDRESSES = [
    GITLAB,
    f"https://example.eu.auth0.com/activate?user_code={CODE}",
    f"https://dev-12345678.okta.com/activate?user_code={CODE}",
    f"https://foolproof-ranger-26.authkit.app/device?user_code={CODE}",
    f"https://id.example.com/realms/engineering/device?user_code={CODE}",
    f"https://sso.internal.example-company.com/auth/realms/engineering-platform/device?user_code={CODE}",
]
BLOCKS = re.compile("[▀▄█]")


@pytest.fixture(scope="session")
def chromium():
    options = webdriver.ChromeOptions()
    for each in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.implicitly_wait(screen.PATIENCE)
    yield driver
    driver.quit()


def view(chromium, width, height, scale=1, phone=False, scheme="light"):
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone})
    chromium.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
    feature = {"name": "prefers-color-scheme", "value": scheme}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


# ---- The QR code ----------------------------------------------------------------------------------------


class Provider(cliauth.DemoServer):
    """The demo's server, with a complete address like that of another one."""

    def __init__(self, complete=GITLAB):
        super().__init__()
        self.complete, self.opened = complete, None

    def post_device_authorization(self, params):
        status, headers, body = super().post_device_authorization(params)
        answer = json.loads(body)
        self.opened = answer["verification_uri_complete"]
        answer.update(verification_uri_complete=self.complete, user_code=CODE)
        return status, headers, json.dumps(answer).encode()


class Login(screen.Terminal):
    """A terminal in which a person signs in on another device; PATH may name a folder of ours alone."""

    def __init__(self, folder, *options, size=(80, 24), complete=GITLAB, streams=None, **environment):
        super().__init__(*size)
        self.provider = Provider(complete).__enter__()
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "CLIAUTH_HOME": str(folder / "home"),
                       "LANG": "C.UTF-8", "TERM": "xterm-256color", **environment}
        settings = ("--issuer", self.provider.issuer, "--client-id", self.provider.client_id)
        command = [*CLIAUTH, "login", "--device", "--no-browser", *settings, *options]
        self.start(command, environment, **streams or {})

    def __exit__(self, *what):
        super().__exit__(*what)
        self.provider.__exit__(*what)

    def wait(self):
        """Until all is said: the line that counts down is the last."""
        self.until(lambda: "Waiting for your approval" in self.text())
        return self

    def approve(self):
        self.until(lambda: self.provider.opened)
        self.provider.person(self.provider.opened)

    def result(self):
        """The exit code and the words, but for what varies."""
        code, said = self.finish(), self.said.decode().replace(self.provider.issuer, "ISSUER")
        said = re.sub(r"\rWaiting for.*?\r +\r|\r", "", said)
        return code, re.sub(r"until .*", "", said)


def photograph(chromium, folder, drawn):
    """A picture of a page or an SVG, taken by Chromium."""
    page, picture = folder / f"screen.{'svg' if drawn.startswith('<svg') else 'html'}", folder / "screen.png"
    page.write_text(drawn)
    chromium.get(page.as_uri())
    assert chromium.save_screenshot(picture)
    return picture


def decoded(picture, *options):
    """The text of each QR code that zbar finds in a picture."""
    command = ["zbarimg", "--quiet", "--raw", "--nodbus", "-Sdisable", "-Sqrcode.enable", *options, picture]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.parametrize("address", ADDRESSES, ids=len)
def test_a_camera_reads_the_address_on_a_screen_of_24_lines(address, chromium, tmp_path):
    with Login(tmp_path, complete=address) as window:
        window.wait()
    view(chromium, 800, 500)
    assert decoded(photograph(chromium, tmp_path, window.svg(screen.DARK))) == [address]
    assert CODE in window.text(), "the person cannot compare what has left the screen"


@pytest.fixture(scope="session")
def window(tmp_path_factory):
    with Login(tmp_path_factory.mktemp("window"), size=(90, 40)) as window:
        return window.wait()


@pytest.mark.parametrize("theme", ["DARK", "LIGHT", "SOLARIZED_DARK", "SOLARIZED_LIGHT"])
def test_a_camera_reads_it_in_every_theme(theme, window, chromium, tmp_path):
    view(chromium, 850, 750)
    assert decoded(photograph(chromium, tmp_path, window.svg(getattr(screen, theme)))) == [GITLAB]


@pytest.mark.parametrize("line_height", [1.0, 1.2, 1.4])
def test_a_camera_reads_it_across_the_seams_of_a_font(line_height, window, chromium, tmp_path):
    view(chromium, 1000, 900, scale=1.5)
    assert decoded(photograph(chromium, tmp_path, window.page(screen.DARK, line_height))) == [GITLAB]


def test_without_colours_it_is_read_on_a_dark_screen_and_as_a_negative_on_a_light_one(chromium, tmp_path):
    with Login(tmp_path, size=(90, 40), NO_COLOR="1") as window:
        window.wait()
    assert b"\x1b" not in window.said
    view(chromium, 850, 750)
    assert decoded(photograph(chromium, tmp_path, window.svg(screen.DARK))) == [GITLAB]
    assert decoded(photograph(chromium, tmp_path, window.svg(screen.LIGHT)), "-Stest-inverted") == [GITLAB]


def test_it_is_shown_where_it_fits(tmp_path):
    with Login(tmp_path, size=(33, 60)) as fits, Login(tmp_path, size=(32, 60)) as narrow:
        for window in (fits, narrow):
            window.until(lambda said=window: b"Waiting" in said.said)
    assert BLOCKS.search(fits.text()) and not BLOCKS.search(narrow.text())


# Where it is not shown: what is different there, and what stands in for qrencode.
ABSENT = {
    "stderr is no terminal": {"terminal": False},
    "-q": {"options": ["-q"]},
    "a dumb terminal": {"TERM": "dumb"},
    "LC_ALL=C, and no UTF-8 mode": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII": {"PYTHONIOENCODING": "ascii"},
    "there is none": {"script": None},
    "it fails": {"script": 'qrencode "$@"; exit 1'},
    "it fails half way": {"script": 'qrencode "$@" | head -n 9; exit 1'},
    "it is killed": {"script": 'qrencode "$@"; kill -9 $$'},
    "it hangs": {"script": 'qrencode "$@"; echo $$ >"$HOME/pid"; exec sleep 60'},
    "it reads nothing": {"script": "exec <&-"},
    "it draws nothing": {"script": "cat >/dev/null"},
    "it writes words": {"script": "echo the library could not be found"},
    "it writes escapes": {"script": r"""qrencode "$@"; printf '\033]0;title\007'"""},
    "it writes no UTF-8": {"script": r"""qrencode "$@"; printf '\377\n'"""},
    "it is no program": {"script": "\0"},
}


def path_with(folder, script):
    """A PATH on which there is nothing but a qrencode of ours, or not even that."""
    folder.mkdir()
    if script:
        script = f"#!/bin/sh\nPATH='{os.environ['PATH']}'\n{script}\n" if script != "\0" else script
        (folder / "qrencode").write_text(script)
        (folder / "qrencode").chmod(0o755)
    return str(folder)


@pytest.fixture(scope="session")
def absent(tmp_path_factory):
    """All of these sign-ins at once, for the sake of time: exit code and words of each."""
    with contextlib.ExitStack() as stack:
        logins = {}
        for why, how in ABSENT.items():
            folder, how = tmp_path_factory.mktemp("absent"), dict(how)
            if "script" in how:
                how["PATH"] = path_with(folder / "bin", how.pop("script"))
            if not how.pop("terminal", True):
                how["streams"] = {"stderr": stack.enter_context((folder / "stderr").open("w"))}
            logins[why] = stack.enter_context(Login(folder, *how.pop("options", ()), **how))
            logins[why].folder = folder
        for login in logins.values():
            login.approve()
        yield {why: (*login.result(), login.folder) for why, login in logins.items()}


@pytest.mark.parametrize("why", ABSENT)
def test_where_it_cannot_be_shown_the_sign_in_goes_on_without_a_word_of_it(why, absent):
    code, said, folder = absent[why]
    if why == "stderr is no terminal":
        said = (folder / "stderr").read_text()
    assert code == 0 and not BLOCKS.search(said) and "qrencode" not in said
    if why not in ("-q", "stderr is no terminal"):
        assert said == absent["there is none"][1]
    if why == "it hangs":
        assert not Path("/proc", (folder / "pid").read_text().strip()).exists()


def test_neither_the_address_nor_a_secret_is_to_be_seen_by_others(tmp_path):
    spy = f"cat /proc/[0-9]*/cmdline >{tmp_path}/commands; env >{tmp_path}/environment; exec qrencode \"$@\""
    path = path_with(tmp_path / "bin", spy)
    with Login(tmp_path, PATH=path, CLIAUTH_SCOPE="openid") as window:
        window.wait()
    assert BLOCKS.search(window.text())
    commands, environment = ((tmp_path / name).read_bytes() for name in ("commands", "environment"))
    assert b"ANSIUTF8" in commands and GITLAB.encode() not in commands
    assert b"TERM=" in environment and b"CLIAUTH_" not in environment


def test_the_picture_in_the_readme_is_small_and_a_camera_reads_the_address_in_it(chromium, tmp_path):
    picture = (HERE / "login.svg").read_text()
    assert len(picture) < 60_000 and not re.search("script|href|url\\(|@import", picture)
    view(chromium, 830, 530)
    (address,) = decoded(photograph(chromium, tmp_path, picture))
    assert f">{address}</text>" in picture


# ---- The pages ------------------------------------------------------------------------------------------

VIEWS = {
    "light": {"width": 1000, "height": 700},
    "dark": {"width": 1000, "height": 700, "scheme": "dark"},
    "phone": {"width": 390, "height": 844, "phone": True},
    "phone, dark": {"width": 390, "height": 844, "phone": True, "scheme": "dark"},
    "small phone": {"width": 320, "height": 568, "phone": True},
}
# The sizes of what is pressed or typed into, and of the page.
MEASURE = """
const boxes = [...document.querySelectorAll("button, input:not([type=hidden])")]
    .map(each => each.getBoundingClientRect()).map(box => [box.width, box.height])
return {boxes, width: document.documentElement.scrollWidth}"""
CHECK = """
const done = arguments[0], rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
const words = rule => rule.nodes.map(node => `${rule.id}, ${node.html}: ${node.failureSummary}`)
axe.run({runOnly: rules}).then(({passes, incomplete, violations}) => done({
    passes: passes.map(rule => rule.id), faults: [...violations, ...incomplete].map(words).flat()}))"""


class Person:
    """Somebody at Chromium, who knows the address of a sign-in that waits."""

    def __init__(self, chromium, server, address=None):
        self.chromium, self.server, self.address = chromium, server, address

    def open(self, path, **params):
        self.chromium.get(cliauth.with_query(self.server.issuer + path, params))

    def authorize(self, client_id):
        self.open("/authorization", client_id=client_id, response_type="code", code_challenge_method="S256",
                  redirect_uri="http://[::1]/callback")

    def code(self):
        asked = {"client_id": self.server.client_id}
        return json.loads(self.server.post_device_authorization(asked)[2])["user_code"]

    def press(self, value):
        self.chromium.find_element("css selector", f"[value={value}]").click()

    def enter(self, code):
        self.open("/device")
        self.chromium.find_element("name", "user_code").send_keys(code, Keys.ENTER)

    def enter_and_press(self, value):
        self.enter(self.code())
        self.press(value)

    def change_my_mind(self):
        self.enter_and_press("deny")
        self.chromium.find_element("xpath", "//h1[.='Sign-in failed']")
        self.chromium.back()
        self.press("allow")

    def decide(self, value):
        self.chromium.get(self.address)
        self.press(value)

    def stray(self):
        self.chromium.get(cliauth.parse_form(self.address)["redirect_uri"] + "/elsewhere")


# What a person does, and reads then; the first three while a program waits at its loopback listener.
PAGES = {
    "signed in": (lambda person: person.decide("allow"), "Signed in You can close this window"),
    "sign-in failed": (lambda person: person.decide("deny"), "Sign-in failed The terminal says why"),
    "elsewhere": (lambda person: person.stray(), "Nothing to see here"),
    "consent": (lambda person: person.authorize("demo"), "Sign in as Ada Lovelace"),
    "unknown client": (lambda person: person.authorize("x"), "does not know this client"),
    "code to enter": (lambda person: person.open("/device"), "Which code"),
    "unknown code": (lambda person: person.enter("XXXX-XXXX"), "no such code"),
    "code to compare": (lambda person: person.enter(person.code().lower()), "show this code?"),
    "allowed": (lambda person: person.enter_and_press("allow"), "Signed in You can close this window"),
    "denied": (lambda person: person.enter_and_press("deny"), "Sign-in failed The terminal says why"),
    "decided before": (lambda person: person.change_my_mind(), "decided before"),
}


@pytest.fixture
def person(chromium, tmp_path):
    """A person, and a program that waits until somebody has signed in."""
    addresses = queue.SimpleQueue()
    with cliauth.DemoServer() as server, ThreadPoolExecutor(1) as pool:
        client = server.client(str(tmp_path / "token.json"))
        client.terminal = cliauth.Played(addresses.put)
        login = pool.submit(client.login, "browser")
        person = Person(chromium, server, addresses.get(timeout=screen.PATIENCE))
        yield person
        if not login.done():
            server.person(person.address)
        login.exception()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_clean_in_light_and_dark_and_on_a_phone(name, person, chromium):
    act, words = PAGES[name]
    chromium.get("about:blank")
    for log in ("browser", "performance"):
        chromium.get_log(log)
    act(person)
    text = "return document.body?.innerText.replace(/\\s+/g, ' ') ?? ''"
    WebDriverWait(chromium, screen.PATIENCE).until(lambda page: words in page.execute_script(text), name)
    assert chromium.title and chromium.find_element("tag name", "html").get_attribute("lang") == "en"
    chromium.execute_script(AXE + "; document.documentElement.style.background = 'Canvas'")  # not just white
    for name, how in VIEWS.items():
        view(chromium, **how)
        measured, found = chromium.execute_script(MEASURE), chromium.execute_async_script(CHECK)
        assert found["faults"] == [] and "color-contrast" in found["passes"], name
        assert measured["width"] <= how["width"], "one would have to scroll to the side"
        assert all(size >= 44 for box in measured["boxes"] for size in box), "for a thumb"

    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert sent and all(each["request"]["url"].startswith("http://127.0.0.1:") for each in sent)
    # What Chromium says of a favicon that is not there, or of a status, is no fault of a page.
    faults = [entry["message"] for entry in chromium.get_log("browser")]
    assert not [each for each in faults if "Failed to load resource" not in each]
