"""The tests of tests/gpu on the GPU, and compute-sanitizer on the kernels (both at the same time).

compute-sanitizer runs `sanitized.py`, if it is on PATH. `--tiny` runs only a few of the tests.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from gpu.common import ROOT, Section

TESTS = ["tests/gpu", "-n", "4"]  # in four processes of pytest-xdist
TINY_TESTS = ["tests/gpu/test_wavelet.py", "-k", "several_levels or huge"]
# The filters of pyproject.toml name a package that a GPU machine lacks.
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--override-ini", "filterwarnings=", "--tb=line"]
SANITIZER = ["compute-sanitizer", "--tool", "memcheck", "--report-api-errors", "no", "--error-exitcode", "9"]
FOUND = "ERROR SUMMARY"  # line of compute-sanitizer's report


def main() -> None:
    """Run both; print a line for each and one for every failure; fail if a test failed or the sanitizer found an error."""
    section = Section("tests", __doc__)
    with tempfile.TemporaryDirectory() as folder:
        report, log = Path(folder) / "report.xml", Path(folder) / "sanitizer.log"
        with log.open("w") as file:
            sanitizer = start_sanitizer(section, file.fileno())
            command = [*PYTEST, f"--junitxml={report}", *(TINY_TESTS if section.tiny else TESTS)]
            code = subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode
        failed = add_results(section, report) or code
        if sanitizer is not None:
            failed = add_sanitizer(section, sanitizer, log) or failed
    if failed:
        raise SystemExit("tests: failed")


def add_results(section: Section, report: Path) -> int:
    """Add a row for each test of pytest's report, print a summary, and return the number of failures."""
    if not report.exists():
        print("pytest ended without a report")
        return 1
    cases = ET.parse(report).getroot().iter("testcase")
    for case in cases:
        problem = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        outcome, message = ("passed", "") if problem is None else (problem.tag, problem.get("message", ""))
        name = f"{case.get('classname', '').removeprefix('tests.gpu.')}.{case.get('name')}"
        section.add(test=name, outcome=outcome, seconds=float(case.get("time", 0)), message=message[:1000])
    count = {outcome: sum(row["outcome"] == outcome for row in section.rows) for outcome in ("passed", "skipped")}
    failures = [row for row in section.rows if row["outcome"] in ("failure", "error")]
    print(f"pytest: {count['passed']} passed, {count['skipped']} skipped, {len(failures)} failed")
    for row in failures[:15]:
        print(f"  {row['test'][:90]}: {' '.join(row['message'].split())[:150]}")
    return len(failures)


def start_sanitizer(section: Section, output: int) -> "subprocess.Popen[bytes] | None":
    """Start `sanitized.py` under compute-sanitizer; return None without compute-sanitizer."""
    if shutil.which(SANITIZER[0]) is None:
        section.write(sanitizer="compute-sanitizer is not on PATH")
        print("compute-sanitizer: not on PATH")
        return None
    command = [*SANITIZER, sys.executable, "-m", "gpu.sanitized"]
    env = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output)


def add_sanitizer(section: Section, process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Wait for the sanitizer, print its verdict and return its exit code; a time-out counts as no result."""
    try:
        code = process.wait(timeout=max(section.remaining(), 1))
    except subprocess.TimeoutExpired:
        process.kill()
        section.write(sanitizer="timed out")
        print("compute-sanitizer: timed out")
        return 0
    text = log.read_text(errors="replace")
    print(text[-20000:], file=sys.stderr)
    verdict = next((line for line in reversed(text.splitlines()) if FOUND in line), f"exit code {code}")
    section.write(sanitizer=verdict)
    print(f"compute-sanitizer: {verdict.strip('= ')}")
    return code


if __name__ == "__main__":
    main()
