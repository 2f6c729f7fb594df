"""The least that urllib needs for the POST of a refresh. It keeps nothing."""

import json
import ssl
import sys
from urllib.parse import urlencode
from urllib.request import urlopen

url, ca_file = sys.argv[1:]
form = {"grant_type": "refresh_token", "refresh_token": "any", "client_id": "demo"}
with urlopen(url, urlencode(form).encode(), context=ssl.create_default_context(cafile=ca_file)) as answer:  # noqa: S310
    print(json.load(answer)["access_token"])
