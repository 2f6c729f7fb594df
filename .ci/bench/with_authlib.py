"""Authlib, whose documentation has the program keep the token: OAuth2Session(token=…, update_token=…)."""

import json
import sys

from authlib.integrations.requests_client import OAuth2Session


def update_token(token, refresh_token=None, access_token=None):
    with open("response.json", "w") as file:
        json.dump(token, file)


with open("response.json") as file:
    token = json.load(file)
session = OAuth2Session("demo", token=token, token_endpoint=sys.argv[1] + "/token", update_token=update_token)
session.ensure_active_token()
print(session.token["access_token"])
