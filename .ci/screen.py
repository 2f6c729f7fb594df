"""A terminal of a given size: programs run in it, and what its screen then shows can be read, or drawn."""

import collections
import html
import itertools
import os
import pty
import re
import selectors
import subprocess
import termios
import time
from typing import NamedTuple

import pyte

W, H = 7, 14  # pixels of a cell: a QR code's modules, which are half of one, are square
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
PATIENCE = 30  # seconds until a program that hangs is given up


class Theme(NamedTuple):
    """Colours: those of the terminal itself, and what it makes of the names that pyte gives the others."""

    ink: str
    paper: str
    named: dict

    def of(self, cell):
        """Ink and paper of a cell; bold white is the bright one, as in xterm."""
        ink, paper = ("bright" + cell.fg if cell.bold and "bright" not in cell.fg else cell.fg), cell.bg
        ink, paper = self._colour(ink, self.ink), self._colour(paper, self.paper)
        return (paper, ink) if cell.reverse else (ink, paper)

    def _colour(self, name, own):
        if name in ("default", "brightdefault"):
            return own
        return self.named.get(name) or "#" + name.replace("bright", "")


NAMED = {"black": "#000000", "white": "#cccccc", "brightwhite": "#ffffff"}
DARK = Theme("#cccccc", "#0c0c0c", NAMED)
LIGHT = Theme("#333333", "#ffffff", {**NAMED, "white": "#555555", "brightwhite": "#a5a5a5"})  # VS Code's
SOLARIZED = {"black": "#073642", "white": "#eee8d5", "brightwhite": "#fdf6e3"}
SOLARIZED_DARK = Theme("#839496", "#002b36", SOLARIZED)
SOLARIZED_LIGHT = Theme("#657b83", "#fdf6e3", SOLARIZED)


def rectangle(x, y, columns, rows=1):
    """A piece of a path, by its place on the screen."""
    return f"M{x * W} {round(y * H)}h{columns * W}v{round(rows * H)}h{-columns * W}z"


class Terminal:
    """A pseudo-terminal and its screen; leaving `with` ends what still runs in it."""

    def __init__(self, columns=80, rows=24):
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (rows, columns))
        self.said, self.process = b"", None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)

    def start(self, argv, environment, **changes):
        """Runs a program in it, all of whose streams are this terminal unless told otherwise."""
        how = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs, **changes}
        self.process = subprocess.Popen(argv, env=environment, start_new_session=True, **how)

    def until(self, happened):
        """Shows what the program says until that is so, or the program has ended and all was read."""
        deadline = time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as selector:
            selector.register(self.ours, selectors.EVENT_READ)
            while not happened():
                ended = self.process.poll() is not None
                if selector.select(0 if ended else 0.05):
                    self.feed(os.read(self.ours, 1 << 16))
                elif ended:
                    return
                assert time.monotonic() < deadline, self.text()

    def finish(self):
        """Shows all that the program says, and returns its exit code."""
        self.until(lambda: False)
        return self.process.wait()

    def feed(self, data):
        self.said += data
        self.stream.feed(data)

    def text(self):
        """What is to be read on the screen now, without what stands empty."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip("\n")

    def runs(self, theme):
        """Each line's runs of text with one ink and paper: where it stands, the colours, and the text."""
        for y in range(self.screen.lines):
            cells = [(x, self.screen.buffer[y][x]) for x in range(self.screen.columns)]
            for (ink, paper), run in itertools.groupby(cells, lambda cell: theme.of(cell[1])):
                run = list(run)
                yield run[0][0], y, ink, paper, "".join(cell.data for _, cell in run)

    def svg(self, theme):
        """What is on the screen as a picture; blocks fill their half cells, as most terminals draw them."""
        paths, words = collections.defaultdict(str), []
        for x, y, ink, paper, text in self.runs(theme):
            if paper != theme.paper:
                paths[paper] += rectangle(x, y, len(text))
            for match in re.finditer("(█+)|(▀+)|(▄+)|[^ █▀▄]+(?: [^ █▀▄]+)*", text):
                left, length = x + match.start(), len(match.group())
                if match.lastindex:
                    part, height = {1: (0, 1), 2: (0, 0.5), 3: (0.5, 0.5)}[match.lastindex]
                    paths[ink] += rectangle(left, y + part, length, height)
                else:
                    colour = f' fill="{ink}"' if ink != theme.ink else ""
                    words.append(f'<text x="{left * W}" y="{y * H + H * 3 // 4}" textLength="{length * W}"'
                                 f"{colour}>{html.escape(match.group(), quote=False)}</text>")
        left, top, rows = -2 * W, -H, len(self.text().split("\n"))
        width, height = (self.screen.columns + 4) * W, (rows + 2) * H
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="{left} {top} {width} {height}" font-family="{FONTS}" font-size="{W / 0.6:.3g}">',
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="{W}" fill="{theme.paper}" '
            'stroke="#444"/>',
            *(f'<path shape-rendering="crispEdges" fill="{ink}" d="{path}"/>' for ink, path in paths.items()),
            f'<g fill="{theme.ink}">', *words, "</g>", "</svg>\n"])

    def page(self, theme, line_height):
        """The screen as a web page whose font draws the blocks, with seams where it does not fill a line."""
        style = (f"body{{background:{theme.paper}}}pre{{font:16px/{line_height} monospace}}"
                 f"span{{display:inline-block;vertical-align:top;height:{line_height}em}}")
        lines = [""] * self.screen.lines
        for _, y, ink, paper, text in self.runs(theme):
            lines[y] += f'<span style="color:{ink};background:{paper}">{html.escape(text)}</span>'
        return f'<!doctype html><meta charset="utf-8"><style>{style}</style><pre>' + "\n".join(lines)
