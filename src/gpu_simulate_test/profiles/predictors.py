"""The predictors that a profile allows, and the range it covers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from gpu_simulate_test.engine import COMPOSITION
from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.latency.iterations import fit_iterations
from gpu_simulate_test.latency.kernels import KernelModel, pipeline
from gpu_simulate_test.latency.model import LatencyModel, batches_of
from gpu_simulate_test.latency.noise import Noise
from gpu_simulate_test.latency.operators import OperatorModel, operator_pipeline
from gpu_simulate_test.profiles.bundle import Profile


@dataclass(frozen=True)
class Predictors:
    """A profile's latency models, fitted once, and the range it covers.

    Attributes
    ----------
    operators : LatencyModel or None
        None where the engine's operators cannot be called by themselves; with a pipeline, `Pipelined`.
    iterations : LatencyModel or None
        Of whole iterations: fitted to measured ones, or the sum of kernels; with a pipeline, `Pipelined`. None where
        a profile has operators alone.
    noise : Noise or None
        How measured iterations scattered; None where none were measured.
    low, high : mapping of str to float
        By column of a composition.
    """

    operators: LatencyModel | None
    iterations: LatencyModel | None
    noise: Noise | None
    low: Mapping[str, float]
    high: Mapping[str, float]

    @classmethod
    def from_profile(cls, profile: Profile) -> "Predictors":
        """Fit on a loaded bundle; a fraction of a second."""
        layers, stages = int(profile.meta["num_layers"]), profile.meta.get("pipeline_parallel", 1)
        operators, nothing = None, dict.fromkeys(COMPOSITION, 0)
        if profile.mlp is not None and profile.attention is not None:
            operators = OperatorModel(profile.mlp, profile.attention, layers)
            if profile.kernels is None and profile.iteration is None:
                high = operators.high()
                whole = operator_pipeline(profile.mlp, profile.attention, layers, stages) if stages > 1 else operators
                return cls(whole, None, None, nothing, high)
        if profile.kernels is not None:
            kernels = KernelModel(operators, profile.kernels, layers)
            iterations = kernels if stages == 1 else pipeline(profile.kernels, stages, layers)
            return cls(operators, iterations, None, nothing, kernels.high())
        assert profile.iteration is not None and profile.noise is not None  # a bundle has these or kernels
        return replace(cls.fit(operators, profile.iteration), noise=Noise(profile.noise))

    @classmethod
    def fit(cls, operators: OperatorModel | None, points: pd.DataFrame) -> "Predictors":
        """Fit the iteration model on measured `points`."""
        low, high = ({name: float(end(points[name])) for name in COMPOSITION} for end in (np.min, np.max))
        return cls(operators, fit_iterations(points, operators), None, low, high)

    def model(self, name: str) -> LatencyModel:
        """The iteration model, which a calibration adds to, or for any other ``vidur.predictor.name`` the operators.

        Raises
        ------
        ArtifactError
            The profile has no operator tables, or nothing else.
        """
        if name in ("iteration", "calibrated"):
            if self.iterations is None:
                raise ArtifactError(
                    "the profile has operators alone, no whole iterations and no kernels: vidur/predictor=iteration "
                    "needs them; take operators_only or stock"
                )
            return self.iterations
        if self.operators is None:
            raise ArtifactError(
                f"the profile has no operator tables: vidur/predictor={name} needs them; take iteration"
            )
        return self.operators

    def cover(self, batches: pd.DataFrame) -> np.ndarray:
        """True where every quantity of a batch lies within the profiled range, shape (n_batches,)."""
        inside = [batches[name].between(self.low[name], self.high[name]) for name in COMPOSITION]
        return np.asarray(np.logical_and.reduce(inside), dtype=bool)

    def predict_table(self, points: pd.DataFrame) -> np.ndarray:
        """Predicted times, ns, of the rows of an iteration table, shape (n,)."""
        model = self.model("iteration")
        return np.array([model.step_ns(batch, 0.0) for batch in batches_of(points)])
