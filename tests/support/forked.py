"""What the tests have done in a child process."""

import os
import signal
import time
from typing import Any


def work(given: dict[str, Any]) -> dict[str, Any]:
    if "killed_by" in given:
        os.kill(os.getpid(), signal.Signals[given["killed_by"]])
    if given.get("raises"):
        raise ValueError("a bug")
    time.sleep(given.get("seconds", 0))
    print("what is printed is no answer")
    return {**given, "process": os.getpid(), "folder": os.getcwd(), "variable": os.environ.get("GST_TEST")}
