"""Asks about known vulnerabilities of the packages in a folder, by pip-audit, and says how many it could ask about.

    python .ci/audit.py FOLDER

The exit code is 1 where a package has a known vulnerability. Without a network nothing can be asked, and it is 0.
"""

from __future__ import annotations

import json
import subprocess
import sys

LIMIT = 180  # seconds


def verdict(report: dict) -> tuple[int, str]:
    """The exit code and what to print of pip-audit's JSON."""
    packages = report["dependencies"]
    asked = [each for each in packages if "skip_reason" not in each]
    found = [f"{each['name']} {each['version']}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'none'}"
             for each in asked for one in each["vulns"]]
    if not asked:
        return 0, f"audit: none of {len(packages)} packages could be asked about; is there a network?"
    known = f"audit: {len(found)} known vulnerabilities in {len(asked)} of {len(packages)} packages"
    return int(bool(found)), "\n".join([known, *found])


def main(folder: str) -> int:
    command = [sys.executable, "-m", "pip_audit", "--path", folder, "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        code, text = verdict(json.loads(done.stdout))
    except (subprocess.TimeoutExpired, ValueError) as error:
        code, text = 0, f"audit: nothing could be asked ({type(error).__name__}); is there a network?"
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
