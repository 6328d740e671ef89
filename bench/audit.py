"""The environment of the Space -> build/sbom.json, what it is made of (CycloneDX), and what pip-audit finds in it; last a line of JSON.

Where pip-audit fails this fails. Only where its database is out of reach, which is tried before, is nothing audited and nothing wrong.
"""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import requests
from packaging.version import Version
from pip_audit._service import ConnectionError as Unreachable
from pip_audit._service import PyPIService, ResolvedDependency, ServiceError, VulnerabilityService

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT, SBOM = ROOT / ".venv", ROOT / "build" / "sbom.json"
TIMEOUT_SECONDS = 15  # as long as pip-audit waits


def reachable(database: VulnerabilityService) -> bool:
    """Whether there is a database, by something that it certainly knows; a mirror of packages alone does not. What is wrong with it otherwise, its
    certificate say, is for pip-audit to fail at.
    """
    try:
        found, _ = database.query(ResolvedDependency("pip-audit", Version(version("pip-audit"))))
    except (requests.exceptions.SSLError, ServiceError) as error:
        return not isinstance(error, Unreachable)
    except (requests.ConnectionError, requests.Timeout):
        return False
    return not found.is_skipped()


def components(environment: Path, sbom: Path) -> int:
    """Write what an environment is made of; of how many."""
    sbom.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "-o", str(sbom), str(environment / "bin" / "python")]
    subprocess.run(command, check=True)
    return len(json.loads(sbom.read_text())["components"])


def audited(environment: Path) -> int:
    """Look for vulnerabilities of what is installed there: pip-audit's exit status."""
    [packages] = environment.glob("lib/python3*/site-packages")  # of a folder that is not there pip-audit would find nothing wrong
    return subprocess.run([sys.executable, "-m", "pip_audit", "--strict", "--path", str(packages)], check=False).returncode


def main() -> int:
    figures = {"components": components(ENVIRONMENT, SBOM), "audited": reachable(PyPIService(timeout=TIMEOUT_SECONDS))}
    status = audited(ENVIRONMENT) if figures["audited"] else 0
    if not figures["audited"]:
        print("Not audited: the database cannot be reached.")
    print(json.dumps({"audit": {**figures, "status": status}}))
    return status


if __name__ == "__main__":
    sys.exit(main())
