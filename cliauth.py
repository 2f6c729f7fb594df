#!/usr/bin/env python3
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

     1 Presets       what a program that carries this file fills in      7 Loopback   the redirect listener
     2 Errors        what can go wrong, and the exit code of each        8 Flows      browser, device, refresh …
     3 Text          what comes from outside, read strictly              9 Token file load, save, lock
     4 Protocol      requests and answers, without any I/O              10 Client     what programs use
     5 HTTP          the only door out                                  11 Demo       a throw-away server
     6 Terminal      the person, and the person's browser               12 Command line

A token that is still valid is printed without importing urllib, ssl, http, argparse or threading: every heavy
import stands in the function that needs it, because Python's start is all that `cliauth token` costs.

Copyright (C) 2026 the cliauth authors. Licence: 0BSD. Permission to use, copy, modify, and/or distribute this
software for any purpose with or without fee is hereby granted. THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR
DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND
FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY
DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR OTHER
TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
"""

import json
import os
import re
import sys
import time
from contextlib import contextmanager

TYPE_CHECKING = False  # a type checker takes it for true; importing typing would cost 10 ms at every start
if TYPE_CHECKING:
    import argparse
    import socket
    from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple, Union
    Json = Dict[str, Any]

__version__ = "1.0.0"
__all__ = ["AuthError", "Client", "DemoServer", "ErrorResponse", "InvalidResponse", "LoginRequired", "Unreachable",
           "UsageError", "add_commands", "main"]


# ─── 1 Presets ── what a program that carries this file fills in, here or as cliauth.ISSUER = … from its own code ────

APP = "cliauth"         # the folder of the token files: a program's own name keeps its sessions apart
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
    "github": {  # no metadata; form-encoded answers unless asked for JSON; tokens that do not expire
        "site": "https://github.com", "authorization_endpoint": "/login/oauth/authorize",
        "token_endpoint": "/login/oauth/access_token", "device_authorization_endpoint": "/login/device/code",
        "userinfo_endpoint": "https://api.github.com/user"},
    "gitlab": {"issuer": "https://gitlab.com", "device_authorization_endpoint": "/oauth/authorize_device"},
    "google": {  # no refresh token without both parameters, and from the second sign-in on not without prompt
        "issuer": "https://accounts.google.com", "client_auth": "post", "scope": "openid email profile",
        "param": {"access_type": "offline", "prompt": "consent"}},
    "microsoft": {  # any port is registered with http://localhost alone, not with 127.0.0.1
        "issuer": "https://login.microsoftonline.com/common/v2.0", "redirect_uri": ["http://localhost:0"],
        "scope": "openid profile email offline_access"},
    "workos": {
        "site": "https://api.workos.com", "authorization_endpoint": "/user_management/authorize",
        "token_endpoint": "/user_management/authenticate", "param": {"provider": "authkit"},
        "device_authorization_endpoint": "/user_management/authorize/device"},
    "huggingface": {"issuer": "https://huggingface.co", "device_authorization_endpoint": "/oauth/device"},
    "atlassian": {
        "site": "https://auth.atlassian.com", "authorization_endpoint": "/authorize", "token_endpoint": "/oauth/token",
        "userinfo_endpoint": "https://api.atlassian.com/me", "client_auth": "post",
        "param": {"audience": "api.atlassian.com", "prompt": "consent"}},
    "dropbox": {  # without a redirect URI it shows the code, which is pasted here
        "site": "https://www.dropbox.com", "authorization_endpoint": "/oauth2/authorize", "redirect_uri": [""],
        "token_endpoint": "https://api.dropboxapi.com/oauth2/token", "param": {"token_access_type": "offline"}},
}

REDIRECT_URIS = ["http://127.0.0.1:0/callback", "http://[::1]:0/callback"]  # RFC 8252 §7.3; port 0: any free one
LOGIN_TIMEOUT = 300     # seconds for a whole sign-in
HTTP_TIMEOUT = 30       # seconds for one exchange, from name resolution to the last byte
LOCK_TIMEOUT = 40       # seconds: longer than the exchange that the holder of the lock may be in
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


class ErrorResponse(AuthError):
    """The server said no, in the words of RFC 6749 §5.2: `error`, `error_description`, `error_uri`, HTTP `status`."""

    def __init__(self, message: str, error: str = "", error_description: str = "", error_uri: str = "",
                 status: int = 0) -> None:
        super().__init__(message)
        self.error, self.error_description, self.error_uri, self.status = error, error_description, error_uri, status
        self.retry_after: float = 0  # seconds, where the server asks for patience

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status >= 500 or self.status == 429 or self.error in ("server_error", "temporarily_unavailable")

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        return 4 if self.passing else 1


# ─── 3 Text ── what comes from outside, read strictly and shown safely; pure ─────────────────────────────────────────

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def visible(text: "Any", limit: int = 500) -> str:
    """Text from outside for a terminal: every control, escape and bidi character is spelled out; cut at `limit`."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)[:limit])
    return shown + "…" if len(str(text)) > limit else shown


def split_url(url: str, what: str) -> "Tuple[str, str, int, str]":
    """Scheme, host, port and the rest of an https address, or an http one on this machine; UsageError for any other.

    Before urlsplit sees it: that strips tabs and newlines, and takes http://evil.example\\@127.0.0.1 for 127.0.0.1.
    """
    match = re.match(r"(https?)://([0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?([/?][!-~]*)?\Z", url)
    if not match or "\\" in url or "#" in url:
        raise UsageError("%s is no plain https address: %s; write it like https://host/path" % (what, visible(url)))
    scheme, host, port, rest = match.groups()
    if scheme == "http" and host not in LOOPBACK:
        raise UsageError("%s must begin with https://, or be on this machine: %s" % (what, visible(url)))
    if port and not 0 < int(port) < 65536:
        raise UsageError("%s has an impossible port: %s" % (what, visible(url)))
    return scheme, host.lower(), int(port or (80 if scheme == "http" else 443)), rest or ""


def unique(pairs: "Iterable[Tuple[str, Any]]") -> "Json":
    """The pairs as a dictionary; ValueError where a name comes twice (RFC 6749 §3.1, RFC 8259 §4)."""
    members: "Json" = {}
    for name, value in pairs:
        if name in members:
            raise ValueError("%s comes twice" % visible(name, 40))
        members[name] = value
    return members


def parse_form(text: str) -> "Json":
    """The members of a query or a form; ValueError where one comes twice."""
    from urllib.parse import parse_qsl
    return unique(parse_qsl(text, keep_blank_values=True, errors="strict"))


def encode_form(params: "Json") -> str:
    """A query or form body; lists repeat the name. A space is %20: AWS Cognito and others do not read "+"."""
    from urllib.parse import quote, urlencode
    return urlencode({name: value for name, value in params.items() if value}, doseq=True, quote_via=quote)


def finite(digits: str) -> float:
    """A JSON number; ValueError for one of absurd length or size, where Pythons differ."""
    value = float(digits) if len(digits) < 40 else float("inf")
    if abs(value) > 1e300:
        raise ValueError("a number out of range")
    return value if re.search("[.eE]", digits) else int(digits)


def refuse_constant(name: str) -> None:
    """NaN and Infinity are JavaScript, not JSON (RFC 8259 §6)."""
    raise ValueError(name + " is not JSON")


def parse_json(data: bytes) -> "Any":
    """The value of a JSON text that can be written again as it is; ValueError for any other."""
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=unique, parse_int=finite, parse_float=finite,
                           parse_constant=refuse_constant)
        level, depth = [value], 0
        while level:  # what parses may yet be too deep to be written, after the refresh token is spent
            level = [v for x in level if isinstance(x, (dict, list)) for v in (x.values() if isinstance(x, dict) else x)]
            depth += 1
            if depth > 41:
                raise ValueError("nested too deeply")
        dump_json(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def dump_json(value: "Any") -> bytes:
    """JSON as it stands in files and on stdout; ValueError for a lone surrogate."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def number(value: "Any") -> "Optional[float]":
    """A count of seconds that came as a number or a string (PayPal, Salesforce), else None."""
    if isinstance(value, str) and re.match(r"\s*[0-9]{1,15}(\.[0-9]{1,9})?\s*\Z", value):
        value = float(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15 else None


def words(value: "Any") -> "List[str]":
    """The scopes in a list, or in a string with spaces or commas (GitHub) between them."""
    if isinstance(value, str):
        return [word for word in re.split(r"[\s,]+", value) if word]
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def base64url(data: bytes) -> str:
    """RFC 4648 §5 without padding, as RFC 7636 and RFC 7515 want it."""
    from base64 import urlsafe_b64encode
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_jwt(jwt: str) -> "Tuple[Json, Json]":
    """Header and claims of a signed JWT (RFC 7515), unverified; ValueError for anything else."""
    from base64 import urlsafe_b64decode
    parts = jwt.split(".")
    if len(parts) != 3 or not re.match(r"[\w.-]+\Z", jwt, re.ASCII):
        raise ValueError("an encrypted one cannot be read here" if len(parts) == 5 else "it is not a signed JWT")
    header, claims = (parse_json(urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2])
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise ValueError("it is not a signed JWT")
    return header, claims


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
EXPIRY = ("expires_in", "expires_at", "refresh_token_expires_in", "refresh_expires_in", "issued_at", "created_at")

# Refusals of a refresh after which only a new sign-in helps; names beside RFC 6749's: GitHub, OpenID Connect, Supabase.
DEAD = ("invalid_grant", "bad_refresh_token", "interaction_required", "consent_required", "login_required",
        "refresh_token_not_found", "refresh_token_already_used", "unauthorized_client")

# The ways to say that the person refused, or that a device code is over (Entra, GitHub, Dex).
DENIED = ("access_denied", "authorization_declined")
OVER = ("expired_token", "token_expired", "invalid_grant", "bad_verification_code", "incorrect_device_code",
        "invalid_request")

METADATA = ("issuer", "authorization_endpoint", "token_endpoint", "device_authorization_endpoint",
            "pushed_authorization_request_endpoint", "userinfo_endpoint", "revocation_endpoint",
            "end_session_endpoint", "token_endpoint_auth_methods_supported", "mtls_endpoint_aliases",
            "authorization_response_iss_parameter_supported")


class Response:
    """One HTTP answer, whole, and the parameters that it answers."""

    def __init__(self, url: str, status: int, headers: "Any", body: bytes, sent: "Optional[Json]" = None) -> None:
        self.url, self.status, self.headers, self.body, self.sent = url.split("?")[0], status, headers, body, sent or {}

    def members(self) -> "Optional[Json]":
        """The body as a JSON object, else as a form (GitHub), whatever its Content-Type; None if it is neither."""
        try:
            value = parse_json(self.body)
        except ValueError:
            text = self.body.decode("ascii", "replace").strip()
            if not re.match(r"[\w.-]+=[!-~]*\Z", text):
                return None
            try:
                value = parse_form(text)
            except ValueError:
                return None
        return value if isinstance(value, dict) else None

    def said(self, text: "Any") -> str:
        """The server's own words for a terminal, without what it was sent in confidence."""
        text = str(text)
        for name in SECRETS:
            if isinstance(self.sent.get(name), str) and self.sent[name]:
                text = text.replace(self.sent[name], "…")
        return visible(text)


def error_code(answer: "Json") -> str:
    """The error code of a refusal, wherever it stands: Google nests it, WorkOS, Supabase and Databricks rename it."""
    for name in ("error", "error_code", "code", "errorCode"):
        value = answer.get(name)
        value = value.get("code", value.get("status")) if isinstance(value, dict) else value
        if isinstance(value, str) and value:
            return value
    message = answer.get("message")  # Twitch: {"status": 400, "message": "authorization_pending"}
    return message if isinstance(message, str) and re.match(r"[a-z]+(_[a-z]+)+\Z", message) else ""


def error_words(answer: "Json") -> str:
    """The explanation beside the code."""
    inner = answer.get("error")
    places = [answer, inner] if isinstance(inner, dict) else [answer]
    found = (place.get(name) for name in ("error_description", "message", "msg", "errorSummary") for place in places)
    return next((text for text in found if isinstance(text, str) and text), "")


def read_answer(response: Response) -> "Json":
    """The members of a success; ErrorResponse for a refusal (RFC 6749 §5.2), InvalidResponse for what is neither."""
    answer, status = response.members(), response.status
    if 300 <= status < 400:
        raise InvalidResponse("%s redirects to %s, which is never followed; name the endpoint's own address" % (
            response.url, visible(response.headers.get("Location"), 200)))
    if 200 <= status < 300:
        if answer is None:
            raise InvalidResponse("%s answered something that is not JSON (%s); check the address" % (
                response.url, visible(response.headers.get("Content-Type") or "no type", 80)))
        if not answer.get("error") and answer.get("ok") is not False:  # GitHub and Slack refuse with a 200
            return answer
    answer = answer or {}
    code, text = response.said(error_code(answer)), response.said(error_words(answer))
    error = ErrorResponse("%s answered %s" % (response.url, " ".join(filter(None, (
        str(status), code, "(%s)" % text if text and text != code else "")))), code, text,
        response.said(answer.get("error_uri") or ""), status)
    error.retry_after = number(answer.get("interval")) or number(response.headers.get("Retry-After")) or 0
    raise error


def client_authentication(settings: "Json", metadata: "Json", assertion: str = "") -> "Tuple[Dict[str, str], Json]":
    """Headers and parameters that say which client asks (RFC 6749 §2.3): one secret, one way, never probed.

    The client_id stands in the body even beside Basic: several servers look for it there.
    """
    client_id, secret = settings["client_id"], settings.get("client_secret", "")
    if assertion:
        return {}, {"client_id": client_id, "client_assertion": assertion,
                    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}
    listed = metadata.get("token_endpoint_auth_methods_supported")
    method = settings.get("client_auth") or ("basic" if not listed or "client_secret_basic" in listed else "post")
    if not secret or method == "none":
        return {}, {"client_id": client_id}
    if method == "post":
        return {}, {"client_id": client_id, "client_secret": secret}
    from base64 import b64encode
    from urllib.parse import quote
    pair = quote(client_id, safe="") + ":" + quote(secret, safe="")  # form-encoded first, RFC 6749 §2.3.1
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
    return {"scope": settings.get("scope"), "audience": settings.get("audience"), "resource": settings.get("resource"),
            **settings.get("param", {})}


def authorization_request(settings: "Json", redirect_uri: str, attempt: Attempt) -> "Json":
    """RFC 6749 §4.1.1 with RFC 7636 §4.3 and the nonce of OpenID Connect Core 3.1.2.1."""
    return {"response_type": "code", "client_id": settings["client_id"], "redirect_uri": redirect_uri,
            "state": attempt.state, "nonce": attempt.nonce, "code_challenge": attempt.code_challenge(),
            "code_challenge_method": "S256" if attempt.code_verifier else "", **extras(settings)}


def with_query(url: str, params: "Json") -> str:
    """The address with the parameters added to what it has."""
    return url + ("&" if "?" in url else "?") + encode_form(params)


def read_callback(params: "Json", issuer: str, iss_required: bool) -> str:
    """The code in an authorization response whose state was ours (RFC 6749 §4.1.2): first iss, then error, then code."""
    iss, error = params.get("iss"), params.get("error")
    if issuer and (not fits(iss, issuer) if iss else iss_required and not error):  # RFC 9207 §2.4
        raise InvalidResponse("the answer came from another server (iss %s, not %s); do not sign in there, "
                              "and tell the provider" % (visible(iss), visible(issuer)))
    if error:
        text = visible(params.get("error_description") or "")
        raise ErrorResponse("the sign-in was %s: %s%s" % ("denied" if error in DENIED else "refused", visible(error, 80),
                            " (%s)" % text if text else ""), visible(error, 80), text, visible(params.get("error_uri", "")))
    return str(params["code"])


def read_device_response(answer: "Json") -> "Json":
    """RFC 8628 §3.2 with the defaults filled in; an address that a person must not open makes it invalid."""
    device = dict(answer, verification_uri=answer.get("verification_uri") or answer.get("verification_url"))  # Google
    for name in ("device_code", "user_code", "verification_uri"):
        if not isinstance(device.get(name), str) or not device[name]:
            raise InvalidResponse("the device authorization response has no %s; try --flow paste" % name)
    try:
        for name in ("verification_uri", "verification_uri_complete"):
            if device.get(name):
                split_url(str(device[name]), name)
    except UsageError as error:
        raise InvalidResponse("the device authorization response is not to be trusted: %s" % error) from None
    device["interval"] = min(max(number(answer.get("interval")) or 5, 1), 60)
    device["expires_in"] = number(answer.get("expires_in")) or 900
    return device


def read_token(answer: "Json") -> "Json":
    """A token response (RFC 6749 §5.1) whose tokens can stand in a header; InvalidResponse for any other."""
    if "access_token" not in answer:
        raise InvalidResponse("the token response holds no access_token; check --token-endpoint")
    for name in ("access_token", "refresh_token", "id_token"):
        value = answer.get(name)
        if value is not None and not (isinstance(value, str) and re.match(r"[!-~]+\Z", value)):
            raise InvalidResponse("the %s that came is not printable ASCII; ask the provider" % name)
    kind = answer.get("token_type") or "Bearer"  # WorkOS leaves it out
    if str(kind).lower() != "bearer":
        raise InvalidResponse("the token is of type %s, which only another client can use" % visible(kind, 40))
    return answer


def expires_at(token: "Json", now: float) -> "Optional[float]":
    """When the access token that came `now` ends (Unix seconds): by expires_in, expires_at, its own exp; else None."""
    left = number(token.get("expires_in"))
    if left is not None:
        return now + left
    exp = number(token.get("expires_at"))
    return exp if exp is not None else number(claims_of(token, "access_token").get("exp"))


def granted(token: "Json", asked: str) -> str:
    """The scopes of a token response; none named means those asked for (RFC 6749 §5.1)."""
    return " ".join(words(token.get("scope")) or words(token.get("scopes")) or words(asked))


def renewed(old: "Json", new: "Json") -> "Json":
    """A refresh response laid over the token it renews; what spoke of the old response alone is dropped first."""
    return {**{name: value for name, value in old.items() if name not in EXPIRY}, **new}


def id_token_faults(header: "Json", claims: "Json", token: "Json", settings: "Json", issuer: str,
                    now: float) -> "Iterator[str]":
    """What OpenID Connect Core 3.1.3.7 finds wrong; over TLS from the token endpoint, the signature may go unread."""
    iss, audience = str(claims.get("iss")), claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if str(header.get("alg", "none")).lower() == "none":
        yield "it is unsigned"
    wanted = issuer.replace("{tenantid}", str(claims.get("tid")))  # Entra's metadata is a template
    if issuer and wanted not in (iss, "https://" + iss):  # Google may leave the scheme out
        yield "iss is %s, not %s" % (visible(iss), wanted)
    if settings["client_id"] not in audiences or claims.get("azp", settings["client_id"]) != settings["client_id"]:
        yield "it was issued to another client (aud %s)" % visible(audience)
    if len(audiences) > 1 and "azp" not in claims:
        yield "of several audiences none is the authorized party (azp)"
    exp, iat = number(claims.get("exp")), number(claims.get("iat"))
    if exp is None or iat is None:
        yield "it has no exp or no iat"
    elif iat > now + CLOCK_LEEWAY or exp < now - CLOCK_LEEWAY:
        yield "this machine's clock is %d s off; set it" % abs(now - iat)
    max_age, auth_time = number(settings.get("param", {}).get("max_age")), number(claims.get("auth_time"))
    if max_age is not None and (auth_time is None or now - auth_time > max_age + CLOCK_LEEWAY):
        yield "the person signed in longer ago than max_age allows"
    if "at_hash" in claims and not at_hash_fits(str(header.get("alg")), token["access_token"], claims["at_hash"]):
        yield "at_hash belongs to another access token"


def at_hash_fits(alg: str, access_token: str, at_hash: "Any") -> bool:
    """Core 3.1.3.6: the left half of the hash that the algorithm's name ends with (Ed25519 goes with SHA-512)."""
    import hashlib
    name = {"256": "sha256", "384": "sha384"}.get(alg[-3:], "sha512")
    digest = hashlib.new(name, access_token.encode()).digest()
    return bool(base64url(digest[:len(digest) // 2]) == at_hash)


def check_id_token(token: "Json", settings: "Json", issuer: str, now: float, nonce: str = "",
                   before: "Optional[Json]" = None) -> None:
    """Raises InvalidResponse if the ID token, where one came, is not for this client, this sign-in and this person.

    `before`: the claims that a refreshed one has to keep (OpenID Connect Core 12.2).
    """
    if not token.get("id_token"):
        return
    try:
        header, claims = decode_jwt(token["id_token"])
    except ValueError as error:
        raise InvalidResponse("the ID token cannot be used: %s; sign in again or ask the provider" % error) from None
    faults = list(id_token_faults(header, claims, token, settings, issuer, now))
    if nonce and claims.get("nonce") != nonce:
        faults.append("its nonce belongs to another sign-in")
    if before and any(claims.get(name) != before.get(name) for name in ("iss", "sub")):
        faults.append("it is for somebody else than before")
    if faults:
        raise InvalidResponse("the ID token cannot be trusted: %s" % faults[0])


def discovery_addresses(issuer: str) -> "List[str]":
    """Where metadata may be: OpenID Connect Discovery 4 appends, RFC 8414 §3.1 inserts before the path."""
    root = re.match("https?://[^/?]+", issuer)
    base = issuer.rstrip("/")
    site = root.group() if root else base
    return [base + "/.well-known/openid-configuration",
            site + "/.well-known/oauth-authorization-server" + base[len(site):]]


def fits(issuer: "Any", known: str) -> bool:
    """Whether the two are one issuer, but for a trailing slash, and for {tenantid} where `known` is a template."""
    pattern = re.escape(known.rstrip("/")).replace(re.escape("{tenantid}"), "[^/]+")
    return isinstance(issuer, str) and bool(re.match(pattern + r"/?\Z", issuer))


def read_metadata(issuer: str, documents: "Iterable[Optional[Json]]") -> "Json":
    """What the documents of this issuer say, the first one winning; of another issuer's nothing is used."""
    merged: "Json" = {}
    for document in documents:
        if document and fits(issuer, str(document.get("issuer"))):
            merged = {**{name: document[name] for name in METADATA if document.get(name)}, **merged}
    for name, value in merged.items():
        if name.endswith("_endpoint") and not isinstance(value, str):
            raise InvalidResponse("the metadata of %s is not to be trusted: %s is no address" % (issuer, name))
    return merged


def endpoint(settings: "Json", metadata: "Json", name: str) -> str:
    """The address under that name, "" if there is none: by hand, by metadata, with a certificate its alias (RFC 8705)."""
    aliases = metadata.get("mtls_endpoint_aliases") if settings.get("client_cert") else None
    known = {**metadata, **(aliases if isinstance(aliases, dict) else {}), **settings}
    return str(known.get(name) or "")


def fill(url: str, token: "Json") -> str:
    """{NAME} or {NAME.NAME} in a userinfo address, out of the token response (TOKI's user id)."""
    from urllib.parse import quote

    def value(match: "Any") -> str:
        found: "Any" = token
        for name in match.group(1).split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, (str, int)):
            raise UsageError("the token response has no %s for %s; check --userinfo-endpoint" % (match.group(1), url))
        return quote(str(found), safe="")
    return re.sub(r"\{([\w.]+)\}", value, url)


# ─── 5 HTTP ── the only door out; it knows no OAuth ──────────────────────────────────────────────────────────────────

class Background:
    """Work in a thread of its own, so that whoever waits for it can give up.

    urllib's timeout is per read: name resolution, and a server that drips a byte a second, outlive it. Where no
    thread can be started the work is done at once, with that lesser timeout.
    """

    def __init__(self, work: "Callable[[], Any]") -> None:
        from threading import Thread
        self.work, self.outcome = work, []  # type: Callable[[], Any], List[Tuple[Any, Optional[Exception]]]
        self.thread = Thread(target=self.run, daemon=True)
        try:
            self.thread.start()
        except RuntimeError:
            self.run()

    def run(self) -> None:
        try:
            self.outcome.append((self.work(), None))
        except Exception as error:  # whatever it is belongs to the thread that waits
            self.outcome.append((None, error))

    def result(self, seconds: float) -> "Any":
        """What the work returned or raised; Unreachable when it takes longer than `seconds`."""
        end = time.monotonic() + seconds
        while not self.outcome and time.monotonic() < end:
            self.thread.join(min(0.2, max(0, end - time.monotonic())))  # in slices: Ctrl-C on Windows waits for one
        if not self.outcome:
            raise Unreachable("no whole answer within %d s; try again" % seconds)
        value, error = self.outcome[0]
        if error:
            raise error
        return value


def why_unreachable(url: str, error: Exception) -> AuthError:
    """The error for an exchange that broke, with what usually helps."""
    reason = getattr(error, "reason", error)
    text = visible(getattr(reason, "verify_message", "") or getattr(reason, "strerror", "") or reason or type(reason))
    host = url.split("/")[2]
    if "ertificate" in str(reason) or "ertificate" in type(reason).__name__:
        if "expired" in text or "not yet valid" in text:
            return Unreachable("the certificate of %s cannot be trusted: %s; check this machine's clock" % (host, text))
        if "match" in text or "not valid for" in text:
            return Unreachable("the certificate of %s is not its own: %s; check the address" % (host, text))
        return Unreachable("the certificate of %s cannot be trusted: %s; if your network inspects TLS, name its CA "
                           "with --ca-file or SSL_CERT_FILE" % (host, text))
    if not isinstance(reason, OSError) and not isinstance(reason, str):
        return InvalidResponse("%s does not speak HTTP: %s; check the address" % (host, text))
    return Unreachable("%s cannot be reached: %s; check the network and the address" % (host, text))


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
        ca_file, cert = self.settings.get("ca_file") or os.environ.get("SSL_CERT_FILE"), self.settings.get("client_cert")
        try:  # the stdlib passes over an unreadable file in silence, and then trusts nobody or somebody else
            if ca_file:
                context.load_verify_locations(ca_file)
            else:
                context.load_default_certs()
        except OSError as error:
            raise UsageError("no CA certificates can be read from %s (%s); check --ca-file or SSL_CERT_FILE" % (
                visible(ca_file), error.strerror or "not PEM")) from None
        try:
            if cert:
                context.load_cert_chain(cert, self.settings.get("client_key"), password=lambda: "")  # never asks
        except (OSError, ValueError) as error:
            raise UsageError("the client certificate %s cannot be used (%s); check --client-cert and --client-key, "
                             "whose key must not be encrypted" % (visible(cert), visible(error))) from None
        self.context = context
        return context

    def opener(self, scheme: str, host: str) -> "Any":
        """An OpenerDirector that can do one thing: with urlopen's, a redirect leads to other hosts, even to ftp."""
        from urllib import request
        director = request.OpenerDirector()
        director.addheaders = [("User-Agent", "cliauth/%s (Python %d.%d)" % ((__version__,) + sys.version_info[:2]))]
        director.add_handler(request.HTTPSHandler(context=self.tls()) if scheme == "https" else request.HTTPHandler())
        director.add_handler(request.UnknownHandler())
        if host not in LOOPBACK and not request.proxy_bypass(host):
            proxy = request.getproxies().get(scheme) or request.getproxies().get("all")
            if proxy and not re.match(r"http://|[^:/]+(:\d+)?/?\Z", proxy):
                raise UsageError("the proxy setting is of a kind that Python cannot use (%s); name an http:// proxy "
                                 "in HTTPS_PROXY or list the host in NO_PROXY" % visible(proxy.split(":")[0], 20))
            director.add_handler(request.ProxyHandler({scheme: proxy} if proxy else {}))
        return director

    def open(self, method: str, url: str, body: "Optional[bytes]" = None, headers: "Optional[Dict[str, str]]" = None,
             timeout: float = HTTP_TIMEOUT) -> "Any":
        """The http.client.HTTPResponse of whatever status, its body unread; Unreachable or InvalidResponse if none."""
        from http.client import HTTPException
        from urllib.request import Request
        scheme, host, _, _ = split_url(url, "the address of a request")
        opener = self.opener(scheme, host)
        request = Request(url, body, {"Accept": "application/json", **(headers or {})}, method=method)
        try:
            return Background(lambda: opener.open(request, timeout=timeout)).result(timeout)
        except (OSError, HTTPException, ValueError) as error:
            raise why_unreachable(url, error) from None

    def send(self, method: str, url: str, form: "Optional[Json]" = None, headers: "Optional[Dict[str, str]]" = None,
             timeout: float = HTTP_TIMEOUT) -> Response:
        """One exchange, whole and once, within `timeout` seconds."""
        from http.client import HTTPException
        started = time.monotonic()
        body = encode_form(form).encode() if form is not None else None
        self.trace("> %s %s%s" % (method, visible(url.split("?")[0]), " %d bytes (%s)" % (
            len(body or b""), ", ".join(name for name in form if form[name])) if form else ""))
        raw = self.open(method, url, body, headers, timeout)
        try:
            data = Background(lambda: raw.read(BODY_LIMIT + 1)).result(timeout - (time.monotonic() - started))
            if len(data) > BODY_LIMIT:
                raise InvalidResponse("%s answered more than %d bytes; check the address" % (url, BODY_LIMIT))
            if raw.length:  # read(n) returns a body that was cut short in silence
                raise Unreachable("the answer of %s was cut short; try again" % url.split("?")[0])
        except (OSError, HTTPException, ValueError) as error:
            raise why_unreachable(url, error) from None
        finally:
            raw.close()
        response = Response(url, raw.status, raw.headers, data, form)
        self.trace("< %d %s %d bytes %.3f s (%s)" % (
            raw.status, visible(raw.headers.get("Content-Type") or "-", 60), len(data), time.monotonic() - started,
            visible(", ".join(response.members() or {}))))
        return response


# ─── 6 Terminal ── the person and the person's browser; every word goes to stderr ────────────────────────────────────

TEXT_BROWSERS = ("lynx", "w3m", "links", "links2", "elinks", "browsh", "carbonyl", "www-browser")
OPENERS = ("xdg-open", "x-www-browser", "gio", "firefox", "google-chrome", "chromium", "chromium-browser",
           "microsoft-edge", "brave-browser", "epiphany", "konqueror")


def nobody_there(environ: "Any") -> str:
    """The variable that says that this is a CI job, "" if none does."""
    for name in ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "TF_BUILD", "JENKINS_URL", "BUILDKITE", "TEAMCITY_VERSION"):
        if environ.get(name, "").lower() not in ("", "0", "false", "no", "off"):
            return name
    return ""


def own_browser(entries: str, windows: bool, which: "Callable[[str], Optional[str]]") -> "List[str]":
    """The first command in a BROWSER variable that is there and no text browser; [] if none is."""
    import shlex
    for entry in entries.split(";" if windows else ":"):
        try:
            argv = [entry] if which(entry) else shlex.split(entry, posix=not windows)
        except ValueError:
            continue
        if argv and os.path.basename(argv[0]) not in TEXT_BROWSERS and which(argv[0]):
            return argv
    return []


def find_browser(environ: "Any", platform: str, files: "Dict[str, str]",
                 which: "Callable[[str], Optional[str]]") -> "Tuple[List[str], str]":
    """The command that opens an address in a browser whose loopback is ours, [] if there is none; and the reason.

    A pure function of its arguments: the environment, sys.platform, the text of those of FILES that exist, and
    shutil.which.
    """
    chosen, windows = environ.get("BROWSER", ""), platform == "win32"
    cloud = next((name for name in ("CODESPACES", "GITPOD_WORKSPACE_URL", "CLOUD_SHELL") if environ.get(name)), "")
    container = "/.dockerenv" in files or "/run/.containerenv" in files
    wsl = not container and ("WSL_INTEROP" in environ or "microsoft" in files.get("/proc/version", "").lower())
    own = own_browser(chosen, windows, which) if chosen else []
    if own and not (cloud and "/helpers/browser" in chosen):  # VS Code's helper forwards ports, the cloud's does not
        return own, "BROWSER is set"
    if cloud:
        return [], "%s is set: your browser is on another machine" % cloud
    if environ.get("SSH_CONNECTION"):  # SSH_TTY goes stale in tmux
        return [], "this is an SSH session: your browser is on another machine"
    if wsl:
        if which("wslview"):
            return ["wslview"], "this is WSL"
        if which("rundll32.exe"):
            return ["rundll32.exe", "url.dll,FileProtocolHandler"], "this is WSL"
    if windows or platform == "darwin":
        return (["rundll32", "url.dll,FileProtocolHandler"] if windows else ["/usr/bin/open"]), "this is a desktop"
    if not environ.get("DISPLAY") and not environ.get("WAYLAND_DISPLAY"):
        return [], "this is a container" if container else "there is no display"
    found = next((name for name in OPENERS if which(name)), "")
    if not found:
        return [], "no browser is installed"
    return [found] + (["open"] if found == "gio" else []), "this is a desktop"


class Terminal:
    """What is said to the person, and what the person types. A closed or full stderr is no reason to fail."""

    FILES = ("/.dockerenv", "/run/.containerenv", "/proc/version")

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose, self.shown, self.typed = quiet, verbose, 0, b""

    def write(self, text: str) -> None:
        try:
            encoding = sys.stderr.encoding or "ascii"
            sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):
            pass  # closed or full; the exit code still tells

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
            line = "Waiting for %s: %d:%02d left, Ctrl-C ends it " % (what, left // 60, left % 60)
            self.write("\r" + line.ljust(self.shown))
            self.shown = len(line)

    def wipe(self) -> None:
        if self.shown:
            self.write("\r" + " " * self.shown + "\r")
            self.shown = 0

    def browser(self) -> "Tuple[List[str], str]":
        """find_browser for this machine."""
        from shutil import which
        files = {}
        for path in self.FILES:
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    files[path] = file.read(500)
            except OSError:
                pass
        return find_browser(os.environ, sys.platform, files, which)

    def open_browser(self, argv: "List[str]", url: str) -> None:
        """Starts the browser detached and leaves it to itself, without a shell, our output or our secrets."""
        import subprocess
        split_url(url, "the address to open")
        command = [part.replace("%s", url) for part in argv]
        try:
            process = subprocess.Popen(
                command if command != argv else argv + [url], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
                env={name: value for name, value in os.environ.items() if not name.startswith("CLIAUTH_")})
            process.returncode = 0  # nobody waits for it, and Python need not warn of that
        except OSError as error:
            self.note("The browser did not start (%s); open the address yourself." % (error.strerror or error))

    def stdin(self) -> int:
        """The descriptor on which the person can type or paste, -1 if there is none."""
        try:
            return sys.stdin.fileno() if not sys.stdin.closed else -1
        except (AttributeError, OSError, ValueError):
            return -1

    def typing(self) -> bool:
        """Whether a person types at this terminal, and this is its foreground job."""
        fd = self.stdin()
        try:
            return fd >= 0 and self.interactive() and os.isatty(fd) and (
                not hasattr(os, "tcgetpgrp") or os.tcgetpgrp(fd) == os.getpgrp())
        except OSError:
            return False

    def keyboard(self) -> "Any":
        """What select can wait for and read_line reads, None without a stdin: on Windows a socket that a thread fills."""
        fd = self.stdin()
        if fd < 0 or os.name != "nt":
            return fd if fd >= 0 else None
        import socket
        ours, theirs = socket.socketpair()

        def pump() -> None:
            data = b" "
            while data:
                data = os.read(fd, 1 << 16)
                theirs.sendall(data) if data else theirs.close()
        Background(pump)
        return ours

    def read_line(self, keyboard: "Any") -> "Optional[str]":
        """The next line, None while it is incomplete; EOFError when nothing more will come.

        Read from the descriptor: a buffered read would block, and keep what another program should get.
        """
        data = os.read(keyboard, 1 << 16) if isinstance(keyboard, int) else keyboard.recv(1 << 16)
        self.typed += data
        line, newline, rest = self.typed.partition(b"\n")
        if newline or (line and not data):
            self.typed = rest
            return line.decode("utf-8", "replace").strip()
        if not data:
            raise EOFError
        return None


# ─── 7 Loopback ── the redirect listener (RFC 8252 §7.3); it believes nobody and waits for nobody ────────────────────

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{font:1.1rem/1.6 system-ui,sans-serif;max-width:26rem;margin:20vh auto;padding:0 1rem;text-align:center}}
h1{{font-size:1.6rem;font-weight:600}}h1::before{{content:"{mark}";display:block;font-size:3rem;color:{colour}}}</style>
<h1>{title}</h1><p>{text}</p></html>
"""
SIGNED_IN = PAGE.format(title="Signed in", mark="✓", colour="#2a9d4a", text="You can close this window and return "
                        "to the terminal.")
FAILED = PAGE.format(title="Sign-in failed", mark="✗", colour="#d0453b", text="The terminal says why, and what to "
                     "do next. You can close this window.")
NOT_HERE = PAGE.format(title="Nothing to see here", mark="·", colour="#888", text="The sign-in goes on where it was "
                       "begun. Return to the terminal.")
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


def http_page(status: int, page: str) -> bytes:
    """A whole HTTP response that no cache, frame, script or other origin gets anything from."""
    body = page.encode()
    return ("HTTP/1.1 %d %s\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n"
            "Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n"
            "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n\r\n"
            % (status, REASONS[status], len(body))).encode() + body


def bind(host: str, port: int) -> "socket.socket":
    """A listening socket on a loopback address; OSError if it cannot be had."""
    import socket
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "nt":  # there SO_REUSEADDR would let another program take the port from us
            listener.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE", -5), 1)
        else:  # else a fixed port is refused for a minute after each sign-in; Linux still refuses one in use
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in host:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(128)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def bind_all(host: str, port: int) -> "List[socket.socket]":
    """Sockets for every address of a redirect URI's host; `localhost` means both, and needs no name resolution."""
    import errno
    found: "List[socket.socket]" = []
    for address in ("127.0.0.1", "::1") if host == "localhost" else (host.strip("[]"),):
        try:
            found.append(bind(address, port or (found[0].getsockname()[1] if found else 0)))
        except OSError as error:
            if host != "localhost" or error.errno == errno.EADDRINUSE:  # somebody else would get the callback
                close_all(found)
                raise
    if not found:
        raise OSError(errno.EADDRNOTAVAIL, "no loopback address")
    return found


def close_all(sockets: "Iterable[socket.socket]") -> None:
    for each in sockets:
        each.close()


class Listener:
    """Waits on a loopback redirect URI for the one request whose state is ours; raises OSError if it cannot listen.

    One thread and no HTTP library: idle, slow or hostile connections by the hundred cost it nothing, the oldest
    being dropped when a new one finds no room.
    """

    ROOM, HEAD_LIMIT = 64, 1 << 16  # connections; bytes of a request

    def __init__(self, redirect_uri: str) -> None:
        host, port, path = LOOPBACK_URI.match(redirect_uri).groups()  # type: ignore[union-attr]
        for attempt in range(5):  # port 0 may find one that is free in one family only
            try:
                self.sockets = bind_all(host, int(port or 80))
                break
            except OSError:
                if attempt == 4 or port != "0":
                    raise
        bound = self.sockets[0].getsockname()[1]
        self.redirect_uri = redirect_uri.replace(":0", ":%d" % bound, 1) if port == "0" else redirect_uri
        self.hosts = ("%s:%d" % (host, bound),) + ((host,) if bound == 80 else ())
        self.path = path or "/"  # an empty path comes back as "/"
        self.heads: "Dict[socket.socket, bytes]" = {}  # connections, oldest first, and what each has sent
        self.caller: "Optional[socket.socket]" = None
        self.ignored: "List[str]" = []

    def sources(self) -> "List[socket.socket]":
        """What to wait for."""
        return self.sockets + list(self.heads)

    def step(self, ready: "Iterable[Any]", is_ours: "Callable[[Json], bool]") -> "Optional[Json]":
        """Serves the sockets that are ready; the parameters of the authorization response once it is there."""
        for source in ready:
            if source in self.heads:
                params = self.read(source, is_ours)
                if params:
                    self.caller = source
                    return params
        for source in ready:
            if source in self.sockets:
                self.accept(source)
        return None

    def accept(self, source: "socket.socket") -> None:
        if len(self.heads) >= self.ROOM:
            self.drop(next(iter(self.heads)))
        try:
            connection = source.accept()[0]
        except BlockingIOError:
            return
        except OSError:  # out of descriptors: somebody has to go
            if self.heads:
                self.drop(next(iter(self.heads)))
            else:
                time.sleep(0.05)
            return
        connection.setblocking(False)
        self.heads[connection] = b""

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
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        head = self.heads[connection] = self.heads[connection] + data
        if data and b"\r\n\r\n" not in head and len(head) < self.HEAD_LIMIT:
            return None
        if not data:
            self.drop(connection)
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
        lines = head.split("\r\n")
        match = re.match(r"([A-Z]+) (/[!-~]*) HTTP/1\.[01]\Z", lines[0])
        if not match or match.group(1) != "GET":
            return (405 if match else 400), None, "a request that was no GET"
        try:
            headers = unique((name.lower(), value.strip()) for name, _, value in (x.partition(":") for x in lines[1:]))
            path, _, query = match.group(2).partition("?")
            if headers.get("host") not in self.hosts:  # DNS rebinding
                return 400, None, "a request for host %s" % visible(headers.get("host"), 80)
            if path != self.path:  # favicon.ico and the like
                return 404, None, ""
            if headers.get("sec-fetch-mode", "navigate") != "navigate":  # a script or an image of some page
                return 400, None, "a request from inside a page"
            params = parse_form(query)
        except ValueError as error:
            return 400, None, "a request in which %s" % visible(error, 80)
        if not (params.get("code") or params.get("error")) or not is_ours(params):
            error = params.get("error")
            return 400, None, "an answer without our state" + (" (error %s)" % visible(error, 80) if error else "")
        return 200, params, ""

    def answer(self, signed_in: bool) -> None:
        """Tells the browser how it ended."""
        if self.caller:
            self.caller.settimeout(2)
            self.drop(self.caller, http_page(200, SIGNED_IN) if signed_in else http_page(400, FAILED))
            self.caller = None

    def close(self) -> None:
        close_all(self.sources())


LOOPBACK_URI = re.compile(r"http://(127\.0\.0\.1|localhost|\[::1\])(?::([0-9]{1,5}))?(/[^?#\s]*)?(?:\?[^#\s]*)?\Z")


# ─── 8 Flows ── the conversations with an authorization server; only here protocol, HTTP and terminal meet ───────────

class NotOffered(AuthError):
    """The flow cannot be had here: the next one may."""


class Server:
    """An authorization server as one client sees it."""

    def __init__(self, settings: "Json", metadata: "Json", http: Http) -> None:
        self.settings, self.metadata, self.http = settings, metadata, http

    def endpoint(self, name: str) -> str:
        return endpoint(self.settings, self.metadata, name)

    def issuer(self) -> str:
        """In the server's own spelling where it is known: that is what the ID token carries."""
        return str(self.metadata.get("issuer") or self.settings.get("issuer") or "")

    def discover(self) -> None:
        """Asks both well-known addresses at once and merges what they say; OpenID Connect's wins."""
        issuer = self.settings.get("issuer", "")
        if not issuer:
            return
        asked = [Background(lambda url=url: self.http.send("GET", url))  # type: ignore[misc]
                 for url in discovery_addresses(issuer)]
        answers = [each.result(HTTP_TIMEOUT + 1) for each in asked]
        documents = [answer.members() if answer.status == 200 else None for answer in answers]
        self.metadata = read_metadata(issuer, documents)
        if self.metadata or self.endpoint("token_endpoint"):
            return
        others = [visible(document["issuer"]) for document in documents if document and document.get("issuer")]
        if others:
            raise InvalidResponse("the metadata of %s is that of another issuer; use --issuer %s if you trust it"
                                  % (issuer, others[0]))
        statuses = " and ".join("%s (HTTP %d)" % (answer.url, answer.status) for answer in answers)
        failure = Unreachable if any(answer.status >= 500 for answer in answers) else InvalidResponse
        raise failure("no metadata at %s; check --issuer, or name the endpoints with --authorization-endpoint and "
                      "--token-endpoint" % statuses)

    def post(self, name: str, params: "Json", timeout: float = HTTP_TIMEOUT) -> Response:
        """Sends the form, with who we are, to the endpoint of that name."""
        url = self.endpoint(name)
        if not url:
            raise UsageError("no %s is known; name one with --%s, or an --issuer" % (name, name.replace("_", "-")))
        headers, who = client_authentication(self.settings, self.metadata, self.assertion())
        return self.http.send("POST", url, {**params, **who}, headers, timeout)

    def assertion(self) -> str:
        """The JWT that names this workload, read afresh each time: whoever issues it replaces the file (RFC 7523)."""
        path = self.settings.get("client_assertion_file")
        if not path:
            return ""
        jwt = read_text(path, "--client-assertion-file")
        if not re.match(r"[\w.-]+\Z", jwt, re.ASCII):
            raise UsageError("%s holds no JWT; check --client-assertion-file" % visible(path))
        return jwt

    def accept(self, answer: "Json", nonce: str = "") -> "Json":
        """The token response, once it has been checked."""
        token = read_token(answer)
        check_id_token(token, self.settings, self.issuer(), time.time(), nonce)
        return token

    def authorization_address(self, request: "Json", timeout: float) -> str:
        """What the browser opens: with PAR (RFC 9126) the request goes ahead of it, and out of sight of `ps`."""
        if self.endpoint("pushed_authorization_request_endpoint"):
            answer = read_answer(self.post("pushed_authorization_request_endpoint", request, timeout))
            if not isinstance(answer.get("request_uri"), str):
                raise InvalidResponse("the pushed authorization response has no request_uri; ask the provider")
            request = {"client_id": request["client_id"], "request_uri": answer["request_uri"]}
        return with_query(self.endpoint("authorization_endpoint"), request)

    def revoke(self, token: "Json") -> str:
        """RFC 7009, the refresh token first, as well as it can be done; what went wrong, "" if nothing did."""
        if not self.endpoint("revocation_endpoint"):
            return "the provider has no revocation endpoint: the tokens were only forgotten here"
        for name in ("refresh_token", "access_token"):
            if token.get(name):
                try:
                    response = self.post("revocation_endpoint", {"token": token[name], "token_type_hint": name}, 10)
                    if response.status != 200:
                        read_answer(response)
                except AuthError as error:
                    return "the tokens were forgotten here, but not revoked: %s" % error
        return ""

    def userinfo(self, token: "Json") -> "Json":
        """OpenID Connect Core 5.3; a signed answer (5.3.2) is shown as its claims."""
        url = self.endpoint("userinfo_endpoint")
        if not url:
            raise UsageError("no userinfo_endpoint is known; name one with login --userinfo-endpoint")
        response = self.http.send("GET", fill(url, token), headers={"Authorization": "Bearer " + token["access_token"]})
        try:
            claims = decode_jwt(response.body.decode("ascii", "replace").strip())[1]
        except ValueError:
            claims = read_answer(response)
        subject = claims_of(token).get("sub")
        if subject and claims.get("sub", subject) != subject:  # 5.3.2: it MUST NOT be used
            raise InvalidResponse("the userinfo is about somebody else (sub %s, not %s); sign in again" % (
                visible(claims["sub"], 80), visible(subject, 80)))
        return claims


def read_text(path: str, what: str) -> str:
    """The stripped text of a small file, "-" for stdin."""
    try:
        if path == "-":
            return sys.stdin.read(BODY_LIMIT).strip()
        with open(path, encoding="utf-8") as file:
            return file.read(BODY_LIMIT).strip()
    except (AttributeError, OSError, ValueError) as error:
        raise UsageError("%s cannot be read from %s: %s" % (
            what, visible(path), getattr(error, "strerror", None) or "it is not text")) from None


def read_pasted(text: str) -> "Json":
    """The parameters in what the person pasted: the whole address, its query alone, or a bare code; else ValueError."""
    text = text.strip().strip("<>'\"")
    if not re.match(r"[!-~]+\Z", text):
        raise ValueError("nothing usable")
    if re.search(r"(^|[?&#])(code|error)=", text):
        return parse_form(re.split("[?#]", text, 1)[-1].split("#")[0])
    if "://" in text:
        raise ValueError("no code in it")
    return {"code": text}


def next_poll(no: ErrorResponse, interval: float) -> float:
    """Seconds to the next poll (RFC 8628 §3.5), judged by the code and not by the status; raises what ends it."""
    if no.error == "authorization_pending":
        return interval
    if no.error == "slow_down" or no.status == 429:  # authentik's 429 is empty
        return min(max(interval + 5, no.retry_after), 60)
    if no.error in DENIED:
        raise ErrorResponse("the sign-in was denied: %s" % no, no.error, no.error_description, no.error_uri, no.status)
    if no.error in OVER:
        raise LoginRequired("the code ran out or was used already: %s; run: %s login" % (no, COMMAND))
    if no.passing or not no.error:
        return min(interval * 2, 60)
    raise no


class SignIn:
    """One sign-in by whichever flow, until `timeout` seconds are over; `keep` gets the tokens once they are there."""

    def __init__(self, server: Server, terminal: Terminal, timeout: float, open_browser: bool,
                 keep: "Callable[[str, Json], None]") -> None:
        self.server, self.settings, self.terminal, self.keep = server, server.settings, terminal, keep
        self.timeout, self.end, self.bare = timeout, time.monotonic() + timeout, ""
        self.argv, self.reason = terminal.browser() if open_browser else ([], "--no-browser was given")
        self.listen_only = not open_browser

    def left(self) -> float:
        return self.end - time.monotonic()

    def run(self, flow: str) -> None:
        """Signs in by the flow that was asked for; `auto` takes the first that can be had here and says which."""
        flows = {"browser": self.browser, "device": self.device, "paste": self.paste,
                 "client-credentials": self.client_credentials}
        if flow != "auto":
            return flows[flow]()
        ci = nobody_there(os.environ)
        if ci or not (self.argv or self.terminal.interactive()):
            raise LoginRequired("nobody can sign in here (%s); use --flow client-credentials, or ask for --flow "
                                "device, paste or browser" % ("%s is set" % ci if ci else self.reason))
        order = (["browser"] if self.argv or self.listen_only else []) + ["device", "paste"]
        for name in order:
            others = " or ".join(other for other in flows if other != name)
            self.terminal.note("Signing in by %s: %s. For another way: --flow %s." % (name, self.reason, others))
            try:
                return flows[name]()
            except NotOffered as error:
                if name == "paste":
                    raise
                self.reason = str(error)

    def listen(self) -> "Optional[Listener]":
        """A listener on the first redirect URI that can be had, None where none of them is on this machine."""
        trouble = ""
        for uri in self.settings["redirect_uri"]:
            if LOOPBACK_URI.match(uri):
                try:
                    return Listener(uri)
                except OSError as error:
                    trouble = "nothing can listen on %s: %s" % (uri, error.strerror or error)
        if not trouble:
            return None
        error = NotOffered(trouble + "; end what does, or name another --redirect-uri")
        error.exit_code = Unreachable.exit_code
        raise error

    def browser(self) -> None:
        """Authorization code with PKCE over a loopback redirect (RFC 8252): listen, then open the address."""
        self.authorize("browser", self.listen(), self.argv)

    def paste(self) -> None:
        """The same, but the person carries the redirected address here."""
        self.authorize("paste", None, [])

    def authorize(self, flow: str, listener: "Optional[Listener]", argv: "List[str]") -> None:
        """1 build the address, 2 show and open it, 3 wait for the answer, 4 exchange the code, 5 tell the browser."""
        signed_in = False
        try:
            if not self.server.endpoint("authorization_endpoint"):
                raise NotOffered("the provider has no authorization_endpoint; try --flow device")
            attempt = Attempt("openid" in words(self.settings.get("scope")), self.settings.get("pkce", True))
            redirect_uri = listener.redirect_uri if listener else unheard(self.settings["redirect_uri"][0])
            request = authorization_request(self.settings, redirect_uri, attempt)
            address = self.server.authorization_address(request, min(self.left(), HTTP_TIMEOUT))
            self.terminal.say("To sign in, open this address%s:\n\n    %s\n" % (
                "" if listener else " on any machine", address))
            if argv:
                self.terminal.open_browser(argv, address)
            params = self.wait(listener, attempt, redirect_uri)
            required = bool(self.server.metadata.get("authorization_response_iss_parameter_supported"))
            code = read_callback(params, self.server.issuer(), required and "state" in params)
            answer = read_answer(self.server.post("token_endpoint", {
                "grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri,
                "code_verifier": attempt.code_verifier, "resource": self.settings.get("resource")}))
            self.keep(flow if listener or flow == "paste" else "paste", self.server.accept(answer, attempt.nonce))
            signed_in = True
        finally:
            self.terminal.wipe()
            if listener:
                listener.answer(signed_in)
                listener.close()

    def wait(self, listener: "Optional[Listener]", attempt: Attempt, redirect_uri: str) -> "Json":
        """The authorization response, out of the browser or pasted; Unreachable when time runs out."""
        from select import select
        keyboard = self.terminal.keyboard() if not listener or self.terminal.typing() else None
        if not listener:
            self.terminal.say("Then paste here the address that the browser ends at (%s…), and press Enter." %
                              (redirect_uri or "or the code that it shows"))
        while self.left() > 0 and (listener or keyboard is not None):
            self.terminal.countdown("the browser" if listener else "the address", self.left())
            sources = (listener.sources() if listener else []) + ([keyboard] if keyboard is not None else [])
            ready = select(sources, [], [], max(0, min(SLICE, self.left())))[0]
            params = listener.step(ready, attempt.owns) if listener else None
            if keyboard is not None and keyboard in ready and not params:
                try:
                    params = self.pasted(self.terminal.read_line(keyboard), attempt)
                except EOFError:
                    keyboard = None
            if params:
                self.terminal.wipe()
                return params
        if self.left() > 0:
            raise LoginRequired("nothing was pasted, and stdin has ended; run: %s login where somebody can" % COMMAND)
        ignored = " Ignored meanwhile: %s." % "; ".join(listener.ignored) if listener and listener.ignored else ""
        raise Unreachable("nobody signed in within %d s.%s If the browser showed an error page, register redirect URI %s "
                          "for client %s at the provider; or try --flow device" % (
                              self.timeout, ignored, redirect_uri, visible(self.settings["client_id"], 100)))

    def pasted(self, text: "Optional[str]", attempt: Attempt) -> "Optional[Json]":
        """The parameters in a pasted line if they are of this sign-in; else the person is told, and the wait goes on."""
        if not text:
            return None
        if self.bare:
            bare, self.bare = self.bare, ""
            if text.lower() in ("y", "yes"):
                return {"code": bare}
        try:
            params = read_pasted(text)
        except ValueError as error:
            self.terminal.say("That is no such address (%s). Paste all of it, from http to the end." % error)
            return None
        if params.get("code") and "state" not in params:
            self.bare = params["code"]
            self.terminal.say("A code alone does not tell which sign-in it belongs to. If you yourself got it by opening "
                              "the address above, type yes:")
            return None
        if not attempt.owns(params):
            self.terminal.say("That address belongs to another sign-in. Open the address above, and paste its result.")
            return None
        return params

    def device(self) -> None:
        """RFC 8628: 1 ask for a code, 2 show it, 3 poll until the person has decided."""
        if not self.server.endpoint("device_authorization_endpoint"):
            raise NotOffered("the provider offers no device flow")
        try:
            answer = read_answer(self.server.post("device_authorization_endpoint", extras(self.settings)))
        except ErrorResponse as no:
            if no.status in (401, 403, 404, 422) or no.error in ("unauthorized_client", "device_flow_disabled"):
                raise NotOffered("the provider does not offer the device flow to this client: %s" % no) from None
            raise
        device = read_device_response(answer)
        self.show(device)
        token = self.poll(device)
        self.keep("device", self.server.accept(token))

    def show(self, device: "Json") -> None:
        """The code is shown even when the complete address is opened: the person compares it (RFC 8628 §3.3.1)."""
        complete = device.get("verification_uri_complete")
        self.terminal.say("To sign in, open %s on any device and enter the code:\n\n    %s\n" % (
            device["verification_uri"], visible(device["user_code"], 40)))
        if complete:
            self.terminal.say("Or open this address, which holds it already:\n\n    %s\n" % complete)
        if isinstance(device.get("message"), str):  # Entra
            self.terminal.note("The provider says: " + visible(device["message"]))
        self.terminal.say("Only enter the code if you have started this sign-in yourself.")
        if self.argv:
            self.terminal.open_browser(self.argv, complete or device["verification_uri"])

    def poll(self, device: "Json") -> "Json":
        """The token response, at the first poll after the approval; never two polls within an interval."""
        interval, end = device["interval"], min(self.end, time.monotonic() + device["expires_in"])
        request = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": device["device_code"],
                   "resource": self.settings.get("resource")}
        while time.monotonic() + interval < end:
            self.pause(interval, end)
            try:
                timeout = max(1.0, min(HTTP_TIMEOUT, end - time.monotonic()))
                return read_answer(self.server.post("token_endpoint", request, timeout))
            except ErrorResponse as no:
                interval = next_poll(no, interval)
            except (Unreachable, InvalidResponse) as error:  # RFC 8628 §3.5: more slowly
                self.terminal.trace(str(error))
                interval = min(interval * 2, 60)
            finally:
                self.terminal.wipe()
        if end < self.end:
            raise LoginRequired("the code ran out before it was entered; run: %s login --device" % COMMAND)
        raise Unreachable("nobody signed in within %d s; run: %s login --device" % (self.timeout, COMMAND))

    def pause(self, seconds: float, end: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.terminal.countdown("your approval", end - time.monotonic())
            left = max(0, until - time.monotonic())
            time.sleep(min(1, left) if self.terminal.interactive() else left)

    def client_credentials(self) -> None:
        """RFC 6749 §4.4: the program itself, no person."""
        answer = read_answer(self.server.post("token_endpoint", client_credentials(self.settings)))
        self.keep("client-credentials", self.server.accept(answer))


def client_credentials(settings: "Json") -> "Json":
    return {"grant_type": "client_credentials", **extras(settings)}


def unheard(redirect_uri: str) -> str:
    """A redirect URI that nobody listens on, for a browser elsewhere: port 0 becomes one from the dynamic range."""
    from secrets import randbelow
    match = LOOPBACK_URI.match(redirect_uri)
    return redirect_uri.replace(":0", ":%d" % (49152 + randbelow(16384)), 1) if match and match.group(2) == "0" \
        else redirect_uri


SLICE = 0.2 if os.name == "nt" else 1.0  # seconds between looks at the clock; Ctrl-C ends select at once elsewhere


# ─── 9 Token file ── one JSON file a profile; nothing is lost in it and nobody else reads it ─────────────────────────

VERSION = 1
NEW = {"version": VERSION, "settings": {}, "metadata": {}, "token": {}, "scope": "", "expires_at": None}
MUTEXES: "Dict[str, Any]" = {}  # where flock is per process (NFS), threads need one as well
PROFILE = re.compile(r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(?:\.|\Z))[A-Za-z0-9][A-Za-z0-9._@+-]{0,119}\Z")


def flags(*names: str) -> int:
    """The os.open flags of these names that this system knows."""
    return sum(getattr(os, name, 0) for name in names + ("O_CLOEXEC", "O_NOFOLLOW", "O_BINARY"))


def lock_now(descriptor: int) -> bool:
    """Whether the exclusive lock was had; a file system without locks counts as yes."""
    try:
        import fcntl
    except ImportError:
        import msvcrt
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # lockf's lock goes when any descriptor is closed
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def sync(descriptor: int) -> None:
    """fsync, where there is one; a full disk is an error, a file system that cannot is none."""
    import errno
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data):]


@contextmanager
def signals_held() -> "Iterator[None]":
    """Ctrl-C and SIGTERM wait until the block is done, the second one not; ones of a thread never come here.

    Recorded rather than masked: pthread_sigmask does not defer Ctrl-C once another thread runs.
    """
    import signal
    caught: "List[int]" = []
    before: "Dict[int, Any]" = {}

    def record(number: int, frame: "Any") -> None:
        caught.append(number)
        signal.signal(number, before[number] or signal.SIG_DFL)

    try:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                number = getattr(signal, name)
                before[number] = signal.getsignal(number)
                signal.signal(number, record)
    except ValueError:  # not the main thread
        before.clear()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for number in caught:
            if callable(before[number]):
                before[number](number, None)
            elif before[number] != signal.SIG_IGN:
                os.kill(os.getpid(), number)


class TokenFile:
    """A profile on disk. Reading takes no lock; whoever writes holds it, and has read again under it."""

    SPARE = 1 << 16  # bytes set aside for the answer to come, beside what is there

    def __init__(self, path: str) -> None:
        self.path, self.descriptor = path, -1

    def unusable(self, why: str) -> UsageError:
        return UsageError("the token file %s cannot be used: %s; move it away, then run: %s login" % (
            visible(self.path), visible(why), COMMAND))

    def read_bytes(self) -> "Optional[bytes]":
        """What is in the file, None if there is none; UsageError if it is no plain file of ours."""
        import stat
        try:
            descriptor = os.open(self.path, os.O_RDONLY | flags("O_NONBLOCK"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.unusable("it is a symbolic link" if os.path.islink(self.path) else error.strerror or "") from None
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise self.unusable("it is no plain file")
            if hasattr(os, "getuid") and facts.st_uid not in (os.getuid(), 0):
                raise self.unusable("it belongs to somebody else")
            if facts.st_size > 4 * BODY_LIMIT:
                raise self.unusable("it is too large")
            return os.read(descriptor, facts.st_size + 1)
        finally:
            os.close(descriptor)

    def read(self) -> "Optional[Json]":
        """The profile, None if there is none; UsageError names a file that cannot be used."""
        data = self.read_bytes()
        if data is None:
            return None
        try:
            record = parse_json(data)
        except ValueError as error:
            raise self.unusable("it is damaged (%s)" % error) from None
        if not isinstance(record, dict) or not all(
                isinstance(record.get(name), type(value)) for name, value in NEW.items() if value is not None):
            raise self.unusable("it is not one of cliauth's")
        if record["version"] != VERSION:
            raise self.unusable("it is of version %s, and this cliauth knows version %d" % (record["version"], VERSION))
        return record

    def make_folder(self) -> None:
        """The folder, and those above it that are missing, for their owner alone."""
        missing, folder = [], os.path.dirname(os.path.abspath(self.path))
        while not os.path.isdir(folder) and folder != os.path.dirname(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for folder in reversed(missing):
            try:
                os.mkdir(folder, 0o700)
                os.chmod(folder, 0o700)  # whatever the umask
            except FileExistsError:
                pass  # a sibling was quicker

    @contextmanager
    def locked(self) -> "Iterator[None]":
        """Alone among threads and processes; Unreachable when whoever holds the lock keeps it."""
        from threading import Lock
        end, mutex = time.monotonic() + LOCK_TIMEOUT, MUTEXES.setdefault(self.path, Lock())
        busy = Unreachable("another process holds %s.lock for more than %d s; end it, then try again" % (
            visible(self.path), LOCK_TIMEOUT))
        if not mutex.acquire(timeout=LOCK_TIMEOUT):
            raise busy
        try:
            with self.writing():
                self.make_folder()
                descriptor = os.open(self.path + ".lock", os.O_RDWR | os.O_CREAT | flags(), 0o600)
            try:
                while not lock_now(descriptor):
                    if time.monotonic() > end:
                        raise busy
                    time.sleep(0.03)
                yield
            finally:
                os.close(descriptor)  # and with it the lock; the file stays, or two would hold two of them
        finally:
            mutex.release()

    @contextmanager
    def writing(self) -> "Iterator[None]":
        """A failure to write, in words."""
        try:
            yield
        except OSError as error:
            raise UsageError("%s cannot be written: %s; make room there, or name another place with --token-file "
                             "or CLIAUTH_HOME" % (visible(self.path), error.strerror or error)) from None

    @contextmanager
    def staged(self) -> "Iterator[None]":
        """Makes sure that the next save() can succeed, before a refresh token is spent: the room is taken on disk.

        One fixed name, since the lock is held: what a crash left behind is replaced, never followed.
        """
        temporary = self.path + ".new"
        with self.writing():
            self.read_bytes()
            try:
                os.unlink(temporary)
            except FileNotFoundError:
                pass
            self.descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags(), 0o600)
        try:
            with self.writing():
                if hasattr(os, "fchmod"):  # umask 777
                    try:
                        os.fchmod(self.descriptor, 0o600)
                    except PermissionError:
                        pass
                size = os.path.getsize(self.path) if os.path.exists(self.path) else 0
                write_all(self.descriptor, b" " * (size + self.SPARE))
                sync(self.descriptor)
            yield
        finally:
            if self.descriptor >= 0:
                os.close(self.descriptor)
                self.descriptor = -1
                os.unlink(temporary)

    def save(self, data: bytes) -> None:
        """Replaces the file by one with this content, at once or not at all; inside staged(), once."""
        with self.writing():
            descriptor, self.descriptor = self.descriptor, -1
            try:
                os.lseek(descriptor, 0, os.SEEK_SET)
                write_all(descriptor, data)
                os.ftruncate(descriptor, len(data))
                sync(descriptor)
            finally:
                os.close(descriptor)
            self.replace()

    def replace(self) -> None:
        import errno
        for attempt in range(100):
            try:
                os.replace(self.path + ".new", self.path)
                break
            except OSError as error:
                if error.errno == errno.EBUSY:  # a bind mount: it cannot be replaced, only filled
                    with open(self.path + ".new", "rb") as new, open(self.path, "r+b") as old:
                        old.truncate(old.write(new.read()))
                        sync(old.fileno())
                    os.unlink(self.path + ".new")
                    return
                if os.name != "nt" or attempt == 99:  # on Windows not while somebody reads it
                    raise
                time.sleep(0.02)
        if hasattr(os, "O_DIRECTORY"):
            folder = os.open(os.path.dirname(os.path.abspath(self.path)), os.O_RDONLY | os.O_DIRECTORY)
            try:
                sync(folder)
            finally:
                os.close(folder)

    def store(self, record: "Json") -> None:
        """staged() and save() in one."""
        with self.staged():
            self.save(dump_json(record))


def home() -> str:
    """The folder of the token files; UsageError where there is none to be had. Never relative, never "~"."""
    if os.environ.get("CLIAUTH_HOME"):
        return os.path.abspath(os.environ["CLIAUTH_HOME"])
    for name in ("APPDATA", "XDG_CONFIG_HOME") if os.name == "nt" else ("XDG_CONFIG_HOME",):
        if os.path.isabs(os.environ.get(name, "")):
            return os.path.join(os.environ[name], APP)
    person = os.environ.get("HOME", "") if os.name != "nt" else os.path.expanduser("~")
    if not os.path.isabs(person):
        try:
            import pwd
            person = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):  # a random uid, as on OpenShift
            person = ""
    if not os.path.isabs(person):
        raise UsageError("there is no home folder to keep tokens in; set CLIAUTH_HOME or XDG_CONFIG_HOME to one")
    return os.path.join(person, ".config", APP)


def profile_path(name: str) -> str:
    if not PROFILE.match(name):
        raise UsageError("no profile can be called %s; use letters, digits and . _ @ + -" % visible(name, 80))
    return os.path.join(home(), name + ".json")


def profile_names() -> "List[str]":
    try:
        names = os.listdir(home())
    except FileNotFoundError:
        return []
    return sorted(name[:-5] for name in names if name.endswith(".json") and PROFILE.match(name[:-5]))


def current_profile() -> str:
    """The profile that `login` or `switch` made the current one, "" if none is."""
    data = TokenFile(os.path.join(home(), "current")).read_bytes() or b""
    name = data.decode("ascii", "replace").strip()
    return name if PROFILE.match(name) else ""


def make_current(name: str) -> None:
    file = TokenFile(os.path.join(home(), "current"))
    with file.locked(), file.staged():
        file.save(name.encode() + b"\n")


# ─── 10 Client ── what programs use; only here flows and token file meet ─────────────────────────────────────────────

SERVER = ("issuer", "provider", "authorization_endpoint", "token_endpoint", "device_authorization_endpoint",
          "revocation_endpoint", "userinfo_endpoint", "end_session_endpoint")
CREDENTIALS = ("client_secret", "client_auth", "client_assertion_file", "client_cert", "client_key")
OPTIONS = SERVER + CREDENTIALS + ("client_id", "scope", "audience", "param", "resource", "redirect_uri", "pkce", "ca_file")


def same(one: "Any", other: "Any") -> bool:
    """Whether two settings name the same: issuers do so without their trailing slash."""
    return str(one or "").rstrip("/") == str(other or "").rstrip("/")


def overlay(lower: "Json", upper: "Json") -> "Json":
    """Settings over settings. Another server leaves nothing of the first one's, another client none of its secrets."""
    names = ("issuer", "provider", "token_endpoint")
    gone: "Tuple[str, ...]" = ()
    if any(lower.get(name) for name in names) and any(
            upper.get(name) and not same(upper[name], lower.get(name)) for name in names):
        gone = SERVER + CREDENTIALS
    elif upper.get("client_id") and upper["client_id"] != lower.get("client_id"):
        gone = CREDENTIALS
    return {**{name: value for name, value in lower.items() if name not in gone}, **upper}


def with_provider(settings: "Json") -> "Json":
    """The settings with the row of their provider under them; an --issuer takes the place of the row's site."""
    name = settings.get("provider")
    if not name:
        return settings
    if name not in PROVIDERS:
        raise UsageError("no provider is called %s; there are %s, any other takes --issuer" % (
            visible(name, 40), ", ".join(PROVIDERS)))
    row = dict(PROVIDERS[name])
    site = row.pop("site", "") or row["issuer"]
    if settings.get("issuer") and not same(settings["issuer"], site):  # what lies elsewhere belongs to the row's site
        site, row = settings["issuer"], {key: value for key, value in row.items() if "://" not in str(value)}
    row.update((key, site.rstrip("/") + value) for key, value in row.items() if str(value).startswith("/"))
    return {**row, **settings, "param": {**row.get("param", {}), **settings.get("param", {})}}


def presets() -> "Json":
    named = {"issuer": ISSUER, "provider": PROVIDER, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
             "scope": SCOPE, "audience": AUDIENCE, **SETTINGS}
    return {name: value for name, value in named.items() if value not in ("", None)}


def environment() -> "Json":
    names = ("issuer", "provider", "client_id", "client_secret", "scope", "audience")
    return {name: os.environ["CLIAUTH_" + name.upper()] for name in names if os.environ.get("CLIAUTH_" + name.upper())}


def belongs(stored: "Json", named: "Json") -> bool:
    """Whether a profile with these settings is of the server and the client that are named, if any are."""
    named = with_provider(named)
    return all(same(stored.get(name), named[name]) for name in ("issuer", "token_endpoint", "client_id") if named.get(name))


def checked(settings: "Json") -> "Json":
    """Settings that a sign-in can begin with; UsageError says what is missing or cannot be."""
    if not settings.get("issuer") and not settings.get("token_endpoint"):
        raise UsageError("which provider? name one: login --issuer URL --client-id ID, or --provider %s" % "|".join(PROVIDERS))
    if not settings.get("client_id"):
        raise UsageError("no client id; register a client at the provider and name it with --client-id")
    for name in SERVER[:1] + SERVER[2:]:
        if settings.get(name):
            split_url(re.sub(r"\{[\w.]+\}", "x", settings[name]), "--" + name.replace("_", "-"))
    taken = [name for name in settings["param"] if name in PROTOCOL]
    if taken:
        raise UsageError("--param cannot set %s, which the protocol needs; leave it out" % visible(taken[0]))
    secret = settings.get("client_secret")
    if not secret and (settings.get("client_auth") in ("basic", "post") or not settings["pkce"]):
        raise UsageError("%s needs a client secret; give --client-secret-file or CLIAUTH_CLIENT_SECRET" % (
            "--client-auth" if settings["pkce"] else "--no-pkce"))
    return settings


def profile_name(settings: "Json") -> str:
    """The name of a profile that nobody named: host_client, with a hash where that could mean two."""
    place = str(settings.get("issuer") or settings.get("token_endpoint") or settings.get("provider")).rstrip("/")
    host, client_id = re.sub("^https://", "", place), str(settings.get("client_id", ""))
    name = "%s_%s" % (host, client_id)
    plain = re.sub("[^a-z0-9.@-]+", "-", re.sub("[/:].*", "", re.sub("^https?://", "", place)).lower()).strip("-.") \
        + "_" + re.sub("[^a-z0-9._@-]+", "-", client_id.lower())
    if plain != name or len(plain) > 100:
        from hashlib import sha256
        plain = "%s-%s" % (plain[:90], sha256(("%s %s" % (place, client_id)).encode()).hexdigest()[:8])
    return plain


def alive(record: "Optional[Json]", seconds: float = 0, name: str = "access_token") -> bool:
    """Whether the profile holds that token, it can stand in a header, and has so many seconds left as far as is known."""
    token = record["token"].get(name) if record else None
    if not record or not isinstance(token, str) or not re.match(r"[!-~]+\Z", token):
        return False
    end = number(record.get("expires_at") if name == "access_token" else claims_of(record["token"]).get("exp"))
    return end is None or end > time.time() + seconds


def holding(record: "Json", token: "Json") -> "Json":
    """The profile with this token response in it."""
    return {**record, "token": token, "scope": granted(token, record["settings"].get("scope", "")),
            "expires_at": expires_at(token, time.time())}


def described(profile: str, record: "Optional[Json]") -> "Json":
    """What `status --json` prints."""
    record = record or NEW
    token, settings = record["token"], record["settings"]
    claims = claims_of(token)
    user = token.get("user") if isinstance(token.get("user"), dict) else {}
    named = [place.get(name) for name in ("email", "name", "sub", "id") for place in (claims, user)]
    received, ends = number(record.get("expires_at")), number(token.get("refresh_token_expires_in") or
                                                              token.get("refresh_expires_in"))
    over = ends and received and time.time() > received - (number(token.get("expires_in")) or 0) + ends  # 0 is never
    refreshable = bool(token.get("refresh_token") and not over or
                       token and settings.get("flow") == "client-credentials")
    shown = set(EXPIRY + ("access_token", "refresh_token", "id_token", "token_type", "scope", "scopes"))
    return {"profile": profile, "signed_in": alive(record) or refreshable,
            "account": next((value for value in named if isinstance(value, str) and value), None),
            "issuer": record["metadata"].get("issuer") or settings.get("issuer"),
            "client_id": settings.get("client_id"), "flow": settings.get("flow"), "scope": record["scope"],
            "expires_at": record.get("expires_at"), "refreshable": refreshable, "claims": claims,
            "extra": harmless({name: value for name, value in token.items() if name not in shown})}


def harmless(value: "Any") -> "Any":
    """The value without members whose name speaks of a secret."""
    if isinstance(value, dict):
        return {name: harmless(inner) for name, inner in value.items()
                if not re.search("token|secret|password|key|assertion", name, re.IGNORECASE)}
    return [harmless(inner) for inner in value] if isinstance(value, list) else value


class Client:
    """One person's (or program's) access to one provider: signs in, keeps the tokens, renews them in time.

    client = Client("https://id.example.com", "my-cli", scope="openid offline_access")

    Further settings are those of the token file: client_secret, audience, param={…}, resource=[…], redirect_uri=[…],
    token_endpoint … An environment variable (CLIAUTH_…) gives what is not named here, a preset what neither gives.
    """

    def __init__(self, issuer: str = "", client_id: str = "", scope: str = "", *, profile: str = "",
                 token_file: str = "", terminal: "Optional[Terminal]" = None, **settings: "Any") -> None:
        unknown = [name for name in settings if name not in OPTIONS]
        if unknown:
            raise TypeError("cliauth.Client takes no %s" % unknown[0])
        settings.update(issuer=issuer, client_id=client_id, scope=scope)
        self.options = {name: value for name, value in settings.items() if value not in ("", None, [], {})}
        self.terminal = terminal or Terminal()
        self.profile = profile or os.environ.get("CLIAUTH_PROFILE", "")
        self.path = token_file or os.environ.get("CLIAUTH_TOKEN_FILE", "")
        self.file: "Optional[TokenFile]" = None
        self.seen: "Tuple[Any, Optional[Json]]" = (None, None)

    def named(self) -> "Json":
        """What options and environment name."""
        return overlay(environment(), self.options)

    def locate(self) -> TokenFile:
        """The token file: by its path, by the profile's name, the current profile if it fits, else by server and client."""
        if self.file:
            return self.file
        if self.path:
            self.profile = self.profile or re.sub(r"\.json\Z", "", os.path.basename(self.path))
            self.file = TokenFile(self.path)
            return self.file
        if not self.profile:
            named, current = overlay(presets(), self.named()), current_profile()
            record = TokenFile(profile_path(current)).read() if current else None
            if record and belongs(record["settings"], named):
                self.profile = current
            elif any(named.get(name) for name in ("issuer", "provider", "token_endpoint")):
                self.profile = profile_name(with_provider(named))
            else:
                raise LoginRequired("nobody is signed in; run: %s login --issuer URL --client-id ID" % COMMAND)
        self.file = TokenFile(profile_path(self.profile))
        return self.file

    def hint(self, command: str = "login") -> str:
        """What to type next, for this profile."""
        return "run: %s %s%s" % (COMMAND, command, "" if self.path or not self.profile else " --profile " + self.profile)

    def read(self) -> "Optional[Json]":
        """The profile, read again when its file has changed; LoginRequired if it is not of the server that was named."""
        file = self.locate()
        try:
            facts = os.stat(file.path)
            key: "Any" = (facts.st_mtime_ns, facts.st_ino, facts.st_size)
        except OSError:
            key = None
        if key is None or key != self.seen[0]:
            record, named = file.read(), self.named()
            if record and not belongs(record["settings"], named):
                stored, wanted = ("%s (client %s)" % (visible(s.get("issuer") or s.get("token_endpoint")), visible(
                    s.get("client_id", "any"))) for s in (record["settings"], with_provider(named)))
                raise LoginRequired("profile %s is signed in at %s, not %s; %s" % (
                    self.profile, stored, wanted, self.hint()))
            self.seen = key, record
        return self.seen[1]

    def valid(self, min_ttl: float = 60, name: str = "access_token") -> "Json":
        """The profile with a token that has min_ttl seconds left; what lives is used while it cannot be renewed."""
        record = self.read()
        if record and alive(record, min_ttl, name):
            return record
        if not record or not record["token"]:
            raise LoginRequired("nobody is signed in as %s; %s" % (self.profile, self.hint()))
        try:
            record = self.renew(record)
        except AuthError as error:
            if not alive(record, 0, name):
                raise
            self.terminal.note("cliauth: not renewed: %s" % error)
        return record

    def access_token(self, min_ttl: float = 60, login: bool = False) -> str:
        """An access token that is valid now and for min_ttl seconds if the provider gives any such.

        Stored, refreshed (RFC 6749 §6), or with login=True freshly signed in. Raises LoginRequired where a person is
        needed and login is False, ErrorResponse, InvalidResponse or Unreachable where the refresh went wrong.
        """
        return str(self.usable(min_ttl, login)["access_token"])

    def usable(self, min_ttl: float = 60, login: bool = False, name: str = "access_token") -> "Json":
        """The members of access_token()'s token response, CLIAUTH_ACCESS_TOKEN's if that is set."""
        given = os.environ.get("CLIAUTH_ACCESS_TOKEN")
        if given and name == "access_token":
            if not re.match(r"[!-~]+\Z", given):
                raise UsageError("CLIAUTH_ACCESS_TOKEN holds no token; unset it")
            return {"access_token": given}
        try:
            record = self.valid(min_ttl, name)
        except LoginRequired:
            if not login:
                raise
            self.login()
            record = self.read() or NEW
        return {**record["token"], "expires_at": record["expires_at"], "scope": record["scope"]}

    def __call__(self, request: "Any") -> "Any":
        """Adds the Authorization header (RFC 6750 §2.1) to a request of urllib, requests or httpx; https or loopback only."""
        url = str(getattr(request, "full_url", None) or request.url)
        split_url(url.split("#")[0], "an address that gets the token")
        add = getattr(request, "add_unredirected_header", request.headers.__setitem__)
        add("Authorization", "Bearer " + self.access_token())
        return request

    def refresh(self) -> None:
        """Gets new tokens now; those that a sibling process got in the meantime count. Raises as access_token() does."""
        record = self.read()
        if not record or not record["token"]:
            raise LoginRequired("nobody is signed in as %s; %s" % (self.profile, self.hint()))
        self.renew(record)

    def server(self, record: "Json") -> Server:
        """The server of a profile, discovered if it must be."""
        settings = self.settle(record["settings"])
        server = Server(settings, record["metadata"], Http(settings, self.terminal.trace))
        if not record["metadata"]:
            server.discover()
        return server

    def settle(self, stored: "Json") -> "Json":
        """The settings in force: options over environment over profile over presets over the provider's row."""
        settings = with_provider(overlay(overlay(presets(), stored), self.named()))
        return {"redirect_uri": REDIRECT_URIS, "param": {}, "pkce": True, **settings}

    def renew(self, seen: "Json") -> "Json":
        """1 take the lock, 2 read again: a sibling may have been quicker, 3 take the room for the answer, 4 ask once,
        5 save before anything else, 6 check the rest."""
        file = self.locate()
        with file.locked():
            record = file.read() or NEW
            token = record["token"]
            if alive(record) and token != seen["token"]:
                return record
            if not token:
                raise LoginRequired("signed out in the meantime; %s" % self.hint())
            server = self.server(record)
            request = client_credentials(server.settings)
            if server.settings.get("flow") != "client-credentials":
                if not token.get("refresh_token"):
                    raise LoginRequired("the token has expired and cannot be refreshed; %s" % self.hint())
                request = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"],
                           "resource": server.settings.get("resource")}
            with file.staged(), signals_held():
                try:
                    answer = read_answer(server.post("token_endpoint", request))
                except ErrorResponse as no:
                    return self.refused(no, record, request)
                record = holding({**record, "metadata": server.metadata}, renewed(token, answer))
                file.save(dump_json(record))
            try:
                server.accept(answer)
                before, after = claims_of(token), claims_of(answer)
                if before and after and (before.get("iss"), before["sub"]) != (after.get("iss"), after["sub"]):
                    answer = {}  # OpenID Connect Core 12.2; nothing of this is ours
                    raise InvalidResponse("the refreshed ID token is of somebody else; %s" % self.hint())
            except InvalidResponse:
                kept = {name: answer[name] for name in ("refresh_token",) if alive({"token": answer}, 0, name)}
                file.store({**record, "token": kept, "expires_at": None})
                raise
            return record

    def refused(self, no: ErrorResponse, record: "Json", request: "Json") -> "Json":
        """What a refusal of a refresh means: another's refresh, a dead token, wrong settings, or bad times."""
        file = self.locate()
        if no.passing or no.error == "invalid_client" or "refresh_token" not in request:
            raise no
        if no.error in DEAD:
            again = file.read() or NEW
            if again["token"].get("refresh_token") != request["refresh_token"]:  # where locks do not work
                return again
            token = {name: value for name, value in record["token"].items() if name != "refresh_token"}
            file.save(dump_json({**record, "token": token}))
        raise LoginRequired("the sign-in cannot be refreshed: %s; %s" % (no, self.hint()))

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
        server_settings = checked(self.settle(stored["settings"]))
        with file.locked(), file.staged():
            pass  # what cannot be saved is found before a browser opens
        server = self.server({**stored, "settings": server_settings})

        def keep(used: str, token: "Json") -> None:
            settings = {**server.settings, "flow": used}
            with file.locked():
                file.store(holding({**NEW, "settings": settings, "metadata": server.metadata}, token))
            if not self.path:
                make_current(self.profile)

        if flow == "auto" and server_settings.get("flow") == "client-credentials":
            flow = "client-credentials"
        SignIn(server, self.terminal, timeout, open_browser, keep).run(flow)
        self.report(server_settings)

    def report(self, settings: "Json") -> None:
        """Who is signed in, and what of the wishes was not granted."""
        facts = self.status()
        extra = facts["extra"]
        more = ["%s %s" % (label, visible(extra[name], 80)) for name, label in (
            ("organization_id", "organization"), ("authentication_method", "method")) if extra.get(name)]
        self.terminal.note("Signed in%s at %s%s, until %s (profile %s)." % (
            " as " + visible(facts["account"], 100) if facts["account"] else "", place_of(settings),
            ", " + ", ".join(more) if more else "", when(facts["expires_at"]), self.profile))
        missing = [scope for scope in words(settings.get("scope")) if scope not in words(facts["scope"])]
        if missing and missing != ["offline_access"]:
            self.terminal.note("Not granted: %s. The provider decides; --param prompt=consent asks again." %
                               visible(" ".join(missing)))
        if "offline_access" in words(settings.get("scope")) and not facts["refreshable"]:
            self.terminal.note("No refresh token came, so you will be asked to sign in again. What usually helps: --param "
                               "prompt=consent, or --param access_type=offline.")

    def status(self) -> "Json":
        """Who is signed in, where, how and until when (Unix seconds); no network. The members of `status --json`."""
        return described(self.profile, self.read())

    def userinfo(self) -> "Json":
        """The claims of the userinfo endpoint (OpenID Connect Core 5.3). Raises as access_token() does."""
        return self.server(self.valid()).userinfo(self.usable())

    def logout(self, forget: bool = False) -> None:
        """Revokes the tokens (RFC 7009, as well as can be) and deletes them; with forget=True the settings too."""
        file = self.locate()
        if not os.path.exists(file.path):
            return self.terminal.note("Nobody is signed in as %s." % self.profile)
        with file.locked():
            record = file.read() or NEW
            if record["token"]:
                settings = self.settle(record["settings"])
                trouble = Server(settings, record["metadata"], Http(settings, self.terminal.trace)).revoke(record["token"])
                self.terminal.note("Signed out of %s%s." % (place_of(settings), ", but " + trouble if trouble else ""))
            with file.writing():
                if forget:
                    os.unlink(file.path)
                else:
                    file.store({**record, "token": {}, "scope": "", "expires_at": None})


def place_of(settings: "Json") -> str:
    return visible(settings.get("issuer") or settings.get("token_endpoint"), 200)


def when(unix: "Optional[float]") -> str:
    """A local time for a person."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix)) if unix is not None else "the provider ends it"


# ─── 11 Demo ── an authorization server to throw away: for `demo`, and for tests, those of other programs too ────────

class DemoServer:
    """An OpenID provider on a loopback port that knows one client and one person, and forgives nothing.

    with DemoServer() as server:
        client = Client(server.issuer, server.client_id, token_file=path, terminal=server.terminal())
        client.login("browser")  # or "device": the terminal's browser is server.person

    lifetime: seconds that an access token lives. tell(method, path, names of the parameters, status) is called at each
    request. Codes, verifiers, redirect URIs and refresh tokens are checked, and used once (RFC 9700 §2.1, §4.14).
    """

    client_id, user = "demo", {"sub": "ada", "name": "Ada Lovelace", "email": "ada@example.com"}

    def __init__(self, lifetime: float = 3600, tell: "Callable[[str, str, List[str], int], None]" = lambda *_: None) -> None:
        self.lifetime, self.tell = lifetime, tell
        self.pending: "Dict[str, Json]" = {}    # authorization requests and user codes that wait for the person
        self.granted: "Dict[str, Json]" = {}    # codes and device codes, by what they were granted for
        self.families: "Dict[str, Json]" = {}   # refresh tokens; one used twice ends all of its family
        self.access: "Dict[str, float]" = {}    # access tokens, and when they end

    def __enter__(self) -> "DemoServer":
        from http.server import BaseHTTPRequestHandler, HTTPServer
        from socketserver import ThreadingMixIn
        from threading import Thread
        demo = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                self.reply(path, query)

            def do_POST(self) -> None:
                self.reply(self.path, self.rfile.read(int(self.headers["Content-Length"] or 0)).decode())

            def reply(self, path: str, text: str) -> None:
                try:
                    params = parse_form(text)
                    status, headers, body = demo.answer(self.command, path, params, self.headers)
                except ValueError as error:
                    params, (status, headers, body) = {}, refusal("invalid_request", str(error))
                demo.tell(self.command, path, list(params), status)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), "Cache-Control": "no-store", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: "Any") -> None:
                pass

        class Web(ThreadingMixIn, HTTPServer):
            daemon_threads = True

            def server_bind(self) -> None:  # HTTPServer's looks up this machine's name, which can take a minute
                self.socket.bind(self.server_address)
                self.server_address = self.socket.getsockname()

        self.web = Web(("127.0.0.1", 0), Handler)
        self.issuer = "http://127.0.0.1:%d" % self.web.server_address[1]
        Thread(target=self.web.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: "Any") -> None:
        self.web.shutdown()
        self.web.server_close()

    def answer(self, method: str, path: str, params: "Json", headers: "Any") -> "Reply":
        """Status, headers and body; a test's own server can override it, and call this for the rest."""
        rooms: "Dict[str, Callable[[Json], Reply]]" = {
            "GET /.well-known/openid-configuration": self.configuration, "GET /authorize": self.authorize,
            "POST /decide": self.decide, "GET /device": self.device_page, "POST /token": self.token,
            "POST /device_authorization": self.device_authorization, "POST /revoke": self.revoke}
        room = rooms.get("%s %s" % (method, path))
        if room:
            return room(params)
        if (method, path) != ("GET", "/userinfo"):
            return as_json({"error": "not_found"}, 404)
        token = headers.get("Authorization", "")[len("Bearer "):]
        return as_json(self.user) if self.access.get(token, 0) > time.time() else refusal("invalid_token", status=401)

    def configuration(self, params: "Json") -> "Reply":
        places = {"authorization": "authorize", "token": "token", "userinfo": "userinfo", "revocation": "revoke",
                  "device_authorization": "device_authorization"}
        return as_json({"issuer": self.issuer, "authorization_response_iss_parameter_supported": True,
                        **{name + "_endpoint": self.issuer + "/" + path for name, path in places.items()}})

    def authorize(self, params: "Json") -> "Reply":
        uri = LOOPBACK_URI.match(params.get("redirect_uri", ""))
        if params.get("client_id") != self.client_id or not uri or uri.group(3) != "/callback":
            return refusal("invalid_request", "unknown client or redirect URI")  # RFC 6749 §4.1.2.1: never redirected
        if params.get("response_type") != "code" or params.get("code_challenge_method") != "S256":
            return redirect(params, self.issuer, error="invalid_request")
        return self.page(params)

    def page(self, params: "Json") -> "Reply":
        """Asks the person, whose answer comes back with the number of the request."""
        from secrets import token_urlsafe
        number = token_urlsafe(8)
        self.pending[number] = params
        text = "The demo would like to know who you are.<form method=post action=/decide><input type=hidden name=request " \
               "value=%s><p><button name=decision value=allow>Sign in as %s</button> <button name=decision value=deny>" \
               "Deny</button></form>" % (number, self.user["name"])
        return 200, {"Content-Type": "text/html"}, PAGE.format(title="Demo", mark="◆", colour="#4078c0", text=text).encode()

    def decide(self, params: "Json") -> "Reply":
        from secrets import token_urlsafe
        request, allowed = self.pending.pop(params.get("request", ""), {}), params.get("decision") == "allow"
        if "user_code" in request:
            request["decision"] = "allow" if allowed else "access_denied"
            return 200, {"Content-Type": "text/html"}, (SIGNED_IN if allowed else FAILED).encode()
        if not request or not allowed:
            return redirect(request, self.issuer, error="access_denied") if request else refusal("invalid_request")
        code = token_urlsafe(16)
        self.granted[code] = {**request, "decision": "allow"}
        return redirect(request, self.issuer, code=code)

    def device_authorization(self, params: "Json") -> "Reply":
        from secrets import choice, token_urlsafe
        user_code = "-".join("".join(choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(4)) for _ in range(2))  # RFC 8628 §6.1
        device_code = token_urlsafe(16)
        self.granted[device_code] = self.pending[user_code] = {**params, "user_code": user_code,
                                                               "decision": "authorization_pending"}
        return as_json({"device_code": device_code, "user_code": user_code, "verification_uri": self.issuer + "/device",
                        "verification_uri_complete": "%s/device?user_code=%s" % (self.issuer, user_code),
                        "expires_in": 600, "interval": 1})

    def device_page(self, params: "Json") -> "Reply":
        request = self.pending.pop(params.get("user_code", ""), None)
        return self.page(request) if request else refusal("invalid_request", "no such code")

    def token(self, params: "Json") -> "Reply":
        if params.get("client_id") != self.client_id:
            return refusal("invalid_client", status=401)
        grant = params.get("grant_type", "").rpartition(":")[2]
        if grant == "refresh_token":
            return self.refresh(params.get("refresh_token", ""))
        request = self.granted.get(params.get("code" if grant == "authorization_code" else grant, ""))
        if request and request["decision"] != "allow":
            return refusal(request["decision"])
        if not request or request.pop("spent", False) or not self.proven(grant, request, params):
            return refusal("invalid_grant", "unknown, spent, or asked for in another way")
        request["spent"] = True
        return self.tokens({"scope": request.get("scope", ""), "nonce": request.get("nonce")})

    def proven(self, grant: str, request: "Json", params: "Json") -> bool:
        """RFC 6749 §4.1.3 and RFC 7636 §4.6."""
        from hashlib import sha256
        verifier = base64url(sha256(params.get("code_verifier", "").encode()).digest())
        return grant == "device_code" and "user_code" in request or grant == "authorization_code" and (
            verifier == request.get("code_challenge") and params.get("redirect_uri") == request["redirect_uri"])

    def refresh(self, refresh_token: str) -> "Reply":
        family = self.families.get(refresh_token)
        if not family or family["newest"] != refresh_token:  # stolen or used twice: nobody knows whose the newest is
            (family or {}).update(newest="")
            return refusal("invalid_grant", "unknown, revoked, or used before")
        return self.tokens(family)

    def tokens(self, family: "Json") -> "Reply":
        from secrets import token_urlsafe
        now, access_token = int(time.time()), token_urlsafe(16)
        self.access[access_token] = now + self.lifetime
        family["newest"] = token_urlsafe(16)
        self.families[family["newest"]] = family
        claims = {"iss": self.issuer, "aud": self.client_id, "iat": now, "exp": now + 600, **self.user}
        if family.get("nonce"):
            claims["nonce"] = family["nonce"]
        header, body = (base64url(json.dumps(part).encode()) for part in ({"alg": "RS256"}, claims))
        return as_json({"access_token": access_token, "token_type": "Bearer", "expires_in": self.lifetime,
                        "refresh_token": family["newest"], "scope": family["scope"],
                        "id_token": "%s.%s.%s" % (header, body, base64url(b"the demo signs nothing"))})

    def revoke(self, params: "Json") -> "Reply":
        self.access.pop(params.get("token", ""), None)
        self.families.get(params.get("token", ""), {}).update(newest="")
        return as_json({})

    def person(self, url: str, decision: str = "allow") -> None:
        """Plays the person at the browser: opens the address, and presses the button."""
        from urllib.request import ProxyHandler, build_opener
        browser = build_opener(ProxyHandler({}))  # follows redirects, to the callback too
        page = browser.open(url, timeout=10).read().decode()
        number = page.partition("name=request value=")[2].partition(">")[0]
        browser.open(self.issuer + "/decide", encode_form({"request": number, "decision": decision}).encode(), 10).read()

    def terminal(self, quiet: bool = True, verbose: bool = False) -> Terminal:
        """A terminal whose browser is played by person()."""
        played = Terminal(quiet, verbose)
        played.browser = lambda: (["person"], "the demo plays the person")  # type: ignore[method-assign]
        played.open_browser = lambda argv, url: None if Background(  # type: ignore[method-assign]
            lambda: self.person(url)) else None
        return played


if TYPE_CHECKING:
    Reply = Tuple[int, Dict[str, str], bytes]


def as_json(value: "Json", status: int = 200) -> "Reply":
    return status, {"Content-Type": "application/json"}, dump_json(value)


def refusal(error: str, description: str = "", status: int = 400) -> "Reply":
    return as_json({"error": error, **({"error_description": description} if description else {})}, status)


def redirect(request: "Json", issuer: str, **answer: str) -> "Reply":
    """RFC 6749 §4.1.2, with the iss of RFC 9207."""
    return 302, {"Location": with_query(request["redirect_uri"], {**answer, "state": request.get("state"), "iss": issuer})}, b""


STEPS = {
    "/.well-known/openid-configuration": "Discovery: where are the endpoints?",
    "/authorize": "Authorization: the browser brings code_challenge, state and nonce.",
    "/decide": "The person decides; the redirect carries code, state and iss to the listener.",
    "/token": "Token: a code or refresh_token, and the code_verifier, become tokens.",
    "/device_authorization": "Device authorization: a device_code for the program, a user_code for the person.",
    "/device": "Verification: the person's browser brings the user_code.",
    "/userinfo": "Userinfo: the access_token in the Authorization header.",
    "/revoke": "Revocation: the provider forgets the token.",
}


def run_demo(flow: str, alone: bool, terminal: Terminal) -> None:
    """A whole session against a DemoServer, told on stdout as it happens."""
    from tempfile import TemporaryDirectory

    def tell(method: str, path: str, names: "List[str]", status: int) -> None:
        out("  %-4s %s → %d   %s\n%s" % (method, path, status, STEPS.get(path, ""),
                                       "       %s\n" % " ".join(names) if names else ""))

    with DemoServer(tell=tell) as server, TemporaryDirectory() as folder:
        out("An authorization server for this demo is at %s; it knows one person, %s.\n" % (server.issuer, server.user["name"]))
        player = terminal if terminal.browser()[0] and not alone else server.terminal(terminal.quiet, terminal.verbose)
        client = Client(server.issuer, server.client_id, "openid email offline_access", terminal=player,
                        token_file=os.path.join(folder, "demo.json"))
        for title, work in (
                ("login --flow " + flow, lambda: client.login(flow)),
                ("token (from the file, no request)", client.access_token),
                ("refresh (the refresh_token is used once, and replaced)", client.refresh),
                ("userinfo", lambda: out("  " + json.dumps(client.userinfo()) + "\n")),
                ("logout", client.logout)):
            out("\n$ %s %s\n" % (COMMAND, title))
            work()
    out("\nThat was a real sign-in. The server is gone, and so are the tokens. Now with your provider:\n"
        "%s login --issuer URL --client-id ID\n" % COMMAND)


# ─── 12 Command line ── a translator from words to the rooms above ───────────────────────────────────────────────────

class Terminated(BaseException):
    """SIGTERM came."""


def out(data: "Union[str, bytes]") -> None:
    """Writes a result to stdout, all of it; one that cannot be written is an error."""
    try:
        if isinstance(data, str):
            encoding = sys.stdout.encoding or "utf-8"
            sys.stdout.write(data.encode(encoding, "backslashreplace").decode(encoding))
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError) as error:
        try:  # else Python tries once more at its end, and complains in its own words
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (AttributeError, OSError, ValueError):
            pass
        raise Unreachable("the output could not be written: %s" % (getattr(error, "strerror", None) or "stdout is closed")) \
            from None


def out_json(value: "Any") -> None:
    out(json.dumps(value, indent=2) + "\n")


def guarded(work: "Callable[[], Optional[int]]") -> int:
    """The exit code of a command; what goes wrong is one line on stderr."""
    try:
        return work() or 0
    except AuthError as error:
        code, text = error.exit_code, str(error)
    except ImportError as error:  # python3-minimal
        code, text = 2, "this Python lacks the module %s; install the whole of it (Debian: apt install python3)" % error.name
    except OSError as error:
        code, text = 4, "%s: %s" % (visible(error.filename or "the system says"), error.strerror or error)
    except KeyboardInterrupt:
        code, text = 130, "interrupted"
    except Terminated:
        code, text = 143, "terminated"
    terminal = Terminal()
    terminal.say("cliauth: " + text)
    return code


def command_login(client: Client, args: "argparse.Namespace") -> None:
    client.login("device" if getattr(args, "device", False) else args.flow, args.timeout, not args.no_browser)
    if args.json:
        out_json(client.status())


def command_token(client: Client, args: "argparse.Namespace") -> "Optional[int]":
    if args.format == "git":
        return git_credential(client, args)
    name = "id_token" if args.id_token else "access_token"
    token = client.usable(args.min_ttl, args.login, name)
    end = token.get("expires_at") if name == "access_token" else claims_of(token).get("exp")
    if args.format == "json":
        out_json({name: token[name], "token_type": "Bearer", "expires_at": end, "scope": token.get("scope", "")})
    elif args.format == "kubectl":
        out_json(exec_credential(token[name], number(end), os.environ.get("KUBERNETES_EXEC_INFO", "")))
    else:
        out(("Authorization: Bearer %s\n" if args.format == "header" else "%s\n") % token[name])
    return 0


def exec_credential(token: str, end: "Optional[float]", info: str) -> "Json":
    """Kubernetes' ExecCredential, in the version that kubectl asks for."""
    try:
        version = parse_json(info.encode())["apiVersion"]
    except (ValueError, KeyError, TypeError):
        version = "client.authentication.k8s.io/v1"
    until = {} if end is None else {"expirationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))}
    return {"apiVersion": version, "kind": "ExecCredential", "status": {"token": token, **until}}


def git_credential(client: Client, args: "argparse.Namespace") -> int:
    """Answers git's `get` for the provider's own host alone (gitcredentials(7)); git asks others for the rest."""
    asked = dict(line.partition("=")[::2] for line in sys.stdin.read(BODY_LIMIT).split("\n")) if sys.stdin else {}
    settings = client.settle((client.read() or NEW)["settings"])
    home_url = settings.get("issuer") or settings.get("authorization_endpoint") or ""
    try:
        wanted = split_url("%s://%s" % (asked.get("protocol"), asked.get("host")), "git's address")
        if args.operation == "get" and wanted[:3] == split_url(home_url, "the provider's address")[:3]:
            out("username=oauth2\npassword=%s\n" % client.usable(args.min_ttl, args.login)["access_token"])
    except UsageError:
        pass  # plain http, or no address at all: nothing of ours
    return 0


def command_status(client: Client, args: "argparse.Namespace") -> int:
    facts = client.status()
    if args.json:
        out_json(facts)
    elif not facts["signed_in"]:
        raise LoginRequired("nobody is signed in as %s; %s" % (client.profile, client.hint()))
    else:
        until = when(facts["expires_at"]) + (", then refreshed" if facts["refreshable"] else "")
        rows = [("profile", facts["profile"]), ("account", facts["account"]), ("issuer", facts["issuer"]),
                ("client", facts["client_id"]), ("flow", facts["flow"]), ("scope", facts["scope"]), ("until", until)]
        rows += [(name, value) for name, value in facts["extra"].items() if isinstance(value, (str, int))]
        user = facts["extra"].get("user")
        rows += [("user", json.dumps(user))] if user else []
        out("".join("%-12s %s\n" % (visible(name, 40), visible(value)) for name, value in rows if value not in (None, "")))
    return 0 if facts["signed_in"] else LoginRequired.exit_code


def command_userinfo(client: Client, args: "argparse.Namespace") -> None:
    client.access_token(login=args.login)
    out_json(client.userinfo())


def command_request(client: Client, args: "argparse.Namespace") -> int:
    """Calls an API; on a 401 once more with a fresh token (RFC 6750 §3.1)."""
    if len(args.url) > 2:
        raise UsageError("request takes a method and an address; run: %s request --help" % COMMAND)
    body = request_body(args.data)
    method, url = (["GET" if body is None else "POST"] + args.url)[-2:]
    headers = request_headers(args.header)
    for again in (False, True):
        headers["Authorization"] = "Bearer " + client.access_token(login=args.login)
        raw = Http(client.settle((client.file and client.read() or NEW)["settings"]), client.terminal.trace).open(
            method.upper(), url, body, headers)
        if raw.status != 401 or again or not renewable(client):
            break
        raw.close()
        client.refresh()
    if args.include:
        out("HTTP/1.1 %d %s\n%s\n" % (raw.status, raw.reason, "".join("%s: %s\n" % pair for pair in raw.headers.items())))
    copy_body(raw)
    if raw.status >= 300:
        client.terminal.note("cliauth: HTTP %d %s%s" % (raw.status, visible(raw.reason, 80), ", Location: %s" % visible(
            raw.headers["Location"], 300) if raw.headers.get("Location") else ""))
    return 4 if raw.status >= 500 else 1 if raw.status >= 400 else 0


def renewable(client: Client) -> bool:
    return not os.environ.get("CLIAUTH_ACCESS_TOKEN") and bool(client.status()["refreshable"])


def request_body(data: "Optional[str]") -> "Optional[bytes]":
    """-d as curl has it: the text itself, @FILE, or @- for stdin."""
    if data is None or not data.startswith("@"):
        return None if data is None else data.encode("utf-8", "surrogateescape")
    try:
        if data == "@-":
            return sys.stdin.buffer.read()
        with open(data[1:], "rb") as file:
            return file.read()
    except (AttributeError, OSError) as error:
        raise UsageError("%s cannot be read: %s" % (visible(data), getattr(error, "strerror", "stdin is closed"))) from None


def request_headers(lines: "List[str]") -> "Dict[str, str]":
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not re.match(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", name) or re.search(r"[^\t -~]", value):
            raise UsageError("-H takes 'Name: value', of printable ASCII")
        if name.lower() == "authorization":
            raise UsageError("-H cannot set Authorization: that is where the token goes")
        headers[name] = value.strip()
    return headers


def copy_body(raw: "Any") -> None:
    """The body to stdout as it comes, of any size."""
    from http.client import HTTPException
    try:
        while True:
            chunk = raw.read(1 << 16)
            if not chunk:
                break
            out(chunk)
        if raw.length:
            raise Unreachable("the answer was cut short; try again")
    except (OSError, HTTPException) as error:
        raise Unreachable("the answer was cut short: %s; try again" % visible(error)) from None
    finally:
        raw.close()


def command_refresh(client: Client, args: "argparse.Namespace") -> None:
    client.refresh()
    if args.json:
        out_json(client.status())


def command_logout(client: Client, args: "argparse.Namespace") -> None:
    clients = [Client(profile=name, terminal=client.terminal) for name in profile_names()] if args.all else [client]
    for each in clients:
        settings = each.settle((each.read() or NEW)["settings"]) if args.browser else {}
        address = endpoint(settings, (each.read() or NEW)["metadata"], "end_session_endpoint") if args.browser else ""
        each.logout(args.forget)
        if args.browser and not address:
            each.terminal.note("The provider has no end_session_endpoint; sign out in the browser.")
        elif address:
            address = with_query(address, {"client_id": settings.get("client_id")})
            each.terminal.say("To sign out in the browser too, open this address:\n\n    %s\n" % address)
            if each.terminal.browser()[0]:
                each.terminal.open_browser(each.terminal.browser()[0], address)


def command_list(client: Client, args: "argparse.Namespace") -> None:
    current, rows = current_profile(), []
    for name in profile_names():
        try:
            facts = described(name, TokenFile(profile_path(name)).read())
        except UsageError as error:
            client.terminal.note("cliauth: %s" % error)
            continue
        rows.append({"current": name == current, **{key: facts[key] for key in (
            "profile", "signed_in", "account", "issuer", "client_id")}})
    if args.json:
        return out_json(rows)
    out("".join("%s %s  %s\n" % ("*" if row["current"] else " ", row["profile"], visible(
        row["account"] or "signed in") if row["signed_in"] else "signed out") for row in rows))


def command_switch(client: Client, args: "argparse.Namespace") -> None:
    if args.name not in profile_names():
        raise UsageError("there is no profile %s; there are: %s" % (
            visible(args.name, 80), ", ".join(profile_names()) or "none yet, run: %s login" % COMMAND))
    make_current(args.name)


def command_demo(client: Client, args: "argparse.Namespace") -> None:
    run_demo("device" if args.device else "browser", args.yes, client.terminal)


JSON = ("--json", {"action": "store_true", "help": "print the facts as JSON"})
SIGN_IN = ("--login", {"action": "store_true", "help": "sign in first where that is needed"})

# The commands: what does the work, one line of help, an example, and the options as argparse takes them.
COMMANDS: "Dict[str, Tuple[Any, str, str, List[Tuple[str, Json]]]]" = {
    "login": (command_login, "sign in, and keep the tokens and settings", "login --issuer https://id.example.com "
              "--client-id my-cli --scope 'openid offline_access'", [
        ("--issuer", {"metavar": "URL", "help": "the provider, found by discovery"}),
        ("--provider", {"metavar": "NAME", "help": "a provider without usable discovery: " + ", ".join(PROVIDERS)}),
        ("--client-id", {"metavar": "ID"}),
        ("--client-secret-file", {"metavar": "FILE", "help": "the client secret, - for stdin; or CLIAUTH_CLIENT_SECRET"}),
        ("--client-auth", {"choices": ("none", "post", "basic"), "help": "how the secret is sent; else by the metadata"}),
        ("--client-assertion-file", {"metavar": "FILE", "help": "a JWT instead of a secret, read afresh each time"}),
        ("--scope", {"metavar": "'A B'"}), ("--audience", {"metavar": "A"}),
        ("--param", {"metavar": "NAME=VALUE", "action": "append", "help": "for requests that begin a sign-in; repeatable"}),
        ("--resource", {"metavar": "URI", "action": "append", "help": "RFC 8707; repeatable"})] + [
        ("--%s-endpoint" % name, {"metavar": "URL", "help": "beats discovery, or stands in for it"}) for name in (
            "authorization", "token", "device-authorization", "revocation", "userinfo", "end-session")] + [
        ("--flow", {"choices": ("auto", "browser", "device", "paste", "client-credentials"), "default": "auto"}),
        ("--device", {"action": "store_true", "help": "--flow device"}),
        ("--no-browser", {"action": "store_true", "help": "print the address, open nothing, still listen"}),
        ("--no-pkce", {"action": "store_true", "help": "for a server that refuses PKCE; needs a client secret"}),
        ("--redirect-uri", {"metavar": "URI", "action": "append", "help": "as registered; repeatable, tried in order; port 0 is "
                            "any free one (default: %s)" % REDIRECT_URIS[0]}),
        ("--timeout", {"metavar": "S", "type": float, "default": LOGIN_TIMEOUT, "help": "seconds for all of it (default: 300)"}),
        ("--ca-file", {"metavar": "FILE"}), ("--client-cert", {"metavar": "FILE"}), ("--client-key", {"metavar": "FILE"}),
        JSON]),
    "token": (command_token, "print an access token that is valid now", "token --format header | curl -H @- URL", [
        ("operation", {"nargs": "?", "help": "with --format git: get, store or erase"}),
        ("--format", {"choices": ("token", "header", "json", "kubectl", "git"), "default": "token"}),
        ("--id-token", {"action": "store_true", "help": "the ID token instead"}),
        ("--min-ttl", {"metavar": "S", "type": float, "default": 60, "help": "seconds it must have left (default: 60)"}),
        SIGN_IN]),
    "status": (command_status, "who is signed in, where, until when", "status --json", [JSON]),
    "userinfo": (command_userinfo, "what the provider says of you", "userinfo", [SIGN_IN]),
    "request": (command_request, "call an API with the token", "request https://api.example.com/me", [
        ("url", {"nargs": "+", "metavar": "[METHOD] URL"}),
        ("-d", {"dest": "data", "metavar": "DATA", "help": "the body: a text, @FILE, or @- for stdin"}),
        ("-H", {"dest": "header", "metavar": "'Name: value'", "action": "append", "default": []}),
        ("-i", {"dest": "include", "action": "store_true", "help": "print the response's headers too"}), SIGN_IN]),
    "refresh": (command_refresh, "get new tokens now", "refresh", [JSON]),
    "logout": (command_logout, "revoke the tokens and delete them", "logout --forget", [
        ("--forget", {"action": "store_true", "help": "remove the settings too"}),
        ("--all", {"action": "store_true", "help": "every profile"}),
        ("--browser", {"action": "store_true", "help": "end the browser's session at the provider too"})]),
    "list": (command_list, "the profiles, the current one marked", "list", [JSON]),
    "switch": (command_switch, "make another profile the current one", "switch acme", [("name", {"metavar": "NAME"})]),
    "demo": (command_demo, "see a whole sign-in: no account, no network", "demo --yes", [
        ("--device", {"action": "store_true", "help": "the device flow"}),
        ("--yes", {"action": "store_true", "help": "play the person too"})]),
}


def settings_of(args: "argparse.Namespace") -> "Json":
    """The settings among login's options, by their names in the token file."""
    settings = {name: getattr(args, name) for name in OPTIONS if getattr(args, name, None)}
    if getattr(args, "client_secret_file", None):
        settings["client_secret"] = read_text(args.client_secret_file, "--client-secret-file")
    for pair in settings.get("param", []):
        if "=" not in pair:
            raise UsageError("--param takes NAME=VALUE, not %s" % visible(pair, 80))
    if "param" in settings:
        settings["param"] = dict(pair.split("=", 1) for pair in settings["param"])
    if getattr(args, "no_pkce", False):
        settings["pkce"] = False
    return settings


def client_of(args: "argparse.Namespace") -> Client:
    return Client(profile=getattr(args, "profile", ""), token_file=getattr(args, "token_file", ""), terminal=Terminal(
        getattr(args, "quiet", False), getattr(args, "verbose", False)), **settings_of(args))


def add_commands(subparsers: "Any", client: "Optional[Client]" = None,
                 names: "Iterable[str]" = ("login", "logout", "status", "token"), **keywords: "Any") -> None:
    """Mounts commands into a program's own argparse; each sets args.func, called as args.func(args), the exit code."""
    for name in names:
        work, words_, example, options = COMMANDS[name]
        parser = subparsers.add_parser(name, help=words_, description=words_[0].upper() + words_[1:] + ".",
                                       epilog="example: %s %s" % (COMMAND, example), **keywords)
        for option, details in options:
            parser.add_argument(option, **details)
        parser.set_defaults(func=lambda args, work=work: guarded(lambda: work(client or client_of(args), args)))


def build_parser() -> "argparse.ArgumentParser":
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> "Any":
            """One line, which echoes no value: it might be a secret on its way to the wrong place."""
            message = re.sub(r"(invalid \w+( value)?): .*?( \(choose|\Z)", r"\1\3", message, flags=re.DOTALL)
            raise UsageError("%s; run: %s --help" % (message, self.prog))

    shared = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    for names, details in (
            (("--profile",), {"metavar": "NAME", "help": "another profile than the current one"}),
            (("--token-file",), {"metavar": "FILE", "help": "this token file, whatever the profile"}),
            (("-v", "--verbose"), {"action": "store_true", "help": "the HTTP exchange on stderr, without secrets"}),
            (("-q", "--quiet"), {"action": "store_true", "help": "only what is needed to go on"})):
        shared.add_argument(*names, **details)
    parser = Parser(prog=COMMAND, parents=[shared], allow_abbrev=False, description="Sign in from the command line: OAuth 2.0 "
                    "and OpenID Connect.", epilog="example: %s login --issuer URL --client-id ID" % COMMAND)
    parser.add_argument("--version", action="version", version="cliauth %s (Python %s)" % (__version__, sys.version.split()[0]))
    add_commands(parser.add_subparsers(dest="command", metavar="COMMAND"), None, COMMANDS, parents=[shared],
                 allow_abbrev=False)
    return parser


def run(argv: "List[str]") -> int:
    if argv == ["token"]:  # the command that runs a thousand times for each sign-in does without a parser
        out(Client().access_token() + "\n")
        return 0
    parser = build_parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        raise UsageError("unknown: %s; run: %s --help" % (", ".join(
            visible(word.split("=")[0], 40) for word in unknown if word.startswith("-")) or "an argument too many", COMMAND))
    if not args.command:
        parser.print_help()
        return 0
    return int(args.func(args))


def main(argv: "Optional[List[str]]" = None) -> int:
    """The command line; the exit code as the README has it. Never raises, but for the SystemExit of --help."""
    for descriptor in range(3):  # or the token file would get the number of a closed stderr
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    import signal

    def terminate(number: int, frame: "Any") -> None:
        raise Terminated

    before = None
    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread
        pass
    try:
        return guarded(lambda: run(list(sys.argv[1:] if argv is None else argv)))
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    if sys.argv[0].endswith(".py"):
        COMMAND = "python3 " + os.path.basename(sys.argv[0])
    sys.exit(main())
