"""What cliauth costs, beside what starting Python costs, and what others take for the same.

    python3 .ci/bench.py [--rounds N] [--python PATH] [--quick] [--markdown]

Every command runs once in each round, in an order that is drawn anew, and so does F, the floor for anything
that reads a JSON file: `python3 -I -c "import json"`. A figure is the median of the command's times over the
median of F's, so that a slow or busy machine changes both. It is a benchmark, not a test with a stopwatch: it
prints, and fails only where a path does not work at all.

What is measured stands in virtual environments without .pth hooks, under CLIAUTH_CI_CACHE: cliauth as pip
installs it from this checkout, and each peer alone (bench/peers.py). There are few environment variables, the
token file is one that `login` wrote, and the provider is a process of its own with TLS (bench/provider.py).
--quick leaves out the peers, and is over too soon to tell more than that all of it works.
"""

import argparse
import contextlib
import datetime
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "bench"))
import peers  # noqa: E402
from setting import Command, Provider, Setting, environment, execute, finish, pip  # noqa: E402

CROWD, PROFILES = 100, 10_000
ACCOUNT = "ada@example.com"  # whom the provider knows

MODULE = """
import sys, timeit, cliauth
client = cliauth.Client()
print(*timeit.repeat(client.access_token, number=1000, repeat=int(sys.argv[1])))
"""


class Comparison(NamedTuple):
    """A row for commands that may take so many times what another one does; of several the slowest counts."""

    name: str
    at_most: float
    commands: list
    base: str = "F"
    unit: str = "F"


class Row(NamedTuple):
    name: str
    at_most: str
    this_run: str
    detail: str
    met: bool


# ---- What runs in rounds -----------------------------------------------------------------------------------


def floors(setting):
    """What the others are compared with."""
    urllib = [HERE / "bench" / "with_urllib.py", setting.provider.issuer + "/token", setting.provider.ca_file]
    return [Command("F", [setting.python, "-I", "-c", "import json"]),
            Command("urllib", [setting.python, *map(str, urllib)])]


def comparisons(setting):
    """The rows in which processes are compared. The bytecode beside the script serves -m alone."""
    installed, script, token = setting.installed, setting.script, setting.token
    ways = {"installed": installed, "script": script}
    once = Command("token, installed", [*installed, "token"], token)
    yield Comparison("installed `cliauth token`", 1.2, [once])
    yield Comparison("`python3 -m cliauth token`", 1.45, [
        Command("token, module", [setting.python, "-m", "cliauth", "token"], token)])
    yield Comparison("`python3 cliauth.py token`", 1.75, [
        Command("token, script", [*script, "token"], token)])
    for way, cliauth in ways.items():
        yield Comparison(f"`token --format header`, `json`, `kubectl`, `git`, and `status`, {way}", 2.2, [
            *(Command(f"{form}, {way}", [*cliauth, "token", "--format", form], token)
              for form in ("header", "json", "kubectl")),
            Command(f"git, {way}", [*cliauth, "token", "--format", "git", "get"], token, stdin="question"),
            Command(f"status, {way}", [*cliauth, "status"], ACCOUNT)])
    for way, cliauth in ways.items():
        yield Comparison(f"`--help`, {way}", 2.5, [Command(f"--help, {way}", [*cliauth, "--help"], "usage:")])
    for way, cliauth in ways.items():
        refresh = Command(f"refresh, {way}", [*cliauth, "refresh"], home="other")
        yield Comparison(f"`refresh` over TLS, {way}", 1.25, [refresh], "urllib", "× urllib")
    many = once._replace(name=f"token, {PROFILES:,} profiles", home="many")
    yield Comparison(f"installed `cliauth token`, {PROFILES:,} profiles", 1.1, [many], once.name, "× with 1")


def sample(measure, commands, rounds):
    """Seconds, seconds of CPU, and MiB of each command by its name."""
    samples = {command.name: [] for command in commands}
    for _ in range(rounds):
        for command in random.sample(commands, len(commands)):
            samples[command.name] += measure(command)
    return {name: tuple(zip(*figures, strict=True)) for name, figures in samples.items() if len(figures) > 1}


# ---- The rows ----------------------------------------------------------------------------------------------


def span(values, form="{:.2f}"):
    """The smallest and the largest; one, where they look the same."""
    return "–".join(dict.fromkeys(form.format(value) for value in (min(values), max(values))))


def spread(seconds, factor=1e3):
    """The median and the quartiles, in ms unless told."""
    low, middle, high = (value * factor for value in quantiles(seconds, n=4))
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"


def comparison(compared, samples):
    base = median(samples[compared.base][0])
    seconds = [samples[command.name][0] for command in compared.commands]
    ratios = [median(each) / base for each in seconds]
    milliseconds = [median(each) * 1e3 for each in seconds]
    yield Row(compared.name, f"{compared.at_most} {compared.unit}", f"{span(ratios)} {compared.unit}",
              spread(*seconds) if len(seconds) == 1 else span(milliseconds, "{:.1f}"),
              max(ratios) <= compared.at_most)


def memory(cached, samples):
    """Of the commands that print what is stored."""
    floor = median(samples["F"][-1])
    for way in ("installed", "module", "script"):
        peaks = [median(samples[command.name][-1]) for command in cached if command.name.endswith(way)]
        what = "`token` and `status`" if len(peaks) > 1 else "`token`"
        yield Row(f"peak memory of {what}, {way}", "1.2 × F's",
                  f"{span([each / floor for each in peaks])} × F's", f"{span(peaks, '{:.1f}')} MiB",
                  max(peaks) <= 1.2 * floor)


def module(setting, rounds):
    program = Command("client.access_token()", [setting.python, "-c", MODULE, str(rounds)])
    seconds = [float(thousand) / 1000 for thousand in setting.run(program).split()]
    yield Row("`client.access_token()` in a program", "60 µs", f"{median(seconds) * 1e6:.0f} µs",
              spread(seconds, 1e6) + " µs", median(seconds) <= 60e-6)


def callback(setting, rounds):
    seconds = [setting.login(home="other")[0] for _ in range(rounds)]
    yield Row("from the callback's arrival to the end of `login`", "60 ms", f"{median(seconds) * 1e3:.0f} ms",
              spread(seconds), median(seconds) <= 0.06)


def device(setting, rounds):
    """Approved between the second poll and the third; the interval of this provider is a second."""
    process, address = setting.sign_in("--device", home="other")
    time.sleep(2.5)
    approved = time.monotonic()
    setting.provider.get(address)
    finish(process)
    polls = [each for each in setting.provider.requests() if each["path"] == "/token"]
    late = [poll["came"] - approved for poll in polls if poll["came"] > approved]
    gaps = [after["came"] - before["answered"] for before, after in pairwise(polls)]
    yield Row("device flow, polls until the token is there", "1 after the approval, 1 to 1.05 s apart",
              f"{len(late)}, {span(gaps, '{:.3f}')} s apart", f"{late[-1] * 1e3:.0f} after the approval",
              len(late) == 1 and min(gaps) >= 1 and max(gaps) < 1.05)


def wire(setting, rounds):
    """The requests, as the provider counted them."""
    setting.provider.requests()
    setting.run(Command("refresh", [*setting.installed, "refresh"], home="other"))
    refresh, pushed = setting.provider.requests(), setting.login(home="other")[1]
    endpoints = [f"--{name}-endpoint={setting.provider.issuer}/{name}" for name in ("authorization", "token")]
    known = setting.login("--profile", "known", *endpoints, home="other")[1]
    unknown = setting.login("--profile", "new", "--issuer", setting.provider.issuer, home="other")[1]
    discovery = [each for each in unknown if "well-known" in each["path"]]
    together = max(each["came"] for each in discovery) < min(each["answered"] for each in discovery)
    for name, at_most, asked in (("a refresh", 1, refresh), ("a sign-in with a known provider", 1, known),
                                 ("the same with PAR", 2, pushed)):
        yield Row(f"requests of {name}", str(at_most), str(len(asked)), "", len(asked) <= at_most)
    yield Row("requests of discovery", "2, side by side", f"{len(discovery)}, " + (
        "side by side" if together else "one by one"), "", len(discovery) <= 2 and together)


def crowd(setting, rounds):
    """The provider holds its answer back until all have found the token expired, and wait for the lock."""

    def start(home):
        token = Command("token", [*setting.installed, "token"], home=home)
        return [setting.start(token, stdout=subprocess.PIPE) for _ in range(CROWD)]

    def end(crowd):
        if len({finish(process) for process in crowd}) != 1:
            raise RuntimeError(f"{CROWD} processes got different tokens")
        return time.monotonic()

    def waits(process):
        with contextlib.suppress(OSError):
            return any(os.readlink(each).endswith(".lock") for each in os.scandir(f"/proc/{process.pid}/fd"))
        return False

    began = time.monotonic()
    valid = end(start("home")) - began
    for file in shutil.copytree(setting.folder / "home", setting.folder / "expired").glob("*.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "expires_at": time.time() - 1}))
    setting.provider.requests()
    setting.provider.get("/hold")
    waiting, until = start("expired"), time.monotonic() + 20
    while time.monotonic() < until and not all(map(waits, waiting)):
        time.sleep(0.1)
    setting.provider.get("/release")
    ended, refreshes = end(waiting), setting.provider.requests()
    after = ended - refreshes[0]["answered"]
    yield Row(f"{CROWD} processes find the token expired at once", "1 refresh, the last ends 2 s after it",
              f"{len(refreshes)} refresh, {after:.2f} s", f"without their start, {valid:.2f} s",
              len(refreshes) == 1 and after <= 2)


def listing(setting, rounds):
    seconds = [setting.time(Command("list", [*setting.installed, "list"], home="many"))[0] for _ in range(5)]
    yield Row(f"`list` of {PROFILES:,} profiles", "1 s", f"{median(seconds):.2f} s", spread(seconds),
              median(seconds) <= 1)


# ---- All of it ---------------------------------------------------------------------------------------------


def machine(python):
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    version = execute(python, "-c", "import platform; print(platform.python_version())").strip()
    processor = model[1] if model else "a processor without a name"
    return f"{processor}, {os.cpu_count()} cores, CPython {version}, {datetime.date.today()}"


def table(*rows):
    """Markdown that can be read as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in (rows[0], ["-" * width for width in widths], *rows[1:]):
        print("| " + " | ".join(map(str.ljust, row, widths)) + " |")
    print()


def report(samples, rows, others, raw):
    """The two tables, ahead of them all that was sampled."""
    if raw:
        for name, (seconds, busy, peaks) in samples.items():
            cpu = f"{median(busy) * 1e3:.1f} ms of CPU"
            print(f"{name:24} {spread(seconds):>22} ms, {cpu:>15}, {median(peaks):4.1f} MiB")
        print()
    table(("path", "at most", "this run", "ms (quartiles)", ""),
          *((*row[:4], "met" if row.met else "over") for row in rows))
    floor, own = median(samples["F"][0]), samples["token, installed"][0]
    if others:
        table(("program", "a stored token", "ms (quartiles)", "requests", ""),
              ("cliauth", f"{median(own) / floor:.2f} F", spread(own), "0", ""),
              *((each.name, f"{median(samples[each.name][0]) / floor:.2f} F", spread(samples[each.name][0]),
                 str(asked), remark) for each, asked, remark in others))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=41, help="how often each command runs (default: 41)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to measure")
    parser.add_argument("--quick", action="store_true", help="three rounds, no peers: only whether it works")
    parser.add_argument("--markdown", action="store_true", help="the tables alone, as the README has them")
    args = parser.parse_args()
    if args.rounds < 25:
        parser.error("--rounds: a median wants 25 or more")
    rounds, broken = 3 if args.quick else args.rounds, []
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        del os.environ[name]  # PYTHONDONTWRITEBYTECODE, for one, would change what is measured

    def attempt(work, *arguments):
        try:
            return list(work(*arguments))
        except (OSError, LookupError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            broken.append(f"{work.__name__}: {error!r}")
            return []

    def working(command):
        setting.run(command)
        yield command

    def timing(command):
        yield setting.time(command)

    tools = environment("tools", sys.executable, HERE / "requirements.txt", "flit_core", "trustme")
    python = environment("cliauth", args.python)
    with contextlib.suppress(RuntimeError):  # older ones write scripts that import re
        pip(python, "install", "--upgrade", "pip")
    with tempfile.TemporaryDirectory() as folder:
        pip(tools, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, HERE.parent)
        pip(python, "install", "--no-deps", "--force-reinstall", *Path(folder).glob("*.whl"))
        provider = Provider(tools, Path(folder))
        setting = Setting(Path(folder), python, provider, PROFILES)
        compared = list(comparisons(setting))
        for each in compared:
            each.commands[:] = [works for command in each.commands for works in attempt(working, command)]
        others = [] if args.quick else list(peers.programs(setting))
        own = [command for each in compared for command in each.commands]
        commands = floors(setting) + own + [command for command, *_ in others]
        samples = sample(lambda command: attempt(timing, command), commands, rounds)
        rows = [row for each in compared if each.commands for row in attempt(comparison, each, samples)]
        rows += attempt(memory, [each for each in own if each.says in (setting.token, ACCOUNT)], samples)
        for work in (module, callback, device, wire, crowd, listing):
            rows += attempt(work, setting, rounds)
        provider.close()

    report(samples, rows, others, raw=not args.markdown)
    floor, urllib = (spread(samples[name][0]) for name in ("F", "urllib"))
    print(f"{machine(python)}. F took {floor} ms, urllib {urllib} ms. `python3 .ci/bench.py` makes it again.")
    for why in broken:
        print("does not work:", why)
    return bool(broken)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:
        sys.exit(f"nothing can be measured here: {error}")
