"""oauth2-cli-auth, which keeps no token: the file and the look at its end are the program's own."""

import json
import sys
import time

from oauth2_cli_auth import OAuth2ClientInfo, refresh_access_token

issuer = sys.argv[1]
client_info = OAuth2ClientInfo(issuer + "/authorization", issuer + "/token", "demo", None, ["email"])
with open("response.json") as file:
    token = json.load(file)
if token["expires_at"] < time.time() + 60:
    token = refresh_access_token(client_info, token["refresh_token"])
    with open("response.json", "w") as file:
        json.dump({**token, "expires_at": time.time() + token["expires_in"]}, file)
print(token["access_token"])
