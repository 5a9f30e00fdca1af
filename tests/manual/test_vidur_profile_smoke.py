"""vidur-profile on the baseline: a complete bundle of the device, checked on iterations it has not seen."""

from gpu_simulate_test.io.run_dir import read_run_meta
from gpu_simulate_test.profiles.bundle import bundle_dir, read_bundle
from tests.manual import CONFIG, MODEL_ID, device_name, need_device, need_model_files, run_stage


def test_the_bundle_is_complete() -> None:
    need_model_files()
    need_device()
    root = run_stage("vidur-profile")
    meta = read_run_meta(root)
    assert meta["run_type"] == "vidur_profile"
    assert meta["profiling_root"] == str(root)
    profile = read_bundle(bundle_dir(root, CONFIG.hardware.name, MODEL_ID))  # refuses empty tables and empty fields
    assert profile.meta["model_id"] == MODEL_ID
    assert (profile.meta["backend"], profile.meta["dtype"]) == ("transformers", CONFIG.hardware.dtype)
    assert profile.meta["engine"]["details"]["device_name"] == device_name()
    assert len(profile.mlp) + len(profile.attention) == profile.meta["operators"]["points"]
    assert len(profile.iteration) == profile.meta["iterations"]["points"]
    assert (profile.mlp.filter(like=".median") > 0).all(axis=None)
    assert (profile.iteration["median_ns"] > 0).all()
    assert meta["held_out"]["iterations"] > 0
