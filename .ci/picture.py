"""The terminal in the README: .ci/login.svg, drawn from what a sign-in and a call of an API really print.

    PYTHON .ci/picture.py            draws it
    PYTHON .ci/picture.py --check    fails where a new one would say something else

PYTHON is one that .ci/requirements.txt is installed in; curl and qrencode are on the PATH. The addresses are
like those of a real provider: all of https goes through a proxy of ours, and its CA is the trusted one.
"""

import html
import os
import re
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import screen
import trustme

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import cliauth  # noqa: E402

PICTURE = HERE / "login.svg"
ISSUER, API = "https://id.example.com", "https://api.example.com"
LOGIN = f"python3 cliauth.py login --device --issuer {ISSUER} --client-id my-cli"
CALL = f"python3 cliauth.py token --format header | curl -H @- {API}/me"


class Provider(cliauth.DemoServer):
    """The demo's server under other addresses, and an API that takes its tokens."""

    client_id = "my-cli"

    def __enter__(self):
        super().__enter__()
        self.issuer = ISSUER
        return self

    def answer(self, method, path, params, headers):
        return super().answer(method, path.replace("/me", "/userinfo"), params, headers)

    def approve(self):
        """What the person does on another device, once there is a code."""
        for request in self.pending.values():
            request["decision"] = "allow"


def proxy(provider, authority):
    """An HTTP proxy that ends TLS itself and hands every connection to the provider."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("*.example.com").configure_cert(context)

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self):
            self.send_response(200)
            self.end_headers()
            with context.wrap_socket(self.connection, server_side=True) as connection:
                provider.web.RequestHandlerClass(connection, self.client_address, provider.web)

        def log_message(self, *_):
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Proxy)


def draw():
    """Runs both commands in a terminal, and returns its picture."""
    authority = trustme.CA()
    with TemporaryDirectory() as folder, Provider() as provider, proxy(provider, authority) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        ca_file = os.path.join(folder, "ca.pem")
        authority.cert_pem.write_to_path(ca_file)
        os.symlink(sys.executable, os.path.join(folder, "python3"))
        environment = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": folder, "TERM": "xterm-256color",
                       "LANG": "C.UTF-8", "HTTPS_PROXY": f"http://127.0.0.1:{web.server_port}",
                       "SSL_CERT_FILE": ca_file, "CURL_CA_BUNDLE": ca_file}
        with screen.Terminal(114, 50) as terminal:
            for command, happened in ((LOGIN, lambda: "Waiting" in terminal.text()), (CALL, lambda: True)):
                terminal.feed(f"\x1b[97m$ {command}\x1b[m\r\n".encode())
                terminal.start(["/bin/sh", "-c", command], environment, cwd=HERE.parent)
                terminal.until(happened)
                provider.approve()
                if terminal.finish():
                    raise SystemExit(terminal.text())
                terminal.feed(b"\r\n")
        web.shutdown()
        return terminal.svg(screen.DARK)


def words(picture):
    """The text in a picture, but for what no two have in common: codes and times."""
    text = "\n".join(map(html.unescape, re.findall(">([^<>]+)</text>", picture)))
    size = re.search("viewBox=[^>]*>", picture)[0]  # a QR code has no words, but it takes its room
    return size + re.sub(r"\b[A-Z]{8}\b", "CODE", re.sub("[0-9]", "0", text))


def main():
    picture = draw()
    if "--check" not in sys.argv:
        PICTURE.write_text(picture)
    elif words(picture) != words(PICTURE.read_text()):
        print(f"{PICTURE.name} says:\n{words(PICTURE.read_text())}\n\nand should say:\n{words(picture)}")
        raise SystemExit("it is out of date: run .ci/picture.py")


if __name__ == "__main__":
    main()
