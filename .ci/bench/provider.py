"""The authorization server of the benchmark: cliauth's own over TLS, with PAR, and when it was asked what.

    PYTHON .ci/bench/provider.py CA_FILE

PYTHON is one with trustme. The issuer goes to stdout, whom to trust to CA_FILE; it ends when its stdin does.
"""

import ssl
import sys
import threading
import time
from pathlib import Path

import trustme

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
import cliauth  # noqa: E402

LOOK_UP = 0.05  # seconds for each metadata document, so that two that are asked side by side are seen to be


class Provider(cliauth.DemoServer):
    """Everybody agrees to everything, at once, and a refresh token may be used again and again."""

    def __init__(self):
        super().__init__()
        self.requests, self.gate = [], threading.Event()
        self.gate.set()

    def __enter__(self):
        super().__enter__()
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.cert_pem.write_to_path(sys.argv[1])
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.web.socket = context.wrap_socket(self.web.socket, server_side=True)
        self.issuer = self.issuer.replace("http:", "https:")
        return self

    def answer(self, method, path, params, headers):
        came = time.monotonic()
        if path.startswith("/.well-known"):
            time.sleep(LOOK_UP)
        reply = super().answer(method, path.replace("/tenant", ""), params, headers)  # msal wants a path
        self.requests.append({"path": path, "came": came, "answered": time.monotonic()})
        return reply

    def get_openid_configuration(self, params):
        reply = super().get_openid_configuration(params)
        endpoint = b'"pushed_authorization_request_endpoint": "%s/par", ' % self.issuer.encode()
        return *reply[:2], reply[2].replace(b"{", b"{" + endpoint, 1)

    def post_par(self, params):
        uri = f"urn:ietf:params:oauth:request_uri:{time.monotonic()}"
        self.pending[uri] = params
        return cliauth.json_reply({"request_uri": uri, "expires_in": 60}, 201)

    def get_authorization(self, params):
        return super().get_authorization(self.pending.pop(params.get("request_uri"), params))

    def page(self, request, code=""):
        self.pending["this"] = request
        return self.post_decision({"request": "this", "decision": "allow"})

    def post_token(self, params):
        if params.get("grant_type") != "refresh_token":
            return super().post_token(params)
        self.gate.wait(25)
        return self.tokens({"scope": "openid email offline_access", "nonce": ""})

    # What bench.py says to it: refreshes wait, or may go on; what was asked since the last look?

    def get_hold(self, params):
        self.gate.clear()
        return cliauth.json_reply({})

    def get_release(self, params):
        self.gate.set()
        return cliauth.json_reply({})

    def get_requests(self, params):
        requests, self.requests = self.requests, []
        return cliauth.json_reply(requests)


if __name__ == "__main__":
    with Provider() as provider:
        print(provider.issuer, flush=True)
        sys.stdin.read()
