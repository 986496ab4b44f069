"""Write the pins with the hashes of their files, from pip's report of what it would install: stdin to stdout.

The hashes are of the files for this platform and this Python: `pip install --require-hashes -r FILE`.
"""

import json
import sys

for one in sorted(json.load(sys.stdin)["install"], key=lambda one: one["metadata"]["name"].lower()):
    name, version = one["metadata"]["name"], one["metadata"]["version"]
    hashes = one["download_info"].get("archive_info", {}).get("hashes")
    if hashes:  # this package itself has none
        print(f"{name}=={version} --hash=sha256:{hashes['sha256']}")
