"""requests-auth with its JsonTokenFileCache; it gives the token to a request, which is not sent here."""

import json
import sys

import requests
from requests_auth import JsonTokenFileCache, OAuth2, OAuth2AuthorizationCodePKCE

issuer = sys.argv[1]
OAuth2.token_cache = JsonTokenFileCache("cache.json")
auth = OAuth2AuthorizationCodePKCE(issuer + "/authorization", issuer + "/token", client_id="demo")
if sys.argv[3:] == ["save"]:
    with open("response.json") as file:
        token = json.load(file)
    # As its own flow does, for which it would open a browser.
    OAuth2.token_cache._add_access_token(auth.state, token["access_token"], token["expires_in"])
request = requests.Request("GET", "https://api.example.com/", auth=auth).prepare()
print(request.headers["Authorization"].partition(" ")[2])
