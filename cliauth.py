#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK
# /// script
# requires-python = ">=3.6"
# dependencies = []
# ///
"""Sign a person in from the command line: OAuth 2.0 and OpenID Connect in one file, nothing to install.

    python3 cliauth.py demo                                             see it work: no account, no network
    python3 cliauth.py login --issuer https://id.example.com --client-id my-cli
    python3 cliauth.py token --format header | curl -H @- https://api.example.com/me

or in a program:

    client = cliauth.Client("https://id.example.com", "my-cli", scope="openid offline_access")
    requests.get(url, auth=client)

The rooms, each of which uses only those above it:

     1 Presets    what a program that carries this file fills in     7 Loopback      the redirect listener
     2 Errors     what can go wrong, and the exit code of each       8 Flows         browser, paste, device
     3 Text       what comes from outside, read strictly             9 Token file    load, save, lock
     4 Protocol   requests and answers, without any I/O             10 Client        what programs use
     5 HTTP       the only door out                                 11 Demo          a throw-away server
     6 Terminal   the person, and the person's browser              12 Command line

A token that is still valid is printed without importing urllib, ssl, http, argparse or threading: every heavy
import stands in the function that needs it, because Python's start is all that an installed `cliauth token` costs.

Copyright (C) 2026 the cliauth authors. Licence: 0BSD. Permission to use, copy, modify, and/or distribute this software
for any purpose with or without fee is hereby granted. THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL
WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT
SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER
RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION,
ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
"""
import os
import sys
import time

NEEDED = f"Python {3.6} or newer"  # an older one cannot read this line, and shows it when it gives up


def bad_import(error: Exception) -> str:
    """What to do where Python's own modules cannot be had, or are not its own; "" if nothing points to that."""
    own, trace = os.path.dirname(getattr(os, "__file__", "")), error.__traceback__
    known = getattr(sys, "stdlib_module_names", None) or [  # 3.10
        name.split(".")[0] for folder in (own, os.path.join(own, "lib-dynload")) if os.path.isdir(folder)
        for name in os.listdir(folder)]
    broken = str(getattr(error, "filename", ""))  # a SyntaxError's
    files = {os.path.basename(broken)[:-3]: broken}
    files.update((name, str(getattr(module, "__file__", ""))) for name, module in list(sys.modules.items()))
    while trace:  # a module that failed is among those no more
        files[trace.tb_frame.f_globals.get("__name__", "")] = trace.tb_frame.f_code.co_filename
        trace = trace.tb_next
    for name, file in files.items():
        if name in known and file.endswith(".py") and os.path.isfile(file) and not file.startswith(own):
            return f"{ascii(file)} hides Python's own module of that name; rename it"
    lacking = next((each.name for each in (error, error.__context__) if isinstance(each, ImportError)), "")
    return f"this Python lacks the module {lacking}; install all of it (Debian: apt install python3)" if lacking else ""


try:
    import json
    import re
except Exception as error:  # Debian's python3-minimal, or a json.py beside this file
    if __name__ != "__main__":
        raise
    sys.stderr.write(f"cliauth: {bad_import(error) or error}\n")
    sys.exit(2)

TYPE_CHECKING = False  # a type checker takes it for true; importing typing would cost 2 ms or more at every start
if TYPE_CHECKING:
    import argparse
    import socket
    from contextlib import contextmanager
    from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List, Optional, Tuple, Union
    Json = Dict[str, Any]
    Path = Union[str, os.PathLike[str]]
    Reply = Tuple[int, Dict[str, str], bytes]
    Tell = Callable[[str, str, Json, int], None]
else:
    def contextmanager(work):
        """contextlib's own, imported when the first block begins: to print a token that is valid, none does."""
        def block(*args, **keywords):
            from contextlib import contextmanager
            return contextmanager(work)(*args, **keywords)
        return block

__version__ = "1.0.0"
__all__ = ["AuthError", "Client", "DemoServer", "ErrorResponse", "InvalidResponse", "LoginRequired", "Unreachable",
           "UsageError", "add_commands", "main"]


# ─── 1 Presets ── what a program that carries this file fills in, here or as cliauth.ISSUER = … from its own code ────

APP = "cliauth"         # the folder of the token files, a program's own, and the first word of its errors
COMMAND = "cliauth"     # what the hints tell the person to type: "run: cliauth login"
ISSUER = ""
PROVIDER = ""           # a row of the table below
CLIENT_ID = ""
CLIENT_SECRET = ""      # only if the provider insists: what is shipped to everybody is no secret (RFC 8252 §8.5)
SCOPE = ""
AUDIENCE = ""
SETTINGS: "Json" = {}   # any other option of login by its name in the token file: {"redirect_uri": ["http://…"]}

# Providers without usable discovery, or with habits of their own. An endpoint that begins with "/" belongs to the
# site, or to the --issuer that takes its place (GitHub Enterprise, a GitLab of one's own).
PROVIDERS: "Dict[str, Json]" = {
    "github": {  # no metadata, no public clients: without a secret only the device flow ends well
        "site": "https://github.com", "authorization_endpoint": "/login/oauth/authorize", "client_auth": "post",
        "token_endpoint": "/login/oauth/access_token", "device_authorization_endpoint": "/login/device/code",
        "userinfo_endpoint": "https://api.github.com/user", "without_secret": "device"},
    "gitlab": {"issuer": "https://gitlab.com", "device_authorization_endpoint": "/oauth/authorize_device"},
    "google": {  # no refresh token without access_type, and at a second sign-in none without prompt
        "issuer": "https://accounts.google.com", "client_auth": "post", "scope": "openid email profile",
        "param": {"access_type": "offline", "prompt": "consent"}},
    "microsoft": {  # any port is registered with http://localhost alone, not with 127.0.0.1
        "issuer": "https://login.microsoftonline.com/common/v2.0", "redirect_uri": ["http://localhost:0"],
        "scope": "openid profile email offline_access"},
    "workos": {  # no metadata; the parameter chooses its own sign-in page; register http://127.0.0.1:*/callback
        "site": "https://api.workos.com", "authorization_endpoint": "/user_management/authorize", "client_auth": "post",
        "token_endpoint": "/user_management/authenticate", "param": {"provider": "authkit"},
        "device_authorization_endpoint": "/user_management/authorize/device"},
    "huggingface": {"issuer": "https://huggingface.co", "device_authorization_endpoint": "/oauth/device",
                    "scope": "openid profile"},
    "atlassian": {  # its metadata promise PAR and more that its apps do not have; one redirect URI, one port
        "site": "https://auth.atlassian.com", "authorization_endpoint": "/authorize", "token_endpoint": "/oauth/token",
        "revocation_endpoint": "/oauth/revoke", "userinfo_endpoint": "https://api.atlassian.com/me",
        "client_auth": "post", "scope": "read:me offline_access", "redirect_uri": ["http://localhost:6363/callback"],
        "audience": "api.atlassian.com", "param": {"prompt": "consent"}},
    "dropbox": {  # without a redirect URI it shows the code, which is pasted here
        "site": "https://www.dropbox.com", "authorization_endpoint": "/oauth2/authorize", "redirect_uri": [""],
        "token_endpoint": "https://api.dropboxapi.com/oauth2/token", "param": {"token_access_type": "offline"}},
}

REDIRECT_URIS = ["http://127.0.0.1:0/callback", "http://[::1]:0/callback"]  # RFC 8252 §7.3; port 0: any free one
LOGIN_TIMEOUT = 300     # seconds for a whole sign-in
HTTP_TIMEOUT = 30       # seconds for one exchange, from name resolution to the last byte (`request`: to the body)
LOCK_TIMEOUT = 40       # seconds: longer than one exchange, which the holder of the lock may be in
BODY_LIMIT = 1 << 20    # bytes of an answer, `request` excepted


# ─── 2 Errors ── what can go wrong; each knows its exit code, and its text ends with what to do next ─────────────────

class AuthError(Exception):
    """Base of all that this module raises; `exit_code` is what the command line makes of it."""
    exit_code = 1


class UsageError(AuthError):
    """The settings or the token file cannot be used as they are."""
    exit_code = 2


class LoginRequired(AuthError):
    """A person has to sign in (again)."""
    exit_code = 3


class InvalidResponse(AuthError):
    """The server answered, but nothing that can be trusted or understood."""


class Unreachable(AuthError):
    """The server did not answer: network, certificate, timeout. Tokens are kept; later may be better."""
    exit_code = 4


PASSING = ("server_error", "temporarily_unavailable")


class ErrorResponse(AuthError):
    """The server said no, in the words of RFC 6749 §5.2: `error`, `error_description`, `error_uri`, HTTP `status`."""

    def __init__(self, message: str, error: str = "", error_description: str = "", error_uri: str = "",
                 status: int = 0, retry_after: float = 0) -> None:
        super().__init__(message)
        self.error, self.error_description, self.error_uri, self.status = error, error_description, error_uri, status
        self.retry_after = retry_after  # seconds, where the server asks for patience

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status >= 500 or self.status == 429 or self.error in PASSING

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        return 4 if self.passing else 1

    @property
    def words(self) -> str:
        """The server's own: code and explanation, else the HTTP status."""
        code, text = self.error or str(self.status), self.error_description
        return f"{code}: {text}" if text and text != code else code


# ─── 3 Text ── what comes from outside, read strictly and shown safely; pure ─────────────────────────────────────────

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def visible(text: "Any", limit: int = 500) -> str:
    """Text from outside for a terminal: every control, escape and bidi character is spelled out; cut at `limit`."""
    text = str(text)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    return shown + "…" if len(text) > limit else shown


def shown_url(url: str) -> str:
    """An address for a terminal, without what may be secret in it: user info, query, fragment."""
    without_user = re.sub(r"(?s)\A(\w*://|).*@", r"\1…@", url)
    return visible(re.sub("(?s)([?#]).+", r"\1…", without_user))


def typed(text: str) -> str:
    """A word as a person types it in a shell, to which nothing in it means more than it says."""
    separator = re.escape(os.sep)  # a backslash is one on Windows alone, which knows no quotes but these
    if re.match(rf"[\w:./{separator}@+-]+\Z", text):
        return text
    if re.match(rf"[\w:./{separator}@+ -]+\Z", text):
        return f'"{text}"'
    return "'" + visible(text).replace("'", "'\\''") + "'"


def split_url(url: str, what: str) -> "Tuple[str, str, int]":
    """Scheme, host and port of an https address, or of an http one on this machine; UsageError for any other.

    Before urlsplit sees it: that strips tabs and newlines, and takes http://evil.example\\@127.0.0.1 for 127.0.0.1.
    """
    match = re.match(r"(https?)://([0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(?:[/?][!-~]*)?\Z", url)
    if not match or "\\" in url or "#" in url or not 0 < int(match.group(3) or 1) < 65536:
        raise UsageError(f"{what} is no plain address: {shown_url(url)}; write it like https://host/path")
    scheme, host, port = match.groups()
    if scheme == "http" and host not in LOOPBACK:
        raise UsageError(f"{what} must begin with https://, or be on this machine: {shown_url(url)}")
    return scheme, host.lower(), int(port or (80 if scheme == "http" else 443))


def unique(pairs: "List[Tuple[str, Any]]") -> "Json":
    """The pairs as a dictionary; ValueError where a name comes twice (RFC 6749 §3.1, RFC 8259 §4)."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name comes twice")
    return members


def parse_form(text: str, errors: str = "strict") -> "Json":
    """The members of a query or a form; ValueError where one comes twice."""
    from urllib.parse import parse_qsl
    return unique(parse_qsl(text, keep_blank_values=True, errors=errors))


def encode_form(params: "Json") -> str:
    """A query or form body; lists repeat the name. A space is %20: AWS Cognito and others do not read "+"."""
    from urllib.parse import quote, urlencode
    return urlencode({name: value for name, value in params.items() if value}, doseq=True, quote_via=quote,
                     errors="surrogateescape")


def finite(digits: str) -> float:
    """A JSON number; ValueError for NaN and Infinity, which are JavaScript, and where Pythons differ over its size."""
    if len(digits) >= 40 or not abs(float(digits)) <= 1e300:
        raise ValueError("a number out of range")
    return float(digits) if set(digits) & set(".eE") else int(digits)


def dump_json(value: "Any") -> bytes:
    """JSON as it stands in files and on stdout; ValueError for a lone surrogate."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def parse_json(data: bytes, levels: int = 40) -> "Any":
    """The value of a JSON text that can be written again as it is; ValueError for any other."""
    try:
        value = json.loads(data.decode().lstrip("\ufeff"), object_pairs_hook=unique, parse_int=finite,
                           parse_float=finite, parse_constant=finite)
        level, depth = [value], 0
        while level:  # what parses may yet be too deep to be written, after the refresh token is spent
            nests = [each for each in level if isinstance(each, (dict, list))]
            level = [inner for each in nests for inner in (each.values() if isinstance(each, dict) else each)]
            depth += bool(nests)
            if depth > levels:
                raise ValueError("nested too deeply")
        json.dumps(value, ensure_ascii=False).encode()  # neither may a lone surrogate
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def number(value: "Any") -> "Optional[float]":
    """A count of seconds that came as a number or a string (PayPal, Salesforce), else None."""
    if isinstance(value, str):
        return number(float(value)) if re.match(r"\s*[0-9]{1,15}(\.[0-9]{1,9})?\s*\Z", value) else None
    return value if type(value) in (int, float) and 0 <= value < 1e11 else None


def patience(headers: "Any") -> float:
    """Seconds that a Retry-After asks for, in seconds or by a date of the server's clock (RFC 9110 §10.2.3); else 0."""
    seconds = number(headers.get("Retry-After", 0))
    if seconds is not None:
        return seconds
    from email.utils import parsedate_to_datetime  # strptime's names are those of the locale
    try:
        until, now = (parsedate_to_datetime(str(headers.get(name))) for name in ("Retry-After", "Date"))
        return max(0, (until - now).total_seconds())
    except (OverflowError, TypeError, ValueError):
        return 0


def words(value: "Any") -> "List[str]":
    """The scopes in a list, or in a string with spaces or commas (GitHub) between them."""
    if isinstance(value, str):
        return value.replace(",", " ").split()
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def printable(value: "Any") -> bool:
    """Whether it can stand in a header as a token does; folded lines and NUL would be sent as they are."""
    return isinstance(value, str) and bool(re.match(r"[!-~]+\Z", value))


def base64url(data: bytes) -> str:
    """RFC 4648 §5 without padding, as RFC 7636 and RFC 7515 want it."""
    from binascii import b2a_base64  # base64 itself would cost a cached `status` memory for nothing
    return b2a_base64(data, newline=False).decode().rstrip("=").replace("+", "-").replace("/", "_")


def decode_jwt(jwt: str) -> "Tuple[Json, Json]":
    """Header and claims of a signed JWT (RFC 7515), unverified; ValueError for anything else."""
    from binascii import a2b_base64
    parts = jwt.split(".")
    if len(parts) == 3 and re.match(r"[\w.-]+\Z", jwt, re.ASCII):
        header, claims = (parse_json(a2b_base64(part.replace("-", "+").replace("_", "/") + "==")) for part in parts[:2])
        if isinstance(header, dict) and isinstance(claims, dict):
            return header, claims
    raise ValueError("an encrypted one cannot be read here" if len(parts) == 5 else "it is not a signed JWT")


def claims_of(token: "Json", name: str = "id_token") -> "Json":
    """The claims in a token that was checked when it came, {} where there is none to read."""
    try:
        return decode_jwt(token[name])[1]
    except (KeyError, AttributeError, ValueError):
        return {}


# ─── 4 Protocol ── requests are built and answers read; no clock, no socket, no file ─────────────────────────────────

CLOCK_LEEWAY = 120  # seconds that this machine's clock and the server's may differ

# What a parameter or member of one of these names holds is never shown.
SECRETS = ("access_token", "refresh_token", "id_token", "token", "code", "code_verifier", "device_code",
           "client_secret", "client_assertion", "request_uri")

# The parameters that make a request what it is; --param may not touch them.
PROTOCOL = SECRETS + ("response_type", "response_mode", "client_id", "redirect_uri", "scope", "state", "nonce",
                      "code_challenge", "code_challenge_method", "grant_type", "client_assertion_type", "request")

# Members that speak of the response they stood in; a later response makes them stale.
EXPIRY = ("expires_in", "expires_at", "refresh_token_expires_in", "refresh_expires_in", "issued_at", "created_at",
          "iat")

# Refusals of a refresh after which only a new sign-in helps: of RFC 6749, GitHub, OpenID Connect, Supabase, Gitea.
DEAD = ("invalid_grant", "bad_refresh_token", "interaction_required", "consent_required", "login_required",
        "refresh_token_not_found", "refresh_token_already_used", "unauthorized_client")

CLIENT = ("invalid_client", "incorrect_client_credentials")  # a matter of settings; the second is GitHub's

# The ways to say that the person refused, or that a device code is over (Entra, GitHub, Dex, Twitch).
DENIED = ("access_denied", "authorization_declined")
OVER = ("expired_token", "token_expired", "invalid_grant", "bad_verification_code", "incorrect_device_code",
        "invalid_request", "invalid_device_code")

OFFLINE = ("offline_access", "refresh_token", "offline")  # asks for a refresh token: Snowflake, Hydra
BEARER = ("bearer", "bot", "user")  # the last two are Slack's words for one

METADATA = ("issuer", "authorization_endpoint", "token_endpoint", "device_authorization_endpoint",
            "pushed_authorization_request_endpoint", "userinfo_endpoint", "revocation_endpoint", "end_session_endpoint",
            "token_endpoint_auth_methods_supported", "mtls_endpoint_aliases", "scopes_supported",
            "authorization_response_iss_parameter_supported")


class Response:
    """One HTTP answer, whole, and the parameters that it answers."""

    def __init__(self, url: str, status: int, headers: "Any", body: bytes, sent: "Optional[Json]" = None) -> None:
        self.url, self.status, self.headers = visible(url.split("?")[0]), status, headers
        self.body, self.sent = body, sent or {}

    def members(self) -> "Optional[Json]":
        """The body as a form (GitHub) or a JSON object, whatever its Content-Type; None if it is neither."""
        text = self.body.decode("ascii", "replace").strip()
        try:
            value = parse_form(text) if re.match(r"[\w.-]+=[!-<>-~][!-~]*\Z", text) else parse_json(self.body)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def said(self, text: "Any") -> str:
        """The server's own words for a terminal, without what it was sent in confidence."""
        from urllib.parse import quote
        text = str(text or "")
        for secret in (self.sent.get(name) for name in SECRETS):
            if isinstance(secret, str) and len(secret) > 3:  # a shorter one would blot out the error code
                text = text.replace(secret, "…").replace(quote(secret, safe="", errors="replace"), "…")
        return visible(text)


def first_text(places: "Iterable[Any]", *names: str) -> str:
    """The first text that is a member of that name, name by name, in whichever of the places; "" if there is none."""
    found = [place.get(name) for name in names for place in places if isinstance(place, dict)]
    return next((text for text in found if isinstance(text, str) and text), "")


def error_code(answer: "Json") -> str:
    """The error code of a refusal, wherever it stands: Google nests it, WorkOS, Supabase and Databricks rename it."""
    message = str(answer.get("message"))  # Twitch: {"status": 400, "message": "invalid device code"}
    words_ = message.replace(" ", "_") if re.match(r"[a-z]+([_ ][a-z]+)+\Z", message) else ""
    return first_text([answer], "error") or first_text([answer.get("error")], "code", "status") or first_text(
        [answer], "error_code", "code", "errorCode") or words_


def advice(error: str, status: int, seconds: float = 0) -> str:
    """What to do next after a refusal; `client` stands for one without a word, to which a client has led."""
    later = status >= 500 or status == 429 or error in PASSING
    when_ = f"in {seconds:.0f} s" if seconds else "later"
    passing = f"try again {when_}" if later else "check the settings, or ask the provider"
    again = "to try again, run the same command"
    known = dict.fromkeys(CLIENT, "check login's --client-id, and the client's secret, assertion or certificate")
    return {**known, "access_denied": again, "invalid_grant": again,
            "invalid_token": f"to sign in again, run: {COMMAND} login",
            "invalid_scope": "check login's --scope", "insufficient_scope": "check login's --scope",
            "invalid_target": "check login's --resource", "unsupported_token_type": "it ends by itself",
            "unauthorized_client": "allow this flow for the client at the provider",
            "client": "check login's --client-id, --redirect-uri, --scope, and the client secret, which some servers "
                      "take by --client-auth post alone"}.get(error, passing)


def read_answer(response: Response) -> "Json":
    """The members of a success; ErrorResponse for a refusal (RFC 6749 §5.2), InvalidResponse for what is neither."""
    answer, status = response.members(), response.status
    if 300 <= status < 400:
        raise InvalidResponse(f"{response.url} redirects to {response.said(response.headers.get('Location'))}, which "
                              "is never followed; name the endpoint's own address")
    if 200 <= status < 300:
        if answer is None:
            kind = response.said(response.headers.get("Content-Type") or "no type")
            raise InvalidResponse(f"{response.url} answered something that is not JSON ({kind}); check the address")
        if not answer.get("error") and answer.get("ok") is not False:  # GitHub and Slack refuse with a 200
            user = answer.get("authed_user")  # Slack: in there is the token of the person, beside it that of a bot
            return {**answer, **user} if isinstance(user, dict) and not answer.get("access_token") else answer
    answer = answer or {}
    code, text = response.said(error_code(answer)), response.said(
        first_text((answer, answer.get("error")), "error_description", "message", "msg", "errorSummary"))
    about = f" ({text})" if text and text != code else ""
    seconds = number(answer.get("interval")) or patience(response.headers)
    hushed = "client" if status in (401, 403) and "client_id" in response.sent else ""  # glewlwyd, Kanidm
    next_ = advice(code or hushed, status, seconds)
    raise ErrorResponse(f"{response.url} answered {status} {code}".rstrip() + f"{about}; {next_}", code, text,
                        response.said(answer.get("error_uri")), status, seconds)


def client_authentication(settings: "Json", metadata: "Json", assertion: str = "") -> "Tuple[Dict[str, str], Json]":
    """Headers and parameters that say which client asks (RFC 6749 §2.3): one secret, one way, never probed.

    The client_id stands in the body even beside Basic: several servers look for it there.
    """
    client_id, secret = settings["client_id"], settings.get("client_secret", "")
    if assertion:
        return {}, {"client_id": client_id, "client_assertion": assertion,
                    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}
    listed = words(metadata.get("token_endpoint_auth_methods_supported"))
    method = settings.get("client_auth") or ("basic" if not listed or "client_secret_basic" in listed else "post")
    if not secret or method == "none":
        return {}, {"client_id": client_id}
    if method == "post":
        return {}, {"client_id": client_id, "client_secret": secret}
    from base64 import b64encode
    from urllib.parse import quote
    pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"  # form-encoded first, RFC 6749 §2.3.1
    return {"Authorization": "Basic " + b64encode(pair.encode()).decode()}, {"client_id": client_id}


class Attempt:
    """The values that tie a browser's answer to this sign-in: `state`, `nonce`, `code_verifier`."""

    def __init__(self, openid: bool, pkce: bool) -> None:
        from secrets import token_urlsafe
        self.state = token_urlsafe(32)
        self.nonce = token_urlsafe(32) if openid else ""
        self.code_verifier = token_urlsafe(32) if pkce else ""  # 43 characters, RFC 7636 §4.1

    def owns(self, params: "Json") -> bool:
        """Whether the state in an authorization response is ours (RFC 6749 §10.12), in constant time."""
        from secrets import compare_digest
        return compare_digest(str(params.get("state", "")).encode("utf-8", "replace"), self.state.encode())

    def code_challenge(self) -> str:
        """BASE64URL-ENCODE(SHA256(ASCII(code_verifier))), RFC 7636 §4.2."""
        from hashlib import sha256
        return base64url(sha256(self.code_verifier.encode()).digest()) if self.code_verifier else ""


def extras(settings: "Json") -> "Json":
    """What every request that begins a sign-in carries, and no other."""
    return {**{name: settings.get(name) for name in ("scope", "audience", "resource")}, **settings.get("param", {})}


def authorization_request(settings: "Json", redirect_uri: str, attempt: Attempt) -> "Json":
    """RFC 6749 §4.1.1 with RFC 7636 §4.3 and the nonce of OpenID Connect Core 3.1.2.1."""
    return {"response_type": "code", "client_id": settings["client_id"], "redirect_uri": redirect_uri,
            "state": attempt.state, "nonce": attempt.nonce, "code_challenge": attempt.code_challenge(),
            "code_challenge_method": "S256" if attempt.code_verifier else "", **extras(settings)}


def client_credentials_request(settings: "Json") -> "Json":
    """RFC 6749 §4.4.2."""
    return {"grant_type": "client_credentials", **extras(settings)}


def renewal_request(settings: "Json", token: "Json") -> "Json":
    """RFC 6749 §6, without a scope; client credentials are asked for anew, there is no refresh token (§4.4.3)."""
    if settings.get("flow") == "client-credentials":
        return client_credentials_request(settings)
    refresh_token, resource = token["refresh_token"], settings.get("resource")
    return {"grant_type": "refresh_token", "refresh_token": refresh_token, "resource": resource}


def with_query(url: str, params: "Json") -> str:
    return url + ("&" if "?" in url else "?") + encode_form(params)


def fits(issuer: "Any", known: str) -> bool:
    """Whether the two are one issuer (or setting), but for a trailing slash; in Entra's path {tenantid} is any."""
    ours, theirs = (str(each).rstrip("/").split("/") for each in (issuer, known))
    return isinstance(issuer, str) and len(ours) == len(theirs) and all(
        one == other or one and other == "{tenantid}" and place > 2  # never the host
        for place, (one, other) in enumerate(zip(ours, theirs)))


def read_callback(params: "Json", issuer: str, iss_required: bool) -> str:
    """The code of an authorization response whose state was ours (RFC 6749 §4.1.2): by iss, then error, then code."""
    iss, error = params.get("iss"), visible(params.get("error", ""), 80)
    if issuer and (not fits(iss, issuer) if iss else iss_required and not error):  # RFC 9207 §2.4
        came = visible(iss or "missing")
        raise InvalidResponse(f"the answer is of another server: iss is {came}, not {issuer}; do not use it")
    if error:
        text = visible(params.get("error_description", ""))
        raise ErrorResponse(f"the sign-in was {'denied' if error in DENIED else 'refused'}: {error}" + (
            f" ({text})" if text else "") + f"; {advice(error, 0)}", error, text, visible(params.get("error_uri", "")))
    return str(params["code"])


def read_pasted(text: str) -> "Json":
    """The parameters in what the person pasted: the whole address, its query alone, or a bare code; else ValueError."""
    text = text.strip().strip("<>'\"")
    if not printable(text):
        raise ValueError("it is not on one line, or holds other characters than addresses do")
    if not re.search(r"(^|[?&#])(code|error)=|://", text):
        return {"code": text}
    params = parse_form(re.sub(r"^([^?#&=]*|[\w.+-]+:[^?#]*)[?#]|#.*", "", text))
    if not params.get("code") and not params.get("error"):
        raise ValueError("there is no code in it")
    return params


def read_device_response(answer: "Json") -> "Json":
    """RFC 8628 §3.2 with the defaults filled in; an address that a person must not open makes it invalid."""
    device = dict(answer, verification_uri=answer.get("verification_uri") or answer.get("verification_url"))  # Google
    for name in ("device_code", "user_code", "verification_uri"):
        if not first_text([device], name):
            raise InvalidResponse(f"the device authorization response has no {name}; try --flow paste")
    try:
        for name in ("verification_uri", "verification_uri_complete"):
            if device.get(name):
                split_url(str(device[name]), name)
    except UsageError as error:
        raise InvalidResponse(f"the device authorization response is not to be trusted: {error}") from None
    device["interval"] = min(max(number(answer.get("interval")) or 5, 1), 60)
    device["expires_in"] = number(answer.get("expires_in")) or 900
    return device


def next_poll(no: ErrorResponse, interval: float) -> float:
    """Seconds to the next poll (RFC 8628 §3.5), judged by the code and not by the status; raises what ends it."""
    if no.error in DENIED:
        raise ErrorResponse(f"the sign-in was denied: {no}", no.error, no.error_description, no.error_uri,
                            0 if no.passing else no.status)  # whatever the status, that was the person's last word
    if no.error in OVER:
        raise LoginRequired(f"the code ran out or was used already ({no.words}); run the same command again")
    if no.error == "authorization_pending":
        interval = max(interval, no.retry_after if no.status == 429 else 0)
    elif no.error == "slow_down" or no.status == 429:  # authentik's 429 is empty
        interval = max(interval + 5, no.retry_after)
    elif no.passing or not no.error:
        interval *= 2
    else:
        raise no
    return min(interval, 60)


def read_token(answer: "Json") -> "Json":
    """A token response (RFC 6749 §5.1) whose tokens can stand in a header; InvalidResponse for any other."""
    if not answer.get("access_token"):
        raise InvalidResponse("the token response holds no access_token; check --token-endpoint")
    for name in ("access_token", "refresh_token", "id_token"):
        if answer.get(name) not in (None, "") and not printable(answer[name]):
            raise InvalidResponse(f"the {name} that came is not printable ASCII; ask the provider")
    kind = answer.get("token_type") or "Bearer"  # WorkOS leaves it out
    if str(kind).lower() not in BEARER:
        raise InvalidResponse(f"the token is of type {visible(kind, 40)}, which only another client can use; ask the "
                              "provider")
    return answer


def expires_at(token: "Json", now: float) -> "Optional[float]":
    """When the access token that came `now` ends (Unix seconds): by expires_in, expires_at, its own exp; else None."""
    left, end = number(token.get("expires_in")), number(token.get("expires_at"))
    if left is None and end is None:
        end = number(claims_of(token, "access_token").get("exp"))
    return int(now + left) if left is not None else end


def granted(token: "Json", asked: str) -> str:
    """The scopes of a token response; none named means those asked for (RFC 6749 §5.1)."""
    return " ".join(words(token.get("scope")) or words(token.get("scopes")) or words(asked))


def covered(scope: str, scopes: "List[str]") -> bool:
    """Whether the scope was granted, however it is spelt: Google and Entra add an address, GitHub's user is wider."""
    wanted = scope.lower().rpartition("/")[2]
    return wanted == ".default" or any(  # Entra's: all that was consented to
        each == wanted or each.endswith(("/" + wanted, "." + wanted)) or wanted.startswith(each + ":")
        for each in map(str.lower, scopes))


def renewed(old: "Json", new: "Json") -> "Json":
    """A refresh response laid over the token it renews; what spoke of the old response alone is dropped first.

    Some servers say that there is no new refresh token by null or "".
    """
    stale = EXPIRY + (("scope", "scopes") if new.get("scope") or new.get("scopes") else ())
    return {**{name: value for name, value in old.items() if name not in stale},
            **{name: value for name, value in new.items() if value not in (None, "")}}


def at_hash_fits(alg: str, access_token: str, at_hash: "Any") -> bool:
    """Core 3.1.3.6: the left half of the hash that the algorithm's name ends with (Ed25519 goes with SHA-512)."""
    import hashlib
    name = {"256": "sha256", "384": "sha384"}.get(alg[-3:], "sha512")
    digest = hashlib.new(name, access_token.encode()).digest()
    return bool(base64url(digest[:len(digest) // 2]) == at_hash)


def id_token_faults(token: "Json", settings: "Json", issuer: str, now: float, nonce: str) -> "Iterator[str]":
    """What OpenID Connect Core 3.1.3.7 finds wrong; over TLS from the token endpoint, the signature may go unread.
    ValueError for what is no ID token at all."""
    header, claims = decode_jwt(token["id_token"])
    iss, audience, client_id = str(claims.get("iss")), claims.get("aud"), settings["client_id"]
    audiences = audience if isinstance(audience, list) else [audience]
    if str(header.get("alg")).strip().lower() in ("", "none"):
        yield "it is unsigned"
    wanted = issuer.replace("{tenantid}", str(claims.get("tid")))  # Entra's metadata is a template
    if issuer and wanted not in (iss, "https://" + iss):  # Google may leave the scheme out
        yield f"iss is {visible(iss)}, not {visible(wanted)}; if you trust that one, name it as --issuer"
    if client_id not in audiences or claims.get("azp", client_id) != client_id:
        yield f"it was issued to another client (aud {visible(audience)})"
    if len(audiences) > 1 and "azp" not in claims:
        yield "of several audiences none is the authorized party (azp)"
    exp, iat = number(claims.get("exp")), number(claims.get("iat"))
    if exp is None or iat is None:
        yield "it has no exp or no iat"
    elif iat > now + CLOCK_LEEWAY or exp < now - CLOCK_LEEWAY:
        off = abs(now - iat)
        yield f"this machine's clock is {off:.0f} s off; set it" if off > CLOCK_LEEWAY else "it has expired already"
    max_age, auth_time = number(settings.get("param", {}).get("max_age")), number(claims.get("auth_time"))
    if max_age is not None and (auth_time is None or now - auth_time > max_age + CLOCK_LEEWAY):
        yield "the person signed in longer ago than max_age allows"
    if "at_hash" in claims and not at_hash_fits(str(header.get("alg")), token["access_token"], claims["at_hash"]):
        yield "at_hash belongs to another access token"
    if nonce and claims.get("nonce") != nonce:
        yield "its nonce belongs to another sign-in"


def check_id_token(token: "Json", settings: "Json", issuer: str, now: float, nonce: str = "") -> None:
    """Raises InvalidResponse if the ID token, where one came, is not for this client and this sign-in."""
    if not token.get("id_token"):
        return
    try:
        fault = next(id_token_faults(token, settings, issuer, now, nonce), "")
    except ValueError as error:
        raise InvalidResponse(f"the ID token cannot be used: {error}; ask the provider") from None
    if fault:
        raise InvalidResponse(f"the ID token cannot be trusted: {fault}{'' if ';' in fault else '; ask the provider'}")


def discovery_addresses(issuer: str) -> "List[str]":
    """Where metadata may be: OpenID Connect Discovery 4 appends, RFC 8414 §3.1 inserts before the path."""
    base = issuer.rstrip("/")
    site = re.sub("(://[^/]+).*", r"\1", base)
    return [base + "/.well-known/openid-configuration",
            site + "/.well-known/oauth-authorization-server" + base[len(site):]]


def read_metadata(issuer: str, documents: "Iterable[Optional[Json]]") -> "Json":
    """What the documents of this issuer say, the first one winning; of another issuer's nothing is used."""
    merged: "Json" = {}
    for document in documents:
        if document and fits(issuer, str(document.get("issuer"))):
            merged = {**{name: document[name] for name in METADATA if document.get(name)}, **merged}
    for name, value in merged.items():
        try:
            if name.endswith("_endpoint"):
                split_url(str(value), name)
        except UsageError as error:
            raise InvalidResponse(f"the metadata of {issuer} is not to be trusted: {error}") from None
    return merged


def fill(url: str, token: "Json") -> str:
    """{NAME} or {NAME.NAME} in a userinfo address, out of the token response (TOKI's user id)."""
    from urllib.parse import quote
    for place in re.findall(r"\{([\w.]+)\}", url):
        value: "Any" = token
        names = place.split(".")
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        if not isinstance(value, (str, int)) or names[-1] in SECRETS:
            raise UsageError(f"the token response has no {place} for {visible(url)}; check login's --userinfo-endpoint")
        url = url.replace("{" + place + "}", quote(str(value), safe=""))
    return url


# ─── 5 HTTP ── the only door out; it knows no OAuth ──────────────────────────────────────────────────────────────────

class Background:
    """Work in a thread of its own, so that whoever waits for it can give up.

    urllib's timeout is per read: name resolution, and a server that drips a byte a second, outlive it. Where no
    thread can be started the work is done at once, with that lesser timeout.
    """

    def __init__(self, work: "Callable[[], Any]") -> None:
        from threading import Thread
        self.work = work
        self.outcome: "List[Any]" = []
        self.thread = Thread(target=self.run, daemon=True)
        try:
            self.thread.start()
        except RuntimeError:
            self.run()

    def run(self) -> None:
        try:
            self.outcome.append(self.work())
        except Exception as error:  # whatever it is belongs to the thread that waits
            self.outcome.append(error)

    def result(self, seconds: float) -> "Any":
        """What the work returned or raised; Unreachable when it takes longer than `seconds`."""
        end = time.monotonic() + seconds
        while not self.outcome:
            if time.monotonic() > end:
                raise Unreachable(f"no whole answer within {seconds:.3g} s; check the network, and try again")
            self.thread.join(0.2)  # in slices: on Windows Ctrl-C waits for one
        if isinstance(self.outcome[0], Exception):
            raise self.outcome.pop()  # from no name: it would hold itself by its traceback, and its sockets with it
        return self.outcome.pop()


@contextmanager
def exchange_with(url: str) -> "Iterator[None]":
    """Turns what can break an exchange into an error that says what usually helps."""
    from http.client import HTTPException, IncompleteRead
    host = re.split("[/?]", url)[2]
    try:
        yield
    except IncompleteRead:
        raise Unreachable(f"the answer of {host} was cut short; try again") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        text = visible(getattr(reason, "verify_message", 0) or getattr(reason, "strerror", 0) or reason or type(reason))
        if "ertificate" in repr(reason):
            helps = ("check this machine's clock" if "expired" in text or "not yet valid" in text else
                     "check the address" if "match" in text or "not valid for" in text else
                     "if your network inspects TLS, name its CA with --ca-file or SSL_CERT_FILE; else check that this "
                     "machine has CA certificates (Debian: ca-certificates), and its clock")  # 3.6 does not tell why
            raise Unreachable(f"the certificate of {host} cannot be trusted: {text}; {helps}") from None
        if not isinstance(reason, (OSError, str)):
            raise InvalidResponse(f"{host} does not speak HTTP ({type(reason).__name__}); check the address") from None
        raise Unreachable(f"{host} cannot be reached: {text}; check the address, the network, and any proxy") from None


class Http:
    """One client's way out: no redirects, no other schemes, no cookies, TLS verified always."""

    def __init__(self, settings: "Json", trace: "Callable[[str], None]") -> None:
        self.settings, self.trace = settings, trace
        self.context: "Any" = None

    def tls(self) -> "Any":
        """The TLS context, made once: the system's roots, or those of --ca-file or SSL_CERT_FILE alone."""
        if self.context:
            return self.context
        import ssl
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if hasattr(context, "minimum_version"):  # 3.7; RFC 9325 §3.1.1
            context.minimum_version = ssl.TLSVersion.TLSv1_2
        roots, cert = self.settings.get("ca_file") or os.environ.get("SSL_CERT_FILE"), self.settings.get("client_cert")
        try:  # the stdlib passes over an unreadable file in silence, and then trusts nobody or somebody else
            context.load_verify_locations(roots) if roots else context.load_default_certs()
        except OSError as error:  # whose strerror PyPy leaves empty
            why = "it holds none in PEM" if isinstance(error, ssl.SSLError) else os.strerror(error.errno or 0)
            raise UsageError(f"no CA certificates can be read from {visible(roots or 'this system')}: {why}; check "
                             "login's --ca-file or SSL_CERT_FILE") from None
        try:
            if cert:
                context.load_cert_chain(cert, self.settings.get("client_key"), password=lambda: "")  # never asks
        except (OSError, ValueError) as error:
            raise UsageError(f"the client certificate {visible(cert)} cannot be used ({visible(error)}); check "
                             "login's --client-cert and --client-key, whose key must not be encrypted") from None
        self.context = context
        return context

    def opener(self, scheme: str, host: str) -> "Any":
        """An OpenerDirector that can do one thing: with urlopen's, a redirect leads to other hosts, even to ftp."""
        from urllib import request
        director = request.OpenerDirector()
        director.addheaders = [("User-Agent", f"cliauth/{__version__} (Python {sys.version.split()[0]})")]
        context = self.tls() if scheme == "https" else None  # first: without ssl there is no HTTPSHandler
        director.add_handler(request.HTTPSHandler(context=context) if context else request.HTTPHandler())
        if host not in LOOPBACK and not request.proxy_bypass(host):
            proxy = request.getproxies().get(scheme) or request.getproxies().get("all")
            if proxy and not re.match(r"(?i)(http://)?([^/]*@)?([^:/@]+|\[[^/@]+\])(:\d+)?(/|\Z)", proxy):
                kind = proxy.split("://")[0] if re.match(r"\w+://", proxy) else "unknown"  # no password
                raise UsageError(f"Python cannot use a proxy of the kind {kind}; name one like http://host:port in "
                                 "HTTPS_PROXY, or list the host in NO_PROXY")
            director.add_handler(request.ProxyHandler({scheme: proxy} if proxy else {}))
        return director

    def open(self, method: str, url: str, body: "Union[bytes, Json, None]" = None, headers: "Optional[Json]" = None,
             timeout: float = HTTP_TIMEOUT, read: "Callable[[Any], Any]" = lambda raw: raw) -> "Any":
        """The http.client.HTTPResponse of whatever status, its body left to `read`; Unreachable or InvalidResponse
        if there is none within `timeout` seconds. The body sent is bytes, or the parameters of a form."""
        from urllib.request import Request
        opener = self.opener(*split_url(url, "the address of a request")[:2])
        started, place, names = time.monotonic(), visible(url.split("?")[0]), ""
        if isinstance(body, dict):
            names = visible(", ".join(name for name, value in body.items() if value))
            body = encode_form(body).encode()
        self.trace(f"> {method} {place}, {len(body or b'')} bytes{names and ': ' + names}")
        with exchange_with(url):  # what stands in brackets may be no IPv6 address
            request = Request(url, body, {"Accept": "application/json", **(headers or {})}, method=method)
            raw = Background(lambda: read(opener.open(request, timeout=timeout))).result(timeout)
        self.trace(f"< {raw.status} from {place} after {time.monotonic() - started:.3f} s")
        return raw

    def send(self, method: str, url: str, form: "Optional[Json]" = None, headers: "Optional[Json]" = None,
             timeout: float = HTTP_TIMEOUT) -> Response:
        """One exchange, whole and once, within `timeout` seconds."""
        data, room = bytearray(), bytearray(1 << 14)  # read(n) takes whatever comes in a chunk of -1 bytes

        def whole(raw: "Any") -> "Any":
            with raw:  # closed where it is read: close() waits for a read in another thread
                for size in iter(lambda: raw.readinto(room), 0):
                    data.extend(room[:size])
                    if len(data) > BODY_LIMIT:
                        break
                return raw

        raw = self.open(method, url, form, headers, timeout, whole)
        bearer = (headers or {}).get("Authorization", "").partition(" ")[2]
        answer = Response(url, raw.status, raw.headers, bytes(data), {
            "client_secret": self.settings.get("client_secret"), "access_token": bearer, **(form or {})})
        if len(data) > BODY_LIMIT:
            raise InvalidResponse(f"{answer.url} answered more than {BODY_LIMIT} bytes; check the address")
        if raw.length:  # what was cut short is returned in silence
            raise Unreachable(f"the answer of {answer.url} was cut short; try again")
        kind, members = raw.headers.get("Content-Type", "no type"), ", ".join(answer.members() or ["no members"])
        self.trace(f"< {len(data)} bytes from {answer.url}, {answer.said(f'{kind}: {members}')}")
        return answer


# ─── 6 Terminal ── the person and the person's browser; words go to stderr, results to stdout ────────────────────────

TEXT_BROWSERS = ("lynx", "w3m", "links", "links2", "elinks", "browsh", "carbonyl", "www-browser")
OPENERS = ("xdg-open", "x-www-browser", "firefox", "google-chrome", "chromium", "chromium-browser", "microsoft-edge",
           "brave-browser", "epiphany", "konqueror")
CI_VARIABLES = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "TF_BUILD", "JENKINS_URL", "BUILDKITE", "TEAMCITY_VERSION",
                "CODEBUILD_BUILD_ARN")
CLOUD_VARIABLES = ("CODESPACES", "GITPOD_WORKSPACE_URL", "CLOUD_SHELL")
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "TERMUX_VERSION")  # the last is an Android phone
TELLING_FILES = ("/.dockerenv", "/run/.containerenv", "/proc/version")


def own_browser(entries: str, windows: bool, which: "Callable[[str], Optional[str]]") -> "List[str]":
    """The first command in a BROWSER variable that is there and no text browser; [] if none is."""
    import shlex
    for entry in entries.split(";" if windows else ":"):
        try:
            argv = [entry] if which(entry) else shlex.split(entry.rstrip(" &"), posix=not windows)  # & as of webbrowser
            argv = [part.replace('"', "") for part in argv] if windows else argv  # which shlex leaves there
        except ValueError:
            continue
        found = which(argv[0]) if argv else ""
        batch = windows and found and found.lower().endswith((".bat", ".cmd"))  # cmd.exe runs what follows an &
        if found and not batch and os.path.basename(argv[0]) not in TEXT_BROWSERS:
            return argv
    return []


def find_browser(environ: "Any", platform: str, files: "Dict[str, str]",
                 which: "Callable[[str], Optional[str]]") -> "Tuple[List[str], str]":
    """The command that opens an address in a browser whose loopback is ours, [] if there is none; and the reason.

    Pure: the environment, sys.platform, the text of those of TELLING_FILES that exist, and shutil.which come in.
    """
    windows = platform == "win32"
    cloud = next((name for name in CLOUD_VARIABLES if environ.get(name)), "")
    container = "/.dockerenv" in files or "/run/.containerenv" in files
    wsl = not container and ("WSL_INTEROP" in environ or "microsoft" in files.get("/proc/version", "").lower())
    ssh = environ.get("SSH_CONNECTION")  # SSH_TTY goes stale in tmux
    own = own_browser(environ.get("BROWSER", ""), windows, which)
    # set by VS Code or Gitpod, not by the person: VS Code's forwards ports to its desktop, not to its page in a browser
    helper = own and ("/helpers/browser" in own[0] or own[0] == "/.supervisor/browser.sh")
    forwarded = not cloud and (wsl or environ.get("REMOTE_CONTAINERS") or ssh and not environ.get("SSH_TTY"))
    if own and (forwarded or not helper):
        return own, "BROWSER is set"
    where = (f"{cloud} is set" if cloud else "this is VS Code in a browser or through a tunnel" if helper else
             "this is an SSH session" if ssh else "")
    if where:
        return [], f"{where}, so your browser is on another machine"
    handler = "url.dll,FileProtocolHandler"
    for argv in (["wslview"], ["rundll32.exe", handler], ["/mnt/c/Windows/System32/rundll32.exe", handler]):
        if wsl and which(argv[0]):  # the last where PATH is without Windows's
            return argv, "this is WSL"
    if windows:  # by its whole path: the current folder would come first
        return [environ.get("SystemRoot", r"C:\Windows") + r"\System32\rundll32.exe", handler], "this is a desktop"
    if platform == "darwin":
        return ["/usr/bin/open"], "this is a desktop"
    if not any(environ.get(name) for name in DISPLAYS):
        return [], "this is a container" if container else "there is no display"
    found = [name for name in OPENERS if which(name)][:1]
    return found, "this is a desktop" if found else "no browser is installed"


def choose_flows(environ: "Any", platform: str, files: "Dict[str, str]", which: "Callable[[str], Optional[str]]",
                 terminal: bool, open_browser: bool = True) -> "Tuple[List[str], List[str], str]":
    """The browser's command, the flows that `auto` tries, none where nobody can sign in; and the reason.

    Pure, as find_browser is; terminal: whether somebody reads stderr. open_browser: not with --no-browser.
    """
    argv, reason = find_browser(environ, platform, files, which) if open_browser else ([], "--no-browser was given")
    no = ("", "0", "false", "no", "off")
    ci = next((name for name in CI_VARIABLES if environ.get(name, "").lower() not in no), "")
    if ci or not argv and not terminal:
        return argv, [], f"{ci} is set" if ci else f"{reason}, and stderr is no terminal"
    return argv, ["browser"] * bool(argv or not open_browser) + ["device", "paste"], reason


def give_up(stream: "Any") -> None:
    """No more of a stream that failed us: else Python tries once more at its end, complains, and exits with 120."""
    from contextlib import suppress
    with suppress(AttributeError, OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def out(data: "Union[str, bytes]") -> None:
    """Writes a result to stdout, all of it; one that cannot be written is an error."""
    try:
        if isinstance(data, str):
            encoding = sys.stdout.encoding or "utf-8"
            sys.stdout.write(data.encode(encoding, "backslashreplace").decode(encoding))
        else:
            sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError) as error:
        give_up(sys.stdout)
        why = getattr(error, "strerror", None) or "stdout is closed"
        raise Unreachable(f"the output could not be written: {why}; free it and try again") from None


def child_environment() -> "Dict[str, str]":
    """What other programs get of our environment: not CLIAUTH_CLIENT_SECRET and the like."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CLIAUTH_")}


class Terminal:
    """What is said to the person, and what the person types. A closed or full stderr is no reason to fail."""

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose, self.shown, self.typed = quiet, verbose, "", b""

    def write(self, text: str) -> None:
        try:
            encoding = sys.stderr.encoding or "ascii"
            sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))
            sys.stderr.flush()
        except BlockingIOError:
            pass  # full for now: what is left goes out with the next line
        except (AttributeError, OSError, ValueError):
            give_up(sys.stderr)  # the exit code still tells

    def say(self, text: str) -> None:
        """A line without which the person could not go on."""
        self.wipe()
        self.write(text + "\n")

    def note(self, text: str) -> None:
        """A line that -q leaves out."""
        if not self.quiet:
            self.say(text)

    def trace(self, text: str) -> None:
        """A line that only -v shows."""
        if self.verbose:
            self.say(text)

    def interactive(self) -> bool:
        """Whether somebody reads stderr."""
        return bool(sys.stderr and not sys.stderr.closed and sys.stderr.isatty())

    def countdown(self, what: str, left: float) -> None:
        """What is waited for, and how long yet, in one line that is written over."""
        if self.interactive() and not self.quiet and os.environ.get("TERM") != "dumb":
            line = f"Waiting for {what}: {int(left) // 60}:{int(left) % 60:02} left, Ctrl-C ends it "
            shown, self.shown = self.shown, line  # first: Ctrl-C may come at any time
            if line != shown:
                self.write("\r" + line.ljust(len(shown)))

    def wipe(self) -> None:
        if self.shown:
            self.write("\r" + " " * len(self.shown) + "\r")
            self.shown = ""

    def surroundings(self, open_browser: bool = True) -> "Tuple[List[str], List[str], str]":
        """What choose_flows says of this process."""
        from contextlib import suppress
        from shutil import which
        files = {}
        for path in TELLING_FILES:
            with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
                files[path] = file.read(500)
        return choose_flows(os.environ, sys.platform, files, which, self.interactive(), open_browser)

    def open_browser(self, argv: "List[str]", url: str) -> None:
        """Starts the browser detached and leaves it to itself, without a shell, our output or our secrets."""
        from subprocess import DEVNULL, Popen
        from urllib.parse import quote
        split_url(url, "the address to open")
        url = quote(url, "%/:?&=#+,;@!*~[]")  # wslview and others are scripts, some of which mind $( and `
        command = [part.replace("%s", url) for part in argv]
        try:
            process = Popen(command if command != argv else argv + [url], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL,
                            start_new_session=True, env=child_environment())
            process.returncode = 0  # nobody waits for it, and Python need not warn of that
        except OSError as error:
            self.note(f"The browser did not start ({error.strerror or error}); open the address yourself.")

    def draw(self, address: str) -> None:
        """Shows the address as a QR code, where qrencode is there to draw it and the terminal can show it."""
        import subprocess
        from shutil import which
        if self.quiet or not self.interactive() or os.environ.get("TERM") == "dumb" or os.name == "nt":
            return  # on Windows which() would take one from the current folder
        program = which("qrencode") if str(sys.stderr.encoding).lower() in ("utf-8", "utf8") else None
        if not program:
            return
        kind = "UTF8" if os.environ.get("NO_COLOR") else "ANSIUTF8"  # which is black on white whatever the theme
        try:  # the address on stdin: argv is for everybody to see
            drawn = subprocess.run(
                [program, "-m", "2", "-t", kind], input=address.encode(), stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, timeout=5, check=True, env=child_environment()).stdout.decode()
            width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        except (OSError, subprocess.SubprocessError, ValueError):
            return
        modules = re.sub(r"\x1b\[[0-9;]*m", "", drawn)
        if re.match(r"[ ▀▄█\n]+\Z", modules) and len(max(modules.split("\n"), key=len)) <= width:
            self.say(drawn.rstrip("\n"))

    @contextmanager
    def keyboard(self, terminal_only: bool) -> "Iterator[Any]":
        """What select waits for and read_line reads, None where nobody types; on Windows a socket that is fed."""
        try:
            fd: "Any" = sys.stdin.fileno()
            if terminal_only and not (self.interactive() and os.isatty(fd) and (  # and not in the background: SIGTTIN
                    sys.platform == "win32" or os.tcgetpgrp(fd) == os.getpgrp())):
                fd = None
        except (AttributeError, OSError, ValueError):
            fd = None
        if fd is None or os.name != "nt":
            yield fd
            return
        import socket
        ours, theirs = socket.socketpair()

        def pump() -> None:
            with theirs:
                for data in iter(lambda: os.read(fd, 1 << 16), b""):
                    theirs.sendall(data)

        Background(pump)
        with ours:
            yield ours

    def read_line(self, keyboard: "Any") -> "Optional[str]":
        """The next line, None while it is incomplete; EOFError when nothing more will come.

        Read from the descriptor: a buffered read would block, and keep what another program should get.
        """
        data = os.read(keyboard, 1 << 16) if isinstance(keyboard, int) else keyboard.recv(1 << 16)
        line, newline, rest = (self.typed + data).partition(b"\n")
        if not data and not self.typed or len(line) > BODY_LIMIT:
            raise EOFError
        self.typed = rest if newline or not data else line
        return line.decode("utf-8", "replace").strip() if newline or not data else None


# ─── 7 Loopback ── the redirect listener (RFC 8252 §7.3); it believes nobody and waits for nobody ────────────────────

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{font:1.1rem/1.6 system-ui,sans-serif;max-width:26rem;margin:20vh auto;padding:0 1rem;text-align:center;
text-wrap:balance}}h1{{font-size:1.6rem}}h1::before{{content:"{mark}";display:block;font-size:3rem;color:{colour}}}
b,input{{font:600 1.5rem/2 ui-monospace,monospace;letter-spacing:.1em;display:block}}
button,input{{padding:.5rem 1.2rem;border:1px solid;border-radius:.5rem}}button{{font:inherit;margin:.3rem}}
input{{box-sizing:border-box;width:100%;text-align:center}}[value=allow]{{background:{colour};color:#fff}}</style>
<h1>{title}</h1><p>{text}</p></html>
"""
SIGNED_IN = PAGE.format(title="Signed in", mark="✓", colour="#2a9d4a",
                        text="You can close this window and return to the terminal.")
FAILED = PAGE.format(title="Sign-in failed", mark="✗", colour="#d0453b",
                     text="The terminal says why, and what to do next. You can return to it.")
NOT_HERE = PAGE.format(title="Nothing to see here", mark="○", colour="#888",
                       text="The sign-in goes on where it was begun; return to the terminal.")


def http_page(status: int, page: str) -> bytes:
    """A whole HTTP response that no cache, frame, script or other origin gets anything from."""
    from http import HTTPStatus
    body = page.encode()
    return (f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: text/html; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\nCache-Control: no-store\r\n"
            "Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n"
            "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n\r\n"
            ).encode() + body


def loopback(uri: str) -> "Any":
    """Host, port and path of a redirect URI on this machine, as a match; None for any other."""
    return re.match(r"http://(127\.0\.0\.1|localhost|\[::1\])(?::([0-9]{1,5}))?(/[^?#\s]*)?(?:\?[^#\s]*)?\Z", uri)


def with_port(redirect_uri: str, port: int) -> str:
    """The redirect URI byte for byte, but for a port that it leaves open (0)."""
    match = loopback(redirect_uri)
    return redirect_uri.replace(":0", f":{port}", 1) if match and match.group(2) == "0" else redirect_uri


def bind(host: str, port: int) -> "socket.socket":
    """A listening socket on a loopback address; OSError if it cannot be had."""
    import socket
    # SO_REUSEADDR, else a fixed port is refused for a minute after each sign-in; Linux still refuses one in use, but
    # Windows would let another program take it from us
    option = "SO_EXCLUSIVEADDRUSE" if os.name == "nt" else "SO_REUSEADDR"
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
        listener.bind((host, port))
        listener.listen(1024)  # a connection that finds it full tries again after a second
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def bind_all(host: str, port: int) -> "List[socket.socket]":
    """Sockets for every address of a redirect URI's host; `localhost` means both, and needs no name resolution."""
    import errno
    found: "List[socket.socket]" = []
    addresses = ["127.0.0.1", "::1"] if host == "localhost" else [host.strip("[]")]
    for address in addresses:
        try:
            found.append(bind(address, port))
            port = found[0].getsockname()[1]  # one port for both
        except OSError as error:
            if error.errno != errno.EADDRINUSE and (found or address != addresses[-1]):
                continue  # the other will do; not where it is taken: somebody else would get the callback
            for each in found:
                each.close()
            raise
    return found


class Listener:
    """Waits on a loopback redirect URI for the one request whose state is ours; raises OSError if it cannot listen.

    One thread and no HTTP library: idle, slow or hostile connections by the hundred cost it nothing, the oldest being
    dropped when a new one finds no room.
    """

    ROOM, HEAD_LIMIT = 64, 1 << 16  # connections; bytes of a request

    def __init__(self, redirect_uri: str) -> None:
        host, port, path = loopback(redirect_uri).groups()
        for tries in range(5):  # port 0 may find one that is free in one family only
            try:
                self.sockets = bind_all(host, int(port or 80))
                break
            except OverflowError:
                raise OSError(f"there is no port {port}") from None
            except OSError:
                if tries == 4 or port != "0":
                    raise
        bound = self.sockets[0].getsockname()[1]
        self.redirect_uri = with_port(redirect_uri, bound)
        self.hosts = (f"{host}:{bound}",) + ((host,) if bound == 80 else ())
        self.path = path or "/"  # an empty path comes back as "/"
        self.heads: "Dict[socket.socket, bytes]" = {}  # connections, oldest first, and what each has sent
        self.caller: "Optional[socket.socket]" = None
        self.ignored: "List[str]" = []

    def sources(self) -> "List[socket.socket]":
        return self.sockets + list(self.heads)

    def step(self, ready: "Iterable[Any]", is_ours: "Callable[[Json], bool]") -> "Optional[Json]":
        """Serves the sockets that are ready; the parameters of the authorization response once it is there."""
        for source in ready:
            params = self.read(source, is_ours) if source in self.heads else None
            if params:
                self.caller = source
                for other in set(self.heads) - {source}:  # the exchange may need their descriptors
                    self.drop(other)
                return params
        for source in self.sockets:  # last: a new connection may cost an old one that has something to say
            if source in ready:
                self.accept(source)
        return None

    def accept(self, source: "socket.socket") -> None:
        room = self.ROOM
        try:
            connection = source.accept()[0]
            connection.setblocking(False)
            self.heads[connection] = b""
        except BlockingIOError:  # whoever came has gone already
            return
        except OSError:  # out of descriptors
            room = max(0, len(self.heads) - 1)
            time.sleep(0 if self.heads else 0.05)
        if len(self.heads) > room:
            self.drop(next(iter(self.heads)))

    def drop(self, connection: "socket.socket", last_words: bytes = b"") -> None:
        self.heads.pop(connection, None)
        try:
            connection.sendall(last_words)
        except OSError:
            pass
        connection.close()

    def read(self, connection: "socket.socket", is_ours: "Callable[[Json], bool]") -> "Optional[Json]":
        try:
            data = connection.recv(self.HEAD_LIMIT)
        except BlockingIOError:  # select(2) may be wrong
            return None
        except OSError:
            data = b""
        head = self.heads[connection] = self.heads[connection] + data
        if not data:
            self.drop(connection)
        if not data or b"\r\n\r\n" not in head and len(head) < self.HEAD_LIMIT:
            return None
        status, params, reason = self.judge(head.split(b"\r\n\r\n")[0].decode("latin-1"), is_ours)
        if params is None:
            self.drop(connection, http_page(status, NOT_HERE))
            if reason and reason not in self.ignored and len(self.ignored) < 5:
                self.ignored.append(reason)
        return params

    def judge(self, head: str, is_ours: "Callable[[Json], bool]") -> "Tuple[int, Optional[Json], str]":
        """HTTP status, parameters of the authorization response if this is it, and what to tell if it is not.

        Whatever another page, program or person could send is answered and forgotten; the wait goes on.
        """
        match = re.match(r"([A-Z]+) (/[!-~]*) HTTP/1\.[01](\r\n|\Z)", head)
        if not match or match.group(1) != "GET":
            return 405 if match else 400, None, "a request that was no GET"
        path, _, query = match.group(2).partition("?")
        try:
            headers = unique(re.findall(r"\n(host|sec-fetch-mode):[ \t]*(.*?)[ \t]*(?=\r|\n|\Z)", head.lower()))
            if headers.get("host") not in self.hosts:  # DNS rebinding
                return 400, None, f"a request for host {visible(headers.get('host'), 80)}"
            if path != self.path:  # favicon.ico and the like
                return 404, None, ""
            if headers.get("sec-fetch-mode", "navigate") != "navigate":  # a script or an image of some page
                return 400, None, "a request from inside a page"
            params = parse_form(query, "replace")  # providers explain themselves in other encodings too
            if "\ufffd" in params.get("code", ""):
                raise ValueError("the code is no UTF-8")
        except ValueError as error:
            return 400, None, f"a request in which {visible(error, 80)}"
        if not (params.get("code") or params.get("error")) or not is_ours(params):
            error_shown = f" (error {visible(params['error'], 80)})" if params.get("error") else ""
            return 400, None, "an answer without our state" + error_shown
        return 200, params, ""

    def answer(self, signed_in: bool) -> None:
        if self.caller:
            self.caller.settimeout(2)
            self.drop(self.caller, http_page(200, SIGNED_IN) if signed_in else http_page(400, FAILED))

    def close(self) -> None:
        for each in self.sources():
            each.close()


# ─── 8 Flows ── the conversations with an authorization server; only here protocol, HTTP and terminal meet ───────────

SLICE = 0.2  # seconds between looks at the clock: on Windows Ctrl-C waits for one, elsewhere it may just miss select
PLACES = ("issuer", "provider", "token_endpoint")  # what names a server
SERVER = PLACES + ("authorization_endpoint", "device_authorization_endpoint", "revocation_endpoint",
                   "userinfo_endpoint", "end_session_endpoint")
VARIABLES = ("issuer", "provider", "client_id", "client_secret", "scope", "audience")  # of those: CLIAUTH_ISSUER …


class NotOffered(AuthError):
    """The flow cannot be had here: the next one may."""


def read_input(path: str, what: str, limit: int = -1) -> bytes:
    """What is in a file, up to so many bytes; "-" stands for stdin."""
    try:
        if path == "-":
            return sys.stdin.buffer.read(limit)
        with open(path, "rb") as file:
            return file.read(limit)
    except (AttributeError, OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is closed"
        raise UsageError(f"{what} cannot be read from {visible(path)}: {why}; name another file") from None


def read_text(path: str, what: str) -> str:
    try:
        return read_input(path, what, BODY_LIMIT).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise UsageError(f"{what} cannot be read from {visible(path)}: it is not text; name another file") from None


def checked(settings: "Json") -> "Json":
    """Settings that a server can be asked with; UsageError says what is missing or cannot be."""
    if not settings.get("issuer") and not settings.get("token_endpoint"):
        raise UsageError(f"which provider? name it with --issuer URL, or --provider {'|'.join(PROVIDERS)}")
    if not settings.get("client_id"):
        raise UsageError("no client id; register a client at the provider and name it with --client-id")
    for name, value in settings.items():
        variable = "CLIAUTH_" + name.upper() if name in VARIABLES else ""
        option = variable if os.environ.get(variable) == value else "--" + visible(name.replace("_", "-"))
        texts = value if isinstance(value, list) else [str(value)]
        if isinstance(value, dict):  # --param; `claims` may have many lines
            texts = ["".join(f"{key}{text}".split()) for key, text in value.items()]
        if not all(text.isprintable() for text in texts):
            raise UsageError(f"{option} holds characters that cannot be sent; type it anew, in a UTF-8 locale")
        if value and name in SERVER and name != "provider":
            split_url(re.sub(r"\{[\w.]+\}", "x", str(value)), option)
    taken = [name for name in settings.get("param", {}) if name in PROTOCOL]
    if taken:
        raise UsageError(f"--param cannot set {taken[0]}, which the protocol needs; leave it out")
    pkce = settings.get("pkce", True)
    if not settings.get("client_secret") and (settings.get("client_auth") in ("basic", "post") or not pkce):
        raise UsageError(f"{'--client-auth' if pkce else '--no-pkce'} needs a client secret; give "
                         "--client-secret-file, or CLIAUTH_CLIENT_SECRET beside --client-id")
    return settings


class Server:
    """An authorization server as one client sees it."""

    def __init__(self, settings: "Json", metadata: "Json", trace: "Callable[[str], None]") -> None:
        self.settings, self.metadata, self.http = settings, metadata, Http(settings, trace)
        self.kept = bool(metadata)  # a copy from an earlier sign-in, which may have gone stale

    def endpoint(self, name: str) -> str:
        """The address under that name, else "": by hand, by metadata, with a certificate its alias (RFC 8705 §5)."""
        aliases = self.metadata.get("mtls_endpoint_aliases") if self.settings.get("client_cert") else None
        known = {**self.metadata, **(aliases if isinstance(aliases, dict) else {}), **self.settings}
        return str(known.get(name) or "")

    def issuer(self, iss: "Any" = None) -> str:
        """In the server's own spelling where it is known: that is what the ID token carries. Else as it is there."""
        named = str(self.settings.get("issuer") or "")
        return str(self.metadata.get("issuer") or (iss if named and fits(iss, named) else named))

    def discover(self, timeout: float = HTTP_TIMEOUT) -> None:
        """Asks both well-known addresses at once and merges what they say; OpenID Connect's wins."""
        issuer, self.kept = self.settings.get("issuer", ""), False
        if not issuer:
            return
        import encodings.idna  # noqa: F401  # now: two threads that import the same at once may get halves of it
        import urllib.request  # noqa: F401
        asked = [Background(lambda url=url: self.http.send("GET", url, timeout=timeout))  # type: ignore[misc]
                 for url in discovery_addresses(issuer)]
        try:
            answers = [each.result(timeout + 1) for each in asked]
        finally:
            for each in asked:
                if each.thread.is_alive():  # in OpenSSL when Python ends, it would crash it; Ctrl-C waits for this too
                    each.thread.join(0.3)
        documents = [answer.members() if answer.status == 200 else None for answer in answers]
        found = read_metadata(issuer, documents)
        if found or self.settings.get("token_endpoint"):
            self.metadata = found
            return
        others = [visible(document["issuer"]) for document in documents if document and document.get("issuer")]
        if others:
            raise InvalidResponse(f"the metadata of {issuer} is that of {others[0]}; "
                                  "if you trust that one, name it as --issuer, or name the endpoints")
        statuses = " and ".join(f"{answer.url} (HTTP {answer.status})" for answer in answers)
        later = any(answer.status == 429 or answer.status >= 500 for answer in answers)
        if later:
            raise Unreachable(f"no metadata at {statuses}; try again later")
        raise InvalidResponse(f"no metadata at {statuses}; check --issuer, or name the endpoints with "
                              "--authorization-endpoint and --token-endpoint")

    def rediscovered(self) -> bool:
        """Whether a kept copy of the metadata was in use, and a fresh one could be had: once."""
        try:
            stale = self.kept
            if stale:
                self.discover()
            return stale
        except AuthError as error:
            self.http.trace(str(error))
            return False

    def offers(self, name: str) -> bool:
        """Whether there is an endpoint of that name; a kept copy that knows none is not believed."""
        return bool(self.endpoint(name) or self.rediscovered() and self.endpoint(name))

    def believe(self, check: "Callable[[], Any]") -> "Any":
        """What the check returns; one that fails by a kept copy of the metadata is made again by a fresh one."""
        try:
            return check()
        except InvalidResponse:
            if not self.rediscovered():
                raise
            return check()

    def find(self, name: str) -> str:
        """The endpoint of that name; where nothing is known of the server yet, it is discovered."""
        if not self.metadata and not self.endpoint(name):
            self.discover()
        return self.endpoint(name)

    def prepare(self, name: str) -> str:
        """The endpoint of that name, ready to be asked: what is missing for that is said, and imported, now."""
        url = self.find(name)
        if not url:
            raise UsageError(f"no {name} is known; name one with login --{name.replace('_', '-')}, or an --issuer")
        self.http.opener(*split_url(url, name)[:2])
        return url

    def ask(self, name: str, exchange: "Callable[[str], Response]") -> Response:
        """The answer of the endpoint of that name; where a kept copy leads nowhere, a fresh one may know better."""
        url = self.prepare(name)
        answer = exchange(url)
        if answer.status in (301, 308, 404, 410) and self.rediscovered() and self.endpoint(name) not in ("", url):
            answer = exchange(self.endpoint(name))  # nothing is sent twice: there, nobody had taken it
        return answer

    def post(self, name: str, params: "Json", timeout: float = HTTP_TIMEOUT) -> Response:
        """Sends the form, with who we are, to the endpoint of that name."""
        checked(self.settings)  # a file or the environment may hold anything

        def exchange(url: str) -> Response:
            path = self.settings.get("client_assertion_file")  # read afresh: whoever issues the JWT replaces the file
            assertion = read_text(path, "--client-assertion-file") if path else ""
            headers, who = client_authentication(self.settings, self.metadata, assertion)
            return self.http.send("POST", url, {**params, **who}, headers, timeout)

        return self.ask(name, exchange)

    def accept(self, answer: "Json", nonce: str = "") -> "Json":
        """The token response, once it has been checked."""
        token = read_token(answer)
        self.believe(lambda: check_id_token(
            token, self.settings, self.issuer(claims_of(token).get("iss")), time.time(), nonce))
        return token

    def authorization_address(self, request: "Json", timeout: float) -> "Tuple[str, Optional[float]]":
        """What the browser opens, and for how many seconds it is good, if it is known.

        With PAR (RFC 9126) the request goes ahead of it, and out of sight of `ps`; Keycloak keeps it for a minute.
        """
        seconds = None
        name = "pushed_authorization_request_endpoint"
        pushed = self.post(name, request, timeout) if self.endpoint(name) else None
        if pushed and self.endpoint(name):  # after a 404, fresh metadata may know it no more
            answer = read_answer(pushed)
            if not printable(answer.get("request_uri")):
                raise InvalidResponse("the pushed authorization response has no request_uri; ask the provider")
            request = {"client_id": request["client_id"], "request_uri": answer["request_uri"]}
            seconds = number(answer.get("expires_in"))
        address = with_query(self.endpoint("authorization_endpoint"), request)
        split_url(address, "the address to open")
        return address, seconds

    def revoke(self, token: "Json") -> str:
        """RFC 7009, the refresh token first, as well as it can be done; what went wrong, "" if nothing did."""
        try:
            if not self.find("revocation_endpoint"):
                return "the provider has no revocation endpoint, so the tokens were only forgotten here"
            answers = [self.post("revocation_endpoint", {"token": token[name], "token_type_hint": name}, 10)
                       for name in ("refresh_token", "access_token") if token.get(name)]
            for answer in answers[:1]:  # the refresh token takes the other along (§2.1); Cognito takes no other
                if answer.status // 100 != 2 and error_code(answer.members() or {}) != "invalid_token":
                    read_answer(answer)
        except AuthError as error:
            hushed = getattr(error, "status", 0) == 401 and not self.settings.get("client_secret")  # glewlwyd, canaille
            why = "the provider does it for clients with a secret alone" if hushed else error
            return f"the tokens were forgotten here, but could not be revoked: {why}"
        return ""

    def userinfo(self, token: "Json") -> "Json":
        """OpenID Connect Core 5.3; a signed answer (5.3.2) is shown as its claims."""
        bearer = {"Authorization": "Bearer " + token["access_token"]}
        answer = self.ask("userinfo_endpoint", lambda url: self.http.send("GET", fill(url, token), headers=bearer))
        try:
            claims = decode_jwt(answer.body.decode("ascii", "replace").strip())[1]
        except ValueError:
            claims = read_answer(answer)
        subject, sub = claims_of(token).get("sub"), claims.get("sub")
        other_kind = sub is None and self.settings.get("userinfo_endpoint")  # an address by hand: Graph, TOKI
        if subject and sub != subject and not other_kind:  # 5.3.2: it MUST NOT be used
            raise InvalidResponse(f"the userinfo is about somebody else (sub {visible(sub, 80)}, not "
                                  f"{visible(subject, 80)}); sign in again, or name another --userinfo-endpoint")
        return claims


class SignIn:
    """One sign-in by whichever flow, until `timeout` seconds are over; `keep` gets the tokens once they are there."""

    def __init__(self, server: Server, terminal: Terminal, timeout: float, open_browser: bool,
                 keep: "Callable[[str, Json], None]") -> None:
        self.server, self.settings, self.terminal, self.keep = server, server.settings, terminal, keep
        import select  # before we wait: a Ctrl-C during an import can be lost, in a callback of importlib's own
        self.timeout, self.end, self.bare, self.select = timeout, time.monotonic() + timeout, "", select.select
        self.argv, self.order, self.reason = terminal.surroundings(open_browser)
        self.redirect_uris = self.settings.get("redirect_uri") or REDIRECT_URIS
        if self.settings.pop("without_secret", "") and self.order:
            self.order, self.reason = ["device"], "the other flows need a client secret at this provider"

    def left(self) -> float:
        return self.end - time.monotonic()

    def run(self, flow: str) -> None:
        """Signs in by the flow that was asked for; `auto` takes the first that can be had here and says which."""
        if flow == "auto" and self.settings.get("flow") == "client-credentials":
            flow = "client-credentials"
        if flow == "auto" and not self.order:
            raise LoginRequired(f"nobody can sign in here: {self.reason}; use login --flow client-credentials, or "
                                "ask for --flow device, paste or browser")
        flows = {"browser": lambda: self.authorize(self.listen(), self.argv), "device": self.device,
                 "paste": lambda: self.authorize(None, []), "client-credentials": self.client_credentials}
        if flow not in flows and flow != "auto":
            raise UsageError(f"there is no flow {visible(flow, 40)}; there are auto, {', '.join(flows)}")
        if not self.server.metadata:
            self.server.discover(min(max(self.left(), 1), HTTP_TIMEOUT))
        if flow != "client-credentials" and "openid" in words(self.server.metadata.get("scopes_supported")):
            self.settings.setdefault("scope", "openid")  # most providers refuse to do anything without a scope
        if flow != "auto":
            return flows[flow]()
        others = ["browser", "device", "paste"]
        for name in self.order:
            others.remove(name)
            heard = name != "browser" or any(map(loopback, self.redirect_uris))
            self.terminal.note(f"Signing in by {name}{'' if heard else ' and paste'}: {self.reason}. For another way: "
                               f"--flow {' or '.join(others)}.")
            try:
                return flows[name]()
            except NotOffered as error:
                if name == self.order[-1]:
                    raise
                self.reason = str(error).split(";")[0]
        return None

    def listen(self) -> "Optional[Listener]":
        """A listener on the first redirect URI that can be had, None where none of them is on this machine."""
        trouble = None
        for uri in filter(loopback, self.redirect_uris):
            try:
                return Listener(uri)
            except OSError as error:
                trouble = NotOffered(f"nothing can listen on {uri}: {error.strerror or error}; end what does, or name "
                                     "another --redirect-uri")
                trouble.exit_code = Unreachable.exit_code
        if trouble:
            raise trouble
        return None

    def authorize(self, listener: "Optional[Listener]", argv: "List[str]") -> None:
        """Authorization code with PKCE, the redirect being heard by a listener (RFC 8252) or pasted by the person.

        1 build the address, 2 show and open it, 3 wait for the answer, 4 exchange the code, 5 tell the browser.
        """
        from secrets import randbelow
        signed_in = False
        try:
            if not self.server.offers("authorization_endpoint"):
                raise NotOffered("no authorization_endpoint is known; try --flow device, or name one with "
                                 "--authorization-endpoint")
            self.server.prepare("token_endpoint")  # before a browser opens
            attempt = Attempt("openid" in words(self.settings.get("scope")), self.settings.get("pkce", True))
            unheard = with_port(self.redirect_uris[0], 49152 + randbelow(16384))  # for a browser elsewhere: RFC 6335 §6
            redirect_uri = listener.redirect_uri if listener else unheard
            request = authorization_request(self.settings, redirect_uri, attempt)
            address, seconds = self.server.authorization_address(request, min(self.left(), HTTP_TIMEOUT))
            where = ("" if listener else " on any machine") + (f" within {seconds:.0f} s" if seconds else "")
            self.terminal.say(f"To sign in, open this address{where}:\n\n    {address}\n")
            if argv:
                self.terminal.open_browser(argv, address)
            with self.terminal.keyboard(terminal_only=listener is not None) as keyboard:
                params = self.wait(listener, keyboard, attempt, redirect_uri)
            self.terminal.trace(f"< the browser's answer: {visible(', '.join(params))}")
            code = self.server.believe(lambda: read_callback(params, self.server.issuer(), "state" in params and bool(
                self.server.metadata.get("authorization_response_iss_parameter_supported"))))
            answer = read_answer(self.server.post("token_endpoint", {
                "grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri,
                "code_verifier": attempt.code_verifier, "resource": self.settings.get("resource")}))
            self.keep("browser" if listener else "paste", self.server.accept(answer, attempt.nonce))
            signed_in = True
        finally:
            if listener:
                listener.answer(signed_in)
                listener.close()

    def wait(self, listener: "Optional[Listener]", keyboard: "Any", attempt: Attempt, redirect_uri: str) -> "Json":
        """The authorization response, out of the browser or pasted; Unreachable when time runs out."""
        typed = [] if keyboard is None else [keyboard]
        if typed:
            self.terminal.say("Then paste here the address that the browser ends at, or the code that it shows:"
                              if not listener else "If that browser runs elsewhere, paste here the address it ends at.")
        while self.left() > 0 and (listener or typed):
            self.terminal.countdown("the browser" if listener else "the address", self.left())
            sources = (listener.sources() if listener else []) + typed
            ready = self.select(sources, [], [], max(0, min(SLICE, self.left())))[0]
            params = listener.step(ready, attempt.owns) if listener else None
            try:
                if not params and keyboard in ready:
                    params = self.pasted(self.terminal.read_line(keyboard), attempt)
            except (EOFError, OSError):  # or a terminal that is gone
                typed = []
            if params:
                return params
        if self.left() > 0:
            raise LoginRequired("nothing was pasted, and stdin has ended; run the same command in a terminal")
        ignored = f" Ignored meanwhile: {'; '.join(listener.ignored)}." if listener and listener.ignored else ""
        port = "" if redirect_uri in self.redirect_uris else " (any port; where it counts, name one by --redirect-uri)"
        device = "; or try --flow device" if self.server.endpoint("device_authorization_endpoint") else ""
        raise Unreachable(f"nobody signed in within {self.timeout:g} s.{ignored} If the browser showed an error page, "
                          f"register redirect URI {visible(redirect_uri)}{port} for client "
                          f"{visible(self.settings['client_id'], 100)} at the provider{device}")

    def pasted(self, text: "Optional[str]", attempt: Attempt) -> "Optional[Json]":
        """The parameters in a pasted line if they are of this sign-in; else the person is told, and we wait on."""
        bare, self.bare = self.bare, ""
        if bare and text and text.lower() in ("y", "yes"):
            return {"code": bare}
        try:
            params = read_pasted(text) if text else {}
        except ValueError as error:
            self.terminal.say(f"That cannot be used ({error}). Paste the whole address, from http to its end.")
            return None
        if params.get("code") and "state" not in params:
            self.bare = params["code"]
            self.terminal.say("A code alone does not tell which sign-in it belongs to. If you yourself got it by "
                              "opening the address above, type yes:")
        elif params and not attempt.owns(params):
            self.terminal.say("That address belongs to another sign-in. Open the address above, and paste its result.")
        elif params:
            return params
        return None

    def device(self) -> None:
        """RFC 8628: 1 ask for a code, 2 show it, 3 poll until the person has decided."""
        if not self.server.offers("device_authorization_endpoint"):
            raise NotOffered("the provider offers no device flow; try --flow browser or paste")
        try:
            answer = read_answer(self.server.post("device_authorization_endpoint", extras(self.settings)))
        except ErrorResponse as no:
            if no.status in (401, 403, 404, 422) or no.error in ("unauthorized_client", "device_flow_disabled"):
                secret = "check the client secret, or " if no.error in CLIENT else ""
                raise NotOffered(f"the provider does not offer the device flow to this client ({no.words}); {secret}"
                                 "try --flow browser or paste") from None
            raise
        device = read_device_response(answer)
        self.show(device)
        self.keep("device", self.server.accept(self.poll(device)))

    def show(self, device: "Json") -> None:
        """The code is shown even when the complete address is opened: the person compares it (RFC 8628 §3.3.1)."""
        from urllib.parse import unquote
        address, complete = device["verification_uri"], device.get("verification_uri_complete") or ""
        code = visible(device["user_code"], 40)
        complete = "" if device["device_code"] in unquote(complete) else complete
        self.terminal.say(f"To sign in, open {address} on any device and enter the code:\n\n    {code}\n")
        if complete:
            self.terminal.say(f"Or open this address, which holds it already:\n\n    {complete}\n")
        if isinstance(device.get("message"), str):  # Entra
            self.terminal.note("The provider says: " + visible(device["message"].replace(device["device_code"], "…")))
        self.terminal.say(f"Only enter the code {code} if you have started this sign-in yourself.")
        if complete:
            self.terminal.draw(complete)
        if self.argv:
            self.terminal.open_browser(self.argv, complete or address)

    def poll(self, device: "Json") -> "Json":
        """The token response, at the first poll after the approval; never two polls within an interval."""
        interval, end, last = device["interval"], min(self.end, time.monotonic() + device["expires_in"]), ""
        request = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": device["device_code"],
                   "resource": self.settings.get("resource")}
        while time.monotonic() + interval < end:
            until = time.monotonic() + interval
            while time.monotonic() < until:
                self.terminal.countdown("your approval", end - time.monotonic())
                left = max(0, until - time.monotonic())
                time.sleep(min(1, left) if self.terminal.interactive() else left)
            try:
                timeout = min(HTTP_TIMEOUT, end - time.monotonic())
                return read_answer(self.server.post("token_endpoint", request, timeout))
            except ErrorResponse as no:
                interval, last = next_poll(no, interval), f" ({no})" if no.passing else ""
            except (Unreachable, InvalidResponse) as error:  # RFC 8628 §3.5: more slowly
                interval, last = min(interval * 2, 60), f" ({error})"
        if end < self.end:
            raise LoginRequired("the code ran out before it was entered; run the same command again")
        raise Unreachable(f"nobody signed in within {self.timeout:g} s{last}; run the same command again")

    def client_credentials(self) -> None:
        """RFC 6749 §4.4: the program itself signs in, no person."""
        answer = read_answer(self.server.post("token_endpoint", client_credentials_request(self.settings)))
        self.keep("client-credentials", self.server.accept(answer))


# ─── 9 Token file ── one JSON file a profile; nothing is lost in it and nobody else reads it ─────────────────────────

VERSION = 1
NEW: "Json" = {"version": VERSION, "settings": {}, "metadata": {}, "token": {}, "scope": "", "expires_at": None}
MUTEXES: "Dict[str, Any]" = {}  # where flock is per process (NFS), threads need one as well
PROFILE = re.compile(r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(?:\.|\Z))[A-Za-z0-9][A-Za-z0-9._@+-]{0,119}\Z")


def restrict(target: "Union[int, str]", mode: int) -> None:
    """Gives the mode that the umask may have taken away, where the file system has modes."""
    try:
        os.chmod(target, mode)
    except (OSError, TypeError):  # TypeError: a descriptor, on Windows
        pass


def make_folder(folder: str) -> None:
    """The folder, and those above it that are missing, for their owner alone."""
    if not os.path.isdir(folder) and folder != os.path.dirname(folder):
        make_folder(os.path.dirname(folder))
        try:
            os.mkdir(folder, 0o700)
            restrict(folder, 0o700)
        except FileExistsError:  # a sibling was quicker
            pass


def open_private(path: str, flags: int) -> int:
    """A descriptor for a file that is the owner's alone from the instant it exists, whatever the umask; no links."""
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # those that this system knows
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags, 0o600)
    if flags & os.O_CREAT:
        restrict(descriptor, 0o600)
    return descriptor


def in_turn(work: "Callable[..., Any]", path: str, *args: "Any") -> "Any":
    """What the work returns; Windows refuses it for a moment, while somebody else reads or replaces the file."""
    end = time.monotonic() + 5
    while True:
        try:
            return work(path, *args)
        except PermissionError:
            if os.name != "nt" or os.path.isdir(path) or time.monotonic() > end:
                raise
            time.sleep(0.005)


def lock_now(descriptor: int) -> bool:
    """Whether the exclusive lock was had; a file system without locks counts as yes."""
    try:
        if sys.platform == "win32":
            import msvcrt
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # lockf's goes when any descriptor is closed
    except OSError as error:
        return os.name != "nt" and not isinstance(error, BlockingIOError)
    return True


def write_all(descriptor: int, data: bytes) -> None:
    """Makes the data all that the file holds, on the disk itself where the file system can tell."""
    import errno
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.ftruncate(descriptor, len(data))
    while data:
        data = data[os.write(descriptor, data):]
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise


@contextmanager
def signals_held() -> "Iterator[None]":
    """The first Ctrl-C or SIGTERM waits until the block is done; a second one does not.

    Recorded rather than masked: pthread_sigmask does not defer Ctrl-C once another thread runs.
    """
    import signal
    caught: "List[int]" = []
    before: "Dict[int, Any]" = {}

    def record(number: int, frame: "Any") -> None:
        caught.append(number)
        signal.signal(number, before[number])

    try:
        for number in (getattr(signal, name, 0) for name in ("SIGINT", "SIGTERM", "SIGHUP")):
            if number and signal.getsignal(number) not in (None, signal.SIG_IGN):  # os.kill would end us on Windows
                before[number] = signal.signal(number, record)
    except ValueError:  # not the main thread: signals never come here
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in caught:
            before[number](number, None) if callable(before[number]) else os.kill(os.getpid(), number)


class TokenFile:
    """A profile on disk. Reading takes no lock; whoever writes holds it, and has read again under it."""

    SPARE, LIMIT = 1 << 16, 4 * BODY_LIMIT  # bytes: set aside for an answer beside what is there; of the file

    def __init__(self, path: str) -> None:
        self.path, self.folder = path, os.path.dirname(os.path.abspath(path))
        self.seen = None, None  # type: Tuple[Optional[bytes], Optional[Json]]

    def unusable(self, why: str) -> UsageError:
        return UsageError(f"the token file {visible(self.path)} cannot be used: {why}; move it away, then run: "
                          f"{COMMAND} login")

    def read_bytes(self) -> "Optional[bytes]":
        """What is in the file, None if there is none; UsageError if it is no plain file of ours."""
        from stat import S_ISREG
        try:
            descriptor = in_turn(open_private, self.path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            if os.path.islink(self.path):
                raise self.unusable("it is a symbolic link") from None
            raise UsageError(f"{visible(self.path)} cannot be read: {error.strerror}; move away what is there, or name "
                             "another place with --token-file or CLIAUTH_HOME") from None
        try:
            facts = os.fstat(descriptor)
            theirs = sys.platform != "win32" and facts.st_uid not in (os.getuid(), 0)
            if not S_ISREG(facts.st_mode) or theirs or facts.st_size > self.LIMIT:
                raise self.unusable("it belongs to somebody else" if theirs else "it is no plain file, or too large")
            return os.read(descriptor, facts.st_size + 1)
        finally:
            os.close(descriptor)

    def read(self) -> "Optional[Json]":
        """The profile, None if there is none; UsageError names a file that cannot be used."""
        data, (known, kept) = self.read_bytes(), self.seen  # in one go: other threads read too
        if data is None or data == known:  # a program asks often, and mostly nothing has changed
            return kept if data is not None else None
        try:
            record, why = parse_json(data, 41), ""  # an answer stands one level deeper in it
        except ValueError as error:
            record, why = {}, f"it is damaged ({error})"
        if why:  # out here, or the error would hold the whole text
            raise self.unusable(why)
        if isinstance(record, dict) and isinstance(record.get("version"), int) and record["version"] > VERSION:
            raise self.unusable(f"it is of version {record['version']}, and this cliauth knows version {VERSION}")
        kinds = {"param": dict, "resource": list, "redirect_uri": list, "pkce": bool}
        fits_ = isinstance(record, dict) and all(
            isinstance(record.get(name), type(value)) for name, value in NEW.items() if value is not None)
        if not fits_ or not all(isinstance(value, kinds.get(name, str)) and (
                kinds.get(name) is not list or words(value) == value) for name, value in record["settings"].items()):
            raise self.unusable("it is not one of cliauth's")
        whole: "Json" = {**NEW, **record}
        self.seen = data, whole
        return whole

    def protection(self) -> str:
        """What keeps others from the file, for a person."""
        if not os.path.exists(self.path):
            return "not there yet"
        if os.name == "nt":
            return "Windows protects it by the access list of its folder"
        return "mode {:04o}, in a folder of mode {:04o}".format(
            *(os.stat(path).st_mode & 0o777 for path in (self.path, self.folder)))

    @contextmanager
    def writing(self) -> "Iterator[None]":
        try:
            yield
        except OSError as error:
            raise UsageError(f"{visible(self.path)} cannot be written: {error.strerror or error}; make room there, or "
                             "name another place with --token-file or CLIAUTH_HOME") from None

    @contextmanager
    def locked(self, timeout: float = LOCK_TIMEOUT) -> "Iterator[None]":
        """Alone among threads and processes; Unreachable when whoever holds the lock keeps it."""
        from threading import Lock
        end, mutex = time.monotonic() + timeout, MUTEXES.setdefault(self.path, Lock())
        busy = Unreachable(f"another process has held {visible(self.path)}.lock for more than {timeout:.0f} s; "
                           "end it, then try again")
        if not mutex.acquire(timeout=timeout):
            raise busy
        try:
            with self.writing():
                make_folder(self.folder)
                lock = os.fdopen(open_private(self.path + ".lock", os.O_RDWR | os.O_CREAT), "rb", 0)
            with lock:  # which its closing ends; the file stays, or two would hold two of them
                while not lock_now(lock.fileno()):
                    if time.monotonic() > end:
                        raise busy
                    time.sleep(0.03)
                self.recover()
                yield
        finally:
            mutex.release()

    def recover(self) -> None:
        """Puts in its place what was written whole, but kept from there by a death or a fault: it may hold the only
        good refresh token. What is not whole is replaced when somebody writes."""
        left = TokenFile(self.path + ".new")
        try:
            whole = left.read()
        except UsageError:
            return
        if whole and os.path.lexists(self.path):  # else nobody was signed in, or has signed out since
            with self.writing():
                self.replace(left.path)

    @contextmanager
    def staged(self, spare: int = SPARE) -> "Iterator[Callable[[bytes], None]]":
        """Gives save(), once it is sure that it can succeed: the room is taken on disk before a refresh token is spent.

        spare: bytes that the new file may have beside the old one's; 0 takes no room, where a failure loses nothing.
        One fixed name, since the lock is held: what a crash left behind is finished or replaced, never followed.
        """
        temporary = self.path + ".new"
        with self.writing():
            size = len(self.read_bytes() or b"")
            if os.path.lexists(temporary):
                in_turn(os.unlink, temporary)
            file = os.fdopen(in_turn(open_private, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb", 0)

        def save(data: bytes) -> None:
            if len(data) > self.LIMIT:
                raise InvalidResponse("the server sent more than can be kept; ask the provider")
            with self.writing():
                write_all(file.fileno(), data)
                file.close()
                self.replace(temporary)

        try:
            with self.writing():
                if spare:
                    write_all(file.fileno(), os.urandom(size + spare))  # no file system can compress that
            yield save
        finally:
            file.close()
            self.recover()
            if os.path.lexists(temporary):
                in_turn(os.unlink, temporary)

    def replace(self, temporary: str) -> None:
        """The file gives way to the new one at once or not at all."""
        import errno
        try:
            in_turn(os.replace, temporary, self.path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            with open(temporary, "rb") as new, open(self.path, "r+b") as old:  # a bind mount: it can only be filled
                write_all(old.fileno(), new.read())
        if os.name != "nt":
            try:
                folder = os.open(self.folder, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
            except OSError:  # a folder that can be written, but not read
                pass

    def store(self, record: "Json") -> None:
        with self.staged(0) as save:
            save(dump_json(record))


def plain_path(path: str, what: str) -> str:
    """A path as it is; one that begins with "~" would make a folder of that name."""
    if path.startswith("~"):
        raise UsageError(f"{what} begins with ~, which is for a shell to replace; write the whole path")
    return path


def absolute(folder: str) -> bool:
    """Whether a variable names a folder: not a relative one, and not "/", which containers make of no home."""
    return os.path.isabs(folder) and bool(folder.strip("/"))


def home() -> str:
    """The folder of the token files; UsageError where there is none to be had. Never relative, never "~", never "/"."""
    if os.environ.get("CLIAUTH_HOME"):
        return os.path.abspath(plain_path(os.environ["CLIAUTH_HOME"], "CLIAUTH_HOME"))
    for name in ("APPDATA", "XDG_CONFIG_HOME") if os.name == "nt" else ("XDG_CONFIG_HOME",):
        if absolute(os.environ.get(name, "")):
            return os.path.join(os.environ[name], APP)
    person = os.path.expanduser("~") if os.name == "nt" else os.environ.get("HOME", "")
    if not absolute(person) and sys.platform != "win32":
        try:
            import pwd
            person = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):  # a random uid, as on OpenShift
            pass
    if not absolute(person):
        raise UsageError("there is no home folder to keep tokens in; set CLIAUTH_HOME or XDG_CONFIG_HOME to one")
    return os.path.join(person, ".config", APP)


def profile_path(name: str) -> str:
    if not PROFILE.match(name):
        raise UsageError(f"no profile can be called {visible(name, 80)}; use letters, digits and . _ @ + -")
    return os.path.join(home(), name + ".json")


def profile_names() -> "List[str]":
    names = os.listdir(home()) if os.path.isdir(home()) else []
    return sorted(name[:-5] for name in names if name.endswith(".json") and PROFILE.match(name[:-5]))


def current_profile() -> str:
    """The profile that `login` or `switch` made the current one, "" if none is."""
    name = (TokenFile(os.path.join(home(), "current")).read_bytes() or b"").decode("ascii", "replace").strip()
    return name if PROFILE.match(name) else ""


def make_current(name: str) -> None:
    file = TokenFile(os.path.join(home(), "current"))
    with file.locked(), file.staged() as save:
        save(name.encode() + b"\n")


# ─── 10 Client ── what programs use; only here flows and token file meet ─────────────────────────────────────────────

CREDENTIALS = ("client_secret", "client_auth", "client_assertion_file", "client_cert", "client_key")
OPTIONS = SERVER + CREDENTIALS + (
    "client_id", "scope", "audience", "param", "resource", "redirect_uri", "pkce", "ca_file")
FILES = ("client_assertion_file", "client_cert", "client_key", "ca_file")


def overlay(lower: "Json", upper: "Json") -> "Json":
    """Settings over settings, one --param by another. Another server leaves nothing that was meant for the first one,
    another client none of its secrets."""
    gone: "Tuple[str, ...]" = ()
    if any(lower.get(name) for name in PLACES) and any(
            upper.get(name) and not fits(upper[name], lower.get(name, "")) for name in PLACES):
        gone = SERVER + CREDENTIALS + ("audience", "param", "resource")
    elif lower.get("client_id") and upper.get("client_id", lower["client_id"]) != lower["client_id"]:
        gone = CREDENTIALS
    kept = {name: value for name, value in lower.items() if name not in gone}
    param = {**kept.get("param", {}), **upper.get("param", {})}
    return {**kept, **upper, **({"param": param} if param else {})}


def with_provider(settings: "Json") -> "Json":
    """The settings with the row of their provider under them; an --issuer takes the place of the row's site."""
    name = settings.get("provider")
    if not name:
        return settings
    if name not in PROVIDERS:
        raise UsageError(f"no provider is called {visible(name, 40)}; there are {', '.join(PROVIDERS)}; for any other "
                         "give --issuer")
    row = dict(PROVIDERS[name])
    site = row.pop("site", "") or row["issuer"]
    if settings.get("issuer") and not fits(settings["issuer"], site):  # what lies elsewhere belongs to the row's site
        site, row = settings["issuer"], {key: value for key, value in row.items() if str(value)[:8] != "https://"}
    row.update((key, site.rstrip("/") + value) for key, value in row.items() if str(value).startswith("/"))
    if settings.get("client_secret"):
        row.pop("without_secret", None)
    else:
        row.pop("client_auth", None)
    return {**row, **settings, "param": {**row.get("param", {}), **settings.get("param", {})}}


def presets() -> "Json":
    named = {"issuer": ISSUER, "provider": PROVIDER, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
             "scope": SCOPE, "audience": AUDIENCE, **SETTINGS}
    return {name: value for name, value in named.items() if value not in ("", None)}


def given_token() -> str:
    """CLIAUTH_ACCESS_TOKEN, which is used as it is, "" where it is not set."""
    given = os.environ.get("CLIAUTH_ACCESS_TOKEN", "")
    if given and not printable(given):
        raise UsageError("CLIAUTH_ACCESS_TOKEN holds no token; unset it")
    return given


def belongs(stored: "Json", named: "Json") -> bool:
    """Whether a profile with these settings is of the server and the client that are named, if any are."""
    named = with_provider(named)
    names = ("issuer", "token_endpoint", "client_id")
    return all(fits(stored.get(name), named[name]) for name in names if named.get(name))


def profile_name(settings: "Json") -> str:
    """The name of a profile that nobody named: host_client, with a hash where that could mean two."""
    place = str(settings.get("issuer") or settings.get("token_endpoint")).rstrip("/")
    host, client_id = re.sub("^https://", "", place), str(settings.get("client_id", ""))
    name = "_".join(re.sub("[^a-z0-9._@-]+", "-", part.lower()).strip("-.") for part in (
        re.sub("[/:].*", "", re.sub("^https?://", "", place)), client_id))
    if name != f"{host}_{client_id}" or "_" in host or len(name) > 100:
        from hashlib import sha256
        name = f"{name[:90]}-{sha256(f'{place} {client_id}'.encode('utf-8', 'replace')).hexdigest()[:8]}"
    return name if PROFILE.match(name) else "at-" + name


def alive(record: "Json", seconds: float = 0, name: str = "access_token") -> bool:
    """Whether the profile holds that token, fit for a header, with so many seconds left as far as is known."""
    end = number(record["expires_at"] if name == "access_token" else claims_of(record["token"], name).get("exp"))
    return printable(record["token"].get(name)) and (end is None or end > time.time() + seconds)


def holding(record: "Json", token: "Json") -> "Json":
    return {**record, "token": token, "scope": granted(token, record["settings"].get("scope", "")),
            "expires_at": expires_at(token, time.time())}


def harmless(value: "Any") -> "Any":
    """The value without members whose name speaks of a secret."""
    if isinstance(value, dict):
        return {name: harmless(inner) for name, inner in value.items()
                if not re.search("token|secret|passw|key|assertion|(?<!postal_)(?<!zip_)(?<!country_)code|jwt|bearer|"
                                 "credential|cookie|session|signature|otp|ticket|hook", name, re.I)}
    return [harmless(inner) for inner in value] if isinstance(value, list) else value


def described(profile: str, record: "Json") -> "Json":
    """What `status --json` prints but for claims and extra, of which a list makes no use."""
    token, settings, end = record["token"], record["settings"], number(record["expires_at"])
    claims = claims_of(token)
    issuer = record["metadata"].get("issuer") or settings.get("issuer")
    lasts = number(token.get("refresh_token_expires_in") or token.get("refresh_expires_in"))  # 0 is never
    over = lasts and end and time.time() > end - (number(token.get("expires_in")) or 0) + lasts
    refreshable = bool(token.get("refresh_token") and not over
                       or token and settings.get("flow") == "client-credentials")
    return {"profile": profile, "signed_in": alive(record) or refreshable,
            "account": first_text((claims, token.get("user")), "email", "name", "sub", "id") or None,
            "issuer": issuer and str(issuer).replace("{tenantid}", str(claims.get("tid"))),
            "client_id": settings.get("client_id"), "flow": settings.get("flow"), "scope": record["scope"],
            "expires_at": end, "refreshable": refreshable}


def place_of(settings: "Json") -> str:
    return visible(settings.get("issuer") or settings.get("provider") or settings.get("token_endpoint") or "any", 200)


def when(unix: "Optional[float]") -> str:
    """A local time for a person."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix)) if unix is not None else "the provider ends it"


class Client:
    """One person's (or program's) access to one provider: signs in, keeps the tokens, renews them in time.

    client = Client("https://id.example.com", "my-cli", scope="openid offline_access")

    Further settings are those of the token file: client_secret, audience, param={…}, resource=[…], redirect_uri=[…],
    token_endpoint … An environment variable (CLIAUTH_…) gives what is not named here, a preset what neither gives.
    """

    mounted = ""  # by add_commands: the words before its `login`, which takes no settings

    def __init__(self, issuer: str = "", client_id: str = "", scope: str = "", *, profile: str = "",
                 token_file: "Path" = "", terminal: "Optional[Terminal]" = None, **settings: "Any") -> None:
        for name in settings:
            if name not in OPTIONS:
                raise TypeError(f"cliauth.Client takes no {name}")
            if name in ("resource", "redirect_uri") and isinstance(settings[name], str):
                settings[name] = [settings[name]]
        settings.update(issuer=issuer, client_id=client_id, scope=" ".join(words(scope)))
        self.options = {name: value for name, value in settings.items() if value not in ("", None, [], {})}
        self.terminal = terminal or Terminal()
        self.profile = visible(profile or os.environ.get("CLIAUTH_PROFILE", ""))
        self.path = os.fspath(token_file or "") or ("" if profile else os.environ.get("CLIAUTH_TOKEN_FILE", ""))
        self.file: "Optional[TokenFile]" = None

    def named(self) -> "Json":
        environment = {name: os.environ.get("CLIAUTH_" + name.upper()) for name in VARIABLES}
        return overlay({name: value for name, value in environment.items() if value}, self.options)

    def settle(self, stored: "Json") -> "Json":
        """The settings in force: options over environment over profile over presets over the provider's row."""
        named = self.named()
        if stored.get("client_id") and not (stored.get("client_secret") or named.get("client_id") or
                                            self.options.get("client_secret")):
            named.pop("client_secret", None)  # the environment's: it is meant for another client than this public one
        return with_provider(overlay(overlay(presets(), stored), named))

    def hint(self) -> str:
        """The login to type: it names what the profile, the environment and the presets do not know."""
        stored = (self.file and self.file.seen[1] or NEW)["settings"]
        stored = stored if belongs(stored, self.named()) else {}  # as login() has it
        known = overlay(overlay(presets(), stored), self.named())
        found = not self.profile or not stored and self.profile == profile_name(with_provider(known))
        more = {"token_file": self.path} if self.path else {} if found else {"profile": self.profile}
        more.update((name, value) for name, value in self.options.items()
                    if value != stored.get(name) and name not in ("client_secret", "param", "pkce"))
        if not any(known.get(name) for name in PLACES):
            more["issuer"] = "URL"
        if not known.get("client_id"):
            more["client_id"] = "ID"
        options = (f" --{name.replace('_', '-')} {typed(shown_url(each) if name in SERVER else each)}"
                   for name, value in more.items() for each in (value if isinstance(value, list) else [value]))
        return f"run: {self.mounted} login" if self.mounted else f"run: {COMMAND} login{''.join(options)}"

    def nobody(self) -> LoginRequired:
        if not self.profile and profile_names() and not self.mounted:
            return LoginRequired(f"no profile is the current one; run: {COMMAND} switch {profile_names()[0]}")
        profile = f" as {self.profile}" if self.profile and not self.mounted else ""
        return LoginRequired(f"nobody is signed in{profile}; {self.hint()}")

    def locate(self) -> TokenFile:
        """The token file: by path, by profile, the current profile if it fits, else the one of server and client."""
        if self.file:
            return self.file
        if self.path:
            self.profile = self.profile or visible(re.sub(r"\.json\Z", "", os.path.basename(self.path)))
        elif not self.profile:
            named, current = overlay(presets(), self.named()), current_profile()
            somewhere, file = any(named.get(name) for name in PLACES), current and TokenFile(profile_path(current))
            try:
                record = file.read() if file else None
            except UsageError:
                if not somewhere:
                    raise
                record = None
            if file and record and belongs(record["settings"], named):
                self.profile, self.file = current, file
                return file
            if not somewhere:
                raise self.nobody()
            self.profile = profile_name(with_provider(named))
        self.file = TokenFile(plain_path(self.path, "the token file's path") or profile_path(self.profile))
        return self.file

    def read(self) -> "Json":
        """The profile; LoginRequired if it is of another server than named."""
        record, named = self.locate().read() or NEW, self.named()
        if record["settings"] and not belongs(record["settings"], named):
            stored, wanted = (f"{place_of(s)} (client {visible(s.get('client_id', 'any'))})" for s in (
                record["settings"], with_provider(named)))
            raise LoginRequired(f"profile {self.profile} is signed in at {stored}, not at {wanted}; {self.hint()}")
        return record

    def usable(self, min_ttl: float = 60, login: bool = False, name: str = "access_token") -> "Json":
        """The profile with a token of that name that has min_ttl seconds left.

        While it cannot be renewed, what still lives is used; where a person is needed, `login` says whether to ask.
        """
        record = NEW
        try:
            record = self.read()
            if not alive(record, min_ttl, name):
                record = self.renew(record)
                if name == "id_token" and record["token"].get(name) and not alive(record, 0, name):
                    raise LoginRequired(f"the ID token has expired, and a refresh brings no other; {self.hint()}")
                if name == "access_token" and not alive(record):
                    self.terminal.note(f"{APP}: the new token has expired already; check this machine's clock")
        except (AuthError, OSError) as error:
            if record is not NEW:  # an answer that cannot be trusted may have cost all that was there
                record = self.locate().read() or NEW
            if alive(record, 0, name):
                self.terminal.note(f"{APP}: not renewed: {error}")
            elif login and isinstance(error, LoginRequired):
                self.login()
                record = self.read()
            else:
                raise
        if not printable(record["token"].get(name)):
            raise UsageError(f"the provider gave no {name}; {self.hint()} with openid in the scope")
        return record

    def access_token(self, min_ttl: float = 60, login: bool = False) -> str:
        """An access token that is valid now, and for min_ttl seconds if the provider gives any such.

        Stored, refreshed (RFC 6749 §6), or with login=True freshly signed in. Raises LoginRequired where a person is
        needed and login is False; ErrorResponse, InvalidResponse or Unreachable where the refresh went wrong.
        """
        return given_token() or str(self.usable(min_ttl, login)["token"]["access_token"])

    def __call__(self, request: "Any") -> "Any":
        """Adds the Authorization header (RFC 6750 §2.1) to a request of urllib, requests or httpx, if it is https."""
        url = str(getattr(request, "full_url", None) or request.url)
        split_url(url.split("#")[0], "an address that gets the token")
        add = getattr(request, "add_unredirected_header", request.headers.__setitem__)
        add("Authorization", "Bearer " + self.access_token())
        if hasattr(request, "register_hook"):  # requests'; by itself httpx has nothing like it
            request.register_hook("response", self.repeated)
        return request

    def another(self, refused: str) -> str:
        """Another token than the one in that Authorization header, "" where none can be had."""
        try:
            if given_token() or not refused.startswith("Bearer "):  # a redirect to another host has dropped it
                return ""
            record = self.read()
            if refused == f"Bearer {record['token'].get('access_token')}":
                record = self.renew(record)
            return str(record["token"]["access_token"]) if alive(record) else ""
        except (AuthError, OSError) as error:
            self.terminal.note(f"{APP}: not renewed: {error}")
            return ""

    def repeated(self, response: "Any", **options: "Any") -> "Any":
        """The hook of requests that asks once more after a 401 (RFC 6750 §3.1), unless the body was a stream."""
        request = response.request.copy()
        connection: "Any" = getattr(response, "connection", None)  # which only requests' own adapter leaves there
        able = response.status_code == 401 and connection and isinstance(request.body or "", (str, bytes))
        token = self.another(request.headers.get("Authorization", "")) if able else ""
        if not token:
            return response
        _ = response.content  # read by this, so that it stays in the history
        response.close()
        request.headers["Authorization"] = "Bearer " + token
        again = connection.send(request, **options)
        again.history, again.request = [response], request
        return again

    requires_request_body = True  # httpx reads it before, or it could not be sent once more

    def auth_flow(self, request: "Any") -> "Generator[Any, Any, None]":
        """The same for httpx, which wants a class of its own: class Auth(cliauth.Client, httpx.Auth): pass."""
        response = yield self(request)
        request = response.request  # where a redirect led to: what came before it was taken, and is not sent twice
        token = self.another(request.headers.get("Authorization", "")) if response.status_code == 401 else ""
        if token:
            request.headers["Authorization"] = "Bearer " + token
            yield request

    def refresh(self) -> None:
        """Gets new tokens now; those that a sibling got in the meantime count. Raises as access_token() does."""
        self.renew(self.read())

    def server(self, record: "Json") -> Server:
        return Server(self.settle(record["settings"]), record["metadata"], self.terminal.trace)

    def renew(self, seen: "Json") -> "Json":
        """1 take the lock, 2 read again: a sibling may have been quicker, 3 take the room for the answer, 4 ask once,
        5 save the next refresh token before anything else, 6 check the rest, and save it."""
        file = self.locate()
        if not seen["token"]:
            raise self.nobody()
        left = (number(seen["expires_at"]) or 0) - time.time() - 1  # while the token lives, it can serve instead
        with file.locked(min(left, LOCK_TIMEOUT) if left > 0 else LOCK_TIMEOUT):
            record = file.read() or NEW
            token, server = record["token"], self.server(record)
            if alive(record) and token != seen["token"]:
                return record
            if not token or not token.get("refresh_token") and server.settings.get("flow") != "client-credentials":
                why = f"the token {'' if alive(record) else 'has expired and '}cannot be refreshed"
                raise LoginRequired(f"{why if token else 'signed out in the meantime'}; {self.hint()}")
            server.prepare("token_endpoint")  # now: while signals are held back, one exchange is to do
            request = renewal_request(server.settings, token)
            with file.staged() as save, signals_held():
                try:
                    answer = read_answer(server.post("token_endpoint", request))
                except ErrorResponse as no:
                    return self.refused(no, record, request, save)
                successor = answer.get("refresh_token")
                if printable(successor):  # the rest is for nobody's eyes before it is checked
                    try:
                        save(dump_json({**record, "token": {**token, "refresh_token": successor}}))
                    except UsageError:
                        pass  # what could not be written is tried once more below, with the rest
            self.examine(server, answer, record)
            after = holding({**record, "metadata": server.metadata}, renewed(token, answer))
            try:
                file.store(after)
            except UsageError as error:  # it lives all the same, and the next refresh token is safe, if it fitted above
                self.terminal.say(f"{APP}: not saved: {error}")
            return after

    def examine(self, server: Server, answer: "Json", before: "Json") -> None:
        """Checks the rest of a refresh response; raises InvalidResponse when nothing of it may be used."""
        old, new = ([re.sub("^https://", "", str(claims.get("iss", ""))), claims.get("sub")]  # Google has both kinds
                    for claims in (claims_of(before["token"]), claims_of(answer)))
        if any(old) and any(new) and old != new:  # OpenID Connect Core 12.2: nothing of this is ours
            self.locate().store({**before, "token": {}, "expires_at": None})
            raise InvalidResponse(f"the refreshed ID token is of somebody else; {self.hint()}")
        server.settings.pop("param", None)  # max_age was about the sign-in, whose auth_time this repeats (Core 12.2)
        try:
            server.accept(answer)
        except InvalidResponse:
            if printable(answer.get("refresh_token")):  # which stays, with the ID token, which tells whose it is
                kept = {**before["token"], "refresh_token": answer["refresh_token"], "access_token": None}
                self.locate().store({**before, "token": kept, "expires_at": None})
            raise

    def refused(self, no: ErrorResponse, record: "Json", request: "Json", save: "Callable[[bytes], None]") -> "Json":
        """What a refusal of a refresh means: bad times, wrong settings, another's refresh, or a dead token."""
        if no.passing or no.error in CLIENT or "refresh_token" not in request:
            raise no
        if no.error in DEAD:
            again = self.locate().read() or NEW
            if again["token"].get("refresh_token") != request["refresh_token"]:  # where locks do not work
                return again
            token = {name: value for name, value in record["token"].items() if name != "refresh_token"}
            save(dump_json({**record, "token": token}))
        raise LoginRequired(f"the sign-in cannot be refreshed ({no.words}); {self.hint()}")

    def login(self, flow: str = "auto", timeout: float = LOGIN_TIMEOUT, open_browser: bool = True) -> None:
        """Signs a person in (or with flow="client-credentials" this program) and keeps tokens and settings.

        flow: auto, browser, device, paste, client-credentials. timeout: seconds for all of it. Raises LoginRequired
        where auto finds nobody to ask or a device code ran out, else as access_token(). RFC 8252, RFC 8628.
        """
        try:
            file = self.locate()
        except LoginRequired:
            checked(self.settle({}))
            raise
        stored = file.read() or NEW
        if not belongs(stored["settings"], self.named()):
            stored = NEW  # somewhere else: nothing of before is kept
        settings = checked(self.settle(stored["settings"]))
        with file.locked(), file.staged():
            pass  # what cannot be saved is found before a browser opens
        server = Server(settings, stored["metadata"], self.terminal.trace)

        def keep(used: str, token: "Json") -> None:
            record = {**NEW, "settings": {**settings, "flow": used}, "metadata": server.metadata}
            with file.locked():
                file.store(holding(record, token))
            if not self.path:
                make_current(self.profile)

        try:
            SignIn(server, self.terminal, timeout, open_browser, keep).run(flow)
        except AuthError as error:  # where an authorization endpoint has moved to, only the person sees
            metadata = {} if server.kept and isinstance(error, Unreachable) else server.metadata
            if stored["metadata"] not in ({}, metadata):
                self.relearn(metadata)
            raise
        finally:
            self.terminal.wipe()
        self.report(settings)

    def relearn(self, metadata: "Json") -> None:
        """Replaces the profile's copy of the metadata; with {} they are discovered when they are next needed."""
        with self.locate().locked():
            record = self.locate().read()
            if record:
                self.locate().store({**record, "metadata": metadata})

    def report(self, settings: "Json") -> None:
        """Who is signed in, and what of the wishes was not granted."""
        facts, asked = self.status(), words(settings.get("scope"))
        account = f" as {visible(facts['account'], 100)}" if facts["account"] else ""
        parts = [f"Signed in{account} at {place_of(settings)}"]
        parts += [f"{label} {visible(facts['extra'][name], 80)}" for name, label in (
            ("organization_id", "organization"), ("authentication_method", "method")) if facts["extra"].get(name)]
        self.terminal.note(f"{', '.join(parts)}, until {when(facts['expires_at'])} (profile {self.profile}).")
        missing = [scope for scope in asked if scope not in OFFLINE and not covered(scope, words(facts["scope"]))]
        if missing:
            self.terminal.note(f"Not granted: {visible(' '.join(missing))}. The provider decides; what usually helps: "
                               "--param prompt=consent.")
        if set(OFFLINE) & set(asked) and not facts["refreshable"]:
            self.terminal.note("No refresh token came, so you will be asked to sign in again. What usually helps: "
                               "--param prompt=consent, --param access_type=offline, or to allow it for the client.")

    def status(self) -> "Json":
        """Who is signed in, where, how and until when (Unix seconds); no network. The members of `status --json`."""
        try:
            record = self.read()
        except LoginRequired:
            if self.file:  # signed in elsewhere than named
                raise
            record = NEW
        extra = {name: value for name, value in record["token"].items() if name not in EXPIRY + ("scope", "scopes")}
        return {**described(self.profile, record), "claims": harmless(claims_of(record["token"])),
                "extra": harmless(extra)}

    def userinfo(self) -> "Json":
        """The claims of the userinfo endpoint (OpenID Connect Core 5.3). Raises as access_token() does."""
        record = self.usable()
        server = self.server(record)
        try:
            claims = server.userinfo(record["token"])
        except ErrorResponse as no:
            if no.status != 401:
                raise
            if not self.status()["refreshable"]:
                raise LoginRequired(f"the token is not taken any more ({no.words}); {self.hint()}") from None
            claims = server.userinfo(self.renew(record)["token"])
        if server.metadata != record["metadata"]:
            self.relearn(server.metadata)
        return claims

    def revoked(self, record: "Json") -> "Json":
        """The profile without its tokens, once they were revoked as well as can be."""
        if record["token"]:
            server = self.server(record)
            trouble, record = server.revoke(record["token"]), {**record, "metadata": server.metadata}
            self.terminal.note(f"Signed out of {place_of(server.settings)}{'; ' if trouble else ''}{trouble}.")
        return {**record, "token": {}, "scope": "", "expires_at": None}

    def logout(self, forget: bool = False) -> None:
        """Revokes the tokens (RFC 7009, as well as can be) and deletes them; with forget=True the settings too."""
        file: "Optional[TokenFile]" = None
        try:
            file = self.locate()
        except LoginRequired:
            if any((TokenFile(profile_path(name)).read() or NEW)["token"] for name in profile_names()):
                raise  # somebody is signed in, but who?
        if file is None or file.read() is None:
            return self.terminal.note("Nobody was signed in.")
        with file.locked():
            if not forget:
                with file.staged() as save:  # that it can be saved is known before anything is revoked
                    return save(dump_json(self.revoked(file.read() or NEW)))
            self.revoked(file.read() or NEW)
            with file.writing():
                in_turn(os.unlink, file.path)
            try:
                os.unlink(file.path + ".new")
            except OSError:
                pass  # a crash may have left one
        return None


# ─── 11 Demo ── an authorization server to throw away: for `demo`, and for tests, those of other programs too ────────

def json_reply(value: "Json", status: int = 200) -> "Reply":
    return status, {"Content-Type": "application/json"}, dump_json(value)


def refusal(error: str, description: str = "", status: int = 400) -> "Reply":
    return json_reply({"error": error, "error_description": description}, status)


def redirect(request: "Json", answer: "Json") -> "Reply":
    return 302, {"Location": with_query(request["redirect_uri"], {**answer, "state": request.get("state")})}, b""


def threaded(handler: "Any") -> "Any":
    """A server on a free loopback port with a thread for each connection, as long as there are any."""
    from socketserver import ThreadingTCPServer  # HTTPServer looks up this machine's name, which can take a minute

    class Web(ThreadingTCPServer):
        daemon_threads, request_queue_size = True, 128

        def process_request(self, request: "Any", client_address: "Any") -> None:
            try:
                super().process_request(request, client_address)
            except RuntimeError:  # no thread can be started
                self.process_request_thread(request, client_address)

        def handle_error(self, request: "Any", client_address: "Any") -> None:
            if not isinstance(sys.exc_info()[1], OSError):  # somebody hung up
                super().handle_error(request, client_address)

    return Web(("127.0.0.1", 0), handler)


def web_server(answer: "Callable[[str, str, Json, Any], Reply]", tell: "Tell") -> "Any":
    """An HTTP server on a free loopback port; each request gets answer(method, path, parameters, headers)."""
    from http.server import BaseHTTPRequestHandler

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            try:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode("utf-8", "replace")
                params = parse_form(query or body)
                status, headers, data = answer(self.command, path, params, self.headers)
                tell(self.command, path, params, status)
            except ValueError as error:
                status, headers, data = refusal("invalid_request", str(error))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), "Cache-Control": "no-store", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, format: str, *args: "Any") -> None:
            pass

    return threaded(Handler)


class Played(Terminal):
    """A terminal whose browser is a function, which gets the address; what it raises ends the wait for it."""

    def __init__(self, play: "Callable[[str], Any]", quiet: bool = True, verbose: bool = False) -> None:
        super().__init__(quiet, verbose)
        self.play = play
        self.playing: "Optional[Background]" = None

    def surroundings(self, open_browser: bool = True) -> "Tuple[List[str], List[str], str]":
        return ["person"], ["browser", "device", "paste"], "the person is played"

    def open_browser(self, argv: "List[str]", url: str) -> None:
        self.playing = Background(lambda: self.play(url))

    def countdown(self, what: str, left: float) -> None:
        if self.playing and self.playing.outcome:
            self.playing.result(0)
        super().countdown(what, left)


class DemoServer:
    """An OpenID provider on a loopback port that knows one client and one person, and forgives nothing.

    with DemoServer() as server:
        client = server.client(token_file=path)
        client.login()  # or login("device"): the terminal's browser is server.person

    lifetime: seconds that an access token lives. tell(method, path, parameters, status) is called for each request.
    Codes, verifiers, redirect URIs and refresh tokens are checked, and used once (RFC 9700 §2.1, §4.14).
    """

    client_id, decision = "demo", "allow"  # or "deny": which button the person presses
    user: "Json" = {"sub": "ada", "name": "Ada Lovelace", "email": "ada@example.com"}

    def __init__(self, lifetime: float = 3600, tell: "Tell" = lambda *_: None) -> None:
        self.lifetime, self.tell = lifetime, tell
        self.pending: "Dict[str, Json]" = {}    # authorization requests and user codes that wait for the person
        self.decided: "Dict[str, Json]" = {}    # codes and device codes, and what they were asked for with
        self.families: "Dict[str, Json]" = {}   # refresh tokens; one used twice ends all of its family
        self.access: "Dict[str, float]" = {}    # access tokens, and when they end

    def __enter__(self) -> "DemoServer":
        from threading import Thread
        self.web = web_server(self.answer, self.tell)
        self.issuer = f"http://127.0.0.1:{self.web.server_address[1]}"
        try:
            Thread(target=self.web.serve_forever, args=(0.005,), daemon=True).start()
        except RuntimeError:
            self.web.server_close()
            raise Unreachable("the demo needs a thread, and can have none; raise the limit of processes") from None
        return self

    def __exit__(self, *_: "Any") -> None:
        self.web.shutdown()
        self.web.server_close()

    def answer(self, method: str, path: str, params: "Json", headers: "Any") -> "Reply":
        """Status, headers and body; the server of a test overrides it, and calls this for the truth."""
        if path == "/userinfo":
            params = {"token": headers.get("Authorization", "")[len("Bearer "):]}
        room = getattr(self, f"{method}_{path[1:].replace('.well-known/', '').replace('-', '_')}".lower(), None)
        return room(params) if room else refusal("not_found", status=404)

    def get_openid_configuration(self, params: "Json") -> "Reply":
        names = ("authorization", "token", "userinfo", "revocation", "device_authorization")
        return json_reply({"issuer": self.issuer, "authorization_response_iss_parameter_supported": True,
                           "scopes_supported": ["openid", "email", "offline_access"],
                           **{f"{name}_endpoint": f"{self.issuer}/{name}" for name in names}})

    def get_authorization(self, params: "Json") -> "Reply":
        uri = loopback(params.get("redirect_uri", ""))
        if params.get("client_id") != self.client_id or not uri or uri.group(3) != "/callback":
            return self.show("It does not know this client or its redirect URI.", 400)  # RFC 6749 §4.1.2.1
        if params.get("response_type") != "code" or params.get("code_challenge_method") != "S256":
            return redirect(params, {"error": "invalid_request", "iss": self.issuer})
        return self.page(params)

    def get_device(self, params: "Json") -> "Reply":
        code = re.sub("[^A-Z]", "", params.get("user_code", "").upper())  # RFC 8628 §6.1
        request = self.pending.pop(code, None)
        if request:
            return self.page(request, code)
        asked = "There is no such code, or it was used." if code else "Which code does the terminal show?"
        return self.show(asked + "<form><input name=user_code aria-label=Code autocomplete=off autofocus>"
                         "<p><button>Go on</button></form>", 400 if code else 200)

    def show(self, text: str, status: int = 200) -> "Reply":
        page = PAGE.format(title="Demo", mark="◆", colour="#3c72b8", text=text)
        return status, {"Content-Type": "text/html"}, page.encode()

    def page(self, request: "Json", code: str = "") -> "Reply":
        """Asks the person, whose answer comes back with the number of the request."""
        number = base64url(os.urandom(9))
        self.pending[number] = request
        compare = f"<p>Does the terminal show this code? <b>{code}</b>" if code else ""
        return self.show(f"The demo would like to know who you are.{compare}<form method=post action=/decision>"
                         f"<input type=hidden name=request value={number}><p><button name=decision value=allow>"
                         f"Sign in as {self.user.get('name', self.user['sub'])}</button> "
                         "<button name=decision value=deny>Deny</button></form>")

    def post_decision(self, params: "Json") -> "Reply":
        request, allowed = self.pending.pop(params.get("request", ""), None), params.get("decision") == "allow"
        if not request:
            return self.show("This was decided before.", 400)
        request["decision"] = "allow" if allowed else "access_denied"
        if "user_code" in request:
            return 200, {"Content-Type": "text/html"}, (SIGNED_IN if allowed else FAILED).encode()
        if not allowed:
            return redirect(request, {"error": "access_denied", "iss": self.issuer})
        code = base64url(os.urandom(16))
        self.decided[code] = request
        return redirect(request, {"code": code, "iss": self.issuer})

    def post_device_authorization(self, params: "Json") -> "Reply":
        from secrets import choice
        user_code = "".join(choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(8))  # RFC 8628 §6.1
        code, place = base64url(os.urandom(16)), self.issuer + "/device"
        request = {**params, "user_code": user_code, "decision": "authorization_pending"}
        self.decided[code] = self.pending[user_code] = request
        return json_reply({"device_code": code, "user_code": user_code, "verification_uri": place, "expires_in": 600,
                           "verification_uri_complete": f"{place}?user_code={user_code}", "interval": 1})

    def post_token(self, params: "Json") -> "Reply":
        grant = params.get("grant_type", "").rpartition(":")[2]
        if params.get("client_id") != self.client_id:
            return refusal("invalid_client", status=401)
        if grant == "refresh_token":
            token = params.get("refresh_token", "")
            family = self.families.get(token, {})
            if not family or family["newest"] != token:  # used twice: nobody knows whose the newest is
                family["newest"] = ""
                return refusal("invalid_grant", "unknown, revoked, or used before")
            return self.tokens(family)
        code = params.get("code" if grant == "authorization_code" else grant, "")
        request = self.decided.get(code)
        if not request or not self.proven(grant, request, params):
            return refusal("invalid_grant", "unknown, spent, or asked for in another way")
        if request["decision"] != "allow":
            return refusal(request["decision"])
        self.decided.pop(code, None)
        return self.tokens({"scope": request.get("scope", ""), "nonce": request.get("nonce")})

    def proven(self, grant: str, request: "Json", params: "Json") -> bool:
        """RFC 6749 §4.1.3 and RFC 7636 §4.6."""
        from hashlib import sha256
        challenge = base64url(sha256(params.get("code_verifier", "").encode()).digest())
        return grant == "device_code" and "user_code" in request or grant == "authorization_code" and (
            challenge == request.get("code_challenge") and params.get("redirect_uri") == request["redirect_uri"])

    def tokens(self, family: "Json") -> "Reply":
        now, access_token = int(time.time()), base64url(os.urandom(16))
        self.access[access_token] = now + self.lifetime
        family["newest"] = base64url(os.urandom(16))
        self.families[family["newest"]] = family
        claims = {"iss": self.issuer, "aud": self.client_id, "iat": now, "exp": now + 600, **self.user}
        if family["nonce"]:
            claims["nonce"] = family["nonce"]
        parts = [base64url(json.dumps(part).encode()) for part in ({"alg": "RS256"}, claims, "the demo signs nothing")]
        return json_reply({"access_token": access_token, "token_type": "Bearer", "expires_in": self.lifetime,
                           "refresh_token": family["newest"], "scope": family["scope"], "id_token": ".".join(parts)})

    def get_userinfo(self, params: "Json") -> "Reply":
        lives = self.access.get(params["token"], 0) > time.time()
        return json_reply(self.user) if lives else refusal("invalid_token", status=401)

    def post_revocation(self, params: "Json") -> "Reply":
        self.access.pop(params.get("token", ""), None)
        self.families.get(params.get("token", ""), {})["newest"] = ""
        return json_reply({})

    def person(self, url: str, decision: str = "") -> None:
        """Plays the person at the browser: opens the address, and presses a button, "allow" or "deny"."""
        from urllib.error import HTTPError
        from urllib.request import ProxyHandler, build_opener
        browser = build_opener(ProxyHandler({}))  # follows redirects, to the callback too
        try:
            page = browser.open(url, timeout=10)
        except HTTPError as error:
            with error:
                raise InvalidResponse(f"the person sees HTTP {error.code} at {shown_url(url)}; check the issuer and "
                                      "client_id that it is asked with") from None
        with page:
            number = page.read().decode().partition("name=request value=")[2].partition(">")[0]
        form = encode_form({"request": number, "decision": decision or self.decision}).encode()
        try:
            browser.open(self.issuer + "/decision", form, timeout=10).close()
        except HTTPError as error:  # the page that says that it failed
            error.close()

    def terminal(self, quiet: bool = True, verbose: bool = False) -> Terminal:
        """A terminal whose browser is played by person(); it can take the place of the module's Terminal."""
        return Played(self.person, quiet, verbose)

    def client(self, token_file: "Path", scope: str = "openid email offline_access") -> Client:
        """A client of this server, nobody being signed in yet."""
        return Client(self.issuer, self.client_id, scope, token_file=token_file, terminal=self.terminal())


STEPS = {
    "/.well-known/openid-configuration": "discovery: where the endpoints are",
    "/.well-known/oauth-authorization-server": "the other place where that may stand, asked at the same time",
    "/authorization": "the browser asks for a code",
    "/decision": "the person decides, and the redirect brings code, state and iss to the loopback listener",
    "200 /decision": "the person decides, and the next poll hears of it",
    "/token": "the code (with its code_verifier), the device_code or the refresh_token becomes tokens",
    "400 /token": "denied, or not yet decided",
    "/device_authorization": "a device_code for the program, a user_code for the person",
    "/device": "the person's browser brings the user_code",
    "/userinfo": "who is it? with the access_token in the Authorization header",
    "/revocation": "the provider forgets a token",
}


def command_demo(client: Client, args: "argparse.Namespace") -> None:
    """A whole session against a DemoServer, told on stdout as it happens."""
    from tempfile import TemporaryDirectory
    lost: "List[AuthError]" = []
    flow, terminal = "device" if args.device else "browser", client.terminal

    def tell(method: str, path: str, params: "Json", status: int) -> None:
        names = f"\n       with {visible(' '.join(params))}" if params else ""  # any page that is open can ask, too
        about = STEPS.get(f"{status} {path}") or STEPS.get(path, "")
        terminal.wipe()
        try:
            out(f"  {method:4} {visible(path)} → {status}\n       {about}{names}\n")
        except AuthError as error:  # in a thread of the server's, where nobody would hear of it
            lost.append(error)

    with DemoServer(tell=tell) as server, TemporaryDirectory() as folder:
        out(f"An authorization server runs at {server.issuer}; it knows one person, {server.user['name']}.\n")
        if args.yes or "browser" not in terminal.surroundings()[1]:
            terminal = server.terminal(terminal.quiet, terminal.verbose)
        demo = Client(server.issuer, server.client_id, "openid email offline_access", terminal=terminal,
                      token_file=os.path.join(folder, "demo.json"))
        steps: "List[Tuple[str, Callable[[], Any]]]" = [
            (f"login --flow {flow}", lambda: demo.login(flow)),
            ("token", lambda: out(f"  {len(demo.access_token())} characters, out of the file, no request\n")),
            ("refresh", demo.refresh),
            ("userinfo", lambda: out(f"  {json.dumps(demo.userinfo())}\n")),
            ("logout", demo.logout)]
        for title, work in steps:
            out(f"\n$ {COMMAND} {title}\n")
            work()
            if lost:
                raise lost[0]
    out("\nThat was a whole sign-in. The server is gone, and so are its tokens. Now with your own provider:\n"
        f"$ {COMMAND} login --issuer URL --client-id ID\n")


# ─── 12 Command line ── a translator from words to the rooms above ───────────────────────────────────────────────────

class Terminated(BaseException):
    """SIGTERM came."""


def guarded(work: "Callable[[], Optional[int]]") -> int:
    """The exit code of a command; what goes wrong is one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        try:
            reconfigure = getattr(stream, "reconfigure", None)  # 3.7
            if os.name == "nt" and reconfigure:  # a shell's $(…) would keep the CR of a CR LF
                reconfigure(newline="\n")
        except (OSError, ValueError):
            pass  # it is closed or broken, of which out() tells
    try:
        return work() or 0
    except AuthError as error:
        code, text = error.exit_code, str(error)
    except OSError as error:
        code, text = 4, f"{visible(error.filename or 'the system says')}: {error.strerror or error}; try again"
    except KeyboardInterrupt:
        code, text = 130, "interrupted"
    except Terminated:
        code, text = 143, "terminated"
    except Exception as error:  # a fault of ours; its text might hold a secret
        wrong = bad_import(error)
        code, text = (2, wrong) if wrong else (
            1, f"an unforeseen {type(error).__name__}; please report it, with what you typed")
    Terminal().say(f"{APP}: {text}")
    return code


def out_json(value: "Any") -> None:
    out(json.dumps(value, indent=2) + "\n")


def command_login(client: Client, args: "argparse.Namespace") -> None:
    client.login("device" if args.device else args.flow, args.timeout, not args.no_browser)
    if args.json:
        out_json(client.status())


def exec_info() -> "Json":
    """What kubectl tells its plugins in KUBERNETES_EXEC_INFO, {} where there is nothing of the kind."""
    try:
        info = parse_json(os.environ.get("KUBERNETES_EXEC_INFO", "").encode())
    except ValueError:
        info = None
    return info if isinstance(info, dict) and isinstance(info.get("spec", {}), dict) else {}


def git_asks_for_us(client: Client) -> bool:
    """Whether git wants credentials for the provider's own host (gitcredentials(7)); for the rest it asks others."""
    lines = read_text("-", "git's question").split("\n")
    asked = {name: value for name, _, value in (line.partition("=") for line in lines)}
    settings = client.settle(client.read()["settings"])
    try:
        wanted = split_url(f"{asked.get('protocol')}://{asked.get('host')}", "git's address")
        return wanted == split_url(settings.get("issuer") or settings.get("authorization_endpoint") or "", "ours")
    except UsageError:
        return False  # plain http, or no address at all


def command_token(client: Client, args: "argparse.Namespace") -> None:
    if args.format == "git" and (args.operation != "get" or not git_asks_for_us(client)):
        return None
    if args.operation and args.format != "git":
        raise UsageError(f"token takes no argument but with --format git; run: {COMMAND} token --help")
    name, given = ("id_token", "") if args.id_token else ("access_token", given_token())
    login = args.login and not (  # kubectl, where nobody is to be asked
        args.format == "kubectl" and exec_info().get("spec", {}).get("interactive") is False)
    record = {**NEW, "token": {name: given}} if given else client.usable(args.min_ttl, login, name)
    token, end = record["token"][name], number(
        claims_of(record["token"]).get("exp") if args.id_token else record["expires_at"])
    if args.format == "json":
        return out_json({name: token, "token_type": "Bearer", "expires_at": end, "scope": record["scope"]})
    if args.format == "kubectl":  # in the version that it asks for
        until = {} if end is None else {"expirationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))}
        return out_json({"apiVersion": exec_info().get("apiVersion") or "client.authentication.k8s.io/v1",
                         "kind": "ExecCredential", "status": {"token": token, **until}})
    return out({"token": "%s\n", "header": "Authorization: Bearer %s\n", "git": "username=oauth2\npassword=%s\n"}[
        args.format] % token)


def command_status(client: Client, args: "Optional[argparse.Namespace]" = None) -> int:
    facts = client.status()
    if client.file:
        client.terminal.trace(f"token file {visible(client.file.path)}: {client.file.protection()}")
    if args and args.json:
        out_json(facts)
    elif not facts["signed_in"]:
        raise client.nobody()
    else:
        until = when(facts["expires_at"]) + (", then refreshed" if facts["refreshable"] else "")
        facts["issuer"] = facts["issuer"] or place_of(client.read()["settings"])
        rows = {**{name: facts[name] for name in ("profile", "account", "issuer", "client_id", "flow", "scope")},
                "until": until, **facts["extra"]}
        out("".join(f"{visible(name, 40):21} {visible(value if isinstance(value, str) else json.dumps(value))}\n"
                    for name, value in rows.items() if value not in (None, "")))
    return 0 if facts["signed_in"] else LoginRequired.exit_code


def command_userinfo(client: Client, args: "argparse.Namespace") -> None:
    client.usable(login=args.login)
    out_json(client.userinfo())


def request_body(data: "Optional[str]") -> "Optional[bytes]":
    """What -d names: the text itself, or the bytes of @FILE, or of @- for stdin."""
    if data and data.startswith("@"):
        return read_input(data[1:], "-d")
    return None if data is None else data.encode("utf-8", "surrogateescape")


def request_headers(lines: "List[str]") -> "Dict[str, str]":
    headers = {}
    for name, colon, value in (line.partition(":") for line in lines):
        if not colon or not re.match(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", name) or re.search(r"[^\t -~]", value):
            raise UsageError('-H takes "Name: value", of printable ASCII; write it like -H "Accept: text/plain"')
        if name.lower() == "authorization":
            raise UsageError("-H cannot set Authorization, which is where the token goes; leave it out")
        headers[name] = value.strip()
    return headers


def command_request(client: Client, args: "argparse.Namespace") -> int:
    """Calls an API; on a 401 once more with a fresh token (RFC 6750 §3.1). Its answer is copied as it comes."""
    body, headers = request_body(args.data), request_headers(args.header)
    method, url = args.method or ("GET" if body is None else "POST"), args.url
    fixed = bool(given_token())
    for tries in (1, 2):
        headers["Authorization"] = "Bearer " + client.access_token(login=args.login)
        record = NEW if fixed else client.read()
        raw = client.server(record).http.open(method.upper(), url, body, headers)
        if raw.status != 401 or tries == 2 or fixed or not client.status()["refreshable"]:
            break
        raw.close()
        client.renew(record)
    if args.include:
        out(f"HTTP/1.1 {raw.status} {raw.reason}\n{raw.headers}")
    with raw, exchange_with(url):
        room = bytearray(1 << 16)
        for size in iter(lambda: raw.readinto(room), 0):
            out(bytes(room[:size]))
        if raw.length:
            raise Unreachable("the answer was cut short; try again")
    if raw.status >= 300:
        location = raw.headers.get("Location")
        said = Response(url, raw.status, raw.headers, b"", {"token": headers["Authorization"][len("Bearer "):]}).said
        over = raw.status == 401 and (fixed or not client.status()["refreshable"])
        next_ = "set another CLIAUTH_ACCESS_TOKEN" if fixed else client.hint()
        client.terminal.note(f"{APP}: HTTP {raw.status} {said(raw.reason)}" + (
            f", Location: {said(location)}" if location else f"; {next_}" if over else ""))
    return 4 if raw.status >= 500 else 1 if raw.status >= 400 else 0


def command_refresh(client: Client, args: "argparse.Namespace") -> None:
    client.refresh()
    if args.json:
        out_json(client.status())


def sign_out(client: Client, forget: bool, browser: bool) -> None:
    server = client.server(client.read()) if browser else None
    client.logout(forget)
    address = server and server.endpoint("end_session_endpoint")
    if server and address:  # OpenID Connect RP-Initiated Logout 2; an id_token_hint would be seen in `ps`
        address = with_query(address, {"client_id": server.settings.get("client_id")})
        split_url(address, "the address to open")
        client.terminal.say(f"To sign out in the browser too, open this address:\n\n    {address}\n")
        argv = client.terminal.surroundings()[0]
        if argv:
            client.terminal.open_browser(argv, address)
    elif server:
        client.terminal.note("The provider names no end_session_endpoint; sign out on its own page.")


def command_logout(client: Client, args: "argparse.Namespace") -> int:
    code, everyone = 0, [client] if client.path or not args.all else []  # a file that is named is no profile
    if args.all:
        everyone += [Client(profile=name, terminal=client.terminal) for name in profile_names()]
    for each in everyone:
        try:
            sign_out(each, args.forget, args.browser)
        except AuthError as error:  # the others are signed out all the same
            client.terminal.say(f"{APP}: {error}")
            code = error.exit_code
    return code


def command_list(client: Client, args: "argparse.Namespace") -> None:
    current, rows = current_profile(), []
    for name in profile_names():
        try:
            facts = described(name, TokenFile(profile_path(name)).read() or NEW)
        except UsageError as error:
            client.terminal.note(f"{APP}: {error}")
            continue
        rows.append({"current": name == current, **{key: facts[key] for key in (
            "profile", "signed_in", "account", "issuer", "client_id")}})
    if args.json:
        return out_json(rows)
    return out("".join(f"{'*' if row['current'] else ' '} {row['profile']}  " + (
        visible(row["account"] or "signed in") if row["signed_in"] else "signed out") + "\n" for row in rows))


def command_switch(client: Client, args: "argparse.Namespace") -> None:
    names = profile_names()
    if args.name not in names:
        next_ = f"there are: {', '.join(names)}; run: {COMMAND} switch {names[0]}" if names else client.hint()
        raise UsageError(f"there is no profile {visible(args.name, 80)}; {next_}")
    make_current(args.name)


def duration(text: str) -> float:
    """A number of seconds on the command line; ValueError for others."""
    value = number(text)
    if value is None:
        raise ValueError
    return value


REPEATED, JSON = {"action": "append"}, ("--json", "", "print the facts as JSON")
SIGN_IN = ("--login", "", "sign in first where that is needed")
PROFILES = {"completer": lambda **_: profile_names()}  # argcomplete's, for what has no choices
ENDPOINTS = [("--" + name.replace("_", "-"), "URL", "this address, whatever discovery says") for name in SERVER[2:]]

# The commands: what does the work, one line of help, an example, and the options: name, argument ("" for a flag), help,
# and what else argparse is told of them.
COMMANDS: "Dict[str, Tuple[Callable[..., Optional[int]], str, str, List[Tuple[Any, ...]]]]" = {
    "login": (command_login, "sign in, and keep the tokens and settings", "login --issuer https://id.example.com "
              '--client-id my-cli --scope "openid offline_access"', [
        ("--issuer", "URL", "the provider, found by discovery"),
        ("--provider", "NAME", "a provider without usable discovery: " + ", ".join(PROVIDERS), {
            "completer": lambda **_: list(PROVIDERS)}),
        ("--client-id", "ID", "as registered at the provider"),
        ("--client-secret-file", "FILE", "the client's secret, - for stdin; or CLIAUTH_CLIENT_SECRET"),
        ("--client-auth", None, "how the secret is sent (default: as the provider lists, else basic)", {
            "choices": ("none", "post", "basic")}),
        ("--client-assertion-file", "FILE", "a JWT instead of a secret, read afresh each time"),
        ("--scope", '"A B"', 'such as "openid offline_access" (default: openid, where the provider lists it)'),
        ("--audience", "A", "the API that the token is for, where the provider wants it named"),
        ("--param", "NAME=VALUE", "one more parameter of the sign-in, such as prompt=consent; repeatable", REPEATED),
        ("--resource", "URI", "the same as an address, where the provider wants that (RFC 8707); repeatable", REPEATED),
        *ENDPOINTS,
        ("--flow", None, "how to sign in (default: auto, which says what it chose)", {
            "choices": ("auto", "browser", "device", "paste", "client-credentials"), "default": "auto"}),
        ("--device", "", "the same as --flow device"),
        ("--no-browser", "", "print the address, open nothing, still listen"),
        ("--no-pkce", "", "for a server that refuses PKCE; needs a client secret"),
        ("--redirect-uri", "URI", "as registered at the provider; repeatable, tried in order; port 0 is any free one "
         f"(default: {REDIRECT_URIS[0]})", REPEATED),
        ("--timeout", "S", "seconds for the whole sign-in (default: 300)", {
            "type": duration, "default": LOGIN_TIMEOUT}),
        ("--ca-file", "FILE", "the certificates to trust, PEM"),
        ("--client-cert", "FILE", "a client certificate for mutual TLS, PEM"),
        ("--client-key", "FILE", "the certificate's key, where that is another file"), JSON]),
    "token": (command_token, "print an access token that is valid now", "token --format header | curl -H @- "
              "https://api.example.com", [
        ("operation", None, "with --format git, what git adds: get, store or erase", {"nargs": "?"}),
        ("--format", None, "the token alone (default), a header for curl, JSON, or what kubectl or git asks for", {
            "choices": ("token", "header", "json", "kubectl", "git"), "default": "token"}),
        ("--id-token", "", "the ID token instead of the access token"),
        ("--min-ttl", "S", "get a fresh one if fewer seconds are left (default: 60)", {
            "type": duration, "default": 60}), SIGN_IN]),
    "status": (command_status, "who is signed in, where, until when", "status --json", [JSON]),
    "userinfo": (command_userinfo, "what the provider says of you, as JSON", "userinfo", [SIGN_IN]),
    "request": (command_request, "call an API with the token", "request https://api.example.com/me", [
        ("method", "METHOD", "GET, or with -d POST, unless it is named", {"nargs": "?"}),
        ("url", "URL", "an https address"),
        ("-d", "DATA", "the body: a text, @FILE, or @- for stdin", {"dest": "data"}),
        ("-H", '"Name: value"', "one more header; repeatable", {"dest": "header", "action": "append", "default": []}),
        ("-i", "", "print the response's headers too", {"dest": "include"}), SIGN_IN]),
    "refresh": (command_refresh, "get new tokens now", "refresh", [JSON]),
    "logout": (command_logout, "revoke the tokens and delete them", "logout", [
        ("--forget", "", "remove the settings too"), ("--all", "", "sign out of every profile"),
        ("--browser", "", "end the browser's session at the provider too")]),
    "list": (command_list, "the profiles, the current one marked", "list", [JSON]),
    "switch": (command_switch, "make another profile the current one", "switch acme", [
        ("name", "NAME", "as `list` prints it", PROFILES)]),
    "demo": (command_demo, "see a whole sign-in: no account, no network", "demo --yes", [
        ("--device", "", "the device flow"), ("--yes", "", "play the person too")]),
}


def client_of(args: "argparse.Namespace") -> Client:
    """A client with the settings among the options, by their names in the token file."""
    given = {name: value for name, value in vars(args).items() if value}
    settings = {name: os.path.abspath(value) if name in FILES else value for name, value in given.items()
                if name in ("profile", "token_file", *OPTIONS)}
    if "client_secret_file" in given:
        settings["client_secret"] = read_text(args.client_secret_file, "--client-secret-file")
        if not settings["client_secret"]:
            raise UsageError(f"there is no client secret in {visible(args.client_secret_file)}; check it")
    params = given.get("param", [])
    if not all("=" in param for param in params):
        raise UsageError("--param takes NAME=VALUE; write it like --param prompt=consent")
    settings.update(param=dict(param.split("=", 1) for param in params), pkce=False if "no_pkce" in given else None)
    return Client(terminal=Terminal("quiet" in given, "verbose" in given), **settings)


MOUNTS = {"cliauth"}  # that, and what add_commands has made of it: no words that a program has set itself


def add_commands(subparsers: "Any", client: "Optional[Client]" = None,
                 names: "Iterable[str]" = ("login", "logout", "status", "token"), **keywords: "Any") -> None:
    """Mounts commands into a program's own argparse; each sets args.func, called as args.func(args), the exit code.

    The hints name the program's own words, such as "run: mycli auth login", if no preset COMMAND does.
    """
    global COMMAND
    preset = COMMAND not in MOUNTS
    for name in names:
        work, about, example, options = COMMANDS[name]
        parser = subparsers.add_parser(name, **{  # unabbreviated, or --client-secret were --client-secret-file
            "help": about, "description": about[0].upper() + about[1:] + ".", "allow_abbrev": False, **keywords})
        if not preset:
            COMMAND = parser.prog.rpartition(" ")[0] or COMMAND
            MOUNTS.add(COMMAND)
        if client:
            client.mounted = COMMAND
        parser.epilog = f"example: {COMMAND} {name if client and name == 'login' else example}"
        for option, metavar, help_, *more in options:
            details = dict({"action": "store_true"} if metavar == "" else {"metavar": metavar}, **(more or [{}])[0])
            if not client or option[2:].replace("-", "_") not in OPTIONS + ("client_secret_file", "no_pkce"):
                completer = details.pop("completer", None)
                parser.add_argument(option, help=help_, **details).completer = completer

        def func(args: "argparse.Namespace", work: "Any" = work, words: str = COMMAND) -> int:
            global COMMAND
            COMMAND = words  # another client may have been mounted since
            return guarded(lambda: work(client or client_of(args), args))

        parser.set_defaults(func=func)


def build_parser(commands: "Iterable[str]" = tuple(COMMANDS)) -> "argparse.ArgumentParser":
    import argparse

    class Parser(argparse.ArgumentParser):
        def __init__(self, **keywords: "Any") -> None:  # the terminal's width would cost an import of shutil, 2 ms
            super().__init__(formatter_class=lambda prog: argparse.HelpFormatter(prog, width=80), **keywords)
            self.color = False  # Python 3.14's escapes, for which nobody asked

        def format_help(self, *args: "Any", **keywords: "Any") -> str:  # 3.15 has an argument
            self.formatter_class = argparse.RawDescriptionHelpFormatter  # the example on one line, to copy
            return super().format_help(*args, **keywords)

        def error(self, message: str) -> "Any":
            """One line, which echoes no value: it might be a secret on its way to the wrong place."""
            message = re.sub(r"(invalid [\w ]+): (.*(?= \(choose)|.*)", r"\1", message)
            message = re.sub("ignored explicit argument .*", "takes no value", message)
            raise UsageError(f"{message}; run: {self.prog} --help")

        def print_help(self, file: "Any" = None) -> None:
            out(self.format_help())

    shared = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    profile: "Any" = shared.add_argument("--profile", metavar="NAME", help="another profile than the current one")
    profile.completer = PROFILES["completer"]
    shared.add_argument("--token-file", metavar="FILE", help="this token file, whatever the profile")
    shared.add_argument("-v", "--verbose", action="store_true", help="the HTTP exchange on stderr, without secrets")
    shared.add_argument("-q", "--quiet", action="store_true", help="only what is needed to go on")
    parser = Parser(prog=COMMAND, parents=[shared], allow_abbrev=False, description="Sign in from the command line: "
                    "OAuth 2.0 and OpenID Connect.", epilog=f"example: {COMMAND} {COMMANDS['login'][2]}")
    parser.add_argument("--version", action="store_true", help="the version of cliauth, and that of Python")
    add_commands(parser.add_subparsers(dest="command", metavar="COMMAND"), None, commands, parents=[shared])
    return parser


def obey(argv: "List[str]") -> int:
    if argv == ["status"]:  # without options, which a parser would take 3 ms for
        return command_status(Client())
    if argv in (["token"], ["refresh"]):
        out(Client().access_token() + "\n") if argv == ["token"] else Client().refresh()
        return 0
    parser = build_parser(argv[:1] if argv and argv[0] in COMMANDS else COMMANDS)
    if not argv and "_ARGCOMPLETE" in os.environ:  # a shell asks what could be typed, and has it in COMP_LINE
        try:
            __import__("argcomplete").autocomplete(parser)  # an import statement would stop mypy where it is missing
        except ImportError:
            pass
    args, unknown = parser.parse_known_args(argv)
    if args.command == "request" and not args.method and unknown and unknown[0][:1] != "-":  # request PUT -d DATA URL
        args.method, args.url = args.url, unknown.pop(0)
    if unknown:
        names = ", ".join(re.sub("(?s)(--[a-z-]*|-[A-Za-z]?).*", r"\1", word) for word in unknown if word[:1] == "-")
        command = f"{COMMAND} {args.command}" if args.command else COMMAND
        raise UsageError(f"unknown: {names or 'an argument too many'}; run: {command} --help")
    if args.version or not args.command:
        out(f"cliauth {__version__} (Python {sys.version.split()[0]})\n" if args.version else parser.format_help())
        return 0
    return int(args.func(args))


def run(argv: "List[str]") -> int:
    """Answers `token` at once while it is valid, as a thousand times for each sign-in; SIGTERM ends the rest tidily."""
    for descriptor in range(3):  # or the token file would get the number of a closed stderr
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if argv == ["token"]:
        client = Client()
        if given_token() or alive(client.read(), 60):
            out(client.access_token() + "\n")
            return 0
    import signal

    def terminate(number: int, frame: "Any") -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread
        before = None
    try:
        return obey(argv)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def started_by() -> str:
    """What the person typed to start this program, as well as Python knows it."""
    python = "python" if os.name == "nt" else "python3"
    spec: "Any" = getattr(sys.modules["__main__"], "__spec__", None)
    if spec and spec.name != "__main__":  # which it is in a zipapp
        return f"{python} -m {spec.name.replace('.__main__', '')}"
    if sys.argv[0].endswith((".py", ".pyz")):
        return f"{python} {typed(sys.argv[0])}"
    folder, name = os.path.split(sys.argv[0])  # a program's own name for it: a copy, an entry point
    if name in ("", "-", "-c"):
        return COMMAND
    return typed(name if folder in os.environ.get("PATH", "").split(os.pathsep) else sys.argv[0])


def arguments(argv: "Optional[List[str]]") -> "List[str]":
    """The arguments, once the hints name what was typed."""
    global COMMAND
    if argv is None and COMMAND == "cliauth":
        COMMAND = started_by()
    return list(sys.argv[1:] if argv is None else argv)


def main(argv: "Optional[List[str]]" = None) -> int:
    """The command line: returns the exit code, and raises nothing but the SystemExit of --help."""
    return guarded(lambda: run(arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())
