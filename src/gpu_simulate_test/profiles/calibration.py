"""The calibration of a bundle, ``calibration.json``: constants learned from real runs, with what is known of them."""

from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.latency.calibration import NAMES, Constants
from gpu_simulate_test.profiles.bundle import CALIBRATION, Profile


def calibrated_constants(profile: Profile) -> Constants:
    """The constants of a profile.

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
        return Constants(**{name: float(found[name]["value"]) for name in NAMES})
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"malformed: {profile.path / CALIBRATION}: {error}; run vidur-profile again") from error
