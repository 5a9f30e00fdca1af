"""The calibration of a bundle, ``calibration.json``: constants learned from real runs, with what is known of them."""

from typing import Any

from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.latency.calibration import NAMES, Constants
from gpu_simulate_test.profiles.bundle import CALIBRATION, Profile

_HALF = 2.576  # deviations of a normal distribution: 95 % for five constants together (Bonferroni) are 99 % for each


def calibrated_constants(profile: Profile) -> tuple[Constants, Constants]:
    """The constants of a profile, and their standard deviations: 0 of one that was not told from noise.

    Raises
    ------
    ArtifactError
        It was not calibrated, or the file is malformed.
    """
    if profile.calibration is None:
        raise ArtifactError(
            f"the profile is not calibrated: {profile.path}; run vidur-profile with calibration.real_run_dir"
        )
    try:
        found = profile.calibration["constants"]
        values = Constants(**{name: float(found[name]["value"]) for name in NAMES})
        return values, Constants(**{name: _deviation(found[name]) for name in NAMES})
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"malformed: {profile.path / CALIBRATION}: {error}; run vidur-profile again") from error


def _deviation(constant: dict[str, Any]) -> float:
    return (float(constant["high"]) - float(constant["low"])) / 2 / _HALF if constant["found"] else 0.0
