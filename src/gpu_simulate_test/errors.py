"""The errors a user can cause; each owns the exit code of its kind."""


class StageError(Exception):
    """An expected failure. Its message is one line: what is wrong: where; what to do."""

    exit_code = 1


class ConfigError(StageError):
    """A setting, an override or a prompt is wrong."""

    exit_code = 2


class ArtifactError(StageError):
    """A file or run directory is missing, incomplete, malformed or belongs elsewhere."""

    exit_code = 3


class GateError(StageError):
    """The comparison is finished and its verdict is off; only raised when asked for."""

    exit_code = 5


class MachineError(StageError):
    """The machine lacks something: a GPU, an engine, model files, space or permission."""

    exit_code = 4
