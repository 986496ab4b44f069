"""Ask PyPI for known vulnerabilities of the pinned packages, by pip-audit: `audit.py requirements.txt constraints.txt`.

pip-audit calls it a success when its service knows none of the packages: here that is a failure, in one line.
"""

import json
import subprocess
import sys

command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json"]
done = subprocess.run([*command, *(f"-r{name}" for name in sys.argv[1:])], capture_output=True, text=True, check=False)
try:
    packages = json.loads(done.stdout)["dependencies"]
except ValueError:
    sys.exit(f"error: nothing was audited: {(done.stderr.splitlines() or [done.returncode])[-1]}")
for one in packages:
    for known in one.get("vulns", ()):
        print(f"{one['name']} {one['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'none'}")
skipped = [one["skip_reason"] for one in packages if "skip_reason" in one]
print(f"{len(packages) - len(skipped)} of {len(packages)} packages were audited")
if skipped:
    sys.exit(f"error: {len(skipped)} packages were not audited; the first: {skipped[0]}")
sys.exit(done.returncode)
