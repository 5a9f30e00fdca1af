"""What the tests have done in a child process."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any


def work(given: dict[str, Any], answer: Callable[[Any], None]) -> None:
    if "killed_by" in given:
        os.kill(os.getpid(), signal.Signals[given["killed_by"]])
    if given.get("raises"):
        raise ValueError("a bug")
    time.sleep(given.get("seconds", 0))
    print("what is printed is no answer")
    answer({**given, "process": os.getpid(), "folder": os.getcwd(), "variable": os.environ.get("GST_TEST")})
    if "exits" in given:
        os._exit(given["exits"])
