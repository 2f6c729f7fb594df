"""google-auth-oauthlib, after the quickstarts of Google's APIs."""

import datetime
import json
import sys

from google.auth.transport.requests import Request
from google.oauth2.credentials import Credentials
from google_auth_oauthlib.flow import InstalledAppFlow

if sys.argv[3:] == ["save"]:
    with open("response.json") as file:
        response = json.load(file)
    creds = Credentials(
        response["access_token"],
        refresh_token=response["refresh_token"],
        token_uri=sys.argv[1] + "/token",
        client_id="demo",
        client_secret="none",  # noqa: S106
        expiry=datetime.datetime.fromtimestamp(response["expires_at"], datetime.UTC).replace(tzinfo=None),
    )
    with open("token.json", "w") as file:
        file.write(creds.to_json())

creds = Credentials.from_authorized_user_file("token.json", ["email"])
if not creds.valid:
    if creds.expired and creds.refresh_token:
        creds.refresh(Request())
    else:
        creds = InstalledAppFlow.from_client_secrets_file("client.json", ["email"]).run_local_server(port=0)
    with open("token.json", "w") as file:
        file.write(creds.to_json())
print(creds.token)
