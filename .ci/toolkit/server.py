"""An authorization server as a Django site has it: django-oauth-toolkit under /o/, Django's own log-in page.

    server.py LOG

Like provider/server.mjs it prints one line of JSON with its issuer as soon as it listens, ends when its
standard input does, and writes one line of JSON for each request to LOG before the answer leaves. Its
database lies beside LOG.
"""

import json
import os
import sys
from pathlib import Path
from threading import Thread

import django
from django.conf import settings
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from django.urls import include, path
from jwcrypto.jwk import JWK

LOG = Path(sys.argv[1])
BROWSER, DEVICE = "authorization-code", "urn:ietf:params:oauth:grant-type:device_code"
LOOPBACK = "http://127.0.0.1/callback http://[::1]/callback"
CLIENTS = [  # each may sign in in one way only, so the device flow needs a client of its own
    ("native-cli", "public", BROWSER, LOOPBACK),
    ("paste-cli", "public", BROWSER, "https://localhost:9000/callback"),
    ("device-cli", "public", DEVICE, ""),
    ("basic-cli", "confidential", BROWSER, LOOPBACK),
    ("post-cli", "confidential", BROWSER, LOOPBACK),
    ("robot-cli", "confidential", "client-credentials", ""),
]


def recorded(respond):
    def middleware(request):
        response, sent = respond(request), request.headers.get("Authorization", "")
        answer = json.loads(response.content) if response.content[:1] == b"{" else {}
        line = {"path": request.path, "status": response.status_code, "authorization": sent}
        with LOG.open("a") as log:
            log.write(json.dumps({**line, "params": request.POST.dict(), "answer": answer}) + "\n")
        return response

    return middleware


server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
site = f"http://127.0.0.1:{server.server_port}"
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": LOG.with_name("database")}},
    INSTALLED_APPS=[f"django.contrib.{app}" for app in ("admin", "auth", "contenttypes", "sessions")]
    + ["oauth2_provider"],
    LOGGING_CONFIG=None,
    LOGIN_URL="/admin/login/",
    MIDDLEWARE=[
        "__main__.recorded",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    OAUTH2_PROVIDER={
        "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,  # these two will be its defaults
        "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": True,
        "DEFAULT_SCOPES": ["read"],
        "DEVICE_FLOW_INTERVAL": 1,
        "OAUTH_DEVICE_VERIFICATION_URI": f"{site}/o/device/",
        "OAUTH_DEVICE_VERIFICATION_URI_COMPLETE": lambda user_code: f"{site}/o/device/?user_code={user_code}",
        "OIDC_ENABLED": True,
        "OIDC_RSA_PRIVATE_KEY": JWK.generate(kty="RSA", size=2048).export_to_pem(True, None).decode(),
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
        "SCOPES": {"openid": "Who you are", "read": "Read"},
    },
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # quick
    ROOT_URLCONF="__main__",
    SECRET_KEY="not a secret: this server is thrown away",  # noqa: S106
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    USE_TZ=True,
)
django.setup()

from django.contrib import admin  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from oauth2_provider.models import Application  # noqa: E402
from oauth2_provider.urls import metadata_urlpatterns  # noqa: E402

urlpatterns = [
    path("admin/", admin.site.urls),
    path("o/", include("oauth2_provider.urls")),
    path("", include((metadata_urlpatterns, "metadata"))),  # where RFC 8414 §3.1 has it for the issuer …/o
]

call_command("migrate", verbosity=0)
User.objects.create_superuser("ada", password="any will do")  # noqa: S106
for client_id, client_type, grant_type, redirect_uris in CLIENTS:
    Application.objects.create(
        client_id=client_id,
        client_secret=f"a:secret/of {client_id} with %41+&=signs",  # encoded before it goes into Basic
        client_type=client_type,
        authorization_grant_type=grant_type,
        redirect_uris=redirect_uris,
        algorithm="RS256",
    )

server.set_app(get_wsgi_application())
Thread(target=server.serve_forever, daemon=True).start()
metadata = f"{site}/o/.well-known/openid-configuration"
print(json.dumps({"issuer": f"{site}/o", "metadata": metadata}), flush=True)
sys.stdin.read()
os._exit(0)  # whatever is still being answered
